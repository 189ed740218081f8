"""Batches of no examples, sequences of no steps: every layer gives empty outputs of the right shape, and gradients of
zero, eagerly and as a program."""

import numpy as np
import pytest
from layers_under_test import LAYERS

import fnflare as ff
from fnflare import nn, random, tree
from fnflare.testing.subjects import Mode, arrays_of, is_shape, subject_of, with_sizes

SAMPLES = [
    pytest.param(s, id=f"{name}-{i}")
    for name, samples in LAYERS.items()
    for i, s in enumerate(samples)
    if s.options.get("inputs") is None or s.options["inputs"].__name__ == "words"
]


def without_examples(shape):
    return (0, *with_sizes(shape)[1:]) if is_shape(shape) else tuple([without_examples(s) for s in shape])


@pytest.mark.parametrize("sample", SAMPLES)
def test_a_batch_of_no_examples_gives_no_outputs_and_gradients_of_zero(sample):
    subject = subject_of(sample.layer, sample.options.get("inputs"), 0, 1, (None,) * 3)
    foretold, params = subject.init(sample.input_shape)
    inputs = subject.inputs(without_examples(sample.input_shape))
    for mode in (Mode(False), Mode(True)):
        for y, shape in arrays_of(subject.outputs(params, inputs, mode), foretold):
            assert y.shape[0] == 0
            assert all(n in (-1, m) for n, m in zip(shape[1:], y.shape[1:], strict=True))
        own, state = params if subject.stateful else (params, None)

        def loss(own, inputs, mode=mode, state=state):
            y = subject.outputs((own, state) if subject.stateful else own, inputs, mode)
            return sum(np.sum(leaf) for leaf in tree.leaves(y))

        gradient = ff.grad(loss)
        for f in (gradient, ff.jit(gradient)):
            assert all(np.all(leaf == 0) for leaf in tree.leaves(f(own, inputs)))


@pytest.mark.parametrize(
    "layer", [nn.SinusoidalPositions(), nn.MultiHeadAttention(2), nn.MultiHeadAttention(2, causal=True, rotary=True)]
)
def test_sequences_of_no_steps_stay_empty(layer):
    _, params = layer.init(random.key(0), (-1, -1, 4))
    assert layer.apply(params, np.zeros((2, 0, 4), np.float32)).shape == (2, 0, 4)


@pytest.mark.parametrize("layer", [nn.Conv(4, 3, groups=2), nn.DepthwiseConv((2, 3), 3), nn.Conv(16, 3, groups=2)])
def test_groups_of_no_examples_have_gradients_in_all_arguments(layer):
    shape = (0, 5, 16) if layer.init.__qualname__ == "Conv.init" else (0, 5, 6, 16)
    _, params = layer.init(random.key(0), shape)
    y, pullback = ff.vjp(layer.apply, params, np.zeros(shape, np.float32))
    gradient, of_inputs = pullback(y)
    assert of_inputs.shape == shape
    assert all(np.all(leaf == 0) for leaf in tree.leaves(gradient))


@pytest.mark.parametrize("f", [nn.softmax, nn.softmin, nn.log_softmax, nn.sparsemax])
@pytest.mark.parametrize("shape", [(0, 3), (2, 0)])
def test_distributions_over_nothing_are_empty(f, shape):
    x = np.zeros(shape, np.float32)
    for g in (f, ff.jit(f), ff.grad(lambda x: np.sum(f(x))), ff.jit(ff.grad(lambda x: np.sum(f(x))))):
        assert g(x).shape == shape
        assert g(x).dtype == np.float32


def test_the_logarithm_of_a_sum_of_nothing():
    np.testing.assert_array_equal(nn.logsumexp(np.zeros((2, 0)), axis=1), [-np.inf, -np.inf])


@pytest.mark.parametrize("jit", [False, True])
@pytest.mark.parametrize(
    "inputs",
    [
        np.zeros((0, 2), np.float32),
        np.zeros((3, 0, 2), np.float32),
        nn.Padded(np.ones((3, 4, 2), np.float32), np.zeros(3, np.int64)),
    ],
)
def test_a_batch_without_positions_leaves_running_statistics_as_they_are(inputs, jit):
    model = nn.with_state(nn.serial(norm=nn.BatchNorm()))
    _, params, _ = model.init(random.key(0), (-1, 2))
    state = {"norm": {"mean": np.float32([1, 2]), "var": np.float32([3, 4])}}

    def train(params, state, inputs):
        return model.apply(params, state, inputs, train=True)[1]

    new = (ff.jit(train) if jit else train)(params, state, inputs)
    tree.map(np.testing.assert_array_equal, new, state)
    assert all(leaf.dtype == np.float32 for leaf in tree.leaves(new))


def test_pools_of_no_examples_and_the_way_back():
    x = np.zeros((0, 4, 4, 3), np.float32)
    maxima, places = nn.MaxPool((2, 2), return_indices=True).apply((), x)
    assert maxima.shape == places.shape == (0, 2, 2, 3)
    assert nn.MaxUnpool((2, 2)).apply((), (maxima, places)).shape == x.shape
