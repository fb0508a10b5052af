"""Weights, labels that are ignored and steps of several batches, as PyTorch computes them over 100 steps."""

import functools

import numpy as np
import pytest

import xpnet
from xpnet import losses, nn, optim

random = np.random.default_rng(3)
X = random.normal(size=(80, 6))
LABELS = random.integers(0, 4, size=80)
IGNORED = np.where(random.uniform(size=80) < 0.3, -100, LABELS)
WEIGHTS = random.uniform(0, 2, size=80)
CLASSES = np.asarray([1.0, 0.5, 3.0, 0.0])
EPOCHS = 25  # of 4 steps


def ours(device, **options):
    with xpnet.use_device(device):
        net = nn.Sequential(
            nn.Dense(6, 12, seed=0, dtype="float64"), nn.Tanh(), nn.Dense(12, 4, seed=1, dtype="float64")
        )
        start = [np.array(x) for x in xpnet.tree.leaves(xpnet.to_numpy(net))]
        settings = {"loss": losses.cross_entropy, "y": LABELS, "batch_size": 20} | options
        y = settings.pop("y")
        history = xpnet.fit(
            net, X, y, optimizer=optim.AdamW(1e-2), epochs=EPOCHS, shuffle=False, progress=False, **settings
        )
    return start, xpnet.tree.leaves(xpnet.to_numpy(net)), history["loss"]


def theirs(start, y=LABELS, *, sample_weight=None, class_weight=None):
    torch = pytest.importorskip("torch")
    net = torch.nn.Sequential(torch.nn.Linear(6, 12), torch.nn.Tanh(), torch.nn.Linear(12, 4)).double()
    with torch.no_grad():
        for parameter, values in zip(net.parameters(), start, strict=True):
            parameter.copy_(torch.asarray(values.T.copy()))
    optimizer = torch.optim.AdamW(net.parameters(), lr=1e-2, weight_decay=1e-2)
    x, y = torch.asarray(X), torch.asarray(y)
    of_class = torch.ones(4, dtype=x.dtype) if class_weight is None else torch.asarray(class_weight)
    each = torch.ones(80, dtype=x.dtype) if sample_weight is None else torch.asarray(sample_weight)
    weight = each * torch.where(y == -100, 0.0, of_class[y.clamp(min=0)])
    means = []
    for _ in range(EPOCHS):
        total = 0.0
        for rows in map(slice, range(0, 80, 20), range(20, 100, 20)):
            loss = torch.nn.functional.cross_entropy(net(x[rows]), y[rows], reduction="none")
            loss = (loss * weight[rows]).sum() / weight[rows].sum()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            total += float(loss.detach() * weight[rows].sum())
        means.append(total / float(weight.sum()))
    return [np.asarray(parameter.detach()).T for parameter in net.parameters()], means


CASES = {
    "plain": {},
    "sample_weight": {"sample_weight": WEIGHTS},
    "class_weight": {"class_weight": CLASSES},
    "ignore_index": {"y": IGNORED},
    "all of them": {"y": IGNORED, "sample_weight": WEIGHTS, "class_weight": CLASSES},
}


@pytest.mark.parametrize(
    ("case", "jit"), [*((case, True) for case in CASES), ("all of them", False)], ids=[*CASES, "without jit"]
)
@pytest.mark.parametrize("accumulate", [1, 4], ids=["whole", "accumulated"])
def test_a_hundred_steps(device, case, accumulate, jit):
    pytest.importorskip("torch")
    options = CASES[case]
    loss = (
        functools.partial(losses.cross_entropy, ignore_index=-100) if "y" in options else losses.cross_entropy
    )
    steps = {"batch_size": 20 // accumulate, "accumulate": accumulate, "jit": jit}
    start, found, means = ours(device, loss=loss, **options, **steps)
    expected, expected_means = theirs(start, **options)
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(means, expected_means, rtol=1e-9)
