"""Deep CORAL: covariances become alike, target images come by sample, and a training says how well it went."""

from pathlib import Path

import numpy as np
import pytest
import torch

from core.vision.image_set import from_pixels
from cuda_ext import lookup_table
from projects.transfer.augment import Preprocessing
from projects.transfer.coral import coral_loss, with_target
from tests.forked import summary
from tests.projects.transfer.conftest import TINY, MakeFolder, main, settings

PREPROCESSING = Preprocessing(16, 16, (0.5, 0.4, 0.3), (0.2, 0.2, 0.2))


def test_the_distance_is_that_of_covariances_and_ignores_the_means() -> None:
    generator = torch.Generator().manual_seed(0)
    one, other = torch.randn(50, 3, generator=generator), 2 * torch.randn(40, 3, generator=generator)
    assert float(coral_loss(one, one + 5)) == pytest.approx(0, abs=1e-6)
    expected = np.square(np.cov(one.numpy().T) - np.cov(other.numpy().T)).sum() / (4 * 9)
    assert float(coral_loss(one, other)) == pytest.approx(float(expected), rel=1e-4)


def test_the_target_image_of_a_sample_does_not_depend_on_its_batch() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (5, 16, 16, 3)).astype(np.uint8)
    target, table = from_pixels(pixels, np.full(5, -1)), lookup_table(PREPROCESSING.mean, PREPROCESSING.std)
    config = settings("--augment", "none")

    def views(samples: list[int]) -> torch.Tensor:
        images = torch.zeros(len(samples), 3, 16, 16)
        both = with_target(images, target, torch.tensor(samples), 2, PREPROCESSING, table, config)
        assert both.shape == (2 * len(samples), 3, 16, 16)
        return both[len(samples) :]

    together = views([3, 8, 4])
    assert torch.equal(together[[0, 2]], views([3, 4]))
    assert len({image.numpy().tobytes() for image in views(list(range(20)))}) > 1


@pytest.mark.usefixtures("_quick")
def test_a_training_toward_a_target_tells_its_accuracy_there_and_chooses_by_accuracy(
    make_folder: MakeFolder, source_run: Path, tmp_path: Path
) -> None:
    given = ["--data", make_folder(train=10, test=3), *TINY, "--backbone", f"run:{source_run}", "--epochs", 1]
    target = make_folder("elsewhere", root=3)
    main([*given, "--adapt", "coral", "--target", target, "--choose-by", "accuracy", "--run-dir", tmp_path / "run"])
    numbers = summary(tmp_path / "run")
    assert 0 <= numbers["target_accuracy_after"] <= 1
    assert 0 <= numbers["best_val_accuracy"] <= 1
    assert '"train/coral"' in (tmp_path / "run" / "metrics.jsonl").read_text()
