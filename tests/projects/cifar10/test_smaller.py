"""Pruned networks give what the whole ones give without the channels; checkpointed ones what the others give."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from core.program import parse_training
from projects.cifar10 import train as program
from projects.cifar10.checkpointing import checkpoint_stages
from projects.cifar10.config import Config
from projects.cifar10.model import NETWORKS
from projects.cifar10.pruning import mask, unmask, without_channels
from projects.cifar10.study_memory import PeakOfTensors
from projects.cifar10.study_precision import kept_for_backward
from projects.cifar10.study_training import load, network_for
from tests.projects.sample_data import write_class_folders
from tests.refusals import assert_refused

TINY = "--data synthetic --num-synthetic 120 --image-size 32 --batch-size 20 --device cpu --precision fp32 --ema 0"


def images(num: int) -> Tensor:
    return torch.randn(num, 3, 32, 32, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("name", ["wide", "fast", "vgg11", "resnet20", "densenet"])
def test_channels_of_no_weight_are_removed_without_a_change(name: str) -> None:
    torch.manual_seed(0)
    network = NETWORKS[name](10).eval()
    pruned = without_channels(network, 0.5)
    for (norm_name, norm), small in zip(network.named_modules(), pruned.modules(), strict=True):
        if isinstance(norm, nn.BatchNorm2d) and isinstance(small, nn.BatchNorm2d):
            num = norm.num_features
            assert small.num_features in (num, round(num / 2)), norm_name
            if small.num_features < num:
                norm.weight.data[torch.randperm(num)[: num - small.num_features]] = 0
    small_network = without_channels(network, 0.5)
    torch.testing.assert_close(small_network(images(4)), network(images(4)), rtol=1e-4, atol=1e-5)
    sizes = [sum(p.numel() for p in each.parameters()) for each in (network, small_network)]
    assert sizes[1] < (0.8 if name == "densenet" else 0.55) * sizes[0]


def test_masked_weights_stay_zero_while_the_others_learn() -> None:
    network = NETWORKS["fast"](10)
    mask(network, 0.75)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    before = network.get_parameter("stages.1.conv2.weight_orig").detach().clone()
    for _ in range(2):
        optimizer.zero_grad()
        network(images(4)).square().mean().backward()
        optimizer.step()
    unmask(network)
    weight = network.get_parameter("stages.1.conv2.weight").detach()
    assert float((weight == 0).float().mean()) == pytest.approx(0.75, abs=0.01)
    assert not torch.equal(weight[weight != 0], before[weight != 0])
    assert set(network.state_dict()) == set(NETWORKS["fast"](10).state_dict())


@pytest.mark.parametrize("name", ["wide", "fast", "resnet20", "vgg11", "vit-tiny"])
def test_checkpointed_stages_have_the_same_gradients_and_statistics_and_keep_less(name: str) -> None:
    config = parse_training(Config, TINY.split()).config
    data = load(config, torch.device("cpu"))
    results, kept = [], []
    for is_on in (False, True):
        network = network_for(name, data, config)
        if is_on:
            checkpoint_stages(network, name)
        network.train()
        network(images(4)).square().mean().backward()
        gradients = {name: weight.grad for name, weight in network.named_parameters() if weight.grad is not None}
        results.append({**gradients, **network.state_dict()})
        kept.append(kept_for_backward(network, data, config))
    assert list(results[0]) == list(results[1])
    for key, value in results[0].items():
        assert torch.equal(value, results[1][key]), key
    assert kept[1] < 0.5 * kept[0]


def test_the_peak_counts_what_is_alive_at_once() -> None:
    with PeakOfTensors() as memory:
        first = torch.ones(1000)
        second = first + 1
        del first
        third = second * 2
        second.view(10, 100)
    assert (memory.now, memory.peak) == (8000, 8000)
    del second, third
    assert memory.now == 0


@pytest.mark.parametrize("flags", ["--model lenet", "--model fast --compile"])
def test_a_network_that_cannot_be_checkpointed_is_refused(flags: str, tmp_path: Path) -> None:
    argv = [*TINY.split(), *flags.split(), "--gradient-checkpointing", "--run-dir", str(tmp_path / "run")]
    assert_refused(lambda: program.train(parse_training(Config, argv)), "--gradient-checkpointing", tmp_path)


def test_the_images_that_a_study_judges_on_are_of_all_classes(tmp_path: Path) -> None:
    data = str(write_class_folders(tmp_path))
    config = parse_training(Config, [*TINY.split(), "--data", data, "--val-fraction", "0.5"]).config
    few = load(config, torch.device("cpu"), num_judged=4).val
    whole = load(config, torch.device("cpu")).val
    assert len(set(few.labels.tolist())) == len(set(whole.labels.tolist())) > 1
