"""The version of xpnet."""

__version__ = "0.1.0"
