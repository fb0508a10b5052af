"""What a result was measured on, and how it is kept."""

import contextlib
import datetime
import importlib.metadata
import json
import os
import platform
import re
import subprocess
import sys
from pathlib import Path

PACKAGES = ("cupy-cuda12x", "cupy-cuda13x", "nvmath-python", "torch", "jax", "numba", "numpy")


def gpu(*names):
    """Return what `nvidia-smi` says of the GPU, or None where it does not work."""
    number = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")[0] or "0"
    query = ["nvidia-smi", f"--query-gpu={','.join(names)}", "--format=csv,noheader,nounits", "-i", number]
    try:
        report = subprocess.run(query, capture_output=True, text=True, timeout=60, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return None
    return dict(zip(names, report.strip().split(", "), strict=True))


def gpu_memory():
    """Return the bytes that are taken on the GPU."""
    found = gpu("memory.used")
    return int(found["memory.used"]) * 2**20 if found else None


def processor():
    """Return what the processor calls itself, with the number of its cores that this process may use."""
    path = Path("/proc/cpuinfo")
    text = path.read_text() if path.exists() else ""
    names = re.findall(r"^model name\s*: (.*)$", text, flags=re.MULTILINE)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return f"{names[0] if names else platform.processor()} ({cores} cores)"


def description(device):
    """Return the processor or GPU, the date and the versions."""
    versions = {"python": platform.python_version()}
    for name in PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[name] = importlib.metadata.version(name)
    on_cpu = {"name": f"{processor()}, {platform.platform()}"}
    place = on_cpu if device == "cpu" else gpu("name", "driver_version", "memory.total")
    return {"device": place, "date": datetime.date.today().isoformat(), "versions": versions}


def keep(path, found):
    """Write a result so that whoever reads or kills meanwhile finds a whole file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_name(f"{path.name}.new")
    new.write_text(json.dumps(found, indent=1) + "\n")
    new.replace(path)


def is_lost():
    """Say whether CUDA works no more in this process, as after an illegal address."""
    cuda = getattr(sys.modules.get("cupy"), "cuda", None)
    if cuda is None or not cuda.is_available():  # which is said of the machine, not of this process
        return False
    try:
        cuda.runtime.deviceSynchronize()
    except Exception:
        return True
    return False
