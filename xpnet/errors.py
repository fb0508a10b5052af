"""The errors of xpnet's own.

Each message says what must hold, what was received and what to do. Wrong values and shapes raise the
built-in ``ValueError`` and ``TypeError``; the classes here are for what only xpnet knows about.
"""

__all__ = [
    "DeviceLostError",
    "DeviceUnavailableError",
    "MixedArraysError",
    "NoGradientError",
    "NotRecordableError",
    "OutOfDeviceMemoryError",
    "ProcessesDisagreeError",
]

# What may be raised where values come from a file and are of a wrong kind. A device that is lost raises none.
OF_WRONG_VALUES = (ArithmeticError, AttributeError, LookupError, TypeError, ValueError)


class DeviceLostError(RuntimeError):
    """A device that was in use stopped working, and does nothing more for this process.

    Examples
    --------
    >>> import xpnet
    >>> from xpnet.errors import DeviceLostError
    >>> def train(net, x, y, path, **settings):
    ...     try:
    ...         xpnet.fit(net, x, y, callbacks=[xpnet.callbacks.Checkpoint(path)], **settings)
    ...     except DeviceLostError as error:  # start the program anew, with resume=path
    ...         raise SystemExit(f"{error} The training is in {path}.")
    """


class DeviceUnavailableError(RuntimeError):
    """A device was asked for that this machine cannot use.

    Examples
    --------
    >>> import xpnet
    >>> from xpnet.errors import DeviceUnavailableError
    >>> try:
    ...     device = xpnet.device("cuda")
    ... except DeviceUnavailableError as error:  # the message says why, and what would mend it
    ...     device = xpnet.device("cpu")
    """


class MixedArraysError(TypeError):
    """Arrays of two libraries or two devices met in one call.

    Examples
    --------
    >>> import array_api_strict
    >>> import numpy as np
    >>> import xpnet
    >>> from xpnet.errors import MixedArraysError
    >>> try:
    ...     xpnet.array_namespace(np.ones(2), array_api_strict.ones(2))
    ... except MixedArraysError:
    ...     print("two libraries")
    two libraries
    """


class NoGradientError(TypeError):
    """A gradient would have been lost, or was asked for where there can be none.

    Examples
    --------
    >>> import numpy as np
    >>> import xpnet
    >>> from xpnet.errors import NoGradientError
    >>> try:
    ...     xpnet.grad(lambda x: x * float(x))(np.asarray(2.0))
    ... except NoGradientError:
    ...     print("float() would lose the gradient")
    float() would lose the gradient
    """


class NotRecordableError(TypeError):
    """A function that `xpnet.jit` records did what would be another thing on each replay.

    It asked for a value, or for a shape that depends on values; it used an array that was computed as a size,
    an axis, a count or a bound of a slice; or it handed an array to code that is not of its namespace. The
    message names the line, and what to write there.

    Examples
    --------
    >>> import numpy as np
    >>> import xpnet
    >>> from xpnet.errors import NotRecordableError
    >>> try:
    ...     xpnet.jit(lambda x: x if x > 0 else -x)(np.asarray(2.0))
    ... except NotRecordableError:
    ...     print("use where(x > 0, x, -x)")
    use where(x > 0, x, -x)
    """


class OutOfDeviceMemoryError(MemoryError):
    """The memory of a device does not suffice. What was computed halfway is given back, and work may go on.

    Examples
    --------
    >>> import xpnet
    >>> from xpnet.errors import OutOfDeviceMemoryError
    >>> def predict(net, x, batch_size=2**16):
    ...     try:
    ...         return xpnet.predict(net, x, batch_size=batch_size)
    ...     except OutOfDeviceMemoryError:
    ...         return predict(net, x, batch_size // 2)
    """


class ProcessesDisagreeError(RuntimeError):
    """The processes of a group came to different operations, or one of them ended before the others.

    It is raised on all of them. The message names two processes, and what each of them came to.

    Examples
    --------
    >>> import xpnet
    >>> from xpnet.errors import ProcessesDisagreeError
    >>> group = xpnet.distributed.world()
    >>> def averaged(gradients):
    ...     try:
    ...         return group.mean(gradients)
    ...     except ProcessesDisagreeError as error:
    ...         raise SystemExit(f"Were the data divided evenly? {error}")
    """
