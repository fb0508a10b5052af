"""What a recording would freeze, random numbers of the host and the time, is told with the line."""

# ruff: noqa: NPY002  # the old functions of NumPy's are drawn from, too

import contextlib
import datetime
import functools
import logging
import os
import random
import secrets
import time
import types
import uuid
from datetime import datetime as moment
from random import gauss
from time import perf_counter_ns

import numpy
import pytest
import scipy.stats
import sklearn.utils
from numpy.random import default_rng, normal

import xpnet
from xpnet import nn
from xpnet.replay.same import randomness

THIS = os.path.basename(__file__)
GENERATOR, STATE, PYTHON = default_rng(0), numpy.random.RandomState(0), random.Random(0)
PARTS = types.SimpleNamespace(generator=GENERATOR, inner=types.SimpleNamespace(python=PYTHON))


@pytest.fixture(autouse=True)
def nothing_is_told_yet(monkeypatch):
    monkeypatch.setattr(randomness, "_told", set())


def with_import():
    import numpy as library

    return library.random.normal()


def with_import_of_a_part():
    import numpy.random

    return numpy.random.normal()


def with_import_by_another_name():
    import numpy.random as library

    return library.normal()


def with_import_of_a_function():
    from numpy.random import normal as drawn

    return drawn()


def with_import_for_a_function_inside():
    import random as library

    def inside():
        return library.random()

    return inside()


def with_another_name():
    generator, shift = GENERATOR, 1.0
    return generator.normal() + shift


# fmt: off
DRAWS = {
    "numpy.random.normal": lambda: numpy.random.normal(),
    "numpy.random.rand": lambda: numpy.random.rand(),
    "numpy.random.sample": lambda: numpy.random.sample(),
    "numpy.random.default_rng": lambda: numpy.random.default_rng().normal(),
    "default_rng": lambda: default_rng().normal(),
    "normal": lambda: normal(size=1)[0],
    "GENERATOR.normal": lambda: GENERATOR.normal(),
    "GENERATOR.permutation": lambda: float(GENERATOR.permutation(3)[0]),
    "GENERATOR.standard_normal": lambda: GENERATOR.standard_normal(*[1])[0],
    "STATE.uniform": lambda: STATE.uniform(),
    "PARTS.generator.normal": lambda: PARTS.generator.normal(),
    "PARTS.inner.python.random": lambda: PARTS.inner.python.random(),
    "random.random": lambda: random.random(),
    "random.randint": lambda: random.randint(0, 9),
    "random.SystemRandom": lambda: random.SystemRandom().random(),
    "gauss": lambda: gauss(0, 1),
    "PYTHON.uniform": lambda: PYTHON.uniform(0, 1),
    "time.time": lambda: time.time(),
    "time.monotonic_ns": lambda: float(time.monotonic_ns()),
    "time.process_time": lambda: time.process_time(),
    "time.localtime": lambda: float(time.localtime().tm_sec),
    "perf_counter_ns": lambda: float(perf_counter_ns()),
    "os.urandom": lambda: float(os.urandom(1)[0]),
    "secrets.randbelow": lambda: float(secrets.randbelow(9)),
    "secrets.choice": lambda: float(secrets.choice([1, 2])),
    "uuid.uuid1": lambda: float(uuid.uuid1().int % 9),
    "uuid.uuid4": lambda: float(uuid.uuid4().int % 9),
    "datetime.datetime.now": lambda: float(datetime.datetime.now().second),
    "datetime.date.today": lambda: float(datetime.date.today().day),
    "moment.today": lambda: float(moment.today().second),
    "library.random.normal": with_import,
    "numpy.random.normal ": with_import_of_a_part,
    "library.normal": with_import_by_another_name,
    "drawn": with_import_of_a_function,
    "library.random": with_import_for_a_function_inside,
    "generator.normal": with_another_name,
}
# fmt: on


def told(caplog):
    """Return what was said and where, and check how."""
    said = []
    for record in caplog.records:
        assert record.name == "xpnet"
        assert record.levelno == logging.WARNING
        message = record.getMessage()
        assert "xpnet.random" in message
        name = message.removeprefix("xpnet: ").partition(" is called")[0]
        said.append((name, message.partition("It stands at ")[2]))
    return said


def line_of(text):
    """Return the place at which a text stands in this file, once."""
    with open(__file__, encoding="utf-8") as file:
        (found,) = [(number, line) for number, line in enumerate(file, 1) if text in line]
    return f"{__file__}:{found[0]}: {found[1].strip()}"


@pytest.mark.parametrize("name", DRAWS)
def test_what_is_drawn_is_told(name, caplog):
    draw = DRAWS[name]
    recorded = xpnet.jit(lambda x: x + draw() + draw())
    draw()
    assert not caplog.records
    first = recorded(numpy.ones(2))
    assert (recorded(numpy.ones(2)) == first).all()
    ((what, where),) = told(caplog)
    assert what == name.strip()
    assert f"{THIS}:" in where
    expected = f'"{name}"' if draw.__name__ == "<lambda>" else f"{what}("
    assert expected in where


def test_the_line_is_that_in_the_file(caplog):
    def f(x):
        shift = 1.0 + (
            time.perf_counter()  # the line in question
        )
        return x + shift

    xpnet.jit(f)(numpy.ones(2))
    assert told(caplog) == [("time.perf_counter", line_of("# the line in" + " question"))]


def test_functions_that_are_no_global(caplog):
    generator, clock = default_rng(0), time.time

    def f(x):
        shifts = [generator.uniform() for _ in range(2)]  # of a cell
        return x + sum(shifts) + inner()

    def inner():
        return (lambda: clock())()  # of a function inside

    xpnet.jit(f)(numpy.ones(2))
    assert sorted(told(caplog)) == [
        ("clock", line_of("# of a function" + " inside")),
        ("generator.uniform", line_of("# of a" + " cell")),
    ]


class Noise(nn.Module):
    def __init__(self):
        self.rng, self.others = default_rng(0), [random.Random(0)]
        self.gamma = numpy.ones(2)

    def __call__(self, x):
        self.rng.spawn(1)
        y = self.gamma * x + self.power(x) + self.rng.normal()
        return y + self.others[0].random()

    def power(self, x):
        return x * 0


def test_a_method_of_what_is_not_known(caplog):
    """It is told, but not where other attributes have such names."""
    net = Noise()
    xpnet.jit(lambda net, x: net(x))(net, numpy.ones(2))
    assert [name for name, _ in told(caplog)] == ["self.rng.normal", "random"]


def test_a_method_of_an_argument(caplog):
    xpnet.jit(lambda x, rng: x + rng.random())(numpy.ones(2), random.Random(0))
    assert [name for name, _ in told(caplog)] == ["rng.random"]


def test_a_method_without_a_generator_is_not_told(caplog):
    xpnet.jit(lambda x, other: x + other.normal())(
        numpy.ones(2), types.SimpleNamespace(normal=functools.partial(float, 1))
    )
    assert not caplog.records


def test_a_step_of_a_scan(caplog):
    def total(x):
        def step(carried, element):
            return carried + element * random.random(), None  # in a step

        return xpnet.scan(step, numpy.zeros(()), x)[0]

    total(numpy.ones(3))
    expected = [("random.random", line_of("# in a" + " step"))]
    assert told(caplog) == expected
    xpnet.jit(total)(numpy.ones(3))
    assert told(caplog) == expected


def test_each_line_is_told_once(caplog):
    def f(x, factor):
        return x * factor + random.random()

    recorded = xpnet.jit(f)
    for size in (2, 3):
        recorded(numpy.ones(size), 2.0)
        recorded(numpy.ones(size), 3.0)
        xpnet.jit(f)(numpy.ones(size), 2.0)
    assert len(told(caplog)) == 1


def test_what_is_not_recorded_is_not_told(caplog):
    def loss(outputs, y):
        return xpnet.losses.mse(outputs, y) * (1 + 0 * random.random())

    x = numpy.ones((4, 2), "float32")
    xpnet.fit(nn.Dense(2, 2, seed=0), x, x, loss=loss, optimizer=xpnet.optim.SGD(0.1), epochs=1, jit=False)
    assert not caplog.records
    with pytest.raises(xpnet.errors.NotRecordableError):
        xpnet.jit(lambda x: float(x[0]) * random.random())(numpy.ones(2))
    assert not caplog.records


def test_what_draws_nothing_for_a_recording_is_not_told(caplog):
    log = logging.getLogger("another")
    state = xpnet.random.new_state(0)

    def f(net, x):
        dense = nn.Dense(2, 2, seed=0)
        GENERATOR.spawn(1)
        PYTHON.setstate(PYTHON.getstate())
        STATE.seed(0)
        STATE.set_state(STATE.get_state())
        random.seed(0)
        numpy.random.seed(0)
        shift = numpy.random.default_rng(0).normal() + random.Random(0).random()
        shift += numpy.random.RandomState(seed=0).normal()
        assert isinstance(PYTHON, random.Random)
        shift += float(scipy.stats.norm.rvs(random_state=0))
        shift += float(sklearn.utils.check_random_state(0).get_state()[2])
        shift += datetime.datetime(2000, 1, 1).year + time.gmtime(0).tm_year
        time.sleep(0)
        log.info("a record of the log has its time")
        noise, _ = xpnet.random.uniform(xpnet.array_namespace(x), state, x.shape, x.dtype)
        return net(x) + dense.weight[0, 0] + noise + shift

    net = nn.Sequential(nn.Dense(2, 2, seed=0), nn.Dropout(0.5, seed=1))
    xpnet.jit(f)(net, numpy.ones((1, 2), "float32"))
    assert not caplog.records


def test_code_of_packages_is_not_read(caplog):
    """Nor that of a function around one of the user's, which has its name."""
    space = {"__name__": "scipy.stats", "time": time}
    source = "def around(f): return lambda x: f(x) + time.time()"
    exec(compile(source, scipy.stats.__file__, "exec"), space)

    @contextlib.contextmanager
    def shifted():
        yield float(scipy.stats.norm.rvs()) + float(sklearn.utils.check_random_state(None).normal())

    def f(x):
        with shifted() as shift:
            return x + shift + float(sklearn.utils.shuffle(numpy.ones(2))[0])

    xpnet.jit(space["around"](f))(numpy.ones(2))
    assert not caplog.records


def test_a_property_is_not_run(caplog):
    class Settings:
        @property
        def rng(self):
            calls.append(1)
            return GENERATOR

    calls, settings = [], Settings()

    def f(x):
        return x + (settings.rng.normal() if x.shape == (3,) else 0)

    xpnet.jit(f)(numpy.ones(2))
    assert not calls
    assert [name for name, _ in told(caplog)] == ["settings.rng.normal"]


def test_nothing_is_replaced_while_something_is_recorded():
    kinds = (numpy.random.Generator, numpy.random.RandomState, random.Random, datetime.datetime)

    def all_functions():
        return [dict(vars(owner)) for owner in (*kinds, numpy.random, random, secrets, time, uuid, os)]

    before, during = all_functions(), []

    def f(x):
        during.append(all_functions())
        return x + GENERATOR.normal() + time.time()

    xpnet.jit(f)(numpy.ones(1))
    assert during == [before]
