"""Data as scikit-learn's users have them, and as arrays of any other library."""

from dataclasses import dataclass
from typing import Any

import numpy
from sklearn.utils.validation import check_consistent_length, validate_data

from xpnet.autodiff import array_namespace
from xpnet.backends import Device, asarray, device_of, library_of, to_numpy
from xpnet.training.destination import BYTES_AT_ONCE


@dataclass
class Samples:
    """What scikit-learn calls samples: inputs, targets, and how much each example counts, or None."""

    X: Any
    y: numpy.ndarray
    weights: numpy.ndarray | None

    def rows(self, rows: numpy.ndarray) -> "Samples":
        return Samples(rows_of(self.X, rows), self.y[rows], rows_of(self.weights, rows))

    @property
    def targets(self) -> dict[str, Any]:
        return {"y": self.y} if self.weights is None else {"y": self.y, "weights": self.weights}


def home_of(X: Any) -> Device | None:
    """Return the device of an array of another library than NumPy; None of anything else."""
    library = library_of(X)
    return None if library is None or library.spec == "cpu" else device_of(X)


def host(values: Any) -> Any:
    """Return the values of any array on the host; what is no array of another library as it is."""
    return values if home_of(values) is None else to_numpy(values)


def checked(estimator: Any, X: Any, *y: Any, reset: bool, any_axes: bool = False, **options: Any) -> Any:
    """Return inputs, and targets if given, after scikit-learn's checks: finite, of known shape and features.

    Inputs of another library than NumPy are looked at where they are.

    Parameters
    ----------
    estimator : estimator
    X : array, data frame, sparse matrix or sequence, shape (examples, features)
    *y : array or sequence
        None or one.
    reset : bool
        Whether the number of features is new.
    any_axes : bool, default=False
        Whether an example may have more than one axis.
    **options
        Of `sklearn.utils.validation.validate_data`, for y.
    """
    foreign = home_of(X) is not None
    if foreign:
        X = _checked_where_it_is(type(estimator).__name__, X, any_axes)
        X = validate_data(estimator, X, skip_check_array=True, reset=reset)
        if y:
            y = (validate_data(estimator, "no_validation", host(y[0]), **options),)
            check_consistent_length(numpy.empty((X.shape[0], 0)), y[0])
        return (X, *y) if y else X
    return validate_data(
        estimator,
        X,
        *(host(each) for each in y),
        reset=reset,
        accept_sparse=["csr", "csc"],
        dtype=(numpy.float64, numpy.float32),
        allow_nd=any_axes,
        **options,
    )


def _checked_where_it_is(name: str, X: Any, any_axes: bool) -> Any:
    xp = array_namespace(X)
    if len(X.shape) != 2 and not (any_axes and len(X.shape) > 2):
        raise ValueError(
            f"Expected 2D array, got {len(X.shape)}D array instead, of shape {tuple(X.shape)}. Reshape your "
            "data, with xp.reshape(X, (-1, 1)) if it has a single feature."
        )
    for what, number in (("sample", X.shape[0]), ("feature", X.shape[1])):
        if number < 1:
            raise ValueError(
                f"Found array with 0 {what}(s) (shape={tuple(X.shape)}) while a minimum of 1 is required by "
                f"{name}."
            )
    if xp.isdtype(X.dtype, "complex floating"):
        raise ValueError(f"Complex data not supported: {name} needs real numbers, received {X.dtype}.")
    if not xp.isdtype(X.dtype, "real floating"):
        X = xp.astype(X, xp.__array_namespace_info__().default_dtypes()["real floating"])
    if not bool(xp.all(xp.isfinite(X))):
        raise ValueError(f"Input X contains NaN or infinity. {name} does not accept missing values.")
    return X


def dtype_on(where: Device, X: Any) -> str:
    """Return in what to compute: the dtype of the data, as far as the device has it."""
    wide = str(X.dtype).rpartition(".")[2] == "float64"
    known = where.namespace.__array_namespace_info__().dtypes(kind="real floating")
    return "float64" if wide and "float64" in known else "float32"


def rows_of(values: Any, rows: numpy.ndarray) -> Any:
    """Return some rows of an array, wherever it is; None of None."""
    if values is None or home_of(values) is None:
        return values if values is None else values[rows]
    return array_namespace(values).take(values, asarray(rows, device=device_of(values)), axis=0)


def moved(X: Any, where: Device) -> Any:
    """Return dense data of moderate size on the device; others are moved batch by batch."""
    stay = where.library.spec == "cpu" or hasattr(X, "toarray") or getattr(X, "nbytes", 0) > BYTES_AT_ONCE
    return X if stay else asarray(X, device=where)
