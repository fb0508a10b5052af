"""A function of the traced namespace: how it computes, how it is recorded, and its gradient rules.

A rule is data, ``rule(xp, g, y, *inputs, **parameters)``: from the gradient ``g`` of the result ``y`` it
makes the gradient of one input. ``xp`` is the plain namespace in a first-order sweep and the traced one in a
higher-order sweep, so one line serves both. Broadcasting and dtypes are put right in the sweep, not in a
rule.

An argument of a rule whose name begins with an underscore is read for its shape and dtype alone, so its value
need not be kept in memory until the sweep.
"""

from collections.abc import Callable, Sequence
from functools import partial, wraps
from inspect import Parameter, signature
from operator import attrgetter
from types import CodeType
from typing import Any

from xpnet import tree
from xpnet.arrays import ABOUT_ARRAYS, ArrayObject, calling_place, line_of, refuse_writing, written_to
from xpnet.autodiff.tracer import Node, Tracer
from xpnet.backends import is_numpy_number
from xpnet.errors import NoGradientError

Rule = Callable[..., Any]

NUMBERS = frozenset({int, float, bool, complex})
NO_PARAMETERS: dict[str, Any] = {}

# The functions of the traced namespace, by name. The files in `rules/` fill both, but for a few primitives of
# the record itself.
PRIMITIVES: dict[str, "Primitive"] = {}  # recorded, each as one node
COMPOSITES: dict[str, Callable] = {}  # written in terms of others: `define(xp, ...)`


def is_declared(name: str) -> bool:
    """Say whether there is a function of that name in `rules/`."""
    return name in PRIMITIVES or name in COMPOSITES


class Reads:
    """Which values a rule reads, by the names of its arguments."""

    def __init__(self, rule: Rule) -> None:
        by_position = (Parameter.POSITIONAL_ONLY, Parameter.POSITIONAL_OR_KEYWORD)
        arguments = [p for p in signature(rule).parameters.values() if p.kind in by_position]
        rest = [p for p in signature(rule).parameters.values() if p.kind is Parameter.VAR_POSITIONAL]
        self.result, *self._inputs = [not p.name.startswith("_") for p in arguments[2:]]  # without xp and g
        self._rest = any(not p.name.startswith("_") for p in rest)

    def input(self, position: int) -> bool:
        return self._inputs[position] if position < len(self._inputs) else self._rest


class Primitive:
    """A function that is recorded as one node.

    Attributes
    ----------
    name : str
        The name in the standard, or xpnet's own for indexing and assignment.
    rules : sequence of callable or None
        A gradient rule for each leading input; None for one that the result does not change with (the
        condition of ``where``), `no_rule` for one whose gradient is not known. An empty sequence: the result
        has no gradient (``argmax``, say).
    joint : callable or None
        Instead of ``rules``: one rule that returns the gradients of all inputs in a sequence.
    define : callable or None
        ``define(call, ...)`` with the standard's signature. It hands the arrays to ``call`` by position and
        everything else by keyword.
    several : bool
        Whether the result is a sequence of arrays.
    none_if_unused : bool
        Whether a rule receives None, in place of zeros, as the gradient of a result that nothing came from.
    compute : callable or None
        ``compute(xp, *values, **parameters)`` for plain arrays, where that is more than the namespace's
        function of the same name.
    recorder : callable
        Makes the recording function for one library: `record_unary`, `record_binary` or `record`.
    """

    def __init__(
        self,
        name: str,
        rules: Sequence[Rule | None] = (),
        *,
        joint: Rule | None = None,
        define: Callable | None = None,
        compute: Callable | None = None,
        several: bool = False,
        none_if_unused: bool = False,
        recorder: Callable | None = None,
    ) -> None:
        if name in PRIMITIVES:
            raise ValueError(f"a function is defined once, {name} is defined already")
        PRIMITIVES[name] = self
        self.name = name
        self.rules = tuple(rules)
        self.joint = joint
        self.define = define
        self.compute = compute
        self.several = several
        self.none_if_unused = none_if_unused
        self.recorder = recorder or record
        self.reads: list[Any] = [rule and Reads(rule) for rule in self.rules]
        self.joint_reads = joint and Reads(joint)

    def on_plain(self, xp: Any) -> Callable:
        """Return the function for plain arrays of a namespace."""
        return partial(self.compute, xp) if self.compute else attrgetter(self.name)(xp)

    def on_traced(self, namespace: Any) -> Callable:
        """Return the function for a traced namespace, with the standard's signature."""
        call = self.recorder(self, namespace)
        return partial(self.define, call) if self.define else call

    def __repr__(self) -> str:
        return f"Primitive({self.name})"


# -- how the files in rules/ declare functions --------------------------------------------------------------


def unary(name: str, *rules: Rule) -> None:
    """Declare an elementwise function of one array; without a rule, its result has no gradient."""
    Primitive(name, rules, recorder=record_unary)


def binary(name: str, *rules: Rule) -> None:
    """Declare a function of two arrays or numbers; without rules, its result has no gradient."""
    Primitive(name, rules, recorder=record_binary)


def function(
    *rules: Rule | None,
    joint: Rule | None = None,
    compute: Callable | None = None,
    several: bool = False,
    none_if_unused: bool = False,
    extension: str | None = None,
    recorder: Callable | None = None,
) -> Callable:
    """Declare the decorated ``define(call, ...)``, which has the standard's signature, with its rules.

    Without rules, the result has no gradient. ``extension`` is the part of the namespace that the function
    belongs to, such as ``"linalg"``.
    """

    def declare(define: Callable) -> Primitive:
        return Primitive(
            _full_name(define, extension),
            rules,
            joint=joint,
            define=define,
            compute=compute,
            several=several,
            none_if_unused=none_if_unused,
            recorder=recorder,
        )

    return declare


def untraced(*, compute: Callable | None = None, extension: str | None = None) -> Callable:
    """Declare the decorated ``define(call, ...)``, which has no rule and ought to have one: see `opaque`."""
    return function(compute=compute, extension=extension, recorder=record_opaque)


def composite(define: Callable | None = None, *, extension: str | None = None) -> Callable:
    """Declare the decorated ``define(xp, ...)``, which is made of other functions of the namespace."""
    if define is None:
        return partial(composite, extension=extension)
    COMPOSITES[_full_name(define, extension)] = _with_settings(define)
    return define


# What is no array of functions that are made of others, by name.
SETTINGS = frozenset({"axis", "keepdims", "n", "num", "offset", "ord", "shape"})


def _with_settings(define: Callable) -> Callable:
    """Let a function have Python integers for settings that are arrays of one integer."""
    names = [p.name for p in signature(define).parameters.values() if p.kind is not Parameter.KEYWORD_ONLY]
    places = {place for place, name in enumerate(names[1:]) if name in SETTINGS}

    @wraps(define)
    def call(xp: Any, /, *arguments: Any, **options: Any) -> Any:
        arguments = tuple([settled(x) if i in places else x for i, x in enumerate(arguments)])
        options = {key: settled(x) if key in SETTINGS else x for key, x in options.items()}
        return define(xp, *arguments, **options)

    return call


def _full_name(define: Callable, extension: str | None) -> str:
    return f"{extension}.{define.__name__}" if extension else define.__name__


def no_rule(xp: Any, g: Any, _y: Any, *_inputs: Any, **_parameters: Any) -> Any:
    """Stand for the rule of an input that has none: an error says so in the sweep, if it is needed.

    `record` puts a node before such an input that raises the error. What arrives there does not matter, but
    must fit: a single number fits every shape.
    """
    return xp.sum(g)


# -- recording ----------------------------------------------------------------------------------------------
#
# `record` serves every function. Most calls have one array, or two and no parameters: for these the loop over
# the inputs is written out, which halves the cost of a call.


def record(primitive: Primitive, namespace: Any) -> Callable:
    """Return ``call(*arrays, **parameters)``, which computes a function and records it."""
    compute = primitive.on_plain(namespace.plain)
    if not primitive.rules and not primitive.joint:

        def constant(*arrays: Any, **parameters: Any) -> Any:
            values = [namespace.operand(x)[0] for x in arrays]
            return namespace.lift(compute(*values, **_unwrap(parameters, [])))

        return constant

    without_rule = [position for position, rule in enumerate(primitive.rules) if rule is no_rule]
    of_one = primitive.rules and not primitive.several and not without_rule
    first = primitive.reads[0] if of_one else None
    keeps_x, keeps_y = first and first.input(0), first and first.result

    def call(*arrays: Any, **parameters: Any) -> Any:
        if parameters and not _SETTLED.issuperset(map(type, parameters.values())):
            parameters = settled(parameters, _as_option)
        if first and len(arrays) == 1:
            x = arrays[0]
            if type(x) is Tracer and x.namespace is namespace:
                value_x, node = x.value, x.node
            else:
                value_x, node = namespace.operand(x)
            value = compute(value_x, **parameters)
            dtype = value.dtype
            if node is None or (dtype is not node.dtype and not namespace.has_gradient(value)):
                return Tracer(value, None, namespace)
            values = (value_x,) if keeps_x else (node,)
            kept = value if keeps_y else None
            node = Node(primitive, (node,), values, parameters, kept, value.shape, dtype)
            return Tracer(value, node, namespace)
        operands = [namespace.operand(x) for x in arrays]
        value = compute(*[value for value, _ in operands], **parameters)
        if all(node is None for _, node in operands) or not namespace.has_gradient(value):
            return namespace.lift(value)
        for position in without_rule:
            operands[position] = _without_rule(primitive, position, *operands[position])
        if primitive.joint_reads:
            reads = [primitive.joint_reads]
        else:
            reads = [r for r, (_, node) in zip(primitive.reads, operands, strict=False) if r and node]
        inputs = tuple(node or value for value, node in operands)
        values = tuple(
            value if node is None or any(r.input(position) for r in reads) else node
            for position, (value, node) in enumerate(operands)
        )
        kept = value if any(r.result for r in reads) else None
        if not isinstance(value, tuple | list):
            node = Node(primitive, inputs, values, parameters, kept, value.shape, value.dtype)
            return Tracer(value, node, namespace)
        shapes, dtypes = tuple(v.shape for v in value), tuple(v.dtype for v in value)
        return outputs(Node(primitive, inputs, values, parameters, kept, shapes, dtypes), value, namespace)

    return call


_SETTLED = frozenset({type(None), bool, int, float, str})


def _as_integer(x: ArrayObject) -> Any:
    """Return the value of an array of one integer; any other as it is."""
    return x.__index__() if not x.shape and x.namespace.isdtype(x.dtype, "integral") else x


def settled(value: Any, change: Callable[[ArrayObject], Any] = _as_integer) -> Any:
    """Put Python's numbers in the place of NumPy's, ``change(x)`` in that of traced and recorded arrays."""
    kind = type(value)
    if kind in _SETTLED:
        return value
    if kind is dict:
        return {key: settled(item, change) for key, item in value.items()}
    if kind is tuple or kind is list:
        return kind([settled(item, change) for item in value])
    if kind is slice:
        return slice(*(settled(item, change) for item in (value.start, value.stop, value.step)))
    if is_numpy_number(value):
        return value.item()
    return change(value) if isinstance(value, ArrayObject) else value


def settled_key(key: Any) -> Any:
    """Put Python's numbers in the place of NumPy's in what an array is indexed with."""
    return settled(key, lambda x: x)


def _as_option(x: ArrayObject) -> Any:
    number = _as_integer(x)
    return x._leave("an option of a function") if number is x else number


def outputs(node: Node, values: Any, namespace: Any) -> Any:
    """Return the traced results of a node with several results, in the container of ``values``."""
    results = [
        Tracer(value, _output(node, index, value) if namespace.has_gradient(value) else None, namespace)
        for index, value in enumerate(values)
    ]
    return values._make(results) if hasattr(values, "_make") else type(values)(results)


def _output(node: Node, index: int, value: Any) -> Node:
    return Node(OUTPUT, (node,), (node,), {"index": index}, None, value.shape, value.dtype)


def record_unary(primitive: Primitive, namespace: Any) -> Callable:
    """As `record`, for one array and no parameters."""
    if not primitive.rules or no_rule in primitive.rules:
        return record(primitive, namespace)
    compute = primitive.on_plain(namespace.plain)
    operand = namespace.operand
    reads = primitive.reads[0]
    keeps_y, keeps_x = reads.result, reads.input(0)

    def call(x: Any, /) -> Tracer:
        if type(x) is Tracer and x.namespace is namespace:
            value_x, node = x.value, x.node
        else:
            value_x, node = operand(x)
        value = compute(value_x)
        if node is None:
            return Tracer(value, None, namespace)
        inputs = (node,)
        values = (value_x,) if keeps_x else inputs
        kept = value if keeps_y else None
        node = Node(primitive, inputs, values, NO_PARAMETERS, kept, value.shape, value.dtype)
        return Tracer(value, node, namespace)

    return call


def record_binary(primitive: Primitive, namespace: Any) -> Callable:
    """As `record`, for two arrays or numbers and no parameters."""
    if not primitive.rules or no_rule in primitive.rules:
        return record(primitive, namespace)
    compute = primitive.on_plain(namespace.plain)
    operand = namespace.operand
    first, second = primitive.reads
    keeps_x1, keeps_x2 = first.input(0), second.input(1)  # if only x1 or only x2 has a gradient
    keeps_y1, keeps_y2, keeps_y = first.result, second.result, first.result or second.result
    both_keep_x1, both_keep_x2 = keeps_x1 or second.input(0), keeps_x2 or first.input(1)

    def call(x1: Any, x2: Any, /) -> Tracer:
        if type(x1) is Tracer and x1.namespace is namespace:
            value1, node1 = x1.value, x1.node
        elif type(x1) in NUMBERS:
            value1, node1 = x1, None
        else:
            value1, node1 = operand(x1)
        if type(x2) is Tracer and x2.namespace is namespace:
            value2, node2 = x2.value, x2.node
        elif type(x2) in NUMBERS:
            value2, node2 = x2, None
        else:
            value2, node2 = operand(x2)
        value = compute(value1, value2)
        if node1 is not None and node2 is not None:
            inputs = (node1, node2)
            values = (value1 if both_keep_x1 else node1, value2 if both_keep_x2 else node2)
            kept = value if keeps_y else None
        elif node1 is not None:
            inputs = (node1, value2)
            values = (value1, value2) if keeps_x1 else inputs
            kept = value if keeps_y1 else None
        elif node2 is not None:
            inputs = (value1, node2)
            values = (value1, value2) if keeps_x2 else inputs
            kept = value if keeps_y2 else None
        else:
            return Tracer(value, None, namespace)
        node = Node(primitive, inputs, values, NO_PARAMETERS, kept, value.shape, value.dtype)
        return Tracer(value, node, namespace)

    return call


# -- primitives of the record itself ------------------------------------------------------------------------

# The argument of a transform. Its own input, if any, is a node outside that transform.
ARGUMENT = Primitive("argument", [lambda xp, g, _y, _x: g])

# One result of a function with several. The gradients of all of them are gathered in a dict.
OUTPUT = Primitive("output", [lambda xp, g, _y, _x, *, index: {index: g}])


# -- what has no rule ---------------------------------------------------------------------------------------
#
# It is refused late: a result that nobody differentiates (a p-value beside a statistic) is no harm.


_OTHERS = "Write it with other functions"


def _refuse(
    _xp: Any,
    _g: Any,
    _y: Any,
    *_inputs: Any,
    name: str,
    argument: str,
    place: tuple[CodeType, int],
    instead: str = _OTHERS,
) -> Any:
    raise NoGradientError(
        f"{name} has no gradient rule{argument}, and its gradient is needed. It was called at "
        f"{line_of(*place)}. {instead}, give it a rule with xpnet.custom_gradient, call "
        "xpnet.stop_gradient(x) first if no gradient shall flow through here, or return only what shall be "
        "differentiated."
    )


def _in_the_standard(name: str, compute: Callable, namespace: Any) -> str:
    """Say what to write in place of a function without a rule: another name, if the standard calls it so."""
    names = (n for n in (*PRIMITIVES, *COMPOSITES) if getattr(namespace.plain, n, None) is compute)
    standard = next(names, name)
    return f"Write xp.{standard}, as the standard calls it" if standard != name else _OTHERS


# The result of a function without a rule, and what came into an argument without one.
RESULT_WITHOUT_RULE = Primitive("result_without_rule", joint=_refuse)
ARGUMENT_WITHOUT_RULE = Primitive("argument_without_rule", joint=_refuse)


def _without_rule(primitive: Primitive, position: int, value: Any, node: Node | None) -> tuple:
    """Return the value and the node of an argument for which a function has `no_rule`."""
    if node is None:
        return value, node
    names = list(signature(primitive.define).parameters)[1:] if primitive.define else ["x1", "x2"]
    about = {"name": primitive.name, "argument": f" for {names[position]}", "place": calling_place()}
    return value, Node(ARGUMENT_WITHOUT_RULE, (node,), (node,), about, None, node.shape, node.dtype)


def record_opaque(primitive: Primitive, namespace: Any) -> Callable:
    """As `record`, for a function without a rule that ought to have one: see `opaque`."""
    return opaque(primitive.name, primitive.on_plain(namespace.plain), namespace)


def opaque(name: str, compute: Callable, namespace: Any) -> Callable:
    """Return a function without gradient rules, for arrays anywhere in its arguments.

    It computes, and the sweep raises an error if it needs the gradient of a result. Where nothing in the
    result could tell the sweep, as it is a Python number or went into a file, the call itself does.
    """
    instead = _in_the_standard(name, compute, namespace)

    def call(*arguments: Any, **parameters: Any) -> Any:
        tracers: list[Tracer] = []
        plain_arguments, plain_parameters = _unwrap((list(arguments), parameters), tracers)
        written = written_to(name, arguments, parameters)
        inputs = tuple(x.node for x in tracers if x.node is not None)
        if not inputs or name in ABOUT_ARRAYS:
            refuse_writing(name, written)
            return namespace.lift(compute(*plain_arguments, **plain_parameters))
        if any(x is not None for x in written):
            raise _would_be_lost(name)
        about = {"name": name, "argument": "", "place": calling_place(), "instead": instead}

        def lift(value: Any) -> Any:
            if isinstance(value, tuple | list):
                lifted = [lift(item) for item in value]
                return value._make(lifted) if hasattr(value, "_make") else type(value)(lifted)
            if type(value) is dict:
                return {key: lift(item) for key, item in value.items()}
            if type(value) in _CONSTANTS:
                return value
            if not tree.is_array(value) or type(value) is Tracer or not namespace.plain.holds(value):
                raise _would_be_lost(name)
            if namespace.has_gradient(value):
                node = Node(RESULT_WITHOUT_RULE, inputs, inputs, about, None, value.shape, value.dtype)
                return Tracer(value, node, namespace)
            if not namespace.isdtype(value.dtype, ("bool", "integral")):
                raise _would_be_lost(name)
            return Tracer(value, None, namespace)

        return lift(compute(*plain_arguments, **plain_parameters))

    call.__name__ = call.__qualname__ = name
    return call


# What does not change with small changes of an array, or is for people to read.
_CONSTANTS = frozenset({bool, int, str})


def _would_be_lost(name: str) -> NoGradientError:
    return NoGradientError(
        f"{name} has no gradient rule, and received an array whose gradient would be lost. Write it "
        "with other functions, give it a rule with xpnet.custom_gradient, or call "
        "xpnet.stop_gradient(x) first if no gradient shall flow through here."
    )


def _unwrap(value: Any, tracers: list[Tracer]) -> Any:
    if type(value) is Tracer:
        tracers.append(value)
        return value.value
    if type(value) in (list, tuple):
        return type(value)(_unwrap(item, tracers) for item in value)
    if type(value) is dict:
        return {key: _unwrap(item, tracers) for key, item in value.items()}
    return value
