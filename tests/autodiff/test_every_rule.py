"""Every function with a gradient has a check, and the checks notice a rule that is wrong."""

import warnings

import pytest
from processes import test_alone
from replay import test_scan

import xpnet
from autodiff import test_checkpoint, test_custom, test_transforms, test_without_rule
from autodiff.rules import (
    test_creation,
    test_decompositions,
    test_elementwise,
    test_fft,
    test_indexing,
    test_kinks,
    test_linalg,
    test_manipulation,
    test_polynomials,
    test_reductions,
    test_searching,
    test_special,
)
from xpnet.autodiff.primitive import COMPOSITES, PRIMITIVES, no_rule

CHAPTERS = [
    test_creation,
    test_decompositions,
    test_elementwise,
    test_fft,
    test_indexing,
    test_kinks,
    test_linalg,
    test_manipulation,
    test_polynomials,
    test_reductions,
    test_searching,
    test_special,
]
CASES = {name: cases for chapter in CHAPTERS for name, cases in chapter.CASES.items()}

# What is checked in a test of its own, not in a table of a chapter.
ELSEWHERE = {
    "_recomputed": test_checkpoint.test_gradients_of_two_orders,
    "collective": test_alone.test_gradients_and_recordings,
    "argument": test_transforms.test_derivatives_of_higher_order,
    "argument_without_rule": test_without_rule.test_the_other_arguments_have_their_gradients,
    "output": test_transforms.test_a_part_of_several_results,
    "result_without_rule": test_without_rule.test_a_result_that_is_needed_is_an_error_with_the_line,
    "scan_arrays": test_scan.test_gradients_of_two_orders,
    "custom_gradient": test_custom.test_custom_gradient_of_two_orders,
}

WITH_RULES = [name for name, primitive in PRIMITIVES.items() if primitive.rules or primitive.joint]
RULES = [
    (name, position)
    for name in WITH_RULES
    if name not in ELSEWHERE
    for position, rule in enumerate(PRIMITIVES[name].rules or [None])
    if (rule or PRIMITIVES[name].joint) and rule is not no_rule
]


def test_every_function_with_a_gradient_has_a_check():
    assert set(WITH_RULES) | set(COMPOSITES) == set(CASES) | set(ELSEWHERE)


@pytest.mark.parametrize(("name", "position"), RULES)
def test_the_checks_notice_a_wrong_rule(name, position, monkeypatch):
    primitive = PRIMITIVES[name]

    def wrong(xp, g, y, *inputs, **parameters):
        right = (primitive_joint or primitive_rules[position])(xp, g, y, *inputs, **parameters)
        return [one + 0.01 for one in right] if primitive_joint else right + 0.01

    primitive_rules, primitive_joint = primitive.rules, primitive.joint
    if primitive_joint:
        monkeypatch.setattr(primitive, "joint", wrong)
    else:
        monkeypatch.setattr(
            primitive, "rules", (*primitive_rules[:position], wrong, *primitive_rules[position + 1 :])
        )
    with xpnet.use_device("cpu"):
        assert not all(passes(case) for case in CASES[name])


def passes(case):
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            case.check_gradients(order=1)
    except AssertionError:
        return False
    return True
