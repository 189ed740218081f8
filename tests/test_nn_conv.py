"""Convolutions of all kinds: in groups, transposed, of three axes, with borders; PyTorch beside each."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nn_laws import (
    alone,
    check_against_torch,
    check_both_against_torch,
    check_layer_jitted,
    made,
    normal,
    ragged,
)

import fnflare as ff
from fnflare import nn, ops, random, tree
from fnflare.errors import ArgumentError, MissingKeyError, ShapeError

LAYERS = {
    "groups 1-D": (nn.Conv(4, 3, groups=2), (2, 6, 6)),
    "groups 2-D": (nn.Conv(6, (3, 2), strides=(2, 1), groups=3), (2, 5, 4, 3)),
    "depthwise 1-D": (nn.DepthwiseConv(3, 2, padding="CAUSAL", dilation=2), (2, 6, 3)),
    "depthwise 2-D": (nn.DepthwiseConv((3, 3), strides=2), (2, 5, 4, 3)),
    "3-D": (nn.Conv(2, (2, 2, 3)), (2, 3, 3, 4, 2)),
    "reflect": (nn.Conv(2, (3, 3), padding_mode="reflect"), (2, 4, 5, 2)),
    "replicate": (nn.Conv(2, 3, padding="CAUSAL", padding_mode="replicate"), (2, 4, 2)),
    "circular": (nn.Conv(2, 4, padding_mode="circular"), (2, 4, 2)),
    "transposed 1-D": (nn.ConvTranspose(3, 3, strides=2), (2, 4, 2)),
    "transposed 2-D": (nn.ConvTranspose(4, (3, 2), strides=(2, 1), padding="VALID", groups=2), (2, 3, 4, 2)),
    "transposed 3-D": (nn.ConvTranspose(2, (2, 1, 2), strides=2), (2, 2, 3, 2, 2)),
}


@pytest.mark.parametrize("name", LAYERS)
def test_every_layer_keeps_the_laws(name):
    layer, shape = LAYERS[name]
    check_layer_jitted(layer, normal(*shape))


def torch_filters(w):
    """Filters in PyTorch's order: those of outputs first, then those of inputs."""
    rank = w.ndim - 2
    return w.permute(rank + 1, rank, *range(rank))


def torch_transposed_filters(w, groups):
    """The inputs first, all groups of them; the outputs of one group."""
    rank = w.ndim - 2
    parts = w.reshape(*w.shape[:-1], groups, -1)  # (*window, C / groups, groups, F / groups)
    return parts.permute(rank + 1, rank, rank + 2, *range(rank)).reshape(-1, w.shape[-1] // groups, *w.shape[:rank])


@pytest.mark.parametrize(
    ("layer", "shape", "torch_settings"),
    [
        (nn.Conv(4, 3, groups=2, padding="VALID"), (2, 7, 6), {"groups": 2}),
        (nn.Conv(6, (3, 2), groups=3, strides=2, padding="VALID"), (2, 7, 6, 3), {"groups": 3, "stride": 2}),
        (nn.Conv(8, (3, 3), groups=2), (2, 5, 6, 8), {"groups": 2, "padding": 1}),
        (nn.DepthwiseConv((3, 3), padding=((1, 1), (2, 2)), dilation=(1, 2)), (2, 5, 6, 5),
         {"groups": 5, "padding": (1, 2), "dilation": (1, 2)}),
        (nn.DepthwiseConv(5, 2, strides=2, padding="VALID"), (2, 9, 3), {"groups": 3, "stride": 2}),
        (nn.Conv(3, (2, 3, 2), padding="VALID", strides=(1, 2, 1)), (2, 4, 5, 3, 2), {"stride": (1, 2, 1)}),
        (nn.Conv(4, (3, 1, 3), groups=2), (2, 4, 2, 3, 2), {"groups": 2, "padding": (1, 0, 1)}),
        (nn.DepthwiseConv((2, 2, 2), padding="VALID"), (1, 3, 4, 3, 3), {"groups": 3}),
    ],
)  # fmt: skip
def test_groups_and_three_axes_are_torchs(layer, shape, torch_settings):
    torch = pytest.importorskip("torch", reason="PyTorch is the oracle")
    conv = getattr(torch.nn.functional, f"conv{len(shape) - 2}d")

    def torch_conv(p, x):
        return conv(x.movedim(-1, 1), torch_filters(p["W"]), p["b"], **torch_settings).movedim(1, -1)

    params = tree.map(lambda p: p + 0.1, made(layer, shape)[1])
    check_both_against_torch(layer.apply, torch_conv, params, normal(*shape))


@pytest.mark.parametrize(
    ("layer", "shape", "torch_settings"),
    [
        (nn.ConvTranspose(3, 3, padding="VALID"), (2, 4, 2), {}),
        (nn.ConvTranspose(3, 3, strides=2, padding=((1, 1),), output_padding=1), (2, 4, 2),
         {"stride": 2, "padding": 1, "output_padding": 1}),
        (nn.ConvTranspose(3, 2, strides=3, padding="VALID", output_padding=2), (2, 4, 2),
         {"stride": 3, "output_padding": 2}),
        (nn.ConvTranspose(3, 3, dilation=3, padding="VALID", output_padding=2), (2, 4, 2),
         {"dilation": 3, "output_padding": 2}),
        (nn.ConvTranspose(4, (3, 2), strides=(2, 1), padding=((1, 1), (0, 0)), dilation=(1, 2)), (2, 4, 5, 3),
         {"stride": (2, 1), "padding": (1, 0), "dilation": (1, 2)}),
        (nn.ConvTranspose(4, (4, 4), strides=2, groups=2), (2, 3, 4, 6), {"stride": 2, "padding": 1, "groups": 2}),
        (nn.ConvTranspose(6, (2, 3), strides=2, groups=3, padding="VALID", output_padding=(1, 0)), (2, 3, 2, 3),
         {"stride": 2, "groups": 3, "output_padding": (1, 0)}),
        (nn.ConvTranspose(2, (3, 3), padding=((2, 2), (2, 2))), (2, 5, 4, 2), {"padding": 2}),
        (nn.ConvTranspose(2, (2, 2, 3), strides=(1, 2, 2), padding="VALID"), (2, 2, 3, 2, 3), {"stride": (1, 2, 2)}),
        (nn.ConvTranspose(2, (3, 3, 3), strides=2, padding=((1, 1),) * 3, output_padding=1, groups=2), (1, 2, 3, 2, 2),
         {"stride": 2, "padding": 1, "output_padding": 1, "groups": 2}),
    ],
)  # fmt: skip
def test_transposed_convolutions_are_torchs(layer, shape, torch_settings):
    torch = pytest.importorskip("torch", reason="PyTorch is the oracle")
    conv = getattr(torch.nn.functional, f"conv_transpose{len(shape) - 2}d")
    groups = torch_settings.get("groups", 1)

    def torch_conv(p, x):
        return conv(x.movedim(-1, 1), torch_transposed_filters(p["W"], groups), p["b"], **torch_settings).movedim(1, -1)

    output_shape, params = made(layer, shape)
    params = tree.map(lambda p: p + 0.1, params)
    check_both_against_torch(layer.apply, torch_conv, params, normal(*shape))
    assert output_shape == layer.apply(params, normal(*shape)).shape


@pytest.mark.parametrize("mode", ["reflect", "replicate", "circular"])
@pytest.mark.parametrize("padding", ["SAME", ((2, 1), (0, 2))])
def test_borders_are_torchs(mode, padding):
    torch = pytest.importorskip("torch", reason="PyTorch is the oracle")
    layer = nn.Conv(4, (3, 3), padding=padding, padding_mode=mode)
    (top, bottom), (left, right) = ((1, 1), (1, 1)) if padding == "SAME" else padding

    def torch_conv(p, x):
        wide = torch.nn.functional.pad(x.movedim(-1, 1), (left, right, top, bottom), mode=mode)
        return torch.nn.functional.conv2d(wide, torch_filters(p["W"]), p["b"]).movedim(1, -1)

    check_both_against_torch(layer.apply, torch_conv, made(layer, (2, 4, 5, 3))[1], normal(2, 4, 5, 3))


def test_zeros_are_the_border_that_padding_has_anyway():
    plain, named = nn.Conv(4, 3), nn.Conv(4, 3, padding_mode="zeros")
    params = made(plain, (2, 5, 3))[1]
    np.testing.assert_array_equal(plain.apply(params, normal(2, 5, 3)), named.apply(params, normal(2, 5, 3)))


# -- laws -----------------------------------------------------------------------------------------


@st.composite
def geometries(draw):
    """Settings of a convolution, and the size of an input of it."""
    rank = draw(st.integers(1, 2))

    def each(low, high):
        return tuple(draw(st.lists(st.integers(low, high), min_size=rank, max_size=rank)))

    window, strides, dilation = each(1, 3), each(1, 3), each(1, 2)
    padding = tuple(zip(each(0, 2), each(0, 2), strict=True))
    spatial = tuple([(k - 1) * d + draw(st.integers(1, 5)) for k, d in zip(window, dilation, strict=True)])
    return window, spatial, {"strides": strides, "padding": padding, "dilation": dilation}


@given(geometries(), st.sampled_from([1, 2, 3]), st.integers(1, 2), st.integers(1, 3))
def test_a_grouped_convolution_is_one_of_each_group(geometry, groups, channels, filters):
    window, spatial, settings_ = geometry
    x = normal(2, *spatial, groups * channels)
    w = normal(*window, channels, groups * filters, seed=2)
    y = ops.conv(x, w, groups=groups, **settings_)
    parts = zip(np.split(x, groups, -1), np.split(w, groups, -1), strict=True)
    expected = np.concatenate([ops.conv(a, b, **settings_) for a, b in parts], -1)
    np.testing.assert_allclose(y, expected, rtol=1e-12, atol=1e-12)


@given(geometries(), st.sampled_from([1, 2]), st.data())
def test_a_transposed_convolution_is_the_adjoint_of_one(geometry, groups, data):
    """<conv(x), y> = <x, conv_transpose(y)>, where the layer is told how large x was."""
    window, spatial, settings_ = geometry
    x = normal(2, *spatial, 2 * groups)
    w = normal(*window, 2, 3 * groups, seed=2)
    y = ops.conv(x, w, groups=groups, **settings_)
    ct = normal(*y.shape, seed=3)
    # The filters of the way back go from the outputs of a group to its inputs.
    parts = [np.swapaxes(part, -1, -2) for part in np.split(w, groups, -1)]
    # What the strides leave over, and none of the padding at the end hides.
    full = [(n - 1) * s + (k - 1) * d + 1 for n, s, k, d in
            zip(y.shape[1:-1], settings_["strides"], window, settings_["dilation"], strict=True)]  # fmt: skip
    extra = tuple([n - (m - low - high) for n, m, (low, high) in
                   zip(spatial, full, settings_["padding"], strict=True)])  # fmt: skip
    layer = nn.ConvTranspose(2 * groups, window, output_padding=extra, groups=groups, bias=False, **settings_)
    back = layer.apply({"W": np.concatenate(parts, -1)}, ct)
    assert back.shape == x.shape
    np.testing.assert_allclose(np.vdot(back, x), np.vdot(ct, y), rtol=1e-10, atol=1e-10)


def test_depthwise_is_a_convolution_with_a_group_for_each_channel():
    shape = (2, 6, 5, 4)
    depthwise, grouped = nn.DepthwiseConv((3, 3), 2), nn.Conv(8, (3, 3), groups=4)
    assert depthwise.init(random.key(0), shape)[0] == grouped.init(random.key(0), shape)[0]
    params = made(depthwise, shape)[1]
    assert tree.equal(params, made(grouped, shape)[1])
    np.testing.assert_array_equal(depthwise.apply(params, normal(*shape)), grouped.apply(params, normal(*shape)))


def test_many_channels_are_convolved_together(monkeypatch):
    """The number of NumPy's calls does not grow with the number of channels."""
    from fnflare.kernels import conv as kernels

    calls = []
    multiply = np.multiply
    monkeypatch.setattr(kernels.np, "multiply", lambda *args, **kw: calls.append(1) or multiply(*args, **kw))
    for channels in (8, 512):
        layer = nn.DepthwiseConv((3, 3))
        params = made(layer, (1, 6, 6, channels))[1]
        calls.clear()
        layer.apply(params, normal(1, 6, 6, channels))
        assert len(calls) == 9


@settings(max_examples=10)
@given(st.sampled_from([1, 7, 100]), st.integers(1, 3))
def test_depthwise_blocks_of_examples_are_all_of_them(channels, count):
    layer = nn.DepthwiseConv((3, 3), count, strides=(1, 2))
    x = normal(40, 9, 9, channels)
    params = made(layer, x.shape)[1]
    y, pull = ff.vjp(layer.apply, params, x)
    ct = normal(*y.shape, seed=5)
    each = [ff.vjp(layer.apply, params, x[i : i + 1]) for i in range(40)]
    np.testing.assert_allclose(y, np.concatenate([value for value, _ in each]), rtol=1e-12, atol=1e-12)
    cts = [one(ct[i : i + 1]) for i, (_, one) in enumerate(each)]
    dp, dx = pull(ct)
    np.testing.assert_allclose(dx, np.concatenate([d for _, d in cts]), rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(dp["W"], sum(d["W"] for d, _ in cts), rtol=1e-10, atol=1e-10)


def test_examples_with_filters_of_their_own_in_groups():
    layer = nn.DepthwiseConv(3)
    x, w = normal(3, 2, 6, 4), normal(3, 3, 1, 4, seed=2)

    def apply(w, x):
        return layer.apply({"W": w, "b": np.zeros(4)}, x)

    together = ff.vmap(ff.grad(lambda w, x: np.sum(np.sin(apply(w, x))), argnums=(0, 1)))(w, x)
    for i in range(3):
        alone_ = ff.grad(lambda w, x: np.sum(np.sin(apply(w, x))), argnums=(0, 1))(w[i], x[i])
        for a, b in zip(together, alone_, strict=True):
            np.testing.assert_allclose(a[i], b, rtol=1e-12, atol=1e-12)


def test_convolutions_in_groups_are_native():
    pytest.importorskip("llvmlite")
    layer = nn.serial(nn.DepthwiseConv((3, 3)), nn.Conv(4, (3, 3), groups=2), nn.ConvTranspose(2, (4, 4), strides=2))
    params = made(layer, (2, 6, 6, 2))[1]

    def loss(p, x):
        return np.sum(np.sin(layer.apply(p, x)))

    assert "NumPy:" not in str(ff.jit(ff.grad(loss)).lower(params, normal(2, 6, 6, 2)))


# -- Padded batches -------------------------------------------------------------------------------

RAGGED = {
    "groups": nn.Conv(6, 3, groups=3),
    "depthwise causal": nn.DepthwiseConv(3, padding="CAUSAL", dilation=2),
    "circular, nothing around": nn.Conv(4, 3, padding="VALID", padding_mode="circular"),
    "transposed": nn.ConvTranspose(4, 4, strides=2),
    "transposed valid": nn.ConvTranspose(4, 3, strides=2, padding="VALID", output_padding=1),
    "transposed causal": nn.ConvTranspose(4, 3, strides=2, padding="CAUSAL"),
    "transposed cut": nn.ConvTranspose(4, 5, padding=((2, 1),)),
}


@pytest.mark.parametrize("name", RAGGED)
def test_a_padded_batch_gives_what_each_sequence_gives_alone(name):
    layer, batch = RAGGED[name], ragged(4, 7, 3, [7, 3, 6, 4])
    params = tree.map(lambda p: p + 0.3, made(layer, (-1, -1, 3))[1])
    out = layer.apply(params, batch)
    for i in range(4):
        expected = layer.apply(params, alone(batch, i))[0]
        assert out.lengths[i] == len(expected)
        np.testing.assert_allclose(out.values[i, : out.lengths[i]], expected, rtol=1e-12, atol=1e-12)
        assert not out.values[i, out.lengths[i] :].any()


def test_a_sequence_without_elements_stays_one():
    layer = nn.ConvTranspose(2, 3, strides=2, padding="VALID")
    params = made(layer, (-1, -1, 3))[1]
    out = layer.apply(params, ragged(2, 4, 3, [0, 4]))
    np.testing.assert_array_equal(out.lengths, [0, 9])
    assert not out.values[0].any()


def test_causal_transposed_convolutions_do_not_see_what_comes():
    layer = nn.ConvTranspose(2, 5, strides=2, padding="CAUSAL")
    params = made(layer, (1, 6, 3))[1]
    x = normal(1, 6, 3)
    later = np.concatenate([x[:, :3], normal(1, 3, 3, seed=9)], axis=1)
    y, z = layer.apply(params, x), layer.apply(params, later)
    assert y.shape == (1, 12, 2)
    np.testing.assert_array_equal(y[:, :6], z[:, :6])
    assert (y[:, 6:] != z[:, 6:]).all()


# -- shapes, errors, summaries --------------------------------------------------------------------


def test_same_padding_multiplies_the_size_by_the_stride():
    for window in (1, 2, 3, 4, 5):
        for stride in (1, 2, 3):
            layer = nn.ConvTranspose(2, window, strides=stride)
            shape, params = layer.init(random.key(0), (2, 5, 3))
            assert shape == layer.apply(params, np.ones((2, 5, 3), np.float32)).shape == (2, 5 * stride, 2)


def test_free_dimensions_stay_free():
    assert nn.ConvTranspose(4, 3, strides=2).init(random.key(0), (-1, -1, 3))[0] == (-1, -1, 4)
    assert nn.DepthwiseConv((3, 3)).init(random.key(0), (-1, -1, 8, 3))[0] == (-1, -1, 8, 3)


def test_the_summary_counts_the_products_of_each_group():
    model = nn.serial(
        depth=nn.DepthwiseConv((3, 3), 2), point=nn.Conv(6, (1, 1), groups=2), up=nn.ConvTranspose(5, (2, 2), strides=2)
    )
    rows = {r.path: r for r in nn.summary(model, (-1, 8, 8, 4)).rows}
    assert [r.kind for r in rows.values()] == ["DepthwiseConv", "Conv", "ConvTranspose"]
    assert rows["depth"].params == 9 * 8 + 8
    assert rows["depth"].flops == 64 * 8 * (2 * 9 + 1)
    assert rows["point"].flops == 64 * 6 * (2 * 4 + 1)
    assert rows["up"].flops == 64 * 6 * 2 * 4 * 5 + 16 * 16 * 5
    assert rows["up"].output_shape == (-1, 16, 16, 5)


@pytest.mark.parametrize(
    ("layer", "shape", "inputs", "message"),
    [
        (nn.Conv(4, 3, groups=2), (-1, -1, 4), (2, 9, 6), r"Conv expected inputs \(N, T, C\) with C = 4, got"),
        (nn.DepthwiseConv(3, 2), (-1, -1, 4), (2, 9, 6), r"DepthwiseConv expected .* with C = 4, got \(2, 9, 6\)"),
        (nn.Conv(4, 3, groups=2), (-1, -1, 4), (2, 9, 5), r"Conv expected inputs \(N, T, C\) with C = 4, got"),
        (nn.ConvTranspose(4, 3), (-1, -1, 4), (2, 9, 6), r"ConvTranspose expected .* with C = 4, got \(2, 9, 6\)"),
        (nn.ConvTranspose(4, (3, 3)), (-1, 5, 5, 4), (2, 9), r"ConvTranspose expected inputs \(N, H, W, C\)"),
        (nn.ConvTranspose(4, 3, padding=((4, 4),)), (-1, -1, 4), (2, 6, 4), "cuts everything off"),
        (nn.Conv(4, 5, padding_mode="reflect"), (-1, -1, 4), (2, 2, 4), r"\(2, 2, 4\) are too small .*replicate"),
        (nn.Conv(4, 7, padding_mode="circular"), (-1, -1, 4), (2, 2, 4), "are too small"),
    ],
)
def test_inputs_that_do_not_fit_are_named_with_the_layers_path(layer, shape, inputs, message):
    model = nn.serial(first=nn.Identity, hidden=nn.serial(layer))
    _, params = model.init(random.key(0), shape)
    with pytest.raises(ShapeError, match=f"^in layer 'hidden/0': .*{message}"):
        model.apply(params, np.zeros(inputs))


@pytest.mark.parametrize(
    ("layer", "shape", "message"),
    [
        (nn.Conv(4, 3, groups=2), (-1, -1, 5), "5 channels do not divide among 2 groups; choose groups= that divides"),
        (nn.ConvTranspose(4, 3, groups=2), (-1, -1, 5), "5 channels do not divide among 2 groups"),
        (nn.ConvTranspose(4, 3), (-1, 5), r"expected inputs \(N, T, C\), got input shape \(-1, 5\)"),
        (nn.ConvTranspose(4, 3, padding=((9, 9),)), (-1, 5, 5), "cuts everything off the outputs"),
        (nn.DepthwiseConv(3), (-1, -1, -1), "has to know the number of features"),
    ],
)
def test_input_shapes_that_do_not_fit_are_named_with_the_layers_path(layer, shape, message):
    with pytest.raises(ShapeError, match=f"^in layer 'hidden': .*{message}"):
        nn.serial(hidden=layer).init(random.key(0), shape)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: nn.Conv(4, 3, groups=0), "Conv: groups must be an integer and at least 1"),
        (lambda: nn.Conv(5, 3, groups=2), "Conv: filters=5 do not divide among groups=2"),
        (lambda: nn.Conv(4, 3, padding_mode="wrap"), "padding_mode must be one of 'zeros', 'reflect', 'replicate', 'c"),
        (lambda: nn.DepthwiseConv(3, 0), "DepthwiseConv: multiplier must be"),
        (lambda: nn.ConvTranspose(5, 3, groups=2), "ConvTranspose: filters=5 do not divide"),
        (lambda: nn.ConvTranspose(5, 3, output_padding=1), "output_padding has to be below the stride or the dilation"),
        (lambda: nn.ConvTranspose(5, 3, output_padding=-1), "output_padding must be an integer and at least 0"),
    ],
)
def test_settings_are_checked_when_the_layer_is_made(make, message):
    with pytest.raises(ArgumentError, match=message):
        make()


def test_borders_of_a_padded_batch_are_refused():
    layer = nn.Conv(4, 3, padding_mode="reflect")
    params = made(layer, (-1, -1, 3))[1]
    with pytest.raises(ArgumentError, match="depends on where each ends; use padding_mode='zeros'"):
        layer.apply(params, ragged(2, 7, 3, [7, 3]))


def test_parameters_without_a_key():
    for layer in (nn.DepthwiseConv(3), nn.ConvTranspose(3, 3)):
        with pytest.raises(MissingKeyError, match="draws its parameters: pass init a key"):
            layer.init(None, (-1, -1, 2))


def test_a_transposed_convolution_is_the_gradient_of_a_convolution():
    torch = pytest.importorskip("torch", reason="PyTorch is the oracle")
    x, w = normal(2, 9, 8, 3), normal(3, 2, 3, 4, seed=2)
    forward = nn.Conv(4, (3, 2), strides=(2, 3), padding="VALID", bias=False)
    y = forward.apply({"W": w}, x)
    back = nn.ConvTranspose(3, (3, 2), strides=(2, 3), padding="VALID", bias=False)
    filters = torch.tensor(np.swapaxes(w, -1, -2))

    def torch_back(p, y):
        return torch.nn.functional.conv_transpose2d(
            y.movedim(-1, 1), torch_transposed_filters(p["W"], 1), stride=(2, 3)
        ).movedim(1, -1)

    check_against_torch(back.apply, torch_back, {"W": filters.numpy()}, y)
    np.testing.assert_allclose(
        back.apply({"W": filters.numpy()}, y), ff.vjp(lambda x: forward.apply({"W": w}, x), x)[1](y)[0], rtol=1e-12
    )
