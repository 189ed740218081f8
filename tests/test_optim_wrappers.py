"""Optimisers around optimisers, averages and hyperparameters in the state: against optax, and by their laws."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from drawing import Draws

import fnflare as ff
from fnflare import optim, train, tree
from fnflare.errors import ArgumentError, TreeError

RNG = Draws(0)
GRADS = [{"w": RNG.normal(size=3).astype(np.float32), "b": RNG.normal(size=1).astype(np.float32)} for _ in range(8)]
PARAMS = {"w": np.float32([1.0, -2.0, 0.5]), "b": np.float32([0.3])}


@pytest.fixture(scope="module")
def optax() -> Any:
    """optax, imported before the guard of a test looks: its import draws from NumPy's global random state."""
    return pytest.importorskip("optax", reason="the oracle is optax")


def trajectory(opt: Any, grads: list[Any] = GRADS, dtype: Any = np.float32, **extra: Any) -> list[Any]:
    """Parameters after each step; `extra` are lists of what else the steps are given."""
    params, *grads = tree.map(lambda x: x.astype(dtype), [PARAMS, *grads])
    state = opt.init(params)
    seen = []
    for i, g in enumerate(grads):
        updates, state = opt.update(g, state, params, **{name: values[i] for name, values in extra.items()})
        params = tree.map(lambda p, u: np.asarray(p + np.asarray(u)), params, updates)
        seen.append(params)
    return seen


def of_optax(make: Any, optax: Any, grads: list[Any] = GRADS, **extra: Any) -> list[Any]:
    """The same by an optimiser of optax, in float64: in float32 its corrections for the start lose digits."""
    jax = pytest.importorskip("jax")
    with jax.enable_x64():
        opt = make(optax)
        return trajectory(opt._replace(update=jax.jit(opt.update)), grads, np.float64, **extra)


def ours_and_theirs(make: Any, optax: Any, grads: list[Any] = GRADS, **extra: Any) -> bool:
    """Whether an optimiser of ours and one of optax's go the same way, ours in both precisions."""
    theirs = of_optax(make, optax, grads, **extra)
    ours = trajectory(make(optim), grads, np.float64, **extra)
    in_float32 = trajectory(make(optim), grads, np.float32, **extra)
    assert {x.dtype for x in tree.leaves(in_float32)} == {np.dtype(np.float32)}
    return close(ours, theirs, 1e-9) and close(in_float32, theirs, 3e-5)


def close(ours: list[Any], theirs: list[Any], tolerance: float = 3e-5) -> bool:
    pairs = zip(ours, theirs, strict=True)
    return all(np.allclose(a[n], b[n], rtol=tolerance, atol=tolerance, equal_nan=True) for a, b in pairs for n in a)


def spoilt(grads: list[Any], *steps: int) -> list[Any]:
    """The gradients, with a NaN in some of them."""
    return [{**g, "b": np.float32([np.nan])} if i in steps else g for i, g in enumerate(grads)]


# --- against optax ------------------------------------------------------------------------------------------------

Make = Callable[[Any], Any]


def contrib(o: Any) -> Any:
    return o if o is optim else o.contrib


LIKE_OPTAX: dict[str, Make] = {
    "finite": lambda o: o.apply_if_finite(o.adam(0.1), 2),
    "ema": lambda o: o.chain(o.ema(0.8), o.scale(-0.1)),
    "ema_biased": lambda o: o.chain(o.ema(0.8, debias=False), o.scale(-0.1)),
    "inject": lambda o: o.inject_hyperparams(o.adam)(lambda count: 0.1 / (1 + count), b1=0.8, eps_root=1e-6),
    "inject_chain": lambda o: o.chain(o.clip(1.0), o.inject_hyperparams(o.sgd)(0.1, momentum=0.9, nesterov=True)),
    "rms": lambda o: o.chain(o.clip_by_block_rms(0.3), o.scale_by_param_block_rms(0.1), o.scale(-1.0)),
    "trust": lambda o: o.chain(o.scale_by_trust_ratio(0.5, 0.1, 0.01), o.scale(-1.0)),
    "rms_corrected": lambda o: o.chain(o.scale_by_rms(0.8, 1e-3, 0.5, False, bias_correction=True), o.scale(-0.1)),
    "stddev_corrected": lambda o: o.chain(o.scale_by_stddev(0.8, 0.1, bias_correction=True), o.scale(-0.1)),
    "lion_smooth": lambda o: o.chain(o.scale_by_lion(mode="smooth", smooth_beta=2.0), o.scale(-0.1)),
    "lion_refined": lambda o: o.chain(o.scale_by_lion(mode="refined"), o.scale(-0.1)),
    "no_rate": lambda o: o.chain(o.scale(-0.1), o.scale_by_learning_rate()),
    "decay_schedule": lambda o: o.chain(o.add_decayed_weights(lambda n: 0.1 * n, {"w": True, "b": False}), o.sgd(0.1)),
    "named": lambda o: o.named_chain(("clip", o.clip(0.5)), ("adam", o.adam(0.1))),
    "partition": lambda o: o.partition({"a": o.adam(0.1), "s": o.sgd(0.1)}, {"w": "a", "b": "s"}),
    "factored_rate": lambda o: o.chain(
        o.scale_by_factored_rms(decay_rate_fn=lambda step, rate: rate * step / (step + 1)), o.scale(-0.1)
    ),
    "adaptive_clip": lambda o: o.chain(o.adaptive_grad_clip(0.1), o.sgd(0.1)),
    "block_norm": lambda o: o.chain(o.scale_by_param_block_norm(), o.scale(-0.1)),
    "update_norm": lambda o: o.chain(o.normalize_by_update_norm(0.5), o.sgd(0.1)),
    "nonnegative": lambda o: o.chain(o.sgd(0.5), o.keep_params_nonnegative()),
    "flat": lambda o: o.flatten(o.chain(o.clip_by_block_rms(0.3), o.adam(0.1))),
    "apply_every": lambda o: o.chain(o.adam(0.1), o.apply_every(3)),
    "conditional": lambda o: o.chain(o.conditionally_transform(o.scale(0.1), lambda step: step % 2 == 0), o.sgd(0.1)),
    "conditional_mask": lambda o: o.conditionally_mask(o.adam(0.1), lambda step: step > 2),
    "schedule_free": lambda o: contrib(o).schedule_free(o.adam(0.1, b1=0.0), 0.1, b1=0.8, weight_lr_power=1.0),
    "sophia": lambda o: contrib(o).sophia(
        0.1, gamma=1.0, update_interval=3, hessian_diagonal_fn=o.stateless(lambda u, p: {n: u[n] ** 2 for n in u})
    ),
    "selective": lambda o: o.selective_transform(o.adam(0.1), freeze_mask={"w": True, "b": False}),
    "frozen": lambda o: o.chain(o.adam(0.1), o.freeze({"w": True, "b": False})),
}


@pytest.mark.parametrize("name", LIKE_OPTAX)
def test_agrees_with_optax(name: str, optax: Any) -> None:
    assert ours_and_theirs(LIKE_OPTAX[name], optax)


def test_parts_of_complex_numbers_agree_with_optax(optax: Any) -> None:
    def end(o: Any, wrap: Any) -> Any:
        params = {"z": np.array([1 + 2j, -1j]), "x": np.ones(2)}
        opt = wrap(o.adam(0.1))
        state = opt.init(params)
        for i in range(3):
            updates, state = opt.update(tree.map(lambda p, n=i: p * (n + 1) + 0.5, params), state, params)
            params = tree.map(lambda p, u: p + np.asarray(u), params, updates)
        return params

    ours = end(optim, optim.split_real_and_imaginary)
    theirs = end(optax, optax.contrib.split_real_and_imaginary)
    assert close([ours], [theirs])
    assert ours["z"].dtype == np.complex128


@pytest.mark.parametrize("name", ["adam", "nadam", "sgd", "prodigy", "dadapt_adamw", "dog", "rprop", "lbfgs"])
def test_optimisers_take_keywords_that_they_do_not_know(name: str) -> None:
    opt = getattr(optim, name)(0.1)
    assert isinstance(opt, optim.GradientTransformationExtraArgs)


@pytest.mark.parametrize("broken", [(0, 2, 3), (1, 2, 3, 4, 5)])
def test_apply_if_finite_agrees_with_optax(broken: tuple[int, ...], optax: Any) -> None:
    grads = spoilt(GRADS, *broken)
    assert ours_and_theirs(lambda o: o.apply_if_finite(o.adam(0.1), 2), optax, grads)
    ours = trajectory(optim.apply_if_finite(optim.adam(0.1), 2), grads)
    assert bool(np.isnan(ours[-1]["b"][0])) == (len(broken) > 3)


def multi_steps(o: Any, *args: Any, **kwargs: Any) -> Any:
    if o is optim:
        return optim.multi_steps(*args, **kwargs)
    return o.MultiSteps(*args, accumulator_dtype=np.float64, **kwargs).gradient_transformation()


@pytest.mark.parametrize(
    ("every", "mean", "skip"),
    [(1, True, False), (3, True, False), (3, False, True), (lambda count: 1 + 2 * (count > 0), True, True)],
)
def test_multi_steps_agree_with_optax(every: Any, mean: bool, skip: bool, optax: Any) -> None:
    def make(o: Any) -> Any:
        should_skip = o.skip_not_finite if skip else None
        return multi_steps(o, o.adam(0.1), every, use_grad_mean=mean, should_skip_update_fn=should_skip)

    assert ours_and_theirs(make, optax, spoilt(GRADS, 1, 4) if skip else GRADS)


def test_large_updates_are_skipped_as_optax_does(optax: Any) -> None:
    def make(o: Any) -> Any:
        skip = functools.partial(o.skip_large_updates, max_squared_norm=2.0)
        return multi_steps(o, o.sgd(0.1), 2, should_skip_update_fn=skip)

    assert ours_and_theirs(make, optax)


PLATEAUS: list[dict[str, Any]] = [
    {"factor": 0.5, "patience": 1, "cooldown": 2, "min_scale": 0.2},
    {"factor": 0.1, "patience": 2, "accumulation_size": 2, "rtol": 0.1, "atol": 0.01},
]


@pytest.mark.parametrize("arguments", PLATEAUS)
def test_reduce_on_plateau_agrees_with_optax(arguments: dict[str, Any], optax: Any) -> None:
    losses = (3, 3, 2, 2, 2, 2, 1.99999, 1.5, 1.5, 1.5, 1.5, 1.5, 0.1, 0.2, 0.2, 0.2)

    def make(o: Any) -> Any:
        rule = o.reduce_on_plateau if o is optim else o.contrib.reduce_on_plateau
        return o.chain(o.sgd(0.1), rule(**arguments))

    assert ours_and_theirs(make, optax, GRADS * 2, value=[np.float32(v) for v in losses])


FROM_THE_LOSS: dict[str, Make] = {
    "polyak": lambda o: o.polyak_sgd(0.5, f_min=0.125),
    "polyak_plus": lambda o: o.polyak_sgd(0.5, f_min=2.0, eps=0.1, variant="sps+"),
    "momo": lambda o: contrib(o).momo(0.5, weight_decay=0.1),
    "momo_bound": lambda o: contrib(o).momo(lambda n: 1.0 / (1 + n), adapt_lower_bound=True),
    "momo_adam": lambda o: contrib(o).momo_adam(0.5, weight_decay=0.1),
    "momo_adam_bound": lambda o: contrib(o).momo_adam(1.0, lower_bound=0.5, adapt_lower_bound=True),
}


@pytest.mark.parametrize("name", FROM_THE_LOSS)
def test_step_sizes_from_the_loss_agree_with_optax(name: str, optax: Any) -> None:
    losses = [np.float32(v) for v in (3.0, 2.0, 2.5, 1.0, 0.5, 0.125, 0.25, 0.1)]
    assert ours_and_theirs(FROM_THE_LOSS[name], optax, value=losses)


def test_muon_agrees_with_optax(optax: Any) -> None:
    jax = pytest.importorskip("jax")
    rng = Draws(1)
    params = {"W": rng.normal(size=(4, 3)), "V": rng.normal(size=(2, 3)), "b": rng.normal(size=3)}
    grads = [tree.map(lambda p: rng.normal(size=p.shape), params) for _ in range(4)]
    for arguments in (
        {"weight_decay": 0.1},
        {"nesterov": False, "adaptive": True, "consistent_rms": 0.2, "preconditioning": "spectral"},
    ):
        with jax.enable_x64():
            theirs = optax.contrib.muon(0.1, **arguments)
            ours = optim.muon(0.1, **arguments)
            update = jax.jit(theirs.update)
            s, t, p = ours.init(params), theirs.init(params), params
            for g in grads:
                mine, s = ours.update(g, s, p)
                other, t = update(g, t, p)
                assert close([mine], [other], 1e-6)
                p = optim.apply_updates(p, mine)


def test_clipping_of_examples_agrees_with_optax(optax: Any) -> None:
    grads = {"w": RNG.normal(size=(4, 3, 2)).astype(np.float32), "b": RNG.normal(size=(4,)).astype(np.float32)}
    for name, arguments in (
        ("per_example_global_norm_clip", (1.0,)),
        ("per_example_layer_norm_clip", (1.0,)),
        ("per_example_layer_norm_clip", (1.0, False)),
    ):
        ours, theirs = getattr(optim, name)(grads, *arguments), getattr(optax, name)(grads, *arguments)
        for a, b in zip(tree.leaves(ours), tree.leaves(tree.map(np.asarray, theirs)), strict=True):
            assert np.allclose(a, b, rtol=1e-5)


@pytest.mark.parametrize("shape", [(), (3,), (2, 3), (2, 2, 3), (2, 2, 2, 3), (1, 2, 2, 2, 3), (1, 4)])
def test_norms_of_units_agree_with_optax(shape: tuple[int, ...], optax: Any) -> None:
    x = RNG.normal(size=shape)
    assert np.allclose(optim.unitwise_norm(x), optax.transforms.unitwise_norm(x), rtol=1e-5)


def test_measurements_agree_with_optax(optax: Any) -> None:
    def norm(updates: Any) -> Any:
        return (updates["w"] ** 2).sum() ** 0.5

    def seen(o: Any) -> list[float]:
        rule = o.monitor({"norm": norm, "mean": o.measure_with_ema(norm, 0.8)})
        opt = o.chain(o.snapshot("norm", norm), rule)
        state, values = opt.init(PARAMS), []
        for g in GRADS:
            _, state = opt.update(g, state, PARAMS)
            values += [state[0].measurement["norm"], *[state[1].measurements[n] for n in ("norm", "mean")]]
        return [float(v) for v in values]

    assert np.allclose(seen(optim), seen(optax), rtol=1e-5)


@pytest.mark.parametrize("reset", [False, True])
def test_lookahead_agrees_with_optax(reset: bool, optax: Any) -> None:
    theirs = optax.lookahead(optax.adam(0.1), 3, 0.5, reset_state=reset)
    pair = optax.LookaheadParams.init_synced(PARAMS)
    state, update = theirs.init(pair), pytest.importorskip("jax").jit(theirs.update)
    expected = []
    for g in GRADS:
        updates, state = update(g, state, pair)
        pair = optax.apply_updates(pair, updates)
        expected.append(pair.fast)
    assert close(trajectory(optim.lookahead(optim.adam(0.1), 3, 0.5, reset_state=reset)), expected)


@pytest.mark.parametrize(("period", "reset"), [(2, True), (3, False), (3, True)])
def test_sam_agrees_with_optax(period: int, reset: bool, optax: Any) -> None:
    def make(o: Any) -> Any:
        contrib = o if o is optim else o.contrib
        climb = o.chain(contrib.normalize(), o.sgd(0.1, momentum=0.5))
        return contrib.sam(o.adam(0.1), climb, sync_period=period, reset_state=reset)

    assert ours_and_theirs(make, optax)


def test_sam_without_a_climb_is_the_optimiser() -> None:
    opt = optim.sam(optim.adam(0.1), optim.sgd(0.1), sync_period=1)
    assert close(trajectory(opt), trajectory(optim.adam(0.1)), 1e-6)


def sharp(params: Any) -> Any:
    return np.sum(np.sin(3 * params["w"]) * params["b"]) + np.sum(params["w"] ** 2)


def test_opaque_sam_is_two_steps_of_the_other() -> None:
    def make(opaque: bool) -> Any:
        return optim.sam(optim.adam(0.1), optim.chain(optim.normalize(), optim.sgd(0.2)), opaque_mode=opaque)

    grad = ff.grad(sharp)
    once, twice = make(True), make(False)
    p, q = PARAMS, PARAMS
    s, t = once.init(p), twice.init(q)
    for _ in range(4):
        updates, s = once.update(grad(p), s, p, grad_fn=lambda p, i: grad(p))
        p = optim.apply_updates(p, updates)
        for _ in range(2):
            updates, t = twice.update(grad(q), t, q)
            q = optim.apply_updates(q, updates)
        assert close([p], [q])


@pytest.mark.parametrize("jit", [False, True])
def test_a_train_step_gives_what_sam_and_plateaus_want(jit: bool) -> None:
    climb = optim.chain(optim.normalize(), optim.sgd(0.05))
    opt = optim.chain(optim.sam(optim.sgd(0.02), climb, opaque_mode=True), optim.reduce_on_plateau(0.5, patience=1))
    step = train.make_step(lambda params, batch, key: sharp(params) + batch, opt, jit=jit)
    params, state = PARAMS, opt.init(PARAMS)
    losses = []
    for _ in range(12):
        params, state, metrics = step(params, state, np.float32(0.0))
        losses.append(float(metrics["loss"]))
    assert min(losses) < losses[0]
    assert float(state[1].best_value) == min(losses)


# --- averages -----------------------------------------------------------------------------------------------------


def test_averages_of_parameters() -> None:
    opt = optim.chain(optim.adam(0.1), optim.params_ema(0.7))
    seen = np.array([p["w"] for p in trajectory(opt)], np.float64)
    weights = 0.7 ** np.arange(len(seen))[::-1]
    state, params = opt.init(PARAMS), PARAMS
    for g in GRADS:
        updates, state = opt.update(g, state, params)
        params = optim.apply_updates(params, updates)
    assert np.allclose(optim.averaged_params(state)["w"], np.average(seen, axis=0, weights=weights), rtol=1e-5)
    assert tree.map(lambda x: x.dtype, optim.averaged_params(state)) == tree.map(lambda x: x.dtype, PARAMS)


def test_averages_that_begin_with_the_first_parameters() -> None:
    average = optim.params_ema(0.75, debias=False)
    _, state = average.update(tree.map(np.ones_like, PARAMS), average.init(PARAMS), PARAMS)
    assert np.allclose(optim.averaged_params(state)["w"], PARAMS["w"] + 0.25)


@pytest.mark.parametrize("start", [0, 3])
def test_polyak_average_is_the_mean(start: int) -> None:
    opt = optim.chain(optim.sgd(0.1), optim.polyak_average(start))
    seen = [p["w"] for p in trajectory(opt)]
    state, params = opt.init(PARAMS), PARAMS
    for n, g in enumerate(GRADS, 1):
        updates, state = opt.update(g, state, params)
        params = optim.apply_updates(params, updates)
        expected = np.mean(seen[start:n], axis=0) if n > start else seen[n - 1]
        assert np.allclose(optim.averaged_params(state)["w"], expected, rtol=1e-5)


def test_an_average_is_looked_for() -> None:
    with pytest.raises(TreeError, match=r"found 0; make the optimiser as chain\(adam"):
        optim.averaged_params(optim.adam(0.1).init(PARAMS))


def test_noise_has_its_variance_and_its_key() -> None:
    zeros = {"a": np.zeros(20_000, np.float32), "b": np.zeros((100, 100))}
    opt = optim.add_noise(0.25, 1.0, ff.random.key(3))
    state = opt.init(zeros)
    for n in (1, 2, 3):
        noise, state = opt.update(zeros, state)
        for leaf in tree.leaves(noise):
            assert np.std(leaf) == pytest.approx(0.5 / n**0.5, rel=0.03)
        assert noise["a"].dtype == np.float32
        assert abs(np.corrcoef(noise["a"][:10_000], noise["b"].ravel())[0, 1]) < 0.05
    again, _ = opt.update(zeros, opt.init(zeros))
    assert tree.equal(again, opt.update(zeros, opt.init(zeros))[0])
    assert not np.any(again["a"] == noise["a"])


def test_centralised_gradients() -> None:
    grads = {"w": RNG.normal(size=(3, 4, 5)), "b": RNG.normal(size=5)}
    first, last = (optim.centralize(axis).update(grads, optim.EmptyState())[0] for axis in (0, -1))
    assert np.allclose(np.mean(first["w"], axis=(1, 2)), 0, atol=1e-15)
    assert np.allclose(np.mean(last["w"], axis=(0, 1)), 0, atol=1e-15)
    assert np.array_equal(first["b"], grads["b"])


# --- hyperparameters in the state ---------------------------------------------------------------------------------


def test_injected_numbers_change_nothing() -> None:
    for make, arguments in (
        (optim.adam, {"learning_rate": 0.1}),
        (optim.adamw, {"learning_rate": 0.1, "mask": {"w": True, "b": False}}),
        (optim.lamb, {"learning_rate": 0.1, "weight_decay": 0.1}),
        (optim.adadelta, {"learning_rate": 0.1}),
        (optim.adagrad, {"learning_rate": 0.1}),
        (optim.clip, {"max_delta": 0.1}),
        (optim.lars, {"learning_rate": 0.1}),
        (optim.radam, {"learning_rate": 0.1}),
        (optim.adan, {"learning_rate": 0.1}),
        (optim.ademamix, {"learning_rate": 0.1}),
        (optim.novograd, {"learning_rate": 0.1}),
        (optim.sm3, {"learning_rate": 0.1}),
        (optim.prodigy, {"learning_rate": 0.1}),
        (optim.dadapt_adamw, {"learning_rate": 0.1}),
        (optim.dowg, {"init_estim_sq_dist": 0.1}),
        (optim.cocob, {"alpha": 50.0}),
        (optim.madgrad, {"learning_rate": 0.1}),
        (optim.muon, {"learning_rate": 0.1}),
        (optim.schedule_free_adamw, {"learning_rate": 0.1}),
        (optim.adaptive_grad_clip, {"clipping": 0.1}),
        (optim.lbfgs, {"learning_rate": 0.1, "linesearch": None}),
    ):
        injected = optim.inject_hyperparams(make)(**arguments)
        assert close(trajectory(injected), trajectory(make(**arguments)))
        step = ff.jit(lambda g, s, injected=injected: injected.update(g, s, PARAMS))
        updates, _ = step(GRADS[0], injected.init(PARAMS))
        expected, _ = make(**arguments).update(GRADS[0], make(**arguments).init(PARAMS), PARAMS)
        assert close([updates], [expected])
        assert {u.dtype for u in tree.leaves(updates)} == {np.dtype(np.float32)}


@pytest.mark.parametrize("wrap", [optim.masked, lambda o, m, **k: optim.partition({True: o, False: o}, m, **k)])
def test_keywords_are_masked_like_the_updates(wrap: Any) -> None:
    mask, seen = {"w": True, "b": False}, []

    def update(updates: Any, state: Any, params: Any = None, **extra: Any) -> Any:
        seen.append({name: tree.structure(value) for name, value in extra.items()})
        return updates, state

    inner = optim.GradientTransformationExtraArgs(lambda params: optim.EmptyState(), update)
    for compatible in (False, True):
        opt = wrap(inner, mask, mask_compatible_extra_args=compatible)
        opt.update(GRADS[0], opt.init(PARAMS), PARAMS, grad=GRADS[1], value=1.0)
    whole, chosen = tree.structure(PARAMS), tree.structure({"w": 0, "b": None})
    assert seen[0]["grad"] == whole
    assert chosen in [keywords["grad"] for keywords in seen[len(seen) // 2 :]]
    assert {keywords["value"] for keywords in seen} == {tree.structure(1.0)}


def test_the_dtype_of_injected_numbers() -> None:
    opt = optim.inject_hyperparams(optim.sgd, hyperparam_dtype=np.float32)(0.1)
    state = optim.set_hyperparams(opt.init(PARAMS), learning_rate=0.2)
    assert state.hyperparams["learning_rate"].dtype == np.float32
    assert close([opt.update(GRADS[0], state)[0]], [optim.sgd(0.2).update(GRADS[0], optim.sgd(0.2).init(PARAMS))[0]])


def test_which_arguments_are_numbers() -> None:
    opt = optim.inject_hyperparams(optim.lbfgs)(0.5, memory_size=3, linesearch=None)
    assert set(opt.init(PARAMS).hyperparams) == {"learning_rate"}
    opt = optim.inject_hyperparams(optim.adamw, static_args="eps")(0.5, mask=optim.mask_by_path("w"))
    assert set(opt.init(PARAMS).hyperparams) == {"learning_rate", "b1", "b2", "eps_root", "weight_decay"}
    opt = optim.inject_hyperparams(lambda rate, flag=True: optim.sgd(rate, 0.9, flag))(0.5)
    assert set(opt.init(PARAMS).hyperparams) == {"rate"}


def test_a_learning_rate_changes_without_a_new_program() -> None:
    opt = optim.chain(optim.clip(10.0), optim.inject_hyperparams(optim.sgd)(0.1))
    traced = []

    @ff.jit
    def step(params: Any, state: Any, grads: Any) -> Any:
        traced.append(1)
        updates, state = opt.update(grads, state, params)
        return optim.apply_updates(params, updates), state

    params, state = PARAMS, opt.init(PARAMS)
    for rate in (0.1, 0.5, 0.0):
        state = optim.set_hyperparams(state, learning_rate=rate)
        new, state = step(params, state, GRADS[0])
        assert np.allclose(params["w"] - new["w"], rate * GRADS[0]["w"], rtol=1e-5, atol=1e-7)
        params = new
    assert len(traced) == 1


def test_a_schedule_sets_its_number_again() -> None:
    opt = optim.inject_hyperparams(optim.sgd)(optim.linear_schedule(1.0, 0.0, 10))
    state = optim.set_hyperparams(opt.init(PARAMS), learning_rate=7.0)
    for n in range(3):
        _, state = opt.update(GRADS[0], state, PARAMS)
        assert state.hyperparams["learning_rate"] == pytest.approx(1 - n / 10)


# --- freezing by path ---------------------------------------------------------------------------------------------

NET = {
    "encoder": [{"W": np.ones((2, 2)), "b": np.ones(2)}, {"W": np.ones((2, 2)), "b": np.ones(2)}],
    "head": {"W": np.ones((2, 1)), "b": np.ones(1)},
}


def moved(opt: optim.GradientTransformation) -> set[str]:
    """The paths whose parameters three steps have changed."""
    params, state = NET, opt.init(NET)
    for _ in range(3):
        updates, state = opt.update(NET, state, params)
        params = optim.apply_updates(params, updates)
    pairs = zip(tree.leaves_with_path(NET), tree.leaves(params), strict=True)
    return {tree.path_str(path) for (path, old), new in pairs if not np.array_equal(old, new)}


def test_what_is_frozen_stays() -> None:
    head = {"head/W", "head/b"}
    assert moved(optim.chain(optim.adamw(0.1), optim.freeze("encoder/*"))) == head
    assert moved(optim.chain(optim.adamw(0.1), optim.freeze({"encoder": True, "head": False}))) == head
    assert moved(optim.selective_transform(optim.adamw(0.1), freeze_mask="encoder/*")) == head
    assert moved(optim.selective_transform(optim.adamw(0.1), freeze_mask=("encoder/*", "*/b"))) == {"head/W"}
    assert moved(optim.by_path({"encoder/0/*": optim.set_to_zero(), "head/*": optim.sgd(1.0)}, optim.adam(0.1))) == {
        "encoder/1/W",
        "encoder/1/b",
        *head,
    }
    assert moved(optim.by_path({"*/W": optim.sgd(0.1), "*/b": optim.set_to_zero()})) == {
        "encoder/0/W",
        "encoder/1/W",
        "head/W",
    }


def test_frozen_parameters_have_no_state() -> None:
    opt = optim.selective_transform(optim.adam(0.1), freeze_mask="encoder/*")
    assert len(tree.leaves(opt.init(NET).inner_states["train"].mu)) == 2


# --- errors -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: optim.named_chain(optim.sgd(0.1)), "argument 0 is"),
        (lambda: optim.named_chain(("a", optim.sgd(0.1)), ("a", optim.sgd(0.1))), "once"),
        (lambda: optim.scale_by_lion(mode="soft"), "'refined'"),
        (lambda: optim.apply_every(0), "at least 1"),
        (lambda: optim.periodic_update(NET, NET, 0, 0), "at least 1"),
        (lambda: optim.scale_by_polyak(variant="max"), "'sps' or"),
        (lambda: optim.polyak_sgd().update(NET, optim.polyak_sgd().init(NET)), "needs the loss"),
        (lambda: optim.scale_by_dog(("far", 1.0)), "init_step must be"),
        (lambda: optim.schedule_free(optim.sgd(0.1), 0.1, b1=0.0), "greater than 0"),
        (lambda: optim.scale_by_muon((1.0, 2.0)), "three numbers"),
        (lambda: optim.scale_by_muon(preconditioning="aol"), "'frobenius' or"),
        (lambda: optim.unitwise_norm(np.ones((2,) * 6)), "more than 5 axes"),
        (lambda: optim.sophia(0.1).update(NET, optim.sophia(0.1).init(NET), NET), "needs the loss"),
        (lambda: optim.freeze(), "expected patterns of paths"),
        (lambda: optim.freeze("encoder/*", {"head": True}), "expected patterns of paths"),
        (lambda: optim.freeze("decoder/*").init(NET), r"'decoder/\*' matches no path"),
        (lambda: optim.by_path({"head/*": optim.sgd(0.1)}).init(NET), "matches none of the patterns"),
        (lambda: optim.by_path({"*": optim.sgd(0.1)}, optim.sgd(0.1)), "not both"),
        (lambda: optim.multi_steps(optim.sgd(0.1), 0), "at least 1"),
        (lambda: optim.lookahead(optim.sgd(0.1), 0, 0.5), "sync_period must be at least 1"),
        (lambda: optim.sam(optim.sgd(0.1), optim.sgd(0.1), 0), "sync_period must be at least 1"),
        (lambda: optim.reduce_on_plateau(1.5), "factor must be"),
        (lambda: optim.reduce_on_plateau(rtol=0.0), "one of them positive"),
        (lambda: optim.reduce_on_plateau(patience=0), "patience"),
        (
            lambda: optim.chain(optim.reduce_on_plateau()).update(
                NET, optim.chain(optim.reduce_on_plateau()).init(NET)
            ),
            "value=",
        ),
        (lambda: optim.inject_hyperparams(optim.adam, "rate"), r"static_args names \['rate'\]"),
        (lambda: optim.set_hyperparams(optim.adam(0.1).init(NET), learning_rate=1.0), "'learning_rate'"),
        (lambda: optim.polyak_average(-1), "start must not be negative"),
        (lambda: optim.scale_by_rprop(0.1, eta_minus=2.0), "eta_minus"),
        (lambda: optim.radam(0.1, threshold=3.0), "greater than 4"),
        (lambda: optim.sgdr_schedule([]), "cosine_kwargs is empty"),
        (lambda: optim.lookahead(optim.sgd(0.1), 2, 0.5).update(NET, None), "needs the parameters"),
        (lambda: optim.scale_by_trust_ratio().update(NET, None), "needs the parameters"),
        (lambda: optim.params_ema(0.9).update(NET, None), "needs the parameters"),
        (lambda: optim.prodigy().update(NET, None), "needs the parameters"),
    ],
)
def test_bad_arguments(call: Callable[[], Any], message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        call()


def test_opaque_sam_needs_a_gradient_function() -> None:
    opt = optim.sam(optim.sgd(0.1), optim.sgd(0.1), opaque_mode=True)
    with pytest.raises(ArgumentError, match="needs grad_fn="):
        opt.update(NET, opt.init(NET), NET)
