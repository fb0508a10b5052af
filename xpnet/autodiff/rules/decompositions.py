"""Inverses, determinants and factorizations of matrices, or of stacks of them on the leading axes.

The rules are those of M. B. Giles, An extended collection of matrix derivative results for forward and
reverse mode automatic differentiation, 2008, with adjoints in place of transposes for complex matrices.

Where vectors are not differentiable (those of equal eigenvalues or singular values), the gradient has
infinite or NaN elements, and large ones near such a point, but for functions that do not use the values and
stay the same where the vectors are turned. Eigenvalues and singular values alone keep finite gradients there.
The gradients of `slogdet` and `qr` need a matrix of full rank (in `qr` of a wide one, its first columns): of
others, a library raises its own error or returns infinite or NaN elements.
"""

import math
from collections.abc import Callable
from functools import wraps
from typing import Any

import array_api_compat

from xpnet.autodiff.primitive import composite, function
from xpnet.autodiff.rules.elementwise import conj
from xpnet.autodiff.rules.kinks import nan_where, subgradient
from xpnet.autodiff.tracer import Tracer
from xpnet.errors import NotRecordableError


def adjoint_rule(rule: Callable) -> Callable:
    """Let a rule be written with gradients that are not conjugated, as in the literature.

    `xpnet.autodiff.backward` says why they are in the sweep.
    """

    @wraps(rule)
    def conjugated(xp: Any, g: Any, *arguments: Any, **parameters: Any) -> Any:
        each = g if isinstance(g, list) else [g]
        each = [None if one is None else conj(xp, one) for one in each]
        g = each if isinstance(g, list) else each[0]
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
    """Return det(x) inv(x), also where x has no inverse.

    With the singular vectors u and v of the smallest singular values, b = x + t u vᴴ has an inverse. This is
    the derivative of det(x) = det(b) det(k) with k = 1 - t vᴴ inv(b) u, the lemma of the determinant. It
    holds for any u, v and t, so they are constants in gradients of gradients. A t of good size is the
    smallest of the other singular values.
    """
    u, s, vh = xp.linalg.svd(_constant(xp, x))
    number = int(xp.max(xp.count_nonzero(s <= 1000 * xp.finfo(s.dtype).eps * s[..., :1], axis=-1)))
    number = max(number, 1)
    t = s[..., max(x.shape[-1] - number - 1, 0)]
    t = xp.astype(xp.where(t == 0, xp.ones_like(t), t), x.dtype)
    u, vh = _scalars(t) * u[..., :, -number:], vh[..., -number:, :]
    b = x + u @ vh
    inverse = xp.linalg.inv(b)
    det_k, adjugate_k = _by_products(xp, _eye(xp, x, number) - vh @ inverse @ u)
    result = _scalars(det_k) * inverse + inverse @ u @ adjugate_k @ vh @ inverse
    return _scalars(xp.linalg.det(b)) * result


def _by_products(xp: Any, x: Any) -> tuple[Any, Any]:
    """Return the determinant and the adjugate, det(x) inv(x), of small matrices, whatever their rank.

    By the recurrence of Faddeev and LeVerrier for the coefficients of the characteristic polynomial.
    """
    size = x.shape[-1]
    adjugate = xp.zeros_like(x) + _eye(xp, x, size)
    for k in range(1, size):
        adjugate = x @ adjugate
        adjugate = adjugate - _scalars(xp.linalg.trace(adjugate)) / k * _eye(xp, x, size)
    sign = (-1) ** (size - 1)
    return sign * xp.linalg.trace(x @ adjugate) / size, sign * adjugate


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
        if gq is not None:
            raise NotImplementedError(
                'qr with mode="complete" of a matrix with more rows than columns has no gradient of Q, as '
                f'its last columns can be chosen freely; received {rows} x {columns}. Use mode="reduced".'
            )
        q, r, gr = q[..., :columns], r[..., :columns, :], gr[..., :columns, :]
    gq = xp.zeros_like(q) if gq is None else gq
    gr = xp.zeros_like(r) if gr is None else gr
    if rows >= columns:
        return _qr_square(xp, gq, gr, q, r)
    # Of a wide matrix [A B] = Q [R S], Q comes from A alone, and S = Qᴴ B.
    b, gs = x[..., rows:], gr[..., rows:]
    ga = _qr_square(xp, gq + b @ _H(xp, gs), gr[..., :rows], q, r[..., :rows])
    return xp.concat([ga, q @ gs], axis=-1)


@function(_qr, extension="linalg", several=True, none_if_unused=True)
def qr(call: Any, x: Any, /, *, mode: str = "reduced") -> Any:
    return call(x, mode=mode)


# Vectors of equal values are free up to a rotation, so they have no derivative, but a function that no
# rotation changes has one. If it does not use the values, as `u @ vh`, the gradient of the rotation is 0 but
# for rounding, and 0 is right. If it does, as `(u * s) @ vh`, that gradient has the difference of the values
# as a factor and is divided by it. What remains is unknown where the difference is 0, so it is NaN.


def _pairs(xp: Any, values: Any, scale: Any) -> tuple[Any, Any]:
    """Return the differences of all values, 1 on the diagonal, and which two are equal but for rounding."""
    differences = values[..., None, :] - values[..., :, None]
    diagonal = xp.eye(values.shape[-1], dtype=values.dtype, device=values.device)
    equal = (xp.abs(differences) <= _rounding(xp, values) * scale) & (diagonal == 0)
    return differences + diagonal, equal


def _rounding(xp: Any, x: Any) -> Any:
    """Return how far values may be apart that are equal but for rounding, beside a size of 1."""
    return 20 * xp.finfo(x.dtype).eps


def _largest(xp: Any, x: Any, axis: Any = -1) -> Any:
    sizes = xp.abs(_constant(xp, x))
    return sizes if 0 in x.shape else xp.max(sizes, axis=axis, keepdims=True)


def _constant(xp: Any, x: Any) -> Any:
    return xp.lift(x.value) if isinstance(x, Tracer) else x


def _divide(xp: Any, x1: Any, x2: Any, undefined: Any, *needed: Any) -> Any:
    """Return the quotient; where it is undefined, 0 if all that is needed there is 0, else NaN.

    What is needed is linear in the gradients that arrive, so that it tells their changes, too.
    """
    quotient = xp.where(undefined, 0.0, x1) / xp.where(undefined, 1.0, x2)
    for each in needed:
        quotient = quotient + nan_where(xp, undefined, each)
    return quotient


def _without_rounding(xp: Any, x: Any, sizes: Any) -> Any:
    """Put 0 in the place of what is rounding error, beside other elements of a matrix."""
    small, fixed = _rounding(xp, sizes) * _largest(xp, sizes, axis=(-2, -1)), _constant(xp, x)
    return x - xp.where(xp.abs(fixed) <= small, fixed, 0.0)


def _of_pairs(xp: Any, of_values: Any, *of_vectors: Any) -> list[Any]:
    """Return what is 0 where the function uses neither of two vectors, and their values alike."""
    transposed = [xp.matrix_transpose(each) for each in of_vectors]
    return [*of_vectors, *transposed, of_values[..., None, :] - of_values[..., :, None]]


def _of_values(xp: Any, g: Any, like: Any, values: Any, undefined: Any) -> Any:
    """Return the gradient of values as the diagonal of a matrix, or as 0 where ``like`` is 0.

    It says nothing of how the vectors turn, so it has no derivative itself where this counts, which is where
    values are equal. A constant one needs none.
    """

    def kink() -> tuple[Any, Any]:
        return undefined, values if g.node is not None else _constant(xp, values)

    return subgradient(xp, xp.astype(g, like.dtype)[..., None, :], like, kink)


def _phases(xp: Any, turned: Any, sizes: Any) -> Any:
    """Return a diagonal matrix, NaN where the phase of a vector counts, which can be chosen freely."""
    phases = xp.imag(turned) * xp.real(_eye(xp, turned, turned.shape[-1]))
    counts = xp.abs(phases) > math.sqrt(xp.finfo(sizes.dtype).eps) * _largest(xp, sizes, axis=(-2, -1))
    return nan_where(xp, counts, phases)


@adjoint_rule
def _eigh(xp: Any, g: Any, y: Any, _x: Any) -> Any:
    (gw, gv), (w, v) = g, y
    differences, equal = _pairs(xp, w, _largest(xp, w)[..., None])
    inner = 0.0 if gw is None else _of_values(xp, gw, _eye(xp, v, v.shape[-1]), differences, equal)
    if gv is not None:
        turned = _H(xp, v) @ gv
        rotation, sizes = 0.5 * (turned - _H(xp, turned)), xp.abs(_constant(xp, turned))
        needed = [_without_rounding(xp, rotation, sizes)] if gw is None else _of_pairs(xp, gw, turned)
        rotation = rotation * (1 - _eye(xp, v, v.shape[-1]))
        inner = inner + _divide(xp, rotation, xp.astype(differences, v.dtype), equal, *needed)
        if xp.isdtype(v.dtype, "complex floating"):
            inner = inner + _phases(xp, turned, sizes)
    return _symmetric(xp, v @ inner @ _H(xp, v))


def _symmetric(xp: Any, g: Any) -> Any:
    """Share the gradient between both triangles, of which the function reads but one."""
    return 0.5 * (g + _H(xp, g))


@function(_eigh, extension="linalg", several=True, none_if_unused=True)
def eigh(call: Any, x: Any, /) -> Any:
    return call(x)


@composite(extension="linalg")
def eigvalsh(xp: Any, x: Any, /) -> Any:
    return xp.linalg.eigh(x)[0]  # with the vectors, which its gradient needs


@adjoint_rule
def _svd(xp: Any, g: Any, y: Any, _x: Any, *, full_matrices: bool) -> Any:
    (gu, gs, gvh), (u, s, vh) = g, y
    rows, columns = _x.shape[-2:]
    if full_matrices and rows != columns:
        if gu is not None or gvh is not None:
            raise NotImplementedError(
                "svd with full_matrices=True of a matrix that is not square has no gradient of U and V, as "
                f"the last columns of one can be chosen freely; received {rows} x {columns}. Use "
                "full_matrices=False."
            )
        u, vh = u[..., : s.shape[-1]], vh[..., : s.shape[-1], :]
    is_complex = xp.isdtype(u.dtype, "complex floating")
    v, eye = _H(xp, vh), _eye(xp, u, s.shape[-1])
    sums = s[..., None, :] + s[..., :, None]
    differences, equal = _pairs(xp, s, sums)
    zero = (s == 0)[..., None, :]
    both_zero = zero & xp.matrix_transpose(zero)
    if not is_complex:  # a real vector has no phase: what would turn it against itself is 0
        both_zero, sums = both_zero & (eye == 0), sums + eye
    if gu is None and gvh is None:
        inner = _of_values(xp, gs, eye, differences, equal | both_zero if is_complex else equal)
        outside_u, outside_v = [_of_values(xp, gs, 0.0 * w, s[..., None, :], zero) for w in (u, v)]
    else:
        gu = xp.zeros_like(u) if gu is None else gu
        gv = xp.zeros_like(v) if gvh is None else _H(xp, gvh)
        ug, vg = _H(xp, u) @ gu, _H(xp, v) @ gv
        of_u, of_v = ug - _H(xp, ug), vg - _H(xp, vg)
        sizes = xp.abs(_constant(xp, ug)) + xp.abs(_constant(xp, vg))
        # What turns u and v together, and against each other. The two parts of a complex diagonal are phases.
        together, against = 0.5 * (of_u + of_v), 0.5 * (of_u - of_v)
        needed = [_without_rounding(xp, together, sizes)] if gs is None else _of_pairs(xp, gs, ug, vg)
        inner = _divide(xp, together * (1 - eye), xp.astype(differences, u.dtype), equal, *needed)
        inner = inner + _phases(xp, ug + vg, sizes) if is_complex else inner
        gs = xp.zeros_like(s) if gs is None else gs
        # Of a function of zeros and their vectors, no more than the derivative by the zeros is seen.
        seen, s_columns = gs[..., None, :], xp.astype(s, u.dtype)[..., None, :]
        inner = inner + _divide(xp, against, xp.astype(sums, u.dtype), both_zero, against, seen)
        inner = inner + eye * xp.astype(gs, u.dtype)[..., None, :]
        outside_u, outside_v = gu - u @ ug, gv - v @ vg
        outside_u = _divide(xp, outside_u, s_columns, zero, outside_u, seen)
        outside_v = _divide(xp, outside_v, s_columns, zero, outside_v, seen)
    result = u @ inner @ vh
    result = result + outside_u @ vh if rows > columns else result
    return result + u @ _H(xp, outside_v) if columns > rows else result


@function(_svd, extension="linalg", several=True, none_if_unused=True)
def svd(call: Any, x: Any, /, *, full_matrices: bool = True) -> Any:
    return call(x, full_matrices=full_matrices)


@composite(extension="linalg")
def svdvals(xp: Any, x: Any, /) -> Any:
    return xp.linalg.svd(x, full_matrices=False)[1]  # with the vectors, which its gradient needs


@adjoint_rule
def _eig(xp: Any, g: Any, y: Any, _x: Any) -> Any:
    (gw, gv), (w, v) = g, y
    eye = _eye(xp, v, v.shape[-1])
    differences, equal = _pairs(xp, w, _largest(xp, w)[..., None])
    inner = 0.0 if gw is None else _of_values(xp, gw, eye, differences, equal)
    if gv is not None:
        projected = _H(xp, v) @ gv
        # The eigenvectors have length 1, so what would change their length is left out.
        lengths = xp.real(xp.linalg.diagonal(projected))[..., None, :]
        turned = projected - (_H(xp, v) @ v) * xp.astype(lengths, v.dtype)
        sizes = xp.abs(_constant(xp, projected))
        # Beside values, even 0 tells nothing: in (v * w) @ inv(v), what v and its inverse give cancels out.
        needed = _without_rounding(xp, turned, sizes) if gw is None else 1.0 + 0.0 * projected
        inner = inner + _divide(xp, turned * (1 - eye), xp.conj(differences), equal, needed)
        inner = inner + _phases(xp, projected, sizes)
    # A defective matrix has fewer eigenvectors than columns.
    sizes = xp.linalg.svdvals(_constant(xp, v))[..., None, :]
    defective = xp.any(sizes <= v.shape[-1] * _rounding(xp, sizes), axis=-1, keepdims=True)
    left = _H(xp, xp.where(defective, eye, v))
    return xp.linalg.solve(left, inner @ left) * xp.where(defective, math.nan, xp.ones_like(sizes[..., :1]))


@function(_eig, extension="linalg", several=True, none_if_unused=True)
def eig(call: Any, x: Any, /) -> Any:
    return call(x)


@composite(extension="linalg")
def eigvals(xp: Any, x: Any, /) -> Any:
    return xp.linalg.eig(x)[0]  # with the vectors, which its gradient needs


@function(compute=lambda xp, x, rtol=None: xp.linalg.matrix_rank(x, rtol=rtol), extension="linalg")
def matrix_rank(call: Any, x: Any, /, *, rtol: Any = None) -> Any:
    return call(x) if rtol is None else call(x, rtol)
