"""Every optimiser's step as a program: the same on both executors, also into the memory of what it was given."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from drawing import Draws
from optimisers_under_test import OPTIMISERS, Make

import fnflare as ff
from fnflare import config, optim, tree

RNG = Draws(0)
PARAMS = {"W": RNG.normal(size=(2, 3)).astype(np.float32), "b": RNG.normal(size=3), "none": None}
TARGET = tree.map(lambda p: RNG.normal(size=p.shape).astype(p.dtype), PARAMS)

EVERY: dict[str, Make] = {
    **OPTIMISERS,
    "sam": lambda: optim.sam(optim.adam(0.1), optim.chain(optim.normalize(), optim.sgd(0.1))),
    "by_path": lambda: optim.by_path({"W": optim.adam(0.1)}, optim.set_to_zero()),
}


def copied(t: Any) -> Any:
    return tree.map(np.array, t)


def grads_of(params: Any) -> Any:
    return tree.map(lambda p, t: np.tanh(p - t), params, TARGET)


@pytest.mark.parametrize("native", [False, True])
@pytest.mark.parametrize("name", EVERY)
def test_programs_take_the_same_steps(name: str, native: bool) -> None:
    opt = EVERY[name]()

    def step(params: Any, state: Any) -> tuple[Any, Any]:
        updates, state = opt.update(grads_of(params), state, params)
        return optim.apply_updates(params, updates), state

    expected = got = in_place = (PARAMS, opt.init(PARAMS))
    in_place = copied(in_place)
    with config.override(use_native=native):
        usual, donating = ff.jit(step), ff.jit(step, donate_argnums=(0, 1))
        for _ in range(4):
            expected, got, in_place = step(*expected), usual(*got), donating(*in_place)
            assert tree.structure(got) == tree.structure(expected)
            for a, b, c in zip(tree.leaves(got), tree.leaves(expected), tree.leaves(in_place), strict=True):
                assert a.dtype == b.dtype == c.dtype
                assert np.allclose(a, b, rtol=2e-4 if b.dtype == np.float32 else 1e-9, atol=1e-6)
                assert np.array_equal(a, c)


@pytest.mark.parametrize("name", EVERY)
def test_a_state_has_memory_of_its_own(name: str) -> None:
    """Steps that overwrite the parameters do not overwrite the state that was made of them."""
    params = copied(PARAMS)
    state = EVERY[name]().init(params)
    owned = {id(leaf) for leaf in tree.leaves(params)}
    leaves = [leaf for leaf in tree.leaves(state) if isinstance(leaf, np.ndarray)]
    assert not any(id(leaf) in owned or np.shares_memory(leaf, p) for leaf in leaves for p in tree.leaves(params))
    assert len({id(leaf) for leaf in leaves}) == len(leaves)
