"""Functions that numba compiles, and the files in which they are kept between runs.

numba has a cache of its own, but reads whatever lies in it, and stops at what is damaged. In its place each
compiled function has a file here: a digest and, behind it, what numba makes of the function, which is a
pickle. The digest is one of the pickle and of the file's name, and the name is a digest of all that the
machine code depends on. It is compared before anything is unpickled, so that what is damaged, or was compiled
for something else, is compiled and written anew.

A digest is no signature: whoever may write to the folder could have any code run. So nothing is used that
belongs to another user, or that others may write to.
"""

import hashlib
import logging
import os
import pickle
import stat
import sys
import threading
import types
from functools import cache
from pathlib import Path
from typing import Any

from xpnet.writing import replace

DIGEST = 32  # bytes, of SHA-256

_log = logging.getLogger("xpnet")
_said = False  # that a file cannot be used


def private(folder: Path) -> Path:
    """Make a folder for the files of this user alone.

    Raises
    ------
    PermissionError
        If it is there and belongs to another user, or others may write to it.
    OSError
        If it cannot be made.
    """
    folder.mkdir(mode=stat.S_IRWXU, parents=True, exist_ok=True)
    check_owner(folder, folder.stat())
    return folder


def check_owner(path: Path, status: os.stat_result) -> None:
    others = stat.S_IWGRP | stat.S_IWOTH
    # Windows gives a user's folder to no one else, and knows neither these numbers nor these bits.
    if hasattr(os, "geteuid") and (status.st_uid != os.geteuid() or status.st_mode & others):
        raise PermissionError(
            f"{path} must belong to this user, and no one else may write to it, as code is run from it. It "
            f"belongs to the user {status.st_uid} and has the mode {stat.S_IMODE(status.st_mode):o}. "
            "Make it yours, with chmod 700 for a folder or chmod 600 for a file, or remove it"
        )


def folder() -> Path:
    """Return the folder for compiled functions: ``XPNET_CACHE_DIR``, or the user's cache."""
    return private(Path(os.environ.get("XPNET_CACHE_DIR") or Path.home() / ".cache" / "xpnet") / "kernels")


class _Files:
    """The files of a function, one for each kind of arguments: what numba asks in place of its own cache.

    Whatever is wrong with a file, the function is compiled in memory as if there were none.

    Parameters
    ----------
    text : str
        The source of the function, with all that it calls.
    """

    def __init__(self, text: str) -> None:
        self._text = text

    def load_overload(self, signature: Any, target: Any) -> Any:
        """Return what was compiled for these arguments, or None."""
        try:
            from numba.core.compiler import CompileResult

            target.refresh()  # numba's tables of types, which the pickle names
            path = folder() / self._name(signature, target)
            with open(path, "rb") as file:
                check_owner(path, os.fstat(file.fileno()))
                digest, data = file.read(DIGEST), file.read()
            if digest != _digest(path.name.encode() + data):
                return None  # a new file takes its place
            return CompileResult._rebuild(target, *pickle.loads(data))
        except FileNotFoundError:
            return None
        except Exception as error:
            _say_once(error)
            return None

    def save_overload(self, signature: Any, result: Any) -> None:
        """Keep what was compiled for these arguments."""
        try:
            from numba.core.serialize import dumps

            if result.library.has_dynamic_globals:  # addresses, which are others in another run
                return
            path = folder() / self._name(signature, result.target_context)
            data = dumps(result._reduce())
            path.unlink(missing_ok=True)  # whoever made it: the new one has this user and these rights
            replace(path, [_digest(path.name.encode() + data), data], mode=stat.S_IRUSR | stat.S_IWUSR)
        except Exception as error:
            _say_once(error)

    def _name(self, signature: Any, target: Any) -> str:
        """Return the name of the file, which is another one where other machine code is needed."""
        import llvmlite
        import numba

        versions = (sys.version, numba.__version__, llvmlite.__version__)
        # The vector functions of Intel's library, which code that was compiled with them cannot do without.
        processor = (*target.codegen().magic_tuple(), getattr(numba.config, "USING_SVML", False))
        return _digest(repr((self._text, signature, processor, versions)).encode()).hex() + ".kernel"


def _digest(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


def _say_once(error: Exception) -> None:
    global _said
    if not _said:
        _said = True
        _log.warning(
            "xpnet: a loop is compiled in memory, as its file cannot be used: %s. "
            "The environment variable XPNET_CACHE_DIR names another folder for such files.",
            error,
        )


# A forked process has the locks of all threads, but only the thread that forked: what another thread held
# stays locked in it for good. So a fork waits until nobody is at work in numba. It takes these meanwhile: one
# for importing numba and handing functions to it and, once it is there, numba's own for compiling them.
lock = threading.RLock()
_locks: list[Any] = [lock]


def _before_fork() -> None:
    for each in _locks:
        each.acquire()


def _after_fork() -> None:
    for each in _locks:
        each.release()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_parent=_after_fork, after_in_child=_after_fork)


@cache
def load_numba() -> Any:
    """Import numba and return it."""
    with lock:
        import numba
        from numba.core.compiler_lock import global_compiler_lock

        if len(_locks) == 1:
            _locks.append(global_compiler_lock)
    return numba


def c_function(text: str, *arguments: str) -> Any:
    """Return the function ``kernel`` of a text as one of C, whose ``address`` is valid while it is there.

    It takes arguments of numba's types of these names, and returns an int64. It is kept between runs.
    """
    numba = load_numba()
    with lock:
        from numba.core.ccallback import CFunc

        signature = (tuple(getattr(numba.types, name) for name in arguments), numba.types.int64)
        compiled: Any = CFunc(_kernel(text), signature, {}, {"error_model": "numpy"})
        compiled._cache = _Files(text)
        compiled.compile()
    return compiled


def _kernel(text: str) -> Any:
    # A module of its own: names in machine code begin with its name, and must differ between functions.
    module = types.ModuleType(f"xpnet_kernel_{_digest(text.encode()).hex()[:16]}")
    sys.modules[module.__name__] = module
    exec(compile(text, f"<{module.__name__}>", "exec"), vars(module))
    return module.kernel
