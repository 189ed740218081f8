"""The benchmarks measure what they say: the same work as the peers', and ratios of turns of one round."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fnflare as ff
from benchmarks import (
    arithmetic,
    contestants,
    everything,
    first_call,
    report,
    rnn_memory,
    run,
    sizes,
    step_memory,
    unseen_cell,
    workloads,
)
from benchmarks.arithmetic import SGEMM_GFLOP, gflop
from benchmarks.chain import chain, exact
from benchmarks.contestants import CONTESTANTS, SGEMM, TARGETS, Contestant, Target
from benchmarks.memory import peak_above_baseline

OWN, JITTED = Contestant("fnflare", "eager"), Contestant("fnflare", "jit")
PEER, PACKED = Contestant("torch", "eager"), Contestant("torch", "packed")

OWN_MODES = {name: [c.mode for c in takers if c.library == contestants.OWN] for name, takers in CONTESTANTS.items()}
TRAINED = ("bilstm", "mlp", "lenet", "gpt", "textcnn")


def took(*seconds: float) -> run.Outcome:
    """A contestant that took so long for a unit in each round."""
    return run.Outcome(list(seconds), 0.1, 0.2)


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """The workloads in sizes at which a step takes some milliseconds."""
    for name, smaller in {
        "BILSTM": {"sentences": 4, "features": 6, "hidden": 5},
        "MLP": {"batch": 8, "inputs": 12, "hidden": 7},
        "LENET": {"batch": 2, "side": 16, "window": 3, "filters": (3, 4), "hidden": 6},
        "GPT": {"batch": 2, "length": 6, "width": 8, "heads": 2, "vocabulary": 9},
        "TEXTCNN": {"batch": 3, "length": 9, "features": 6, "filters": 4},
    }.items():
        monkeypatch.setattr(workloads, name, replace(getattr(sizes, name), **smaller))
    monkeypatch.setattr(workloads, "sentence_lengths", lambda: np.array([4, 9, 1, 6]))


def same(a: Any, b: Any) -> None:
    """Two pytrees are equal up to rounding."""
    for (path, x), y in zip(ff.tree.leaves_with_path(a), ff.tree.leaves(b), strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-6, err_msg=ff.tree.path_str(path))


def without_key_biases(params: Any) -> dict[str, Any]:
    """Parameters by path, but for what is added to all keys of an attention: it shifts all scores of a query alike, so
    its gradient is 0 up to rounding, which Adam makes steps of full size of."""
    leaves = {ff.tree.path_str(path): x for path, x in ff.tree.leaves_with_path(params)}
    return {path: x for path, x in leaves.items() if not path.endswith("attention/1/key/b")}


def test_every_workload_has_a_side_of_ours_and_a_peer() -> None:
    assert set(CONTESTANTS) == set(sizes.NAMES)
    for name, takers in CONTESTANTS.items():
        assert OWN_MODES[name]
        assert len(takers) > len(OWN_MODES[name])
        assert hasattr(workloads, name)


def test_targets_are_set_on_contestants_that_there_are() -> None:
    for name, targets in TARGETS.items():
        for target in targets:
            assert target.modes and set(target.modes) <= set(OWN_MODES[name])
            assert target.peers and set(target.peers) <= {str(c) for c in CONTESTANTS[name]}


def test_sizes_are_those_of_the_yardstick() -> None:
    assert sizes.LENET.flat == 800
    assert sizes.sentence_lengths()[:8].tolist() == [196, 166, 274, 194, 127, 229, 423, 335]
    assert len(sizes.random_trees(sizes.generator())) == 32


@pytest.mark.parametrize("name", ["bilstm", "mlp", "lenet", "tree", "gpt", "textcnn"])
def test_a_unit_of_training_moves_every_parameter(name: str) -> None:
    step = getattr(workloads, name)("eager")
    before = ff.tree.map(np.copy, step())  # the next step takes its memory
    after = step()
    for (path, old), new in zip(ff.tree.leaves_with_path(before), ff.tree.leaves(after), strict=True):
        assert np.all(np.isfinite(new)), path
        assert not np.array_equal(old, new), path
        assert new.dtype == np.float32, path


def test_tiny_is_the_gradient_of_the_logistic_regression() -> None:
    rng, c = sizes.generator(), sizes.TINY
    x, y = rng.standard_normal((c.examples, c.features)), rng.integers(0, 2, c.examples)
    np.testing.assert_allclose(workloads.tiny("eager")(), -x.T @ (2 * y - 1), rtol=1e-12)  # at w = 0


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("name", TRAINED)
def test_a_jitted_step_trains_as_one_that_is_not(name: str) -> None:
    assert OWN_MODES[name][:2] == ["eager", "jit"]
    eager, jitted = (getattr(workloads, name)(mode) for mode in ("eager", "jit"))
    for _ in range(4):
        same(without_key_biases(jitted()), without_key_biases(eager()))


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("mode", ["sentences", "threads"])
def test_sentences_one_by_one_train_as_the_padded_batch_does(mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workloads, "BILSTM", replace(workloads.BILSTM, dropout=0.0))
    with ff.config.override():
        one_by_one, batch = workloads.bilstm(mode), workloads.bilstm("jit")
        for _ in range(3):
            same(one_by_one(), batch())


@pytest.mark.usefixtures("small")
def test_each_sentence_and_step_has_a_mask_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    keys: list[Any] = []
    with ff.disable_jit():
        step = workloads.bilstm("sentences")
        fold_in = ff.random.fold_in
        monkeypatch.setattr(ff.random, "fold_in", lambda key, n: keys.append(fold_in(key, n)) or keys[-1])
        step(), step()
    masks = keys[1::2]  # the key of a step, and of a sentence in it
    assert len(masks) == 8 == len({np.asarray(key).tobytes() for key in masks})


def test_jitted_gradients_are_those_of_the_others() -> None:
    same(workloads.tiny("jit")(), workloads.tiny("eager")())


@pytest.mark.usefixtures("small")
def test_pergrad_has_a_gradient_for_each_example() -> None:
    one_by_one, *others = [workloads.pergrad(mode)() for mode in OWN_MODES["pergrad"]]
    assert {leaf.shape[0] for leaf in ff.tree.leaves(one_by_one)} == {8}
    assert len(others) == 2
    for gradients in others:
        same(gradients, one_by_one)


def test_the_chain_has_the_derivative_that_the_chain_rule_gives() -> None:
    assert ff.grad(chain)(0.5, 1000) == pytest.approx(exact(0.5, 1000), rel=1e-12)


def test_ratios_are_medians_of_the_quotients_of_rounds() -> None:
    outcomes = {
        # The machine was ten times slower in the second round, for all.
        OWN: took(1.0, 20.0, 3.0),
        JITTED: took(0.5, 5.0, 1.5),
        PEER: took(2.0, 40.0, 3.0),
        SGEMM: took(0.1, 0.1, 0.1),
    }
    result = run.summarize("mlp", outcomes)
    assert result.best_peer is not None
    assert result.best_peer.ratios == {"eager": 0.5, "jit": 0.25}
    assert [row.ratios for row in result.own] == [{}, {}]
    assert result.floor_milliseconds == pytest.approx(100 * 0.05235 / (2e-9 * 2048**3), rel=1e-3)
    assert report.missed(result) == []


def test_the_best_of_some_modes_meets_the_best_of_some_peers() -> None:
    result = run.summarize("bilstm", {OWN: took(6.0), JITTED: took(3.0), PEER: took(4.0), PACKED: took(2.0)})
    both, peers = ("eager", "jit"), ("torch eager", "torch packed")
    assert report.reached(result, Target(both, peers, 1.0)) == 1.5
    assert report.reached(result, Target(("eager",), peers, 1.0)) == 3.0
    assert report.reached(result, Target(both, ("torch eager",), 1.0)) == 0.75
    assert report.reached(result, Target(both, ("torch eager", "jax jit"), 1.0)) == 0.75  # that one did not run
    assert report.reached(result, Target(both, ("jax jit",), 1.0)) is None
    assert report.reached(result, Target(("vmap",), peers, 1.0)) is None
    assert report.missed(result) == [
        f"1.50, the best of jit and sentences and threads at most 0.25 of the best of {' and '.join(peers)} and jax jit"
    ]


def test_a_missed_target_and_a_failure_are_told() -> None:
    slow = run.summarize("mlp", {OWN: took(3.0), JITTED: took(1.0), PEER: took(2.0)})
    assert report.missed(slow) == ["1.50, eager at most 1 of torch eager"]
    assert "eager at most 1 of torch eager: 1.50, MISSED" in report.table(slow)
    assert "jit at most 0.5 of the best of torch eager and torch compile and jax jit: 0.50, held" in report.table(slow)
    assert "MISSED mlp: 1.50, eager at most 1 of torch eager" in report.summary([slow])
    failed = run.summarize("mlp", {OWN: took(1.0), JITTED: run.Outcome([], None, None, "it broke"), PEER: took(2.0)})
    assert report.missed(failed) == ["fnflare jit failed"]
    assert "it broke" in report.table(failed)


def test_tables_have_a_column_and_the_summary_a_line_for_each_mode() -> None:
    result = run.summarize("mlp", {OWN: took(3.0), JITTED: took(1.0), PEER: took(4.0)})
    heading, *_, peer, _, _ = report.table(result).strip().splitlines()
    assert heading.split()[:8] == ["mlp", "ms", "a", "unit", "of", "limit", "eager/it", "jit/it"]
    assert peer.split() == ["torch", "eager", "4000", "-", "0.75", "0.25", "0.1", "0.2"]
    rows = [line.split()[:4] for line in report.summary([result]).strip().splitlines()[1:]]
    assert rows == [["mlp", "eager", "3000", "0.75"], ["mlp", "jit", "1000", "0.25"]]


def test_figures_stand_beside_the_limit_of_the_arithmetic() -> None:
    work = gflop("mlp")
    assert work is not None
    product = work / SGEMM_GFLOP  # units of mlp's arithmetic in the large product
    result = run.summarize("mlp", {OWN: took(2.0), JITTED: took(1.0), PEER: took(4.0), SGEMM: took(0.5 / product)})
    assert result.floor_milliseconds == pytest.approx(500)
    assert [result.part_of_limit(row) for row in result.rows] == pytest.approx([0.25, 0.5, 0.125])
    assert [line.split()[-2:] for line in report.summary([result]).strip().splitlines()[1:]] == [
        ["25", "%"],
        ["50", "%"],
    ]
    assert report.table(result).splitlines()[3].split() == ["fnflare", "jit", "1000", "50", "%", "0.1", "0.2"]


def test_the_arithmetic_is_that_of_the_products(monkeypatch: pytest.MonkeyPatch) -> None:
    # Milliseconds at 330 GFLOP/s, as the yardstick has them where it counts no more than is needed.
    for name, milliseconds in {"lenet": 4.0, "gpt": 16.2, "textcnn": 12.4, "tree": 1.4}.items():
        assert (gflop(name) or 0) / 330 * 1e3 == pytest.approx(milliseconds, rel=0.05)
    assert gflop("tiny") is None
    monkeypatch.setattr(arithmetic, "MLP", sizes.Mlp(batch=2, inputs=3, hidden=5, classes=7))
    assert gflop("mlp") == pytest.approx(2e-9 * (2 * 3 * 5 * 2 + 2 * 5 * 7 * 3))
    words = int(sizes.sentence_lengths().sum())
    assert gflop("bilstm") == pytest.approx(2e-9 * (2 * words * 100 * (2 * 300 + 3 * 25) + 32 * 50 * 2 * 3))


def test_first_calls_are_medians_of_runs_and_of_their_ratios() -> None:
    runs = [first_call.Seconds(1.0, 0.1, 2.0), first_call.Seconds(8.0, 2.0, 10.0), first_call.Seconds(2.0, 0.3, 1.0)]
    found = first_call.summarize(runs)
    assert found == first_call.FirstCalls(2.0, 0.3, 2.0, 0.8, 0.2)
    assert found.missed
    assert first_call.line("mlp", found).split() == [
        "mlp",
        "2.000",
        "0.300",
        "2.000",
        "0.80",
        "MISSED",
        "0.20",
        "MISSED",
    ]
    held = first_call.summarize([first_call.Seconds(0.4, 0.1, 1.0)])
    assert not held.missed and "MISSED" not in first_call.line("mlp", held)
    alone = first_call.summarize([first_call.Seconds(0.4, 0.1, None)])
    assert not alone.missed and first_call.line("mlp", alone).split() == ["mlp", "0.400", "0.100", "-", "-", "-"]


def test_a_first_call_is_timed_where_both_sides_compile() -> None:
    assert set(first_call.NAMES) == set(sizes.NAMES) - {"tree"}


def test_the_clock_of_a_first_call_starts_when_the_step_is_set_up(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("llvmlite", reason="first calls are those of native code, with the extra fnflare[jit]")
    now, done = [0.0], []

    def tiny(mode: str) -> sizes.Step:
        now[0] += 100.0
        return lambda: done.append(now.__setitem__(0, now[0] + 2.0))

    monkeypatch.setattr(workloads, "tiny", tiny)
    monkeypatch.setattr(first_call.time, "perf_counter", lambda: now[0])
    assert first_call.first_call("tiny", JITTED) == 2.0
    assert len(done) == 1


def test_memory_is_that_of_the_compiled_mode_that_needs_least_beside_the_least_of_the_peer() -> None:
    peaks = step_memory.Peaks(
        {"eager": 1, "jit": 30, "sentences": 12}, {"jit": 90, "sentences": 80}, {"a": 10, "b": 40}
    )
    assert (peaks.best, peaks.reached, peaks.ratio("jit")) == ("sentences", 1.2, 3.0)
    lines = [line.split() for line in step_memory.table("bilstm", peaks).splitlines()]
    assert [line[2] for line in lines] == ["eager", "jit", "sentences", "a", "b"]
    assert [line[-1] for line in lines if "MISSED" in line] == ["MISSED"] and "MISSED" in lines[2]
    alone = step_memory.Peaks({"eager": 5_000_000}, {}, {})
    assert (alone.best, alone.reached) == ("eager", None)
    assert step_memory.table("tree", alone).split() == ["tree", "fnflare", "eager", "5.0", "-", "-"]


def test_the_peak_of_a_workload_counts_its_data(monkeypatch: pytest.MonkeyPatch) -> None:
    def tiny(mode: str) -> sizes.Step:
        data = np.ones(5_000_000)
        return lambda: np.sum(data + 1)

    monkeypatch.setattr(workloads, "tiny", tiny)
    assert step_memory.peak("tiny", JITTED) == pytest.approx(80e6, rel=0.1)


def test_the_unseen_cell_is_the_formula_of_its_papers() -> None:
    rng, units = np.random.default_rng(0), 5
    p = {
        "W": rng.normal(size=(3, 4 * units)),
        "U": rng.normal(size=(units, 4 * units)),
        "b": rng.normal(size=4 * units),
        "peephole": rng.normal(size=(3, units)),
        "scale_x": rng.normal(size=4 * units),
        "scale_h": rng.normal(size=4 * units),
        "scale_c": rng.normal(size=units),
    }
    x, h, c = rng.normal(size=(2, 3)), rng.normal(size=(2, units)), rng.normal(size=(2, units))

    def layer_norm(x: np.ndarray) -> np.ndarray:
        return (x - x.mean(1, keepdims=True)) / np.sqrt(x.var(1, keepdims=True) + 1e-5)

    def sigmoid(x: np.ndarray) -> np.ndarray:
        return 1 / (1 + np.exp(-x))

    gates = p["scale_x"] * layer_norm(x @ p["W"]) + p["scale_h"] * layer_norm(h @ p["U"]) + p["b"]
    i, f, g, o = (gates[:, k * units : (k + 1) * units] for k in range(4))
    new_c = sigmoid(f + p["peephole"][1] * c) * c + sigmoid(i + p["peephole"][0] * c) * np.tanh(g)
    new_h = sigmoid(o + p["peephole"][2] * new_c) * np.tanh(p["scale_c"] * layer_norm(new_c))
    same(unseen_cell.cell(p, (h, c), x), (new_h, new_c))


@pytest.mark.parametrize("mode", ["unseen", "lstm"])
def test_both_cells_are_trained(mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sizes.CELLS, "cell25", sizes.Recurrent(units=4, features=3, batch=2, length=5))
    step = unseen_cell.cell25(mode)
    before = ff.tree.map(np.copy, step())  # the next step takes its memory
    after = step()
    for (path, old), new in zip(ff.tree.leaves_with_path(before), ff.tree.leaves(after), strict=True):
        assert np.all(np.isfinite(new)) and not np.array_equal(old, new), path


def test_everything_is_one_table_with_what_is_missed_in_bold() -> None:
    time = run.summarize("mlp", {OWN: took(1.2), JITTED: took(0.6), PEER: took(2.0), SGEMM: took(1.0)})
    entry = everything.Entry(
        time,
        first_call.FirstCalls(0.4, 0.2, 1.0, 0.4, 0.2),
        step_memory.Peaks({"eager": 3_000_000, "jit": 2_000_000}, {"jit": 9_000_000}, {"eager": 4_000_000}),
    )
    cells = {"cell25": unseen_cell.Times(3.0, 2.0, None, 1.5)}
    heads, rule, mlp, cell = [
        [x.strip() for x in line.strip("|").split("|")] for line in everything.markdown([entry], cells).splitlines()
    ]
    assert len(heads) == len(rule) == len(mlp) == len(cell)
    row = dict(zip(heads[6:], mlp[6:], strict=True))
    assert mlp[:3] == ["mlp", "jit", "600"] and mlp[4:6] == ["torch eager", "2000"]
    assert (row["ratio"], row["at most"], row["first call s"]) == ("0.30", "0.5", "0.40")
    assert (row["/ jax.jit (at most 0.5)"], row["/ jax.jit (at most 0.15)"]) == ("0.40", "**0.20**")
    assert (row["peak MB"], row["/ PyTorch (at most 1)"]) == ("2.0 (jit)", "0.50")
    assert cell[:8] == ["unseen cell, 25 units", "jit", "3", "", "nn.LSTM", "2", "**1.50**", "1.3"]
    assert list(everything.missed([entry], cells)) == ["mlp: first call", "unseen cell, 25 units"]


def test_everything_leaves_empty_what_does_not_apply() -> None:
    time = run.summarize("tree", {OWN: took(3.0), PEER: took(2.0)})
    (line,) = everything.markdown([everything.Entry(time, None, None)], {}).splitlines()[2:]
    assert [x.strip() for x in line.strip("|").split("|")][:8] == [
        *("tree", "eager", "3000", "", "torch eager", "2000", "1.50", "")
    ]
    assert list(everything.missed([everything.Entry(time, None, None)], {})) == []


def test_a_workload_without_peers_has_no_ratios() -> None:
    result = run.summarize("mlp", {OWN: took(3.0), PEER: run.Outcome([], None, None, "not installed: torch")})
    assert report.missed(result) == []
    assert "not installed" in report.table(result)
    assert report.summary([result]).splitlines()[-1].split() == ["mlp", "eager", "3000", "-", "-", "-"]


def test_results_are_written_as_json(tmp_path: Path) -> None:
    result = run.summarize("tiny", {OWN: took(1.0), JITTED: took(0.2), PEER: took(2.0)})
    report.write_json(tmp_path / "new" / "bench.json", [result], {"threads": 2})
    content = json.loads((tmp_path / "new" / "bench.json").read_text())
    (workload,) = content["workloads"]
    assert [(row["library"], row["mode"]) for row in workload["rows"]] == [OWN, JITTED, PEER]
    assert workload["rows"][2]["ratios"] == {"eager": 0.5, "jit": 0.1}
    assert workload["targets"] == [{"modes": ["eager"], "peers": ["torch eager"], "limit": 0.5, "reached": 0.5}]
    assert content["about"] == {"threads": 2}


def test_results_are_drawn(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="pictures want the extra fnflare[notebooks]")
    results = [run.summarize(name, {OWN: took(1.0), JITTED: took(0.4), PEER: took(2.0)}) for name in ("tiny", "mlp")]
    report.draw(tmp_path / "bench.png", results)
    assert (tmp_path / "bench.png").read_bytes().startswith(b"\x89PNG")


def test_the_peak_of_memory_is_seen_though_it_has_passed() -> None:
    def work() -> None:
        np.ones(25_000_000)

    assert peak_above_baseline(work) == pytest.approx(200e6, rel=0.1)


def test_checkpointed_segments_have_the_gradient_of_one_scan(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rnn_memory, "CHECKPOINTED", rnn_memory.Net(3, 4, 5))
    x = np.random.default_rng(0).standard_normal((12, 3, 4), dtype=np.float32)
    assert rnn_memory.segment_steps(12) == 2
    same(rnn_memory.checkpointed_gradient()(x), rnn_memory.checkpointed_gradient(segments=False)(x))


def test_the_theory_of_checkpoints_is_at_its_least() -> None:
    state = rnn_memory.CHECKPOINTED.state
    costs = [(1000 // n + 3 * n) * state for n in range(1, 1001) if 1000 % n == 0]
    assert rnn_memory.theory(1000) == min(costs) == 110 * state


@pytest.mark.parametrize("module", [run, first_call, step_memory, everything])
def test_an_unknown_workload_is_refused(module: Any, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        module.main(["nonsense"])
    assert "there are bilstm, mlp" in capsys.readouterr().err
