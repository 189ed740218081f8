"""The benchmarks measure what they say: the same work as the peers', and ratios of turns of one round."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import fnflare as ff
from benchmarks import contestants, report, run, sizes, workloads
from benchmarks.chain import chain, exact
from benchmarks.contestants import SGEMM, Contestant
from benchmarks.memory import peak_above_baseline

OWN, PEER = Contestant("fnflare", "eager"), Contestant("torch", "eager")


def test_every_workload_has_a_side_of_ours_and_a_peer() -> None:
    assert set(contestants.CONTESTANTS) == set(sizes.NAMES)
    for name, takers in contestants.CONTESTANTS.items():
        assert takers[0].library == contestants.OWN
        assert len(takers) > 1, name
        assert hasattr(workloads, name)


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


def test_pergrad_has_a_gradient_for_each_example() -> None:
    gradients = workloads.pergrad("loop")()
    assert {leaf.shape[0] for leaf in ff.tree.leaves(gradients)} == {sizes.MLP.batch}


def test_the_chain_has_the_derivative_that_the_chain_rule_gives() -> None:
    assert ff.grad(chain)(0.5, 1000) == pytest.approx(exact(0.5, 1000), rel=1e-12)


def test_ratios_are_medians_of_the_quotients_of_rounds() -> None:
    outcomes = {
        # The machine was ten times slower in the second round, for both.
        OWN: run.Outcome([1.0, 20.0, 3.0], 0.1, 0.2),
        PEER: run.Outcome([2.0, 40.0, 3.0], 0.1, 0.2),
        SGEMM: run.Outcome([0.1, 0.1, 0.1], 0.1, 0.2),
    }
    result = run.summarize("mlp", outcomes)
    assert result.best_peer is not None
    assert result.best_peer.ratio == 0.5
    assert result.floor_milliseconds == pytest.approx(100 * sizes.FLOOR_GFLOP["mlp"] / (2e-9 * 2048**3))
    assert report.missed(result) == []


def test_a_missed_target_and_a_failure_are_told() -> None:
    slow = run.summarize("mlp", {OWN: run.Outcome([3.0], 0.1, 0.2), PEER: run.Outcome([2.0], 0.1, 0.2)})
    assert "1.50 of torch eager" in report.missed(slow)[0]
    assert "MISSED" in report.table(slow)
    failed = run.summarize("mlp", {OWN: run.Outcome([], None, None, "it broke")})
    assert report.missed(failed) == ["fnflare failed"]
    assert "it broke" in report.table(failed)


def test_results_are_written_as_json(tmp_path: Path) -> None:
    result = run.summarize("tiny", {OWN: run.Outcome([1.0], 0.1, 0.2), PEER: run.Outcome([2.0], 0.1, 0.2)})
    report.write_json(tmp_path / "new" / "bench.json", [result], {"threads": 2})
    content = json.loads((tmp_path / "new" / "bench.json").read_text())
    assert content["workloads"][0]["rows"][1]["ratio"] == 0.5
    assert content["about"] == {"threads": 2}


def test_results_are_drawn(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="pictures want the extra fnflare[notebooks]")
    result = run.summarize("tiny", {OWN: run.Outcome([1.0], 0.1, 0.2), PEER: run.Outcome([2.0], 0.1, 0.2)})
    report.draw(tmp_path / "bench.png", [result])
    assert (tmp_path / "bench.png").read_bytes().startswith(b"\x89PNG")


def test_the_peak_of_memory_is_seen_though_it_has_passed() -> None:
    def work() -> None:
        np.ones(25_000_000)

    assert peak_above_baseline(work) == pytest.approx(200e6, rel=0.1)


def test_an_unknown_workload_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        run.main(["nonsense"])
    assert "there are bilstm, mlp" in capsys.readouterr().err
