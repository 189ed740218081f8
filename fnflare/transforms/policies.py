"""What `checkpoint` may store: policies, each a function of an operation and the abstract values of its arguments."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from fnflare.core import Primitive, ShapeDtypeStruct, bind, primitive

__all__ = [
    "checkpoint_name",
    "dots_saveable",
    "dots_with_no_batch_dims_saveable",
    "everything_saveable",
    "nothing_saveable",
    "save_anything_except_these_names",
    "save_only_these_names",
]

Policy = Callable[..., bool]

#: A value with a name, by which a policy may know it.
_named = primitive("name", lambda x, name: x, lambda x, *, name: ShapeDtypeStruct(x.shape, x.dtype))
_named.derivative(lambda ct, _ans, _x, *, name: ct)
_named.vmap(lambda size, args, axes, *, name: (bind(_named, args, {"name": name}), axes[0]))

_PRODUCTS = frozenset({"matmul", "einsum", "conv", "conv_input_grad", "conv_filter_grad"})


def everything_saveable(prim: Primitive, *avals: Any, **params: Any) -> bool:
    """Store all that the backward pass reads, also what is cheap to make again."""
    return True


def nothing_saveable(prim: Primitive, *avals: Any, **params: Any) -> bool:
    """Store the arguments alone."""
    return False


def dots_saveable(prim: Primitive, *avals: Any, **params: Any) -> bool:
    """Store the answers of products and convolutions, which cost most to compute."""
    return prim.name in _PRODUCTS


def dots_with_no_batch_dims_saveable(prim: Primitive, *avals: Any, **params: Any) -> bool:
    """Store the answers of products with a matrix that has no batch axes, as those with weights are."""
    return prim.name == "matmul" and min(a.ndim for a in avals) <= 2


def save_only_these_names(*names: str) -> Policy:
    """Store what `checkpoint_name` has given one of these names.

    Args:
        *names: the names.
    """
    kept = frozenset(names)

    def policy(prim: Primitive, *avals: Any, **params: Any) -> bool:
        return prim is _named and params["name"] in kept

    return policy


def save_anything_except_these_names(*names: str) -> Policy:
    """Store all but what `checkpoint_name` has given one of these names.

    Args:
        *names: the names.
    """
    dropped = frozenset(names)

    def policy(prim: Primitive, *avals: Any, **params: Any) -> bool:
        return prim is not _named or params["name"] not in dropped

    return policy


def checkpoint_name(x: Any, name: str) -> Any:
    """`x`, with a name by which the policy of a `checkpoint` around it knows it.

    Args:
        x: an array.
        name: the name.

    >>> float(ff.checkpoint_policies.checkpoint_name(np.float64(2.0), "h"))
    2.0
    """
    return bind(_named, (x,), {"name": name})
