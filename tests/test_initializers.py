"""Initialisers: their distributions, fans, dtypes and keys."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fnflare import nn, random
from fnflare.errors import ArgumentError, DtypeError, ShapeError
from fnflare.nn import initializers

KEY = random.key(7)
DENSE, CONV = (300, 200), (3, 5, 40, 50)

# The variance times the number that the fan in, the fan out or their mean gives.
SCALED: dict[str, tuple[initializers.Initializer, str, float]] = {
    "glorot_uniform": (initializers.glorot_uniform(), "avg", 1.0),
    "glorot_normal": (initializers.glorot_normal(), "avg", 1.0),
    "glorot_truncated_normal": (initializers.glorot_truncated_normal(), "avg", 1.0),
    "he_uniform": (initializers.he_uniform(), "in", 2.0),
    "he_normal": (initializers.he_normal(), "in", 2.0),
    "he_truncated_normal": (initializers.he_truncated_normal(), "in", 2.0),
    "lecun_uniform": (initializers.lecun_uniform(), "in", 1.0),
    "lecun_normal": (initializers.lecun_normal(), "in", 1.0),
    "lecun_truncated_normal": (initializers.lecun_truncated_normal(), "in", 1.0),
    "fan_out": (initializers.variance_scaling(3.0, "fan_out", "uniform"), "out", 3.0),
}
OTHERS: dict[str, initializers.Initializer] = {
    "zeros": initializers.zeros,
    "ones": initializers.ones,
    "constant": initializers.constant(0.1),
    "uniform": initializers.uniform(),
    "normal": initializers.normal(),
    "truncated_normal": initializers.truncated_normal(),
    "orthogonal": initializers.orthogonal(),
    "dirac": initializers.dirac(),
}
ALL = {**{name: init for name, (init, _, _) in SCALED.items()}, **OTHERS}


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("shape", [(3, 4), (2, 3, 4), (3, 0), (1, 1)])
def test_shape_dtype_and_key(name: str, dtype: Any, shape: tuple[int, ...]) -> None:
    w = ALL[name](KEY, shape, dtype)
    assert (w.shape, w.dtype) == (shape, dtype)
    assert np.array_equal(w, ALL[name](KEY, shape, dtype))
    assert ALL[name](KEY, shape).dtype == np.float32
    fixed = name in ("zeros", "ones", "constant", "dirac") or 0 in shape
    other = ALL[name](random.key(8), (5, 5), dtype)
    assert fixed or not np.array_equal(other, ALL[name](KEY, (5, 5), dtype))


@pytest.mark.parametrize("name", SCALED)
@pytest.mark.parametrize("shape", [DENSE, CONV])
def test_the_variance_is_the_scale_over_the_fan(name: str, shape: tuple[int, ...]) -> None:
    init, fan, scale = SCALED[name]
    window = math.prod(shape[:-2])
    fans = {"in": window * shape[-2], "out": window * shape[-1], "avg": window * (shape[-2] + shape[-1]) / 2}
    w = init(KEY, shape, np.float64)
    # Of n numbers the variance is off by about sqrt(2 / n) of itself and the mean by 1 / sqrt(n) of the deviation.
    assert np.var(w) == pytest.approx(scale / fans[fan], rel=5 * math.sqrt(2 / w.size))
    assert abs(np.mean(w)) < 5 * math.sqrt(scale / fans[fan] / w.size)


def test_tails() -> None:
    limit = math.sqrt(6 / 500)
    assert np.max(np.abs(initializers.glorot_uniform()(KEY, DENSE))) == pytest.approx(limit, rel=1e-3)
    stddev = math.sqrt(2 / 300)
    assert np.max(np.abs(initializers.he_normal()(KEY, DENSE))) > 3 * stddev
    # Widened to keep the variance, so that two deviations of the wider one are 2.27 of the result's.
    assert np.max(np.abs(initializers.he_truncated_normal()(KEY, DENSE))) == pytest.approx(2.2736 * stddev, rel=1e-3)


def test_plain_distributions() -> None:
    w = initializers.truncated_normal(0.5, -1.0, 3.0)(KEY, (100, 100))
    assert (np.min(w), np.max(w)) == (pytest.approx(-0.5, rel=1e-2), pytest.approx(1.5, rel=0.05))
    w = initializers.uniform(0.5)(KEY, (100, 100))
    assert (np.min(w), np.max(w)) == (pytest.approx(0, abs=1e-3), pytest.approx(0.5, rel=1e-3))
    assert np.std(initializers.normal(0.5)(KEY, (100, 100))) == pytest.approx(0.5, rel=0.05)
    assert np.unique(initializers.constant(0.1)(KEY, (3,))) == np.float32(0.1)


def test_fans_of_other_axes() -> None:
    turned = initializers.variance_scaling(1.0, "fan_in", "uniform", in_axis=0, out_axis=1)(KEY, (10, 20, 30))
    assert np.max(np.abs(turned)) == pytest.approx(math.sqrt(3 / (10 * 30)), rel=1e-2)


def test_strong_scalars_do_not_widen_float32() -> None:
    for init in (initializers.uniform, initializers.normal, initializers.truncated_normal, initializers.orthogonal):
        assert init(np.float64(0.1))(KEY, (2, 2)).dtype == np.float32
    assert initializers.variance_scaling(np.float64(1), "fan_in", "normal")(KEY, (2, 2)).dtype == np.float32


@given(shape=st.lists(st.integers(1, 6), min_size=2, max_size=4).map(tuple), axis=st.integers(-2, 1))
def test_orthogonal_has_orthonormal_rows_or_columns(shape: tuple[int, ...], axis: int) -> None:
    w = initializers.orthogonal(2.0, axis)(KEY, shape, np.float64)
    assert w.shape == shape
    matrix = np.moveaxis(w, axis, -1).reshape(-1, shape[axis])
    rows, columns = matrix.shape
    gram = matrix.T @ matrix if rows >= columns else matrix @ matrix.T
    assert np.allclose(gram, 4 * np.eye(min(rows, columns)), atol=1e-12)


def test_orthogonal_prefers_no_direction() -> None:
    draws = np.stack([initializers.orthogonal()(key, (3, 3), np.float64) for key in random.split(KEY, 400)])
    assert np.max(np.abs(np.mean(draws, axis=0))) < 5 / math.sqrt(3 * 400)
    assert 100 < np.sum(np.linalg.det(draws) > 0) < 300


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: initializers.glorot_uniform()(KEY, (3,)), ShapeError, r"\(3,\) has no inputs and outputs"),
        (lambda: initializers.orthogonal()(KEY, (3,)), ShapeError, "at least 2 dimensions"),
        (lambda: initializers.variance_scaling(0.0, "fan_in", "normal"), ArgumentError, "scale must be positive"),
        (lambda: initializers.variance_scaling(1.0, "fan", "normal"), ArgumentError, "'fan_in', 'fan_out' or"),
        (lambda: initializers.variance_scaling(1.0, "fan_in", "cauchy"), ArgumentError, "'uniform', 'normal' or"),
        (lambda: initializers.he_normal()(KEY, (3, 4), np.int32), DtypeError, "float32 or float64"),
    ],
)
def test_what_does_not_fit_is_named(make: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        make()


@pytest.mark.parametrize("window", [(), (3,), (2,), (3, 4)])
@pytest.mark.parametrize("channels", [(4, 4), (3, 5), (5, 3)])
def test_layers_that_begin_as_dirac_begin_as_the_identity(window: tuple[int, ...], channels: tuple[int, int]) -> None:
    inputs, outputs = channels
    init = initializers.dirac(2.0)
    layer = nn.Conv(outputs, window, W_init=init) if window else nn.Dense(outputs, W_init=init)
    x = np.random.default_rng(0).standard_normal((2, *[5] * len(window), inputs)).astype(np.float32)
    y = layer.apply(layer.init(KEY, x.shape)[1], x)
    shared = min(channels)
    np.testing.assert_allclose(y[..., :shared], 2 * x[..., :shared], rtol=1e-6)
    assert not y[..., shared:].any()


@pytest.mark.parametrize("shape", [(3, 4, 4), (2, 3, 2, 5)])
def test_delta_orthogonal_filters_are_orthogonal_in_their_centre_alone(shape: tuple[int, ...]) -> None:
    w = initializers.delta_orthogonal(0.5)(KEY, shape, np.float64)
    summed = w.reshape(-1, *shape[-2:]).sum(0)
    np.testing.assert_allclose(summed @ summed.T, 0.25 * np.eye(shape[-2]), atol=1e-12)
    assert np.count_nonzero(np.any(w.reshape(-1, shape[-2] * shape[-1]), axis=1)) == 1
    for bad in ((4, 4), (3, 5, 4)):
        with pytest.raises(ShapeError, match="no more inputs than outputs"):
            initializers.delta_orthogonal()(KEY, bad)


@pytest.mark.parametrize("sparsity", [0.0, 0.1, 0.5, 1.0])
def test_sparse_weights_have_a_share_of_zeros_for_each_output(sparsity: float) -> None:
    w = initializers.sparse(sparsity, 0.5)(KEY, (40, 30), np.float64)
    assert np.all(np.sum(w == 0, axis=0) == math.ceil(sparsity * 40))
    others = w[w != 0]
    if others.size:
        assert abs(np.std(others) - 0.5) < 0.05
        assert sparsity == 0 or len(np.unique(np.argmin(w == 0, axis=0))) > 1
    with pytest.raises(ArgumentError, match="sparsity must be from 0 to 1"):
        initializers.sparse(sparsity + 1.5)
    with pytest.raises(ShapeError, match=r"sparse: the shape must be \(inputs, outputs\)"):
        initializers.sparse(0.5)(KEY, (3, 4, 4))
