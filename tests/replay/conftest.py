import pytest

from tests.replay.graphs import KINDS, recorder


def pytest_generate_tests(metafunc):
    if "record" in metafunc.fixturenames:
        chosen = metafunc.definition.get_closest_marker("plans")
        metafunc.parametrize("record", chosen.args if chosen else KINDS, indirect=True)


@pytest.fixture
def record(request, monkeypatch):
    """What records a function for one kind of plan after the other, or for those that a mark names."""
    return recorder(request.param, monkeypatch)
