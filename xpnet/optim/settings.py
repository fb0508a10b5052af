"""Checks of the settings of optimizers and schedules. Each returns the setting as a Python number.

A number of NumPy's, from `numpy.logspace` say, would turn float32 arrays into float64.
"""


def at_least_zero(name: str, value: float) -> float:
    if not value >= 0:
        raise ValueError(f"{name} must be at least 0, received {value}.")
    return float(value)


def positive(name: str, value: float) -> float:
    if not value > 0:
        raise ValueError(f"{name} must be positive, received {value}.")
    return float(value)


def fraction(name: str, value: float) -> float:
    if not 0 <= value < 1:
        raise ValueError(f"{name} must be at least 0 and less than 1, received {value}.")
    return float(value)


def count(name: str, value: int) -> int:
    if not value >= 1:
        raise ValueError(f"{name} must be at least 1, received {value}.")
    return int(value)
