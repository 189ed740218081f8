"""Which keys a function draws random numbers from.

A function and its arguments go in, its program is run equation by equation, and the keys come out. What loops and
branches draw within is not seen.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from fnflare import tree
from fnflare.core import bind
from fnflare.kernels import philox
from fnflare.program import Literal
from fnflare.transforms import make_program

__all__ = ["keys_drawn_from"]


def keys_drawn_from(f: Callable[..., Any], *args: Any) -> list[bytes]:
    """The keys that a function draws from, one for each draw, as bytes; `split` and `fold_in` draw nothing.

    >>> from fnflare.testing.draws import keys_drawn_from
    >>> one, two = keys_drawn_from(lambda key: ff.random.normal(key) + ff.random.uniform(key), ff.random.key(0))
    >>> one == two
    True
    """
    program = make_program(f)(*args)
    values: dict[Any, Any] = dict(zip(program.inputs, tree.leaves(args), strict=True))
    keys = []
    for equation in program.equations:
        inputs = [a.value if isinstance(a, Literal) else values[a] for a in equation.inputs]
        if equation.prim.name == "random_words" and (equation.params or {})["domain"] == philox.BITS:
            keys += [row.tobytes() for row in np.asarray(inputs[0]).reshape(-1, 2)]
        out = bind(equation.prim, inputs, equation.params)
        values.update(zip(equation.outputs, out if equation.prim.many else (out,), strict=True))
    return keys
