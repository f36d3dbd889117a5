"""The measures against closed forms and constructed sets; collapse and copies are detected where they were planted."""

import numpy as np
import pytest
import torch
from torch import Tensor

from projects.gan.metrics import (
    Gaussian,
    collapse,
    covered_classes,
    diversity,
    frechet_distance,
    gaussian,
    nearest,
    precision_recall,
)


def points(num: int, dimensions: int, seed: int = 0) -> Tensor:
    return torch.randn(num, dimensions, generator=torch.Generator().manual_seed(seed))


def test_the_distance_of_gaussians_along_the_axes_is_the_closed_form() -> None:
    means, deviations = (
        torch.tensor([[1.0, -2.0, 0.5], [0.0, 1.0, 0.5]]),
        torch.tensor([[1.0, 2.0, 3.0], [2.0, 0.5, 3]]),
    )
    first, second = (
        Gaussian(mean.double(), deviation.double().square().diag())
        for mean, deviation in zip(means, deviations, strict=True)
    )
    expected = (1 + 9 + 0) + (1 + 2.25 + 0)  # differences of means, and of deviations, squared
    assert frechet_distance(first, second) == pytest.approx(expected, rel=1e-12)
    assert frechet_distance(second, first) == pytest.approx(expected, rel=1e-12)


def test_covariances_that_do_not_commute_agree_with_the_eigenvalues_of_their_product() -> None:
    roots = [points(6, 6, seed).double() for seed in (1, 2)]
    first, second = (Gaussian(root[0], root @ root.T) for root in roots)
    eigenvalues = np.linalg.eigvals((first.covariance @ second.covariance).numpy())
    traces = float(first.covariance.trace() + second.covariance.trace())
    expected = float((first.mean - second.mean).square().sum()) + traces - 2 * np.sqrt(eigenvalues).real.sum()
    assert frechet_distance(first, second) == pytest.approx(expected, rel=1e-8)


def test_the_distance_of_a_set_to_itself_is_0_though_it_lies_in_a_plane() -> None:
    flat = torch.cat([points(50, 2), torch.zeros(50, 30)], dim=1)
    assert frechet_distance(gaussian(flat), gaussian(flat)) == pytest.approx(0, abs=1e-6)


def test_a_set_that_is_moved_is_as_far_as_it_was_moved() -> None:
    features = points(200, 5)
    assert frechet_distance(gaussian(features), gaussian(features + 3)) == pytest.approx(9 * 5, rel=1e-5)


def test_precision_falls_with_samples_off_the_manifold_and_recall_with_parts_that_are_missing() -> None:
    left, right, far = points(100, 2), points(100, 2, 1) + 50, points(100, 2, 2) + 500
    real = torch.cat([left, right])
    assert precision_recall(real, real) == (1.0, 1.0)
    assert precision_recall(real, torch.cat([left, far])) == (0.5, 0.5)
    precision, recall = precision_recall(real, left)
    assert (precision, recall) == (1.0, 0.5)
    assert precision_recall(real, far) == (0.0, 0.0)


def test_diversity_is_1_for_like_sets_and_0_for_a_few_images_that_come_again_and_again() -> None:
    real = points(600, 3) + 100 * (torch.arange(600) % 3)[:, None]
    assert diversity(real, real) == 1
    assert diversity(real, points(600, 3, 1) + 100 * (torch.arange(600) % 3)[:, None]) == pytest.approx(1, abs=0.15)
    few = real[:30].repeat(20, 1)
    assert diversity(real, few) < 0.01
    assert diversity(real, few + 0.01 * points(600, 3, 2)) < 0.1
    assert diversity(real[:100], 3 * real[:600]) == pytest.approx(3, rel=1e-4)  # as many of the one as of the other


def test_a_class_is_covered_from_a_quarter_of_its_real_share_on() -> None:
    real = torch.arange(400) % 4
    fake = torch.cat([torch.zeros(300), torch.ones(75), torch.full((25,), 2)]).long()
    assert covered_classes(real, fake, 4).tolist() == [True, True, True, False]
    assert covered_classes(real, fake[:-1], 4).tolist() == [True, True, False, False]


def test_collapse_is_named_within_classes_and_across_them() -> None:
    fine = {"diversity": 0.9, "classes_covered": 10.0}
    assert collapse(fine, 10) is None
    assert "0.10 of the distance between real images" in str(collapse({**fine, "diversity": 0.1}, 10))
    assert "only 4 of 10 classes" in str(collapse({**fine, "classes_covered": 4.0}, 10))
    assert collapse({"diversity": 0.9}, 0) is None
    assert collapse({"diversity": float("nan")}, 0) is not None


def test_a_planted_copy_is_found_where_it_lies_and_at_0_gray_levels() -> None:
    random = torch.Generator().manual_seed(0)
    training = torch.randint(0, 256, (5_000, 4, 4, 3), dtype=torch.uint8, generator=random)
    samples = torch.randint(0, 256, (6, 4, 4, 3), dtype=torch.uint8, generator=random)
    samples[2], samples[5] = training[4_777], training[3]
    samples[4] = training[100] // 2 * 2  # at most one gray level away
    rows, distances = nearest(samples, training)
    assert rows[[2, 4, 5]].tolist() == [4_777, 100, 3]
    assert distances[[2, 5]].tolist() == [0, 0]
    assert 0 < distances[4] <= 1
    assert (distances[[0, 1, 3]] > 20).all()
    by_hand = (samples[0].double() - training.double()).square().mean((1, 2, 3)).sqrt()
    assert float(distances[0]) == pytest.approx(float(by_hand.min()), rel=1e-5)
    assert int(rows[0]) == int(by_hand.argmin())
