"""Optimizers against their equations written out in NumPy, and against torch's."""

import math
import pickle

import numpy
import pytest
from helpers import assert_on, assert_same, needs_float16, on, rounding

import xpnet
from xpnet import optim, tree

STEPS = 5
SHAPES = {"weight": (3, 2), "bias": (2,), "scale": ()}


class Layer(tree.Branch):
    """A module in miniature: a trained weight, a running statistic, a setting."""

    state = ("running_mean",)

    def __init__(self, weight, running_mean):
        self.weight, self.running_mean, self.training = weight, running_mean, True


def draw(seed):
    random = numpy.random.default_rng(seed)
    return {name: random.normal(size=shape) for name, shape in SHAPES.items()}


# -- references: one parameter, gradients g_1, g_2, …, all in NumPy ------------------------------------------


def reference_sgd(p, gradients, rate, momentum=0.0, nesterov=False, weight_decay=0.0):
    v = 0 * p
    for g in gradients:
        g = g + weight_decay * p
        v = momentum * v + g
        p = p - rate * (g + momentum * v if nesterov else v)
    return p


def reference_adam(p, gradients, rate, beta1=0.9, beta2=0.999, epsilon=1e-8, weight_decay=0.0):
    m, v = 0 * p, 0 * p
    for t, g in enumerate(gradients, start=1):
        m = beta1 * m + (1 - beta1) * g
        v = beta2 * v + (1 - beta2) * g**2
        direction = (m / (1 - beta1**t)) / (numpy.sqrt(v / (1 - beta2**t)) + epsilon)
        p = p - rate * (direction + weight_decay * p)
    return p


def reference_rmsprop(p, gradients, rate, alpha=0.99, epsilon=1e-8, momentum=0.0):
    v, b = 0 * p, 0 * p
    for g in gradients:
        v = alpha * v + (1 - alpha) * g**2
        b = momentum * b + g / (numpy.sqrt(v) + epsilon)
        p = p - rate * b
    return p


def reference_lion(p, gradients, rate, beta1=0.9, beta2=0.99, weight_decay=0.0):
    m = 0 * p
    for g in gradients:
        direction = numpy.sign(beta1 * m + (1 - beta1) * g)
        m = beta2 * m + (1 - beta2) * g
        p = p - rate * (direction + weight_decay * p)
    return p


def _torch_adam(name):
    def make(torch, params, rate, beta1=0.9, beta2=0.999, epsilon=1e-8, **options):
        return getattr(torch.optim, name)(params, lr=rate, betas=(beta1, beta2), eps=epsilon, **options)

    return make


TORCH = {
    optim.SGD: lambda torch, params, rate, **options: torch.optim.SGD(params, lr=rate, **options),
    optim.Adam: _torch_adam("Adam"),
    optim.AdamW: _torch_adam("AdamW"),
    optim.RMSprop: lambda torch, params, rate, alpha=0.99, epsilon=1e-8, momentum=0.0: torch.optim.RMSprop(
        params, lr=rate, alpha=alpha, eps=epsilon, momentum=momentum
    ),
}

CASES = [
    (optim.SGD, reference_sgd, 0.1, {}),
    (optim.SGD, reference_sgd, 0.1, {"momentum": 0.9}),
    (optim.SGD, reference_sgd, 0.1, {"momentum": 0.9, "nesterov": True}),
    (optim.SGD, reference_sgd, 0.1, {"weight_decay": 0.3}),
    (optim.SGD, reference_sgd, 0.1, {"momentum": 0.9, "nesterov": True, "weight_decay": 0.3}),
    (optim.Adam, reference_adam, 0.1, {}),
    (optim.Adam, reference_adam, 0.1, {"beta1": 0.5, "beta2": 0.7, "epsilon": 0.1}),
    (optim.Adam, reference_adam, 0.1, {"beta1": 0.0, "beta2": 0.0}),
    (optim.AdamW, reference_adam, 0.1, {"weight_decay": 0.3}),
    (optim.RMSprop, reference_rmsprop, 0.1, {}),
    (optim.RMSprop, reference_rmsprop, 0.1, {"alpha": 0.5, "epsilon": 0.1, "momentum": 0.9}),
    (optim.Lion, reference_lion, 0.1, {}),
    (optim.Lion, reference_lion, 0.1, {"beta1": 0.5, "beta2": 0.7, "weight_decay": 0.3}),
]
NAMES = [
    f"{make.__name__}({', '.join(f'{k}={v}' for k, v in options.items())})" for make, _, _, options in CASES
]


def test_every_optimizer_has_an_equation_to_be_compared_with():
    classes = [x for x in map(vars(optim).get, optim.__all__) if isinstance(x, type)]
    optimizers = {x for x in classes if issubclass(x, optim.Optimizer)} - {optim.Optimizer}
    assert {make for make, *_ in CASES} == optimizers


def run(optimizer, params, gradients):
    state = optimizer.init(params)
    for grads in gradients:
        params, state = optimizer.update(grads, state, params)
    return params, state


@pytest.mark.parametrize(("make", "reference", "rate", "options"), CASES, ids=NAMES)
def test_updates_follow_the_equations(device, make, reference, rate, options):
    start, gradients = draw(0), [draw(1 + i) for i in range(STEPS)]
    params, state = run(make(rate, **options), on(device, start), [on(device, g) for g in gradients])
    assert_same(state["step"], float(STEPS))
    for name in SHAPES:
        assert_on(params[name], device, "float64", SHAPES[name])
        expected = reference(start[name], [g[name] for g in gradients], rate, **options)
        assert_same(params[name], expected)
    if device.library.spec == "torch" and make in TORCH:
        import torch

        theirs = [p.clone().requires_grad_() for p in on(device, start).values()]
        optimizer = TORCH[make](torch, theirs, rate, **options)
        for grads in gradients:
            for p, name in zip(theirs, SHAPES, strict=True):
                p.grad = on(device, grads)[name]
            optimizer.step()
        for p, name in zip(theirs, SHAPES, strict=True):
            assert_same(params[name], p.detach())


@pytest.mark.parametrize(("make", "reference", "rate", "options"), CASES, ids=NAMES)
def test_each_parameter_keeps_its_dtype_and_so_does_its_state(device, make, reference, rate, options):
    start, gradients = draw(0), [draw(1 + i) for i in range(STEPS)]
    dtypes = {"weight": "float32", "bias": "float64", "scale": "float32"}

    def cast(values):
        return {name: on(device, x, dtypes[name]) for name, x in values.items()}

    optimizer = optim.chain(optim.clip_by_global_norm(1e6), make(optim.constant(rate), **options))
    params, state = run(optimizer, cast(start), [cast(g) for g in gradients])
    for name, dtype in dtypes.items():
        assert_on(params[name], device, dtype, SHAPES[name])
        expected = reference(start[name], [g[name] for g in gradients], rate, **options)
        if make is not optim.Lion:  # where a rounding error can turn a sign
            assert_same(
                xpnet.to_numpy(params[name]).astype(float), expected, tolerance=rounding(100, "float32")
            )
    arrays = tree.leaves(state["transforms"])
    expected = [(dtypes[name], SHAPES[name]) for name in SHAPES] * (len(arrays) // len(SHAPES))
    received = [(x.dtype, tuple(x.shape)) for x in arrays]
    assert received == [(getattr(device.namespace, dtype), shape) for dtype, shape in sorted_like(expected)]
    # One float64 parameter, and the step and the rate are float64; all on the parameters' device.
    assert_on(state["step"], device, "float64", ())
    assert_on(state["learning_rate"], device, "float64", ())
    for x in arrays:
        assert_on(x, device)


def sorted_like(expected):
    """Put (dtype, shape) pairs in the order of a dict's leaves: by name."""
    order = [sorted(SHAPES).index(name) for name in SHAPES]
    count = len(SHAPES)
    rounds = [expected[i : i + count] for i in range(0, len(expected), count)]
    return [pair for one in rounds for _, pair in sorted(zip(order, one, strict=True))]


def test_float32_parameters_have_a_float32_step_and_rate(device):
    params = on(device, draw(0), "float32")
    _, state = run(optim.Adam(lambda _step: 0.1), params, [params])
    assert_on(state["step"], device, "float32", ())
    assert_on(state["learning_rate"], device, "float32", ())


def test_settings_may_be_numbers_of_numpy(device):
    number = numpy.float64(0.5)
    for optimizer in (
        optim.SGD(number, momentum=number, weight_decay=number),
        optim.AdamW(number, beta1=number, beta2=number, epsilon=number, weight_decay=number),
        optim.RMSprop(optim.cosine(number, steps=numpy.int64(5)), alpha=number, epsilon=number),
        optim.chain(optim.clip_by_global_norm(number), optim.Lion(number, beta1=number, beta2=number)),
    ):
        params, state = run(optimizer, on(device, draw(0), "float32"), [on(device, draw(1), "float32")] * 2)
        for x in (*tree.leaves(params), *tree.leaves(state)):
            assert_on(x, device, "float32")


def test_first_step_of_adam_in_single_precision(device):
    # 1 - 0.999 in float32 would have four digits; the first step is then not ±rate.
    params = on(device, {"w": numpy.zeros(2)}, "float32")
    params, _ = run(optim.Adam(1.0), params, [on(device, {"w": [3.0, -0.01]}, "float32")])
    assert_same(params["w"], [-1.0, 1.0], tolerance=rounding(10, "float32"))


def test_a_module_keeps_its_state_and_its_settings(device):
    weight = on(device, [1.0, 2.0])
    net = Layer(weight, on(device, [5.0]))
    grads = Layer(on(device, [1.0, 1.0]), on(device, [7.0]))
    grads.training = False
    optimizer = optim.SGD(0.5, momentum=0.9)
    new, state = optimizer.update(grads, optimizer.init(net), net)
    assert type(new) is Layer
    assert_same(new.weight, [0.5, 1.5])
    assert new.running_mean is net.running_mean
    assert new.training
    assert len(tree.leaves(state, state=True)) == 3  # step, rate and one velocity, no running mean
    assert net.weight is weight
    assert_same(weight, [1.0, 2.0])


@pytest.mark.parametrize("make", [list, tuple, lambda x: {"a": [x[0]], "b": {"c": (x[1],)}}])
def test_trees_of_any_kind(device, make):
    params = make([on(device, [1.0, 2.0]), on(device, [3.0])])
    new, _ = run(optim.SGD(1.0), params, [params])
    assert tree.flatten(new)[1] == tree.flatten(params)[1]
    for x in tree.leaves(new):
        assert_same(x, numpy.zeros(x.shape))


def test_a_lone_array_is_a_tree(device):
    new, _ = run(optim.Adam(0.1), on(device, [1.0]), [on(device, [2.0])])
    assert_same(new, [0.9], tolerance=1e-8)


# -- learning rate -----------------------------------------------------------------------------------------


def test_a_schedule_gives_the_rate_of_each_update(device):
    zeros, ones = on(device, numpy.zeros(2)), on(device, numpy.ones(2))
    optimizer = optim.SGD(lambda step: 1.0 / (step + 1))
    params, state = zeros, optimizer.init(zeros)
    assert_same(state["learning_rate"], 1.0)
    for expected_rate, expected in [(1.0, -1.0), (1 / 2, -1.5), (1 / 3, -1.5 - 1 / 3)]:
        params, state = optimizer.update(ones, state, params)
        assert_on(state["learning_rate"], device, "float64", ())
        assert_same(state["learning_rate"], expected_rate)
        assert_same(params, [expected, expected])


def test_a_constant_rate_can_be_changed_in_the_state(device):
    params = on(device, [1.0])
    optimizer = optim.SGD(0.1)
    state = optimizer.init(params)
    state = {**state, "learning_rate": state["learning_rate"] * 5}
    params, state = optimizer.update(params, state, params)
    assert_same(params, [0.5])
    assert_same(state["learning_rate"], 0.5)


# -- chain and transforms ----------------------------------------------------------------------------------


@pytest.mark.parametrize(("max_norm", "factor"), [(1.0, 0.2), (5.0, 1.0), (100.0, 1.0)])
def test_clip_by_global_norm(device, max_norm, factor):
    grads = on(device, {"a": numpy.asarray([[3.0]]), "b": numpy.asarray(4.0)})
    params = tree.map(lambda g: 0 * g, grads)
    new, _ = run(optim.chain(optim.clip_by_global_norm(max_norm), optim.SGD(1.0)), params, [grads])
    assert_same(new["a"], [[-3.0 * factor]])
    assert_same(new["b"], -4.0 * factor)
    if device.library.spec == "torch":
        import torch

        theirs = [params["a"].clone(), params["b"].clone()]
        theirs[0].grad, theirs[1].grad = grads["a"].clone(), grads["b"].clone()
        torch.nn.utils.clip_grad_norm_(theirs, max_norm)
        assert_same(new["a"], -theirs[0].grad, tolerance=1e-6)  # torch adds 1e-6 to the norm


def test_sums_are_those_of_all_where_a_transform_sees_a_part(device):
    sums = on(device, [numpy.asarray(3.0), numpy.asarray(5.0)])
    assert optim.total(sums) is sums
    asked = optim.transforms.OverPieces(lambda sums: tree.map(lambda x: 2 * x, sums), lambda x: ~x)
    with optim.transforms.over_pieces(asked):
        assert_same(optim.total(sums), [6.0, 10.0])
        grads = on(device, [6.0, 8.0])
        optimizer = optim.chain(optim.clip_by_global_norm(1.0), optim.SGD(1.0))
        new, _ = run(optimizer, 0 * grads, [grads])
    assert_same(new * 200**0.5, [-6.0, -8.0])


def test_clipping_zero_gradients_gives_zeros(device):
    zeros = on(device, [0.0, 0.0])
    new, _ = run(optim.chain(optim.clip_by_global_norm(1.0), optim.SGD(1.0)), zeros, [zeros])
    assert_same(new, [0.0, 0.0])


def test_clipping_far_down_keeps_the_figures_of_float16(device):
    needs_float16(device.namespace)
    grads = on(device, numpy.asarray([30000.0, -40000.0], dtype="float16"))
    new, _ = run(optim.chain(optim.clip_by_global_norm(0.01), optim.SGD(1.0)), 0 * grads, [grads])
    assert_same(new, on(device, numpy.asarray([-0.006, 0.008], dtype="float16")), tolerance=2**-12)


def test_chains_hold_chains_and_run_in_order(device):
    double = optim.Transform(lambda _: (), lambda g, state, _p, _s: ([2 * x for x in g], state))
    params, grads = on(device, [0.0]), on(device, [3.0])
    clip = optim.clip_by_global_norm(1.0)
    clip_first = optim.chain(clip, optim.chain(double, optim.SGD(1.0)))
    clip_last = optim.chain(double, optim.chain(clip, optim.SGD(1.0)))
    assert_same(run(clip_first, params, [grads])[0], [-2.0])
    assert_same(run(clip_last, params, [grads])[0], [-1.0])


def test_adamw_is_made_of_parts(device):
    start, gradients = on(device, draw(0)), [on(device, draw(1 + i)) for i in range(3)]
    parts = optim.chain(optim.scale_by_adam(), optim.add_decayed_weights(1e-2), optim.SGD(1e-3))
    expected, _ = run(optim.AdamW(), start, gradients)
    received, _ = run(parts, start, gradients)
    for name in SHAPES:
        assert_same(received[name], expected[name])


# -- inside a transform ------------------------------------------------------------------------------------


def test_training_with_gradients_from_value_and_grad(device):
    x = on(device, numpy.random.default_rng(0).normal(size=(20, 3)))
    y = x @ on(device, [[1.0], [-2.0], [0.5]]) + 1.0
    params = {"weight": on(device, numpy.zeros((3, 1))), "bias": on(device, numpy.zeros(1))}
    step = xpnet.value_and_grad(lambda p, x, y: xpnet.losses.mse(x @ p["weight"] + p["bias"], y))
    optimizer = optim.chain(optim.clip_by_global_norm(10.0), optim.Adam(optim.cosine(0.2, steps=200)))
    state = optimizer.init(params)
    for _ in range(200):
        _, grads = step(params, x, y)
        params, state = optimizer.update(grads, state, params)
    assert_same(params["weight"], [[1.0], [-2.0], [0.5]], tolerance=1e-3)
    assert_same(params["bias"], [1.0], tolerance=1e-3)


@pytest.mark.parametrize(
    "optimizer",
    [
        optim.SGD(0.1, momentum=0.9, nesterov=True, weight_decay=0.3),
        optim.AdamW(optim.one_cycle(0.1, steps=10)),
        optim.RMSprop(0.1, momentum=0.9),
        optim.chain(optim.clip_by_global_norm(0.5), optim.Lion(0.1)),
    ],
    ids=["SGD", "AdamW", "RMSprop", "Lion"],
)
def test_updates_have_gradients_themselves(device, optimizer):
    def last(params, grads):
        return run(optimizer, params, [grads, {name: 2 * g for name, g in grads.items()}])[0]

    xpnet.check_gradients(last, on(device, draw(0)), on(device, draw(1)))


# -- bad input ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: optim.SGD(-0.1), "learning_rate must be at least 0, received -0.1"),
        (lambda: optim.SGD(math.nan), "learning_rate must be a finite number, received nan"),
        (lambda: optim.SGD(0.1, momentum=1.0), "momentum must be at least 0 and less than 1, received 1.0"),
        (lambda: optim.SGD(0.1, weight_decay=-1.0), "weight_decay must be at least 0, received -1.0"),
        (lambda: optim.SGD(0.1, nesterov=True), "nesterov=True needs momentum, received momentum=0"),
        (lambda: optim.Adam(beta1=1.0), "beta1 must be at least 0 and less than 1, received 1.0"),
        (lambda: optim.Adam(beta2=-0.1), "beta2 must be at least 0 and less than 1, received -0.1"),
        (lambda: optim.Adam(epsilon=0), "epsilon must be positive, received 0"),
        (lambda: optim.AdamW(weight_decay=-1.0), "weight_decay must be at least 0, received -1.0"),
        (lambda: optim.RMSprop(alpha=1.0), "alpha must be at least 0 and less than 1, received 1.0"),
        (lambda: optim.RMSprop(epsilon=-1.0), "epsilon must be positive, received -1.0"),
        (lambda: optim.RMSprop(momentum=2.0), "momentum must be at least 0 and less than 1, received 2.0"),
        (lambda: optim.Lion(beta2=1.5), "beta2 must be at least 0 and less than 1, received 1.5"),
        (lambda: optim.Lion(weight_decay=-1.0), "weight_decay must be at least 0, received -1.0"),
        (lambda: optim.clip_by_global_norm(0), "max_norm must be positive, received 0"),
    ],
)
def test_settings_out_of_range(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize(
    ("parts", "received"),
    [
        ((), r"\(\)"),
        ((optim.clip_by_global_norm(1.0),), r"\(Transform\)"),
        ((optim.SGD(0.1), optim.clip_by_global_norm(1.0)), r"\(SGD, Transform\)"),
        ((optim.SGD(0.1), optim.Adam()), r"\(SGD, Adam\)"),
    ],
)
def test_chains_that_do_not_end_in_an_optimizer(parts, received):
    with pytest.raises(TypeError, match=f"transforms and at the end an optimizer, received {received}"):
        optim.chain(*parts)


def test_parameters_that_cannot_be_trained(device):
    optimizer = optim.Adam()
    for empty in ({}, [], Layer(None, on(device, [1.0]))):
        with pytest.raises(ValueError, match="at least one parameter, received a tree without arrays"):
            optimizer.init(empty)
    with pytest.raises(ValueError, match=r"real floating-point numbers, received .*int64 at b\. Convert"):
        optimizer.init({"a": on(device, [1.0]), "b": on(device, [1])})
    with pytest.raises(ValueError, match=r"real floating-point numbers, received .*complex128 at the root"):
        optimizer.init(on(device, [1j]))
    with pytest.raises(ValueError, match="real floating-point numbers, received str at b"):
        optimizer.init({"a": on(device, [1.0]), "b": "tanh"})


def test_gradients_that_do_not_fit(device):
    params = {"a": on(device, [1.0, 2.0]), "b": on(device, [3.0])}
    optimizer = optim.Adam()
    state = optimizer.init(params)
    with pytest.raises(ValueError, match=r"must be a tree like the parameters, .*'a'.*, received .*"):
        optimizer.update({"a": params["a"]}, state, params)
    with pytest.raises(ValueError, match="must be a tree like the parameters"):
        optimizer.update(list(params.values()), state, params)
    with pytest.raises(ValueError, match=r"of its parameter, .*float64\[2\], received .*float64\[1\] at a"):
        optimizer.update({"a": params["b"], "b": params["b"]}, state, params)
    narrow = {"a": params["a"], "b": on(device, [3.0], "float32")}
    with pytest.raises(ValueError, match=r"of its parameter, .*float64\[1\], received .*float32\[1\] at b"):
        optimizer.update(narrow, state, params)
    assert_same(params["a"], [1.0, 2.0])
    if device.library.spec != "cpu":
        with pytest.raises(xpnet.errors.MixedArraysError, match="to_device"):
            optimizer.init({"a": params["a"], "b": numpy.zeros(2)})


ADAM = optim.Adam()
STATES = {
    "none": (ADAM, lambda params: None, "a dict, received NoneType"),
    "the parameters": (
        ADAM,
        lambda params: params,
        r"with step, learning_rate, transforms, received \(a, b\)",
    ),
    "a module": (ADAM, lambda params: Layer(params, None), "a dict, received Layer"),
    "without step": (
        ADAM,
        lambda params: {"learning_rate": 0.1, "transforms": ()},
        r"with step, .* received \(learning_rate, transforms\)",
    ),
    "of SGD": (ADAM, optim.SGD(0.1).init, "with 1 transforms, received 0"),
    "of momentum": (
        ADAM,
        optim.SGD(0.1, momentum=0.9).init,
        r"which remembers \(mean, mean_square\), received \(velocity\)",
    ),
    "of Lion": (ADAM, optim.Lion().init, r"which remembers \(mean, mean_square\), received \(mean\)"),
    "of Adam, for Lion": (
        optim.Lion(),
        ADAM.init,
        r"which remembers \(mean\), received \(mean, mean_square\)",
    ),
    "of Adam, for clipping": (
        optim.chain(optim.clip_by_global_norm(1.0), optim.SGD(0.1)),
        ADAM.init,
        r"which remembers \(\), received \(mean, mean_square\)",
    ),
    "of Adam, for decay": (
        optim.chain(optim.add_decayed_weights(1.0), optim.SGD(0.1)),
        ADAM.init,
        r"which remembers \(\), received \(mean, mean_square\)",
    ),
    "of fewer parameters": (
        ADAM,
        lambda params: ADAM.init([params["a"]]),
        r"whose mean has the shapes \[\(2,\), \(3,\)\], received \[\(2,\)\]",
    ),
    "of shapes that broadcast": (
        optim.SGD(0.1, momentum=0.9),
        lambda params: optim.SGD(0.1, momentum=0.9).init([params["a"], params["b"][:1]]),
        r"whose velocity has the shapes \[\(2,\), \(3,\)\], received \[\(2,\), \(1,\)\]",
    ),
    "of RMSprop, other shapes": (
        optim.RMSprop(),
        lambda params: optim.RMSprop().init([params["b"], params["a"]]),
        "whose mean_square has the shapes",
    ),
    "of Adam, without a scale": (
        optim.LossScaling(ADAM),
        ADAM.init,
        "with loss_scale, finite_steps, received",
    ),
    "none, with scaling": (optim.LossScaling(ADAM), lambda params: None, "a dict, received NoneType"),
}


@pytest.mark.parametrize(("optimizer", "state", "message"), STATES.values(), ids=STATES)
def test_states_that_do_not_fit(device, optimizer, state, message):
    params = {"a": on(device, [1.0, 2.0]), "b": on(device, [3.0, 4.0, 5.0])}
    with pytest.raises(ValueError, match=rf"the state must be .*, {message}.*update\(grads, state, params\)"):
        optimizer.update(params, state(params), params)


@pytest.mark.parametrize("wrap", [lambda optimizer: optimizer, optim.LossScaling], ids=["alone", "scaled"])
@pytest.mark.parametrize(
    "make", [list, dict, lambda params: Layer(params["a"], None)], ids=["list", "dict", "module"]
)
def test_swapped_arguments_of_update(device, make, wrap):
    params = {"a": on(device, [1.0, 2.0]), "b": on(device, [3.0])}
    params = list(params.values()) if make is list else make(params)
    optimizer = wrap(optim.chain(optim.clip_by_global_norm(1.0), optim.Adam()))
    state = optimizer.init(params)
    for swapped in [(params, params, state), (state, params, params)]:
        with pytest.raises(
            ValueError, match=r"the state must be .*The order is update\(grads, state, params\)"
        ):
            optimizer.update(*swapped)
    for grads in (None, state, [], 3.0):
        with pytest.raises(
            ValueError, match=r"the gradients must be .*The order is update\(grads, state, params\)"
        ):
            optimizer.update(grads, state, params)


def test_gradients_that_are_no_arrays(device):
    params = {"a": on(device, [1.0, 2.0])}
    for optimizer in (optim.SGD(0.1), optim.LossScaling(optim.SGD(0.1))):
        with pytest.raises(ValueError, match=r"a gradient must have .* received float at a\."):
            optimizer.update({"a": 1.0}, optimizer.init(params), params)


def test_epsilon_hat_stands_beside_the_uncorrected_root(device):
    params = {"x": xpnet.asarray([1.0, 2.0], device=device, dtype="float64")}
    grads = {"x": xpnet.asarray([1e-3, 0.5], device=device, dtype="float64")}
    optimizer = optim.Adam(0.1, epsilon=0.01, epsilon_hat=True)
    moved, _ = optimizer.update(grads, optimizer.init(params), params)
    g = numpy.asarray([1e-3, 0.5])
    rate = 0.1 * (1 - 0.999) ** 0.5 / (1 - 0.9)
    expected = numpy.asarray([1.0, 2.0]) - rate * 0.1 * g / ((0.001 * g * g) ** 0.5 + 0.01)
    numpy.testing.assert_allclose(xpnet.to_numpy(moved["x"]), expected, rtol=rounding(100, "float64"))


TRANSFORMS = [
    optim.clip_by_global_norm(0.1),
    optim.add_decayed_weights(0.1),
    optim.accumulate_momentum(0.9, nesterov=True),
    optim.scale_by_adam(beta1=0.8),
    optim.scale_by_root_mean_square(alpha=0.9),
    optim.scale_by_lion(beta1=0.8),
]
SCHEDULES = [
    optim.constant(0.1),
    optim.step_decay(0.1, every=2),
    optim.cosine(0.1, steps=5),
    optim.warmup_cosine(0.1, warmup_steps=2, steps=5),
    optim.one_cycle(0.1, steps=10),
]


@pytest.mark.parametrize(
    "optimizer",
    [
        optim.Adam(0.1, beta1=0.8),
        *(optim.chain(transform, optim.SGD(0.1, momentum=0.5)) for transform in TRANSFORMS),
        *(optim.chain(optim.clip_by_global_norm(0.1), optim.AdamW(schedule)) for schedule in SCHEDULES),
    ],
)
def test_optimizers_can_be_pickled(optimizer):
    def moved(optimizer):
        params = {"x": numpy.asarray([1.0, -2.0])}
        state = optimizer.init(params)
        for _ in range(4):
            params, state = optimizer.update({"x": 3 * params["x"]}, state, params)
        return params["x"]

    again = pickle.loads(pickle.dumps(optimizer))
    assert again == optimizer
    assert again.transforms == optimizer.transforms
    numpy.testing.assert_array_equal(moved(again), moved(optimizer))


def test_optimizers_with_the_same_settings_share_a_recording():
    calls = []

    def step(optimizer, state, params):
        calls.append(optimizer)
        return optimizer.update(params, state, params)

    recorded, params = xpnet.jit(step), [numpy.ones(2)]
    for beta1 in (0.5, 0.5, 0.25, 0.5, numpy.float32(0.25)):
        optimizer = optim.chain(
            optim.scale_by_adam(beta1=beta1), optim.SGD(optim.constant(0.1), momentum=beta1)
        )
        recorded(optimizer, optimizer.init(params), params)
    assert len(calls) == 2
