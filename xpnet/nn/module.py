"""What all layers and networks have in common."""

import textwrap
from collections.abc import Callable
from inspect import signature
from typing import Any, Self

from xpnet import tree
from xpnet.arrays import calling_line
from xpnet.autodiff.tracer import Tracer
from xpnet.errors import NotRecordableError
from xpnet.nn.freezing import freeze, unfreeze
from xpnet.nn.summary import Summary, summarize
from xpnet.replay.record import Recorded
from xpnet.replay.same.outside import FromOutside
from xpnet.settings import counts


class _Training:
    """The attribute `Module.training`: what `train` and `eval` stored, but False of what is frozen whole."""

    def __init__(self, at_first: bool) -> None:
        self._at_first = at_first

    def __get__(self, module: Any, _owner: Any = None) -> bool:
        if module is None:
            return self._at_first
        if module.frozen is True and all(part.frozen is True for part in tree.branches(module)):
            return False
        stored: bool = vars(module).get("training", self._at_first)
        return stored

    def __set__(self, module: Any, training: bool) -> None:
        vars(module)["training"] = training


class Module(tree.Branch):
    """A layer or a network: an object whose arrays are trained.

    Arrays, modules, and lists, tuples, dicts and dataclasses of them that are assigned as attributes are the
    module's parameters and parts. Arrays that are not trained but carried along (a counter, running
    statistics) are named in the class attribute ``state``. All other attributes are settings. Of a dict or
    dataclass with arrays, each item and field is a part: keep settings outside of it.

    A module is a tree: ``xpnet.grad(loss)(net, x, y)`` returns a module of the same shape, with a gradient
    wherever the network has an array. To share a layer, hold it once and call it twice: an array that stands
    at two places would be trained as two, so optimizers refuse it. State carries no gradient.

    Attributes
    ----------
    training : bool
        Whether layers such as `Dropout` behave as in training. True at first; `train` and `eval` set it. It
        is False while the module is frozen with all its parts.
    frozen : bool or tuple of str
        What training leaves as it is: all arrays of the module itself, or those in the attributes that are
        named. Modules inside say it themselves. False at first; `freeze` and `xpnet.nn.freeze` set it.
    takes_sparse : bool
        Whether batches of a sparse matrix reach the module as they are, and not as dense arrays. A `Dense`
        layer takes them; set it to True in a class whose inputs go to such layers alone. A class with a
        ``__call__`` of its own does not inherit it.
    takes_mask : bool
        Whether a `Sequential` passes its mask on to the module: whether ``__call__`` has a parameter of this
        name.
    gives_probabilities : bool
        Whether its outputs are probabilities, as those of `Softmax` and `Sigmoid` are: `fit` refuses them in
        front of a loss that takes logits. Set it to True in a class of your own that ends in one of these.

    Examples
    --------
    >>> import xpnet
    >>> class Residual(xpnet.nn.Module):
    ...     def __init__(self, width, seed):
    ...         self.inner = xpnet.nn.Dense(width, width, seed=seed)
    ...
    ...     def __call__(self, x):
    ...         return x + self.inner(x)
    >>> Residual(8, seed=0)
    Residual(
      inner: Dense(weight: float32 (8, 8), bias: float32 (8,)),
    )
    """

    training: bool = _Training(at_first=True)  # type: ignore[assignment]
    takes_sparse: bool = False
    takes_mask: bool = False
    gives_probabilities: bool = False

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        if isinstance(at_first := vars(cls).get("training"), bool):
            cls.training = _Training(at_first)  # type: ignore[assignment]
        for what in ("takes_sparse", "gives_probabilities"):
            if "__call__" in vars(cls) and what not in vars(cls):
                setattr(cls, what, False)  # what it does with x is not what the class above does
        if "__call__" in vars(cls) and "takes_mask" not in vars(cls):
            cls.takes_mask = _has_parameter(cls.__call__, "mask")

    def __setattr__(self, name: str, value: Any) -> None:
        if name in self.state and name in vars(self):
            value = self._as_state(name, value)
        super().__setattr__(name, value)

    def _as_state(self, name: str, value: Any) -> Any:
        """Return what state may become: in a module that lasts, nothing of a transform or a recording."""
        before = vars(self)[name]
        if _holds(before, Tracer):  # a copy that was passed to the transform
            return value
        if _holds(value, Tracer):
            parts, structure = tree.flatten(value, state=True, is_leaf=tree.is_branch)
            value = tree.unflatten(structure, [x.value if type(x) is Tracer else x for x in parts])
        if _holds(value, Recorded) and tree.is_array(before) and type(before) is not Recorded:
            raise NotRecordableError(
                "a function under jit or in scan may write to the state of modules among its arguments "
                f"alone; it writes to {name} of a {type(self).__name__} that is none of them, at "
                f"{calling_line()}. Pass the module as an argument."
            )
        return value

    def __call__(self, *inputs: Any, **options: Any) -> Any:
        raise NotImplementedError(
            f"{type(self).__name__} needs a method __call__(self, x) that computes its output."
        )

    def train(self) -> Self:
        """Behave as in training, with all parts; return the module itself."""
        return self._switch(True)

    def eval(self) -> Self:
        """Behave as in use, with all parts; return the module itself."""
        return self._switch(False)

    def _switch(self, training: bool) -> Self:
        for module in tree.branches(self):
            module.training = training  # type: ignore[attr-defined]
        return self

    def freeze(self) -> Self:
        """Keep all arrays as they are in training, with all parts; return the module itself.

        ``net.freeze(); net.layers[-1].unfreeze()`` trains the last layer alone. `xpnet.nn.freeze` freezes
        parts by their paths, and says what being frozen means.

        Raises
        ------
        ValueError
            If an attribute of a module holds arrays beside modules.
        """
        return freeze(self)

    def unfreeze(self) -> Self:
        """Let training change all arrays again, with all parts; return the module itself."""
        return unfreeze(self)

    def summary(self, input_shape: tuple[int, ...], dtype: str | None = None) -> Summary:
        """List the layers with the shapes of their outputs and their numbers of parameters.

        Parameters
        ----------
        input_shape : tuple of int
            The shape of one example, without the batch axis.
        dtype : str, optional
            The dtype of the input; by default that of the parameters.

        Returns
        -------
        Summary
            Prints as a table.

        Raises
        ------
        ValueError
            If ``input_shape`` is no tuple of positive integers.
        """
        return summarize(self, counts("input_shape", input_shape), dtype)

    def __repr__(self) -> str:
        shown = {name: value for name, value in vars(self).items() if name[0] != "_" and value is not None}
        shown.pop("training", None)
        return block(type(self).__name__, {name: _describe(value) for name, value in shown.items()})


def _has_parameter(function: Callable[..., Any], name: str) -> bool:
    try:
        return name in signature(function).parameters
    except ValueError:  # of a function that is not written in Python
        return False


def _holds(value: Any, kind: type) -> bool:
    """Say whether there are arrays of a class among what is or becomes state."""
    leaves = [value] if tree.is_array(value) else tree.outside_branches(value)
    for leaf in leaves:
        if type(leaf) is FromOutside:
            leaf._leave("state")
    return any(type(leaf) is kind for leaf in leaves)


def _describe(value: Any) -> str:
    if tree.is_array(value):
        return f"{str(value.dtype).rpartition('.')[2]} {tuple(value.shape)}"
    if isinstance(value, list | tuple) and tree.is_child(value):
        return block("", {str(index): _describe(item) for index, item in enumerate(value)})
    if isinstance(value, dict) and tree.is_child(value):
        return block("", {str(key): _describe(item) for key, item in value.items()})
    if tree.is_dataclass(value):
        shown = {name: x for name, x in tree.attributes_of(value).items() if name[0] != "_"}
        return block(type(value).__name__, {name: _describe(x) for name, x in shown.items()})
    return getattr(value, "__name__", None) or repr(value)


def block(name: str, parts: dict[str, str]) -> str:
    """Write ``name(key: part, ...)``, on several lines where the parts have brackets of their own."""
    texts = [f"{key}: {part}" for key, part in parts.items()]
    if all(part[-1:] != ")" or part.startswith(_ARRAY) for part in parts.values()):
        return f"{name}({', '.join(texts)})"
    return f"{name}(\n" + textwrap.indent(",\n".join(texts), "  ") + ",\n)"


# An array is shown as its dtype and shape, which fits on a line.
_ARRAY = ("float", "int", "uint", "bool", "complex", "bfloat")
