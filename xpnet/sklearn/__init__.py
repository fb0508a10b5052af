"""Estimators for scikit-learn: its `MLPClassifier` and `MLPRegressor`, faster and with more to choose.

>>> from xpnet.sklearn import MLPClassifier  # in place of sklearn.neural_network
"""

try:
    import sklearn as _  # noqa: F401
except ImportError:
    raise ImportError(
        "xpnet.sklearn needs scikit-learn, which is not installed. `pip install scikit-learn` installs it."
    ) from None

from xpnet.sklearn.classifier import MLPClassifier
from xpnet.sklearn.converters import register_onnx_converters
from xpnet.sklearn.regressor import MLPRegressor

__all__ = ["MLPClassifier", "MLPRegressor", "register_onnx_converters"]
