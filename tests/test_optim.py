"""The building blocks of optimisers, and what every optimiser promises about trees, dtypes and purity."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from optimisers_under_test import OPTIMISERS, run

import fnflare as ff
from fnflare import optim, tree
from fnflare.errors import ArgumentError, ShapeError, TreeError
from fnflare.optim import leaves

every_optimiser = pytest.mark.parametrize("name", OPTIMISERS)


def one_update(opt: optim.GradientTransformation, updates: Any, params: Any = None) -> Any:
    return opt.update(updates, opt.init(updates if params is None else params), params)[0]


# --- building blocks ----------------------------------------------------------------------------------------------


def test_scale_by_schedule_counts_from_zero() -> None:
    opt = optim.scale_by_schedule(lambda count: 10.0 * count)
    state = opt.init(None)
    seen = []
    for _ in range(3):
        update, state = opt.update(np.float32([1.0]), state)
        seen.append(float(update[0]))
    assert seen == [0.0, 10.0, 20.0]
    assert state.count.dtype == np.int32


@pytest.mark.parametrize(
    "factory", [optim.sgd, optim.adam, optim.adamax, optim.adagrad, optim.adamw, optim.lion, optim.adadelta]
)
def test_a_learning_rate_may_be_a_schedule(factory: Callable[..., optim.GradientTransformation]) -> None:
    params, grads = np.array([1.0, 2.0]), np.array([1.0, -1.0])

    def two_updates(opt: optim.GradientTransformation) -> list[np.ndarray]:
        first, state = opt.update(grads, opt.init(params), params)
        return [first, opt.update(grads, state, params)[0]]

    fixed = two_updates(factory(0.1))
    halved = two_updates(factory(lambda count: 0.1 * 0.5 ** float(count)))
    assert np.allclose(halved, [fixed[0], 0.5 * fixed[1]], rtol=1e-14, atol=0)


def test_flip_sign() -> None:
    g = np.array([2.0])
    assert one_update(optim.scale_by_learning_rate(0.5), g) == -1.0
    assert one_update(optim.scale_by_learning_rate(0.5, flip_sign=False), g) == 1.0
    assert one_update(optim.scale_by_learning_rate(lambda count: 0.5, flip_sign=False), g) == 1.0


def test_clip_by_global_norm_scales_all_leaves_together() -> None:
    grads = {"a": np.array([3.0, 0.0]), "b": (np.array(4.0), None)}
    clipped = one_update(optim.clip_by_global_norm(2.5), grads)
    assert optim.global_norm(clipped) == pytest.approx(2.5, rel=1e-15)
    assert np.allclose(clipped["a"], [1.5, 0.0])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_clip_by_global_norm_leaves_short_updates_bit_for_bit(dtype: Any) -> None:
    grads = [np.random.default_rng(1).normal(size=20).astype(dtype), np.zeros(3, dtype)]
    norm = float(optim.global_norm(grads))
    assert tree.equal(one_update(optim.clip_by_global_norm(norm * 1.001), grads), grads)
    assert tree.equal(one_update(optim.clip_by_global_norm(1.0), [np.zeros(3, dtype)]), [np.zeros(3, dtype)])


@pytest.mark.parametrize(
    ("make", "where"),
    [
        (lambda kept: optim.sgd(0.1, 0.9, accumulator_dtype=kept), lambda state: state[0].trace),
        (lambda kept: optim.adam(0.1, mu_dtype=kept), lambda state: state.mu),
        (lambda kept: optim.amsgrad(0.1, mu_dtype=kept), lambda state: state[0].mu),
        (lambda kept: optim.lion(0.1, mu_dtype=kept), lambda state: state[0].mu),
        (lambda kept: optim.ema(0.9, accumulator_dtype=kept), lambda state: state.ema),
        (lambda kept: optim.adafactor(0.1, momentum=0.9, dtype_momentum=kept), lambda state: state[4].ema),
    ],
    ids=["sgd", "adam", "amsgrad", "lion", "ema", "adafactor"],
)
def test_a_moment_may_be_kept_in_another_dtype(make: Any, where: Any) -> None:
    params = {"w": np.linspace(-1, 1, 5000, dtype=np.float32), "b": np.float32([0.5, 2.0])}
    grads = tree.map(lambda p: np.cos(3 * p), params)

    def two_steps(kept: Any, jit: bool = False) -> Any:
        opt = make(kept)
        update = ff.jit(opt.update) if jit else opt.update
        _, state = update(grads, opt.init(params), params)
        return update(grads, state, params)

    updates, state = two_steps(np.float16)
    assert {leaf.dtype for leaf in tree.leaves(where(state))} == {np.dtype(np.float16)}
    for (other, _), tolerance in ((two_steps(None), 2e-3), (two_steps(np.float16, jit=True), 1e-4)):
        assert all(a.dtype == np.float32 for a in tree.leaves(updates))
        assert np.allclose(tree.ravel(updates)[0], tree.ravel(other)[0], rtol=tolerance, atol=tolerance)


def test_every_function_has_an_example() -> None:
    functions = {name: getattr(optim, name) for name in optim.__all__ if name[0].islower()}
    assert not [name for name, function in functions.items() if ">>> " not in function.__doc__]


def test_global_norm_keeps_the_dtype() -> None:
    assert optim.global_norm({"a": None}) == 0.0
    assert optim.global_norm([np.ones(4, np.float32)]).dtype == np.float32


def test_order_in_a_chain_matters() -> None:
    g = np.array([5.0])
    assert one_update(optim.chain(optim.clip(1.0), optim.scale(2.0)), g) == 2.0
    assert one_update(optim.chain(optim.scale(2.0), optim.clip(1.0)), g) == 1.0
    assert one_update(optim.chain(), g) == 5.0


def test_weight_decay_before_and_after_the_rule_differ() -> None:
    params, grads = np.array([10.0]), np.array([1.0])
    penalty = optim.chain(optim.add_decayed_weights(0.1), optim.scale_by_adam())
    decoupled = optim.chain(optim.scale_by_adam(), optim.add_decayed_weights(0.1))
    assert one_update(penalty, grads, params) == pytest.approx(1.0)
    assert one_update(decoupled, grads, params) == pytest.approx(2.0)


def test_step_count_saturates() -> None:
    last = np.int32(2**31 - 1)
    opt = optim.adam(0.1)
    update, state = opt.update(np.ones(2), opt.init(np.ones(2))._replace(count=last))
    assert state.count == last
    assert np.all(np.isfinite(update))


def test_rounding_does_not_make_a_centred_variance_negative() -> None:
    g = np.full(1000, 1 / 3, np.float32) * np.linspace(0.1, 10, 1000, dtype=np.float32)
    _, state = run(optim.rmsprop(0.1, eps=1e-30, centered=True), g, lambda _: g, 400)
    update, _ = optim.rmsprop(0.1, eps=1e-30, centered=True).update(g, state)
    assert not np.any(np.isnan(update))


def test_apply_updates_keeps_the_dtype_of_the_parameters() -> None:
    params = {"w": np.float32([1.0]), "n": None, "s": 1.0}
    new = optim.apply_updates(params, {"w": np.float64([0.5]), "n": None, "s": 0.25})
    assert new["w"].dtype == np.float32
    assert (new["w"][0], new["n"], new["s"]) == (1.5, None, 1.25)


@pytest.mark.parametrize("strong", [np.float64(0.1), np.asarray(0.1)])
def test_strong_scalars_do_not_widen_float32(strong: Any) -> None:
    g = np.float32([1.0, 2.0])
    optimisers = [
        optim.sgd(strong, momentum=strong),
        optim.adam(strong, strong, strong, strong, strong),
        optim.adam(lambda count: strong),
        optim.adamw(strong, weight_decay=strong),
        optim.rmsprop(strong, strong, strong, strong, centered=True),
        optim.adagrad(strong, strong, strong),
        optim.adadelta(strong, strong, strong),
        optim.adamax(strong, strong, strong, strong),
        optim.lion(strong, strong, strong, weight_decay=strong),
        optim.nadam(strong),
        optim.amsgrad(strong, strong, strong, strong, strong),
        optim.radam(strong, strong, strong, strong, strong),
        optim.adabelief(strong, strong, strong, strong, strong),
        optim.yogi(strong, strong, strong, strong),
        optim.lamb(strong, strong, strong, strong, strong, strong),
        optim.lars(strong, strong, trust_coefficient=strong, eps=strong, momentum=strong),
        optim.adafactor(strong, momentum=strong, weight_decay_rate=strong, clipping_threshold=strong),
        optim.rprop(strong, strong, 1 + strong, strong, strong),
        optim.noisy_sgd(strong, strong, strong),
        optim.adan(strong, strong, strong, strong, strong, strong, strong),
        optim.adopt(strong, strong, strong, strong),
        optim.ademamix(strong, strong, strong, strong, strong, strong, strong, weight_decay=strong),
        optim.novograd(strong, strong, strong, strong, strong, strong),
        optim.acprop(strong, strong, strong, strong, strong),
        optim.sm3(strong, strong),
        optim.prodigy(strong, (strong, strong), strong, strong, strong, strong, strong),
        optim.dadapt_adamw(strong, (strong, strong), strong, strong, strong),
        optim.dog(strong, ("distance", strong), strong, strong),
        optim.dowg(strong, strong, strong, strong),
        optim.cocob(strong, strong, strong, strong),
        optim.madgrad(strong, strong, strong, strong),
        optim.schedule_free_adamw(strong, None, strong, strong, strong, strong, strong),
        optim.chain(optim.adaptive_grad_clip(strong, strong), optim.normalize_by_update_norm(strong, strong)),
        optim.chain(optim.ema(strong), optim.params_ema(strong), optim.normalize(), optim.centralize()),
        optim.lookahead(optim.sgd(strong), 1, strong),
        optim.multi_steps(optim.sgd(strong), 2),
        optim.inject_hyperparams(optim.adam)(strong, strong),
        optim.lbfgs(strong, linesearch=None),
        optim.clip(strong),
        optim.clip_by_global_norm(strong),
        optim.scale(strong),
    ]
    for opt in optimisers:
        state = opt.init(g)
        for _ in range(2):
            update, state = opt.update(g, state, g)
        assert {x.dtype for x in tree.leaves((update, state)) if x.shape and x.dtype.kind == "f"} == {
            np.dtype(np.float32)
        }


# --- contracts on any tree ----------------------------------------------------------------------------------------


@st.composite
def arrays(draw: st.DrawFn) -> np.ndarray:
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    shape = draw(st.sampled_from([(), (0,), (1,), (3,), (2, 3), (2, 0, 2)]))
    return np.asarray(rng.normal(size=shape), draw(st.sampled_from([np.float32, np.float64])))


trees = st.recursive(
    st.one_of(arrays(), st.none()),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.tuples(inner, inner),
        st.dictionaries(st.sampled_from(["W", "b", "scale"]), inner, max_size=3),
    ),
    max_leaves=6,
)


def described(t: Any) -> Any:
    return tree.map(lambda x: (np.shape(x), x.dtype), t)


def frozen(t: Any) -> Any:
    """A copy whose arrays cannot be written to."""

    def copy(x: Any) -> Any:
        x = np.array(x)
        x.flags.writeable = False
        return x

    return tree.map(copy, t)


@every_optimiser
@given(params=trees)
def test_structure_shapes_and_dtypes_are_those_of_the_parameters(name: str, params: Any) -> None:
    opt = OPTIMISERS[name]()
    state = opt.init(params)
    updates, new_state = opt.update(params, state, params)
    assert described(updates) == described(params)
    assert described(optim.apply_updates(params, updates)) == described(params)
    assert described(new_state) == described(state)


@every_optimiser
@given(params=trees)
def test_nothing_is_changed_in_place(name: str, params: Any) -> None:
    opt = OPTIMISERS[name]()
    params = frozen(params)
    state = frozen(opt.init(params))
    first = opt.update(params, state, params)
    new = optim.apply_updates(params, first[0])
    assert tree.structure(new) == tree.structure(params)
    assert tree.equal(opt.update(params, state, params), first)


def plus_one(params: Any) -> Any:
    return tree.map(lambda x: x + 1, params)


@every_optimiser
def test_state_survives_being_taken_apart(name: str) -> None:
    opt = OPTIMISERS[name]()
    params = {"dense": {"W": np.ones((2, 3), np.float32), "b": np.zeros(3)}, "none": None}
    _, state = run(opt, params, plus_one, 3)
    flat, treedef = tree.flatten(state)
    assert all(isinstance(leaf, (np.ndarray, np.generic)) for leaf in flat)
    rebuilt = tree.unflatten(treedef, [np.array(leaf) for leaf in flat])
    assert tree.equal(opt.update(params, rebuilt, params), opt.update(params, state, params))


@every_optimiser
def test_state_survives_a_file(name: str, tmp_path: Any) -> None:
    io = pytest.importorskip("fnflare.io", reason="needs fnflare.io")
    opt = OPTIMISERS[name]()
    params = {"W": np.ones((2, 3), np.float32), "b": np.zeros(3)}
    _, state = run(opt, params, plus_one, 3)
    io.save(tmp_path / "state.npz", state)
    loaded = io.load(tmp_path / "state.npz", like=opt.init(params))
    assert tree.equal(opt.update(params, loaded, params), opt.update(params, state, params))


@every_optimiser
@pytest.mark.parametrize("order", ["C", "F"])
def test_tiles_change_nothing(name: str, order: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    params = frozen([rng.normal(size=(7, 9)).astype(np.float32), rng.normal(size=13)])
    grads = [np.array(p, order=order) for p in params]
    results = []
    for tile in (2**15, 10):
        monkeypatch.setattr(leaves, "TILE", tile)
        results.append(run(OPTIMISERS[name](), params, lambda _: grads, 3))
    assert tree.equal(*results)


# --- errors -------------------------------------------------------------------------------------------------------

PARAMS = {"dense": {"W": np.ones((2, 2)), "b": np.ones(2)}}
STATELESS = ("sgd", "sign_sgd", "noisy_sgd", "centralized")  # nothing to compare the updates with
WITHOUT_B = {"dense": {"W": np.ones((2, 2))}}


@pytest.mark.parametrize("name", [n for n in OPTIMISERS if n not in STATELESS])
def test_a_missing_gradient_is_named(name: str) -> None:
    opt = OPTIMISERS[name]()
    # Muon's parts hold None where the other part has a parameter, so nothing is missing in them.
    message = "other containers" if name == "muon" else r"unexpected leaf at 'dense/b'"
    with pytest.raises(TreeError, match=message):
        opt.update(WITHOUT_B, opt.init(PARAMS), WITHOUT_B)


def test_updates_that_do_not_fit_are_named() -> None:
    with pytest.raises(TreeError, match=r"apply_updates: .* updates has no leaf at 'dense/b'"):
        optim.apply_updates(PARAMS, WITHOUT_B)
    with pytest.raises(TreeError, match="other containers"):
        optim.apply_updates((np.ones(2),), [np.ones(2)])
    with pytest.raises(ShapeError, match=r"'dense/b' differ: params \(2,\), updates \(1,\)"):
        optim.apply_updates(PARAMS, {"dense": {"W": np.ones((2, 2)), "b": np.ones(1)}})


def test_a_gradient_of_another_shape_is_named() -> None:
    opt = optim.adam(0.1)
    with pytest.raises(ShapeError, match=r"'dense/W' differ: updates \(2, 1\), state.mu \(2, 2\)"):
        opt.update({"dense": {"W": np.ones((2, 1)), "b": np.ones(2)}}, opt.init(PARAMS))


@pytest.mark.parametrize("opt", [optim.adamw(0.1), optim.lion(0.1), optim.adadelta(weight_decay=0.1)])
def test_weight_decay_without_parameters(opt: optim.GradientTransformation) -> None:
    with pytest.raises(ArgumentError, match=r"opt\.update\(grads, state, params\)"):
        opt.update(PARAMS, opt.init(PARAMS))


def test_a_state_of_another_optimiser() -> None:
    with pytest.raises(TreeError, match="state of type TraceState, expected ScaleByAdamState"):
        optim.adam(0.1).update(PARAMS, optim.trace(0.9).init(PARAMS))
    with pytest.raises(TreeError, match="expected a tuple of 2 states"):
        optim.sgd(0.1).update(PARAMS, ())


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: optim.adam(0.1, b1=1.0), "b1 must be at least 0 and less than 1"),
        (lambda: optim.adamax(0.1, b2=-0.1), "b2 must be at least 0"),
        (lambda: optim.sgd(0.1, momentum=1.5), "decay must be at least 0"),
        (lambda: optim.adadelta(rho=2.0), "rho must be"),
        (lambda: optim.adagrad(0.1, 0.0, 0.0), "one of them must be positive"),
        (lambda: optim.clip(0.0), "max_delta must be positive"),
        (lambda: optim.clip_by_global_norm(-1.0), "max_norm must be positive"),
        (lambda: optim.chain([optim.clip(1.0)]), "not a list"),
        (lambda: optim.chain(optim.adam), "without its call"),
    ],
)
def test_bad_arguments(make: Callable[[], Any], message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        make()
