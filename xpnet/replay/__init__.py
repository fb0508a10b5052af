"""Replay: a function is recorded once, and its plan is run again and again without Python in between."""

from xpnet.replay.call import jit

__all__ = ["jit"]
