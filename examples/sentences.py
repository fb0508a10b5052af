"""Text vectors: from which library is a sentence? It becomes a bag of words, which a dense network reads.

The sentences come from the help texts of five libraries. A bag of words says which words a sentence has, and
not in what order: a vector with an entry for each word, most of them 0. With so little to go by, a network
is only a little better than naive Bayes, which looks at each word by itself.
"""

import argparse
import math
import os
import re
from importlib import import_module
from inspect import isclass
from pathlib import Path
from zlib import crc32

import numpy
from matplotlib.figure import Figure
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.metrics import ConfusionMatrixDisplay
from sklearn.naive_bayes import MultinomialNB

import xpnet
from xpnet import losses, metrics, nn, optim

LIBRARIES = {  # each with modules whose help texts are read
    "Python": "argparse asyncio builtins collections datetime logging pathlib socket tarfile threading",
    "NumPy": "numpy numpy.fft numpy.linalg numpy.ma numpy.polynomial numpy.random",
    "SciPy": "scipy.interpolate scipy.linalg scipy.ndimage scipy.optimize scipy.signal scipy.stats",
    "scikit-learn": "sklearn.cluster sklearn.ensemble sklearn.linear_model sklearn.metrics sklearn.neighbors "
    "sklearn.decomposition sklearn.model_selection sklearn.preprocessing sklearn.svm sklearn.tree",
    "matplotlib": "matplotlib.axes matplotlib.colors matplotlib.figure matplotlib.pyplot matplotlib.ticker",
}
TOO_EASY = ["python", "numpy", "np", "scipy", "scikit", "learn", "sklearn", "matplotlib", "mpl", "plt"]


def load():
    """Return sentences, the number of the library of each, and whether it is for the test."""
    found = {}
    for label, modules in enumerate(LIBRARIES.values()):
        public = [v for m in modules.split() for k, v in vars(import_module(m)).items() if k[0] != "_"]
        methods = [v for c in public if isclass(c) for k, v in vars(c).items() if k[0] != "_"]
        for text in (v.__doc__ for v in public + methods if callable(v) and isinstance(v.__doc__, str)):
            for paragraph in re.split(r"\n\s*\n", text):
                for sentence in re.split(r"(?<=[.])\s+(?=[A-Z])", " ".join(paragraph.split())):
                    if re.fullmatch(r"[A-Z][^=|>{}\[\]]{30,250}[.]", sentence):  # no formula, no table
                        # Each sentence once. All of a help text go to the same part: they are much alike.
                        found.setdefault(sentence, (label, crc32(text.encode()) % 4 == 0))
    labels, in_test = numpy.asarray(list(found.values())).T
    return numpy.asarray(list(found)), labels, in_test.astype(bool)


def main(options):
    sentences, y, in_test = load()
    reader = TfidfVectorizer(stop_words=TOO_EASY, token_pattern="[a-z]{2,}", min_df=2, dtype=numpy.float32)
    x, x_test = reader.fit_transform(sentences[~in_test]), reader.transform(sentences[in_test])
    y, y_test = y[~in_test], y[in_test]

    random = numpy.random.default_rng(options.seed)
    net = nn.Sequential(
        nn.Dense(x.shape[1], 64, seed=random),  # adds up 64 numbers of each word
        nn.ReLU(),
        nn.Dropout(0.5, seed=random),
        nn.Dense(64, len(LIBRARIES), seed=random),
    )
    epochs = options.epochs or (3 if options.small else 8)
    xpnet.fit(
        net,
        x,  # a sparse matrix, whose batches stay sparse
        y,
        loss=losses.cross_entropy,
        optimizer=optim.AdamW(optim.cosine(3e-3, steps=epochs * math.ceil(len(y) / 64)), weight_decay=0.01),
        epochs=epochs,
        batch_size=64,
        validation=(x_test, y_test),  # only watched: the training does not use it
        metrics=[metrics.accuracy],
        seed=random,
    )
    guesses = xpnet.to_numpy(xpnet.predict(net, x_test)).argmax(axis=-1)
    accuracy, bayes = (guesses == y_test).mean(), MultinomialNB(alpha=0.1).fit(x, y).score(x_test, y_test)

    # What a sentence of one word says, for each word that 25 sentences have or more.
    common = (x.astype(bool).sum(axis=0) >= 25).nonzero()[-1]
    scores = xpnet.to_numpy(nn.Softmax()(xpnet.predict(net, numpy.eye(x.shape[1])[common])))
    draw(reader.get_feature_names_out()[common], scores, y_test, guesses, options.output / "sentences.png")
    print(f"device       {xpnet.device().spec}")
    print(f"network      {accuracy:.1%} of {len(y_test):,} sentences right; naive Bayes {bayes:.1%}")
    print(f"files        sentences.png in {options.output}")
    assert accuracy > bayes - (0.02 if options.small else 0)


def draw(words, scores, labels, guesses, path):
    left, right = (figure := Figure(figsize=(13, 5.6), layout="constrained")).subplots(
        1, 2, width_ratios=(2, 3)
    )
    style = {"normalize": "true", "values_format": ".0%", "cmap": "Blues", "colorbar": False, "ax": left}
    ConfusionMatrixDisplay.from_predictions(labels, guesses, display_labels=list(LIBRARIES), **style)
    left.set(title="which sentences are taken for which", xlabel="taken for", ylabel="comes from")
    right.set(title="the words that say most, each by itself", xlim=(-0.5, 4.5), ylim=(15.5, -1))
    right.set_axis_off()
    for i, library in enumerate(LIBRARIES):
        style = {"ha": "center", "size": 12, "color": f"C{i}"}
        right.text(i, -0.2, library, weight="bold", **style)
        for row, index in enumerate(scores[:, i].argsort()[::-1][:15], start=1):
            right.text(i, row, words[index], **style)
    figure.savefig(path, dpi=110)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default=os.environ.get("XPNET_DEVICE", "auto"), help="cpu, cuda, torch …")
    parser.add_argument("--epochs", type=int)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, default=Path("pictures"), help="where the files go")
    parser.add_argument("--small", action="store_true", help="train for a shorter time")
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)
    with xpnet.use_device(options.device):
        main(options)
