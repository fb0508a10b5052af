"""What is refused before a training changes anything: wrong ends of networks, losses that teach nothing."""

import functools

import numpy as np
import pytest

import xpnet
from training.cases import X, Y, classifier, train, weights
from xpnet import losses, metrics, nn, optim
from xpnet.errors import NoGradientError
from xpnet.training.metric import attribute_of

YES = Y[:, None].astype("float32")
ONE_HOT = np.eye(2, dtype="float32")[Y]


def dense(outputs=2):
    return nn.Dense(3, outputs, seed=0)


def softmax(z):
    xp = xpnet.array_namespace(z)
    e = xp.exp(z - xp.max(z, axis=-1, keepdims=True))
    return e / xp.sum(e, axis=-1, keepdims=True)


class Own(nn.Module):
    """A network with layers as attributes, and a function of them as its output."""

    def __init__(self, output, outputs=2):
        self.dense, self.softmax, self.sigmoid = dense(outputs), nn.Softmax(), nn.Sigmoid()
        self.output = output

    def __call__(self, x):
        return self.output(self, self.dense(x))


class Sharper(nn.Softmax):
    gives_probabilities = True

    def __call__(self, x):
        return super().__call__(2 * x)


class Odds(nn.Module):
    gives_probabilities = True

    def __call__(self, x):
        return 1 / (1 + xpnet.array_namespace(x).exp(-x))


def refused(net, error, message, y=Y, **options):
    before = weights(net)
    with pytest.raises(error, match=message):
        train(net, y=y, **options)
    assert all(map(np.array_equal, weights(net), before))


BINARY = {"loss": losses.binary_cross_entropy, "y": YES}


@pytest.mark.parametrize(
    ("make", "layer", "options"),
    [
        (lambda: nn.Sequential(dense(), nn.Softmax()), "layers.1 Softmax", {}),
        (lambda: nn.Sequential(dense(), nn.Softmax()), "layers.1 Softmax", {"y": ONE_HOT}),
        (lambda: nn.Sequential(dense(), nn.Sigmoid()), "layers.1 Sigmoid", {}),
        (lambda: nn.Sequential(dense(1), nn.Sigmoid()), "layers.1 Sigmoid", BINARY),
        (lambda: nn.Sequential(dense(), Sharper()), "layers.1 Sharper", {}),
        (lambda: nn.Sequential(dense(1), Odds()), "layers.1 Odds", BINARY),
        (lambda: nn.Sequential(nn.Sequential(dense(), nn.Softmax())), "layers.0.layers.1 Softmax", {}),
        (lambda: nn.Sequential(dense(), nn.Softmax(), nn.Dropout(0.5, seed=0)), "layers.1 Softmax", {}),
        (
            lambda: nn.Sequential(dense(1), nn.Sigmoid(), lambda p: p[:, 0]),
            "layers.1 Sigmoid",
            {"loss": losses.binary_cross_entropy, "y": YES[:, 0]},
        ),
        (lambda: Own(lambda net, z: net.softmax(z)), "softmax Softmax", {}),
        (lambda: Own(lambda net, z: net.sigmoid(z), 1), "sigmoid Sigmoid", BINARY),
    ],
)
def test_probabilities_in_front_of_a_loss_on_logits(device, make, layer, options):
    name = options.get("loss", losses.cross_entropy).__name__
    message = f"{name} takes logits.*received probabilities, the output of the layer {layer}. Leave that"
    refused(make(), ValueError, message, **options)


def test_losses_on_logits_are_found_in_other_functions(device):
    def double(x):
        xp = xpnet.array_namespace(x)
        return xp.astype(x, xp.float64)

    message = "cross_entropy takes logits.*received probabilities, the output of the layer softmax Softmax"
    one, several = Own(lambda net, z: net.softmax(z)), Own(lambda net, z: (z, {"p": net.softmax(z)}))
    for net, loss in [
        (one, lambda p, y: losses.cross_entropy(p, y)),
        (one, lambda p, y: losses.cross_entropy(p, y) + 0.1 * losses.mse(p, 0 * p)),
        (one, lambda p, y: losses.cross_entropy(double(p), y)),
        (several, lambda outputs, y: losses.cross_entropy(outputs[1]["p"], y)),
    ]:
        refused(net, ValueError, message, loss=loss)
    assert train(several, loss=lambda outputs, y: losses.cross_entropy(outputs[0], y), epochs=1)


@pytest.mark.parametrize(("classes", "dtype"), [(2, "float32"), (3, "float64"), (1000, "float32")])
def test_a_softmax_written_by_hand(device, classes, dtype, caplog):
    net = nn.Sequential(nn.Dense(3, classes, seed=0, dtype=dtype), softmax)
    for each in (net, Own(lambda _, z: nn.Softmax()(z))):
        caplog.clear()
        train(each, epochs=1, jit=False)
        (message,) = [record.getMessage() for record in caplog.records]
        assert message.startswith("xpnet: cross_entropy takes logits")
        assert "received rows of numbers from 0 to 1 that add up to 1" in message
        assert "Leave a softmax out of the network, and apply it to what predict returns" in message


def test_losses_and_metrics_on_logits_are_found(device):
    net = nn.Sequential(dense(), nn.Softmax())
    loss = functools.partial(functools.partial(losses.cross_entropy, label_smoothing=0.1), reduction="sum")
    refused(net, ValueError, "cross_entropy takes logits", loss=loss)

    def own(outputs, targets):
        return losses.mse(outputs, targets)

    assert train(net, y=ONE_HOT, loss=own)
    own.takes_logits = True
    refused(net, ValueError, "own takes logits", y=ONE_HOT, loss=own)
    totals, share = (lambda outputs, targets: (1.0, 1.0)), (lambda total, number: total)
    on_logits = metrics.Metric("of_logits", totals, share, takes_logits=True)
    steps = xpnet.training.Steps(losses.mse)
    assert train(net, y=ONE_HOT, loss=steps)
    refused(net, ValueError, "of_logits takes logits", y=ONE_HOT, loss=steps, metrics=[on_logits])


@pytest.mark.parametrize(
    ("net", "options"),
    [
        (nn.Sequential(dense(), nn.LogSoftmax()), {}),
        (nn.Sequential(dense(1), nn.Sigmoid()), {"loss": losses.mse, "y": YES}),
        (nn.Sequential(dense(), nn.Softmax()), {"loss": losses.mse, "y": ONE_HOT}),
        (nn.Sequential(dense(), nn.Softmax(), nn.Dense(2, 2, seed=1)), {}),
        (Own(lambda net, z: z * net.softmax(z)), {}),
        (Own(lambda net, z: z * net.sigmoid(z)), {}),
        (nn.Sequential(dense(), lambda z: 10 * softmax(z)), {}),
    ],
)
def test_probabilities_elsewhere(device, net, options):
    assert train(xpnet.to_device(net, device), **options)


def test_probabilities_beside_other_outputs(device):
    def loss(outputs, y):
        return losses.cross_entropy(outputs["logits"], y)

    loss.takes_logits = True
    assert train(Own(lambda net, z: {"logits": z, "attention": net.softmax(z)}), loss=loss)
    alone = Own(lambda net, z: {"logits": net.softmax(z)})
    refused(alone, ValueError, "loss takes logits", loss=loss)


def test_steps_that_are_kept_look_at_each_network(device):
    steps = xpnet.training.Steps(losses.cross_entropy)
    for _ in range(2):
        assert train(classifier(), loss=steps)
        refused(nn.Sequential(dense(), nn.Softmax()), ValueError, "takes logits", loss=steps)


def test_a_teacher_with_a_softmax(device):
    teacher = nn.Sequential(dense(), nn.Softmax()).eval()

    class Taught(nn.Module):
        def __init__(self):
            self.net, self.teacher = classifier(), teacher

        def __call__(self, x):
            return {"logits": self.net(x), "wanted": xpnet.stop_gradient(self.teacher(x))}

    def loss(outputs, y):
        return losses.cross_entropy(outputs["logits"], outputs["wanted"])

    loss.takes_logits = True
    assert train(Taught(), loss=loss)


def test_losses_may_be_recorded_by_themselves(device):
    for loss in (xpnet.jit(losses.cross_entropy), xpnet.jit(lambda p, y: losses.cross_entropy(p, y))):
        assert train(classifier(), loss=loss, epochs=1)


def test_one_output_of_1_is_no_softmax(caplog):
    train(nn.Sequential(dense(1), lambda z: z * 0 + 1), y=YES, loss=losses.binary_cross_entropy, epochs=1)
    assert not caplog.records


@pytest.mark.parametrize("wrong", [Y + 1, Y - 1, Y * 0 - 100])
def test_labels_are_looked_at_in_other_functions(device, wrong):
    def loss(outputs, y):
        return losses.cross_entropy(outputs["logits"], y)

    net = Own(lambda net, z: {"logits": z})
    late = np.where(np.arange(60) < 16, Y, wrong)  # not in the first batch
    refused(net, ValueError, "labels must be from 0 to 1 for 2 classes", y=late, loss=loss)
    with pytest.raises(ValueError, match="labels must be from 0 to 1") as caught:
        train(net, loss=loss, validation=(X, late))
    assert "This is about the data for validation." in caught.value.__notes__
    refused(
        net, ValueError, "targets must be probabilities", y=255 * YES,
        loss=lambda outputs, y: losses.binary_cross_entropy(outputs["logits"][:, :1], y),
    )  # fmt: skip


# -- losses that teach nothing -------------------------------------------------------------------------------


def mistakes(outputs, y):
    xp = xpnet.array_namespace(outputs)
    return xp.mean(xp.astype(xp.argmax(outputs, axis=-1) != y, outputs.dtype))


def of_targets(outputs, y):
    xp = xpnet.array_namespace(outputs)
    return xp.mean(xp.astype(y, outputs.dtype))


def above(outputs, y):
    xp = xpnet.array_namespace(outputs)
    return xp.sum(xp.astype(outputs > 0, outputs.dtype))


CONSTANT = [
    lambda outputs, y: 1.0,
    lambda outputs, y: xpnet.array_namespace(outputs).asarray(1.0, device=outputs.device),
    mistakes,
    of_targets,
    above,
    lambda outputs, y: losses.cross_entropy(xpnet.stop_gradient(outputs), y),
    lambda outputs, y: xpnet.array_namespace(outputs).sum(xpnet.array_namespace(outputs).floor(outputs)),
]


@pytest.mark.parametrize("jit", [True, False])
@pytest.mark.parametrize("number", range(len(CONSTANT)))
def test_a_loss_that_does_not_depend_on_the_network(device, number, jit):
    message = (
        "the loss must have a gradient in the parameters of the network, received one that does not depend"
    )
    stepped = xpnet.callbacks.Callback()
    stepped.step_end = lambda run: pytest.fail("a step was taken")
    refused(classifier(), NoGradientError, message, loss=CONSTANT[number], jit=jit, callbacks=[stepped])


def test_a_network_without_a_gradient_is_refused_and_a_gradient_of_zero_is_not(device):
    stopped = Own(lambda net, z: xpnet.stop_gradient(z))
    refused(stopped, NoGradientError, "the loss must have a gradient")
    dead = nn.Sequential(dense(4), nn.ReLU())
    dead[0].bias = dead[0].bias - 100
    before = weights(dead)
    train(dead, y=np.zeros((60, 4)), loss=losses.mse, optimizer=optim.SGD(0.1))
    assert all(map(np.array_equal, weights(dead), before))
    # What a network does in use need not have a gradient.
    in_use = Own(lambda net, z: z if net.training else xpnet.stop_gradient(z))
    before = weights(in_use)
    train(in_use)
    assert not np.array_equal(weights(in_use)[0], before[0])


def test_state_and_randomness_are_as_without_the_check(device):
    nets = [
        nn.Sequential(dense(4), nn.BatchNorm(4), nn.Dropout(0.5, seed=1), nn.Dense(4, 2, seed=2))
        for _ in "12"
    ]
    steps = xpnet.training.Steps(losses.cross_entropy)
    train(nets[0], loss=steps)
    train(nets[1], loss=steps)  # the second is not tried
    leaves = [xpnet.tree.leaves(xpnet.to_numpy(net), state=True) for net in nets]
    assert all(map(np.array_equal, *leaves))


def test_a_network_without_parameters(device):
    with pytest.raises(ValueError, match="at least one parameter, received a tree without arrays"):
        train(nn.Sequential(nn.ReLU(), lambda x: x[:, :2]))


@pytest.mark.parametrize(
    ("loss", "error", "received"),
    [
        (functools.partial(losses.cross_entropy, reduction="none"), ValueError, r"an array of shape \(16,\)"),
        (lambda outputs, y: None, TypeError, "a value of the type NoneType"),
        (lambda outputs, y: "0.5", TypeError, "a value of the type str"),
        (lambda outputs, y: [losses.cross_entropy(outputs, y)], TypeError, "a value of the type list"),
        (lambda outputs, y: 1j * losses.cross_entropy(outputs, y), ValueError, "an array of .*complex64"),
        (lambda outputs, y: 1j, TypeError, "a value of the type complex"),
    ],
)
def test_a_loss_that_is_not_one_number(device, loss, error, received):
    message = (
        rf"the loss must return one number, an array of shape \(\) .* received {received}\. Return the mean"
    )
    refused(classifier(), error, message, loss=loss)


def test_a_loss_that_reads_a_network_of_which_the_like_was_trained():
    other = classifier(seed=5)

    def loss(outputs, y):
        return losses.cross_entropy(outputs, y) + (other.layers[0].weight ** 2).sum()

    steps = xpnet.training.Steps(loss, jit=False)
    assert train(classifier(), loss=steps)
    refused(other, NoGradientError, "received one that reads", loss=steps)


# -- all targets ---------------------------------------------------------------------------------------------


def test_losses_and_metrics_look_at_all_targets(device):
    seen = []

    def look(outputs, targets):
        seen.append((tuple(outputs.shape), tuple(targets.shape)))
        if targets.shape[0] == 50:
            raise ValueError("fifty")

    totals, share = (lambda outputs, targets: (1.0, 1.0)), (lambda total, number: total)
    counted = metrics.Metric("counted", totals, share, check_targets=look)
    steps = xpnet.training.Steps(lambda outputs, y: losses.cross_entropy(outputs, y))
    for _ in range(2):  # also what was tried before
        train(classifier(), loss=steps, metrics=[counted, metrics.accuracy], validation=(X[:20], Y[:20]))
    assert seen == [((16, 2), (60,)), ((16, 2), (20,))] * 2
    refused(classifier(), ValueError, "fifty", loss=steps, metrics=[counted], validation=(X[:50], Y[:50]))


def test_attributes_are_found_through_partial():
    loss = functools.partial(losses.cross_entropy, reduction="sum")
    assert attribute_of(loss, "check_targets") is losses.cross_entropy.check_targets
    loss.takes_logits = False
    assert attribute_of(functools.partial(loss), "takes_logits") is False
    assert attribute_of(losses.mse, "takes_logits") is None
