"""A whole network, written by hand in standard code, against the gradients of PyTorch and JAX."""

import numpy
import pytest
from helpers import array, assert_same

import xpnet

random = numpy.random.default_rng(3)
X = random.normal(size=(6, 4))
LABELS = numpy.asarray([0, 2, 1, 2, 2, 0])
PARAMETERS = {
    "hidden": {"weight": random.normal(size=(4, 5)), "bias": random.normal(size=5)},
    "output": {"weight": random.normal(size=(5, 3)), "bias": random.normal(size=3)},
}
DIRECTION = [random.normal(size=x.shape) for x in xpnet.tree.leaves(PARAMETERS)]


def loss(parameters, x, labels, activation):
    """The cross entropy of two dense layers, in nothing but the standard."""
    xp = xpnet.array_namespace(x, parameters["hidden"]["weight"])
    h = x @ parameters["hidden"]["weight"] + parameters["hidden"]["bias"]
    h = xp.tanh(h) if activation == "tanh" else xp.maximum(h, 0)
    logits = h @ parameters["output"]["weight"] + parameters["output"]["bias"]
    logits = logits - xp.max(logits, axis=1, keepdims=True)
    log_total = xp.log(xp.sum(xp.exp(logits), axis=1))
    chosen = xp.take_along_axis(logits, labels[:, None], axis=1)[:, 0]
    return xp.mean(log_total - chosen)


def numpy_gradient(activation):
    """The gradient by hand, without any automatic differentiation."""
    (w1, b1), (w2, b2) = ((layer["weight"], layer["bias"]) for layer in PARAMETERS.values())
    before = X @ w1 + b1
    h = numpy.tanh(before) if activation == "tanh" else numpy.maximum(before, 0)
    logits = h @ w2 + b2
    p = numpy.exp(logits) / numpy.exp(logits).sum(1, keepdims=True)
    g = (p - numpy.eye(3)[LABELS]) / len(X)
    g_h = g @ w2.T * (1 - h * h if activation == "tanh" else before > 0)
    return [g_h.sum(0), X.T @ g_h, g.sum(0), h.T @ g]  # leaves in the order of the names: bias, weight


def parameters():
    return xpnet.tree.map(array, PARAMETERS)


def hessian_vector_product(activation):
    x, labels = array(X), array(LABELS, "int64")
    directions = [array(v) for v in DIRECTION]

    def slope(parameters):
        gradient = xpnet.tree.leaves(xpnet.grad(loss)(parameters, x, labels, activation))
        xp = xpnet.array_namespace(gradient[0])
        return sum(xp.sum(g * v) for g, v in zip(gradient, directions, strict=True))

    return xpnet.tree.leaves(xpnet.grad(slope)(parameters()))


ACTIVATIONS = pytest.mark.parametrize("activation", ["relu", "tanh"])


@ACTIVATIONS
def test_against_a_gradient_by_hand(activation, xp):
    arguments = parameters(), array(X), array(LABELS, "int64"), activation
    value, gradient = xpnet.value_and_grad(loss)(*arguments)
    assert_same(value, loss(*arguments))
    for g, expected in zip(xpnet.tree.leaves(gradient), numpy_gradient(activation), strict=True):
        assert_same(g, array(expected))


@ACTIVATIONS
def test_gradients_of_two_orders(activation, xp):
    x, labels = array(X), array(LABELS, "int64")
    xpnet.check_gradients(lambda p, x: loss(p, x, labels, activation), parameters(), x, order=2)


@ACTIVATIONS
def test_against_torch(activation, device):
    if device.library.spec != "torch":
        pytest.skip("compares arrays of PyTorch")
    import torch

    x, labels = array(X), array(LABELS, "int64")
    leaves, structure = xpnet.tree.flatten(parameters())
    leaves = [leaf.requires_grad_() for leaf in leaves]
    value = loss(xpnet.tree.unflatten(structure, leaves), x, labels, activation)
    expected = torch.autograd.grad(value, leaves, create_graph=True)
    slope = sum((g * array(v)).sum() for g, v in zip(expected, DIRECTION, strict=True))
    products = torch.autograd.grad(slope, leaves)
    received = xpnet.tree.leaves(xpnet.grad(loss)(parameters(), x, labels, activation))
    for g, other in zip(received, expected, strict=True):
        assert_same(g, other.detach())
    for g, other in zip(hessian_vector_product(activation), products, strict=True):
        assert_same(g, other)


@ACTIVATIONS
def test_against_jax(activation, device):
    if device.library.spec != "jax":
        pytest.skip("compares arrays of JAX")
    import jax

    x, labels = array(X), array(LABELS, "int64")

    def of(parameters):
        return loss(parameters, x, labels, activation)

    expected = jax.grad(of)(parameters())
    direction = xpnet.tree.unflatten(xpnet.tree.flatten(parameters())[1], [array(v) for v in DIRECTION])
    products = jax.jvp(jax.grad(of), (parameters(),), (direction,))[1]
    received = xpnet.grad(loss)(parameters(), x, labels, activation)
    for g, other in zip(xpnet.tree.leaves(received), xpnet.tree.leaves(expected), strict=True):
        assert_same(g, other)
    for g, other in zip(hessian_vector_product(activation), xpnet.tree.leaves(products), strict=True):
        assert_same(g, other)
