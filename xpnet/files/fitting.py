"""What to say where a network and a file of PyTorch do not fit together."""

from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy

from xpnet import tree
from xpnet.files.layouts import Match
from xpnet.files.tensors import Tensor, dtype_name
from xpnet.selection import advice, some

_SHOWN = 6  # arrays that do not fit


def checked_names(names: Mapping[str, str] | None, net: Any) -> Mapping[str, str]:
    """Return the ``names`` of `load_torch` and `save_torch`.

    Raises
    ------
    TypeError
        If it is no mapping from texts to texts.
    ValueError
        If the network has no such layer.
    """
    names = {} if names is None else names
    if not isinstance(names, Mapping) or not all(isinstance(x, str) for pair in names.items() for x in pair):
        raise TypeError(f'names must be a mapping such as {{"layers.0": "fc1"}}, received {names!r}.')
    layers = [name for name, _ in tree.named_branches(net)]
    for name in names:
        if name not in layers:
            raise ValueError(
                f"names must be names of layers of the network, received {name!r}."
                f"{advice(name, [*filter(None, layers)])}"
            )
    return names


def shapes_there(match: Match, arrays: Mapping[str, Any]) -> list[tuple[int, ...]]:
    """Return the shapes that the arrays of a match must have in a file, from the arrays here."""
    # Of one byte for all elements.
    here = [numpy.broadcast_to(numpy.zeros((), "int8"), tuple(arrays[name].shape)) for name in match.here]
    return [x.shape for x in match.save(here)]


def holds(wide: str, narrow: str) -> bool:
    """Say whether each number of one dtype is one of another."""
    if "float" not in narrow or "float" not in wide or wide == "bfloat16":
        return wide == narrow
    return numpy.can_cast("float32" if narrow == "bfloat16" else narrow, wide)


class Misfit(NamedTuple):
    """An array of a file that has another shape or dtype than the network's, and what to do."""

    text: str
    advice: str


def misfits(match: Match, arrays: Mapping[str, Any], given: Iterable[Tensor]) -> Iterator[Misfit]:
    """Yield what of the arrays of a file does not fit those of a network."""
    dtype, target = dtype_name(arrays[match.here[0]]), some(match.here)
    for there, shape, x in zip(match.there, shapes_there(match, arrays), given, strict=True):
        if x.values.shape != shape:
            text = f"{there} must be of shape {shape}, for {target}, received {x.kind}."
            yield Misfit(
                text,
                "Give the layers the sizes of the file, or load the whole network, then put another head on: "
                "Sequential(*net[:-1], head).",
            )
        elif not holds(dtype, x.dtype):
            yield Misfit(
                f"{there} must be {dtype}, for {target}, received {x.kind}.",
                f'Numbers are not rounded on the way: make the layers with dtype="{x.dtype}", or write '
                f"torch_net.to(torch.{dtype}).state_dict() in PyTorch.",
            )


def explained(
    path: Any,
    arrays: Mapping[str, Any],
    file: Mapping[str, Tensor],
    missing: Collection[Match],
    unused: Collection[str],
    wrong: Collection[Misfit],
) -> str:
    """Return the error for a file that does not fit.

    Parameters
    ----------
    path : path
    arrays : mapping of str to array
        Those of the network.
    file : mapping of str to Tensor
        Those of the file.
    missing : collection of Match
        What the file does not have.
    unused : collection of str
        Names of arrays in the file that are for nothing.
    wrong : collection of Misfit
    """
    parts = [f"the network must fit the file {path}."]
    if missing:
        there = dict.fromkeys(name for match in missing for name in match.there if name not in file)
        here = dict.fromkeys(name for match in missing for name in match.here)
        parts.append(f"It has no {some(there)}, for {some(here)}.")
    if unused:
        parts.append(f"It has {some(unused)}, for which the network has nothing.")
    parts.extend(misfit.text for misfit in list(wrong)[:_SHOWN])
    parts.extend(dict.fromkeys(misfit.advice for misfit in wrong))
    if missing and unused:
        found = _names(arrays, file, missing, unused)
        text = ", ".join(f'"{place}": "{name}"' for place, name in found.items())
        parts.append(
            f"Is names={{{text}}} meant?"
            if found
            else 'Say the names of layers there with names={"layers.0": "fc1"}.'
        )
    elif missing:
        parts.append("Give the network only layers that the file has.")
    elif unused:
        parts.append(
            "Give the network the layers that use them, and take a part of it then, such as net[:-1]."
        )
    return " ".join(parts)


def _names(
    arrays: Mapping[str, Any], file: Mapping[str, Tensor], missing: Collection[Match], unused: Collection[str]
) -> dict[str, str]:
    """Return ``names`` that would find what is missing, where it can only be these."""
    there = [name for match in missing for name in match.there]
    before = {name.removesuffix(f".{there[0]}") for name in unused if name.endswith(f".{there[0]}")}
    for prefix in before:  # the network is a part of another one there
        if all(f"{prefix}.{name}" in unused for name in there):
            return {"": prefix}
    wanted: dict[str, dict[str, tuple[int, ...]]] = {}
    for match in missing:
        shapes = zip(match.layout.there, shapes_there(match, arrays), strict=True)
        wanted.setdefault(match.place, {}).update(shapes)
    fitting = {place: _fitting(layer, file, unused) for place, layer in wanted.items()}
    found = {place: prefixes[0] for place, prefixes in fitting.items() if len(prefixes) == 1}
    once = [*found.values()]
    return {place: name for place, name in found.items() if once.count(name) == 1}


def _fitting(
    layer: Mapping[str, tuple[int, ...]], file: Mapping[str, Tensor], unused: Collection[str]
) -> list[str]:
    """Return the names of layers in a file with all arrays of a layer, of their shapes, and no others."""
    first = next(iter(layer))
    prefixes = [name.removesuffix(f".{first}") for name in unused if name.endswith(f".{first}")]
    return [
        prefix
        for prefix in prefixes
        if all(
            f"{prefix}.{name}" in unused and file[f"{prefix}.{name}"].values.shape == shape
            for name, shape in layer.items()
        )
        and sum(name.startswith(f"{prefix}.") for name in unused) == len(layer)
    ]
