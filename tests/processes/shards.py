"""Optimizers in pieces: ``mpiexec -n 2 python shards.py NAME`` calls the function of that name."""

import sys

import numpy as np
import pytest

import xpnet
from xpnet import losses, nn, optim
from xpnet.autodiff import extended_namespace
from xpnet.distributed.operation import JOIN, SUM_IN_PIECES, Operation
from xpnet.distributed.pieces import Pieces
from xpnet.distributed.shard import Sharded

group = xpnet.distributed.world()
rank, size = group.rank, group.size
random = np.random.default_rng(0)
X = random.normal(size=(12 * 4, 5))
Y = np.sin(X.sum(axis=1, keepdims=True))


def is_vector(_path, parameter):
    return len(parameter.shape) == 1  # as each piece of a parameter is


def by_norm(gradients, state, _params, _step):
    xp = xpnet.array_namespace(*gradients)
    squares = optim.total([xp.sum(g * g) for g in gradients])
    return [g / (xp.sqrt(s) + 0.1) for g, s in zip(gradients, squares, strict=True)], state


def sums(params):
    xp = xpnet.array_namespace(*params)
    return optim.total([xp.sum(x) for x in params])


def by_norms_of_norms(gradients, state, _params, _step):
    """Sums of what depends on other sums, and a state of numbers."""
    xp = xpnet.array_namespace(*gradients)
    squares = optim.total([xp.sum(g * g) / 2 for g in gradients])
    scaled = [g / (s + 1) + 1e-3 * x for g, s, x in zip(gradients, squares, state, strict=True)]
    again = optim.total([xp.sum(g * g) - 0.5 * xp.sum(g) for g in scaled])
    return [g / (1 + abs(s)) for g, s in zip(scaled, again, strict=True)], [x + 1 for x in state]


CLIP = optim.clip_by_global_norm(0.01)
DECAY = optim.AdamW(1e-2, weight_decay=0.1)
OPTIMIZERS = {
    "Adam": optim.Adam(optim.cosine(1e-2, steps=30)),
    "clipped": optim.chain(CLIP, optim.SGD(0.1, momentum=0.9, nesterov=True)),
    "groups": optim.groups((is_vector, {"weight_decay": 0.0}), DECAY),
    "clipped groups": optim.chain(CLIP, optim.groups(("layers.0", optim.chain(CLIP, optim.SGD(0.1))), DECAY)),
    "Lion": optim.Lion(1e-3),
    "RMSprop": optim.RMSprop(1e-3),
    "norms of norms": optim.chain(
        optim.Transform(sums, by_norms_of_norms),
        optim.SGD(0.1),
    ),
    "norms": optim.chain(optim.Transform(lambda _params: (), by_norm), optim.SGD(0.1)),
    "scaled": optim.LossScaling(optim.chain(CLIP, optim.Adam(1e-2)), growth_interval=5),
}


def network(spec="cpu"):
    layers = nn.Dense(5, 33, seed=0), nn.Tanh(), nn.Dense(33, 7, seed=1), nn.Tanh(), nn.Dense(7, 1, seed=2)
    net = xpnet.tree.map(lambda x: x.astype("float64"), nn.Sequential(*layers))
    return xpnet.to_device(net, spec)


def trained(optimizer, *, spec="cpu", jit=True, averages=False, overflows=()):
    """Return the network and the optimizer's state after some steps with a part of the examples."""
    net = network(spec)
    x, y = (xpnet.asarray(part[rank::size], device=spec) for part in (X, Y))
    state = optimizer.init(net)

    def step(net, state, factor):
        scale = state.get("loss_scale", 1.0) * factor
        gradients = xpnet.grad(lambda net: losses.mse(net(x), y) * scale)(net)
        return optimizer.update(group.mean(gradients) if averages else gradients, state, net)

    recorded = xpnet.jit(step, donate=("net", "state")) if jit else step
    for number in range(30):
        factor = np.inf if number in overflows and rank == size - 1 else 1.0
        net, state = recorded(net, state, xpnet.asarray(factor, device=spec, dtype="float64"))
    return net, state


def same(found, expected, rtol=1e-10):
    for x, y in zip(xpnet.tree.leaves(found), xpnet.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(xpnet.to_numpy(x), xpnet.to_numpy(y), rtol=rtol, atol=rtol)


def optimizers():
    for name, optimizer in OPTIMIZERS.items():
        # A step that overflows on one process is skipped on all.
        options = {"overflows": (7,) if name == "scaled" else ()}
        net, state = trained(optimizer, averages=True, **options)
        for jit in (True, False):
            found, pieces = trained(group.shard(optimizer), jit=jit, **options)
            same(found, net)
            for x in xpnet.tree.leaves(found):
                np.testing.assert_array_equal(group.gather(x), np.broadcast_to(x, (size, *x.shape)))
            for key in ("step", "loss_scale", "finite_steps"):
                same(pieces.get(key, 0.0), state.get(key, 0.0))
            own, whole = (sum(x.size for x in xpnet.tree.leaves(each) if x.shape) for each in (pieces, state))
            assert int(group.sum(np.asarray(own))) == whole, name


def libraries(spec):
    if spec == "jax":
        import jax

        jax.config.update("jax_enable_x64", True)
    for name in ("clipped groups", "norms"):
        net, _ = trained(OPTIMIZERS[name], averages=True)
        found, _ = trained(group.shard(OPTIMIZERS[name]), spec=spec)
        same(found, net)


def dtypes():
    """Numbers of two bytes are added up in float32; arrays may be without axes, or without elements."""
    params = {
        "half": np.full(70, 2048.0, "float16"),
        "single": np.ones((3, 40), "float32"),
        "number": np.asarray(1.0),
        "nothing": np.zeros((0, 3)),
        "other": np.ones(33, ">f8"),
    }
    gradients = xpnet.tree.map(lambda x: (x * (1 if rank else size)).astype(x.dtype), params)
    optimizer = Sharded(optim.SGD(1.0), group, takes_mean=False)
    found, _ = optimizer.update(gradients, optimizer.init(params), params)
    for name, x in params.items():
        assert found[name].dtype == x.dtype.newbyteorder("=")
        np.testing.assert_array_equal(found[name], (x - x * np.float32(2 * size - 1)).astype(x.dtype))
    # Of a mean, also where the sum is none of them.
    for value in (40_000.0, 3e-8):
        params = {"half": np.full(70, 1.0, "float16")}
        gradients = {"half": np.full(70, value, "float16")}
        optimizer = group.shard(optim.SGD(1e-3))
        found, _ = optimizer.update(gradients, optimizer.init(params), params)
        averaged = optim.chain(group.average(), optim.SGD(1e-3))
        expected, _ = averaged.update(gradients, averaged.init(params), params)
        np.testing.assert_array_equal(found["half"], expected["half"])


def refused():
    net = network()

    def message(optimizer):
        with pytest.raises(ValueError, match="with shard=True, an optimizer must") as found:
            group.shard(optimizer).init(net)
        return str(found.value)

    def transform(update, init=lambda _params: ()):
        return optim.chain(optim.Transform(init, update), optim.Adam(0.1))

    def by_largest(gradients, state, _params, _step):
        xp = xpnet.array_namespace(*gradients)
        return [g / xp.max(xp.abs(g)) for g in gradients], state

    def turned(gradients, state, _params, _step):
        xp = xpnet.array_namespace(*gradients)
        return [xp.flip(g) for g in gradients], state

    assert "received one that calls max" in message(transform(by_largest))
    assert "received one that calls flip" in message(transform(turned))
    assert "received one that calls collective" in message(optim.chain(group.average(), optim.SGD(0.1)))

    for wrong, text in (
        (lambda xp, g: xp.sum(g * g, axis=0), "an array of the shape"),
        (lambda xp, g: xp.sqrt(xp.sum(g * g)), "what sqrt returns"),
        (lambda xp, g: 1.0 + xp.sum(g * g), "one with a number added to it"),
        (lambda xp, g: xp.sum(g * g) * xp.sum(g), "a product of sums"),
        (lambda xp, g: 1.0 / xp.sum(g * g), "a quotient of sums"),
        (lambda xp, g: xp.mean(g), "what mean returns"),
        (lambda xp, g: xp.max(g), "what max returns"),
        (lambda xp, g: optim.total(xp.sum(g)), "a number that is known"),
        (lambda _xp, _g: 1.0, "a number that is known"),
    ):

        def asks(gradients, state, _params, _step, wrong=wrong):
            xp = xpnet.array_namespace(*gradients)
            return [g / (1 + optim.total(wrong(xp, g))) for g in gradients], state

        with pytest.raises(ValueError, match=f"needs a sum over .* received {text}"):
            group.shard(transform(asks)).init(net)

    def rows(params):
        return [x[0, ...] * 0 for x in params]

    kept = transform(lambda gradients, state, _params, _step: (gradients, state), rows)
    assert "one that keeps an array with the shape" in message(kept)

    def by_size(gradients, state, _params, _step):
        return [g / g.shape[0] for g in gradients], state

    def by_place(gradients, state, _params, _step):
        xp = xpnet.array_namespace(*gradients)
        return [g * (1 + xp.arange(g.shape[-1], dtype=g.dtype)) for g in gradients], state

    def noisy(gradients, state, _params, _step):
        return [g + random.normal(size=g.shape) for g in gradients], state

    def mixed(gradients, state, _params, _step):
        return [g * gradients[-1] for g in gradients], state

    assert "with parameters of any shape" in message(transform(by_size))
    for wrong in (by_place, noisy):
        assert "one with numbers of its own for each" in message(transform(wrong))
    params = {"weight": np.ones((3, 2)), "x": np.asarray(1.0)}
    with pytest.raises(ValueError, match="broadcast") as found:
        group.shard(transform(mixed)).init(params)
    assert "Train it with shard=False" in found.value.__notes__[-1]
    for wrong in (CLIP, optim.Adam, 3):
        with pytest.raises(TypeError, match="shard needs an optimizer"):
            group.shard(wrong)


def states():
    """A state in pieces is put together on rank 0, and one of one process is cut."""
    optimizer = OPTIMIZERS["clipped groups"]
    expected = trained(optimizer, averages=True, jit=False)[1]
    sharded = group.shard(optimizer)
    net, state = trained(sharded, jit=False)
    whole = sharded.whole(state, net)
    assert (whole is None) == (rank > 0)
    if whole is not None:
        same(whole, expected)
    again = sharded.cut(expected, net)
    same(again, state)
    same(sharded.cut(again, net), state)


def gradients():
    """Sums in pieces and what joins them are the sum of whole arrays, with its gradient."""
    x, weight = np.arange(60.0) + rank, np.sin(np.arange(60.0)) * (rank + 1)
    pieces = Pieces.of([(4, 5), (60,), ()], size)

    def joined(x):
        xp = extended_namespace(x)
        return xp.collective(*in_pieces(x), operation=Operation(group, JOIN, pieces=pieces))

    def in_pieces(x):
        xp = extended_namespace(x)
        operation = Operation(group, SUM_IN_PIECES, pieces=pieces)
        return xp.collective(*parts(xp, x), operation=operation)

    def parts(xp, x):
        return [xp.reshape(x[:20], (4, 5)), x * x, x[7]]

    def added(x):
        return group.sum(parts(xpnet.array_namespace(x), x))

    def value(f):
        def loss(x):
            xp = xpnet.array_namespace(x)
            a, b, c = f(x)
            return xp.sum(a**3) * 1e-3 + xp.sum(b * b * weight) + c * c

        return loss

    same(joined(x), added(x))
    for transform in (lambda f: f, xpnet.jit):
        same(transform(xpnet.grad(value(joined)))(x), xpnet.grad(value(added))(x))

    def squares(x):
        xp = xpnet.array_namespace(x)
        return sum(xp.sum(piece * piece) for piece in in_pieces(x))

    def of_whole(x):  # of which each process has all: so it counts as often as there are processes
        xp = xpnet.array_namespace(x)
        return sum(xp.sum(y * y) for y in added(x)) / size

    same(xpnet.grad(squares)(x), xpnet.grad(of_whole)(x))


def in_turns():
    """One process replays a plan, another one runs the function as it is written."""
    optimizer = group.shard(OPTIMIZERS["clipped"])
    same(trained(optimizer, jit=rank % 2 == 0)[0], trained(optimizer)[0])


def overflows():
    """Infinite gradients give no warnings, as in sums of whole arrays."""
    params = {"x": np.ones(70), "y": np.ones(70)}
    gradients = {name: np.full(70, np.inf if rank else -np.inf) for name in params}
    optimizer = group.shard(optim.SGD(1.0))
    state = optimizer.init(params)
    with np.errstate(all="raise"):
        found, _ = optimizer.update(gradients, state, params)
    assert all(np.isnan(x).all() for x in found.values())


def only_one():
    optimizer = group.shard(optim.SGD(0.1)) if rank else optim.chain(group.average(), optim.SGD(0.1))
    trained(optimizer, jit=False)


if __name__ == "__main__":
    globals()[sys.argv[1]](*sys.argv[2:])
    print("passed")
