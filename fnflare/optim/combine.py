"""Putting transformations together: one after another, or each on its own part of the parameters."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from fnflare import tree
from fnflare.errors import ArgumentError, TreeError
from fnflare.optim.base import (
    GradientTransformation,
    GradientTransformationExtraArgs,
    set_to_zero,
    state_of,
    with_extra_args_support,
)

__all__ = [
    "Mask",
    "MaskedState",
    "MultiTransformState",
    "by_path",
    "chain",
    "freeze",
    "labels_by_path",
    "mask_by_path",
    "masked",
    "multi_transform",
    "named_chain",
    "partition",
    "selective_transform",
]

Mask = Any
Pattern = str | re.Pattern[str]
"""A tree of booleans of which the parameters may be an extension, or a function from a tree to such a mask."""


def chain(*transforms: GradientTransformation) -> GradientTransformationExtraArgs:
    """Applies transformations in order, each to the updates that the one before it returned.

    The state is the tuple of their states. What ``update`` is given by keyword goes to those that take it.

    >>> opt = ff.optim.chain(ff.optim.clip(1.0), ff.optim.scale(-0.1))
    >>> opt.update(np.array([5.0]), opt.init(np.array([0.0])))[0]
    array([-0.1])
    """
    for i, transform in enumerate(transforms):
        if not isinstance(transform, GradientTransformation):
            raise ArgumentError(
                f"chain: argument {i} is {transform!r}, not a GradientTransformation; "
                "write chain(clip(1.0), adam(1e-3)), not a list and not the function without its call"
            )

    parts = [with_extra_args_support(t) for t in transforms]

    def init(params: Any) -> tuple[Any, ...]:
        return tuple([t.init(params) for t in transforms])

    def update(updates: Any, state: Any, params: Any = None, **extra_args: Any) -> tuple[Any, tuple[Any, ...]]:
        if not isinstance(state, tuple) or len(state) != len(transforms):
            raise TreeError(
                f"chain: update got a state of type {type(state).__name__}, expected a tuple of "
                f"{len(transforms)} states; pass the state that this chain's own init or update returned"
            )
        states = []
        for part, old in zip(parts, state, strict=True):
            updates, new = part.update(updates, old, params, **extra_args)
            states.append(new)
        return updates, tuple(states)

    return GradientTransformationExtraArgs(init, update)


def named_chain(*transforms: tuple[str, GradientTransformation]) -> GradientTransformationExtraArgs:
    """Applies transformations in order, as `chain` does, with a name for each.

    The state is a dict of their states by name, so that one can be found in it.

    Args:
        *transforms: pairs of a name and a transformation.

    Raises:
        ArgumentError: an argument is no such pair, or a name is there twice.

    >>> opt = ff.optim.named_chain(("clip", ff.optim.clip(1.0)), ("momentum", ff.optim.trace(0.9)))
    >>> updates, state = opt.update(np.array([5.0]), opt.init(np.array([0.0])))
    >>> state["momentum"].trace
    array([1.])
    """
    pair: Any
    for i, pair in enumerate(transforms):
        if not (isinstance(pair, tuple) and len(pair) == 2 and isinstance(pair[0], str)):
            raise ArgumentError(f"named_chain: argument {i} is {pair!r}; write named_chain(('adam', adam(1e-3)), ...)")
    names = [name for name, _ in transforms]
    if len(set(names)) < len(names):
        raise ArgumentError(f"named_chain: every name may be there once, got {names}")
    whole = chain(*[transform for _, transform in transforms])

    def init(params: Any) -> dict[str, Any]:
        return dict(zip(names, whole.init(params), strict=True))

    def update(updates: Any, state: Any, params: Any = None, **extra_args: Any) -> tuple[Any, dict[str, Any]]:
        if not isinstance(state, dict) or set(state) != set(names):
            raise TreeError(
                f"named_chain: update got a state that is no dict of {names}; pass the state that this chain's own "
                "init or update returned"
            )
        updates, states = whole.update(updates, tuple([state[name] for name in names]), params, **extra_args)
        return updates, dict(zip(names, states, strict=True))

    return GradientTransformationExtraArgs(init, update)


class MaskedState(NamedTuple):
    """``inner_state``: the inner state, with None for the parameters that are masked out."""

    inner_state: Any


def masked(
    inner: GradientTransformation, mask: Mask, *, mask_compatible_extra_args: bool = False
) -> GradientTransformationExtraArgs:
    """Applies a transformation where a mask holds; other updates pass through unchanged.

    Args:
        inner: the transformation; it sees None in place of what is masked out.
        mask: a tree of booleans with the structure of the parameters or a prefix of it, or a function that
            takes the parameters (or the updates) and returns such a tree, for example `mask_by_path`.
        mask_compatible_extra_args: whether what ``update`` is given by keyword is masked too where it has the
            structure of the updates, such as ``grad=``.

    Raises:
        ArgumentError: the mask has something else than booleans, such as a pattern.
        TreeError: the mask does not fit the parameters; names the first path at which it does not.

    >>> opt = ff.optim.masked(ff.optim.scale(10.0), {"w": True, "b": False})
    >>> grads = {"w": np.array([1.0]), "b": np.array([1.0])}
    >>> opt.update(grads, opt.init(grads))[0]
    {'b': array([1.]), 'w': array([10.])}
    """

    inner = with_extra_args_support(inner)
    for leaf in () if callable(mask) else tree.leaves(mask):
        if not isinstance(leaf, (bool, np.bool_)):
            raise ArgumentError(
                f"masked: a mask is a tree of booleans or a function that makes one, got {leaf!r} in it; for "
                "patterns of paths write mask_by_path('*/W')"
            )

    def select(values: Any) -> tuple[Any, Any]:
        return tree.partition(values, mask(values) if callable(mask) else mask)

    def init(params: Any) -> MaskedState:
        return MaskedState(inner.init(select(params)[0]))

    def update(updates: Any, state: Any, params: Any = None, **extra_args: Any) -> tuple[Any, MaskedState]:
        inner_state = state_of(MaskedState, state, "masked").inner_state
        chosen, others = select(updates)
        kept = None if params is None else select(params)[0]
        if mask_compatible_extra_args:
            extra_args = _chosen_too(extra_args, updates, lambda values: select(values)[0])
        chosen, inner_state = inner.update(chosen, inner_state, kept, **extra_args)
        return tree.combine(chosen, others), MaskedState(inner_state)

    return GradientTransformationExtraArgs(init, update)


def _chosen_too(extra_args: dict[str, Any], updates: Any, select: Callable[[Any], Any]) -> dict[str, Any]:
    """The keywords of an update, where those of the structure of the updates have gone through `select`."""
    structure = tree.structure(updates)
    return {n: select(value) if tree.structure(value) == structure else value for n, value in extra_args.items()}


class MultiTransformState(NamedTuple):
    """``inner_states``: the state of each transformation by its label."""

    inner_states: dict[str, Any]


def multi_transform(
    transforms: Mapping[str, GradientTransformation], param_labels: Any, *, mask_compatible_extra_args: bool = False
) -> GradientTransformationExtraArgs:
    """Applies to each parameter the transformation that its label names.

    Args:
        transforms: transformations by label.
        param_labels: a tree of labels with the structure of the parameters or a prefix of it, or a function
            that takes the parameters (or the updates) and returns such a tree, for example `labels_by_path`.
        mask_compatible_extra_args: as in `masked`.

    Raises:
        ArgumentError: a label is not among the transformations; names the path.
        TreeError: the labels do not fit the parameters; names the first path at which they do not.

    >>> rules = {"train": ff.optim.scale(-1.0), "freeze": ff.optim.set_to_zero()}
    >>> opt = ff.optim.multi_transform(rules, {"w": "train", "table": "freeze"})
    >>> grads = {"w": np.array([1.0]), "table": np.array([1.0])}
    >>> opt.update(grads, opt.init(grads))[0]
    {'table': array([0.]), 'w': array([-1.])}
    """
    if not transforms:
        raise ArgumentError("multi_transform: transforms is empty; give at least one, such as {'all': adam(1e-3)}")

    rules = {name: with_extra_args_support(rule) for name, rule in transforms.items()}

    def split(values: Any) -> dict[str, Any]:
        labels = param_labels(values) if callable(param_labels) else param_labels
        for path, label in tree.leaves_with_path(labels):
            if label not in transforms:
                raise ArgumentError(
                    f"multi_transform: the label {label!r} at {tree.path_str(path)!r} names no transformation; "
                    f"there are {sorted(transforms)}"
                )
        return {name: tree.partition(values, _where(labels, name))[0] for name in transforms}

    def init(params: Any) -> MultiTransformState:
        return MultiTransformState({name: transforms[name].init(part) for name, part in split(params).items()})

    def update(updates: Any, state: Any, params: Any = None, **extra_args: Any) -> tuple[Any, MultiTransformState]:
        states = state_of(MultiTransformState, state, "multi_transform").inner_states
        parts = split(updates)
        params_of = dict.fromkeys(transforms) if params is None else split(params)
        extra_of = dict.fromkeys(transforms, extra_args)
        if mask_compatible_extra_args:
            extra_of = {n: _chosen_too(extra_args, updates, lambda v, n=n: split(v)[n]) for n in transforms}  # type: ignore[misc]
        done = {n: rule.update(parts[n], states[n], params_of[n], **extra_of[n]) for n, rule in rules.items()}
        merged = tree.combine(*[part for part, _ in done.values()])
        return merged, MultiTransformState({name: new for name, (_, new) in done.items()})

    return GradientTransformationExtraArgs(init, update)


partition = multi_transform
"""The name that optax's newer releases have for `multi_transform`."""


def _where(labels: Any, name: str) -> Any:
    return tree.map(lambda label: label == name, labels)


def by_path(
    transforms: Mapping[Pattern, GradientTransformation], default: GradientTransformation | None = None
) -> GradientTransformationExtraArgs:
    """Applies to each parameter the transformation whose pattern its path matches; the first that matches decides.

    Args:
        transforms: transformations by pattern, as in `mask_by_path`.
        default: the transformation of the parameters that match no pattern.

    Raises:
        ArgumentError: by ``init``, where a pattern matches no path, or a path matches no pattern and there is no
            default.

    >>> params = {"encoder": {"W": np.ones(1)}, "head": {"W": np.ones(1), "b": np.ones(1)}}
    >>> rules = {"encoder/*": ff.optim.set_to_zero(), "*/b": ff.optim.sgd(0.2)}
    >>> opt = ff.optim.by_path(rules, default=ff.optim.sgd(0.1))
    >>> opt.update(params, opt.init(params))[0]
    {'encoder': {'W': array([0.])}, 'head': {'W': array([-0.1]), 'b': array([-0.2])}}
    """
    patterns = {pattern: _text(pattern) for pattern in transforms}
    rules = {_text(pattern): rule for pattern, rule in transforms.items()}
    if default is None:
        return multi_transform(rules, labels_by_path(patterns))
    if _DEFAULT in rules:
        raise ArgumentError(f"by_path: give either the pattern {_DEFAULT!r} or a default, not both")
    return multi_transform({**rules, _DEFAULT: default}, labels_by_path(patterns, _DEFAULT))


_DEFAULT = "*"


def freeze(*what: Any) -> GradientTransformationExtraArgs:
    """Replaces the updates of some parameters by zeros, so that `apply_updates` leaves these as they are.

    It goes to the end of a chain: weight decay and momentum before it would otherwise move what is frozen. With
    `selective_transform` the optimiser keeps no state for the frozen parameters at all.

    Args:
        *what: patterns of paths as in `mask_by_path`; or one mask, as in `masked`, that holds where to freeze.

    >>> params = {"encoder": {"W": np.ones(1)}, "head": {"W": np.ones(1)}}
    >>> opt = ff.optim.chain(ff.optim.sgd(0.1), ff.optim.freeze("encoder/*"))
    >>> opt.update(params, opt.init(params))[0]
    {'encoder': {'W': array([0.])}, 'head': {'W': array([-0.1])}}
    """
    return masked(set_to_zero(), _frozen("freeze", what))


def selective_transform(optimizer: GradientTransformation, *, freeze_mask: Any) -> GradientTransformationExtraArgs:
    """Optimises all parameters but those that are frozen, for which no state is kept.

    Their gradients are still computed, and not used. To save that too, split the parameters, differentiate by one part
    and put them together in the loss: ``frozen, rest = tree.partition(params, mask_by_path("encoder/*")(params))``, and
    ``loss(tree.combine(frozen, rest))`` as a function of ``rest``.

    Args:
        optimizer: the transformation of the others.
        freeze_mask: a mask, as in `masked`, that holds where to freeze; or a pattern of paths, or a tuple of
            patterns, as in `mask_by_path`.

    >>> params = {"encoder": {"W": np.ones(1)}, "head": {"W": np.ones(1)}}
    >>> opt = ff.optim.selective_transform(ff.optim.adam(0.1), freeze_mask="encoder/*")
    >>> opt.init(params).inner_states["train"].mu
    {'encoder': {'W': None}, 'head': {'W': array([0.])}}
    """
    patterns = isinstance(freeze_mask, tuple) and all(isinstance(f, (str, re.Pattern)) for f in freeze_mask)
    mask = _frozen("selective_transform", freeze_mask if patterns else (freeze_mask,))

    def labels(params: Any) -> Any:
        return tree.map(lambda frozen: "freeze" if frozen else "train", mask(params) if callable(mask) else mask)

    return multi_transform({"train": optimizer, "freeze": set_to_zero()}, labels)


def _frozen(who: str, what: tuple[Any, ...]) -> Mask:
    if what and all(isinstance(w, (str, re.Pattern)) for w in what):
        return mask_by_path(*what)
    if len(what) != 1:
        raise ArgumentError(f"{who}: expected patterns of paths, such as 'encoder/*', or one mask, got {what!r}")
    return what[0]


def mask_by_path(*patterns: Pattern) -> Callable[[Any], Any]:
    """A mask that holds where a parameter's path matches a pattern.

    Args:
        *patterns: shell patterns of whole paths: ``"*/W"`` is every W below the root, ``"embed/*"`` all
            below embed. A star matches slashes too. Or regular expressions of whole paths, compiled:
            ``re.compile(r"layers/[0-3]/.*")``.

    Returns:
        A function from parameters to a tree of booleans, for `masked`, `adamw` and others. It raises
        ArgumentError where a pattern matches no path, which is what a misspelt one does.

    >>> ff.optim.mask_by_path("*/W")({"dense": {"W": 1.0, "b": 2.0}})
    {'dense': {'W': True, 'b': False}}
    """
    labels = labels_by_path(dict.fromkeys(patterns, "yes"), default="no")

    def mask(params: Any) -> Any:
        return _where(labels(params), "yes")

    return mask


def labels_by_path(patterns: Mapping[Pattern, str], default: str | None = None) -> Callable[[Any], Any]:
    """Labels for `multi_transform` from patterns of parameter paths; the first that matches decides.

    Args:
        patterns: labels by pattern, as in `mask_by_path`.
        default: the label of a path that matches no pattern.

    Returns:
        A function from parameters to a tree of labels. It raises ArgumentError where a pattern matches no
        path, or where a path matches no pattern and there is no default.

    >>> ff.optim.labels_by_path({"embed/*": "freeze"}, default="train")({"embed": {"table": 1.0}, "out": {"W": 2.0}})
    {'embed': {'table': 'freeze'}, 'out': {'W': 'train'}}
    """

    def label(path: tuple[Any, ...], leaf: Any) -> str:
        text = tree.path_str(path)
        found = next((lab for pattern, lab in patterns.items() if _matches(pattern, text)), default)
        if found is None:
            given = list(map(_text, patterns))
            raise ArgumentError(
                f"the path {text!r} matches none of the patterns {given}; add a pattern for it or a default"
            )
        return found

    def labels(params: Any) -> Any:
        paths = [tree.path_str(path) for path, _ in tree.leaves_with_path(params)]
        for pattern in patterns:
            if not any(_matches(pattern, path) for path in paths):
                hint = "" if isinstance(pattern, re.Pattern) else "; for a regular expression write re.compile(...)"
                raise ArgumentError(f"the pattern {_text(pattern)!r} matches no path; the paths are {paths}{hint}")
        return tree.map_with_path(label, params)

    return labels


def _text(pattern: Pattern) -> str:
    return pattern.pattern if isinstance(pattern, re.Pattern) else pattern


def _matches(pattern: Pattern, path: str) -> bool:
    if isinstance(pattern, re.Pattern):
        return pattern.fullmatch(path) is not None
    return fnmatch.fnmatchcase(path, pattern)
