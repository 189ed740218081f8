"""Calls of NumPy's reductions, running reductions, statistics, sorting and places, and of the methods of ufuncs that
fold."""

import numpy as np
from surface_cases import Case, apart, between, normal

X, CUBE, EMPTY, S = apart(3, 4), normal(2, 3, 2), np.zeros((0, 3)), np.array(0.7)
POSITIVE = between(0.4, 1.9, 3, 4)
MASK = np.array([[True, False, True, True], [True, True, True, True], [False, True, True, False]])
ROW = np.array([True, False, True, True])
#: One zero in the first column, several in the second, none in the others.
ZEROS = POSITIVE.copy()
ZEROS[1, 0] = ZEROS[0, 1] = ZEROS[2, 1] = 0.0
#: Equal elements: everywhere in the first row, the largest two in the second.
TIES = np.array([[0.5, 0.5, 0.5], [1.5, -0.5, 1.5], [0.25, 0.75, -1.0]])
HOLES = apart(4, 3)
HOLES[0, 0] = HOLES[3, 0] = HOLES[1, 2] = np.nan
WEIGHTS = between(0.2, 1.5, 4)
INTS = np.array([[3, 1, 2], [5, 9, -2]])

SUMS = [
    Case("sum", np.sum, (X,)),
    Case("sum", lambda x: np.sum(x, axis=-1, keepdims=True), (X,)),
    Case("sum", lambda x: np.sum(x, axis=(0, 2)), (CUBE,)),
    Case("sum", lambda x: np.sum(x, axis=()), (X,)),
    Case("sum", lambda x: np.sum(x, 0, initial=2.5, where=MASK), (X,)),
    Case("sum", lambda x: np.sum(x, where=ROW, keepdims=True), (X,)),
    Case("sum", lambda x: np.sum(x, dtype=np.float64), (X,)),
    Case("sum", lambda x, y: np.sum(x, axis=0, initial=y), (X, S)),
    Case("sum", np.sum, (S,)),
    Case("sum", lambda x: np.sum(x, axis=0, initial=1), (EMPTY,)),
    Case("nansum", np.nansum, (HOLES,)),
    Case("nansum", lambda x: np.nansum(x, axis=0, keepdims=True, initial=1.5, where=~MASK.T[:, :1]), (HOLES,)),
    Case("nansum", lambda x: np.nansum(x, axis=(0, 1), dtype=np.float64), (HOLES,)),
    Case("count_nonzero", np.count_nonzero, (ZEROS,), order=0),
    Case("count_nonzero", lambda x: np.count_nonzero(x, axis=0, keepdims=True), (ZEROS,), order=0),
    Case("any", np.any, (ZEROS,), order=0),
    Case("any", lambda x: np.any(x, axis=0, where=MASK, keepdims=True), (ZEROS - 0.3,), order=0),
    Case("all", lambda x: np.all(x, axis=(0, 1)), (ZEROS,), order=0),
    Case("all", lambda x: np.all(x, axis=-1, where=MASK), (ZEROS,), order=0),
]

PRODUCTS = [
    Case("prod", np.prod, (POSITIVE,)),
    Case("prod", lambda x: np.prod(x, axis=0), (ZEROS,)),
    Case("prod", lambda x: np.prod(x, axis=(0, 2), keepdims=True), (CUBE,)),
    Case("prod", lambda x: np.prod(x, axis=(0, 1)), (ZEROS,)),
    Case("prod", lambda x: np.prod(x, axis=-1, initial=2.5, where=MASK), (ZEROS,)),
    Case("prod", lambda x: np.prod(x, axis=1, dtype=np.float64), (X,)),
    Case("prod", lambda x, y: np.prod(x, axis=0, initial=y), (POSITIVE, S)),
    Case("prod", np.prod, (S,)),
    Case("prod", lambda x: np.prod(x, axis=0), (EMPTY,)),
    Case("nanprod", lambda x: np.nanprod(x, axis=0), (HOLES,)),
    Case("nanprod", lambda x: np.nanprod(x, initial=0.5, where=MASK.T, keepdims=True), (HOLES,)),
    Case("cumsum", np.cumsum, (X,)),
    Case("cumsum", lambda x: np.cumsum(x, axis=-2, dtype=np.float64), (X,)),
    Case("cumprod", np.cumprod, (POSITIVE,)),
    Case("cumprod", lambda x: np.cumprod(x, axis=0), (ZEROS,)),
    Case("cumprod", lambda x: np.cumprod(x, axis=-1, dtype=np.float64), (ZEROS,)),
    Case("cumprod", lambda x: np.cumprod(x, axis=0), (EMPTY,)),
    Case("nancumsum", lambda x: np.nancumsum(x, axis=0), (HOLES,)),
    Case("nancumsum", np.nancumsum, (HOLES,)),
    Case("nancumprod", lambda x: np.nancumprod(x, axis=1), (HOLES,)),
]
if hasattr(np, "cumulative_sum"):  # NumPy 2.1
    PRODUCTS += [
        Case("cumulative_sum", np.cumulative_sum, (X[0],)),
        Case("cumulative_sum", lambda x: np.cumulative_sum(x, axis=1, include_initial=True), (X,)),
        Case("cumulative_prod", lambda x: np.cumulative_prod(x, axis=0, dtype=np.float64), (ZEROS,)),
        Case("cumulative_prod", lambda x: np.cumulative_prod(x, axis=-1, include_initial=True), (ZEROS,)),
    ]

MOMENTS = [
    Case("mean", np.mean, (X,)),
    Case("mean", lambda x: np.mean(x, axis=(0, -1), keepdims=True), (CUBE,)),
    Case("mean", lambda x: np.mean(x, axis=0, where=MASK), (X,)),
    Case("mean", lambda x: np.mean(x, 1, np.float64), (X,)),
    Case("mean", lambda x: np.mean(INTS) * x, (S,)),
    Case("var", np.var, (X,)),
    Case("var", lambda x: np.var(x, axis=0, ddof=1, keepdims=True), (X,)),
    Case("var", lambda x: np.var(x, axis=-1, where=MASK, ddof=0.5), (X,)),
    Case("var", lambda x, m: np.var(x, axis=1, mean=m, correction=1), (X, normal(3, 1))),
    Case("var", lambda x: np.var(x, axis=(0, 1), dtype=np.float64), (CUBE,)),
    Case("var", lambda x: np.var(x, axis=1), (TIES,)),
    Case("std", np.std, (X,)),
    Case("std", lambda x: np.std(x, axis=-1, ddof=1, keepdims=True), (X,)),
    Case("std", lambda x: np.std(x, axis=0, where=MASK, correction=0.25), (X,)),
    Case("std", lambda x, m: np.std(x, axis=0, mean=m, dtype=np.float64), (X, normal(1, 4))),
    Case("average", np.average, (X,)),
    Case("average", lambda x, w: np.average(x, axis=1, weights=w, returned=True), (X, WEIGHTS)),
    Case("average", lambda x, w: np.average(x, axis=(1, 0), weights=w, keepdims=True), (X, POSITIVE.T)),
    Case("average", lambda x: np.average(x, axis=0, weights=[1, 2, 3]), (X,)),
    Case("average", lambda x, w: np.average(x, weights=w), (X, POSITIVE)),
    Case("average", lambda x: np.average(x, axis=0, returned=True), (X,)),
    Case("average", lambda w: np.average(INTS, axis=1, weights=w), (WEIGHTS[:3],)),
    Case("nanmean", np.nanmean, (HOLES,)),
    Case("nanmean", lambda x: np.nanmean((x * 3).astype(int), axis=0, keepdims=True), (X,), order=0),
    Case("nanvar", lambda x: np.nanvar((x * 3).astype(int), ddof=1), (X,), order=0),
    Case("nanmax", lambda x: np.nanmax((x * 3).astype(int), axis=0, keepdims=True), (X,), order=0),
    Case("nanmin", lambda x: np.nanmin((x * 3).astype(int), initial=0, where=MASK), (X,), order=0),
    Case("nanmean", lambda x: np.nanmean(x, axis=0, keepdims=True, where=HOLES[2, 1] != HOLES), (HOLES,)),
    Case("nanvar", lambda x: np.nanvar(x, axis=0, ddof=1), (HOLES,)),
    Case("nanvar", lambda x: np.nanvar(x, keepdims=True, correction=0.5), (HOLES,)),
    Case("nanstd", lambda x: np.nanstd(x, axis=0, keepdims=True), (HOLES,)),
    Case("nanstd", lambda x, m: np.nanstd(x, axis=0, mean=m, where=HOLES[2, 1] != HOLES), (HOLES, normal(1, 3))),
]

EXTREMES = [
    Case("max", np.max, (X,)),
    Case("amax", lambda x: np.amax(x, axis=0), (X,)),
    Case("max", lambda x: np.max(x, axis=(0, 1), keepdims=True), (X,)),
    Case("max", lambda x: np.max(x, axis=-1, initial=0.5, where=MASK), (X,)),
    Case("max", lambda x: np.max(x, axis=0, initial=-0.25), (EMPTY,)),
    Case("max", lambda x, y: np.max(x, axis=0, initial=y), (X, S)),
    Case("max", lambda x: np.max(x, axis=1), (TIES,), order=0),
    Case("min", np.min, (X,)),
    Case("amin", lambda x: np.amin(x, axis=-1, keepdims=True), (X,)),
    Case("min", lambda x: np.min(x, axis=0, initial=-0.1, where=MASK), (X,)),
    Case("ptp", np.ptp, (X,)),
    Case("ptp", lambda x: np.ptp(x, axis=-1, keepdims=True), (X,)),
    Case("nanmax", np.nanmax, (HOLES,)),
    Case("nanmax", lambda x: np.nanmax(x, axis=0, keepdims=True), (HOLES,)),
    Case("nanmax", lambda x: np.nanmax(x, axis=1, initial=0.1, where=MASK.T), (HOLES,)),
    Case("nanmin", lambda x: np.nanmin(x, axis=0), (HOLES,)),
    Case("nanmin", lambda x: np.nanmin(x, initial=0.1, where=MASK.T, keepdims=True), (HOLES,)),
    Case("argmax", lambda x: np.argmax(x, axis=1, keepdims=True), (TIES,), order=0),
    Case("argmax", np.argmax, (X,), order=0),
    Case("argmin", lambda x: np.argmin(x, axis=0), (X,), order=0),
    Case("argmin", lambda x: np.argmin(x, keepdims=True), (X,), order=0),
    Case("nanargmax", lambda x: np.nanargmax(x, axis=0, keepdims=True), (HOLES,), order=0),
    Case("nanargmax", np.nanargmax, (HOLES,), order=0),
    Case("nanargmin", lambda x: np.nanargmin(x, axis=1), (HOLES,), order=0),
]

METHODS = [
    "inverted_cdf", "averaged_inverted_cdf", "closest_observation", "interpolated_inverted_cdf", "hazen", "weibull",
    "linear", "median_unbiased", "normal_unbiased", "lower", "higher", "midpoint", "nearest",
]  # fmt: skip
QUANTILES = [
    Case("median", np.median, (X,)),
    Case("median", lambda x: np.median(x, axis=0), (X,)),
    Case("median", lambda x: np.median(x, axis=(0, 1), keepdims=True), (X,)),
    Case("median", lambda x: np.median(x, axis=-1, keepdims=True), (X,)),
    Case("median", lambda x: np.median(x, axis=0), (HOLES,), order=0, vmap=False),
    Case("median", np.median, (S,)),
    Case("nanmedian", np.nanmedian, (HOLES,)),
    Case("nanmedian", lambda x: np.nanmedian(x, axis=0, keepdims=True), (HOLES,)),
    Case("nanmedian", lambda x: np.nanmedian(x, axis=(1, 0)), (HOLES,)),
    *[
        Case("quantile", lambda x, m=m: np.quantile(x, [0.0, 0.13, 0.61, 0.93, 1.0], axis=0, method=m), (X,))
        for m in METHODS
    ],
    *[
        Case("nanquantile", lambda x, m=m: np.nanquantile(x, [[0.13], [0.61]], axis=0, method=m), (HOLES,))
        for m in METHODS
    ],
    Case("quantile", lambda x: np.quantile(x, 0.3), (X,)),
    Case("quantile", lambda x: np.quantile(x, 0.3, axis=(0, 1), keepdims=True), (CUBE,)),
    Case("quantile", lambda x, q: np.quantile(x, q, axis=1, keepdims=True), (X, np.array([0.21, 0.8]))),
    Case("quantile", lambda x, q: np.quantile(x, q, method="weibull"), (X, np.array(0.43))),
    Case("quantile", lambda x: np.quantile(x, 0.5, axis=0), (HOLES,), order=0, vmap=False),
    Case("quantile", lambda q: np.quantile(INTS, q, axis=1), (np.array([0.21, 0.8]),)),
    Case(
        "quantile", lambda x: np.quantile(x, [0.2, 0.7], axis=1, method="inverted_cdf", weights=WEIGHTS), (X,), order=1
    ),
    Case("quantile", lambda x: np.quantile(x, 0.7, method="inverted_cdf", weights=POSITIVE, keepdims=True), (X,)),
    Case("percentile", lambda x: np.percentile(x, 37), (X,)),
    Case("percentile", lambda x: np.percentile(x, [10, 60.5], axis=-1, keepdims=True), (X,)),
    Case("percentile", lambda x, q: np.percentile(x, q, axis=0, method="hazen"), (X, np.array([21.0, 80.0]))),
    Case("nanquantile", lambda x: np.nanquantile(x, 0.3, axis=0, keepdims=True), (HOLES,)),
    Case("nanquantile", lambda x: np.nanquantile(x, 0.7, axis=0, method="inverted_cdf", weights=POSITIVE.T), (HOLES,)),
    Case("nanpercentile", lambda x: np.nanpercentile(x, [30, 55], axis=1), (HOLES,)),
    Case("nanpercentile", lambda x: np.nanpercentile(x, 30), (HOLES,)),
]

ORDER = [
    Case("sort", np.sort, (X,)),
    Case("sort", lambda x: np.sort(x, axis=0, kind="stable"), (X,)),
    Case("sort", lambda x: np.sort(x, axis=None, stable=True), (X,)),
    Case("argsort", lambda x: np.argsort(x, axis=0), (X,), order=0),
    Case("argsort", lambda x: np.argsort(x, axis=None, stable=True), (TIES,), order=0),
    Case("partition", lambda x: np.sort(np.partition(x, 1, axis=0)[:2], axis=0), (X,)),
    Case("partition", lambda x: np.partition(x, (2, 5), axis=None)[np.array([2, 5])], (X,)),
    Case("argpartition", lambda x: np.argpartition(x, 2)[..., 2], (X,), order=0),
    Case("argpartition", lambda x: np.argpartition(x, 5, axis=None)[5], (X,), order=0),
    Case("argpartition", lambda x: np.argpartition(x, -1, axis=0)[-1], (X,), order=0),
    Case("lexsort", lambda x: np.lexsort((x[0], np.array([1, 0, 1, 0]))), (X,), order=0),
    Case("lexsort", lambda x: np.lexsort((x, TIES), axis=0), (apart(3, 3),), order=0),
    Case("searchsorted", lambda a, v: np.searchsorted(a, v), (np.sort(X[0]), X), order=0),
    Case("searchsorted", lambda a: np.searchsorted(a, 0.1, side="right"), (np.sort(X[0]),), order=0),
    Case("searchsorted", lambda a: np.searchsorted(a, [0.1, 0.2], "left", np.array([3, 2, 1, 0])), (-X[0],), order=0),
    Case("digitize", lambda x: np.digitize(x, [-1.0, 0.0, 1.0]), (X,), order=0),
    Case("digitize", lambda x: np.digitize(x, np.array([1.0, 0.0, -1.0]), right=True), (X,), order=0),
    Case("digitize", lambda b: np.digitize(INTS / 4, b), (np.array([2.0, 0.5, -1.0]),), order=0),
    Case("nonzero", lambda x: x[np.nonzero(x > 0)], (X,), jit=False, vmap=False),
    Case("unique", np.unique, (X,), jit=False, vmap=False),
    Case("unique", lambda x: np.unique(x, True, True, True, axis=1), (TIES,), order=0, jit=False, vmap=False),
    Case("unique_values", lambda x: np.sort(np.unique_values(x)), (X,), jit=False, vmap=False),
    Case("unique_counts", lambda x: tuple(np.unique_counts(x)), (TIES,), order=0, jit=False, vmap=False),
    Case("unique_inverse", lambda x: tuple(np.unique_inverse(x)), (TIES,), order=0, jit=False, vmap=False),
    Case("unique_all", lambda x: tuple(np.unique_all(x)), (TIES,), order=0, jit=False, vmap=False),
    Case("histogram", np.histogram, (X,), order=1),
    Case("histogram", lambda x: np.histogram(x, 4, density=True), (X,), order=1),
    Case("histogram", lambda x, w: np.histogram(x, [-1.5, -0.2, 0.4, 1.5], weights=w), (X, POSITIVE)),
    Case("histogram", lambda x, w: np.histogram(x, 3, (-1, 1.5), True, w), (X, POSITIVE)),
    Case("histogram", lambda x: np.histogram(x, "sturges"), (X,), order=1, jit=False, vmap=False),
    Case("histogram_bin_edges", lambda x: np.histogram_bin_edges(x, 5), (X,)),
    Case("bincount", lambda w: np.bincount([0, 3, 3, 1], w, minlength=6), (WEIGHTS,)),
    Case("bincount", lambda x: np.bincount(x.astype(int), WEIGHTS), (POSITIVE[0],), order=0, jit=False, vmap=False),
]

FOLDS = [
    Case("add.reduce", np.add.reduce, (X,)),
    Case("add.reduce", lambda x: np.add.reduce(x, axis=(0, 1), initial=2.0, where=MASK), (X,)),
    Case("add.reduce", lambda x: np.add.reduce(x, -1, np.float64, None, True), (X,)),
    Case("add.reduce", lambda x: np.add.reduce(x, axis=0), (EMPTY,)),
    Case("multiply.reduce", lambda x: np.multiply.reduce(x, axis=None), (ZEROS,)),
    Case("maximum.reduce", lambda x: np.maximum.reduce(x, axis=1, keepdims=True), (X,)),
    Case("minimum.reduce", lambda x: np.minimum.reduce(x, axis=1, initial=0.4, where=MASK), (X,)),
    Case("fmax.reduce", lambda x: np.fmax.reduce(x, axis=0), (X,)),
    Case("fmin.reduce", lambda x: np.fmin.reduce(x, axis=None), (X,)),
    Case("logaddexp.reduce", lambda x: np.logaddexp.reduce(x, axis=1, initial=0.3), (X,)),
    Case("logaddexp.reduce", lambda x: np.logaddexp.reduce(x, axis=(0, 1), keepdims=True, where=MASK), (X,)),
    Case("hypot.reduce", lambda x: np.hypot.reduce(x, axis=0), (X,)),
    Case("hypot.reduce", lambda x: np.hypot.reduce(x, axis=0), (X[:1],)),
    Case("subtract.reduce", lambda x: np.subtract.reduce(x, axis=1, keepdims=True), (X,)),
    Case("divide.reduce", np.divide.reduce, (POSITIVE,)),
    Case("divide.reduce", lambda x: np.divide.reduce((x[:1] * 3).astype(int)), (X,), order=0),
    Case("subtract.reduce", np.subtract.reduce, (X[:1],)),
    Case("gcd.reduce", lambda x: np.gcd.reduce((x[:0] * 3).astype(int)), (X,), order=0),
    Case("power.reduce", lambda x: np.power.reduce(x, axis=0, initial=1.5), (POSITIVE,)),
    Case("logical_and.reduce", np.logical_and.reduce, (ZEROS,), order=0),
    Case("logical_or.reduce", lambda x: np.logical_or.reduce(x, axis=None), (ZEROS,), order=0),
    Case("logical_or.reduce", lambda x: np.logical_or.reduce(x, initial=True, where=MASK), (ZEROS,), order=0),
    Case("fmin.reduce", lambda x: np.fmin.reduce(x[:, :1], axis=1), (X,)),
    Case("logical_xor.reduce", lambda x: np.logical_xor.reduce(x, axis=1), (ZEROS,), order=0),
    Case("bitwise_and.reduce", lambda x: np.bitwise_and.reduce((x * 8).astype(np.int64), axis=0), (X,), order=0),
    Case("add.accumulate", lambda x: np.add.accumulate(x, axis=1), (X,)),
    Case("logaddexp.accumulate", lambda x: np.logaddexp.accumulate(x.astype(int), dtype=np.float32), (X,), order=0),
    Case("multiply.accumulate", np.multiply.accumulate, (ZEROS,)),
    Case("maximum.accumulate", lambda x: np.maximum.accumulate(x, axis=1), (X,)),
    Case("minimum.accumulate", lambda x: np.minimum.accumulate(x, axis=-1), (X,)),
    Case("fmax.accumulate", np.fmax.accumulate, (X,)),
    Case("logaddexp.accumulate", lambda x: np.logaddexp.accumulate(x, axis=1), (X,)),
    Case("subtract.accumulate", lambda x: np.subtract.accumulate(x, axis=1), (X,)),
    Case("divide.accumulate", np.divide.accumulate, (POSITIVE,)),
    Case("logical_or.accumulate", lambda x: np.logical_or.accumulate(x, axis=0), (ZEROS,), order=0),
]

METHOD_CALLS = [
    Case("ndarray.sum", lambda x: x.sum(0, keepdims=True, where=MASK, initial=1.0), (X,)),
    Case("ndarray.prod", lambda x: x.prod(axis=0), (ZEROS,)),
    Case("ndarray.mean", lambda x: x.mean(axis=-1, where=MASK), (X,)),
    Case("ndarray.var", lambda x: x.var(0, None, None, 1, True), (X,)),
    Case("ndarray.std", lambda x: x.std(axis=-1, keepdims=True, ddof=1), (X,)),
    Case("ndarray.std", lambda x: x.std(0, None, None, 1, True), (X,)),
    Case("ndarray.max", lambda x: x.max(axis=0, initial=0.5), (X,)),
    Case("ndarray.min", lambda x: x.min(1, keepdims=True), (X,)),
    Case("ndarray.cumsum", lambda x: x.cumsum(1), (X,)),
    Case("ndarray.cumprod", lambda x: x.cumprod(axis=0), (ZEROS,)),
    Case("ndarray.any", lambda x: x.any(0), (ZEROS,), order=0),
    Case("ndarray.all", lambda x: x.all(keepdims=True), (ZEROS,), order=0),
    Case("ndarray.argmax", lambda x: x.argmax(1), (X,), order=0),
    Case("ndarray.argmin", lambda x: x.argmin(keepdims=True), (X,), order=0),
    Case("ndarray.argsort", lambda x: x.argsort(0), (X,), order=0),
    Case("ndarray.argpartition", lambda x: x.argpartition(1, axis=0)[1], (X,), order=0),
    Case("ndarray.searchsorted", lambda a: a.searchsorted([0.1, -0.2], "right"), (np.sort(X[0]),), order=0),
]

CASES = [*SUMS, *PRODUCTS, *MOMENTS, *EXTREMES, *QUANTILES, *ORDER, *FOLDS, *METHOD_CALLS]
