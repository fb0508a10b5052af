"""What is computed once for each object, without a lock."""

import functools
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING or sys.version_info >= (3, 12):
    from functools import cached_property as cached_property
else:

    class cached_property(functools.cached_property):
        """As from Python 3.12 on.

        Before, all objects of a class share a lock. If Ctrl-C, or the handler of another signal, raises at
        the wrong moment, it stays locked, and every other thread waits for ever.
        """

        def __get__(self, instance: Any, owner: Any = None) -> Any:
            if instance is None:
                return self
            values = vars(instance)
            if self.attrname not in values:
                values[self.attrname] = self.func(instance)
            return values[self.attrname]
