"""Settings that do not fit are refused with nothing created; a step trains each network by its own loss only."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from core.accelerator import Accelerator
from core.errors import UserError
from core.program import parse_training
from projects.gan import evaluation, plots
from projects.gan import train as program
from projects.gan.config import Config
from projects.gan.loss import generator_loss
from projects.gan.networks import DiscriminatorLearner, GeneratorLearner, build_learners, build_networks
from projects.gan.train import train_step
from tests.forked import metrics, summary
from tests.projects.gan.conftest import facts, train_tiny
from tests.refusals import assert_refused

WRONG = [
    ("--data", "nowhere"),
    ("--data", ""),
    ("--image-size", "12"),
    ("--augment", "shear"),
    ("--augment", ""),
    ("--augment", "color,none"),
    ("--feature-classifier", "inception"),
    ("--feature-classifier", "run:"),
    ("--feature-classifier", "run:nowhere"),
    ("--inception-weights", "nowhere.pth"),
    ("--lite0-samples", "100"),
]


@pytest.mark.parametrize(("flag", "value"), WRONG, ids=" ".join)
def test_what_is_not_there_or_does_not_fit_is_named_and_nothing_is_created(
    flag: str, value: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert_refused(lambda: parse_training(Config, [flag, value]), f"{flag} {value}", tmp_path)


@pytest.mark.parametrize(
    "flags",
    [
        ["--batch-size", "200"],
        ["--val-fraction", "0.05"],
        ["--feature-classifier", "run:."],  # not a finished run
    ],
    ids=" ".join,
)
def test_what_only_data_and_files_can_refuse_is_refused_with_nothing_created(
    flags: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError):
        train_tiny(tmp_path / "run", *flags)
    assert not list(tmp_path.iterdir())


def test_fid_without_its_library_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "weights.pth").write_bytes(b"")
    monkeypatch.setattr("projects.gan.config.find_spec", lambda name: None)
    with pytest.raises(UserError, match="torch-fidelity"):
        parse_training(Config, ["--inception-weights", str(tmp_path / "weights.pth")])


class Setting:
    """Two networks, a batch, and a train step of them."""

    def __init__(self, **settings: Any) -> None:
        self.config = Config(image_size=8, width=8, latent=6, batch_size=10, **settings)
        self.accelerator = Accelerator(device="cpu", precision="fp32")
        self.generator: GeneratorLearner
        self.discriminator: DiscriminatorLearner
        self.generator, self.discriminator = build_learners(self.config, facts(), self.accelerator, 1_000)
        random = torch.Generator().manual_seed(0)
        images = (2 * torch.rand(10, 3, 8, 8, generator=random) - 1).to(memory_format=torch.channels_last)
        self.batch = images, torch.arange(10) % 4

    def step(self) -> dict[str, Tensor]:
        """One train step on the batch."""
        networks: dict[str, Any] = {"generator": self.generator, "discriminator": self.discriminator}
        return train_step(self.batch, policy=(), config=self.config, **networks)


def weights(network: nn.Module) -> Tensor:
    return torch.cat([p.detach().flatten() for p in network.parameters()])


def test_the_discriminators_update_does_not_depend_on_the_generators_loss() -> None:
    results = []
    for rate in (1e-3, 1e-12):
        setting = Setting(lr=rate, discriminator_lr=1e-3)
        torch.manual_seed(1)
        setting.step()
        network = setting.discriminator.network
        assert all(p.requires_grad and p.grad is None for p in network.parameters())
        results.append(weights(network))
    assert torch.equal(*results)


def test_both_learn_at_their_own_rates_and_the_average_follows() -> None:
    setting = Setting(lr=1e-3, discriminator_lr=4e-3, ema=0.9)
    networks = (setting.generator.network, setting.discriminator.network, setting.generator.averaged)
    before = [weights(network) for network in networks]
    numbers = setting.step()
    largest = [float((weights(network) - old).abs().max()) for network, old in zip(networks, before, strict=True)]
    assert largest[0] == pytest.approx(1e-3, rel=0.05)  # Adam's first step is as long as its rate
    assert largest[1] == pytest.approx(4e-3, rel=0.05)
    assert 0 < largest[2] < largest[0]
    assert set(numbers) == {"loss", "real_logit", "fake_logit", "generator_loss"}
    assert not any(value.requires_grad for value in numbers.values())


def test_the_discriminator_learns_to_tell_one_batch_from_generated_images() -> None:
    setting = Setting(lr=1e-6, discriminator_lr=5e-3)
    steps = [setting.step() for _ in range(40)]
    assert float(steps[-1]["loss"]) < 0.5 * float(steps[0]["loss"])
    assert float(steps[-1]["real_logit"]) > float(steps[-1]["fake_logit"])


def test_r1_is_added_every_few_steps_and_multiplied_by_their_number(monkeypatch: pytest.MonkeyPatch) -> None:
    setting, steps = Setting(r1=0.5, r1_every=3), []

    def counting(discriminator: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
        steps.append(setting.generator.num_steps)
        penalty: Tensor = discriminator(images, labels).sum() * 0
        return penalty

    monkeypatch.setattr(program, "r1_penalty", counting)
    for _ in range(7):
        setting.step()
    assert steps == [0, 3, 6]


def test_while_accumulating_the_discriminator_holds_gradients_of_its_own_loss_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    held = []
    for of_generator in (generator_loss, lambda kind, fake: 0 * fake.sum()):
        monkeypatch.setattr(program, "generator_loss", of_generator)
        setting = Setting(accumulate=2)
        torch.manual_seed(1)
        with setting.accelerator.micro_batch(0, 2):
            setting.step()
        parameters = setting.discriminator.network.parameters()
        held.append(torch.cat([p.grad.flatten() for p in parameters if p.grad is not None]))
        assert setting.generator.num_steps == 0
    assert torch.equal(*held)
    assert held[0].abs().sum() > 0
    with setting.accelerator.micro_batch(1, 2):
        setting.step()
    assert setting.generator.num_steps == 1


def test_the_untrained_networks_depend_on_the_seed_alone() -> None:
    first, second, other = (
        build_networks(Config(image_size=8, width=8, latent=6, seed=seed, spectral_norm="both"), facts())
        for seed in (0, 0, 1)
    )
    for one, same in zip(first, second, strict=True):
        assert torch.equal(weights(one), weights(same))
    assert not torch.equal(weights(first[0]), weights(other[0]))


class OneImage(nn.Module):
    """A generator that has collapsed: one image a class, whatever the noise."""

    def forward(self, noise: Tensor, labels: Tensor) -> Tensor:
        random = torch.Generator().manual_seed(0)
        return (2 * torch.rand(4, 3, 8, 8, generator=random) - 1)[labels]


def test_a_collapse_is_said_in_log_and_summary(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    honest, collapsed = evaluation.generate, OneImage()
    for module in (evaluation, program):
        monkeypatch.setattr(module, "generate", lambda generator, *rest, **named: honest(collapsed, *rest, **named))
    train_tiny(tmp_path / "run")
    assert capsys.readouterr().out.count("collapse at step ") == 2
    numbers = summary(tmp_path / "run")
    assert numbers["collapsed"] is True
    assert numbers["diversity"] < 0.01


SETTINGS = [
    ["--architecture", "resnet", "--loss", "nonsaturating", "--spectral-norm", "none", "--r1", "0.1"],
    ["--no-conditional", "--ema", "0", "--augment", "none", "--flip", "--beta1", "0"],
]


@pytest.mark.parametrize("flags", SETTINGS, ids=lambda flags: flags[0])
def test_every_recipe_runs_to_the_end(flags: list[str], tmp_path: Path) -> None:
    train_tiny(tmp_path, "--lr", "0.001", *flags)
    lines = metrics(tmp_path)
    rates = {name: value for line in lines for name, value in line.items() if name.startswith("lr/")}
    assert rates == {  # after the last step
        "lr/generator_optimizer": pytest.approx(1e-3 * 0.1),
        "lr/discriminator_optimizer": pytest.approx(2e-3 * 0.1),
    }
    numbers = summary(tmp_path)
    distances = {line["step"]: line["val/frechet"] for line in lines if "val/frechet" in line}
    assert numbers["best_val_frechet"] == min(distances.values()) == distances[numbers["best_step"]]
    assert ("label_accuracy" in numbers) == ("--no-conditional" not in flags)
    assert numbers["num_samples"] == 40
    assert 0 < numbers["frechet_real"] < numbers["frechet_untrained"]


def test_a_title_with_dollar_signs_is_shown_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_text(json.dumps({"step": 1, "val/frechet": 2.0}) + "\n")
    plots.distance_curve(tmp_path, 1.0, r"features of a run called $\nonsense$ \x1b")
    assert (tmp_path / "plots" / "distance.png").exists()
