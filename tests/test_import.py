"""Importing xpnet costs little, and no library is imported before it is used."""

import pytest
from helpers import run_python

OTHERS = [
    "torch",
    "jax",
    "cupy",
    "array_api_strict",
    "numba",
    "sklearn",
    "scipy",
    "matplotlib",
    "onnx",
    "tqdm",
    "einops",
    "tensorboardX",
]

FORWARD = """
import numpy, xpnet
net = xpnet.nn.Sequential(xpnet.nn.Dense(3, 2, seed=0), xpnet.nn.Dropout(seed=0), xpnet.nn.Softmax())
x = numpy.ones((4, 3), dtype="float32")
xpnet.value_and_grad(lambda net, x: xpnet.array_namespace(x).mean(net(x)))(net, x)
xpnet.to_numpy(xpnet.to_device(net.eval(), "cpu")(x))
net.summary((3,)), repr(net)
"""


def loaded_by(code):
    names = run_python("-c", f"{code}\nimport sys; print(*sys.modules)").split()
    return {name.partition(".")[0] for name in names}


@pytest.mark.parametrize("code", ["import xpnet", FORWARD], ids=["import", "forward"])
def test_other_libraries_are_not_imported(code):
    loaded = loaded_by(code)
    assert "numpy" in loaded
    assert loaded.isdisjoint(OTHERS)


def test_unusable_spec_imports_nothing():
    code = "import xpnet\ntry: xpnet.device('gpu')\nexcept ValueError: pass"
    assert loaded_by(code).isdisjoint(OTHERS)


def test_little_is_imported_besides_numpy():
    # Each of these takes as long to import as a large part of xpnet.
    costly = {"importlib.metadata", "tempfile", "unittest", "asyncio", "email.message", "socket"}
    names = run_python(
        "-c", "import numpy, sys; before = set(sys.modules); import xpnet; print(*set(sys.modules) - before)"
    )
    assert costly.isdisjoint(names.split())


def test_public_names():
    code = (
        "import xpnet, types; "
        "missing = [name for name in xpnet.__all__ if not hasattr(xpnet, name)]; "
        "assert not missing, missing; assert len(set(xpnet.__all__)) == len(xpnet.__all__); "
        "assert all(hasattr(xpnet.nn, name) for name in xpnet.nn.__all__); print('ok')"
    )
    assert run_python("-c", code) == "ok\n"
