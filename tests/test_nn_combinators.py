"""Combinators: how parameters, keys, shapes, names and errors flow through nested layers."""

import threading

import numpy as np
import pytest
from nn_laws import check_derivatives, check_layer, made, normal

import fnflare as ff
from fnflare import nn, random, tree
from fnflare.errors import ArgumentError, ShapeError, TreeError
from fnflare.nn import scoping


def spy(log, name):
    """A layer that notes how it was called, and where."""

    def init(key, input_shape):
        log.append(("init", name, scoping.path(), key))
        return input_shape, name

    def apply(params, inputs, *, key=None, train=False):
        log.append((params, name, scoping.path(), key, train))
        return inputs

    return nn.Layer(init, apply)


def failing():
    """A layer of the user's own that divides by zero, in Python."""
    return nn.Layer(lambda key, shape: (shape, ()), lambda params, inputs, *, key=None, train=False: 1 // 0)


# -- serial ---------------------------------------------------------------------------------------


def test_serial_has_a_tuple_or_a_dict_of_parameters():
    by_place = nn.serial(nn.Dense(3), nn.Relu, nn.Dense(1))
    by_name = nn.serial(hidden=nn.Dense(3), act=nn.Relu, out=nn.Dense(1))
    shape, params = by_place.init(random.key(0), (-1, 2))
    same_shape, named = by_name.init(random.key(0), (-1, 2))
    assert shape == same_shape == (-1, 1)
    assert tree.equal(named, dict(zip(("hidden", "act", "out"), params, strict=True)))
    x = np.float32(normal(4, 2))
    np.testing.assert_array_equal(by_place.apply(params, x), by_name.apply(named, x))


def test_serial_applies_keywords_in_their_own_order_also_after_a_round_trip():
    model = nn.serial(zoom=nn.elementwise(lambda x: 2 * x), add=nn.elementwise(lambda x: x + 1))
    params = tree.map(lambda p: p, model.init(None, (-1,))[1])  # a dict with sorted keys
    assert list(params) == ["add", "zoom"]
    np.testing.assert_array_equal(model.apply(params, np.ones(1)), [3.0])


def test_serial_of_nothing_is_the_identity():
    model = nn.serial()
    assert model.init(random.key(0), (-1, 2)) == ((-1, 2), ())
    assert model.apply((), 3.0, key=random.key(0)) == 3.0


def test_a_key_is_split_among_the_layers_and_its_absence_handed_on():
    log = []
    model = nn.serial(a=spy(log, "a"), b=nn.serial(spy(log, "b"), spy(log, "c")))
    _, params = model.init(random.key(0), (-1,))
    model.apply(params, 0.0, key=random.key(1), train=True)
    keys = [tuple(entry[3]) for entry in log]
    assert len(set(keys)) == 6
    log.clear()
    model.apply(params, 0.0)
    assert [entry[3:] for entry in log] == [(None, False)] * 3


def test_layers_know_their_paths_in_init_and_apply():
    log = []
    model = nn.serial(
        a=spy(log, 1),
        b=nn.serial(spy(log, 2), nn.residual(nn.shape_dependent(lambda shape: nn.serial(in_=spy(log, 3))))),
    )
    _, params = model.init(None, (-1,))
    model.apply(params, np.zeros(1))
    assert [entry[2] for entry in log] == ["a", "b/0", "b/1/in_"] * 2
    assert scoping.names() == []


def test_names_are_those_of_the_thread():
    seen = []
    with nn.scope("outer"):
        thread = threading.Thread(target=lambda: seen.append(scoping.path()))
        thread.start()
        thread.join()
        assert scoping.path() == "outer"
    assert seen == [""]


def test_an_error_of_the_users_own_layer_is_noted_with_its_path_once():
    model = nn.serial(a=nn.serial(nn.Identity, nn.serial(nn.FanOut(1), nn.parallel(bad=failing()))))
    _, params = model.init(None, (-1, 2))
    with pytest.raises(ZeroDivisionError) as caught:
        model.apply(params, np.zeros((1, 2)))
    assert caught.value.__notes__ == ["in layer 'a/1/1/bad'"]
    assert scoping.names() == []


def test_names_are_taken_back_when_init_fails():
    with pytest.raises(ShapeError, match=r"^in layer 'a/b': Dense"):
        nn.serial(a=nn.serial(b=nn.Dense(3))).init(random.key(0), (-1, -1))
    assert scoping.names() == []


@pytest.mark.parametrize(
    ("model", "params", "message"),
    [
        (nn.serial(nn.Relu, nn.Relu), ((),), "expected its parameters as a tuple of 2, got tuple of 1"),
        (nn.serial(nn.Relu, nn.Relu), {"a": (), "b": ()}, r"a tuple of 2, got a dict with keys \['a', 'b'\]"),
        (nn.serial(nn.Relu), None, "a tuple of 1, got NoneType"),
        (nn.serial(a=nn.Relu), {"b": ()}, r"a dict with keys \['a'\], got a dict with keys \['b'\]"),
        (nn.serial(a=nn.Relu), ((),), r"a dict with keys \['a'\], got tuple of 1"),
    ],
)
def test_parameters_of_another_model(model, params, message):
    outer = nn.serial(part=model)
    with pytest.raises(TreeError, match=f"^in layer 'part': serial {message}|in layer 'part': serial .*{message}"):
        outer.apply({"part": params}, np.zeros(3))


@pytest.mark.parametrize("combine", [nn.serial, nn.parallel])
def test_what_is_not_a_layer_is_refused_when_the_model_is_made(combine):
    with pytest.raises(ArgumentError, match=r"layer '1': expected a layer, .* as in Dense\(\.\.\.\)"):
        combine(nn.Relu, nn.Dense)
    with pytest.raises(ArgumentError, match="layer 'b': expected a layer"):
        combine(a=nn.Relu, b=3)
    with pytest.raises(ArgumentError, match="by position or all by keyword"):
        combine(nn.Relu, b=nn.Relu)
    with pytest.raises(ArgumentError, match=r"write it as def apply\(params, inputs, \*, key=None, train=False\)"):
        combine(nn.Layer(lambda key, shape: (shape, ()), lambda params, inputs: inputs))


def test_a_plain_pair_is_a_layer():
    init, apply = nn.Dense(3)
    check_layer(nn.serial((init, apply), nn.Tanh), normal(2, 4))


# -- parallel and fans ----------------------------------------------------------------------------


def test_branches_fan_out_and_in():
    x = normal(4, 3)
    sums = nn.serial(nn.FanOut(2), nn.parallel(nn.Dense(5), nn.Dense(5)), nn.FanInSum)
    joined = nn.serial(split=nn.FanOut(2), both=nn.parallel(a=nn.Dense(5), b=nn.Identity), join=nn.FanInConcat())
    shape, params = made(sums, (-1, 3))
    assert shape == (-1, 5)
    left, right = params[1]
    np.testing.assert_allclose(sums.apply(params, x), x @ left["W"] + x @ right["W"], rtol=1e-12)
    shape, params = made(joined, (-1, 3))
    assert shape == (-1, 8)
    assert sorted(params["both"]) == ["a", "b"]
    np.testing.assert_array_equal(joined.apply(params, x)[:, 5:], x)
    check_layer(sums, x)
    check_layer(joined, x)


def test_parallel_splits_its_key():
    log = []
    model = nn.parallel(spy(log, "a"), spy(log, "b"))
    shapes, params = model.init(None, ((-1,), (2, 3)))
    assert shapes == ((-1,), (2, 3))
    model.apply(params, (0.0, 0.0), key=random.key(1))
    assert len({tuple(entry[3]) for entry in log if entry[3] is not None}) == 2


def test_fans_know_free_dimensions():
    shape = (-1, -1, 3), (-1, 7, 2)
    assert nn.FanInConcat().init(None, shape)[0] == (-1, 7, 5)
    assert nn.FanInConcat(axis=1).init(None, ((-1, -1, 3), (-1, 7, 3)))[0] == (-1, -1, 3)
    assert nn.FanInSum.init(None, ((-1, -1, 3), (-1, 7, 3)))[0] == (-1, 7, 3)


def test_branches_of_padded_batches():
    batch = nn.pad([[[1.0], [2.0]], [[3.0]]])
    model = nn.serial(nn.FanOut(2), nn.parallel(nn.Identity, nn.elementwise(lambda x: 2 * x)))
    summed = nn.serial(model, nn.FanInSum)
    joined = nn.serial(model, nn.FanInConcat())
    _, params = summed.init(None, (-1, -1, 1))
    np.testing.assert_array_equal(summed.apply(params, batch).values, 3 * batch.values)
    out = joined.apply(params, batch)
    np.testing.assert_array_equal(out.values, np.concatenate([batch.values, 2 * batch.values], axis=-1))
    np.testing.assert_array_equal(out.lengths, batch.lengths)
    with pytest.raises(ArgumentError, match="axis=1 is that of the batch or of time"):
        nn.FanInConcat(axis=1).apply((), (batch, batch))
    with pytest.raises(ShapeError, match="one branch has lost the lengths"):
        nn.FanInSum.apply((), (batch, batch.values))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: nn.parallel(nn.Relu).apply(((),), np.zeros((2, 3))),
            "expected a tuple of 1, .* got ndarray; nn.FanOut",
        ),
        (lambda: nn.parallel(nn.Relu).apply(((),), nn.pad([[1.0]])), "got Padded"),
        (lambda: nn.parallel(nn.Relu).apply(((),), (1.0, 2.0)), "expected a tuple of 1, .* got a tuple of 2"),
        (lambda: nn.parallel(nn.Relu, nn.Relu).init(None, (-1, 3)), r"got the shape \(-1, 3\) of one"),
        (
            lambda: nn.FanInSum.apply((), np.zeros(3)),
            "FanInSum expected a tuple, one input for each branch, got ndarray",
        ),
        (lambda: nn.FanInSum.init(None, ((-1, 3), (-1, 4))), "do not fit together in axis 1"),
        (lambda: nn.FanInConcat().init(None, ((-1, 3), (-1, 4, 4))), "do not fit together"),
        (lambda: nn.FanInConcat(axis=2).init(None, ((-1, 3), (-1, 3))), "do not fit together"),
    ],
)
def test_branches_that_do_not_fit(call, message):
    with pytest.raises(ShapeError, match=message):
        call()


def test_settings_of_fans_are_checked():
    with pytest.raises(ArgumentError, match="FanOut: count must be"):
        nn.FanOut(0)
    with pytest.raises(ArgumentError, match="FanInConcat: axis must be an integer"):
        nn.FanInConcat("last")


# -- residual, shape_dependent, scope -------------------------------------------------------------


def test_residual_adds_its_input():
    inner = nn.serial(nn.Dense(5), nn.Tanh, nn.Dense(3))
    model = nn.residual(inner)
    _, params = made(model, (-1, 3))
    assert tree.equal(params, made(inner, (-1, 3))[1])
    x = normal(4, 3)
    np.testing.assert_allclose(model.apply(params, x), x + inner.apply(params, x), rtol=1e-12)
    batch = nn.Padded(normal(2, 4, 3), np.array([4, 2]))
    np.testing.assert_array_equal(model.apply(params, batch).lengths, batch.lengths)
    check_layer(model, x)


def test_residual_around_a_layer_that_changes_the_shape():
    with pytest.raises(ShapeError, match=r"^in layer 'block': residual: the layer within maps \(-1, 3\) to \(-1, 4\)"):
        nn.serial(block=nn.residual(nn.Dense(4))).init(random.key(0), (-1, 3))


def test_shape_dependent_makes_the_layer_for_the_shape():
    seen = []

    def bottleneck(shape):
        seen.append(shape)
        return nn.serial(nn.Dense(2), nn.Dense(shape[-1]))

    model = nn.shape_dependent(bottleneck)
    check_layer(model, normal(4, 3), input_shape=(-1, 3))
    assert set(seen) == {(-1, 3), (4, 3)}
    assert nn.shape_dependent(lambda shape: nn.elementwise(lambda x: len(shape))).apply((), nn.pad([[1.0]])).values == 2
    pair = nn.shape_dependent(lambda shapes: nn.parallel(*[nn.Identity] * len(shapes)))
    assert pair.apply(((), ()), (1.0, 2.0)) == (1.0, 2.0)
    with pytest.raises(ArgumentError, match="what the function returned: expected a layer"):
        nn.shape_dependent(lambda shape: None).init(None, (-1, 3))
    with pytest.raises(ArgumentError, match="shape_dependent: expected a function"):
        nn.shape_dependent(3)


def test_scope_names_the_parts_of_a_layer_of_your_own():
    def init(key, shape):
        with nn.scope("inner"):
            return nn.Dense(3).init(key, shape)

    def apply(params, inputs, *, key=None, train=False):
        with nn.scope("inner"):
            return nn.Dense(3).apply(params, inputs)

    model = nn.serial(mine=nn.Layer(init, apply))
    _, params = model.init(random.key(0), (-1, 2))
    with pytest.raises(ShapeError, match=r"^in layer 'mine/inner': Dense"):
        model.apply(params, np.zeros((1, 5)))
    with pytest.raises(KeyError) as caught, nn.scope("part"):
        raise KeyError("x")
    assert caught.value.__notes__ == ["in layer 'part'"]


# -- whole models ---------------------------------------------------------------------------------


def test_a_model_differentiates_with_the_structure_of_its_parameters():
    model = nn.serial(
        words=nn.Embedding(11, 4),
        drop=nn.Dropout(0.2),
        lstm=nn.LSTM(3, bidirectional=True),
        pool=nn.GlobalMaxPool,
        head=nn.serial(nn.Dense(4), nn.Gelu, nn.Dense(2)),
    )
    shape, params = made(model, (-1, -1))
    assert shape == (-1, 2)
    batch = nn.pad([[1, 2, 3], [4, 5], [10]])
    check_derivatives(lambda p: model.apply(p, batch, key=random.key(5), train=True), params)

    def loss(p):
        logits = model.apply(p, batch)
        return np.mean(nn.softmax_cross_entropy_with_integer_labels(logits, np.array([0, 1, 1])))

    value, grads = ff.value_and_grad(loss)(params)
    assert tree.structure(grads) == tree.structure(params)
    stepped = tree.map(lambda p, g: p - 0.1 * g, params, grads)
    assert loss(stepped) < value


# -- Lambda ---------------------------------------------------------------------------------------


def test_a_function_of_a_padded_batch_keeps_its_lengths():
    double = nn.Lambda(lambda x: np.concatenate([x, x], axis=-1))
    batch = nn.pad([np.ones((3, 2)), np.ones((1, 2))])
    out = double.apply((), batch)
    assert out.values.shape == (2, 3, 4)
    assert out.lengths is batch.lengths
    with pytest.raises(ShapeError, match=r"^in layer 'odd': Lambda: odd changes the batch or the time .* \(2, 3, 2\)"):
        nn.serial(odd=nn.Lambda(lambda x: x[:, ::2], name="odd")).apply({"odd": ()}, batch)


def test_a_function_that_does_not_take_its_inputs_is_named_with_its_path():
    model = nn.serial(flat=nn.Lambda(lambda x: np.reshape(x, (-1, 5)), name="flat"))
    assert model.init(None, (-1, 5, 2))[0] == (-1, 5)
    with pytest.raises(ShapeError, match=r"^in layer 'flat': Lambda: flat does not take inputs of shape \(-1, 3\)"):
        model.init(None, (-1, 3))
    table = np.arange(12.0).reshape(4, 3)
    assert nn.Lambda(lambda words: ff.at(table)[words].get()).init(None, (-1, 5))[0] == (-1, 5, 3)
    with pytest.raises(ArgumentError, match="Lambda: expected a function, got 3"):
        nn.Lambda(3)
    rows = nn.summary(nn.serial(nn.Lambda(lambda x: x[:, 0], name="First")), (-1, 5, 2)).rows
    assert [(r.kind, r.output_shape) for r in rows] == [("First", (-1, 2))]
