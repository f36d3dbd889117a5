"""The smoke run's numbers: what training says is what the exported files give, in 8 bits too."""

import json
from pathlib import Path

from PIL import Image

from projects.cifar10.outlines import CLASSES
from projects.cifar10.synthetic import draw_images
from tests.conftest import Program
from tests.forked import summary
from tests.smoke import Smoke


def test_the_network_learned_and_the_plots_are_there(smoke: Smoke) -> None:
    assert summary(smoke.run_dir)["test_accuracy"] > 0.4
    assert {path.stem for path in (smoke.run_dir / "plots").iterdir()} == {"curves", "confusion", "mistakes"}
    run = json.loads((smoke.run_dir / "run.json").read_text())
    assert run["facts"]["classes"] == list(CLASSES)
    assert run["environment"]["kernels"].startswith("cpu-") or "plain PyTorch" in run["environment"]["kernels"]


def test_the_8_bit_copy_is_smaller_and_nearly_as_right(smoke: Smoke) -> None:
    path = smoke.run_dir / "model.int8.onnx"
    report = json.loads((smoke.run_dir / "model.int8.parity.json").read_text())
    assert path.stat().st_size < 0.7 * (smoke.run_dir / "model.onnx").stat().st_size
    assert report["int8"]["val_accuracy"] >= report["fp32"]["val_accuracy"] - 0.01


def test_inference_is_as_right_as_training_said(smoke: Smoke, program: Program, tmp_path: Path) -> None:
    config = json.loads((smoke.run_dir / "run.json").read_text())["config"]
    num = config["num_synthetic"] // 6
    pixels, labels = draw_images(num, config["seed"], config["image_size"])
    for number, (image, label) in enumerate(zip(pixels, labels, strict=True)):
        folder = tmp_path / "test" / CLASSES[label]
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(folder / f"{number:05}.png")
    accuracies = []
    for model in ("model.onnx", "model.int8.onnx"):
        done = program("projects.cifar10.infer", smoke.run_dir / model, "test", "--json")
        assert done.returncode == 0, done.stderr
        lines = [json.loads(line) for line in done.stdout.splitlines()]
        accuracies.append(sum(line["label"] == Path(line["path"]).parent.name for line in lines) / num)
        assert f"accuracy {accuracies[-1]:.4f} of {num:,} images" in done.stderr
    assert abs(accuracies[0] - summary(smoke.run_dir)["test_accuracy"]) <= 2 / 500  # bf16 there, float32 here
    assert abs(accuracies[1] - accuracies[0]) < 0.03
