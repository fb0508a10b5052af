"""What ends all processes where one does not come: a thread that looks how long this process has waited."""

import contextlib
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

from xpnet.arrays import line_of_frame


class Watch:
    """How long this process has waited for the others of a group.

    Parameters
    ----------
    communicator : mpi4py.MPI.Comm
    timeout : float
        The seconds after which all processes are ended.

    Attributes
    ----------
    communicator : mpi4py.MPI.Comm
        Over which processes that wait tell the others so.
    timeout : float
    problem_elsewhere : callable
        Returns what went wrong beside the processes, on GPUs, say, given the timeout; or nothing.
    """

    def __init__(self, communicator: Any, timeout: float) -> None:
        self.communicator = communicator
        self.timeout = timeout
        # The number of the operation, since when this process is in it, and the thread that waits there.
        self._waits: tuple[int, float, int] | None = None
        self.problem_elsewhere: Callable[[float], str] = lambda _timeout: ""
        self._thread: threading.Thread | None = None
        self._sent: list[Any] = []

    def begin(self, number: int) -> None:
        """Look at the time until `end`, in an operation that waits for the other processes."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._look, name="xpnet watch", daemon=True)
            self._thread.start()
        self._waits = number, time.monotonic(), threading.get_ident()

    def end(self) -> None:
        self._waits = None

    def end_all(self) -> None:
        """End all processes of all groups, this one among them, at once."""
        try:
            for file in (sys.stdout, sys.stderr):
                with contextlib.suppress(Exception):  # it may be closed, or None
                    file.flush()
        finally:
            self.communicator.Abort(1)

    def _look(self) -> None:
        told = 0
        while True:
            waits, timeout = self._waits, self.timeout
            if waits is not None:
                number, since, thread = waits
                waited = time.monotonic() - since
                if number and waited > timeout / 2 and told != number:
                    told = number
                    self._tell(number)
                if waited > timeout and waits is self._waits:
                    try:
                        self._complain(number, thread)
                    finally:
                        self.end_all()
            problem = self.problem_elsewhere(timeout)
            if problem:
                try:
                    print(f"xpnet: {problem}. All processes end.", file=sys.stderr)
                finally:
                    self.end_all()
            time.sleep(min(timeout / 8, 1.0))

    def _tell(self, number: int) -> None:
        """Tell the others that this process waits. The messages are short, and nobody need receive them."""
        own = self.communicator.rank
        others = [rank for rank in range(self.communicator.size) if rank != own]
        self._sent += [self.communicator.isend((own, number), dest=rank) for rank in others]

    def _complain(self, number: int, thread: int) -> None:
        own = self.communicator.rank
        waiting = {own}
        while number and self.communicator.iprobe():
            rank, its_number = self.communicator.recv()
            if its_number == number:
                waiting.add(rank)
        if own != min(waiting):
            time.sleep(5)  # the first of them says it
        missing = sorted(set(range(self.communicator.size)) - waiting)
        frame = sys._current_frames().get(thread)
        where = f", at {line_of_frame(frame)}" if frame else ""
        ranks = f"rank {missing[0]} has" if len(missing) == 1 else f"ranks {missing} have"
        print(
            f"xpnet: rank {own} has waited {self.timeout:g} s for the others of its group{where}, and "
            f"{ranks} not come. All processes end. If that is no mistake, raise the group's timeout, in "
            "seconds.",
            file=sys.stderr,
        )
