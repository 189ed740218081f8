"""Every primitive of the registry against the laws: its shape rule, its derivatives, its dtypes, its oracle.

A primitive that is added without samples here fails `test_every_primitive_has_samples`.
"""

import itertools
import math
from typing import Any, NamedTuple

import mpmath
import numpy as np
import pytest
from drawing import Draws

import fnflare as ff
from fnflare import ops
from fnflare.core import aval_of, is_tracer, primitives
from fnflare.testing import check_grads, check_vmap, random_like

RNG = Draws(20240607)

#: Primitives that carry a function or a random key or have several answers, and the tests that hold them to their laws.
ELSEWHERE = {
    "call": "tests/test_jit.py",
    "cond": "tests/test_control_flow.py",
    "name": "tests/test_checkpoint.py",
    "scan": "tests/test_control_flow.py",
    "while_loop": "tests/test_control_flow.py",
    "checkpoint": "tests/test_transforms.py",
    "custom_jvp": "tests/test_custom_rules.py",
    "custom_vjp": "tests/test_custom_rules.py",
    "normal_quantile": "tests/test_random.py",
    "pure_callback": "tests/test_pure_callback.py",
    "roots": "tests/surface/cases_statistics.py",
    "random_fold": "tests/test_random.py",
    "random_pieces": "tests/test_random.py",
    "random_variate": "tests/test_random.py",
    "random_words": "tests/test_random.py",
    **dict.fromkeys(
        ("slogdet", "qr", "qr_complete", "eigh", "eig", "svd", "svd_full"), "tests/surface/cases_linalg.py"
    ),  # several answers
}


class Sample(NamedTuple):
    """One call of a primitive."""

    args: tuple[Any, ...]
    params: dict[str, Any] = {}  # noqa: RUF012 (read only)


def between(low, high, *shape):
    return RNG.uniform(low, high, shape)


def normal(*shape):
    return RNG.standard_normal(shape)


def apart(*shape):
    """Numbers no two of which are close, so that sorting and comparing them is smooth nearby."""
    return (RNG.permutation(math.prod(shape)).reshape(shape) - 2.3) * 0.37


#: Where a unary ufunc is smooth, if not everywhere in (-1.5, 1.5).
DOMAINS = {
    "log": (0.3, 2), "log2": (0.3, 2), "log10": (0.3, 2), "log1p": (-0.6, 2), "sqrt": (0.3, 2), "cbrt": (0.3, 2),
    "reciprocal": (0.4, 2), "absolute": (0.2, 2), "arcsin": (-0.8, 0.8), "arccos": (-0.8, 0.8),
    "arctanh": (-0.8, 0.8), "arccosh": (1.2, 3), "relu": (0.2, 2), "sign": (0.2, 1), "floor": (0.1, 0.9),
    "ceil": (0.1, 0.9), "trunc": (0.1, 0.9), "rint": (0.1, 0.4),
}  # fmt: skip
UNARY = [
    "negative", "positive", "square", "reciprocal", "absolute", "exp", "exp2", "expm1", "log", "log2", "log10",
    "log1p", "sqrt", "cbrt", "sin", "cos", "tan", "arcsin", "arccos", "arctan", "sinh", "cosh", "tanh", "arcsinh",
    "arccosh", "arctanh", "sign", "floor", "ceil", "trunc", "rint", "isnan", "isinf", "isfinite", "signbit",
    "spacing", "relu", "logistic", "softplus", "erf", "sinc",
]  # fmt: skip
BINARY = [
    "add", "subtract", "multiply", "divide", "logaddexp", "logaddexp2", "hypot", "arctan2", "maximum", "minimum",
    "fmax", "fmin", "copysign", "equal", "not_equal", "less", "less_equal", "greater", "greater_equal",
    "floor_divide", "heaviside", "nextafter", "power", "remainder", "fmod",
]  # fmt: skip
INTEGER_BINARY = [
    "bitwise_and", "bitwise_or", "bitwise_xor", "left_shift", "right_shift", "gcd", "lcm",
]  # fmt: skip
LOGICAL = [
    "logical_and", "logical_or", "logical_xor",
]  # fmt: skip


def unary_samples(name):
    low, high = DOMAINS.get(name, (-1.5, 1.5))
    shapes = [(2, 3), (), (0, 2)]
    return [Sample((between(low, high, *shape),)) for shape in shapes] + [Sample((0.5 if low < 0.5 else 1.5,))]


def binary_samples(name):
    """Values of the first argument and of the second away from every kink."""
    first, second = ((3.3, 3.5), (0.9, 0.92)) if name in ("remainder", "fmod") else ((1.1, 2), (0.2, 0.9))
    shapes = [((2, 3), (2, 3)), ((2, 3), (3,)), ((3,), (2, 3)), ((2, 1), (1, 3)), ((), (2,)), ((0, 3), (1,))]
    samples = [Sample((between(*first, *a), between(*second, *b))) for a, b in shapes]
    x, y = sum(first) / 2, sum(second) / 2
    return [*samples, Sample((between(*first, 3), y)), Sample((x, between(*second, 3))), Sample((x, y))]


Z23 = normal(2, 3) + 1j * normal(2, 3)
SQUARE, SQUARES = normal(3, 3) + 2 * np.eye(3), normal(2, 2, 2) + 2 * np.eye(2)
X34, X234, X0 = apart(3, 4), normal(2, 3, 4), normal()
ROWS = np.array([2, 0, 2, -1])
MASK = np.array([True, False, True])
CONV = {"strides": (2, 1), "padding": ((1, 0), (1, 2)), "dilation": (1, 2)}
CONV_X, CONV_W = normal(2, 5, 4, 2), normal(3, 2, 2, 3)
CONV_Y = normal(2, 2, 5, 3)
DEPTH_X, DEPTH_W, DEPTH_Y = normal(3, *CONV_X.shape[:-1], 1), normal(3, 3, 2, 1, 2), normal(3, 2, 2, 5, 2)
GROUP_X, GROUP_W, GROUP_Y = np.stack([CONV_X, -CONV_X]), np.stack([CONV_W, CONV_W + 1]), np.stack([CONV_Y, CONV_Y])
ALL_AXES = [{"axes": a, "keepdims": k} for a in ((0,), (1,), (0, 1), ()) for k in (False, True)]
EINSUMS = [
    (("ab", "bc"), "ac", [(2, 3), (3, 4)]),
    (("ab", "bc", "cd"), "ad", [(2, 3), (3, 2), (2, 2)]),
    (("aa",), "a", [(3, 3)]),
    (("aab",), "b", [(2, 2, 3)]),
    (("ab",), "", [(2, 3)]),
    (("ab", "ab"), "a", [(2, 3), (2, 1)]),
    (("a", "b"), "ab", [(2,), (3,)]),
    (("abc", "abd"), "acd", [(2, 0, 3), (2, 0, 2)]),
]

SAMPLES: dict[str, list[Sample]] = {
    **{name: unary_samples(name) for name in UNARY},
    **{name: binary_samples(name) for name in BINARY},
    **{name: [Sample((np.array([1, 6, 3]), np.array([[2], [3]])))] for name in INTEGER_BINARY},
    **{name: [Sample((MASK, np.array([[True], [False]])))] for name in LOGICAL},
    "logical_not": [Sample((MASK,))],
    "invert": [Sample((np.array([1, 2]),)), Sample((MASK,))],
    "bitwise_count": [Sample((np.array([1, 6, 255]),))],
    "ldexp": [Sample((normal(2, 3), np.array([2, -1, 0]))), Sample((normal(), 3))],
    "frexp_exponent": [Sample((normal(2, 3),))],
    "bessel_i": [Sample((normal(4),), {"order": n}) for n in range(4)],
    "select": [Sample((MASK, normal(2, 3), normal(3))), Sample((MASK[:, None], 0.5, normal(1, 2)))],
    "convert": [Sample((x,), {"dtype": np.dtype(np.float64)}) for x in (normal(3), MASK)],
    "real": [Sample((Z23,)), Sample((Z23[0, 0],))],
    "imag": [Sample((Z23,)), Sample((Z23[0, 0],))],
    "conjugate": [Sample((Z23,)), Sample((normal(2),))],
    "inv": [Sample((a,), {"singular": s}) for a, s in ((SQUARE, "raise"), (SQUARES, "nan"))],
    "solve": [Sample((SQUARE, normal(3, 2))), Sample((SQUARES, normal(2, 1))), Sample((SQUARES[0], normal(2, 2, 1)))],
    "pinv": [
        Sample((normal(3, 2), 1e-9), {"hermitian": False}),
        Sample((normal(2, 2, 3), np.array([1e-9, 1e-8])), {"hermitian": False}),
    ],
    "det": [Sample((SQUARE,)), Sample((SQUARES,)), Sample((np.outer(*normal(2, 3)),))],
    "cofactors": [Sample((SQUARE,)), Sample((SQUARES,))],
    "regular": [Sample((SQUARE,)), Sample((SQUARES,))],
    "cofactors_change": [Sample((SQUARE, normal(3, 3))), Sample((SQUARES, normal(2, 2, 2)))],
    "cholesky": [],  # of symmetric arrays: tests/surface/cases_linalg.py
    "eigvalsh": [],
    "eigvals": [Sample((np.array([[0.3, -1.1], [0.9, 0.4]]),))],
    "svdvals": [Sample((normal(3, 2),)), Sample((normal(2, 2, 3),))],
    "fft": [
        Sample((Z23,), {"axes": a, "inverse": i, "norm": n})
        for a, i, n in (((0,), False, "backward"), ((0, 1), True, "ortho"), ((1,), True, "backward"))
    ],
    "rfft": [Sample((normal(3, 4),), {"axis": k, "norm": n}) for k, n in ((0, "backward"), (1, "ortho"))],
    "irfft": [Sample((Z23,), {"n": n, "axis": 1, "norm": s}) for n, s in ((4, "backward"), (5, "forward"))],
    "round": [Sample((normal(3) * 10,), {"decimals": -1}), Sample((normal(2, 2),), {"decimals": 1})],
    "convert_discrete": [Sample((normal(3),), {"dtype": np.dtype(np.int32)})],
    "stop_gradient": [Sample((normal(3),))],
    "reshape": [Sample((X34,), {"shape": (2, 6)}), Sample((normal(1),), {"shape": ()})],
    "transpose": [Sample((X234,), {"axes": (2, 0, 1)})],
    "broadcast_to": [Sample((normal(2, 1),), {"shape": (3, 2, 4)}), Sample((0.5,), {"shape": (2,)})],
    "concatenate": [Sample((normal(2, 1), normal(2, 3)), {"axis": 1}), Sample((normal(0), normal(2)), {"axis": 0})],
    "stack": [Sample((normal(2, 3), normal(2, 3)), {"axis": k}) for k in range(3)],
    "sum": [Sample((X34,), p) for p in ALL_AXES] + [Sample((normal(),), {"axes": (), "keepdims": False})],
    "max": [Sample((X34,), p) for p in ALL_AXES],
    "min": [Sample((X34,), p) for p in ALL_AXES],
    "any": [Sample((X34 > 0,), p) for p in ALL_AXES],
    "all": [Sample((X34 > 0,), p) for p in ALL_AXES],
    "prod": [Sample((X34,), p) for p in ALL_AXES] + [Sample((X34 * (X34 > 0),), p) for p in ALL_AXES],
    "cumsum": [Sample((X34,), {"axis": k}) for k in range(2)],
    "cumprod": [Sample((x,), {"axis": k}) for k in range(2) for x in (X34, X34 * (X34 > 0))],
    "recurrence": [
        Sample((X34, normal(3, 4)), {"axis": k, "reverse": r}) for k, r in ((0, False), (1, False), (1, True))
    ],
    "argmax": [Sample((X34,), {"axis": 0, "keepdims": True}), Sample((X34,), {"axis": 1, "keepdims": False})],
    "argmin": [Sample((X34,), {"axis": 0, "keepdims": True}), Sample((X34,), {"axis": 1, "keepdims": False})],
    "getitem": [
        Sample((X34,), {"index": index})
        for index in (1, (Ellipsis, -1), (slice(None, None, -2), None), ROWS, (slice(None), ROWS), (ROWS, ROWS), MASK)
    ],
    "index_add": [
        Sample((X34, normal(4)), {"index": 1}),
        Sample((X34, normal(4, 4)), {"index": ROWS}),
        Sample((X34, normal(3, 1)), {"index": (slice(None), ROWS)}),
    ],
    "index_set": [
        Sample((X34, normal(4)), {"index": 1}),
        Sample((X34, normal(4, 4)), {"index": ROWS}),
        Sample((X34, normal()), {"index": (slice(None), slice(1, 3))}),
        Sample((X34, normal(2, 1)), {"index": MASK}),
    ],
    "argsort": [Sample((X34,), {"axis": 1, "kind": "stable"})],
    "argpartition": [Sample((X34,), {"axis": k, "kind": (1,)}) for k in range(2)],
    "searchsorted": [Sample((np.array([0.1, 0.4, 2.0]), v), {"side": s}) for s, v in (("left", X34), ("right", X0))],
    "sort": [Sample((X34,), {"axis": k, "kind": None}) for k in range(2)],
    "matmul": [
        Sample((normal(*a), normal(*b)))
        for a, b in (
            ((2, 3), (3, 4)), ((3,), (3,)), ((3,), (3, 2)), ((2, 3), (3,)), ((2, 2, 3), (3, 4)), ((2, 3), (2, 3, 4)),
            ((3,), (2, 3, 4)), ((2, 2, 3), (3,)), ((2, 1, 2, 3), (4, 3, 2)), ((2, 0), (0, 3)), ((0, 3), (3, 2)),
        )
    ],
    "einsum": [Sample(tuple(normal(*s) for s in shapes), {"terms": t, "out": o}) for t, o, shapes in EINSUMS],
    "conv": [Sample(args, CONV) for args in ((CONV_X, CONV_W), (GROUP_X, GROUP_W), (DEPTH_X, DEPTH_W))],
    "conv_input_grad": [
        Sample((y, w), {"input_shape": x.shape, **CONV})
        for x, w, y in ((CONV_X, CONV_W, CONV_Y), (GROUP_X, GROUP_W, GROUP_Y), (DEPTH_X, DEPTH_W, DEPTH_Y))
    ],
    "conv_filter_grad": [
        Sample((x, y), {"filter_shape": w.shape, **CONV})
        for x, w, y in ((CONV_X, CONV_W, CONV_Y), (GROUP_X, GROUP_W, GROUP_Y), (DEPTH_X, DEPTH_W, DEPTH_Y))
    ],
    "windows": [Sample((normal(2, 5, 2),), {"window": (2,), "strides": (2,), "dilation": (2,)})],
    "fold": [Sample((normal(2, 2, 2, 2),), {"input_shape": (2, 5, 2), "strides": (2,), "dilation": (2,)})],
    "softmax": [Sample((X34,), {"axis": k}) for k in (0, -1)],
    "log_softmax": [Sample((X34,), {"axis": k}) for k in (0, -1)],
    "logsumexp": [Sample((X34,), {"axis": k}) for k in (0, -1, None, (0, 1))],
}  # fmt: skip


def recurrence(a, b, axis, reverse):
    """``h[k] = a[k] * h[k - 1] + b[k]``, one number after the other."""

    def one(ab):
        pairs = ab[::-1] if reverse else ab
        out = list(itertools.accumulate(pairs, lambda h, p: (0.0, p[0] * h[1] + p[1])))
        return np.array([h for _, h in (out[::-1] if reverse else out)])

    stacked = np.moveaxis(np.stack([a, b], axis=-1), axis, -2)
    rows = [one(ab) for ab in stacked.reshape(-1, *stacked.shape[-2:])]
    return np.moveaxis(np.reshape(rows, stacked.shape[:-1]), -1, axis)


#: The kernels whose meaning is that of another expression in NumPy; those of NumPy's ufuncs are found by name.
ORACLES = {
    "reshape": lambda x, shape: np.reshape(x, shape),  # whose name for it depends on the release
    "relu": lambda x: np.maximum(x, 0),
    "logistic": lambda x: 1 / (1 + np.exp(-np.asarray(x))),
    "softplus": lambda x: np.log1p(np.exp(x)),
    "erf": np.vectorize(math.erf, otypes=[float]),
    "frexp_exponent": lambda x: np.frexp(x)[1],
    "bessel_i": lambda x, order: np.vectorize(lambda y: float(mpmath.besseli(order, y)))(x),
    "select": np.where,
    "convert": lambda x, dtype: x.astype(dtype),
    "convert_discrete": lambda x, dtype: x.astype(dtype),
    "stop_gradient": np.array,
    "real": np.real,
    "inv": lambda a, singular: np.linalg.inv(a),
    "solve": lambda a, b: np.matmul(np.linalg.inv(a), b),
    "pinv": np.linalg.pinv,
    "det": np.linalg.det,
    "regular": lambda a: a,
    "cofactors": lambda a: np.linalg.det(a)[..., None, None] * np.linalg.inv(a).mT,
    "eigvals": np.linalg.eigvals,
    "svdvals": np.linalg.svdvals,
    "fft": lambda x, axes, inverse, norm: (np.fft.ifftn if inverse else np.fft.fftn)(x, None, axes, norm),
    "rfft": lambda x, axis, norm: np.take(np.fft.fft(x, None, axis, norm), range(x.shape[axis] // 2 + 1), axis),
    "irfft": lambda x, n, axis, norm: np.fft.irfft(x, n, axis, norm),
    "imag": np.imag,
    "transpose": np.transpose,
    "broadcast_to": np.broadcast_to,
    "concatenate": lambda *xs, axis: np.concatenate(xs, axis),
    "stack": lambda *xs, axis: np.stack(xs, axis),
    "sum": lambda x, axes, keepdims: np.sum(x, axes, keepdims=keepdims),
    "max": lambda x, axes, keepdims: np.max(x, axes, keepdims=keepdims),
    "min": lambda x, axes, keepdims: np.min(x, axes, keepdims=keepdims),
    "any": lambda x, axes, keepdims: np.any(x, axes, keepdims=keepdims),
    "all": lambda x, axes, keepdims: np.all(x, axes, keepdims=keepdims),
    "prod": lambda x, axes, keepdims: np.prod(x, axes, keepdims=keepdims),
    "cumsum": np.cumsum,
    "cumprod": np.cumprod,
    "recurrence": recurrence,
    "argmax": np.argmax,
    "argmin": np.argmin,
    "argsort": np.argsort,
    "argpartition": lambda x, axis, kind: np.argpartition(x, kind, axis),
    "sort": np.sort,
    "matmul": np.matmul,
    "getitem": lambda x, index: x[index],
    "einsum": lambda *xs, terms, out: np.einsum(",".join(terms) + "->" + out, *xs),
    "softmax": lambda x, axis: np.exp(x) / np.sum(np.exp(x), axis, keepdims=True),
    "log_softmax": lambda x, axis: x - np.log(np.sum(np.exp(x), axis, keepdims=True)),
    "logsumexp": lambda x, axis: np.log(np.sum(np.exp(x), axis, keepdims=True)),
}
#: Adjoints, held to <A x, y> = <x, A' y> by their derivatives here, and to PyTorch by test_kernels_conv.
WITHOUT_ORACLE = {
    "cofactors_change",
    "conv",
    "conv_input_grad",
    "conv_filter_grad",
    "windows",
    "fold",
    "index_add",
    "index_set",
}

CASES = [pytest.param(name, s, id=f"{name}-{k}") for name, all_ in SAMPLES.items() for k, s in enumerate(all_)]
SMOOTH = [case for case in CASES if primitives()[case.values[0]].differentiable]
FLAT = [case for case in CASES if not primitives()[case.values[0]].differentiable]


def has_floats(case):
    return any(aval_of(a).dtype.kind == "f" for a in case.values[1].args)


def cast(args, dtype):
    """The arguments with floating arrays in another dtype; Python numbers and other arrays stay."""
    return tuple(a.astype(dtype) if isinstance(a, np.ndarray) and a.dtype.kind == "f" else a for a in args)


def in_float32(sample):
    params = {k: np.dtype(np.float32) if k == "dtype" and v.kind == "f" else v for k, v in sample.params.items()}
    return Sample(cast(sample.args, np.float32), params)


def call(name, params):
    prim = primitives()[name]
    return lambda *args: prim(*args, **params)


def test_every_primitive_has_samples():
    # Those of SciPy's ufuncs are there once one has been called: their samples are in tests/surface/cases_scipy.py.
    names = {name for name in primitives() if not name.startswith("scipy.")}
    assert names - set(SAMPLES) - set(ELSEWHERE) == set(), "primitives without samples; add them to SAMPLES"
    assert (set(SAMPLES) | set(ELSEWHERE)) - names == set()


def test_every_differentiable_primitive_has_rules():
    for name, prim in primitives().items():
        if prim.differentiable:
            assert prim.vjps_joint or any(prim.vjp_rules), name
            assert prim.jvps_joint or any(prim.jvp_rules) or prim.multilinear, name


@pytest.mark.parametrize(("name", "sample"), CASES)
def test_shape_rule_foretells_the_kernel(name, sample):
    prim = primitives()[name]
    for args, params in (sample, in_float32(sample)):
        foretold = prim.shape(*map(aval_of, args), **params)
        answer = prim.kernel(*args, **params)
        assert (foretold.shape, foretold.dtype) == (np.shape(answer), aval_of(answer).dtype)


@pytest.mark.parametrize(
    ("name", "sample"), [c for c in CASES if c.values[0] in UNARY + BINARY + ["sum", "prod", "cumsum", "cumprod"]]
)
@pytest.mark.parametrize("dtype", [np.int64, np.int32, np.uint8, np.float16])
def test_shape_rule_foretells_other_dtypes(name, sample, dtype):
    prim = primitives()[name]
    args = cast([np.abs(a) + 1 if isinstance(a, np.ndarray) else a for a in sample.args], dtype)
    with np.errstate(all="ignore"):
        try:
            answer = prim.kernel(*args, **sample.params)
        except TypeError:
            with pytest.raises(TypeError):
                prim.shape(*map(aval_of, args), **sample.params)
            return
    foretold = prim.shape(*map(aval_of, args), **sample.params)
    assert (foretold.shape, foretold.dtype) == (np.shape(answer), answer.dtype)


@pytest.mark.parametrize(("name", "sample"), [c for c in CASES if c.values[0] not in WITHOUT_ORACLE])
def test_kernel_agrees_with_numpy(name, sample):
    oracle = ORACLES[name] if name in ORACLES else getattr(np, name)
    expected = oracle(*sample.args, **sample.params)
    np.testing.assert_allclose(call(name, sample.params)(*sample.args), expected, rtol=1e-13, atol=1e-14)


@pytest.mark.parametrize(("name", "sample"), SMOOTH)
def test_derivatives_to_second_order(name, sample):
    f = call(name, sample.params)
    check_grads(f, sample.args, order=2)
    out = f(*sample.args)
    assert np.shape(out) == np.shape(ff.vjp(f, *sample.args)[0])


@pytest.mark.parametrize(("name", "sample"), SMOOTH)
def test_linearize_agrees_with_jvp(name, sample):
    f = call(name, sample.params)
    floating = [i for i, a in enumerate(sample.args) if aval_of(a).dtype.kind == "f"]

    def of_floating(*xs):
        args = list(sample.args)
        for i, x in zip(floating, xs, strict=True):
            args[i] = x
        return f(*args)

    primals = [sample.args[i] for i in floating]
    tangents = [np.asarray(RNG.standard_normal(np.shape(p)))[()] for p in primals]
    out, push = ff.linearize(of_floating, *primals)
    expected, tangent = ff.jvp(of_floating, primals, tangents)
    np.testing.assert_array_equal(out, expected)
    np.testing.assert_allclose(push(*tangents), tangent, rtol=1e-13)
    assert aval_of(push(*tangents)) == aval_of(tangent)


@pytest.mark.parametrize(("name", "sample"), [c for c in SMOOTH if has_floats(c)])
def test_float32_stays_float32(name, sample):
    args, params = in_float32(sample)
    arrays = [i for i, a in enumerate(args) if isinstance(a, np.ndarray) and a.dtype.kind == "f"]
    if not arrays:
        args, arrays = tuple(np.float32(a) if isinstance(a, float) else a for a in args), range(len(args))

    def f(*xs):
        full = list(args)  # Python numbers and integers stay constants
        for i, x in zip(arrays, xs, strict=True):
            full[i] = x
        return call(name, params)(*full)

    primals = [args[i] for i in arrays]
    out, pull = ff.vjp(f, *primals)
    assert out.real.dtype == np.float32
    tangent = ff.jvp(f, primals, primals)[1]
    assert tangent.dtype == out.dtype
    first = pull(tangent)
    second = ff.vjp(lambda *xs: ff.vjp(f, *xs)[1](tangent), *primals)[1](first)
    for primal, g, h in zip(primals, first, second, strict=True):
        assert (g.shape, g.dtype) == (h.shape, h.dtype) == (primal.shape, np.float32)


@pytest.mark.parametrize(("name", "sample"), [c for c in FLAT if has_floats(c)])
def test_flat_primitives_give_plain_values(name, sample):
    f = call(name, sample.params)
    seen = []

    def loss(x):
        out = f(x, *sample.args[1:])
        seen.append(out)
        return np.sum(x) + np.sum(out * 1.0)

    gradient = ff.grad(loss)(sample.args[0])
    assert not is_tracer(seen[0])
    np.testing.assert_array_equal(gradient, np.ones(np.shape(sample.args[0])))
    np.testing.assert_array_equal(seen[0], f(*sample.args))


@pytest.mark.parametrize(("name", "sample"), CASES)
def test_costs_are_counts(name, sample):
    prim = primitives()[name]
    if prim.flops is None:
        assert name not in UNARY + BINARY + ["matmul", "conv"], "arithmetic must be counted"
        return
    avals = [aval_of(a) for a in sample.args]
    cost = prim.flops(prim.shape(*avals, **sample.params), *avals, **sample.params)
    assert isinstance(cost, int)
    assert cost >= 0


# -- vmap ---------------------------------------------------------------------------------------


def test_every_primitive_has_a_batching_rule():
    without = [name for name, prim in primitives().items() if prim.batch is None and not prim.elementwise]
    # Under vmap a checkpoint is a call of a program, and this primitive, for values that are known, is not bound.
    assert without == ["checkpoint"], "primitives without a rule for vmap; give them one"


def many_of(x, axis, size=3):
    """Arrays like `x`, stacked along an axis: its elements in another order each, so that they stay in its domain."""
    x = np.asarray(x)
    turned = [np.roll(x.ravel(), k).reshape(x.shape) for k in range(size)]
    return np.stack([t * (1 - 0.01 * k) if x.dtype.kind == "f" else t for k, t in enumerate(turned)], axis)


def batches(args, subsets):
    """The arguments with those of each subset batched, at the front, at the end, and at various axes; and the axes."""
    for subset in subsets:
        for place in range(3):
            axes = [None] * len(args)
            for i in subset:
                last = np.ndim(args[i])
                axes[i] = (0, -1, (i + 1) % (last + 1))[place]
            yield tuple([x if a is None else many_of(x, a) for x, a in zip(args, axes, strict=True)]), tuple(axes)


def subsets_of(count):
    return [s for k in range(1, count + 1) for s in itertools.combinations(range(count), k)]


def singles_and_all(count):
    return sorted({*[(i,) for i in range(count)], tuple(range(count))})


@pytest.mark.parametrize(("name", "sample"), CASES)
def test_vmap_is_the_stack(name, sample):
    for args, params in (sample, in_float32(sample)):
        for xs, axes in batches(args, subsets_of(len(args))):
            check_vmap(call(name, params), xs, axes)


@pytest.mark.parametrize(("name", "sample"), SMOOTH)
def test_vmap_of_derivatives_is_the_stack(name, sample):
    f = call(name, sample.params)
    for xs, axes in batches(sample.args, singles_and_all(len(sample.args))):
        ts, ct = random_like(xs), random_like(ff.vmap(f, axes)(*xs))
        check_vmap(lambda xs, ts: ff.jvp(f, xs, ts), (xs, ts), (axes, axes))
        check_vmap(lambda ct, xs: ff.vjp(f, *xs)[1](ct), (ct, xs), (0, axes))


@pytest.mark.parametrize(("name", "sample"), SMOOTH)
def test_derivatives_of_vmap(name, sample):
    f = call(name, sample.params)
    for xs, axes in batches(sample.args, singles_and_all(len(sample.args))):
        check_grads(ff.vmap(f, axes), xs, order=1)


# -- edges --------------------------------------------------------------------------------------

NAN, INF = math.nan, math.inf


@pytest.mark.parametrize(
    ("f", "args", "expected"),
    [
        (np.maximum, (1.0, 1.0), (0.5, 0.5)),
        (np.minimum, (1.0, 1.0), (0.5, 0.5)),
        (np.fmax, (1.0, NAN), (1.0, 0.0)),
        (np.fmin, (NAN, 1.0), (0.0, 1.0)),
        (np.absolute, (0.0,), (0.0,)),
        (ops.relu, (0.0,), (0.0,)),
        (lambda x: x**0, (0.0,), (0.0,)),
        (lambda x: x**2, (0.0,), (0.0,)),
        (lambda x: x**1, (0.0,), (1.0,)),
        (np.power, (0.0, 2.0), (0.0, 0.0)),
        (np.power, (0.0, 1.0), (1.0, 0.0)),
        (lambda y: 0.0**y, (2.0,), (0.0,)),
        (np.copysign, (2.0, -1.0), (-1.0, 0.0)),
        (np.logaddexp, (-INF, 0.0), (0.0, 1.0)),
        (np.logaddexp, (-INF, -INF), (1.0, 1.0)),
        (ops.softplus, (1000.0,), (1.0,)),
        (ops.softplus, (-1000.0,), (0.0,)),
        (ops.logistic, (1000.0,), (0.0,)),
        (np.tanh, (1000.0,), (0.0,)),
    ],
)
def test_gradients_at_the_edges(f, args, expected):
    np.testing.assert_array_equal(ff.grad(f, argnums=tuple(range(len(args))))(*args), expected)


@pytest.mark.parametrize(
    ("f", "x", "expected"),
    [
        (np.max, [1.0, 3.0, 3.0], [0.0, 0.5, 0.5]),
        (np.min, [1.0, 1.0, 3.0], [0.5, 0.5, 0.0]),
        (np.prod, [0.0, 2.0, 3.0], [6.0, 0.0, 0.0]),
        (np.prod, [0.0, 0.0, 3.0], [0.0, 0.0, 0.0]),
        (ops.logsumexp, [-INF, 0.0], [0.0, 1.0]),
        (ops.logsumexp, [-INF, -INF], [0.0, 0.0]),
        (lambda x: ops.log_softmax(x)[1], [-INF, 0.0], [0.0, 0.0]),
        (lambda x: ops.softmax(x)[0], [-INF, 0.0], [0.0, 0.0]),
    ],
)
def test_gradients_of_vectors_at_the_edges(f, x, expected):
    np.testing.assert_array_equal(ff.grad(f)(np.array(x)), expected)


@pytest.mark.parametrize("axis", [0, 1, -1])
def test_softmax_family_does_not_overflow(axis):
    x = np.array([[1000.0, 0.0], [-1000.0, 1000.0]], np.float32)
    for f in (ops.softmax, ops.log_softmax, ops.logsumexp):
        out, pull = ff.vjp(lambda t, f=f: f(t, axis=axis), x)
        assert np.all(np.isfinite(out))
        assert np.all(np.isfinite(pull(np.ones_like(out))[0]))
