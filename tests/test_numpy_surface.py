"""NumPy's functions, methods and operators on tracers: NumPy's values, shapes and dtypes, and right derivatives."""

import math

import numpy as np
import pytest
from drawing import Draws
from laws import same_as_numpy

import fnflare as ff

RNG = Draws(7)


def normal(*shape):
    return RNG.standard_normal(shape)


def apart(*shape):
    """Numbers of which no two are close nor any close to zero: sorting and comparing them is smooth nearby."""
    return (RNG.permutation(math.prod(shape)).reshape(shape) - math.prod(shape) / 2 + 0.3) * 0.37


X, Y, V, W, S = apart(3, 4), apart(3, 4)[::-1] * 0.9, normal(4), normal(4, 2), np.array(0.7)
CUBE, SQUARE, POSITIVE, EMPTY = normal(2, 3, 4), normal(3, 3), np.abs(normal(3, 4)) + 0.3, np.zeros((0, 3))
MASK = np.array([True, False, True])
IDS = np.array([2, 0, 2, -1])
INTS = np.array([3, 1, 2, 5])

OPERATORS = {
    "add": (lambda x, y: x + y, X, V),
    "subtract": (lambda x, y: x - y, X, V),
    "multiply": (lambda x, y: x * y, X[:, :1], V),
    "divide": (lambda x, y: x / y, X, POSITIVE),
    "power array": (lambda x, y: x**y, POSITIVE, V),
    "power 0": (lambda x: x**0, X),
    "power 1": (lambda x: x**1, X),
    "power 2": (lambda x: x**2, X),
    "power 3": (lambda x: x**3, X),
    "power -1": (lambda x: x**-1, X),
    "power 0.5": (lambda x: x**0.5, POSITIVE),
    "power -1.5": (lambda x: x**-1.5, POSITIVE),
    "power of integers": (lambda x: x**INTS, X),
    "2 ** x": (lambda x: 2**x, X),
    "2.0 ** x": (lambda x: 2.0**x, X),
    "mod": (lambda x: x % 0.9, X),
    "mod by x": (lambda x: 7.3 % x, POSITIVE),
    "floordiv": (lambda x: x // 0.9 + x, X),
    "divmod": (lambda x: divmod(x, 0.9), X),
    "divmod by x": (lambda x: divmod(7.3, x), POSITIVE),
    "matmul": (lambda x, y: x @ y, X, W),
    "matmul vector": (lambda x, y: x @ y, X, V),
    "vector matmul": (lambda x, y: x @ y, V, W),
    "negative": (lambda x: -x, X),
    "positive": (lambda x: +x, X),
    "abs": (lambda x: abs(x), X),
    "scalar left": (lambda x: 2 - 3.0 / (1 * x), X),
    "bool left": (lambda x: True + x * False + x, X),
    "array left": (lambda x: INTS - V * x / V + V, X),
    "array matmul left": (lambda x: SQUARE @ x, X),
    "list left": (lambda x: [1.0, 2.0, 3.0, 4.0] * x + [1, 2, 3, 4] - (4, 3, 2, 1) / x, POSITIVE),
    "list right": (lambda x: x * [1.0, 2.0, 3.0, 4.0] - (4, 3, 2, 1), X),
    "list matmul": (lambda x: [[1.0, 2.0, 3.0]] @ x, X),
    "list power": (lambda x: [1.5, 2.0, 3.0, 0.5] ** x, X),
    "numpy scalar left": (lambda x: np.float32(2) * x - np.int64(1), X),
    "zero-d": (lambda x, s: x * s + s, X, S),
    "zero-d alone": (lambda s: np.sin(s) * s, S),
    "empty": (lambda x: x * 2 + np.exp(x), EMPTY),
    "comparisons": (lambda x: (x > 0) * x + (x <= 1) * x**2 + (x != 0) * x, X),
    "in place": (lambda x: inplace(x), X),
}


def inplace(x):
    x = before = x * 1.0
    x = x + 0.0  # an array of its own, which NumPy then changes in place
    x += 1.0
    x *= before
    x -= before / 2
    x /= 3
    return x**before.ndim


UFUNCS = {
    "float_power": (lambda x: np.float_power(x, 1.5), POSITIVE),
    "fabs": (np.fabs, X),
    "degrees": (lambda x: np.degrees(x) + np.rad2deg(x), X),
    "radians": (lambda x: np.radians(x) + np.deg2rad(x), X),
    "vecdot": (np.vecdot, X, Y),
    "dtype keyword": (lambda x: np.add(x, x, dtype=np.float64), X),
    "add.reduce": (lambda x: np.add.reduce(x), X),
    "add.reduce axis": (lambda x: np.add.reduce(x, axis=1, keepdims=True), X),
    "add.reduce axes": (lambda x: np.add.reduce(x, axis=(0, 1)), X),
    "multiply.reduce": (lambda x: np.multiply.reduce(x, axis=1), X),
    "maximum.reduce": (lambda x: np.maximum.reduce(x, 0), X),
    "minimum.reduce": (lambda x: np.minimum.reduce(x, axis=None), X),
    "add.accumulate": (lambda x: np.add.accumulate(x, axis=1), X),
    "arctan2 scalar": (lambda x: np.arctan2(x, 2) + np.arctan2(1.0, x), X),
    "hypot scalar": (lambda x: np.hypot(3, x), X),
    "maximum scalar": (lambda x: np.maximum(x, 0) + np.minimum(0.5, x), X),
    "logaddexp scalar": (lambda x: np.logaddexp(x, 0) + np.logaddexp(1.0, x), X),
    "copysign scalar": (lambda x: np.copysign(x, -1.0) + np.copysign(2.0, x), X),
}

REDUCTIONS = {
    "sum": (np.sum, X),
    "sum dtype": (lambda x: np.sum(x, dtype=np.float64), X),
    "mean": (np.mean, X),
    "mean axis": (lambda x: np.mean(x, axis=-1, keepdims=True), X),
    "mean of a mask": (lambda x: np.mean(x > 0) * x, X),
    "var": (lambda x: np.var(x, axis=0), X),
    "var ddof": (lambda x: np.var(x, axis=(0, 1), ddof=1), X),
    "var correction": (lambda x: np.var(x, axis=1, correction=1, keepdims=True), X),
    "std": (lambda x: np.std(x, axis=1, ddof=1), X),
    "max": (np.max, X),
    "amax": (lambda x: np.amax(x, axis=0) - np.amin(x, axis=0), X),
    "min": (lambda x: np.min(x, axis=1, keepdims=True), X),
    "prod": (np.prod, X * 0.5),
    "prod axis": (lambda x: np.prod(x, axis=1, keepdims=True), X),
    "prod of nothing": (lambda x: np.prod(x, axis=0) + np.sum(x), EMPTY),
    "sum of nothing": (lambda x: np.sum(x, axis=0), EMPTY),
    "any all": (lambda x: x * np.any(x > 0) * np.all(x > 0, axis=0), X),
    "argmax": (lambda x: x[np.argmax(x, axis=0), np.arange(4)] + x.ravel()[np.argmax(x)], X),
    "argmin": (lambda x: np.take_along_axis(x, np.argmin(x, axis=1, keepdims=True), axis=1), X),
    "cumsum": (np.cumsum, X),
    "cumsum axis": (lambda x: np.cumsum(x, axis=-2), X),
    "cumsum dtype": (lambda x: np.cumsum(x, axis=0, dtype=np.float64), X),
    "norm": (np.linalg.norm, X),
    "norm fro": (lambda x: np.linalg.norm(x, "fro", axis=(0, 1), keepdims=True), X),
    "norm rows": (lambda x: np.linalg.norm(x, axis=-1, keepdims=True), X),
    "norm 0": (lambda x: np.linalg.norm(x, 0) + np.sum(x), V),
    "norm 1": (lambda x: np.linalg.norm(x, 1), V),
    "norm 2": (lambda x: np.linalg.norm(x, 2), V),
    "norm 3": (lambda x: np.linalg.norm(x, 3, axis=0), X),
    "norm inf": (lambda x: np.linalg.norm(x, np.inf, axis=1) + np.linalg.norm(x, -np.inf, axis=1), X),
    "matrix norm 1": (lambda x: np.linalg.norm(x, 1) - np.linalg.norm(x, -1), X),
    "matrix norm inf": (lambda x: np.linalg.norm(x, np.inf, axis=(1, 0)) * np.linalg.norm(x, -np.inf), X),
}

SHAPES = {
    "reshape": (lambda x: np.reshape(x, (2, -1)), X),
    "reshape method": (lambda x: x.reshape(2, 6) + x.reshape((2, -1)) + x.reshape(12)[:6], X),
    "reshape scalar": (lambda s: np.reshape(s, (1, 1)), S),
    "ravel": (lambda x: np.ravel(x) * x.ravel() * x.flatten(), X),
    "squeeze": (lambda x: np.squeeze(x[:, None, :1]) + np.squeeze(x[None, :, 1], axis=0) + x[:, :1].squeeze(-1), X),
    "expand_dims": (lambda x: np.expand_dims(x, (0, 2)), X),
    "newaxis": (lambda x: x[:, None] * x[None], X),
    "transpose": (lambda x: np.transpose(x, (1, 2, 0)), CUBE),
    "transpose method": (lambda x: x.transpose(2, 0, 1) + x.transpose((2, 0, 1)) + x.T.transpose(0, 2, 1), CUBE),
    "T": (lambda x: x.T @ x, X),
    "mT": (lambda x: x.mT @ x + np.matrix_transpose(x) @ x, CUBE),
    "swapaxes": (lambda x: np.swapaxes(x, 0, -1) + x.swapaxes(2, 0), CUBE),
    "moveaxis": (lambda x: np.moveaxis(x, 0, -1), CUBE),
    "moveaxis many": (lambda x: np.moveaxis(x, (0, 1), (-1, 0)), CUBE),
    "broadcast_to": (lambda x: np.broadcast_to(x, (2, 3, 4)), X),
    "broadcast_arrays": (lambda x, v: [*np.broadcast_arrays(x, v)], X, V),
    "atleast": (lambda s: np.atleast_2d(s) + np.atleast_1d(s), S),
    "concatenate": (lambda x, y: np.concatenate([x, y, x], axis=1), X, Y),
    "concatenate flat": (lambda x, v: np.concatenate([x, v, [1.0, 2.0]], axis=None), X, V),
    "concatenate dtypes": (lambda x: np.concatenate([x, np.ones((1, 4), np.float32), [[1, 2, 3, 4]]]), X),
    "stack": (lambda x, y: np.stack([x, y, x], axis=-1), X, Y),
    "stack scalars": (lambda x: np.stack([x[0, 0], x[1, 1] * 2, x.sum()]), X),
    "vstack": (lambda x, v: np.vstack([x, v]), X, V),
    "hstack": (lambda x, v: [np.hstack([x, x]), np.hstack([v, v])], X, V),
    "split": (lambda x: [a * (i + 1) for i, a in enumerate(np.split(x, 2, axis=1))], X),
    "split at": (lambda x: [a * (i + 1) for i, a in enumerate(np.split(x, [1, 3], axis=1))], X),
    "array_split": (lambda x: [a * (i + 1) for i, a in enumerate(np.array_split(x, 3, axis=1))], X),
    "flip": (lambda x: np.flip(x) + np.flip(x, 0) * np.flip(x, (0, -1)), X),
    "roll": (lambda x: np.roll(x, 5) + np.roll(x, 1, axis=0) + np.roll(x, (1, -1), axis=(0, 1)), X),
    "tile": (lambda x: np.tile(x, (2, 1, 3)), X),
    "tile vector": (lambda x: np.tile(x, 2), V),
    "repeat": (lambda x: np.repeat(x, 2) + 0, X),
    "repeat axis": (lambda x: np.repeat(x, [0, 2, 1], axis=0) * x.repeat(3, axis=0)[:3], X),
    "pad": (lambda x: np.pad(x, ((1, 0), (0, 2))), X),
    "pad constant": (lambda x: np.pad(x, 1, constant_values=2.5), X),
    "pad edge": (lambda x: np.pad(x, (1, 2), mode="edge"), X),
    "pad reflect": (lambda x: np.pad(x, 2, mode="reflect"), X),
    "pad wrap": (lambda x: np.pad(x, ((0, 1), (2, 0)), mode="wrap") * np.pad(x, ((0, 1), (2, 0)), "symmetric"), X),
    "tril": (lambda x: np.tril(x) + np.triu(x, 1) * 2 + np.tril(x, -1) * np.tril(x, -1), X),
    "tril batch": (lambda x: np.tril(x, -1) + np.triu(x, -1), CUBE),
    "diag": (lambda x: [np.diag(x), np.diag(x, 1), np.diag(x, -2)], X),
    "diag of vector": (lambda v: np.diag(v, 1) + np.diag(v, -1), V),
    "diagonal": (lambda x: np.diagonal(x, 1, 0, 2) * x.diagonal(0, 1, 2)[:1].T, CUBE),
    "trace": (lambda x: np.trace(x) * x.trace(1), SQUARE),
    "likes": (lambda x: np.ones_like(x) * x + np.zeros_like(x) + np.full_like(x, x[0, 0]), X),
    "full_like number": (lambda x: x * np.full_like(x, 2.5), X),
    "copy": (lambda x: np.copy(x) * x.copy(), X),
    "astype": (lambda x: x.astype(np.float64) * x.astype(x.dtype, copy=False), X),
    "real": (lambda x: x.real, X),
}

CHOICES = {
    "where": (lambda x, y: np.where(MASK[:, None], x, y), X, Y),
    "where scalar": (lambda x: np.where(x > 0, x, 0.01 * x) + np.where(x > 0, 1, x) + np.where(x < 0, x, 0), X),
    "where broadcast": (lambda v: np.where(MASK[:, None], v, 2.0), V),
    "where on numbers": (lambda x: np.where(x, x**2, 3.0), X),
    "clip": (lambda x: np.clip(x, -0.5, 0.5) + x.clip(0.1) + np.clip(x, None, 0.3) + x.clip(max=0.2), X),
    "clip keywords": (lambda x: np.clip(x, a_min=-0.5, a_max=0.5), X),
    "clip arrays": (lambda x, low: np.clip(x, low, low + 1), X, V * 0.1),
    "sort": (lambda x: np.sort(x) + np.sort(x, axis=0) * 2, X),
    "sort flat": (lambda x: np.sort(x, axis=None, kind="stable"), X),
    "argsort": (lambda x: np.take_along_axis(x, np.argsort(x, axis=0), axis=0) + x.ravel()[np.argsort(x, None)[0]], X),
    "take": (lambda x: np.take(x, IDS, axis=0), X),
    "take flat": (lambda x: np.take(x, [[0, 5], [11, 5]]) * x.take(3), X),
    "take one": (lambda x: np.take(x, 1, axis=-1), X),
    "take modes": (lambda x: np.take(x, [-5, 9], axis=1, mode="wrap") + np.take(x, [-5, 9], axis=1, mode="clip"), X),
    "take_along_axis": (lambda x: np.take_along_axis(x, np.array([[0, 0, 3], [1, 2, 1], [3, 3, 3]]), axis=1), X),
    "take_along_axis wide": (lambda x: np.take_along_axis(x, np.array([[0], [2], [0], [1]]), axis=0), X),
    "take_along_axis flat": (lambda x: np.take_along_axis(x, np.array([0, 5, 5]), axis=None), X),
    "nonzero": (lambda x: x[np.nonzero(x > 0)] * x[(x > 0).nonzero()], X),
    "sign and rounding": (lambda x: x * np.sign(x) + x * np.floor(x) + np.rint(x) * np.isfinite(x), X),
}

PRODUCTS = {
    "dot": (lambda x, w: np.dot(x, w), X, W),
    "dot vectors": (lambda v: np.dot(v, v) + v.dot(v), V),
    "dot scalar": (lambda v: np.dot(v, 2.0), V),
    "dot cubes": (lambda a, b: np.dot(a, b), CUBE, normal(2, 4, 2)),
    "vdot": (np.vdot, X, Y),
    "inner": (np.inner, X, Y),
    "inner scalar": (lambda x: np.inner(x, 3.0), X),
    "outer": (np.outer, X, V),
    "tensordot": (lambda a, b: np.tensordot(a, b), CUBE, normal(3, 4, 2)),
    "tensordot 0": (lambda a, b: np.tensordot(a, b, 0), V, X),
    "tensordot 1": (lambda a, b: np.tensordot(a, b, axes=1), CUBE, W),
    "tensordot lists": (lambda a, b: np.tensordot(a, b, ([0, 2], [1, 0])), CUBE, normal(4, 2, 2)),
    "tensordot pairs": (lambda a, b: np.tensordot(a, b, axes=(-1, 0)), CUBE, W),
    "tensordot empty": (lambda a, b: np.tensordot(a, b, 1), np.zeros((2, 0)), np.zeros((0, 3))),
    "matmul mixed": (lambda x: np.float32(2) * x @ np.ones((4, 2), np.float32), X),
}

TABLE = [
    pytest.param(*case, id=f"{family}: {name}")
    for family, cases in {
        "operator": OPERATORS, "ufunc": UFUNCS, "reduction": REDUCTIONS, "shape": SHAPES, "choice": CHOICES,
        "product": PRODUCTS,
    }.items()
    for name, (f, *args) in cases.items()
    for case in [(f, args)]
]  # fmt: skip


@pytest.mark.parametrize(("f", "args"), TABLE)
def test_numpy_on_tracers_is_numpy(f, args):
    if f is CHOICES["nonzero"][0]:
        with pytest.raises(ff.errors.ConcretizationError, match=r"np\.where"):
            ff.eval_shape(f, *args)
        np.testing.assert_array_equal(ff.vjp(f, *args)[0], f(*args))
        return
    same_as_numpy(f, *args)


@pytest.mark.parametrize(
    ("subscripts", "shapes"),
    [
        ("ij,jk->ik", [(2, 3), (3, 4)]),
        ("ij,jk", [(2, 3), (3, 4)]),
        ("ba,cb", [(2, 3), (3, 2)]),
        ("ii", [(3, 3)]),
        ("ii->i", [(3, 3)]),
        ("ij->", [(2, 3)]),
        ("ij->ji", [(2, 3)]),
        ("ijk->ki", [(2, 3, 2)]),
        ("i,i->", [(3,), (3,)]),
        ("i,j->ij", [(3,), (2,)]),
        (",i->i", [(), (3,)]),
        ("ij,ij->ij", [(2, 3), (2, 3)]),
        ("ij,ij->i", [(2, 3), (2, 1)]),
        ("ij,ij->j", [(1, 3), (2, 3)]),
        ("bij,bjk->bik", [(2, 2, 3), (2, 3, 2)]),
        ("...ij,...jk->...ik", [(2, 1, 2, 3), (4, 3, 2)]),
        ("...i,i", [(2, 3), (3,)]),
        ("...i->...", [(2, 3)]),
        ("i...->...", [(2, 3)]),
        ("i...,...j->ij...", [(2, 3), (3, 4)]),
        ("ij,jk,kl->il", [(2, 3), (3, 2), (2, 2)]),
        ("ij,jk,ik->", [(2, 3), (3, 4), (2, 4)]),
        ("ii,ij->j", [(3, 3), (3, 2)]),
        ("iij,j->i", [(2, 2, 3), (3,)]),
        ("ii,jj->ij", [(2, 2), (3, 3)]),
        ("aabb->ab", [(2, 2, 3, 3)]),
        ("i j , j k -> k i", [(2, 3), (3, 4)]),
        ("bthd,bshd->bhts", [(2, 3, 2, 4), (2, 2, 2, 4)]),
        ("ij,jk->ik", [(2, 0), (0, 3)]),
    ],
)
def test_einsum(subscripts, shapes):
    same_as_numpy(lambda *xs: np.einsum(subscripts, *xs), *[normal(*s) for s in shapes])


AT = {
    "set": lambda x, v: ff.at(x)[1].set(v),
    "set rows": lambda x, v: ff.at(x)[IDS[:2]].set(v),
    "set twice": lambda x, v: ff.at(x)[IDS].set(np.stack([v, 2 * v, 3 * v, 4 * v])),
    "set slice": lambda x, v: ff.at(x)[:, ::2].set(v[:2]),
    "set mask": lambda x, v: ff.at(x)[MASK].set(v),
    "set mask of elements": lambda x, v: ff.at(x)[x > 0].set(v[0]),
    "set number": lambda x, v: ff.at(x)[..., -1].set(2.5) * v,
    "set in constant": lambda x, v: ff.at(np.ones((3, 4)))[0].set(v) * x,
    "get": lambda x, v: ff.at(x)[IDS, INTS % 4].get() * v,
    "add": lambda x, v: ff.at(x)[1:].add(v),
    "add twice": lambda x, v: ff.at(x)[IDS].add(v),
    "add to constant": lambda x, v: ff.at(np.zeros((5, 4)))[[0, 0, 3]].add(x),
    "multiply": lambda x, v: ff.at(x)[0].multiply(v),
    "multiply twice": lambda x, v: ff.at(x)[IDS].multiply(v),
    "divide": lambda x, v: ff.at(x)[IDS].divide(v),
    "power": lambda x, v: ff.at(x * x)[IDS].power(v),
    "min": lambda x, v: ff.at(x)[:2].min(v),
    "max": lambda x, v: ff.at(x)[IDS].max(np.stack([v, v * 2, v * 0.3, v * 3])),
    "apply": lambda x, v: ff.at(x)[1].apply(np.sin) * v,
    "two arrays": lambda x, v: ff.at(x)[[0, 2, 0], [1, 1, 1]].add(v[:3]),
}


@pytest.mark.parametrize("f", AT.values(), ids=AT.keys())
def test_at(f):
    before = X.copy()
    try:
        same_as_numpy(f, X, V)
    except ff.errors.ConcretizationError:
        assert f is AT["set mask of elements"]
        np.testing.assert_array_equal(ff.jvp(f, (X, V), (X, V))[0], f(X, V))
    np.testing.assert_array_equal(X, before)


@pytest.mark.parametrize(
    ("method", "ufunc"),
    [
        ("add", np.add),
        ("multiply", np.multiply),
        ("divide", np.divide),
        ("power", np.power),
        ("min", np.minimum),
        ("max", np.maximum),
    ],
)
@pytest.mark.parametrize("index", [IDS, ([0, 0, 0, 0, 0, 1], 2), (slice(None), np.array([1, 3, 1])), MASK])
def test_at_counts_an_index_as_often_as_it_is_named(method, ufunc, index):
    values = np.abs(normal(*X[index].shape)) + 0.5
    expected = np.abs(X)
    ufunc.at(expected, index, values)
    np.testing.assert_allclose(getattr(ff.at(np.abs(X))[index], method)(values), expected, rtol=1e-12)


def test_at_takes_lists_and_numbers():
    np.testing.assert_array_equal(ff.at([1.0, 2.0])[0].set(5), [5.0, 2.0])
    np.testing.assert_array_equal(ff.at(np.zeros(2))[[0, 0]].add([1.0, 2.0]), [3.0, 0.0])
    assert ff.at(np.zeros(2, np.float32))[0].multiply(2.0).dtype == np.float32


INDICES = {
    "integer": 1,
    "negative": -1,
    "numpy integer": np.int64(2),
    "zero-d": np.array(1),
    "tuple": (1, -2),
    "slice": slice(1, None),
    "reversed": (slice(None, None, -1), slice(3, 0, -2)),
    "ellipsis": (Ellipsis, 1),
    "none": (None, slice(None), None, 0),
    "list": [2, 0, 0],
    "nested list": [[0, 1], [2, 2]],
    "array": IDS,
    "empty array": np.array([], int),
    "empty list": [],
    "mask": MASK,
    "mask list": [True, False, True],
    "mask of elements": X > 0,
    "mask of none": np.zeros(3, bool),
    "array and slice": (slice(None, 2), IDS),
    "two arrays": (IDS, [0, 1, 1, 0]),
    "broadcast arrays": (np.array([[0], [2]]), np.array([1, 1, 3])),
    "split arrays": (IDS, None, [0, 1, 1, 0]),
    "array and mask": (MASK, [0, 1]),
    "unsigned": np.array([0, 2], np.uint8),
}


@pytest.mark.parametrize("index", INDICES.values(), ids=INDICES.keys())
def test_indexing(index):
    same_as_numpy(lambda x: x[index] * 2 + 0.0, X)


def test_an_index_may_come_from_tracers():
    same_as_numpy(lambda x: x[np.argmax(x, axis=0)] + x[np.argsort(x[:, 0])[0], 1], X)
    same_as_numpy(lambda x: ff.at(x)[np.argmax(x, axis=0), np.arange(4)].set(0.0), X)
    same_as_numpy(lambda x: ff.at(x)[np.argmin(x[:, 0])].add(x[0]), X)


class TestPythonProtocol:
    def test_iteration_length_and_unpacking(self):
        def f(x):
            a, b, c = x
            assert len(x) == 3
            return a * b + sum(row[0] for row in x) + c[::-1]

        same_as_numpy(f, X)

    def test_truth_and_control_flow(self):
        def f(x):
            if x > 0 and not x < 0.1:
                return x**2
            while x < 0:
                x = x + 1
            return x * 3

        gradients = [ff.grad(f)(x) for x in (0.5, 0.05, -2.5)]
        assert gradients == [1.0, 3.0, 3.0]
        with pytest.raises(ValueError, match="ambiguous"):
            ff.grad(lambda x: np.sum(x) if x > 0 else 0.0)(X)

    def test_attributes(self):
        seen = []

        def f(x):
            seen.append(
                (x.shape, x.ndim, x.size, x.dtype, x.nbytes, x.itemsize, np.shape(x), np.ndim(x), np.size(x, 1))
            )
            return np.sum(x)

        for transformed in (ff.grad(f), lambda x: ff.jvp(f, (x,), (x,)), lambda x: ff.eval_shape(f, x)):
            transformed(X)
        assert seen == [((3, 4), 2, 12, np.float64, 96, 8, (3, 4), 2, 4)] * 3

    def test_comparisons_are_plain_and_foreign_operands_are_refused(self):
        seen = []

        def f(x):
            seen.extend([x > 0, x == x, x != 0, x == "text", x is None])
            with pytest.raises(TypeError):
                x + "text"
            with pytest.raises(TypeError):
                object() @ x
            return np.sum(x)

        ff.grad(f)(X)
        assert isinstance(seen[0], np.ndarray)
        assert seen[3] is False
        assert seen[4] is False

    def test_a_scalar_tracer_has_no_length_and_is_not_hashable(self):
        def f(s):
            with pytest.raises(TypeError, match="unsized"):
                len(s)
            with pytest.raises(TypeError):
                iter(s)
            with pytest.raises(TypeError, match="not hashable"):
                hash(s)
            return s

        assert ff.grad(f)(1.0) == 1.0


class TestDtypes:
    x32 = normal(3).astype(np.float32)

    @pytest.mark.parametrize(
        "f",
        [
            lambda x: x * 2 + 1.5 - 1 / x + x / 3 - x**2 + 2**x + True,
            lambda x: np.maximum(x, 0) + np.minimum(1.0, x) + np.where(x > 0, x, 0.0) + np.clip(x, -1, 1.5),
            lambda x: np.mean(x, keepdims=True) + np.var(x) + np.std(x) + np.linalg.norm(x) + np.sum(x) / 3,
            lambda x: np.logaddexp(x, 0.0) + np.arctan2(x, 2.0) + np.hypot(x, 1) + np.power(abs(x), 1.5),
            lambda x: ff.ops.softmax(x) + ff.ops.logsumexp(x) + ff.ops.logistic(x) + ff.ops.erf(x) + ff.ops.softplus(x),
            lambda x: np.pad(x, 1)[1:-1] + np.cumsum(x) + np.sort(x) + np.roll(x, 1) + np.full_like(x, 2),
            lambda x: ff.at(x)[0].set(1.5) + ff.at(x)[[0, 0]].add(2) + ff.at(x)[1].multiply(0.5),
        ],
    )
    def test_float32_with_python_numbers_stays_float32(self, f):
        assert f(self.x32).dtype == np.float32
        out, pull = ff.vjp(f, self.x32)
        assert out.dtype == np.float32
        assert pull(out)[0].dtype == np.float32
        assert ff.jvp(f, (self.x32,), (self.x32,))[1].dtype == np.float32
        second = ff.grad(lambda x: np.sum(ff.grad(lambda y: np.sum(f(y)))(x)))(self.x32)
        assert second.dtype == np.float32

    @pytest.mark.parametrize("low", [np.float32, np.float16])
    def test_a_gradient_has_the_dtype_of_its_parameter_whatever_it_met(self, low):
        w, x = normal(3, 2).astype(low), normal(4, 3)

        def loss(w, b):
            return np.sum((x @ w + b) ** 2) + np.sum(np.concatenate([w, x[:3, :2]])) + np.sum(w * 1e-3 * x[0, 0])

        gw, gb = ff.grad(loss, argnums=(0, 1))(w, np.zeros(2))
        assert (gw.dtype, gb.dtype) == (low, np.float64)
        tangent = ff.jvp(loss, (w, np.zeros(2)), (w, np.zeros(2)))[1]
        assert tangent.dtype == np.float64
        np.testing.assert_allclose(
            np.vdot(gw.astype(float), w.astype(float)), tangent, rtol=10 * float(np.finfo(low).eps)
        )

    def test_numpy_float64_scalars_promote_as_in_numpy(self):
        out, pull = ff.vjp(lambda x: np.float64(2) * x, self.x32)
        assert out.dtype == np.float64
        assert pull(out)[0].dtype == np.float32

    def test_integers_and_masks_multiply(self):
        ints, mask = np.array([1, 2, 3]), np.array([True, False, True])
        np.testing.assert_array_equal(ff.grad(lambda x: np.sum(x * ints * mask))(self.x32), np.float32([1, 0, 3]))


def views():
    base = normal(8, 6)
    return [base[::2, ::-1], base.T, np.asfortranarray(base), np.broadcast_to(base[0], (3, 6)), base[:0], base[2:3, :1]]


@pytest.mark.parametrize("x", views(), ids=["strided", "transposed", "Fortran", "broadcast", "empty", "one"])
def test_arrays_of_any_layout(x):
    before = x.copy()
    same_as_numpy(lambda t: np.tanh(t @ t.T) @ t + np.sum(t, axis=0) * t[:, ::-1], x)
    np.testing.assert_array_equal(x, before)
