"""Files: networks and other trees of arrays, read without running code from them."""

from xpnet.files.networks import load, save
from xpnet.files.torch import load_torch, save_torch

__all__ = ["load", "load_torch", "save", "save_torch"]
