"""Deep CORAL: training on labeled images and unlabeled ones of a target domain at once (--adapt coral).

Sun and Saenko 2016 (arXiv 1607.01719): beside the loss of the labeled images, the distance between the covariances of
the logits of both domains becomes small.
"""

from torch import Tensor


def coral_loss(source: Tensor, target: Tensor) -> Tensor:
    """The squared distance of two covariances, divided by 4 d²: logits [N, d] and [M, d] → a scalar."""
    return (_covariance(source) - _covariance(target)).square().sum() / (4 * source.shape[1] ** 2)


def _covariance(values: Tensor) -> Tensor:
    """[N, d] → [d, d]."""
    centered = values.float() - values.float().mean(0)
    return centered.T @ centered / max(1, len(values) - 1)
