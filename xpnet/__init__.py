"""xpnet: neural networks on any array library that follows the Python array API standard.

From an example to the arithmetic, a call passes `fit` (in `training`), `jit` (in `replay`), `value_and_grad`
(in `autodiff`), the layers of a network (in `nn`), the functions of a namespace (in `autodiff`) and the
library (in `backends`).
"""

from xpnet import interpreter as interpreter  # which refuses to go on in a sub-interpreter

# isort: split
from xpnet import distributed, losses, nn, optim, special, tree
from xpnet.autodiff import (
    array_namespace,
    check_gradients,
    checkpoint,
    custom_gradient,
    grad,
    hessian,
    hvp,
    jacobian,
    jvp,
    raise_on_nan,
    stop_gradient,
    trace,
    value_and_grad,
    vjp,
)
from xpnet.backends import asarray, device, devices, to_device, to_numpy, use_device
from xpnet.files import load, load_torch, save, save_torch
from xpnet.replay import jit, scan
from xpnet.threads import get_threads, set_threads, use_threads
from xpnet.training import History, callbacks, fit, metrics, predict
from xpnet.version import __version__ as __version__

__all__ = [
    "History",
    "array_namespace",
    "asarray",
    "callbacks",
    "check_gradients",
    "checkpoint",
    "custom_gradient",
    "device",
    "devices",
    "distributed",
    "fit",
    "get_threads",
    "grad",
    "hessian",
    "hvp",
    "jacobian",
    "jit",
    "jvp",
    "load",
    "load_torch",
    "losses",
    "metrics",
    "nn",
    "optim",
    "predict",
    "raise_on_nan",
    "save",
    "save_torch",
    "scan",
    "set_threads",
    "special",
    "stop_gradient",
    "to_device",
    "to_numpy",
    "trace",
    "tree",
    "use_device",
    "use_threads",
    "value_and_grad",
    "vjp",
]
