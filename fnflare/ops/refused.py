"""What to write instead of functions that have no rule for tracers: for the messages of their errors and the docs."""

from __future__ import annotations

from fnflare.core.tracer import ADVICE, BESIDE, LATE

__all__: list[str] = []

_WRITES = "write it of ff.stop_gradient(x), the value alone"
_AS_IT_IS = "use the tracer as it is"
_MEMORY = "a tracer has no memory of its own to ask for"
_COUNTS = (
    "counts have no derivative: write it of ff.stop_gradient(x); sums of weights are "
    "ff.at(np.zeros(n))[np.searchsorted(edges, x)].add(weights)"
)
_SETS = "write np.unique, np.isin and np.concatenate of ff.stop_gradient(x)"

_OF_PLAIN = "NumPy calls it on the plain array that it is given, beside which this tracer cannot stand; "

ADVICE.update(
    {
        "numpy.AxisConcatenator.__getitem__": "np.r_ and np.c_ have no rule; write np.concatenate and np.stack",
        "numpy.array": "use the tracer as it is; for a list of tracers write np.stack",
        "numpy.asarray": _AS_IT_IS,
        "numpy.asanyarray": _AS_IT_IS,
        "numpy.asarray_chkfinite": "use the tracer as it is, and ff.debug_nans to find what is not finite",
        "numpy.ascontiguousarray": _AS_IT_IS,
        "numpy.asfortranarray": _AS_IT_IS,
        "numpy.require": _AS_IT_IS,
        "numpy.asmatrix": "use arrays and @",
        "numpy.bmat": "write np.block",
        "numpy.full": "write np.full_like(np.empty(shape), value) or np.broadcast_to(value, shape)",
        "numpy.array2string": _WRITES,
        "numpy.array_repr": _WRITES,
        "numpy.array_str": _WRITES,
        "numpy.save": _WRITES,
        "numpy.savetxt": _WRITES,
        "numpy.savez": _WRITES,
        "numpy.savez_compressed": _WRITES,
        "numpy.may_share_memory": _MEMORY,
        "numpy.shares_memory": _MEMORY,
        "numpy.min_scalar_type": "write x.dtype",
        "numpy.packbits": "bits have no derivative: write it of ff.stop_gradient(x)",
        "numpy.unpackbits": "bits have no derivative: write it of ff.stop_gradient(x)",
        "numpy.histogram2d": _COUNTS,
        "numpy.histogramdd": _COUNTS,
        "numpy.union1d": _SETS,
        "numpy.intersect1d": _SETS,
        "numpy.setdiff1d": _SETS,
        "numpy.setxor1d": _SETS,
        "numpy.vectorize.__call__": "write ff.vmap, or the function of whole arrays",
        "numpy.isnat": "it is for dates and spans of time; write np.isnan(x)",
        "scipy.special.logsumexp": "write ff.nn.logsumexp(x, axis)",
        "scipy.special.softmax": "write ff.nn.softmax(x, axis)",
        "scipy.special.log_softmax": "write ff.nn.log_softmax(x, axis)",
        "scipy.special.polygamma": "write (-1)**(n + 1) * scipy.special.gamma(n + 1) * scipy.special.zeta(n + 1, x)",
        "scipy.special.multigammaln": "write the sum of scipy.special.gammaln(x - 0.5 * j) over j, and a constant",
    }
)
BESIDE.update(
    {
        "numpy.take": f"{_OF_PLAIN}write ff.at(array)[indices].get()",
        "numpy.roll": f"{_OF_PLAIN}write ff.at(array)[(np.arange(n) - shift) % n].get()",
        "numpy.pad": f"{_OF_PLAIN}write np.concatenate of it and the borders",
        "numpy.full_like": f"{_OF_PLAIN}write np.broadcast_to(value, array.shape)",
        "numpy.nan_to_num": f"{_OF_PLAIN}write np.where(np.isnan(array), value, array)",
        "numpy.piecewise": f"{_OF_PLAIN}write np.where or np.select of what its functions give",
        "numpy.select": f"{_OF_PLAIN}add np.ones(shape, bool) to the conditions and the default to the choices",
        "numpy.apply_along_axis": f"{_OF_PLAIN}write ff.vmap(func1d) of the array's rows",
    }
)
for _name, _beside in (
    ("sum", "np.sum(x) + t"), ("nansum", "np.nansum(x) + t"),
    ("prod", "np.prod(x) * t"), ("nanprod", "np.nanprod(x) * t"),
    ("max", "np.maximum(np.max(x), t)"), ("amax", "np.maximum(np.max(x), t)"),
    ("min", "np.minimum(np.min(x), t)"), ("amin", "np.minimum(np.min(x), t)"),
):  # fmt: skip
    BESIDE[f"numpy.{_name}"] = (
        f"write np.{_name}(np.stack([t, u])) of a list, and {_beside} instead of initial=t beside a plain array"
    )
for _name in ("sqrt", "log", "log2", "log10", "logn", "power", "arccos", "arcsin", "arctanh"):
    ADVICE[f"numpy.emath.{_name}"] = (
        "the dtype of its answer depends on values; write the function of np of x.astype(complex), or of x where it is "
        "defined"
    )
LATE["scipy.special"] = "fnflare.ops.scipy_special"
