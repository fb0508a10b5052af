"""Looking inside a network: what its parts compute."""

from collections.abc import Sequence
from typing import Any

from xpnet import tree
from xpnet.nn.module import Module
from xpnet.nn.summary import watched_calls
from xpnet.selection import advice


class Intermediate(Module):
    """A network that returns what a part of another one computes on the way.

    Parameters
    ----------
    net : Module
        The network. It is shared: training one trains both.
    where : str or sequence of str
        The path of the part, such as ``"layers.1"``, or several; see `xpnet.Module.summary`.

    Raises
    ------
    ValueError
        If a path names no module of the network; when called, if the network does not call the part, or calls
        it several times, or in `xpnet.scan`, `xpnet.checkpoint` or `xpnet.jit`, which show no single steps.
    TypeError
        If ``net`` is no module, or ``where`` no path.

    Notes
    -----
    It is called as the network is, and returns the output of the part; for several paths, a dict of path to
    output. The network computes its own output, too, outside of `xpnet.jit`. State, such as the running
    statistics of `BatchNorm`, moves as in a call of the network.

    Examples
    --------
    >>> import numpy as np
    >>> from xpnet import nn
    >>> net = nn.Sequential(nn.Dense(4, 8, seed=0), nn.ReLU(), nn.Dense(8, 2, seed=1))
    >>> nn.Intermediate(net, "layers.1")(np.ones((5, 4), dtype="float32")).shape
    (5, 8)
    >>> outputs = nn.Intermediate(net, ["layers.0", "layers.2"])(np.ones((5, 4), dtype="float32"))
    >>> {path: output.shape for path, output in outputs.items()}
    {'layers.0': (5, 8), 'layers.2': (5, 2)}
    """

    def __init__(self, net: Module, where: str | Sequence[str]) -> None:
        if not isinstance(net, Module):
            raise TypeError(
                f"Intermediate looks inside a network, an xpnet.nn.Module, received a {type(net).__name__}."
            )
        names = (where,) if isinstance(where, str) else tuple(where) if isinstance(where, Sequence) else ()
        if not names or not all(isinstance(name, str) for name in names):
            raise TypeError(
                'Intermediate needs the path of a part, such as "layers.1", or a list of paths, received '
                f"{where!r}."
            )
        self.net = net
        self.where = where if isinstance(where, str) else names
        _parts(net, names)

    @property
    def takes_sparse(self) -> bool:  # type: ignore[override]
        return self.net.takes_sparse

    @property
    def takes_mask(self) -> bool:  # type: ignore[override]
        return self.net.takes_mask

    def __call__(self, *inputs: Any, **options: Any) -> Any:
        net = tree.copied(self.net)  # whose calls nothing else sees
        names = (self.where,) if isinstance(self.where, str) else self.where
        parts = _parts(net, names)
        outputs: dict[int, list[Any]] = {id(part): [] for part in parts.values()}
        with watched_calls([*parts.values()], lambda part, output: outputs[id(part)].append(output)):
            net(*inputs, **options)
        tree.copy_state(net, self.net)
        found = {name: _only(outputs[id(part)], name, part) for name, part in parts.items()}
        return found[self.where] if isinstance(self.where, str) else found


def _parts(net: Module, names: Sequence[str]) -> dict[str, Any]:
    """Return the parts of a network by their paths."""
    parts = {path: part for path, part in tree.named_branches(net) if isinstance(part, Module)}
    for name in names:
        if name not in parts:
            raise ValueError(
                f"each path must name a module of the network, received {name!r}."
                f"{advice(name, [path for path in parts if path])}"
            )
    return {name: parts[name] for name in names}


def _only(outputs: list[Any], name: str, part: Any) -> Any:
    if len(outputs) == 1:
        return outputs[0]
    received = f"{len(outputs)} times" if outputs else "not at all"
    raise ValueError(
        f"the network must call a part once for its output to be seen, but the {type(part).__name__} at "
        f"{name or 'the root'} was called {received}. What is called in xpnet.scan, xpnet.checkpoint or "
        "xpnet.jit is not seen: choose a module around it."
    )
