"""The laws of layers, one function each: what every pair of `init` and `apply` promises to those who build on it.

A `Subject` goes in with shapes, or with parameters, inputs and a mode; nothing comes out, or a `LawError`. Laws of
`INIT_LAWS` make parameters themselves, those of `APPLY_LAWS` take such as are given.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from fnflare import nn, random, tree
from fnflare.errors import FnflareError, MissingKeyError, UnsupportedError
from fnflare.nn import scoping
from fnflare.testing.batching import vmap_law
from fnflare.testing.compiling import jit_law
from fnflare.testing.derivatives import grads_law
from fnflare.testing.directions import MODE_TOLERANCES, coarsest
from fnflare.testing.draws import keys_drawn_from
from fnflare.testing.failures import LawError, assert_close, assert_equal, assert_structure, at, is_floating
from fnflare.testing.models import doubled
from fnflare.testing.subjects import Mode, Subject, arrays_of, floating_in, with_sizes
from fnflare.transforms import grad

__all__ = ["APPLY_LAWS", "INIT_LAWS", "modes_of"]

EVALUATION, TRAINING = Mode(train=False), Mode(train=True)


def modes_of(s: Subject, params: Any, inputs: Any) -> list[Mode]:
    """The modes in which a layer does different things."""
    plain = s.apply(params, inputs, EVALUATION)
    trained = s.apply(params, inputs, TRAINING)
    return [EVALUATION] if _same(plain, trained) else [EVALUATION, TRAINING]


def _same(a: Any, b: Any) -> bool:
    if tree.structure(a) != tree.structure(b):
        return False
    pairs = zip(tree.leaves(a), tree.leaves(b), strict=True)
    return all(np.array_equal(x, y, equal_nan=np.asarray(x).dtype.kind in "fc") for x, y in pairs)


def _weighted_sum(outputs: Any) -> Any:
    """A scalar in which every element of the outputs has its own weight."""
    floating = [x for x in tree.leaves(outputs) if is_floating(x)]
    weighted = [np.sum(x * np.linspace(0.5, 1.5, x.size).reshape(x.shape).astype(x.dtype)) for x in floating]
    return sum(weighted, 0.0)


def _gradient(f: Callable[[Any], Any], params: Any) -> tuple[Any, Any]:
    """The gradient of a function of parameters in those that are floats, beside these; others are no parameters that
    are trained."""
    floats, others = tree.partition(params, tree.map(is_floating, params))
    return grad(lambda floats: f(tree.combine(floats, others)))(floats), floats


# -- laws of init -----------------------------------------------------------------------------------


def shapes(s: Subject, shape: Any) -> None:
    """The output shape that init foretells is that of what apply gives, whatever the sizes of free dimensions."""
    foretold, params = s.init(shape)
    for other in (False, True):
        sizes = with_sizes(shape, other)
        inputs = s.inputs(sizes)
        for mode in (EVALUATION, TRAINING):
            out = s.outputs(params, inputs, mode)
            try:
                pairs = list(arrays_of(out, foretold))
            except (TypeError, ValueError):
                raise LawError(
                    "shapes",
                    f"shapes: init foretells {foretold} for inputs {shape}, apply gives a {type(out).__name__}",
                ) from None
            for y, wanted in pairs:
                got = np.shape(y)
                if len(got) != len(wanted) or any(n not in (-1, m) for n, m in zip(wanted, got, strict=True)):
                    raise LawError(
                        "shapes",
                        f"shapes: for inputs {shape} init foretells outputs {wanted}; apply gives {got} for inputs "
                        f"{sizes} with {mode}",
                    )


def init(s: Subject, shape: Any) -> None:
    """Init is a function of its key and its shape: equal keys give equal parameters, and the key stays as it is."""
    key = random.key(s.seed)
    before = np.array(key)
    first, second = s.layer.init(key, shape), s.layer.init(key, shape)
    if not _same(first[1:], second[1:]) or first[0] != second[0]:
        raise LawError("init", "init: two calls with the same key give different parameters; draw from the key alone")
    if not np.array_equal(key, before):
        raise LawError("init", "init: changes the key that it is given")
    for path, leaf in tree.leaves_with_path(first[1]):
        if not isinstance(leaf, (np.ndarray, np.generic)) or leaf.dtype.kind not in "fciub":
            raise LawError("init", f"{at('init: the parameters', path)}: is a {type(leaf).__name__}, not an array")


def paths(s: Subject, shape: Any) -> None:
    """Within `serial` a layer has the same parameters, under its name, and an error says in which layer it arose."""
    if s.stateful:
        return
    model = nn.serial(outer=s.layer)
    foretold, params = model.init(random.key(s.seed), shape)
    if foretold != s.init(shape)[0]:
        raise LawError("paths", f"paths: init foretells {s.init(shape)[0]} alone and {foretold} within nn.serial")
    if tree.structure(params["outer"]) != tree.structure(s.init(shape)[1]):
        raise LawError("paths", "paths: the parameters within nn.serial have another structure than alone")
    inputs, depth = s.inputs(with_sizes(shape)), len(scoping.names())
    # Things that layers refuse; one that takes them all has no error to look at.
    s.apply(s.init(shape)[1], inputs, EVALUATION)
    if len(scoping.names()) != depth:
        left = scoping.names()[depth:]
        del scoping.names()[depth:]
        raise LawError("paths", f"paths: apply leaves the names {left} open; use nn.scope in a with statement")
    wider = tree.map(lambda x: np.concatenate([x, x], axis=-1) if np.ndim(x) else x, inputs)
    for given, keywords in ((inputs, {"train": True}), (wider, {}), (None, {})):
        try:
            model.apply(params, given, **keywords)
        except Exception as error:
            said = [str(error), *getattr(error, "__notes__", ())]
            if not any(text.startswith("in layer 'outer") for text in said):
                raise LawError(
                    "paths",
                    f'paths: an error within nn.serial(outer=...) does not start with "in layer '
                    f"'outer'\": {said}; open names with nn.scope alone",
                ) from error


# -- laws of apply ----------------------------------------------------------------------------------


def dtypes(s: Subject, params: Any, inputs: Any, mode: Mode) -> None:
    """float32 parameters and inputs give float32 outputs, float64 ones float64; init makes float32 ones."""
    for path, leaf in tree.leaves_with_path(params):
        if is_floating(leaf) and np.asarray(leaf).dtype == np.float64 and coarsest(inputs) == 4:
            raise LawError(
                "dtypes",
                f"{at('dtypes: the parameters', path)}: is float64; init has to make float32, "
                "which would not stay so beside it",
            )
    has_floats = any(is_floating(x) for x in tree.leaves((params, inputs)))  # else they say nothing of the outputs
    for dtype in (np.float32, np.float64) if has_floats else ():
        out = s.apply(floating_in(params, dtype), floating_in(inputs, dtype), mode)
        for path, y in tree.leaves_with_path(out):
            if is_floating(y) and np.asarray(y).dtype != dtype:
                name = np.dtype(dtype).name
                raise LawError(
                    f"dtypes: {name}",
                    f"{at('dtypes: the outputs', path)}: {name} parameters and inputs give {np.asarray(y).dtype}",
                )


def pure(s: Subject, params: Any, inputs: Any, mode: Mode) -> None:
    """Apply gives the same for the same, and leaves its arguments as they are; so does its gradient."""
    before = tree.map(np.array, (params, inputs))
    first, second = s.apply(params, inputs, mode), s.apply(params, inputs, mode)
    if _restored((params, inputs), before):
        raise LawError(
            "pure: arguments", f"pure: apply with {mode} writes into its parameters or inputs; make new arrays"
        )
    if not _same(first, second):
        raise LawError(
            "pure: twice",
            f"pure: two calls with the same arguments and {mode} differ; draw from the key "
            "alone and keep nothing between calls",
        )
    _gradient(lambda p: _weighted_sum(s.apply(p, inputs, mode)), params)
    if _restored((params, inputs), before):
        raise LawError("pure: gradient", f"pure: the gradient with {mode} writes into its parameters or inputs")


def _restored(arguments: Any, before: Any) -> bool:
    """Whether arguments were written into; they are then made again what they were, for the example."""
    if _same(arguments, before):
        return False
    for x, old in zip(tree.leaves(arguments), tree.leaves(before), strict=True):
        if not _same(x, old):
            np.copyto(x, old)
    return True


def keys(s: Subject, params: Any, inputs: Any, mode: Mode) -> None:
    """What draws random numbers in training takes them from its key, and says so where there is none; nothing else
    depends on the key."""
    one, other = random.key(s.seed + 1), random.key(s.seed + 2)
    plain = s.apply_with(params, inputs, key=None, train=False)
    if not _same(plain, s.apply_with(params, inputs, key=one, train=False)):
        raise LawError("keys: evaluation", "keys: with train=False the outputs depend on the key")
    first, second = (s.apply_with(params, inputs, key=k, train=True) for k in (one, other))
    try:
        without = s.apply_with(params, inputs, key=None, train=True)
    except MissingKeyError:
        if not s.stateful:
            _names_the_path(s, params, inputs)
        _draws_once(s, params, inputs, one)
        return
    except Exception as error:
        raise LawError(
            "keys: error",
            f"keys: with train=True and no key apply raises {type(error).__name__}; raise "
            f"fnflare.errors.MissingKeyError with nn.scope's path in it ({error})",
        ) from error
    if not _same(first, second):
        raise LawError(
            "keys: missing",
            "keys: with train=True the outputs depend on the key, but without one apply raises no MissingKeyError",
        )
    if not _same(first, without):
        raise LawError("keys: none", "keys: with train=True a key that is not needed changes the outputs")


def _draws_once(s: Subject, params: Any, inputs: Any, key: Any) -> None:
    try:
        drawn = keys_drawn_from(lambda *given: s.apply_with(*given[:2], key=given[2], train=True), params, inputs, key)
    except FnflareError:  # it cannot be traced, which is for the law of jit to say
        return
    if len(drawn) > len(set(drawn)):
        raise LawError(
            "keys: reuse",
            "keys: with train=True apply draws from one key more than once, which gives the same numbers again; make a "
            "key for each: a, b = fnflare.random.split(key)",
        )


def _names_the_path(s: Subject, params: Any, inputs: Any) -> None:
    try:
        nn.serial(outer=s.layer).apply({"outer": params}, inputs, train=True)
    except MissingKeyError as error:
        said = [str(error), *getattr(error, "__notes__", ())]
        if any("'outer" in text for text in said):
            return
    raise LawError("keys: path", "keys: the MissingKeyError within nn.serial(outer=...) does not name the path 'outer'")


def batch(s: Subject, params: Any, inputs: Any, mode: Mode) -> None:
    """Each example of a batch gives what it gives alone."""
    if mode.train:
        return
    whole = s.outputs(params, inputs, mode)
    count = len(tree.leaves(inputs)[0])
    limits = (MODE_TOLERANCES[coarsest(params, inputs, whole)],) * 2
    for k in range(count):
        alone = s.outputs(params, tree.map(lambda x, k=k: x[k : k + 1], inputs), mode)
        ours, what = tree.map(lambda y, k=k: y[k : k + 1], whole), f"batch, example {k} of {count}"
        assert_structure(ours, alone, what, "batch")
        assert_equal(ours, alone, what, "alone it gives", "batch")
        assert_close(ours, alone, limits, what, "alone it gives", law="batch", nan=True)


def gradients(s: Subject, params: Any, inputs: Any, mode: Mode) -> None:
    """Gradients mirror the parameters and are right, in both modes and in float64. State is no parameter: running
    statistics are averaged, and not differentiated."""
    own = params[0] if s.stateful else params

    def outputs(own: Any, inputs: Any) -> Any:
        return s.outputs((own, params[1]) if s.stateful else own, inputs, mode)

    gradient, floats = _gradient(lambda own: _weighted_sum(outputs(own, inputs)), own)
    assert_structure(gradient, floats, f"gradients: the gradient with {mode}", "gradients: structure")

    def check(*modes: str) -> None:
        grads_law(outputs, doubled((own, inputs)), s.order, modes, s.limits, s.seed)

    try:
        try:
            check("fwd", "rev")
        except UnsupportedError:  # such as a rule by custom_vjp alone: what has no forward mode is right in the other
            check("rev")
    except LawError as failure:
        raise LawError(f"gradients: {failure.law}", f"gradients with {mode}: {failure.message}") from failure.__cause__


def vmap(s: Subject, params: Any, inputs: Any, mode: Mode) -> None:
    """Many batches, many parameters, and both, at once give what each gives."""
    other = tree.map(lambda x: (x * 0.5).astype(x.dtype) if is_floating(x) else x, (params, inputs))
    two_params, two_inputs = tree.map(lambda a, b: np.stack([a, b]), (params, inputs), other)
    for p, x, axes in (
        (params, two_inputs, (None, 0)),
        (two_params, inputs, (0, None)),
        (two_params, two_inputs, (0, 0)),
    ):
        if tree.leaves(p if axes == (0, None) else x):
            _prefixed("vmap", mode, vmap_law, lambda p, x: s.apply(p, x, mode), (p, x), axes)


def jit(s: Subject, params: Any, inputs: Any, mode: Mode) -> None:
    """The outputs and the gradient are the same eagerly, on the interpreter and as native code."""
    _prefixed("jit", mode, jit_law, lambda p, x: s.apply(p, x, mode), (params, inputs))

    def gradient(p: Any, x: Any) -> Any:
        return _gradient(lambda p: _weighted_sum(s.apply(p, x, mode)), p)[0]

    _prefixed("jit of the gradient", mode, jit_law, gradient, (params, inputs))


def _prefixed(name: str, mode: Mode, law: Callable[..., None], *args: Any) -> None:
    try:
        law(*args)
    except LawError as failure:
        raise LawError(f"{name}: {failure.law}", f"{name} with {mode}: {failure.message}") from failure.__cause__


INIT_LAWS: dict[str, Callable[[Subject, Any], None]] = {"shapes": shapes, "init": init, "paths": paths}
APPLY_LAWS: dict[str, Callable[[Subject, Any, Any, Mode], None]] = {
    "dtypes": dtypes,
    "pure": pure,
    "keys": keys,
    "batch": batch,
    "gradients": gradients,
    "vmap": vmap,
    "jit": jit,
}
