"""Frozen parts of networks: what trains, what stays, and what can be frozen."""

import copy
import pickle

import numpy as np
import pytest
from helpers import assert_same_trees, batch

import xpnet
from xpnet import losses, nn, optim, tree
from xpnet.training.callbacks import Checkpoint

X = np.random.default_rng(0).normal(size=(24, 3))
Y = np.random.default_rng(1).normal(size=(24, 2))


def network(seed=0, dtype="float64"):
    """Layers with statistics and random numbers, in front of a head."""
    return nn.Sequential(
        nn.Dense(3, 4, seed=seed, dtype=dtype),
        nn.BatchNorm(4, dtype=dtype),
        nn.ReLU(),
        nn.Dropout(0.5, seed=seed + 1),
        nn.Dense(4, 2, seed=seed + 2, dtype=dtype),
    )


def train(net, **options):
    settings = {"optimizer": optim.AdamW(0.05, weight_decay=0.1), "epochs": 2, "batch_size": 8, "seed": 0}
    settings |= {"loss": losses.mse, "progress": False}
    return xpnet.fit(net, X, Y, **(settings | options))


def contents(net):
    """Return all arrays of a network by their paths, as bytes."""
    arrays = tree.leaves(xpnet.to_numpy(net), state=True)
    return {path: x.tobytes() for path, x in zip(tree.paths(net, state=True), arrays, strict=True)}


def changed(before, net):
    after = contents(net)
    return {path for path in before if before[path] != after[path]}


HEAD = {"layers.4.weight", "layers.4.bias"}
PARAMETERS = ["layers.0.weight", "layers.0.bias", "layers.1.weight", "layers.1.bias", *sorted(HEAD)[::-1]]


# -- training ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("jit", [True, False])
@pytest.mark.parametrize(
    "optimizer",
    [optim.AdamW(0.05, weight_decay=0.1), optim.SGD(0.05, momentum=0.9)],
    ids=["AdamW", "SGD"],
)
def test_fit_changes_the_rest_alone(device, jit, optimizer):
    net = network()
    net.freeze().layers[-1].unfreeze()
    before = contents(net)
    history = train(net, jit=jit, optimizer=optimizer)
    assert changed(before, net) == HEAD
    assert history["loss"][-1] < history["loss"][0]


@pytest.mark.parametrize("jit", [True, False])
def test_one_array_of_a_layer(device, jit):
    net = nn.freeze(network(), ["layers.0.weight", "layers.4.bias"])
    before = contents(net)
    train(net, jit=jit)
    stay = {"layers.0.weight", "layers.4.bias"}
    assert changed(before, net) == before.keys() - stay  # the statistics, and the state of Dropout, move


@pytest.mark.parametrize("jit", [True, False])
def test_a_loop_of_ones_own(device, jit):
    net = network(dtype="float32")
    nn.freeze(net, ["layers.0", "layers.1"])
    optimizer, x, y = optim.AdamW(0.05, weight_decay=0.1), batch(8, 3), batch(8, 2, seed=1)
    before = contents(net)

    def step(net, state, x, y):
        loss, gradient = xpnet.value_and_grad(lambda net: losses.mse(net(x), y))(net)
        return *optimizer.update(gradient, state, net), loss, gradient

    run = xpnet.jit(step, donate=("net", "state")) if jit else step
    trained, state = tree.map(lambda leaf: leaf, net, state=True), optimizer.init(net)
    for _ in range(3):
        trained, state, _, gradient = run(trained, state, x, y)
    assert tree.paths(gradient) == tree.paths(trained) == sorted(HEAD)[::-1]
    assert changed(before, trained) == {*HEAD, "layers.3.random_state"}
    assert len(tree.leaves(state)) < len(tree.leaves(optimizer.init(net.unfreeze())))


def test_a_replay_copies_nothing_that_is_frozen(device):
    net, optimizer = network(dtype="float32"), optim.SGD(0.1)
    net.freeze().layers[-1].unfreeze()

    def step(net, x):
        gradient = xpnet.grad(lambda net: losses.mse(net(x), x[:, :2]))(net)
        return optimizer.update(gradient, state, net)[0]

    state, run, x = optimizer.init(net), xpnet.jit(step, donate=("net",)), batch(8, 3)
    after = run(net, x)
    weight = after[0].weight
    again = run(after, x)
    assert again[0].weight is weight
    assert again[4].weight.shape == (4, 2)


def test_it_is_what_pytorch_trains(device):
    torch = pytest.importorskip("torch")
    net = nn.Sequential(
        nn.Dense(3, 5, seed=0, dtype="float64"),
        nn.BatchNorm(5, dtype="float64"),
        nn.Tanh(),
        nn.Dense(5, 4, seed=1, dtype="float64"),
        nn.Tanh(),
        nn.Dense(4, 2, seed=2, dtype="float64"),
    )
    statistics = np.random.default_rng(2).uniform(0.5, 2, size=(2, 5))
    net[1].running_mean, net[1].running_variance = (xpnet.asarray(x, device=device) for x in statistics)
    nn.freeze(net, ["layers.0", "layers.1", "layers.3.bias"])
    dense = [torch.nn.Linear(*shape, dtype=torch.float64) for shape in ((3, 5), (5, 4), (4, 2))]
    norm = torch.nn.BatchNorm1d(5, dtype=torch.float64)
    for layer, peer in zip((net[0], net[3], net[5]), dense, strict=True):
        peer.weight.data = torch.tensor(xpnet.to_numpy(layer.weight).T.copy())
        peer.bias.data = torch.tensor(xpnet.to_numpy(layer.bias).copy())
    norm.running_mean, norm.running_var = map(torch.tensor, statistics)
    peer = torch.nn.Sequential(dense[0], norm, torch.nn.Tanh(), dense[1], torch.nn.Tanh(), dense[2])
    dense[0].requires_grad_(False)
    norm.requires_grad_(False).eval()
    dense[1].bias.requires_grad_(False)
    optimizer = torch.optim.AdamW(
        [p for p in peer.parameters() if p.requires_grad], lr=0.01, weight_decay=0.1
    )
    x, y = torch.tensor(X), torch.tensor(Y)
    for _ in range(100):
        optimizer.zero_grad()
        torch.nn.functional.mse_loss(peer(x), y).backward()
        optimizer.step()
    train(net, optimizer=optim.AdamW(0.01, weight_decay=0.1), epochs=100, batch_size=len(X), shuffle=False)
    expected = peer(x).detach().numpy()
    np.testing.assert_allclose(xpnet.to_numpy(xpnet.predict(net, X)), expected, rtol=1e-9, atol=1e-9)
    for layer, other in zip((net[0], net[3], net[5]), dense, strict=True):
        found, expected = xpnet.to_numpy(layer.weight), other.weight.detach().numpy().T
        np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-9)


def test_frozen_layers_behave_as_in_use(device):
    net = network().eval()
    x = xpnet.asarray(X, device=device)
    expected = net[:4](x)
    net.train().freeze()
    before = contents(net)
    for call in (lambda net, x: net(x), xpnet.jit(lambda net, x: net(x))):
        assert xpnet.to_numpy(call(net[:4], x)).tolist() == xpnet.to_numpy(expected).tolist()
    assert contents(net) == before


def test_a_recording_is_for_one_setting():
    call = xpnet.jit(lambda net, x: net(x))
    layer, x = nn.Dropout(0.5, seed=0), np.ones(64)
    assert (call(layer, x) == 0).any()
    assert (call(layer.freeze(), x) == 1).all()
    assert (call(layer.unfreeze(), x) == 0).any()


def test_unfreezing_step_by_step(device):
    net = network()
    net.freeze().layers[-1].unfreeze()
    train(net)
    before = contents(net)
    nn.unfreeze(net, ["layers.0.weight", "layers.4.bias"])
    train(net)
    assert changed(before, net) == {*HEAD, "layers.0.weight"}
    before = contents(net.unfreeze())
    train(net)
    assert changed(before, net) == before.keys()


def test_eval_and_freezing_beside_each_other(device):
    """A layer that is switched alone keeps to it, whatever is frozen."""
    net = network()
    net[1].eval()
    net[4].freeze()
    before = contents(net)
    train(net)
    statistics = {"layers.1.running_mean", "layers.1.running_variance"}
    assert changed(before, net) == before.keys() - statistics - HEAD
    assert not net[1].training


def test_resumed_training_is_the_uninterrupted_one(tmp_path, device):
    def frozen():
        return nn.freeze(network(), ["layers.0", "layers.1", "layers.4.bias"])

    expected, net, path = frozen(), frozen(), tmp_path / "run.safetensors"
    whole = train(expected, epochs=4)
    train(net, epochs=2, callbacks=[Checkpoint(path)])
    resumed = frozen()
    assert train(resumed, epochs=4, resume=path) == whole
    assert contents(resumed) == contents(expected)
    # The network in the file is frozen as it was.
    assert tree.paths(xpnet.load(path)) == tree.paths(net) == ["layers.4.weight"]


def test_other_frozen_parts_are_not_resumed(tmp_path):
    frozen, other = network(), network()
    frozen.layers[0].freeze()
    options = {"optimizer": optim.SGD(0.01)}  # whose state is the same for all
    train(frozen, callbacks=[Checkpoint(tmp_path / "a")], **options)
    before = contents(other)
    with pytest.raises(
        ValueError, match=r"where layers\.0\.bias is frozen; received one in which it is trained"
    ):
        train(other, resume=tmp_path / "a", **options)
    assert not changed(before, other)


@pytest.mark.parametrize("moment", ["epoch_start", "step_end", "epoch_end"])
def test_what_is_trained_stays_the_same_in_a_training(moment):
    class Freeze(xpnet.callbacks.Callback):
        pass

    setattr(Freeze, moment, lambda _, run: run.net.layers[0].freeze())
    net = network()
    with pytest.raises(ValueError, match="what is trained must stay the same while fit runs"):
        train(net, callbacks=[Freeze()], optimizer=optim.SGD(0.01), epochs=3)
    assert net.layers[0].frozen is False


def test_nothing_to_train(device):
    net = network().freeze()
    for attempt in (lambda: train(net), lambda: optim.Adam().init(net)):
        with pytest.raises(
            ValueError, match=r"all frozen, layers.*layers.4.weight, layers.4.bias\. Call unfreeze\(\)"
        ):
            attempt()
    with pytest.raises(ValueError, match="received a tree without arrays"):
        optim.Adam().init({})


def test_a_gradient_from_before_does_not_fit():
    net, x = network(), np.asarray(X)
    optimizer = optim.SGD(0.1)
    state = optimizer.init(net)
    gradient = xpnet.grad(lambda net: losses.mse(net(x), Y))(net)
    with pytest.raises(ValueError, match="the gradients must be a tree like the parameters"):
        optimizer.update(gradient, state, nn.freeze(net, "layers.0.bias"))


def test_a_shared_layer_may_be_frozen():
    layer = nn.Dense(3, 3, seed=0)
    net = nn.Sequential(layer, layer, nn.Dense(3, 1, seed=1))
    with pytest.raises(ValueError, match="at one place"):
        optim.SGD(0.1).init(net)
    layer.freeze()
    optim.SGD(0.1).init(net)
    other = nn.Dense(3, 3, seed=0)
    other.weight = layer.weight  # which would be trained here, and stay there
    with pytest.raises(ValueError, match="at one place"):
        optim.SGD(0.1).init([net, other])


# -- what is frozen ---------------------------------------------------------------------------------------


class Block(nn.Module):
    """Arrays of all kinds: one, in a list, beside modules, and state."""

    state = ("calls",)

    def __init__(self):
        self.gain = np.ones(2)
        self.tables = [np.ones(2), {"a": np.ones(3)}]
        self.parts = {"dense": nn.Dense(2, 2, seed=0), "drop": nn.Dropout(0.5, seed=0)}
        self.calls = np.zeros(1)


def states(net):
    return {path: (module.frozen, module.training) for path, module in tree.named_branches(net)}


def test_paths_and_functions():
    block = Block()
    everything = tree.paths(block)
    assert everything == ["gain", "tables.0", "tables.1.a", "parts.dense.weight", "parts.dense.bias"]
    assert tree.paths(nn.freeze(block, "tables")) == [everything[0], *everything[3:]]
    assert block.frozen == ("tables",)
    assert block.training
    assert tree.paths(block, frozen=True) == everything
    assert tree.paths(block, state=True) == [*everything[:3], "parts.dense.weight", "parts.dense.bias",
                                             "parts.drop.random_state", "calls"]  # fmt: skip
    nn.freeze(block, lambda path, array: array.shape == (2,) and "tables" not in path)
    assert tree.paths(block) == ["parts.dense.weight"]
    assert states(block) == {
        "": (True, True), "parts.dense": (("bias",), True), "parts.drop": (False, True)
    }  # fmt: skip
    nn.freeze(block, "parts.dense.weight")  # the last one: all is frozen, with the layers in it
    assert states(block) == dict.fromkeys(["", "parts.dense", "parts.drop"], (True, False))
    assert tree.paths(nn.unfreeze(block, ["tables", "parts.dense"])) == everything[1:]
    assert states(block) == {
        "": (("gain",), True), "parts.dense": (False, True), "parts.drop": (True, False)
    }  # fmt: skip
    nn.unfreeze(block)
    assert states(block) == dict.fromkeys(["", "parts.dense", "parts.drop"], (False, True))
    assert all("frozen" not in vars(part) for part in tree.branches(block))


def test_a_module_without_arrays():
    net = network()
    nn.freeze(net, "layers.3")
    assert not net[3].training
    assert net.training
    assert tree.paths(net) == tree.paths(net, frozen=True)
    nn.unfreeze(net, "layers.3")
    assert net[3].training


def test_layer_by_layer():
    """Layers without parameters go with the module around them, in both directions."""
    net = network().freeze()
    for name in ("layers.0", "layers.1"):
        nn.unfreeze(net, name)
    assert [layer.training for layer in net] == [True, True, False, False, False]
    nn.unfreeze(net, "layers.4")
    assert states(net) == dict.fromkeys(["", *(f"layers.{i}" for i in range(5))], (False, True))
    for name in ("layers.0", "layers.1", "layers.4"):
        assert net[3].training
        nn.freeze(net, name)
    assert states(net) == dict.fromkeys(["", *(f"layers.{i}" for i in range(5))], (True, False))


def test_a_frozen_body_stays_in_use():
    net = nn.Sequential(network(), nn.Dense(2, 2, seed=3)).freeze()
    net[-1].unfreeze()
    assert not any(part.training for part in tree.branches(net[0]))
    nn.unfreeze(net, "layers.1")
    assert not any(part.training for part in tree.branches(net[0]))


def test_a_layer_that_was_frozen_by_itself_stays_so():
    net = nn.Sequential(network(), nn.Dense(2, 2, seed=3), nn.Dense(2, 2, seed=4))
    nn.freeze(net, ["layers.0.layers.3", "layers.1", "layers.2"])
    nn.unfreeze(net, "layers.2")
    assert [layer.training for layer in net[0]] == [True, True, True, False, True]


def test_in_any_order():
    together = nn.freeze(network(), ["layers.1.weight", "layers.1.bias"])
    apart = nn.freeze(nn.freeze(network(), "layers.1.bias"), "layers.1.weight")
    assert states(together) == states(apart)
    assert together[1].frozen is True
    assert not together[1].training


def test_trees_of_modules():
    nets = {"encoder": network(), "heads": [nn.Dense(2, 2, seed=0), nn.Dense(2, 2, seed=1)]}
    assert nn.freeze(nets, ["encoder", "heads.0"]) is nets
    assert tree.paths(nets) == ["heads.1.weight", "heads.1.bias"]
    assert not nets["encoder"].training


def test_train_and_eval_stay_stored():
    net = network().freeze()
    assert not net.train().training
    assert net.unfreeze().training
    net.freeze().eval().unfreeze()
    assert not net.training
    net.freeze().train()
    net[0].unfreeze()
    assert [layer.training for layer in net] == [True, False, False, False, False]
    assert net.training  # as a part of it is trained


class InUseAtFirst(nn.Module):
    training = False

    def __init__(self):
        self.weight = np.ones(1)


class Switched(nn.Module):
    def __init__(self):
        self.training = False


def test_switches_of_ones_own():
    layer = InUseAtFirst()
    assert not layer.training
    assert layer.train().training
    assert not layer.freeze().training
    assert not Switched().training
    assert Switched().train().training
    assert nn.Module.training
    assert not InUseAtFirst.training


def test_copies_keep_it(tmp_path, device):
    net = nn.freeze(network(), ["layers.0", "layers.1.weight"])
    xpnet.save(net, tmp_path / "net.safetensors")
    others = [
        copy.deepcopy(net),
        pickle.loads(pickle.dumps(net)) if device.spec == "cpu" else copy.deepcopy(net),
        tree.copied(net),
        tree.map(lambda leaf: leaf * 2, net),
        xpnet.to_device(net, "cpu"),
        xpnet.load(tmp_path / "net.safetensors"),
        xpnet.load(tmp_path / "net.safetensors", into=nn.freeze(network(1), ["layers.0", "layers.1.weight"])),
    ]
    for other in others:
        assert tree.paths(other) == tree.paths(net)
        assert states(other) == states(net)
    assert not changed(contents(net), others[-1])


def test_a_file_from_before(tmp_path):
    net = network().eval()
    xpnet.save(net, tmp_path / "net.safetensors")
    assert b"frozen" not in (tmp_path / "net.safetensors").read_bytes()
    frozen = xpnet.load(tmp_path / "net.safetensors", into=network(1).freeze())
    assert not changed(contents(net), frozen)
    assert frozen.frozen is True


def test_what_reads_all_arrays(device, tmp_path):
    net = network()
    expected = xpnet.to_numpy(xpnet.predict(net, X))
    table = net.summary((3,))
    net.freeze()
    assert xpnet.to_numpy(xpnet.predict(net, X)).tolist() == expected.tolist()
    assert [(row.layer, row.output_shape, row.parameters) for row in net.summary((3,)).rows] == [
        (row.layer, row.output_shape, row.parameters) for row in table.rows
    ]
    assert net.summary((3,)).parameters == table.parameters
    assert tree.leaves(xpnet.predict(net, X))[0].dtype == net[0].weight.dtype


def test_gradients_through_frozen_layers(device):
    net = network().eval()
    nn.freeze(net, "layers.1")
    x = xpnet.asarray(X, device=device)
    xpnet.check_gradients(lambda net, x: net(x), net, x)
    assert tree.paths(xpnet.grad(lambda net: losses.mse(net(x), x[:, :2]))(net)) == tree.paths(net)


def test_checkpoints_take_frozen_layers(device):
    """Also where a frozen array was made of what is differentiated."""
    net = network().eval()
    nn.freeze(net, "layers.1")
    x = xpnet.asarray(X, device=device)

    def value(net, scale, x, around):
        net[1].weight = net[1].weight * scale
        return losses.mse(net[4](around(net[1])(net[0](x))), x[:, :2])

    scale = 1 + net[1].weight
    gradients = [
        xpnet.grad(lambda *inputs, each=each: value(*inputs, each), argnums=(0, 1))
        for each in (xpnet.checkpoint, lambda layer: layer)
    ]
    found, expected = (gradient(tree.copied(net), scale, x) for gradient in gradients)
    assert_same_trees(found, expected)
    assert np.all(xpnet.to_numpy(found[1]) != 0)


def test_scan_takes_frozen_layers(device):
    layer = nn.LSTM(3, 2, seed=0, dtype="float64")
    x = xpnet.asarray(X.reshape(4, 6, 3), device=device)
    expected = layer(x)
    nn.freeze(layer, "recurrent")
    assert_same_trees(layer(x), expected, tolerance=0)
    gradient = xpnet.grad(lambda layer: losses.mse(layer(x), 0 * expected))(layer)
    assert tree.paths(gradient) == tree.paths(layer) != tree.paths(layer, frozen=True)


# -- what is refused --------------------------------------------------------------------------------------


class Mixed(nn.Module):
    def __init__(self):
        self.parts = [np.ones(2), nn.Dense(2, 2, seed=0)]


def beside():
    return {"a": np.ones(2), "net": network()}


@pytest.mark.parametrize(
    ("net", "where", "text"),
    [
        (network, "layers.9", "'layers.9'. Is layers"),
        (network, "layers.1.running_mean", "'layers.1.running_mean'"),
        (network, lambda path, array: False, "true of at least one array"),
        (Block, "tables.0", "a part of tables of a Block, without 1.a. Choose tables as a whole"),
        (Mixed, "", "parts of a Mixed, which holds modules"),
        (Mixed, "parts.0", "parts of a Mixed, which holds modules"),
        (beside, "", "received a, which stands in none"),
        (beside, ["net.layers.0", "a"], "received a, which stands in none"),
    ],
    ids=["no path", "state", "no array", "a part", "beside modules", "mixed", "no module", "one of two"],
)  # fmt: skip
def test_bad_places_change_nothing(net, where, text):
    net = net()
    before = states(net)
    with pytest.raises(ValueError, match=text):
        nn.freeze(net, where)
    assert states(net) == before


def test_no_path_at_all():
    with pytest.raises(TypeError, match="chosen by a path"):
        nn.freeze(network(), 3)


@pytest.mark.parametrize("frozen", [("wieght",), "weight", 3, ["weight"]], ids=str)
def test_a_setting_that_names_nothing(frozen):
    layer = tree.copied(nn.Dense(2, 2, seed=0).eval())
    layer.frozen = frozen
    with pytest.raises(ValueError, match="attributes with arrays of a Dense, weight, bias; received"):
        tree.leaves(layer)


def test_a_setting_of_a_layer_without_arrays():
    net = network()
    net.frozen = ("weight",)
    with pytest.raises(ValueError, match="with arrays of a Sequential, which has none; received"):
        tree.leaves(net)


def test_modules_beside_arrays_are_frozen_by_themselves():
    net = Mixed()
    assert tree.paths(nn.freeze(net, "parts.1")) == ["parts.0"]
    net.frozen = True
    with pytest.raises(ValueError, match="put arrays beside them into a module"):
        tree.leaves(net)
