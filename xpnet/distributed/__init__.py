"""Several processes that compute together, by MPI: on the cores of a machine, or on many machines.

`world()` is the group of all processes that ``mpiexec`` has started. Its functions `Group.sum`, `mean`,
`broadcast` and `gather` take arrays and trees of them (`group.py`). Each is one operation (`operation.py`)
that is recorded by `xpnet.jit` and has a gradient. `processes.py` lets MPI carry it out, and makes sure that
all processes came to the same one; `watch.py` ends them all where one does not come.
"""

from xpnet.distributed.group import Group, world

__all__ = ["Group", "world"]
