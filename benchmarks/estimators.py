"""`xpnet.sklearn` beside scikit-learn: the same work from the same seed, one after the other in one process.

Both train with the same numbers (the loss curves are compared), on the same threads of the same NumPy. The
matrix products of a training are timed alone, as no estimator on this NumPy can be faster.
"""

import argparse
import json
import os
import platform
import statistics
import time
import warnings
from importlib.metadata import version
from itertools import pairwise
from pathlib import Path

for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"):
    os.environ.setdefault(variable, "1")

import numpy
import scipy.sparse
from sklearn import neural_network
from sklearn.datasets import load_diabetes, load_digits, load_iris

import xpnet.sklearn

PEERS = {"scikit-learn": neural_network, "xpnet": xpnet.sklearn}
ENDLESS = {"tol": 0.0, "n_iter_no_change": 10**6}

# The aims: xpnet's time over scikit-learn's, at most.
AIMS = {
    "fit digits": 1 / 5,
    "fit digits, batch 32": 1 / 5,
    "fit 20,000 × 784": 1 / 3,
    "predict a row": 1 / 2,
}


def data():
    """The data sets by name, float32 as loaded images are; the estimators keep that."""
    digits, labels = load_digits(return_X_y=True)
    diabetes, progress = load_diabetes(return_X_y=True)
    random = numpy.random.default_rng(0)
    sparse = scipy.sparse.random_array((2_000, 5_000), density=0.005, rng=random)
    return {
        "digits": ((digits / 16).astype("float32"), labels),
        "digits64": (digits / 16, labels),
        "iris": load_iris(return_X_y=True),
        "diabetes": (20 * diabetes, progress / 100),
        "large": (random.random((20_000, 784), dtype="float32"), random.integers(0, 10, 20_000)),
        "sparse": (sparse, random.integers(0, 4, 2_000)),
    }


FITS = {  # what is trained, on which data, with which parameters
    "fit digits": ("MLPClassifier", "digits", {"max_iter": 100} | ENDLESS),
    "fit digits, float64": ("MLPClassifier", "digits64", {"max_iter": 100} | ENDLESS),
    "fit digits, batch 32": ("MLPClassifier", "digits", {"max_iter": 20, "batch_size": 32} | ENDLESS),
    "fit digits, early stopping": ("MLPClassifier", "digits", {"early_stopping": True}),
    "fit digits, sgd": ("MLPClassifier", "digits", {"max_iter": 50, "solver": "sgd"} | ENDLESS),
    "fit digits, lbfgs": ("MLPClassifier", "digits64", {"max_iter": 50, "solver": "lbfgs"}),
    "fit 20,000 × 784": ("MLPClassifier", "large", {"max_iter": 3} | ENDLESS),
    "fit sparse 2,000 × 5,000": ("MLPClassifier", "sparse", {"max_iter": 3} | ENDLESS),
    "fit diabetes": ("MLPRegressor", "diabetes", {"max_iter": 100} | ENDLESS),
    "fit iris": ("MLPClassifier", "iris", {}),
    "fit iris, lbfgs": ("MLPClassifier", "iris", {"solver": "lbfgs"}),
    "fit iris, 2 epochs": ("MLPClassifier", "iris", {"max_iter": 2}),
}

CALLS = {  # a method of an estimator that is fitted to the digits, rows
    "predict a row": ("predict", 1),
    "predict_proba of a row": ("predict_proba", 1),
    "predict 100 rows": ("predict", 100),
    "predict 1,797 rows": ("predict", 1797),
    "partial_fit 32 rows": ("partial_fit", 32),
    "partial_fit 1,797 rows": ("partial_fit", 1797),
}


def work(case, sets):
    """Return what each peer does for a case, how often in a round, and the matrix products alone or None."""
    if case in FITS:
        name, key, options = FITS[case]
        x, y = sets[key]
        estimators = {
            peer: getattr(module, name)(random_state=0, **options) for peer, module in PEERS.items()
        }
        curves = [each.fit(x, y).loss_curve_ for each in estimators.values() if each.solver != "lbfgs"]
        if curves:
            numpy.testing.assert_allclose(curves[0], curves[1], rtol=1e-3)
        theirs = estimators["scikit-learn"]
        products = None if key == "sparse" or theirs.solver == "lbfgs" else floor(theirs, x)
        return {peer: lambda each=each: each.fit(x, y) for peer, each in estimators.items()}, 1, products
    method, rows = CALLS[case]
    x, y = sets["digits"]
    runs = {}
    for peer, module in PEERS.items():
        call = getattr(module.MLPClassifier(max_iter=3, random_state=0).fit(x, y), method)
        arguments = (x[:rows], y[:rows]) if method == "partial_fit" else (x[:rows],)
        runs[peer] = lambda call=call, arguments=arguments: call(*arguments)
    return runs, 2_000 // (rows + 10) + 10, None


def floor(estimator, x):
    """Return a function that computes the matrix products of a training and nothing else."""
    rows = estimator.batch_size if estimator.batch_size != "auto" else min(200, len(x))
    held_out = estimator.validation_fraction if estimator.early_stopping else 0
    steps = round(estimator.n_iter_ * len(x) * (1 - held_out) / rows)
    shapes = [weight.shape for weight in estimator.coefs_]
    values = [numpy.ones((rows, width), x.dtype) for width in (shapes[0][0], *(out for _, out in shapes))]
    outs = [numpy.empty(shape, x.dtype) for shape in shapes]

    def run():
        for _ in range(steps):
            for index, ((a, b), weight) in enumerate(zip(pairwise(values), estimator.coefs_, strict=True)):
                numpy.dot(a, weight, out=b)
                numpy.dot(a.T, b, out=outs[index])
                if index:
                    numpy.dot(b, weight.T, out=a)
                b[:] = 1.0

    return run


def seconds(run, times):
    start = time.perf_counter()
    for _ in range(times):
        run()
    return (time.perf_counter() - start) / times


def measure(case, sets, rounds):
    runs, times, products = work(case, sets)
    runs |= {"matrix products": products} if products else {}
    for run in runs.values():
        run()
    found = {name: [] for name in runs}
    for _ in range(rounds):
        for name, run in runs.items():
            found[name].append(seconds(run, times))
    ratios = [a / b for a, b in zip(found["xpnet"], found["scikit-learn"], strict=True)]
    result = {"case": case, "seconds": {name: statistics.median(each) for name, each in found.items()}}
    result["ratio"] = statistics.median(ratios)
    if products:
        least = [a / b for a, b in zip(found["matrix products"], found["scikit-learn"], strict=True)]
        result["least"] = statistics.median(least)
    if case in AIMS:
        result |= {"aim": AIMS[case], "met": result["ratio"] <= AIMS[case]}
    return result


def show(result):
    both = "  ".join(f"{name} {1e3 * value:9.3f} ms" for name, value in result["seconds"].items())
    least = f", matrix products alone {result['least']:.2f}" if "least" in result else ""
    aim = f", aim {result['aim']:.2f}: {'met' if result['met'] else 'NOT met'}" if "aim" in result else ""
    print(f"{result['case']:28} {both}   {result['ratio']:.2f} of scikit-learn{least}{aim}", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", metavar="FOLDER", help="write the results there")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--only", default="", help="run the cases whose names contain this")
    options, _ = parser.parse_known_args()  # the other benchmarks have options of their own
    warnings.simplefilter("ignore")  # that the epochs were too few
    versions = {name: version(name) for name in ("numpy", "scikit-learn", "numba")}
    versions |= {"python": platform.python_version(), "threads": os.environ["OPENBLAS_NUM_THREADS"]}
    print(f"medians of {options.rounds} rounds. {versions}")
    sets, results = data(), []
    for case in (*FITS, *CALLS):
        if options.only in case:
            results.append(measure(case, sets, options.rounds))
            show(results[-1])
    if options.json:
        found = {"versions": versions, "rows": results}
        (Path(options.json) / "estimators-cpu.json").write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
