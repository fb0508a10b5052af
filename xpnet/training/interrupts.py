"""Ctrl-C, put off until the weights are whole."""

import signal
import threading
from collections.abc import Callable
from typing import Any, Self


class Interrupts:
    """Takes note of Ctrl-C inside a ``with`` block, to be acted on where it does no harm.

    A step may write new weights over the old ones. Interrupted in between, it would leave some of them a step
    ahead of the others. A second Ctrl-C acts at once, for a step that does not end. Outside the main thread,
    which no Ctrl-C reaches, this does nothing.

    Parameters
    ----------
    and_terminate : bool, default=False
        Whether to do the same where the system asks the process to end, by SIGTERM: as which launchers of
        several processes hand Ctrl-C on. A handler of one's own is left alone.

    Attributes
    ----------
    pressed : int
        How often Ctrl-C was pressed.

    Examples
    --------
    A training of one's own, with steps that write over what they are given:

    >>> import numpy as np
    >>> import xpnet
    >>> net, optimizer, x = xpnet.nn.Dense(2, 2, seed=0), xpnet.optim.SGD(0.1), np.eye(2, dtype="float32")
    >>> def step(net, state):
    ...     gradients = xpnet.grad(lambda net: xpnet.losses.mse(net(x), x))(net)
    ...     return optimizer.update(gradients, state, net)
    >>> step, state = xpnet.jit(step, donate=("net", "state")), optimizer.init(net)
    >>> with xpnet.training.Interrupts() as interrupts:
    ...     for _ in range(100):
    ...         net, state = step(net, state)
    ...         interrupts.act()  # Ctrl-C ends the loop here, and nowhere else
    """

    def __init__(self, *, and_terminate: bool = False) -> None:
        self.pressed = 0
        self._act: Callable[..., Any] | None = None
        self._and_terminate = and_terminate and signal.getsignal(signal.SIGTERM) == signal.SIG_DFL

    def __enter__(self) -> Self:
        if threading.current_thread() is not threading.main_thread():
            self._and_terminate = False
            return self
        usual = signal.getsignal(signal.SIGINT)
        if callable(usual):
            self._act = usual
            signal.signal(signal.SIGINT, self._note)
        if self._and_terminate:
            signal.signal(signal.SIGTERM, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        if self._act is not None:
            signal.signal(signal.SIGINT, self._act)
        if self._and_terminate:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)

    def _note(self, number: int, frame: Any) -> None:
        self.pressed += 1
        if self.pressed > 1 and self._act is not None:
            self._act(number, frame)

    def act(self, *, pressed: bool = False) -> None:
        """Do what Ctrl-C usually does, if it was pressed: raise KeyboardInterrupt.

        Parameters
        ----------
        pressed : bool, default=False
            Whether it was pressed elsewhere, on another process.
        """
        if not (self.pressed or pressed):
            return
        if self._act is None:
            raise KeyboardInterrupt
        self._act(signal.SIGINT, None)
        self.pressed = 0  # somebody's own handler wants to go on
