"""Whole Jacobians and Hessians, and their products with vectors, made of `vjp`."""

import functools
import math
from collections.abc import Callable
from typing import Any

from xpnet import tree
from xpnet.autodiff.namespace import array_namespace
from xpnet.autodiff.transforms import grad, vjp


def jvp(f: Callable, arguments: tuple, tangents: tuple) -> tuple[Any, Any]:
    """Call ``f`` and carry directions of its arguments forward through it.

    The product of the Jacobian J of ``f`` and a vector v, by two backward sweeps: ``u ↦ Jᵀ u`` is linear in
    u, so its own transposed Jacobian is J. (J. Townsend, A new trick for calculating Jacobian vector
    products, 2017.)

    Parameters
    ----------
    f : callable
        A function that returns an array, or a tree of arrays, of any shape.
    arguments : tuple of array or tree
        Where to call it.
    tangents : tuple of array or tree
        A direction for each argument, of its shape and dtype.

    Returns
    -------
    result : array or tree
        What ``f`` returns.
    tangent : array or tree
        Like the result: its derivative in that direction.

    Raises
    ------
    NoGradientError
        If an argument cannot hold a gradient, or a gradient would be lost inside ``f``.
    ValueError
        If the tangents do not have the structure and shapes of the arguments.

    Examples
    --------
    >>> import numpy as np
    >>> import xpnet
    >>> xpnet.jvp(lambda x: x * x, (np.asarray([1.0, 3.0]),), (np.asarray([1.0, 0.0]),))
    (array([1., 9.]), array([2., 0.]))
    """
    result, pullback = vjp(f, *arguments)
    zeros = tree.map(lambda y: array_namespace(y).zeros_like(y), result)
    _, pushforward = vjp(pullback, zeros)
    return result, pushforward(tuple(tangents))[0]


def jacobian(f: Callable, argnums: int = 0) -> Callable:
    """Make a function that returns the Jacobian of ``f``: the derivative of each element of its result.

    Parameters
    ----------
    f : callable
        A function that returns an array of any shape.
    argnums : int, default=0
        The position of the argument to differentiate: an array, or a tree of arrays.

    Returns
    -------
    callable
        With the arguments of ``f``. It returns an array of the shape of the result and then that of the
        argument, or a tree of them. It takes a backward sweep for each element of the result.

    Examples
    --------
    >>> import numpy as np
    >>> import xpnet
    >>> xpnet.jacobian(lambda x: x * x)(np.asarray([1.0, 3.0]))
    array([[2., 0.],
           [0., 6.]])
    """

    @functools.wraps(f)
    def derivative(*arguments: Any) -> Any:
        def of_one(argument: Any) -> Any:
            return f(*arguments[:argnums], argument, *arguments[argnums + 1 :])

        result, pullback = vjp(of_one, arguments[argnums])
        if not tree.is_array(result):
            raise TypeError(
                f"jacobian needs a function that returns an array, received {type(result).__name__}."
            )
        xp, shape = array_namespace(result), tuple(result.shape)
        size = math.prod(shape)
        directions = xp.eye(size, dtype=result.dtype, device=result.device)
        rows = [pullback(xp.reshape(directions[i, :], shape))[0] for i in range(size)]
        if not rows:
            return tree.map(
                lambda x: xp.zeros(shape + tuple(x.shape), dtype=x.dtype, device=x.device), arguments[argnums]
            )
        return tree.map(lambda *xs: xp.reshape(xp.stack(xs), shape + tuple(xs[0].shape)), *rows)

    return derivative


def hessian(f: Callable, argnums: int = 0) -> Callable:
    """Make a function that returns the Hessian of ``f``: all its second derivatives.

    Parameters
    ----------
    f : callable
        A function that returns one real number, an array of shape ``()``.
    argnums : int, default=0
        The position of the argument to differentiate, an array.

    Returns
    -------
    callable
        With the arguments of ``f``. It returns an array of the argument's shape twice, ``(*shape, *shape)``.

    Examples
    --------
    >>> import numpy as np
    >>> import xpnet
    >>> xpnet.hessian(lambda x: x[0] * x[0] * x[1])(np.asarray([1.0, 3.0]))
    array([[6., 2.],
           [2., 0.]])
    """
    return jacobian(grad(f, argnums), argnums)


def hvp(f: Callable, arguments: tuple, vectors: tuple) -> tuple:
    """Return the product of the Hessian of ``f`` and a vector, without the Hessian.

    Parameters
    ----------
    f : callable
        A function that returns one real number, an array of shape ``()``.
    arguments : tuple of array or tree
        Where to call it. All of them are differentiated.
    vectors : tuple of array or tree
        The vector: an array for each argument, of its shape and dtype.

    Returns
    -------
    tuple of array or tree
        Like the arguments.

    Notes
    -----
    As the Hessian is symmetric, this is one backward sweep through the gradient.

    Examples
    --------
    >>> import numpy as np
    >>> import xpnet
    >>> xpnet.hvp(lambda x: x[0] * x[0] * x[1], (np.asarray([1.0, 3.0]),), (np.asarray([1.0, 0.0]),))
    (array([6., 2.]),)
    """
    _, pullback = vjp(grad(f, argnums=tuple(range(len(arguments)))), *arguments)
    return pullback(tuple(vectors))
