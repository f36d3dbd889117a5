"""What only a GPU can show. Skipped without one; in a -gpu environment a missing GPU is a failure."""

import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from torch import nn

from core import checkpoint, randomness
from core.accelerator import Accelerator
from core.config import Precision
from core.nonfinite import NonFinite
from cuda_ext import augment
from tests import forked
from tests.conftest import ROOT, Program
from tests.core import test_step_graphs

pytestmark = pytest.mark.usefixtures("gpu")


def network(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 64, 4))


@pytest.mark.parametrize(("precision", "tolerance"), [("fp32", 1e-3), ("bf16", 5e-2), ("fp16", 2e-2)])
def test_ten_steps_on_a_gpu_are_near_those_on_a_cpu(precision: Precision, tolerance: float) -> None:
    losses = []
    for device, kind in (("cpu", "fp32"), ("cuda", precision)):
        accelerator = Accelerator(device=device, precision=kind, clip_norm=1.0)  # type: ignore[arg-type]
        model = network()
        forward = accelerator.prepare(model, channels_last=True)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, fused=True)
        images, labels = torch.randn(16, 3, 8, 8, generator=torch.Generator().manual_seed(1)), torch.arange(16) % 4
        for _ in range(10):
            batch = accelerator.to_device((images, labels))
            with accelerator.autocast():
                loss = nn.functional.cross_entropy(forward(batch[0]).float(), batch[1])
            accelerator.step(loss, optimizer)
        accelerator.check()
        losses.append(loss.item())
    assert losses[1] == pytest.approx(losses[0], abs=tolerance)
    assert losses[0] < 1.2


def test_a_bad_gradient_never_reaches_the_weights_and_is_told_at_the_check() -> None:
    accelerator = Accelerator(device="cuda", precision="fp32")
    model = network()
    forward = accelerator.prepare(model)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1, fused=True)
    before = [parameter.detach().clone() for parameter in model.parameters()]
    for factor in (float("nan"), 1.0):  # the gate stays closed for the good gradient after the bad one
        loss = forward(torch.ones(2, 3, 8, 8, device="cuda")).sum() * factor
        accelerator.step(loss, optimizer)
    assert all(torch.equal(old, new) for old, new in zip(before, model.parameters(), strict=True))
    with pytest.raises(NonFinite):
        accelerator.check()


@pytest.mark.parametrize(("optimizer", "accumulate"), [("sgd", 1), ("adamw", 3), ("muon", 1)])
@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_replayed_steps_equal_ordinary_ones(optimizer: str, precision: str, accumulate: int) -> None:
    ordinary, replayed = (
        test_step_graphs.trained(replays, optimizer, precision, accumulate, device="cuda", capture=None)
        for replays in (False, True)
    )
    torch.testing.assert_close(replayed, ordinary, rtol=1e-5, atol=1e-6, equal_nan=True)


def test_random_choices_and_augmented_pictures_are_those_of_a_cpu() -> None:
    indices = torch.arange(500)
    highs = (5, 5, 2, 32, 32)
    on_cpu = randomness.uniform_integers(3, 1, indices, "augment", highs)
    on_gpu = randomness.uniform_integers(3, 1, indices.cuda(), "augment", highs)
    assert torch.equal(on_cpu, on_gpu.cpu())
    images = torch.randint(0, 256, (500, 32, 32, 3), dtype=torch.uint8)
    table = torch.randn(3, 256)
    expected = augment(images, indices, on_cpu, table, 2, 8)
    found = augment(images.cuda(), indices.cuda(), on_gpu, table.cuda(), 2, 8)
    assert torch.equal(expected, found.cpu())


def test_a_killed_and_resumed_run_equals_the_unbroken_one_in_deterministic_mode(
    program: Program, tmp_path: Path
) -> None:
    module = "projects.cifar10.train"
    settings = ["--data", "synthetic", "--num-synthetic", 1200, "--batch-size", 50, "--model", "resnet20"]
    settings += ["--epochs", 3, "--checkpoint-every", 5, "--device", "cuda", "--precision", "bf16", "--deterministic"]
    whole = program(module, *settings, "--run-dir", tmp_path / "whole")
    assert whole.returncode == 0, whole.stderr
    words = [sys.executable, "-m", module, *(str(word) for word in settings), "--run-dir", str(tmp_path / "broken")]
    with subprocess.Popen(words, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as child:
        deadline = time.monotonic() + 120
        while not checkpoint.folders(tmp_path / "broken"):
            assert time.monotonic() < deadline, "no checkpoint was written"
            time.sleep(0.02)
        child.kill()
    rest = program(module, "--resume", tmp_path / "broken")
    assert rest.returncode == 0, rest.stderr
    assert forked.ending(tmp_path / "broken") == forked.ending(tmp_path / "whole")
