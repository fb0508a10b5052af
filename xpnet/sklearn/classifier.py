"""`MLPClassifier`."""

from dataclasses import replace
from typing import Any, ClassVar

import numpy
from scipy.optimize import minimize_scalar
from sklearn.base import ClassifierMixin, _fit_context
from sklearn.metrics import accuracy_score
from sklearn.preprocessing import LabelBinarizer
from sklearn.utils._param_validation import StrOptions
from sklearn.utils.metaestimators import available_if
from sklearn.utils.multiclass import _check_partial_fit_first_call, type_of_target, unique_labels

import xpnet
from xpnet.backends import asarray, to_numpy
from xpnet.sklearn.base import MLP, Role, has_partial_fit, unchanged_if_refused
from xpnet.sklearn.data import Samples, host
from xpnet.sklearn.network import LINKS
from xpnet.sklearn.objective import Objective, log_loss, objective_of
from xpnet.sklearn.weights import class_weights, weights_of
from xpnet.training.metric import Metric
from xpnet.training.metrics.classes import share, share_totals


class MLPClassifier(ClassifierMixin, MLP):
    """A network that tells classes apart, in place of `sklearn.neural_network.MLPClassifier`.

    Parameters and attributes of scikit-learn's mean the same here, and trainings give the same numbers within
    rounding. The parameters from ``loss`` on are new.

    Parameters
    ----------
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
    loss : {"log_loss", "focal"} or callable, default="log_loss"
        ``loss(outputs, targets)`` returns the mean, or the loss of each example. Outputs are logits. Targets
        are numbers of classes, shape (batch,); of two classes or several labels, bools of the outputs' shape.
    class_weight : dict, "balanced" or None
        How much each class counts, in training and validation. A dict has a number of at least 0 for each
        class, 1 for those left out. "balanced" makes all classes of the examples to train on count the same
        (of several labels, having each and lacking it), and those of ``validation_data`` have the same
        weights as theirs.
    calibrate : bool, default=False
        Whether `predict_proba` divides the logits by a temperature, which is found on validation data: those
        of early stopping, ``validation_data``, or a share of the examples put aside for it.
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
        y may lack classes, and must have no others than those of the training.
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
    classes_ : array, shape (n_classes,)
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
    temperature_ : float
        With ``calibrate``.

    References
    ----------
    C. Guo et al., On Calibration of Modern Neural Networks, 2017, for the temperature.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from xpnet.sklearn import MLPClassifier
    >>> X, y = load_iris(return_X_y=True)
    >>> classifier = MLPClassifier(16, max_iter=500, learning_rate_init=0.01, random_state=0).fit(X, y)
    >>> classifier.score(X, y) > 0.95
    True
    """

    _parameter_constraints: ClassVar[dict[Any, Any]] = {
        **MLP._parameter_constraints,
        "loss": [StrOptions({"log_loss", "focal"}), callable],
        "class_weight": [StrOptions({"balanced"}), dict, None],
        "calibrate": ["boolean"],
    }

    def __init__(
        self,
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
        loss: Any = "log_loss",
        class_weight: Any = None,
        calibrate: bool = False,
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
    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> "MLPClassifier":
        """Train on examples.

        Parameters
        ----------
        X : array, data frame or sparse matrix, shape (n_samples, n_features)
            Of any library and device; with ``module`` also of more axes. float32 stays float32.
        y : array, shape (n_samples,), or (n_samples, n_classes) of 0 and 1 for labels that exclude none
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
    def partial_fit(self, X: Any, y: Any, sample_weight: Any = None, classes: Any = None) -> "MLPClassifier":
        """Train for one epoch on some examples, and go on from there with the next call.

        Parameters
        ----------
        X : array, data frame or sparse matrix, shape (n_samples, n_features)
        y : array, shape (n_samples,) or (n_samples, n_classes)
        sample_weight : array, shape (n_samples,), optional
        classes : array, shape (n_classes,)
            All classes there are; needed for the first call only.

        Returns
        -------
        self

        Raises
        ------
        ValueError
            As scikit-learn's: for classes that were not announced, say. The estimator is as it was then.
        """
        if self.class_weight == "balanced":
            raise ValueError(
                'class_weight="balanced" needs all examples at once, and partial_fit sees a part of them. '
                "Give a dict from each class to its weight."
            )
        if _check_partial_fit_first_call(self, host(classes)):
            several = type_of_target(host(y)).startswith("multilabel")
            self._label_binarizer = LabelBinarizer().fit(host(y) if several else self.classes_)
        return self._fit(X, y, sample_weight, incremental=True)

    def _targets(
        self, y: numpy.ndarray, weights: Any, role: Role
    ) -> tuple[numpy.ndarray, numpy.ndarray | None]:
        if not hasattr(self, "classes_") or (role == "fit" and not self.warm_start):
            self._label_binarizer = LabelBinarizer().fit(y)
            self.classes_ = self._label_binarizer.classes_
        else:
            self._check_classes(y, role)
        if self._label_binarizer.y_type_ == "multiclass":
            targets = numpy.searchsorted(self.classes_, y)
        else:
            targets = self._label_binarizer.transform(y).astype(bool)
        if self.class_weight is None:
            return targets, weights
        if role != "validation_data":  # which counts as the training does
            classes = None if self._several_labels else self.classes_
            self._class_weights = class_weights(self.class_weight, classes, targets)
        by_class = weights_of(targets, self._class_weights)
        return targets, by_class if weights is None else weights * by_class

    @property
    def _several_labels(self) -> bool:
        """Whether an example may have several labels."""
        return bool(self._label_binarizer.y_type_.startswith("multilabel"))

    def _check_classes(self, y: numpy.ndarray, role: Role) -> None:
        received = unique_labels(y)
        if role == "fit" and set(received) != set(self.classes_):
            raise ValueError(
                "warm_start can only be used where `y` has the same classes as in the previous call to fit. "
                f"Previously got {self.classes_}, `y` has {received}"
            )
        if len(numpy.setdiff1d(received, self.classes_, assume_unique=True)):
            raise ValueError(
                f"`y` has classes not in `self.classes_`. `self.classes_` has {self.classes_}. 'y' has "
                f"{received}."
            )
        if (y.ndim == 2) != self._several_labels:
            shape = "(examples, labels)" if self._several_labels else "(examples,)"
            raise ValueError(
                f"y must have the shape {shape} as in the training before, received {y.shape}. Make a new "
                "estimator for targets of another kind."
            )

    def _outputs(self, y: numpy.ndarray) -> tuple[int, str]:
        return (len(self.classes_), "softmax") if y.ndim == 1 else (y.shape[1], "logistic")

    def _objective(self) -> Objective:
        # Whatever the loss, `predict_proba` makes probabilities of what the network returns.
        return replace(objective_of(self.loss), takes_logits=True)

    def _metric(self, _held_out: Samples) -> Metric:
        def totals(outputs: dict[str, Any], targets: dict[str, Any]) -> tuple[Any, ...]:
            logits, y = outputs["outputs"], targets["y"]
            xp = xpnet.array_namespace(logits, y)
            if len(y.shape) == 1:
                right = xp.argmax(logits, axis=-1) == y
            else:
                right = xp.all((logits > 0) == y, axis=-1)
            return share_totals(logits, right, targets.get("weights"))

        return Metric("score", totals, share)

    def _calibrate(self, held_out: Samples | None) -> None:
        """Find the temperature at which the probabilities of the validation data are least surprising."""
        if not self.calibrate or held_out is None:
            return
        logits = asarray(host(self._forward(held_out.X)), dtype="float64")
        weights = held_out.weights

        def surprise(log_temperature: float) -> float:
            each = log_loss(logits / numpy.exp(log_temperature), held_out.y)
            return float(numpy.average(each.reshape(len(each), -1).sum(axis=1), weights=weights))

        found = minimize_scalar(surprise, bounds=(-3.0, 3.0), method="bounded")
        self.temperature_ = float(numpy.exp(found.x))

    # -- predictions ----------------------------------------------------------------------------------------

    def predict(self, X: Any) -> Any:
        """Return the most probable classes, or, of several labels, all that are more probable than not.

        Parameters
        ----------
        X : array, data frame or sparse matrix, shape (n_samples, n_features)

        Returns
        -------
        array, shape (n_samples,) or (n_samples, n_classes)
            Numbers on the library and device of X; NumPy's where X is a list, a data frame or sparse, and
            where the classes are no numbers.
        """
        places = to_numpy(self._places(self._forward(X)))
        if self._several_labels:
            labels = self._label_binarizer.inverse_transform(places.astype("int64"))
        else:
            labels = self.classes_[places]
        return self._back(labels, X)

    def predict_proba(self, X: Any) -> Any:
        """Return the probability of each class, or of each label.

        Parameters
        ----------
        X : array, data frame or sparse matrix, shape (n_samples, n_features)

        Returns
        -------
        array, shape (n_samples, n_classes)
            In the order of ``classes_``, on the library and device of X.
        """
        return self._back(self._probabilities(self._forward(X)), X)

    def predict_log_proba(self, X: Any) -> Any:
        """Return the logarithms of `predict_proba`.

        Parameters
        ----------
        X : array, data frame or sparse matrix, shape (n_samples, n_features)

        Returns
        -------
        array, shape (n_samples, n_classes)
        """
        p = self.predict_proba(X)
        with numpy.errstate(divide="ignore"):  # a probability of 0 has the logarithm -infinity
            return xpnet.array_namespace(p).log(p)

    def score(self, X: Any, y: Any, sample_weight: Any = None) -> float:
        """Return the share of examples whose class, or all of whose labels, are predicted.

        Parameters
        ----------
        X : array, data frame or sparse matrix, shape (n_samples, n_features)
        y : array, shape (n_samples,) or (n_samples, n_classes)
        sample_weight : array, shape (n_samples,), optional

        Returns
        -------
        float
        """
        return float(accuracy_score(host(y), host(self.predict(X)), sample_weight=host(sample_weight)))

    # -- what the outputs of the network stand for -----------------------------------------------------------

    def _places(self, logits: Any) -> Any:
        """Return where in ``classes_`` the labels are; of several labels, a 1 for each that is there."""
        xp = xpnet.array_namespace(logits)
        if self._label_binarizer.y_type_ == "multiclass":
            return xp.argmax(logits, axis=1)
        integer = xp.__array_namespace_info__().default_dtypes()["integral"]  # JAX's is of 32 bits
        likely = xp.astype(logits > 0, integer)
        if self._several_labels:
            return likely
        return likely[:, 0] if len(self.classes_) == 2 else xp.zeros_like(likely[:, 0])

    def _probabilities(self, logits: Any) -> Any:
        logits = logits / self.temperature_ if hasattr(self, "temperature_") else logits
        p = LINKS[self.out_activation_](logits)
        return xpnet.array_namespace(p).concat([1 - p, p], axis=1) if p.shape[1] == 1 else p

    def _predicted(self, outputs: Any) -> tuple[Any, ...]:
        return self._places(outputs), self._probabilities(outputs)

    def _named_outputs(self) -> dict[str, numpy.ndarray | None]:
        return {"label": None if self._several_labels else self.classes_, "probabilities": None}

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_label = True
        return tags
