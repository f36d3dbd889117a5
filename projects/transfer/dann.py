"""Domain-adversarial training: features that do not tell from which of two domains an image is (--adapt dann).

Ganin et al. 2016 (arXiv 1505.07818): a small domain classifier learns to tell labeled images from unlabeled target
images by their features; its gradient is reversed on the way into the backbone, which so learns to mislead it.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from projects.transfer.model import Classifier


class ReverseGradient(torch.autograd.Function):
    """The identity, whose gradient is multiplied with -strength. strength: a tensor with one number."""

    @staticmethod
    def forward(x: Tensor, strength: Tensor) -> Tensor:
        """x as it is."""
        return x.view_as(x)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
        """Keeps the strength for the backward pass."""
        ctx.save_for_backward(inputs[1])

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        """The gradient of x, reversed."""
        (strength,) = ctx.saved_tensors
        return -strength.to(grad.dtype) * grad, None


class DomainClassifier(nn.Module):
    """Features [N, num_features] → logits [N] of the domain, behind a reversed gradient.

    The gradient's strength rises from 0 to 1 over num_batches of training (section 5.2.2 of the paper), because the
    features of the first batches say little. The batches so far are a buffer, so that a resumed run goes on there.
    """

    def __init__(self, num_features: int, num_batches: int, width: int = 64) -> None:
        super().__init__()
        self.num_batches = num_batches
        self.layers = nn.Sequential(nn.Linear(num_features, width), nn.ReLU(), nn.Linear(width, 1))
        self.register_buffer("done", torch.zeros(()))
        self.done: Tensor

    def forward(self, features: Tensor) -> Tensor:
        """One batch of training; counts it."""
        strength = 2 / (1 + torch.exp(-10 * self.done / self.num_batches)) - 1
        self.done.add_(1)
        logits: Tensor = self.layers(ReverseGradient.apply(features, strength))
        return logits[:, 0]


class Adversarial(nn.Module):
    """A classifier and the domain classifier on its features: images [N, 3, S, S] → logits [N, num_classes], domain
    logits [N]."""

    def __init__(self, classifier: Classifier, domain: DomainClassifier) -> None:
        super().__init__()
        self.classifier, self.domain = classifier, domain

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Logits of the classes and of the domains."""
        features = self.classifier.backbone(images)
        return self.classifier.head(features), self.domain(features)


def domain_loss(logits: Tensor, num_labeled: int) -> Tensor:
    """Mean cross-entropy of domain logits [N], of which the first num_labeled are of labeled images: a scalar."""
    is_target = (torch.arange(len(logits), device=logits.device) >= num_labeled).float()
    return F.binary_cross_entropy_with_logits(logits.float(), is_target)
