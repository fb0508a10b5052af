"""A grid search whose fits go to workers: prints how many threads BLAS has in each place, and the scores."""

import json
import sys
import warnings

import joblib
from sklearn.datasets import load_digits
from sklearn.model_selection import GridSearchCV
from threadpoolctl import threadpool_info

from xpnet.sklearn import MLPClassifier


def threads(_estimator, _x, _y):
    return max(pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas")


def search(**options):
    x, y = load_digits(return_X_y=True)
    estimator = MLPClassifier(8, max_iter=3, random_state=0)
    scoring = {"threads": threads, "accuracy": "accuracy"}
    grid = GridSearchCV(estimator, {"alpha": [0.1, 1.0]}, cv=2, scoring=scoring, refit=False, **options)
    found = grid.fit(x[:200] / 16, y[:200]).cv_results_
    return found["mean_test_threads"].tolist(), found["mean_test_accuracy"].tolist()


def in_dask():
    from dask.distributed import Client, LocalCluster

    with (
        LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster,
        Client(cluster),
        joblib.parallel_config("dask"),
    ):
        return search(n_jobs=2)


if __name__ == "__main__":
    warnings.simplefilter("ignore")  # that three epochs are few
    found = {"here": search(), "workers": search(n_jobs=2) if sys.argv[1] == "joblib" else in_dask()}
    print(json.dumps(found))
