"""What `fit` and `predict` are given as data: examples to make batches of, or batches from outside."""

from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from typing import Any, TypeAlias

from xpnet.backends import Device, columns_of
from xpnet.distributed import Group
from xpnet.settings import count, described, is_bool, is_number
from xpnet.training.batches import Batches
from xpnet.training.destination import Destination, is_sparse
from xpnet.training.examples import Examples, check_accumulate
from xpnet.training.lazy import Items, has_keys, is_like_array, is_of_items
from xpnet.training.networks import place_of
from xpnet.training.orders import order_of

Data: TypeAlias = Examples | Batches

# The parts of examples and batches, of which the last may be missing.
_NAMES = ("x", "y", "sample_weight")
_VALIDATION_NAMES = ("x of validation", "y of validation", "sample_weight of validation")

_BATCH_SIZE = 32
_BATCH_SIZE_IN_USE = 1024


def inputs(net: Any, place: tuple[Device, Any], x: Any, batch_size: Any) -> Data:
    """Return what `predict` goes through, for a network in a place."""
    if _are_batches(x):
        _check_no_others(batch_size=batch_size)
        return Batches(["x"], _iterable(x), _input_of, *place)
    batch_size = _BATCH_SIZE_IN_USE if batch_size is None else count("batch_size", batch_size)
    values = Items(["x"], x, _input_of, Destination(*place)) if is_of_items(x) else {"x": x}
    return Examples(values, *place, batch_size=batch_size, sparse=net.takes_sparse)


def training_data(
    net: Any,
    x: Any,
    y: Any,
    sample_weight: Any,
    validation: Any,
    *,
    batch_size: Any,
    shuffle: Any,
    block_size: Any,
    drop_last: bool,
    accumulate: int,
    random: Any,
    epochs: int,
    group: Group,
    opened: ExitStack,
) -> tuple[Data, Data | None]:
    """Return the data for training and, or None, those for validation.

    Parameters
    ----------
    drop_last : bool
        Whether an epoch leaves out what is too little for a whole step.
    accumulate : int
        How many batches make a step.
    epochs : int
        How many are left.
    group : Group
        The processes that train together.
    opened : contextlib.ExitStack
        It closes the data.
    """
    _check_pair_or_share(validation)
    size = _BATCH_SIZE if batch_size is None else count("batch_size", batch_size)
    held_out: Data | None = None
    if _gives_batches(x, y):
        order = None if is_bool(shuffle) else shuffle
        others = {"batch_size": batch_size, "shuffle": order, "block_size": block_size}
        _check_no_others(**others, drop_last=drop_last or None)
        if is_number(validation):
            raise ValueError(
                f"validation={validation!r} needs data that are indexed, of which a share is put aside; "
                "received batches from outside. Give other batches for validation, or a pair (x, y)."
            )
    data = _data(net, _NAMES, x, y, sample_weight, size, epochs, group)
    opened.callback(data.close)
    if isinstance(data, Batches):
        size = data.batch_size
        check_accumulate(data.settings.get("batches", 0), accumulate)  # if they are not counted, at their end
    else:
        if is_number(validation):
            data, held_out = data.split(float(validation), random)
        data.order = order_of(shuffle, block_size, rows=len(data), elements=data.elements, random=random)
        if is_bool(shuffle) and shuffle:
            data.warn_of_chunks()
        data.accumulate, data.drop_last = accumulate, drop_last
        data.check_steps()
        if size < group.size:
            raise ValueError(
                f"batch_size must be at least the number of processes, {group.size}, received {size}. It is "
                "that of all together."
            )
    if validation is not None and held_out is None:
        parts = tuple(validation) if _are_parts(validation) else (validation,)
        x, y, sample_weight = (*parts, None, None)[:3]
        held_out = _data(net, _VALIDATION_NAMES, x, y, sample_weight, size, epochs, group)
        opened.callback(held_out.close)
    return data, held_out


def _data(
    net: Any,
    names: tuple[str, ...],
    x: Any,
    y: Any,
    sample_weight: Any,
    batch_size: int,
    epochs: int,
    group: Group,
) -> Data:
    data = _whole_data(net, names, x, y, sample_weight, batch_size, epochs)
    if group.size > 1:
        data.join(group)
    return data


def _whole_data(
    net: Any, names: tuple[str, ...], x: Any, y: Any, sample_weight: Any, batch_size: int, epochs: int
) -> Data:
    where, dtype = place_of(net)
    if y is None and sample_weight is not None:
        raise TypeError(
            f"{names[2]} must be left out where {names[0]} stands for {names[1]}, too, received "
            f"{described(sample_weight)}. Give it with them: batches and examples of (x, y, sample_weight)."
        )
    if _gives_batches(x, y):
        return Batches(names, _iterable(x), _pair_of, where, dtype, epochs=epochs)
    if _are_batches(x) and not _may_be_array(x):
        raise TypeError(
            f"{names[1]} must be left out where {names[0]} are batches from outside, which have their own "
            f"targets, or {names[0]} be an array; received {described(x)} and {described(y)}."
        )
    if is_of_items(x) and y is None:
        values: Any = Items(names, x, _pair_of, Destination(where, dtype))
    elif y is None:
        raise TypeError(
            f"{names[1]} must be the targets, received None beside {described(x)}. Take both out of a file, "
            f"a table or a dict: data['x'], data['y']. Pass {names[0]} again, or zeros, where the loss needs "
            "none. They are left out where the first argument gives batches, or examples, of (x, y)."
        )
    else:
        values = dict(zip(names, (x, y) if sample_weight is None else (x, y, sample_weight), strict=False))
    warn = names is _NAMES
    examples = Examples(values, where, dtype, batch_size=batch_size, sparse=net.takes_sparse, warn=warn)
    return examples.settle()


def _check_no_others(**given: Any) -> None:
    for name, value in given.items():
        if value is not None:
            raise ValueError(
                f"{name} must be left out where batches come from outside, received {value!r}. Say it where "
                "the batches are made."
            )


# -- what is what ------------------------------------------------------------------------------------------


def _gives_batches(x: Any, y: Any) -> bool:
    """Say whether x stands for y, too, by batches from outside; rows of numbers alone do not."""
    return y is None and (_are_batches(x) or (isinstance(x, list) and not any(map(_is_row, x[:1]))))


def _are_batches(data: Any) -> bool:
    """Say whether data are batches from outside: an iterable of them, or a function that returns one."""
    if isinstance(data, list | tuple | deque):
        return len(data) > 0 and all(map(_is_batch, data))
    is_data = (
        isinstance(data, type | str | range)
        or is_like_array(data)
        or has_keys(data)
        or is_sparse(data)
        or columns_of(data) is not None
        or (is_of_items(data) and not _is_keras_sequence(data))
    )
    return not is_data and (hasattr(data, "__iter__") or callable(data) or _is_keras_sequence(data))


def _are_parts(validation: Any) -> bool:
    """Say whether data for validation are (x, y) or (x, y, sample_weight), and not a list of batches."""
    if not isinstance(validation, tuple | list) or len(validation) not in (2, 3):
        return False
    is_pair = isinstance(validation, tuple) and len(validation) == 2
    return is_pair or not _are_batches(validation)


def _is_batch(item: Any) -> bool:
    """Say whether an item of a list is a batch, and no row of numbers."""
    return _are_arrays(item) or isinstance(item, Mapping) or columns_of(item) is not None


def _is_row(item: Any) -> bool:
    """Say whether an item of a list is a row of numbers."""
    return isinstance(item, tuple | list) and all(map(is_number, item))


def _are_arrays(batch: Any) -> bool:
    """Say whether a batch is two or three arrays, or dicts of such."""
    if not isinstance(batch, tuple | list) or len(batch) not in (2, 3):
        return False
    return all(isinstance(part, Mapping) or len(getattr(part, "shape", ())) > 0 for part in batch)


def _may_be_array(batches: Any) -> bool:
    """Say whether what may be batches may also be rows of numbers: arrays of one shape in lists."""
    if not isinstance(batches, list | tuple) or not all(map(_are_arrays, batches)):
        return False
    return all(len({getattr(part, "shape", None) for part in batch}) == 1 for batch in batches)


def _is_keras_sequence(data: Any) -> bool:
    return all(hasattr(data, name) for name in ("__getitem__", "__len__", "on_epoch_end"))


class _KerasBatches:
    """The batches of a Sequence of Keras, which is indexed by their numbers."""

    def __init__(self, sequence: Any) -> None:
        self._sequence = sequence

    def __len__(self) -> int:
        return len(self._sequence)

    def __iter__(self) -> Iterator[Any]:
        for number in range(len(self)):
            yield self._sequence[number]
        self._sequence.on_epoch_end()


def _iterable(batches: Any) -> Any:
    return _KerasBatches(batches) if _is_keras_sequence(batches) else batches


def _pair_of(item: Any) -> list[Any]:
    """Return x and y of a batch or an example, and its weights, if it has some."""
    columns = columns_of(item)
    item = item if columns is None else columns
    if isinstance(item, Mapping):  # other dicts are for network and loss to read
        is_known = {"x", "y"} <= item.keys() <= set(_NAMES)
        return [item[name] for name in _NAMES if name in item] if is_known else [item, item]
    if isinstance(item, tuple | list) and len(item) in (2, 3):
        return list(item)
    is_longer = isinstance(item, tuple | list)
    received = f"a {type(item).__name__} of {len(item)}" if is_longer else described(item)
    raise TypeError(
        f"each batch or example must be a pair (x, y), (x, y, sample_weight) or a dict, received {received}. "
        'Several inputs or targets are a dict of arrays: (x, {"digit": digits, "size": sizes}).'
    )


def _input_of(item: Any) -> list[Any]:
    """Return x of a batch or an example, which may have a y, too."""
    columns = columns_of(item)
    item = item if columns is None else columns
    if isinstance(item, Mapping):
        return [item["x"] if item.keys() <= set(_NAMES) and "x" in item else item]
    are_parts = isinstance(item, tuple) or _are_arrays(item)
    is_alone = isinstance(item, list) and len(item) == 1 and hasattr(item[0], "shape")
    return [item[0] if are_parts or is_alone else item]


def _check_pair_or_share(validation: Any) -> None:
    must = (
        "if it gives no batches or examples, validation must be (x, y), (x, y, sample_weight), or a share of "
        "the examples between 0 and 1, received"
    )
    if is_number(validation):
        if not 0 < validation < 1:
            raise ValueError(f"{must} {validation!r}.")
    elif isinstance(validation, tuple | list) and not _are_batches(validation):
        if not _are_parts(validation):
            raise TypeError(f"{must} a {type(validation).__name__} of {len(validation)}.")
    elif validation is not None and not (_are_batches(validation) or is_of_items(validation)):
        raise TypeError(f"{must} {described(validation)}.")
