"""The feature classifier: trained, taken from a run of another project, and the same one after a resume."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from core.accelerator import Accelerator
from core.errors import UserError
from core.plain import to_plain
from core.run_record import FORMAT
from core.vision.image_set import ImageSet, from_pixels
from core.vision.network_file import FILE_NAME, ImageNetwork, save_network
from projects.gan.config import Config
from projects.gan.data import Data, pixels_of
from projects.gan.feature_classifier import (
    STORED_NAME,
    FeatureClassifier,
    SmallClassifier,
    classifier_of_run,
    find_classifier,
    stored_classifier,
)
from projects.gan.synthetic import CLASSES, generate_images
from tests.projects.gan.conftest import facts

CPU = Accelerator(device="cpu", precision="fp32")


def shapes(*, gray: bool = False, size: int = 8, num: int = 400) -> Data:
    pixels, labels = generate_images(num, 0, size)
    images = from_pixels(pixels[..., :1].copy() if gray else pixels, labels)
    rows = torch.arange(num).numpy()
    return Data(CLASSES, images.take(rows[: num // 2]), images.take(rows[num // 2 :]))


def find(steps: int, data: Data | None = None, resumed: Path | None = None) -> FeatureClassifier:
    config = Config(image_size=8, classifier_steps=steps, num_synthetic=200)
    return find_classifier(config, data or shapes(), CPU, resumed)


def predict(classifier: FeatureClassifier, images: ImageSet) -> tuple[Tensor, Tensor]:
    return classifier.predict(pixels_of(images), CPU)


def test_it_learns_the_classes_of_the_images_and_says_how_well() -> None:
    data = shapes()
    classifier = find(40)
    features, labels = predict(classifier, data.held_out)
    right = float((labels.numpy() == data.held_out.labels).mean())
    assert right > 0.6
    assert f"{right:.0%} of held-out" in classifier.title
    assert (features.dtype, features.shape) == (torch.float32, (200, 64))
    assert classifier.has_classes(CLASSES)


def test_it_is_the_same_one_each_time() -> None:
    assert find(3).facts() == find(3).facts() != find(4).facts()


def test_features_are_the_input_of_the_last_layer() -> None:
    torch.manual_seed(0)
    data, network = shapes(), SmallClassifier(3, 4)
    classifier = FeatureClassifier(ImageNetwork(network, "small", 8, (0.2,) * 3, (0.5,) * 3, CLASSES), "test")
    features, labels = predict(classifier, data.held_out)
    with torch.no_grad():
        assert torch.equal(network.head(features).argmax(1), labels)
        assert network.training  # evaluation mode was for the prediction alone
        pixels = pixels_of(data.held_out).permute(0, 3, 1, 2)
        assert torch.equal(network.eval()((pixels / 255 - 0.2) / 0.5).argmax(1), labels)


def test_images_without_classes_are_measured_by_a_classifier_of_synthetic_shapes() -> None:
    data = shapes()
    classifier = find(40, Data([], data.train, data.held_out))
    assert "synthetic shapes" in classifier.title
    assert not classifier.has_classes([])
    assert predict(classifier, shapes(gray=True).held_out)[0].shape == (200, 64)  # three channels from one


def test_the_classifier_of_a_run_is_the_same_after_a_resume(tmp_path: Path) -> None:
    classifier = find(3)
    body = {"format": FORMAT, "project": "gan", "facts": to_plain(facts(classifier=classifier.facts()))}
    (tmp_path / "run.json").write_text(json.dumps(body))
    assert stored_classifier(tmp_path) is None  # stopped before it was stored
    classifier.store(tmp_path)
    again = find(99, resumed=tmp_path)
    assert again.facts() == classifier.facts()
    assert torch.equal(*(predict(each, shapes().held_out)[0] for each in (classifier, again)))
    (tmp_path / STORED_NAME).unlink()
    find(4).store(tmp_path)
    with pytest.raises(UserError, match=STORED_NAME):
        stored_classifier(tmp_path)


def other_run(run_dir: Path, network: nn.Module) -> Path:
    """A run folder with the file that a classifier's training stores for other projects."""
    run_dir.mkdir(exist_ok=True)
    normalization = {"mean": [0.4] * 3, "std": [0.2] * 3}
    path = run_dir / FILE_NAME
    save_network(path, network, architecture="small", image_size=16, classes=["a", "b", "c"], **normalization)
    return run_dir


class Nested(nn.Module):
    """A classifier whose layers are part of a module of its own, as those of larger networks are."""

    def __init__(self) -> None:
        super().__init__()
        self.body = SmallClassifier(3, 3)

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.body(images)
        return logits


@pytest.mark.parametrize("kind", [SmallClassifier, Nested])
def test_another_runs_network_measures_at_its_own_size_and_can_be_stored(kind: type[nn.Module], tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = (SmallClassifier(3, 3) if kind is SmallClassifier else Nested()).eval()
    classifier = classifier_of_run(other_run(tmp_path / "run 7", network))
    assert "run 7" in classifier.title
    data = shapes(size=16)
    features, labels = predict(classifier, data.held_out)
    with torch.inference_mode():
        expected = network((pixels_of(data.held_out).permute(0, 3, 1, 2) / 255 - 0.4) / 0.2).argmax(1)
    assert torch.equal(labels, expected)
    assert predict(classifier, shapes(size=8).held_out)[0].shape == features.shape == (200, 64)
    assert classifier.has_classes(["a", "b", "c"])
    assert not classifier.has_classes(["a", "c", "b"])
    body = {"format": FORMAT, "project": "gan", "facts": to_plain(facts(classifier=classifier.facts()))}
    (tmp_path / "run.json").write_text(json.dumps(body))
    classifier.store(tmp_path)
    again = stored_classifier(tmp_path)
    assert again is not None
    assert torch.equal(predict(again, data.held_out)[0], features)


def without_file(run_dir: Path) -> None:
    run_dir.mkdir()


def with_torn_file(run_dir: Path) -> None:
    path = other_run(run_dir, SmallClassifier(3, 3)) / FILE_NAME
    path.write_bytes(path.read_bytes()[:999])


def without_linear_layer(run_dir: Path) -> None:
    other_run(run_dir, nn.Sequential(nn.Conv2d(3, 3, 16), nn.Flatten()))


@pytest.mark.parametrize("make", [without_file, with_torn_file, without_linear_layer])
def test_a_run_without_a_usable_classifier_is_named(make: Callable[[Path], None], tmp_path: Path) -> None:
    make(tmp_path / "run")
    with pytest.raises(UserError, match=str(tmp_path / "run")):
        classifier_of_run(tmp_path / "run")
