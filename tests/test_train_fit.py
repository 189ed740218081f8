"""The training loop: what it does, that it resumes to the last bit, and that a failure loses nothing."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fnflare import data, nn, optim, random, train, tree
from fnflare.errors import ArgumentError, CheckpointError, DtypeError, NonFiniteError

KEY = random.key(3)
MODEL = nn.serial(hidden=nn.Dense(4), act=nn.Tanh, drop=nn.Dropout(0.3), out=nn.Dense(2))
OPTIMIZER = optim.adam(1e-2)
BATCHES = 6  # an epoch


def loss_fn(params: Any, batch: Any, key: Any) -> Any:
    x, y = batch
    logits = MODEL.apply(params, x, key=key, train=True)
    loss = np.mean(nn.softmax_cross_entropy_with_integer_labels(logits, y))
    return loss, {"accuracy": np.mean(np.argmax(logits, axis=-1) == y)}


def points() -> tuple[np.ndarray, np.ndarray]:
    x = random.normal(random.key(0), (22, 3))
    return x, (x[:, 0] > 0).astype(np.int64)


def new_loader(**options: Any) -> data.DataLoader:
    return data.DataLoader(points(), 4, key=random.key(1), **options)


def new_params() -> Any:
    return MODEL.init(random.key(2), (-1, 3))[1]


def measures(params: Any, batch: Any) -> dict[str, Any]:
    x, y = batch
    logits = MODEL.apply(params, x)
    return {"loss": nn.softmax_cross_entropy_with_integer_labels(logits, y), "accuracy": np.argmax(logits, -1) == y}


def new_reporters() -> list[Any]:
    evaluate = train.Evaluate(measures, data.DataLoader(points(), 8))
    return [evaluate, train.AverageLoss(5), train.GradientSize(), train.Every(4, lambda moment: {"step": moment.step})]


def run(**options: Any) -> train.FitResult:
    """A run of three epochs, unless the options say otherwise."""
    step = options.pop("step", train.make_step(loss_fn, OPTIMIZER, grad_norm=True))
    loader = options.pop("loader", None) or new_loader()
    params = options.pop("params", None) or new_params()
    settings = {"epochs": 3, "key": KEY, "reporters": new_reporters(), "progress": False} | options
    return train.fit(step, params, OPTIMIZER.init(params), loader, **settings)


def assert_same_run(a: train.FitResult, b: train.FitResult) -> None:
    assert tree.equal((a.params, a.opt_state), (b.params, b.opt_state))
    assert tree.equal(a.history.state(), b.history.state())
    assert a[3:] == b[3:]


class Killed(BaseException):
    """What stops a run without warning, as a signal would."""


def failing(at: int, error: BaseException) -> Any:
    """A step that fails when it is called the `at`-th time."""
    inner = train.make_step(loss_fn, OPTIMIZER, grad_norm=True)
    calls = iter(range(at + 1))

    def step(*args: Any) -> Any:
        if next(calls) == at:
            raise error
        return inner(*args)

    return step


# ---------------------------------------------------------------- the loop


def test_it_does_what_a_plain_loop_does() -> None:
    result = run()
    params, step, number = new_params(), train.make_step(loss_fn, OPTIMIZER), 0
    state, loader, losses = OPTIMIZER.init(params), new_loader(), []
    for _ in range(3):
        for batch in loader:
            params, state, metrics = step(params, state, batch, random.fold_in(KEY, number))
            losses.append(float(metrics["loss"]))
            number += 1
    assert tree.equal(result.params, params) and tree.equal(result.opt_state, state)
    assert result.history["loss"] == losses
    assert (result.step, result.epoch, result.stopped) == (3 * BATCHES, 3, "epochs")
    assert losses[-1] < losses[0]


def test_a_jitted_run_gives_the_numbers_of_an_unjitted_one(tmp_path: Path) -> None:
    step = train.make_step(loss_fn, OPTIMIZER, grad_norm=True, jit=True)
    jitted, plain = run(step=step), run()
    assert jitted.history.names == plain.history.names
    for name in plain.history.names:
        np.testing.assert_allclose(jitted.history[name], plain.history[name], rtol=1e-4, atol=1e-6)
    run(step=step, max_steps=8, checkpoint=tmp_path / "run.npz")
    assert_same_run(run(step=step, checkpoint=tmp_path / "run.npz"), jitted)


def test_the_history_holds_metrics_and_reports() -> None:
    history = run().history
    assert history.epoch_ends == [6, 12, 18]
    assert history.names[:3] == ["loss", "grad_norm", "accuracy"]
    assert history.series("validation loss").steps.tolist() == [6, 12, 18]
    assert history["step"] == [4, 8, 12, 16]
    assert history.by_epoch("loss") == [float(np.mean(history["loss"][i : i + 6])) for i in (0, 6, 12)]
    assert history.by_epoch("validation loss") == history["validation loss"]
    assert history["average loss"][-1] == float(np.mean(history["loss"][-5:]))
    assert history["gradient size"] == history["grad_norm"]


def test_every_batch_gets_a_key_of_its_own_or_none() -> None:
    keys: list[Any] = []

    def step(params: Any, opt_state: Any, batch: Any, key: Any) -> Any:
        keys.append(key)
        return params, opt_state, {"loss": 0.0}

    train.fit(step, (), (), [0, 1], epochs=2, key=KEY, progress=False)
    assert tree.equal(keys, [random.fold_in(KEY, i) for i in range(4)])
    train.fit(step, (), (), [0], progress=False)
    assert keys[-1] is None


def test_max_steps_ends_in_the_midst_of_an_epoch() -> None:
    result = run(max_steps=8)
    assert (result.step, result.epoch, result.stopped) == (8, 1, "max_steps")
    assert run(max_steps=0).step == 0
    assert run(epochs=0).stopped == "epochs"


def test_reporters_see_the_moment() -> None:
    seen: list[tuple[Any, ...]] = []

    def look(moment: train.Moment) -> None:
        seen.append((moment.event, moment.step, moment.epoch, moment.metrics["loss"]))

    result = run(reporters=[look], epochs=2)
    losses = result.history["loss"]
    steps = [("step", i + 1, i // 6, loss) for i, loss in enumerate(losses)]
    means = result.history.by_epoch("loss")
    assert seen == [*steps[:6], ("epoch", 6, 0, means[0]), *steps[6:], ("epoch", 12, 1, means[1])]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"epochs": -1}, "must not be negative, got -1 and None"),
        ({"checkpoint_every": 3}, "checkpoint_every needs checkpoint="),
        ({"loader": iter([1])}, "gone through only once; pass a DataLoader or a list"),
        (
            {"step": lambda p, s, b, k: (p, s, {"accuracy": 1.0})},
            r"metrics a dict that holds 'loss'; got \['accuracy'\]",
        ),
        ({"step": lambda p, s, b, k: (p, s, 0.5)}, "holds 'loss'; got float"),
        ({"step": lambda p, s, b, k: (p, s, {"loss": np.ones(2)})}, r"has 'loss' of shape \(2,\).*write a number"),
        ({"reporters": [lambda moment: 3.0]}, "returned a float; expected numbers by name, or None"),
        ({"reporters": [lambda moment: {"x": None}]}, "has 'x' of shape .* type NoneType"),
        ({"reporters": [train.GradientSize()], "step": train.make_step(loss_fn, OPTIMIZER)}, "grad_norm=True"),
        ({"early_stopping": train.EarlyStopping("test loss")}, "monitors 'test loss', which nothing has .* 'loss', "),
        ({"checkpoint": "run.pkl"}, r"ends in '.pkl'"),
    ],
)
def test_arguments_that_do_not_fit(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        run(**options)


def test_a_loader_without_batches() -> None:
    with pytest.raises(ArgumentError, match="the loader gave no batch"):
        train.fit(lambda *args: args, (), (), [], progress=False)


# ---------------------------------------------------------------- resuming


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=12)
@given(killed_at=st.integers(0, 17), every=st.sampled_from([1, 2, 4, 7, None]), prefetch=st.sampled_from([0, 2]))
def test_a_run_that_was_killed_resumes_to_the_last_bit(
    tmp_path: Path, killed_at: int, every: int | None, prefetch: int
) -> None:
    path = tmp_path / f"{killed_at}-{every}-{prefetch}.npz"
    path.unlink(missing_ok=True)
    options = {"checkpoint": path, "checkpoint_every": every}
    with pytest.raises(Killed):
        run(step=failing(killed_at, Killed()), loader=new_loader(prefetch=prefetch), **options)
    assert_same_run(run(loader=new_loader(prefetch=prefetch), **options), run())


@pytest.mark.parametrize("suffix", ["npz", "safetensors"])
def test_a_run_may_be_interrupted_and_resumed_many_times(tmp_path: Path, suffix: str) -> None:
    if suffix == "safetensors":
        pytest.importorskip("safetensors", reason="the extra fnflare[io] is not installed")
    path = tmp_path / "new" / "folder" / f"run.{suffix}"
    for at in (0, 1, 5, 3):
        with pytest.raises(KeyboardInterrupt):
            run(step=failing(at, KeyboardInterrupt()), checkpoint=path)
    assert_same_run(run(checkpoint=path), run())


def test_an_interrupt_loses_no_step(tmp_path: Path) -> None:
    path = tmp_path / "run.npz"
    with pytest.raises(KeyboardInterrupt):
        run(step=failing(8, KeyboardInterrupt()), checkpoint=path, checkpoint_every=1000)
    assert run(checkpoint=path, max_steps=8, step=failing(0, AssertionError())).step == 8


@pytest.mark.parametrize("event", ["step", "epoch"])
@pytest.mark.parametrize("place", ["before", "after"])
def test_an_interrupt_in_a_reporter_leaves_no_trace(tmp_path: Path, event: str, place: str) -> None:
    def interrupt(moment: train.Moment) -> None:
        if moment.event == event and moment.step == 12:
            raise KeyboardInterrupt

    reporters = [interrupt, *new_reporters()] if place == "before" else [*new_reporters(), interrupt]
    with pytest.raises(KeyboardInterrupt):
        run(reporters=reporters, checkpoint=tmp_path / "run.npz", checkpoint_every=5)
    assert_same_run(run(checkpoint=tmp_path / "run.npz"), run())


def test_max_steps_can_be_raised(tmp_path: Path) -> None:
    for steps in (1, 6, 7, 15):
        assert run(checkpoint=tmp_path / "run.npz", max_steps=steps).step == steps
    assert_same_run(run(checkpoint=tmp_path / "run.npz"), run())


def test_a_finished_run_is_read_and_can_be_prolonged(tmp_path: Path) -> None:
    path = tmp_path / "run.npz"
    run(checkpoint=path, epochs=2)
    assert_same_run(run(checkpoint=path, epochs=2, step=failing(0, AssertionError())), run(epochs=2))
    assert_same_run(run(checkpoint=path), run())


def test_a_list_of_batches_resumes_too(tmp_path: Path) -> None:
    batches = list(data.DataLoader(points(), 4))
    with pytest.raises(Killed):
        run(loader=batches, step=failing(9, Killed()), checkpoint=tmp_path / "run.npz", checkpoint_every=4)
    assert_same_run(run(loader=batches, checkpoint=tmp_path / "run.npz"), run(loader=batches))


def test_without_resume_the_run_begins_anew(tmp_path: Path) -> None:
    path = tmp_path / "run.npz"
    run(checkpoint=path, epochs=2)
    assert_same_run(run(checkpoint=path, resume=False), run())


def test_a_checkpoint_of_another_run_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "run.npz"
    run(checkpoint=path, epochs=1)
    before = path.read_bytes()
    with pytest.raises(ArgumentError, match="has another key; pass that one, or resume=False"):
        run(checkpoint=path, key=random.key(99))
    with pytest.raises(CheckpointError, match="at 'key' like= has None"):
        run(checkpoint=path, key=None)
    with pytest.raises(
        CheckpointError, match=r"at 'opt_state/mu/hidden/W' like= has shape \(3, 1\), the file has \(3, 4\)"
    ):
        run(checkpoint=path, params=tree.map(lambda p: p[..., :1], new_params()))
    with pytest.raises(ArgumentError, match="a loader with batch_size 4"):
        run(checkpoint=path, loader=data.DataLoader(points(), 5, key=random.key(1)))
    assert path.read_bytes() == before


def test_what_cannot_be_saved_is_said_before_the_first_step(tmp_path: Path) -> None:
    with pytest.raises(DtypeError, match="at 'params/w' is a object"):
        train.fit(failing(0, AssertionError()), {"w": object()}, (), [1], checkpoint=tmp_path / "run.npz")


SCRIPT = """
    import sys, time
    import numpy as np
    from fnflare import data, random, train

    def step(params, opt_state, batch, key):
        time.sleep(0.01)
        return params + batch.sum() * random.uniform(key), opt_state, {"loss": 0.0}

    loader = data.DataLoader(np.arange(10.0), 3, key=random.key(0))
    arguments = dict(epochs=10, key=random.key(1), checkpoint=sys.argv[1], checkpoint_every=2, progress=False)
    print("ready", flush=True)
    print(float(train.fit(step, np.float64(0), (), loader, **arguments).params).hex())
"""


@pytest.mark.skipif(sys.platform == "win32", reason="signals are those of POSIX")
@pytest.mark.parametrize("kill", [signal.SIGKILL, signal.SIGINT] if sys.platform != "win32" else [])
def test_a_process_that_is_killed_resumes_to_the_same_number(tmp_path: Path, kill: signal.Signals) -> None:
    def start(name: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-c", textwrap.dedent(SCRIPT), str(tmp_path / name)]
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    for delay in (0.1, 0.15):
        process = start("killed.npz")
        assert process.stdout is not None and process.stdout.readline() == "ready\n"
        with contextlib.suppress(subprocess.TimeoutExpired):  # on a slow machine it may have come to its end
            process.wait(delay)
        process.send_signal(kill)
        process.communicate()
    results = [start(name).communicate()[0].split() for name in ("killed.npz", "unbroken.npz")]
    assert results[0] == results[1] and len(results[0]) == 2


# ---------------------------------------------------------------- early stopping


def stopping_run(**options: Any) -> train.FitResult:
    """A run that gets worse from its fourth epoch on; the parameter counts the epochs."""

    def step(params: Any, opt_state: Any, batch: Any, key: Any) -> Any:
        return params + 1, opt_state, {"loss": abs(float(params) - 2)}

    stopping = train.EarlyStopping("loss", **{"patience": 2, **options.pop("stopping", {})})
    return train.fit(step, np.zeros(()), (), [0], early_stopping=stopping, progress=False, **({"epochs": 9} | options))


def test_early_stopping_ends_the_run() -> None:
    result = stopping_run()
    assert (result.stopped, result.epoch, float(result.params)) == ("early stopping", 5, 5.0)
    assert stopping_run(stopping={"patience": 100}).stopped == "epochs"


def test_the_best_parameters_are_returned() -> None:
    assert float(stopping_run(stopping={"keep_best": True}).params) == 3.0


@pytest.mark.parametrize("keep_best", [False, True])
def test_early_stopping_resumes(tmp_path: Path, keep_best: bool) -> None:
    options = {"checkpoint": tmp_path / "run.npz", "stopping": {"keep_best": keep_best}}
    for epochs in (1, 4, 9, 9):
        result = stopping_run(epochs=epochs, **options)
    assert_same_run(result, stopping_run(stopping={"keep_best": keep_best}))


def test_early_stopping_looks_at_reports_within_an_epoch() -> None:
    stopping = train.EarlyStopping("constant", patience=2)
    result = run(reporters=[train.Every(2, lambda moment: {"constant": 1.0})], early_stopping=stopping)
    assert (result.step, result.epoch, result.stopped) == (6, 0, "early stopping")


# ---------------------------------------------------------------- losses that are not finite


def broken_loss(params: Any, batch: Any, key: Any) -> Any:
    """Not finite for one batch, through one parameter."""
    return np.sum(params["a"] ** 2) + np.sum(params["b"]["w"] * batch)


def broken_run(batches: Any, tmp_path: Path | None = None, **options: Any) -> Any:
    params = {"a": np.ones(2), "b": {"w": np.ones(2)}}
    optimizer = optim.sgd(0.1)
    if tmp_path is not None:
        options |= {"checkpoint": tmp_path / "run.npz", "checkpoint_every": 1}
    step = options.pop("step", None) or train.make_step(broken_loss, optimizer)
    return train.fit(step, params, optimizer.init(params), batches, progress=False, **options)


def test_a_loss_that_is_not_finite_names_step_epoch_and_gradient(tmp_path: Path) -> None:
    batches = [np.ones(2), np.array([np.nan, 1.0])]
    with pytest.raises(
        NonFiniteError, match=r"step 2, in epoch 1 .* the loss is nan; .* gradient of 'b/w' is not"
    ) as e:
        broken_run(batches, tmp_path)
    good = broken_run(batches[:1])
    assert tree.equal(e.value.state, train.TrainState(good.params, good.opt_state, 1, 0))
    resumed = broken_run([*batches[:1], np.ones(2)], tmp_path, max_steps=1)  # reads what was saved
    assert tree.equal(resumed.params, good.params)


def test_a_non_finite_parameter_is_named() -> None:
    def step(params: Any, opt_state: Any, batch: Any, key: Any) -> Any:
        return {**params, "b": {"w": params["b"]["w"] * batch}}, opt_state, {"loss": float(np.sum(params["b"]["w"]))}

    with pytest.raises(NonFiniteError, match="the parameter 'b/w' was not finite before the step"):
        broken_run([np.inf, 1.0], step=step)


def test_an_update_that_is_not_finite_is_named() -> None:
    def step(params: Any, opt_state: Any, batch: Any, key: Any) -> Any:
        return {**params, "b": {"w": params["b"]["w"] * batch}}, opt_state, {"loss": batch}

    with pytest.raises(NonFiniteError, match="finite before the step, its update of 'b/w' is not"):
        broken_run([np.inf], step=step)


def test_finite_parameters_are_said_to_be_so() -> None:
    def step(params: Any, opt_state: Any, batch: Any, key: Any) -> Any:
        return params, opt_state, {"loss": batch}

    class Worsening:
        batches = iter([[1.0, 1.0], [np.inf]])

        def __iter__(self) -> Any:
            return iter(next(self.batches))

    with pytest.raises(
        NonFiniteError, match=r"step 3, in epoch 2 .* the loss is inf; all parameters are finite, before"
    ):
        broken_run(Worsening(), step=step, epochs=2)


def test_a_good_checkpoint_is_not_replaced_by_parameters_that_are_not_finite(tmp_path: Path) -> None:
    def step(params: Any, opt_state: Any, batch: Any, key: Any) -> Any:
        return tree.map(lambda p: p * batch, params), opt_state, {"loss": 0.0}

    with pytest.raises(NonFiniteError, match="after 2 steps the parameter 'a' is not finite") as e:
        broken_run([2.0, np.inf], tmp_path, step=step)
    assert e.value.state.step == 1 and e.value.state.params["a"].tolist() == [2.0, 2.0]
    saved = broken_run([2.0, 2.0], tmp_path, step=step, max_steps=1)
    assert saved.step == 1 and saved.params["a"].tolist() == [2.0, 2.0]


def test_an_interrupt_after_a_bad_step_stays_an_interrupt(tmp_path: Path) -> None:
    calls: list[int] = []

    def step(params: Any, opt_state: Any, batch: Any, key: Any) -> Any:
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return tree.map(lambda p: p * np.inf, params), opt_state, {"loss": 0.0}

    with pytest.raises(KeyboardInterrupt):
        broken_run([1.0, 1.0], step=step, checkpoint=tmp_path / "run.npz")
    assert broken_run([1.0, 1.0], checkpoint=tmp_path / "run.npz", max_steps=0).params["a"].tolist() == [1.0, 1.0]
