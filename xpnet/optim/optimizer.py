"""What all optimizers share: pairs of pure functions, which turn gradients into better parameters."""

from dataclasses import dataclass, replace
from typing import Any

from array_api_compat import device

from xpnet import tree
from xpnet.autodiff import array_namespace
from xpnet.backends import is_known
from xpnet.cached import cached_property
from xpnet.optim.rates import as_rate
from xpnet.optim.schedules import Schedule
from xpnet.optim.transforms import ORDER, Arrays, Transform, check_state, each_dtype, other_state
from xpnet.settings import at_least_zero, make_python

__all__ = ["Chain", "Optimizer", "chain"]


class Optimizer:
    r"""What all optimizers share: gradients go through transforms, and then :math:`\theta - \eta g`.

    An optimizer holds settings only. What is remembered from one update to the next is the state, a tree of
    arrays that `init` makes, and `update` takes and returns.

    Attributes
    ----------
    learning_rate : float or callable
        The learning rate :math:`\eta`: a number, or a schedule that is called with the number of updates made
        before. Of `groups`, a tuple with that of each.
    transforms : tuple of Transform
        What is done to the gradients, in order.

    Examples
    --------
    >>> import numpy as np
    >>> import xpnet
    >>> optimizer = xpnet.optim.SGD(0.25)
    >>> params = {"x": np.asarray([1.0, 2.0])}
    >>> state = optimizer.init(params)
    >>> grads = xpnet.grad(lambda params: params["x"] @ params["x"])(params)
    >>> params, state = optimizer.update(grads, state, params)
    >>> params
    {'x': array([0.5, 1. ])}
    """

    learning_rate: float | Schedule

    # What its state holds beside the step, which optimizers of groups share.
    _holds = ("learning_rate", "transforms")

    @cached_property
    def transforms(self) -> tuple[Transform, ...]:
        raise NotImplementedError

    @property
    def last(self) -> "Optimizer":
        """What moves the parameters, behind all transforms: the optimizer at the end of a chain."""
        return self

    def __post_init__(self) -> None:
        make_python(self)
        if not callable(self.learning_rate) or isinstance(self.learning_rate, tree.Branch):
            at_least_zero("learning_rate", self.learning_rate)
        _ = self.transforms  # which checks their settings, now and not at the first update

    def init(self, params: Any) -> dict[str, Any]:
        """Make the state to start from.

        Begin with a new one after a change of what is frozen: a state for other parameters of the same shapes
        cannot be told from one for these.

        Parameters
        ----------
        params : tree
            A module, dict, list or tuple with floating-point arrays at its leaves.

        Returns
        -------
        dict
            ``"step"``, the number of updates made; ``"learning_rate"``, that of the last update; and
            ``"transforms"``, the state of each transform. The first two are arrays of shape () and at least
            float32, the others are of the parameters' dtypes. All are on the parameters' device. Where the
            learning rate is a number, it is taken from the state: assign another one there during training,
            ``state["learning_rate"] = 5e-5``. Under `jit`, each number is recorded anew; one that changes
            often is assigned as an array.

        Raises
        ------
        ValueError
            If there are no parameters, or all are frozen, or one does not hold floating-point numbers.
        """
        tree.check_trained(params)
        tree.check_unshared(params)
        leaves = tree.leaves(params)
        for position, leaf in enumerate(leaves):
            if not tree.is_array(leaf) or not array_namespace(leaf).isdtype(leaf.dtype, "real floating"):
                received = leaf.dtype if tree.is_array(leaf) else type(leaf).__name__
                raise ValueError(
                    f"parameters must be arrays of real floating-point numbers, received {received} at "
                    f"{tree.paths(params)[position] or 'the root'}. Convert it with "
                    "xpnet.asarray(x, dtype='float32')."
                )
        xp = array_namespace(*leaves)
        # Wide enough to count: float16 ends at 2048.
        dtype = xp.result_type(xp.float32, *leaves)
        step = xp.zeros((), dtype=dtype, device=device(leaves[0]))
        return {"step": step} | self._first(leaves, step, params)

    def _first(self, leaves: Arrays, step: Any, params: Any) -> dict[str, Any]:
        """Return the state to start from for a list of parameters, without the step.

        A group may be without parameters: its transforms, which may be anybody's, are given none to look at.
        """
        transforms = tuple(transform.init(leaves) if leaves else () for transform in self.transforms)
        return self.last._first_rates(leaves, step, params) | {"transforms": transforms}

    def _first_rates(self, _leaves: Arrays, step: Any, _params: Any) -> dict[str, Any]:
        return {"learning_rate": self._rate(array_namespace(step), step)}

    def update(self, grads: Any, state: dict[str, Any], params: Any) -> tuple[Any, dict[str, Any]]:
        """Return better parameters, and the state for the next update.

        Parameters
        ----------
        grads : tree
            The gradient of the loss with respect to each parameter. It comes first; parameters in its place
            are a tree of the same shape, and cannot be told from it.
        state : dict
            What `init` or the last `update` returned.
        params : tree
            The parameters. They are not changed.

        Returns
        -------
        params : tree
            As ``params``, with new arrays of the same dtypes; what is not trained is shared.
        state : dict

        Raises
        ------
        ValueError
            If the gradients do not have the structure, shapes and dtypes of the parameters, the state is not
            one of this optimizer for these parameters, or a number in it is no learning rate.
        """
        state = self.checked(state)
        gradients, leaves, structure = checked_gradients(grads, params)
        step = state["step"]
        moved, state = self._update(gradients, state, leaves, step, params)
        return tree.unflatten(structure, moved), {"step": step + 1} | state

    def chosen(self, _params: Any) -> "Optimizer":
        """Return the same optimizer, whose groups of parameters are chosen by their paths.

        A piece of a parameter has another shape, by which it might be in another group.
        """
        return self

    def checked(self, state: Any) -> dict[str, Any]:
        """Return a state in which learning rates that were assigned as numbers are arrays.

        Raises
        ------
        ValueError
            If it is not one of this optimizer, or something in it is no learning rate.
        """
        check_state(state, "step", *self.last._holds)
        return self._checked(state, state["step"])

    def _checked(self, state: dict[str, Any], step: Any) -> dict[str, Any]:
        if len(state["transforms"]) != len(self.transforms):
            raise other_state(f"with {len(self.transforms)} transforms, received {len(state['transforms'])}")
        rates = self.last._checked_rates(state, step)
        return state | rates if rates else state

    def _checked_rates(self, state: dict[str, Any], step: Any) -> dict[str, Any]:
        if "groups" in state:
            raise other_state("without groups of parameters, received one with groups")
        rate = state["learning_rate"]
        if callable(self.learning_rate) and not tree.is_array(rate):
            raise ValueError(
                "the learning rate in a state can be changed where it is a number to the optimizer, received "
                f"{rate!r} for one with a schedule. Change the schedule, or give the optimizer a number."
            )
        taken = as_rate(rate, step)
        return {} if taken is rate else {"learning_rate": taken}

    def _update(
        self, gradients: Arrays, state: dict[str, Any], leaves: Arrays, step: Any, params: Any
    ) -> tuple[Arrays, dict[str, Any]]:
        """Return a list of better parameters, and the next state without the step."""
        if not leaves and tree.leaves(state["transforms"]):
            raise other_state("which remembers nothing where there are no parameters, received arrays")
        states = []
        for transform, before in zip(self.transforms, state["transforms"], strict=True):
            after: Any = ()
            if leaves:
                gradients, after = transform.update(gradients, before, leaves, step)
            states.append(after)
        moved, rates = self.last._move(gradients, state, leaves, step, params)
        return moved, rates | {"transforms": tuple(states)}

    def _move(
        self, gradients: Arrays, state: dict[str, Any], leaves: Arrays, step: Any, _params: Any
    ) -> tuple[Arrays, dict[str, Any]]:
        rate = state["learning_rate"]
        if callable(self.learning_rate):
            rate = self._rate(array_namespace(step, *leaves), step)
        moved = [p - r * g for p, r, g in zip(leaves, each_dtype(rate, leaves), gradients, strict=True)]
        return moved, {"learning_rate": rate}

    def _rate(self, xp: Any, step: Any) -> Any:
        rate = self.learning_rate(step) if callable(self.learning_rate) else self.learning_rate
        if is_known(rate):
            return xp.full_like(step, at_least_zero("learning_rate", rate))
        return xp.astype(rate, step.dtype, copy=False)


def checked_gradients(grads: Any, params: Any) -> tuple[Arrays, Arrays, Any]:
    """Return the leaves of gradients and parameters, and the structure of the latter.

    Raises
    ------
    ValueError
        If the gradients do not have the structure, shapes and dtypes of the parameters.
    """
    leaves, structure = tree.flatten(params)
    gradients, received = tree.flatten(grads)
    if received != structure:
        raise ValueError(
            f"the gradients must be a tree like the parameters, {structure}, received {received}. Pass "
            f"what xpnet.grad returns for these parameters. {ORDER}"
        )
    for position, (g, p) in enumerate(zip(gradients, leaves, strict=True)):
        if not tree.is_array(g) or g.shape != p.shape or g.dtype != p.dtype:
            received = f"{g.dtype}{list(g.shape)}" if tree.is_array(g) else type(g).__name__
            raise ValueError(
                "a gradient must have the shape and dtype of its parameter, "
                f"{p.dtype}{list(p.shape)}, received {received} at "
                f"{tree.paths(params)[position] or 'the root'}."
            )
    array_namespace(*leaves, *gradients)  # which refuses arrays of several libraries
    return gradients, leaves, structure


@dataclass(frozen=True)
class Chain(Optimizer):
    """Transforms followed by an optimizer; `chain` makes it."""

    parts: tuple[Transform, ...]
    optimizer: Optimizer

    def __post_init__(self) -> None:
        are_transforms = all(isinstance(part, Transform) for part in self.parts)
        if not are_transforms or not isinstance(self.optimizer, Optimizer):
            given = [part for part in (*self.parts, self.optimizer) if part is not None]
            received = ", ".join(type(part).__name__ for part in given)
            raise TypeError(
                f"chain needs transforms and at the end an optimizer, received ({received}). For example: "
                "chain(clip_by_global_norm(1.0), Adam(1e-3))."
            )

    @property
    def last(self) -> Optimizer:
        return self.optimizer.last

    @property
    def learning_rate(self) -> float | Schedule:  # type: ignore[override]
        return self.optimizer.learning_rate

    def chosen(self, params: Any) -> Optimizer:
        return replace(self, optimizer=self.optimizer.chosen(params))

    @cached_property
    def transforms(self) -> tuple[Transform, ...]:
        return self.parts + self.optimizer.transforms


def chain(*parts: Transform | Optimizer) -> Optimizer:
    """Put transforms before an optimizer.

    Parameters
    ----------
    *parts : Transform or Optimizer
        Transforms in the order in which the gradients go through them, and at the end an optimizer.

    Returns
    -------
    Optimizer

    Raises
    ------
    TypeError
        If the last part is not an optimizer, or another one is not a transform.

    Examples
    --------
    >>> from xpnet import optim
    >>> optimizer = optim.chain(optim.clip_by_global_norm(1.0), optim.Adam(1e-3))
    """
    last: Any = parts[-1] if parts else None
    return Chain(parts[:-1], last)  # type: ignore[arg-type]  # which it checks
