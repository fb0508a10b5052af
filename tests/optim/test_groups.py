"""Groups of parameters: against an optimizer for each, against torch's, and what they refuse."""

import math
import pickle

import numpy
import pytest
from helpers import assert_on, assert_same, assert_same_trees, draw, half_of_the_digits, on

import xpnet
from xpnet import callbacks, losses, nn, optim, tree

STEPS = 100

# For each optimizer, the settings of two groups.
SETTINGS = {
    "SGD": (optim.SGD, {"learning_rate": 0.05}, {"learning_rate": 0.1, "weight_decay": 0.01}),
    "momentum": (
        optim.SGD,
        {"learning_rate": 0.05, "momentum": 0.9, "nesterov": True},
        {"learning_rate": 0.02, "momentum": 0.5, "weight_decay": 0.01},
    ),
    "Adam": (
        optim.Adam,
        {"learning_rate": 0.01},
        {"learning_rate": 0.02, "beta1": 0.8, "beta2": 0.9, "epsilon": 1e-3},
    ),
    "AdamW": (
        optim.AdamW,
        {"learning_rate": 0.01, "weight_decay": 0.0},
        {"learning_rate": 0.02, "weight_decay": 0.1, "beta1": 0.8},
    ),
    "RMSprop": (
        optim.RMSprop,
        {"learning_rate": 0.001},
        {"learning_rate": 0.002, "alpha": 0.9, "momentum": 0.5, "epsilon": 1e-3},
    ),
    "Lion": (
        optim.Lion,
        {"learning_rate": 0.001},
        {"learning_rate": 0.002, "beta1": 0.8, "weight_decay": 0.1},
    ),
}
ALL = pytest.mark.parametrize(("make", "of_body", "of_head"), SETTINGS.values(), ids=SETTINGS)


def parameters(device):
    """Return the parameters of a network: a body and a head, each with a weight and a bias."""
    start = {
        "body": {"weight": draw(3, 4, seed=0), "bias": draw(4, seed=1)},
        "head": {"weight": draw(4, 2, seed=2), "bias": draw(2, seed=3)},
    }
    return on(device, start)


def data(device):
    return on(device, draw(20, 3, seed=4)), on(device, draw(20, 2, seed=5))


def loss(params, x, y):
    xp = xpnet.array_namespace(x)
    hidden = xp.tanh(x @ params["body"]["weight"] + params["body"]["bias"])
    return losses.mse(hidden @ params["head"]["weight"] + params["head"]["bias"], y)


def trained(optimizer, device, *, jit=False, steps=STEPS, change=None):
    """Take steps, and return the parameters and the state; ``change`` may change the state before each."""

    def step(params, state, x, y):
        return optimizer.update(xpnet.grad(loss)(params, x, y), state, params)

    take = xpnet.jit(step, donate=("params", "state")) if jit else step
    params, (x, y) = parameters(device), data(device)
    state = optimizer.init(params)
    for number in range(steps):
        if change is not None:
            change(state, number)
        params, state = take(params, state, x, y)
    return params, state


# -- what each group does ----------------------------------------------------------------------------------


@ALL
def test_each_group_moves_as_with_an_optimizer_of_its_own(device, make, of_body, of_head):
    body, head = make(**of_body), make(**of_head)
    optimizer = optim.groups(("body", body), ("head", head))
    params, (x, y) = parameters(device), data(device)
    parts, state = dict(params), optimizer.init(params)
    states = {"body": body.init(params["body"]), "head": head.init(params["head"])}
    for _ in range(5):
        grads = xpnet.grad(loss)(params, x, y)
        params, state = optimizer.update(grads, state, params)
        for name, each in {"body": body, "head": head}.items():
            parts[name], states[name] = each.update(grads[name], states[name], parts[name])
    assert_same_trees(params, parts, tolerance=0)
    assert_same(state["step"], 5.0)
    for group, alone in zip(state["groups"], states.values(), strict=True):
        assert_same_trees(group, {name: alone[name] for name in group}, tolerance=0)


@ALL
def test_recorded_and_not(device, make, of_body, of_head):
    if make is optim.Lion:  # where a rounding error can turn a sign
        of_body, of_head = of_body | {"learning_rate": 0.0}, of_head | {"learning_rate": 0.0}
    optimizer = optim.groups(("body", make(**of_body)), make(**of_head))
    recorded, plain = (trained(optimizer, device, jit=jit, steps=20) for jit in (True, False))
    assert_same_trees(recorded, plain, tolerance=half_of_the_digits("float64"))


@pytest.mark.parametrize("jit", [False, True], ids=["eager", "jit"])
@ALL
def test_equal_settings_are_those_of_one_optimizer(device, make, of_body, of_head, jit):
    plain = make(**(of_body | of_head))
    grouped = optim.groups((["body.weight", "head.bias"], {}), ("body.bias", plain), plain)
    params, state = trained(grouped, device, jit=jit, steps=10)
    expected, of_plain = trained(plain, device, jit=jit, steps=10)
    assert_same_trees(params, expected, tolerance=0)
    for group in state["groups"]:
        assert_same(group["learning_rate"], of_plain["learning_rate"], tolerance=0)


def torch_optimizer(torch, make, groups):
    """Return the optimizer of torch for pairs of parameters and settings of xpnet's."""
    renamed = {"learning_rate": "lr", "epsilon": "eps"}
    options = []
    for params, settings in groups:
        others = {renamed.get(name, name): value for name, value in settings.items() if name[:4] != "beta"}
        if make in (optim.Adam, optim.AdamW):
            others["betas"] = settings.get("beta1", 0.9), settings.get("beta2", 0.999)
        options.append({"params": params, **others})
    return getattr(torch.optim, make.__name__)(options)


@pytest.mark.parametrize("jit", [False, True], ids=["eager", "jit"])
@pytest.mark.parametrize("name", [name for name in SETTINGS if name != "Lion"])  # which torch does not have
def test_groups_of_torch(device, name, jit):
    torch = pytest.importorskip("torch")
    make, of_body, of_head = SETTINGS[name]
    params, _ = trained(optim.groups(("body", make(**of_body)), make(**of_head)), device, jit=jit)

    # Copies, as arrays that come from JAX cannot be written to, of which torch warns.
    theirs = tree.map(lambda x: torch.tensor(numpy.array(xpnet.to_numpy(x))), parameters(device))
    theirs = tree.map(lambda x: x.requires_grad_(), theirs)
    x, y = (torch.tensor(numpy.array(xpnet.to_numpy(each))) for each in data(device))
    groups = [([*theirs["body"].values()], of_body), ([*theirs["head"].values()], of_head)]
    of_torch = torch_optimizer(torch, make, groups)
    for _ in range(STEPS):
        of_torch.zero_grad()
        hidden = torch.tanh(x @ theirs["body"]["weight"] + theirs["body"]["bias"])
        torch.mean((hidden @ theirs["head"]["weight"] + theirs["head"]["bias"] - y) ** 2).backward()
        of_torch.step()
    for received, expected in zip(tree.leaves(params), tree.leaves(theirs), strict=True):
        assert_same(xpnet.to_numpy(received), expected.detach().numpy(), tolerance=1e-9)


def test_no_decay_on_biases_and_norms(device):
    no_decay = (optim.biases_and_norms, {"weight_decay": 0.0})
    optimizer = optim.groups(no_decay, optim.AdamW(0.5, weight_decay=0.5))
    net = nn.Sequential(nn.Dense(3, 4, seed=0), nn.LayerNorm(4), nn.Embedding(5, 4, seed=0))
    net = tree.map(lambda leaf: on(device, numpy.ones(leaf.shape)), net)
    still = tree.map(lambda leaf: 0 * leaf, net)
    moved, _ = optimizer.update(still, optimizer.init(net), net)
    for path, leaf in zip(tree.paths(moved), tree.leaves(moved), strict=True):
        assert_same(leaf, numpy.full(leaf.shape, 0.75 if path.endswith(("0.weight", "2.weight")) else 1.0))


def test_schedules_of_groups_count_the_same_steps(device):
    zeros, ones = {"a": on(device, [0.0]), "b": on(device, [0.0])}, on(device, [1.0])
    optimizer = optim.groups(
        ("a", optim.SGD(lambda step: 1.0 / (step + 1))), ("b", optim.SGD(optim.step_decay(8.0, every=2)))
    )
    params, state = zeros, optimizer.init(zeros)
    for a, b in [(1, 8), (1 / 2, 8), (1 / 3, 0.8)]:
        before = params
        params, state = optimizer.update({"a": ones, "b": ones}, state, params)
        assert_same(before["a"] - params["a"], [a])
        assert_same(before["b"] - params["b"], [b])
        assert_same(state["groups"][0]["learning_rate"], a)
        assert_same(state["groups"][1]["learning_rate"], b)
    assert [*map(callable, optimizer.learning_rate)] == [True, True]


def test_chains_before_and_inside(device):
    params = {"a": on(device, [0.0]), "b": on(device, [0.0])}
    grads = {"a": on(device, [3.0]), "b": on(device, [4.0])}
    clip = optim.clip_by_global_norm(1.0)

    def moved(optimizer):
        after, state = optimizer.update(grads, optimizer.init(params), params)
        optimizer.update(grads, state, after)
        return after

    before = moved(optim.chain(clip, optim.groups(("a", optim.SGD(1.0)), optim.SGD(10.0))))
    assert_same(before["a"], [-0.6])
    assert_same(before["b"], [-8.0])
    inside = moved(optim.groups(("a", {"learning_rate": 10.0}), optim.chain(clip, optim.SGD(1.0))))
    assert_same(inside["a"], [-10.0])
    assert_same(inside["b"], [-1.0])


def test_scaled_losses(device):
    inner = optim.groups((optim.biases_and_norms, {"learning_rate": 0.02}), optim.Adam(0.01))
    optimizer = optim.LossScaling(inner)
    params, (x, y) = parameters(device), data(device)
    state, expected, inner_state = optimizer.init(params), params, inner.init(params)
    for _ in range(3):
        grads = xpnet.grad(loss)(params, x, y)
        scaled = tree.map(lambda g, state=state: g * state["loss_scale"], grads)
        params, state = optimizer.update(scaled, state, params)
        expected, inner_state = inner.update(grads, inner_state, expected)
    assert_same_trees(params, expected)
    overflow = tree.map(lambda g: g * math.inf, params)
    with numpy.errstate(all="ignore"):
        after, skipped = optimizer.update(overflow, state, params)
    assert_same_trees(after, params, tolerance=0)
    assert_same_trees(skipped["groups"], state["groups"], tolerance=0)


def sign(gradients, state, params, step):
    xp = xpnet.array_namespace(*gradients)  # which takes at least one array
    return [xp.sign(g) for g in gradients], state


REST = {
    "Adam": optim.Adam(0.1),
    "schedule": optim.RMSprop(optim.step_decay(0.1, every=1), momentum=0.5),
    "chain": optim.chain(optim.clip_by_global_norm(1.0), optim.Lion(0.1)),
    "one's own": optim.chain(optim.Transform(lambda params: [params[0]], sign), optim.SGD(0.1)),
}


@pytest.mark.parametrize("jit", [False, True], ids=["eager", "jit"])
@pytest.mark.parametrize("rest", REST.values(), ids=REST)
def test_nothing_is_left_for_the_rest(device, rest, jit):
    """As where all that is not frozen are biases."""
    grouped = optim.groups(("", {}), rest)
    params, state = trained(grouped, device, jit=jit, steps=5)
    expected, of_one = trained(rest, device, jit=jit, steps=5)
    assert_same_trees(params, expected, tolerance=0)
    of_all, of_none = state["groups"]
    assert_same_trees(of_all["transforms"], of_one["transforms"], tolerance=0)
    assert not tree.leaves(of_none["transforms"])
    assert_same(of_none["learning_rate"], of_one["learning_rate"], tolerance=0)
    wrong = state | {"groups": [of_all, of_all]}
    if tree.leaves(of_all["transforms"]):
        with pytest.raises(ValueError, match=r"remembers nothing where there are no parameters"):
            grouped.update(params, wrong, params)


def test_the_state_is_made_of_those_of_the_groups(device):
    params = on(device, {"a": numpy.zeros(2), "b": numpy.zeros(3)}, "float32")
    chained = optim.chain(
        optim.clip_by_global_norm(1.0), optim.groups(("a", optim.Adam(0.1)), optim.SGD(0.2))
    )
    state = chained.init(params)
    assert state.keys() == {"step", "transforms", "groups"}
    assert state["transforms"] == ((),)
    of_adam, of_sgd = state["groups"]
    assert of_adam.keys() == of_sgd.keys() == {"learning_rate", "transforms"}
    assert_on(of_sgd["learning_rate"], device, "float32", ())
    assert [tuple(x.shape) for x in tree.leaves(of_adam["transforms"])] == [(2,), (2,)]
    assert of_sgd["transforms"] == ()
    after = chained.update(params, state, params)[1]
    assert tree.flatten(after)[1] == tree.flatten(state)[1]


# -- learning rates that are assigned ----------------------------------------------------------------------


def holders(state):
    return state.get("groups", [state])


OPTIMIZERS = {
    "plain": lambda rate: optim.SGD(rate),
    "chain": lambda rate: optim.chain(optim.clip_by_global_norm(1e9), optim.SGD(rate)),
    "groups": lambda rate: optim.groups(("a", optim.SGD(7.0)), optim.SGD(rate)),
    "scaled": lambda rate: optim.LossScaling(optim.SGD(rate), initial_scale=1),
    "scaled groups": lambda rate: optim.LossScaling(
        optim.groups(("a", optim.SGD(7.0)), optim.SGD(rate)), initial_scale=1
    ),
}
ASSIGNED = [0.5, 0.25, 0.25, 2, numpy.float64(0.125), numpy.float64(0.5), numpy.float32(0.25), None, 0.5, 0.0]


@pytest.mark.filterwarnings("ignore:You are comparing a array_api_strict dtype:UserWarning")
@pytest.mark.parametrize("mode", ["eager", "jit", "donate"])
@pytest.mark.parametrize("make", OPTIMIZERS.values(), ids=OPTIMIZERS)
def test_numbers_that_are_assigned(device, make, mode):
    optimizer = make(1.0)

    def take(params, state, grads):
        return optimizer.update(grads, state, params)

    if mode != "eager":
        take = xpnet.jit(take, donate=("params", "state") if mode == "donate" else ())
    params = on(device, {"a": numpy.zeros(2), "b": numpy.zeros(3)}, "float32")
    grads = on(device, {"a": numpy.ones(2), "b": numpy.ones(3)}, "float32")
    state, place, rate = optimizer.init(params), 0.0, 1.0
    for assigned in ASSIGNED:
        if assigned is not None:
            holders(state)[-1]["learning_rate"] = assigned
            rate = float(assigned)
        params, state = take(params, state, grads)
        place -= rate
        assert_same(params["b"], [place] * 3)
        assert_on(holders(state)[-1]["learning_rate"], device, "float32", ())
        assert_same(holders(state)[-1]["learning_rate"], rate)


@pytest.mark.parametrize("make", OPTIMIZERS.values(), ids=OPTIMIZERS)
@pytest.mark.parametrize("jit", [False, True], ids=["eager", "jit"])
@pytest.mark.parametrize(
    "wrong", [-0.1, math.nan, math.inf, "fast", None, True, [0.1], numpy.ones(2)], ids=repr
)
def test_what_is_no_learning_rate(device, make, jit, wrong):
    optimizer, params = make(1.0), on(device, {"a": numpy.zeros(2), "b": numpy.zeros(3)})
    state = optimizer.init(params)
    holders(state)[-1]["learning_rate"] = wrong
    take = xpnet.jit(optimizer.update) if jit else optimizer.update
    with pytest.raises(ValueError, match=r"learning_rate must be (at least 0|a (finite )?number), received"):
        take(params, state, params)


def test_an_array_that_is_no_number(device):
    optimizer, params = optim.SGD(0.1), on(device, {"a": numpy.zeros(2)})
    state = optimizer.init(params) | {"learning_rate": on(device, [0.1, 0.2])}
    with pytest.raises(ValueError, match=r"must be a number, received an array of shape \(2,\)"):
        optimizer.update(params, state, params)


def test_a_number_beside_a_schedule(device):
    optimizer, params = optim.groups(("a", optim.SGD(optim.constant(0.1)))), on(device, {"a": numpy.zeros(2)})
    state = optimizer.init(params)
    state["groups"][0]["learning_rate"] = 0.5
    with pytest.raises(ValueError, match=r"received 0\.5 for one with a schedule") as caught:
        optimizer.update(params, state, params)
    assert caught.value.__notes__ == ["This is about the group 'a'."]


def test_one_learning_rate_for_all_groups_is_refused(device):
    params = on(device, {"a": numpy.zeros(2)})
    grouped = optim.groups(("a", optim.SGD(0.1)))
    for optimizer in (
        grouped,
        optim.chain(optim.clip_by_global_norm(1.0), grouped),
        optim.LossScaling(grouped),
    ):
        state = optimizer.init(params)
        state["learning_rate"] = 0.5
        with pytest.raises(ValueError, match=r'Assign state\["groups"\]\[0\]\["learning_rate"\]'):
            optimizer.update(params, state, params)


# -- in fit ------------------------------------------------------------------------------------------------

X = numpy.random.default_rng(0).normal(size=(32, 3)).astype("float32")
Y = X @ numpy.asarray([[1.0], [-2.0], [0.5]], dtype="float32")
GROUPED = optim.groups((optim.biases_and_norms, {"weight_decay": 0.0}), optim.AdamW(0.05, weight_decay=0.1))


class Act(callbacks.Callback):
    """Does something at the end of each epoch, and keeps the learning rates before and after."""

    def __init__(self, act):
        self.act, self.rates = act, []

    def epoch_end(self, run):
        self.act(run)
        self.rates.append([float(rate) for rate in run.learning_rates])


def fit(optimizer, act=None, net=None, **options):
    net = net or nn.Sequential(nn.Dense(3, 4, seed=0), nn.Tanh(), nn.Dense(4, 1, seed=1))
    keep = Act(act or (lambda run: None))
    settings = {"loss": losses.mse, "epochs": 3, "seed": 0, "progress": False} | options
    others = settings.pop("callbacks", [])
    history = xpnet.fit(net, X, Y, optimizer=optimizer, callbacks=[keep, *others], **settings)
    return net, history, keep.rates


@pytest.mark.parametrize("precision", ["float32", "float16"])
def test_fit(precision):
    _, history, rates = fit(GROUPED, epochs=20, precision=precision)
    assert history["loss"][-1] < 0.1 * history["loss"][0]
    assert rates[-1] == pytest.approx([0.05, 0.05])


@pytest.mark.parametrize("precision", ["float32", "float16"])
@pytest.mark.parametrize("jit", [True, False], ids=["jit", "eager"])
def test_rates_are_set_in_fit(jit, precision):
    if precision == "float16" and not jit:
        pytest.skip("float16 needs jit")

    def one(run):
        run.set_learning_rate(0.5 * 0.5**run.epoch)

    def for_each(run):
        run.set_learning_rate([0.5 * 0.5**run.epoch] * 2)

    def assign(run):
        for group in run.optimizer_state["groups"]:
            group["learning_rate"] = 0.5 * 0.5**run.epoch

    nets, schedule = [], callbacks.LearningRateSchedule(lambda epoch: 0.05 if not epoch else 0.5 * 0.5**epoch)
    for act, options in [(one, {}), (for_each, {}), (assign, {}), (None, {"callbacks": [schedule]})]:
        net, _, rates = fit(GROUPED, act, jit=jit, precision=precision, **options)
        nets.append(net)
        if act is not None:
            assert rates == [[0.25, 0.25], [0.125, 0.125], [0.0625, 0.0625]]
    for net in nets[1:]:
        assert_same_trees(net, nets[0], tolerance=0)


def test_rates_of_groups_that_differ():
    def set_rates(run):
        run.set_learning_rate([0.25, 0.5 * run.learning_rates[1]])

    _, _, rates = fit(GROUPED, set_rates)
    assert rates == [pytest.approx([0.25, 0.05 / 2**n]) for n in (1, 2, 3)]
    _, _, rates = fit(optim.Adam(0.1), lambda run: run.set_learning_rate([0.5]))
    assert rates == [[0.5]] * 3


@pytest.mark.parametrize(
    ("optimizer", "rate", "message"),
    [
        (GROUPED, [0.1], r"one for each of 2 groups of parameters, received 1\."),
        (GROUPED, numpy.ones(3), r"one for each of 2 groups of parameters, received 3\."),
        (optim.SGD(0.1), [0.1, 0.1], r"one for each of 1 groups of parameters, received 2\."),
        (GROUPED, [0.1, -0.1], r"learning_rate must be at least 0, received -0\.1"),
        (GROUPED, "fast", "learning_rate must be a finite number, received 'fast'"),
        (optim.SGD(optim.constant(0.1)), 0.1, "received one with a schedule, SGD"),
        (optim.groups(("layers.0", {"learning_rate": optim.constant(0.1)}), optim.SGD(0.1)), 0.1, "schedule"),
    ],
    ids=["too few", "too many", "too many for one", "negative", "text", "schedule", "schedule of a group"],
)
def test_rates_that_cannot_be_set(optimizer, rate, message):
    seen = []

    def act(run):
        before = run.learning_rates
        with pytest.raises(ValueError, match=message) as caught:
            run.set_learning_rate(rate)
        assert [*map(float, run.learning_rates)] == [*map(float, before)]
        seen.append(caught.value)

    fit(optimizer, act, epochs=1)
    assert seen


def test_resumed_bit_for_bit(tmp_path):
    path = tmp_path / "checkpoint.safetensors"

    def act(run):
        run.optimizer_state["groups"][0]["learning_rate"] = 0.5 / (run.epoch + 1)

    optimizer = optim.chain(optim.clip_by_global_norm(1.0), GROUPED)
    whole, *_ = fit(optimizer, act, epochs=4)
    fit(optimizer, act, epochs=2, callbacks=[callbacks.Checkpoint(path)])
    resumed, history, rates = fit(optimizer, act, epochs=4, resume=path)
    assert_same_trees(resumed, whole, tolerance=0)
    assert rates == [[0.125, pytest.approx(0.05)], [pytest.approx(0.1), pytest.approx(0.05)]]
    assert len(history) == 4
    three = optim.groups(("layers.0.bias", {}), ("layers.2.bias", {}), optim.AdamW(0.05))
    with pytest.raises(ValueError, match="must fit the file"):
        fit(three, epochs=4, resume=path)


def test_a_training_goes_on_with_its_state():
    kept = []
    whole, *_ = fit(GROUPED, epochs=2, shuffle=False)
    net, *_ = fit(GROUPED, lambda run: kept.append(run.optimizer_state), epochs=1, shuffle=False)
    fit(GROUPED, net=net, optimizer_state=kept[0], epochs=1, shuffle=False)
    assert_same_trees(net, whole, tolerance=0)


def test_states_of_another_grouping_change_nothing():
    kept = []
    net, *_ = fit(GROUPED, lambda run: kept.append(run.optimizer_state), epochs=1)
    before = [leaf.copy() for leaf in tree.leaves(net)]
    adam = optim.AdamW(0.05)
    for optimizer, message in [
        (optim.groups(("layers.0.bias", {}), ("layers.2.bias", {}), adam), "with 3 groups, received 2"),
        (optim.groups(("layers.0", {}), adam), "whose mean has the shapes"),
        (adam, "with step, learning_rate, transforms, received"),
        (optim.groups((optim.biases_and_norms, optim.SGD(0.1)), adam), "with 0 transforms, received 2"),
    ]:
        with pytest.raises(ValueError, match=message):
            fit(optimizer, net=net, optimizer_state=kept[0], epochs=1)
        for leaf, expected in zip(tree.leaves(net), before, strict=True):
            numpy.testing.assert_array_equal(leaf, expected)
    with pytest.raises(ValueError, match="without groups of parameters"):
        fit(optim.SGD(0.1), net=net, optimizer_state=kept[0], epochs=1, precision="float16")


# -- bad input ---------------------------------------------------------------------------------------------

SGD = optim.SGD(0.1)
WRONG = {
    "none": ((), ValueError, "groups needs at least one pair .* received none"),
    "an optimizer alone": ((SGD,), ValueError, "groups needs at least one pair"),
    "an optimizer before the end": ((SGD, ("a", SGD)), ValueError, "must stand at the end, received SGD"),
    "two optimizers": ((("a", SGD), SGD, SGD), ValueError, "must stand at the end, received SGD"),
    "settings of nothing": ((("a", {"momentum": 0.9}),), ValueError, "for 'a' and no such optimizer"),
    "unknown settings": (
        (("a", {"lr": 0.1, "momentum": 0.9}), SGD),
        ValueError,
        r"settings of SGD are learning_rate, momentum, nesterov, weight_decay; received 'lr'\.",
    ),
    "unknown settings of a chain": (
        (("a", {"parts": ()}), optim.chain(optim.clip_by_global_norm(1.0), SGD)),
        ValueError,
        r"settings of SGD are .*; received 'parts'\.",
    ),
    "wrong settings": (
        (("a", {"momentum": 2}), SGD),
        ValueError,
        "momentum must be at least 0 and less than 1",
    ),
    "a path": (("a", SGD), TypeError, r"must be a pair .*, received 'a'\."),
    "a list of pairs": (
        ([("a", SGD), ("b", SGD)],),
        TypeError,
        "each group needs an optimizer, .* received tuple",
    ),
    "a triple": ((("a", "b", SGD),), TypeError, "must be a pair .*, received tuple"),
    "a transform": (
        (("a", optim.clip_by_global_norm(1.0)), SGD),
        TypeError,
        r"received Transform\. Write chain\(transform, optimizer\)",
    ),
    "a transform for a pair": (
        (optim.clip_by_global_norm(1.0), SGD),
        TypeError,
        "must be a pair .* Transform",
    ),
    "a class": ((("a", optim.SGD), SGD), TypeError, "received the class SGD"),
    "swapped": (((SGD, "a"), SGD), TypeError, "each group needs an optimizer, .* received 'a'"),
    "scaled": ((("a", optim.LossScaling(SGD)), SGD), TypeError, "Put LossScaling around groups"),
    "groups in groups": ((("a", optim.groups(("b", SGD))), SGD), TypeError, "without groups of its own"),
    "groups in a chain in groups": (
        (("a", SGD), optim.chain(optim.clip_by_global_norm(1.0), optim.groups(("b", SGD)))),
        TypeError,
        "without groups of its own",
    ),
}


@pytest.mark.parametrize(("given", "error", "message"), WRONG.values(), ids=WRONG)
def test_what_is_no_group(given, error, message):
    with pytest.raises(error, match=message):
        optim.groups(*given)


def is_large(path, parameter):
    return parameter.shape[0] > 1000


WRONG_FOR_PARAMETERS = {
    "a path of nothing": ((("bodi", SGD), SGD), ValueError, r"received 'bodi'\. Is body.* meant"),
    "one of two": (
        ((["body", "tail"], SGD), SGD),
        ValueError,
        "each path must name something, received 'tail'",
    ),
    "a function of nothing": (
        ((is_large, SGD), SGD),
        ValueError,
        "is_large must be true of at least one array",
    ),
    "no paths": ((([], SGD), SGD), ValueError, "at least one path must be given"),
    "none": (((None, SGD), SGD), TypeError, "chosen by a path such as .* received None"),
    "overlap": (
        (("body", SGD), (optim.biases_and_norms, SGD), SGD),
        ValueError,
        "must not overlap, received body.bias in both 'body' and biases_and_norms",
    ),
    "left out": (
        (("body", SGD), ("head.bias", SGD)),
        ValueError,
        "each parameter must be in a group, received head.weight in none.*or freeze",
    ),
}


@pytest.mark.parametrize(
    ("given", "error", "message"), WRONG_FOR_PARAMETERS.values(), ids=WRONG_FOR_PARAMETERS
)
def test_groups_that_do_not_fit_the_parameters(device, given, error, message):
    params = parameters(device)
    for optimizer in (optim.groups(*given), optim.LossScaling(optim.groups(*given))):
        with pytest.raises(error, match=message):
            optimizer.init(params)


def test_states_that_do_not_fit(device):
    params = parameters(device)
    optimizer = optim.groups(("body", optim.Adam(0.1)), SGD)
    state = optimizer.init(params)
    for wrong, message in [
        (SGD.init(params), r"with step, transforms, groups, received \(step, learning_rate, transforms\)"),
        (state | {"groups": state["groups"][:1]}, "with 2 groups, received 1"),
        (state | {"groups": 3.0}, "with 2 groups, received float"),
        (state | {"groups": state["groups"][::-1]}, "with 1 transforms, received 0"),
        (state | {"groups": [params, params]}, r"with learning_rate, transforms, received \(body, head\)"),
        (state | {"groups": [None, None]}, "a dict, received NoneType"),
    ]:
        with pytest.raises(ValueError, match=f"the state must be .*{message}"):
            optimizer.update(params, wrong, params)


# -- files, pickles, recordings ----------------------------------------------------------------------------

KEPT = {
    "settings": GROUPED,
    "paths": optim.groups((["body.weight", "head"], optim.Adam(optim.cosine(0.1, steps=9))), SGD),
    "chain": optim.chain(
        optim.clip_by_global_norm(1.0), optim.groups(("", optim.chain(optim.scale_by_adam(), SGD)))
    ),
    "scaled": optim.LossScaling(optim.groups(("body", {"momentum": 0.9}), SGD)),
    "nothing left": optim.groups((["body", "head"], {"beta1": 0.8}), optim.Adam(0.1)),
}


@pytest.mark.parametrize("optimizer", KEPT.values(), ids=KEPT)
def test_pickles_and_files(tmp_path, optimizer):
    again = pickle.loads(pickle.dumps(optimizer))
    assert again == optimizer
    xpnet.save({"optimizer": optimizer}, tmp_path / "optimizer.safetensors")
    read = xpnet.load(tmp_path / "optimizer.safetensors")["optimizer"]
    assert read == optimizer
    assert type(read) is type(optimizer)
    device = xpnet.device("cpu")
    state = optimizer.init(parameters(device))
    assert_same_trees(read.init(parameters(device)), state, tolerance=0)
    xpnet.save(state, tmp_path / "state.safetensors")
    assert_same_trees(xpnet.load(tmp_path / "state.safetensors", device="cpu"), state, tolerance=0)


def test_a_function_of_ones_own_is_not_read_from_a_file(tmp_path):
    xpnet.save({"optimizer": optim.groups((is_large, SGD), SGD)}, tmp_path / "optimizer.safetensors")
    with pytest.raises(ValueError, match="function is_large, and code is not read from files"):
        xpnet.load(tmp_path / "optimizer.safetensors")


def test_groups_with_the_same_settings_share_a_recording():
    calls = []

    def step(optimizer, state, params):
        calls.append(optimizer)
        return optimizer.update(params, state, params)

    recorded, params = xpnet.jit(step), {"a": numpy.ones(2), "b": numpy.ones((2, 2))}
    for rate in (0.5, 0.5, 0.25, 0.5):
        optimizer = optim.groups((optim.biases_and_norms, {"learning_rate": rate}), SGD)
        recorded(optimizer, optimizer.init(params), params)
    assert len(calls) == 2
