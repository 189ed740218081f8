"""L-BFGS and the line searches: against optax, PyTorch and SciPy, on functions that are hard to descend."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import fnflare as ff
from fnflare import config, nn, optim, train, tree
from fnflare.errors import ArgumentError, TreeError

every_dtype = pytest.mark.parametrize("dtype", [np.float32, np.float64])


@pytest.fixture(scope="module")
def optax() -> Any:
    """optax, imported before the guard of a test looks: its import draws from NumPy's global random state."""
    return pytest.importorskip("optax", reason="the oracle is optax")


def rosenbrock(params: Any) -> Any:
    x = params["x"]
    return np.sum(100 * (x[1:] - x[:-1] ** 2) ** 2 + (1 - x[:-1]) ** 2)


def minimise(opt: optim.GradientTransformation, f: Any, params: Any, steps: int) -> tuple[Any, Any]:
    """Parameters and state after some steps, each with all that `update` may want to know."""
    state = opt.init(params)
    for _ in range(steps):
        value, grad = ff.value_and_grad(f)(params)
        updates, state = opt.update(grad, state, params, value=value, grad=grad, value_fn=f)
        params = optim.apply_updates(params, updates)
    return params, state


def start(dtype: Any, n: int = 4) -> Any:
    return {"x": np.tile([-1.2, 1.0], n // 2).astype(dtype)}


@every_dtype
def test_rosenbrock(dtype: Any) -> None:
    end, state = minimise(optim.lbfgs(), rosenbrock, start(dtype), 60)
    assert np.allclose(end["x"], 1, atol=1e-3 if dtype is np.float32 else 1e-8)
    assert {leaf.dtype for leaf in tree.leaves((end, state)) if leaf.dtype.kind == "f"} == {np.dtype(dtype)}


def test_needs_no_more_steps_than_scipy() -> None:
    scipy_optimize = pytest.importorskip("scipy.optimize", reason="the oracle is SciPy")
    f = ff.value_and_grad(lambda x: rosenbrock({"x": x}))
    theirs = scipy_optimize.minimize(f, start(np.float64, 10)["x"], jac=True, method="L-BFGS-B", options={"maxcor": 10})
    end, _ = minimise(optim.lbfgs(), rosenbrock, start(np.float64, 10), theirs.nit + 10)
    assert rosenbrock(end) <= 1e-8
    assert np.allclose(end["x"], 1, atol=1e-4)


@every_dtype
def test_steps_of_fixed_size_agree_with_pytorch(dtype: Any) -> None:
    torch = pytest.importorskip("torch", reason="the oracle is PyTorch")
    matrix = np.diag([1.0, 3.0, 10.0]).astype(dtype) + dtype(0.1)
    x = torch.nn.Parameter(torch.tensor([1.0, -2.0, 0.5], dtype=getattr(torch, np.dtype(dtype).name)))
    theirs = torch.optim.LBFGS([x], lr=0.3, max_iter=1, history_size=3)
    torch_matrix = torch.from_numpy(matrix)

    def closure() -> Any:
        theirs.zero_grad()
        loss = 0.5 * x @ torch_matrix @ x + torch.log1p(x @ x)
        loss.backward()
        return loss

    def f(x: Any) -> Any:
        return 0.5 * x @ matrix @ x + np.log1p(x @ x)

    opt = optim.lbfgs(0.3, memory_size=3, linesearch=None)
    ours = np.array([1.0, -2.0, 0.5], dtype)
    state = opt.init(ours)
    # PyTorch scales its first step by the 1-norm of the gradient: we begin where it is after that.
    before, first = ours, ff.grad(f)(ours)
    theirs.step(closure)
    ours = x.detach().numpy().copy()
    lbfgs_state = state[0]._replace(count=np.int32(1), params=before, updates=first)
    state = (lbfgs_state, *state[1:])
    for _ in range(6):
        updates, state = opt.update(ff.grad(f)(ours), state, ours)
        ours = optim.apply_updates(ours, updates)
        theirs.step(closure)
        assert np.allclose(ours, x.detach().numpy(), rtol=2e-4 if dtype is np.float32 else 1e-11, atol=1e-6)


def test_directions_agree_with_optax(optax: Any) -> None:
    params = {"a": np.float32([1.0, -2.0, 0.5]), "b": np.float32([[0.3], [0.7]])}

    def f(p: Any) -> Any:
        return np.sum(p["a"] ** 2 * np.array([1, 3, 10], p["a"].dtype)) + np.sum(np.cosh(p["b"])) + np.sum(p["a"][:2])

    ours, theirs = optim.scale_by_lbfgs(memory_size=3), optax.scale_by_lbfgs(memory_size=3)
    their_update = pytest.importorskip("jax").jit(theirs.update)
    state, their_state = ours.init(params), theirs.init(params)
    for _ in range(8):
        grads = ff.grad(f)(params)
        direction, state = ours.update(grads, state, params)
        expected, their_state = their_update(grads, their_state, params)
        for name in params:
            assert np.allclose(direction[name], expected[name], rtol=1e-4, atol=1e-5)
        params = tree.map(lambda p, d: p - np.float32(0.3) * d, params, direction)


SEARCHES = {
    "zoom": lambda: optim.scale_by_zoom_linesearch(30),
    "zoom_one": lambda: optim.scale_by_zoom_linesearch(30, initial_guess_strategy="one"),
    "zoom_bound": lambda: optim.scale_by_zoom_linesearch(30, max_learning_rate=0.5, approx_dec_rtol=None),
    "backtracking": lambda: optim.scale_by_backtracking_linesearch(40, store_grad=True),
}


def quartic(x: Any) -> Any:
    return np.sum(x**4) + 0.5 * np.sum(x**2)


def steep(x: Any) -> Any:
    return np.sum(np.exp(10 * x) - 10 * x)


@pytest.mark.parametrize("search", SEARCHES)
@pytest.mark.parametrize(("f", "x"), [(quartic, [3.0, -2.0]), (steep, [2.0, -3.0]), (quartic, [1e-3, 1e-4])])
@every_dtype
def test_a_search_decreases_the_function(search: str, f: Any, x: list[float], dtype: Any) -> None:
    opt = optim.chain(optim.sgd(1.0), SEARCHES[search]())
    params = np.array(x, dtype)
    state = opt.init(params)
    values = [f(params)]
    for _ in range(10):
        value, grad = ff.value_and_grad(f)(params)
        updates, state = opt.update(grad, state, params, value=value, grad=grad, value_fn=f)
        params = optim.apply_updates(params, updates)
        known, slope = optim.value_and_grad_from_state(f)(params, state=state)
        assert params.dtype == known.dtype == slope.dtype == dtype
        assert np.allclose(known, f(params), rtol=1e-5)
        assert np.allclose(slope, ff.grad(f)(params), rtol=1e-2, atol=1e-5)
        values.append(f(params))
    # The approximate condition lets a value through that is greater by a millionth.
    slack = (1e-5 if dtype is np.float32 else 1e-6) * abs(values[0])
    assert np.all(np.diff(values) <= slack)
    assert values[-1] < values[0]


def test_zoom_ends_where_both_conditions_hold() -> None:
    opt = optim.chain(optim.sgd(1.0), optim.scale_by_zoom_linesearch(30, slope_rtol=1e-2, curv_rtol=0.1))
    for x in (np.array([3.0]), np.array([0.01, 0.3]), np.array([-20.0, 1.0, 4.0])):
        value, grad = ff.value_and_grad(quartic)(x)
        updates, _ = opt.update(grad, opt.init(x), x, value=value, grad=grad, value_fn=quartic)
        slope = -np.sum(grad * grad)
        size = -updates[0] / grad[0]
        assert quartic(x + updates) <= value + 1e-2 * size * slope
        assert abs(np.sum(ff.grad(quartic)(x + updates) * -grad)) <= 0.1 * abs(slope)


def test_a_function_that_overflows_is_searched_nearer() -> None:
    opt = optim.chain(optim.sgd(1e4), optim.scale_by_zoom_linesearch(40))
    x = np.array([1.0])
    value, grad = ff.value_and_grad(steep)(x)
    updates, _ = opt.update(grad, opt.init(x), x, value=value, grad=grad, value_fn=steep)
    assert steep(x + updates) < value


@pytest.mark.parametrize("search", SEARCHES)
def test_uphill_there_is_no_step_that_climbs(search: str) -> None:
    opt = optim.chain(optim.scale(1.0), SEARCHES[search]())
    x = np.array([1.0, 2.0])
    value, grad = ff.value_and_grad(quartic)(x)
    updates, _ = opt.update(grad, opt.init(x), x, value=value, grad=grad, value_fn=quartic)
    assert quartic(x + updates) <= value * (1 + 1e-2)


@pytest.mark.parametrize("native", [False, True])
@pytest.mark.parametrize("make", [optim.lbfgs, lambda: optim.chain(optim.sgd(1.0), SEARCHES["backtracking"]())])
def test_programs_go_the_same_way(make: Any, native: bool) -> None:
    opt = make()
    params = start(np.float64)
    state = opt.init(params)

    @ff.jit
    def step(params: Any, state: Any) -> Any:
        value, grad = optim.value_and_grad_from_state(rosenbrock)(params, state=state)
        updates, state = opt.update(grad, state, params, value=value, grad=grad, value_fn=rosenbrock)
        return optim.apply_updates(params, updates), state

    with config.override(use_native=native):
        for _ in range(5):
            params, state = step(params, state)
    expected, _ = minimise(opt, rosenbrock, start(np.float64), 5)
    assert np.allclose(params["x"], expected["x"], rtol=1e-6)


@pytest.mark.parametrize("jit", [False, True])
def test_a_train_step_gives_what_lbfgs_wants(jit: bool) -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(50, 3))
    y = x @ np.array([[1.0], [-2.0], [0.5]]) + 0.3
    model = nn.Dense(1)
    _, params = model.init(ff.random.key(0), (-1, 3))
    params = tree.map(lambda p: p.astype(np.float64), params)
    step = train.make_step(
        lambda p, batch, key: np.mean((model.apply(p, batch[0]) - batch[1]) ** 2), optim.lbfgs(), jit=jit
    )
    state = optim.lbfgs().init(params)
    for _ in range(15):
        params, state, metrics = step(params, state, (x, y))
    assert metrics["loss"] < 1e-10
    assert np.allclose(params["b"], 0.3, atol=1e-5)


def test_many_searches_at_once() -> None:
    opt = optim.lbfgs()

    def two_steps(x: Any) -> Any:
        return minimise(opt, quartic, x, 2)[0]

    many = np.array([[1.0, 2.0], [-3.0, 0.1], [0.2, 10.0]])
    assert np.allclose(ff.vmap(two_steps)(many), np.stack([two_steps(x) for x in many]), rtol=1e-10)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: optim.lbfgs(memory_size=0), ArgumentError, "memory_size must be at least 1"),
        (lambda: optim.scale_by_zoom_linesearch(0), ArgumentError, "max_linesearch_steps"),
        (lambda: optim.scale_by_zoom_linesearch(5, initial_guess_strategy="two"), ArgumentError, "'keep' or 'one'"),
        (lambda: optim.lbfgs().update(np.ones(2), optim.lbfgs().init(np.ones(2))), ArgumentError, "params"),
        (
            lambda: optim.lbfgs().update(np.ones(2), optim.lbfgs().init(np.ones(2)), np.ones(2), value=1.0),
            ArgumentError,
            "update needs grad=, value_fn=",
        ),
        (
            lambda: optim.value_and_grad_from_state(quartic)(np.ones(2), state=optim.sgd(0.1).init(np.ones(2))),
            TreeError,
            "found 0",
        ),
    ],
)
def test_what_lacks_is_named(call: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call()
