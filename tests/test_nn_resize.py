"""Pools to a given size, pools that tell where, the way back from them, and larger images; PyTorch beside each."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from nn_laws import (
    alone,
    channels_first,
    check_both_against_torch,
    check_jit,
    check_layer_jitted,
    made,
    normal,
    ragged,
)

import fnflare as ff
from fnflare import nn
from fnflare.errors import ArgumentError, DtypeError, ShapeError
from fnflare.testing import check_grads, check_vmap

LAYERS = {
    "LpPool": (nn.LpPool(3, (2, 2), strides=1), (2, 4, 3, 2)),
    "AvgPool with a rest": (nn.AvgPool((2, 3), padding=((1, 1), (0, 1)), ceil_mode=True), (2, 5, 4, 2)),
    "MaxPool with holes": (nn.MaxPool((2, 2), dilation=(2, 1)), (2, 6, 4, 2)),
    "MaxPool with a rest": (nn.MaxPool(3, strides=2, ceil_mode=True), (2, 6, 2)),
    "LpPool 2, padded": (nn.LpPool(2, 3, padding="SAME"), (2, 5, 2)),
    "AdaptiveAvgPool": (nn.AdaptiveAvgPool((3, 2)), (2, 7, 4, 2)),
    "AdaptiveMaxPool": (nn.AdaptiveMaxPool((3, 2)), (2, 7, 4, 2)),
    "AdaptiveMaxPool of more parts than positions": (nn.AdaptiveMaxPool(5), (2, 3, 2)),
    "AdaptiveAvgPool of one axis alone": (nn.AdaptiveAvgPool((None, 3)), (2, 3, 5, 2)),
    "nearest": (nn.Upsample(2), (2, 3, 2, 2)),
    "nearest to a size": (nn.Upsample(size=(5, 3)), (2, 3, 2, 2)),
    "bilinear": (nn.Upsample(2, mode="linear"), (2, 3, 2, 2)),
    "bilinear, corners": (nn.Upsample(size=(5, 3), mode="linear", align_corners=True), (2, 3, 2, 2)),
    "bicubic": (nn.Upsample(1.5, mode="cubic"), (2, 3, 2, 2)),
    "PixelShuffle": (nn.PixelShuffle(2), (2, 3, 2, 8)),
    "PixelUnshuffle": (nn.PixelUnshuffle(2), (2, 4, 6, 2)),
}


@pytest.mark.parametrize("name", LAYERS)
def test_every_layer_keeps_the_laws(name):
    layer, shape = LAYERS[name]
    check_layer_jitted(layer, normal(*shape))


def beside_torch(layer, torch_f, x):
    """A layer without parameters beside PyTorch's function, which has the channels first."""
    check_both_against_torch(layer.apply, lambda _, x: channels_first(torch_f)(x), (), x)


# -- pools ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("p", [1, 2, 3])
def test_lp_pool_is_torchs(p):
    torch = pytest.importorskip("torch", reason="PyTorch is the oracle")
    F = torch.nn.functional
    # PyTorch's raises numbers to the power as they are, so that it is a norm of positive ones alone.
    beside_torch(nn.LpPool(p, (2, 3)), lambda x: F.lp_pool2d(x, p, (2, 3)), np.abs(normal(2, 5, 7, 3)))
    beside_torch(nn.LpPool(p, 3, strides=2), lambda x: F.lp_pool1d(x, p, 3, 2), np.abs(normal(2, 8, 3)))


def test_lp_pool_is_a_norm_of_negative_numbers_too():
    x = normal(1, 6, 2)
    expected = np.linalg.norm(x.reshape(1, 2, 3, 2), 3, axis=2)
    np.testing.assert_allclose(nn.LpPool(3, 3).apply((), x), expected, rtol=1e-12)


def test_a_window_of_zeros_has_a_gradient_of_zeros_and_nan_stays():
    for p in (1, 2, 2.5):
        layer = nn.LpPool(p, 2)
        value, grad = ff.value_and_grad(lambda x: np.sum(layer.apply((), x)))(np.zeros((1, 4, 1)))  # noqa: B023
        assert value == 0
        assert not grad.any()
        assert np.isnan(layer.apply((), np.array([[[np.nan], [1.0]]]))).all()


@pytest.mark.parametrize("size", [1, 2, 3, 4, 7, 9])
def test_adaptive_pools_are_torchs(size):
    torch = pytest.importorskip("torch", reason="PyTorch is the oracle")
    F = torch.nn.functional
    line, plane, solid = normal(2, 7, 3), normal(2, 7, 6, 2), normal(1, 4, 5, 3, 2)
    beside_torch(nn.AdaptiveAvgPool(size), lambda x: F.adaptive_avg_pool1d(x, size), line)
    beside_torch(nn.AdaptiveMaxPool(size), lambda x: F.adaptive_max_pool1d(x, size), line)
    beside_torch(nn.AdaptiveAvgPool((size, 2)), lambda x: F.adaptive_avg_pool2d(x, (size, 2)), plane)
    beside_torch(nn.AdaptiveMaxPool((size, 4)), lambda x: F.adaptive_max_pool2d(x, (size, 4)), plane)
    beside_torch(nn.AdaptiveMaxPool((None, size)), lambda x: F.adaptive_max_pool2d(x, (None, size)), plane)
    beside_torch(nn.AdaptiveAvgPool((2, size, 2)), lambda x: F.adaptive_avg_pool3d(x, (2, size, 2)), solid)
    beside_torch(nn.AdaptiveMaxPool((3, size, 2)), lambda x: F.adaptive_max_pool3d(x, (3, size, 2)), solid)


@pytest.mark.parametrize("make", [nn.AdaptiveAvgPool, nn.AdaptiveMaxPool])
def test_adaptive_pools_of_padded_images_cut_each_at_its_own_length(make):
    values, lengths = normal(3, 5, 4, 2), np.array([5, 2, 3])
    batch = nn.Padded(np.where(np.arange(5)[:, None, None] < lengths[:, None, None, None], values, 1e3), lengths)
    for size in ((2, 3), (3, None)):
        y = make(size).apply((), batch)
        for i in range(3):
            np.testing.assert_allclose(y[i : i + 1], make(size).apply((), alone(batch, i)), rtol=1e-12)


@pytest.mark.parametrize("layer", [nn.MaxPool((2, 3)), nn.AvgPool((2, 2), ceil_mode=True), nn.Conv(4, (3, 2))])
def test_windows_over_padded_images_see_each_at_its_own_length(layer):
    values, lengths = normal(2, 7, 5, 3), np.array([7, 5])
    batch = nn.Padded(np.where(np.arange(7)[:, None, None] < lengths[:, None, None, None], values, 1e3), lengths)
    params = made(layer, values.shape)[1]
    out = layer.apply(params, batch)
    for i, n in enumerate(out.lengths):
        expected = layer.apply(params, alone(batch, i))
        assert n == expected.shape[1]
        np.testing.assert_allclose(out.values[i : i + 1, :n], expected, rtol=1e-10, atol=1e-12)


def test_one_part_is_a_global_pool():
    x = normal(2, 5, 4, 3)
    average, largest = nn.AdaptiveAvgPool((1, 1)).apply((), x), nn.AdaptiveMaxPool((1, 1)).apply((), x)
    np.testing.assert_allclose(average[:, 0, 0], nn.GlobalAvgPool.apply((), x), rtol=1e-12)
    np.testing.assert_array_equal(largest[:, 0, 0], nn.GlobalMaxPool.apply((), x))


def test_infinite_elements_stay_in_their_part():
    x = np.array([[[1.0], [2.0], [np.inf], [3.0], [4.0]]])
    np.testing.assert_array_equal(nn.AdaptiveAvgPool(3).apply((), x).ravel(), [1.5, np.inf, 3.5])
    np.testing.assert_array_equal(nn.AdaptiveMaxPool(3).apply((), -x).ravel(), [-1, -2, -3])


@st.composite
def pools(draw):
    """A window, its strides and padding, and the size of an input that it fits."""
    rank = draw(st.integers(1, 3))
    window = tuple([draw(st.integers(1, 3)) for _ in range(rank)])
    strides = tuple([draw(st.integers(1, 3)) for _ in range(rank)])
    low = [draw(st.integers(0, k // 2)) for k in window]
    spatial = tuple([k + draw(st.integers(0, 3)) for k in window])
    return window, strides, low, spatial


@given(pools(), st.booleans(), st.integers(1, 2))
def test_indices_of_maxima_are_torchs(pool, ceil_mode, dilation):
    torch = pytest.importorskip("torch", reason="PyTorch is the oracle")
    window, strides, low, spatial = pool
    spatial = tuple([n + (dilation - 1) * (k - 1) for n, k in zip(spatial, window, strict=True)])
    x = normal(2, *spatial, 2)
    settings = {"strides": strides, "padding": [(n, n) for n in low], "ceil_mode": ceil_mode, "dilation": dilation}
    layer = nn.MaxPool(window, **settings, return_indices=True)
    values, indices = layer.apply((), x)
    np.testing.assert_array_equal(nn.MaxPool(window, **settings).apply((), x), values)
    f = getattr(torch.nn.functional, f"max_pool{len(window)}d_with_indices")
    expected, places = f(torch.tensor(x).movedim(-1, 1), window, strides, tuple(low), dilation, ceil_mode=ceil_mode)
    np.testing.assert_array_equal(values, expected.movedim(1, -1).numpy())
    np.testing.assert_array_equal(indices, places.movedim(1, -1).numpy())
    shapes, _ = layer.init(None, (-1, *x.shape[1:]))
    assert shapes == ((-1, *values.shape[1:]),) * 2


@given(pools(), st.booleans(), st.booleans())
def test_means_of_windows_that_stick_out_are_torchs(pool, ceil_mode, count_include_pad):
    torch = pytest.importorskip("torch", reason="PyTorch is the oracle")
    window, strides, low, spatial = pool
    settings = {"ceil_mode": ceil_mode, "count_include_pad": count_include_pad}
    layer = nn.AvgPool(window, strides=strides, padding=[(n, n) for n in low], **settings)
    f = getattr(torch.nn.functional, f"avg_pool{len(window)}d")
    beside_torch(layer, lambda x: f(x, window, strides, tuple(low), **settings), normal(2, *spatial, 2))
    out = layer.init(None, (-1, *spatial, 2))[0]
    assert out == (-1, *layer.apply((), np.ones((1, *spatial, 2))).shape[1:])
    assert all(type(n) is int for n in out)


def test_sums_of_windows_are_means_times_their_number():
    x = normal(2, 7, 6, 3)
    layer, mean = nn.SumPool((3, 2), strides=2), nn.AvgPool((3, 2), strides=2)
    np.testing.assert_allclose(layer.apply((), x), 6 * mean.apply((), x), rtol=1e-12)
    rest = nn.SumPool(2, ceil_mode=True).apply((), x[:, :, 0])
    np.testing.assert_array_equal(rest[:, 3], x[:, 6, 0])


def test_a_norm_of_a_rest_is_that_of_what_is_there():
    x = normal(1, 5, 2)
    y = nn.LpPool(3, 3, ceil_mode=True).apply((), x)
    np.testing.assert_allclose(y[:, 1], np.linalg.norm(x[:, 3:], 3, axis=1), rtol=1e-12)
    np.testing.assert_array_equal(y[:, :1], nn.LpPool(3, 3).apply((), x))


def test_a_rest_within_the_padding_alone_has_no_window():
    # The third window would start at the padding after the input.
    assert nn.MaxPool(2, padding=[(1, 1)], ceil_mode=True).init(None, (-1, 3, 1))[0] == (-1, 2, 1)
    assert nn.MaxPool(2, ceil_mode=True).init(None, (-1, -1, 3))[0] == (-1, -1, 3)
    assert nn.AvgPool(3, strides=2, ceil_mode=True, padding="SAME").init(None, (-1, 4, 3))[0] == (-1, 2, 3)


def test_windows_of_the_least_number_have_an_index_within():
    layer = nn.MaxPool(3, padding=((1, 1),), return_indices=True)
    values, indices = layer.apply((), np.full((1, 4, 1), -np.inf))
    np.testing.assert_array_equal(values.ravel(), [-np.inf, -np.inf])
    np.testing.assert_array_equal(indices.ravel(), [0, 2])


def test_maxima_with_indices_have_the_gradient_of_the_maxima():
    x = normal(2, 6, 5, 3)
    plain, told = nn.MaxPool((2, 2), strides=1), nn.MaxPool((2, 2), strides=1, return_indices=True)
    expected = ff.grad(lambda x: np.sum(np.sin(plain.apply((), x))))(x)
    got = ff.grad(lambda x: np.sum(np.sin(told.apply((), x)[0])))(x)
    np.testing.assert_allclose(got, expected, rtol=1e-12)
    check_grads(lambda x: told.apply((), x)[0], (x,), order=2)
    check_vmap(lambda x: told.apply((), x), (np.stack([x, x[::-1]]),))
    check_jit(lambda x: told.apply((), x)[0], x)
    tie = ff.grad(lambda x: np.sum(told.apply((), x)[0]))(np.ones((1, 2, 2, 1)))
    np.testing.assert_array_equal(tie.ravel(), [1, 0, 0, 0])


@given(pools())
def test_unpooling_is_torchs(pool):
    torch = pytest.importorskip("torch", reason="PyTorch is the oracle")
    window, _, _, spatial = pool
    x = normal(2, *spatial, 2)
    values, indices = nn.MaxPool(window, return_indices=True).apply((), x)
    layer = nn.MaxUnpool(window, size=spatial)
    t_values = torch.tensor(np.moveaxis(values, -1, 1), requires_grad=True)
    f = getattr(torch.nn.functional, f"max_unpool{len(window)}d")
    t_y = f(t_values, torch.tensor(np.moveaxis(indices, -1, 1)), window, output_size=spatial)
    y, pull = ff.vjp(lambda v: layer.apply((), (v, indices)), values)
    np.testing.assert_array_equal(y, t_y.detach().movedim(1, -1).numpy())
    ct = normal(*y.shape, seed=4)
    t_y.backward(torch.tensor(np.moveaxis(ct, -1, 1)))
    np.testing.assert_array_equal(pull(ct)[0], t_values.grad.movedim(1, -1).numpy())


def test_unpooling_puts_maxima_back():
    x = np.abs(normal(2, 6, 4, 3))
    pooled = nn.MaxPool((3, 2), return_indices=True).apply((), x)
    layer = nn.MaxUnpool((3, 2))
    back = layer.apply((), pooled)
    assert back.shape == x.shape == layer.init(None, (pooled[0].shape, pooled[1].shape))[0]
    np.testing.assert_array_equal(nn.MaxPool((3, 2)).apply((), back), pooled[0])
    assert np.array_equal(back[back > 0], x[back > 0])
    both = nn.serial(nn.MaxPool((3, 2), return_indices=True), nn.MaxUnpool((3, 2)))
    np.testing.assert_array_equal(both.apply(((), ()), x), back)
    check_jit(lambda x: both.apply(((), ()), x), x)
    check_vmap(lambda x: both.apply(((), ()), x), (np.stack([x, x[::-1]]),))


# -- larger images --------------------------------------------------------------------------------

NAMES = {1: "linear", 2: "bilinear", 3: "trilinear"}
IMAGES = [normal(2, 5, 3), normal(2, 4, 3, 2), normal(1, 3, 2, 4, 2)]


@pytest.mark.parametrize("x", IMAGES, ids=["1-D", "2-D", "3-D"])
@pytest.mark.parametrize("scale", [2, 3, 1.5, 0.7])
def test_upsampling_by_a_scale_is_torchs(x, scale):
    torch = pytest.importorskip("torch", reason="PyTorch is the oracle")
    f, rank = torch.nn.functional.interpolate, x.ndim - 2
    for mode in ("nearest", "nearest-exact"):
        layer = nn.Upsample(scale, mode=mode)
        beside_torch(layer, lambda x, mode=mode: f(x, scale_factor=scale, mode=mode), x)
    mode = NAMES[rank]
    linear = nn.Upsample(scale, mode="linear")
    beside_torch(linear, lambda x: f(x, scale_factor=scale, mode=mode, align_corners=False), x)
    corners = nn.Upsample(scale, mode="linear", align_corners=True)
    beside_torch(corners, lambda x: f(x, scale_factor=scale, mode=mode, align_corners=True), x)


@pytest.mark.parametrize("size", [(1, 1), (2, 7), (4, 3), (9, 5)])
def test_upsampling_to_a_size_is_torchs(size):
    torch = pytest.importorskip("torch", reason="PyTorch is the oracle")
    f, x = torch.nn.functional.interpolate, IMAGES[1]
    beside_torch(nn.Upsample(size=size), lambda x: f(x, size=size, mode="nearest"), x)
    for corners in (False, True):
        for mode in ("linear", "cubic"):
            layer = nn.Upsample(size=size, mode=mode, align_corners=corners)
            beside_torch(layer, lambda x, m="bi" + mode, c=corners: f(x, size=size, mode=m, align_corners=c), x)


@pytest.mark.parametrize("scale", [2, 3, 1.5, 0.7])
def test_cubic_upsampling_by_a_scale_is_torchs(scale):
    torch = pytest.importorskip("torch", reason="PyTorch is the oracle")
    f = torch.nn.functional.interpolate
    for corners in (False, True):
        layer = nn.Upsample(scale, mode="cubic", align_corners=corners)
        told = {"scale_factor": scale, "mode": "bicubic", "align_corners": corners}
        beside_torch(layer, lambda x, told=told: f(x, **told), IMAGES[1])


def test_the_function_and_the_layer_are_one():
    x = IMAGES[1]
    np.testing.assert_array_equal(nn.upsample(x, (2, 3)), nn.Upsample((2, 3)).apply((), x))
    np.testing.assert_array_equal(nn.upsample(x, 1), x)


def test_what_is_linear_stays_linear():
    x = np.arange(5.0).reshape(1, 5, 1)
    y = nn.upsample(x, size=9, mode="linear", align_corners=True)
    np.testing.assert_allclose(y.ravel(), np.arange(0, 4.5, 0.5), rtol=1e-12)


@pytest.mark.parametrize("factor", [1, 2, 3])
def test_pixel_shuffle_is_torchs(factor):
    torch = pytest.importorskip("torch", reason="PyTorch is the oracle")
    F = torch.nn.functional
    beside_torch(nn.PixelShuffle(factor), lambda x: F.pixel_shuffle(x, factor), normal(2, 3, 2, 2 * factor**2))
    image = normal(2, 2 * factor, 3 * factor, 2)
    beside_torch(nn.PixelUnshuffle(factor), lambda x: F.pixel_unshuffle(x, factor), image)


@given(st.integers(1, 3), st.integers(1, 3))
def test_unshuffling_is_the_way_back_from_shuffling(rank, factor):
    x = normal(2, *[2, 3, 1][:rank], 2 * factor**rank)
    y = nn.pixel_shuffle(x, factor)
    assert y.shape == nn.PixelShuffle(factor).init(None, x.shape)[0]
    np.testing.assert_array_equal(nn.pixel_unshuffle(y, factor), x)


# -- images read at places ------------------------------------------------------------------------


@pytest.mark.parametrize("align_corners", [False, True])
@pytest.mark.parametrize("padding_mode", ["zeros", "border"])
@pytest.mark.parametrize("mode", ["linear", "nearest"])
@pytest.mark.parametrize("sizes", [((4, 3), (2, 5)), ((2, 3, 4), (2, 1, 3))])
def test_images_read_at_places_are_torchs(sizes, mode, padding_mode, align_corners):
    torch = pytest.importorskip("torch", reason="PyTorch is the oracle")
    spatial, out = sizes
    x, grid = normal(2, *spatial, 2), 0.9 * normal(2, *out, len(out), seed=3)
    settings = {"padding_mode": padding_mode, "align_corners": align_corners}

    def torch_f(params, x):
        read = torch.nn.functional.grid_sample
        t_mode = "bilinear" if mode == "linear" else mode  # of three axes too
        return channels_first(read)(x, params["grid"], mode=t_mode, **settings)

    def f(params, x):
        return nn.grid_sample(x, params["grid"], mode=mode, **settings)

    check_both_against_torch(f, torch_f, {"grid": grid}, x)
    if len(spatial) == 2:
        check_jit(f, {"grid": grid}, x)
        check_vmap(lambda x, grid: f({"grid": grid}, x), (np.stack([x, x[::-1]]), np.stack([grid, -grid])))


@pytest.mark.parametrize("align_corners", [False, True])
@pytest.mark.parametrize("size", [(3, 4), (1, 5), (2, 3, 4)])
# PyTorch warns that an axis of one element was treated otherwise once.
@pytest.mark.filterwarnings("ignore:Since version 1.3.0:UserWarning")
def test_affine_places_are_torchs(size, align_corners):
    torch = pytest.importorskip("torch", reason="PyTorch is the oracle")
    f = torch.nn.functional.affine_grid
    theta = normal(2, len(size), len(size) + 1)
    check_both_against_torch(
        lambda _, theta: nn.affine_grid(theta, size, align_corners=align_corners),
        lambda _, theta: f(theta, (2, 1, *size), align_corners),
        (),
        theta,
    )


def test_the_places_of_the_identity_read_the_image():
    x, identity = normal(2, 4, 3, 2), np.tile(np.eye(2, 3), (2, 1, 1))
    for corners in (False, True):
        grid = nn.affine_grid(identity, (4, 3), align_corners=corners)
        np.testing.assert_allclose(nn.grid_sample(x, grid, align_corners=corners), x, atol=1e-12)


def test_a_place_that_is_no_number_gives_none():
    x, grid = np.ones((1, 4, 1)), np.array([[[np.nan], [0.0], [np.inf], [-1e300]]])
    with np.errstate(invalid="ignore"):
        y = nn.grid_sample(x, grid).ravel()
        nearest = nn.grid_sample(x, grid, mode="nearest").ravel()
    np.testing.assert_array_equal(y, [np.nan, 1.0, np.nan, 0.0])
    np.testing.assert_array_equal(nearest, [0.0, 1.0, 0.0, 0.0])


def test_places_that_do_not_fit_are_named():
    x, grid = normal(2, 4, 3, 2), normal(2, 5, 2)
    with pytest.raises(ArgumentError, match="grid_sample: mode must be one of 'linear', 'nearest', got 'cubic'"):
        nn.grid_sample(x, grid, mode="cubic")
    with pytest.raises(ArgumentError, match="padding_mode must be one of 'zeros', 'border', got 'reflection'"):
        nn.grid_sample(x, grid, padding_mode="reflection")
    for bad in (grid[..., :1], grid[:1], grid[0, 0]):
        with pytest.raises(ShapeError, match=r"grid_sample expected images .* a place along each of their k axes"):
            nn.grid_sample(x, bad)
    with pytest.raises(ShapeError, match=r"theta has the shape \(N, 2, 3\), got \(2, 3, 3\)"):
        nn.affine_grid(np.ones((2, 3, 3)), (4, 4))


# -- shapes and errors ----------------------------------------------------------------------------


def test_free_dimensions_stay_free_or_become_known():
    assert nn.AdaptiveAvgPool((3, None)).init(None, (-1, -1, -1, 4))[0] == (-1, 3, -1, 4)
    assert nn.Upsample(2).init(None, (-1, -1, 4, 3))[0] == (-1, -1, 8, 3)
    assert nn.Upsample(size=6).init(None, (-1, -1, 3))[0] == (-1, 6, 3)
    assert nn.PixelShuffle(2).init(None, (-1, -1, 4, 8))[0] == (-1, -1, 8, 2)
    assert nn.PixelUnshuffle(2).init(None, (-1, -1, 4, 2))[0] == (-1, -1, 2, 8)
    assert nn.MaxUnpool(2).init(None, ((-1, -1, 3), (-1, -1, 3)))[0] == (-1, -1, 3)


def test_the_summary_names_them():
    model = nn.serial(
        pool=nn.MaxPool((2, 2), return_indices=True),
        back=nn.MaxUnpool((2, 2)),
        lp=nn.LpPool(2, (2, 2)),
        up=nn.Upsample(4, mode="linear"),
        fit=nn.AdaptiveMaxPool((4, 4)),
        wide=nn.PixelUnshuffle(2),
        thin=nn.PixelShuffle(4),
    )
    rows = nn.summary(model, (-1, 8, 8, 4)).rows
    assert [(r.kind, r.output_shape) for r in rows] == [
        ("MaxPool", ((-1, 4, 4, 4),) * 2),
        ("MaxUnpool", (-1, 8, 8, 4)),
        ("LpPool", (-1, 4, 4, 4)),
        ("Upsample", (-1, 16, 16, 4)),
        ("AdaptiveMaxPool", (-1, 4, 4, 4)),
        ("PixelUnshuffle", (-1, 2, 2, 16)),
        ("PixelShuffle", (-1, 8, 8, 1)),
    ]
    assert rows[0].flops == 4 * 4 * 4 * 4
    assert "((-1, 4, 4, 4), (-1, 4, 4, 4))" in str(nn.summary(model, (-1, 8, 8, 4)))


@pytest.mark.parametrize(
    ("layer", "inputs", "error", "message"),
    [
        (nn.AdaptiveAvgPool((2, 2)), normal(2, 5, 3), ShapeError, r"AdaptiveAvgPool expected inputs \(N, H, W, C\)"),
        (nn.AdaptiveMaxPool(2), normal(2, 0, 3), ShapeError, "at least one position"),
        (nn.AdaptiveMaxPool((2, 2)), ragged(2, 4, 3, [4, 2]), ShapeError, r"Pool expected .* got \(2, 4, 3\)"),
        (nn.Upsample(2), normal(2, 3), ShapeError, r"Upsample expected inputs \(N, ..., C\), got shape \(2, 3\)"),
        (nn.Upsample((2, 2)), normal(2, 5, 3), ShapeError, r"Upsample expected inputs \(N, n, n, C\)"),
        (nn.Upsample(0.1), normal(2, 5, 3), ShapeError, "there is nothing left"),
        (nn.Upsample(2), ragged(2, 4, 3, [4, 2]), ArgumentError, "resize them one by one"),
        (nn.Upsample(2), [1.0], ShapeError, r"expected inputs \(N, ..., C\), got list"),
        (nn.PixelShuffle(2), normal(2, 5, 4, 3), ShapeError, r"a multiple of 2\*\*2 channels, got shape"),
        (nn.PixelUnshuffle(2), normal(2, 5, 4, 3), ShapeError, "multiples of 2 positions along each axis"),
        (nn.MaxUnpool(2), normal(2, 5, 3), ShapeError, r"a pair \(values, indices\), both \(N, T, C\), got ndarray"),
        (nn.MaxUnpool(2), (normal(2, 5, 3), normal(2, 5)), ShapeError, r"got \(\(2, 5, 3\), \(2, 5\)\)"),
        (nn.MaxUnpool(2), (normal(2, 5, 3), normal(2, 5, 3)), DtypeError, "indices that are integers, got float64"),
        (nn.MaxUnpool(2), (normal(1, 2, 1), np.full((1, 2, 1), 9)), ArgumentError, "do not lie within an output of"),
        (nn.MaxPool(2, return_indices=True), ragged(2, 4, 3, [4, 2]), ArgumentError, "return_indices=True is for arr"),
    ],
)
def test_inputs_that_do_not_fit_are_named_with_the_layers_path(layer, inputs, error, message):
    with pytest.raises(error, match=f"^in layer 'hidden': .*{message}"):
        nn.serial(hidden=layer).apply({"hidden": ()}, inputs)


@pytest.mark.parametrize(
    ("layer", "shape", "message"),
    [
        (nn.AdaptiveAvgPool(2), (-1, 3), r"expected inputs \(N, T, C\), got input shape \(-1, 3\)"),
        (nn.Upsample(2), (-1, 3), r"expected inputs \(N, ..., C\)"),
        (nn.PixelShuffle(2), (-1, 3, 3, 6), r"2\*\*2 channels"),
        (nn.PixelUnshuffle(2), (-1, 3, 3, 6), "multiples of 2"),
        (nn.MaxUnpool(2), (-1, 3, 3), r"MaxPool\(..., return_indices=True\) gives one"),
    ],
)
def test_input_shapes_that_do_not_fit_are_named_with_the_layers_path(layer, shape, message):
    with pytest.raises(ShapeError, match=f"^in layer 'hidden': .*{message}"):
        nn.serial(hidden=layer).init(None, shape)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: nn.LpPool(0.5, 2), "LpPool: p must be a number and at least 1, got 0.5; for the maximum use MaxPool"),
        (lambda: nn.AdaptiveAvgPool(0), "AdaptiveAvgPool: size must be an integer and at least 1"),
        (lambda: nn.AdaptiveAvgPool(()), "size needs an integer for at least one axis"),
        (lambda: nn.Upsample(), "Upsample: give either scale, how many times as large, or size="),
        (lambda: nn.Upsample(2, size=3), "give either scale"),
        (lambda: nn.Upsample(-1), "scale must be a positive number"),
        (lambda: nn.Upsample(size=2.5), "size must be an integer"),
        (lambda: nn.Upsample(2, mode="area"), "mode must be one of 'nearest', .* 'cubic', got 'area'"),
        (lambda: nn.Upsample(2, align_corners=True), "align_corners=True is for mode='linear'"),
        (lambda: nn.PixelShuffle(0), "PixelShuffle: factor must be"),
        (lambda: nn.MaxUnpool(2, padding="SAME"), "'SAME' padding pools of several sizes .* give size="),
        (lambda: nn.MaxUnpool((2, 2), size=3), "size needs an integer for each of the 2 axes"),
    ],
)
def test_settings_are_checked_when_the_layer_is_made(make, message):
    with pytest.raises(ArgumentError, match=message):
        make()


def test_lp_pools_of_a_padded_batch():
    layer, batch = nn.LpPool(2, 3, strides=2, padding="CAUSAL"), ragged(3, 7, 2, [7, 3, 4])
    out = layer.apply((), batch)
    for i in range(3):
        expected = layer.apply((), batch.values[i : i + 1, : batch.lengths[i]])[0]
        np.testing.assert_allclose(out.values[i, : out.lengths[i]], expected, rtol=1e-12)
