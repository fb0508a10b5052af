"""What replays, kernels and files of ONNX know of each function: one row for each.

A new elementwise function is a row here, and a gradient rule in `xpnet/autodiff/rules/`. A function that is
not listed, or that has no text for a processor, is called as it was recorded; one without an operator of ONNX
is taken apart by `decompositions.py`.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy


class Function(NamedTuple):
    """What is known of a function.

    In a text, ``{0}``, ``{1}`` and ``{2}`` stand for the elements of the arguments, which have been converted
    to the dtypes in which the function computes: see `dtypes_of`.

    Attributes
    ----------
    name : str
        In the standard, such as ``"linalg.matmul"``, or xpnet's own.
    kind : str
        Of elementwise functions: "arithmetic", which wraps integers around; "transcendental", which takes
        long; "elementary", which does so but for float32, where `kernels/elementary.py` has it;
        "comparison"; "predicate", which says something of one argument; "choice", which returns one of its
        arguments; or "element". Of others: "view", which may return a view of all elements; "conversion",
        which may return one of others; "move"; "reduction"; "product"; "shaped by values", whose results
        have shapes that depend on values; "of shape alone", to which only the shape and dtype of its
        argument matter; "between processes", whose results other processes share in; and "of settings", all
        of whose arguments are sizes, or numbers from which sizes follow.
    python : str
        An element in Python, for numba; "" where it has none, or NumPy is as fast.
    c : dict of str to str
        An element in C, for CUDA, by the kind of dtype in which it is computed.
    onnx : str or dict of str to str
        The operator of ONNX, also by the kind of dtype; "" if there is none.
    total : tuple of (str, str)
        Of a reduction: the function that takes in an element, and what the total of a kernel starts from, ""
        if kernels cannot compute it.
    """

    name: str
    kind: str = "element"
    python: str = ""
    c: Mapping[str, str] = {}
    onnx: str | Mapping[str, str] = ""
    total: tuple[str, str] = ("", "")

    @property
    def operators(self) -> Mapping[str, str]:
        """The operator of ONNX for each kind of dtype."""
        return self.onnx if isinstance(self.onnx, Mapping) else anything(self.onnx) if self.onnx else {}


# -- by the kind of dtype, as NumPy calls it --------------------------------------------------------------


def floats(text: str) -> dict[str, str]:
    return {"f": text}


def integers(text: str) -> dict[str, str]:
    return {"i": text, "u": text}


def truths(text: str) -> dict[str, str]:
    return {"b": text}


def numbers(text: str) -> dict[str, str]:
    return floats(text) | integers(text)


def anything(text: str) -> dict[str, str]:
    return numbers(text) | truths(text)


def _rows(kind: str, *names: str) -> list[Function]:
    return [Function(name, kind) for name in names]


# One element of each row, and zeros but for one element of each row.
PICK, SCATTER = "take_along_axis", "scatter_add"
# The elements of an array one after the other, and arrays beside each other.
IN_ORDER, STACK = "copy", "stack"

# Integers are rounded already.
_WHOLE = integers("Identity") | truths("Identity")

ROWS = [
    # arithmetic
    Function("add", "arithmetic", "{0} + {1}", numbers("{0} + {1}"), "Add"),
    Function("divide", "arithmetic", "{0} / {1}", floats("{0} / {1}"), "Div"),
    Function("multiply", "arithmetic", "{0} * {1}", numbers("{0} * {1}"), "Mul"),
    Function("negative", "arithmetic", "-{0}", numbers("-{0}"), "Neg"),
    Function("reciprocal", "arithmetic", "1 / {0}", floats("1 / {0}"), "Reciprocal"),
    Function("sqrt", "arithmetic", "sqrt({0})", floats("sqrt({0})"), "Sqrt"),
    Function("square", "arithmetic", "{0} * {0}", numbers("{0} * {0}")),
    Function("subtract", "arithmetic", "{0} - {1}", numbers("{0} - {1}"), "Sub"),
    # signs and whole numbers
    Function("abs", "element", "abs({0})", floats("fabs({0})") | integers("{0} < 0 ? -{0} : {0}"), "Abs"),
    Function("ceil", c=floats("ceil({0})"), onnx=_WHOLE | floats("Ceil")),
    Function("copysign", c=floats("copysign({0}, {1})")),
    Function("floor", c=floats("floor({0})"), onnx=_WHOLE | floats("Floor")),
    Function("positive", c=numbers("{0}"), onnx="Identity"),
    Function("round", c=floats("rint({0})"), onnx=_WHOLE | floats("Round")),
    Function("sign", c=floats("{0} > 0 ? 1 : {0} < 0 ? -1 : {0} == 0 ? 0 : {0}"), onnx="Sign"),
    Function("remainder", onnx=integers("Mod")),
    Function("trunc", c=floats("trunc({0})"), onnx=_WHOLE),
    # powers, exponentials and logarithms
    Function("exp", "elementary", "exp({0})", floats("exp({0})"), "Exp"),
    Function("expm1", "elementary", "expm1({0})", floats("expm1({0})")),
    Function("hypot", "transcendental", c=floats("hypot({0}, {1})")),
    Function("log", "elementary", "log({0})", floats("log({0})"), "Log"),
    Function("log10", "transcendental", c=floats("log10({0})")),
    Function("log1p", "elementary", "log1p({0})", floats("log1p({0})")),
    Function("log2", "transcendental", c=floats("log2({0})")),
    Function("pow", "transcendental", "{0} ** {1}", floats("pow({0}, {1})"), "Pow"),
    Function("special.erf", "elementary", c=floats("erf({0})"), onnx="Erf"),
    Function("special.expit", "elementary", onnx="Sigmoid"),
    # trigonometric and hyperbolic functions
    Function("acos", "transcendental", c=floats("acos({0})"), onnx="Acos"),
    Function("acosh", "transcendental", c=floats("acosh({0})"), onnx="Acosh"),
    Function("asin", "transcendental", c=floats("asin({0})"), onnx="Asin"),
    Function("asinh", "transcendental", c=floats("asinh({0})"), onnx="Asinh"),
    Function("atan", "transcendental", c=floats("atan({0})"), onnx="Atan"),
    Function("atan2", "transcendental", c=floats("atan2({0}, {1})")),
    Function("atanh", "transcendental", c=floats("atanh({0})"), onnx="Atanh"),
    Function("cos", "transcendental", "cos({0})", floats("cos({0})"), "Cos"),
    Function("cosh", "transcendental", c=floats("cosh({0})"), onnx="Cosh"),
    Function("sin", "transcendental", "sin({0})", floats("sin({0})"), "Sin"),
    Function("sinh", "transcendental", c=floats("sinh({0})"), onnx="Sinh"),
    Function("tan", "transcendental", c=floats("tan({0})"), onnx="Tan"),
    Function("tanh", "elementary", "tanh({0})", floats("tanh({0})"), "Tanh"),
    # comparisons, predicates and choices
    Function("equal", "comparison", "{0} == {1}", anything("{0} == {1}"), "Equal"),
    Function("greater", "comparison", "{0} > {1}", anything("{0} > {1}"), "Greater"),
    Function("greater_equal", "comparison", "{0} >= {1}", anything("{0} >= {1}"), "GreaterOrEqual"),
    Function("less", "comparison", "{0} < {1}", anything("{0} < {1}"), "Less"),
    Function("less_equal", "comparison", "{0} <= {1}", anything("{0} <= {1}"), "LessOrEqual"),
    Function("not_equal", "comparison", "{0} != {1}", anything("{0} != {1}")),
    Function("isfinite", "predicate", c=floats("{0} - {0} == 0")),
    Function("isinf", "predicate", c=floats("{0} == {0} && {0} - {0} != 0"), onnx=floats("IsInf")),
    Function("isnan", "predicate", c=floats("{0} != {0}"), onnx=floats("IsNaN")),
    # NaN if one is; the second if both are zero
    Function("maximum", "choice", "{0} if ({0} > {1} or {0} != {0}) else {1}",
             anything("({0} > {1} || {0} != {0}) ? {0} : {1}"), "Max"),
    Function("minimum", "choice", "{0} if ({0} < {1} or {0} != {0}) else {1}",
             anything("({0} < {1} || {0} != {0}) ? {0} : {1}"), "Min"),
    Function("where", "choice", "{1} if {0} else {2}", anything("{0} ? {1} : {2}"), "Where"),
    # bits and truths
    Function("bitwise_and", "element", "{0} & {1}", integers("{0} & {1}") | truths("{0} && {1}"),
             integers("BitwiseAnd") | truths("And")),
    Function("bitwise_invert", "element", "~{0}", integers("~{0}") | truths("!{0}"),
             integers("BitwiseNot") | truths("Not")),
    Function("bitwise_left_shift", "element", "{0} << {1}", integers("{0} << {1}")),
    Function("bitwise_or", "element", "{0} | {1}", integers("{0} | {1}") | truths("{0} || {1}"),
             integers("BitwiseOr") | truths("Or")),
    Function("bitwise_right_shift", "element", "{0} >> {1}", integers("{0} >> {1}")),
    Function("bitwise_xor", "element", "{0} ^ {1}", integers("{0} ^ {1}") | truths("{0} != {1}"),
             integers("BitwiseXor") | truths("Xor")),
    Function("logical_and", "element", "{0} and {1}", truths("{0} && {1}"), "And"),
    Function("logical_not", "element", "not {0}", truths("!{0}"), "Not"),
    Function("logical_or", "element", "{0} or {1}", truths("{0} || {1}"), "Or"),
    Function("logical_xor", "element", c=truths("{0} != {1}"), onnx="Xor"),
    # reductions
    Function("all", "reduction", total=("logical_and", "")),
    Function("any", "reduction", total=("logical_or", "")),
    Function("max", "reduction", onnx="ReduceMax", total=("maximum", "-inf")),
    Function("mean", "reduction", onnx="ReduceMean", total=("add", "0.0")),  # and divided at the end
    Function("min", "reduction", onnx="ReduceMin", total=("minimum", "inf")),
    Function("prod", "reduction", onnx="ReduceProd", total=("multiply", "")),
    Function("sum", "reduction", onnx="ReduceSum", total=("add", "0.0")),
    # products of matrices; a sum such as `vecdot` is none: a norm needs all digits
    Function("matmul", "product", onnx="MatMul"),
    Function("linalg.matmul", "product", onnx="MatMul"),
    *_rows("product", "tensordot", "linalg.tensordot"),
    *_rows("product", "product"),  # with what comes behind it, see `plans/cuda_products.py`
    # what moves elements
    Function("astype", "conversion", "{0}", anything("{0}")),
    *_rows("conversion", "asarray", "imag", "real"),
    *_rows("view", "broadcast_to", "expand_dims", "flip", "getitem", "linalg.diagonal",
           "linalg.matrix_transpose", "matrix_transpose", "moveaxis", "permute_dims", "reshape", "squeeze",
           "windows"),
    Function(IN_ORDER, c=anything("{0}")),
    *_rows("move", "concat", "setitem", "take", PICK, STACK),
    # what recording treats in its own way
    *_rows("shaped by values", "argwhere", "nonzero", "unique_all", "unique_counts", "unique_inverse",
           "unique_values"),
    *_rows("of shape alone", "empty_like", "ones_like", "zeros_like"),
    *_rows("between processes", "collective"),
    *_rows("of settings", "arange", "broadcast_shapes", "empty", "eye", "fft.fftfreq", "fft.rfftfreq", "ones",
           "zeros"),
]  # fmt: skip

FUNCTIONS = {row.name: row for row in ROWS}


def row_of(name: str) -> Function:
    """Return the row of a function: an empty one, of a function that is not listed."""
    return FUNCTIONS.get(name, Function(name))


def _of(*kinds: str) -> frozenset[str]:
    return frozenset(row.name for row in ROWS if row.kind in kinds)


ARITHMETIC = _of("arithmetic")
# Functions whose results have at each place what becomes of the elements of their arguments there.
ELEMENTWISE = _of(
    "arithmetic", "transcendental", "elementary", "comparison", "predicate", "choice", "element", "conversion"
) | {"clip", "conj", "floor_divide", "full_like", "logaddexp", "nextafter", "signbit"}
COMPARISONS, PREDICATES, CHOICES = _of("comparison"), _of("predicate"), _of("choice")
# Functions of two or three arrays that broadcast them.
BROADCASTING = frozenset(row.name for row in ROWS if "{1}" in "".join((row.python, *row.c.values())))
# Functions that may return a view of their argument, as the layout has it; and those of them that return all
# of its elements, each at least once.
VIEWS, REARRANGEMENTS = _of("view", "conversion"), _of("view")
WITHOUT_ARITHMETIC = _of("view", "conversion", "move")
PRODUCTS = _of("product")
# Functions that leave a row, a column or a number in a kernel: which function takes in an element, and what a
# total starts from.
REDUCTIONS = {row.name: row.total for row in ROWS if row.total[1]}

SHAPED_BY_VALUES, OF_SHAPE_ALONE = _of("shaped by values"), _of("of shape alone")
OF_SETTINGS = _of("of settings")
BETWEEN_PROCESSES = _of("between processes")


# -- dtypes -----------------------------------------------------------------------------------------------


def dtypes_of(name: str, arguments: Sequence[Any], result: Any) -> list[Any]:
    """Return in which dtype an elementwise function takes each argument, given that of its result."""
    if name in COMPARISONS:
        dtype = numpy.result_type(*[x.dtype if hasattr(x, "dtype") else x for x in arguments])
        return [dtype] * len(arguments)
    if name in PREDICATES or name == "astype":
        return [arguments[0].dtype]
    return [numpy.dtype(bool), result, result] if name == "where" else [result] * len(arguments)


def dtype_of_text(operation: Any) -> Any:
    """Return the dtype by whose kind a text is chosen, of an operation of a graph."""
    of = operation.arguments[0] if operation.name in PREDICATES else operation.result
    return of.dtype
