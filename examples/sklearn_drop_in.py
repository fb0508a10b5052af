"""Change one import: scikit-learn's MLPClassifier beside xpnet's, in a pipeline and in a grid search."""

import argparse
import os
import time
import warnings
from pathlib import Path

from matplotlib.figure import Figure
from sklearn import neural_network
from sklearn.datasets import load_breast_cancer, load_digits
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import GridSearchCV, train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import xpnet.sklearn

DATA = {"digits": load_digits, "breast cancer": load_breast_cancer}
GRID = {"mlpclassifier__hidden_layer_sizes": [(20,), (100,)], "mlpclassifier__alpha": [1e-4, 1.0]}


def classifiers(options):
    epochs = options.epochs or (10 if options.small else 100)
    same = {"max_iter": epochs, "tol": 0.0, "random_state": options.seed}
    return {
        "scikit-learn": neural_network.MLPClassifier(**same),  # these two differ in the import alone
        "xpnet": xpnet.sklearn.MLPClassifier(**same, device=options.device),
        "xpnet, new": xpnet.sklearn.MLPClassifier(  # what scikit-learn's cannot do
            (100, 50),
            activation=["gelu", "silu"],
            batch_norm=True,
            dropout=[0.2, 0.1],
            class_weight="balanced",
            loss="focal",
            device=options.device,
            **same,
        ),
    }


def main(options):
    warnings.simplefilter("ignore", ConvergenceWarning)  # all train for as many epochs as asked for
    curves, seconds = {}, {}
    for data, load in DATA.items():
        x, x_test, y, y_test = train_test_split(*load(return_X_y=True), random_state=0)
        print(f"{data:30}{'test accuracy':>14}{'seconds':>9}")
        for name, classifier in classifiers(options).items():
            pipeline = make_pipeline(StandardScaler(), classifier)
            pipeline.fit(x, y)  # once before the clock starts: numba compiles, and is loaded
            tasks = {"fit": pipeline}
            if name != "xpnet, new":
                tasks["grid search"] = GridSearchCV(pipeline, GRID, cv=3)
            for task, estimator in tasks.items():
                start = time.perf_counter()
                accuracy = estimator.fit(x, y).score(x_test, y_test)
                seconds[data, task, name] = time.perf_counter() - start
                print(f"{name:14}{task:16}{accuracy:14.4f}{seconds[data, task, name]:9.2f}")
                assert accuracy > 0.9
            curves[data, name] = pipeline[-1].loss_curve_
    both = zip(curves["digits", "xpnet"], curves["digits", "scikit-learn"], strict=True)
    difference = max(abs(a - b) for a, b in both)
    print(f"The loss curves of the two on the digits differ by at most {difference:.1e}.")
    assert difference < (1e-6 if options.device == "cpu" else 0.1)
    draw(curves, seconds, options.output / "sklearn_drop_in.png")
    print(f"sklearn_drop_in.png is in {options.output}")


def draw(curves, seconds, path):
    left, right = (figure := Figure(figsize=(11, 4.2), layout="constrained")).subplots(1, 2)
    for (data, name), curve in curves.items():
        if name != "xpnet, new":
            style = {"linewidth": 5, "alpha": 0.35} if name == "scikit-learn" else {"linewidth": 1.5}
            color = "tab:blue" if data == "digits" else "tab:orange"
            left.plot(range(1, len(curve) + 1), curve, color=color, label=f"{data}, {name}", **style)
    left.set(xlabel="epoch", ylabel="loss", yscale="log", title="the same training")
    tasks = list(dict.fromkeys((data, task) for data, task, _ in seconds))
    for offset, name in ((-0.2, "scikit-learn"), (0.2, "xpnet")):
        heights = [seconds[data, task, name] for data, task in tasks]
        bars = right.bar([i + offset for i in range(len(tasks))], heights, 0.38, label=name)
        right.bar_label(bars, fmt="%.2f")
    right.set_xticks(range(len(tasks)), [f"{data}\n{task}" for data, task in tasks])
    right.set(ylabel="seconds", title="the time it takes")
    for axes in (left, right):
        axes.legend(frameon=False)
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=120)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default=os.environ.get("XPNET_DEVICE", "auto"), help="cpu, cuda, torch …")
    parser.add_argument("--epochs", type=int)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, default=Path("pictures"), help="where the files go")
    parser.add_argument("--small", action="store_true", help="train for a shorter time")
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)
    main(options)
