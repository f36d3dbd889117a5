"""The classic networks: sizes of their papers, any number of classes, loss that falls, the same numbers in ONNX."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from core.errors import UserError
from core.export import save_graph
from core.parity import difference, run_both
from core.vision.classification_export import classifier_spec
from core.vision.network_file import load_network, save_network
from core.vision.preprocessing import CenterSquare, ImageClassifier
from projects.cifar10.config import MODELS
from projects.cifar10.model import NETWORKS, build_model, check_image_size
from projects.cifar10.networks.densenet import DenseNet
from projects.cifar10.networks.lenet import LeNet
from projects.cifar10.networks.resnet import ResNet
from projects.cifar10.networks.vgg import Vgg11
from projects.cifar10.networks.vit import VisionTransformer
from projects.cifar10.synthetic import draw_images

# The same classes with fewer layers where the whole network would take long.
SMALL: dict[str, Callable[[int], nn.Module]] = {
    **{name: NETWORKS[name] for name in ("lenet", "alexnet", "mlp", "fast")},
    "vgg11": Vgg11,
    "densenet": lambda classes: DenseNet(classes, depth=16),
    "vit-tiny": lambda classes: VisionTransformer(classes, blocks=2),
    "resnet50": lambda classes: ResNet(classes, widths=(8, 16), blocks=(1, 2), bottleneck=True),
}


def weights_of(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def test_every_name_has_a_network() -> None:
    assert set(NETWORKS) == set(MODELS)


# lenet: LeCun et al. 1998 for one channel; 300 more for three. vgg11: the convolutions of the paper's configuration A,
# 9,220,480, norms, and the head. densenet: 0.8 million in Huang et al. 2017. alexnet: bearpaw's 2.47 million.
@pytest.mark.parametrize(
    ("name", "published"),
    [
        ("lenet", 61_706 + 300),
        ("alexnet", 2_472_266),
        ("vgg11", 9_220_480 + 2 * 2_752 + 5_130),
        ("densenet", 769_162),
        ("resnet50", 23_520_842),
        ("mlp", 3072 * 1024 + 1024 + 1024 * 512 + 512 + 512 * 10 + 10),
    ],
)
def test_the_number_of_weights_is_the_published_one(name: str, published: int) -> None:
    assert weights_of(build_model(name, 10)) == published


def test_lenet_of_one_channel_and_the_tiny_transformer_of_its_paper_have_their_papers_sizes() -> None:
    assert weights_of(LeNet(10, channels=1)) == 61_706
    assert (
        weights_of(VisionTransformer(1000, patch=16, grid=14)) == 5_717_416 - 2 * 192
    )  # less the class token and its position


@pytest.mark.parametrize("name", SMALL)
def test_logits_are_of_the_classes_and_a_few_steps_lower_the_loss(name: str, batch: tuple[Tensor, Tensor]) -> None:
    torch.manual_seed(0)
    network = SMALL[name](10)
    optimizer = torch.optim.AdamW(network.parameters(), lr=0.0005 if name == "mlp" else 0.003)
    losses = []
    for _ in range(8):
        logits = network(batch[0])
        assert logits.shape == (64, 10)
        loss = F.cross_entropy(logits, batch[1])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.95 * losses[0]


@pytest.fixture(scope="module")
def batch() -> tuple[Tensor, Tensor]:
    pixels, labels = draw_images(64, seed=0)
    return (torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255 - 0.5) / 0.25, torch.from_numpy(labels)


@dataclass(frozen=True)
class Facts:
    """What inference reads."""

    classes: tuple[str, ...] = ("a", "b", "c")


@pytest.mark.parametrize("name", ["lenet", "alexnet", "mlp", "densenet", "vit-tiny"])
def test_the_exported_file_equals_the_network_at_other_sizes_of_images(name: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    mean, std = (0.5, 0.5, 0.5), (0.25, 0.25, 0.25)
    deployed = ImageClassifier(SMALL[name](3), CenterSquare(32, mean, std), test_flip=False).eval()
    spec = classifier_spec(deployed, "test", Facts(), 3)
    save_graph(spec, tmp_path / "model.onnx")
    shapes = set()
    for inputs, found, expected in run_both(spec, tmp_path / "model.onnx"):
        shapes.add(inputs[0].shape[1:3])
        assert difference(found[0], expected[0]) < 1e-4
    assert len(shapes) > 3


@pytest.mark.parametrize("name", SMALL)
def test_other_projects_can_build_on_every_network(name: str, tmp_path: Path) -> None:
    network = SMALL[name](3).eval()
    about = {"image_size": 32, "mean": (0.5,) * 3, "std": (0.2,) * 3, "classes": ("a", "b", "c")}
    save_network(tmp_path / "network.safetensors", network, architecture=name, **about)  # type: ignore[arg-type]
    loaded = load_network(tmp_path / "network.safetensors").network.eval()
    images = torch.randn(2, 3, 40, 40)
    assert torch.equal(loaded(images), network(images))


@pytest.mark.parametrize(("name", "size"), [("alexnet", 16), ("vgg11", 31)])
def test_an_image_that_pooling_leaves_nothing_of_is_refused(name: str, size: int) -> None:
    with pytest.raises(UserError, match="give a larger --image-size"):
        check_image_size(build_model(name, 10), name, size)
