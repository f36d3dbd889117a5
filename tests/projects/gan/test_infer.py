"""The smoke run's numbers and plots, its exported generator, and what the infer program writes and refuses."""

import json
import shutil
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from PIL import Image

from core.errors import UserError
from core.inference import OnnxModel
from core.stored_run import load_run
from projects.gan.config import Config, Facts
from projects.gan.export import Deployed, random_inputs
from projects.gan.feature_classifier import STORED_NAME
from projects.gan.infer import choose_labels, file_names, generate, infer, load_model
from projects.gan.networks import build_generator
from projects.gan.synthetic import CLASSES
from tests.forked import metrics, summary
from tests.projects.gan.conftest import export_run, train_tiny
from tests.refusals import assert_refused
from tests.smoke import Smoke


def test_the_distance_fell_far_below_the_untrained_generators_and_that_of_real_images_is_lower(smoke: Smoke) -> None:
    numbers = summary(smoke.run_dir)
    assert numbers["frechet"] < 0.5 * numbers["frechet_untrained"]
    assert numbers["frechet_real"] < 0.1 * numbers["frechet"]
    assert numbers["frechet_share"] == pytest.approx(numbers["frechet"] / numbers["frechet_untrained"])
    assert numbers["copies"] == 0
    assert 0 < numbers["nearest_gray_levels"] < 100
    distances = [line["val/frechet"] for line in metrics(smoke.run_dir) if "val/frechet" in line]
    assert min(distances[-2:]) < 0.7 * distances[0]


def test_the_report_names_what_was_measured_and_what_was_not(smoke: Smoke) -> None:
    for words in ("training images' classes", "untrained generator", "FID, KID", "not measured", "collapse"):
        assert words in smoke.trained.stdout


def test_a_run_folder_holds_images_of_every_epoch_and_an_animation(smoke: Smoke) -> None:
    plots = smoke.run_dir / "plots"
    grids = sorted((plots / "samples").iterdir())
    assert [path.name for path in grids] == [f"step-{120 * k:08d}.png" for k in range(1, 5)]
    assert {path.stem for path in plots.glob("*.png")} == {"samples", "interpolation", "nearest", "curves", "distance"}
    with Image.open(plots / "training.webp") as animation:
        assert animation.n_frames == 4  # type: ignore[attr-defined]
    assert (smoke.run_dir / STORED_NAME).exists()


@pytest.mark.parametrize("num", [1, 5, 130])
def test_the_file_generates_what_pytorch_generates_at_other_numbers_than_the_exports(
    smoke: Smoke, model: OnnxModel[Facts], num: int
) -> None:
    run = load_run(smoke.run_dir, "best", Config, Facts, "generator_")
    generator = build_generator(run.config, run.facts)
    generator.load_state_dict(run.weights("generator_"))
    noise, labels = random_inputs(num, run.facts.latent, len(CLASSES))
    with torch.inference_mode():
        expected = Deployed(generator).eval()(noise, labels).numpy().astype(int)
    apart = np.abs(model.run(noise=noise.numpy(), label=labels.numpy())["image"].astype(int) - expected)
    assert apart.max() <= 1
    assert (apart > 0).mean() < 0.001


def test_the_seed_decides_the_images_and_few_are_the_first_of_many(model: OnnxModel[Facts]) -> None:
    labels = np.arange(100, dtype=np.int64) % 4
    first, again, other = (generate(model, 100, seed, labels) for seed in (1, 1, 2))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)
    assert np.abs(generate(model, 3, 1, labels[:3]).astype(int) - first[:3]).max() <= 1
    assert len({image.tobytes() for image in first}) == 100


def test_the_class_asked_for_changes_the_image_of_the_same_noise(model: OnnxModel[Facts]) -> None:
    images = [generate(model, 50, 3, np.full(50, label, dtype=np.int64)).astype(float) for label in range(4)]
    assert all(np.abs(a - b).mean() > 0.2 for k, a in enumerate(images) for b in images[:k])


def test_classes_take_turns() -> None:
    every, some = choose_labels(CLASSES, None, 6), choose_labels(CLASSES, ["square", "ring"], 5)
    assert every is not None
    assert some is not None
    assert [CLASSES[k] for k in every] == [*CLASSES, *CLASSES[:2]]
    assert [CLASSES[k] for k in some] == ["square", "ring", "square", "ring", "square"]


def test_a_grid_or_a_file_for_each_image_is_written(
    smoke: Smoke, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = [str(smoke.run_dir / "model.onnx"), "--num", "12", "--seed", "5", "--output"]
    for name in ("one.png", "two.png"):
        infer([*arguments, str(tmp_path / name)])
    assert (tmp_path / "one.png").read_bytes() == (tmp_path / "two.png").read_bytes()
    infer([*arguments, str(tmp_path / "two.png")])
    first, second, third = capsys.readouterr().out.splitlines()
    assert first.endswith(" 12 images, seed 5")
    assert second.endswith(" 12 images, seed 5")
    assert "replaced: 1" in third
    infer([*arguments, str(tmp_path / "each"), "--label", "ring", "--json"])
    paths = sorted((tmp_path / "each").iterdir())
    assert [path.name for path in paths] == [f"{number:06d}-ring.png" for number in range(12)]
    records = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [record["path"] for record in records] == [str(path) for path in paths]
    assert {record["label"] for record in records} == {"ring"}
    with Image.open(paths[3]) as image:
        assert (image.mode, image.size) == ("RGB", (16, 16))


def test_class_names_that_are_paths_or_escapes_stay_file_names() -> None:
    classes = ["a/../../x", "..", "\x1b]0;x", "größer 2", "y" * 300]
    names = file_names(5, np.arange(5), classes)
    assert [Path(name).name for name in names] == names
    assert all(name.isprintable() and len(name) < 100 for name in names)
    assert names[0] == "000000-a_x.png"
    assert names[3] == "000003-größer_2.png"


def test_a_generator_without_classes_is_exported_and_takes_no_label(tmp_path: Path) -> None:
    train_tiny(tmp_path / "run", "--no-conditional", "--spectral-norm", "both", "--max-steps", "2")
    path = str(export_run(tmp_path / "run"))
    infer([path, "--num", "3", "--output", str(tmp_path / "images")])
    assert sorted(file.name for file in (tmp_path / "images").iterdir()) == [f"00000{k}.png" for k in range(3)]
    with pytest.raises(UserError, match="--label ring"):
        infer([path, "--label", "ring", "--output", str(tmp_path / "a.png")])


def test_what_cannot_be_is_refused_and_nothing_is_written(
    smoke: Smoke, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    model = str(smoke.run_dir / "model.onnx")
    Path("taken").write_text("a file")
    Path("folder.png").mkdir()
    cases = {
        "--output": [],
        "--label cat": ["--output", "a.png", "--label", "cat"],
        "--num": ["--output", "a.png", "--num", "0"],
        "--seed -1": ["--output", "a.png", "--seed", "-1"],
        "nowhere/a.png": ["--output", "nowhere/a.png"],
        "folder.png": ["--output", "folder.png"],
        "taken": ["--output", "taken"],
    }
    for named, arguments in cases.items():
        assert_refused(partial(infer, [model, *arguments]), named, tmp_path)


WRONG_FACTS: dict[str, dict[str, Any]] = {
    "a number": {"classes": 4},
    "too many": {"classes": [*CLASSES, "star"]},
    "none": {"classes": []},
    "other latent": {"latent": 33},
}


@pytest.mark.parametrize("changes", WRONG_FACTS.values(), ids=WRONG_FACTS.keys())
def test_a_file_whose_facts_do_not_fit_its_graph_is_named(
    smoke: Smoke, changes: dict[str, Any], tmp_path: Path
) -> None:
    path = tmp_path / "model.onnx"
    shutil.copy(smoke.run_dir / "model.onnx", path)
    content = onnx.load(str(path))
    entry = next(each for each in content.metadata_props if each.key == "facts")
    entry.value = json.dumps({**json.loads(entry.value), **changes})
    onnx.save(content, str(path))
    assert_refused(partial(infer, [str(path), "--output", str(tmp_path / "a.png")]), str(path), tmp_path)


def test_the_smoke_runs_file_fits_its_facts(smoke: Smoke) -> None:
    assert load_model(smoke.run_dir / "model.onnx").facts.labels == CLASSES
