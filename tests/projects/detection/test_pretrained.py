"""The pyramid on a packaged backbone: its weights, what stays as it is, its own rate; other settings are refused."""

import pytest
import torch

from core.errors import UserError
from core.program import parse_training
from core.vision.packaged_network import PACKAGED
from projects.detection.config import Config
from projects.detection.detector import Detector, Targets
from projects.detection.detectors import build_model
from projects.detection.train import parameter_groups

pytest.importorskip("timm")

LITE0 = PACKAGED["efficientnet_lite0"]
CONFIG = Config(backbone="package:efficientnet_lite0", lr=0.01, backbone_lr=0.2)


def test_a_training_begins_with_the_packages_weights_and_moves_neither_norms_nor_the_first_layers() -> None:
    if not LITE0.is_installed:
        pytest.skip(f"{LITE0.distribution} is not installed")
    detector = build_model(CONFIG, 2, initial_weights=True)
    assert detector.statistics == (LITE0.mean, LITE0.std)
    given = {f"backbone.{name}": tensor for name, tensor in LITE0.weights().items()}
    before = {name: t.clone() for name, t in detector.state_dict().items() if name.startswith("backbone.")}
    assert before
    assert all(torch.equal(tensor, given[name]) for name, tensor in before.items())
    train_once(detector)
    moved = {name for name, t in detector.state_dict().items() if name in before and not torch.equal(t, before[name])}
    assert "backbone.blocks.6.0.conv_pwl.weight" in moved
    assert not [name for name in moved if ".bn" in name or "blocks.0." in name or "conv_stem" in name]


def train_once(detector: Detector) -> None:
    """One step on a batch of two images of 64 pixels."""
    optimizer = torch.optim.AdamW(parameter_groups(detector, CONFIG), lr=CONFIG.peak_lr)
    rates = [group["lr"] for group in optimizer.param_groups]
    assert sorted(set(rates)) == pytest.approx([0.002, 0.01])
    targets = Targets.of([(torch.tensor([[5.0, 5.0, 40.0, 40.0]]), torch.tensor([0]), torch.tensor([False]))] * 2)
    losses = detector.train()(torch.randn(2, 3, 64, 64), targets)
    torch.stack(list(losses.values())).sum().backward()
    optimizer.step()
    boxes, scores = detector.eval().candidates(torch.zeros(1, 3, 64, 96))
    assert boxes.shape == (1, 8 * 12 + 4 * 6 + 2 * 3, 4)
    assert scores.shape == (1, 2, boxes.shape[1])


@pytest.mark.parametrize(
    "argv",
    [["--backbone", "timm:resnet18"], ["--backbone", "package:efficientnet_lite0", "--model", "fcos_resnet50_fpn"]],
)
def test_a_backbone_that_cannot_be_is_refused(argv: list[str]) -> None:
    with pytest.raises(UserError, match="--backbone"):
        parse_training(Config, argv)


def test_a_backbone_that_no_package_has_is_named() -> None:
    with pytest.raises(UserError, match="--backbone package:lite9"):
        build_model(Config(backbone="package:lite9"), 2, initial_weights=False)
