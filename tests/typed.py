"""The types of what transforms return, for mypy: `nox -s lint` checks this file, and nothing runs it."""

from typing import Any, assert_type

import numpy

import xpnet
from xpnet import losses, nn, optim
from xpnet.nn import Dense, Module, Sequential


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

# A part of a network is a network, and freezing returns what it was given.
assert_type(net[0], Module)
assert_type(net[:1], Sequential)
assert_type(net.freeze(), Sequential)
assert_type(net.unfreeze(), Sequential)
assert_type(nn.freeze(net, "layers.0"), Sequential)
assert_type(nn.unfreeze([net]), list[Sequential])

# Groups are chosen by paths or by a function; the last may be an optimizer alone.
optimizer = optim.groups(
    (optim.biases_and_norms, {"weight_decay": 0.0}),
    (["layers.0"], optim.SGD(0.1)),
    (lambda path, array: len(array.shape) > 1 and path != "head", {"learning_rate": 1e-5}),
    optim.AdamW(1e-3),
)
assert_type(optimizer, optim.Optimizer)


# A callback may be a function of the run.
def note(run: xpnet.training.Run) -> int:
    return run.epoch


def takes_more(run: xpnet.training.Run, epoch: int) -> None:
    return None


options: Any = {"loss": losses.mse, "optimizer": optimizer}
xpnet.fit(net, x, x, callbacks=[note, xpnet.callbacks.CSVLogger("log.csv"), print], **options)
xpnet.fit(net, x, x, callbacks=[takes_more], **options)  # type: ignore[list-item]

with xpnet.use_device("cpu") as device:
    assert_type(device.spec, str)
