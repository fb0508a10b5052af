"""Functions of other projects, unmodified: written for the array API standard, they can be differentiated.

To add a function, add a `Case` to the table of its project. What cannot work stands in `CANNOT`, with what
the error must name.
"""

import re

import array_api_compat
import array_api_extra as xpx
import einops.array_api
import pytest
import scipy.cluster.vq
import scipy.constants
import scipy.fft
import scipy.integrate
import scipy.interpolate
import scipy.linalg
import scipy.ndimage
import scipy.optimize
import scipy.signal
import scipy.spatial.distance
import scipy.special
import scipy.stats
import sklearn
import sklearn.decomposition
import sklearn.discriminant_analysis
import sklearn.linear_model
import sklearn.metrics
import sklearn.metrics.pairwise
import sklearn.naive_bayes
import sklearn.preprocessing
import sklearn.utils.extmath
from helpers import array, assert_same
from scipy import special, stats
from scipy.spatial.transform import RigidTransform, Rotation

import xpnet
from autodiff.cases import Case, as_list, complexes, named, uniform
from xpnet.errors import NoGradientError, NotRecordableError

# The versions that the tables were written for: earlier ones follow the standard in fewer functions.
for package, version in {"array_api_extra": "0.11.5", "scipy": "1.17", "sklearn": "1.9"}.items():
    pytest.importorskip(package, minversion=version)


def positive(*shape):
    return uniform(0.5, 2.0, *shape)


def each(module, names, *inputs, **options):
    """Return a table of functions that are called with the same inputs."""

    def call(name):
        return lambda _xp, *arrays: getattr(module, name)(*arrays, **options)

    return {name: [Case(call(name), *inputs)] for name in names.split()}


def behind(module, names, *inputs):
    """As `each`, of functions of numbers and an array, for which the numbers become arrays of the library."""
    *numbers, draw = inputs

    def call(name):
        return lambda xp, x: getattr(module, name)(*[xp.full_like(x, number) for number in numbers], x)

    return {name: [Case(call(name), draw)] for name in names.split()}


EXTRA = {
    **each(xpx, "angle cov deg2rad nan_to_num nanmax nanmean nanmin nansum rad2deg sinc", (4,)),
    "angle of complex": [Case(lambda xp, x: xpx.angle(x), complexes(4))],
    "apply_where": [
        Case(
            lambda xp, x, y: xpx.apply_where(
                x > 0, (x, y), lambda x, y: xp.sqrt(x) * y, lambda x, y: x * x * y
            ),
            (5,),
            (5,),
        ),
        Case(lambda xp, x: xpx.apply_where(x > 0, x, xp.sqrt, fill_value=0.0), (5,)),
    ],
    "argpartition": [Case(lambda xp, x: xp.sum(xp.take(x, xpx.argpartition(x, 2))[:3] ** 2), (5,))],
    "at.set": [
        Case(lambda xp, x: xpx.at(x, 1).set(xp.sin(x[0]), copy=True, xp=xp), (3,)),
        Case(lambda xp, x, y: xpx.at(x)[1:].set(y[1:] ** 2, copy=True, xp=xp), (3,), (3,)),
    ],
    "at.add": [Case(lambda xp, x: xpx.at(x)[0].add(2.0, copy=True, xp=xp) ** 2, (3,))],
    "at.subtract": [Case(lambda xp, x, y: xpx.at(x)[1:].subtract(y, copy=True, xp=xp) ** 2, (3,), (2,))],
    "at.multiply": [Case(lambda xp, x: xpx.at(x)[1:].multiply(x[:-1], copy=True, xp=xp), (3,))],
    "at.divide": [Case(lambda xp, x, y: xpx.at(x)[1:].divide(y, copy=True, xp=xp), (3,), (2,))],
    "at.power": [Case(lambda xp, x, y: xpx.at(x)[1:].power(y, copy=True, xp=xp), positive(3), positive(2))],
    "at.min": [Case(lambda xp, x, y: xpx.at(x)[1:].min(y, copy=True, xp=xp) ** 2, (3,), (2,))],
    "at.max": [Case(lambda xp, x, y: xpx.at(x)[1:].max(y, copy=True, xp=xp) ** 2, (3,), (2,))],
    "atleast_nd": [Case(lambda xp, x: xpx.atleast_nd(x, ndim=3), (2,))],
    "cov": [Case(lambda xp, x: xpx.cov(x), (2, 5))],
    "create_diagonal": [Case(lambda xp, x: xpx.create_diagonal(x, offset=1), (3,))],
    "diag_indices": [Case(lambda xp, x: x[xpx.diag_indices(3, xp=xp, device=x.device)] ** 2, (3, 3))],
    "expand_dims": [Case(lambda xp, x: xpx.expand_dims(x, axis=(0, 2)) * x, (2, 3))],
    "isclose": [Case(lambda xp, x: xp.where(xpx.isclose(x, x[0]), x, x * x), (5,))],
    "isin": [Case(lambda xp, x: xp.where(xpx.isin(x, x[:2]), x, x * x), (5,))],
    "kron": [Case(lambda xp, x, y: xpx.kron(x, y), (2, 2), (1, 3))],
    "lazy_apply": [Case(lambda xp, x: xpx.lazy_apply(lambda x: xp.sin(x) * x, x, xp=xp), (5,))],
    "nunique": [Case(lambda xp, x: x * xp.astype(xpx.nunique(x), x.dtype), (4,))],
    "one_hot": [Case(lambda xp, x: xpx.one_hot(xp.argsort(x), 5, dtype=x.dtype, xp=xp) @ x, (5,))],
    "pad": [Case(lambda xp, x: xpx.pad(x, 2, constant_values=1.0), (2, 3))],
    "partition": [Case(lambda xp, x: xp.sum(xpx.partition(x, 2)[:3] ** 2), (5,))],
    "searchsorted": [
        Case(lambda xp, x, y: xp.take(x, xpx.searchsorted(xp.sort(x), y)) * y, (7,), uniform(-0.4, 0.4, 3)),
    ],
    "setdiff1d": [Case(lambda xp, x, y: xp.sort(xpx.setdiff1d(x, y)) ** 2, (4,), (2,))],
    "tril_indices": [Case(lambda xp, x: x[xpx.tril_indices(3, xp=xp, device=x.device)] ** 2, (3, 3))],
    "triu_indices": [Case(lambda xp, x: x[xpx.triu_indices(3, xp=xp, device=x.device)] ** 2, (3, 3))],
    "union1d": [Case(lambda xp, x, y: xp.sort(xpx.union1d(x, y)) ** 2, (4,), (2,))],
    "unravel_index": [Case(lambda xp, x: x[xpx.unravel_index(xp.argmax(x), x.shape)] ** 2, (3, 3))],
}

SPECIAL = {
    **each(special, "kl_div rel_entr xlog1py xlogy betaln poch", positive(4), positive(4)),
    **each(special, "gamma rgamma psi erfcx exp1 expi i0e k0 j1 cbrt sinc exp10", positive(4)),
    **behind(special, "gammainc gammaincc chdtr chdtrc stdtr pdtr", 2.0, positive(4)),
    **behind(special, "gammaincinv gammainccinv chdtri stdtrit", 3.0, uniform(0.6, 0.9, 4)),
    **behind(special, "betainc betaincc betaincinv fdtri", 3.0, 4.0, uniform(0.2, 0.8, 4)),
    **behind(special, "fdtr fdtrc", 3.0, 4.0, positive(4)),
    "logsumexp": [
        Case(lambda xp, x: special.logsumexp(x, axis=1), (2, 3)),
        Case(lambda xp, x: special.logsumexp(x), (4,)),
        Case(lambda xp, x, b: special.logsumexp(x, b=b, axis=0), (3, 2), positive(3, 2)),
    ],
    "softmax": [Case(lambda xp, x: special.softmax(x, axis=-1), (2, 3))],
    "log_softmax": [Case(lambda xp, x: special.log_softmax(x, axis=-1), (2, 3))],
}


def describe(x):
    found = stats.describe(x)
    return [*found.minmax, found.mean, found.variance, found.skewness, found.kurtosis]


STATS = {
    **each(stats, "circmean circstd circvar differential_entropy gmean gstd gzscore hmean iqr", positive(9)),
    **each(stats, "kurtosis lmoment median_abs_deviation sem skew tmax tmean tmin tsem tstd", positive(9)),
    **each(stats, "tvar variation", positive(9)),
    "zscore": [Case(lambda xp, x: stats.zscore(x, axis=0), (5, 2))],
    "boxcox_llf": [Case(lambda xp, x: stats.boxcox_llf(1.5, x), positive(6))],
    "describe": [Case(lambda xp, x: describe(x), positive(9))],
    "directional_stats": [
        Case(lambda xp, x: stats.directional_stats(x).mean_direction, (5, 3)),
        Case(lambda xp, x: stats.directional_stats(x).mean_resultant_length, (5, 3)),
    ],
    "entropy": [
        Case(lambda xp, x: stats.entropy(x), positive(4)),
        Case(lambda xp, x, y: stats.entropy(x, y), positive(4), positive(4)),
    ],
    "kstat": [Case(lambda xp, x, n=n: stats.kstat(x, n), positive(6)) for n in (1, 2, 3, 4)],
    "kstatvar": [Case(lambda xp, x, n=n: stats.kstatvar(x, n), positive(6)) for n in (1, 2)],
    "kurtosistest": [Case(lambda xp, x: stats.kurtosistest(x).statistic, positive(12))],
    "lmoment": [Case(lambda xp, x: stats.lmoment(x, 3), positive(9))],
    "mode": [Case(lambda xp, x: stats.mode(x).mode ** 2, (4,))],
    "moment": [Case(lambda xp, x: stats.moment(x, 3), (5,))],
    # The p-value beside it, which nobody differentiates, is no harm.
    "pearsonr": [Case(lambda xp, x, y: stats.pearsonr(x, y).statistic, positive(6), positive(6))],
    "pmean": [Case(lambda xp, x: stats.pmean(x, 3), positive(5))],
    "quantile": [Case(lambda xp, x: stats.quantile(x, 0.3), positive(8))],
    "rankdata": [Case(lambda xp, x: x * stats.rankdata(x), positive(5))],
    "skewtest": [Case(lambda xp, x: stats.skewtest(x).statistic, positive(12))],
    "ttest_1samp": [Case(lambda xp, x: stats.ttest_1samp(x, 0.5).statistic, positive(6))],
    "ttest_ind": [Case(lambda xp, x, y: stats.ttest_ind(x, y).statistic, positive(6), positive(5))],
    "trim_mean": [Case(lambda xp, x: stats.trim_mean(x, 0.2), positive(8))],
    "yeojohnson_llf": [Case(lambda xp, x: stats.yeojohnson_llf(1.5, x), positive(6))],
    "zmap": [Case(lambda xp, x, y: stats.zmap(x, y), positive(4), positive(5))],
}

FFT = {
    **each(scipy.fft, "fft ifft fftn ifftn fftshift ifftshift", complexes(5)),
    **each(scipy.fft, "fft2 ifft2 irfft2", complexes(3, 4)),
    **each(scipy.fft, "irfft hfft irfftn hfftn", complexes(4)),
    **each(scipy.fft, "rfft ihfft rfftn", (5,)),
    **each(scipy.fft, "rfft2", (3, 4)),
    "fht": [Case(lambda xp, x: scipy.fft.fht(x, 0.1, 0.5), positive(6))],
}

ROTATION = {
    "from_rotvec": [Case(lambda xp, x: Rotation.from_rotvec(x).as_matrix(), (2, 3))],
    "from_quat": [Case(lambda xp, x: Rotation.from_quat(x).as_matrix(), (2, 4))],
    "from_mrp": [Case(lambda xp, x: Rotation.from_mrp(x).as_matrix(), (2, 3))],
    "from_euler": [Case(lambda xp, x: Rotation.from_euler("xyz", x).as_quat(), (2, 3))],
    "as_rotvec": [Case(lambda xp, x: Rotation.from_quat(x).as_rotvec(), positive(2, 4))],
    "as_mrp": [Case(lambda xp, x: Rotation.from_rotvec(x).as_mrp(), positive(2, 3))],
    "as_euler": [Case(lambda xp, x: Rotation.from_rotvec(x).as_euler("zyx"), positive(2, 3))],
    "apply": [Case(lambda xp, x, y: Rotation.from_rotvec(x).apply(y), (3,), (3,))],
    "inv": [Case(lambda xp, x: Rotation.from_rotvec(x).inv().as_matrix(), (2, 3))],
    "magnitude": [Case(lambda xp, x: Rotation.from_rotvec(x).magnitude(), positive(2, 3))],
    "mean": [Case(lambda xp, x: Rotation.from_rotvec(x).mean().as_matrix(), positive(6, 3))],
    "product": [
        Case(
            lambda xp, x, y: (Rotation.from_rotvec(x) * Rotation.from_rotvec(y)).as_matrix(), (2, 3), (2, 3)
        ),
    ],
    "RigidTransform": [
        Case(
            lambda xp, x, y: RigidTransform.from_components(x, Rotation.from_rotvec(y)).apply(x), (3,), (3,)
        ),
    ],
}

SCIPY = {
    **each(scipy.integrate, "cumulative_simpson cumulative_trapezoid romb", (5,)),
    "trapezoid": [
        Case(lambda xp, y: scipy.integrate.trapezoid(y), (5,)),
        Case(lambda xp, y, x: scipy.integrate.trapezoid(y, x=x), (5,), (5,)),
    ],
    **each(scipy.optimize, "rosen rosen_der rosen_hess", (4,)),
    **each(scipy.optimize, "rosen_hess_prod", (4,), (4,)),
    "block_diag": [Case(lambda xp, x, y: scipy.linalg.block_diag(x, y), (2, 2), (1, 3))],
    "fiedler": [Case(lambda xp, x: scipy.linalg.fiedler(x), (4,))],
    **each(scipy.signal, "fftconvolve oaconvolve", (6,), (3,)),
    "freqz": [Case(lambda xp, x: scipy.signal.freqz(x, worN=4)[1], (4,))],
    "general_cosine": [Case(lambda xp, x: scipy.signal.windows.general_cosine(5, x), (3,))],
    "vectorstrength": [
        Case(lambda xp, x: scipy.signal.vectorstrength(x, xp.asarray(2.0, dtype=x.dtype))[0], (4,))
    ],
    "hilbert": [Case(lambda xp, x: scipy.signal.hilbert(x), (8,))],
    "resample": [Case(lambda xp, x: scipy.signal.resample(x, 5), (8,))],
    "convert_temperature": [Case(lambda xp, x: scipy.constants.convert_temperature(100 * x, "C", "F"), (3,))],
    "lambda2nu": [Case(lambda xp, x: scipy.constants.lambda2nu(x) * 1e-8, (3,))],
    "nu2lambda": [Case(lambda xp, x: scipy.constants.nu2lambda(x) * 1e-8, (3,))],
    "whiten": [Case(lambda xp, x: scipy.cluster.vq.whiten(x), positive(5, 2))],
}


def classes(x):
    """Return labels of two classes beside some rows."""
    xp = xpnet.array_namespace(x)
    return xp.asarray([i % 2 for i in range(x.shape[0])], device=array_api_compat.device(x))


PAIRWISE = """
    additive_chi2_kernel chi2_kernel cosine_distances cosine_similarity euclidean_distances laplacian_kernel
    linear_kernel manhattan_distances paired_cosine_distances paired_euclidean_distances
    paired_manhattan_distances pairwise_distances pairwise_kernels polynomial_kernel rbf_kernel sigmoid_kernel
"""

SKLEARN = {
    **each(sklearn.metrics.pairwise, PAIRWISE, positive(3, 2), positive(3, 2)),
    "normalize": [
        Case(lambda xp, x, norm=norm: sklearn.preprocessing.normalize(x, norm=norm), positive(5, 2))
        for norm in ("l1", "l2", "max")
    ],
    "KernelCenterer": [
        Case(lambda xp, x: sklearn.preprocessing.KernelCenterer().fit_transform(x), positive(4, 4)),
    ],
    "MaxAbsScaler": [
        Case(lambda xp, x: sklearn.preprocessing.MaxAbsScaler().fit_transform(x), positive(4, 2)),
    ],
    "StandardScaler": [
        Case(
            lambda xp, x: sklearn.preprocessing.StandardScaler(with_std=False).fit_transform(x),
            positive(4, 2),
        ),
    ],
    "MinMaxScaler": [
        Case(lambda xp, x: sklearn.preprocessing.MinMaxScaler().fit_transform(x), positive(4, 2)),
    ],
    "Normalizer": [
        Case(lambda xp, x: sklearn.preprocessing.Normalizer().fit_transform(x), positive(4, 2)),
    ],
    "PolynomialFeatures": [
        Case(lambda xp, x: sklearn.preprocessing.PolynomialFeatures().fit_transform(x), positive(4, 2)),
    ],
    **each(
        sklearn.metrics,
        "mean_absolute_error mean_squared_error r2_score root_mean_squared_error",
        positive(4, 2),
        positive(4, 2),
        multioutput="raw_values",
    ),
    "row_norms": [
        Case(lambda xp, x, s=s: sklearn.utils.extmath.row_norms(x, squared=s), (3, 2)) for s in (False, True)
    ],
    "safe_sparse_dot": [Case(lambda xp, x: sklearn.utils.extmath.safe_sparse_dot(x, x.T), (3, 2))],
    "softmax": [Case(lambda xp, x: sklearn.utils.extmath.softmax(x), (3, 2))],
    "PCA": [
        Case(lambda xp, x: sklearn.decomposition.PCA(1, svd_solver="full").fit_transform(x), positive(5, 2)),
    ],
    "Ridge": [
        Case(
            lambda xp, x, y: sklearn.linear_model.Ridge(solver="svd").fit(x, y).predict(x),
            positive(5, 2),
            positive(5),
        ),
    ],
    "LinearDiscriminantAnalysis": [
        Case(
            lambda xp, x: (
                sklearn.discriminant_analysis.LinearDiscriminantAnalysis()
                .fit(x, classes(x))
                .decision_function(x)
            ),
            positive(6, 2),
        ),
    ],
    "GaussianNB": [
        Case(
            lambda xp, x: sklearn.naive_bayes.GaussianNB().fit(x, classes(x)).predict_log_proba(x),
            positive(6, 2),
        ),
    ],
}


# What cannot work, with what the error names.
CANNOT = {
    r"numpy\.asarray needs a plain array": {
        **each(stats, "expectile obrientransform", positive(9)),
        **each(stats, "energy_distance linregress kendalltau", positive(6), positive(6)),
        **each(stats, "siegelslopes theilslopes wasserstein_distance", positive(6), positive(6)),
        "trim1": [Case(lambda xp, x: stats.trim1(x, 0.2), positive(9))],
        "trimboth": [Case(lambda xp, x: stats.trimboth(x, 0.2), positive(9))],
        "boxcox": [Case(lambda xp, x: stats.boxcox(x, 0.5), positive(9))],
        "yeojohnson": [Case(lambda xp, x: stats.yeojohnson(x, 0.5), positive(9))],
        "expected_freq": [Case(lambda xp, x: stats.contingency.expected_freq(x), positive(2, 3))],
        "norm.logpdf": [Case(lambda xp, x: stats.norm.logpdf(x), (4,))],
        "Normal.logpdf": [Case(lambda xp, x: stats.Normal().logpdf(x), (4,))],
        "multivariate_normal": [
            Case(lambda xp, x: stats.multivariate_normal.logpdf(x, mean=[0.0, 0.0]), (2,)),
        ],
        "gaussian_kde": [Case(lambda xp, x: stats.gaussian_kde(x)(x), positive(6))],
        **each(scipy.fft, "dct dst idct idst dctn dstn idctn idstn", (5,)),
        "simpson": [Case(lambda xp, x: scipy.integrate.simpson(x[:, 0]), (3, 2))],
        **each(scipy.linalg, "det eigvalsh expm inv logm lu norm pinv qr sqrtm svd", positive(3, 3)),
        "cholesky": [Case(lambda xp, x: scipy.linalg.cholesky(x @ x.T), positive(2, 3))],
        "solve": [Case(lambda xp, x, y: scipy.linalg.solve(x, y), positive(2, 2), positive(2))],
        **each(scipy.signal, "cspline1d detrend medfilt periodogram welch square sawtooth", positive(16)),
        "savgol_filter": [Case(lambda xp, x: scipy.signal.savgol_filter(x, 3, 1), positive(6))],
        "convolve": [Case(lambda xp, x, y: scipy.signal.convolve(x, y, method="direct"), (6,), (3,))],
        "vq": [Case(lambda xp, x, y: scipy.cluster.vq.vq(x, y)[1], (5, 2), (2, 2))],
        "gaussian_filter": [Case(lambda xp, x: scipy.ndimage.gaussian_filter(x, 1.0), (6,))],
        **each(scipy.interpolate, "AAA BarycentricInterpolator CubicSpline", uniform(0, 1, 6), (6,)),
        **each(scipy.interpolate, "make_interp_spline", uniform(0, 1, 6), (6,)),
        "cdist": [Case(lambda xp, x: scipy.spatial.distance.cdist(x, x)[0, 1], (3, 2))],
        "pdist": [Case(lambda xp, x: scipy.spatial.distance.pdist(x), (3, 2))],
        "minkowski": [Case(lambda xp, x, y: scipy.spatial.distance.minkowski(x, y), (3,), (3,))],
        "LinearRegression": [
            Case(lambda xp, x, y: sklearn.linear_model.LinearRegression().fit(x, y).coef_, (5, 2), (5,)),
        ],
    },
    r"numpy\.\w+ needs a plain array": {
        **each(stats, "bayes_mvs mvsdist", positive(9)),
        **each(stats, "bws_test ks_2samp spearmanr", positive(9), positive(9)),
        "margins": [Case(lambda xp, x: stats.contingency.margins(x), positive(2, 3))],
        "toeplitz": [Case(lambda xp, x: scipy.linalg.toeplitz(x), (3,))],
        "gausspulse": [Case(lambda xp, x: scipy.signal.gausspulse(x, fc=1.0), (4,))],
    },
    "from_dlpack needs a plain array": {
        "asnumpy": [Case(lambda xp, x: einops.array_api.asnumpy(x), (2, 3))],
    },
    r"int\(\) needs a plain array": {
        "convolve": [Case(lambda xp, x, y: scipy.signal.convolve(x, y), (6,), (3,))],
    },
    r"float\(\) needs a plain array": {
        "quad": [Case(lambda xp, x: scipy.integrate.quad(lambda t: xp.sum(x) * t, 0.0, 1.0)[0], (3,))],
        **each(
            sklearn.metrics,
            "d2_tweedie_score explained_variance_score max_error mean_absolute_error mean_gamma_deviance "
            "mean_absolute_percentage_error mean_pinball_loss mean_poisson_deviance mean_squared_error "
            "mean_squared_log_error mean_tweedie_deviance r2_score root_mean_squared_error",
            positive(4),
            positive(4),
        ),
        "brier_score_loss": [
            Case(lambda xp, x: sklearn.metrics.brier_score_loss(classes(x), x), uniform(0.2, 0.8, 3)),
        ],
        "log_loss": [Case(lambda xp, x: sklearn.metrics.log_loss(classes(x), x), uniform(0.2, 0.8, 3))],
    },
}


@pytest.fixture(autouse=True)
def not_on_jax(device):
    """Leave JAX out: it would compile for minutes, and these libraries support less of it."""
    if device.library.spec == "jax":
        pytest.skip("functions of others are checked on NumPy, array-api-strict and PyTorch")


@pytest.fixture
def first_device(device):
    """The device under test, if it is the one on which other projects create arrays."""
    if device.spec == "strict:device1":
        pytest.skip("other projects create arrays on the default device")
    return device


@pytest.fixture
def dispatch(first_device):
    """Scikit-learn takes arrays of the standard only if asked."""
    with sklearn.config_context(array_api_dispatch=True):
        yield


@pytest.mark.filterwarnings("ignore:`xpx.expand_dims` is deprecated:DeprecationWarning")
@pytest.mark.parametrize(**named(EXTRA))
def test_array_api_extra(case, first_device):
    check(case)


@pytest.mark.parametrize(**named(SPECIAL))
def test_scipy_special(case, first_device):
    check(case)


@pytest.mark.parametrize(**named(STATS))
def test_scipy_stats(case, first_device):
    check(case)


@pytest.mark.parametrize(**named(FFT))
def test_scipy_fft(case, first_device):
    check(case)


@pytest.mark.parametrize(**named(ROTATION))
def test_scipy_rotation(case, first_device):
    check(case)


@pytest.mark.parametrize(**named(SCIPY))
def test_scipy(case, first_device):
    check(case)


@pytest.mark.parametrize(**named(SKLEARN))
def test_sklearn(case, dispatch):
    check(case)


def check(case):
    """Check values and gradients of a function that may have its own dispatch for each library."""
    arrays = case.arrays()
    result, _ = xpnet.vjp(case, *arrays)
    for one, plain in zip(as_list(result), as_list(case(*arrays)), strict=True):
        assert_same(one, plain)
    xpnet.check_gradients(case, *arrays, order=2)
    try:
        recorded = xpnet.jit(case)(*arrays)
    except NotRecordableError:  # many branch on values, to check their inputs
        return
    for one, plain in zip(as_list(recorded), as_list(case(*arrays)), strict=True):
        assert_same(one, plain)


@pytest.mark.parametrize(
    ("reason", "case"),
    [
        pytest.param(reason, case, id=name)
        for reason, table in CANNOT.items()
        for name, cases in table.items()
        for case in cases
    ],
)
# NumPy's own functions meet a plain torch tensor beside the traced array.
@pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy:DeprecationWarning")
def test_functions_that_leave_the_standard_say_so(reason, case, dispatch):
    """Later versions of these projects may follow the standard: then the gradients must be right."""
    # Or come as far as a function without a rule, return a class of their own, or index as strict refuses.
    later = "has no gradient rule|f must return|Integer index arrays"
    try:
        case.check_gradients(order=1)
    except (NoGradientError, TypeError, IndexError) as error:
        if not re.search(f"{reason}|{later}", str(error)):
            raise


def test_special_functions_without_a_rule_say_so(xp):
    with pytest.raises((NoGradientError, TypeError)):
        xpnet.vjp(special.wofz, array([1.0, 2.0]))
