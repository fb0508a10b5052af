"""Random numbers: the same on every library, evenly spread, and without visible patterns."""

import numpy
import pytest
from helpers import assert_on, assert_same

import xpnet
from xpnet import random


@pytest.mark.parametrize(
    ("place", "holds"), [(0, True), (624, True), (625, False), (-1, False), (True, False), (3.0, False)]
)
def test_place_in_the_numbers_of_a_generator(place, holds):
    state = {"bit_generator": "MT19937", "state": {"key": numpy.zeros(624, "uint32"), "pos": place}}
    if holds:
        random.check_host_state(state)
        return
    with pytest.raises(ValueError, match="from 0 to 624, received"):
        random.check_host_state(state)


@pytest.mark.parametrize(("place", "holds"), [(0, True), (4, True), (5, False), (-1, False)])
def test_place_in_the_buffer_of_a_generator(place, holds):
    state = numpy.random.Philox(0).state | {"buffer_pos": place}
    if holds:
        random.check_host_state(state)
        return
    with pytest.raises(ValueError, match="from 0 to 4, received"):
        random.check_host_state(state)


def lowbias(x):
    """C. Wellons' hash on Python integers, which know no overflow."""
    x ^= x >> 16
    x = x * 0x21F0AAAD % 2**32
    x ^= x >> 15
    x = x * 0x735A2D97 % 2**32
    return x ^ x >> 15


def expected(key, draws, count):
    start = lowbias(key ^ lowbias(draws))
    return numpy.asarray([(lowbias(lowbias(i) ^ start) >> 8) * 2.0**-24 for i in range(count)])


def draw(device, seed, shape, times=1, dtype="float64"):
    """Draw several times in a row; return the draws and the last state."""
    with xpnet.use_device(device):
        state, draws = random.new_state(seed), []
        for _ in range(times):
            values, state = random.uniform(device.namespace, state, shape, getattr(device.namespace, dtype))
            draws.append(values)
    return draws, state


def on_host(seed, shape, times=1):
    draws, _ = draw(xpnet.device("cpu"), seed, shape, times)
    return numpy.stack(draws)


# -- the same everywhere ----------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_numbers_are_those_of_the_definition(device, dtype):
    draws, state = draw(device, 7, (3, 5), times=3, dtype=dtype)
    key = int(xpnet.to_numpy(random.new_state(7))[0])
    for number, values in enumerate(draws):
        assert_on(values, device, dtype, (3, 5))
        assert_same(values, expected(key, number, 15).reshape(3, 5).astype(dtype), tolerance=0)
    assert_on(state, device, "int32", (2,))
    assert xpnet.to_numpy(state).tolist() == [key, 3]


@pytest.mark.parametrize("key", [0, 1, 2**31 - 1])
@pytest.mark.parametrize("draws", [0, 2**30])
def test_extreme_states(device, xp, key, draws):
    state = xpnet.asarray([key, draws], dtype="int32")
    values, following = random.uniform(xp, state, (4,), xp.float64)
    assert_same(values, expected(key, draws, 4), tolerance=0)
    assert xpnet.to_numpy(following).tolist() == [key, draws + 1]
    assert xpnet.to_numpy(state).tolist() == [key, draws]


@pytest.mark.parametrize("shape", [(), (0,), (2, 0, 3), (1,), (2, 3, 4)])
def test_shapes(device, shape):
    (values,), _ = draw(device, 0, shape)
    assert_on(values, device, "float64", shape)


def test_traced_numbers_are_the_same(device, xp):
    x = xpnet.trace(xpnet.asarray([1.0]))
    state = random.new_state(3)
    plain, _ = random.uniform(xp, state, (6,), xp.float32)
    traced, following = random.uniform(xpnet.array_namespace(x), state, (6,), xp.float32)
    assert_same(traced.value, plain, tolerance=0)
    assert xpnet.to_numpy(following.value).tolist()[1] == 1


def test_seeds(device):
    def key(seed):
        return xpnet.to_numpy(random.new_state(seed)).tolist()

    assert key(5) == key(5) == key(numpy.random.default_rng(5))
    assert key(5) != key(6)
    assert key(None) != key(None)
    generator = numpy.random.default_rng(5)
    assert key(generator) != key(generator)
    assert key(5)[1] == 0


def test_keys_use_all_their_bits():
    keys = {int(xpnet.to_numpy(random.new_state(seed))[0]) for seed in range(200)}
    assert len(keys) == 200
    assert numpy.bitwise_or.reduce(list(keys)) == 2**31 - 1


def test_new_state_is_on_the_current_device(device):
    assert_on(random.new_state(0), device, "int32", (2,))


# -- statistics, on NumPy: the other libraries give the same numbers --------------------------------------

N = 200_000


def test_uniform_on_the_unit_interval():
    x = on_host(0, (N,), times=3).ravel()
    assert 0 <= x.min() < 1e-4
    assert 1 - 1e-4 < x.max() < 1
    assert abs(x.mean() - 0.5) < 4 / numpy.sqrt(12 * x.size)
    assert abs(x.var() - 1 / 12) < 4 * numpy.sqrt(1 / 180 / x.size)
    counts, _ = numpy.histogram(x, bins=100, range=(0, 1))
    chi2 = ((counts - x.size / 100) ** 2 / (x.size / 100)).sum()
    assert 50 < chi2 < 160  # 99 degrees of freedom: mean 99, standard deviation 14


def test_each_bit_is_even():
    bits = (on_host(1, (N,)).ravel() * 2**24).astype(numpy.int64)
    for bit in range(24):
        assert abs((bits >> bit & 1).mean() - 0.5) < 5 * 0.5 / numpy.sqrt(N), bit


@pytest.mark.parametrize("lag", [1, 2, 7, 64, 256])
def test_neighbouring_elements_are_not_correlated(lag):
    x = on_host(2, (N,)).ravel()
    assert abs(numpy.corrcoef(x[:-lag], x[lag:])[0, 1]) < 5 / numpy.sqrt(N)


def test_consecutive_draws_are_not_correlated():
    draws = on_host(3, (N // 10,), times=8)
    correlations = numpy.corrcoef(draws) - numpy.eye(8)
    assert numpy.abs(correlations).max() < 5 / numpy.sqrt(N // 10)


def test_close_keys_and_draws_give_unrelated_streams():
    streams = [
        random.uniform(
            xpnet.device("cpu").namespace, numpy.asarray(state, dtype="int32"), (N // 10,), numpy.float64
        )[0]
        for state in [(k, d) for k in (0, 1, 2, 1 << 16, 1 << 30) for d in (0, 1, 2)]
    ]
    correlations = numpy.corrcoef(streams) - numpy.eye(len(streams))
    assert numpy.abs(correlations).max() < 5 / numpy.sqrt(N // 10)
    assert len({tuple(stream[:4]) for stream in streams}) == len(streams)
