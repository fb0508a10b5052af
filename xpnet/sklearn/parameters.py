"""What the parameters of the estimators may be, where scikit-learn's constraints do not say it."""

from collections.abc import Sequence
from numbers import Integral
from typing import Any

from sklearn.utils._param_validation import Interval

from xpnet.settings import is_integer, is_number


class Number(Interval):
    """A number of any library in an interval. True is no number here, though scikit-learn takes it for 1."""

    def is_satisfied_by(self, val: Any) -> bool:
        if self.type is Integral:
            return is_integer(val) and int(val) in self
        return is_number(val) and float(val) in self


class Numbers(Number):
    """One such number, or a sequence of them: a list, a tuple, a range or an array."""

    def is_satisfied_by(self, val: Any) -> bool:
        return all(super(Numbers, self).is_satisfied_by(each) for each in several(val))

    def __str__(self) -> str:
        return f"{super().__str__()}, or a list, tuple or array of such"


def is_several(value: Any) -> bool:
    """Say whether a value is a list, a tuple, a range or an array of values, not one alone."""
    is_sequence = isinstance(value, Sequence) and not isinstance(value, str | bytes)
    return is_sequence or getattr(value, "shape", ()) != ()


def several(value: Any) -> list[Any]:
    """Return what is in a sequence or an array, or one value alone, as a list."""
    return list(value) if is_several(value) else [value]
