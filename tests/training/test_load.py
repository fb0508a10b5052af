"""Under load: threads, processes, copies, and many trainings in one process."""

import copy
import multiprocessing
import pickle
import sys
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor

import numpy as np
import pytest
from helpers import network

import xpnet
from training import soak
from training.cases import X, Y, same, train, weights


def work(seed, jit=True):
    """Train and predict; return all that comes of it."""
    net = network(3, 8, 2, dropout=0.2, seed=seed)
    history = train(net, seed=seed, jit=jit, validation=0.2)
    return [*weights(net), np.asarray(history["loss"]), xpnet.predict(net, X)]


@pytest.mark.parametrize("jit", [False, True])
def test_eight_threads_do_as_one(jit):
    expected = [work(seed, jit) for seed in range(16)]
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda seed: work(seed, jit), range(16)))
    assert all(same(a, b) for a, b in zip(found, expected, strict=True))


def test_eight_threads_share_a_plan():
    """One recorded step, called from all threads at once with networks of their own."""
    optimizer = xpnet.optim.Adam(0.01)

    def step(net, state, x, y):
        value, gradients = xpnet.value_and_grad(lambda net: xpnet.losses.cross_entropy(net(x), y))(net)
        return *optimizer.update(gradients, state, net), value

    def trained(seed, step):
        net = network(3, 8, 2, dropout=0.2, seed=seed)
        state = optimizer.init(net)
        for _ in range(30):
            net, state, _ = step(net, state, X.astype("float32"), Y)
        return weights(net)

    alone = xpnet.jit(step, donate=("net", "state"))
    expected = [trained(seed, alone) for seed in range(16)]
    shared = xpnet.jit(step, donate=("net", "state"))
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda seed: trained(seed, shared), range(16)))
    assert all(same(a, b) for a, b in zip(found, expected, strict=True))


def test_eight_threads_predict_with_one_network():
    net = network(3, 8, 2, dropout=0.2)
    expected = xpnet.predict(net, X, batch_size=7)
    with ThreadPoolExecutor(8) as pool:
        for outputs in pool.map(lambda _: xpnet.predict(net, X, batch_size=7), range(40)):
            assert np.array_equal(outputs, expected)


@pytest.mark.parametrize(
    "make", [copy.deepcopy, lambda net: pickle.loads(pickle.dumps(net))], ids=["copy", "pickle"]
)
def test_copies_are_networks_of_their_own(device, make):
    net = network(3, 8, 2, dropout=0.2)
    train(net)  # also a network that was trained
    before = weights(net)
    other = make(net)
    assert repr(other) == repr(net)
    assert same(weights(other), before)
    a, b = xpnet.predict(net, X), xpnet.predict(other, X)
    assert np.array_equal(xpnet.to_numpy(a), xpnet.to_numpy(b))
    train(other)
    assert same(weights(net), before)
    assert not same(weights(other), before)
    train(net)
    assert same(weights(net), weights(other))


@pytest.mark.parametrize(
    "value",
    [
        xpnet.optim.SGD(0.1, momentum=0.9),
        xpnet.losses.cross_entropy,
        xpnet.History({"loss": [1.0]}),
    ],
    ids=["optimizer", "loss", "history"],
)
def test_what_else_a_process_is_given_pickles(value):
    assert repr(pickle.loads(pickle.dumps(value))) == repr(value)


def test_processes_do_as_one():
    with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("spawn")) as pool:
        found = list(pool.map(work, range(2)))
        outputs = pool.submit(xpnet.predict, network(3, 8, 2, dropout=0.2), X).result()
    assert all(same(found[seed], work(seed)) for seed in range(2))
    assert np.array_equal(outputs, xpnet.predict(network(3, 8, 2, dropout=0.2), X))


@pytest.mark.skipif(sys.platform != "linux", reason="memory is read by means of Linux")
@pytest.mark.parametrize(
    ("fits", "steps"), [(10, 1_000), pytest.param(40, 8_000, marks=pytest.mark.slow)], ids=["few", "many"]
)
def test_memory_stays_flat(fits, steps):
    soak.fits(fits // 2)  # what is made once and kept
    assert soak.fits(fits) < 2**22
    assert soak.steps(steps) < 2**22
