"""Wrong settings are refused in one line with nothing created; a step trains each network by its own loss only."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from core.accelerator import Accelerator
from core.errors import UserError
from projects.gan import train as program
from projects.gan.config import Config
from projects.gan.players import Players, build_networks, build_players
from projects.gan.train import parse_arguments, train, train_step
from tests.conftest import Program
from tests.refusals import assert_left_with_2, assert_refused

TINY = ["--data", "synthetic", "--num-synthetic", "200", "--image-size", "8", "--batch-size", "10", "--width", "8"]
TINY += ["--latent", "6", "--epochs", "2", "--epoch-steps", "5", "--judge-steps", "5", "--log-every", "2"]
TINY += ["--device", "cpu", "--precision", "fp32"]
FACTS = {"architecture": "dcgan", "channels": 3, "num_classes": 4}
WRONG = {
    "--data": [["--data", "nowhere"], ["--data", ""], ["--data", "cifar10"]],
    "--image-size": [["--image-size", "12"], ["--image-size", "4"], ["--image-size", "512"]],
    "--augment": [["--augment", "shear"], ["--augment", ""], ["--augment", "color,none"], ["--augment", "color,"]],
    "--judge": [["--judge", "inception"], ["--judge", "run:"], ["--judge", "run:nowhere"]],
    "--inception-weights": [["--inception-weights", "nowhere.pth"]],
    "--resume": [["--resume", "r", "--run-dir", "q"], ["--resume", "r", "--smoke"]],
    "not a run folder": [["--resume", "nowhere"]],
    "--batch-size": [["--batch-size", "1"]],
    "--latent": [["--latent", "0"], ["--latent", "1"]],
    "--width": [["--width", "4"]],
    "--loss": [["--loss", "wasserstein"]],
    "--r1": [["--r1", "-1"]],
    "--r1-every": [["--r1-every", "0"]],
    "--architecture": [["--architecture", "stylegan"]],
    "--spectral-norm": [["--spectral-norm", "generator"]],
    "--discriminator-lr": [["--discriminator-lr", "0"]],
    "--lr-end": [["--lr-end", "1.1"]],
    "--beta1": [["--beta1", "1"]],
    "--ema": [["--ema", "1"]],
    "--val-fraction": [["--val-fraction", "0"], ["--val-fraction", "0.6"]],
    "--eval-samples": [["--eval-samples", "19"]],
    "--num-synthetic": [["--num-synthetic", "199"]],
    "--epoch-steps": [["--epoch-steps", "0"]],
    "--frobnicate": [["--frobnicate"]],
}
CASES = [(named, argv) for named, cases in WRONG.items() for argv in cases]


@pytest.mark.parametrize(("named", "argv"), CASES, ids=[" ".join(argv) for _, argv in CASES])
def test_a_wrong_flag_is_named_in_one_line_and_nothing_is_created(
    named: str, argv: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert_refused(lambda: parse_arguments(argv), named, tmp_path)


@pytest.mark.parametrize("argv", [["--augment", "shear"], ["--data", "nowhere", "--run-dir", "r"]], ids=" ".join)
def test_the_program_leaves_with_2_and_one_line(argv: list[str], program: Program, tmp_path: Path) -> None:
    done = program("projects.gan.train", *argv)
    assert_left_with_2(done, "error: ", tmp_path)


@pytest.mark.parametrize("argv", [["--batch-size", "200"], ["--val-fraction", "0.05"]], ids=" ".join)
def test_what_only_data_can_refuse_is_refused_with_nothing_created(argv: list[str], tmp_path: Path) -> None:
    with pytest.raises(UserError):
        train(parse_arguments([*TINY, *argv, "--run-dir", str(tmp_path / "run")]))
    assert not list(tmp_path.iterdir())


def test_fid_without_its_library_is_refused_before_anything_is_created(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights = tmp_path / "weights.pth"
    weights.write_bytes(b"")
    monkeypatch.setattr("projects.gan.config.find_spec", lambda name: None)
    with pytest.raises(UserError, match="torchmetrics, for FID"):
        parse_arguments([*TINY, "--inception-weights", str(weights)])


def playing(**settings: Any) -> tuple[Players, Config, Accelerator, tuple[Tensor, Tensor]]:
    """Two networks and a batch."""
    config = Config(image_size=8, width=8, latent=6, batch_size=10, **settings)
    accelerator = Accelerator(device="cpu", precision="fp32")
    players = build_players(config, FACTS, accelerator, 1_000)
    random = torch.Generator().manual_seed(0)
    images = (2 * torch.rand(10, 3, 8, 8, generator=random) - 1).to(memory_format=torch.channels_last)
    return players, config, accelerator, (images, torch.arange(10) % 4)


def weights(network: nn.Module) -> Tensor:
    return torch.cat([p.detach().flatten() for p in network.parameters()])


def test_the_discriminator_learns_from_its_own_loss_alone() -> None:
    """A generator that cannot learn leaves the discriminator's way as it was, so no gradient comes by its loss."""
    ways = []
    for rate in (1e-3, 1e-12):
        players, config, accelerator, batch = playing(lr=rate, discriminator_lr=1e-3)
        torch.manual_seed(1)
        accelerator.micro_batch(0, 1)
        train_step(batch, players=players, policy=(), config=config, accelerator=accelerator)
        assert all(p.requires_grad and p.grad is None for p in players.discriminator.parameters())
        ways.append(weights(players.discriminator))
    assert torch.equal(*ways)


def test_both_learn_at_their_own_rates_and_the_average_follows() -> None:
    players, config, accelerator, batch = playing(lr=1e-3, discriminator_lr=4e-3, ema=0.9)
    before = [weights(network) for network in (players.generator, players.discriminator, players.ema.module)]
    accelerator.micro_batch(0, 1)
    metrics = train_step(batch, players=players, policy=(), config=config, accelerator=accelerator)
    after = [weights(network) for network in (players.generator, players.discriminator, players.ema.module)]
    largest = [float((new - old).abs().max()) for old, new in zip(before, after, strict=True)]
    assert largest[0] == pytest.approx(1e-3, rel=0.05)  # Adam's first step is as long as its rate
    assert largest[1] == pytest.approx(4e-3, rel=0.05)
    assert 0 < largest[2] < largest[0]
    assert set(metrics) == {"loss", "real_logit", "fake_logit", "generator_loss"}
    assert not any(value.requires_grad for value in metrics.values())


def test_the_discriminator_learns_to_tell_a_batch_from_what_is_drawn() -> None:
    players, config, accelerator, batch = playing(lr=1e-6, discriminator_lr=5e-3)
    accelerator.micro_batch(0, 1)
    losses = []
    for _ in range(40):
        metrics = train_step(batch, players=players, policy=(), config=config, accelerator=accelerator)
        losses.append(float(metrics["loss"]))
    assert losses[-1] < 0.5 * losses[0]
    assert float(metrics["real_logit"]) > float(metrics["fake_logit"])


def test_r1_is_there_every_few_steps_and_then_weighs_as_many_times_as_much() -> None:
    seen = []

    def counting(discriminator: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
        seen.append(int(players.ema.num_updates))
        return discriminator(images, labels).sum() * 0

    players, config, accelerator, batch = playing(r1=0.5, r1_every=3)
    inner, program.r1_penalty = program.r1_penalty, counting
    try:
        accelerator.micro_batch(0, 1)
        for _ in range(7):
            train_step(batch, players=players, policy=(), config=config, accelerator=accelerator)
    finally:
        program.r1_penalty = inner
    assert seen == [0, 3, 6]


def test_while_accumulating_the_discriminator_holds_gradients_of_its_own_loss_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    held = []
    for of_generator in (program.generator_loss, lambda game, fake: 0 * fake.sum()):
        monkeypatch.setattr(program, "generator_loss", of_generator)
        players, config, accelerator, batch = playing(accumulate=2)
        torch.manual_seed(1)
        accelerator.micro_batch(0, 2)
        train_step(batch, players=players, policy=(), config=config, accelerator=accelerator)
        held.append(torch.cat([p.grad.flatten() for p in players.discriminator.parameters() if p.grad is not None]))
        assert players.ema.num_updates == 0
    assert torch.equal(*held)
    assert held[0].abs().sum() > 0
    accelerator.micro_batch(1, 2)
    train_step(batch, players=players, policy=(), config=config, accelerator=accelerator)
    assert players.ema.num_updates == 1


def test_the_untrained_networks_are_the_same_each_time() -> None:
    config = Config(image_size=8, width=8, latent=6, spectral_norm="both")
    first, second = build_networks(config, FACTS), build_networks(config, FACTS)
    for one, other in zip(first, second, strict=True):
        assert torch.equal(weights(one), weights(other))
    other_seed = build_networks(Config(image_size=8, width=8, latent=6, seed=1, spectral_norm="both"), FACTS)
    assert not torch.equal(weights(first[0]), weights(other_seed[0]))


class OnePicture(nn.Module):
    """A generator that has collapsed: one picture a class, whatever the noise."""

    def forward(self, noise: Tensor, labels: Tensor) -> Tensor:
        random = torch.Generator().manual_seed(0)
        return (2 * torch.rand(4, 3, 8, 8, generator=random) - 1)[labels]


def test_a_collapsed_generator_is_called_one_in_log_and_summary(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from projects.gan import assessment

    honest = assessment.draw
    collapsed = OnePicture()
    for module in (assessment, program):
        monkeypatch.setattr(module, "draw", lambda generator, *rest, **named: honest(collapsed, *rest, **named))
    train(parse_arguments([*TINY, "--run-dir", str(tmp_path / "run")]))
    said = capsys.readouterr().out
    assert said.count("collapse at step ") == 2
    assert "samples are nearly alike (neighbors at 0.00 of" in said
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["collapsed"] is True
    assert summary["diversity"] < 0.01


SETTINGS = [
    ["--architecture", "resnet", "--loss", "nonsaturating", "--spectral-norm", "none", "--r1", "0.1"],
    ["--no-conditional", "--ema", "0", "--augment", "none", "--flip", "--beta1", "0"],
]


@pytest.mark.parametrize("argv", SETTINGS, ids=lambda argv: argv[0])
def test_every_recipe_runs_to_the_end(argv: list[str], tmp_path: Path) -> None:
    train(parse_arguments([*TINY, "--spectral-norm", "both", *argv, "--run-dir", str(tmp_path / "run")]))
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    rates = {name: value for line in lines for name, value in line.items() if name.startswith("lr/")}
    assert rates == {  # after the last step
        "lr/generator_optimizer": pytest.approx(1e-3 * 0.1),
        "lr/discriminator_optimizer": pytest.approx(2e-3 * 0.1),
    }
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    distances = {line["step"]: line["val/frechet"] for line in lines if "val/frechet" in line}
    assert summary["best_val_frechet"] == min(distances.values()) == distances[summary["best_step"]]
    assert ("label_accuracy" in summary) == ("--no-conditional" not in argv)
    assert summary["num_samples"] == 40
    assert 0 < summary["frechet_real"] < summary["frechet_untrained"]
