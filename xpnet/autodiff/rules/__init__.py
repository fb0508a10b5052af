"""Gradient rules, one file for each chapter of the standard.

A rule is one or two lines beside its siblings; `xpnet.autodiff.primitive` says what it receives. To add one,
write it in its chapter's file and add its check to the test of that chapter.
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
        reductions,
        searching,
        special,
    )
