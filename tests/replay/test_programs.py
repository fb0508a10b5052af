"""Random programs of the standard's functions give the same on a replay as eagerly, gradients included."""

import numpy
import pytest
from autodiff.test_programs import SHAPES, Program

import xpnet


@pytest.mark.parametrize("seed", range(60))
def test_gradients(seed, monkeypatch):
    monkeypatch.setattr("xpnet.replay.kernels.numba_is_there", lambda: False)
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
        # Sums of arrays with other strides go in another order.
        for one, other in zip([value, *gradients], [expected, *right], strict=True):
            tolerance = 1e-12 * (1 + numpy.max(abs(other)))
            numpy.testing.assert_allclose(one, other, rtol=0, atol=tolerance, err_msg=", ".join(names))
