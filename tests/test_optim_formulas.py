"""The optimisers against the papers' formulas written out by hand, PyTorch and optax; and where they lead."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from optimisers_under_test import OPTIMISERS, Make, steps

import fnflare as ff
from fnflare import optim
from fnflare.errors import DtypeError

every_dtype = pytest.mark.parametrize("dtype", [np.float32, np.float64])


@pytest.fixture(scope="module")
def optax() -> Any:
    """optax, imported before the guard of a test looks: its import draws from NumPy's global random state."""
    return pytest.importorskip("optax", reason="the oracle is optax")


# --- convergence ------------------------------------------------------------------------------------------------


def quadratic_grad(params: Any) -> Any:
    return {"x": 2 * (params["x"] - np.asarray([1, -2], params["x"].dtype)), "y": 2 * (params["y"] - 3)}


def rosenbrock_grad(params: Any) -> Any:
    x, y = params["x"], params["y"]
    return {"x": -2 * (1 - x) - 400 * x * (y - x * x), "y": 200 * (y - x * x)}


def run_as_program(opt: optim.GradientTransformation, params: Any, grads_of: Callable[[Any], Any], n: int) -> Any:
    """Parameters after n steps, all of them in one loop of one program."""

    def step(i: Any, carry: Any) -> Any:
        params, state = carry
        updates, state = opt.update(grads_of(params), state, params)
        return optim.apply_updates(params, updates), state

    return ff.jit(lambda carry: ff.fori_loop(0, n, step, carry))((params, opt.init(params)))[0]


@pytest.mark.parametrize("name", OPTIMISERS)
@every_dtype
def test_converges_on_a_quadratic(name: str, dtype: Any) -> None:
    start = {"x": np.zeros(2, dtype), "y": np.zeros((), dtype)}
    count = 1000 if name == "noisy_sgd" else 4000  # noise takes its time
    end = run_as_program(OPTIMISERS[name](), start, quadratic_grad, count)
    assert np.allclose(end["x"], [1, -2], atol=0.02)
    assert np.allclose(end["y"], 3, atol=0.02)
    assert {k: v.dtype for k, v in end.items()} == {"x": dtype, "y": dtype}


ROSENBROCK: dict[str, Make] = {
    "sgd": lambda: optim.sgd(1.5e-3),
    "momentum": lambda: optim.sgd(2e-4, momentum=0.9),
    "nesterov": lambda: optim.sgd(2e-4, momentum=0.9, nesterov=True),
    "adadelta": lambda: optim.adadelta(0.1),
    "adagrad": lambda: optim.adagrad(1.0),
    "rmsprop": lambda: optim.rmsprop(2e-3),
    "adam": lambda: optim.adam(2e-2),
    "nadam": lambda: optim.adam(2e-2, nesterov=True),
    "adamw": lambda: optim.adamw(2e-2, weight_decay=1e-5),
    "adamax": lambda: optim.adamax(2e-2),
    "lion": lambda: optim.lion(optim.linear_schedule(1e-2, 0.0, 6000), weight_decay=0.0),
    "amsgrad": lambda: optim.amsgrad(0.2),
    "radam": lambda: optim.radam(3e-3),
    "adabelief": lambda: optim.adabelief(2e-2, eps=1e-8),
    "rprop": lambda: optim.rprop(1e-2),
    "lookahead": lambda: optim.lookahead(optim.adam(3e-2), 5, 0.5),
    "sam": lambda: optim.sam(optim.adam(2e-2), optim.chain(optim.normalize(), optim.sgd(1e-3))),
    "multi_steps": lambda: optim.multi_steps(optim.adam(5e-2), 2),
}


@pytest.mark.parametrize("name", ROSENBROCK)
@every_dtype
def test_converges_on_rosenbrock(name: str, dtype: Any) -> None:
    start = {"x": np.array([-0.5], dtype), "y": np.array([1.0], dtype)}
    end = run_as_program(ROSENBROCK[name](), start, rosenbrock_grad, 6000)
    assert np.allclose([end["x"], end["y"]], 1, atol=0.1)


# --- the formulas -------------------------------------------------------------------------------------------------

GRADIENTS = np.random.default_rng(0).normal(size=(6, 5)) * np.array([1.0, 1e-3, 10.0, 0.5, 0.0])
START = np.array([0.3, -1.0, 2.0, 0.0, 5.0])


def ref_sgd(lr: float, decay: float = 0.0, nesterov: bool = False) -> Iterator[Any]:
    x, v = START, 0.0
    for g in GRADIENTS:
        v = decay * v + g
        x = x - lr * (decay * v + g if nesterov else v)
        yield x


def ref_adam(
    lr: float, b1: float = 0.9, b2: float = 0.999, eps: float = 1e-8, root: float = 0.0, wd: float = 0.0
) -> Iterator[Any]:
    x, m, v = START, 0.0, 0.0
    for t, g in enumerate(GRADIENTS, 1):
        m, v = b1 * m + (1 - b1) * g, b2 * v + (1 - b2) * g**2
        m_hat, v_hat = m / (1 - b1**t), v / (1 - b2**t)
        x = x - lr * (m_hat / (np.sqrt(v_hat + root) + eps) + wd * x)
        yield x


def ref_nadam(lr: float, b1: float = 0.9, b2: float = 0.999, eps: float = 1e-8) -> Iterator[Any]:
    x, m, v = START, 0.0, 0.0
    for t, g in enumerate(GRADIENTS, 1):
        m, v = b1 * m + (1 - b1) * g, b2 * v + (1 - b2) * g**2
        m_hat = b1 * m / (1 - b1 ** (t + 1)) + (1 - b1) * g / (1 - b1**t)
        x = x - lr * m_hat / (np.sqrt(v / (1 - b2**t)) + eps)
        yield x


def ref_adamax(lr: float, b1: float = 0.9, b2: float = 0.999, eps: float = 1e-8) -> Iterator[Any]:
    x, m, u = START, 0.0, 0.0
    for t, g in enumerate(GRADIENTS, 1):
        m, u = b1 * m + (1 - b1) * g, np.maximum(b2 * u, np.abs(g) + eps)
        x = x - lr / (1 - b1**t) * m / u
        yield x


def ref_rmsprop(
    lr: float, decay: float = 0.9, eps: float = 1e-8, outside: bool = False, centered: bool = False
) -> Iterator[Any]:
    x, m, v = START, 0.0, 0.0
    for g in GRADIENTS:
        m, v = decay * m + (1 - decay) * g, decay * v + (1 - decay) * g**2
        variance = v - m**2 if centered else v
        x = x - lr * g / (np.sqrt(variance) + eps if outside else np.sqrt(variance + eps))
        yield x


def ref_adagrad(lr: float, total: Any = 0.1, eps: float = 1e-7) -> Iterator[Any]:
    x = START
    for g in GRADIENTS:
        total = total + g**2
        x = x - lr * g / np.sqrt(total + eps)
        yield x


def ref_adadelta(lr: float, rho: float = 0.9, eps: float = 1e-6) -> Iterator[Any]:
    x, e_g, e_x = START, 0.0, 0.0
    for g in GRADIENTS:
        e_g = rho * e_g + (1 - rho) * g**2
        step = np.sqrt(e_x + eps) / np.sqrt(e_g + eps) * g
        e_x = rho * e_x + (1 - rho) * step**2
        x = x - lr * step
        yield x


def ref_lion(lr: float, b1: float = 0.9, b2: float = 0.99, wd: float = 1e-3) -> Iterator[Any]:
    x, m = START, 0.0
    for g in GRADIENTS:
        x = x - lr * (np.sign(b1 * m + (1 - b1) * g) + wd * x)
        m = b2 * m + (1 - b2) * g
        yield x


FORMULAS: dict[str, tuple[optim.GradientTransformation, Callable[[], Iterator[Any]]]] = {
    "sgd": (optim.sgd(0.1), lambda: ref_sgd(0.1)),
    "momentum": (optim.sgd(0.1, momentum=0.8), lambda: ref_sgd(0.1, 0.8)),
    "nesterov": (optim.sgd(0.1, 0.8, nesterov=True), lambda: ref_sgd(0.1, 0.8, True)),
    "adam": (optim.adam(0.1), lambda: ref_adam(0.1)),
    "adam_root": (optim.adam(0.1, 0.8, 0.95, 1e-3, 1e-2), lambda: ref_adam(0.1, 0.8, 0.95, 1e-3, 1e-2)),
    "adamw": (optim.adamw(0.1, weight_decay=0.3), lambda: ref_adam(0.1, wd=0.3)),
    "nadam": (optim.adam(0.1, nesterov=True), lambda: ref_nadam(0.1)),
    "adamax": (optim.adamax(0.1), lambda: ref_adamax(0.1)),
    "rmsprop": (optim.rmsprop(0.1), lambda: ref_rmsprop(0.1)),
    "rmsprop_outside": (
        optim.rmsprop(0.1, 0.8, 1e-3, eps_in_sqrt=False),
        lambda: ref_rmsprop(0.1, 0.8, 1e-3, outside=True),
    ),
    "rmsprop_centered": (
        optim.rmsprop(0.1, eps=1e-3, centered=True),
        lambda: ref_rmsprop(0.1, 0.9, 1e-3, centered=True),
    ),
    "rmsprop_centered_outside": (
        optim.rmsprop(0.1, eps=1e-3, centered=True, eps_in_sqrt=False),
        lambda: ref_rmsprop(0.1, 0.9, 1e-3, outside=True, centered=True),
    ),
    "adagrad": (optim.adagrad(0.1), lambda: ref_adagrad(0.1)),
    "adadelta": (optim.adadelta(0.5), lambda: ref_adadelta(0.5)),
    "adadelta_default": (optim.adadelta(), lambda: ref_adadelta(1.0)),
    "lion": (optim.lion(0.1), lambda: ref_lion(0.1)),
}


def trajectory(opt: optim.GradientTransformation, dtype: Any) -> list[np.ndarray]:
    gradients = iter(GRADIENTS.astype(dtype))
    return [params for params, _ in steps(opt, START.astype(dtype), lambda _: next(gradients), len(GRADIENTS))]


@pytest.mark.parametrize("name", FORMULAS)
@pytest.mark.parametrize(("dtype", "rtol"), [(np.float64, 1e-12), (np.float32, 2e-5)])
def test_follows_the_formula(name: str, dtype: Any, rtol: float) -> None:
    opt, formula = FORMULAS[name]
    got = trajectory(opt, dtype)
    assert np.allclose(got, list(formula()), rtol=rtol, atol=rtol)
    assert {p.dtype for p in got} == {np.dtype(dtype)}


TORCH: dict[str, tuple[optim.GradientTransformation, str, dict[str, Any]]] = {
    "sgd": (optim.sgd(0.1), "SGD", {}),
    "momentum": (optim.sgd(0.1, 0.9), "SGD", {"momentum": 0.9}),
    "nesterov": (optim.sgd(0.1, 0.9, True), "SGD", {"momentum": 0.9, "nesterov": True}),
    "adam": (optim.adam(0.1), "Adam", {}),
    "adamw": (optim.adamw(0.1, weight_decay=0.2), "AdamW", {"weight_decay": 0.2}),
    "adamax": (optim.adamax(0.1), "Adamax", {}),
    "rmsprop": (
        optim.rmsprop(0.1, decay=0.99, eps_in_sqrt=False, momentum=0.5),
        "RMSprop",
        {"alpha": 0.99, "momentum": 0.5},
    ),
    "rmsprop_centered": (
        optim.rmsprop(0.1, eps=1e-3, eps_in_sqrt=False, centered=True),
        "RMSprop",
        {"alpha": 0.9, "eps": 1e-3, "centered": True},
    ),
    "adagrad": (optim.adagrad(0.1, eps=0.0), "Adagrad", {"initial_accumulator_value": 0.1, "eps": 0.0}),
    "radam": (optim.radam(0.1, b2=0.9, eps=1e-30), "RAdam", {"betas": (0.9, 0.9), "eps": 1e-30}),
    "rprop": (optim.rprop(0.1), "Rprop", {}),
    "adadelta": (optim.adadelta(0.1), "Adadelta", {"rho": 0.9, "eps": 1e-6}),
    "adadelta_decay": (
        optim.adadelta(0.1, weight_decay=0.1),
        "Adadelta",
        {"rho": 0.9, "eps": 1e-6, "weight_decay": 0.1},
    ),
}


@pytest.mark.parametrize("name", TORCH)
@pytest.mark.parametrize(("dtype", "rtol"), [(np.float64, 1e-12), (np.float32, 2e-5)])
def test_agrees_with_pytorch(name: str, dtype: Any, rtol: float) -> None:
    torch = pytest.importorskip("torch", reason="the oracle is PyTorch")
    opt, torch_name, arguments = TORCH[name]
    param = torch.nn.Parameter(torch.from_numpy(START.astype(dtype)))
    torch_opt = getattr(torch.optim, torch_name)([param], lr=0.1, **arguments)
    theirs = []
    for g in GRADIENTS.astype(dtype):
        param.grad = torch.from_numpy(g.copy())
        torch_opt.step()
        theirs.append(param.detach().numpy().copy())
    assert np.allclose(trajectory(opt, dtype), theirs, rtol=rtol, atol=rtol)


OPTAX: dict[str, dict[str, Any]] = {
    "sgd": {"momentum": 0.9, "nesterov": True, "accumulator_dtype": np.float64},
    "adadelta": {"weight_decay": 0.1},
    "adagrad": {},
    "rmsprop": {"momentum": 0.9, "bias_correction": True},
    "adam": {"nesterov": True, "eps_root": 1e-4},
    "adamw": {"weight_decay": lambda count: 0.1 / (1 + count)},
    "adamax": {},
    "lion": {},
    "nadam": {},
    "nadamw": {"weight_decay": 0.1},
    "adamaxw": {},
    "amsgrad": {"eps_root": 1e-6},
    "radam": {"b2": 0.9},
    "adabelief": {"nesterov": True},
    "yogi": {},
    "lamb": {"weight_decay": 0.1},
    "lars": {"weight_decay": 0.1, "nesterov": True},
    "adafactor": {"momentum": 0.9, "weight_decay_rate": 0.1},
    "sign_sgd": {},
    "signum": {},
    "fromage": {},
    "optimistic_gradient_descent": {"alpha": 0.9, "beta": 0.5},
    "sm3": {},
    "novograd": {"weight_decay": 0.1},
    "adan": {"weight_decay": 0.1},
    "optimistic_adam_v2": {"beta": 0.5},
    "adopt": {"nesterov": True},
    "ademamix": {"b3": 0.9, "weight_decay": 0.1},
    "schedule_free_sgd": {"weight_decay": 0.1},
    "schedule_free_adamw": {"weight_decay": 0.1},
    "prodigy": {"weight_decay": 0.1, "estim_lr0": 1e-2},
    "dadapt_adamw": {"weight_decay": 0.1, "estim_lr0": 1e-2},
    "cocob": {"weight_decay": 0.1},
    "dog": {"weight_decay": 0.1},
    "madgrad": {"weight_decay": 0.1},
    "acprop": {"weight_decay": 0.1},
    "dowg": {"init_estim_sq_dist": 0.1},
    "muon": {"adam_weight_decay": 0.1},
}


def in_optax(name: str, optax: Any) -> Any:
    """A function of optax, or of its room for what others have contributed."""
    return getattr(optax, name, None) or getattr(optax.contrib, name)


def trajectory_of_optax(make: Callable[[], Any], optax: Any, start: Any, gradients: Any) -> list[np.ndarray]:
    """Parameters after each step in float64: in float32 its corrections for the start lose digits."""
    jax = pytest.importorskip("jax")
    with jax.enable_x64():
        opt = make()
        params, state, update = start, opt.init(start), jax.jit(opt.update)
        seen = []
        for g in gradients:
            updates, state = update(g, state, params)
            params = optax.apply_updates(params, updates)
            seen.append(np.asarray(params))
        return seen


@pytest.mark.parametrize("name", OPTAX)
def test_agrees_with_optax(name: str, optax: Any) -> None:
    theirs = trajectory_of_optax(lambda: in_optax(name, optax)(0.1, **OPTAX[name]), optax, START, GRADIENTS)
    for dtype, tolerance in ((np.float64, 1e-7 if name in ("adafactor", "madgrad") else 1e-10), (np.float32, 2e-5)):
        ours = trajectory(getattr(optim, name)(0.1, **OPTAX[name]), dtype)
        assert np.allclose(ours, theirs, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("shape", [(4, 3), (2, 5, 3), (3, 3), (3, 2, 2)])
def test_factored_squares_agree_with_optax(shape: tuple[int, ...], optax: Any) -> None:
    rng = np.random.default_rng(0)
    start, gradients = rng.normal(size=shape), rng.normal(size=(5, *shape))
    theirs = trajectory_of_optax(lambda: optax.adafactor(0.1, 2), optax, start, gradients)
    for dtype, tolerance in ((np.float64, 1e-7), (np.float32, 2e-5)):
        given = iter(gradients.astype(dtype))
        opt = optim.adafactor(0.1, 2)
        ours = [params for params, _ in steps(opt, start.astype(dtype), lambda _, g=given: next(g), 5)]
        assert np.allclose(ours, theirs, rtol=tolerance, atol=tolerance)
        assert ours[-1].dtype == dtype


@pytest.mark.parametrize("name", OPTAX)
def test_arguments_and_defaults_are_those_of_optax(name: str, optax: Any) -> None:
    theirs = inspect.signature(in_optax(name, optax)).parameters
    ours = inspect.signature(getattr(optim, name)).parameters
    assert list(ours) == [parameter for parameter in theirs if parameter in ours]
    for parameter in ours.values():
        # optax's None makes adadelta's updates climb, and its momentum is float32 beside parameters in float64.
        if (name, parameter.name) not in (("adadelta", "learning_rate"), ("adafactor", "dtype_momentum")):
            default = theirs[parameter.name].default
            assert parameter.default == default or callable(default), parameter.name


COMPLEX = {
    **{name: OPTAX[name] for name in ("adam", "amsgrad", "radam", "adabelief", "yogi", "adagrad", "adan")},
    "rmsprop": {"centered": True, "eps": 1e-2},
    **{name: {} for name in ("adamax", "lamb", "lars", "novograd", "adafactor", "ademamix", "dowg", "lion", "sgd")},
    "muon": {"nesterov": False},
}


@pytest.mark.parametrize("name", COMPLEX)
def test_complex_parameters_agree_with_optax(name: str, optax: Any) -> None:
    turned = GRADIENTS[:, ::-1] + 0.3
    start, gradients = START + 1j * START[::-1], GRADIENTS + 1j * turned
    if name == "muon":
        start, gradients = start[:4].reshape(2, 2), gradients[:, :4].reshape(-1, 2, 2)
    theirs = trajectory_of_optax(lambda: in_optax(name, optax)(0.1, **COMPLEX[name]), optax, start, gradients)
    given = iter(gradients)
    opt = getattr(optim, name)(0.1, **COMPLEX[name])
    ours = [params for params, _ in steps(opt, start, lambda _: next(given), len(gradients))]
    assert np.allclose(ours, theirs, rtol=1e-6, atol=1e-6)


def test_the_norm_of_complex_gradients() -> None:
    g = np.array([3.0 + 4.0j, 0.0])
    assert optim.global_norm(g) == pytest.approx(5.0)
    assert np.allclose(optim.clip_by_global_norm(1.0).update(g, None)[0], g / 5)
    for opt in (optim.clip(1.0), optim.rprop(0.1), optim.sm3(0.1), optim.cocob()):
        with pytest.raises(DtypeError, match="is complex"):
            opt.update(g, opt.init(g), g)
