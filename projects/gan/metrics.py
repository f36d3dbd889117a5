"""How good and how varied samples are, from features of them and of real images.

Fréchet distance: Dowson and Landau 1982, https://doi.org/10.1016/0047-259X(82)90077-X, used on networks' features by
Heusel et al. 2017 (arXiv 1706.08500). Precision and recall: Kynkäänniemi et al. 2019 (arXiv 1904.06991).
"""

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor

_NUM_NEIGHBORS = 3
_NUM_FOR_MANIFOLD = 2_000
_COVERED_SHARE = 0.25  # of a class's share among real images
_MIN_DIVERSITY, _MIN_COVERED = 0.35, 0.5  # below either of these samples have collapsed


class Gaussian(NamedTuple):
    """mean: float64 [D]; covariance: float64 [D, D]."""

    mean: Tensor
    covariance: Tensor


def gaussian(features: Tensor) -> Gaussian:
    """The Gaussian through features [N, D] of two or more images."""
    features = features.double()
    return Gaussian(features.mean(0), torch.cov(features.T).reshape(features.shape[1], -1))


def frechet_distance(first: Gaussian, second: Gaussian) -> float:
    """|m₁ - m₂|² + tr(C₁ + C₂ - 2 (C₁C₂)^½), in float64."""
    values, vectors = torch.linalg.eigh(first.covariance)
    root = vectors * values.clamp(min=0).sqrt() @ vectors.T
    # C₁C₂ and the symmetric C₁^½ C₂ C₁^½ have the same eigenvalues, and those of the latter can be computed safely.
    cross = torch.linalg.eigvalsh(root @ second.covariance @ root).clamp(min=0).sqrt().sum()
    apart = (first.mean - second.mean).square().sum()
    return max(0.0, float(apart + first.covariance.trace() + second.covariance.trace() - 2 * cross))


def precision_recall(real: Tensor, fake: Tensor, neighbors: int = _NUM_NEIGHBORS) -> tuple[float, float]:
    """Share of fakes on the manifold of the real images, and share of real images on the manifold of the fakes.

    real, fake: features [N, D]. A manifold is the union of balls around its points, with the distance to the k-th
    neighbor as radius.
    """
    real, fake = real[:_NUM_FOR_MANIFOLD], fake[:_NUM_FOR_MANIFOLD]
    between = torch.cdist(real, fake, compute_mode="donot_use_mm_for_euclid_dist")
    radius_real, radius_fake = (_neighbor_distance(points, neighbors) for points in (real, fake))
    precision = (between <= radius_real[:, None]).any(0).double().mean()
    recall = (between <= radius_fake[None]).any(1).double().mean()
    return float(precision), float(recall)


def _neighbor_distance(points: Tensor, neighbors: int) -> Tensor:
    """Distance of each point [N, D] to its k-th neighbor, not counting itself."""
    distances = torch.cdist(points, points, compute_mode="donot_use_mm_for_euclid_dist")
    return distances.kthvalue(min(neighbors + 1, len(points)), dim=1).values


def diversity(real: Tensor, fake: Tensor, neighbors: int = _NUM_NEIGHBORS) -> float:
    """Median distance to the k-th neighbor among fakes, divided by that among as many real images.

    real, fake: features [N, D]. It is near 0 where the same few images are repeated, however many classes
    they are of.
    """
    num = min(_NUM_FOR_MANIFOLD, len(real), len(fake))
    medians = [float(_neighbor_distance(points[:num], neighbors).median()) for points in (fake, real)]
    return medians[0] / max(medians[1], 1e-12)


def covered_classes(real: Tensor, fake: Tensor, num_classes: int) -> Tensor:
    """Which classes occur among fakes at least a quarter as often as among real images: bool [num_classes].

    real, fake: classes int64 [N] that the feature classifier predicts.
    """
    shares = [torch.bincount(labels, minlength=num_classes) / len(labels) for labels in (real, fake)]
    return (shares[1] >= _COVERED_SHARE * shares[0]) & ((shares[1] > 0) | (shares[0] == 0))


def collapse(numbers: Mapping[str, float], num_classes: int) -> str | None:
    """Why samples count as collapsed; None for samples that are varied enough.

    num_classes: 0 where the samples' classes are not known.
    """
    if not numbers["diversity"] >= _MIN_DIVERSITY:
        share = f"{numbers['diversity']:.2f} of the distance between real images, under {_MIN_DIVERSITY:g}"
        return f"samples are nearly alike (neighbors at {share})"
    if num_classes and numbers["classes_covered"] < _MIN_COVERED * num_classes:
        return f"only {numbers['classes_covered']:.0f} of {num_classes} classes are generated"
    return None


def nearest(pixels: Tensor, training: Tensor) -> tuple[Tensor, Tensor]:
    """The nearest training image of each: its row int64 [N], and the root mean square distance in gray levels.

    pixels: uint8 [N, S, S, C]; training: uint8 [M, S, S, C].
    """
    wanted = pixels.flatten(1).float()
    best = torch.full((len(pixels),), torch.inf, device=pixels.device)
    rows = torch.zeros(len(pixels), dtype=torch.int64, device=pixels.device)
    first = 0
    for part in torch.split(training, 4_096):
        distances, there = torch.cdist(wanted, part.flatten(1).float()).min(1)
        closer = distances < best
        best, rows = torch.where(closer, distances, best), torch.where(closer, first + there, rows)
        first += len(part)
    distance = (wanted - training[rows].flatten(1).float()).square().mean(1).sqrt()
    return rows, distance
