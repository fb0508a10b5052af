import numpy
import pytest
from helpers import array

import xpnet
from xpnet import losses, optim
from xpnet.nn import Dense, Lambda, Sequential

# NumPy warns of what it computes here; the other libraries do not.
pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")


def test_the_function_and_the_line_are_named(xp):
    def f(x):
        xp = xpnet.array_namespace(x)
        y = xp.exp(x)
        z = xp.log(y - 2.0)  # of a negative number
        return xp.sum(z)

    with xpnet.raise_on_nan(), pytest.raises(FloatingPointError, match=r"^log made the first NaN, at ") as e:
        xpnet.grad(f)(array([0.0, 1.0]))
    assert "test_nan.py" in str(e.value)
    assert "z = xp.log(y - 2.0)  # of a negative number" in str(e.value)


def test_the_function_whose_gradient_it_is_is_named(xp):
    def f(x):
        xp = xpnet.array_namespace(x)
        root = xp.sqrt(x)
        return xp.sum(xp.where(x > 0, root, 0.0))

    with (
        xpnet.raise_on_nan(),
        pytest.raises(FloatingPointError, match=r"the gradient of sqrt made the first NaN.*root = xp\.sqrt"),
    ):
        xpnet.grad(f)(array([0.0, 1.0]))


def test_extensions_and_second_derivatives_are_watched(xp):
    def norm(x):
        return xpnet.array_namespace(x).linalg.trace(x - x)

    with xpnet.raise_on_nan(), pytest.raises(FloatingPointError, match="subtract made the first NaN"):
        xpnet.grad(norm)(array([[numpy.inf, 1.0], [1.0, 1.0]]))

    def power(x):
        xp = xpnet.array_namespace(x)
        return xp.sum(xp.where(x > 0, x * xp.sqrt(x), 0.0))

    with xpnet.raise_on_nan(), pytest.raises(FloatingPointError, match="made the first NaN"):
        xpnet.grad(lambda x: xpnet.array_namespace(x).sum(xpnet.grad(power)(x)))(array([0.0]))


def test_what_is_nan_from_the_start_is_not_blamed_on_a_function(xp):
    with (
        xpnet.raise_on_nan(),
        pytest.raises(FloatingPointError, match=r"multiply received NaN, at .*test_nan"),
    ):
        xpnet.grad(lambda x: x * 2.0)(array(numpy.nan))


def test_without_nan_nothing_changes(xp):
    def f(x, y):
        xp = xpnet.array_namespace(x)
        return xp.sum(xp.linalg.outer(x, x) * y) + xp.sum(xp.fft.ifftshift(x) * xpnet.trace(plain))

    plain = array([3.0, 1.0])
    x, y = array([1.0, 2.0]), array([[1.0, 2.0], [3.0, 4.0]])
    expected = xpnet.grad(f)(x, y)
    with xpnet.raise_on_nan():
        assert xp.all(xpnet.grad(f)(x, y) == expected)


def test_training_names_the_line_of_a_layer(device):
    net = Sequential(Dense(1, 1, seed=0), Lambda(lambda x: xpnet.array_namespace(x).log(x * 0.0 - 1.0)))
    x = numpy.ones((4, 1))

    def loss(outputs, targets):  # which hides what the network gives from the trial before the training
        return losses.mse(outputs if hasattr(outputs, "node") else targets, targets)

    with (
        xpnet.raise_on_nan(),
        pytest.raises(FloatingPointError, match=r"log made the first NaN, at .*test_nan"),
    ):
        xpnet.fit(net, x, x, loss=loss, optimizer=optim.SGD(0.1), progress=False)


def test_it_ends_with_the_block(xp):
    with xpnet.raise_on_nan():
        pass
    gradient = xpnet.grad(lambda x: xpnet.array_namespace(x).log(x))(array(-1.0))
    assert float(xpnet.to_numpy(gradient)) == -1.0
