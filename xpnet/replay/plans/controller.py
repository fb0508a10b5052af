"""The threads of plans among the thread pools that threadpoolctl knows, where it is installed."""

from typing import Any

from xpnet import threads
from xpnet.replay.plans import blas


def register() -> None:
    """Let threadpoolctl see and limit the threads of plans, as it does with those of BLAS.

    It knows a pool by the file of a library: by the copy of OpenBLAS, in this case, that plans call. Its
    limit is beside what `set_threads` says, so that this holds when the limit ends.
    """
    try:
        import threadpoolctl
    except ModuleNotFoundError:
        return
    if not hasattr(threadpoolctl, "register"):  # which it has from version 3.2 on
        return

    class Controller(threadpoolctl.LibController):
        """How threadpoolctl asks for, and sets, the number of threads."""

        user_api = "blas"  # they are in the place of the threads of BLAS
        internal_api = "xpnet"
        filename_prefixes = (blas.PREFIX,)

        def get_num_threads(self) -> int:
            return threads.told()

        def set_num_threads(self, num_threads: int) -> None:
            threads.limit(num_threads)

        def get_version(self) -> Any:
            from xpnet.version import __version__

            return __version__

        def set_additional_attributes(self) -> None:
            pass

    threadpoolctl.register(Controller)
