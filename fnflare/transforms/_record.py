"""A function's run on a tape, for transforms whose linear map is used after it: `vjp` and `linearize`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from fnflare import tree
from fnflare.core import Tape, aval_of
from fnflare.program import run_ahead
from fnflare.transforms._call import answer, given


class Recording(NamedTuple):
    """What went into a run and what came out: leaves, structures, and slots on the tape (-1: not on it)."""

    leaves: list[Any]
    structure: tree.TreeDef
    slots: list[int]
    values: list[Any]
    out_structure: tree.TreeDef
    out_slots: list[int]
    aux: Any

    def out(self) -> Any:
        """What the function returned."""
        return tree.unflatten(self.out_structure, self.values)


def is_real(x: Any) -> bool:
    """Whether a leaf has a derivative: a float, real or complex."""
    return aval_of(x).dtype.kind in "fc" if hasattr(x, "dtype") else type(x) in (float, complex)


def record(tape: Tape, fun: Callable[..., Any], primals: tuple[Any, ...], has_aux: bool) -> Recording:
    """Run `fun(*primals)` on a tape, with the leaves that have a derivative as its leaves."""
    leaves, structure = tree.flatten(primals)
    leaves = [given(x) for x in leaves]
    with tape:
        lifted = [tape.leaf(x) if is_real(x) else x for x in leaves]
        out = run_ahead(fun, tree.unflatten(structure, lifted), {}, [x for x in leaves if is_real(x)])
    aux = None
    if has_aux:
        out, aux = out
        aux = tree.map(tape.lower, aux)
    out_leaves, out_structure = tree.flatten(out)
    values = [answer(tape.lower(x)) for x in out_leaves]
    slots = [tape.slot_of(x) for x in lifted]
    return Recording(leaves, structure, slots, values, out_structure, [tape.slot_of(x) for x in out_leaves], aux)
