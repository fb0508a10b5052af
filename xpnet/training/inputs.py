"""What layers refuse of the inputs of a network: it is looked for in all examples beforehand."""

from typing import Any

from xpnet import tree
from xpnet.nn.summary import watched_calls

# Which layers read which arrays: numbers among the layers that check, and names of arrays.
Reads = set[tuple[int, str]]


def named_arrays(x: Any, name: str = "x") -> dict[str, Any]:
    """Return the arrays in inputs by names such as ``x['category']``, without sparse ones."""
    if isinstance(x, dict):
        parts = [named_arrays(part, f"{name}[{key!r}]") for key, part in x.items()]
        return {path: array for part in parts for path, array in part.items()}
    return {name: x} if tree.is_array(x) else {}


def checking_layers(net: Any) -> list:
    """Return the layers with a method ``check_inputs(x)``, such as `xpnet.nn.Embedding`."""
    return [module for module in tree.branches(net) if hasattr(module, "check_inputs")]


def check_inputs(net: Any, batch: Any, arrays: dict[str, Any]) -> Reads:
    """Let layers look at all inputs that reach them as they are: x itself, or an item of x.

    What the network makes of its inputs, a column of x, say, is not looked at.

    Parameters
    ----------
    net : Module
        A network in use. If it has layers that check, it is called with the batch, to see what they read.
    batch : array or dict
        A batch of the inputs, where the network is.
    arrays : dict of str to array
        All inputs, wherever they are, by `named_arrays`; those that are left out are not looked at.

    Returns
    -------
    set of (int, str)
        Which layers read which arrays, for `check_reads`.

    Raises
    ------
    IndexError, TypeError
        What a layer raises. A note names the array.
    """
    layers = checking_layers(net)
    reads: Reads = set()
    if not layers or not arrays:
        return reads
    numbers = {id(layer): number for number, layer in enumerate(layers)}
    names = {id(array): name for name, array in named_arrays(batch).items() if name in arrays}

    def enter(layer: Any, inputs: tuple) -> None:
        new = {(numbers[id(layer)], names[id(x)]) for x in inputs if id(x) in names}
        check_reads(layers, arrays, new - reads)  # before the layer sees the batch, which is a part of them
        reads.update(new)

    with watched_calls(layers, enter=enter):
        net(batch)
    return reads


def check_reads(layers: list, arrays: dict[str, Any], reads: Reads) -> None:
    """Let layers look at the arrays that they are known to read, see `check_inputs`."""
    for number, name in reads:
        try:
            layers[number].check_inputs(arrays[name])
        except (IndexError, TypeError) as error:
            error.add_note(f"They are in {name}.")
            raise
