"""`Group`: the processes that compute together, and `world`, which finds them."""

from functools import cache
from typing import Any, TypeVar

from xpnet import tree
from xpnet.arrays import short_line
from xpnet.autodiff import extended_namespace
from xpnet.autodiff.tracer import Tracer
from xpnet.backends import at_least_single, in_dtype
from xpnet.distributed.operation import BROADCAST, GATHER, MEAN, SUM, Operation
from xpnet.distributed.processes import Processes, mpi_of_processes
from xpnet.distributed.shard import Sharded
from xpnet.optim.bound import Bound
from xpnet.optim.transforms import Transform
from xpnet.settings import described, is_integer, positive

T = TypeVar("T")


class Group:
    """Processes that compute together. `world` returns the one of all processes.

    Each of its operations is one that all processes come to, in the same order, from one thread, with arrays
    of the same shapes and dtypes in trees of the same keys. They are recorded by `xpnet.jit`, and have
    gradients.

    Attributes
    ----------
    rank : int
        The number of this process among them, from 0.
    size : int
        How many processes there are; 1 where there is no MPI.
    timeout : float
        How many seconds a process waits for the others in an operation before all processes are ended.

    Notes
    -----
    A gradient is that of the sum over all processes of what each of them differentiates, as a change of an
    array on one process changes results on all: the gradient of `sum` is the sum of the gradients that arrive
    on each, that of `mean` their mean. So a loss that every process has whole, as ``group.mean(loss)`` is,
    counts as often as there are processes. Differentiate the loss of a process's own examples, and take the
    mean of the gradients. What is differentiated must depend on the same results on all.

    Examples
    --------
    >>> import numpy as np
    >>> import xpnet
    >>> group = xpnet.distributed.world()
    >>> own = np.arange(12)[group.rank :: group.size]  # the examples of this process
    >>> int(group.sum(np.asarray(len(own))))
    12
    """

    def __init__(self, processes: Processes | None = None) -> None:
        self.processes: Any = processes
        self.rank = processes.rank if processes else 0
        self.size = processes.size if processes else 1
        self._timeout = processes.watch.timeout if processes else TIMEOUT
        self._paths: dict[Any, str] = {}  # of each structure of a tree

    def __repr__(self) -> str:
        return f"Group(rank={self.rank}, size={self.size})"

    def __reduce__(self) -> str:
        return "WORLD"  # there is one of it in each process

    @property
    def timeout(self) -> float:
        return self._timeout

    @timeout.setter
    def timeout(self, seconds: float) -> None:
        self._timeout = positive("timeout", seconds)
        if self.processes:
            self.processes.watch.timeout = self._timeout

    def sum(self, values: T) -> T:
        r"""Add up the arrays of all processes: :math:`y = \sum_r x_r`, on each of them.

        Parameters
        ----------
        values : array or tree of arrays
            Of a module, its parameters.

        Returns
        -------
        array or tree
            Of the same structure, shapes and dtypes.

        Raises
        ------
        TypeError
            If there is something that is no array, or an array of booleans.
        ProcessesDisagreeError
            If another process came to something else.

        Examples
        --------
        >>> import numpy as np
        >>> import xpnet
        >>> group = xpnet.distributed.world()
        >>> counts = group.sum(np.asarray([3, 4]))  # of examples, on each process
        """
        return self._of_tree(SUM, values, "numeric")

    def mean(self, values: T) -> T:
        r"""Take the mean over all processes: :math:`y = \frac{1}{n} \sum_r x_r`, on each of them.

        Parameters
        ----------
        values : array or tree of floating-point arrays
            Of a module, its parameters: gradients, say.

        Returns
        -------
        array or tree
            Of the same structure, shapes and dtypes. float16 and bfloat16 are added up in float32.

        Raises
        ------
        TypeError
            If there is something that is no array of floating-point numbers.
        ProcessesDisagreeError
            If another process came to something else.

        Examples
        --------
        >>> import numpy as np
        >>> import xpnet
        >>> group = xpnet.distributed.world()
        >>> net, optimizer = xpnet.nn.Dense(2, 1, seed=0), xpnet.optim.SGD(0.1)
        >>> @xpnet.jit
        ... def step(net, state, x, y):  # with the examples of this process
        ...     loss, gradients = xpnet.value_and_grad(lambda net: xpnet.losses.mse(net(x), y))(net)
        ...     return *optimizer.update(group.mean(gradients), state, net), group.mean(loss)
        >>> net, state, loss = step(net, optimizer.init(net), np.eye(2, dtype="f"), np.ones((2, 1), "f"))
        """
        return self._of_tree(MEAN, values, ("real floating", "complex floating"))

    def broadcast(self, values: T, root: int = 0) -> T:
        r"""Hand the arrays of one process to all: :math:`y = x_{root}`.

        Parameters
        ----------
        values : array or tree of arrays
            Of a module, its parameters and its state. On the other processes, what has its structure, shapes
            and dtypes.
        root : int, default=0
            The rank of the process whose arrays they are.

        Returns
        -------
        array or tree
            Of the same structure, shapes and dtypes.

        Raises
        ------
        TypeError
            If there is something that is no array.
        ValueError
            If there is no such rank.
        ProcessesDisagreeError
            If another process came to something else.

        Examples
        --------
        >>> import xpnet
        >>> group = xpnet.distributed.world()
        >>> net = group.broadcast(xpnet.nn.Dense(2, 1))  # the weights of rank 0
        """
        if not is_integer(root) or not 0 <= root < self.size:
            raise ValueError(f"root must be a rank, from 0 to {self.size - 1}, received {root!r}.")
        return self._of_tree(BROADCAST, values, root=int(root))

    def gather(self, values: T) -> T:
        """Put the arrays of all processes beside each other, on each of them.

        Parameters
        ----------
        values : array or tree of arrays
            Of a module, its parameters.

        Returns
        -------
        array or tree of array, shape (size, ...)
            Of the same structure, with the arrays of rank r at ``[r, ...]``.

        Raises
        ------
        TypeError
            If there is something that is no array.
        ProcessesDisagreeError
            If another process came to something else.

        Examples
        --------
        >>> import numpy as np
        >>> import xpnet
        >>> group = xpnet.distributed.world()
        >>> group.gather(np.zeros(3)).shape == (group.size, 3)
        True
        """
        return self._of_tree(GATHER, values)

    def largest(self, number: int) -> int:
        """Return the largest of the numbers that each process has, on the host: 1 if any says so, say.

        Parameters
        ----------
        number : int
            At least 0.

        Returns
        -------
        int
            The same on all.

        Raises
        ------
        ProcessesDisagreeError
            If another process came to something else.

        Examples
        --------
        >>> import xpnet
        >>> group = xpnet.distributed.world()
        >>> is_done = False  # on this process
        >>> bool(group.largest(int(is_done)))  # on any
        False
        """
        return self.processes.largest(number) if self.processes else number

    def gather_objects(self, value: T) -> list[T]:
        """Return what each process has, by ranks, on the host: anything that can be pickled.

        Parameters
        ----------
        value : object

        Returns
        -------
        list
            The same on all.

        Raises
        ------
        ProcessesDisagreeError
            If another process came to something else.

        Examples
        --------
        >>> import xpnet
        >>> group = xpnet.distributed.world()
        >>> len(group.gather_objects({"rank": group.rank})) == group.size
        True
        """
        found: list[T] = self.processes.gather_objects(value) if self.processes else [value]
        return found

    def average(self) -> Transform:
        """Return the part of an optimizer that takes the mean of the gradients over all processes.

        Returns
        -------
        Transform

        Examples
        --------
        >>> import xpnet
        >>> from xpnet import optim
        >>> group = xpnet.distributed.world()
        >>> optimizer = optim.chain(group.average(), optim.Adam(1e-3))
        """
        return Transform(_no_state, Bound(_average, (self,)))

    def shard(self, optimizer: Any) -> Sharded:
        """Return an optimizer of which each process has a piece of the state, and moves that of the weights.

        It takes the mean of the gradients over all processes, as `average` does, in pieces; each process
        moves the parameters in its own one; and the moved pieces are joined. What an optimizer remembers, two
        numbers for each weight with `Adam`, takes the memory of one process in all of them together. The
        training is the same, but for rounding.

        Parameters
        ----------
        optimizer : Optimizer or LossScaling
            One that does the same with each element of the parameters, as all of `xpnet.optim` do. Transforms
            of your own may add up sums over elements by `optim.total`; ``init`` tries them with small arrays
            of NumPy's, and refuses those that look at several elements in another way, or at shapes.

        Returns
        -------
        optimizer
            With ``init`` and ``update``. Its state is another one on each process: ``whole(state, params)``
            puts it together on rank 0, and ``cut(state, params)`` returns what a process has of such a one.
            `fit` does so for its checkpoints.

        Raises
        ------
        TypeError
            If it is no optimizer.

        References
        ----------
        Rajbhandari et al., "ZeRO: Memory Optimizations Toward Training Trillion Parameter Models", 2020,
        https://arxiv.org/abs/1910.02054, of which this is the first stage.

        Examples
        --------
        >>> import xpnet
        >>> from xpnet import optim
        >>> group = xpnet.distributed.world()
        >>> optimizer = group.shard(optim.chain(optim.clip_by_global_norm(1.0), optim.Adam(1e-3)))
        """
        return Sharded(optimizer, self)

    def _of_tree(self, kind: str, values: T, dtypes: Any = None, *, root: int = 0) -> T:
        """Do an operation with all arrays of a tree that have gradients at once, and with the others."""
        leaves, structure = tree.flatten(values, state=kind == BROADCAST)
        for x in leaves:
            if not tree.is_array(x):
                raise TypeError(
                    f"{kind} over a group takes arrays, received {type(x).__name__}: {x!r}. xpnet.asarray "
                    "makes an array of a number."
                )
        if not leaves:
            return values
        xp = extended_namespace(*leaves)
        if dtypes and (wrong := [x.dtype for x in leaves if not xp.isdtype(x.dtype, dtypes)]):
            needed = "numbers" if dtypes == "numeric" else "floating-point numbers"
            raise TypeError(
                f"{kind} over a group takes arrays of {needed}, received {wrong[0]}. Convert them first, "
                "with xp.astype."
            )
        paths = self._paths.get(structure)
        if paths is None:
            paths = self._paths[structure] = ", ".join(tree.paths(values, state=kind == BROADCAST))
        line = short_line() if any(type(x) is Tracer for x in leaves) else ""
        operation = Operation(self, kind, root, paths, line)
        has_gradient = [bool(xp.isdtype(x.dtype, ("real floating", "complex floating"))) for x in leaves]
        results: list[Any] = list(leaves)
        for each in sorted(set(has_gradient)):
            numbers = [n for n, has in enumerate(has_gradient) if has is each]
            own = [leaves[n] for n in numbers]
            # A mean of numbers of two bytes may have a sum that is none of them.
            given = [at_least_single(xp, x) for x in own] if kind == MEAN else own
            found = xp.collective(*given, operation=operation)
            if kind == MEAN:
                found = [in_dtype(xp, y / self.size, x.dtype) for x, y in zip(own, found, strict=True)]
            for n, y in zip(numbers, found, strict=True):
                results[n] = y
        made: T = tree.unflatten(structure, results)
        return made


def check_group(group: Any) -> Group:
    """Return what must be a group."""
    if not isinstance(group, Group):
        raise TypeError(f"group must be xpnet.distributed.world(), received {described(group)}.")
    return group


def _no_state(_params: list[Any]) -> Any:
    return ()


def _average(
    group: Group, gradients: list[Any], state: Any, _params: list[Any], _step: Any
) -> tuple[list[Any], Any]:
    return (group.mean(gradients) if group.size > 1 else gradients), state


# How many seconds to wait for others unless told otherwise: long enough for one of them to read its data, or
# to compile.
TIMEOUT = 600.0


@cache
def _world() -> Group:
    mpi = mpi_of_processes()
    return Group() if mpi is None else Group(Processes(mpi.COMM_WORLD, TIMEOUT))


def world() -> Group:
    """Return the group of all processes that ``mpiexec`` has started; of one alone where there is no MPI.

    Returns
    -------
    Group
        The same one at each call.

    Raises
    ------
    RuntimeError
        If there are several processes that cannot find each other.

    Notes
    -----
    With several processes, one that ends by an exception ends all others, and so does one that does not come
    to an operation within `Group.timeout` seconds.

    Examples
    --------
    >>> import xpnet
    >>> group = xpnet.distributed.world()
    >>> 0 <= group.rank < group.size
    True
    """
    return _world()


def __getattr__(name: str) -> Any:
    if name == "WORLD":  # as which a group is pickled
        return world()
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
