"""What ends all processes where one does not come: a thread that looks how long this process has waited."""

import contextlib
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

from xpnet.arrays import line_of_frame


class Watch:
    """How long this process has waited for the others of a group.

    Parameters
    ----------
    communicator : mpi4py.MPI.Comm
        Of its own, over which processes that wait tell the others so.
    timeout : float
        The seconds after which all processes are ended.

    Attributes
    ----------
    timeout : float
    """

    def __init__(self, communicator: Any, timeout: float) -> None:
        self._communicator = communicator
        self.timeout = timeout
        self._waits_since: float | None = None
        self._waiting_thread = 0
        self._thread: threading.Thread | None = None

    @contextlib.contextmanager
    def waiting(self) -> Iterator[None]:
        """Look at the time in a ``with`` block, which waits for the other processes."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._look, name="xpnet watch", daemon=True)
            self._thread.start()
        self._waiting_thread = threading.get_ident()
        self._waits_since = time.monotonic()
        try:
            yield
        finally:
            self._waits_since = None

    def end_all(self) -> None:
        """End all processes of all groups, this one among them, at once."""
        sys.stdout.flush()
        sys.stderr.flush()
        self._communicator.Abort(1)

    def _look(self) -> None:
        told: float | None = None
        while True:
            since, timeout = self._waits_since, self.timeout
            now = time.monotonic()
            if since is not None and now - since > timeout / 2 and told != since:
                told = since
                self._tell()
            if since is not None and now - since > timeout and since == self._waits_since:
                self._complain()
                self.end_all()
            time.sleep(min(timeout / 8, 1.0))

    def _tell(self) -> None:
        """Tell the others that this process waits. The messages are short, and nobody need receive them."""
        for rank in range(self._communicator.size):
            if rank != self._communicator.rank:
                self._communicator.isend(self._communicator.rank, dest=rank)

    def _complain(self) -> None:
        waiting = {self._communicator.rank}
        while self._communicator.iprobe():
            waiting.add(self._communicator.recv())
        missing = sorted(set(range(self._communicator.size)) - waiting)
        if self._communicator.rank != min(waiting):
            time.sleep(5)  # the first of them says it
        frame = sys._current_frames().get(self._waiting_thread)
        where = f", at {line_of_frame(frame)}" if frame else ""
        ranks = f"rank {missing[0]} has" if len(missing) == 1 else f"ranks {missing} have"
        print(
            f"xpnet: rank {self._communicator.rank} has waited {self.timeout:g} s for the others of its "
            f"group{where}, and {ranks} not come. All processes end. If that is no mistake, raise "
            "the group's timeout, in seconds.",
            file=sys.stderr,
        )
