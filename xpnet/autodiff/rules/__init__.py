"""Gradient rules, one file for each chapter of the standard.

A rule is one or two lines beside its siblings, ``rule(xp, g, y, *inputs, **parameters)``: from ``g``, the
gradient of the result ``y``, it makes that of one input. An argument whose name starts with an underscore is
read for its shape and dtype alone. `xpnet.autodiff.primitive` says more. To add one, write it in its
chapter's file and add its check to the test of that chapter.
"""


def load() -> None:
    """Import all chapters, which declare their functions as they are imported."""
    from xpnet.autodiff.rules import (  # noqa: F401
        creation,
        decompositions,
        elementwise,
        fft,
        indexing,
        kinks,
        linalg,
        manipulation,
        polynomials,
        reductions,
        searching,
        special,
    )
