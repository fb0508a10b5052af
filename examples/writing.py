"""Text: a transformer that learns to write, byte by byte, from the help texts that every Python ships.

It is measured in bits a byte: how many yes-or-no answers it takes, on average, to tell the next one. Eight
tell any byte. gzip, and counting which byte follows each two others (a 3-gram), are there to compare with.
"""

import argparse
import gzip
import math
import os
import textwrap
from collections import Counter
from pathlib import Path
from pydoc_data.topics import topics

import numpy
from matplotlib.figure import Figure
from numpy.lib.stride_tricks import sliding_window_view

import xpnet
from xpnet import losses, nn, optim

LENGTH = 128  # how many bytes the network sees at once
LETTERS = [chr(i) if i == 10 or 32 <= i < 127 else "·" for i in range(256)]  # those that every font has


class Writer(nn.Module):
    """From bytes to scores of the next byte: (batch, length) → (batch, length, 256)."""

    def __init__(self, width, blocks, seed):
        self.bytes = nn.Embedding(256, width, weight_init=nn.initializers.normal(0.02), seed=seed)
        options = {"causal": True, "rotary": True, "dropout": 0.1, "seed": seed}
        self.blocks = [nn.TransformerBlock(width, 4, **options) for _ in range(blocks)]
        self.scores = nn.Sequential(nn.LayerNorm(width), nn.Dense(width, 256, seed=seed))

    def __call__(self, x):
        return self.scores(nn.Sequential(*self.blocks)(self.bytes(x)))

    def step(self, x, caches):
        """Go on with a text: each block has a cache of what came before."""
        x, after = self.bytes(x), []
        for block, cache in zip(self.blocks, caches, strict=True):
            x, cache = block.step(x, cache)
            after.append(cache)
        return self.scores(x), after


def bits(scores, following, **options):
    """Return the bits a byte: the cross-entropy, with the logarithm to the base 2."""
    flat = xpnet.array_namespace(scores).reshape
    return losses.cross_entropy(flat(scores, (-1, 256)), flat(following, (-1,)), **options) / math.log(2)


def write(net, start, number, random):
    """Go on with a text: draw each byte by its probability (Gumbel's way), unlikely ones even less often."""
    step, text = xpnet.jit(Writer.step), list(start)
    for i in range(number):
        if i % (LENGTH // 2) == 0:  # the caches are full: new ones go on from the last bytes
            caches, new = [block.new_cache(1, LENGTH) for block in net.eval().blocks], text[-LENGTH // 2 :]
        scores, caches = step(net, xpnet.asarray([new], device=xpnet.device(), dtype="int64"), caches)
        new = [int((xpnet.to_numpy(scores)[0, -1] / 0.7 + random.gumbel(size=256)).argmax())]
        text += new
    return "".join(LETTERS[byte] for byte in text)


def three_gram(text, test):
    """Return the bits a byte of a 3-gram; the fewer it has seen, the more it asks a 2-gram, and so on."""
    counts = Counter(text[i : i + n] for n in range(4) for i in range(len(text)))

    def chance(seen):
        return (counts[seen] + chance(seen[1:])) / (counts[seen[:-1]] + 1) if seen else 1 / 256

    return -sum(math.log2(chance(test[i : i + 3])) for i in range(len(test) - 2)) / (len(test) - 2)


def main(options):
    # Many paragraphs stand in several topics. Each is taken once, so that none is in both parts.
    data = "\n\n".join(dict.fromkeys("\n\n".join(topics.values()).split("\n\n"))).encode()
    text, test = data[: len(data) * 9 // 10], data[len(data) * 9 // 10 :]
    views = [sliding_window_view(numpy.frombuffer(d, "uint8").astype(int), LENGTH + 1) for d in (text, test)]
    x, x_test = views[0][:: 64 if options.small else 24], views[1][::LENGTH]
    random = numpy.random.default_rng(0)
    net = Writer(64 if options.small else 128, blocks=1 if options.small else 3, seed=random)
    epochs = 1 if options.small else 4
    adam = optim.AdamW(optim.cosine(3e-3, steps=epochs * math.ceil(len(x) / 32)), weight_decay=0.05)
    xpnet.fit(net, x[:, :-1], x[:, 1:], loss=bits, optimizer=adam, epochs=epochs, batch_size=32, seed=random)
    scores = xpnet.to_numpy(xpnet.predict(net, x_test[:, :-1], batch_size=32))
    surprise = bits(scores, x_test[:, 1:], reduction="none")
    zipped = 8 * (len(gzip.compress(data)) - len(gzip.compress(text))) / len(test)
    results = {"3-gram": three_gram(text, test), "gzip": zipped, "transformer": float(surprise.mean())}
    sample = write(net, b"The statement ", 60 if options.small else 1000, random)
    draw(results, x_test[:6, 1:], surprise, sample, options.output / "writing.png")
    print(f"{sample}\n\nwriting.png in {options.output}; bits a byte: {results}")
    assert results["transformer"] < (4 if options.small else min(results["3-gram"], results["gzip"]))


def draw(results, text, surprise, sample, path):
    figure = Figure(figsize=(10, 7), layout="constrained")
    axes = figure.subplot_mosaic([["bits", "wrote", "wrote"], ["read"] * 3])
    axes["bits"].set(title="bits a byte: less is better")
    axes["bits"].bar_label(axes["bits"].bar(results.keys(), results.values(), color="tab:blue"), fmt="%.2f")
    axes["wrote"].set(title="text that it wrote", xticks=(), yticks=())
    axes["wrote"].text(0.02, 0.97, textwrap.fill(sample, 74), family="monospace", va="top", in_layout=False)
    axes["read"].set(title="text that it had not seen: red is what it did not expect", xticks=(), yticks=())
    axes["read"].imshow(surprise[: text.size].reshape(-1, 64), cmap="Reds", vmax=12, aspect="auto")
    for i, byte in enumerate(text.flat):
        axes["read"].text(i % 64, i // 64, LETTERS[byte], family="monospace", ha="center", va="center")
    figure.savefig(path, dpi=110)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default=os.environ.get("XPNET_DEVICE", "auto"), help="cpu, cuda, torch …")
    parser.add_argument("--output", type=Path, default=Path("pictures"), help="where the files go")
    parser.add_argument("--small", action="store_true", help="a smaller network, and a shorter time")
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)
    with xpnet.use_device(options.device):
        main(options)
