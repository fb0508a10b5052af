"""Plans for CUDA, on a stand-in for a device: see `host.py`. What runs on a GPU is the same text."""

import threading

import numpy
import pytest

import xpnet
from tests.replay.cases import (
    assert_within_roundings,
)
from tests.replay.plans.trainings import dense, train
from xpnet.replay.plans.cuda_products import ALIGNMENT


def test_a_training_is_captured_once(on_host):
    host = on_host()
    train(dense(), steps=20)
    assert host.graphs == 1


@pytest.mark.parametrize("size", [0, 1, 26, 42, 1000, 10**6])
def test_the_stand_in_makes_results_that_begin_where_those_of_cupy_do(on_host, size):
    host = on_host()
    x = numpy.ones(size)
    made = [host.copies([x])[0] for _ in range(30)]
    assert {each.ctypes.data % ALIGNMENT for each in made} == {0}
    assert {each.base for each in made} == {None}
    numpy.testing.assert_array_equal(made[-1], x)


def test_results_stay_when_the_next_ones_are_made(on_host):
    on_host()
    f = xpnet.jit(lambda x, w: (x @ w, xpnet.array_namespace(x).sum(x), w))
    random = numpy.random.default_rng(0)
    w = random.normal(size=(3, 3))
    inputs = list(random.normal(size=(6, 2, 3)))
    found = [f(x, w) for x in inputs]
    assert_within_roundings(found, [(x @ w, x.sum(), w) for x in inputs])
    assert all(result[2] is w for result in found)


def test_networks_in_turn_do_not_touch_each_other(on_host):
    """Two trainings with one step, each with parameters at places of their own."""
    host = on_host()
    step = xpnet.jit(lambda w, x: (w - x, xpnet.array_namespace(w).sum(w)), donate=("w",))
    one, two = numpy.zeros(3), numpy.ones(3)
    x = numpy.asarray([1.0, 2.0, 3.0])
    for k in range(1, 9):
        one, _ = step(one, x * 1)
        two, _ = step(two, x * 2)
        assert_within_roundings((one, two), (-k * x, 1 - 2 * k * x))
    assert host.graphs <= 2


def test_what_is_returned_twice_is_two_arrays(on_host):
    on_host()
    step = xpnet.jit(lambda w, x: (*[w + x] * 2, *[x * 2] * 2), donate=("w",))
    w = numpy.zeros(3)
    for k in range(1, 5):
        w, again, *rest = step(w, numpy.ones(3))
        assert_within_roundings((w, again, *rest), [numpy.full(3, float(n)) for n in (k, k, 2, 2)])
        assert not numpy.may_share_memory(w, again)
        assert not numpy.may_share_memory(*rest)
    assert "1 results written over arguments" in step.explain()


def test_what_is_not_donated_is_not_written_to(on_host):
    on_host()
    step = xpnet.jit(lambda w, x: (w - x, w * x))
    w, x = numpy.ones(3), numpy.ones(3)
    for _ in range(4):
        assert_within_roundings(step(w, x), (numpy.zeros(3), numpy.ones(3)))
    assert_within_roundings((w, x), (numpy.ones(3), numpy.ones(3)))


def test_arguments_that_overlap_are_copied(on_host):
    on_host()
    step = xpnet.jit(lambda w, x: (w + x, x * 2), donate=("w",))
    memory = numpy.arange(6.0)
    for _ in range(4):
        assert_within_roundings(step(memory[:3], memory[3:]), (memory[:3] + memory[3:], memory[3:] * 2))
        assert_within_roundings(memory, numpy.arange(6.0))
    x = numpy.ones(3)
    for _ in range(4):
        assert_within_roundings(step(x, x), (numpy.full(3, 2.0), numpy.full(3, 2.0)))


def test_an_argument_that_is_a_part_of_a_donated_one(on_host):
    on_host()
    step = xpnet.jit(lambda w, x: (w + 1, x * 2), donate=("w",))
    for _ in range(4):
        w = numpy.arange(4.0)
        assert_within_roundings(step(w, w[1:3]), (w + 1, w[1:3] * 2))
        assert_within_roundings(w, numpy.arange(4.0))


def test_what_cannot_be_captured_is_launched_each_time(on_host):
    host = on_host()
    f = xpnet.jit(lambda x: xpnet.array_namespace(x).cumulative_sum(x * 2) + 1)
    for scale in range(1, 6):
        x = numpy.arange(5.0) * scale
        assert_within_roundings(f(x), numpy.cumsum(x * 2) + 1)
    assert host.graphs == 0
    assert "not captured: RuntimeError: a call of a library" in f.explain()


def test_without_nvmath_a_plan_says_what_to_install(on_host):
    host = on_host(problem="nvmath-python is not installed; pip install it")
    *_, step = train(dense())
    assert host.graphs == 0
    assert "not captured: nvmath-python is not installed" in step.explain()


def test_where_a_plan_fails_the_functions_are_called(on_host, monkeypatch, caplog):
    host = on_host()

    def fail(*_):
        raise RuntimeError("the compiler is missing")

    monkeypatch.setattr(host, "kernel", fail)
    f = xpnet.jit(lambda x: x * 2 + 1)
    for _ in range(3):
        assert_within_roundings(f(numpy.ones(3)), numpy.full(3, 3.0))
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "RuntimeError: the compiler is missing" in caplog.text
    caplog.clear()


def test_an_interrupted_capture_leaves_all_usable(on_host, monkeypatch):
    host = on_host()
    step = xpnet.jit(lambda w, x: w - x, donate=("w",))
    w = step(step(numpy.zeros(3), numpy.ones(3)), numpy.ones(3))
    other = xpnet.jit(lambda w, x: w - 2 * x, donate=("w",))
    w = other(w, numpy.ones(3))

    def interrupted(_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(host, "capture", interrupted)
        with pytest.raises(KeyboardInterrupt):
            other(w, numpy.ones(3))
    assert_within_roundings(w, numpy.full(3, -4.0))
    for k in range(4):
        w = other(w, numpy.ones(3))
        assert_within_roundings(w, numpy.full(3, -6.0 - 2 * k))


def test_a_loop_within_a_plan_is_one_of_plans(on_host):
    def step(carried, x, w):
        xp = xpnet.array_namespace(carried, w)
        carried = xp.maximum(carried @ w, 0.0) + x
        return carried, carried * 2

    def f(carried, xs, w):
        last, ys = xpnet.scan(step, carried, xs * 2, w)
        return last + 1, ys

    random = numpy.random.default_rng(0)
    host = on_host()
    recorded = xpnet.jit(f)
    for _ in range(4):
        arrays = random.normal(size=(2, 3)), random.normal(size=(5, 2, 3)), random.normal(size=(3, 3)) / 3
        assert_within_roundings(recorded(*arrays), f(*arrays))
    assert host.graphs > 0


def test_two_threads_with_one_plan(on_host):
    on_host(problem="the stand-in captures one at a time")
    f = xpnet.jit(lambda x: (x * 2 + 1, xpnet.array_namespace(x).sum(x)))
    f(numpy.ones(1000))
    wrong = []

    def work(number):
        for _ in range(20):
            x = numpy.full(1000, float(number))
            y, total = f(x)
            if not (y == 2 * number + 1).all() or total != 1000 * number:
                wrong.append(number)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_a_plan_on_two_streams(on_host):
    """What was started on one stream may not be done yet when the plan runs on the other."""
    host = on_host()

    def f(x):
        xp = xpnet.array_namespace(x)
        y = xp.exp(x - xp.sum(x * x))
        return xp.sum(y * x, axis=0), xp.sum(y), y @ y.T

    recorded = xpnet.jit(f)
    random = numpy.random.default_rng(0)
    inputs = list(random.normal(size=(8, 300, 100)) / 200)
    recorded(inputs[0])
    found = []
    for number, x in enumerate(inputs):
        host.stream = f"stream {number % 2}"
        found.append(recorded(x))
    host.finish()
    assert host.graphs == 2
    assert_within_roundings(found, [f(x) for x in inputs], roundings=100)
