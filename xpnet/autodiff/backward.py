"""The sweep, or backward pass: from a result back to the arguments, one rule a node.

Inside a sweep, gradients of complex values are conjugated, so that a rule multiplies by the plain derivative,
with no conjugates. `xpnet.autodiff.call` conjugates at both ends.
"""

from collections.abc import Iterable
from operator import attrgetter
from typing import Any

from xpnet.autodiff.primitive import ARGUMENT, ARGUMENT_WITHOUT_RULE, outputs
from xpnet.autodiff.tracer import Node, Tracer


def reachable(nodes: Iterable[Node], start: int) -> tuple[list[Node], bool]:
    """Return the nodes that were recorded since ``start`` and lead to the given ones, oldest first.

    Also says whether any of them leads on to nodes from before: to an enclosing transform.
    """
    found = {node for node in nodes if node.number >= start}
    enclosed = len(found) < len(set(nodes))
    stack = list(found)
    while stack:
        for source in stack.pop().inputs:
            if type(source) is Node and source not in found:
                if source.number < start:
                    enclosed = True
                else:
                    found.add(source)
                    stack.append(source)
    return sorted(found, key=attrgetter("number")), enclosed


def sweep(
    seeds: list[tuple[Node, Any]],
    arguments: list[Node],
    nodes: list[Node],
    namespace: Any,
    *,
    recorded: bool,
    enclosed: bool,
) -> list[Any]:
    """Return the gradient with respect to each argument, None where there is none.

    Parameters
    ----------
    seeds : list of (Node, array)
        The results, with the gradient that each starts with. The list is used up, as ``nodes`` is.
    arguments : list of Node
        The nodes whose gradients are wanted.
    nodes : list of Node
        The nodes between them, oldest first. The list is used up, so that what a node kept is freed as soon
        as the sweep has passed it.
    namespace : TracedNamespace
    recorded : bool
        Whether the rules run on traced arrays, so that the gradients have gradients themselves.
    enclosed : bool
        Whether these depend on the nodes. If not, only the seeds are traced, and the nodes hold constants.
    """
    xp = namespace if recorded else namespace.plain
    observe = namespace.observe_gradient
    # The nodes that a first-order sweep meets all lead to the arguments; in a higher-order sweep some lead
    # only to those of an enclosing transform.
    wanted = None
    if recorded:
        nodes = _leading_to(arguments, nodes)
        wanted = set(nodes)
    gradients: dict[Node, Any] = {}
    while seeds:
        _accumulate(gradients, *seeds.pop())
    found: dict[Node, Any] = dict.fromkeys(arguments)
    while nodes:
        node = nodes.pop()
        g = gradients.pop(node, None)
        if g is None:
            continue
        primitive, inputs, parameters = node.primitive, node.inputs, node.parameters
        values, y = node.values, node.kept
        if primitive is ARGUMENT and node in found:
            found[node] = g
            continue
        if recorded:
            y, values = _traced(node, namespace, enclosed)
        elif y is None:
            y = node
        if type(g) is dict:
            others, g = g, [g.get(i) for i in range(len(node.shape))]
            if not primitive.none_if_unused:
                g = [_zeros(xp, node, i, others) if one is None else one for i, one in enumerate(g)]
        if primitive.joint:
            joint = primitive.joint(xp, g, y, *values, **parameters)
            for source, contribution in zip(inputs, joint, strict=True):
                if type(source) is not Node or contribution is None or (wanted and source not in wanted):
                    continue
                if observe:
                    observe(node, g, contribution)
                _accumulate(gradients, source, _fit(xp, contribution, source))
            continue
        # strict=False: trailing inputs without a rule, such as the indices of `take`, have no gradient
        for source, rule in zip(inputs, primitive.rules, strict=False):
            if type(source) is not Node or rule is None or (wanted and source not in wanted):
                continue
            contribution = rule(xp, g, y, *values, **parameters) if parameters else rule(xp, g, y, *values)
            if type(contribution) is dict:
                _accumulate(gradients, source, contribution)
                continue
            if observe:
                observe(node, g, contribution)
            if contribution.dtype is not source.dtype or contribution.shape != source.shape:
                contribution = _fit(xp, contribution, source)
            before = gradients.get(source)
            gradients[source] = contribution if before is None else before + contribution
    return [found[node] for node in arguments]


def _leading_to(arguments: list[Node], nodes: list[Node]) -> list[Node]:
    """Keep the nodes that depend on the arguments, and not only on an enclosing transform's."""
    depending = set(arguments)
    for node in nodes:
        if any(type(source) is Node and source in depending for source in node.inputs):
            depending.add(node)
    return [node for node in nodes if node in depending]


def _accumulate(gradients: dict[Node, Any], node: Node, g: Any) -> None:
    before = gradients.get(node)
    if before is None:
        gradients[node] = g
    elif type(g) is dict:
        merged = {i: before[i] + g[i] for i in before.keys() & g.keys()}
        gradients[node] = {**before, **g, **merged}
    else:
        gradients[node] = before + g


def _traced(node: Node, namespace: Any, enclosed: bool) -> tuple[Any, Any]:
    """Return the result and the inputs of a node as traced arrays, for rules that are recorded themselves."""
    if not enclosed:
        kept = node if node.kept is None else namespace.lift(node.kept)
        return kept, namespace.lift(node.values)
    values = []
    for source, value in zip(node.inputs, node.values, strict=True):
        if type(source) is not Node:
            values.append(namespace.lift(value))
        elif value is source:
            values.append(value)
        else:
            # An argument without a rule has none in this function. The rules of its other arguments have.
            origin = source.inputs[0] if source.primitive is ARGUMENT_WITHOUT_RULE else source
            values.append(Tracer(value, origin, namespace))
    if node.kept is None:
        return node, values
    if isinstance(node.kept, tuple | list):
        return outputs(node, node.kept, namespace), values
    return Tracer(node.kept, node, namespace), values


def _zeros(xp: Any, node: Node, index: int, others: dict[int, Any]) -> Any:
    device = next(iter(others.values())).device
    return xp.zeros(node.shape[index], dtype=node.dtype[index], device=device)


def _fit(xp: Any, g: Any, node: Node) -> Any:
    """Sum a gradient over the axes along which its input was broadcast, and give it the input's dtype."""
    shape = node.shape
    if shape == () != g.shape:
        g = xp.sum(g)
    elif g.shape != shape:
        if len(g.shape) < len(shape):  # an assigned value may have more axes of length 1 than its place
            g = xp.reshape(g, (1,) * (len(shape) - len(g.shape)) + tuple(g.shape))
        added = len(g.shape) - len(shape)
        stretched = tuple(
            added + axis for axis, size in enumerate(shape) if size == 1 and g.shape[added + axis] != 1
        )
        axes = (*range(added), *stretched)
        if axes:
            g = xp.sum(g, axis=axes)
            g = xp.reshape(g, shape) if stretched else g
        elif g.shape != shape:
            g = xp.broadcast_to(g, shape)
    if g.dtype != node.dtype:
        if xp.isdtype(g.dtype, "complex floating") and xp.isdtype(node.dtype, "real floating"):
            g = xp.real(g)
        g = xp.astype(g, node.dtype, copy=False)
    return g
