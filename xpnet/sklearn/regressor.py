"""`MLPRegressor`."""

from numbers import Real
from typing import Any, ClassVar

import numpy
from sklearn.base import RegressorMixin, _fit_context
from sklearn.metrics import r2_score
from sklearn.utils._param_validation import StrOptions
from sklearn.utils.metaestimators import available_if

import xpnet
from xpnet.sklearn.base import MLP, Role, has_partial_fit, unchanged_if_refused
from xpnet.sklearn.data import Samples, host
from xpnet.sklearn.network import LINKS
from xpnet.sklearn.objective import Objective, objective_of
from xpnet.sklearn.parameters import Numbers, several
from xpnet.training.metric import Metric, wide
from xpnet.training.metrics.numbers import mean_r2


class MLPRegressor(RegressorMixin, MLP):
    """A network that predicts numbers, in place of `sklearn.neural_network.MLPRegressor`.

    Parameters and attributes of scikit-learn's mean the same here, and trainings give the same numbers within
    rounding. The parameters from ``quantile`` on are new.

    Parameters
    ----------
    loss : str or callable, default="squared_error"
        "squared_error" and "poisson", which are half the usual ones, "absolute_error", "huber" or "quantile".
        Or ``loss(outputs, targets)``, which returns the mean, or the loss of each example.
    hidden_layer_sizes : int or sequence of int, default=(100,)
        The number of neurons in each hidden layer.
    activation : str, layer, callable, or list of them, default="relu"
        Behind each hidden layer: "identity", "logistic", "tanh", "relu", "leaky_relu", "elu", "gelu" or
        "silu", a layer of `xpnet.nn`, or a function of an array. A list has one for each hidden layer.
    solver : {"adam", "sgd", "lbfgs"}, default="adam"
        Adam, gradient descent with momentum, or L-BFGS, which takes all examples at once.
    alpha : float, default=0.0001
        The penalty ``alpha / 2 * sum(w²)`` of the weights, divided by the number of examples.
    batch_size : int or "auto", default="auto"
        The number of examples in a step; "auto" is 200 or all there are.
    learning_rate : {"constant", "invscaling", "adaptive"}, default="constant"
        How the learning rate of "sgd" changes: not at all; by ``learning_rate_init / t_**power_t``; or to a
        fifth, whenever the training would stop.
    learning_rate_init : float, default=0.001
        The learning rate of "adam" and "sgd".
    power_t : float, default=0.5
        For "invscaling".
    max_iter : int, default=200
        How often each example is seen; for "lbfgs" the number of iterations.
    shuffle : bool, default=True
        Whether the examples come in a new order each epoch.
    random_state : int, numpy.random.RandomState or None
        Draws weights, orders and the validation data, the same ones as scikit-learn's estimator does.
    tol : float, default=1e-4
        What counts as an improvement.
    verbose : bool, default=False
        Whether to print the loss of each epoch.
    warm_start : bool, default=False
        Whether `fit` goes on with the weights that are there.
    momentum : float, default=0.9
        Of "sgd", from 0 to 1.
    nesterovs_momentum : bool, default=True
        Whether that momentum is Nesterov's.
    early_stopping : bool, default=False
        Whether to watch the score on validation data in place of the loss, and keep the best weights.
    validation_fraction : float, default=0.1
        The share of the examples that is put aside for it.
    beta_1, beta_2, epsilon : float, default=0.9, 0.999 and 1e-8
        Of "adam".
    n_iter_no_change : int, default=10
        For how many epochs nothing may improve.
    max_fun : int, default=15000
        How often "lbfgs" may compute the loss.
    quantile : float or sequence of float, default=0.5
        For ``loss="quantile"``. With several, `predict` returns a column for each.
    device : str or None
        Where the network is and is trained, such as "cuda"; see `xpnet.device`. None is where X is, or the
        current device for X of NumPy's.
    batch_norm : bool, default=False
        Whether each hidden layer is normalized over the batch before its activation. Batches are one larger
        where the last one would have a single example.
    dropout : float or list of float, default=0.0
        The share of each hidden layer's outputs that is dropped in training; a list has one for each layer.
    optimizer : optimizer of `xpnet.optim` or None
        In place of ``solver`` and the parameters that belong to it.
    schedule : callable or None
        From the number of steps made to the learning rate, see `xpnet.optim`; in place of ``learning_rate``
        and ``learning_rate_init``.
    weight_decay : float, default=0.0
        Decay of all parameters by this share of the learning rate in each step, apart from the gradients.
    validation_data : (array, array) or None
        X and y to validate with, in place of a part of the examples. With it, `partial_fit` can stop early.
    callbacks : list of xpnet.callbacks.Callback, default=()
        What runs in between. ``run.net.net`` is the network.
    progress : bool, default=False
        Whether to show a progress bar.
    module : Module, callable or None
        A network in place of the dense layers: one that is copied, or a function of the numbers of features
        and outputs that makes one. It returns outputs without softmax, sigmoid or exponential.
    group : xpnet.distributed.Group or None
        Processes that train the estimator together, each of which calls `fit` with the same arguments; see
        `xpnet.fit`. A file of the estimator does not say it.

    Attributes
    ----------
    coefs_, intercepts_ : list of array
        Weights of shape (in, out) and biases of shape (out,) of each dense layer, on its device.
    network_ : Module
        The network, without softmax, sigmoid or exponential.
    out_activation_ : str
        What follows it.
    loss_, best_loss_ : float
        The loss of the last epoch and the least of all; None with early stopping.
    loss_curve_ : list of float
        The loss of each epoch, with the penalty.
    validation_scores_, best_validation_score_ : list of float and float
        With early stopping, else None.
    validation_loss_curve_ : list of float
        The loss on the validation data, where there are some, without the penalty.
    stopped_ : bool
        Whether the training ended as nothing improved. After early stopping, `partial_fit` does nothing then.
    n_iter_, t_, n_layers_, n_outputs_, n_features_in_ : int
        The numbers of epochs, of examples seen, of layers with the input, of outputs and of features.
    feature_names_in_ : array of str, shape (features,)
        If X was a data frame.

    Examples
    --------
    >>> import numpy as np
    >>> from xpnet.sklearn import MLPRegressor
    >>> X = np.linspace(-1, 1, 200).reshape(-1, 1)
    >>> regressor = MLPRegressor(solver="lbfgs", random_state=0).fit(X, np.sin(3 * X[:, 0]))
    >>> regressor.score(X, np.sin(3 * X[:, 0])) > 0.99
    True
    """

    _parameter_constraints: ClassVar[dict[Any, Any]] = {
        **MLP._parameter_constraints,
        "loss": [StrOptions({"squared_error", "poisson", "absolute_error", "huber", "quantile"}), callable],
        "quantile": [Numbers(Real, 0, 1, closed="neither")],
    }
    _target_options: ClassVar[dict[str, Any]] = {"multi_output": True, "y_numeric": True}

    def __init__(
        self,
        loss: Any = "squared_error",
        hidden_layer_sizes: Any = (100,),
        activation: Any = "relu",
        *,
        solver: str = "adam",
        alpha: float = 0.0001,
        batch_size: Any = "auto",
        learning_rate: str = "constant",
        learning_rate_init: float = 0.001,
        power_t: float = 0.5,
        max_iter: int = 200,
        shuffle: bool = True,
        random_state: Any = None,
        tol: float = 1e-4,
        verbose: bool = False,
        warm_start: bool = False,
        momentum: float = 0.9,
        nesterovs_momentum: bool = True,
        early_stopping: bool = False,
        validation_fraction: float = 0.1,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-8,
        n_iter_no_change: float = 10,
        max_fun: int = 15000,
        quantile: Any = 0.5,
        device: Any = None,
        batch_norm: bool = False,
        dropout: Any = 0.0,
        optimizer: Any = None,
        schedule: Any = None,
        weight_decay: float = 0.0,
        validation_data: Any = None,
        callbacks: Any = (),
        progress: bool = False,
        module: Any = None,
        group: Any = None,
    ) -> None:
        self._keep(locals())

    # -- training -------------------------------------------------------------------------------------------

    @_fit_context(prefer_skip_nested_validation=True)
    @unchanged_if_refused
    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> "MLPRegressor":
        """Train on examples.

        Parameters
        ----------
        X : array, data frame or sparse matrix, shape (n_samples, n_features)
            Of any library and device; with ``module`` also of more axes. float32 stays float32.
        y : array, shape (n_samples,) or (n_samples, n_outputs)
        sample_weight : array, shape (n_samples,), optional
            How much each example counts.

        Returns
        -------
        self

        Raises
        ------
        ValueError, TypeError
            As scikit-learn's; and if the training diverges, with the epoch. The best weights are kept then.
            What is refused before an epoch has ended leaves the estimator as it was.
        """
        return self._fit(X, y, sample_weight)

    @available_if(has_partial_fit)
    @_fit_context(prefer_skip_nested_validation=True)
    @unchanged_if_refused
    def partial_fit(self, X: Any, y: Any, sample_weight: Any = None) -> "MLPRegressor":
        """Train for one epoch on some examples, and go on from there with the next call.

        Parameters
        ----------
        X : array, data frame or sparse matrix, shape (n_samples, n_features)
        y : array, shape (n_samples,) or (n_samples, n_outputs)
        sample_weight : array, shape (n_samples,), optional

        Returns
        -------
        self

        Raises
        ------
        ValueError
            As scikit-learn's: for early stopping without ``validation_data``, say. The estimator is as it was
            then.
        """
        return self._fit(X, y, sample_weight, incremental=True)

    def _targets(
        self, y: numpy.ndarray, weights: Any, _role: Role
    ) -> tuple[numpy.ndarray, numpy.ndarray | None]:
        if not isinstance(y, numpy.ndarray) or y.dtype.kind in "USTMm":
            what = type(y).__name__ if not isinstance(y, numpy.ndarray) else f"an array of {y.dtype}"
            raise TypeError(f"y must be a dense array of numbers, received {what}. Convert it first.")
        y = y.reshape(len(y), -1).astype(y.dtype if y.dtype.kind == "f" else "float64", copy=False)
        if self.loss == "poisson" and y.min() < 0:
            raise ValueError(f'loss="poisson" needs targets of at least 0, received {y.min():g}.')
        if self.loss == "quantile" and not self._quantiles:
            raise ValueError("quantile must have at least one number, received an empty list.")
        if len(self._quantiles) > 1 and y.shape[1] > 1:
            raise ValueError(f"several quantiles need one column of targets, received {y.shape[1]}.")
        return y, weights

    @property
    def _quantiles(self) -> list[float]:
        """The quantiles that are asked for, none with another loss."""
        return [float(q) for q in several(self.quantile)] if self.loss == "quantile" else []

    def _outputs(self, y: numpy.ndarray) -> tuple[int, str]:
        outputs = len(self._quantiles) if len(self._quantiles) > 1 else y.shape[1]
        return outputs, "exp" if self.loss == "poisson" else "identity"

    def _objective(self) -> Objective:
        options = {"quantiles": tuple(self._quantiles)} if self._quantiles else {}
        return objective_of(self.loss, **options)

    @property
    def _middle(self) -> slice:
        """The columns of the outputs that are compared with the targets: the quantile nearest to 0.5."""
        if len(self._quantiles) < 2:
            return slice(None)
        nearest = min(range(len(self._quantiles)), key=lambda index: abs(self._quantiles[index] - 0.5))
        return slice(nearest, nearest + 1)

    def _metric(self, held_out: Samples) -> Metric:
        weights = numpy.ones(len(held_out.y)) if held_out.weights is None else held_out.weights
        y, middle, link = held_out.y, self._middle, LINKS[self.out_activation_]
        spread = weights @ (y - numpy.average(y, axis=0, weights=weights)) ** 2

        def errors(outputs: dict[str, Any], targets: dict[str, Any]) -> tuple[Any, ...]:
            predicted = link(outputs["outputs"])[:, middle]
            xp = xpnet.array_namespace(predicted)
            squares = (wide(predicted) - wide(targets["y"])) ** 2
            if "weights" in targets:
                squares = squares * wide(targets["weights"])[:, None]
            return (xp.sum(squares, axis=0),)

        return Metric("score", errors, lambda error: mean_r2(error, spread))

    # -- predictions ----------------------------------------------------------------------------------------

    def predict(self, X: Any) -> Any:
        """Return the predicted values.

        Parameters
        ----------
        X : array, data frame or sparse matrix, shape (n_samples, n_features)

        Returns
        -------
        array, shape (n_samples,), (n_samples, n_outputs) or (n_samples, n_quantiles)
            On the library and device of X; NumPy's where X is a list, a data frame or sparse.
        """
        (y,) = self._predicted(self._forward(X))
        return self._back(y[:, 0] if y.shape[1] == 1 else y, X)

    def score(self, X: Any, y: Any, sample_weight: Any = None) -> float:
        """Return R² of the predictions, the mean over several outputs.

        Of several quantiles, the one nearest to 0.5 counts.

        Parameters
        ----------
        X : array, data frame or sparse matrix, shape (n_samples, n_features)
        y : array, shape (n_samples,) or (n_samples, n_outputs)
        sample_weight : array, shape (n_samples,), optional

        Returns
        -------
        float
        """
        predicted = host(self.predict(X))
        predicted = predicted[:, self._middle] if predicted.ndim > 1 else predicted
        return float(r2_score(host(y), predicted, sample_weight=host(sample_weight)))

    def _predicted(self, outputs: Any) -> tuple[Any, ...]:
        return (LINKS[self.out_activation_](outputs),)

    def _named_outputs(self) -> dict[str, numpy.ndarray | None]:
        return {"variable": None}
