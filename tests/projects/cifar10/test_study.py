"""The studies: hooks see what is so, initializations are as they are called, each study leaves table, file and plot."""

import json
from functools import partial
from itertools import count
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from core.program import parse_training
from projects.cifar10 import study
from projects.cifar10.config import Config
from projects.cifar10.model import NETWORKS
from projects.cifar10.networks.resnet import Padding, ResidualBlock
from projects.cifar10.study_init import initialize
from projects.cifar10.study_layers import LayerWatcher, watched_steps
from projects.cifar10.study_options import OPTIONS
from projects.cifar10.study_precision import kept_for_backward
from projects.cifar10.study_report import markdown
from projects.cifar10.study_training import by_seconds, by_steps, load, network_for, train_shortly
from projects.cifar10.train import build_optimizer
from tests.conftest import ROOT
from tests.refusals import assert_refused

STORED = ROOT / "projects" / "cifar10" / "results" / "studies"


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["initt"], "initt"),
        (["init", "--max-steps", "0"], "--max-steps 0"),
        (["networks", "--seconds", "-1"], "--seconds -1"),
        (["init", "--data", "nowhere"], "--data nowhere"),
        (["optimizers", "--data", "synthetic", "--model", "resnet99"], "resnet99"),
        (["gradients", "--data", "synthetic", "--models", "vgg11", "--image-size", "16"], "--image-size 16"),
        (["precision", "--data", "synthetic", "--tuning-steps", "3"], "--tuning-steps"),  # another study's flag
        (["init", "--smoke", "--output", "."], "not a folder of this study"),
    ],
    ids=" ".join,
)
def test_what_cannot_be_is_refused_with_nothing_created(
    words: list[str], named: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.txt").touch()
    assert_refused(partial(study.main, words), named, tmp_path)


@pytest.mark.parametrize("name", OPTIONS)
def test_every_study_leaves_a_table_a_file_and_a_plot(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [name, "--smoke", "--device", "cpu", "--output", str(tmp_path / "new")]
    study.main([*words, "--seconds", "0.1"] if name == "networks" else words)
    stored = json.loads((tmp_path / "new" / f"{name}.json").read_text("utf-8"))
    assert stored["rows"]
    assert markdown(stored["rows"], stored["shown"]) in capsys.readouterr().out
    assert str(tmp_path) not in json.dumps(stored)
    assert torch.__version__.startswith(stored["environment"]["torch"])
    assert (tmp_path / "new" / f"{name}.png").stat().st_size > 5_000
    for row in stored["rows"]:
        assert 0 <= (row.get("val_accuracy") or 0) <= 1


class Two(nn.Module):
    """Two layers with a ReLU between them, of which one unit in four is dead."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(3, 4), nn.Linear(4, 2)
        self.first.bias.data.copy_(torch.tensor([9.0, 9.0, 9.0, -99.0]))

    def forward(self, x: Tensor) -> Tensor:
        return self.second(F.relu(self.first(x)))  # type: ignore[no-any-return]


def test_the_watcher_sees_what_is_there_and_leaves_the_network_as_it_was() -> None:
    torch.manual_seed(0)
    network, x = Two(), torch.randn(16, 3)
    watcher = LayerWatcher(network, frozenset({1}))
    for step in range(3):
        network.zero_grad()
        with watcher.watch(step):
            network(x).square().mean().backward()
    assert network.first.weight.grad is not None
    tables = watcher.tables
    assert list(tables["activation std"]) == ["first", "second"]
    assert tables["activation std"]["first"] == pytest.approx({1: float(network.first(x).std().detach())})
    assert tables["dead units"] == {"relu 01": {1: 0.25}}
    norm = float(network.first.weight.grad.norm())
    assert tables["gradient norm"]["first"] == pytest.approx({1: norm})
    ratio = norm / float(network.first.weight.norm().detach())
    assert tables["gradient / weight"]["first"] == pytest.approx({1: ratio})
    assert not network.first._forward_hooks


def test_steps_that_are_watched_are_few_and_hold_the_first_and_the_last() -> None:
    steps = watched_steps(1000)
    assert {0, 1, 999} <= steps
    assert len(steps) < 25
    assert watched_steps(1) == {0}


def test_initializations_differ_as_their_names_say() -> None:
    network = NETWORKS["resnet20"](10)
    stds = {}
    for init in ("kaiming", "too small", "too large"):
        assert initialize(network, init, seed=0)
        stds[init] = float(network.get_parameter("stages.4.conv1.weight").std().detach())
    assert stds["too large"] == pytest.approx(4 * stds["kaiming"])
    assert stds["too small"] == pytest.approx(stds["kaiming"] / 4)
    assert initialize(network, "zero last norm", seed=0)
    blocks = [module for module in network.modules() if isinstance(module, ResidualBlock)]
    zero = [not block.norm2.weight.any() for block in blocks]
    assert zero == [not isinstance(block.shortcut, Padding) for block in blocks]
    assert not initialize(NETWORKS["lenet"](10), "zero last norm", seed=0)


def config_of(*words: str) -> Config:
    argv = ["--data", "synthetic", "--num-synthetic", "120", "--image-size", "16", "--batch-size", "20"]
    return parse_training(Config, [*argv, "--device", "cpu", "--precision", "fp32", "--ema", "0", *words]).config


def test_a_short_training_ends_when_it_should_and_says_where_it_diverged(monkeypatch: pytest.MonkeyPatch) -> None:
    config = config_of("--lr", "0.01")
    data = load(config, torch.device("cpu"))
    assert len(train_shortly(network_for("mlp", data, config), data, config, by_steps(7)).losses) == 7
    looks = count()
    with monkeypatch.context() as patch:
        patch.setattr("projects.cifar10.study_training.clock", lambda device: float(next(looks)))
        timed = by_seconds(20, torch.device("cpu"))
        training = train_shortly(network_for("mlp", data, config), data, config, timed)
    assert 15 <= training.seconds <= 24  # it looks at the clock before and after as well
    assert 2 <= len(training.losses) <= 20
    assert training.num_images == 20 * len(training.losses)
    config = config_of("--lr", "1e30", "--schedule", "constant")
    assert train_shortly(network_for("mlp", data, config), data, config, by_steps(7)).accuracy is None


def test_muon_takes_filters_and_matrices_but_the_head_and_adamw_the_rest() -> None:
    network = NETWORKS["fast"](10)
    muon, rest = build_optimizer(network, config_of("--optimizer", "muon", "--lr", "0.02")).param_groups
    names = {id(parameter): name for name, parameter in network.named_parameters()}
    assert {names[id(p)] for p in muon["params"]} == {f"stages.{s}.conv{c}.weight" for s in range(3) for c in (1, 2)}
    assert {names[id(p)] for p in rest["params"]} == {n for n in names.values() if "norm" in n or "head" in n}
    assert (muon["lr"], rest["lr"]) == (0.02, pytest.approx(0.002))


@pytest.mark.parametrize("name", sorted(path.stem for path in STORED.glob("*.json")))
def test_published_tables_are_those_of_the_stored_studies(name: str) -> None:
    stored = json.loads((STORED / f"{name}.json").read_text("utf-8"))
    published = (ROOT / "projects" / "cifar10" / "STUDIES.md").read_text("utf-8")
    assert markdown(stored["rows"], stored["shown"]) in published
    assert stored["command"] in published
    assert stored["environment"]["commit"]


def test_what_is_kept_for_the_backward_pass_is_every_activation_once() -> None:
    config = config_of("--batch-size", "20")
    data = load(config, torch.device("cpu"))
    pixels, hidden = 3 * 32 * 32, 1024 + 512  # of the inputs of each layer; a ReLU's result is the next layer's input
    kept = kept_for_backward(network_for("mlp", data, config), data, config)
    assert 20 * 4 * (pixels + hidden) <= kept < 1.2 * 20 * 4 * (pixels + hidden)
