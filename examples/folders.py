"""Images in folders, one folder for each class: a network reads letters, and each file when its turn comes.

The letters are drawn in fonts that come with matplotlib, a little turned, in images of many sizes. The fonts
of TeX are for the test: the network has seen none of their letters.
"""

import argparse
import math
import os
from pathlib import Path
from string import ascii_lowercase

import matplotlib
import numpy
from matplotlib.figure import Figure
from PIL import Image, ImageDraw, ImageFont, ImageOps
from sklearn.neighbors import KNeighborsClassifier

import xpnet
from xpnet import losses, metrics, nn, optim


def write(folder, fonts, random):
    """Write letters as people keep images: folder/a/cmr10-0.png and so on, eight of each letter and font."""
    paths = sorted(Path(matplotlib.get_data_path(), "fonts", "ttf").glob("*.ttf"))
    for path in (path for path in paths if path.name.startswith(fonts)):
        for letter in ascii_lowercase:
            (folder / letter).mkdir(parents=True, exist_ok=True)
            for i in range(8):
                image = Image.new("L", (99, 99), "white")
                font = ImageFont.truetype(path, int(random.integers(24, 64)))
                ImageDraw.Draw(image).text((50, 50), letter, "black", font, anchor="mm")
                image = image.rotate(random.uniform(-15, 15), Image.Resampling.BILINEAR, fillcolor="white")
                image.crop(ImageOps.invert(image).getbbox()).save(folder / letter / f"{path.stem}-{i}.png")


class Images:
    """The images in folders, with the numbers of their classes. An image is read when it is asked for."""

    def __init__(self, folder):
        self.files = sorted(folder.glob("*/*.png"))
        self.classes = sorted({file.parent.name for file in self.files})
        self.labels = [self.classes.index(file.parent.name) for file in self.files]

    def __len__(self):
        return len(self.files)

    def __getitem__(self, i):
        with Image.open(self.files[i]) as image:
            pixels = numpy.asarray(image.resize((32, 32)), dtype="float32")
        return 1 - pixels[:, :, None] / 255, self.labels[i]  # ink is 1, paper 0


def main(options):
    random, folder = numpy.random.default_rng(options.seed), options.output / "letters"
    write(folder / "train", ("DejaVuSans-", "DejaVuSansMono", "DejaVuSerif-", "STIXGeneral"), random)
    write(folder / "test", ("cmb", "cmmi", "cmr", "cmss", "cmt"), random)
    train, test = Images(folder / "train"), Images(folder / "test")

    layers = []
    for channels, features in ((1, 16), (16, 32), (32, 64)):
        layers += [nn.Conv2d(channels, features, 3, padding="same", bias=False, seed=random)]
        layers += [nn.BatchNorm(features), nn.ReLU(), nn.MaxPool(2)]  # from 32 pixels to 16, 8, and 4
    layers += [nn.Flatten(), nn.Dropout(0.5, seed=random), nn.Dense(4 * 4 * 64, 26, seed=random)]
    net = nn.Sequential(*layers)
    epochs = options.epochs or (3 if options.small else 8)
    adam = optim.Adam(optim.cosine(3e-3, steps=epochs * math.ceil(len(train) / 64)))
    arguments = {"epochs": epochs, "batch_size": 64, "metrics": [metrics.accuracy], "seed": random}
    # Files are read for one batch while the network learns from the one before.
    xpnet.fit(net, train, loss=losses.cross_entropy, optimizer=adam, validation=test, **arguments)
    guesses = xpnet.to_numpy(xpnet.predict(net, test)).argmax(axis=-1)
    right = guesses == test.labels
    # To compare with: the letter whose image is most alike, for which all images must be in memory.
    neighbour = KNeighborsClassifier(1).fit([image.ravel() for image, _ in train], train.labels)
    alike = neighbour.score([image.ravel() for image, _ in test], test.labels)
    draw(train, test, guesses, right, options.output / "folders.png")
    print(f"device    {xpnet.device().spec}")
    print(f"accuracy  {right.mean():.1%} of {len(test)} letters of new fonts; nearest neighbour {alike:.1%}")
    print(f"files     folders.png, letters/train and letters/test in {options.output}")
    assert right.mean() > (alike - 0.05 if options.small else alike)


def draw(train, test, guesses, right, path):
    figure = Figure(figsize=(16, 6), layout="constrained")
    left, middle, wrong = figure.subfigures(1, 3, width_ratios=(4, 3, 4))
    left.suptitle("one image of each folder")
    show(left.subplots(4, 7), [train.files[train.labels.index(i) + 4 * i] for i in range(26)], train.classes)
    fonts = numpy.asarray([file.stem.partition("-")[0] for file in test.files])
    shares = {font: right[fonts == font].mean() for font in sorted(set(fonts), reverse=True)}
    (axis := middle.subplots()).set(title="letters that are right, of each new font", xlim=(0, 1.2))
    axis.bar_label(axis.barh(shares.keys(), shares.values()), fmt="{:.1%}", padding=3)

    mistakes = (~right).nonzero()[0]
    wrong.suptitle(f"{len(mistakes)} of {len(test)} are wrong, such as these")
    some = [(test.files[i], test.classes[guesses[i]]) for i in mistakes[:: len(mistakes) // 16 + 1]]
    titles = [f"{file.parent.name}/{file.name}\nnot {guess}" for file, guess in some]
    show(wrong.subplots(4, 4), [file for file, _ in some], titles, color="tab:red", fontsize=9)
    figure.savefig(path, dpi=110)


def show(axes, files, titles, **style):
    for axis in axes.flat:
        axis.set_axis_off()
    for axis, file, title in zip(axes.flat, files, titles, strict=False):
        axis.imshow(Image.open(file), cmap="gray", vmin=0, vmax=255)
        axis.set_title(title, **style)


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
