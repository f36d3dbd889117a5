"""Train, export, infer as a user runs them: what is printed, what lies on the disk, and that the pictures agree."""

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from PIL import Image

from core.config import from_plain
from core.errors import UserError
from core.export import chosen_checkpoint
from core.inference import OnnxModel
from projects.gan.config import Config
from projects.gan.export import build_deployed, export, inputs
from projects.gan.infer import TASK, draw, wanted_labels
from projects.gan.judge import kept
from projects.gan.synthetic import CLASSES
from tests.conftest import ROOT, Program
from tests.projects.gan.conftest import Smoke, summary


def test_training_says_how_good_the_samples_are_and_what_to_run_next(smoke: Smoke) -> None:
    said = smoke.trained.stdout
    for line in ("Fréchet dist.  ", "real pictures ", "untrained generator ", "classes        ", "copies         "):
        assert line in said
    assert "in features of a small classifier of the training pictures' classes" in said
    assert "FID, KID       not measured" in said
    assert f"run folder     {smoke.run_dir}" in said
    assert said.rstrip().endswith(f"python -m projects.gan.export {smoke.run_dir}")
    assert "Warning" not in smoke.trained.stderr


def test_the_distance_fell_far_below_the_untrained_generators_and_real_pictures_are_nearer(smoke: Smoke) -> None:
    found = summary(smoke.run_dir)
    assert found["frechet"] < 0.5 * found["frechet_untrained"]
    assert found["frechet_real"] < 0.1 * found["frechet"]
    assert found["frechet_share"] == pytest.approx(found["frechet"] / found["frechet_untrained"])
    assert found["copies"] == 0
    assert 0 < found["nearest_grey_levels"] < 100
    lines = [json.loads(line) for line in (smoke.run_dir / "metrics.jsonl").read_text().splitlines()]
    distances = [line["val/frechet"] for line in lines if "val/frechet" in line]
    assert min(distances[-2:]) < 0.7 * distances[0]


def test_a_run_folder_holds_pictures_of_every_epoch_and_a_moving_one(smoke: Smoke) -> None:
    plots = smoke.run_dir / "plots"
    grids = sorted((plots / "samples").iterdir())
    assert [path.name for path in grids] == [f"step-{120 * k:08d}.png" for k in range(1, 5)]
    for name in ("samples", "interpolation", "nearest", "curves", "distance"):
        with Image.open(plots / f"{name}.png") as picture:
            picture.load()
            assert min(picture.size) > 190
    with Image.open(plots / "training.webp") as moving:
        assert moving.n_frames == 4  # type: ignore[attr-defined]
    with Image.open(plots / "samples.png") as best, Image.open(grids[-1]) as last:
        assert best.size == last.size
    run = json.loads((smoke.run_dir / "run.json").read_text())
    assert run["facts"]["classes"] == list(CLASSES)
    assert kept(smoke.run_dir) is not None


def test_export_writes_a_file_that_says_what_it_is(smoke: Smoke) -> None:
    path = smoke.run_dir / "model.onnx"
    assert f"python -m projects.gan.infer {path}" in smoke.exported
    told = {entry.key: entry.value for entry in onnx.load(str(path)).metadata_props}
    assert json.loads(told["classes"]) == list(CLASSES)
    assert (told["project"], told["task"], told["latent"]) == ("gan", TASK, "32")
    assert json.loads(told["metrics"])["frechet"] == summary(smoke.run_dir)["frechet"]
    assert int(told["step"]) == summary(smoke.run_dir)["best_step"]
    assert str(smoke.run_dir) not in path.read_bytes().decode("latin-1")


@pytest.mark.parametrize("num", [1, 5, 130])
def test_the_file_draws_what_pytorch_draws_at_other_numbers_than_the_exports(smoke: Smoke, num: int) -> None:
    _, state, run = chosen_checkpoint(smoke.run_dir, "best", "gan")
    config = from_plain(Config, run["config"], "run.json")
    network = build_deployed(run["facts"], config, state["ema"]["module"])
    noise, labels = inputs(num, config.latent, len(CLASSES))
    with torch.inference_mode():
        expected = network(noise, labels).numpy().astype(int)
    found = OnnxModel(smoke.run_dir / "model.onnx", task=TASK, threads=1).run(noise=noise.numpy(), label=labels.numpy())
    apart = np.abs(found["image"].astype(int) - expected)
    assert apart.max() <= 1
    assert (apart > 0).mean() < 0.001


def test_the_seed_decides_the_pictures_and_few_are_the_first_of_many(smoke: Smoke) -> None:
    model = OnnxModel(smoke.run_dir / "model.onnx", task=TASK, threads=1)
    labels = np.arange(100, dtype=np.int64) % 4
    first, again, other = (draw(model, 100, seed, labels) for seed in (1, 1, 2))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)
    assert np.abs(draw(model, 3, 1, labels[:3]).astype(int) - first[:3]).max() <= 1
    assert len({picture.tobytes() for picture in first}) == 100


def test_inference_without_torch_draws_a_sheet_and_single_pictures(
    smoke: Smoke, program: Program, tmp_path: Path
) -> None:
    blocked = tmp_path / "blocked"
    blocked.mkdir()
    (blocked / "sitecustomize.py").write_text("import sys\nsys.modules['torch'] = None\n")
    told = {"PYTHONPATH": f"{blocked}:{ROOT}"}
    arguments = [smoke.run_dir / "model.onnx", "--num", 12, "--seed", 5]
    for output in ("one.png", "two.png"):
        done = program("projects.gan.infer", *arguments, "--output", output, env=told)
        assert done.returncode == 0, done.stderr
        assert done.stdout == f"{output}  12 pictures, seed 5\n"
    assert (tmp_path / "one.png").read_bytes() == (tmp_path / "two.png").read_bytes()
    with Image.open(tmp_path / "one.png") as sheet:
        assert sheet.size == (4 * 50 + 2, 3 * 50 + 2)
    done = program("projects.gan.infer", *arguments, "--label", "ring", "--output", "each", env=told)
    assert done.returncode == 0, done.stderr
    names = sorted(path.name for path in (tmp_path / "each").iterdir())
    assert names == [f"{number:06d}-ring.png" for number in range(12)]
    with Image.open(tmp_path / "each" / names[3]) as picture:
        assert (picture.mode, picture.size) == ("RGB", (16, 16))


def test_the_class_asked_for_changes_the_picture_of_the_same_noise(smoke: Smoke) -> None:
    model = OnnxModel(smoke.run_dir / "model.onnx", task=TASK, threads=1)
    drawn = [draw(model, 50, 3, np.full(50, label, dtype=np.int64)).astype(float) for label in range(4)]
    assert all(np.abs(a - b).mean() > 0.2 for k, a in enumerate(drawn) for b in drawn[:k])
    every, some = wanted_labels(model, None, 6), wanted_labels(model, ["square", "ring"], 5)
    assert every is not None
    assert some is not None
    assert [CLASSES[k] for k in every] == [*CLASSES, *CLASSES[:2]]
    assert [CLASSES[k] for k in some] == ["square", "ring", "square", "ring", "square"]


@pytest.mark.parametrize(("choice", "words"), [("999999", "step-00999999"), ("newest", "--checkpoint newest")])
def test_a_checkpoint_that_is_not_there_is_named(smoke: Smoke, choice: str, words: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=words):
        export(smoke.run_dir, choice, tmp_path / "model.onnx")
    with pytest.raises(UserError, match="nowhere"):
        export(smoke.run_dir, "best", tmp_path / "nowhere" / "model.onnx")
    assert not list(tmp_path.iterdir())
