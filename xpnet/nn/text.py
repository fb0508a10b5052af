"""Text as numbers, without a tokenizer: each byte of UTF-8 is an entry."""

from typing import Any

import numpy

from xpnet.autodiff import array_namespace
from xpnet.backends import asarray, device, to_numpy
from xpnet.indices import check_indices
from xpnet.nn.module import Module
from xpnet.settings import count
from xpnet.tree import Array, is_array


class ByteReader(Module):
    """Read texts byte by byte: each of the 256 bytes is an entry for an `Embedding`, and 256 fills up.

    Any text in any language can be read, and written again. A letter of English is one byte, others are up
    to four.

    Parameters
    ----------
    length : int
        How many bytes of each text are read. Shorter ones are filled up, longer ones are cut off.

    Attributes
    ----------
    entries : int
        257, for the embedding.

    Examples
    --------
    >>> import xpnet
    >>> reader = xpnet.nn.ByteReader(6)
    >>> reader(["hi", "größer"])
    array([[104, 105, 256, 256, 256, 256],
           [103, 114, 195, 182, 195, 159]], dtype=int32)
    >>> reader.texts(reader(["hi", "größer"]))
    ['hi', 'größ']
    """

    entries = 257

    def __init__(self, length: int) -> None:
        self.length = count("length", length)

    def __call__(self, texts: Any) -> Array:
        """Read texts.

        Parameters
        ----------
        texts : iterable of str or bytes, or array of integers, shape (batch, length)
            An array is what was read before, and stays as it is: a network that begins with a reader takes
            it where texts cannot go, on a GPU or in an ONNX file.

        Returns
        -------
        array of int32, shape (batch, length)
            On the current device.

        Raises
        ------
        TypeError
            If it is a single text, or one of them is no text.
        ValueError
            If an array is not as wide as what is read.
        """
        if is_array(texts) and array_namespace(texts).isdtype(texts.dtype, "integral"):
            if tuple(texts.shape[1:]) != (self.length,):
                raise ValueError(
                    f"what was read before must have the shape (batch, {self.length}), received "
                    f"{tuple(texts.shape)}. Read it with this reader."
                )
            return texts
        if isinstance(texts, str | bytes):
            raise TypeError(f"ByteReader needs a list of texts, received one, {texts[:40]!r}. Write [text].")
        rows = []
        for text in texts:
            if not isinstance(text, str | bytes):
                raise TypeError(f"a text must be str or bytes, received {type(text).__name__}: {text!r}.")
            data = (text.encode() if isinstance(text, str) else text)[: self.length]
            rows.append([*data, *[256] * (self.length - len(data))])
        return asarray(numpy.asarray(rows, dtype="int32").reshape(-1, self.length), device=device())

    def mask(self, indices: Array) -> Array:
        """Say where there is text: an array of bool of the shape of the indices, for attention."""
        return indices < 256

    def texts(self, indices: Array) -> list[str]:
        """Return the texts of indices, of shape (batch, length). Bytes that are no UTF-8 become �.

        Raises
        ------
        IndexError
            If one of the indices is no entry.
        """
        rows = numpy.asarray(to_numpy(indices))
        check_indices(rows, self.entries, f"ByteReader({self.length})")
        return [bytes(int(i) for i in row if i < 256).decode(errors="replace") for row in rows]
