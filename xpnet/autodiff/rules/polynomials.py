"""Polynomials by their coefficients: functions that NumPy, CuPy and JAX have beside the standard."""

from typing import Any

from xpnet.autodiff.primitive import function


def _whole(xp: Any, g: Any, _a: Any, _v: Any, mode: str) -> Any:
    """Put zeros around the gradient of the part that a mode returns of a full convolution."""
    longer, shorter = max(_a.shape[0], _v.shape[0]), min(_a.shape[0], _v.shape[0])
    before = {"full": 0, "same": (shorter - 1) // 2, "valid": shorter - 1}[mode]
    after = longer + shorter - 1 - before - g.shape[0]
    zeros = [xp.zeros(number, dtype=g.dtype, device=g.device) for number in (before, after)]
    return xp.concat([zeros[0], g, zeros[1]])


@function(
    lambda xp, g, _y, _a, v, *, mode: xp.convolve(_whole(xp, g, _a, v, mode), xp.flip(v), mode="valid"),
    lambda xp, g, _y, a, _v, *, mode: xp.convolve(_whole(xp, g, a, _v, mode), xp.flip(a), mode="valid"),
)
def convolve(call: Any, a: Any, v: Any, /, mode: str = "full") -> Any:
    return call(a, v, mode=mode)


def _roots_back(xp: Any, g: Any, y: Any, p: Any) -> Any:
    """Where p(y) stays 0, y moves by -dp(y) / p'(y)."""
    degree = xp.arange(p.shape[0] - 1, -1, -1, device=g.device)
    powers = xp.expand_dims(y, axis=-1) ** xp.astype(degree, y.dtype)
    slope = xp.sum(p[:-1] * xp.astype(degree[:-1], y.dtype) * powers[:, 1:], axis=-1)
    return -xp.sum(xp.expand_dims(g / slope, axis=-1) * powers, axis=0)


@function(_roots_back)
def roots(call: Any, p: Any, /) -> Any:
    return call(p)
