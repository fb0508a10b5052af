import pytest

from autodiff.cases import Case, complexes, named

MATMUL = [
    ((2, 3), (3, 4)),
    ((3,), (3,)),
    ((2, 3), (3,)),
    ((3,), (3, 2)),
    ((2, 2, 3), (3, 4)),
    ((2, 3), (2, 3, 4)),
    ((2, 1, 2, 3), (3, 3, 2)),
    ((2, 2, 3), (3,)),
    ((3,), (2, 3, 2)),
    ((0, 3), (3, 2)),
    ((2, 0), (0, 2)),
    ((2, 0, 3), (3, 2)),
    ((2, 2, 0), (0, 2)),
    ((0,), (0,)),
    (complexes(2, 3), complexes(3, 2)),
    (complexes(2, 3), (3, 2)),
    ((2, 2, 3), complexes(3, 2)),
    (complexes(3), complexes(3)),
]

CASES = {
    "matmul": [
        *(Case(lambda xp, x1, x2: xp.matmul(x1, x2), *pair) for pair in MATMUL),
        Case(lambda xp, x: x @ x, (2, 2)),
    ],
    "vecdot": [
        Case(lambda xp, x1, x2: xp.vecdot(x1, x2), (3,), (3,)),
        Case(lambda xp, x1, x2: xp.vecdot(x1, x2), (2, 3), (2, 3)),
        Case(lambda xp, x1, x2: xp.vecdot(x1, x2), (2, 1, 3), (4, 3)),
        Case(lambda xp, x1, x2: xp.vecdot(x1, x2, axis=-2), (3, 2), (4, 3, 1)),
        Case(lambda xp, x1, x2: xp.vecdot(x1, x2), (2, 0), (2, 0)),
        Case(lambda xp, x1, x2: xp.vecdot(x1, x2), complexes(2, 3), complexes(3)),
        Case(lambda xp, x1, x2: xp.linalg.vecdot(x1, x2, axis=-2), (3, 2), complexes(3, 2)),
    ],
    "tensordot": [
        Case(lambda xp, x1, x2: xp.tensordot(x1, x2, axes=1), (2, 3), (3, 4)),
        Case(lambda xp, x1, x2: xp.tensordot(x1, x2), (2, 3, 4), (3, 4, 2)),
        Case(lambda xp, x1, x2: xp.tensordot(x1, x2, axes=0), (2,), (2, 3)),
        Case(lambda xp, x1, x2: xp.tensordot(x1, x2, axes=((0, 2), (2, 1))), (2, 3, 4), (2, 4, 2)),
        Case(lambda xp, x1, x2: xp.tensordot(x1, x2, axes=((2, 0), (1, 2))), (2, 3, 4), (3, 4, 2)),
        Case(lambda xp, x1, x2: xp.tensordot(x1, x2, axes=((-1,), (-2,))), (2, 3), (2, 3, 4)),
        Case(lambda xp, x1, x2: xp.tensordot(x1, x2, axes=((1,), (0,))), (0, 3), (3, 2)),
        Case(lambda xp, x1, x2: xp.linalg.tensordot(x1, x2, axes=1), complexes(2, 3), complexes(3)),
    ],
}


@pytest.mark.parametrize(**named(CASES))
def test_values(case, xp):
    case.check_values()


@pytest.mark.parametrize(**named(CASES))
def test_gradients(case, xp):
    case.check_gradients()
