"""Schedules against their equations and torch's, on Python numbers and on arrays."""

import math

import numpy
import pytest
from helpers import assert_on, assert_same, rounding

import xpnet
from xpnet import optim


def half_cosine(start, end, fraction):
    return end + (start - end) * (1 + math.cos(math.pi * fraction)) / 2


def reference_warmup_cosine(step):
    if step < 4:
        return 0.1 + (2.0 - 0.1) * step / 4
    return half_cosine(2.0, 0.2, min((step - 4) / 8, 1))


def reference_one_cycle(step, peak=5):
    if step < peak:
        return half_cosine(2.0 / 25, 2.0, step / peak)
    return half_cosine(2.0, 2.0 / 25 / 1e4, min((step - peak) / (19 - peak), 1))


CASES = {
    "constant": (optim.constant(2.0), lambda _: 2.0),
    "step_decay": (optim.step_decay(2.0, every=3, factor=0.5), lambda step: 2.0 * 0.5 ** (step // 3)),
    "cosine": (
        optim.cosine(2.0, steps=10, final=0.5),
        lambda step: half_cosine(2.0, 0.5, min(step / 10, 1)),
    ),
    "warmup_cosine": (
        optim.warmup_cosine(2.0, warmup_steps=4, steps=12, initial=0.1, final=0.2),
        reference_warmup_cosine,
    ),
    "one_cycle": (optim.one_cycle(2.0, steps=20), reference_one_cycle),
    "one_cycle with its peak between two steps": (
        optim.one_cycle(2.0, steps=20, warmup_fraction=0.325),
        lambda step: reference_one_cycle(step, peak=5.5),
    ),
}


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", CASES)
def test_schedules_follow_their_equations(device, name, dtype):
    schedule, reference = CASES[name]
    for step in range(25):
        rate = schedule(xpnet.asarray(float(step), device=device, dtype=dtype))
        assert_on(rate, device, dtype, ())
        assert_same(rate, reference(step), tolerance=rounding(10, "float32") if dtype == "float32" else None)
    steps = xpnet.asarray(numpy.arange(25.0), device=device, dtype=dtype)
    assert_on(schedule(steps), device, dtype, (25,))


@pytest.mark.parametrize("name", CASES)
def test_schedules_of_python_numbers(name):
    schedule, reference = CASES[name]
    for step in range(25):
        assert type(schedule(step)) is float
        assert schedule(step) == pytest.approx(reference(step), abs=rounding(100, "float64"))


@pytest.mark.parametrize("name", CASES)
def test_schedules_of_traced_steps(device, name):
    schedule, _ = CASES[name]
    step = xpnet.asarray(3.5, device=device)
    assert_same(xpnet.trace(step).namespace.asarray(schedule(xpnet.trace(step))).value, schedule(step))


def test_schedules_agree_with_torch(device):
    if device.library.spec != "torch":
        return  # the equations are checked on every library above
    import torch

    def theirs(make, count):
        optimizer = torch.optim.SGD([torch.zeros(1)], lr=2.0)
        scheduler = make(torch.optim.lr_scheduler, optimizer)
        rates = []
        for _ in range(count):
            rates.append(optimizer.param_groups[0]["lr"])
            optimizer.step()
            scheduler.step()
        return rates

    for name, count, make in [
        ("step_decay", 12, lambda s, o: s.StepLR(o, step_size=3, gamma=0.5)),
        ("cosine", 11, lambda s, o: s.CosineAnnealingLR(o, T_max=10, eta_min=0.5)),
        ("one_cycle", 19, lambda s, o: s.OneCycleLR(o, max_lr=2.0, total_steps=20, cycle_momentum=False)),
    ]:
        schedule, _ = CASES[name]
        assert [schedule(step) for step in range(count)] == pytest.approx(theirs(make, count))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: optim.constant(-1.0), "rate must be at least 0, received -1.0"),
        (lambda: optim.step_decay(-1.0, every=3), "rate must be at least 0, received -1.0"),
        (lambda: optim.step_decay(1.0, every=0), "every must be a positive integer, received 0"),
        (lambda: optim.step_decay(1.0, every=3, factor=-0.5), "factor must be at least 0, received -0.5"),
        (lambda: optim.cosine(1.0, steps=0), "steps must be a positive integer, received 0"),
        (lambda: optim.cosine(1.0, steps=3, final=-1.0), "final must be at least 0, received -1.0"),
        (
            lambda: optim.warmup_cosine(1.0, warmup_steps=0, steps=3),
            "warmup_steps must be a positive integer, received 0",
        ),
        (
            lambda: optim.warmup_cosine(1.0, warmup_steps=3, steps=3),
            "steps must be greater than warmup_steps, received 3 and 3",
        ),
        (
            lambda: optim.warmup_cosine(1.0, warmup_steps=1, steps=3, initial=-1.0),
            "initial must be at least 0, received -1.0",
        ),
        (
            lambda: optim.one_cycle(1.0, steps=10, initial_divisor=0),
            "initial_divisor must be positive, received 0",
        ),
        (
            lambda: optim.one_cycle(1.0, steps=10, final_divisor=-1),
            "final_divisor must be positive, received -1",
        ),
        (
            lambda: optim.one_cycle(1.0, steps=3),
            r"warmup_fraction \* steps must be more than 1 .* received warmup_fraction=0.3 and steps=3",
        ),
        (
            lambda: optim.one_cycle(1.0, steps=9, warmup_fraction=1.0),
            "received warmup_fraction=1.0 and steps=9",
        ),
    ],
)
def test_settings_out_of_range(make, message):
    with pytest.raises(ValueError, match=message):
        make()
