"""Replay: a function is recorded once, and its plan is run again and again without Python in between."""

from xpnet.replay.jit import jit
from xpnet.replay.scan import scan

__all__ = ["jit", "scan"]
