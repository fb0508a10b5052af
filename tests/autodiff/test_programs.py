"""Random programs have the gradients that PyTorch and JAX compute for them.

A program is named by its seed. It starts with a few arrays of random numbers, in each step applies a random
operation to arrays that it has and adds the result to them, and ends with a weighted sum of all. The choices
depend on shapes alone, so that a seed makes the same program with every library.

To add an operation, add a line to the table: a function of the `Program`, which takes from it the arrays that
it needs. Where a function has no derivative, at equal elements of `max` say, systems differ. Random numbers
move the arrays away from there (`Program.distinct`). Left out is `digamma`, whose derivative PyTorch computes
to 9 digits only.
"""

import functools
import importlib
import math
from collections.abc import Callable
from typing import Any

import numpy
import pytest

from autodiff.peers import PEERS, Choices, as_constant, assigned, gradients, installed, special

if not installed():
    pytest.skip("the gradients are compared with those of PyTorch or JAX", allow_module_level=True)

PROGRAMS = {"torch": 100, "jax": 10}  # JAX compiles each of them for a second
SHAPES = [(), (3,), (4, 1), (2, 3), (2, 2, 3)]
LARGEST = 48  # elements of an array, so that a program stays quick
NOISE = 1e-8  # small enough for a straight line, and large beside rounding


class Program(Choices):
    """A program while it runs.

    Parameters
    ----------
    seed : int
        Names the program.
    xp : namespace
        With which it computes.
    inputs : sequence of array
        Of the shapes in `SHAPES`.
    noise : float
        The relative size of random errors that are made in each step.
    """

    def __init__(self, seed: int, xp: Any, inputs: Any, noise: float = 0.0) -> None:
        super().__init__(seed)
        self.xp = xp
        self.pool = list(inputs)
        self.names: list[str] = []  # of the operations, for messages
        self._noise = noise
        self._errors = Choices(seed + 1)

    def run(self) -> Any:
        for _ in range(self.integer(5, 30)):
            name = self.one_of(list(OPERATIONS))
            self.names.append(name)
            self._add(OPERATIONS[name](self))
        xp = self.xp
        return sum(xp.sum(x * self.numbers(xp, x.shape)) for x in self.pool)

    def _add(self, x: Any) -> None:
        while math.prod(x.shape) > LARGEST or len(x.shape) > 4:
            x = self.xp.mean(x, axis=0)
        x = x / self.xp.sqrt(1 + x * x)  # between -1 and 1, and never flat
        if self._noise:
            x = x * (1 + self._noise * self._errors.numbers(self.xp, x.shape))
        self.pool.append(x)

    # -- arrays for an operation; all elements are between -1 and 1 ---------------------------------------

    def array(self, ndim: int = 0) -> Any:
        """Return an array with at least so many axes; those made last are more likely."""
        found = [x for x in self.pool if len(x.shape) >= ndim]
        return found[max(self.integer(0, len(found) - 1), self.integer(0, len(found) - 1))]

    def distinct(self, x: Any) -> Any:
        """Add random numbers, after which equal elements, and zeros, have the probability 0."""
        return x + self.numbers(self.xp, x.shape)

    def pair(self) -> tuple[Any, Any]:
        """Return two arrays that can be broadcast together, in either order."""
        x = self.array()
        pair = x, self.one_of([y for y in self.pool if _fit(x.shape, y.shape)])
        return pair if self.chance() else pair[::-1]

    def like(self, x: Any) -> Any:
        """Return an array of the shape of ``x``, perhaps ``x`` itself."""
        return self.one_of([y for y in self.pool if y.shape == x.shape])

    def shaped(self, *shape: int) -> Any:
        """Return an array of a given shape, made from the elements of another."""
        flat = self.xp.reshape(self.array(), (-1,))
        return self.xp.reshape(
            self.xp.take(flat, self.indices(self.xp, (math.prod(shape),), flat.shape[0]), axis=0), shape
        )

    def matrix(self, rows: int | None = None, columns: int | None = None) -> Any:
        """Return a matrix, or a stack, with singular values that are far from 0 and from each other.

        The diagonal is so large that the others hardly move its values.
        """
        size = self.integer(1, 3)
        rows, columns = rows or size, columns or size
        diagonal = numpy.eye(rows, columns) * numpy.linspace(2.0, 5.0, columns)
        stack = self.one_of([(), (), (2,)])
        off = self.shaped(*stack, rows, columns) + 0.5 * self.numbers(self.xp, (rows, columns))
        return as_constant(self.xp, diagonal) + 0.2 * off

    def complexes(self) -> Any:
        x, y = self.pair()
        return x + 1j * y


def _fit(first: tuple, second: tuple) -> bool:
    try:
        return math.prod(numpy.broadcast_shapes(first, second)) <= LARGEST
    except ValueError:
        return False


def _symmetric(xp: Any, x: Any) -> Any:
    return x + xp.matrix_transpose(x)


def _energy(xp: Any, x: Any) -> Any:
    return xp.real(x * xp.conj(x))


def each(names: str, operation: Callable, **options: Any) -> dict[str, Callable]:
    return {name: operation(name, **options) for name in names.split()}


def unary(name: str, scale: float = 1.0, shift: float = 0.0) -> Callable:
    """An elementwise function of ``scale * x + shift``, which brings x into the domain."""
    return lambda p: getattr(p.xp, name)(scale * p.array() + shift)


def binary(name: str, shift1: float = 0.0, shift2: float = 0.0, distinct: bool = False) -> Callable:
    def call(p: Program) -> Any:
        x1, x2 = p.pair()
        if distinct:
            x1, x2 = p.distinct(x1), p.distinct(x2)
        return getattr(p.xp, name)(x1 + shift1, x2 + shift2)

    return call


def reduction(name: str, distinct: bool = False, scale: float = 1.0, shift: float = 0.0) -> Callable:
    def call(p: Program) -> Any:
        x = p.array()
        x = p.distinct(x) if distinct else scale * x + shift
        return getattr(p.xp, name)(x, axis=p.axes(x), keepdims=p.chance())

    return call


def cumulative(name: str, scale: float = 1.0, shift: float = 0.0) -> Callable:
    def call(p: Program) -> Any:
        x = p.array(1)
        initial = p.chance()
        return getattr(p.xp, name)(scale * x + shift, axis=p.axis(x), include_initial=initial)

    return call


def special_unary(name: str, scale: float = 1.0, shift: float = 0.0) -> Callable:
    return lambda p: getattr(special(p.xp), name)(scale * p.array() + shift)


def std(p: Program) -> Any:
    x = p.distinct(p.array())
    x = p.xp.concat([p.xp.reshape(x, (-1,)), p.numbers(p.xp, (2,))])
    return p.xp.std(x, correction=p.one_of([0.0, 1.0]))


def expand_and_squeeze(p: Program) -> Any:
    x = p.array()
    x = p.xp.expand_dims(x, axis=p.axis(x, more=1))
    return p.xp.squeeze(x, axis=p.one_of([a for a, size in enumerate(x.shape) if size == 1]))


def broadcast_to(p: Program) -> Any:
    x, y = p.pair()
    return p.xp.broadcast_to(x, numpy.broadcast_shapes(x.shape, y.shape))


def concat(p: Program) -> Any:
    x = p.array(1)
    return p.xp.concat([x, p.like(x), x], axis=p.one_of([None, p.axis(x)]))


def tile(p: Program) -> Any:
    x = p.array()
    return p.xp.tile(x, tuple(p.integer(1, 2) for _ in range(p.integer(1, len(x.shape) + 1))))


def repeat(p: Program) -> Any:
    x = p.array(1)
    axis = p.axis(x)
    repeats = p.one_of([2, as_constant(p.xp, p.random.integers(1, 3, size=x.shape[axis]))])
    return p.xp.repeat(x, repeats, axis=axis)


def meshgrid(p: Program) -> Any:
    first, second = p.xp.meshgrid(p.shaped(2), p.shaped(3), indexing=p.one_of(["xy", "ij"]))
    return first * second


def take(p: Program) -> Any:
    x = p.array(1)
    axis = p.axis(x)
    return p.xp.take(x, p.indices(p.xp, (p.integer(1, 4),), x.shape[axis]), axis=axis)


def integer_arrays(p: Program) -> Any:
    x = p.array(2)
    keys = [p.indices(p.xp, shape, size) for shape, size in zip([(2, 1), (3,)], x.shape, strict=False)]
    return x[(*keys,)]


def argsort(p: Program) -> Any:
    x = p.array(1)
    axis = p.axis(x)
    order = p.xp.argsort(p.distinct(p.like(x)), axis=axis, descending=p.chance())
    return p.xp.take_along_axis(x, order, axis=axis)


def mask(p: Program) -> Any:
    x = p.array(1)
    chosen = p.random.random(size=tuple(x.shape)) < 0.6
    chosen[(0,) * chosen.ndim] = True  # something is left
    return x[as_constant(p.xp, chosen)]


def assign(p: Program) -> Any:
    x = p.array(1)
    key = tuple(k for k in p.key(x) if k is not None)
    shape = x[key].shape
    return assigned(x, key, p.shaped(*shape[p.integer(0, len(shape)) :]))


def assign_a_number(p: Program) -> Any:
    x = p.array(1)
    return assigned(x, p.mask(p.xp, x.shape), 0.5) * p.like(x)


def assign_at_integers(p: Program) -> Any:
    """No place is named twice: which of two values would stay is not defined."""
    x = p.array(1)
    places = as_constant(p.xp, p.random.permutation(x.shape[0])[: p.integer(1, 2)])
    return assigned(x, places, p.shaped(*x[places].shape))


def assign_own_parts(p: Program) -> Any:
    x = p.array(1)
    return assigned(x, 0, x[0, ...] * x[-1, ...])


def operators_in_place(p: Program) -> Any:
    """PyTorch cannot change what a gradient needs (x * x, say), so what came before is linear."""
    x = p.array() * 1
    before = 2 * x
    x += p.like(x)
    x *= 0.5
    return before - x


def sort(p: Program) -> Any:
    x = p.distinct(p.array(1))
    return p.xp.sort(x, axis=p.axis(x), descending=p.chance())


def matmul(p: Program) -> Any:
    inner, left, right = (p.integer(1, 3) for _ in range(3))
    x1 = p.shaped(*p.one_of([(inner,), (left, inner), (2, left, inner)]))
    return x1 @ p.shaped(*p.one_of([(inner,), (inner, right), (2, inner, right)]))


def vecdot(p: Program) -> Any:
    x = p.array(1)
    return p.xp.vecdot(x, p.like(x), axis=-p.integer(1, len(x.shape)))


def tensordot(p: Program) -> Any:
    x, number = p.array(1), p.integer(0, 1)
    axes = (p.permutation(len(x.shape))[:number], p.permutation(len(x.shape))[:number])
    if number:
        axes[1][:] = [a for a, size in enumerate(x.shape) if size == x.shape[axes[0][0]]][-1:]
    return p.xp.tensordot(x, p.like(x), axes=axes)


def cholesky(p: Program) -> Any:
    x = p.matrix()
    return p.xp.linalg.cholesky(x @ p.xp.matrix_transpose(x), upper=p.chance())


def qr(p: Program) -> Any:
    """Signs are free, squares are not."""
    q, r = p.xp.linalg.qr(p.matrix(p.integer(3, 4), p.integer(2, 3)))
    return p.xp.matmul(q * q, r * r)


def eigh(p: Program) -> Any:
    w, v = p.xp.linalg.eigh(_symmetric(p.xp, p.matrix()))
    return (v * v) * p.xp.expand_dims(w, -1)


def svd(p: Program) -> Any:
    u, s, vh = p.xp.linalg.svd(p.matrix(p.integer(2, 4), 3), full_matrices=False)
    return p.xp.matmul(u * u * p.xp.expand_dims(s, -2), vh * vh)


def eigvals(p: Program) -> Any:
    """The order of the eigenvalues is free, sums of powers are not."""
    w = p.xp.linalg.eigvals(p.matrix())
    return p.xp.real(p.xp.sum(w * w * w, axis=-1)) / 100


def matrix_norm(p: Program) -> Any:
    return p.xp.linalg.matrix_norm(p.matrix(3, 2), ord=p.one_of(["fro", "nuc", 1, -1, 2, -2, math.inf]))


def vector_norm(p: Program) -> Any:
    x = p.distinct(p.array(1))
    order = p.one_of([1, 2, 3, math.inf, -math.inf])
    return p.xp.linalg.vector_norm(x, axis=p.axis(x), ord=order, keepdims=p.chance())


def real_transform(name: str) -> Callable:
    def call(p: Program) -> Any:
        x = p.array(1)
        options = {"n": p.one_of([None, 2, 5]), "axis": p.axis(x), "norm": p.one_of(["backward", "ortho"])}
        return _energy(p.xp, getattr(p.xp.fft, name)(x, **options))

    return call


def transform(name: str) -> Callable:
    def call(p: Program) -> Any:
        x = p.xp.reshape(p.complexes(), (-1,))
        y = getattr(p.xp.fft, name)(x, n=p.one_of([2, 5]), norm=p.one_of(["forward", "ortho"]))
        return p.xp.real(y) * p.xp.imag(y + 1j)

    return call


def irfft(p: Program) -> Any:
    x = p.xp.reshape(p.complexes(), (-1,))
    return p.xp.fft.irfft(x, n=p.one_of([3, 4, 7]))


def solve_complex(p: Program) -> Any:
    x = p.xp.linalg.solve(p.matrix(2, 2) + 1j * p.shaped(2, 2), p.shaped(2, 3) + 0j)
    return p.xp.real(x) + p.xp.imag(x)


OPERATIONS: dict[str, Callable[[Program], Any]] = {
    # elementwise
    **each("sin cos tan tanh sinh cosh atan asinh exp expm1", unary),
    **each("square negative positive", unary),
    **each("asin acos atanh", unary, scale=0.9),
    **each("log log1p log2 log10 sqrt reciprocal", unary, scale=0.9, shift=1.0),
    "acosh": unary("acosh", shift=2.5),
    "abs": lambda p: p.xp.abs(p.distinct(p.array())),
    "sign": lambda p: p.xp.sign(p.distinct(x := p.array())) * x,
    "clip": lambda p: p.xp.clip(p.distinct(p.array()), -0.5, 0.7),
    **each("add subtract multiply logaddexp", binary),
    **each("maximum minimum copysign hypot", binary, distinct=True),
    **each("divide atan2", binary, shift2=2.0),
    "pow": binary("pow", shift1=1.5),
    "pow of a number": lambda p: (1.5 + p.array()) ** p.one_of([-2, -1, 0, 1, 2, 3, 0.5]),
    "number to a power": lambda p: p.one_of([0.5, 2]) ** p.array(),
    "remainder": lambda p: p.xp.remainder(p.distinct(x := p.array()), 1.5 + 0.1 * p.like(x)),
    "where": lambda p: p.xp.where(p.distinct(x := p.array()) > 0, p.like(x), 0.5 * x),
    "where of a mask": lambda p: p.xp.where(p.mask(p.xp, (x := p.array()).shape), x, 0.25),
    # reductions
    **each("sum mean var", reduction),
    **each("max min", reduction, distinct=True),
    "prod": reduction("prod", scale=0.5, shift=1.0),
    "std": std,
    "cumulative_sum": cumulative("cumulative_sum"),
    "cumulative_prod": cumulative("cumulative_prod", scale=0.5, shift=1.0),
    # manipulation
    "reshape": lambda p: p.xp.reshape(x := p.array(1), (x.shape[-1], -1)),
    "permute_dims": lambda p: p.xp.permute_dims(x := p.array(), tuple(p.permutation(len(x.shape)))),
    "moveaxis": lambda p: p.xp.moveaxis(x := p.array(1), p.axis(x), p.axis(x)),
    "matrix_transpose": lambda p: p.array(2).mT,
    "flip": lambda p: p.xp.flip(x := p.array(1), axis=p.axes(x)),
    "roll": lambda p: p.xp.roll(x := p.array(1), p.integer(-3, 3), axis=p.one_of([None, p.axis(x)])),
    "expand_dims and squeeze": expand_and_squeeze,
    "broadcast_to": broadcast_to,
    "concat": concat,
    "stack": lambda p: p.xp.stack([x := p.array(), p.like(x)], axis=p.axis(x, more=1)),
    "unstack": lambda p: (parts := p.xp.unstack(x := p.array(1), axis=p.axis(x)))[0] * parts[-1],
    "tile": tile,
    "repeat": repeat,
    "tril": lambda p: p.xp.tril(p.array(2), k=p.integer(-1, 1)),
    "triu": lambda p: p.xp.triu(p.array(2), k=p.integer(-1, 1)),
    "meshgrid": meshgrid,
    "diff": lambda p: p.xp.diff(x := p.array(1), axis=p.axis(x), n=p.integer(1, 2), prepend=x, append=x),
    # indexing and assignment
    "getitem": lambda p: (x := p.array(1))[p.key(x)],
    "getitem at integer arrays": integer_arrays,
    "getitem at a mask": mask,
    "take": take,
    "take_along_axis": argsort,
    "setitem": assign,
    "setitem at a mask": assign_a_number,
    "setitem at integer arrays": assign_at_integers,
    "setitem of its own parts": assign_own_parts,
    "operators in place": operators_in_place,
    # sorting
    "sort": sort,
    # products of matrices
    "matmul": matmul,
    "vecdot": vecdot,
    "tensordot": tensordot,
    "outer": lambda p: p.xp.linalg.outer(p.shaped(2), p.shaped(3)),
    "cross": lambda p: p.xp.linalg.cross(p.shaped(2, 3), p.shaped(2, 3)),
    # linear algebra
    "inv": lambda p: p.xp.linalg.inv(p.matrix()),
    "det": lambda p: p.xp.linalg.det(p.matrix()) / 10,
    "slogdet": lambda p: p.xp.linalg.slogdet(p.matrix())[1],
    "solve": lambda p: p.xp.linalg.solve(p.matrix(3, 3), p.shaped(*p.one_of([(3,), (3, 2)]))),
    "solve of complex numbers": solve_complex,
    "pinv": lambda p: p.xp.linalg.pinv(p.matrix(p.integer(2, 4), 3)),
    "matrix_power": lambda p: p.xp.linalg.matrix_power(0.3 * p.matrix(), p.one_of([-1, 0, 1, 2, 3])),
    "cholesky": cholesky,
    "qr": qr,
    "eigh": eigh,
    "eigvalsh": lambda p: p.xp.linalg.eigvalsh(_symmetric(p.xp, p.matrix())),
    "eigvals": eigvals,
    "svd": svd,
    "svdvals": lambda p: p.xp.linalg.svdvals(p.matrix(p.integer(2, 4), 3)),
    "diagonal": lambda p: p.xp.linalg.diagonal(p.matrix(3, 4), offset=p.integer(-1, 2)),
    "trace": lambda p: p.xp.linalg.trace(p.matrix(3, 4), offset=p.integer(-1, 2)),
    "matrix_norm": matrix_norm,
    "vector_norm": vector_norm,
    # Fourier transforms
    **each("rfft ihfft", real_transform),
    **each("fft ifft", transform),
    "irfft": irfft,
    "fftshift": lambda p: p.xp.fft.fftshift(p.array(1)),
    # complex numbers
    "exp of complex numbers": lambda p: p.xp.real(p.xp.exp(p.complexes())),
    "abs of complex numbers": lambda p: p.xp.abs(p.complexes() + (1.5 + 1j)),
    "quotient of complex numbers": lambda p: p.xp.imag((z := p.complexes()) / (p.xp.conj(z) + 3)),
    "log of complex numbers": lambda p: p.xp.imag(p.xp.log(p.complexes() + (1.5 + 1.5j))),
    # special functions
    **each("erf erfc expit ndtr log_ndtr i0 i1", special_unary),
    "gammaln": special_unary("gammaln", shift=1.5),
    "logit": special_unary("logit", scale=0.4, shift=0.5),
    "erfcx": special_unary("erfcx"),
    "entr": special_unary("entr", scale=0.4, shift=1.5),
    "erfinv": special_unary("erfinv", scale=0.8),
    "ndtri": special_unary("ndtri", scale=0.4, shift=0.5),
    "xlogy": lambda p: special(p.xp).xlogy(x := p.array(), 1.5 + p.like(x)),
    "xlog1py": lambda p: special(p.xp).xlog1py(x := p.array(), 1.5 + p.like(x)),
}


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    number = metafunc.config.getoption("--examples")
    each = [(peer, seed) for peer in installed() for seed in range(number or PROGRAMS[peer])]
    metafunc.parametrize(("peer", "seed"), each)


def test_gradients(peer, seed):
    """The gradients of a program agree, within what rounding does to them.

    Each step of a program makes an error of a few eps, relative to its result. How much that changes a
    gradient depends on the program, so it is measured. Errors of a larger size, `NOISE`, in each step change
    the gradient by ``change``, and so errors of eps change it by ``change * eps / NOISE``. The factor 100
    allows for what a library does within a step, and in the sweep back.
    """
    random = numpy.random.default_rng(seed)
    inputs = [random.uniform(-1, 1, size=shape) for shape in SHAPES]
    names: list[str] = []

    def run(xp: Any, *arrays: Any, noise: float = 0.0) -> Any:
        program = Program(seed, xp, arrays, noise)
        result = program.run()
        names[:] = program.names
        return result

    received = gradients(run, inputs)
    disturbed = gradients(functools.partial(run, noise=NOISE), inputs)
    expected = PEERS[peer](run, inputs)
    for g, other, right in zip(received, disturbed, expected, strict=True):
        change = numpy.max(numpy.abs(other - g)) / NOISE
        tolerance = 100 * numpy.finfo(float).eps * (change + numpy.max(numpy.abs(g)))
        numpy.testing.assert_allclose(
            g, right, rtol=0, atol=tolerance, err_msg=f"program {seed}, made of {', '.join(names)}"
        )
    if peer == "jax" and seed % 100 == 99:
        importlib.import_module("jax").clear_caches()  # what it has compiled would fill the memory
