"""Who runs what: the libraries and modes of each workload, and what fnflare promises against them."""

from __future__ import annotations

import importlib
from typing import NamedTuple

from benchmarks.sizes import Step

OWN = "fnflare"

MODULES = {
    OWN: "benchmarks.workloads",
    "torch": "benchmarks.peers.torch_side",
    "jax": "benchmarks.peers.jax_side",
    "autograd": "benchmarks.peers.autograd_side",
    "numpy": "benchmarks.arithmetic",
    "cell": "benchmarks.unseen_cell",
}
"""Where each library's functions stand; each function is named after the workload and takes the mode."""


class Contestant(NamedTuple):
    """A library, used in one of its ways."""

    library: str
    mode: str

    def __str__(self) -> str:
        return f"{self.library} {self.mode}"

    def make(self, workload: str) -> Step:
        """Set the workload up; the step that comes back runs one unit of it."""
        return getattr(importlib.import_module(MODULES[self.library]), workload)(self.mode)


SGEMM = Contestant("numpy", "sgemm")
"""Runs beside the others in each workload: the speed of the arithmetic at that time on that machine."""


def _contestants(names: str) -> tuple[Contestant, ...]:
    return tuple(Contestant(*name.split()) for name in names.split(", "))


CONTESTANTS = {
    "bilstm": _contestants(
        "fnflare eager, fnflare jit, fnflare sentences, fnflare threads, torch eager, torch packed, jax jit"
    ),
    "mlp": _contestants("fnflare eager, fnflare jit, torch eager, torch compile, jax jit"),
    "lenet": _contestants("fnflare eager, fnflare jit, torch eager, torch compile, jax jit"),
    "tree": _contestants("fnflare eager, torch eager"),
    "tiny": _contestants("fnflare eager, fnflare jit, torch eager, torch func, autograd eager, jax eager, jax jit"),
    "gpt": _contestants("fnflare eager, fnflare jit, torch eager, torch compile, jax jit"),
    "textcnn": _contestants("fnflare eager, fnflare jit, torch eager, torch compile, jax jit"),
    "pergrad": _contestants("fnflare loop, fnflare vmap, fnflare jit, torch eager, torch compile, jax jit"),
}


class Target(NamedTuple):
    """A promise: of some modes of fnflare the fastest takes at most so many times what the fastest of some peers takes.

    Attributes:
        modes: fnflare's, one or more.
        peers: one or more; those that did not run do not count.
        limit: the largest ratio of the two times.
    """

    modes: tuple[str, ...]
    peers: tuple[str, ...]
    limit: float

    def __str__(self) -> str:
        return f"{_best_of(self.modes)} at most {self.limit:g} of {_best_of(self.peers)}"


def _best_of(names: tuple[str, ...]) -> str:
    return names[0] if len(names) == 1 else f"the best of {' and '.join(names)}"


def _compiled(workload: str, limit: float, *modes: str) -> Target:
    """What native code promises: beside the fastest peer of all, in whichever way it is used."""
    peers = tuple(str(c) for c in CONTESTANTS[workload] if c.library != OWN)
    return Target(modes or ("jit",), peers, limit)


TARGETS: dict[str, tuple[Target, ...]] = {
    "bilstm": (_compiled("bilstm", 0.25, "jit", "sentences", "threads"),),
    "mlp": (Target(("eager",), ("torch eager",), 1.0), _compiled("mlp", 0.5)),
    "lenet": (_compiled("lenet", 0.6),),
    "tiny": (
        Target(("eager",), ("torch eager",), 0.5),
        Target(("eager",), ("autograd eager",), 0.25),
        Target(("jit",), ("jax jit",), 0.7),
    ),
    "gpt": (_compiled("gpt", 0.7),),
    "textcnn": (_compiled("textcnn", 0.7),),
    "pergrad": (_compiled("pergrad", 0.6),),  # PyTorch's is torch.func
}
"""What the project promises of the time of a unit of work, workload by workload."""

FIRST_CALL, SECOND_PROCESS = 0.5, 0.15
"""What it promises of the first call of a compiled step, in parts of jax.jit's: with no code on disk, and with it."""

PEAK_MEMORY = 1.0
"""What it promises of the peak of a workload's memory, in parts of PyTorch's."""

UNSEEN_CELL = 1.3
"""What it promises of a recurrent cell that it has never seen, in times of `nn.LSTM`."""
