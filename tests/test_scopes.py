import contextvars
import dis
import gc
import itertools
import logging
import sys
from contextvars import ContextVar

import pytest

import xpnet
from xpnet import losses, tree
from xpnet.autodiff import context
from xpnet.distributed import world
from xpnet.optim.transforms import over_pieces
from xpnet.replay.same.outside import refused
from xpnet.scopes import having
from xpnet.share import Share, using_share
from xpnet.training.agreement import told_by

# Behind these, Python looks whether a signal has come, and calls its handler.
LOOKS = ("RESUME", "CALL", "JUMP_BACKWARD")

VARIABLE = ContextVar("VARIABLE", default=0)


class Raised(BaseException):
    pass


def raising(moment, function):
    """Call a function, and raise the n-th time that Python looks for signals; say whether it came to that."""
    seen, last = 0, {}

    def trace(frame, event, _):
        nonlocal seen
        frame.f_trace_opcodes = True
        if event == "opcode":
            before = last.get(frame, "")
            last[frame] = dis.opname[frame.f_code.co_code[frame.f_lasti]]
            if before.startswith(LOOKS) and not before.startswith("CALL_INTRINSIC"):
                seen += 1
                if seen == moment:
                    raise Raised
        return trace

    usual = sys.gettrace()
    gc.disable()  # which calls functions of other libraries
    sys._getframe().f_trace_opcodes = True  # Python 3.12 asks for it before `settrace`
    sys.settrace(trace)
    try:
        function()
    except Raised:
        return True
    finally:
        sys.settrace(usual)
        gc.enable()
        last.clear()
    return False


def state():
    """Return what blocks change and must put back."""
    return (
        dict(contextvars.copy_context().items()),
        vars(tree.Branch).get("__getattribute__"),
        tuple(logging.getLogger("xpnet").filters),
    )


SCOPES = {
    "having": lambda: having(VARIABLE, 1),
    "use_threads": lambda: xpnet.use_threads(1),
    "use_device": lambda: xpnet.use_device("cpu"),
    "using": lambda: context.using(kind=lambda xp: xp),
    "raise_on_nan": xpnet.raise_on_nan,
    "using_share": lambda: using_share(Share(world(), 0, 1, 1)),
    "noted_denominators": losses.noted_denominators,
    "noted_calls": losses.noted_calls,
    "over_pieces": lambda: over_pieces(lambda value, add: value),
    "refused": lambda: refused({id(SCOPES): "an array"}),
    "told_by": lambda: told_by(world()),
}


@pytest.mark.parametrize("scope", SCOPES.values(), ids=SCOPES)
def test_a_handler_that_raises_leaves_nothing_behind(scope):
    def enter_and_leave():
        with scope():
            inside.append(state())

    inside, moments = [], 0
    enter_and_leave()
    before = state()
    for moment in itertools.count(1):
        came = raising(moment, enter_and_leave)
        assert state() == before
        if not came:
            break
        moments += 1
    assert inside[0] != before
    assert moments > 5
