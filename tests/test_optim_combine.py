"""Optimisers on parts of the parameters: masks, labels, path patterns."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from fnflare import optim, tree
from fnflare.errors import ArgumentError, TreeError

PARAMS = {
    "embed": {"table": np.full((3, 2), 2.0)},
    "layers": [
        {"W": np.full((2, 2), 2.0), "b": np.full(2, 2.0)},
        None,
        {"W": np.full((2, 1), 2.0), "b": np.full(1, 2.0)},
    ],
}
ONES = tree.map(np.ones_like, PARAMS)
WEIGHTS = {"embed": {"table": True}, "layers": [{"W": True, "b": False}, None, {"W": True, "b": False}]}


def by_path(t: Any) -> dict[str, float]:
    """The value of each leaf, all of whose elements are equal."""
    pairs = {tree.path_str(path): np.unique(leaf) for path, leaf in tree.leaves_with_path(t)}
    assert all(values.size == 1 for values in pairs.values())
    return {path: float(values[0]) for path, values in pairs.items()}


EXPECTED = {"embed/table": -1.0, "layers/0/W": -1.0, "layers/0/b": 1.0, "layers/2/W": -1.0, "layers/2/b": 1.0}


@pytest.mark.parametrize(
    "mask",
    [
        WEIGHTS,
        lambda t: tree.map(lambda x: x.ndim > 1, t),
        optim.mask_by_path("*/W", "embed/*"),
        optim.mask_by_path("*/table", "layers/[0-2]/W"),
    ],
    ids=["tree", "function", "patterns", "more patterns"],
)
def test_masked_transforms_what_the_mask_says(mask: Any) -> None:
    opt = optim.masked(optim.scale(-1.0), mask)
    updates, _ = opt.update(ONES, opt.init(PARAMS), PARAMS)
    assert by_path(updates) == EXPECTED
    assert tree.structure(updates) == tree.structure(PARAMS)


def test_a_mask_may_be_a_prefix() -> None:
    opt = optim.masked(optim.scale(-1.0), {"embed": False, "layers": True})
    updates, _ = opt.update(ONES, opt.init(PARAMS))
    assert {path: value < 0 for path, value in by_path(updates).items()} == {p: "layers" in p for p in EXPECTED}


def test_masked_keeps_state_only_where_the_mask_holds() -> None:
    state = optim.masked(optim.adam(0.1), WEIGHTS).init(PARAMS)
    assert by_path(state.inner_state.mu).keys() == {"embed/table", "layers/0/W", "layers/2/W"}


def test_masked_agrees_with_the_inner_optimiser_alone() -> None:
    opt, alone = optim.masked(optim.adamw(0.1), WEIGHTS), optim.adamw(0.1)
    weights, _ = tree.partition(PARAMS, WEIGHTS)
    ones, _ = tree.partition(ONES, WEIGHTS)
    state, alone_state = opt.init(PARAMS), alone.init(weights)
    for _ in range(3):
        updates, state = opt.update(ONES, state, PARAMS)
        alone_updates, alone_state = alone.update(ones, alone_state, weights)
    assert tree.equal(tree.partition(updates, WEIGHTS)[0], alone_updates)
    assert tree.equal(tree.partition(updates, WEIGHTS)[1], tree.partition(ONES, WEIGHTS)[1])


def test_weight_decay_by_mask() -> None:
    opt = optim.adamw(0.1, weight_decay=0.5, mask=optim.mask_by_path("*/W"))
    state = opt.init(PARAMS)
    updates, _ = opt.update(tree.map(np.zeros_like, PARAMS), state, PARAMS)
    assert by_path(updates) == {path: -0.1 if path.endswith("W") else 0.0 for path in EXPECTED}


LABELS = {"embed": "freeze", "layers": [{"W": "up", "b": "down"}, None, {"W": "up", "b": "down"}]}
MULTI = {
    "embed/table": 0.0,
    "layers/0/W": 2.0,
    "layers/0/b": -2.0,
    "layers/2/W": 2.0,
    "layers/2/b": -2.0,
}


@pytest.mark.parametrize(
    "labels",
    [
        LABELS,
        lambda t: tree.map_with_path(lambda path, x: {"table": "freeze", "W": "up", "b": "down"}[path[-1]], t),
        optim.labels_by_path({"embed/*": "freeze", "*/W": "up", "*": "down"}),
        optim.labels_by_path({"*/b": "down", "*/W": "up"}, default="freeze"),
    ],
    ids=["tree", "function", "patterns", "default"],
)
def test_multi_transform_goes_by_labels(labels: Any) -> None:
    rules = {"freeze": optim.set_to_zero(), "up": optim.scale(2.0), "down": optim.scale(-2.0)}
    opt = optim.multi_transform(rules, labels)
    updates, state = opt.update(ONES, opt.init(PARAMS), PARAMS)
    assert by_path(updates) == MULTI
    assert tree.structure(updates) == tree.structure(PARAMS)
    assert tree.structure(state) == tree.structure(opt.init(PARAMS))


def test_multi_transform_runs_every_optimiser_on_its_part() -> None:
    rules = {"up": optim.adamw(0.1), "down": optim.sgd(0.1, momentum=0.9), "freeze": optim.set_to_zero()}
    opt = optim.multi_transform(rules, LABELS)
    state = opt.init(PARAMS)
    states = {name: rule.init(part(PARAMS, name)) for name, rule in rules.items()}
    for _ in range(3):
        updates, state = opt.update(ONES, state, PARAMS)
        for name, rule in rules.items():
            alone, states[name] = rule.update(part(ONES, name), states[name], part(PARAMS, name))
            assert tree.equal(part(updates, name), alone)


def part(values: Any, name: str) -> Any:
    return tree.partition(values, tree.map(lambda label: label == name, LABELS))[0]


def test_frozen_parameters_stay() -> None:
    rules = {"train": optim.adam(0.1), "freeze": optim.set_to_zero()}
    opt = optim.multi_transform(rules, optim.labels_by_path({"embed/*": "freeze"}, default="train"))
    updates, _ = opt.update(ONES, opt.init(PARAMS))
    new = optim.apply_updates(PARAMS, updates)
    assert tree.equal(new["embed"], PARAMS["embed"])
    assert not np.any(new["layers"][0]["W"] == PARAMS["layers"][0]["W"])


def test_multi_transform_leaves_its_arguments_alone() -> None:
    rules = {"up": optim.scale(2.0), "down": optim.scale(-2.0), "freeze": optim.set_to_zero()}
    state = optim.multi_transform(rules, LABELS).init(PARAMS)
    assert set(state.inner_states) == set(rules)
    assert by_path(PARAMS) == dict.fromkeys(EXPECTED, 2.0)


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: optim.masked(optim.scale(1.0), {"embed": True}), TreeError, "layers"),
        (lambda: optim.masked(optim.scale(1.0), optim.mask_by_path("*/w")), ArgumentError, r"'\*/w' matches no path"),
        (lambda: optim.multi_transform({"up": optim.scale(1.0)}, LABELS), ArgumentError, "'freeze' at 'embed'"),
        (
            lambda: optim.multi_transform({"up": optim.scale(1.0)}, optim.labels_by_path({"*/W": "up"})),
            ArgumentError,
            "'embed/table' matches none of the patterns",
        ),
        (lambda: optim.multi_transform({}, LABELS), ArgumentError, "transforms is empty"),
    ],
)
def test_what_does_not_fit_is_named(make: Callable[[], Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        make().init(PARAMS)


# -- patterns that are regular expressions, and masks that are none -------------------------------------------------

LAYERS = {"layers": {str(i): {"W": np.ones(1), "b": np.ones(1)} for i in range(3)}, "head": {"W": np.ones(1)}}


def moved(opt):
    updates, _ = opt.update(LAYERS, opt.init(LAYERS), LAYERS)
    return {tree.path_str(path) for path, u in tree.leaves_with_path(updates) if np.any(u)}


def test_regular_expressions_of_paths():
    first = re.compile(r"layers/[01]/.*")
    rest = {"layers/2/W", "layers/2/b", "head/W"}
    assert moved(optim.chain(optim.sgd(0.1), optim.freeze(first))) == rest
    assert moved(optim.chain(optim.sgd(0.1), optim.freeze(first, "head/*"))) == rest - {"head/W"}
    assert moved(optim.selective_transform(optim.adam(0.1), freeze_mask=first)) == rest
    assert moved(optim.selective_transform(optim.adam(0.1), freeze_mask=(first, "*/b"))) == rest - {"layers/2/b"}
    opt = optim.by_path({first: optim.set_to_zero(), "*/b": optim.adam(0.1)}, default=optim.sgd(0.1))
    assert moved(opt) == rest
    assert set(opt.init(LAYERS).inner_states) == {"*", "*/b", r"layers/[01]/.*"}
    # Whole paths, as of shell patterns.
    with pytest.raises(ArgumentError, match="'layers' matches no path"):
        optim.freeze(re.compile("layers")).init(LAYERS)


def test_a_regular_expression_that_is_not_compiled_is_pointed_out():
    with pytest.raises(ArgumentError, match=r"for a regular expression write re.compile\(...\)"):
        optim.freeze("layers/.*").init(LAYERS)


@pytest.mark.parametrize("mask", ["*/W", re.compile("W"), {"layers": "*", "head": False}, 1])
def test_a_mask_is_made_of_booleans(mask):
    with pytest.raises(ArgumentError, match=r"write mask_by_path\('\*/W'\)"):
        optim.adamw(0.1, mask=mask)
    with pytest.raises(ArgumentError, match="a mask is a tree of booleans"):
        optim.masked(optim.sgd(0.1), mask)
