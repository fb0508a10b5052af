"""Random numbers: drawn on the host for initial weights, and on the device inside a network.

The standard has no random numbers. Initial weights are drawn by NumPy, so that one seed gives the same
network on every library and device. Inside a network (dropout), numbers are a hash of a counter: plain
integer arithmetic of the standard, which runs wherever the network does, waits for nothing, can be recorded,
and gives the same numbers on every library.
"""

import math
from typing import Any, TypeAlias

import array_api_compat
import numpy

from xpnet.backends import asarray, concrete, device
from xpnet.settings import is_bool, is_integer
from xpnet.share import current_share

Seed: TypeAlias = "int | numpy.random.Generator | None"


def host_generator(seed: Any) -> "numpy.random.Generator":
    """Return a NumPy generator for a seed; a generator is returned as it is, None gives a fresh one.

    Raises
    ------
    ValueError
        If it is no seed.
    """
    try:
        if is_bool(seed):
            raise TypeError  # which NumPy would take for 0 or 1
        return numpy.random.default_rng(int(seed) if is_integer(seed) else seed)
    except (TypeError, ValueError):
        raise ValueError(
            f"seed must be an integer of at least 0, a numpy.random.Generator or None, received {seed!r}."
        ) from None


def check_host_state(state: Any) -> None:
    """Refuse a state of one of NumPy's generators that would let it read memory beside its numbers.

    Raises
    ------
    KeyError, TypeError, ValueError
        If it is no such state. What else is wrong in it, NumPy finds.
    """
    for place, end in ((state.get("buffer_pos", 0), 4), (state["state"].get("pos", 0), 624)):
        if type(place) is not int or not 0 <= place <= end:
            raise ValueError(
                f"the place in the numbers of a generator is from 0 to {end}, received {place!r}"
            )


def new_state(seed: Seed) -> Any:
    """Return the state of a stream of random numbers on the current device.

    Returns
    -------
    array of int32, shape (2,)
        The key of the stream and the number of draws so far. Both are at least 0.
    """
    key = host_generator(seed).integers(2**31)
    return asarray([key, 0], device=device(), dtype="int32")


def uniform(xp: Any, state: Any, shape: tuple[int, ...], dtype: Any) -> tuple[Any, Any]:
    """Draw numbers from the uniform distribution on [0, 1).

    Parameters
    ----------
    xp : namespace
        In which to compute, plain or traced.
    state : array of int32, shape (2,)
        The state of the stream.
    shape : tuple of int
        The shape of the result. Of a process that has a share of a batch, the first axis is that of its
        examples, or a multiple of it: the numbers are its part of those for the whole batch.
    dtype : dtype
        float32 or float64; a narrower dtype cannot hold the results.

    Returns
    -------
    values : array of dtype, shape ``shape``
        Multiples of 2**-24.
    state : array of int32, shape (2,)
        The state for the next draw.

    Raises
    ------
    ValueError
        If the first axis has other things than examples where there is a share of a batch.
    """
    state = xp.asarray(state)
    words = _Words(state)
    key, draws = words.of(xp, state[:1]), words.of(xp, state[1:])
    start = words.hash(key ^ words.hash(draws))
    first = _first(shape)
    index = words.of(xp, xp.arange(first, first + math.prod(shape), device=state.device))
    # Two rounds, so that streams whose keys are close do not look alike.
    bits = words.hash(words.hash(index) ^ start)
    values = xp.astype(bits >> 8, dtype) * 2.0**-24
    return xp.reshape(values, shape), xp.concat([state[:1], state[1:] + 1])


def _first(shape: tuple[int, ...]) -> int:
    """Return the place of the first number among those that are drawn for the whole batch."""
    share = current_share()
    if share is None:
        return 0
    if not shape or shape[0] % share.number:
        raise ValueError(
            "where several processes train, random numbers inside a network must be drawn for an array whose "
            f"first axis is that of the examples, received the shape {shape} for {share.number} of them. "
            "Bring that axis to the front before nn.Dropout."
        )
    return share.start * (math.prod(shape) // share.number)


class _Words:
    """Arithmetic modulo 2**32, in uint32; on PyTorch, which lacks it, in int64."""

    def __init__(self, state: Any) -> None:
        self._wide = array_api_compat.is_torch_array(concrete(state))

    def of(self, xp: Any, x: Any) -> Any:
        return xp.astype(x, xp.int64 if self._wide else xp.uint32)

    def wrap(self, x: Any) -> Any:
        return x & 0xFFFFFFFF if self._wide else x

    def hash(self, x: Any) -> Any:
        """Mix all bits of each word, with constants found by C. Wellons' hash-prospector."""
        x = x ^ (x >> 16)
        x = self.wrap(x * 0x21F0AAAD)
        x = x ^ (x >> 15)
        x = self.wrap(x * 0x735A2D97)
        return x ^ (x >> 15)
