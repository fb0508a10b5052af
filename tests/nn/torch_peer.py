"""Layers beside those of PyTorch: outputs and gradients in float32, on NumPy and array-api-strict."""

import importlib.util
import math

import numpy
import pytest
from helpers import assert_on, rounding
from hypothesis import HealthCheck, settings

import xpnet

LIBRARIES = ("cpu", "strict")
TOLERANCE = rounding(100, "float32")  # relative to the largest element


def beside_torch(test):
    """Decorate a test that draws shapes, the same each time and few enough that it stays quick."""
    missing = importlib.util.find_spec("torch") is None
    few = settings(
        max_examples=20,
        derandomize=True,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    skip = pytest.mark.skipif(missing, reason="the layers are compared with those of PyTorch")
    return pytest.mark.peers(skip(few(test)))


def numbers(*shape, seed=0):
    return numpy.random.default_rng(seed).normal(size=shape).astype("float32")


def with_random_parameters(layer):
    """Return a layer whose parameters are all drawn, also those that start at 0 or 1.

    Sums keep about the size of what is summed: softmax of large numbers would round too much in PyTorch, too.
    """
    random = numpy.random.default_rng(3)

    def drawn(x):
        inputs = math.prod(x.shape[:-1])
        values = random.normal(0.1, 0.5, size=x.shape) / math.sqrt(inputs)
        return xpnet.asarray(values, dtype="float32")

    return xpnet.tree.map(drawn, layer)


def close(received, expected, what):
    received, expected = xpnet.to_numpy(received), expected.numpy(force=True)
    assert received.shape == expected.shape, what
    assert received.dtype == expected.dtype, what
    scale = max(1.0, numpy.max(numpy.abs(expected), initial=0.0))
    numpy.testing.assert_allclose(received, expected, rtol=0, atol=TOLERANCE * scale, err_msg=what)


def compare(layer, function, *inputs, call=None):
    """Compare a layer with a function of PyTorch: outputs, gradients of all parameters and of float inputs.

    Parameters
    ----------
    layer : Module
        Its parameters are drawn anew.
    function : callable
        ``function(F, parameters, *inputs)``, with F for `torch.nn.functional`, a dict of tensors by path, and
        tensors.
    *inputs : numpy.ndarray
    call : callable, optional
        ``call(layer, *inputs)``; by default the layer itself.
    """
    import torch

    with xpnet.use_device("cpu"):
        layer = with_random_parameters(layer)
    call = call or (lambda layer, *inputs: layer(*inputs))
    paths, leaves = xpnet.tree.paths(layer), xpnet.tree.leaves(layer)
    tensors = {path: torch.tensor(x).requires_grad_() for path, x in zip(paths, leaves, strict=True)}
    there = [torch.tensor(x).requires_grad_(x.dtype.kind == "f") for x in inputs]
    y = function(torch.nn.functional, tensors, *there)
    weights = numbers(*y.shape, seed=5)
    wanted = [*tensors.values(), *(x for x in there if x.requires_grad)]
    expected = torch.autograd.grad((y * torch.tensor(weights)).sum(), wanted)
    names = ["output", *paths, *(f"input {i}" for i, x in enumerate(there) if x.requires_grad)]
    floats = [i for i, x in enumerate(inputs) if x.dtype.kind == "f"]
    for spec in LIBRARIES:
        with xpnet.use_device(spec) as device:
            here = [xpnet.asarray(x, device=device) for x in (*inputs, weights)]

            def loss(layer, *arrays):
                *inputs, weights = arrays
                y = call(layer, *inputs)
                assert_on(y if not hasattr(y, "node") else y.value, xpnet.device(), "float32")
                return xpnet.array_namespace(y).sum(y * weights), xpnet.stop_gradient(y)

            moved = xpnet.to_device(layer, device)
            argnums = (0, *(1 + i for i in floats))
            (_, output), gradients = xpnet.value_and_grad(loss, argnums=argnums, has_aux=True)(moved, *here)
            received = [output, *xpnet.tree.leaves(gradients)]
            for name, one, right in zip(names, received, [y, *expected], strict=True):
                close(one, right, f"{name} of {type(layer).__name__} on {spec}")
