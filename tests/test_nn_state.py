"""Models with running statistics, and the summary of a model."""

from functools import partial

import numpy as np
import pytest
from nn_laws import alone, check_derivatives, doubled, made, normal, ragged

import fnflare as ff
from fnflare import nn, random, tree
from fnflare.errors import ArgumentError, ShapeError, TreeError

# -- BatchNorm ------------------------------------------------------------------------------------


def normed(input_shape, make=nn.BatchNorm, **settings):
    model = nn.with_state(nn.serial(norm=make(**settings)))
    shape, params, state = model.init(random.key(0), input_shape)
    assert shape == input_shape
    params = tree.map(lambda p: p + normal(*p.shape, seed=len(p)), doubled(params))
    return model, params, doubled(state)


@pytest.mark.parametrize(
    ("make", "shape"),
    [
        *[(nn.BatchNorm, shape) for shape in ((6, 3), (4, 5, 3), (2, 4, 5, 3))],
        *[(partial(nn.InstanceNorm, track_running_stats=True), shape) for shape in ((4, 5, 3), (2, 4, 5, 3))],
    ],
)
def test_norms_with_running_averages_are_torchs(make, shape):
    torch = pytest.importorskip("torch", reason="PyTorch is the oracle")
    model, params, state = normed((-1, *shape[1:]), make, momentum=0.8)
    norm = torch.nn.functional.batch_norm if make is nn.BatchNorm else torch.nn.functional.instance_norm
    mean, var = torch.zeros(3, dtype=torch.float64), torch.ones(3, dtype=torch.float64)
    scale, bias = [torch.tensor(params["norm"][n], requires_grad=True) for n in ("scale", "bias")]

    def torch_norm(x, train):
        moved = x.movedim(-1, 1)
        return norm(moved, mean, var, scale, bias, train, momentum=0.2).movedim(1, -1)

    for seed in (1, 2):
        x = normal(*shape, seed=seed)
        (y, state), pull = ff.vjp(lambda p, x, s=state: model.apply(p, s, x, train=True), params, x)
        tx = torch.tensor(x, requires_grad=True)
        ty = torch_norm(tx, True)
        np.testing.assert_allclose(y, ty.detach().numpy(), rtol=1e-9, atol=1e-10)
        np.testing.assert_allclose(state["norm"]["mean"], mean.numpy(), rtol=1e-10)
        np.testing.assert_allclose(state["norm"]["var"], var.numpy(), rtol=1e-10)
        ct = normal(*shape, seed=9)
        d_params, d_x = pull((ct, tree.map(np.zeros_like, state)))
        scale.grad = bias.grad = None
        ty.backward(torch.tensor(ct))
        np.testing.assert_allclose(d_x, tx.grad.numpy(), rtol=1e-8, atol=1e-9)
        np.testing.assert_allclose(d_params["norm"]["scale"], scale.grad.numpy(), rtol=1e-8, atol=1e-9)
        np.testing.assert_allclose(d_params["norm"]["bias"], bias.grad.numpy(), rtol=1e-8, atol=1e-9)
    y, same = model.apply(params, state, x)
    np.testing.assert_allclose(y, torch_norm(torch.tensor(x), False).detach().numpy(), rtol=1e-9, atol=1e-10)
    assert tree.equal(same, state)


def test_batch_norm_of_a_padded_batch_sees_the_real_positions_only():
    model, params, state = normed((-1, -1, 3))
    batch = ragged(3, 5, 3, [5, 2, 4])
    y, new = model.apply(params, state, batch, train=True)
    flat = batch.values[batch.mask()]
    wanted, wanted_state = model.apply(params, state, flat, train=True)
    np.testing.assert_allclose(y.values[batch.mask()], wanted, rtol=1e-10, atol=1e-12)
    for a, b in zip(tree.leaves(new), tree.leaves(wanted_state), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-10)

    def masked(p, x):
        out, _ = model.apply(p, state, nn.Padded(x, batch.lengths), train=True)
        return np.where(batch.mask()[:, :, None], out.values, 0.0)

    check_derivatives(masked, params, np.where(batch.mask()[:, :, None], batch.values, 0.0))


def test_running_averages_of_padded_examples_are_those_of_each_alone():
    model, params, state = normed((-1, -1, 3), partial(nn.InstanceNorm, track_running_stats=True), momentum=0.0)
    batch = ragged(3, 5, 3, [5, 0, 4])
    y, new = model.apply(params, state, batch, train=True)
    pairs = [model.apply(params, state, alone(batch, i), train=True) for i in (0, 2)]
    for i, (out, _) in zip((0, 2), pairs, strict=True):
        np.testing.assert_allclose(y.values[i, : batch.lengths[i]], out[0], rtol=1e-10, atol=1e-12)
    for name in ("mean", "var"):
        wanted = np.mean([s["norm"][name] for _, s in pairs], axis=0)
        np.testing.assert_allclose(new["norm"][name], wanted, rtol=1e-12)
    evaluated, _ = model.apply(params, new, batch)
    plain = nn.with_state(nn.serial(norm=nn.BatchNorm())).apply(params, new, batch.values)[0]
    np.testing.assert_allclose(evaluated.values, plain, rtol=1e-12)
    none = model.apply(params, state, nn.Padded(batch.values, np.zeros(3, int)), train=True)[1]
    assert tree.equal(none, state)
    assert tree.equal(model.apply(params, state, batch.values[:0], train=True)[1], state)


def test_batch_norm_keeps_float32():
    model = nn.with_state(nn.serial(nn.Conv(4, 3), nn.BatchNorm(), nn.Relu))
    _, params, state = model.init(random.key(0), (-1, -1, 2))
    for inputs in (np.ones((2, 5, 2), np.float32), nn.Padded(np.ones((2, 5, 2), np.float32), np.array([5, 3]))):
        y, new = model.apply(params, state, inputs, train=True)
        assert {p.dtype for p in tree.leaves((y.values if type(inputs) is nn.Padded else y, new))} == {
            np.dtype(np.float32)
        }


def test_the_state_comes_out_of_a_training_step_as_plain_arrays():
    model = nn.with_state(nn.serial(dense=nn.Dense(3), norm=nn.BatchNorm(), out=nn.Dense(1)))
    _, params, state = model.init(random.key(0), (-1, 2))
    x = np.float32(normal(8, 2))

    def loss(p):
        y, new = model.apply(p, state, x, train=True)
        return np.mean(y * y), new

    (_, new), grads = ff.value_and_grad(loss, has_aux=True)(params)
    assert tree.structure(new) == tree.structure(state)
    assert all(type(leaf) is np.ndarray for leaf in tree.leaves(new))
    assert tree.structure(grads) == tree.structure(params)
    assert not tree.equal(new, state)


def test_states_are_kept_under_the_paths_of_their_layers():
    block = nn.serial(nn.Dense(3), nn.BatchNorm())
    model = nn.with_state(nn.serial(stem=block, body=nn.residual(nn.serial(norm=nn.BatchNorm(), act=nn.Relu))))
    _, params, state = model.init(random.key(0), (-1, 2))
    assert sorted(state) == ["body/norm", "stem/1"]
    with nn.scope("outer"):  # a stateful model has the same state wherever it stands
        y, new = model.apply(params, state, np.float32(normal(4, 2)), train=True)
    assert sorted(new) == sorted(state)
    assert y.shape == (4, 3)
    alone = nn.with_state(nn.BatchNorm())
    assert list(alone.init(None, (-1, 2))[2]) == ["BatchNorm"]


def test_batch_norm_outside_of_with_state():
    model = nn.serial(block=nn.serial(nn.BatchNorm()))
    with pytest.raises(ArgumentError, match=r"^in layer 'block/0': BatchNorm keeps running statistics.*nn.with_state"):
        model.init(random.key(0), (-1, 2))
    _, params, _ = nn.with_state(model).init(random.key(0), (-1, 2))
    with pytest.raises(ArgumentError, match=r"^in layer 'block/0': BatchNorm keeps running statistics"):
        model.apply(params, np.zeros((3, 2)))


def test_a_state_of_another_model():
    model, params, state = normed((-1, 3))
    with pytest.raises(TreeError, match=r"the state has no entry 'norm'; it has \['other'\]"):
        model.apply(params, {"other": state["norm"]}, normal(4, 3))
    with pytest.raises(TreeError, match=r"apply takes \(params, state, inputs\)"):
        model.apply(params, normal(4, 3), state)


def test_two_states_under_one_path():
    pair = nn.BatchNorm()

    def init(key, shape):
        return shape, (pair.init(key, shape)[1], pair.init(key, shape)[1])

    mine = nn.Layer(init, lambda params, inputs, *, key=None, train=False: inputs)
    with pytest.raises(ArgumentError, match=r"two layers keep state under the path 'mine'.*nn.scope"):
        nn.with_state(nn.serial(mine=mine)).init(random.key(0), (-1, 3))


def test_with_state_of_what_is_not_a_layer():
    with pytest.raises(ArgumentError, match="with_state: expected a layer"):
        nn.with_state(nn.BatchNorm)


def test_batch_norm_inputs_that_do_not_fit():
    model, params, state = normed((-1, 3))
    with pytest.raises(ShapeError, match=r"^in layer 'norm': BatchNorm expected inputs \(\.\.\., 3\), got \(4, 2\)"):
        model.apply(params, state, normal(4, 2))


# -- summary --------------------------------------------------------------------------------------


def test_the_summary_of_lenet_counts_what_it_should():
    lenet = nn.serial(
        conv1=nn.Conv(6, (5, 5)),
        act1=nn.Tanh,
        pool1=nn.AvgPool((2, 2)),
        conv2=nn.Conv(16, (5, 5), padding="VALID"),
        flat=nn.Flatten,
        head=nn.serial(nn.Dense(120), nn.Dense(10)),
    )
    table = nn.summary(lenet, (-1, 28, 28, 1))
    assert [(r.path, r.kind, r.output_shape, r.params, r.flops) for r in table.rows] == [
        ("conv1", "Conv", (-1, 28, 28, 6), 156, 28 * 28 * 6 * (2 * 25 + 1)),
        ("act1", "Tanh", (-1, 28, 28, 6), 0, 28 * 28 * 6),
        ("pool1", "AvgPool", (-1, 14, 14, 6), 0, 14 * 14 * 6 * 4),
        ("conv2", "Conv", (-1, 10, 10, 16), 2416, 10 * 10 * 16 * (2 * 150 + 1)),
        ("flat", "Flatten", (-1, 1600), 0, 0),
        ("head/0", "Dense", (-1, 120), 192120, 120 * 3201),
        ("head/1", "Dense", (-1, 10), 1210, 10 * 241),
    ]
    assert table.params == 156 + 2416 + 192120 + 1210
    assert table.nbytes == 4 * table.params
    assert table.flops == sum(r.flops for r in table.rows)
    assert table.output_shape == (-1, 10)


def test_the_summary_of_a_recurrent_model_counts_operations_a_step():
    model = nn.serial(words=nn.Embedding(50, 8), lstm=nn.LSTM(4, bidirectional=True), pool=nn.GlobalMaxPool)
    rows = {r.path: r for r in nn.summary(model, (-1, -1)).rows}
    assert rows["words"].params == 400
    assert rows["lstm"].params == 2 * (8 * 16 + 4 * 16 + 16)
    assert rows["lstm"].flops == 2 * (2 * (8 + 4) * 16 + 17 * 4)
    assert rows["lstm"].output_shape == (-1, -1, 8)
    fixed = {r.path: r for r in nn.summary(model, (-1, 10)).rows}
    assert fixed["lstm"].flops == 10 * rows["lstm"].flops


def test_the_summary_sees_into_every_combinator():
    shortcut = nn.Layer(lambda key, shape: (shape, {"s": np.zeros(2)}), lambda p, x, *, key=None, train=False: x)
    model = nn.serial(
        nn.FanOut(2),
        nn.parallel(main=nn.residual(nn.serial(attend=nn.MultiHeadAttention(2))), side=shortcut),
        nn.FanInSum,
        nn.shape_dependent(lambda shape: nn.serial(up=nn.Dense(shape[-1]))),
    )
    table = nn.summary(model, (-1, 7, 4))
    assert [(r.path, r.kind) for r in table.rows] == [
        ("0", "FanOut"),
        ("1/main/attend", "MultiHeadAttention"),
        ("1/side", "Layer"),
        ("2", "FanInSum"),
        ("3/up", "Dense"),
    ]
    rows = {r.path: r for r in table.rows}
    assert rows["1/side"].flops is None
    assert rows["1/main/attend"].flops == 7 * (4 * 32 + 16) + 49 * (4 * 4 + 6 * 2)
    assert rows["2"].flops == 28
    text = str(table)
    assert "((-1, 7, 4), (-1, 7, 4))" in text
    assert text.splitlines()[-1].endswith("+ ?")
    assert "?" in next(line for line in text.splitlines() if line.startswith("1/side"))


def test_the_summary_of_a_stateful_model():
    model = nn.serial(dense=nn.Dense(3), norm=nn.BatchNorm())
    for m in (model, nn.with_state(model)):
        table = nn.summary(m, (-1, 2))
        assert (table.params, table.state) == (9 + 6, 6)
        assert "state: 6 numbers" in str(table)
        assert "state: 6 numbers" in table._repr_html_()


def test_the_summary_of_a_single_layer_and_of_a_layer_of_your_own():
    assert [r.path for r in nn.summary(nn.Dense(3), (-1, 2)).rows] == [""]
    mine = nn.Layer(lambda key, shape: (shape, {"w": np.zeros(5)}), lambda p, x, *, key=None, train=False: x)
    (row,) = nn.summary(mine, (-1, 2)).rows
    assert (row.kind, row.params, row.nbytes, row.flops) == ("Layer", 5, 40, None)


def test_the_summary_as_html_escapes_names():
    table = nn.summary(nn.elementwise(np.sin, name="<sin>"), (-1, 2))
    assert "&lt;sin&gt;" in table._repr_html_()
    assert "<sin>" in str(table)


def test_the_summary_of_what_is_not_a_model():
    with pytest.raises(ArgumentError, match="summary: expected a layer"):
        nn.summary(nn.Dense, (-1, 2))
    with pytest.raises(ArgumentError, match="expected the input shape as a tuple"):
        nn.summary(nn.Dense(3), 2)


def test_bytes_are_shown_in_readable_units():
    text = str(nn.summary(nn.serial(nn.Dense(1), nn.Dense(600), nn.Dense(600)), (-1, 2)))
    assert "12 B" in text
    assert "4.7 KiB" in text
    assert "1.4 MiB" in text


def test_a_summary_leaves_nothing_behind():
    model = nn.serial(nn.Dense(3))
    nn.summary(model, (-1, 2))
    shape, params = made(model, (-1, 2))
    assert shape == (-1, 3)
    assert nn.scoping.local.recorder is None
    assert tree.structure(params) == tree.structure(({"W": 0, "b": 0},))
