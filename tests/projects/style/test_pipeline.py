"""Train, export, infer as a user runs them: what is printed, what lies on the disk, and that the numbers agree."""

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from core.errors import UserError
from core.export import chosen_checkpoint
from core.inference import OnnxModel
from projects.style.config import Config
from projects.style.export import build_deployed, export, num_channels
from projects.style.infer import TASK
from projects.style.model import StyleNet, one_hot
from projects.style.synthetic import STYLES, draw_landscapes
from projects.style.train import parse_arguments, train
from tests.conftest import ROOT, Program
from tests.projects.style.conftest import TINY, summary
from tests.smoke import Smoke

OFFLINE = "random multi-scale filters (not pretrained)"


def test_training_says_where_everything_is_and_what_the_losses_look_at(smoke: Smoke) -> None:
    said = smoke.trained.stdout
    assert f"run folder     {smoke.run_dir}" in said
    assert said.rstrip().endswith(f"python -m projects.style.export {smoke.run_dir}")
    assert said.count(OFFLINE) == 2
    assert "Traceback" not in smoke.trained.stderr
    assert "Warning" not in smoke.trained.stderr


def test_a_run_folder_holds_settings_metrics_and_pictures(smoke: Smoke) -> None:
    run = json.loads((smoke.run_dir / "run.json").read_text())
    assert run["project"] == "style"
    assert run["facts"]["styles"] == list(STYLES)
    assert run["facts"]["features"] == summary(smoke.run_dir)["features"] == OFFLINE
    for name in ("curves", "sheet", "progress", "comparison"):
        with Image.open(smoke.run_dir / "plots" / f"{name}.png") as picture:
            picture.load()
            assert min(picture.size) > 80


def test_the_loss_fell_and_is_compared_with_300_steps_on_a_photograph_not_seen(smoke: Smoke) -> None:
    lines = [json.loads(line) for line in (smoke.run_dir / "metrics.jsonl").read_text().splitlines()]
    losses = [line["train/loss"] for line in lines if "train/loss" in line]
    assert losses[-1] < 0.8 * losses[0]
    found = json.loads((smoke.run_dir / "summary.json").read_text())
    config = found["config"]
    parts = {name: found[f"held_out_{name}"] * config[f"{name}_weight"] for name in ("content", "style", "tv")}
    assert found["held_out_loss"] == pytest.approx(sum(parts.values()), rel=1e-4)
    assert found["num_compared"] == len(STYLES)
    assert found["loss_ratio"] == pytest.approx(found["network_loss"] / found["optimized_loss"])
    assert found["optimized_loss"] < found["network_loss"] < 10 * found["optimized_loss"]
    assert found["optimized_milliseconds"] > 10 * found["network_milliseconds"] > 0


def test_export_writes_a_file_of_standard_operators_that_says_what_it_is(smoke: Smoke, model_path: Path) -> None:
    assert smoke.exported.returncode == 0, smoke.exported.stderr
    assert f"python -m projects.style.infer {model_path}" in smoke.exported.stdout
    assert OFFLINE in smoke.exported.stdout
    model = onnx.load(str(model_path))
    told = {entry.key: entry.value for entry in model.metadata_props}
    assert json.loads(told["styles"]) == list(STYLES)
    assert (told["project"], told["task"], told["features"]) == ("style", "style transfer", OFFLINE)
    assert {node.domain for node in model.graph.node} == {""}
    assert str(smoke.run_dir) not in model_path.read_bytes().decode("latin-1")
    report = json.loads((smoke.run_dir / "model.parity.json").read_text())
    assert len(report["checks"]) >= 4
    assert all(0 <= check["max_difference"] <= report["tolerance"] for check in report["checks"])
    assert report["milliseconds_per_megapixel"] > 0


def test_the_file_holds_the_network_and_nothing_of_the_features(smoke: Smoke, model_path: Path) -> None:
    _, state, _ = chosen_checkpoint(smoke.run_dir, "best", "style")
    weights = state["ema"]["module"]
    in_file = sum(int(np.prod(each.dims)) for each in onnx.load(str(model_path)).graph.initializer)
    assert abs(in_file - sum(tensor.numel() for tensor in weights.values())) < 200


def inputs(image: NDArray[np.uint8], blend: list[float], model: OnnxModel, colors: float = 0.0) -> dict[str, object]:
    """One photograph for the graph, by its own statistics."""
    return {
        "image": image[None],
        "blend": np.asarray([blend], np.float32),
        "keep_colors": np.asarray([colors], np.float32),
        "statistics": np.zeros((0, 2, model.metadata["channels"]), np.float32),
    }


@pytest.mark.parametrize(("height", "width"), [(96, 96), (57, 140), (16, 201)])
def test_the_file_paints_what_the_trained_network_paints_at_any_size(
    height: int, width: int, smoke: Smoke, model_path: Path
) -> None:
    _, state, run = chosen_checkpoint(smoke.run_dir, "best", "style")
    network = StyleNet(3, run["config"]["width"], run["config"]["blocks"]).eval()
    network.load_state_dict(state["ema"]["module"])
    model = OnnxModel(model_path, task=TASK, threads=1)
    photograph = draw_landscapes(1, 3, 201)[0][:height, :width].copy()
    image = torch.from_numpy(photograph).permute(2, 0, 1)[None].float() / 255
    for number in range(3):
        with torch.no_grad():
            expected = 255 * network(image, one_hot(torch.tensor([number]), 3))[0].permute(1, 2, 0).numpy()
        blend = [float(k == number) for k in range(3)]
        found = model.run(**inputs(photograph, blend, model))["painted"][0]  # type: ignore[arg-type]
        assert found.dtype == np.uint8
        assert found.shape == photograph.shape
        assert np.abs(found - expected).max() <= 0.51


def test_kept_colors_are_the_photographs_and_the_light_is_the_paintings(model_path: Path) -> None:
    model = OnnxModel(model_path, task=TASK, threads=1)
    photograph = draw_landscapes(1, 4, 80)[0]
    painted, kept = (
        model.run(**inputs(photograph, [1, 0, 0], model, share))["painted"][0].astype(float)  # type: ignore[arg-type]
        for share in (0.0, 1.0)
    )
    free = ((kept > 0) & (kept < 255)).all(2)  # where no channel is at its end
    assert free.mean() > 0.2

    def parts(image: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        light = image @ np.array([0.299, 0.587, 0.114])
        return light, image - light[..., None]

    (light, chroma), (wanted_light, other_chroma) = parts(kept), parts(painted)
    assert np.abs(chroma - parts(photograph.astype(float))[1])[free].max() <= 1.01
    assert np.abs(light - wanted_light)[free].max() <= 1.01
    assert np.abs(other_chroma - parts(photograph.astype(float))[1])[free].mean() > 5


def test_given_statistics_are_used_and_a_pictures_own_are_found(smoke: Smoke) -> None:
    _, state, run = chosen_checkpoint(smoke.run_dir, "best", "style")
    deployed = build_deployed(run["facts"], Config(**run["config"]), state["ema"]["module"])
    one, other = (torch.from_numpy(picture)[None] for picture in draw_landscapes(2, 9, 48))
    blend, none = torch.tensor([[1.0, 0, 0]]), torch.zeros(1)
    with torch.inference_mode():
        empty = torch.zeros(0, 2, num_channels(deployed.network))
        painted, found = deployed(one, blend, none, empty)
        _, others = deployed(other, blend, none, empty)
        assert torch.equal(deployed(one, blend, none, found)[0], painted)
        assert (deployed(one, blend, none, others)[0].int() - painted.int()).abs().max() > 5


def test_inference_without_torch_paints_a_folder_and_a_sheet(
    model_path: Path, photographs: Path, program: Program, tmp_path: Path
) -> None:
    blocked = tmp_path / "blocked"
    blocked.mkdir()
    (blocked / "sitecustomize.py").write_text("import sys\nsys.modules['torch'] = None\n")
    arguments = [model_path, photographs, "--output", "painted", "--style", "mosaic=3", "dots=1", "--size", 50]
    done = program("projects.style.infer", *arguments, env={"PYTHONPATH": f"{blocked}:{ROOT}"})
    assert done.returncode == 0, done.stderr
    painted = sorted((tmp_path / "painted").rglob("*.png"))
    assert len(painted) == 12 + 1
    assert done.stdout.count("ms a megapixel") == 12
    for path in painted:
        with Image.open(path) as picture:
            assert max(picture.size) == 50 or path.name == "sheet.png"


@pytest.mark.parametrize("choice", ["999999", "newest"])
def test_a_checkpoint_that_is_not_there_is_named(choice: str, smoke: Smoke, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=choice):
        export(smoke.run_dir, choice, tmp_path / "model.onnx")
    assert not list(tmp_path.iterdir())


def test_a_run_of_optimize_has_nothing_to_export(tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    train(parse_arguments([*TINY, "--method", "optimize", "--max-steps", "2", "--run-dir", str(run_dir)]))
    before = sorted(run_dir.rglob("*"))
    with pytest.raises(UserError, match="result"):
        export(run_dir, "best", None)
    assert sorted(run_dir.rglob("*")) == before
