"""``python -m xpnet``: the libraries, devices and processes that this machine can use."""

import xpnet
from xpnet.distributed.nccl import nccl_status
from xpnet.distributed.processes import mpi_status
from xpnet.errors import DeviceUnavailableError


def table(statuses: list[xpnet.backends.LibraryStatus]) -> str:
    """Write a line for each library: its version and its devices, or why it is not usable."""
    rows = [("library", "version", "devices")]
    rows += [(s.name, s.version or "–", ", ".join(s.devices) or f"not usable: {s.problem}") for s in statuses]
    widths = [max(len(row[column]) for row in rows) for column in range(2)]
    return "\n".join(f"{name:<{widths[0]}}  {version:<{widths[1]}}  {rest}" for name, version, rest in rows)


if __name__ == "__main__":
    try:
        default = f"the default device is {xpnet.device().spec}"
    except (ValueError, DeviceUnavailableError) as error:
        default = f"XPNET_DEVICE names no usable device: {error}"
    print(f"xpnet {xpnet.__version__}; {default}\n")
    print(table(xpnet.devices()))
    print(f"\nMPI, for several processes: {mpi_status()}")
    print(f"NCCL, for several GPUs: {nccl_status()}")
