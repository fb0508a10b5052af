"""A step that is done for each element of a sequence: how plain arrays go through it.

`xpnet.scan` is made of it. The step is called once for each element; JAX has a loop of its own, which it
compiles.
"""

from collections.abc import Callable
from typing import Any

import array_api_compat as compat


def scan(xp: Any, *values: Any, body: Any, length: int) -> tuple[Any, ...]:
    """Call a step for each element along the first axis of some arrays.

    Parameters
    ----------
    xp : namespace
    *values : array
        What is carried from step to step at first, the sequences, and what is the same in each step.
    body : object
        ``body.split(values)`` returns the three parts, ``body.step(carried, elements, constants)`` what is
        carried on, and results.
    length : int
        The number of elements, at least one.

    Returns
    -------
    tuple of array
        What each step was given to carry, the results of each, all joined along a first axis, and what the
        last one carried on.
    """
    carried, sequences, constants = body.split(values)
    if any(map(compat.is_jax_array, values)):
        return _in_jax(body, carried, sequences, constants, length)
    return one_by_one(xp, body.step, carried, sequences, constants, length)


def one_by_one(
    xp: Any, step: Callable, carried: list, sequences: list, constants: list, length: int
) -> tuple[Any, ...]:
    """Call a step for each element, one after the other. Parameters and results are as in `scan`."""
    steps = []
    for t in range(length):
        before = carried
        carried, results = step(carried, [x[t, ...] for x in sequences], constants)
        steps.append([*before, *results])
    return (*(xp.stack(list(each)) for each in zip(*steps, strict=True)), *carried)


def _in_jax(body: Any, carried: list, sequences: list, constants: list, length: int) -> tuple[Any, ...]:
    import jax

    # What JAX compiles is traced, and what was recorded then could not be kept.
    body.record(carried, [x[0, ...] for x in sequences], constants)

    def step(carried: list, elements: list | None) -> tuple[list, tuple]:
        after, results = body.step(carried, elements or [], constants)
        return after, (carried, results)

    carried, (before, results) = jax.lax.scan(step, carried, sequences, length=length)
    return (*before, *results, *carried)
