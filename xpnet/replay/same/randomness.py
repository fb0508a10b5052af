"""A warning where a function that is recorded names what draws random numbers of the host, or tells the time.

What these return is a constant of the recording. Nothing is watched while the function runs: the code of all
the functions of the user's that it can reach is read.
"""

import datetime
import inspect
import logging
import os
import random
import secrets
import sys
import time
import types
import uuid
from collections.abc import Iterator
from typing import Any

import numpy

from xpnet.arrays import line_of
from xpnet.replay.same.code import inner, instructions
from xpnet.replay.same.facts import Access, Facts, Place
from xpnet.replay.same.objects import UNKNOWN, contents_of_cells, is_installed

_log = logging.getLogger("xpnet")

_GENERATORS = numpy.random.Generator, numpy.random.RandomState, random.Random

# What of a generator draws nothing.
_STATE = {"VERSION", "bit_generator", "get_state", "getstate", "seed", "set_state", "setstate", "spawn"}

_OF_TIME = "monotonic", "perf_counter", "process_time", "thread_time", "time"
_DRAWING = (
    *(value for name, value in vars(time).items() if name.removesuffix("_ns") in _OF_TIME),
    *(value for name, value in vars(uuid).items() if name in ("uuid1", "uuid4", "uuid6", "uuid7")),
    *(secrets.randbelow, secrets.token_bytes, secrets.token_hex, secrets.token_urlsafe),
    *(numpy.random.ranf, numpy.random.sample, os.urandom),
)

# These do where they are called without arguments: with a seed, or a time, they return the same each time.
_DRAWING_ALONE = (
    *(numpy.random.default_rng, numpy.random.RandomState, random.Random, random.SystemRandom),
    *(time.ctime, time.gmtime, time.localtime),
)

_METHODS = types.MethodType, types.BuiltinMethodType

# The name of what a call returns. If that is a generator, its seed may have been given.
_RESULT = "()"

_told: set[tuple[types.CodeType, str]] = set()


def warn_of_draws(facts: Facts) -> None:
    """Warn, once for each line, of what functions draw when they are recorded and not on replays.

    Parameters
    ----------
    facts : Facts
        Which functions the recording can reach, and which generators.
    """
    kinds = {type(generator) for generator in facts.found(_GENERATORS)}
    methods = {name for kind in kinds for name in dir(kind) if name[0] != "_"} - _STATE
    if methods:  # which may belong to anything, but for attributes of these names that were met
        methods -= {place[-1].name for place, *_ in facts.facts if _is_attribute(place)}
    for function in facts.found(types.FunctionType):
        if is_installed(function):
            continue
        cells = {name: x for _, name, x in contents_of_cells(function) if x is not UNKNOWN}
        for code, number, name, value, alone in _loads(function.__code__, function.__globals__, cells):
            owner, dot, method = name.rpartition(".")
            is_method = value is None and dot and owner != _RESULT and method in methods
            if is_method or _draws(value, alone):
                _warn(code, number, name.removeprefix("."))


def _is_attribute(place: Place) -> bool:
    return bool(place) and (place[-1].how == "attribute" or place[-2:-1] == (Access("vars"),))


def _warn(code: types.CodeType, number: int, name: str) -> None:
    line = line_of(code, number)
    if (code, line) not in _told:
        _told.add((code, line))
        _log.warning(
            "xpnet: %s is called, if at all, when a function is recorded and not when it is replayed: each "
            "later call uses what it returned then. Draw random numbers with xpnet.random, and pass what "
            "changes as an argument. It stands at %s",
            name,
            line,
        )


def _draws(value: Any, alone: bool) -> bool:
    owner = value.__self__ if isinstance(value, _METHODS) else None
    if isinstance(owner, _GENERATORS):
        return value.__name__ not in _STATE
    if isinstance(owner, type) and issubclass(owner, datetime.date):
        return value.__name__ in ("now", "today", "utcnow")
    return any(value is each for each in (*_DRAWING, *(_DRAWING_ALONE if alone else ())))


def _loads(code: types.CodeType, names: dict[str, Any], cells: dict[str, Any]) -> Iterator[tuple]:
    """Yield what a function and those inside it load: the code, the line, the name there, and the value.

    A value is None where it is not known. Last comes whether it is called without arguments.
    """
    cells = {name: cells[name] for name in code.co_freevars if name in cells}
    local: dict[str, Any] = {}
    name, value, module = "", None, None
    found = instructions(code)
    for before, step, after in zip(found, found[1:], found[2:], strict=False):
        operation, argument = step.opname, step.argval
        if operation in ("LOAD_GLOBAL", "LOAD_NAME"):
            name, value = argument, names.get(argument)
        elif operation in ("LOAD_ATTR", "LOAD_METHOD"):
            name, value = f"{name}.{argument}", _attribute(value, argument)
        elif "_FAST" in operation or "_DEREF" in operation:
            several = argument if isinstance(argument, tuple) else (argument,)  # from Python 3.13 on
            known = local if "_FAST" in operation else cells
            if operation.startswith("STORE_"):
                known[several[0]] = value
            name, value = several[-1], known.get(several[-1]) if "LOAD_" in operation else None
        elif operation == "IMPORT_NAME":  # `import a.b` gives a, `from a.b import c` needs a.b
            value = module = sys.modules.get(argument if before.argval else argument.partition(".")[0])
        elif operation == "IMPORT_FROM":
            value = _attribute(module, argument)
        else:
            name, value = _RESULT if operation.startswith("CALL") else "", None
        if operation.startswith("LOAD_") and name:
            number = getattr(step.positions, "lineno", None) or code.co_firstlineno
            yield code, number, name, value, after.opname == "CALL" and not after.arg
    for each in inner(code):
        yield from _loads(each, names, cells)


def _attribute(value: Any, name: str) -> Any:
    """Return an attribute, without running a property of the user's; None where it is not known."""
    is_known = isinstance(value, _GENERATORS) or (isinstance(value, type) and is_installed(value))
    return (getattr if is_known else inspect.getattr_static)(value, name, None)
