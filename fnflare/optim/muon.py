"""Muon: momentum whose matrices are made orthogonal.

Gradients of matrices go in; the nearest matrix with orthonormal rows or columns to their momentum comes out, found by
Newton and Schulz's iteration, which takes matrix products alone. What is no matrix is left to AdamW.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from fnflare import tree
from fnflare.errors import ArgumentError, ShapeError
from fnflare.optim.adams import adamw
from fnflare.optim.base import (
    GradientTransformation,
    GradientTransformationExtraArgs,
    ScalarOrSchedule,
    inner_product,
    stateless,
)
from fnflare.optim.combine import Mask, chain, multi_transform
from fnflare.optim.leaves import abs_sq, check_decay, weak
from fnflare.optim.moments import counted_rule
from fnflare.optim.transforms import add_decayed_weights, scale_by_learning_rate

__all__ = ["MuonState", "muon", "scale_by_muon"]

# Of Jordan et al., 2024: a polynomial that is steep at 0 and stays near 1 between; five rounds of it are enough.
_COEFFICIENTS = (3.4445, -4.775, 2.0315)


class MuonState(NamedTuple):
    """``count``: updates made; ``mu``: the mean gradient."""

    count: Any
    mu: Any


def _orthogonal(x: Any, rounds: Sequence[Sequence[float]], eps: float, preconditioning: str) -> Any:
    """Nearly the nearest matrix with orthonormal rows or columns: its singular values are about 1."""
    if x.ndim != 2:
        raise ShapeError(f"scale_by_muon: expected matrices, got an array of shape {x.shape}; muon leaves it to AdamW")
    tall = x.shape[0] > x.shape[1]
    x = x.T if tall else x
    size: Any
    if preconditioning == "spectral":
        size = np.linalg.norm(x, ord=2)
    else:
        square = np.sum(abs_sq(x))
        size = np.where(square > 0, np.sqrt(np.where(square > 0, square, 1.0)), 0.0)
    x = x / (size + eps).astype(x.dtype)
    for a, b, c in rounds:
        gram = x @ (np.conj(x.T) if x.dtype.kind == "c" else x.T)
        x = a * x + (b * gram + c * (gram @ gram)) @ x
    return x.T if tall else x


def scale_by_muon(
    ns_coeffs: Sequence[Any] = _COEFFICIENTS,
    ns_steps: int = 5,
    beta: float = 0.95,
    eps: float = 1e-8,
    mu_dtype: Any = None,
    *,
    nesterov: bool = True,
    adaptive: bool = False,
    preconditioning: str = "frobenius",
) -> GradientTransformation:
    """Muon's rule: the mean gradient of a matrix, made orthogonal.

    Jordan et al., 2024, "Muon: an optimizer for hidden layers in neural networks".

    Args:
        ns_coeffs: the coefficients of Newton and Schulz's iteration, or a sequence of those of each round.
        ns_steps: the number of rounds.
        beta: the decay of the mean gradient.
        eps: added to the norm.
        mu_dtype: the dtype in which the mean gradient is kept; the parameters' where it is None.
        nesterov: look one step ahead along the mean gradient.
        adaptive: whether the update is multiplied by its product with the mean gradient, whose size comes back so.
        preconditioning: the norm by which a matrix is divided before: ``"frobenius"`` or ``"spectral"``.

    Raises:
        ArgumentError: the coefficients are not three, or too few for the rounds; `preconditioning` is neither.
        ShapeError: by ``update``: an array is no matrix.

    >>> opt = ff.optim.scale_by_muon()
    >>> gradient = np.array([[3.0, 0.0], [0.0, 0.1], [0.0, 0.0]])
    >>> updates = opt.update(gradient, opt.init(gradient))[0]
    >>> np.linalg.svd(updates)[1].round(1)  # of singular values 3 and 0.1
    array([1.1, 0.7])
    """
    check_decay("scale_by_muon", beta=beta)
    table = np.atleast_2d(np.asarray(ns_coeffs, np.float64))
    if table.ndim != 2 or table.shape[1] != 3 or (len(table) > 1 and len(table) < ns_steps):
        raise ArgumentError(
            f"scale_by_muon: ns_coeffs must be three numbers, or three for each of {ns_steps} rounds, got {ns_coeffs!r}"
        )
    if preconditioning not in ("frobenius", "spectral"):
        raise ArgumentError(
            f"scale_by_muon: preconditioning must be 'frobenius' or 'spectral', got {preconditioning!r}"
        )
    rounds = (table.tolist() * ns_steps if len(table) == 1 else table.tolist())[-ns_steps:]

    def kernel(g: Any, mu: Any, mean: Any, ahead: Any, beta: Any, eps: Any) -> tuple[Any, Any]:
        mu = beta * mu + (1 - beta) * g
        direction = mean * mu + ahead * g
        update = _orthogonal(direction, rounds, eps, preconditioning)
        return (inner_product(direction, update) * update if adaptive else update), mu

    def hyper(count: Any) -> tuple[Any, ...]:
        t = weak(count) + 1
        if nesterov:
            return beta / (1 - beta ** (t + 1)), (1 - beta) / (1 - beta**t), beta, eps
        return 1 / (1 - beta**t), 0.0, beta, eps

    return counted_rule("scale_by_muon", kernel, MuonState, hyper, dtypes={"mu": mu_dtype})


def _scaled_by_shape(consistent_rms: float | None) -> GradientTransformation:
    """Updates in the size that suits matrices of all widths, or of one root mean square."""

    def scaled(g: Any) -> Any:
        inputs, outputs = g.shape
        if consistent_rms is None:
            return g * max(1.0, outputs / max(inputs, 1)) ** 0.5
        return g * (max(inputs, outputs) ** 0.5 * consistent_rms)

    return stateless(lambda updates, params: tree.map(scaled, updates))


def muon(
    learning_rate: ScalarOrSchedule,
    ns_coeffs: Sequence[Any] = _COEFFICIENTS,
    ns_steps: int = 5,
    beta: float = 0.95,
    eps: float = 1e-8,
    weight_decay: ScalarOrSchedule = 0.0,
    weight_decay_mask: Mask | None = None,
    mu_dtype: Any = None,
    *,
    nesterov: bool = True,
    adaptive: bool = False,
    preconditioning: str = "frobenius",
    adam_b1: float = 0.9,
    adam_b2: float = 0.999,
    adam_eps_root: float = 0.0,
    adam_weight_decay: ScalarOrSchedule = 0.0,
    adam_learning_rate: ScalarOrSchedule | None = None,
    consistent_rms: float | None = None,
) -> GradientTransformationExtraArgs:
    """Muon for the matrices, AdamW for the rest (Jordan et al., 2024, "Muon: an optimizer for hidden layers").

    Embeddings and the last layer are better left to AdamW too: ``by_path({"embed/*": adamw(3e-4)}, muon(0.02))``.

    Args:
        learning_rate: a number or a schedule; it scales the decay too.
        ns_coeffs: as in `scale_by_muon`.
        ns_steps: as in `scale_by_muon`.
        beta: the decay of the mean gradient of matrices.
        eps: added to norms, and to AdamW's root.
        weight_decay: the factor of the decay of matrices, or a schedule of it.
        weight_decay_mask: which of them decay, as in `masked`.
        mu_dtype: the dtype in which mean gradients are kept; the parameters' where it is None.
        nesterov: look one step ahead.
        adaptive: as in `scale_by_muon`.
        preconditioning: as in `scale_by_muon`.
        adam_b1: AdamW's decay of the mean gradient.
        adam_b2: AdamW's decay of the mean squared gradient.
        adam_eps_root: what AdamW adds under the root.
        adam_weight_decay: AdamW's weight decay.
        adam_learning_rate: AdamW's learning rate; None for that of Muon.
        consistent_rms: the root mean square of updates, of AdamW's size at 0.2; None for one that suits all widths.

    Raises:
        ArgumentError: an argument is out of range; ``update`` was called without the parameters.

    >>> opt = ff.optim.muon(0.1)
    >>> params = {"W": np.eye(2), "b": np.ones(2)}
    >>> updates, state = opt.update({"W": np.diag([3.0, 3.0]), "b": np.ones(2)}, opt.init(params), params)
    >>> updates["b"].round(4), updates["W"].round(2)
    (array([-0.1474, -0.1474]), array([[-0.11, -0.  ],
           [-0.  , -0.11]]))
    """
    rule = scale_by_muon(
        ns_coeffs,
        ns_steps,
        beta,
        eps,
        mu_dtype,
        nesterov=nesterov,
        adaptive=adaptive,
        preconditioning=preconditioning,
    )
    decay = add_decayed_weights(weight_decay, weight_decay_mask)
    matrices = chain(rule, _scaled_by_shape(consistent_rms), decay, scale_by_learning_rate(learning_rate))
    rest = adamw(
        learning_rate if adam_learning_rate is None else adam_learning_rate,
        adam_b1,
        adam_b2,
        eps,
        adam_eps_root,
        mu_dtype,
        adam_weight_decay,
        nesterov=nesterov,
    )

    def labels(params: Any) -> Any:
        return tree.map(lambda p: "muon" if np.ndim(p) == 2 else "adam", params)

    return multi_transform({"muon": matrices, "adam": rest}, labels)
