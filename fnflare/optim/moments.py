"""How an update rule with moments becomes a transformation.

A kernel on one leaf goes in (the gradient, the moments, then the hyperparameters; it returns the update and the new
moments), and the kind of its state, whose fields are the moments and maybe a count of updates. A moment may be kept in
another dtype than that of its parameter: it is computed with in the dtype of the updates.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from fnflare import tree
from fnflare.optim.base import GradientTransformation, safe_increment, state_of, zero_count
from fnflare.optim.leaves import Kernel, dtype_of, filled, map_leaves

__all__ = ["counted_rule", "kept_as", "like", "rule"]


def kept_as(moment: Any, dtype: Any) -> Any:
    """A moment in the dtype in which the state keeps it; None is the one that it has."""
    return moment if dtype is None else tree.map(lambda m: m.astype(dtype), moment)


def like(moment: Any, updates: Any, dtype: Any) -> Any:
    """A moment, kept in a dtype of its own unless that is None, in the dtypes of the updates."""
    if dtype is None or tree.structure(moment) != tree.structure(updates):  # the difference is told by the rule itself
        return moment
    return tree.map(lambda m, g: m.astype(dtype_of(g)), moment, updates)


def counted_rule(
    who: str,
    kernel: Kernel,
    kind: Any,
    hyper: Callable[[Any], tuple[Any, ...]],
    *,
    start: Mapping[str, float] | float = 0.0,
    dtypes: Mapping[str, Any] | None = None,
) -> GradientTransformation:
    """The transformation whose state `kind` has a field ``count`` and one for each moment.

    Args:
        who: its name, for messages.
        kernel: as in `fnflare.optim.leaves.map_leaves`.
        kind: the named tuple of the state, in which the moments stand in the kernel's order.
        hyper: takes how many updates were made before this one; returns what the kernel gets after the moments.
        start: what the moments begin with, by name where they differ.
        dtypes: the dtypes in which moments are kept, by name; that of the parameter where there is none.
    """
    names = [name for name in kind._fields if name != "count"]
    counted = "count" in kind._fields
    kept = {name: np.dtype(dtype) for name, dtype in (dtypes or {}).items() if dtype is not None}

    def init(params: Any) -> Any:
        count = {"count": zero_count()} if counted else {}
        starts = {name: start.get(name, 0.0) if isinstance(start, Mapping) else start for name in names}
        return kind(**count, **{name: filled(params, starts[name], kept.get(name)) for name in names})

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        old = state_of(kind, state, who)
        trees = {f"state.{name}": like(getattr(old, name), updates, kept.get(name)) for name in names}
        numbers = hyper(old.count if counted else None)
        updates, *moments = map_leaves(who, kernel, {"updates": updates, **trees}, *numbers, outputs=1 + len(names))
        count = {"count": safe_increment(old.count)} if counted else {}
        new = {name: kept_as(m, kept.get(name)) for name, m in zip(names, moments, strict=True)}
        return updates, kind(**count, **new)

    return GradientTransformation(init, update)


def rule(
    who: str,
    kernel: Kernel,
    kind: Any,
    *hyper: Any,
    start: Mapping[str, float] | float = 0.0,
    dtypes: Mapping[str, Any] | None = None,
) -> GradientTransformation:
    """The transformation whose state `kind` has moments only, and whose hyperparameters stay as they are."""
    return counted_rule(who, kernel, kind, lambda count: hyper, start=start, dtypes=dtypes)
