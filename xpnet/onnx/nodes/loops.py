"""Loops from operators of ONNX."""

from typing import Any

from xpnet.onnx.nodes.node import MOST_STEPS, Node, bounds, check_size, compute, numbers_in, operator


@operator("Scan")
def _scan(xp: Any, node: Node, *values: Any) -> list[Any]:
    body, number = node.get("body"), node.get("num_scan_inputs")
    others = dict(node.attributes).keys() - {"body", "num_scan_inputs"}
    end = len(values) - len(body.outer)
    if others or not 0 < number <= end or len(body.inputs) != end:
        raise ValueError(
            f"{node.name} is a loop of a kind that xpnet does not have: forward along the first axis of one "
            f"or more sequences, without {', '.join(sorted(others)) or 'another number of inputs'}."
        )
    carried, sequences = list(values[: end - number]), values[end - number : end]
    length, left = sequences[0].shape[0], []
    if not 0 < length <= bounds().steps:
        raise ValueError(
            f"{node.name} goes through {length} elements. It must be at least one, and the loops of a run at "
            f"most {MOST_STEPS} together, of which {bounds().steps} are left."
        )
    bounds().steps -= length
    for t in range(length):
        known = dict(zip(body.outer, values[end:], strict=True))
        known.update(zip(body.inputs, [*carried, *(x[t, ...] for x in sequences)], strict=True))
        outputs = compute(xp, body, known)
        carried, results = outputs[: len(carried)], outputs[len(carried) :]
        check_size((length, numbers_in(results)))
        left.append(results)
    return [*carried, *(xp.stack(each) for each in zip(*left, strict=True))]
