import pytest

from tests.replay.graphs import recorder
from tests.replay.kinds import KINDS, use


def pytest_generate_tests(metafunc):
    for name in {"kind_of_plan", "record"}.intersection(metafunc.fixturenames):
        chosen = metafunc.definition.get_closest_marker("plans")
        metafunc.parametrize(name, chosen.args if chosen else KINDS, indirect=True)


@pytest.fixture
def kind_of_plan(request, monkeypatch):
    """One kind of plan after the other, or of those that a mark names, is what `jit` makes."""
    use(request.param, monkeypatch)
    return request.param


@pytest.fixture
def record(request, monkeypatch):
    """What records a function for one kind of plan after the other, or for those that a mark names."""
    return recorder(request.param, monkeypatch)


@pytest.fixture
def on_host(monkeypatch, caplog):
    """Return a function that lets `jit` make plans for a stand-in, and returns that.

    Where none can be made, `jit` says so and calls the functions, and all results are right: that is no pass.
    """
    yield lambda **options: use("cuda", monkeypatch, **options)
    said = [record.getMessage() for record in caplog.get_records("call")]  # `text` is of this phase alone
    assert not any("jit calls one operation after the other" in text for text in said)
