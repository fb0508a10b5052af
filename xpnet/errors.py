"""The errors of xpnet's own.

Each message says what must hold, what was received and what to do. Wrong values and shapes raise the
built-in ``ValueError`` and ``TypeError``; the classes here are for what only xpnet knows about.
"""


class DeviceUnavailableError(RuntimeError):
    """A device was asked for that this machine cannot use."""


class MixedArraysError(TypeError):
    """Arrays of two libraries or two devices met in one call."""


class NoGradientError(TypeError):
    """A gradient would have been lost, or was asked for where there can be none."""


class NotRecordableError(TypeError):
    """A function that `xpnet.jit` records asked for a value, which will be another one on each replay."""
