"""Batches of sparse matrices."""

from typing import Any

from xpnet import tree
from xpnet.autodiff import extended_namespace


class SparseRows(tree.Branch):
    """Rows of a sparse matrix: the elements that are not zero, and their places.

    Parameters
    ----------
    values : array, shape (elements,)
        Zeros among them do no harm, so that batches can be of one length.
    rows, columns : array of integers, shape (elements,)
    shape : (int, int)
        Of the matrix.
    """

    def __init__(self, values: Any, rows: Any, columns: Any, shape: tuple[int, int]) -> None:
        self.values = values
        self.rows = rows
        self.columns = columns
        self.shape = shape

    @property
    def dtype(self) -> Any:
        return self.values.dtype

    def __matmul__(self, weight: Any) -> Any:
        if self.shape[1] != weight.shape[0]:
            raise ValueError(
                f"expected {weight.shape[0]} features on the last axis, received {self.shape[1]} in a sparse "
                "matrix. Make the layer for as many features as x has, or give it other features."
            )
        xp = extended_namespace(self.values, weight)
        if not xp.isdtype(self.dtype, ("real floating", "complex floating")):
            raise TypeError(
                f"floating-point numbers are needed, received {self.dtype} in a sparse matrix. Convert it "
                "with x.astype('float32')."
            )
        return xp.sparse_matmul(self.values, self.rows, self.columns, weight, size=self.shape[0])
