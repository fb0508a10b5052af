"""Other systems that compute gradients, with which those of xpnet are compared.

All run the same function, ``f(xp, *arrays)`` with a real scalar result, written with functions of the
standard.
"""

import importlib.util
from collections.abc import Callable, Sequence
from typing import Any

import array_api_compat
import numpy
import pytest

import xpnet
from xpnet.backends import special_functions

Arrays = Sequence[numpy.ndarray]


class Choices:
    """Random choices that depend on shapes alone: the same seed makes the same ones with every library."""

    def __init__(self, seed: int) -> None:
        self.random = numpy.random.default_rng(seed)

    def chance(self) -> bool:
        return bool(self.random.random() < 0.5)

    def integer(self, low: int, high: int) -> int:
        """Return an integer from low to high, both included."""
        return int(self.random.integers(low, high, endpoint=True))

    def one_of(self, options: Sequence[Any]) -> Any:
        return options[self.integer(0, len(options) - 1)]

    def axis(self, x: Any, more: int = 0) -> int:
        """Return one axis of an array, or of one with ``more`` axes, counted from either end."""
        ndim = len(x.shape) + more
        return self.integer(-ndim, ndim - 1)

    def axes(self, x: Any) -> tuple[int, ...] | int | None:
        """Return some axes of an array, one axis, or None for all."""
        ndim = len(x.shape)
        some = tuple(
            a - ndim * self.chance() for a in self.permutation(ndim)[: self.integer(1, max(ndim, 1))]
        )
        return self.one_of([None, some, some[0]]) if ndim else None

    def permutation(self, number: int) -> list[int]:
        return [int(i) for i in self.random.permutation(number)]

    def indices(self, xp: Any, shape: Any, size: int) -> Any:
        """Return an array of indices into an axis of a length of ``size``, in which some may be equal."""
        return as_constant(xp, self.random.integers(0, size, size=shape))

    def mask(self, xp: Any, shape: Any) -> Any:
        return as_constant(xp, self.random.random(size=tuple(shape)) < 0.6)

    def numbers(self, xp: Any, shape: Any, dtype: str = "float64") -> Any:
        """Return an array of random numbers, through which no gradient flows."""
        x = self.random.normal(size=tuple(shape))
        if dtype == "complex128":
            x = x + 1j * self.random.normal(size=x.shape)
        return as_constant(xp, x)

    def key(self, x: Any) -> tuple:
        """Return integers and slices, for all axes or those in front, and new axes; no result is empty."""
        key: list[Any] = []
        for size in x.shape:
            if self.chance() and size:
                key.append(self.integer(-size, size - 1))
            else:
                start = self.integer(0, max(size - 1, 0))
                key.append(slice(start, self.one_of([None, size]), self.integer(1, 2)))
            if self.integer(0, 4) == 0:
                key.append(None)
        return tuple(key) if self.chance() else (*key[: self.integer(0, len(key))], ...)


def as_constant(xp: Any, x: numpy.ndarray) -> Any:
    """Return an array for a library. JAX takes those of NumPy, whose values it knows while it compiles."""
    return x if xp.__name__ == "jax.numpy" else xp.asarray(x)


def assigned(x: Any, key: Any, values: Any) -> Any:
    """``x[key] = values`` on a copy, in the way of each library."""
    if array_api_compat.is_jax_array(x):
        return x.at[key].set(values)
    x = x.clone() if array_api_compat.is_torch_array(x) else x.__array_namespace__().asarray(x, copy=True)
    x[key] = values
    return x


def special(xp: Any) -> Any:
    """Return the special functions of a traced namespace, or of a library."""
    return xp.special if hasattr(xp, "plain") else special_functions(xp)


# -- gradients, with respect to all arrays, as NumPy arrays -------------------------------------------------


def squares(xp: Any, arrays: Sequence[Any]) -> Any:
    """Return the sum of the squares of all elements."""
    return sum(xp.sum(xp.square(xp.abs(x))) for x in arrays)


def gradients(f: Callable, arrays: Arrays, order: int = 1) -> list[numpy.ndarray]:
    """Return those of xpnet; of order 2, the gradients of the sum of the squares of the gradients."""

    def first(*arrays: Any) -> Any:
        return xpnet.grad(lambda *x: f(xpnet.array_namespace(*x), *x), argnums=everything)(*arrays)

    def second(*arrays: Any) -> Any:
        return squares(xpnet.array_namespace(*arrays), first(*arrays))

    everything = tuple(range(len(arrays)))
    return list(first(*arrays) if order == 1 else xpnet.grad(second, argnums=everything)(*arrays))


def torch_gradients(f: Callable, arrays: Arrays, order: int = 1) -> list[numpy.ndarray]:
    torch = pytest.importorskip("torch")
    import array_api_compat.torch as xp

    inputs = [torch.asarray(x).clone().requires_grad_() for x in arrays]
    value = f(xp, *inputs)
    options = {"allow_unused": True, "materialize_grads": True}
    results = torch.autograd.grad(value, inputs, create_graph=order > 1, **options)
    if order > 1 and any(g.requires_grad for g in results):
        results = torch.autograd.grad(squares(xp, results), inputs, **options)
    elif order > 1:
        results = [torch.zeros_like(x) for x in inputs]
    return [g.numpy(force=True) for g in results]


def jax_gradients(f: Callable, arrays: Arrays, order: int = 1) -> list[numpy.ndarray]:
    jax = pytest.importorskip("jax")
    everything = tuple(range(len(arrays)))

    def first(*arrays: Any) -> Any:
        return jax.grad(lambda *x: f(jax.numpy, *x), argnums=everything)(*arrays)

    def second(*arrays: Any) -> Any:
        return squares(jax.numpy, first(*arrays))

    # Nearly all of the time goes to compilation: of the whole is quicker than of each operation, and
    # optimization does not pay.
    quick = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}
    with jax.enable_x64(True):
        inputs = [jax.numpy.asarray(x) for x in arrays]
        whole = first if order == 1 else jax.grad(second, argnums=everything)
        try:
            results = jax.block_until_ready(jax.jit(whole, compiler_options=quick)(*inputs))
        except jax.errors.JaxRuntimeError:
            # XLA for the CPU refuses a Fourier transform whose input it has laid out by columns.
            results = whole(*inputs)
        return [numpy.conj(g) for g in results]  # JAX's gradients of complex numbers are the conjugates


PEERS = {"torch": torch_gradients, "jax": jax_gradients}


def installed() -> list[str]:
    """Return the names of the systems that can be imported here."""
    return [name for name in PEERS if importlib.util.find_spec(name)]
