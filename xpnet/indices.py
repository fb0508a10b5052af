"""Indices into a table: labels of classes, entries of an embedding, places in a cache.

What an index out of range does differs between libraries and devices: an error, or what stands at another
place. Here it is an error where looking at the values does not wait for a device, and else it can be told.
"""

from typing import Any

from xpnet.backends import plain_namespace


def safe_indices(xp: Any, indices: Any, size: int) -> tuple[Any, Any]:
    """Return indices that are safe to look up with, 0 in place of those out of range, and which are in range.

    Parameters
    ----------
    xp : namespace
    indices : array of integers
    size : int
        The number of entries; indices are from 0 to ``size - 1``.
    """
    # An int8 cannot be compared with 200 entries, and not every library indexes with every integer dtype.
    indices = xp.astype(indices, xp.__array_namespace_info__().default_dtypes()["indexing"], copy=False)
    valid = (indices >= 0) & (indices < size)
    return xp.where(valid, indices, 0), valid


def check_indices(indices: Any, size: int, reader: str) -> None:
    """Check that all indices are in range. This reads from the device.

    Parameters
    ----------
    indices : array of integers
    size : int
        The number of entries.
    reader : str
        What looks up with them, for the error message.

    Raises
    ------
    IndexError
        Naming the entries that there are, and an index that is none of them.
    """
    if 0 in indices.shape:
        return
    xp = plain_namespace(indices)
    low, high = int(xp.min(indices)), int(xp.max(indices))
    if low < 0 or high >= size:
        wrong = low if low < 0 else high
        why = "-1 is what pandas writes for a missing category: give it an entry of its own, codes + 1, say."
        raise IndexError(
            f"{reader} needs indices from 0 to {size - 1}, received {wrong}. "
            f"{why if wrong == -1 else 'Number the entries from 0, or make the table larger.'}"
        )
