"""Whole Jacobians and Hessians, and their products with vectors, made of `vjp`."""

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any, ParamSpec, TypeVar

from xpnet import tree
from xpnet.autodiff.call import FLOATING, Argnums, all_unless_given
from xpnet.autodiff.namespace import array_namespace
from xpnet.autodiff.transforms import grad, linearized

P = ParamSpec("P")
R = TypeVar("R")


def jvp(
    f: Callable[..., R],
    /,
    arguments: Sequence[Any],
    tangents: Any,
    *,
    argnums: int | Sequence[int] | None = None,
    **keywords: Any,
) -> tuple[R, R]:
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
        A direction for each argument in ``argnums``, of its shape. A number may stand for an array of shape
        ``()``. For one integer as ``argnums``, that direction alone.
    argnums : int or sequence of int, optional
        The arguments to differentiate, as of `vjp`; by default all of them.
    **keywords : array, tree or anything else
        Keyword arguments of ``f``, which are constants.

    Returns
    -------
    result : array or tree
        What ``f`` returns.
    tangent : array or tree
        Like the result: its derivative in that direction. It is 0 for integers.

    Raises
    ------
    NoGradientError
        If an argument cannot hold a gradient, or a gradient would be lost inside ``f``.
    ValueError
        If the tangents do not have the structure and shapes of the arguments, or ``argnums`` names no
        position of an argument, or one twice.

    Examples
    --------
    >>> import numpy as np
    >>> import xpnet
    >>> xpnet.jvp(lambda x: x * x, (np.asarray([1.0, 3.0]),), (np.asarray([1.0, 0.0]),))
    (array([1., 9.]), array([2., 0.]))
    """
    _check_several("jvp", arguments)
    tangents = _given(tangents, argnums)
    needed = "jvp needs tangents like the arguments that are differentiated"
    result, pullback = linearized(f, arguments, keywords, argnums, tangents, needed=needed)
    results, structure = tree.flatten(result)
    moved = [array_namespace(y).zeros_like(y) for y in results]
    differentiable = [i for i, y in enumerate(results) if _has_gradient(y)]

    def transposed(*us: Any) -> Any:
        return pullback(tree.unflatten(structure, list(us)))

    _, pushforward = linearized(transposed, moved, {}, differentiable, needed=needed)
    for i, y in zip(differentiable, pushforward(tangents), strict=True):
        moved[i] = y
    return result, tree.unflatten(structure, moved)


def jacobian(f: Callable[P, Any], argnums: int | Sequence[int] = 0) -> Callable[P, Any]:
    """Make a function that returns the Jacobian of ``f``: the derivative of each element of its result.

    Parameters
    ----------
    f : callable
        A function that returns an array of any shape, or a tree of arrays.
    argnums : int or sequence of int, default=0
        The positional arguments to differentiate, as of `value_and_grad`: arrays, or trees of arrays.

    Returns
    -------
    callable
        With the arguments of ``f``. It returns an array of the shape of the result and then that of the
        argument; a tree of them where the argument is a tree, and for several ``argnums``, a tuple of those.
        Where the result is a tree, one such stands at each of its leaves. It takes a backward sweep for each
        element of the result, and two for a complex one.

    Raises
    ------
    NoGradientError
        If an argument cannot hold a gradient, or a gradient would be lost inside ``f``.
    ValueError
        If ``argnums`` names no position of an argument, or one twice.

    Notes
    -----
    Of a complex result y it is ``∂y/∂x`` for a real argument x, and ``(∂y/∂Re z - i ∂y/∂Im z) / 2`` for a
    complex argument z, which is the derivative where there is one (where y is holomorphic). Of a real result,
    rows are gradients as `grad` has them, ``∂y/∂Re z + i ∂y/∂Im z``.

    Examples
    --------
    >>> import numpy as np
    >>> import xpnet
    >>> xpnet.jacobian(lambda x: x * x)(np.asarray([1.0, 3.0]))
    array([[2., 0.],
           [0., 6.]])
    """
    Argnums(argnums)  # an error comes now, not with the first call

    @functools.wraps(f)
    def derivative(*arguments: P.args, **keywords: P.kwargs) -> Any:
        result, pullback = linearized(f, arguments, keywords, argnums)
        results, structure = tree.flatten(result)
        if result is None:
            raise TypeError(
                "jacobian needs a function that returns an array, or a tree of them, received None."
            )
        zeros = [array_namespace(y).zeros_like(y) for y in results]

        def of_leaf(index: int) -> Any:
            def pull(u: Any) -> Any:
                return pullback(tree.unflatten(structure, [*zeros[:index], u, *zeros[index + 1 :]]))

            return _rows(results[index], pull)

        return tree.unflatten(structure, [of_leaf(index) for index in range(len(results))])

    return derivative


def _rows(y: Any, pull: Callable[..., Any]) -> Any:
    """Return the derivatives of all elements of an array, from what pulls the gradient of one back."""
    xp, shape = array_namespace(y), tuple(y.shape)
    size = math.prod(shape)
    if size == 0 or not _has_gradient(y):
        return tree.map(
            lambda x: xp.zeros(shape + tuple(x.shape), dtype=x.dtype, device=x.device), pull(xp.zeros_like(y))
        )
    directions = xp.reshape(xp.eye(size, dtype=y.dtype, device=y.device), (size, *shape))
    rows = [pull(directions[i, ...]) for i in range(size)]
    if xp.isdtype(y.dtype, "complex floating"):
        others = [pull(directions[i, ...] * 1j) for i in range(size)]  # those of the imaginary part
        rows = [tree.map(_complex_row, *pair) for pair in zip(rows, others, strict=True)]
    return tree.map(lambda *xs: xp.reshape(xp.stack(xs), shape + tuple(xs[0].shape)), *rows)


def _complex_row(of_real: Any, of_imaginary: Any) -> Any:
    xp = array_namespace(of_real)
    if xp.isdtype(of_real.dtype, "complex floating"):
        return (xp.conj(of_real) + xp.conj(of_imaginary) * 1j) / 2
    return xp.astype(of_real, _complex(of_real)) + xp.astype(of_imaginary, _complex(of_imaginary)) * 1j


def _complex(x: Any) -> Any:
    """Return the complex dtype of the precision of a real array."""
    xp = array_namespace(x)
    return xp.complex128 if x.dtype == xp.float64 else xp.complex64


def _has_gradient(y: Any) -> bool:
    return bool(array_namespace(y).isdtype(y.dtype, FLOATING))


def hessian(f: Callable[P, Any], argnums: int | Sequence[int] = 0) -> Callable[P, Any]:
    """Make a function that returns the Hessian of ``f``: all its second derivatives.

    Parameters
    ----------
    f : callable
        A function that returns one real number, an array of shape ``()``.
    argnums : int or sequence of int, default=0
        The positional arguments to differentiate, as of `value_and_grad`: arrays of real numbers, or trees of
        them.

    Returns
    -------
    callable
        With the arguments of ``f``. It returns an array of the argument's shape twice, ``(*shape, *shape)``.
        For several ``argnums`` it is a tuple of tuples of them, with ``[i][j]`` the derivatives by the i-th
        and then the j-th of the arguments; for trees, a tree with such at each of its leaves.

    Raises
    ------
    NoGradientError
        If an argument cannot hold a gradient, or a gradient would be lost inside ``f``.
    ValueError
        If an argument is complex, ``f`` does not return a real number of shape ``()``, or ``argnums`` names
        no position of an argument, or one twice.

    Examples
    --------
    >>> import numpy as np
    >>> import xpnet
    >>> xpnet.hessian(lambda x: x[0] * x[0] * x[1])(np.asarray([1.0, 3.0]))
    array([[6., 2.],
           [2., 0.]])
    """
    gradient = grad(f, argnums)

    @functools.wraps(f)
    def real_gradient(*arguments: P.args, **keywords: P.kwargs) -> Any:
        gradients = gradient(*arguments, **keywords)
        for g in tree.leaves(gradients):
            if array_namespace(g).isdtype(g.dtype, "complex floating"):
                raise ValueError(
                    f"hessian needs arguments of real numbers, received {g.dtype}. Second derivatives by "
                    "complex numbers make more than one matrix: write f as a function of their real and "
                    "imaginary parts, or take xpnet.hvp."
                )
        return gradients

    return jacobian(real_gradient, argnums)


def hvp(
    f: Callable[..., Any],
    /,
    arguments: Sequence[Any],
    vectors: Any,
    *,
    argnums: int | Sequence[int] | None = None,
    **keywords: Any,
) -> Any:
    """Return the product of the Hessian of ``f`` and a vector, without the Hessian.

    Parameters
    ----------
    f : callable
        A function that returns one real number, an array of shape ``()``.
    arguments : tuple of array or tree
        Where to call it.
    vectors : tuple of array or tree
        The vector: an array for each argument in ``argnums``, of its shape. A number may stand for an array
        of shape ``()``. For one integer as ``argnums``, that array alone.
    argnums : int or sequence of int, optional
        The arguments to differentiate, as of `vjp`; by default all of them.
    **keywords : array, tree or anything else
        Keyword arguments of ``f``, which are constants.

    Returns
    -------
    tuple of array or tree
        Like the vectors; for one integer as ``argnums``, an array or tree alone.

    Raises
    ------
    NoGradientError
        If an argument cannot hold a gradient, or a gradient would be lost inside ``f``.
    ValueError
        If the vectors do not have the structure and shapes of the arguments, ``f`` does not return a real
        number of shape ``()``, or ``argnums`` names no position of an argument, or one twice.

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
    _check_several("hvp", arguments)
    argnums = all_unless_given(argnums, arguments)
    vectors = _given(vectors, argnums)
    needed = "hvp needs vectors like the arguments that are differentiated"
    _, pullback = linearized(grad(f, argnums), arguments, keywords, argnums, vectors, needed=needed)
    return pullback(vectors)


def _check_several(name: str, arguments: Any) -> None:
    if not isinstance(arguments, tuple | list):
        raise TypeError(
            f"{name} takes the arguments of f in a tuple, received {type(arguments).__name__}. Write (x,) "
            "for one argument."
        )


def _given(directions: Any, argnums: Any) -> Any:
    """Return the directions for several arguments in a tuple, also if they came in a list."""
    is_single = argnums is not None and Argnums(argnums).is_single
    return tuple(directions) if isinstance(directions, list) and not is_single else directions
