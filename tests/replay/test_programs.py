"""Random programs of the standard's functions give the same on a replay as eagerly, gradients included."""

import numpy
import pytest
from autodiff.test_programs import SHAPES, Program
from helpers import rounding
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import xpnet


@pytest.mark.parametrize("seed", range(60))
def test_gradients(seed, monkeypatch):
    monkeypatch.setattr("xpnet.replay.plans.numba.numba_is_there", lambda: False)
    random = numpy.random.default_rng(seed)
    first, *others = [[random.uniform(-1, 1, size=shape) for shape in SHAPES] for _ in range(3)]
    names = []

    def run(*arrays):
        program = Program(seed, xpnet.array_namespace(*arrays), arrays)
        result = program.run()
        names[:] = program.names
        return result

    eager = xpnet.value_and_grad(run, argnums=tuple(range(len(SHAPES))))
    recorded = xpnet.jit(eager)
    recorded(*first)
    for inputs in (*others, first):
        value, gradients = recorded(*inputs)
        expected, right = eager(*inputs)
        # Sums of arrays with other strides go in another order. Thirty functions of up to 48 elements each,
        # and the sweep back, are some thousand roundings.
        for one, other in zip([value, *gradients], [expected, *right], strict=True):
            tolerance = rounding(5000, "float64", 1 + numpy.max(abs(other)))
            numpy.testing.assert_allclose(one, other, rtol=0, atol=tolerance, err_msg=", ".join(names))


ROWS, COLUMNS = 4, 3
UNARY = ["abs", "cos", "exp", "square", "tanh", "negative"]
BINARY = ["add", "logaddexp", "maximum", "minimum", "multiply", "subtract"]
REDUCTIONS = ["max", "mean", "min", "prod", "sum", "var"]
STEPS = st.one_of(
    st.tuples(st.sampled_from(UNARY), st.integers(0, 99)),
    st.tuples(st.sampled_from(BINARY), st.integers(0, 99), st.integers(0, 99)),
    st.tuples(st.sampled_from(REDUCTIONS), st.integers(0, 99), st.sampled_from([None, 0, -1]), st.booleans()),
    st.tuples(st.just("matmul"), st.integers(0, 99), st.integers(0, 99)),
    st.tuples(st.sampled_from(["transpose", "reshape", "getitem", "setitem", "where"]), st.integers(0, 99)),
    st.tuples(st.just("take_along_axis"), st.integers(0, 99), st.integers(0, COLUMNS - 1)),
)


def run_steps(xp, steps, arrays):
    """Do each step with arrays that are there already, chosen by numbers; return all that no step reads."""
    pool = list(arrays)
    for name, first, *rest in steps:
        x = pool[first % len(pool)]
        if name in UNARY:
            y = getattr(xp, name)(x / 2)
        elif name in BINARY:
            other = pool[rest[0] % len(pool)]
            if xp.result_type(x, other) != x.dtype or not fits(x.shape, other.shape):
                continue
            y = getattr(xp, name)(x, other)
        elif name in REDUCTIONS:
            axis, keepdims = rest
            y = getattr(xp, name)(x, axis=axis if x.shape else None, keepdims=keepdims)
        elif name == "matmul":
            other = pool[rest[0] % len(pool)]
            if len(x.shape) != 2 or len(other.shape) != 2 or x.shape[1] != other.shape[0]:
                continue
            y = x @ other / x.shape[1]
        elif name == "transpose":
            y = x.T if len(x.shape) == 2 else x * 3
        elif name == "reshape":
            y = xp.reshape(x, (-1,)) if len(x.shape) == 2 else x[..., None] if x.shape else x + 1
        elif name == "getitem":
            y = x[1:, ...] if x.shape and x.shape[0] > 1 else x[...]
        elif name == "setitem":
            y = xp.asarray(x, copy=True)
            y[...] = x * 2
            if y.shape:
                y[0, ...] = 0.5
        elif name == "where":
            y = xp.where(x > 0.1, x, -x / 4)
        elif x.shape == (ROWS, COLUMNS):
            index = xp.full((ROWS, 1), rest[0], dtype=xp.int64, device=x.device)
            y = xp.take_along_axis(x, index, axis=-1)
        else:
            continue
        pool.append(y)
    return pool[len(arrays) :]


def fits(one, other):
    try:
        numpy.broadcast_shapes(one, other)
    except ValueError:
        return False
    return True


def same_on_a_replay(steps, dtype):
    shapes = [(ROWS, COLUMNS), (COLUMNS,), (ROWS, 1), (COLUMNS, ROWS), ()]

    def loss(*arrays):
        found = run_steps(xpnet.array_namespace(*arrays), steps, arrays)
        total = sum((xpnet.array_namespace(x).sum(x * x / 8) for x in found), start=arrays[-1])
        return total, found

    eager = xpnet.value_and_grad(loss, argnums=tuple(range(len(shapes))), has_aux=True)
    recorded = xpnet.jit(eager)
    for seed in range(3):
        random = numpy.random.default_rng(seed)
        arrays = [
            xpnet.asarray(random.normal(size=shape).astype(dtype), device=xpnet.device()) for shape in shapes
        ]
        expected, results = (xpnet.tree.leaves(f(*arrays)) for f in (eager, recorded))
        for one, other in zip(results, expected, strict=True):
            assert (one.shape, one.dtype) == (other.shape, other.dtype)
            one, other = xpnet.to_numpy(one), xpnet.to_numpy(other)
            tolerance = rounding(200, dtype, 1 + numpy.max(abs(other)))
            numpy.testing.assert_allclose(one, other, rtol=0, atol=tolerance)


PROGRAMS = {
    "steps": st.lists(STEPS, min_size=1, max_size=12),
    "dtype": st.sampled_from(["float32", "float64"]),
}
ALWAYS_THE_SAME = {"deadline": None, "derandomize": True, "suppress_health_check": list(HealthCheck)}


def test_drawn_programs(device):
    # JAX compiles each of them for half a second.
    @given(**PROGRAMS)
    @settings(max_examples=20 if device.library.spec == "jax" else 80, **ALWAYS_THE_SAME)
    def run(steps, dtype):
        with pytest.MonkeyPatch.context() as patch, xpnet.use_device(device.spec):
            patch.setattr("xpnet.replay.plans.numba.numba_is_there", lambda: False)
            same_on_a_replay(steps, dtype)

    run()


@given(**PROGRAMS)
@settings(max_examples=8, **ALWAYS_THE_SAME)  # numba compiles each of them for seconds
def test_drawn_programs_with_numba(steps, dtype):
    pytest.importorskip("numba")
    same_on_a_replay(steps, dtype)
