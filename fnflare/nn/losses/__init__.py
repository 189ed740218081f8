"""Losses: one number an example, not reduced over the batch.

The names and arguments are those of optax, and PyTorch's where optax has none. The caller reduces, most often with
`np.mean`, and may weigh the examples first. What is predicted comes first and carries the gradient; labels are data.
"""

from fnflare.nn.losses.classification import (
    hinge_loss,
    kl_divergence,
    kl_divergence_with_log_targets,
    multi_margin_loss,
    sigmoid_binary_cross_entropy,
    sigmoid_focal_loss,
    soft_margin_loss,
    softmax_cross_entropy,
    softmax_cross_entropy_with_integer_labels,
    softmax_focal_loss,
    softmax_focal_loss_with_integer_labels,
    squared_hinge_loss,
)
from fnflare.nn.losses.ctc import ctc_loss
from fnflare.nn.losses.embedding import (
    contrastive_loss,
    cosine_distance,
    cosine_embedding_loss,
    cosine_similarity,
    hinge_embedding_loss,
    info_nce_loss,
    margin_ranking_loss,
    triplet_margin_loss,
)
from fnflare.nn.losses.overlap import dice_loss, tversky_loss
from fnflare.nn.losses.regression import (
    absolute_error,
    gaussian_nll_loss,
    huber_loss,
    log_cosh_loss,
    poisson_nll_loss,
    smooth_l1_loss,
    squared_error,
    squared_log_error,
)

__all__ = [
    "absolute_error",
    "contrastive_loss",
    "cosine_distance",
    "cosine_embedding_loss",
    "cosine_similarity",
    "ctc_loss",
    "dice_loss",
    "gaussian_nll_loss",
    "hinge_embedding_loss",
    "hinge_loss",
    "huber_loss",
    "info_nce_loss",
    "kl_divergence",
    "kl_divergence_with_log_targets",
    "log_cosh_loss",
    "margin_ranking_loss",
    "multi_margin_loss",
    "poisson_nll_loss",
    "sigmoid_binary_cross_entropy",
    "sigmoid_focal_loss",
    "smooth_l1_loss",
    "soft_margin_loss",
    "softmax_cross_entropy",
    "softmax_cross_entropy_with_integer_labels",
    "softmax_focal_loss",
    "softmax_focal_loss_with_integer_labels",
    "squared_error",
    "squared_hinge_loss",
    "squared_log_error",
    "triplet_margin_loss",
    "tversky_loss",
]
