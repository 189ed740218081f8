"""Hypothesis strategies: shapes, arrays, pytrees, keys, and the parameters and batches of a layer.

Settings go in; a strategy comes out, whose examples shrink to few axes, short axes, few leaves and plain numbers.

Floating arrays come in two kinds. Those of `arrays` are multiples of 1/16, exact in every floating dtype and short to
write; zeros, ties and repeated values are frequent, which is where bugs are. With ``generic=True``, and in `batches`
and `params_for`, values are in general position, drawn from a normal distribution by a seed: finite differences of
functions with kinks, such as relu and max, make sense there.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from hypothesis import strategies as st
from numpy.typing import DTypeLike

from fnflare import random, tree
from fnflare.testing.subjects import is_shape

__all__ = ["arrays", "batches", "keys", "params_for", "pytrees", "shapes"]

Shape = tuple[int, ...]
_SEEDS = st.integers(0, 2**32 - 1)


def shapes(*, min_dims: int = 0, max_dims: int = 3, min_side: int = 1, max_side: int = 4) -> st.SearchStrategy[Shape]:
    """Shapes of arrays; they shrink to fewer and shorter axes.

    Args:
        min_dims, max_dims: the number of axes.
        min_side, max_side: the length of each. With a `min_side` of 0 there are empty arrays too.

    >>> from hypothesis import find
    >>> find(ff.testing.shapes(), lambda shape: len(shape) == 2)
    (1, 1)
    """
    return st.lists(st.integers(min_side, max_side), min_size=min_dims, max_size=max_dims).map(tuple)


def arrays(
    shape: Shape | st.SearchStrategy[Shape] | None = None,
    dtype: DTypeLike | st.SearchStrategy[Any] = np.float64,
    *,
    bound: float = 4,
    generic: bool = False,
) -> st.SearchStrategy[Any]:
    """Arrays of numbers.

    Args:
        shape: of the arrays, or a strategy of shapes; those of `shapes` where None.
        dtype: bool, an integer, floating or complex dtype, or a strategy of them.
        bound: the largest magnitude; of generic values the standard deviation is a quarter of it.
        generic: whether floating values are in general position, drawn by a seed, in place of multiples of 1/16, which
            shrink to zeros.

    >>> from hypothesis import find
    >>> find(ff.testing.arrays((2, 2)), lambda x: np.sum(x) > 1.3)
    array([[0.    , 0.    ],
           [0.    , 1.3125]])
    """

    @st.composite
    def draw_array(draw: Any) -> Any:
        sizes = draw(shape) if isinstance(shape, st.SearchStrategy) else draw(shapes()) if shape is None else shape
        kind = np.dtype(draw(dtype) if isinstance(dtype, st.SearchStrategy) else dtype)
        return _array(draw, tuple(sizes), kind, bound, generic)

    return draw_array()


def _array(draw: Any, shape: Shape, dtype: np.dtype, bound: float, generic: bool) -> np.ndarray:
    if generic and dtype.kind in "fc":
        rng = np.random.default_rng(draw(_SEEDS))
        return _floating(lambda: rng.standard_normal(shape) * (bound / 4), dtype)
    least = 0 if dtype.kind in "ub" else -bound
    most = 1 if dtype.kind == "b" else bound
    if dtype.kind not in "fc":
        return _filled(draw, shape, math.ceil(least), math.floor(most)).astype(dtype)
    return _floating(lambda: _filled(draw, shape, math.ceil(least * 16), math.floor(most * 16)) / 16, dtype)


def _floating(make: Any, dtype: np.dtype) -> np.ndarray:
    values = make()
    return np.asarray(values + 1j * make() if dtype.kind == "c" else values, dtype)


def _filled(draw: Any, shape: Shape, least: int, most: int) -> np.ndarray:
    """Integers of a shape: one of them everywhere, but for up to a dozen elements."""
    size = math.prod(shape)
    if size <= 12:
        return np.array(draw(st.lists(st.integers(least, most), min_size=size, max_size=size)), np.int64).reshape(shape)
    flat = np.full(size, draw(st.integers(least, most)))
    for place, value in draw(st.dictionaries(st.integers(0, size - 1), st.integers(least, most), max_size=12)).items():
        flat[place] = value
    return flat.reshape(shape)


def pytrees(
    leaves: st.SearchStrategy[Any] | None = None, *, max_leaves: int = 5, keys: Sequence[str] = ("W", "b", "layer")
) -> st.SearchStrategy[Any]:
    """Trees of dicts, lists, tuples and None; they shrink to fewer and shallower nodes, and to a leaf alone.

    Args:
        leaves: what is in them; `arrays` where None.
        max_leaves: how many.
        keys: of the dicts.

    >>> import hypothesis.strategies as st
    >>> from hypothesis import find
    >>> find(ff.testing.pytrees(st.just(0.5)), lambda t: isinstance(t, dict) and len(t) == 2 == len(ff.tree.leaves(t)))
    {'W': 0.5, 'b': 0.5}
    """

    def nodes(children: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
        lists = st.lists(children, max_size=3)
        return lists.map(tuple) | lists | st.dictionaries(st.sampled_from(list(keys)), children, max_size=len(keys))

    return st.recursive((arrays() if leaves is None else leaves) | st.none(), nodes, max_leaves=max_leaves)


def keys() -> st.SearchStrategy[Any]:
    """Keys of random numbers, as `fnflare.random.key` makes them; they shrink to that of seed 0.

    >>> from hypothesis import find
    >>> bool(np.array_equal(find(ff.testing.keys(), lambda key: True), ff.random.key(0)))
    True
    """
    return st.builds(random.key, _SEEDS)


@st.composite
def params_for(draw: Any, layer: Any, input_shape: Any, *, dtype: DTypeLike = np.float32, spread: float = 0.25) -> Any:
    """Parameters of a layer: what its init draws with some key, moved by noise.

    The noise is there since a new layer is a special case: its biases are zero and its scales one, and a law may hold
    there by chance. Parameters shrink to those of `fnflare.random.key(0)` without noise.

    Args:
        draw: given by Hypothesis; leave it out.
        layer: a pair (init, apply).
        input_shape: of its inputs, as init takes it.
        dtype: of the floating parameters.
        spread: the standard deviation of the noise.

    >>> from hypothesis import find
    >>> from fnflare import nn
    >>> params = find(ff.testing.params_for(nn.Dense(2), (-1, 3)), lambda params: True)
    >>> params["W"].shape, params["b"]
    ((3, 2), array([0., 0.], dtype=float32))
    """
    params = layer.init(draw(keys()), input_shape)[1]
    noise = spread if draw(st.booleans()) else 0.0
    rng = np.random.default_rng(draw(_SEEDS) if noise else 0)

    def moved(x: Any) -> Any:
        if not hasattr(x, "dtype") or x.dtype.kind != "f":
            return x
        return np.asarray(x + noise * rng.standard_normal(x.shape), dtype) if noise else np.asarray(x, dtype)

    return tree.map(moved, params)


@st.composite
def batches(
    draw: Any,
    input_shape: Any,
    *,
    dtype: DTypeLike = np.float32,
    integers: int | None = None,
    min_side: int = 1,
    max_side: int = 4,
) -> Any:
    """Inputs of a layer, with some size for each free dimension; they shrink to small batches of short sequences.

    Args:
        draw: given by Hypothesis; leave it out.
        input_shape: of the inputs, -1 standing for a free dimension; for a tuple of shapes a tuple of arrays comes,
            whose free dimensions agree axis by axis.
        dtype: of the arrays.
        integers: for integers from 0 and below this number, such as words are, in place of floating numbers; then
            `dtype` is not read.
        min_side, max_side: the sizes of free dimensions.

    >>> from hypothesis import find
    >>> find(ff.testing.batches((-1, -1), integers=10), lambda ids: ids.shape[1] > 1)
    array([[0, 0]])
    """
    free: dict[int, int] = {}

    def size(axis: int, n: int) -> int:
        if n != -1:
            return n
        if axis not in free:
            free[axis] = draw(st.integers(min_side, max_side))
        return free[axis]

    def make(shape: Any) -> Any:
        if not is_shape(shape):
            return tuple([make(s) for s in shape])
        sizes = tuple([size(axis, n) for axis, n in enumerate(shape)])
        if integers is not None:
            return _filled(draw, sizes, 0, integers - 1)
        return _array(draw, sizes, np.dtype(dtype), 4, generic=True)

    return make(input_shape)
