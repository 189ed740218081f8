"""The workloads of the benchmarks in sizes at which a step takes some milliseconds."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from benchmarks import sizes, workloads

__all__ = ["shrink"]


def shrink(monkeypatch: pytest.MonkeyPatch) -> None:
    """Give the workloads small sizes until the test ends."""
    for name, smaller in {
        "BILSTM": {"sentences": 4, "features": 6, "hidden": 5},
        "MLP": {"batch": 8, "inputs": 12, "hidden": 7},
        "LENET": {"batch": 2, "side": 16, "window": 3, "filters": (3, 4), "hidden": 6},
        "GPT": {"batch": 2, "length": 6, "width": 8, "heads": 2, "vocabulary": 9},
        "TEXTCNN": {"batch": 3, "length": 9, "features": 6, "filters": 4},
    }.items():
        monkeypatch.setattr(workloads, name, replace(getattr(sizes, name), **smaller))
    monkeypatch.setattr(workloads, "sentence_lengths", lambda: np.array([4, 9, 1, 6]))
