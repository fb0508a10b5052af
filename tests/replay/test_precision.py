import functools

import array_api_compat
import helpers
import numpy
import pytest
from helpers import array, assert_same, rounding

import xpnet
from xpnet import nn
from xpnet.replay import graph, precision
from xpnet.replay.plans import plan

draw = functools.partial(helpers.draw, dtype="float32")
NAMES = ["tf32", "float16", "bfloat16"]


def reference(x, name):
    """Round by NumPy's float16, or by the bits: half of the last digit is added, and what is left cut off."""
    if name == "float16":
        with numpy.errstate(over="ignore"):
            return x.astype(numpy.float16).astype(numpy.float32)
    dropped = numpy.uint64({"tf32": 13, "bfloat16": 16}[name])
    bits, one = x.view(numpy.uint32).astype(numpy.uint64), numpy.uint64(1)
    is_odd = (bits >> dropped) & one
    bits = (bits + (one << (dropped - one)) - one + is_odd) >> dropped << dropped
    return numpy.where(numpy.isfinite(x), bits.astype(numpy.uint32).view(numpy.float32), x)


def numbers(smallest=0.0):
    """Return numbers of all sizes, many of them halfway between two of fewer digits, and ends of formats."""
    random = numpy.random.default_rng(0)
    bits = random.integers(0, 2**32, size=20_000, dtype=numpy.uint32)
    halfway = [(bits >> n << n) | numpy.uint32(1 << (n - 1)) for n in (13, 16)]
    every = random.integers(0, 0x7C00, size=5_000, dtype=numpy.uint16).view(numpy.float16)
    ends = [0, 6e-8, 2.0**-25, 1.0001 * 2**-25, 65504, 65519.99, 65520, 3.38e38, 3.3961e38, 3.4028235e38]
    ends = numpy.float32([*ends, 1e-45, 1e-40, numpy.inf])
    x = numpy.concatenate([*(b.view(numpy.float32) for b in (bits, *halfway)), every, ends, -ends])
    return x[~(abs(x) < smallest) & ~numpy.isnan(x)]


def by_the_library(device, name):
    """Say whether a library multiplies in a precision by its own means, and so rounds in its own way."""
    return name == "tf32" and device.spec.startswith("cuda")


def assert_within(result, exact, magnitude, name):
    """Check a product whose operands may each be wrong by less than a last digit.

    ``magnitude`` is the product of what is positive of the operands.
    """
    ulp = 2.0 ** (1 - precision.FORMATS[name].digits)
    bound = 3 * ulp * xpnet.to_numpy(magnitude)  # of each operand, and one more for both and for the sum
    assert (abs(xpnet.to_numpy(result) - xpnet.to_numpy(exact)) <= bound).all()


@pytest.mark.parametrize("name", NAMES)
def test_rounding_is_that_of_the_format_bit_for_bit(xp, name):
    # JAX takes float32 below the smallest normal number for 0.
    x = numbers(2.0**-126 if array_api_compat.is_jax_namespace(xp) else 0.0)
    with numpy.errstate(over="ignore"):
        rounded = precision.rounded(xp, array(x), precision=name)
    assert rounded.dtype == xp.float32
    numpy.testing.assert_array_equal(xpnet.to_numpy(rounded), reference(x, name))
    assert numpy.isnan(
        xpnet.to_numpy(precision.rounded(xp, array(numpy.float32([numpy.nan])), precision=name))
    )


@pytest.mark.plans("numba", "numpy")
@pytest.mark.parametrize("name", NAMES)
def test_a_replay_rounds_as_well(device, name, kind_of_plan):
    x = numbers(2.0**-126)
    x = x[numpy.isfinite(reference(x, "float16"))]
    product = xpnet.jit(lambda x, one: x @ one, precision=name)
    result = product(array(x.reshape(-1, 1)), array(numpy.ones((1, 1), "float32")))
    if by_the_library(device, name):
        assert_within(result[:, 0], x, abs(x), name)
        return
    numpy.testing.assert_array_equal(xpnet.to_numpy(result)[:, 0], reference(x, name))


FUNCTIONS = {
    "matmul": lambda xp, x, y: x @ y,
    "vectors": lambda xp, x, y: x[0, :] @ y[:, 0],
    "tensordot": lambda xp, x, y: xp.tensordot(x, y, axes=1),
    "linalg": lambda xp, x, y: xp.linalg.matmul(x, y),
    "stacks": lambda xp, x, y: xp.broadcast_to(x, (2, *x.shape)) @ y,
    "transposes": lambda xp, x, y: xp.permute_dims(y, (1, 0)) @ xp.reshape(x.mT, (y.shape[0], -1)),
    "a constant": lambda xp, x, y: x @ array(draw(6, 4, seed=1)),
    "a part": lambda xp, x, y: x[:2, ::2] @ y[3:, :],
}


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("function", FUNCTIONS)
def test_products_are_those_of_rounded_operands(xp, device, function, name):
    def f(x, y):
        return FUNCTIONS[function](xpnet.array_namespace(x, y), x, y)

    x, y = draw(5, 6), draw(6, 4, seed=1)
    expected = f(array(reference(x, name)), array(reference(y, name)))
    if function == "a constant":
        expected = array(reference(x, name)) @ array(reference(y, name))
    result = xpnet.jit(f, precision=name)(array(x), array(y))
    if by_the_library(device, name):
        function = "matmul" if function == "a constant" else function  # which is y
        assert_within(result, f(array(x), array(y)), f(array(abs(x)), array(abs(y))), name)
        return
    assert_same(result, expected, tolerance=rounding(10, "float32"))
    assert abs(xpnet.to_numpy(result - f(array(x), array(y)))).max() > 1e-5


def test_all_else_keeps_its_digits(xp):
    def f(x):
        xp = xpnet.array_namespace(x)
        return xp.exp(x), xp.sum(x), xp.vecdot(x, x), xp.tanh(x) * x

    x = array(draw(40))
    for result, expected in zip(xpnet.jit(f, precision="bfloat16")(x), f(x), strict=True):
        assert_same(result, expected, tolerance=rounding(10, "float32"))


def test_double_precision_stays(device):
    x, y = array(draw(5, 6, dtype="float64")), array(draw(6, 4, dtype="float64"))
    assert_same(xpnet.jit(lambda x, y: x @ y, precision="bfloat16")(x, y), x @ y)


@pytest.mark.parametrize("name", NAMES)
def test_products_of_gradients_are_lowered_too(device, name):
    if by_the_library(device, name):
        pytest.skip("how the library rounds is its own affair")

    def loss(weight, x):
        return xpnet.losses.mse(xpnet.array_namespace(weight, x).matmul(x, weight), target)

    x, weight, target = draw(8, 5), draw(5, 3, seed=1), array(draw(8, 3, seed=2))
    value, gradient = xpnet.jit(lambda *a: xpnet.value_and_grad(loss)(*a), precision=name)(
        array(weight), array(x)
    )
    rounded_x, y = reference(x, name), reference(x, name) @ reference(weight, name)
    g = 2 * (y - xpnet.to_numpy(target)) / y.size
    assert_same(value, numpy.mean((y - xpnet.to_numpy(target)) ** 2))
    assert_same(gradient, rounded_x.T @ reference(g.astype("float32"), name), tolerance=2**-10)
    assert abs(xpnet.to_numpy(gradient) - rounded_x.T @ g).max() > 1e-5


@pytest.mark.parametrize("layer", ["convolution", "attention", "recurrent"])
def test_layers_whose_products_are_deeper(device, layer):
    net, shape = {
        "convolution": lambda: (nn.Conv2d(3, 4, 3, seed=0), (2, 6, 6, 3)),
        "attention": lambda: (nn.MultiHeadAttention(8, 2, seed=0), (2, 5, 8)),
        "recurrent": lambda: (nn.LSTM(4, 6, seed=0), (2, 5, 4)),
    }[layer]()

    def step(net, x):
        def loss(net):
            y = net(x)
            return xpnet.losses.mse(y, xpnet.array_namespace(y).zeros_like(y))

        return xpnet.value_and_grad(loss)(net)

    x = array(draw(*shape))
    exact, gradient = step(net, x)
    value, lowered = xpnet.jit(step, precision="bfloat16")(net, x)
    assert_same(value, exact, tolerance=0.02)
    assert abs(xpnet.to_numpy(value - exact)) > 1e-6
    lowered, gradient = (xpnet.tree.leaves(xpnet.to_numpy(part)) for part in (lowered, gradient))
    largest = max(abs(b).max() for b in gradient)
    for a, b in zip(lowered, gradient, strict=True):
        assert abs(a - b).max() < 0.02 * largest
        assert (a != b).any()


def power(carried, _x, weight):
    carried = carried @ weight
    return carried, carried


def test_products_in_the_step_of_a_loop(device):
    def last(carried, x, weight):
        return xpnet.scan(power, carried, x, weight)[0]

    def slope(carried, x, weight):
        return xpnet.grad(lambda carried: xpnet.array_namespace(carried).sum(last(carried, x, weight)))(
            carried
        )

    carried, weight = draw(3, 4), draw(4, 4, seed=1)
    expected, w = carried, reference(weight, "bfloat16")
    for _ in range(2):
        expected = reference(expected, "bfloat16") @ w
    arrays = array(carried), array(numpy.zeros((2, 1), "float32")), array(weight)
    assert_same(xpnet.jit(last, precision="bfloat16")(*arrays), expected)
    expected = reference(numpy.ones((3, 4), "float32") @ w.T, "bfloat16") @ w.T
    assert_same(xpnet.jit(slope, precision="bfloat16")(*arrays), expected)
    assert abs(expected - numpy.ones((3, 4)) @ (weight @ weight).T).max() > 1e-4


def test_the_step_of_one_loop_in_several_precisions(device):
    carried, weight = draw(3, 4), draw(4, 4, seed=1)
    arrays = array(carried), array(numpy.zeros((1, 1), "float32")), array(weight)
    for name in ("tf32", "bfloat16", "tf32"):
        received = xpnet.jit(lambda *arrays: xpnet.scan(power, *arrays)[0], precision=name)(*arrays)
        expected = reference(carried, name) @ reference(weight, name)
        assert_same(received, expected)


def recorded(f, *arrays, name, by_plan):
    """Return the graph of a function, as a plan receives it."""
    graphs = []

    class Plan(plan.Plan):
        rounds = by_plan

        def __init__(self, graph, over, like):
            graphs.append(graph)
            super().__init__(graph, over, like)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("xpnet.replay.plans._plan_of", lambda _: Plan)
        result = xpnet.jit(f, precision=name)(*arrays)
    return graphs[0], result


def test_a_plan_that_rounds_is_told_what(device):
    def step(x, weight):
        xp = xpnet.array_namespace(x, weight)
        y = x @ weight
        return y, x.mT @ y, y @ weight.mT, xp.sum(x)

    x, weight = array(draw(5, 6)), array(draw(6, 4, seed=1))
    whole, result = recorded(step, x, weight, name="float16", by_plan=True)
    products = [o for o in whole.operations if o.name == "matmul"]
    assert [o.precision for o in products] == ["float16"] * 3
    # An operand is rounded once, and its transpose is a view of that.
    rounded = [o for o in whole.operations if o.name == "rounded"]
    assert len(rounded) == 3
    assert all(o.options == {"precision": "float16"} and o.result.dtype == x.dtype for o in rounded)
    for product in products:
        for x_i in product.inputs:
            made_by = whole.makers[x_i]
            if made_by.name != "rounded":
                assert made_by.name == "matrix_transpose"
                made_by = whole.makers[made_by.inputs[0]]
            assert made_by in rounded
    whole, same = recorded(step, x, weight, name="float16", by_plan=False)
    assert not [o for o in whole.operations if o.name == "rounded"]
    for a, b in zip(result, same, strict=True):
        assert_same(a, b, tolerance=rounding(10, "float32"))


def test_of_an_array_that_is_read_in_part_only_the_part_is_rounded(device):
    x, weight = array(draw(5, 6)), array(draw(6, 4, seed=1))
    whole, _ = recorded(lambda x, w: x[:2, :] @ w, x, weight, name="tf32", by_plan=True)
    assert [o.result.shape for o in whole.operations if o.name == "rounded"] == [(2, 6), (6, 4)]


def test_without_a_precision_nothing_is_added(device):
    x, weight = array(draw(5, 6)), array(draw(6, 4, seed=1))
    whole, _ = recorded(lambda x, w: x @ w, x, weight, name="float32", by_plan=False)
    assert [type(o) for o in whole.operations] == [graph.Operation]
    assert whole.operations[0].precision == "float32"


def test_overflow_in_float16_is_infinite_and_silent(device):
    product = xpnet.jit(lambda x, y: x @ y, precision="float16")
    x, y = array(numpy.float32([[70_000.0]])), array(numpy.float32([[2.0]]))
    assert xpnet.to_numpy(product(x, y))[0, 0] == numpy.inf
    assert numpy.isnan(xpnet.to_numpy(product(x, 0 * y))[0, 0])
    assert xpnet.to_numpy(xpnet.jit(lambda x, y: x @ y, precision="bfloat16")(x, y))[0, 0] == 2 * 70_144


def test_an_unknown_precision():
    with pytest.raises(ValueError, match=r"float32, tf32, float16, bfloat16, received 'half'"):
        xpnet.jit(abs, precision="half")
