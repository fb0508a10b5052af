"""Windows: the views of some libraries and the generic version beside loops, and the adjoint."""

import numpy
import pytest
from helpers import assert_on, assert_same, rounding
from hypothesis import given, settings
from hypothesis import strategies as st

import xpnet
from xpnet.autodiff import extended_namespace
from xpnet.autodiff.windows import count_windows

AXIS = st.tuples(st.integers(1, 3), st.integers(1, 3), st.integers(1, 3), st.integers(0, 4))


@settings(max_examples=30, derandomize=True, deadline=None, database=None)
@given(axes=st.lists(AXIS, min_size=1, max_size=2), batch=st.integers(0, 2), channels=st.integers(1, 3))
@pytest.mark.parametrize("spec", ["cpu", "strict"])
def test_values_and_adjoint(spec, axes, batch, channels):
    sizes, strides, dilations, more = zip(*axes, strict=True)
    lengths = tuple(d * (n - 1) + 1 + m for n, d, m in zip(sizes, dilations, more, strict=True))
    x = numpy.random.default_rng(0).normal(size=(batch, *lengths, channels))
    counts = count_windows(lengths, sizes, strides, dilations)
    expected = numpy.zeros((batch, *counts, *sizes, channels))
    for place in numpy.ndindex(*counts):
        for index in numpy.ndindex(*sizes):
            source = [p * s + i * d for p, s, i, d in zip(place, strides, index, dilations, strict=True)]
            expected[(slice(None), *place, *index)] = x[(slice(None), *source)]
    there = xpnet.asarray(x, device=spec)
    xp = extended_namespace(there)
    w = xp.windows(there, sizes=sizes, strides=strides, dilations=dilations)
    assert_on(w, xpnet.device(spec), "float64", expected.shape)
    assert_same(w, expected, tolerance=0)
    other = numpy.random.default_rng(1).normal(size=expected.shape)
    back = xp.add_windows(
        xpnet.asarray(other, device=spec), shape=x.shape, strides=strides, dilations=dilations
    )
    assert_on(back, xpnet.device(spec), "float64", x.shape)
    tolerance = rounding(expected.size, "float64", abs(expected * other).sum())
    assert (expected * other).sum() == pytest.approx((x * xpnet.to_numpy(back)).sum(), abs=tolerance)


def test_on_each_library(device):
    x = xpnet.asarray(numpy.arange(24.0).reshape(1, 4, 3, 2), device=device)
    options = {"strides": (2, 1), "dilations": (1, 2)}
    w = extended_namespace(x).windows(x, sizes=(2, 2), **options)
    assert_on(w, device, "float64", (1, 2, 1, 2, 2, 2))
    assert_same(w[0, 1, 0, 1, :, :], [[18.0, 19.0], [22.0, 23.0]])
    back = extended_namespace(w).add_windows(w, shape=(1, 4, 3, 2), **options)
    expected = xpnet.to_numpy(x).copy()
    expected[:, :, 1] = 0
    assert_same(back, expected)


def test_numpy_gives_a_view_that_cannot_be_written_to():
    x = numpy.zeros((1, 3, 1))
    w = extended_namespace(x).windows(x, sizes=(2,), strides=(1,), dilations=(1,))
    assert numpy.shares_memory(w, x)
    assert not w.flags.writeable


def test_under_jit(device):
    def f(x):
        w = extended_namespace(x).windows(x, sizes=(2, 2), strides=(1, 1), dilations=(1, 1))
        return xpnet.array_namespace(x).sum(w**3)

    x = xpnet.asarray(numpy.random.default_rng(0).normal(size=(2, 4, 3, 2)), device=device)
    step = xpnet.jit(xpnet.grad(f))
    for scale in (1.0, 2.0):
        assert_same(step(x * scale), xpnet.to_numpy(xpnet.grad(f)(x * scale)))
