"""How a matrix must stand in memory for a library of products to read it where it is."""


def leading_dimension(rows: int, columns: int, down: int, along: int) -> tuple[bool, int] | None:
    """Return how a matrix is read, or None where a product would need a copy of it.

    Parameters
    ----------
    rows, columns : int
        Its shape.
    down, along : int
        How many elements it is to the next row and to the next column.

    Returns
    -------
    by_columns : bool
        Whether the elements of a column stand beside each other; otherwise those of a row do.
    step : int
        Elements from one row, or column, to the next: BLAS's leading dimension.
    """
    # Of a single row or column, the step to the next one says nothing.
    down, along = columns if rows == 1 else down, rows if columns == 1 else along
    if (along == 1 or columns == 1) and down >= columns:
        return False, down
    if (down == 1 or rows == 1) and along >= rows:
        return True, along
    return None
