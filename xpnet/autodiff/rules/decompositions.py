"""Inverses, determinants, factorizations and norms of matrices, or of stacks of them on the leading axes.

The rules are those of M. B. Giles, An extended collection of matrix derivative results for forward and
reverse mode automatic differentiation, 2008, with adjoints in place of transposes for complex matrices.

Where vectors are not differentiable (those of equal eigenvalues or singular values), the gradient has
infinite or NaN elements, and large ones near such a point. Eigenvalues and singular values alone keep finite
gradients there. The gradients of `slogdet` and `qr` need a matrix of full rank (in `qr` of a wide one, its
first columns): of others, a library raises its own error or returns infinite or NaN elements.
"""

import math
from collections.abc import Callable
from functools import wraps
from typing import Any

import array_api_compat

from xpnet.autodiff.primitive import composite, function
from xpnet.autodiff.rules.elementwise import conj
from xpnet.autodiff.tracer import Tracer
from xpnet.errors import NotRecordableError


def adjoint_rule(rule: Callable) -> Callable:
    """Let a rule be written with gradients that are not conjugated, as in the literature.

    `xpnet.autodiff.backward` says why they are in the sweep.
    """

    @wraps(rule)
    def conjugated(xp: Any, g: Any, *arguments: Any, **parameters: Any) -> Any:
        g = [conj(xp, one) for one in g] if isinstance(g, list) else conj(xp, g)
        return conj(xp, rule(xp, g, *arguments, **parameters))

    return conjugated


def _H(xp: Any, x: Any) -> Any:
    """Return the adjoint of a matrix: transposed and conjugated."""
    return conj(xp, xp.matrix_transpose(x))


def _eye(xp: Any, x: Any, size: int) -> Any:
    return xp.eye(size, dtype=x.dtype, device=x.device)


def _scalars(x: Any) -> Any:
    """Let a number for each matrix of a stack stand beside the matrices."""
    return x[..., None, None]


# -- inverses and determinants ------------------------------------------------------------------------------


@function(adjoint_rule(lambda xp, g, y, _x: -_H(xp, y) @ g @ _H(xp, y)), extension="linalg")
def inv(call: Any, x: Any, /) -> Any:
    return call(x)


@adjoint_rule
def _solve_x1(xp: Any, g: Any, y: Any, x1: Any, _x2: Any) -> Any:
    if len(_x2.shape) == 1:
        g, y = xp.expand_dims(g, axis=-1), xp.expand_dims(y, axis=-1)
    return -xp.linalg.solve(_H(xp, x1), g) @ _H(xp, y)


@adjoint_rule
def _solve_x2(xp: Any, g: Any, _y: Any, x1: Any, _x2: Any) -> Any:
    if len(_x2.shape) == 1:
        return xp.linalg.solve(_H(xp, x1), xp.expand_dims(g, axis=-1))[..., 0]
    return xp.linalg.solve(_H(xp, x1), g)


@function(_solve_x1, _solve_x2, extension="linalg")
def solve(call: Any, x1: Any, x2: Any, /) -> Any:
    return call(x1, x2)


@adjoint_rule
def _pinv(xp: Any, g: Any, y: Any, x: Any, *_rtol: Any) -> Any:
    y_adjoint, g_adjoint = _H(xp, y), _H(xp, g)
    rows, columns = x.shape[-2:]
    outside_rows = _eye(xp, x, rows) - x @ y
    outside_columns = _eye(xp, x, columns) - y @ x
    return (
        -y_adjoint @ g @ y_adjoint
        + outside_rows @ g_adjoint @ y @ y_adjoint
        + y_adjoint @ y @ g_adjoint @ outside_columns
    )


@function(_pinv, compute=lambda xp, x, rtol=None: xp.linalg.pinv(x, rtol=rtol), extension="linalg")
def pinv(call: Any, x: Any, /, *, rtol: Any = None) -> Any:
    return call(x) if rtol is None else call(x, rtol)  # a threshold, which has no gradient


@adjoint_rule
def _det(xp: Any, g: Any, y: Any, x: Any) -> Any:
    if _may_be_singular(xp, y, x):
        return _scalars(g) * _H(xp, _adjugate(xp, x))
    return _scalars(g * conj(xp, y)) * _H(xp, xp.linalg.inv(x))


def _may_be_singular(xp: Any, y: Any, x: Any) -> bool:
    """Say whether any of the determinants is 0, within rounding, beside Hadamard's bound."""
    if array_api_compat.device(x) is None:  # inside `jax.jit`, where nothing can depend on values
        return False
    lengths = xp.linalg.vector_norm(x, axis=-1)
    root = 1 / max(x.shape[-1], 1)  # of both sides, as the product of many lengths can overflow
    smallest = (1000 * xp.finfo(lengths.dtype).eps) ** root * xp.prod(lengths**root, axis=-1)
    try:
        return bool(xp.any(xp.abs(y) ** root <= smallest))
    except NotRecordableError:  # nor can it inside `xpnet.jit`
        return False


def _adjugate(xp: Any, x: Any) -> Any:
    """Return det(x) inv(x), also where x has no inverse; 0 where the rank is less by two or more.

    With the singular vectors u and v of the smallest singular value, b = x + t u vᴴ has an inverse. This is
    the derivative of det(x) = det(b) (1 - t vᴴ inv(b) u), the lemma of the determinant. It holds for any u, v
    and t, so they are constants in gradients of gradients. A t of good size is the second smallest singular
    value.
    """
    u, s, vh = xp.linalg.svd(xp.lift(x.value) if isinstance(x, Tracer) else x)
    low = xp.count_nonzero(s <= 1000 * xp.finfo(s.dtype).eps * s[..., :1], axis=-1) > 1
    t = s[..., max(x.shape[-1] - 2, 0)]
    t = xp.astype(xp.where(t == 0, xp.ones_like(t), t), x.dtype)
    u, vh = _scalars(t) * u[..., :, -1:], vh[..., -1:, :]
    b = xp.where(_scalars(low), _eye(xp, x, x.shape[-1]), x + u @ vh)
    inverse = xp.linalg.inv(b)
    result = (1 - vh @ inverse @ u) * inverse + (inverse @ u) @ (vh @ inverse)
    return _scalars(xp.where(low, 0.0, xp.linalg.det(b))) * result


@function(_det, extension="linalg")
def det(call: Any, x: Any, /) -> Any:
    return call(x)


@adjoint_rule
def _slogdet(xp: Any, g: Any, y: Any, x: Any) -> Any:
    sign, _ = y
    # The logarithm of the determinant has the derivative inv(x). Of a complex sign, the angle can change.
    scale = xp.astype(xp.real(g[1]) if xp.isdtype(g[1].dtype, "complex floating") else g[1], x.dtype)
    if xp.isdtype(x.dtype, "complex floating"):
        scale = scale + 1j * xp.imag(xp.conj(sign) * g[0])
    return _scalars(scale) * _H(xp, xp.linalg.inv(x))


@function(_slogdet, extension="linalg", several=True)
def slogdet(call: Any, x: Any, /) -> Any:
    return call(x)


@composite(extension="linalg")
def matrix_power(xp: Any, x: Any, n: int, /) -> Any:
    if n < 0:
        return matrix_power(xp, xp.linalg.inv(x), -n)
    if n == 0:
        return xp.broadcast_to(_eye(xp, x, x.shape[-1]), x.shape)
    half = matrix_power(xp, x, n // 2)
    square = half @ half if n > 1 else None
    return x if n == 1 else square if n % 2 == 0 else square @ x


# -- factorizations -----------------------------------------------------------------------------------------


def _lower(xp: Any, x: Any) -> Any:
    """Return the lower triangle with half of the diagonal."""
    return xp.tril(x) - 0.5 * x * _eye(xp, x, x.shape[-1])


@adjoint_rule
def _cholesky(xp: Any, g: Any, y: Any, _x: Any, *, upper: bool) -> Any:
    if upper:
        g, y = _H(xp, g), _H(xp, y)
    middle = _lower(xp, _H(xp, y) @ g)
    inverse = xp.linalg.inv(y)
    whole = _H(xp, inverse) @ middle @ inverse
    return 0.5 * (whole + _H(xp, whole))


@function(_cholesky, extension="linalg")
def cholesky(call: Any, x: Any, /, *, upper: bool = False) -> Any:
    return call(x, upper=upper)


def _qr_square(xp: Any, gq: Any, gr: Any, q: Any, r: Any) -> Any:
    """Return the gradient of a factorization with a square r, whose diagonal is real."""
    m = r @ _H(xp, gr) - _H(xp, gq) @ q
    m = _lower(xp, m)
    return _H(xp, xp.linalg.solve(r, _H(xp, gq + q @ (m + _H(xp, m)))))


@adjoint_rule
def _qr(xp: Any, g: Any, y: Any, x: Any, *, mode: str) -> Any:
    (gq, gr), (q, r) = g, y
    rows, columns = x.shape[-2:]
    if mode == "complete" and rows > columns:
        raise NotImplementedError(
            'qr with mode="complete" of a matrix with more rows than columns has no gradient, as the last '
            f'columns of Q can be chosen freely; received {rows} x {columns}. Use mode="reduced".'
        )
    if rows >= columns:
        return _qr_square(xp, gq, gr, q, r)
    # Of a wide matrix [A B] = Q [R S], Q comes from A alone, and S = Qᴴ B.
    b, gs = x[..., rows:], gr[..., rows:]
    ga = _qr_square(xp, gq + b @ _H(xp, gs), gr[..., :rows], q, r[..., :rows])
    return xp.concat([ga, q @ gs], axis=-1)


@function(_qr, extension="linalg", several=True)
def qr(call: Any, x: Any, /, *, mode: str = "reduced") -> Any:
    return call(x, mode=mode)


def _differences(values: Any) -> Any:
    return values[..., None, :] - values[..., :, None]


def _off_diagonal(xp: Any, x: Any) -> Any:
    return x * (1 - _eye(xp, x, x.shape[-1]))


def _divide(xp: Any, x1: Any, x2: Any) -> Any:
    """Return the quotient, and 0 for 0 / 0: what is not used has the gradient 0, also where it has none."""
    return x1 / xp.where((x1 == 0) & (x2 == 0), 1.0, x2)


@adjoint_rule
def _eigh(xp: Any, g: Any, y: Any, _x: Any) -> Any:
    (gw, gv), (w, v) = g, y
    turned = _off_diagonal(xp, _H(xp, v) @ gv)
    inner = _divide(xp, turned, xp.astype(_differences(w), v.dtype))
    inner = inner + xp.astype(gw, v.dtype)[..., None] * _eye(xp, v, v.shape[-1])
    return _symmetric(xp, v @ inner @ _H(xp, v))


def _symmetric(xp: Any, g: Any) -> Any:
    """Share the gradient between both triangles, of which the function reads but one."""
    return 0.5 * (g + _H(xp, g))


@function(_eigh, extension="linalg", several=True)
def eigh(call: Any, x: Any, /) -> Any:
    return call(x)


@adjoint_rule
def _eigvalsh(xp: Any, g: Any, _y: Any, x: Any) -> Any:
    v = xp.linalg.eigh(x)[1]
    return (v * xp.astype(g, v.dtype)[..., None, :]) @ _H(xp, v)


@function(_eigvalsh, extension="linalg")
def eigvalsh(call: Any, x: Any, /) -> Any:
    return call(x)


@adjoint_rule
def _svd(xp: Any, g: Any, y: Any, x: Any, *, full_matrices: bool) -> Any:
    (gu, gs, gvh), (u, s, vh) = g, y
    rows, columns = x.shape[-2:]
    if full_matrices and rows != columns:
        raise NotImplementedError(
            "svd with full_matrices=True of a matrix that is not square has no gradient, as the last columns "
            f"of U or V can be chosen freely; received {rows} x {columns}. Use full_matrices=False."
        )
    size, gv, v = min(rows, columns), _H(xp, gvh), _H(xp, vh)
    eye = _eye(xp, x, size)
    s_rows, s_columns = xp.astype(s, x.dtype)[..., :, None], xp.astype(s, x.dtype)[..., None, :]
    ug, vg = _H(xp, u) @ gu, _H(xp, v) @ gv
    turned = _off_diagonal(xp, (ug - _H(xp, ug)) * s_columns + s_rows * (vg - _H(xp, vg)))
    # sj² - si², by its factors
    inner = _divide(xp, turned, xp.astype(_differences(s), x.dtype) * (s_rows + s_columns))
    inner = inner + eye * xp.astype(gs, x.dtype)[..., None, :]
    if xp.isdtype(x.dtype, "complex floating"):  # the phases of u and v are free but for their product
        inner = inner + _divide(xp, eye * (1j * xp.astype(xp.imag(ug), x.dtype)), s_columns)
    result = u @ inner @ vh
    if rows > size:
        result = result + _divide(xp, gu - u @ ug, s_columns) @ vh
    if columns > size:
        result = result + u @ _H(xp, _divide(xp, gv - v @ vg, s_columns))
    return result


@function(_svd, extension="linalg", several=True)
def svd(call: Any, x: Any, /, *, full_matrices: bool = True) -> Any:
    return call(x, full_matrices=full_matrices)


@adjoint_rule
def _svdvals(xp: Any, g: Any, _y: Any, x: Any) -> Any:
    u, _, vh = xp.linalg.svd(x, full_matrices=False)
    return (u * xp.astype(g, u.dtype)[..., None, :]) @ vh


@function(_svdvals, extension="linalg")
def svdvals(call: Any, x: Any, /) -> Any:
    return call(x)


@adjoint_rule
def _eig(xp: Any, g: Any, y: Any, _x: Any) -> Any:
    (gw, gv), (w, v) = g, y
    projected = _H(xp, v) @ gv
    # The eigenvectors have length 1, so what would change their length is left out.
    lengths = xp.real(xp.linalg.diagonal(projected))[..., None, :]
    normalized = projected - (_H(xp, v) @ v) * xp.astype(lengths, v.dtype)
    inner = _divide(xp, _off_diagonal(xp, normalized), xp.conj(_differences(w)))
    inner = inner + _eye(xp, v, v.shape[-1]) * gw[..., None, :]
    return xp.linalg.solve(_H(xp, v), inner @ _H(xp, v))


@function(_eig, extension="linalg", several=True)
def eig(call: Any, x: Any, /) -> Any:
    return call(x)


@adjoint_rule
def _eigvals(xp: Any, g: Any, _y: Any, x: Any) -> Any:
    v = xp.linalg.eig(x)[1]
    return xp.linalg.solve(_H(xp, v), g[..., :, None] * _H(xp, v))


@function(_eigvals, extension="linalg")
def eigvals(call: Any, x: Any, /) -> Any:
    return call(x)


# -- diagonals, products and norms --------------------------------------------------------------------------


def _diagonal_back(xp: Any, g: Any, _y: Any, _x: Any, *, offset: int) -> Any:
    rows, columns = _x.shape[-2:]
    before = max(-offset, 0)
    zeros = [xp.zeros((*g.shape[:-1], n), dtype=g.dtype, device=g.device) for n in (before, rows)]
    by_row = xp.concat([zeros[0], g, zeros[1]], axis=-1)[..., :rows]
    return by_row[..., None] * xp.eye(rows, columns, k=offset, dtype=g.dtype, device=g.device)


@function(_diagonal_back, extension="linalg")
def diagonal(call: Any, x: Any, /, *, offset: int = 0) -> Any:
    return call(x, offset=offset)


@composite(extension="linalg")
def trace(xp: Any, x: Any, /, *, offset: int = 0, dtype: Any = None) -> Any:
    return xp.sum(xp.linalg.diagonal(x, offset=offset), axis=-1, dtype=dtype)


@composite(extension="linalg")
def outer(xp: Any, x1: Any, x2: Any, /) -> Any:
    return xp.expand_dims(x1, -1) * xp.expand_dims(x2, 0)


@function(
    lambda xp, g, _y, _x1, x2, *, axis: xp.linalg.cross(*xp.broadcast_arrays(x2, g), axis=axis),
    lambda xp, g, _y, x1, _x2, *, axis: xp.linalg.cross(*xp.broadcast_arrays(g, x1), axis=axis),
    extension="linalg",
)
def cross(call: Any, x1: Any, x2: Any, /, *, axis: int = -1) -> Any:
    return call(x1, x2, axis=axis)


@composite(extension="linalg")
def vector_norm(xp: Any, x: Any, /, *, axis: Any = None, keepdims: bool = False, ord: float = 2) -> Any:
    size = xp.abs(x)
    if ord == math.inf:
        return xp.max(size, axis=axis, keepdims=keepdims)
    if ord == -math.inf:
        return xp.min(size, axis=axis, keepdims=keepdims)
    if ord == 0:
        return xp.sum(xp.astype(x != 0, size.dtype), axis=axis, keepdims=keepdims)
    if ord == 1:
        return xp.sum(size, axis=axis, keepdims=keepdims)
    powers = _squares(xp, x) if ord == 2 else size**ord
    total = xp.sum(powers, axis=axis, keepdims=keepdims)
    # The root has an infinite derivative at 0, where the norm is given the gradient 0.
    zero = total == 0
    return xp.where(zero, 0.0 if ord > 0 else math.inf, xp.where(zero, 1.0, total) ** (1 / ord))


def _squares(xp: Any, x: Any) -> Any:
    """Return the squares of the absolute values, which have gradients at 0 too."""
    if xp.isdtype(x.dtype, "complex floating"):
        return xp.square(xp.real(x)) + xp.square(xp.imag(x))
    return xp.square(x)


_MATRIX_NORMS = ("fro", "nuc", 1, -1, 2, -2, math.inf, -math.inf)


@composite(extension="linalg")
def matrix_norm(xp: Any, x: Any, /, *, keepdims: bool = False, ord: Any = "fro") -> Any:
    if ord == "fro":
        return xp.linalg.vector_norm(x, axis=(-2, -1), keepdims=keepdims)
    if ord not in _MATRIX_NORMS:
        raise ValueError(f"ord must be one of {', '.join(map(repr, _MATRIX_NORMS))}, received {ord!r}.")
    if ord == "nuc":
        norm = xp.sum(xp.linalg.svdvals(x), axis=-1)
    else:
        if abs(ord) == 2:
            sizes = xp.linalg.svdvals(x)
        else:
            sizes = xp.sum(xp.abs(x), axis=-2 if abs(ord) == 1 else -1)
        norm = (xp.max if ord > 0 else xp.min)(sizes, axis=-1)
    return _scalars(norm) if keepdims else norm


@function(compute=lambda xp, x, rtol=None: xp.linalg.matrix_rank(x, rtol=rtol), extension="linalg")
def matrix_rank(call: Any, x: Any, /, *, rtol: Any = None) -> Any:
    return call(x) if rtol is None else call(x, rtol)
