"""What outputs and targets must be like for a metric."""

from typing import Any

from xpnet import tree
from xpnet.autodiff import array_namespace


def check_arrays(name: str, **values: Any) -> None:
    for what, value in values.items():
        if not tree.is_array(value):
            several = any(map(tree.is_array, tree.leaves(value)))
            choose = f'metrics.{name}.of_part("name", lambda outputs, targets: (outputs[0], targets)), say'
            raise TypeError(
                f"{name} compares one array of outputs with one of targets, received {what} of type "
                f"{type(value).__name__}. "
                + (f"Choose one of the arrays: {choose}." if several else "`xpnet.asarray` makes an array.")
            )
        if 0 in value.shape or not value.shape:
            raise ValueError(
                f"{name} needs at least one example, on the first axis, received {what} of shape "
                f"{tuple(value.shape)}."
            )
        if array_namespace(value).isdtype(value.dtype, "complex floating"):
            raise TypeError(f"{name} compares real numbers, received {what} of {value.dtype}.")
    numbers = [value.shape[0] for value in values.values()]
    if len(set(numbers)) > 1:
        received = " and ".join(f"{number} {what}" for number, what in zip(numbers, values, strict=True))
        raise ValueError(f"{name} needs as many targets as outputs, received {received}.")


def shape_of(x: Any) -> tuple[int, ...]:
    return tuple(getattr(x, "shape", ()))


def as_many(outputs: Any, targets: Any) -> Any:
    """Return as many of all targets as there are outputs in a batch, if these are arrays at all."""
    arrays = all(tree.is_array(x) and x.shape for x in (outputs, targets))
    return targets[: min(outputs.shape[0], targets.shape[0]), ...] if arrays else targets


def check_shapes_of_batch(name: str, outputs: Any, targets: Any) -> None:
    """Check shapes alone, as the rest was looked at before."""
    shape = shape_of(outputs)
    if not shape or 0 in shape or shape != shape_of(targets):
        check_shapes(name, outputs, targets)


def check_shapes(name: str, outputs: Any, targets: Any) -> None:
    check_arrays(name, outputs=outputs, targets=targets)
    shape, received = tuple(outputs.shape), tuple(targets.shape)
    if shape != received:
        raise ValueError(
            f"{name} needs outputs and targets of one shape, received {shape} and {received}. Targets of "
            "shape (batch,) belong to outputs of shape (batch,): reshape them to (batch, 1), or the outputs "
            "to (batch,). For labels beside a score for each class use metrics.accuracy."
        )


def check_all_shapes(name: str, outputs: Any, targets: Any) -> None:
    check_shapes(name, outputs, as_many(outputs, targets))
