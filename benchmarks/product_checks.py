"""The checks of `smoke.py`: products of matrices, alone and in plans."""

import itertools

import numpy
from checks import assert_close, check, each, integers, replay

import xpnet
from xpnet.replay.plans import cuda_products as p

EPILOGUES = ("", p.BIAS, p.RELU, p.RELU_BIAS, p.RELU_AUX, p.RELU_AUX_BIAS, p.DRELU, p.DRELU_BGRAD)
PRECISIONS = ("float32", "tf32", "float16", "bfloat16", "float64")


def multiply(device, first, second, precision, epilogue, *more):
    """Ask the device for a product of two of its arrays; return the result, and raise `ProductError`."""
    names = {"tf32": "float32", "float16": "float16", "bfloat16": "bfloat16"}
    dtype = names.get(precision, precision)
    result_dtype = "float64" if precision == "float64" else "float32"
    shape = (*first.shape[:-1], second.shape[-1])
    result = device.aligned(numpy.full(shape, 7, result_dtype))
    product = p.Product(
        first=p.Matrix.of(first), second=p.Matrix.of(second), dtype=dtype, result=result_dtype,
        precision="tf32" if precision == "tf32" else "float32", epilogue=epilogue,
    )  # fmt: skip
    runtime = device.runtime
    with runtime.active():
        function = runtime.product(product)
        workspace = runtime.memory(function.workspace)
        function(workspace, first, second, result, *more)
        device.finish()
    return result


def stored(x, precision):
    """Return numbers as products take them, and what they then are."""
    if precision == "float16":
        narrow = x.astype("float16")
        return narrow.view("uint16"), narrow.astype("float64")
    if precision == "bfloat16":
        bits = p._narrowed(x.astype("float32"), p.NARROW["bfloat16"])
        return bits, (bits.astype("uint32") << 16).view("float32").astype("float64")
    x = x.astype("float64" if precision == "float64" else "float32")
    return x, x.astype("float64")


def roundings(inner, precision):
    """Return by how many eps of float32, or of float64, a sum of products may be off.

    Each term is rounded, and then added, by a unit that may cut off rather than round: by up to one eps of
    the sum of magnitudes each. The bias is one more term, and the result is rounded. tf32 keeps ten bits
    behind the first: each of two operands may be off by one unit there, which is 2 ** 13 eps of float32.
    """
    return 2 * (inner + 2) + (2 * 2**13 if precision == "tf32" else 0)


def product_case(device, precision, epilogue):
    """Return a function that compares one product with NumPy's."""
    wide = "float64" if precision == "float64" else "float32"
    runtime = device.runtime

    def bits(mask, columns):
        return numpy.unpackbits(mask, axis=1, bitorder="little")[:, :columns] != 0

    def compare(rows, inner, columns, first_layout, second_layout, matrices=()):
        random = numpy.random.default_rng([rows, inner, columns])
        shapes = (*matrices, rows, inner), (*matrices, inner, columns)
        (a, exact_a), (b, exact_b) = (stored(random.normal(size=shape), precision) for shape in shapes)
        bias = random.normal(size=columns).astype(wide)
        mask = numpy.zeros((rows, -(-columns // 128) * 16), "uint8")
        if epilogue in (p.DRELU, p.DRELU_BGRAD):
            mask[...] = random.integers(0, 256, size=mask.shape)
        more = {
            p.BIAS: [bias], p.RELU_BIAS: [bias], p.RELU_AUX: [mask], p.RELU_AUX_BIAS: [bias, mask],
            p.DRELU: [mask], p.DRELU_BGRAD: [mask, 0 * bias],
        }.get(epilogue, [])  # fmt: skip
        more = [device.aligned(x) for x in more]
        put = {
            "rows": device.aligned,
            "columns": lambda x: device.aligned(x.swapaxes(-1, -2)).swapaxes(-1, -2),
        }
        try:
            arrays = put[first_layout](a), put[second_layout](b)
            found = multiply(device, *arrays, precision, epilogue, *more)
        except runtime.ProductError:
            # Plans then do without the epilogue. A product alone has nothing in its place.
            if not epilogue:
                raise
            return "refused"
        expected, magnitude = exact_a @ exact_b, abs(exact_a) @ abs(exact_b)
        if "BIAS" in epilogue:
            expected, magnitude = expected + bias, magnitude + abs(bias)
        times = roundings(inner, precision)
        if "AUX" in epilogue:
            # On which side of zero a number is must be known but for those that rounding takes across.
            sure = abs(expected) > times * numpy.finfo(wide).eps * magnitude
            noted = bits(xpnet.to_numpy(more[-1]), columns)
            assert_close(noted & sure, (expected > 0) & sure)
        if epilogue.startswith("RELU"):
            expected = numpy.maximum(expected, 0)
        if epilogue.startswith("DRELU"):
            expected, magnitude = (numpy.where(bits(mask, columns), x, 0) for x in (expected, magnitude))
        assert_close(found, expected, times, magnitude)
        if epilogue == p.DRELU_BGRAD:
            assert_close(more[1], expected.sum(axis=0), times + 2 * rows, magnitude.sum(axis=0))
        return None

    return compare


def every_product(precision, epilogue):
    def compare(device):
        layouts = itertools.cycle(itertools.product(("rows", "columns"), repeat=2))
        sizes = itertools.product(device.sizes, repeat=3)
        cases = [(*size, *layout) for size, layout in zip(sizes, layouts, strict=False)]
        return each(cases, product_case(device, precision, epilogue))

    check(compare, f"products in {precision}, {epilogue or 'alone'}")


def batches_of_matrices(precision):
    def compare(device):
        layouts = itertools.product(("rows", "columns"), repeat=2)
        cases = [(m, 5, 64, *layout, (n,)) for layout in layouts for m in (1, 64) for n in (1, 3)]
        return each(cases, product_case(device, precision, ""))

    check(compare, f"batches of matrices in {precision}")


def products_in_plans(precision):
    """As plans put them: a bias and a ReLU with their gradients, and views, in numbers without rounding."""

    def f(x, w, b, v, g):
        def loss(x, w, b, v):
            y = xpnet.array_namespace(x).maximum(x @ w + b, 0)
            return xpnet.array_namespace(x).sum((y @ v.T) * g), (y, w.T @ w)

        return xpnet.value_and_grad(loss, argnums=(0, 1, 2, 3), has_aux=True)(x, w, b, v)

    def compare(device):
        dtype = "float64" if precision == "float64" else "float32"
        options = {} if precision in ("float32", "float64") else {"precision": precision}

        def draw(random):
            # Between the integers, so that none is zero in front of the ReLU; in eight bits none loses any.
            shapes = (16, 8), (8, 4), (4,), (8, 4), (16, 8)
            x, w, b, v, g = (numpy.clip(integers(random, *shape, dtype=dtype), -1, 1) for shape in shapes)
            return x, w, b + b.dtype.type(0.5), v, g

        replay(device, f, draw, assert_close, **options)
        views = lambda x, w, *_: (x[:, 1:5] @ w[1:5], x[::2, ::2] @ w[::-2, :3], x.T @ x @ w + w[::-1])
        replay(device, views, draw, assert_close, **options)

    check(compare, f"products in plans in {precision}")


for precision in PRECISIONS:
    products_in_plans(precision)
for precision in PRECISIONS:
    batches_of_matrices(precision)
for epilogue, precision in itertools.product(EPILOGUES, PRECISIONS):
    every_product(precision, epilogue)


# -- what may end a process ---------------------------------------------------------------------------------


def operands_at(offset, precision):
    """Arguments that are parts of larger memory, at a place that wide loads cannot read from."""

    def f(x, w, b):
        y = xpnet.array_namespace(x).maximum(x @ w + b, 0)
        return y, y @ w.T, x[1:, 1:] @ w[1:]

    def compare(device):
        dtype = "float64" if precision == "float64" else "float32"
        options = {} if precision in ("float32", "float64") else {"precision": precision}
        skipped = -(-offset // numpy.dtype(dtype).itemsize)
        random = numpy.random.default_rng(0)
        for rows, inner, columns in itertools.product((3, 64, 129), (3, 64), (5, 64)):
            recorded = xpnet.jit(f, **options)
            for _ in range(3):
                shapes = (rows, inner), (inner, columns), (columns,)
                arrays = [numpy.clip(integers(random, *shape, dtype=dtype), -1, 1) for shape in shapes]
                given = []
                for x in arrays:
                    memory = device.array(numpy.concatenate([numpy.zeros(skipped, dtype), x.ravel()]))
                    given.append(memory[skipped:].reshape(x.shape))
                for one, other in zip(recorded(*given), f(*arrays), strict=True):
                    assert_close(one, other)

    check(compare, f"operands at {offset} bytes in {precision}", last=True)


for offset, precision in itertools.product((16, 4), PRECISIONS):
    operands_at(offset, precision)
