"""The forms of `in_axes` and `out_axes` against JAX, which invented them."""

import numpy as np
import pytest

import fnflare as ff
from fnflare import tree

jax = pytest.importorskip("jax")


@pytest.mark.parametrize(
    ("in_axes", "out_axes"),
    [
        (0, 0),
        ((0, 0), -1),
        ((1, None), (0, 1)),
        ((None, -1), {"s": 0, "v": -2}),
        ((0, {"a": 1, "b": None}), 0),
        ([-2, {"a": None, "b": (0, None)}], {"s": 0, "v": 1}),
        (None, None),
        ((None, {"a": None, "b": (1, 2)}), 0),
    ],
)
def test_the_forms_of_axes_are_those_of_jax(in_axes, out_axes):
    shapes = {"x": (3, 3), "a": (3, 3), "b": (3, 3, 3)}
    values = {k: np.random.default_rng(len(s)).standard_normal(s).astype(np.float32) for k, s in shapes.items()}
    args = values["x"], {"a": values["a"], "b": (values["b"], values["b"] * 2)}

    def f(x, p):
        y = x * p["a"].sum() + p["b"][0].sum() * p["b"][1].mean()
        s = (y * y).sum()
        return (s, y) if isinstance(out_axes, tuple) else {"s": s, "v": y}

    def outcome(vmap):
        try:
            return vmap(f, in_axes, out_axes, axis_size=3)(*args)
        except ValueError:
            return "ValueError"

    ours, theirs = outcome(ff.vmap), outcome(jax.vmap)
    assert tree.structure(ours) == tree.structure(theirs)
    for a, b in zip(tree.leaves(ours), tree.leaves(theirs), strict=True):
        assert a == b if isinstance(b, str) else np.shape(a) == b.shape
        if not isinstance(b, str):
            np.testing.assert_allclose(a, b, rtol=2e-4)
