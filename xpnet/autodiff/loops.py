"""A step that is done for each element of a sequence: how plain arrays go through it.

`xpnet.scan` is made of it. The step is called once for each element; JAX has a loop of its own, which it
compiles.
"""

from typing import Any

import array_api_compat as compat


def scan(xp: Any, *values: Any, body: Any) -> tuple[Any, ...]:
    """Call a step for each element along the first axis of some arrays.

    Parameters
    ----------
    xp : namespace
    *values : array
        What is carried from step to step at first, the sequences, and what is the same in each step.
    body : object
        ``body.split(values)`` returns the three parts, ``body.step(carried, elements, constants)`` what is
        carried on, and results.

    Returns
    -------
    tuple of array
        What each step was given to carry, the results of each, all joined along a first axis, and what the
        last one carried on.
    """
    carried, sequences, constants = body.split(values)
    if compat.is_jax_array(sequences[0]):
        import jax

        def step(carried: list, elements: list) -> tuple[list, tuple]:
            after, results = body.step(carried, elements, constants)
            return after, (carried, results)

        carried, (before, results) = jax.lax.scan(step, carried, sequences)
        return (*before, *results, *carried)
    steps = []
    for t in range(sequences[0].shape[0]):
        before = carried
        carried, results = body.step(carried, [x[t, ...] for x in sequences], constants)
        steps.append([*before, *results])
    return (*(xp.stack(each) for each in zip(*steps, strict=True)), *carried)
