"""The product of a sparse matrix with a dense one, of which the standard says nothing.

The sparse matrix is given by its elements that are not zero, and their places. One and the same function,
with rows and columns exchanged, multiplies by the transpose.
"""

import sys
from typing import Any

import numpy

from xpnet.autodiff import scatter


def sparse_matmul(xp: Any, values: Any, rows: Any, columns: Any, w: Any, *, size: int) -> Any:
    """Return ``y[i, :] = sum(values[k] * w[columns[k], :] for k where rows[k] == i)``.

    Parameters
    ----------
    xp : namespace
    values : array, shape (elements,)
        Those that are named at one place are added; zeros may stand anywhere.
    rows, columns : array of integers, shape (elements,)
    w : array, shape (columns, features)
    size : int
        The number of rows.

    Returns
    -------
    array, shape (size, features)
    """
    # Where SciPy's matrices come from, SciPy is loaded. It has none of float16.
    if isinstance(w, numpy.ndarray) and "scipy.sparse" in sys.modules and values.dtype != numpy.float16:
        shape = (size, w.shape[0])
        return sys.modules["scipy.sparse"].coo_array((values, (rows, columns)), shape=shape) @ w
    each = xp.reshape(values, (-1, 1)) * xp.take(w, columns, axis=0)
    return scatter.scatter_add(xp, each, (rows,), (size, w.shape[1]))
