"""Layers that are affine in their parameters, and skips around layers; PyTorch beside each where it has it."""

import numpy as np
import pytest
from nn_laws import (
    alone,
    check_both_against_torch,
    check_jit,
    check_layer_jitted,
    made,
    normal,
    pulled_back,
    ragged,
    to_torch,
)

from fnflare import nn, random, tree
from fnflare.errors import ArgumentError, MissingKeyError, ShapeError
from fnflare.testing import check_vmap

LAYERS = {
    "Maxout": (nn.Maxout(3), (5, 4)),
    "Maxout of three pieces over time": (nn.Maxout(2, 3, bias=False), (2, 3, 4)),
    "Scale": (nn.Scale(), (2, 3, 4)),
    "Scale without bias": (nn.Scale(bias=False), (3, 4)),
    "skip": (nn.skip(nn.Dense(4)), (3, 4)),
    "skip that concatenates": (nn.skip(nn.Dense(2), lambda y, x: np.concatenate([x, y], -1)), (2, 3, 4)),
}


@pytest.mark.parametrize("name", LAYERS)
def test_every_layer_keeps_the_laws(name):
    layer, shape = LAYERS[name]
    check_layer_jitted(layer, normal(*shape))


# -- Maxout, Scale, Bilinear ----------------------------------------------------------------------


def test_maxout_is_the_maximum_of_dense_layers():
    torch = pytest.importorskip("torch", reason="PyTorch is the oracle")
    layer = nn.Maxout(4, 3)
    params = tree.map(lambda p: p + 0.1 * normal(*p.shape, seed=3), made(layer, (5, 6))[1])

    def torch_maxout(p, x):
        w, b = p["W"].reshape(6, 4, 3), p["b"].reshape(4, 3)
        pieces = [torch.nn.functional.linear(x, w[:, :, k].T, b[:, k]) for k in range(3)]
        return torch.stack(pieces).amax(0)

    check_both_against_torch(layer.apply, torch_maxout, params, normal(5, 6))


@pytest.mark.parametrize("lead", [(5,), (2, 3), ()])
def test_bilinear_is_torchs(lead):
    torch = pytest.importorskip("torch", reason="PyTorch is the oracle")
    layer = nn.Bilinear(3)
    shape, params = made(layer, ((*lead, 4), (*lead, 6)))
    assert shape == (*lead, 3)
    params = tree.map(lambda p: p + 0.1, params)
    pair = normal(*lead, 4), normal(*lead, 6, seed=2)
    for dtype, tolerance in ((np.float64, 1e-10), (np.float32, 1e-4)):
        p, xs = tree.map(lambda a, dtype=dtype: a.astype(dtype), (params, pair))
        y, ct, grads = pulled_back(layer.apply, p, xs)
        assert y.dtype == dtype
        t_p, t_xs = to_torch(p), to_torch(xs)
        t_y = torch.nn.functional.bilinear(*t_xs, t_p["W"].permute(2, 0, 1), t_p["b"])
        t_y.backward(torch.tensor(ct))
        np.testing.assert_allclose(y, t_y.detach().numpy(), rtol=tolerance, atol=tolerance)
        for a, b in zip(tree.leaves(grads), tree.leaves((t_p, t_xs)), strict=True):
            np.testing.assert_allclose(a, b.grad.numpy(), rtol=tolerance, atol=tolerance)


def test_bilinear_forms_in_programs_and_batches():
    layer = nn.Bilinear(3, bias=False)
    params = made(layer, ((5, 4), (5, 6)))[1]
    assert list(params) == ["W"]
    pair = normal(5, 4), normal(5, 6, seed=2)
    check_jit(layer.apply, params, pair)
    check_vmap(layer.apply, (params, pair), in_axes=(None, 0))
    w = params["W"]
    expected = np.einsum("ni,ijk,nj->nk", pair[0], w, pair[1])
    np.testing.assert_allclose(layer.apply(params, pair), expected, rtol=1e-12)


def test_bilinear_forms_of_padded_batches():
    layer = nn.serial(nn.FanOut(2), nn.Bilinear(3))
    batch = ragged(2, 5, 4, [5, 2])
    params = made(layer, (-1, -1, 4))[1]
    out = layer.apply(params, batch)
    np.testing.assert_allclose(out.values[1, :2], layer.apply(params, alone(batch, 1))[0], rtol=1e-12)


def test_layers_of_features_pass_padded_batches():
    batch = ragged(2, 5, 4, [5, 2])
    for layer in (nn.Maxout(3), nn.Scale()):
        params = made(layer, (-1, -1, 4))[1]
        out = layer.apply(params, batch)
        assert out.lengths is batch.lengths
        np.testing.assert_allclose(out.values[1, :2], layer.apply(params, alone(batch, 1))[0], rtol=1e-12)


def test_scale_starts_as_the_identity():
    x = normal(2, 3).astype(np.float32)
    _, params = nn.Scale().init(random.key(0), x.shape)
    np.testing.assert_array_equal(nn.Scale().apply(params, x), x)
    _, params = nn.Scale(scale_init=nn.constant(2.0), b_init=nn.constant(1.0)).init(random.key(0), x.shape)
    np.testing.assert_array_equal(nn.Scale().apply(params, x), 2 * x + 1)


# -- skip -----------------------------------------------------------------------------------------


def test_skip_is_residual_by_default():
    inner = nn.serial(nn.Dense(4), nn.Tanh)
    x = normal(3, 4)
    _, params = inner.init(random.key(0), x.shape)
    np.testing.assert_array_equal(nn.skip(inner).apply(params, x), nn.residual(inner).apply(params, x))
    assert tree.equal(nn.skip(inner).init(random.key(0), x.shape)[1], params)


def test_skip_hands_the_output_first():
    layer = nn.skip(nn.Dense(2), lambda y, x: y - x[..., :2])
    x = normal(3, 4)
    params = made(layer, x.shape)[1]
    np.testing.assert_array_equal(layer.apply(params, x), nn.Dense(2).apply(params, x) - x[:, :2])


@pytest.mark.parametrize(
    ("combine", "shape", "expected"),
    [
        (np.add, (-1, -1, 3), (-1, -1, 3)),
        (lambda y, x: np.concatenate([y, x], -1), (-1, 7, 3), (-1, 7, 6)),
        (lambda y, x: np.concatenate([y, x], 1), (-1, -1, 3), (-1, -1, 3)),
        (lambda y, x: np.concatenate([y, x], 1), (5, 2, 3), (5, 4, 3)),
        (lambda y, x: np.sum(y * x, axis=1), (-1, -1, 3), (-1, 3)),
        (lambda y, x: (y, x), (-1, 3), ((-1, 3), (-1, 3))),
    ],
)
def test_the_shape_of_a_skip_is_what_combine_makes(combine, shape, expected):
    assert nn.skip(nn.Dense(3), combine).init(random.key(0), shape)[0] == expected


def test_skips_of_padded_batches_keep_the_lengths():
    layer = nn.skip(nn.Conv(2, 3), lambda y, x: np.concatenate([y, x], -1))
    batch = ragged(2, 5, 4, [5, 2])
    params = made(layer, (-1, -1, 4))[1]
    out = layer.apply(params, batch)
    assert out.values.shape == (2, 5, 6)
    np.testing.assert_allclose(out.values[1, :2], layer.apply(params, alone(batch, 1))[0], rtol=1e-12)
    pooled = nn.skip(nn.GlobalMaxPool, lambda y, x: x)
    with pytest.raises(ShapeError, match=r"^in layer 'p': skip: a Padded batch and an array do not combine"):
        nn.serial(p=pooled).apply({"p": ()}, batch)


def test_skips_draw_and_name_as_the_layer_within():
    layer = nn.serial(block=nn.skip(nn.serial(dense=nn.Dense(4), drop=nn.Dropout(0.5))))
    _, params = layer.init(random.key(0), (-1, 4))
    assert list(params["block"]) == ["dense", "drop"]
    assert [r.path for r in nn.summary(layer, (-1, 4)).rows] == ["block/dense", "block/drop"]
    with pytest.raises(MissingKeyError, match=r"^in layer 'block/drop': "):
        layer.apply(params, normal(2, 4), train=True)
    with pytest.raises(ShapeError, match=r"^in layer 'block/dense': "):
        layer.apply(params, normal(2, 5))
    check_jit(lambda x: layer.apply(params, x, key=random.key(1), train=True), normal(2, 4))


# -- shapes, errors, summaries --------------------------------------------------------------------


def test_the_summary_counts_them():
    rows = nn.summary(nn.serial(nn.Maxout(3, 2), nn.Scale(), nn.FanOut(2), nn.Bilinear(2)), (-1, 4)).rows
    assert [(r.kind, r.output_shape, r.params, r.flops) for r in rows] == [
        ("Maxout", (-1, 3), 30, 6 * (2 * 4 + 1 + 1)),
        ("Scale", (-1, 3), 6, 6),
        ("FanOut", ((-1, 3), (-1, 3)), 0, 0),
        ("Bilinear", (-1, 2), 20, 2 * (2 * 3 * 4 + 1)),
    ]


@pytest.mark.parametrize(
    ("layer", "shape", "inputs", "message"),
    [
        (nn.Maxout(3), (-1, 4), normal(2, 5), r"Maxout expected inputs \(\.\.\., 4\), got \(2, 5\)"),
        (nn.Scale(), (-1, 4), normal(2, 5), r"Scale expected inputs \(\.\.\., 4\), got \(2, 5\)"),
        (nn.Bilinear(3), ((-1, 4), (-1, 5)), normal(2, 4), r"pair of inputs \(\.\.\., 4\) and \(\.\.\., 5\), .*got nd"),
        (nn.Bilinear(3), ((-1, 4), (-1, 5)), (normal(2, 4), normal(2, 4)), r"got \(\(2, 4\), \(2, 4\)\); nn.FanOut"),
        (nn.Bilinear(3), ((-1, 4), (-1, 5)), (normal(2, 4), normal(3, 5)), "equal before the last axis"),
    ],
)
def test_inputs_that_do_not_fit_are_named_with_the_layers_path(layer, shape, inputs, message):
    _, params = layer.init(random.key(0), shape)
    with pytest.raises(ShapeError, match=f"^in layer 'hidden': .*{message}"):
        nn.serial(hidden=layer).apply({"hidden": params}, inputs)


@pytest.mark.parametrize(
    ("layer", "shape", "message"),
    [
        (nn.Bilinear(3), (-1, 4), r"a pair of inputs .* got \(-1, 4\); nn.FanOut"),
        (nn.Bilinear(3), ((-1, 4), (7, 5)), "equal before the last axis"),
        (
            nn.skip(nn.Dense(3)),
            (-1, 4),
            r"combine does not take the layer's output, \(-1, 3\), with its input, ",
        ),
    ],
)
def test_input_shapes_that_do_not_fit_are_named_with_the_layers_path(layer, shape, message):
    with pytest.raises(ShapeError, match=f"^in layer 'hidden': .*({message})"):
        nn.serial(hidden=layer).init(random.key(0), shape)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: nn.Maxout(0), "Maxout: units must be"),
        (lambda: nn.Maxout(3, 0), "Maxout: pieces must be"),
        (lambda: nn.Bilinear(3, W_init=1), "Bilinear: W_init must be a function"),
        (lambda: nn.Scale(b_init=0), "Scale: b_init must be a function"),
        (lambda: nn.skip(nn.Dense), "skip: expected a layer"),
        (lambda: nn.skip(nn.Dense(3), "add"), "skip: combine must be a function of the layer's output and its input"),
    ],
)
def test_settings_are_checked_when_the_layer_is_made(make, message):
    with pytest.raises(ArgumentError, match=message):
        make()
