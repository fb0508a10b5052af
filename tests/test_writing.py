"""Files are written as a whole, where the path leads to, with the rights that they had."""

import os
import socket
import stat
import tempfile
from contextlib import contextmanager
from pathlib import Path

import pytest

import xpnet
from xpnet import nn
from xpnet.writing import check_path, remove_parts, replace

unix = pytest.mark.skipif(
    not hasattr(os, "fchown"), reason="rights, owners, links and pipes are those of Unix"
)
LONG = {
    "letters": "x" * 255,
    "two bytes": "é" * 127 + "x",
    "three bytes": "文" * 85,
    "four bytes": "🙂" * 63 + "xyz",
    "two and four bytes": "é" + "🙂" * 63,
}
NOBODY = 65534
NUMBERS = ("{epoch}", "{step}")


@pytest.fixture
def umask():
    before = os.umask(0o022)
    yield 0o022
    os.umask(before)


@contextmanager
def a_user(*, mode, owned):
    """Be a user other than root, who may do everything, beside a file that may be somebody else's."""
    root = os.geteuid() == 0
    with tempfile.TemporaryDirectory() as folder:  # those of pytest are in one of root's
        path = Path(folder) / "file"
        path.write_bytes(b"old")
        path.chmod(mode)
        if root:
            for place in [folder, *([path] if owned else [])]:
                os.chown(place, NOBODY, NOBODY)
            os.setegid(NOBODY)
            os.seteuid(NOBODY)
        try:
            if not path.exists():
                pytest.skip("a folder above is root's alone")
            yield path
        finally:
            if root:
                os.seteuid(0)
                os.setegid(0)


def names(directory):
    return sorted(os.listdir(directory))


def part_of(path, directory=None):
    """Write to a path, and return the part that was there meanwhile, beside it or in another directory."""
    found = []
    directory = Path(directory or path.parent)

    def content():
        found.extend(directory.glob("*.part"))
        yield b"new"

    replace(path, content())
    (part,) = found
    assert not part.exists()
    return part


def rights(path):
    return stat.S_IMODE(path.stat().st_mode)


# -- links ------------------------------------------------------------------------------------------------


def absolute(folder):
    (folder / "link").symlink_to(folder / "data" / "file")


def relative(folder):
    (folder / "link").symlink_to(Path("data", "file"))


def link_to_a_link(folder):
    (folder / "data" / "other").symlink_to("file")
    (folder / "link").symlink_to(Path("data", "other"))


def up_from_a_linked_folder(folder):
    # "elsewhere/.." is the folder that holds data/deep, and not this one.
    (folder / "data" / "deep").mkdir()
    (folder / "elsewhere").symlink_to(Path("data", "deep"))
    (folder / "link").symlink_to(Path("elsewhere", "..", "file"))


@unix
@pytest.mark.parametrize("there", [True, False], ids=["file", "dangling"])
@pytest.mark.parametrize("link", [absolute, relative, link_to_a_link, up_from_a_linked_folder])
def test_a_link_stays_a_link(tmp_path, link, there):
    (tmp_path / "data").mkdir()
    link(tmp_path)
    links = {path: os.readlink(path) for path in tmp_path.rglob("*") if path.is_symlink()}
    if there:
        (tmp_path / "data" / "file").write_bytes(b"old")
    before = names(tmp_path)
    part = part_of(tmp_path / "link", tmp_path / "data")  # on the same disk as the file
    assert part.name.startswith("file.")
    assert {path: os.readlink(path) for path in tmp_path.rglob("*") if path.is_symlink()} == links
    assert (tmp_path / "data" / "file").read_bytes() == b"new"
    assert names(tmp_path) == before


@unix
def test_all_files_go_where_a_link_leads_to(tmp_path):
    (tmp_path / "link").symlink_to("file")
    xpnet.save(nn.ReLU(), tmp_path / "link")
    xpnet.save(nn.Tanh(), tmp_path / "link")
    assert names(tmp_path) == ["file", "link"]
    assert repr(xpnet.load(tmp_path / "file")) == repr(xpnet.load(tmp_path / "link")) == "Tanh()"


@unix
def test_links_in_a_loop_are_refused(tmp_path):
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    with pytest.raises(OSError, match="symbolic links; what was at this path before is unchanged"):
        replace(tmp_path / "a", [b"new"])
    remove_parts(str(tmp_path / "a"))
    assert [os.readlink(tmp_path / name) for name in names(tmp_path)] == ["b", "a"]


@unix
def test_a_link_into_a_folder_that_is_not_there(tmp_path):
    (tmp_path / "link").symlink_to(Path("none", "file"))
    with pytest.raises(FileNotFoundError, match="its directory must be there"):
        replace(tmp_path / "link", [b"new"])
    assert names(tmp_path) == ["link"]


def test_other_names_of_a_file_keep_the_old_one(tmp_path):
    (tmp_path / "file").write_bytes(b"old")
    os.link(tmp_path / "file", tmp_path / "other")
    replace(tmp_path / "file", [b"new"])
    assert (tmp_path / "file").read_bytes() == b"new"
    assert (tmp_path / "other").read_bytes() == b"old"


# -- rights -----------------------------------------------------------------------------------------------


@unix
@pytest.mark.parametrize("mode", [0o600, 0o640, 0o666, 0o755, 0o602])
def test_the_rights_to_a_file_are_kept(tmp_path, umask, mode):
    path = tmp_path / "file"
    path.touch()
    path.chmod(mode)
    meanwhile = []

    def content():
        meanwhile.extend(rights(part) for part in tmp_path.glob("*.part"))
        yield b"new"

    replace(path, content(), mode=0o644)
    assert (rights(path), path.read_bytes()) == (mode, b"new")
    assert meanwhile == [mode]


@unix
def test_nobody_opens_a_part_before_it_has_its_rights(tmp_path, umask, monkeypatch):
    path = tmp_path / "file"
    path.touch()
    path.chmod(0o640)
    made = []
    monkeypatch.setattr(
        os, "fchmod", lambda number, mode: made.append(stat.S_IMODE(os.fstat(number).st_mode))
    )
    replace(path, [b"new"])
    assert made == [0o600]


@unix
def test_the_rights_to_the_file_of_a_link_are_kept(tmp_path):
    (tmp_path / "link").symlink_to("file")
    (tmp_path / "file").touch()
    (tmp_path / "file").chmod(0o640)
    replace(tmp_path / "link", [b"new"])
    assert rights(tmp_path / "file") == 0o640


@unix
@pytest.mark.parametrize(("mode", "expected"), [(0o666, 0o644), (0o600, 0o600)])
def test_the_rights_to_a_new_file(tmp_path, umask, mode, expected):
    replace(tmp_path / "file", [b"new"], mode=mode)
    assert rights(tmp_path / "file") == expected


@unix
@pytest.mark.skipif(hasattr(os, "geteuid") and os.geteuid() != 0, reason="only root gives files to others")
def test_root_does_not_take_a_file_from_its_owner(tmp_path):
    path = tmp_path / "file"
    path.touch()
    path.chmod(0o640)
    os.chown(path, 12345, 54321)
    replace(path, [b"new"])
    assert (path.stat().st_uid, path.stat().st_gid, rights(path)) == (12345, 54321, 0o640)


@unix
@pytest.mark.skipif(hasattr(os, "geteuid") and os.geteuid() != 0, reason="needs a file of somebody else")
def test_a_file_of_somebody_else(umask):
    with a_user(mode=0o666, owned=False) as path:
        replace(path, [b"new"])  # as its owner cannot be kept
        assert (path.stat().st_uid, rights(path), path.read_bytes()) == (NOBODY, 0o666, b"new")


@unix
@pytest.mark.parametrize("owned", [True, False])
def test_a_file_without_the_right_to_write_is_refused(owned):
    if not owned and os.geteuid() != 0:
        pytest.skip("needs a file of somebody else")
    mode = 0o444 if owned else 0o644
    with a_user(mode=mode, owned=owned) as path:
        with pytest.raises(PermissionError, match=r"unchanged.*rights to the directory and the file"):
            replace(path, [b"new"])
        assert (path.read_bytes(), names(path.parent), rights(path)) == (b"old", ["file"], mode)


def test_systems_without_rights_and_owners(tmp_path, monkeypatch):
    for name in ("fchown", "fchmod", "O_DIRECTORY", "geteuid"):
        monkeypatch.delattr(os, name, raising=False)
    for content in (b"first", b"second"):
        replace(tmp_path / "file", [content])
        assert (tmp_path / "file").read_bytes() == content


# -- what is no file --------------------------------------------------------------------------------------


def make_socket(path):
    before = os.getcwd()
    os.chdir(path.parent)  # names of sockets are short
    try:
        with socket.socket(socket.AF_UNIX) as made:
            made.bind(path.name)
    finally:
        os.chdir(before)


def make_device(path):
    try:
        os.mknod(path, 0o666 | stat.S_IFCHR, os.makedev(1, 3))
    except PermissionError:
        pytest.skip("only root makes devices, and not everywhere")


@unix
@pytest.mark.parametrize("linked", [False, True])
@pytest.mark.parametrize(
    ("make", "error"),
    [
        (Path.mkdir, IsADirectoryError),
        (lambda path: os.mkfifo(path), FileExistsError),
        (make_socket, FileExistsError),
        (make_device, FileExistsError),
    ],
    ids=["directory", "pipe", "socket", "device"],
)
def test_what_is_no_file_is_never_replaced(tmp_path, make, error, linked):
    make(tmp_path / "thing")
    before = (tmp_path / "thing").lstat()
    path = tmp_path / "thing"
    if linked:
        path = tmp_path / "link"
        path.symlink_to("thing")
    for write in (lambda: replace(path, [b"new"]), lambda: xpnet.save(nn.ReLU(), path)):
        with pytest.raises(error, match=r"unchanged.*nothing but a file may stand at it"):
            write()
    after = (tmp_path / "thing").lstat()
    assert (after.st_ino, after.st_mode, after.st_rdev) == (before.st_ino, before.st_mode, before.st_rdev)
    assert names(tmp_path) == (["link", "thing"] if linked else ["thing"])


@pytest.mark.parametrize(
    ("path", "error"),
    [
        ("", IsADirectoryError),
        (Path(), IsADirectoryError),
        (".", IsADirectoryError),
        ("..", IsADirectoryError),
        ("/", IsADirectoryError),
        ("new/", IsADirectoryError),
        ("new/.", IsADirectoryError),
        ("new/..", IsADirectoryError),
        ("file/", IsADirectoryError),
        pytest.param("file/../new", NotADirectoryError, marks=unix),
        ("file/new", OSError),  # NotADirectoryError, and on Windows FileNotFoundError
        ("none/new", FileNotFoundError),
        ("~/new", FileNotFoundError),  # "~" is a name like any other
        ("n\0w", ValueError),
        (b"new", TypeError),
        (None, TypeError),
        (1, TypeError),
    ],
    ids=repr,
)
def test_paths_that_name_no_file(tmp_path, monkeypatch, path, error):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_bytes(b"old")
    with pytest.raises(error):
        replace(path, [b"new"])
    assert names(tmp_path) == ["file"]
    assert (tmp_path / "file").read_bytes() == b"old"


def test_an_error_names_the_path_and_what_to_look_at(tmp_path):
    path = tmp_path / "none" / "file"
    with pytest.raises(
        FileNotFoundError, match=r"No such file or directory; .*its directory must be there"
    ) as found:
        replace(path, [b"new"])
    assert found.value.filename == str(path)


# -- names of parts ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", LONG.values(), ids=LONG)
def test_a_long_name(tmp_path, name):
    path = tmp_path / name
    try:
        path.touch()
        path.unlink()
    except OSError:
        pytest.skip("the names of files are shorter here")
    for _ in range(2):
        xpnet.save(nn.ReLU(), path)
        assert names(tmp_path) == [name]
    assert repr(xpnet.load(path)) == "ReLU()"
    part = part_of(path)
    assert 250 < len(os.fsencode(part.name)) <= 255
    assert part.name[:-14] == name[: len(part.name) - 14]  # whole characters


def test_a_name_that_is_too_long(tmp_path):
    with pytest.raises(OSError, match=r"unchanged"):
        replace(tmp_path / ("x" * 256), [b"new"])
    assert names(tmp_path) == []


HEAD = "x" * 230
PLACES = [  # the path of a checkpoint, and files that it writes
    ("net", ["net"]),
    ("net-{epoch}.safetensors", ["net-1.safetensors", "net-123.safetensors"]),
    ("{epoch}-{step}", ["1-10"]),
    ("net (1+1) [a-z]*.{step}", ["net (1+1) [a-z]*.7"]),
    (HEAD + "-{epoch}.safetensors", [HEAD + "-1.safetensors", HEAD + "-123.safetensors"]),
    ("{epoch}-" + HEAD + ".safetensors", ["1-" + HEAD + ".safetensors", "123-" + HEAD + ".safetensors"]),
    ("x" * 243 + "-{step}", ["x" * 243 + "-12345678901"]),
    ("x" * 239 + "{step}", ["x" * 239 + "12", "x" * 239 + "12345"]),
    *((name, [name]) for name in LONG.values()),
    ("🙂" * 59 + "-{epoch}-文", ["🙂" * 59 + "-12345-文"]),
]


@pytest.mark.parametrize(("path", "files"), PLACES, ids=range(len(PLACES)))
def test_parts_are_removed(tmp_path, path, files):
    try:
        parts = [part_of(tmp_path / name) for name in files]
    except OSError:
        pytest.skip("the names of files are shorter here")
    for part in parts:
        part.touch()
    remove_parts(str(tmp_path / path), numbers=NUMBERS)
    assert names(tmp_path) == sorted(files)


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("net-{epoch}.safetensors", "net-x.safetensors.0123abcd.part"),
        ("net-{epoch}.safetensors", "net-1.0123abcd.part"),
        ("net-{epoch}.safetensors", "net-.0123abcd.part"),
        ("net-{epoch}.safetensors", "net-{epoch}.safetensors.0123abcd.part"),
        ("net-{epoch}.safetensors", "net-1xsafetensors.0123abcd.part"),
        ("net-{epoch}", "net-1.safetensors.0123abcd.part"),
        ("net-{epoch}", "other-net-1.0123abcd.part"),
        ("net", "net.part"),
        ("net", "net.0123ABCD.part"),
        ("net", "net.0123abcd.part.txt"),
        ("net", "net.0123abcd1.part"),
        ("net", "net"),
        (HEAD + "-{epoch}.safetensors", HEAD + ".0123abcd.part"),
        (HEAD + "-{epoch}.safetensors", HEAD + "-1.safetenso.0123abcd"),
        (HEAD + "-{epoch}.safetensors", HEAD + "-best.safet.0123abcd.part"),
        (HEAD + "-{epoch}.safetensors", "y" + HEAD + "-1.safeten.0123abcd.part"),
    ],
)
def test_what_is_no_part_of_a_file_is_left(tmp_path, path, name):
    try:
        (tmp_path / name).touch()
    except OSError:
        pytest.skip("the names of files are shorter here")
    remove_parts(str(tmp_path / path), numbers=NUMBERS)
    assert names(tmp_path) == [name]


@unix
@pytest.mark.parametrize("there", [True, False], ids=["file", "dangling"])
def test_parts_beside_the_file_of_a_link_are_removed(tmp_path, there):
    (tmp_path / "data").mkdir()
    (tmp_path / "other").symlink_to(Path("data", "best"))
    (tmp_path / "net-7").symlink_to("other")
    (tmp_path / "net-x").symlink_to(Path("data", "file"))
    part = part_of(tmp_path / "net-7", tmp_path / "data")
    part.touch()
    (tmp_path / "data" / "file.0123abcd.part").touch()
    if not there:
        (tmp_path / "data" / "best").unlink()
    remove_parts(str(tmp_path / "net-{epoch}"), numbers=NUMBERS)
    assert names(tmp_path / "data") == [*(["best"] if there else []), "file.0123abcd.part"]
    assert names(tmp_path) == ["data", "net-7", "net-x", "other"]


def test_a_part_that_cannot_be_removed_is_left(tmp_path):
    left = [f"net.0000000{number}.part" for number in range(3)]
    (tmp_path / left[1]).mkdir()
    for name in (left[0], left[2]):
        (tmp_path / name).touch()
    remove_parts(str(tmp_path / "net"))
    assert names(tmp_path) == [left[1]]
    remove_parts(str(tmp_path / "none" / "net"))


def test_parts_in_the_working_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("net.0123abcd.part").touch()
    remove_parts("net")
    assert names(tmp_path) == []


def test_check_changes_nothing(tmp_path):
    check_path(tmp_path / "new")
    (tmp_path / "file").write_bytes(b"old")
    before = (tmp_path / "file").stat()
    check_path(tmp_path / "file")
    after = (tmp_path / "file").stat()
    assert (after.st_mtime_ns, after.st_ino) == (before.st_mtime_ns, before.st_ino)
    assert (tmp_path / "file").read_bytes() == b"old"
    assert names(tmp_path) == ["file"]
    with pytest.raises(IsADirectoryError):
        check_path(tmp_path)
