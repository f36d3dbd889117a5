"""Deep CORAL and DANN: their losses, target images come by sample, a training says how well it went and resumes."""

from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from core.vision.image_set import from_pixels
from cuda_ext import lookup_table
from projects.transfer import train as program
from projects.transfer.augment import Preprocessing, training_view
from projects.transfer.coral import coral_loss
from projects.transfer.dann import Adversarial, DomainClassifier, domain_loss
from projects.transfer.data import with_target
from projects.transfer.model import Classifier
from tests import forked
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
    view = partial(training_view, preprocessing=PREPROCESSING, table=table, config=config)

    def views(samples: list[int]) -> torch.Tensor:
        images = torch.zeros(len(samples), 3, 16, 16)
        both = with_target(images, target, torch.tensor(samples), 2, config.seed, view)
        assert both.shape == (2 * len(samples), 3, 16, 16)
        return both[len(samples) :]

    together = views([3, 8, 4])
    assert torch.equal(together[[0, 2]], views([3, 4]))
    assert len({image.numpy().tobytes() for image in views(list(range(20)))}) > 1


def test_the_backbone_gets_the_reversed_gradient_of_the_domain_loss_and_the_domain_classifier_its_own() -> None:
    torch.manual_seed(0)
    backbone, domain = nn.Sequential(nn.Flatten(), nn.Linear(12, 5)).double(), DomainClassifier(5, 10).double()
    network, images = Adversarial(Classifier(backbone, 5, 3).double(), domain), torch.randn(6, 3, 2, 2).double()
    plain = domain_loss(domain.layers(backbone(images))[:, 0], 4)
    of_layers, of_backbone = (
        torch.autograd.grad(plain, list(module.parameters()), retain_graph=True) for module in (domain, backbone)
    )
    for done in (0, 5, 10):
        domain.done.fill_(done)
        network.zero_grad()
        logits, domains = network(images)
        assert logits.shape == (6, 3)
        loss = domain_loss(domains, 4)
        loss.backward()
        torch.testing.assert_close(loss, plain)
        strength = 2 / (1 + np.exp(-done)) - 1  # Ganin et al. 2016, section 5.2.2, with 10 batches in all
        for parameter, expected in zip(backbone.parameters(), of_backbone, strict=True):
            torch.testing.assert_close(parameter.grad, -strength * expected, rtol=1e-4, atol=1e-9)
        for parameter, expected in zip(domain.parameters(), of_layers, strict=True):
            torch.testing.assert_close(parameter.grad, expected, rtol=1e-4, atol=1e-9)
        assert float(domain.done) == done + 1


@pytest.mark.usefixtures("_quick")
@pytest.mark.parametrize(("way", "number"), [("coral", "train/coral"), ("dann", "train/domain")])
def test_a_training_toward_a_target_tells_its_accuracy_there_and_resumes_exactly(
    way: str, number: str, make_folder: MakeFolder, source_run: Path, tmp_path: Path
) -> None:
    given = ["--data", make_folder(train=10, test=3), *TINY, "--backbone", f"run:{source_run}", "--ema", 0]
    given += ["--adapt", way, "--target", make_folder("elsewhere", root=3), "--choose-by", "accuracy"]
    main([*given, "--run-dir", tmp_path / "run"])
    numbers = summary(tmp_path / "run")
    assert 0 <= numbers["target_accuracy_after"] <= 1
    assert 0 <= numbers["best_val_accuracy"] <= 1
    assert f'"{number}"' in (tmp_path / "run" / "metrics.jsonl").read_text()
    assert forked.run(forked.stopping_at(3, program), [*given, "--run-dir", tmp_path / "parts"]) == 143
    assert forked.run(main, ["--resume", tmp_path / "parts"]) == 0
    assert forked.ending(tmp_path / "parts") == forked.ending(tmp_path / "run")
