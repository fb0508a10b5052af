"""Writing a file as a whole, or not at all."""

import contextlib
import os
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import Any


def replace(path: str | os.PathLike, parts: Iterable[Any], *, mode: int = 0o666) -> None:
    """Write bytes to a file so that at each moment it is the old one or the new one, and whole.

    Parameters
    ----------
    path : path-like
        The file.
    parts : iterable of bytes-like
        What is written, one behind the other.
    mode : int
        The rights to a new file, less those that the process gives to none.

    Raises
    ------
    OSError
        If it cannot be written. An older file stays as it was.
    """
    path = Path(path)
    temporary = path.with_name(f"{path.name}.{os.urandom(4).hex()}.part")
    try:
        try:
            with open(temporary, "xb", opener=partial(os.open, mode=mode)) as file:
                for part in parts:
                    file.write(part)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        _flush_directory(path.parent)
    except OSError as error:
        raise OSError(
            error.errno,
            f"{error.strerror or error}; what was at this path before is unchanged. Look at the space that "
            "is left and at the rights to the directory",
            str(path),
        ) from error


def _flush_directory(directory: Path) -> None:
    """Flush the new name of a file to disk, on systems where a directory can be opened."""
    if hasattr(os, "O_DIRECTORY"):
        with contextlib.suppress(OSError):  # the file is in its place
            number = os.open(directory, os.O_DIRECTORY)
            try:
                os.fsync(number)
            finally:
                os.close(number)
