"""The gradients of elementwise functions from the smallest to the largest numbers."""

import mpmath
import pytest

from autodiff.whole_range import DTYPES, Exact, span

everywhere = span(near=(-1.0, 1.0))

EXACT = {
    "exp": Exact(lambda xp, x: xp.exp(x), (everywhere,), {(0,): mpmath.exp, (0, 0): mpmath.exp}),
}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", EXACT)
def test_gradients(name, dtype):
    EXACT[name].check(dtype)
