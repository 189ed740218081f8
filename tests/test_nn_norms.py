"""Normalisation of positions, examples and weights; PyTorch beside each."""

import numpy as np
import pytest
from nn_laws import (
    channels_first,
    check_both_against_torch,
    check_jit,
    check_layer_jitted,
    doubled,
    made,
    normal,
    ragged,
)

import fnflare as ff
from fnflare import nn, random, tree
from fnflare.errors import ArgumentError, MissingKeyError, ShapeError, TreeError

LAYERS = {
    "RMSNorm": (nn.RMSNorm(), (2, 3, 4)),
    "GroupNorm": (nn.GroupNorm(2), (2, 3, 2, 4)),
    "GroupNorm of vectors": (nn.GroupNorm(2, affine=False), (3, 6)),
    "InstanceNorm": (nn.InstanceNorm(), (2, 4, 3)),
    "InstanceNorm 2-D": (nn.InstanceNorm(affine=False), (2, 3, 2, 4)),
    "WeightNorm": (nn.WeightNorm(nn.Dense(3)), (2, 4)),
    "WeightNorm of a convolution": (nn.WeightNorm(nn.Conv(3, 2)), (2, 4, 2)),
}


@pytest.mark.parametrize("name", LAYERS)
def test_every_layer_keeps_the_laws(name):
    layer, shape = LAYERS[name]
    check_layer_jitted(layer, normal(*shape))


def affine(features):
    return {"scale": normal(features, seed=5), "bias": normal(features, seed=6)}


def test_rms_norm_is_torchs():
    torch = pytest.importorskip("torch", reason="PyTorch is the oracle")
    norm = torch.nn.functional.rms_norm
    for eps in (1e-6, 0.1):
        params = {"scale": normal(4, seed=5)}
        layer = nn.RMSNorm(eps)
        check_both_against_torch(
            layer.apply, lambda p, x, eps=eps: norm(x, (4,), p["scale"], eps), params, normal(2, 3, 4)
        )


@pytest.mark.parametrize("shape", [(3, 6), (2, 5, 6), (2, 3, 4, 6)])
@pytest.mark.parametrize("groups", [1, 2, 6])
def test_group_norm_is_torchs(shape, groups):
    torch = pytest.importorskip("torch", reason="PyTorch is the oracle")
    norm = torch.nn.functional.group_norm

    def torch_norm(p, x):
        return channels_first(norm)(x, groups, p["scale"], p["bias"])

    check_both_against_torch(nn.GroupNorm(groups).apply, torch_norm, affine(6), normal(*shape))
    plain = nn.GroupNorm(groups, epsilon=0.1, affine=False)
    check_both_against_torch(plain.apply, lambda _, x: channels_first(norm)(x, groups, eps=0.1), (), normal(*shape))


@pytest.mark.parametrize("shape", [(2, 5, 3), (2, 3, 4, 3), (2, 3, 2, 2, 3)])
def test_instance_norm_is_torchs(shape):
    torch = pytest.importorskip("torch", reason="PyTorch is the oracle")
    norm = torch.nn.functional.instance_norm

    def torch_norm(p, x):
        return channels_first(norm)(x, weight=p["scale"], bias=p["bias"])

    check_both_against_torch(nn.InstanceNorm().apply, torch_norm, affine(3), normal(*shape))
    plain = nn.InstanceNorm(affine=False)
    check_both_against_torch(plain.apply, lambda _, x: channels_first(norm)(x), (), normal(*shape))


@pytest.mark.parametrize("shape", [(2, 7), (2, 4, 7), (2, 3, 4, 7)])
@pytest.mark.parametrize("size", [1, 2, 5, 9])
def test_local_response_norm_is_torchs(shape, size):
    torch = pytest.importorskip("torch", reason="PyTorch is the oracle")
    norm = torch.nn.functional.local_response_norm
    layer = nn.LocalResponseNorm(size, 0.3, 0.6, 1.5)

    def torch_norm(x):  # PyTorch's wants an axis besides
        wide = x[..., None] if len(shape) == 2 else x
        return norm(wide, size, 0.3, 0.6, 1.5).reshape(x.shape)

    check_both_against_torch(layer.apply, lambda _, x: channels_first(torch_norm)(x), (), normal(*shape))


def test_instance_norm_is_group_norm_of_each_channel():
    x = normal(2, 5, 4, 3)
    np.testing.assert_array_equal(nn.InstanceNorm().apply(affine(3), x), nn.GroupNorm(3).apply(affine(3), x))


@pytest.mark.parametrize("layer", [nn.RMSNorm(), nn.GroupNorm(1), nn.GroupNorm(3), nn.InstanceNorm()])
def test_a_padded_batch_gives_what_each_sequence_gives_alone(layer):
    batch = ragged(4, 7, 3, [7, 3, 6, 4])
    params = tree.map(lambda p: p + 0.3, made(layer, (-1, -1, 3))[1])

    def together(p, values):
        out = layer.apply(p, nn.Padded(values, batch.lengths))
        return [out.values[i, : batch.lengths[i]] for i in range(4)]

    def each(p, values):
        return [layer.apply(p, values[i : i + 1, : batch.lengths[i]])[0] for i in range(4)]

    def loss(f):
        return lambda p, x: sum(np.sum(np.sin(y)) for y in f(p, x))

    for f in (lambda g: g(params, batch.values), lambda g: ff.grad(loss(g), argnums=(0, 1))(params, batch.values)):
        for a, b in zip(tree.leaves(f(together)), tree.leaves(f(each)), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize(
    "layer", [nn.GroupNorm(1, affine=False), nn.InstanceNorm(affine=False), nn.BatchNorm(affine=False)]
)
def test_padded_batches_of_integers_give_what_the_same_numbers_as_floats_give(layer):
    model = nn.with_state(nn.serial(norm=layer))
    state = doubled(model.init(None, (-1, -1, 3))[2])
    batch = nn.Padded(np.random.default_rng(0).integers(-9, 9, (2, 4, 3)), np.array([4, 2]))
    got, expected = [
        model.apply({"norm": ()}, state, nn.Padded(x, batch.lengths), train=True)
        for x in (batch.values, batch.values.astype(np.float64))
    ]
    tree.map(np.testing.assert_array_equal, got, expected)


def test_a_sequence_without_elements_is_normalised_to_something_finite():
    out = nn.InstanceNorm(affine=False).apply((), nn.Padded(np.ones((1, 3, 2)), np.array([0])))
    assert np.isfinite(out.values).all()


# -- weights --------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [nn.LayerNorm, nn.RMSNorm, nn.BatchNorm])
def test_normalisation_without_parameters_is_that_with_ones_and_zeros(make):
    x = normal(5, 4).astype(np.float32)
    plain, full = make(affine=False), make()
    if make is nn.BatchNorm:
        plain, full = nn.with_state(plain), nn.with_state(full)
    (shape, none, *state), (_, params, *_) = plain.init(None, (-1, 4)), full.init(None, (-1, 4))
    assert (shape, none) == ((-1, 4), ())
    for train in (False, True):
        y, expected = plain.apply(none, *state, x, train=train), full.apply(params, *state, x, train=train)
        tree.map(np.testing.assert_array_equal, y, expected)
        assert all(leaf.dtype == np.float32 for leaf in tree.leaves(y))
    with pytest.raises(ShapeError, match=f"{make.__name__} expected inputs"):
        plain.apply(none, *state, np.float32(1))


def test_weight_norm_is_torchs():
    torch = pytest.importorskip("torch", reason="PyTorch is the oracle")
    layer = nn.WeightNorm(nn.Dense(3))
    params = tree.map(lambda p: p + 0.2 * normal(*p.shape, seed=4), made(layer, (5, 4))[1])

    def torch_dense(p, x):
        w = torch._weight_norm(p["W"]["v"].T, p["W"]["g"][:, None], 0)
        return torch.nn.functional.linear(x, w, p["b"])

    check_both_against_torch(layer.apply, torch_dense, params, normal(5, 4))


def test_weight_norm_keeps_what_the_layer_within_has_drawn():
    inner = nn.serial(hidden=nn.serial(nn.Conv(4, 3), nn.Relu), pool=nn.GlobalMaxPool, out=nn.Dense(2))
    layer, x = nn.WeightNorm(inner), normal(2, 6, 3)
    shape, params = layer.init(random.key(0), x.shape)
    plain_shape, plain = inner.init(random.key(0), x.shape)
    assert shape == plain_shape
    np.testing.assert_allclose(layer.apply(params, x), inner.apply(plain, x), rtol=1e-5)
    assert [tree.path_str(path) for path, _ in tree.leaves_with_path(params)] == [
        "hidden/0/W/g",
        "hidden/0/W/v",
        "hidden/0/b",
        "out/W/g",
        "out/W/v",
        "out/b",
    ]
    np.testing.assert_array_equal(params["out"]["W"]["v"], plain["out"]["W"])


def test_the_length_of_a_weight_is_its_g():
    inner = nn.Conv(4, (3, 2), bias=False)
    layer = nn.WeightNorm(inner)
    params = doubled(layer.init(random.key(0), (1, 5, 5, 2))[1])
    params["W"]["g"] = np.arange(1.0, 5)
    seen = []
    spy = nn.Layer(inner.init, lambda p, x, *, key=None, train=False: seen.append(p["W"]) or inner.apply(p, x))
    nn.WeightNorm(spy).apply(params, normal(1, 5, 5, 2))
    np.testing.assert_allclose(np.sqrt(np.sum(seen[0] ** 2, (0, 1, 2))), np.arange(1.0, 5), rtol=1e-12)
    # The direction does not matter to the length: the gradient stands at right angles to it.
    grad = ff.grad(lambda p: np.sum(np.sin(layer.apply(p, normal(1, 5, 5, 2)))))(params)["W"]["v"]
    np.testing.assert_allclose(np.sum(grad * params["W"]["v"], (0, 1, 2)), 0, atol=1e-10)


def test_several_weights_of_a_recurrent_layer():
    layer = nn.WeightNorm(nn.LSTM(3), names=("W", "U"))
    _, params = layer.init(random.key(0), (-1, -1, 2))
    assert tree.map(np.shape, params)["U"] == {"g": (12,), "v": (3, 12)}
    check_jit(layer.apply, doubled(params), normal(2, 4, 2))


def test_weight_norm_of_a_weight_of_zeros_is_zero():
    layer, x = nn.WeightNorm(nn.Dense(3, W_init=nn.zeros)), normal(2, 4)
    _, params = layer.init(random.key(0), (-1, 4))
    np.testing.assert_array_equal(layer.apply(params, x), np.zeros((2, 3)))
    params["W"]["g"][:] = 1  # it is to move from here
    gradient = ff.grad(lambda params: np.sum(layer.apply(params, x)))(params)
    assert np.all(np.isfinite(gradient["W"]["g"]))
    assert np.all(gradient["W"]["v"] != 0)


def test_weight_norm_of_a_layer_that_is_within_another_names_its_path():
    model = nn.serial(hidden=nn.WeightNorm(nn.Dense(3)))
    _, params = model.init(random.key(0), (-1, 4))
    with pytest.raises(ShapeError, match=r"^in layer 'hidden': Dense expected inputs \(\.\.\., 4\)"):
        model.apply(params, np.ones((2, 5)))
    with pytest.raises(TreeError, match=r"^in layer 'hidden': WeightNorm expected 'W' as a dict with keys \['g', 'v'"):
        model.apply({"hidden": {"W": np.ones((4, 3)), "b": np.ones(3)}}, np.ones((2, 4)))
    with pytest.raises(ArgumentError, match=r"^in layer 'h': WeightNorm: the layer within has no parameter named 'W'"):
        nn.serial(h=nn.WeightNorm(nn.Relu)).init(random.key(0), (-1, 4))


def matrix_of(layer, params, state, features):
    """The weight that a dense layer under a norm uses, read off its answers."""
    zero = layer.apply(params, state, np.zeros((1, features)))[0]
    return layer.apply(params, state, np.eye(features))[0] - zero


def test_spectral_norm_is_torchs_when_both_have_found_it():
    torch = pytest.importorskip("torch", reason="PyTorch is the oracle")
    layer = nn.with_state(nn.SpectralNorm(nn.Dense(3), iterations=50))
    _, params, state = layer.init(random.key(0), (-1, 4))
    params, state = doubled(params), doubled(state)
    x = normal(5, 4)
    _, state = layer.apply(params, state, x, train=True)

    def torch_dense(p, x):
        return torch.nn.functional.linear(x, p["W"].T / torch.linalg.matrix_norm(p["W"], 2), p["b"])

    def apply(p, x):
        return layer.apply(p, state, x)[0]

    check_both_against_torch(apply, torch_dense, params, x)
    assert abs(np.linalg.norm(matrix_of(layer, params, state, 4), 2) - 1) < 1e-12


def test_spectral_norm_comes_closer_at_each_use_in_training_alone():
    layer = nn.with_state(nn.serial(conv=nn.SpectralNorm(nn.Conv(3, 2, padding="VALID"))))
    _, params, state = layer.init(random.key(1), (-1, 4, 2))
    assert list(state) == ["conv/spectral"]
    params, x = doubled(params), normal(1, 2, 2)
    y, after = layer.apply(params, state, x)
    assert tree.equal(after, state)
    largest = np.linalg.norm(params["conv"]["W"].reshape(-1, 3), 2)
    wanted = nn.Conv(3, 2, padding="VALID").apply({**params["conv"], "W": params["conv"]["W"] / largest}, x)
    errors = [np.abs(y - wanted).max()]
    for _ in range(20):
        y, state = layer.apply(params, state, x, train=True)
        errors.append(np.abs(y - wanted).max())
    assert errors[-1] < 1e-3 * errors[0]
    assert errors[-1] < errors[5] < errors[0]


def test_spectral_norm_under_jit_and_grad():
    layer = nn.with_state(nn.serial(dense=nn.SpectralNorm(nn.Dense(3))))
    _, params, state = layer.init(random.key(1), (-1, 2))

    def loss(params, state, x):
        y, state = layer.apply(params, state, x, train=True)
        return np.sum(y * y), state

    args = doubled(params), doubled(state), normal(4, 2)
    plain = ff.value_and_grad(loss, has_aux=True)(*args)
    for native in (True, False):
        with ff.config.override(use_native=native):
            jitted = ff.jit(ff.value_and_grad(loss, has_aux=True))(*args)
        for a, b in zip(tree.leaves(jitted), tree.leaves(plain), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-12)


def test_spectral_norm_needs_a_place_for_its_state():
    layer = nn.serial(dense=nn.SpectralNorm(nn.Dense(3)))
    with pytest.raises(ArgumentError, match=r"^in layer 'dense/spectral': SpectralNorm keeps .*nn.with_state"):
        layer.init(random.key(0), (-1, 2))
    with pytest.raises(MissingKeyError, match="draws its parameters"):
        nn.with_state(layer).init(None, (-1, 2))


# -- shapes, errors, summaries --------------------------------------------------------------------


def test_the_summary_counts_what_stands_beside_a_weight():
    model = nn.serial(hidden=nn.WeightNorm(nn.Dense(3)), norm=nn.GroupNorm(1), out=nn.SpectralNorm(nn.Dense(2)))
    table = nn.summary(model, (-1, 4))
    assert [(r.path, r.kind, r.params) for r in table.rows] == [
        ("hidden", "Dense", 15),
        ("hidden", "WeightNorm", 3),
        ("norm", "GroupNorm", 6),
        ("out", "Dense", 8),
        ("out", "SpectralNorm", 0),
    ]
    assert table.params == sum(r.params for r in table.rows)
    assert table.flops == sum(r.flops for r in table.rows)
    assert table.state == 2


@pytest.mark.parametrize(
    ("layer", "shape", "message"),
    [
        (nn.LocalResponseNorm(2), (), r"LocalResponseNorm expected inputs \(\.\.\., C\), got \(\)"),
        (nn.RMSNorm(), (2, 5), r"RMSNorm expected inputs \(\.\.\., 4\), got \(2, 5\)"),
        (nn.GroupNorm(2), (2, 6), r"GroupNorm expected inputs \(\.\.\., 4\), got \(2, 6\)"),
        (nn.InstanceNorm(), (2, 4), r"InstanceNorm expected .*with at least one axis of positions, got \(2, 4\)"),
    ],
)
def test_inputs_that_do_not_fit_are_named_with_the_layers_path(layer, shape, message):
    model = nn.serial(norm=layer)
    _, params = model.init(None, (-1, 3, 4))
    with pytest.raises(ShapeError, match=f"^in layer 'norm': {message}"):
        model.apply(params, np.ones(shape))


@pytest.mark.parametrize(
    ("layer", "shape", "message"),
    [
        (nn.RMSNorm(), (-1, -1), "has to know the number of features"),
        (nn.GroupNorm(2), (-1, 5), "GroupNorm: 5 channels do not divide among 2 groups; choose groups= that divides 5"),
        (nn.GroupNorm(2), (4,), r"GroupNorm expected inputs \(N, \.\.\., C\), got input shape \(4,\)"),
        (nn.InstanceNorm(), (-1, 4), "with at least one axis of positions, got input shape"),
    ],
)
def test_input_shapes_that_do_not_fit_are_named_with_the_layers_path(layer, shape, message):
    with pytest.raises(ShapeError, match=f"^in layer 'norm': .*{message}"):
        nn.serial(norm=layer).init(random.key(0), shape)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: nn.GroupNorm(0), "GroupNorm: groups must be an integer and at least 1"),
        (lambda: nn.InstanceNorm(epsilon=0), "InstanceNorm: epsilon must be a positive number"),
        (lambda: nn.LocalResponseNorm(0), "LocalResponseNorm: size must be an integer and at least 1"),
        (lambda: nn.RMSNorm(-1), "RMSNorm: epsilon must be a positive number"),
        (lambda: nn.WeightNorm(nn.Dense), "WeightNorm: expected a layer"),
        (lambda: nn.WeightNorm(nn.Dense(3), names=()), "WeightNorm: names must be the name of a weight"),
        (lambda: nn.SpectralNorm(nn.Dense(3), iterations=0), "SpectralNorm: iterations must be"),
    ],
)
def test_settings_are_checked_when_the_layer_is_made(make, message):
    with pytest.raises(ArgumentError, match=message):
        make()
