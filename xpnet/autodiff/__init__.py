"""Traced arrays and their gradients: from `tracer` (the record) through `backward` (the sweep) to `grad`."""

from xpnet.autodiff.check import check_gradients
from xpnet.autodiff.checkpoint import checkpoint
from xpnet.autodiff.custom import custom_gradient
from xpnet.autodiff.derivatives import hessian, hvp, jacobian, jvp
from xpnet.autodiff.namespace import array_namespace, extended_namespace
from xpnet.autodiff.nan import raise_on_nan
from xpnet.autodiff.transforms import grad, stop_gradient, trace, value_and_grad, vjp

__all__ = [
    "array_namespace",
    "check_gradients",
    "checkpoint",
    "custom_gradient",
    "extended_namespace",
    "grad",
    "hessian",
    "hvp",
    "jacobian",
    "jvp",
    "raise_on_nan",
    "stop_gradient",
    "trace",
    "value_and_grad",
    "vjp",
]
