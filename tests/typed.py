"""The types of what transforms return, for mypy: `nox -s lint` checks this file, and nothing runs it."""

from typing import Any, assert_type

import numpy

import xpnet
from xpnet.nn import Dense, Sequential


def loss(net: Sequential, x: numpy.ndarray, *, scale: float = 1.0) -> numpy.ndarray:
    return numpy.asarray(scale * net(x))


net = Sequential(Dense(2, 1))
x = numpy.ones((3, 2))

# A transform has the parameters of its function, and returns what it returns.
gradient = xpnet.grad(loss)
gradient(net, x, scale=2.0)
gradient(net, x, rate=2.0)  # type: ignore[call-arg]
gradient(net)  # type: ignore[call-arg]
gradient(3, x)  # type: ignore[arg-type]
assert_type(xpnet.value_and_grad(loss)(net, x), tuple[numpy.ndarray, Any])
assert_type(xpnet.checkpoint(loss)(net, x=x, scale=1), numpy.ndarray)
xpnet.jacobian(loss)(net, x, rate=2.0)  # type: ignore[call-arg]
xpnet.hessian(loss)(net, x, rate=2.0)  # type: ignore[call-arg]
assert_type(xpnet.vjp(loss, net, x)[0], numpy.ndarray)
assert_type(xpnet.jvp(loss, (net, x), (net, x)), tuple[numpy.ndarray, numpy.ndarray])
assert_type(xpnet.stop_gradient(net), Sequential)
xpnet.grad(lambda net: loss(net, x))(net)
xpnet.grad(net)(x)
xpnet.value_and_grad(xpnet.jit(loss))(net, x, rate=2.0)  # type: ignore[call-arg]


@xpnet.custom_gradient
def step(x: numpy.ndarray, *, slope: float) -> tuple[numpy.ndarray, Any]:
    return numpy.sign(x), lambda g: slope * g


assert_type(step(x, slope=0.5), numpy.ndarray)
step(x)  # type: ignore[call-arg]


# `jit` is the function, with `explain` and `cost`. As a method it has no `self`.
compiled = xpnet.jit(loss, donate=("net",))
assert_type(compiled(net, x, scale=2.0), numpy.ndarray)
assert_type(compiled.explain(), str)
compiled(net, x, rate=2.0)  # type: ignore[call-arg]
xpnet.jit(lambda x: x + 1)(x)


class Model:
    @xpnet.jit
    def score(self, x: numpy.ndarray, power: int = 2) -> numpy.ndarray:
        return x**power


assert_type(Model().score(x, power=3), numpy.ndarray)
assert_type(Model().score.explain(), str)
assert_type(Model.score(Model(), x), numpy.ndarray)
Model().score(x, net)  # type: ignore[arg-type]

# A tree keeps its type wherever its arrays are; an array may become one of another library.
assert_type(xpnet.to_device(net, "cpu"), Sequential)
assert_type(xpnet.to_device(x, "cuda"), Any)
assert_type(xpnet.to_numpy(net), Sequential)
assert_type(xpnet.to_numpy({"a": 1.0}), dict[str, float])
assert_type(xpnet.to_numpy(x), numpy.ndarray)
with xpnet.use_device("cpu") as device:
    assert_type(device.spec, str)
