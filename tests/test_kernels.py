"""Kernels against NumPy: on every path, with MKL on and off, from threads and after a fork."""

from __future__ import annotations

import math
import os
import re
import threading
import warnings
from collections.abc import Callable, Iterator

import numpy as np
import pytest
from drawing import Draws
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fnflare import config, kernels
from fnflare.errors import DtypeError
from fnflare.kernels import mkl, thresholds

FLOATS = (np.float32, np.float64)
NAMES = sorted(mkl.FUNCTIONS)
needs_mkl = pytest.mark.skipif(config.mkl_version() is None, reason="MKL is not installed")

generator = Draws(0)


@pytest.fixture(scope="module", autouse=True)
def _whatever_the_environment_says() -> Iterator[None]:
    with config.override(use_mkl=True):
        yield


@pytest.fixture(params=[True, False], ids=["mkl", "numpy"])
def _either(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """With MKL, which then takes products of a size that tests can afford too, and without it."""
    monkeypatch.setattr(kernels, "MATMUL", 1 << 14)
    with config.override(use_mkl=request.param):
        yield


def oracle(name: str) -> Callable[[np.ndarray], np.ndarray]:
    if name != "erf":
        function: Callable[[np.ndarray], np.ndarray] = getattr(np, name)
        return function
    return np.vectorize(math.erf, otypes=[np.float64])


def ulps(got: np.ndarray, exact: np.ndarray) -> float:
    """The largest distance in units of the last place of the exact value, given with more digits if it may be."""
    unit = np.spacing(np.abs(exact.astype(got.dtype)))
    return float(np.max(np.abs(got - exact) / unit, initial=0.0))


# --- elementwise --------------------------------------------------------------------------------------------------

# Where NumPy's own functions are accurate: float32 ones keep 4 units, and the reference is computed in float64.
DOMAIN = {
    "cos": (-100.0, 100.0),
    "erf": (-7.0, 7.0),
    "exp": (-80.0, 80.0),
    "expm1": (-3.0, 60.0),
    "log": (1e-30, 1e30),
    "log1p": (-0.9, 1e10),
    "sin": (-100.0, 100.0),
    "tanh": (-12.0, 12.0),
}


@pytest.mark.usefixtures("_either")
@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("size", [0, 1, 3, 1000, 1 << 16])
def test_values_of_elementwise_functions(name: str, dtype: type, size: int) -> None:
    low, high = DOMAIN[name]
    x: np.ndarray = generator.uniform(low, high, size).astype(dtype)
    before = x.copy()
    got = getattr(kernels, name)(x)
    assert got.dtype == dtype and got.shape == x.shape and got is not x
    assert ulps(got, oracle(name)(x.astype(np.float64))) <= 5
    assert np.array_equal(x, before)


@needs_mkl
@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("name", NAMES)
def test_values_of_functions_of_mkl(name: str, dtype: type) -> None:
    x: np.ndarray = generator.uniform(*DOMAIN[name], 1 << 16).astype(dtype)
    got = mkl.elementwise(name, x)
    assert got is not None and got.dtype == dtype
    assert ulps(got, oracle(name)(x.astype(np.float64))) <= 5


SPECIAL = [0.0, -0.0, math.inf, -math.inf, math.nan, 1e-310, -1e-310, 1e-40, 5e-324, 1e300, -1e300, 1.0, -1.0]


@needs_mkl
@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("name", NAMES)
def test_special_values(name: str, dtype: type) -> None:
    with np.errstate(all="ignore"):
        x: np.ndarray = np.array(SPECIAL).astype(dtype)
        x = x[np.abs(x) < 1e30] if name in ("sin", "cos") else x
        expected = kernels._numpy_erf(x) if name == "erf" else getattr(np, name)(x)
    got = mkl.elementwise(name, x)
    assert got is not None
    assert np.array_equal(np.isnan(got), np.isnan(expected))
    real = ~np.isnan(expected)
    assert np.array_equal(np.signbit(got[real]), np.signbit(expected[real]))
    assert np.allclose(got[real], expected[real], rtol=4 * np.finfo(dtype).eps, atol=0)


@pytest.mark.usefixtures("_either")
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    "x",
    [
        0.5,
        1,
        True,
        np.float32(0.5),
        np.float16(0.5),
        [0.25, 0.5],
        np.array(0.5, np.float32),
        np.array([0.5], np.float16),
        np.arange(1, 5, dtype=np.int32),
        np.arange(1, 5, dtype=np.int8),
        np.arange(70_000, dtype=np.int64) % 7 + 1,
        (np.arange(70_000) % 7 + 1).astype(">f8"),
        np.linspace(0.1, 1, 70_000, dtype=np.float16),
        np.linspace(0.1, 1, 70_000, dtype=np.longdouble),
        np.ones((300, 300), np.float32)[::2, ::-1],
        np.ones((300, 300), np.float32).T,
        np.ones((0, 3), np.float32),
        np.broadcast_to(np.float32(0.5), (300, 300)),
    ],
    ids=lambda x: f"{type(x).__name__}-{getattr(x, 'dtype', '')}-{np.shape(x)}",
)
def test_whatever_numpy_takes(name: str, x: object) -> None:
    got = getattr(kernels, name)(x)
    expected = np.exp(x)  # type: ignore[call-overload]
    assert type(got) is type(expected) and got.dtype == expected.dtype and got.shape == expected.shape
    if name != "erf":
        expected = getattr(np, name)(x)
        assert np.allclose(got, expected, rtol=4 * float(np.finfo(got.dtype).eps), atol=0)


@pytest.mark.usefixtures("_either")
@pytest.mark.parametrize("size", [5, 1 << 16])
@pytest.mark.parametrize("name", NAMES)
def test_out(name: str, size: int) -> None:
    function = getattr(kernels, name)
    x = generator.uniform(0.1, 1, size)
    expected = function(x)
    out = np.zeros(size)
    assert function(x, out) is out and np.array_equal(out, expected)
    strided = np.zeros(2 * size)[::2]
    assert function(x, strided) is strided and np.allclose(strided, expected, rtol=6 * 2.0**-52, atol=0)
    shifted = np.append(x, 0.0)
    assert np.allclose(function(shifted[:-1], shifted[1:]), expected, rtol=6 * 2.0**-52, atol=0)
    assert function(x, x) is x and np.array_equal(x, expected)


def test_out_of_mkl_is_checked() -> None:
    x = np.ones(4, np.float32)
    frozen = np.ones(4, np.float32)
    frozen.setflags(write=False)
    for out in (np.ones(5, np.float32), np.ones(4), np.ones(8, np.float32)[::2], frozen):
        assert mkl.elementwise("exp", x, out) is None
    assert mkl.elementwise("exp", [1.0]) is None  # type: ignore[arg-type]


@pytest.mark.parametrize("dtype", FLOATS)
def test_rational_erf(dtype: type) -> None:
    x: np.ndarray = np.concatenate([np.linspace(-7, 7, 30_001), np.logspace(-40, 0.8, 3000)]).astype(dtype)
    exact = oracle("erf")(x.astype(np.float64))
    with config.override(use_mkl=False):
        got = kernels.erf(x)
        assert ulps(got, exact) <= 5
        assert np.abs(got).max() == 1.0
        assert np.array_equal(kernels.erf(-x), -got)
        assert math.isnan(kernels.erf(math.nan)) and kernels.erf(np.array([math.inf, -math.inf])).tolist() == [1, -1]


def test_erf_of_complex_numbers_is_refused() -> None:
    with pytest.raises(DtypeError, match="erf: real numbers"):
        kernels.erf(1j)


def test_erf_keeps_the_dtype_of_a_ufunc() -> None:
    for dtype in "?bBhHiIlLqQefdg":
        x = np.ones(3, dtype)
        assert kernels.erf(x).dtype == np.exp(x).dtype


# --- matrix products ------------------------------------------------------------------------------------------------


def close(got: np.ndarray, a: np.ndarray, b: np.ndarray) -> bool:
    """Whether a product is right to a few roundings a term."""
    exact = np.matmul(a.astype(np.float64), b.astype(np.float64))
    size = np.matmul(np.abs(a).astype(np.float64), np.abs(b).astype(np.float64))
    return bool(np.all(np.abs(got - exact) <= (4 + math.sqrt(a.shape[-1])) * np.finfo(got.dtype).eps * size))


def normal(shape: tuple[int, ...], dtype: type | np.dtype) -> np.ndarray:
    return generator.standard_normal(shape).astype(dtype)


def lay_out(x: np.ndarray, how: str) -> np.ndarray:
    """The same numbers, otherwise in memory."""
    if how == "transposed":
        return np.ascontiguousarray(np.swapaxes(x, -1, -2)).swapaxes(-1, -2)
    if how == "padded":
        wide = np.zeros((*x.shape[:-1], x.shape[-1] + 3), x.dtype)
        wide[..., :-3] = x
        return wide[..., :-3]
    if how == "strided":
        wide = np.zeros((*x.shape[:-1], 2 * x.shape[-1]), x.dtype)
        wide[..., ::2] = x
        return wide[..., ::2]
    if how == "reversed":
        return np.ascontiguousarray(x[..., ::-1, :])[..., ::-1, :]
    return np.ascontiguousarray(x)


TAKEN = ["plain", "transposed", "padded"]


@needs_mkl
@pytest.mark.parametrize("dtype", FLOATS)
@given(
    batch=st.lists(st.integers(1, 3), max_size=2),
    sizes=st.tuples(*[st.integers(1, 6)] * 3),
    ways=st.tuples(st.sampled_from(TAKEN), st.sampled_from(TAKEN)),
)
def test_gemm_takes_what_it_says(
    dtype: type, batch: list[int], sizes: tuple[int, int, int], ways: tuple[str, str]
) -> None:
    m, k, n = sizes
    a, b = lay_out(normal((*batch, m, k), dtype), ways[0]), lay_out(normal((*batch, k, n), dtype), ways[1])
    got = mkl.gemm(a, b)
    assert got is not None and got.shape == (*batch, m, n) and got.dtype == dtype and got.flags.c_contiguous
    assert close(got, a, b)
    out = np.full_like(got, 2.0)
    assert mkl.gemm(a, b, out) is out and np.array_equal(out, got)
    fresh = mkl.gemm(a, b, accumulate=True)  # nothing is there to add to
    assert fresh is not None and np.array_equal(fresh, got)
    assert mkl.gemm(a, b, out, accumulate=True) is out and np.allclose(out, 2 * got, rtol=1e-4)


@needs_mkl
def test_gemm_takes_views_of_batches() -> None:
    heads = normal((4, 10, 2, 8), np.float32).transpose(0, 2, 1, 3)  # interleaved: matrices lie within each other
    assert mkl.gemm(heads, heads.swapaxes(-1, -2)) is None
    sliced = normal((6, 5, 8), np.float32)[::2, 1:4]
    got = mkl.gemm(sliced, sliced.swapaxes(-1, -2))
    assert got is not None and close(got, sliced, sliced.swapaxes(-1, -2))
    row = normal((6, 6), np.float64)[:, 2:3].T  # one row, of elements far apart
    got = mkl.gemm(row, np.eye(6))
    assert got is not None and np.array_equal(got, row)


def test_gemm_leaves_the_rest() -> None:
    x = np.ones((3, 3), np.float32)
    unaligned = np.frombuffer(b"\0" * 37, np.uint8)[1:].view(np.float32).reshape(3, 3)
    frozen = np.ones((3, 3), np.float32)
    frozen.setflags(write=False)
    for a, b in [
        (x, x.astype(np.float64)),
        (x.astype(np.int32), x.astype(np.int32)),
        (x.astype(">f4"), x.astype(">f4")),
        (unaligned, x),
        (lay_out(x, "strided"), x),
        (lay_out(x, "reversed"), x),
        (np.broadcast_to(np.float32(1), (3, 3)), x),
        (np.lib.stride_tricks.sliding_window_view(np.ones(5, np.float32), 3), x),
        (x[0], x),
        (x, x[:2]),
        (np.ones((2, 3, 3), np.float32), x),
        (np.broadcast_to(x, (2, 3, 3)), np.ones((2, 3, 3), np.float32)),
        (x[:0], x),
        (x[:, :0], x[:0]),
        (x.tolist(), x),
    ]:
        assert mkl.gemm(a, b) is None  # type: ignore[arg-type]
    for out in (x, x[:2], x.astype(np.float64), np.ones((3, 6), np.float32)[:, ::2], frozen):
        assert mkl.gemm(x, x, out) is None


WAYS = [*TAKEN, "strided", "reversed"]


@pytest.mark.usefixtures("_either")
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=60)
@given(
    shapes=st.sampled_from(
        [
            ((80, 90), (90, 70)),
            ((1, 600), (600, 600)),
            ((600, 600), (600, 1)),
            ((9, 40, 50), (50, 60)),
            ((2, 5, 40, 50), (50, 60)),
            ((9, 40, 50), (9, 50, 60)),
            ((2, 5, 40, 50), (2, 5, 50, 60)),
            ((2, 1, 40, 50), (5, 50, 60)),
            ((40, 50), (9, 50, 60)),
            ((2, 3), (3, 4)),
            ((0, 600), (600, 900)),
            ((600, 0), (0, 900)),
        ]
    ),
    ways=st.tuples(st.sampled_from(WAYS), st.sampled_from(WAYS)),
    dtypes=st.tuples(st.sampled_from(FLOATS), st.sampled_from(FLOATS)),
)
def test_matmul(
    shapes: tuple[tuple[int, ...], tuple[int, ...]], ways: tuple[str, str], dtypes: tuple[type, type]
) -> None:
    a, b = (lay_out(normal(*of), way) for of, way in zip(zip(shapes, dtypes, strict=True), ways, strict=True))
    got, expected = kernels.matmul(a, b), np.matmul(a, b)
    assert got.shape == expected.shape and got.dtype == expected.dtype
    assert close(got, a, b)


@pytest.mark.usefixtures("_either")
@pytest.mark.parametrize(
    ("a", "b"),
    [
        (np.ones(600), np.ones(600)),
        (np.ones((600, 600)), np.ones(600)),
        (np.ones(600), np.ones((600, 600))),
        (np.ones(600), np.ones((3, 600, 600))),
        (np.ones((70, 70), np.int64), np.ones((70, 70), np.int64)),
        (np.ones((70, 70), np.complex64), np.ones((70, 70), np.float32)),
        ([[1.0, 2.0]], [[3.0], [4.0]]),
        (np.ones((70, 70), bool), np.ones((70, 70), bool)),
        (np.ones((70, 70), np.float16), np.ones((70, 70), np.float16)),
    ],
    ids=lambda x: f"{getattr(x, 'dtype', 'list')}-{np.shape(x)}",
)
def test_matmul_of_whatever_numpy_takes(a: object, b: object) -> None:
    got, expected = kernels.matmul(a, b), np.matmul(a, b)  # type: ignore[call-overload]
    assert type(got) is type(expected) and got.dtype == expected.dtype and np.array_equal(got, expected)


@pytest.mark.usefixtures("_either")
@pytest.mark.parametrize(
    ("a", "b"),
    [
        (np.ones((80, 90)), np.ones((80, 90))),
        (np.ones((9, 80, 90)), np.ones((80, 90))),
        (np.ones((9, 80, 90)), np.ones((8, 90, 70))),
        (np.ones((9, 80, 90)), np.float64(1)),
        (np.ones((9, 80, 90)), 2.0),
    ],
    ids=lambda x: str(np.shape(x)),
)
def test_matmul_refuses_what_numpy_refuses(a: np.ndarray, b: np.ndarray) -> None:
    with pytest.raises(ValueError, match=r"matmul|broadcast") as by_numpy:
        np.matmul(a, b)
    with pytest.raises(ValueError, match=f"^{re.escape(str(by_numpy.value))}$"):
        kernels.matmul(a, b)


@pytest.mark.usefixtures("_either")
@pytest.mark.parametrize("shape", [(2, 3, 4), (70, 80, 90)])
def test_matmul_add(shape: tuple[int, int, int]) -> None:
    m, k, n = shape
    a, b, start = normal((m, k), np.float32), normal((k, n), np.float32), normal((m, n), np.float32)
    for way in ("plain", "padded", "strided"):
        out = lay_out(start.copy(), way)
        assert kernels.matmul_add(a, b, out) is out
        assert np.allclose(out, start + a @ b, rtol=1e-4, atol=1e-4)
    alias = normal((80, 80), np.float32)
    expected = alias + alias @ alias
    assert np.allclose(kernels.matmul_add(alias, alias, alias), expected, rtol=1e-4, atol=1e-4)


@needs_mkl
def test_large_operands_go_to_mkl_and_small_ones_do_not(monkeypatch: pytest.MonkeyPatch) -> None:
    called: list[str] = []
    monkeypatch.setattr(mkl, "gemm", lambda a, b: called.append("gemm"))
    monkeypatch.setattr(mkl, "elementwise", lambda name, x, out=None: called.append(name))
    kernels.matmul(np.ones((4, 4)), np.ones((4, 4)))
    for name in NAMES:
        getattr(kernels, name)(np.ones(1))
    assert called == []
    kernels.matmul(np.ones((64, 64)), np.ones((64, 64)))
    assert called == []
    monkeypatch.setattr(kernels, "MATMUL", 64**3)
    kernels.matmul(np.ones((64, 63)), np.ones((63, 64)))
    assert called == []
    kernels.matmul(np.ones((64, 64)), np.ones((64, 64)))
    assert called == ["gemm"]
    for name, bounds in thresholds.ELEMENTWISE.items():
        for dtype, least in zip(FLOATS, bounds, strict=True):
            if least <= 1 << 22:
                getattr(kernels, name)(np.ones(least - 1, dtype))
                assert name not in called[1:]
                getattr(kernels, name)(np.ones(least, dtype))
                assert called[1:] == [name]
                del called[1:]


def test_every_function_of_mkl_has_a_kernel_and_a_threshold() -> None:
    assert set(mkl.FUNCTIONS) == set(thresholds.ELEMENTWISE) == set(kernels.__all__) - {"matmul", "matmul_add"}


# --- threads and processes ----------------------------------------------------------------------------------------


@pytest.mark.usefixtures("_either")
def test_from_many_threads() -> None:
    a, x = normal((120, 120), np.float32), generator.uniform(0.1, 1, 1 << 16)
    product, values = kernels.matmul(a, a), kernels.exp(x)
    right: list[bool] = []
    use_mkl = mkl.requested().use

    def work() -> None:
        with config.override(use_mkl=use_mkl):
            for _ in range(10):
                same = np.array_equal(kernels.matmul(a, a), product) and np.array_equal(kernels.exp(x), values)
                right.append(same)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(right) == 40 and all(right)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
@pytest.mark.usefixtures("_either")
def test_after_a_fork() -> None:
    a, x = normal((300, 300), np.float64), generator.uniform(0.1, 1, 1 << 17)
    product, values = kernels.matmul(a, a), kernels.exp(x)
    with warnings.catch_warnings():
        # Python warns of a fork beside threads, which MKL's and NumPy's pools are; so does JAX, if a test has used it.
        warnings.simplefilter("ignore", DeprecationWarning)
        warnings.simplefilter("ignore", RuntimeWarning)
        child = os.fork()
    if child == 0:
        try:
            right = np.array_equal(kernels.matmul(a, a), product) and np.array_equal(kernels.exp(x), values)
            os._exit(0 if right else 3)
        finally:
            os._exit(4)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0
    assert np.array_equal(kernels.matmul(a, a), product)


@needs_mkl
@pytest.mark.parametrize("offset", [1, 3, 5])
def test_a_product_does_not_depend_on_where_its_operands_lie(offset: int) -> None:
    a, b = normal((150, 170), np.float32), normal((170, 130), np.float32)
    room = np.empty(a.size + 16, np.float32)
    moved = room[offset : offset + a.size].reshape(a.shape)
    moved[:] = a
    first, second = mkl.gemm(a, b), mkl.gemm(moved, b)
    assert first is not None and second is not None and np.array_equal(first, second)
