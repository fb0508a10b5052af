"""``python -m xpnet``."""

import numpy
import pytest
from helpers import run_python

import xpnet
from xpnet.__main__ import table
from xpnet.backends import LibraryStatus

# Stands for torch and jax: importing these takes seconds.
HIDE = (
    "import importlib.util, runpy; find = importlib.util.find_spec; "
    "importlib.util.find_spec = lambda name, *rest: None if name in ('torch', 'jax') else find(name, *rest); "
    "runpy.run_module('xpnet', run_name='__main__')"
)


def test_table():
    statuses = [
        LibraryStatus("NumPy", "2.4.0", ("cpu",), None),
        LibraryStatus("array-api-strict", "2.6", ("strict", "strict:device1"), None),
        LibraryStatus("JAX", None, (), "JAX is not installed. `pip install jax` installs it."),
    ]
    assert table(statuses).splitlines() == [
        "library           version  devices",
        "NumPy             2.4.0    cpu",
        "array-api-strict  2.6      strict, strict:device1",
        "JAX               –        not usable: JAX is not installed. `pip install jax` installs it.",
    ]


def test_command():
    lines = run_python("-c", HIDE).splitlines()
    assert lines[0] == f"xpnet {xpnet.__version__}; the default device is cpu"
    assert lines[2].split() == ["library", "version", "devices"]
    assert lines[3].split() == ["NumPy", numpy.__version__, "cpu"]
    assert [line.split()[0] for line in lines[4:8]] == ["CuPy", "PyTorch", "JAX", "array-api-strict"]
    assert lines[9].startswith("MPI, for several processes: ")
    assert lines[10].startswith("NCCL, for several GPUs: ")
    assert "PyTorch is not installed. `pip install torch` installs it." in lines[5]
    assert "strict, strict:device1" in lines[7]
    for line in lines[3:]:
        assert "not usable" not in line or "pip install" in line or "nvidia-smi" in line


def test_command_as_people_type_it():
    assert run_python("-m", "xpnet").splitlines()[3].split() == ["NumPy", numpy.__version__, "cpu"]


@pytest.mark.parametrize(
    ("value", "line"),
    [
        ("strict:device1", "the default device is strict:device1"),
        ("gpu", "XPNET_DEVICE names no usable device: a device spec is one of"),
        ("strict:device9", "XPNET_DEVICE names no usable device: array-api-strict has no device"),
        (
            "torch",
            'XPNET_DEVICE names no usable device: the device "torch" was asked for, but PyTorch is not',
        ),
    ],
)
def test_default_device(value, line):
    lines = run_python("-c", HIDE, XPNET_DEVICE=value).splitlines()
    assert line in lines[0]
    assert len(lines) == 11  # the table comes all the same
