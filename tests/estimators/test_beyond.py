"""What scikit-learn's estimators do not have."""

import pickle

import numpy as np
import pytest
import sklearn
from helpers import assert_on, half_of_the_digits, rounding
from sklearn.datasets import load_breast_cancer, load_diabetes, load_digits
from sklearn.metrics import log_loss
from sklearn.model_selection import train_test_split
from sklearn.preprocessing import scale

import xpnet
from xpnet import callbacks, losses, nn, optim
from xpnet.sklearn import MLPClassifier, MLPRegressor

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")

X, Y = load_digits(return_X_y=True)
X, Y = X[:600] / 16, Y[:600]
X_REG, Y_REG = load_diabetes(return_X_y=True)
X_REG, Y_REG = scale(X_REG), scale(Y_REG)
SETTINGS = {"hidden_layer_sizes": (20,), "max_iter": 30, "random_state": 0}

TOLERANCE = half_of_the_digits("float64")  # of weights and losses, after a training


def classifier(**options):
    return MLPClassifier(**(SETTINGS | {"learning_rate_init": 0.01} | options))


def regressor(**options):
    return MLPRegressor(**(SETTINGS | {"learning_rate_init": 0.01} | options))


# -- arrays and devices --------------------------------------------------------------------------------------


@pytest.mark.parametrize("y", [Y > 4, np.stack([Y > 4, Y > 6], axis=1).astype(int)], ids=["two", "several"])
def test_labels_are_the_same_on_each_device(y, device):
    found = classifier(device=device.spec, max_iter=100).fit(X[:60], y[:60]).predict(X[:60])
    assert found.dtype == y.dtype
    assert (found == y[:60]).mean() > 0.9


@pytest.mark.parametrize("dispatch", [False, True])
def test_arrays_of_any_library(device, dispatch):
    x, y = (xpnet.asarray(a, device=device, dtype=dtype) for a, dtype in ((X, "float32"), (Y, "int64")))
    expected = classifier().fit(X.astype("float32"), Y)
    with sklearn.config_context(array_api_dispatch=dispatch):
        found = classifier().fit(x, y)
        assert_on(found.predict(x), device, "int64", (600,))
        assert_on(found.predict_proba(x), device, "float32", (600, 10))
        assert_on(found.predict_log_proba(x), device, "float32", (600, 10))
        assert_on(found.coefs_[0], device, "float32", (64, 20))
        assert found.score(x, y) == pytest.approx(expected.score(X, Y), abs=0.01)  # six of 600 examples
        found.partial_fit(x, y)
    np.testing.assert_allclose(
        found.loss_curve_[:-1], expected.loss_curve_, rtol=half_of_the_digits("float32")
    )

    with sklearn.config_context(array_api_dispatch=dispatch):
        x, y = (xpnet.asarray(a, device=device, dtype="float32") for a in (X_REG, Y_REG))
        found = regressor(early_stopping=True).fit(x, y, xpnet.asarray(np.ones(442), device=device))
        assert_on(found.predict(x), device, "float32", (442,))
        assert found.score(x, y) > 0.4


def test_device_of_the_parameter(device):
    found = classifier(device=device.spec).fit(X, Y)
    assert xpnet.backends.device_of(found.coefs_[0]) == device
    assert type(found.predict_proba(X)) is type(found.predict(X)) is np.ndarray
    np.testing.assert_allclose(
        found.loss_curve_, classifier().fit(X, Y).loss_curve_, rtol=half_of_the_digits("float32")
    )
    words = np.asarray(["even", "odd"])[Y % 2]
    assert set(classifier(device=device.spec).fit(X, words).predict(X)) == {"even", "odd"}
    lbfgs = classifier(device=device.spec, solver="lbfgs").fit(X, Y)
    assert_on(lbfgs.coefs_[0], device)
    assert lbfgs.score(X, Y) > 0.9


def test_bad_arrays_of_another_library(device):
    if device.spec == "cpu":
        pytest.skip("scikit-learn checks arrays of NumPy")
    found = classifier()
    for x, message in (
        (X[0], "Expected 2D array, got 1D array"),
        (X[:0], "Found array with 0 sample"),
        (np.where(X > 0.9, np.nan, X), "Input X contains NaN or infinity"),
        (X * 1j, "Complex data not supported"),
    ):
        with pytest.raises(ValueError, match=message):
            found.fit(xpnet.asarray(x, device=device), Y[: len(x)])
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        found.fit(xpnet.asarray(X, device=device), Y[1:])
    found.fit(xpnet.asarray(X, device=device), Y)
    with pytest.raises(ValueError, match="X has 63 features, but MLPClassifier is expecting 64"):
        found.predict(xpnet.asarray(X[:, 1:], device=device))


# -- networks ------------------------------------------------------------------------------------------------


MADE = {
    "array": np.asarray,
    "list": np.ndarray.tolist,
    "integers": lambda x: x.astype("int64"),
    "double precision": lambda x: x.astype("float64"),
}


@pytest.mark.parametrize("make", MADE.values(), ids=MADE)
def test_weights_that_are_set_by_hand(device, make):
    x = X.astype("float32")
    estimator = classifier(hidden_layer_sizes=(4,), max_iter=1, device=device.spec).fit(x, Y)
    other = pickle.loads(pickle.dumps(estimator))
    weights = [np.round(20 * xpnet.to_numpy(coef)) for coef in estimator.coefs_]
    estimator.coefs_ = [make(weight) for weight in weights]
    for layer, weight in zip((other.network_[0], other.network_[2]), weights, strict=True):
        layer.weight = xpnet.asarray(weight, device=device, dtype="float32")
    other.coefs_ = [other.network_[0].weight, other.network_[2].weight]
    np.testing.assert_array_equal(estimator.predict_proba(x), other.predict_proba(x))
    assert_on(estimator.coefs_[0], device, "float32")


def test_activations_of_each_layer():
    own = lambda x: xpnet.array_namespace(x).tanh(x)
    net = classifier(hidden_layer_sizes=(9, 8, 7), activation=["gelu", nn.ELU(0.5), own]).fit(X, Y).network_
    assert [type(layer).__name__ for layer in net] == [
        "Dense",
        "GELU",
        "Dense",
        "ELU",
        "Dense",
        "Lambda",
        "Dense",
    ]
    same = classifier(hidden_layer_sizes=(9, 8), activation=["tanh", "tanh"]).fit(X, Y)
    assert same.loss_curve_ == classifier(hidden_layer_sizes=(9, 8), activation="tanh").fit(X, Y).loss_curve_
    with pytest.raises(ValueError, match="one entry for each of the 1 hidden layers, received 2"):
        classifier(activation=["relu", "relu"]).fit(X, Y)
    with pytest.raises(ValueError, match=r"each activation must be one of identity.*received \['swish'\]"):
        classifier(activation=["swish"]).fit(X, Y)


def test_dropout_and_batch_norm():
    found = classifier(hidden_layer_sizes=(30, 20), dropout=[0.2, 0.0], batch_norm=True).fit(X, Y)
    names = [type(layer).__name__ for layer in found.network_]
    assert names == ["Dense", "BatchNorm", "ReLU", "Dropout", "Dense", "BatchNorm", "ReLU", "Dense"]
    assert np.array_equal(found.predict_proba(X), found.predict_proba(X))
    assert found.score(X, Y) > 0.95
    assert abs(found.network_[1].running_mean).max() > 0.1
    again = classifier(hidden_layer_sizes=(30, 20), dropout=[0.2, 0.0], batch_norm=True).fit(X, Y)
    assert again.loss_curve_ == found.loss_curve_
    with pytest.raises(ValueError, match='"lbfgs" needs a loss that is the same each time'):
        classifier(dropout=0.5, solver="lbfgs").fit(X, Y)


def test_batch_norm_meets_no_batch_of_one():
    assert classifier(batch_norm=True, batch_size=50).fit(X[:501], Y[:501]).n_iter_ == 30


def test_module():
    def build(n_features, n_outputs):
        return nn.Sequential(nn.Dense(n_features, 16, seed=0), nn.ReLU(), nn.Dense(16, n_outputs, seed=1))

    made = classifier(module=build).fit(X, Y)
    given = classifier(module=build(64, 10)).fit(X, Y)
    assert made.score(X, Y) > 0.9
    assert made.loss_curve_ == given.loss_curve_
    assert given.module[0].weight is not given.coefs_[0]
    assert (made.n_layers_, [w.shape for w in made.coefs_]) == (3, [(64, 16), (16, 10)])
    images = classifier(module=nn.Sequential(nn.Flatten(), *build(64, 10))).fit(X.reshape(-1, 8, 8), Y)
    np.testing.assert_allclose(
        images.predict_proba(X.reshape(-1, 8, 8)), given.predict_proba(X), atol=TOLERANCE
    )
    with pytest.raises(TypeError, match="a function that returns int"):
        classifier(module=lambda n_features, n_outputs: 3).fit(X, Y)


@pytest.mark.parametrize("solver", ["adam", "lbfgs"])
@pytest.mark.parametrize("loss", ["log_loss", "focal", lambda outputs, y: losses.cross_entropy(outputs, y)])
def test_network_that_makes_probabilities_of_its_own(loss, solver):
    def ends_in(layer, **options):
        return classifier(
            module=lambda n, m: nn.Sequential(nn.Dense(n, m, seed=0), layer),
            solver=solver,
            loss=loss,
            **options,
        )

    for _ in range(2):
        with pytest.raises(ValueError, match=r"takes logits.*the output of the layer net\.layers\.1 Softmax"):
            ends_in(nn.Softmax()).fit(X, Y)
    if callable(loss):
        return
    with pytest.raises(ValueError, match=rf"{loss} takes logits.*net\.layers\.1 Sigmoid"):
        ends_in(nn.Sigmoid()).fit(X, Y == 0)


def test_network_that_makes_probabilities_for_a_regression():
    y = (Y_REG > 0).astype("float64")
    net = nn.Sequential(nn.Dense(10, 1, seed=0, dtype="float64"), nn.Sigmoid())
    assert regressor(module=net).fit(X_REG, y).score(X_REG, y) > 0.2
    with pytest.raises(ValueError, match=r"binary_cross_entropy takes logits.*net\.layers\.1 Sigmoid"):
        regressor(module=net, loss=losses.binary_cross_entropy).fit(X_REG, y)


@pytest.mark.parametrize("solver", ["adam", "lbfgs"])
def test_frozen_layers_of_a_network(solver):
    """The penalty is of what is trained, and there may be no matrix in that."""
    net = nn.Sequential(nn.Dense(64, 16, seed=0), nn.ReLU(), nn.Dense(16, 10, seed=1))
    net[0].freeze()
    nn.freeze(net, "layers.2.weight")
    made = classifier(module=net, solver=solver, alpha=0.1, max_iter=3).fit(X, Y)
    for found, given in ((made.network_[0].weight, net[0].weight), (made.network_[2].weight, net[2].weight)):
        np.testing.assert_array_equal(found, given)
    assert np.any(made.network_[2].bias != net[2].bias)
    with pytest.raises(ValueError, match=r"are all frozen, layers\.0\.weight, .*'layers\.2\.bias'"):
        classifier(module=net.freeze(), solver=solver, max_iter=3).fit(X, Y)


@pytest.mark.filterwarnings("ignore::RuntimeWarning", "ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize("solver", ["adam", "lbfgs"])
def test_frozen_layers_that_hold_nan(solver):
    """They make each output NaN, whatever the layers behind them learn."""
    net = nn.Sequential(nn.Dense(64, 16, seed=0), nn.ReLU(), nn.Dense(16, 10, seed=1))
    net[0].weight = net[0].weight * np.nan
    net[0].freeze()
    with pytest.raises(ValueError, match="non-finite parameter weights"):
        classifier(module=net, solver=solver, max_iter=3).fit(X, Y)


def mistakes(outputs, y):
    xp = xpnet.array_namespace(outputs)
    return xp.astype(xp.argmax(outputs, axis=-1) != y, outputs.dtype)


@pytest.mark.parametrize("solver", ["adam", "lbfgs"])
@pytest.mark.parametrize("alpha", [0.0, 0.1])
def test_loss_that_does_not_depend_on_the_network(solver, alpha):
    """The penalty alone is no loss."""
    with pytest.raises(xpnet.errors.NoGradientError, match="the loss must have a gradient in the parameters"):
        classifier(loss=mistakes, solver=solver, alpha=alpha).fit(X, Y)
    with pytest.raises(TypeError, match=r"a loss must return the loss of each example.*type NoneType"):
        classifier(loss=lambda outputs, y: None, solver=solver, alpha=alpha).fit(X, Y)


class Several(nn.Module):
    """A network with an output beside the first one, in training or in use."""

    def __init__(self, training):
        self.inner, self.several_in_training = nn.Dense(64, 10, seed=0), training

    def __call__(self, x):
        y = self.inner(x)
        return (y, x) if self.training == self.several_in_training else y


@pytest.mark.parametrize("solver", ["adam", "lbfgs"])
@pytest.mark.parametrize("training", [False, True])
def test_a_module_with_several_outputs_is_refused(solver, training):
    message = r"must return one array, of shape \(examples, outputs\), received tuple"
    with pytest.raises(TypeError, match=message):
        classifier(module=Several(training), solver=solver).fit(X, Y)


@pytest.mark.parametrize("solver", ["adam", "lbfgs"])
def test_a_module_with_another_number_of_outputs_is_refused(solver):
    for y, given, wanted in ((Y, 11, 10), (Y, 1, 10), (Y == 0, 2, 1)):
        with pytest.raises(ValueError, match=rf"shape \(examples, {wanted}\) .* received \(\d+, {given}\)"):
            classifier(module=nn.Dense(64, given, seed=0), solver=solver).fit(X, y)


@pytest.mark.parametrize("solver", ["adam", "lbfgs"])
def test_losses_of_the_users_look_at_targets(solver):
    with pytest.raises(ValueError, match="cross_entropy needs an output for each class, received 1 output"):
        classifier(loss=losses.cross_entropy, solver=solver).fit(X, Y == 0)
    with pytest.raises(ValueError, match="targets must be probabilities from 0 to 1"):
        regressor(loss=losses.binary_cross_entropy, solver=solver).fit(X_REG, Y_REG)


def test_outputs_that_became_several_are_refused():
    found = classifier(module=Several(None)).fit(X, Y)
    found.network_.several_in_training = False
    for many in (X, np.tile(X, (2, 1))):  # one call, and batches
        with pytest.raises(TypeError, match="must return one array"):
            found.predict(many)


# -- losses --------------------------------------------------------------------------------------------------


def test_several_quantiles():
    random = np.random.default_rng(0)
    x = random.uniform(-1, 1, (2000, 1))
    y = x[:, 0] + random.normal(size=2000)
    found = regressor(loss="quantile", quantile=(0.1, 0.5, 0.9), max_iter=60).fit(x, y)
    below = (y[:, None] <= found.predict(x)).mean(axis=0)
    # A share of 2000 examples has a standard deviation of at most 0.011.
    np.testing.assert_allclose(below, [0.1, 0.5, 0.9], atol=0.03)
    median = regressor(loss="quantile", max_iter=60).fit(x, y)
    assert median.predict(x).shape == (2000,)
    assert found.score(x, y) == pytest.approx(median.score(x, y), abs=0.05)
    with pytest.raises(ValueError, match=r"'quantile' parameter .* in the range \(0.0, 1.0\)"):
        regressor(loss="quantile", quantile=[0.5, 1.0]).fit(x, y)
    with pytest.raises(ValueError, match="need one column of targets, received 2"):
        regressor(loss="quantile", quantile=[0.2, 0.5]).fit(x, np.stack([y, y], 1))


def test_robust_losses_leave_outliers_alone():
    y = Y_REG.copy()
    y[:40] += 30
    kept = slice(40, None)
    scores = {
        loss: regressor(loss=loss, max_iter=80).fit(X_REG, y).score(X_REG[kept], Y_REG[kept])
        for loss in ("squared_error", "huber", "absolute_error")
    }
    assert min(scores["huber"], scores["absolute_error"]) > 0.3 > scores["squared_error"]


def test_loss_as_a_function():
    by_name = regressor(loss="absolute_error").fit(X_REG, Y_REG)
    own = lambda outputs, targets: abs(outputs - targets)
    for loss in (losses.mae, own):
        found = regressor(loss=loss).fit(X_REG, Y_REG)
        np.testing.assert_allclose(found.loss_curve_, by_name.loss_curve_, rtol=TOLERANCE)
    mean = lambda outputs, targets: xpnet.array_namespace(outputs).mean(abs(outputs - targets))
    np.testing.assert_allclose(
        regressor(loss=mean).fit(X_REG, Y_REG).loss_curve_, by_name.loss_curve_, rtol=TOLERANCE
    )
    with pytest.raises(ValueError, match="must return the loss of each example"):
        regressor(loss=mean).fit(X_REG, Y_REG, np.ones(442))
    smooth = classifier(loss=losses.cross_entropy).fit(X, Y)
    np.testing.assert_allclose(smooth.loss_curve_, classifier().fit(X, Y).loss_curve_, rtol=TOLERANCE)


def test_own_code_is_read_by_each_fit():
    factor = 1.0

    def loss(outputs, targets):
        return factor * losses.mse(outputs, targets, reduction="none")

    found = regressor(loss=loss, alpha=0.0, max_iter=1)
    first = found.fit(X_REG, Y_REG).loss_
    factor = 2.0
    assert found.fit(X_REG, Y_REG).loss_ == pytest.approx(2 * first, rel=0.05)


@pytest.mark.parametrize("y", [Y, Y % 2, np.stack([Y % 2, Y > 4], 1).astype(int)], ids=["10", "2", "labels"])
def test_focal_loss(y):
    found = classifier(loss="focal", alpha=0, max_iter=1, batch_size=600, learning_rate_init=1e-12).fit(X, y)
    p = found.predict_proba(X)
    right = p[np.arange(600), y] if y.ndim == 1 else np.where(y == 1, p, 1 - p)
    expected = (-((1 - right) ** 2) * np.log(right)).reshape(600, -1).sum(axis=1).mean()
    assert found.loss_ == pytest.approx(expected, rel=TOLERANCE)


def test_poisson_refuses_negative_targets():
    with pytest.raises(ValueError, match="needs targets of at least 0, received -"):
        regressor(loss="poisson").fit(X_REG, Y_REG)


def test_class_weight():
    x, y = load_breast_cancer(return_X_y=True)
    x = scale(x)
    rare = np.flatnonzero((y == 1) | (np.arange(len(y)) % 12 == 0))
    x, y = x[rare], y[rare]
    by_hand = np.where(y == 0, 7.0, 1.0)
    weighted = classifier(class_weight={0: 7.0, 1: 1.0}).fit(x, y)
    assert weighted.loss_curve_ == classifier().fit(x, y, by_hand).loss_curve_
    plain, balanced = (classifier(alpha=30, class_weight=w).fit(x, y) for w in (None, "balanced"))
    recall = [(each.predict(x)[y == 0] == 0).mean() for each in (plain, balanced)]
    assert recall[1] > recall[0]
    with pytest.raises(ValueError, match='"balanced" needs all examples at once'):
        classifier(class_weight="balanced").partial_fit(x, y, classes=[0, 1])


# -- training ------------------------------------------------------------------------------------------------


def test_optimizer():
    adam = optim.Adam(0.01, epsilon_hat=True)
    assert classifier(optimizer=adam).fit(X, Y).loss_curve_ == classifier().fit(X, Y).loss_curve_
    clipped = optim.chain(optim.clip_by_global_norm(1.0), optim.AdamW(0.01))
    assert classifier(optimizer=clipped, solver="lbfgs").fit(X, Y).score(X, Y) > 0.9
    assert pickle.loads(pickle.dumps(classifier(optimizer=adam).fit(X, Y))).score(X, Y) > 0.9
    with pytest.raises(ValueError, match="give the schedule to the optimizer"):
        classifier(optimizer=adam, schedule=optim.constant(0.1)).fit(X, Y)


def test_groups_of_parameters():
    adam = optim.Adam(0.01, epsilon_hat=True)
    plain = classifier().fit(X, Y)
    same = optim.groups(("layers.0", {}), adam)  # paths of network_, not of what is trained around it
    for optimizer in (same, optim.chain(optim.add_decayed_weights(0.0), same), optim.LossScaling(same)):
        grouped = classifier(optimizer=optimizer).fit(X, Y)
        np.testing.assert_allclose(grouped.loss_curve_, plain.loss_curve_, rtol=TOLERANCE)
    for _ in range(2):
        grouped.partial_fit(X, Y)
    still = classifier(optimizer=optim.groups(("layers.0", {"learning_rate": 0.0}), adam))
    still.partial_fit(X, Y, classes=np.unique(Y))
    before = [coefs.copy() for coefs in still.coefs_]
    still.partial_fit(X, Y)
    np.testing.assert_array_equal(still.coefs_[0], before[0])
    assert (still.coefs_[1] != before[1]).all()
    with pytest.raises(ValueError, match=r"received 'net\.layers\.0'\. Is layers"):
        classifier(optimizer=optim.groups(("net.layers.0", {}), adam)).fit(X, Y)


def test_weight_decay_of_groups():
    sgd = optim.SGD(0.01)
    expected = classifier(optimizer=sgd, weight_decay=0.5).fit(X, Y)
    clip = optim.clip_by_global_norm(1e9)
    for optimizer in (optim.groups(("layers.0", {}), sgd), optim.chain(clip, optim.groups(("", sgd)))):
        received = classifier(optimizer=optimizer, weight_decay=0.5).fit(X, Y)
        np.testing.assert_allclose(received.loss_curve_, expected.loss_curve_, rtol=TOLERANCE)


def test_another_grouping_begins_anew():
    adam = optim.Adam(0.01)
    estimator = classifier(optimizer=optim.groups(("layers.0", {}), adam)).fit(X, Y)
    for other in (optim.groups(("layers.0", optim.SGD(0.1)), adam), adam):
        estimator.set_params(optimizer=other).partial_fit(X, Y)


def test_optimizer_without_transforms():
    scaled = classifier(optimizer=optim.LossScaling(optim.Adam(0.01))).fit(X, Y)
    assert scaled.partial_fit(X, Y).score(X, Y) > 0.9
    with pytest.raises(
        ValueError, match="weight_decay needs an optimizer of transforms, received LossScaling"
    ):
        scaled.set_params(weight_decay=0.1).fit(X, Y)


def test_schedule():
    constant = classifier(schedule=optim.constant(0.01)).fit(X, Y)
    np.testing.assert_allclose(constant.loss_curve_, classifier().fit(X, Y).loss_curve_, rtol=TOLERANCE)
    falling = classifier(schedule=optim.step_decay(0.01, every=9, factor=0.0), tol=0).fit(
        X, Y
    )  # three epochs
    assert falling.loss_curve_[3:] == pytest.approx([falling.loss_curve_[4]] * len(falling.loss_curve_[3:]))
    slower = classifier(solver="sgd", learning_rate="invscaling", schedule=optim.constant(0.1)).fit(X, Y)
    assert slower.loss_curve_[-1] < slower.loss_curve_[0]


def test_weight_decay():
    plain, decayed = (classifier(weight_decay=w).fit(X, Y) for w in (0.0, 1.0))
    assert abs(decayed.coefs_[0]).mean() < 0.8 * abs(plain.coefs_[0]).mean()
    sgd = {"solver": "sgd", "momentum": 0.0, "max_iter": 1, "batch_size": 600, "learning_rate_init": 1e-3}
    plain, decayed = (classifier(**sgd, weight_decay=w).fit(X, Y) for w in (0.0, 0.5))
    start = classifier(**(sgd | {"learning_rate_init": 1e-15})).fit(X, Y).coefs_[0]
    np.testing.assert_allclose(
        plain.coefs_[0] - decayed.coefs_[0], 1e-3 * 0.5 * start, rtol=0, atol=rounding(10, "float64")
    )


def test_validation_data_and_its_loss_curve():
    x, x_val, y, y_val = train_test_split(X, Y, random_state=0)
    watched = classifier(validation_data=(x_val, y_val)).fit(x, y)
    assert watched.loss_curve_ == classifier().fit(x, y).loss_curve_
    assert len(watched.validation_loss_curve_) == 30
    expected = log_loss(y_val, watched.predict_proba(x_val))
    assert watched.validation_loss_curve_[-1] == pytest.approx(expected, rel=TOLERANCE)
    early = classifier(validation_data=(x_val, y_val), early_stopping=True, max_iter=200).fit(x, y)
    assert early.n_iter_ < 200
    assert early.score(x_val, y_val) == early.best_validation_score_ == max(early.validation_scores_)
    numbers = regressor(validation_data=(X_REG[:50], Y_REG[:50])).fit(X_REG[50:], Y_REG[50:])
    errors = 0.5 * (numbers.predict(X_REG[:50]) - Y_REG[:50]) ** 2
    assert numbers.validation_loss_curve_[-1] == pytest.approx(errors.mean(), rel=TOLERANCE)
    with pytest.raises(ValueError, match="a pair"):
        classifier(validation_data=(x_val, y_val, y_val)).fit(x, y)
    with pytest.raises(ValueError, match="`y` has classes not in"):
        classifier(validation_data=(x_val, y_val + 5)).fit(x, y)


def test_early_stopping_with_partial_fit():
    x, x_val, y, y_val = train_test_split(X, Y, random_state=0)
    found = classifier(early_stopping=True, validation_data=(x_val, y_val), n_iter_no_change=5)
    calls = 0
    while not getattr(found, "stopped_", False):
        found.partial_fit(x, y, classes=range(10))
        calls += 1
    assert 5 < calls < 200
    assert len(found.validation_scores_) == calls
    assert found.score(x_val, y_val) == found.best_validation_score_
    weights = [w.copy() for w in found.coefs_]
    found.partial_fit(x, y)
    assert np.array_equal(found.coefs_[0], weights[0])
    assert len(found.loss_curve_) == calls


def test_callbacks_and_progress(capsys):
    seen = []

    class Log(callbacks.Callback):
        def epoch_end(self, run):
            seen.append((run.epoch, run.history["loss"][-1], type(run.net.net)))
            run.stop = run.epoch == 4

    found = classifier(callbacks=[Log()], progress=True).fit(X, Y)
    assert [loss for _, loss, _ in seen] == found.loss_curve_
    assert [epoch for epoch, _, _ in seen] == [1, 2, 3, 4]
    assert seen[0][2] is nn.Sequential


def test_temperature():
    random = np.random.default_rng(0)
    y = np.where(random.random(600) < 0.2, random.integers(0, 10, 600), Y)  # it learns wrong labels by heart
    x, x_test, y, y_test = train_test_split(X, y, random_state=1, test_size=300)
    overfit = {"alpha": 0.0, "max_iter": 200, "validation_data": (x_test[:150], y_test[:150])}
    plain, calibrated = (classifier(**overfit, calibrate=flag).fit(x, y) for flag in (False, True))
    assert calibrated.temperature_ > 2
    assert np.array_equal(plain.predict(x_test), calibrated.predict(x_test))
    surprise = [log_loss(y_test[150:], each.predict_proba(x_test[150:])) for each in (plain, calibrated)]
    assert surprise[1] < 0.8 * surprise[0]
    p = calibrated.predict_proba(x_test)
    np.testing.assert_allclose(calibrated.predict_log_proba(x_test), np.log(p))
    assert classifier(calibrate=True).fit(X, Y).temperature_ > 0  # on a tenth of the examples
    assert classifier(calibrate=True, solver="lbfgs").fit(X, Y).temperature_ > 0
    with pytest.raises(ValueError, match="does not support calibrate=True without validation_data"):
        classifier(calibrate=True).partial_fit(X, Y, classes=range(10))


def test_all_layers_are_in_training_when_a_fit_goes_on():
    found = classifier(hidden_layer_sizes=(8,), batch_norm=True, warm_start=True).fit(X, Y)
    norm = next(part for part in found.network_ if isinstance(part, nn.BatchNorm))
    before = np.array(norm.running_mean)
    found.fit(X, Y)
    assert not np.array_equal(norm.running_mean, before)
    assert not norm.training


@pytest.mark.parametrize("made", [False, True])
def test_a_module_of_which_a_part_is_in_use_is_refused(made):
    net = nn.Sequential(nn.Dense(X.shape[1], 8, seed=0), nn.BatchNorm(8), nn.Dense(8, 1, seed=1))
    net[1].eval()
    with pytest.raises(ValueError, match=r"in training as a whole, received one whose layers\.1 is in use"):
        classifier(module=(lambda *_: net) if made else net).fit(X, Y)
