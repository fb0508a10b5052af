"""Functions with settings, like `functools.partial`, but two with the same settings are equal."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Bound:
    """A function with its first arguments, like `functools.partial`, of which no two are equal.

    Attributes
    ----------
    function : callable
    settings : tuple
        The first arguments.
    """

    function: Callable[..., Any]
    settings: tuple[Any, ...]

    def __call__(self, *arguments: Any) -> Any:
        return self.function(*self.settings, *arguments)
