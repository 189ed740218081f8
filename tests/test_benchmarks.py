"""The benchmarks measure what they say: the same work as the peers', and ratios of turns of one round."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fnflare as ff
from benchmarks import contestants, report, rnn_memory, run, sizes, workloads
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
    before, after = step(), step()
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
    assert OWN_MODES[name] == ["eager", "jit"]
    eager, jitted = (getattr(workloads, name)(mode) for mode in OWN_MODES[name])
    for _ in range(4):
        same(jitted(), eager())


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
    assert result.floor_milliseconds == pytest.approx(100 * sizes.FLOOR_GFLOP["mlp"] / (2e-9 * 2048**3))
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
        "1.50, the best of eager and jit at most 1 of the best of torch eager and torch packed"
    ]


def test_a_missed_target_and_a_failure_are_told() -> None:
    slow = run.summarize("mlp", {OWN: took(3.0), JITTED: took(1.0), PEER: took(2.0)})
    assert report.missed(slow) == ["1.50, eager at most 1 of torch eager"]
    assert "eager at most 1 of torch eager: 1.50, MISSED" in report.table(slow)
    assert "jit at most 0.8 of torch eager: 0.50, held" in report.table(slow)
    assert "MISSED mlp: 1.50, eager at most 1 of torch eager" in report.summary([slow])
    failed = run.summarize("mlp", {OWN: took(1.0), JITTED: run.Outcome([], None, None, "it broke"), PEER: took(2.0)})
    assert report.missed(failed) == ["fnflare jit failed"]
    assert "it broke" in report.table(failed)


def test_tables_have_a_column_and_the_summary_a_line_for_each_mode() -> None:
    result = run.summarize("mlp", {OWN: took(3.0), JITTED: took(1.0), PEER: took(4.0)})
    heading, *_, peer, _, _ = report.table(result).strip().splitlines()
    assert heading.split()[:6] == ["mlp", "ms", "a", "unit", "eager/it", "jit/it"]
    assert peer.split() == ["torch", "eager", "4000", "0.75", "0.25", "0.1", "0.2"]
    rows = [line.split()[:4] for line in report.summary([result]).strip().splitlines()[1:]]
    assert rows == [["mlp", "eager", "3000", "0.75"], ["mlp", "jit", "1000", "0.25"]]


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


def test_an_unknown_workload_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        run.main(["nonsense"])
    assert "there are bilstm, mlp" in capsys.readouterr().err
