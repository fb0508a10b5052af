import math
import pickle

import numpy
import pytest
from helpers import assert_on, assert_same_trees, rounding

import xpnet
from xpnet import optim


def draw(device, seed=0):
    random = numpy.random.default_rng(seed)
    values = {"weight": random.normal(size=(3, 2)), "bias": random.normal(size=2)}
    return {name: xpnet.asarray(x, device=device, dtype="float32") for name, x in values.items()}


def scaled(grads, state):
    return xpnet.tree.map(lambda g: g * state["loss_scale"], grads)


def with_bad_value(grads, value):
    bias = numpy.array(xpnet.to_numpy(grads["bias"]))
    bias[1] = value
    return grads | {"bias": xpnet.asarray(bias, device=xpnet.device())}


def test_finite_gradients_make_the_update_of_the_optimizer(device):
    inner = optim.chain(optim.clip_by_global_norm(0.5), optim.Adam(0.1))
    optimizer = optim.LossScaling(inner)
    params = expected = draw(device)
    state, inner_state = optimizer.init(params), inner.init(params)
    for seed in range(4):
        grads = draw(device, seed)
        params, state = optimizer.update(scaled(grads, state), state, params)
        expected, inner_state = inner.update(grads, inner_state, expected)
    assert_same_trees(params, expected, tolerance=rounding(10, "float32"))
    assert_same_trees(
        {name: state[name] for name in inner_state}, inner_state, tolerance=rounding(10, "float32")
    )
    assert_on(state["loss_scale"], device, "float32", ())
    assert float(state["loss_scale"]) == 65536
    assert float(state["finite_steps"]) == 4


@pytest.mark.parametrize("value", [numpy.inf, -numpy.inf, numpy.nan])
def test_an_overflow_changes_nothing_but_the_scale(device, value):
    optimizer = optim.LossScaling(optim.Adam(0.1))
    params = draw(device)
    state = optimizer.init(params)
    params, state = optimizer.update(scaled(draw(device, 1), state), state, params)
    grads = with_bad_value(scaled(draw(device, 2), state), value)
    with numpy.errstate(all="ignore"):
        after, skipped = optimizer.update(grads, state, params)
    assert_same_trees(after, params, tolerance=0)
    assert float(skipped.pop("loss_scale")) == 32768
    assert float(skipped.pop("finite_steps")) == 0
    assert_same_trees(skipped, {name: state[name] for name in skipped}, tolerance=0)


def test_the_scale_grows_after_good_updates_in_a_row(device):
    optimizer = optim.LossScaling(optim.SGD(0.1), initial_scale=8, growth_interval=3)
    params = draw(device)
    state = optimizer.init(params)
    scales = []
    for overflows in [False, False, True, False, False, False, False, False, False]:
        grads = scaled(draw(device), state)
        grads = with_bad_value(grads, numpy.inf) if overflows else grads
        with numpy.errstate(all="ignore"):
            params, state = optimizer.update(grads, state, params)
        scales.append(float(state["loss_scale"]))
    assert scales == [8, 8, 4, 4, 4, 8, 8, 8, 16]


@pytest.mark.parametrize(
    ("value", "start", "end"), [(numpy.inf, 2.0**-23, 2.0**-24), (1.0, 2.0**23, 2.0**24)]
)
def test_the_scale_has_ends(device, value, start, end):
    optimizer = optim.LossScaling(optim.SGD(0.1), initial_scale=start, growth_interval=1)
    params = draw(device)
    state = optimizer.init(params)
    for _ in range(4):
        with numpy.errstate(all="ignore"):
            _, state = optimizer.update(with_bad_value(draw(device), value), state, params)
    assert float(state["loss_scale"]) == end


def test_gradients_too_small_for_float16_are_kept(device):
    optimizer, x = optim.LossScaling(optim.SGD(1.0)), xpnet.asarray([[1.0]], device=device, dtype="float32")

    def step(params, state, x, *, scale):
        def loss(params):
            y = 1e-7 * xpnet.array_namespace(x, params["w"]).matmul(x, params["w"])
            return xpnet.array_namespace(y).sum(1e-2 * y) * (state["loss_scale"] if scale else 1.0)

        grads = xpnet.grad(loss)(params)
        if not scale:
            grads = scaled(grads, state)
        return optimizer.update(grads, state, params)

    params = {"w": xpnet.asarray([[0.0]], device=device, dtype="float32")}
    state = optimizer.init(params)
    eps = float(numpy.finfo("float16").eps)  # each of the two factors is rounded by half of it
    for scale, expected in [(True, -1e-9), (False, 0.0)]:
        recorded = xpnet.jit(
            lambda params, state, x, scale=scale: step(params, state, x, scale=scale), precision="float16"
        )
        after, _ = recorded(params, state, x)
        assert float(after["w"][0, 0]) == pytest.approx(expected, rel=eps)


def test_rate_comes_from_the_state(device):
    optimizer = optim.LossScaling(optim.SGD(0.1))
    assert optimizer.learning_rate == 0.1
    params, grads = draw(device), draw(device, 1)
    state = optimizer.init(params)
    state = state | {"learning_rate": 0 * state["learning_rate"]}
    assert_same_trees(optimizer.update(grads, state, params)[0], params, tolerance=0)


def test_what_it_does_not_take():
    with pytest.raises(TypeError, match=r"needs an optimizer, .* received Transform"):
        optim.LossScaling(optim.clip_by_global_norm(1.0))
    with pytest.raises(TypeError, match="received LossScaling"):
        optim.LossScaling(optim.LossScaling(optim.SGD(0.1)))
    with pytest.raises(TypeError, match=r"received \(Transform, LossScaling\)"):
        optim.chain(optim.clip_by_global_norm(1.0), optim.LossScaling(optim.SGD(0.1)))
    for scale in (0, 2.0**-25, 2.0**25, math.inf, math.nan):
        with pytest.raises(ValueError, match=rf"from 2\*\*-24 to 2\*\*24, received {scale}\."):
            optim.LossScaling(optim.SGD(0.1), initial_scale=scale)
    with pytest.raises(ValueError, match=r"growth_interval must be a positive integer, received 0\."):
        optim.LossScaling(optim.SGD(0.1), growth_interval=0)


def test_it_can_be_pickled():
    optimizer = optim.LossScaling(optim.Adam(0.1), growth_interval=5)
    assert pickle.loads(pickle.dumps(optimizer)) == optimizer
