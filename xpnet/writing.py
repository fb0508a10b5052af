"""Writing a file as a whole, or not at all."""

import contextlib
import errno
import os
import re
import stat
from collections.abc import Collection, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

_LONGEST = 255 - len(".01234567.part")  # bytes of a name that leave room for the end of a part's


def replace(path: str | os.PathLike[str], parts: Iterable[Any], *, mode: int = 0o666) -> None:
    """Write bytes to a file so that at each moment it is the old one or the new one, and whole.

    Where the path is a link, it stays one, and the file that it leads to is written. An older file's rights
    are kept, and its owner and group where the process may give files to them.

    Parameters
    ----------
    path : path-like
        The file.
    parts : iterable of bytes-like
        What is written, one behind the other.
    mode : int
        The rights to a file that was not there, less those that the process gives to none.

    Raises
    ------
    OSError
        If it cannot be written, or if what is there is no file, or one without the right to write to it.
        What is there stays as it was.
    """
    with _explained(path):
        target, old = _find(path)
        part = target.with_name(_part_name(target.name))
        # In the place of an older file, nobody else may open it before it has that one's rights.
        rights = mode if old is None else stat.S_IRUSR | stat.S_IWUSR
        try:
            with open(part, "xb", opener=partial(os.open, mode=rights)) as file:
                if old is not None:
                    _give_rights(file.fileno(), old)
                for data in parts:
                    file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.replace(part, target)
        except BaseException:
            part.unlink(missing_ok=True)
            raise
        _flush_directory(target.parent)


def check_folder(what: str, path: str | os.PathLike[str]) -> None:
    """Raise a FileNotFoundError if the folder in which a path leads to a file is not there."""
    folder = os.path.dirname(path) or "."
    if not os.path.isdir(folder):
        raise FileNotFoundError(f"{what} needs a folder that is there, received {folder}. Make it first.")


def check_path(path: str | os.PathLike[str]) -> None:
    """Raise the OSError that `replace` would raise for what is at a path, and change nothing."""
    with _explained(path):
        _find(path)


@contextlib.contextmanager
def _explained(path: str | os.PathLike[str]) -> Iterator[None]:
    """Say in an OSError what to look at."""
    try:
        yield
    except OSError as error:
        raise OSError(
            error.errno,
            f"{error.strerror or error}; what was at this path before is unchanged. Look at the space that "
            "is left, at the rights to the directory and the file, and at the path: its directory must be "
            "there, and nothing but a file may stand at it",
            str(path),
        ) from error


def _find(path: str | os.PathLike[str]) -> tuple[Path, os.stat_result | None]:
    """Return the file that a path leads to through all links, and what is known of it if it is there."""
    target = Path(os.path.realpath(Path(path)))
    if os.path.basename(path) in ("", os.curdir, os.pardir):  # "folder/", also where it is not there
        raise OSError(errno.EISDIR, os.strerror(errno.EISDIR))
    try:
        status = os.stat(path)
    except FileNotFoundError:
        return target, None
    if stat.S_ISDIR(status.st_mode):
        raise OSError(errno.EISDIR, os.strerror(errno.EISDIR))
    if not stat.S_ISREG(status.st_mode):
        raise OSError(errno.EEXIST, "A device, pipe or socket is there")
    # The right to the directory would do, but a file is protected for a reason, as `open` knows.
    os.close(os.open(target, os.O_WRONLY))
    return target, status


def _give_rights(number: int, old: os.stat_result) -> None:
    """Give an open file the owner, group and rights of an older one, as far as the process may."""
    if hasattr(os, "fchown"):  # Windows has none of them
        for owner in ((-1, old.st_gid), (old.st_uid, -1)):
            with contextlib.suppress(OSError):
                os.fchown(number, *owner)
        with contextlib.suppress(OSError):
            os.fchmod(number, old.st_mode & 0o777)


def _flush_directory(directory: Path) -> None:
    """Flush the new name of a file to disk, on systems where a directory can be opened."""
    if hasattr(os, "O_DIRECTORY"):
        with contextlib.suppress(OSError):  # the file is in its place
            number = os.open(directory, os.O_DIRECTORY)
            try:
                os.fsync(number)
            finally:
                os.close(number)


# While a file is written, it is a part: its name is that of the file, or the beginning where it would get
# too long, and an end that says so. A process that is killed leaves the part, which is known by that name.


def _part_name(name: str) -> str:
    """Return a name that no file has, for what is written to a file of this name."""
    beginning = name
    while len(os.fsencode(beginning)) > _LONGEST:  # by characters, as half of one is no text
        beginning = beginning[:-1]
    return f"{beginning}.{os.urandom(4).hex()}.part"


def _is_part(part: str, name: str, numbers: Collection[str]) -> bool:
    """Say whether `_part_name` may have made a name for a file of another name."""
    found = re.fullmatch(r"(.*)\.[0-9a-f]{8}\.part", part, re.DOTALL)
    if found is None:
        return False
    beginning = found[1]
    if len(os.fsencode(beginning)) + 4 <= _LONGEST:  # the longest character has 4 bytes
        return _is_name(beginning, name, numbers)
    return any(_is_name(beginning, name[:end], numbers) for end in range(len(name) + 1))


def _is_name(name: str, pattern: str, numbers: Collection[str]) -> bool:
    """Say whether a name is a pattern with numbers in the places that are for them."""
    expression = re.escape(pattern)
    for number in numbers:
        expression = expression.replace(re.escape(number), "[0-9]+")
    return re.fullmatch(expression, name) is not None


def remove_parts(path: str, *, numbers: Collection[str] = ()) -> None:
    """Remove what killed processes had begun to write to a path, also through links, where that can be done.

    Parameters
    ----------
    path : str
        The file.
    numbers : collection of str
        What stands in the place of numbers in the name of the file, if it is that of many.
    """
    directory, name = os.path.split(path)
    links = [file for file in _files(directory) if file.is_symlink() and _is_name(file.name, name, numbers)]
    for place in [path, *map(os.path.realpath, links)]:
        directory, name = os.path.split(place)
        for file in _files(directory):
            if _is_part(file.name, name, numbers):
                with contextlib.suppress(OSError):
                    file.unlink()


def _files(directory: str) -> list[Path]:
    """Return what is in a directory, if that can be seen."""
    with contextlib.suppress(OSError):
        return list(Path(directory).iterdir())
    return []
