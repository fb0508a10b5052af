"""The threads of plans among the thread pools that threadpoolctl knows, where it is installed."""

from typing import Any

from xpnet import threads


def register() -> None:
    """Let threadpoolctl see and limit the threads of plans, as it does with those of BLAS.

    It knows a pool by the file of a library, which must be where it was loaded from: that of LLVM, in this
    case, whose code the threads run, as another process may replace the copy of OpenBLAS. Its limit is beside
    what `set_threads` says, so that this holds when the limit ends.
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
        filename_prefixes = ("libllvmlite",)

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
