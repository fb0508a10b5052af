"""All orders in which threads may do the steps of functions that are compiled for them.

The functions are taken from their source. Each atomic access to a word is a step, and so is each call. What
is between two steps happens at once.
"""

import ast
import inspect
from collections.abc import Callable, Generator, Iterator
from random import Random
from typing import Any

# What is a step: functions of native code, which the model does itself.
STEPS = {"atomic_add", "atomic_load", "atomic_store", "call", "exchange", "foreign", "put_if"}


class _Steps(ast.NodeTransformer):
    """Let functions of some names yield steps, and those that they call, too."""

    def __init__(self, names: set[str]) -> None:
        self._names = names

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        node.decorator_list = []
        # Also a function without a step becomes a generator.
        node.body.insert(0, ast.parse("if False: yield").body[0])
        return self.generic_visit(node)

    def visit_Call(self, node: ast.Call) -> ast.AST:
        self.generic_visit(node)
        name = getattr(node.func, "id", "")
        if name in STEPS:
            step = ast.Tuple([ast.Constant(name), *node.args], ast.Load())
            return ast.copy_location(ast.Yield(step), node)
        return ast.copy_location(ast.YieldFrom(node), node) if name in self._names else node


def generators(module: Any, **others: Any) -> dict[str, Any]:
    """Return the functions of a module as generators of steps, with other values for some of its names."""
    tree = ast.parse(inspect.getsource(module))
    functions = [node for node in tree.body if isinstance(node, ast.FunctionDef)]
    names = {node.name for node in functions} | {"_ring"}
    body = [_Steps(names).visit(node) for node in functions]
    namespace = {**vars(module), **others}
    exec(compile(ast.fix_missing_locations(ast.Module(body, [])), module.__file__, "exec"), namespace)
    namespace["_ring"] = namespace["ring"]
    return namespace


class Blocked(Exception):
    """A step that cannot be done now."""


class World:
    """Memory and threads, after a number of steps.

    Parameters
    ----------
    threads : callable
        Returns the generators of all threads.
    do : callable
        Does a step in memory, given the number of the thread, and returns what it returns; or raises Blocked.
    memory : dict
    """

    def __init__(self, threads: Callable[[], list[Generator]], do: Callable, memory: dict) -> None:
        self._threads, self._do, self.memory = threads(), do, memory
        self._next: list[Any] = [next(thread) for thread in self._threads]

    def can(self, number: int) -> bool:
        """Do the next step of a thread; say whether there is one that can be done."""
        if self._next[number] is None:
            return False
        try:
            result = self._do(self.memory, number, *self._next[number])
        except Blocked:
            return False
        try:
            self._next[number] = self._threads[number].send(result)
        except StopIteration:
            self._next[number] = None
        return True

    def is_over(self, number: int) -> bool:
        """Say whether a thread has come to its end."""
        return self._next[number] is None

    def key(self) -> Any:
        """Return what all that follows depends on."""
        places = tuple(tuple(_place(thread)) for thread in self._threads)
        return places, tuple(sorted(self.memory.items(), key=str))


def _place(thread: Generator | None) -> Iterator[Any]:
    """Yield where a generator is, and what its variables are, but for how often it has looked."""
    while thread is not None:
        frame = thread.gi_frame
        if frame is not None:
            names = [(name, x) for name, x in frame.f_locals.items() if type(x) in (int, bool)]
            yield frame.f_lasti, tuple(sorted(pair for pair in names if pair[0] not in ("looks", "began")))
        thread = thread.gi_yieldfrom


def explore(make: Callable[[], World], is_done: Callable[[World], bool], most: int) -> int:
    """Go through all orders of steps; return how many states there are.

    Raises
    ------
    AssertionError
        If there is a state from which the threads do not come to their end, in whatever order; or if there
        are more states than ``most``.
    """
    first = make()
    paths = {first.key(): ()}
    after: dict[Any, list[Any]] = {}
    ends = set()
    left = [first.key()]
    while left:
        key = left.pop()
        after[key] = []
        path = paths[key]
        world = _at(make, path)
        if is_done(world):
            ends.add(key)
            continue
        for number in range(len(world._threads)):
            other = _at(make, path) if number else world
            if not other.can(number):
                continue
            reached = other.key()
            after[key].append(reached)
            assert len(paths) < most, f"there are more than {most} states"
            if reached not in paths:
                paths[reached] = (*path, number)
                left.append(reached)
    before: dict[Any, list[Any]] = {}
    for key, reached in after.items():
        for each in reached:
            before.setdefault(each, []).append(key)
    good, left = set(ends), list(ends)
    while left:
        for each in before.get(left.pop(), ()):
            if each not in good:
                good.add(each)
                left.append(each)
    stuck = [paths[key] for key in paths if key not in good]
    assert not stuck, f"after steps of the threads {min(stuck, key=len)}, nothing leads to the end"
    return len(paths)


def wander(world: World, threads: int, random: Random, most: int) -> None:
    """Do steps of one thread after the other, some of each, in a random order.

    Raises
    ------
    AssertionError
        If nobody can go on, or the threads have not come to their end after many steps.
    """
    for _ in range(most):
        left = [number for number in range(threads) if not world.is_over(number)]
        if not left:
            return
        first, *others = random.sample(left, len(left))
        went_on = False
        for _ in range(random.choice((1, 3, 10, 30))):
            went_on = world.can(first) or went_on
        assert went_on or any(world.can(number) for number in others), "nobody can go on"
    raise AssertionError(f"the threads have not come to their end after {most} turns")


def _at(make: Callable[[], World], path: tuple[int, ...]) -> World:
    world = make()
    for number in path:
        assert world.can(number)
    return world
