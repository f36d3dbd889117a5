"""What is frozen stays frozen, what is trained has the rate it should, and layers are what one would call layers."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR

from projects.cifar10.model import build_model as build_cifar10
from projects.transfer.model import (
    Classifier,
    SmallNet,
    build_classifier,
    build_network,
    layers_of,
    name_of_head,
    num_frozen_at,
    parameter_groups,
    without_head,
)
from projects.transfer.optimizer import build_optimizer, build_schedules
from tests.projects.transfer.conftest import settings


def backbone_of(architecture: str) -> nn.Module:
    """A backbone without its head; one that neither library knows is another project's network."""
    kind, _, name = architecture.partition(":")
    if kind == "timm":
        pytest.importorskip("timm")
    if kind != "other":
        return without_head(*build_network(architecture, 10))
    network = build_cifar10(name, 10)
    return without_head(network, name_of_head(network, 10, architecture))


def classifier(architecture: str = "other:fast", dropout: float = 0.0) -> Classifier:
    torch.manual_seed(0)
    return build_classifier(backbone_of(architecture), 3, 32, dropout)


def names(backbone: nn.Module) -> list[str]:
    return [" ".join(layer.modules) for layer in layers_of(backbone)]


def test_layers_are_the_blocks_of_a_network_from_the_input_on() -> None:
    pytest.importorskip("timm")
    assert names(build_cifar10("fast", 10))[:3] == ["whitening stages.0", "stages.1", "stages.2"]
    resnet = names(without_head(*build_network("timm:resnet18", 1000)))
    assert resnet[0] == "conv1 bn1 act1 maxpool"
    blocks = [f"layer{number}.{block}" for number in range(1, 5) for block in range(2)]
    assert resnet[1:] == [*blocks[:-1], "layer4.1 global_pool fc"]
    vit = without_head(*build_network("timm:test_vit", 1000))
    assert names(vit)[0].startswith("patch_embed")
    assert layers_of(vit)[0].parameters[:2] == ["cls_token", "pos_embed"]
    assert [name.split()[0] for name in names(vit)[1:]] == [f"blocks.{number}" for number in range(len(names(vit)) - 1)]


@pytest.mark.parametrize("architecture", ["other:fast", "other:resnet20", "small", "timm:test_convnext"])
def test_every_weight_that_can_be_trained_is_in_one_layer(architecture: str) -> None:
    backbone = backbone_of(architecture)
    listed = [name for layer in layers_of(backbone) for name in layer.parameters]
    assert len(listed) == len(set(listed))
    assert set(listed) == {name for name, p in backbone.named_parameters() if p.requires_grad}


def step(network: Classifier, optimizer: torch.optim.Optimizer, seed: int = 0) -> None:
    images = torch.randn(6, 3, 32, 32, generator=torch.Generator().manual_seed(seed))
    network.train()
    F.cross_entropy(network(images), torch.arange(6) % 3).backward()
    optimizer.step()
    optimizer.zero_grad()


def changed(network: nn.Module, before: dict[str, Tensor]) -> set[str]:
    return {name for name, tensor in network.state_dict().items() if not torch.equal(tensor, before[name])}


@pytest.mark.parametrize("num_frozen", [0, 1, 2, 3])
def test_frozen_layers_keep_weights_and_norm_statistics_and_others_do_not(num_frozen: int) -> None:
    network = classifier()
    optimizer = build_optimizer(network, settings("--strategy", "gradual", "--lr", 0.1, "--backbone-lr", 1))
    network.freeze(num_frozen)
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    for seed in range(2):
        step(network, optimizer, seed)
    frozen = tuple(f"backbone.{name}." for layer in network.layers[:num_frozen] for name in layer.modules)
    kept = {name for name in before if name.startswith(frozen) or name == "backbone.whitening.weight"}
    assert changed(network, before) == set(before) - kept
    assert "backbone.stages.0.norm1.running_mean" in (kept if num_frozen else set(before) - kept)


def test_norms_that_are_kept_have_their_weights_trained_and_their_statistics_not() -> None:
    network = build_classifier(backbone_of("other:fast"), 3, 32, 0.0, keeps_norms=True).train()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    step(network, build_optimizer(network, settings("--lr", 0.1, "--backbone-lr", 1)), 0)
    trained = {name for name, parameter in network.named_parameters() if parameter.requires_grad}
    assert changed(network, before) == trained


def test_dropout_of_the_head_works_over_a_frozen_backbone() -> None:
    network = classifier(dropout=0.5)
    network.freeze(len(network.layers))
    network.train()
    assert network.head.training
    assert not any(module.training for module in network.backbone.modules())
    images = torch.randn(4, 3, 32, 32)
    assert not torch.equal(network(images), network(images))


def test_a_thawed_layer_is_trained_again_and_a_copy_knows_its_own_layers() -> None:
    network = classifier()
    network.freeze(3)
    other = copy.deepcopy(network)
    other.freeze(1)
    other.train()
    assert not network.backbone.get_parameter("stages.2.conv1.weight").requires_grad
    assert other.backbone.get_parameter("stages.2.conv1.weight").requires_grad
    assert other.backbone.get_submodule("stages.2").training
    assert not other.backbone.get_submodule("stages.0").training
    other.freeze(0)
    assert not other.backbone.get_parameter("whitening.weight").requires_grad, "it was never learned"


def test_frozen_parts_are_in_no_group_of_the_optimizer() -> None:
    network = classifier()
    groups = parameter_groups(network, settings("--strategy", "head"))
    trained = [p for group in groups for p in group["params"]]
    assert {id(p) for p in trained} == {id(p) for p in network.head.parameters()}


def rates(network: Classifier, *argv: object) -> dict[str, float]:
    groups = parameter_groups(network, settings(*argv))
    rate = {id(p): group["lr"] for group in groups for p in group["params"]}
    return {name: rate[id(p)] for name, p in network.named_parameters() if id(p) in rate}


def test_head_and_layers_have_rates_of_their_own() -> None:
    found = rates(classifier(), "--lr", 0.01, "--backbone-lr", 0.5, "--layer-decay", 0.1)
    assert found["head.1.weight"] == found["head.1.bias"] == 0.01
    assert found["backbone.stages.2.conv2.weight"] == found["backbone.stages.2.norm1.bias"] == pytest.approx(0.005)
    assert found["backbone.stages.1.conv1.weight"] == pytest.approx(0.0005)
    assert found["backbone.stages.0.norm2.weight"] == pytest.approx(0.00005)
    assert "backbone.whitening.weight" not in found


def test_only_filters_and_matrices_decay() -> None:
    network = classifier()
    groups = parameter_groups(network, settings("--weight-decay", 0.1))
    for group in groups:
        assert {p.ndim > 1 for p in group["params"]} == {group["weight_decay"] == 0.1}
    assert sum(len(group["params"]) for group in groups) == sum(p.requires_grad for p in network.parameters())


def test_gradual_thaws_one_layer_after_the_other_and_each_begins_with_a_rate_of_nearly_zero() -> None:
    steps, network = 100, classifier()
    config = settings("--strategy", "gradual", "--thaw", 0.6, "--lr", 1, "--backbone-lr", 1, "--warmup", 0.1)
    frozen = [num_frozen_at(number / steps, 3, config) for number in range(steps)]
    assert [frozen.index(num) for num in (3, 2, 1, 0)] == [0, 20, 40, 60]
    optimizer = build_optimizer(network, config)
    scheduler = LambdaLR(optimizer, build_schedules(optimizer, config, steps))
    ways: list[list[float]] = []
    for _ in range(steps):
        ways.append([group["lr"] for group in optimizer.param_groups])
        optimizer.step()
        scheduler.step()
    for number, way in enumerate(zip(*ways, strict=True)):
        layer = 0 if number < 2 else 1 + (number - 2) // 2  # matrices and vectors of the head, then of each layer
        begin = 20 * layer
        assert not any(way[:begin])
        assert 0 < way[begin] < 0.35 * max(way)
        assert max(way) == pytest.approx(1, abs=0.15)
        assert way[-1] < 0.01


def test_the_other_strategies_do_not_thaw() -> None:
    assert {num_frozen_at(done / 10, 5, settings("--strategy", "head")) for done in range(10)} == {5}
    assert {num_frozen_at(done / 10, 5, settings()) for done in range(10)} == {0}


def test_the_small_network_has_the_classes_asked_for_and_takes_other_sizes() -> None:
    network = SmallNet(4).eval()
    for size in (16, 33, 64):
        assert network(torch.zeros(2, 3, size, size)).shape == (2, 4)
