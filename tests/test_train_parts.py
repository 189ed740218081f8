"""The parts of training that loops of one's own use too: steps, history, plots, progress, reporters, stopping."""

from __future__ import annotations

import io
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fnflare import data, nn, optim, random, train, tree
from fnflare.errors import ArgumentError, CheckpointError, ConcretizationError
from fnflare.train import progress as progress_module

# ---------------------------------------------------------------- steps


def squares(params: Any, batch: Any, key: Any) -> Any:
    return np.sum((params["w"] - batch) ** 2), {"size": np.sum(np.abs(params["w"])), "key": key[0]}


def test_a_step_is_gradient_and_update_and_changes_nothing_in_place() -> None:
    optimizer = optim.adam(0.1)
    step = train.make_step(squares, optimizer, grad_norm=True)
    params, batch, key = {"w": np.float32([3.0, 0.0])}, np.float32([0.0, 4.0]), random.key(0)
    before = tree.map(np.copy, params)
    new, state, metrics = step(params, optimizer.init(params), batch, key)
    grads = {"w": 2 * (params["w"] - batch)}
    updates, wanted_state = optimizer.update(grads, optimizer.init(params), params)
    assert tree.equal(new, optim.apply_updates(params, updates)) and tree.equal(state, wanted_state)
    assert tree.equal(params, before) and tree.equal(step.gradients(params, batch, key), grads)
    assert metrics == {"loss": 25.0, "grad_norm": 10.0, "size": 3.0, "key": key[0]}
    assert new["w"].dtype == metrics["loss"].dtype == metrics["grad_norm"].dtype == np.float32


@pytest.mark.parametrize(
    ("aux", "message"),
    [(3.0, "dict of metrics without 'loss', got float"), ({"loss": 1.0}, r"without 'loss', got \['loss'\]")],
)
def test_metrics_beside_the_loss_are_a_dict_of_other_names(aux: Any, message: str) -> None:
    optimizer = optim.sgd(0.1)
    step = train.make_step(lambda params, batch, key: (params**2, aux), optimizer)
    with pytest.raises(ArgumentError, match=message):
        step(1.0, optimizer.init(1.0), None, None)


@pytest.mark.parametrize("optimizer", [optim.adam(0.1), optim.chain(optim.clip_by_global_norm(0.5), optim.sgd(0.1))])
def test_a_jitted_step_gives_what_it_gives_unjitted(optimizer: Any) -> None:
    model = nn.serial(words=nn.Embedding(9, 4), pool=nn.GlobalMaxPool, drop=nn.Dropout(0.5), out=nn.Dense(2))
    traced = 0

    def loss(params: Any, batch: Any, key: Any) -> Any:
        nonlocal traced
        traced += 1
        logits = model.apply(params, batch["words"], key=key, train=True)
        right = np.argmax(logits, axis=-1) == batch["label"]
        losses = nn.softmax_cross_entropy_with_integer_labels(logits, batch["label"])
        return np.mean(losses), {"right": np.mean(right), "none": 0.0}

    def outcomes(jit: bool) -> Any:
        step = train.make_step(loss, optimizer, grad_norm=True, jit=jit)
        params = model.init(random.key(0), (-1, -1))[1]
        state, seen = optimizer.init(params), []
        for number, words in enumerate([[[1, 2, 3], [4]], [[5], [6, 7]], [[8, 1], [2, 3]]]):
            batch = {"words": nn.pad(words), "label": np.array([0, 1])}
            params, state, metrics = step(params, state, batch, random.fold_in(random.key(1), number))
            seen.append((params, state, metrics))
        return seen

    plain = outcomes(False)
    traced = 0
    jitted = outcomes(True)
    assert traced == 2  # once for each shape
    for (path, wanted), got in zip(tree.leaves_with_path(plain), tree.leaves(jitted), strict=True):
        np.testing.assert_allclose(got, wanted, rtol=1e-5, atol=1e-7, err_msg=tree.path_str(path))
        assert np.asarray(got).dtype == np.asarray(wanted).dtype
    assert list(jitted[0][2])[:2] == list(plain[0][2])[:2] == ["loss", "grad_norm"]


def test_a_jitted_step_says_how_to_do_without() -> None:
    def by_value(params: Any, batch: Any, key: Any) -> Any:
        return np.sum(params * batch) if np.sum(params) > 0 else np.sum(params)

    def by_word(params: Any, batch: Any, key: Any) -> Any:
        return np.sum(params * len(batch["word"]))

    params, optimizer = np.ones(2), optim.sgd(0.1)
    for loss, batch, message in [
        (by_value, np.ones(2), "np.where"),
        (by_word, {"word": "three"}, "leaf 'word' of train_step is a str"),
    ]:
        train.make_step(loss, optimizer)(params, optimizer.init(params), batch)
        with pytest.raises((ArgumentError, ConcretizationError), match=message) as caught:
            train.make_step(loss, optimizer, jit=True)(params, optimizer.init(params), batch)
        assert any("without jit=True" in note for note in caught.value.__notes__)


# ---------------------------------------------------------------- history

STEPS = st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=20)


@given(st.lists(STEPS, max_size=5), st.integers(0, 30))
def test_history_keeps_what_it_is_given_and_goes_through_its_state(epochs: list[list[float]], cut: int) -> None:
    history, step, mark, at_mark = train.History(), 0, None, None
    for losses in epochs:
        for loss in losses:
            if step == cut:
                mark, at_mark = history.mark(), history.state()
            step += 1
            history.add(step, {"loss": loss}, averaged=True)
        history.add(step, {"validation loss": losses[0]})
        history.end_epoch(step)
    assert step == 0 or history["loss"] == [loss for losses in epochs for loss in losses]
    if epochs:
        np.testing.assert_array_equal(history.by_epoch("loss"), [np.mean(losses) for losses in epochs])
        assert history.by_epoch("validation loss") == [losses[0] for losses in epochs]
        assert history.last_epoch("loss") == history.by_epoch("loss")[-1]
        assert history.epochs_at(history.epoch_ends).tolist() == list(range(1, len(epochs) + 1))
    if mark is not None:
        assert tree.equal(history.state(mark), at_mark)
    again = train.History()
    again.restore(history.state())
    assert tree.equal(again.state(), history.state())
    assert again.averaged == history.averaged and again.table() == history.table()


def test_history_of_epochs_without_reports_and_unfinished_ones() -> None:
    history = train.History()
    history.add(1, {"loss": 1.0}, averaged=True)
    with pytest.raises(ArgumentError, match="no epoch has ended"):
        history.epochs_at([1])
    with pytest.raises(ArgumentError, match="no epoch has ended"):
        history.last_epoch("loss")
    history.end_epoch(2)
    history.add(4, {"rare": 5.0})
    history.end_epoch(4)
    history.add(5, {"rare": 6.0})
    np.testing.assert_array_equal(history.by_epoch("rare"), [np.nan, 5.0])
    assert history.epochs_at([1, 2, 3, 5, 6]).tolist() == [0.5, 1.0, 1.5, 2.5, 3.0]
    assert history.latest("rare", 1) == [6.0] and history.latest("rare", 9) == [5.0, 6.0]
    assert "rare" in history and "loss " not in history
    assert list(history) == history.names and len(history) == len(history.names)
    assert dict(history) == dict(history.items()) == {name: history[name] for name in history.names}
    assert history.table(["rare"]).splitlines()[1].split() == ["1", "2", "nan"]
    assert repr(history) == "History(2 epochs of loss, rare)"


def test_an_unknown_name_is_an_error_that_lists_the_names() -> None:
    history = train.History()
    history.add(1, {"loss": 1.0, "accuracy": 0.5})
    with pytest.raises(ArgumentError, match="nothing called 'los' was reported; there is loss, accuracy"):
        history["los"]


# ---------------------------------------------------------------- pictures


def curves(steps: int, per_epoch: int) -> train.History:
    history = train.History()
    for step in range(1, steps + 1):
        history.add(step, {"loss": 1 / step, "accuracy": 1 - 1 / step}, averaged=True)
        if step % per_epoch == 0:
            history.add(step, {"validation loss": 2 / step})
            history.end_epoch(step)
    return history


@pytest.mark.parametrize(("steps", "per_epoch", "unit"), [(40, 10, "epoch"), (7, 10, "step"), (3, 1, "epoch")])
def test_learning_curves(tmp_path: Path, monkeypatch: Any, steps: int, per_epoch: int, unit: str) -> None:
    figure_module = pytest.importorskip("matplotlib.figure", reason="the extra fnflare[notebooks] is not installed")
    drawn: list[Any] = []
    save = figure_module.Figure.savefig

    def savefig(figure: Any, *args: Any, **kwargs: Any) -> None:
        drawn.append(figure)
        save(figure, *args, **kwargs)

    monkeypatch.setattr(figure_module.Figure, "savefig", savefig)
    train.plot_history(curves(steps, per_epoch), tmp_path / "new" / "curve.png")
    assert (tmp_path / "new" / "curve.png").read_bytes().startswith(b"\x89PNG")
    axes = drawn[0].axes
    assert [(a.get_xlabel(), a.get_ylabel()) for a in axes] == [(unit, "loss"), (unit, "accuracy")]
    labels = [text.get_text() for text in axes[0].get_legend().get_texts()]
    assert labels == (["train", "validation"] if unit == "epoch" else ["train"])
    thick = {line.get_label(): line for line in axes[0].lines}
    ends = curves(steps, per_epoch).by_epoch("loss") or curves(steps, per_epoch)["loss"]
    np.testing.assert_array_equal(thick["train"].get_ydata(), ends)
    if unit == "epoch":
        assert thick["validation"].get_xdata().tolist() == list(range(1, steps // per_epoch + 1))


def test_plot_names_the_extra_and_what_there_is_not(tmp_path: Path, monkeypatch: Any) -> None:
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "matplotlib.figure", None)
        with pytest.raises(ImportError, match=r"pip install 'fnflare\[notebooks\]'"):
            train.plot_history(curves(2, 1), tmp_path / "curve.png")
    pytest.importorskip("matplotlib", reason="the extra fnflare[notebooks] is not installed")
    with pytest.raises(ArgumentError, match="the history is empty"):
        train.plot_history(train.History(), tmp_path / "curve.png")
    with pytest.raises(ArgumentError, match="nothing called 'rate'"):
        train.plot_history(curves(2, 1), tmp_path / "curve.png", names=["loss", "rate"])


# ---------------------------------------------------------------- progress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def through_a_loop(**options: Any) -> None:
    bar = train.Progress([1, 2, 3], "epoch 1/2", **options)
    seen = []
    for batch in bar:
        seen.append(batch)
        bar.report({"loss": batch / 4, "accuracy": np.float32(0.123456)})
    assert seen == [1, 2, 3]


def test_lines_where_there_is_no_terminal(monkeypatch: Any) -> None:
    monkeypatch.setattr(sys, "stderr", stream := io.StringIO())
    monkeypatch.delitem(sys.modules, "ipykernel", raising=False)
    through_a_loop()
    (line,) = stream.getvalue().splitlines()
    assert line.startswith("epoch 1/2: 3/3 steps, ")
    assert line.endswith(" s, loss 0.75, accuracy 0.1235")


def test_lines_come_now_and_then_and_say_what_remains(monkeypatch: Any) -> None:
    monkeypatch.setattr(sys, "stderr", stream := io.StringIO())
    monkeypatch.delitem(sys.modules, "ipykernel", raising=False)
    now = 100.0
    monkeypatch.setattr(progress_module, "time", SimpleNamespace(perf_counter=lambda: now))
    with train.Progress(total=12, done=2, unit="batches") as bar:
        for i in range(6):
            now += 4.0
            bar.advance({"loss": float(i)})
    assert stream.getvalue().splitlines() == [
        "5/12 batches, 0.2/s, 28 s left, loss 2",
        "8/12 batches, 0.2/s, 16 s left, loss 5",
        "8/12 batches, 0.2/s, in 24.0 s, loss 5",
    ]


def test_lines_where_tqdm_is_not_installed(monkeypatch: Any) -> None:
    monkeypatch.setattr(sys, "stderr", stream := Terminal())
    monkeypatch.setitem(sys.modules, "tqdm", None)
    through_a_loop()
    assert stream.getvalue().count("\n") == 1 and "3/3 steps" in stream.getvalue()


def test_a_bar_in_a_terminal(monkeypatch: Any) -> None:
    pytest.importorskip("tqdm", reason="the extra fnflare[train] is not installed")
    monkeypatch.setattr(sys, "stderr", stream := Terminal())
    through_a_loop()
    last = stream.getvalue().rstrip("\n").split("\r")[-1]
    assert last.startswith("epoch 1/2: 100%")
    assert " 3/3 [" in last and last.rstrip().endswith("loss 0.75, accuracy 0.1235]") and "steps/s" in last


def test_nothing_is_shown_if_nothing_is_wanted(capfd: pytest.CaptureFixture[str]) -> None:
    through_a_loop(shown=False)
    train.fit(lambda p, s, b, k: (p, s, {"loss": 0.0}), (), (), [1, 2], progress=False)
    captured = capfd.readouterr()
    assert captured.out == captured.err == ""


def test_fit_shows_each_epoch_with_its_means(capsys: pytest.CaptureFixture[str], monkeypatch: Any) -> None:
    monkeypatch.delitem(sys.modules, "ipykernel", raising=False)

    def step(params: Any, opt_state: Any, batch: Any, key: Any) -> Any:
        return params, opt_state, {"loss": batch}

    train.fit(step, (), (), [1.0, 2.0], epochs=2, reporters=[train.Callback(lambda moment: {"score": 7})])
    captured = capsys.readouterr()
    assert captured.out == ""
    assert [line.split(",")[-2:] for line in captured.err.splitlines()] == [[" loss 1.5", " score 7"]] * 2
    assert captured.err.startswith("epoch 1/2: 2/2 steps")


# ---------------------------------------------------------------- reporters


def at(step: int, event: Any = "step", params: Any = None, **metrics: float) -> train.Moment:
    history = train.History()
    history.add(step, metrics, averaged=True)
    return train.Moment(event, step, 0, params, None, metrics, history)


def test_means_over_a_set_count_each_example_once() -> None:
    x, y = np.arange(7.0), np.array([0.0, 1, 2, 0, 0, 0, 0])

    def measures(params: Any, batch: Any) -> dict[str, Any]:
        inputs, targets = batch
        return {"error": np.abs(inputs * params - targets), "right": inputs == targets}

    for size in (1, 2, 3, 7, 10):
        evaluate = train.Evaluate(measures, data.DataLoader((x, y), size), prefix="test ")
        assert evaluate.measure(1.0) == {"test error": 18 / 7, "test right": 3 / 7}
        assert evaluate(at(1, "epoch", params=1.0)) == evaluate.measure(1.0)
        assert evaluate(at(1, "step", params=1.0)) is None


def test_accuracy_over_a_set() -> None:
    logits = np.array([[1.0, 0.0], [0.0, 1.0], [0.0, 1.0], [2.0, 1.0], [0.0, 3.0]])
    loader = data.DataLoader((logits, np.array([0, 1, 0, 1, 1])), 2)
    accuracy = train.Accuracy(lambda params, x: x * params, loader, on="step")
    assert accuracy(at(3, params=1.0)) == {"validation accuracy": pytest.approx(0.6, abs=1e-15)}
    assert accuracy(at(3, "epoch", params=1.0)) is None
    padded = nn.pad([[1, 2, 3], [4]])
    words = train.Accuracy(lambda params, x: x.values, [(padded, padded.values)], name="words")
    assert words.measure(None) == {"words": 1.0}


def test_every_changes_when_a_reporter_measures() -> None:
    evaluate = train.Evaluate(lambda params, batch: {"x": batch}, [np.ones(3)])
    every = train.Every(10, evaluate)
    assert every(at(20)) == {"validation x": 1.0}
    assert every(at(21)) is None and every(at(20, "epoch")) is None


def test_callback_is_called_on_its_event() -> None:
    calls: list[int] = []
    callback = train.Callback(lambda moment: calls.append(moment.step))
    assert [callback(at(1)), callback(at(2, "epoch"))] == [None, None]
    assert calls == [2]


def test_averages_are_of_the_window() -> None:
    history = train.History()
    for step in range(1, 11):
        history.add(step, {"loss": float(step), "grad_norm": 2.0 * step}, averaged=True)
    moment = train.Moment("step", 10, 0, None, None, {"loss": 10.0, "grad_norm": 20.0}, history)
    assert train.AverageLoss(4)(moment) == {"average loss": 8.5}
    assert train.AverageLoss()(moment) == {"average loss": 5.5}
    assert train.AverageLoss(2, metric="grad_norm", name="g")(moment) == {"g": 19.0}
    assert train.GradientSize()(moment) == {"gradient size": 20.0}


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: train.Every(0, print), "steps must be at least 1, got 0"),
        (lambda: train.AverageLoss(0), "window must be at least 1, got 0"),
        (lambda: train.Callback(print, on="batch"), "Callback: on must be 'step' or 'epoch', got 'batch'"),
        (lambda: train.Evaluate(print, iter([1])), "gone through only once; pass a list or a DataLoader"),
        (
            lambda: train.Evaluate(lambda p, b: {"loss": np.mean(b)}, [np.ones(2)]).measure(0),
            "'loss' is a scalar; .* np.m",
        ),
        (lambda: train.Evaluate(lambda p, b: {"loss": b}, []).measure(0), "no examples"),
        (lambda: train.Evaluate(lambda p, b: {"loss": b}, [np.ones(0)]).measure(0), "no examples"),
        (lambda: train.EarlyStopping(patience=0), "got 0, 0.0 and 'min'"),
        (lambda: train.EarlyStopping(mode="best"), "got 3, 0.0 and 'best'"),
        (lambda: train.Checkpointer("run.npz", every=0), "every must be at least 1 step, got 0"),
    ],
)
def test_arguments_out_of_range(make: Any, message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        make()


# ---------------------------------------------------------------- stopping


@given(st.lists(st.floats(0, 1) | st.just(float("nan")), max_size=30), st.integers(1, 5), st.floats(0, 0.3))
def test_stopping_comes_after_a_run_of_reports_without_gain(values: list[float], patience: int, delta: float) -> None:
    low = train.EarlyStopping(patience=patience, min_delta=delta, keep_best=True)
    high = train.EarlyStopping(patience=patience, min_delta=delta, mode="max")
    best, waited = np.inf, 0
    for number, value in enumerate(values):
        better = value < best - delta or (best == np.inf and value == value)
        best, waited = (value, 0) if best - value > delta else (best, waited + 1)
        assert low.update(value, number) is high.update(-value) is (waited >= patience)
        assert low.best == (None if best == np.inf else best)
        assert not better or low.best_params == number
        again = train.EarlyStopping(patience=patience, min_delta=delta, keep_best=True)
        again.restore(low.state(number))
        assert (again.best, again.best_params, again.stopped) == (low.best, low.best_params, low.stopped)


def test_the_state_of_stopping_has_one_structure() -> None:
    stopping = train.EarlyStopping(keep_best=True)
    params = {"w": np.zeros(2)}
    before = tree.structure(stopping.state(params))
    stopping.update(0.5, params)
    assert tree.structure(stopping.state(params)) == before
    stopping.reset()
    assert stopping.best is None and stopping.best_params is None


# ---------------------------------------------------------------- checkpoints


def test_a_checkpointer_in_a_loop_of_ones_own(tmp_path: Path) -> None:
    checkpointer = train.Checkpointer(tmp_path / "deep" / "run.npz", every=4)
    like = {"w": np.zeros(2), "step": 0}
    assert checkpointer.restore(like) is None
    assert [step for step in range(1, 13) if checkpointer.due(step)] == [4, 8, 12]
    assert not train.Checkpointer("run.npz").due(4)
    for step in (4, 8):
        checkpointer.save({"w": np.full(2, float(step)), "step": step})
    assert tree.equal(checkpointer.restore(like), {"w": np.full(2, 8.0), "step": 8})
    with pytest.raises(CheckpointError, match="at 'w' like= has shape"):
        checkpointer.restore({"w": np.zeros(3), "step": 0})
