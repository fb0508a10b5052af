"""What the two estimators share: parameters, training and the outputs of the network."""

import functools
import math
import os
from collections.abc import Callable
from numbers import Integral, Real
from typing import Any, ClassVar, Literal, Self

import numpy
from sklearn.base import BaseEstimator
from sklearn.model_selection import train_test_split
from sklearn.utils import check_random_state, column_or_1d
from sklearn.utils._param_validation import HasMethods, Options, StrOptions
from sklearn.utils.validation import _check_sample_weight, check_is_fitted

import xpnet
from xpnet import nn, tree
from xpnet.backends import Device, asarray, device_of, to_numpy
from xpnet.distributed import Group
from xpnet.settings import flag, is_integer
from xpnet.sklearn import files
from xpnet.sklearn.data import Samples, checked, dtype_on, home_of, host
from xpnet.sklearn.network import (
    ACTIVATIONS,
    Exported,
    dense_layers,
    dense_stack,
    for_each_layer,
    initial_weights,
    network_of,
)
from xpnet.sklearn.objective import Objective, Penalized, one_array
from xpnet.sklearn.parameters import Number, Numbers, several
from xpnet.sklearn.solvers import DIVERGED, fit_lbfgs, fit_stochastic
from xpnet.training.metric import Metric
from xpnet.training.networks import place_of

# Up to how many rows a prediction is one call.
ROWS_IN_ONE_CALL = 1024

# What examples are for. Those of `fit` say which classes there are; others must have no more.
Role = Literal["fit", "partial_fit", "validation_data"]


def unchanged_if_refused(train: Callable[..., Any]) -> Callable[..., Any]:
    """Return a method that puts all attributes back where it raises before an epoch has ended."""

    @functools.wraps(train)
    def method(self: Any, *args: Any, **options: Any) -> Any:
        before = dict(vars(self))
        self._learned = False
        try:
            return train(self, *args, **options)
        except BaseException:
            if not self._learned:
                vars(self).clear()
                vars(self).update(before)
            raise

    return method


class MLP(BaseEstimator):
    """The base class of `MLPClassifier` and `MLPRegressor`."""

    _parameter_constraints: ClassVar[dict[Any, Any]] = {
        "hidden_layer_sizes": [Numbers(Integral, 1, None, closed="left")],
        "activation": [StrOptions(set(ACTIVATIONS)), list, tuple, numpy.ndarray, callable],
        "solver": [StrOptions({"lbfgs", "sgd", "adam"})],
        "alpha": [Number(Real, 0, None, closed="left")],
        "batch_size": [StrOptions({"auto"}), Number(Integral, 1, None, closed="left")],
        "learning_rate": [StrOptions({"constant", "invscaling", "adaptive"})],
        "learning_rate_init": [Number(Real, 0, None, closed="neither")],
        "power_t": [Number(Real, 0, None, closed="left")],
        "max_iter": [Number(Integral, 1, None, closed="left")],
        "shuffle": ["boolean"],
        "random_state": [Number(Integral, 0, 2**32 - 1, closed="both"), numpy.random.RandomState, None],
        "tol": [Number(Real, 0, None, closed="left")],
        "verbose": ["verbose"],
        "warm_start": ["boolean"],
        "momentum": [Number(Real, 0, 1, closed="both")],
        "nesterovs_momentum": ["boolean"],
        "early_stopping": ["boolean"],
        "validation_fraction": [Number(Real, 0, 1, closed="left")],
        "beta_1": [Number(Real, 0, 1, closed="left")],
        "beta_2": [Number(Real, 0, 1, closed="left")],
        "epsilon": [Number(Real, 0, None, closed="neither")],
        "n_iter_no_change": [Number(Integral, 1, None, closed="left"), Options(Real, {numpy.inf})],
        "max_fun": [Number(Integral, 1, None, closed="left")],
        "device": [str, Device, None],
        "batch_norm": ["boolean"],
        "dropout": [Numbers(Real, 0, 1, closed="left")],
        "optimizer": [HasMethods(["init", "update"]), None],
        "schedule": [callable, None],
        "weight_decay": [Number(Real, 0, None, closed="left")],
        "validation_data": [tuple, list, None],
        "callbacks": [list, tuple],
        "progress": ["boolean"],
        "module": [callable, None],
        "group": [Group, None],
    }

    calibrate = False  # the classifier has a parameter of that name
    classes_: numpy.ndarray  # of the classifier
    n_outputs_: int
    stopped_: bool
    _learned: bool  # whether an epoch of the training under way has ended
    _optimizer_state: Any

    def _keep(self, parameters: dict[str, Any]) -> None:
        """Keep the arguments of a constructor, as they are."""
        for name, value in parameters.items():
            if name != "self":
                setattr(self, name, value)

    # -- what the two classes say ---------------------------------------------------------------------------

    _target_options: ClassVar[dict[str, Any]] = {"multi_output": True}

    def _targets(
        self, y: numpy.ndarray, weights: Any, role: Role
    ) -> tuple[numpy.ndarray, numpy.ndarray | None]:
        """Return targets as the loss expects them, after a check, and how much each example counts."""
        raise NotImplementedError

    def _objective(self) -> Objective:
        raise NotImplementedError

    def _metric(self, held_out: Samples) -> Metric:
        """Return the score on the validation data as a metric."""
        raise NotImplementedError

    def _outputs(self, y: numpy.ndarray) -> tuple[int, str]:
        """Return the number of outputs for some targets, and the name of the activation behind them."""
        raise NotImplementedError

    def _calibrate(self, held_out: Samples | None) -> None:
        """Do what is left to do with the validation data when the training is over."""

    # -- fit ------------------------------------------------------------------------------------------------

    def _fit(self, X: Any, y: Any, sample_weight: Any, *, incremental: bool = False) -> Self:
        first_pass = not hasattr(self, "coefs_") or not (self.warm_start or incremental)
        data = self._examples(X, y, sample_weight, "partial_fit" if incremental else "fit", reset=first_pass)
        seed = self.random_state
        if seed is None and self.group is not None:  # on all processes that of rank 0
            seed = self.group.gather_objects(check_random_state(None).randint(2**31 - 1))[0]
        self._random_state = check_random_state(int(seed) if is_integer(seed) else seed)
        self._begin(data, first_pass)
        data, held_out = self._split(data, incremental)
        # A loss of the user's may take other outputs.
        outputs = self.n_outputs_ if isinstance(self.loss, str) else None
        tree.check_trained(self._network())
        net = Penalized(self._network(), float(self.alpha), outputs)
        try:
            if self._stochastic():
                fit_stochastic(self, net, data, held_out, incremental)
            elif self.group is not None and self.group.size > 1:
                raise ValueError(
                    'a group of processes needs solver="adam" or "sgd", or an optimizer, received solver='
                    '"lbfgs", which is for small data. Leave out the group.'
                )
            else:
                fit_lbfgs(self, net, data)
        finally:
            self._publish(net.net)
        if not all(numpy.isfinite(to_numpy(leaf)).all() for leaf in tree.leaves(self.network_, frozen=True)):
            raise ValueError(DIVERGED)
        self._calibrate(held_out)
        return self

    def _stochastic(self) -> bool:
        return self.solver != "lbfgs" or self.optimizer is not None

    def _examples(self, X: Any, y: Any, sample_weight: Any, role: Role, *, reset: bool = False) -> Samples:
        X, y = checked(self, X, y, reset=reset, any_axes=self.module is not None, **self._target_options)
        if y.ndim == 2 and y.shape[1] == 1:
            y = column_or_1d(y, warn=True)
        if sample_weight is not None:
            rows = numpy.empty((X.shape[0], 0), dtype="float32" if _is_single(X) else "float64")
            sample_weight = _check_sample_weight(host(sample_weight), rows)
        y, weights = self._targets(y, sample_weight, role)
        if weights is not None and not weights.any():
            raise ValueError(
                "sample_weight and class_weight must have at least one non-zero number, received only zeros "
                f"for the examples of {role}. Leave them out where all examples count alike."
            )
        return Samples(X, y, weights)

    def _begin(self, data: Samples, first_pass: bool) -> None:
        """Make a new network and begin all counts anew, or go on with what is there."""
        outputs, out_activation = self._outputs(data.y)
        if not first_pass and outputs != getattr(self, "n_outputs_", outputs):
            raise ValueError(
                f"a training can go on only with targets for as many outputs as before, {self.n_outputs_}, "
                f"received targets for {outputs}. Begin anew, with fit and warm_start=False."
            )
        self.n_outputs_ = outputs
        where = home_of(data.X) if self.device is None else xpnet.device(self.device)
        where = where or xpnet.device()
        for name, value in self._counts().items():
            if first_pass or getattr(self, name, None) is None:
                setattr(self, name, value)
        if first_pass:
            self.out_activation_ = out_activation
            hidden = [int(width) for width in several(self.hidden_layer_sizes)]
            self._publish(self._new_network([data.X.shape[1], *hidden, outputs], where, data.X))
        elif not hasattr(self, "network_"):  # someone has set the weights by hand
            self._publish(self._stack(self.coefs_, self.intercepts_, where, dtype_on(where, data.X)))
        elif where != place_of(self.network_)[0]:
            self._publish(xpnet.to_device(self._network(), where))

    def _counts(self) -> dict[str, Any]:
        """Return what a training begins with, by the names of the attributes."""
        if not self._stochastic():
            return {"n_iter_": 0, "t_": 0}
        return {
            "n_iter_": 0,
            "t_": 0,
            "loss_curve_": [],
            "validation_loss_curve_": [],
            "best_loss_": None if self.early_stopping else math.inf,
            "validation_scores_": [] if self.early_stopping else None,
            "best_validation_score_": -math.inf if self.early_stopping else None,
            "stopped_": False,
            "_no_improvement_count": 0,
            "_best": None,
            "_optimizer_state": None,
        }

    def _new_network(self, widths: list[int], where: Device, X: Any) -> Any:
        if self.module is not None:
            return network_of(self.module, widths[0], widths[-1], where)
        activations = for_each_layer("activation", self.activation, len(widths) - 2)
        coefs, intercepts = initial_weights(widths, activations, self._random_state)
        return self._stack(coefs, intercepts, where, dtype_on(where, X))

    def _stack(self, coefs: list[Any], intercepts: list[Any], where: Device, dtype: str) -> nn.Sequential:
        return dense_stack(
            coefs,
            intercepts,
            self.activation,
            self.dropout,
            self.batch_norm,
            where=where,
            dtype=dtype,
            seed=lambda: int(self._random_state.randint(2**31 - 1)),
        )

    def _publish(self, net: Any) -> None:
        """Make a network the fitted one; ``coefs_`` and ``intercepts_`` are its arrays."""
        self.network_ = net.eval()
        layers = dense_layers(net)
        self.coefs_ = [layer.weight for layer in layers]
        self.intercepts_ = [layer.bias for layer in layers]
        self.n_layers_ = len(layers) + 1

    def _network(self) -> Any:
        """Return the network, with the weights that someone may have put into ``coefs_``."""
        set_by_hand = False
        for layer, coef, intercept in zip(
            dense_layers(self.network_), self.coefs_, self.intercepts_, strict=False
        ):
            for name, value in (("weight", coef), ("bias", intercept)):
                old = getattr(layer, name)
                if value is not old:
                    setattr(layer, name, asarray(value, device=device_of(old), dtype=old.dtype))
                    set_by_hand = True
        if set_by_hand:  # perhaps as lists, or of another dtype or library than the network
            self._publish(self.network_)
        return self.network_

    def _split(self, data: Samples, incremental: bool) -> tuple[Samples, Samples | None]:
        """Return the examples to train on, and those to validate with or None."""
        early_stopping = self.early_stopping and self._stochastic()
        if self.validation_data is not None:
            X, y = _pair(self.validation_data)
            try:
                held_out = self._examples(X, y, None, "validation_data")
            except (TypeError, ValueError) as error:  # which speaks of X and y, as if they were those of fit
                raise ValueError(f"validation_data must fit the training: {error}") from error
            if held_out.y.shape[1:] != data.y.shape[1:]:
                raise ValueError(
                    "validation_data must have targets like those of the training, received "
                    f"{_columns_in_words(held_out.y)} in place of {_columns_in_words(data.y)}."
                )
            return data, held_out
        if not (early_stopping or self.calibrate):
            return data, None
        if incremental:
            what = "early_stopping" if early_stopping else "calibrate"
            raise ValueError(
                f"partial_fit does not support {what}=True without validation_data. Give the estimator "
                "validation_data=(X_val, y_val)."
            )
        stratify = data.y if data.y.dtype == bool and self.n_outputs_ == 1 else None
        kept, put_aside = train_test_split(
            numpy.arange(len(data.y)),
            random_state=self._random_state,
            test_size=float(self.validation_fraction),
            stratify=stratify,
        )
        if len(put_aside) < 2:
            raise ValueError(
                "The validation set is too small. Increase 'validation_fraction' or the size of your dataset."
            )
        return data.rows(kept), data.rows(put_aside)

    # -- the outputs of the network --------------------------------------------------------------------------

    def _forward(self, X: Any) -> Any:
        """Return the outputs of the network, where it is."""
        if not hasattr(self, "coefs_"):
            check_is_fitted(self)
        X = X if self._is_plain(X) else self._checked(X)
        net = self._network()
        first = self.coefs_[0] if self.coefs_ else None
        if type(X) is numpy.ndarray and type(first) is numpy.ndarray and len(X) <= ROWS_IN_ONE_CALL:
            outputs = net(X.astype(first.dtype, copy=False))
        else:
            outputs = xpnet.predict(net, X, jit=False)
        return one_array(outputs)

    def _checked(self, X: Any) -> Any:
        return checked(self, X, reset=False, any_axes=self.module is not None)

    def _is_plain(self, X: Any) -> bool:
        """Say whether inputs are so plain that scikit-learn's checks would find nothing."""
        if (
            type(X) is not numpy.ndarray
            or X.ndim != 2
            or X.dtype not in (numpy.float64, numpy.float32)
            or X.shape[1] != self.n_features_in_
            or len(X) == 0
            or hasattr(self, "feature_names_in_")
        ):
            return False
        with numpy.errstate(over="ignore", invalid="ignore"):
            return math.isfinite(X.sum())

    def _back(self, values: Any, X: Any) -> Any:
        """Return values where the inputs are; text stays with NumPy."""
        home = home_of(X)
        if home is None:
            return values if type(values) is numpy.ndarray else to_numpy(values)
        is_text = isinstance(values, numpy.ndarray) and values.dtype.kind in "USO"
        return values if is_text else asarray(values, device=home)

    # -- export ---------------------------------------------------------------------------------------------

    def _named_outputs(self) -> dict[str, numpy.ndarray | None]:
        """Return the names of what `_predicted` returns, each with the labels that its numbers stand for."""
        raise NotImplementedError

    def _predicted(self, outputs: Any) -> tuple[Any, ...]:
        """Return the predictions that the outputs of the network stand for, as arrays of numbers."""
        raise NotImplementedError

    def for_export(self, X: Any = None) -> tuple[nn.Module, Any, dict[str, numpy.ndarray | None]]:
        """Return what the estimator predicts, as `xpnet.onnx.export` asks for it.

        Parameters
        ----------
        X : array, data frame or sparse matrix, shape (n_samples, n_features)
            Examples of the inputs. None stands for numbers of the network's own dtype.

        Returns
        -------
        net : Module
            Of X it makes a tuple of arrays: of a classifier the places in ``classes_`` of the labels, or for
            several labels their zeros and ones, and the probabilities; of a regressor the predictions.
        X : array, shape (n_samples, n_features)
            The examples after scikit-learn's checks.
        outputs : dict of str to array or None
            The name of each array, with the labels that its integers are places of, or None.

        Raises
        ------
        sklearn.exceptions.NotFittedError
            If the estimator is not fitted.
        """
        check_is_fitted(self)
        net = Exported(self._network(), self._predicted)
        X = numpy.zeros((1, self.n_features_in_), dtype=net.dtype) if X is None else self._checked(X)
        return net, X.toarray() if hasattr(X, "toarray") else X, self._named_outputs()

    # -- files ----------------------------------------------------------------------------------------------

    def save(self, path: str | os.PathLike[str], *, include_optimizer: bool = True) -> None:
        """Write the fitted estimator to a file, from which `load` reads it without running code.

        Parameters
        ----------
        path : path
            The file, in the safetensors format.
        include_optimizer : bool, default=True
            Whether the file holds all that `partial_fit` needs to go on as if nothing had happened. Without
            it, the file takes a quarter of the room with "adam", and `partial_fit` begins with a new
            optimizer.

        Raises
        ------
        sklearn.exceptions.NotFittedError
            If it is not fitted.
        TypeError
            If a parameter or an attribute, which is named, would not come back equal and of the same type:
            functions, layers and callbacks of one's own, say. Pickle keeps them. No file is written then.
        ValueError
            If a parameter is out of range.
        OSError
            See `xpnet.save`.
        """
        check_is_fitted(self)
        files.save(self, path, flag("include_optimizer", include_optimizer))

    @classmethod
    def load(cls, path: str | os.PathLike[str], *, device: str | Device | None = None) -> "MLP":
        """Read an estimator from a file that `save` wrote.

        Parameters
        ----------
        path : path
        device : str, Device or None
            Where the network goes, and what the parameter ``device`` becomes; None is the current device, and
            leaves the parameter as it was.

        Returns
        -------
        estimator

        Raises
        ------
        ValueError
            If the file is of another class, or is damaged.
        DeviceUnavailableError
            If this machine has no such device. That of the parameter is looked for here if it is a `Device`.
        """
        loaded: MLP = files.load(cls, path, device)
        return loaded

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        return tags


def has_partial_fit(estimator: MLP) -> bool:
    """Say whether an estimator can learn from a part of the examples; else raise, as scikit-learn does."""
    if not estimator._stochastic():
        raise AttributeError(
            f"partial_fit is only available for stochastic optimizers. {estimator.solver} is not stochastic."
        )
    return True


def _pair(validation_data: Any) -> tuple[Any, Any]:
    if len(validation_data) != 2:
        raise ValueError(f"validation_data must be a pair (X, y), received {len(validation_data)} values.")
    return tuple(validation_data)


def _columns_in_words(y: numpy.ndarray) -> str:
    return "one column" if y.ndim == 1 else f"{y.shape[1]} columns"


def _is_single(X: Any) -> bool:
    return str(X.dtype).endswith("float32")
