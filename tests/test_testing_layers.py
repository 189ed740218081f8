"""`check_layer`: every public layer keeps the laws, and layers that break one are found, with an example that fails in
the same way when it is pasted."""

import dataclasses
import re

import numpy as np
import pytest
from layers_under_test import LAYERS, public_layers

import fnflare as ff
from fnflare import nn, random, testing
from fnflare.errors import ArgumentError, MissingKeyError
from fnflare.nn import scoping
from fnflare.testing import LawError, check_layer


def test_every_public_layer_is_held_to_the_laws():
    assert set(LAYERS) == set(public_layers()), "tests/layers_under_test.py wants one of each public layer"


@pytest.mark.parametrize(
    "sample", [pytest.param(s, id=f"{name}-{i}") for name, samples in LAYERS.items() for i, s in enumerate(samples)]
)
def test_public_layers_keep_the_laws(sample):
    check_layer(sample.layer, sample.input_shape, **sample.options)


# -- broken layers ------------------------------------------------------------------------------------------------


def scale(apply=None, init=None):
    """A layer that multiplies each feature, and keeps all laws but where it is told to do otherwise."""

    def right_init(key, input_shape):
        return input_shape, {"scale": np.linspace(0.5, 1.5, input_shape[-1]).astype(np.float32)}

    def right_apply(params, inputs, *, key=None, train=False):
        return inputs * params["scale"]

    return nn.Layer(init or right_init, apply or right_apply)


def wrong_shape():
    def init(key, input_shape):
        return (*input_shape[:-1], input_shape[-1] + 1), ()

    return scale(init=init, apply=lambda params, inputs, *, key=None, train=False: inputs)


def wrong_when_batches_are_large():
    return scale(
        init=lambda key, shape: (shape, ()),
        apply=lambda params, inputs, *, key=None, train=False: inputs if len(inputs) < 3 else inputs[:2],
    )


def other_parameters_each_time():
    count = []

    def init(key, input_shape):
        count.append(1)
        return input_shape, {"scale": np.full(input_shape[-1], len(count), np.float32)}

    return scale(init=init)


def python_numbers():
    return scale(
        init=lambda key, shape: (shape, {"gain": 2.0}),
        apply=lambda params, inputs, *, key=None, train=False: inputs * params["gain"],
    )


def double_parameters():
    return scale(init=lambda key, shape: (shape, {"scale": np.ones(shape[-1])}))


def always_single():
    return scale(lambda params, inputs, *, key=None, train=False: (inputs * params["scale"]).astype(np.float32))


def widens():
    return scale(lambda params, inputs, *, key=None, train=False: inputs * params["scale"] * np.ones(1))


def writes_into_its_inputs():
    def apply(params, inputs, *, key=None, train=False):
        if isinstance(inputs, np.ndarray):
            inputs += 1
        return inputs * params["scale"]

    return scale(apply)


def remembers():
    calls = []

    def apply(params, inputs, *, key=None, train=False):
        calls.append(1)
        return inputs * params["scale"] * np.float32(len(calls))

    return scale(apply)


def noise_without_a_complaint():
    def apply(params, inputs, *, key=None, train=False):
        if not train:
            return inputs * params["scale"]
        key = random.key(0) if key is None else key
        return inputs * params["scale"] + random.normal(key, inputs.shape).astype(inputs.dtype)

    return scale(apply)


def noise_with_another_error():
    def apply(params, inputs, *, key=None, train=False):
        if not train:
            return inputs * params["scale"]
        return inputs * params["scale"] + random.normal(key, inputs.shape).astype(inputs.dtype)

    return scale(apply)


def draws_twice_from_one_key():
    def apply(params, inputs, *, key=None, train=False):
        if not train:
            return inputs * params["scale"]
        if key is None:
            raise MissingKeyError(f"{scoping.where()}the noise draws in training: give a key")
        one = random.split(key)[0]
        kept = random.bernoulli(one, 0.5, inputs.shape)
        return inputs * params["scale"] * kept + random.normal(one, inputs.shape).astype(inputs.dtype)

    return scale(apply)


def noise_in_evaluation():
    def apply(params, inputs, *, key=None, train=False):
        noise = 0.0 if key is None else random.normal(key, inputs.shape).astype(inputs.dtype)
        return inputs * params["scale"] + noise

    return scale(apply)


def mixes_the_batch():
    def apply(params, inputs, *, key=None, train=False):
        return (inputs - np.mean(inputs, axis=0)) * params["scale"]

    return scale(apply)


def wrong_derivative():
    def apply(params, inputs, *, key=None, train=False):
        @ff.custom_jvp
        def cube(x):
            return x**3

        cube.defjvps(lambda t, out, x: 2 * x**2 * t)
        return cube(inputs * params["scale"])

    return scale(apply)


def wrong_reverse_derivative():
    def apply(params, inputs, *, key=None, train=False):
        @ff.custom_vjp
        def cube(x):
            return x**3

        cube.defvjp(lambda x: (x**3, x), lambda x, ct: (2 * ct * x**2,))
        return cube(inputs * params["scale"])

    return scale(apply)


def loses_a_gradient():
    def apply(params, inputs, *, key=None, train=False):
        return inputs * ff.stop_gradient(params["scale"])

    return scale(apply)


def looks_at_a_value():
    def apply(params, inputs, *, key=None, train=False):
        return inputs * params["scale"] if params["scale"][0] > 0 else inputs

    return scale(apply)


def changes_its_key():
    def init(key, input_shape):
        key[...] = 7
        return input_shape, {"scale": np.ones(input_shape[-1], np.float32)}

    return scale(init=init)


def gives_a_dict():
    return scale(lambda params, inputs, *, key=None, train=False: {"out": inputs * params["scale"]})


def writes_when_it_is_differentiated():
    def apply(params, inputs, *, key=None, train=False):
        @ff.custom_vjp
        def scaled(w):
            return inputs * w

        def backward(_, ct):
            inputs[...] = 0
            return (np.sum(ct, axis=0),)

        scaled.defvjp(lambda w: (inputs * w, None), backward)
        return scaled(params["scale"])

    return scale(apply)


def a_key_makes_a_difference():
    def apply(params, inputs, *, key=None, train=False):
        return inputs * params["scale"] * (2 if train and key is not None else 1)

    return scale(apply)


def has_other_parameters_in_a_model():
    def init(key, input_shape):
        params = {"scale": np.ones(input_shape[-1], np.float32)}
        return input_shape, {**params, "more": params["scale"]} if scoping.names() else params

    return scale(init=init)


def has_another_shape_in_a_model():
    def init(key, input_shape):
        wider = (-1,) * len(input_shape) if scoping.names() else input_shape
        return wider, {"scale": np.ones(input_shape[-1], np.float32)}

    return scale(init=init)


BROKEN = [
    (wrong_shape, "shapes", r"init foretells outputs \(-1, 2\); apply gives \(3, 1\)"),
    (wrong_when_batches_are_large, "batch", r"example 2 of 3: has shape \(0, 1\)"),
    (other_parameters_each_time, "init", "two calls with the same key give different parameters"),
    (python_numbers, "init", "leaf 'gain': is a float, not an array"),
    (double_parameters, "dtypes", "leaf 'scale': is float64; init has to make float32"),
    (always_single, "dtypes: float64", "float64 parameters and inputs give float32"),
    (widens, "dtypes: float32", "float32 parameters and inputs give float64"),
    (writes_into_its_inputs, "pure: arguments", "writes into its parameters or inputs"),
    (remembers, "pure: twice", "two calls with the same arguments and train=False differ"),
    (noise_without_a_complaint, "keys: missing", "without one apply raises no MissingKeyError"),
    (noise_with_another_error, "keys: error", "with train=True and no key apply raises"),
    (draws_twice_from_one_key, "keys: reuse", "draws from one key more than once"),
    (noise_in_evaluation, "keys: evaluation", "with train=False the outputs depend on the key"),
    (mixes_the_batch, "batch", "but alone it gives 0"),
    (wrong_derivative, "gradients: jvp: the tangent", "but finite differences give"),
    (wrong_reverse_derivative, "gradients: vjp: the cotangent", "but finite differences give"),
    (loses_a_gradient, "gradients: jvp: the tangent", "but finite differences give"),
    (changes_its_key, "init", "changes the key that it is given"),
    (gives_a_dict, "shapes", r"init foretells \(-1, 1\) for inputs \(-1, 1\), apply gives a dict"),
    (writes_when_it_is_differentiated, "pure: gradient", "the gradient with train=False writes into"),
    (a_key_makes_a_difference, "keys: none", "a key that is not needed changes the outputs"),
    (has_other_parameters_in_a_model, "paths", "the parameters within nn.serial have another structure than alone"),
    (has_another_shape_in_a_model, "paths", r"init foretells \(-1, 1\) alone and \(-1, -1\) within nn.serial"),
    (looks_at_a_value, "vmap: ConcretizationError", "raises ConcretizationError where the function itself does not"),
]

#: What has state outside of its text, or a message that names a line, does not say the same of its text alone.
TOLD_BY_STATE = {other_parameters_each_time, remembers, looks_at_a_value}


@pytest.mark.parametrize(("make", "law", "message"), BROKEN, ids=lambda x: getattr(x, "__name__", None))
def test_broken_layers_are_found_and_their_examples_fail_alike(make, law, message):
    layer = make()
    with pytest.raises(AssertionError, match=message) as caught:
        check_layer(layer, (-1, 3), laws=None)
    failure = caught.value
    assert isinstance(failure, LawError)
    assert law in failure.law
    assert failure.example in str(failure)
    run_example(failure, {} if make not in TOLD_BY_STATE else {"layer": make()}, alike=make not in TOLD_BY_STATE)


def run_example(failure, names=None, alike=True):
    """Run the example as one who pastes it would; it has to fail in the same way."""
    with pytest.raises(LawError) as again:
        exec(compile(failure.example, "<pasted>", "exec"), {"__name__": "pasted", **(names or {})})
    assert again.value.law == failure.law
    if alike:
        assert again.value.message == failure.message


def test_examples_are_small():
    with pytest.raises(LawError) as caught:
        check_layer(mixes_the_batch(), (-1, -1, 5), laws=["batch"])
    assert "np.array([1.0], np.float32)" in caught.value.example
    assert re.search(r"inputs=np.array\(\[\[\[0\.0\]\], \[\[1\.0\]\]\], np.float32\)", caught.value.example)
    assert len(caught.value.example.splitlines()) < 20


def test_layers_are_written_as_they_were_given():
    with pytest.raises(LawError) as caught:
        check_layer(nn.serial(hidden=nn.Dense(2), out=mixes_the_batch()), (4, 3), laws=["batch"])
    assert "nn.serial(hidden=nn.Dense(2), out=mixes_the_batch())" in caught.value.example
    run_example(caught.value)
    model = nn.serial(nn.Tanh, mixes_the_batch())
    with pytest.raises(LawError) as caught:
        check_layer(model, (4, 3), laws=["batch"])
    assert "nn.serial(nn.Tanh, mixes_the_batch())" in caught.value.example
    run_example(caught.value)
    for other in (nn.serial(nn.Tanh, mixes_the_batch()),):  # nowhere written
        with pytest.raises(LawError) as caught:
            testing.check_layer(other, (4, 3), laws=["batch"])
    assert "# other: that of your call, which could not be written here" in caught.value.example
    run_example(caught.value, {"other": other})


def test_a_layer_without_settings_has_its_public_name(monkeypatch):
    monkeypatch.setattr(nn, "Identity", mixes_the_batch())
    with pytest.raises(LawError) as caught:
        check_layer(nn.Identity, (4, 3), laws=["batch"])
    assert "testing.check_layer(\n    nn.Identity," in caught.value.example


def test_training_is_checked_where_it_differs():
    def apply(params, inputs, *, key=None, train=False):
        return (inputs * params["scale"]).astype(np.float32) if train else inputs * params["scale"]

    check_layer(scale(apply), (-1, 3), train=False)
    with pytest.raises(LawError, match="float64") as caught:
        check_layer(scale(apply), (-1, 3), laws=["dtypes"], train=True)
    run_example(caught.value)


def test_a_missing_key_has_to_name_the_path():
    def apply(params, inputs, *, key=None, train=False):
        if train and key is None:
            raise MissingKeyError("give me a key")
        return inputs * params["scale"] * (random.bernoulli(key, 0.5).astype(inputs.dtype) if train else 1)

    check_layer(scale(apply), (-1, 3))  # nn.serial notes the path on the error


def test_errors_that_hide_the_path_are_found():
    def apply(params, inputs, *, key=None, train=False):
        if inputs is None:
            raise ValueError("in layer 'mine': inputs")
        return inputs * params["scale"]

    with pytest.raises(LawError, match="does not start with") as caught:
        check_layer(scale(apply), (-1, 3), laws=["paths"])
    run_example(caught.value)


def test_names_that_are_left_open_are_found():
    def apply(params, inputs, *, key=None, train=False):
        scoping.names().append("inner")
        return inputs * params["scale"]

    with pytest.raises(LawError, match=r"leaves the names \['inner'\] open"):
        check_layer(scale(apply), (-1, 3), laws=["paths"])


def test_arguments_are_checked():
    with pytest.raises(ArgumentError, match="laws must be of"):
        check_layer(nn.Tanh, (2, 3), laws=["vmpa"])
    with pytest.raises(ArgumentError, match="a constructor has to be called"):
        check_layer(nn.Dense, (2, 3))
    with pytest.raises(ArgumentError, match="init has to return"):
        check_layer(scale(init=lambda key, shape: ()), (2, 3))


def test_inputs_may_be_given_and_are_in_the_example():
    def apply(params, inputs, *, key=None, train=False):
        return inputs[:, :1] if inputs.max() > 3 else inputs

    layer = scale(apply, init=lambda key, shape: (shape, ()))
    check_layer(layer, (2, 2), inputs=np.ones((2, 2), np.float32), laws=["shapes"])
    with pytest.raises(LawError, match=r"apply gives \(2, 1\)") as caught:
        check_layer(layer, (2, 2), inputs=np.full((2, 2), 5, np.float32), laws=["shapes"])
    assert "inputs=np.full((2, 2), 5.0, np.float32)" in caught.value.example
    run_example(caught.value)
    with pytest.raises(LawError, match=r"apply gives") as caught:
        check_layer(layer, (2, 2), inputs=lambda rng, shape: rng.integers(4, 5, shape), laws=["shapes"])
    assert "inputs=(lambda rng, shape: rng.integers(4, 5, shape))" in caught.value.example
    run_example(caught.value)


# -- layers of users' own that keep the laws ----------------------------------------------------------------------


@ff.custom_vjp
def square(x):
    return x * x


square.defvjp(lambda x: (x * x, x), lambda x, ct: (2 * ct * x,))


@dataclasses.dataclass
class Gain:
    """A layer as methods of an object."""

    start: float
    wide: bool = False

    def init(self, key, input_shape):
        return input_shape, {"gain": np.full(input_shape[-1], self.start, np.float64 if self.wide else np.float32)}

    def apply(self, params, inputs, *, key=None, train=False):
        return inputs * params["gain"]


def of_parts(rng, shape):
    return {name: rng.standard_normal(shape).astype(np.float32) for name in ("a", "b")}


def cut_off(rng, shape):
    lengths = rng.integers(0, shape[1] + 1, shape[0])
    return nn.Padded(rng.standard_normal(shape).astype(np.float32), lengths)


def mean_of_words(params, batch, *, key=None, train=False):
    real = np.where(batch.mask()[:, :, None], batch.values, np.zeros((), batch.values.dtype))
    return np.sum(real, axis=1) / np.maximum(batch.lengths, 1)[:, None].astype(real.dtype)


@pytest.mark.parametrize(
    ("layer", "shape", "options"),
    [
        (scale(lambda p, x, *, key=None, train=False: square(x * p["scale"])), (-1, 3), {}),
        ((Gain(2.0).init, Gain(2.0).apply), (-1, 3), {"order": 2}),
        (scale(lambda p, x, *, key=None, train=False: x["a"] * p["scale"] + x["b"]), (-1, 3), {"inputs": of_parts}),
        (nn.Layer(lambda key, shape: ((shape[0], shape[2]), ()), mean_of_words), (-1, -1, 3), {"inputs": cut_off}),
        (
            nn.Layer(lambda key, shape: (shape[:1], ()), lambda p, x, *, key=None, train=False: np.argmax(x, axis=-1)),
            (-1, 3),
            {},
        ),
        (
            nn.Layer(
                lambda key, shape: (
                    shape,
                    {"w": np.ones(shape[-1], np.float32), "order": np.arange(3)[::-1], "b": None},
                ),
                lambda p, x, *, key=None, train=False: x * p["w"] + p["order"].astype(x.dtype),
            ),
            (-1, 3),
            {},
        ),
    ],
    ids=["custom_vjp", "methods", "dict", "padded", "integers out", "integers among parameters"],
)
def test_layers_of_users_own_keep_the_laws(layer, shape, options):
    check_layer(layer, shape, **options)


def test_layers_that_are_methods_are_written_out():
    class Plain(Gain):
        def __init__(self, start):
            super().__init__(start, wide=True)

    with pytest.raises(LawError, match="is float64") as caught:
        check_layer((Gain(2.0, wide=True).init, Gain(2.0).apply), (-1, 3))
    assert "Gain(start=2.0, wide=True).init" in caught.value.example
    run_example(caught.value)
    layer = Plain(2.0)
    with pytest.raises(LawError, match="is float64") as caught:
        check_layer((layer.init, layer.apply), (-1, 3))
    run_example(caught.value)
