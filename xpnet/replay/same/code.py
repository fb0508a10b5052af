"""What the code of a function names: globals, cells (of its closure), modules that it imports, and attributes
of these.
"""

import dis
import functools
import types
from collections.abc import Iterator
from typing import NamedTuple


class Reference(NamedTuple):
    """A name and the attributes that are read from it, one from the other: ``self.optimizer.update``.

    Attributes
    ----------
    kind : {"global", "cell", "local", "module", ""}
        What the name is of; "" for a reference that begins with the result of an expression.
    name : str
    attributes : tuple of str
    is_argument : bool
        Whether it is a parameter of the function that has not been assigned to.
    """

    kind: str
    name: str
    attributes: tuple[str, ...]
    is_argument: bool = False


_BEGINNINGS = {
    "LOAD_GLOBAL": "global",
    "LOAD_NAME": "global",
    "LOAD_DEREF": "cell",
    "LOAD_CLASSDEREF": "cell",
    "LOAD_FAST": "local",
    "IMPORT_NAME": "module",
}
# What stands between a name and its attribute, or what is called and its call.
_BETWEEN = frozenset({"CACHE", "EXTENDED_ARG", "NOP", "PRECALL", "PUSH_NULL"})


@functools.cache
def instructions(code: types.CodeType) -> list[dis.Instruction]:
    """Return the instructions of a function, without those that say nothing about what it does."""
    return [step for step in dis.get_instructions(code) if step.opname not in _BETWEEN]


@functools.cache
def references(code: types.CodeType) -> tuple[Reference, ...]:
    """Return what a function names, without the functions inside it.

    A text may be the name of an attribute, for `getattr` or in a class pattern, and is a reference as well.
    """
    found = [*_references(code)]
    for constant in code.co_consts:
        texts = constant if isinstance(constant, tuple) else (constant,)
        found += [Reference("", "", (text,)) for text in texts if isinstance(text, str)]
    return tuple(dict.fromkeys(found))


def inner(code: types.CodeType) -> list[types.CodeType]:
    """Return the code of the functions inside one."""
    return [constant for constant in code.co_consts if isinstance(constant, types.CodeType)]


def _references(code: types.CodeType) -> Iterator[Reference]:
    # Parameters that are what the caller gave: until they are assigned to, if no loop leads back.
    arguments = set(code.co_varnames[: code.co_argcount + code.co_kwonlyargcount])
    if any(step.opname.startswith("JUMP_BACKWARD") for step in instructions(code)):
        stores = [step for step in instructions(code) if step.opname.startswith("STORE_")]
        arguments -= {name for step in stores for name in _texts(step)}
    reference = Reference("", "", ())
    for step in instructions(code):
        operation, names = step.opname, _texts(step)
        if operation in ("LOAD_ATTR", "LOAD_METHOD", "LOAD_SUPER_ATTR", "IMPORT_FROM"):
            reference = reference._replace(attributes=(*reference.attributes, *names))
            if operation == "IMPORT_FROM":  # of the same module, perhaps several
                yield reference
                reference = reference._replace(attributes=reference.attributes[:-1])
            continue
        yield reference
        reference = Reference("", "", ())
        if operation.startswith("STORE_"):
            arguments -= set(names[:1])
        beginning = next((kind for start, kind in _BEGINNINGS.items() if operation.startswith(start)), None)
        if beginning and names:
            reference = Reference(beginning, names[-1], (), beginning == "local" and names[-1] in arguments)
    yield reference


def _texts(step: dis.Instruction) -> tuple[str, ...]:
    texts = step.argval if isinstance(step.argval, tuple) else (step.argval,)
    return tuple(text for text in texts if isinstance(text, str))


@functools.cache
def names_of_globals(code: types.CodeType) -> tuple[str, ...]:
    """Return the globals that a function names, and those inside it."""
    own = [named.name for named in references(code) if named.kind == "global"]
    return tuple(dict.fromkeys([*own, *(name for each in inner(code) for name in names_of_globals(each))]))
