"""The same networks, of PyTorch and of xpnet."""

import pytest

import xpnet
from xpnet import nn


def shuffled(theirs):
    """Give normalizations other weights and statistics than those of the beginning."""
    torch = pytest.importorskip("torch")
    for name, x in [*theirs.named_parameters(), *theirs.named_buffers()]:
        if x.is_floating_point():
            x.data = torch.rand_like(x) + 0.5 if "running" in name else x + 0.3 * torch.randn_like(x)
    return theirs


def lenet(t):
    return (
        t.Sequential(
            t.Conv2d(2, 3, 3), t.Tanh(), t.AvgPool2d(2), t.Conv2d(3, 4, 2), t.ReLU(), t.MaxPool2d(2),
            t.Flatten(), t.Linear(8, 8), t.ReLU(), t.Linear(8, 3),
        ),
        nn.Sequential(
            nn.Conv2d(2, 3, 3), nn.Tanh(), nn.AvgPool(2), nn.Conv2d(3, 4, 2), nn.ReLU(), nn.MaxPool(2),
            nn.Flatten(), nn.Dense(8, 8), nn.ReLU(), nn.Dense(8, 3),
        ),
    )  # fmt: skip


def normalized(t):
    """Normalizations stand before the image is flattened and behind it."""
    return (
        t.Sequential(
            t.Conv2d(2, 4, 3), t.GroupNorm(2, 4), t.BatchNorm2d(4), t.Flatten(), t.BatchNorm1d(280), t.ReLU(),
            t.LayerNorm(280), t.RMSNorm(280, eps=1e-5), t.Dropout(), t.Linear(280, 3), t.BatchNorm1d(3),
            t.Linear(3, 3),
        ),
        nn.Sequential(
            nn.Conv2d(2, 4, 3), nn.GroupNorm(2, 4), nn.BatchNorm(4), nn.Flatten(), nn.BatchNorm(280),
            nn.ReLU(), nn.LayerNorm(280), nn.RMSNorm(280), nn.Dropout(), nn.Dense(280, 3), nn.BatchNorm(3),
            nn.Dense(3, 3),
        ),
    )  # fmt: skip


def nested(t):
    """The image is made in one part, flattened in another, and read in a third; pooling comes first."""
    return (
        t.Sequential(
            t.MaxPool2d(2), t.Sequential(t.ConvTranspose2d(2, 3, 2), t.Sequential(t.Sigmoid())),
            t.Sequential(t.Flatten(), t.Flatten()), t.Sequential(t.Linear(105, 5), t.Tanh()), t.Linear(5, 3),
        ),
        nn.Sequential(
            nn.MaxPool(2), nn.Sequential(nn.ConvTranspose2d(2, 3, 2), nn.Sequential(nn.Sigmoid())),
            nn.Sequential(nn.Flatten(), nn.Flatten()), nn.Sequential(nn.Dense(105, 5), nn.Tanh()),
            nn.Dense(5, 3),
        ),
    )  # fmt: skip


def added_and_joined(t):
    class Added(t.Module):
        def __init__(self, *layers):
            super().__init__()
            self.inner = t.Sequential(*layers)

        def forward(self, x):
            return x + self.inner(x)

    class Joined(t.Module):
        def __init__(self, *layers):
            super().__init__()
            self.layers = t.ModuleList(layers)

        def forward(self, x):
            import torch

            return torch.cat([layer(x) for layer in self.layers], dim=1)

    return (
        t.Sequential(
            Added(t.Conv2d(2, 2, 1), t.ReLU()), Joined(t.Conv2d(2, 1, 3), t.Conv2d(2, 3, 3)), t.Flatten(),
            t.Linear(280, 6), Added(t.Linear(6, 6)), Joined(t.Linear(6, 4), t.Linear(6, 2)), t.Linear(6, 3),
        ),
        nn.Sequential(
            nn.Residual(nn.Conv2d(2, 2, 1), nn.ReLU()),
            nn.Concatenate(nn.Conv2d(2, 1, 3), nn.Conv2d(2, 3, 3)), nn.Flatten(),
            nn.Dense(280, 6), nn.Residual(nn.Dense(6, 6)),
            nn.Concatenate(nn.Dense(6, 4), nn.Dense(6, 2)), nn.Dense(6, 3),
        ),
    )  # fmt: skip


class Convolutional(nn.Module):
    """A network with code of its own, which flattens an image."""

    def __init__(self, dense=nn.Dense):
        self.conv1, self.norm1 = nn.Conv2d(2, 4, 3), nn.BatchNorm(4)
        self.conv2, self.norm2 = nn.Conv2d(4, 4, 3), nn.BatchNorm(4)
        self.fc1, self.fc2 = dense(80, 6), dense(6, 3)

    def __call__(self, x):
        xp = xpnet.array_namespace(x)
        x = self.norm2(self.conv2(xp.tanh(self.norm1(self.conv1(x)))))
        return self.fc2(xp.tanh(self.fc1(xp.reshape(x, (x.shape[0], -1)))))


def their_convolutional(torch):
    class Theirs(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.conv1, self.norm1 = torch.nn.Conv2d(2, 4, 3), torch.nn.BatchNorm2d(4)
            self.conv2, self.norm2 = torch.nn.Conv2d(4, 4, 3), torch.nn.BatchNorm2d(4)
            self.fc1, self.fc2 = torch.nn.Linear(80, 6), torch.nn.Linear(6, 3)

        def forward(self, x):
            x = self.norm2(self.conv2(torch.tanh(self.norm1(self.conv1(x)))))
            return self.fc2(torch.tanh(self.fc1(x.flatten(1))))

    return shuffled(Theirs())


class SubclassOfDense(nn.Dense):
    """Its weight is laid out as in `Dense`, and its inputs are those of the layer."""

    def __call__(self, x):
        return super().__call__(x)


class OfOnesOwn(nn.Module):
    """Layers, and code that calls them in some way."""

    def __init__(self, **layers):
        for name, layer in layers.items():
            setattr(self, name, layer)

    def __call__(self, x):
        raise NotImplementedError
