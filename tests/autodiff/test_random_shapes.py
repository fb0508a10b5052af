"""Each rule at random shapes, against the gradients of PyTorch, or of JAX for what PyTorch lacks.

Where the rules' own cases name a few shapes, here hypothesis draws them. To add a function, add a line to the
table: a call, and what shapes its arrays have. Everything else that is random, axes say, the call takes from
its `Choices`.
"""

import functools
import math
from collections.abc import Callable
from typing import Any

import numpy
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, mutually_broadcastable_shapes

from autodiff.cases import as_list, complexes, named, signed, uniform
from autodiff.peers import PEERS, Choices, as_constant, assigned, gradients, installed, special
from autodiff.rules.test_decompositions import (
    adjoint,
    complex_matrices,
    eigen,
    matrices,
    singular,
    spectrum,
)
from autodiff.rules.test_elementwise import above_one, inside, positive
from autodiff.rules.test_fft import NORMS
from autodiff.rules.test_linalg import MATRIX_ORDERS
from autodiff.test_every_rule import ELSEWHERE, WITH_RULES
from xpnet.autodiff.primitive import COMPOSITES

if not installed():
    pytest.skip("the gradients are compared with those of PyTorch or JAX", allow_module_level=True)

EXAMPLES = {"torch": 10, "jax": 3}  # shapes for each line of the table; JAX compiles for each
# Relative to the largest element. The matrices are well conditioned, so rounding stays far below, and a wrong
# rule far above.
TOLERANCE = numpy.finfo(float).eps ** (2 / 3)
BOTH = (signed, complexes)
BOTH_MATRICES = (matrices, complex_matrices)


def shapes(least: int = 0, most: int = 3, *, side: int = 0) -> st.SearchStrategy:
    """One array with so many axes, none shorter than ``side``."""
    return array_shapes(min_dims=least, max_dims=most, min_side=side, max_side=4).map(lambda shape: [shape])


def several(signature: str = "(),()->()", side: int = 1) -> st.SearchStrategy:
    """The arrays of a generalized ufunc, with a signature as that of `numpy.matmul`, and random batches."""
    return mutually_broadcastable_shapes(signature=signature, min_side=side, max_side=3, max_dims=2).map(
        lambda drawn: list(drawn.input_shapes)
    )


def vectors(number: int) -> st.SearchStrategy:
    """So many vectors, of lengths of their own."""
    return st.lists(st.tuples(st.integers(1, 3)), min_size=number, max_size=number)


class Check:
    """A call at random shapes.

    Parameters
    ----------
    call : callable
        ``call(xp, choices, *arrays)``, which returns an array or a sequence of arrays.
    shapes : strategy
        Draws the shapes of the arrays.
    *draws : callable
        ``draw(*shape)(random)`` makes the numbers of each array, the last one of all that follow.
    peer : str
        The system to compare with.
    """

    def __init__(self, call: Callable, shapes: Any, *draws: Callable, peer: str = "torch") -> None:
        self.call = call
        self.shapes = shapes
        self.draws = draws or (signed,)
        self.peer = peer

    def run(self, seed: int, shapes: list[tuple[int, ...]]) -> None:
        random = numpy.random.default_rng(seed)
        draws = [*self.draws, *self.draws[-1:] * len(shapes)]
        arrays = [numpy.asarray(draw(*shape)(random)) for shape, draw in zip(shapes, draws, strict=False)]
        f = functools.partial(self.scalar, seed)
        for order in (1, 2):
            received = gradients(f, arrays, order)
            expected = PEERS[self.peer](f, arrays, order)
            for g, right in zip(received, expected, strict=True):
                assert g.shape == right.shape
                assert g.dtype == right.dtype
                scale = max(1.0, numpy.max(numpy.abs(right), initial=0.0))
                numpy.testing.assert_allclose(g, right, rtol=0, atol=TOLERANCE * scale)

    def scalar(self, seed: int, xp: Any, *arrays: Any) -> Any:
        """The sum of the results with random weights."""
        choices = Choices(seed)
        results = as_list(self.call(xp, choices, *arrays))
        total = 0.0
        for y in results:
            kind = "complex128" if xp.isdtype(y.dtype, "complex floating") else "float64"
            weighted = xp.sum(y * choices.numbers(xp, y.shape, kind))
            total = total + (xp.real(weighted) if kind == "complex128" else weighted)
        return total


def each(names: str, make: Callable, *arguments: Any, **options: Any) -> dict[str, list[Check]]:
    """Return lines of the table, made from the names of functions without those of their extensions."""
    return {name: make(name.rpartition(".")[2], *arguments, **options) for name in names.split()}


def unary(name: str, draw: Callable = signed, complex: bool = True) -> list[Check]:
    """An elementwise function of real numbers, and of complex ones."""

    def call(xp: Any, _choices: Choices, x: Any) -> Any:
        return getattr(xp, name)(x)

    return [Check(call, shapes(), draw), *([Check(call, shapes(), complexes)] if complex else [])]


def binary(name: str, draw: Callable = signed, complex: bool = False) -> list[Check]:
    """An elementwise function of two arrays that are broadcast together."""

    def call(xp: Any, _choices: Choices, x1: Any, x2: Any) -> Any:
        return getattr(xp, name)(x1, x2)

    both = [(draw,), *([(complexes,), (draw, complexes)] if complex else [])]
    return [Check(call, several(side=0), *draws) for draws in both]


def reduction(name: str, draws: tuple = (signed,), side: int = 0, **options: Any) -> list[Check]:
    def call(xp: Any, c: Choices, x: Any) -> Any:
        return getattr(xp, name)(x, axis=c.axes(x), keepdims=c.chance(), **options)

    return [Check(call, shapes(side=side), draw) for draw in draws]


def cumulative(name: str) -> list[Check]:
    def call(xp: Any, c: Choices, x: Any) -> Any:
        return getattr(xp, name)(x, axis=c.axis(x), include_initial=c.chance())

    return [Check(call, shapes(1))]


def transform(name: str, draw: Callable) -> list[Check]:
    """A Fourier transform along one axis, which is cut off, kept or padded."""

    def call(xp: Any, c: Choices, x: Any) -> Any:
        options = {"n": c.one_of([None, 2, 3, 5, 6]), "axis": c.axis(x), "norm": c.one_of(NORMS)}
        return getattr(xp.fft, name)(x, **options)

    return [Check(call, shapes(1, side=2), draw)]


def transforms(name: str, draw: Callable) -> list[Check]:
    """A Fourier transform along several axes, in any order."""

    def call(xp: Any, c: Choices, x: Any) -> Any:
        axes = tuple(c.permutation(len(x.shape))[: c.integer(1, len(x.shape))])
        s = c.one_of([None, tuple(c.integer(2, 5) for _ in axes)])
        return getattr(xp.fft, name)(x, s=s, axes=axes, norm=c.one_of(NORMS))

    return [Check(call, shapes(1, side=2), draw)]


def special_unary(name: str, low: float, high: float, peer: str = "torch") -> list[Check]:
    def call(xp: Any, _choices: Choices, x: Any) -> Any:
        return getattr(special(xp), name)(x)

    return [Check(call, shapes(), functools.partial(uniform, low, high), peer=peer)]


def special_binary(name: str, peer: str = "torch") -> list[Check]:
    def call(xp: Any, _choices: Choices, x1: Any, x2: Any) -> Any:
        return getattr(special(xp), name)(x1, x2)

    return [Check(call, several(), positive, peer=peer)]


def special_behind(name: str, before: tuple, low: float, high: float, peer: str) -> list[Check]:
    """A function of numbers and one array."""

    def call(xp: Any, _choices: Choices, x: Any) -> Any:
        functions = special(xp)
        return getattr(functions, name)(*[as_constant(xp, numpy.asarray(a)) for a in before], x)

    return [Check(call, shapes(), functools.partial(uniform, low, high), peer=peer)]


def special_along_axes(name: str) -> list[Check]:
    def call(xp: Any, c: Choices, x: Any) -> Any:
        return getattr(special(xp), name)(x, axis=c.axes(x))

    return [Check(call, shapes(side=1), peer="jax")]


def square(function: Callable) -> list[Check]:
    """A function of square matrices, real and complex."""
    return [Check(lambda xp, _c, x: function(xp, x), several("(n,n)->()"), draw) for draw in BOTH_MATRICES]


def oblong(function: Callable) -> list[Check]:
    """A function of matrices with any numbers of rows and columns, real and complex."""
    return [Check(lambda xp, _c, x: function(xp, x), several("(m,n)->()"), draw) for draw in BOTH_MATRICES]


def tall(xp: Any, x: Any) -> Any:
    """PyTorch has no gradient of the factors of a wide matrix."""
    return x if x.shape[-2] >= x.shape[-1] else xp.matrix_transpose(x)


def tensordot(xp: Any, c: Choices, x1: Any, x2: Any) -> Any:
    """Sum over as many axes as there are, or fewer, in any order."""
    x2 = xp.permute_dims(x2, order := c.permutation(len(x2.shape)))
    number = c.integer(0, len(order))
    return xp.tensordot(x1, x2, axes=(order[:number], list(range(number))))


def getitem(xp: Any, c: Choices, x: Any) -> Any:
    return x[c.key(x)]


def at_integer_arrays(xp: Any, c: Choices, x: Any) -> Any:
    return x[c.indices(xp, (2, 1), x.shape[0]), c.indices(xp, (3,), x.shape[1])]


def setitem(xp: Any, c: Choices, x: Any) -> Any:
    """Assign a part of the array, multiplied, to the same part."""
    key = tuple(k for k in c.key(x) if k is not None)
    return assigned(x, key, 3 * x[key] ** 2)


def setitem_at_a_mask(xp: Any, c: Choices, x: Any, value: Any) -> Any:
    return assigned(x, c.mask(xp, x.shape), value) * x


def setitem_at_integers(xp: Any, c: Choices, x: Any, value: Any) -> Any:
    """No place is named twice: which of two values would stay is not defined."""
    places = c.permutation(x.shape[0])[: c.integer(1, x.shape[0])]
    return assigned(x, as_constant(xp, numpy.asarray(places)), value) * x


def take(xp: Any, c: Choices, x: Any) -> Any:
    axis = c.axis(x)
    return xp.take(x, c.indices(xp, (c.integer(0, 4),), x.shape[axis]), axis=axis)


def take_along_axis(xp: Any, c: Choices, x: Any) -> Any:
    axis = c.axis(x)
    shape = [*x.shape]
    shape[axis] = c.integer(1, 4)
    return xp.take_along_axis(x, c.indices(xp, shape, x.shape[axis]), axis=axis)


def sort(xp: Any, c: Choices, x: Any) -> Any:
    return xp.sort(x, axis=c.axis(x), descending=c.chance()) ** 2


def expand_dims(xp: Any, c: Choices, x: Any) -> Any:
    return xp.expand_dims(x, axis=c.axis(x, more=1))


def squeeze(xp: Any, c: Choices, x: Any) -> Any:
    ones = [axis - len(x.shape) * c.chance() for axis, size in enumerate(x.shape) if size == 1]
    return xp.squeeze(x, axis=tuple(ones[: c.integer(0, len(ones))]))


def moveaxis(xp: Any, c: Choices, x: Any) -> Any:
    ndim = len(x.shape)
    number = c.integer(0, ndim)
    return xp.moveaxis(x, tuple(c.permutation(ndim)[:number]), tuple(c.permutation(ndim)[:number]))


def roll(xp: Any, c: Choices, x: Any) -> Any:
    axes = tuple(c.permutation(len(x.shape)))
    options = [
        (c.integer(-5, 5), None),
        (c.integer(-5, 5), c.axis(x)),
        (tuple(c.permutation(len(axes))), axes),
    ]
    shift, axis = c.one_of(options)
    return xp.roll(x, shift, axis=axis)


def concat(xp: Any, c: Choices, x: Any, y: Any) -> Any:
    x, y = xp.broadcast_arrays(x, y)
    axis = c.one_of([None, c.axis(x)])
    return xp.concat([x, y[:0, ...], x * y] if axis == 0 else [x, y, x * y], axis=axis)


def stack(xp: Any, c: Choices, x: Any, y: Any) -> Any:
    x, y = xp.broadcast_arrays(x, y)
    return xp.stack([x, y, x * y], axis=c.axis(x, more=1))


def broadcast_to(xp: Any, c: Choices, x: Any) -> Any:
    stretched = tuple(c.integer(0, 3) if size == 1 and c.chance() else size for size in x.shape)
    return xp.broadcast_to(x, tuple(c.integer(1, 2) for _ in range(c.integer(0, 2))) + stretched)


def tile(xp: Any, c: Choices, x: Any) -> Any:
    return xp.tile(x, tuple(c.integer(0, 3) for _ in range(c.integer(1, len(x.shape) + 1))))


def repeat(xp: Any, c: Choices, x: Any) -> Any:
    axis = c.axis(x)
    counts = as_constant(xp, c.random.integers(0, 3, size=x.shape[axis]))
    return xp.repeat(x, c.one_of([c.integer(0, 3), counts]), axis=axis)


def diff(xp: Any, c: Choices, x: Any) -> Any:
    return xp.diff(x, axis=c.axis(x), n=c.integer(0, 2), prepend=c.one_of([None, x * x]))


def diagonal(xp: Any, c: Choices, x: Any) -> Any:
    rows, columns = x.shape[-2:]
    return xp.linalg.diagonal(x, offset=c.integer(1 - rows, columns - 1))


def trace(xp: Any, c: Choices, x: Any) -> Any:
    rows, columns = x.shape[-2:]
    return xp.linalg.trace(x, offset=c.integer(1 - rows, columns - 1))


def vector_norm(xp: Any, c: Choices, x: Any) -> Any:
    order = c.one_of([1, 2, 3, 2.5, math.inf, -math.inf, -1])
    return xp.linalg.vector_norm(x, axis=c.axes(x), keepdims=c.chance(), ord=order)


def matrix_norm(xp: Any, c: Choices, x: Any) -> Any:
    return xp.linalg.matrix_norm(x, keepdims=c.chance(), ord=c.one_of(MATRIX_ORDERS))


def clip(xp: Any, c: Choices, x: Any, low: Any, high: Any) -> Any:
    """PyTorch has no gradient where a bound has more axes than x."""
    x = xp.broadcast_arrays(x, low, high)[0]
    return xp.clip(x, *c.one_of([(-0.7, 0.9), (0.6, None), (None, 0.6), (low - 1.5, high + 0.6)]))


TABLE: dict[str, list[Check]] = {
    # elementwise
    **each("add subtract multiply divide", binary, complex=True),
    **each("remainder logaddexp atan2 hypot copysign maximum minimum", binary),
    "pow": binary("pow", positive, complex=True),
    **each("negative positive square exp expm1 sin cos", unary),
    **each("sinh cosh tanh atan asinh abs sign conj", unary),
    **each("reciprocal sqrt log log1p log2 log10", unary, positive),
    **each("tan asin acos atanh", unary, inside),
    "acosh": unary("acosh", above_one),
    "real": unary("real")[1:],
    "imag": unary("imag")[1:],
    "clip": [Check(clip, several("(),(),()->()"))],
    "where": [Check(lambda xp, c, x, y: xp.where(c.mask(xp, x.shape), x, y), several(side=0))],
    # reductions
    **each("sum prod", reduction),
    **each("max min", reduction, side=1),
    "mean": reduction("mean", BOTH, side=1),
    "var": [*reduction("var", BOTH, side=1), *reduction("var", BOTH, side=2, correction=0.5)],
    "std": [
        Check(lambda xp, c, x: xp.std(x, axis=c.axis(x), correction=c.integer(0, 1)), shapes(1, side=2), draw)
        for draw in BOTH
    ],
    "cumulative_sum": cumulative("cumulative_sum"),
    "cumulative_prod": cumulative("cumulative_prod"),
    # manipulation
    "reshape": [Check(lambda xp, _c, x: xp.reshape(x, (*x.shape[2:], -1)), shapes(side=1))],
    "permute_dims": [
        Check(lambda xp, c, x: xp.permute_dims(x, tuple(c.permutation(len(x.shape)))), shapes())
    ],
    "matrix_transpose": [Check(lambda xp, _c, x: xp.matrix_transpose(x), shapes(2))],
    "moveaxis": [Check(moveaxis, shapes())],
    "squeeze": [Check(squeeze, shapes())],
    "expand_dims": [Check(expand_dims, shapes())],
    "flip": [Check(lambda xp, c, x: xp.flip(x, axis=c.axes(x)), shapes())],
    "roll": [Check(roll, shapes(1))],
    "tril": [Check(lambda xp, c, x: xp.tril(x, k=c.integer(-3, 3)), shapes(2))],
    "triu": [Check(lambda xp, c, x: xp.triu(x, k=c.integer(-3, 3)), shapes(2))],
    "broadcast_to": [Check(broadcast_to, shapes())],
    "broadcast_arrays": [
        Check(lambda xp, _c, *arrays: xp.broadcast_arrays(*arrays), several("(),(),()->()"))
    ],
    "meshgrid": [
        Check(lambda xp, c, *arrays: xp.meshgrid(*arrays, indexing=c.one_of(["xy", "ij"])), vectors(3))
    ],
    "concat": [Check(concat, several("(n),(n)->()"))],
    "stack": [Check(stack, several(side=0))],
    "unstack": [Check(lambda xp, c, x: xp.unstack(x, axis=c.axis(x)), shapes(1, side=1))],
    "tile": [Check(tile, shapes())],
    "repeat": [Check(repeat, shapes(1))],
    "diff": [Check(diff, shapes(1, side=2))],
    "astype": [Check(lambda xp, _c, x: xp.astype(xp.astype(x, xp.complex128), xp.complex128) ** 2, shapes())],
    # creation
    "asarray": [Check(lambda xp, _c, x: xp.asarray([x, 2.0 * x, 1.0]), shapes(0, 0), peer="jax")],
    "linspace": [
        Check(
            lambda xp, c, a, b: xp.linspace(a, b, c.integer(2, 5)) ** 2,
            shapes(0, 0).map(lambda s: s * 2),
            peer="jax",
        )
    ],
    "full": [Check(lambda xp, c, x: xp.full((2, c.integer(1, 3)), x), shapes(0, 0), peer="jax")],
    "full_like": [Check(lambda xp, _c, x: xp.full_like(x, x[-1]) * x, shapes(1, 1, side=1), peer="jax")],
    # indexing and sorting
    "getitem": [
        *(Check(getitem, shapes(1, 4, side=1), draw) for draw in (signed, complexes)),
        Check(at_integer_arrays, shapes(2, 4, side=1)),
        Check(lambda xp, c, x: x[c.mask(xp, x.shape)], shapes(1)),
        Check(lambda xp, c, x: x[c.mask(xp, x.shape[:1])] ** 2, shapes(1)),
    ],
    "setitem": [
        Check(setitem, shapes(1, 4, side=1)),
        Check(setitem_at_a_mask, shapes(1).map(lambda drawn: [*drawn, ()])),
        Check(setitem_at_integers, shapes(1, side=1).map(lambda drawn: [*drawn, drawn[0][1:]])),
    ],
    "take": [Check(take, shapes(1, side=1))],
    "take_along_axis": [Check(take_along_axis, shapes(1, side=1))],
    "sort": [Check(sort, shapes(1))],
    # products
    "matmul": [Check(lambda xp, _c, a, b: a @ b, several("(m?,n),(n,p?)->(m?,p?)"), d) for d in BOTH],
    "vecdot": [Check(lambda xp, _c, a, b: xp.vecdot(a, b), several("(n),(n)->()"), draw) for draw in BOTH],
    "tensordot": [Check(tensordot, shapes(1).map(lambda drawn: drawn * 2), draw) for draw in BOTH],
    "linalg.outer": [Check(lambda xp, _c, a, b: xp.linalg.outer(a, b), vectors(2), draw) for draw in BOTH],
    "linalg.cross": [
        Check(lambda xp, _c, a, b: xp.linalg.cross(a, b), several("(3),(3)->(3)"), draw) for draw in BOTH
    ],
    "convolve": [
        Check(
            lambda xp, c, a, v: xp.convolve(a, v, mode=c.one_of(["full", "same", "valid"])),
            vectors(2),
            draw,
            peer="jax",
        )
        for draw in BOTH
    ],
    # linear algebra
    "linalg.inv": square(lambda xp, x: xp.linalg.inv(x)),
    "linalg.det": square(lambda xp, x: xp.linalg.det(x)),
    "linalg.slogdet": square(lambda xp, x: tuple(xp.linalg.slogdet(x))),
    "linalg.solve": [
        Check(lambda xp, _c, a, b: xp.linalg.solve(a, b), several("(m,m),(m,n)->(m,n)"), *draws)
        for draws in [(matrices, signed), (complex_matrices, complexes)]
    ],
    "linalg.pinv": oblong(lambda xp, x: xp.linalg.pinv(x)),
    "linalg.matrix_power": [
        Check(lambda xp, c, x: xp.linalg.matrix_power(x, c.integer(-3, 4)), several("(n,n)->()"), draw)
        for draw in BOTH_MATRICES
    ],
    "linalg.cholesky": square(lambda xp, x: xp.linalg.cholesky(x @ adjoint(xp, x))),
    "linalg.qr": oblong(lambda xp, x: tuple(xp.linalg.qr(tall(xp, x)))),
    "linalg.eigh": square(spectrum),
    "linalg.eigvalsh": square(lambda xp, x: xp.linalg.eigvalsh(x + adjoint(xp, x))),
    "linalg.eig": square(eigen),
    "linalg.eigvals": square(lambda xp, x: xp.sum(xp.linalg.eigvals(x) ** 3, axis=-1)),
    "linalg.svd": oblong(singular),
    "linalg.svdvals": oblong(lambda xp, x: xp.linalg.svdvals(x)),
    "linalg.diagonal": [Check(diagonal, shapes(2, 4, side=1), draw) for draw in BOTH],
    "linalg.trace": [Check(trace, shapes(2, 4, side=1), draw) for draw in BOTH],
    "linalg.vector_norm": [Check(vector_norm, shapes(1, side=1), draw) for draw in BOTH],
    "linalg.matrix_norm": [Check(matrix_norm, several("(m,n)->()"), draw) for draw in BOTH_MATRICES],
    # Fourier transforms
    **each("fft.fft fft.ifft fft.irfft fft.hfft", transform, complexes),
    **each("fft.rfft fft.ihfft", transform, signed),
    **each("fft.fftn fft.ifftn fft.irfftn", transforms, complexes),
    "fft.rfftn": transforms("rfftn", signed),
    "fft.fftshift": [Check(lambda xp, c, x: xp.fft.fftshift(x, axes=c.axes(x)), shapes(1))],
    "fft.ifftshift": [Check(lambda xp, c, x: xp.fft.ifftshift(x, axes=c.axes(x)), shapes(1))],
    # special functions; gamma and its like with JAX, as the trigamma function of PyTorch is right to 9 digits
    **each("special.expit special.erf special.erfc special.ndtr", special_unary, -2, 2),
    **each("special.log_ndtr special.i0 special.i1", special_unary, -2, 2),
    **each("special.i0e special.i1e special.entr", special_unary, 0.5, 2),
    **each("special.logit special.erfinv special.ndtri", special_unary, 0.1, 0.9),
    **each("special.gamma special.gammaln special.digamma", special_unary, 0.5, 3, "jax"),
    "special.polygamma": [
        Check(lambda xp, c, x: special(xp).polygamma(c.integer(1, 3), x), shapes(), positive, peer="jax")
    ],
    **each("special.xlogy special.xlog1py", special_binary),
    **each("special.betaln special.rel_entr special.kl_div", special_binary, "jax"),
    **each("special.logsumexp special.softmax special.log_softmax", special_along_axes),
    **each("special.exp2 special.expm1 special.log1p special.sinc", special_unary, -0.9, 2),
    **each("special.erfcx", special_unary, -2, 2),
    **each("special.expi", special_unary, 0.5, 2, "jax"),
    **each("special.beta special.poch", special_binary, "jax"),
    **each("special.gammainc special.gammaincc", special_behind, (1.5,), 0.5, 3, "jax"),
    **each("special.betainc", special_behind, (1.5, 2.5), 0.2, 0.8, "jax"),
    **each("special.zeta", special_behind, (2.5,), 0.5, 3, "jax"),
    "special.multigammaln": [
        Check(lambda xp, c, a: special(xp).multigammaln(a + 2.0, 3), shapes(), positive, peer="jax")
    ],
}

ALONE_IN_SCIPY = [
    "bdtr", "bdtrc", "bdtri", "betaincc", "betainccinv", "betaincinv", "boxcox", "boxcox1p", "cbrt",
    "chdtr", "chdtrc", "chdtri", "erfcinv", "erfi", "exp1", "exp10", "fdtr", "fdtrc", "fdtri",
    "gammainccinv", "gammaincinv", "gdtr", "gdtrc", "huber", "inv_boxcox", "inv_boxcox1p", "j0", "j1", "k0",
    "k1", "kolmogi", "kolmogorov", "log_expit", "nbdtr", "nbdtrc", "nbdtri", "ndtri_exp", "pdtr", "pdtrc",
    "pdtri", "pseudo_huber", "psi", "rgamma", "stdtr", "stdtrit", "y0", "y1",
]  # fmt: skip
# What is not compared, and why.
EXCEPTIONS = {
    **dict.fromkeys(ELSEWHERE, "no function of the standard, but a part of the record itself"),
    "_astype": "what `astype` is made of",
    "logistic": "what the gradient of `logaddexp` is made of",
    "one_less_square": "what the gradients of `asin`, `acos` and `atanh` are made of",
    "p_norm": "what `vector_norm` is made of",
    **dict.fromkeys(["nan_where", "subgradient"], "what gradients of gradients are made of"),
    "scatter_add": "no function of the standard; the gradients of indexing are made of it",
    "sparse_matmul": "no function of the standard; compared with the dense product",
    **dict.fromkeys(["windows", "add_windows"], "no functions of the standard; compared as convolutions"),
    **dict.fromkeys(
        ["roots", "unique_all", "unique_counts", "unique_inverse", "unique_values"],
        "their shapes depend on values: PyTorch has no gradient, and JAX refuses to compile them",
    ),
    "nextafter": "has no gradient elsewhere",
    **{name: "no function of SciPy's, but what rules are made of" for name in WITH_RULES if "._" in name},
    **dict.fromkeys(
        [f"special.{name}" for name in ALONE_IN_SCIPY],
        "PyTorch and JAX lack it, or its gradient; compared with exact values and finite differences",
    ),
    "to_device": "needs several devices",
}


def test_every_function_with_a_gradient_is_in_the_table():
    assert set(WITH_RULES) | set(COMPOSITES) == set(TABLE) | set(EXCEPTIONS)


@pytest.mark.parametrize(**named(TABLE))
def test_gradients(case, pytestconfig):
    pytest.importorskip(case.peer)

    @settings(
        max_examples=pytestconfig.getoption("--examples") or EXAMPLES[case.peer],
        derandomize=True,  # the same examples in each run
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(st.integers(0, 2**32 - 1), case.shapes)
    def run(seed, shapes):
        case.run(seed, shapes)

    run()
