"""How arrays are repeated in a kernel."""

import pytest

from tests.replay.cases import WHOLE
from xpnet.replay.kernels.kernel import pattern


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ((3, 4, 5), ("full", 0)),
        ((), ("number", 0)),
        ((1, 1), ("number", 0)),
        ((5,), ("row", 1)),
        ((1, 4, 5), ("row", 2)),
        ((3, 4, 1), ("column", 1)),
        ((3, 1, 1), ("column", 2)),
        ((4, 1), None),
        ((3, 1, 5), None),
    ],
)
def test_pattern(shape, expected):
    assert pattern(shape, WHOLE) == expected
