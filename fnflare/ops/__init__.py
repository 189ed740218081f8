"""The primitives, one file a family, and what NumPy calls on tracers come to.

Importing this room fills the tables by which tracers answer NumPy's two protocols. What users call
from here by name are the few functions that NumPy does not have.
"""

from fnflare.ops import (  # noqa: F401  (they fill NumPy's tables, and give tracers their operators and methods)
    apply,
    counting,
    determinant,
    differences,
    eigen,
    einsum,
    factor,
    fft,
    fitting,
    histogram,
    interp,
    methods,
    nan,
    norms,
    pad,
    places,
    polynomials,
    products,
    quantile,
    ranges,
    refused,
    solve,
    statistics,
    svd,
    ufunc_methods,
    ufuncs,
    windows_1d,
)
from fnflare.ops.at import at
from fnflare.ops.conv import conv, conv_transpose, fold, windows
from fnflare.ops.elementwise import convert, stop_gradient
from fnflare.ops.safe import safe_log, safe_norm, safe_sqrt, safe_where
from fnflare.ops.special import erf, log_softmax, logistic, logsumexp, relu, softmax, softplus

__all__ = [
    "at",
    "conv",
    "conv_transpose",
    "convert",
    "erf",
    "fold",
    "log_softmax",
    "logistic",
    "logsumexp",
    "relu",
    "safe_log",
    "safe_norm",
    "safe_sqrt",
    "safe_where",
    "softmax",
    "softplus",
    "stop_gradient",
    "windows",
]
