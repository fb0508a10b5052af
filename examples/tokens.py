"""A file of tokens: an LSTM learns to go on with Python code, from a file that is never read as a whole.

The text is Python's own modules, the tokens are the numbers of their words and signs, two bytes each. The
network's perplexity says of how many equally likely tokens it is as unsure as of the next one. Two guesses by
counting are there to compare with: how often a token comes, and how often after the one before.
"""

import argparse
import math
import os
import re
import sysconfig
from collections import Counter
from pathlib import Path

import numpy
from matplotlib.figure import Figure

import xpnet
from xpnet import losses, nn, optim

LENGTH = 64  # how many tokens a window has
WORDS = re.compile(r" ?[A-Za-z]+|\n *|.")
STARTS = "import", "for i in", "raise", '"""Return', "if not", "def __init__(self"


def encode(text, numbers):
    """Return the tokens of a text; 0 stands for all words that have no number."""
    return [numbers.get(word, 0) for word in WORDS.findall(text)]


def write(path, texts, numbers):
    with path.open("wb") as file:  # one text after the other: all of them may be more than the memory holds
        for text in texts:
            numpy.asarray(encode(text, numbers), dtype="uint16").tofile(file)


class Windows:
    """Windows of a file of tokens, each with the tokens that follow. One is read when it is asked for."""

    def __init__(self, path):
        self.tokens = numpy.memmap(path, dtype="uint16", mode="r")

    def __len__(self):
        return (len(self.tokens) - 1) // LENGTH

    def __getitem__(self, i):
        window = self.tokens[i * LENGTH : (i + 1) * LENGTH + 1]
        return window[:-1], window[1:]


def guesses(train, test, number):
    """Return the perplexities of two guesses by counting."""
    alone = (numpy.bincount(train, minlength=number) + 1) / (len(train) + number)
    pairs = numpy.bincount(number * train[:-1].astype(int) + train[1:], minlength=number**2)
    after = pairs.reshape(number, number) + 5 * alone  # where few pairs were seen, `alone` decides
    after /= after.sum(axis=1, keepdims=True)
    chances = {"tokens": alone[test], "pairs": after[test[:-1], test[1:]]}
    return {name: math.exp(-numpy.log(p).mean()) for name, p in chances.items()}


def main(options):
    modules = sorted(Path(sysconfig.get_path("stdlib")).glob("[!_]*.py"))[:: 8 if options.small else 1]
    texts = [module.read_text("utf-8") for module in modules]
    counts = Counter(word for i, text in enumerate(texts) if i % 10 for word in WORDS.findall(text))
    words = ["?"] + [word for word, _ in counts.most_common(2000)]
    numbers = {word: number for number, word in enumerate(words)}
    write(options.output / "tokens_train.bin", [text for i, text in enumerate(texts) if i % 10], numbers)
    write(options.output / "tokens_test.bin", texts[::10], numbers)
    train, test = (Windows(options.output / f"tokens_{part}.bin") for part in ("train", "test"))

    random, width = numpy.random.default_rng(0), 64 if options.small else 160
    embedding, memory = nn.Embedding(len(words), width, seed=random), nn.LSTM(width, width, seed=random)
    net = nn.Sequential(embedding, memory, nn.Dense(width, len(words), seed=random))  # scores of the next one
    adam = optim.Adam(optim.cosine(1e-2, steps=math.ceil(len(train) / 32)))
    # "blocks": neighbours are read together, and shuffled in memory. From a disk, that is faster.
    arguments = {"epochs": 1, "batch_size": 32, "shuffle": "blocks", "validation": test, "seed": random}
    history = xpnet.fit(net, train, loss=losses.cross_entropy, optimizer=adam, **arguments)
    results = guesses(train.tokens, test.tokens, len(words))
    results["LSTM"] = math.exp(history["validation_loss"][-1])
    draw(results, net, words, numbers, options.output / "tokens.png")
    print(f"device      {xpnet.device().spec}")
    print(f"perplexity  {', '.join(f'{name} {value:.1f}' for name, value in results.items())}")
    print(f"files       tokens.png, tokens_train.bin and tokens_test.bin in {options.output}")
    assert results["LSTM"] < results["tokens" if options.small else "pairs"]


def draw(results, net, words, numbers, path):
    figure = Figure(figsize=(16, 6.5), layout="constrained")
    left, right = figure.subfigures(1, 2, width_ratios=(1, 4))
    (axis := left.subplots()).set(title="perplexity: less is better")
    axis.bar_label(axis.bar(results.keys(), results.values(), color="tab:blue"), fmt="%.1f")
    right.suptitle("what may come next; below, the line of the most likely tokens")
    for axis, start in zip(right.subplots(2, 3).flat, STARTS, strict=True):
        line = encode(f"\n    {start}", numbers)
        for i in range(12):
            chances = xpnet.to_numpy(nn.Softmax()(xpnet.predict(net, [line], jit=False)))[0, -1]
            best = chances[1:].argsort()[-5:] + 1  # none of the words that have no number
            if i == 0:
                axis.barh([repr(words[j]) for j in best], chances[best])
            line.append(int(best[-1]))
        text = "".join(words[i] for i in line).strip().splitlines()[0]
        axis.set(title=f"{start} …", xlabel=text, xlim=(0, 1))
    figure.savefig(path, dpi=110)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default=os.environ.get("XPNET_DEVICE", "auto"), help="cpu, cuda, torch …")
    parser.add_argument("--output", type=Path, default=Path("pictures"), help="where the files go")
    parser.add_argument("--small", action="store_true", help="a smaller network, and less text")
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)
    with xpnet.use_device(options.device):
        main(options)
