"""From training to inference, for all projects: the smoke run, its exported file, and inference where no torch is."""

import json
import shutil
from functools import partial
from pathlib import Path

import onnx
from PIL import Image

from core import checkpoint
from core.config import RunConfig
from core.plain import from_plain
from core.program import ExportOptions, parse_export
from tests import forked
from tests.conftest import ROOT, Program
from tests.projects.contract import Contract, module
from tests.refusals import assert_left_with_2, assert_refused, everything
from tests.smoke import Smoke


def test_the_smoke_run_leaves_a_complete_folder_and_says_what_to_run_next(smoke: Smoke, project: str) -> None:
    folder, said = smoke.run_dir, smoke.trained
    assert not any(word in said.stderr for word in ("Traceback", "Warning", "\r", "\x1b"))  # nor a bar: no terminal
    assert str(folder) in said.stdout
    assert f"python -m projects.{project}.export {folder}" in said.stdout.splitlines()[-1]
    run = json.loads((folder / "run.json").read_text())
    assert run["project"] == project
    config = module(project, "config")
    assert from_plain(config.Config, run["config"], "run.json").smoke.items() <= run["config"].items()
    from_plain(config.Facts, run["facts"], "run.json")
    assert [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert list((folder / "tensorboard").iterdir())
    plots = [path for path in (folder / "plots").iterdir() if path.suffix == ".png"]
    assert folder / "plots" / "curves.png" in plots
    for path in plots:
        with Image.open(path) as image:
            image.load()
            assert min(image.size) > 80, path
    numbers = forked.summary(folder)
    steps = [int(path.name[5:]) for path in checkpoint.folders(folder)]
    assert numbers["steps"] == steps[-1]
    assert numbers["best_step"] in steps


def test_the_exported_file_says_what_it_is_and_equals_the_network(smoke: Smoke, project: str) -> None:
    assert (smoke.exported.returncode, smoke.exported.stderr) == (0, "")
    path = smoke.run_dir / "model.onnx"
    assert f"python -m projects.{project}.infer {path}" in smoke.exported.stdout.splitlines()[-1]
    entries = {entry.key: json.loads(entry.value) for entry in onnx.load(str(path)).metadata_props}
    config = module(project, "config")
    assert entries["project"] == project
    assert entries["task"]
    from_plain(getattr(config, "ModelFacts", config.Facts), entries["facts"], path)
    numbers = forked.summary(smoke.run_dir)
    assert entries["step"] == numbers["best_step"]
    assert numbers.items() <= entries["metrics"].items()
    content = path.read_bytes()
    assert str(smoke.run_dir).encode() not in content
    assert str(ROOT).encode() not in content
    report = json.loads((smoke.run_dir / "model.parity.json").read_text())
    assert len(report["checks"]) >= 3
    assert not list(smoke.run_dir.rglob(".tmp-*"))


def test_a_moved_run_is_exported_and_used_from_another_folder_without_torch(
    smoke: Smoke, project: str, contract: Contract, program: Program, tmp_path: Path
) -> None:
    shutil.copytree(smoke.run_dir, tmp_path / "moved")
    (tmp_path / "elsewhere").mkdir()
    elsewhere = {"cwd": tmp_path / "elsewhere"}
    done = program(f"projects.{project}.export", "../moved", "--checkpoint", "last", "--output", "m.onnx", **elsewhere)
    assert (done.returncode, done.stderr) == (0, "")
    assert (tmp_path / "elsewhere" / "m.parity.json").exists()
    inputs = contract.write_inputs(tmp_path)
    done = program(f"projects.{project}.infer", "m.onnx", *inputs, *contract.infer.split(), torch=False, **elsewhere)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines
    if "--json" in contract.infer:
        assert all(isinstance(json.loads(line), dict) for line in lines)


def test_a_checkpoint_or_a_run_that_is_not_there_is_refused_by_export(
    smoke: Smoke, project: str, config_class: type[RunConfig], tmp_path: Path
) -> None:
    program = module(project, "export")
    options = next(o for o in vars(program).values() if isinstance(o, type) and issubclass(o, ExportOptions))
    other = {"format": 1, "project": "another", "config": {}, "facts": {}}
    for name, content in {"empty": "{}", "torn": "no json", "other": json.dumps(other)}.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "run.json").write_text(content)
    output = ["--output", str(tmp_path / "m.onnx")]
    cases: list[tuple[Path, list[str], str]] = [
        (smoke.run_dir, [*output, "--checkpoint", "999999"], "step-00999999"),
        (smoke.run_dir, [*output, "--checkpoint", "newest"], "--checkpoint newest"),
        (smoke.run_dir, [*output, "--checkpoint=-1"], "--checkpoint -1"),
        (smoke.run_dir, ["--output", str(tmp_path / "nowhere" / "m.onnx")], "nowhere"),
        *((tmp_path / name, output, str(tmp_path / name)) for name in ("nothing", "empty", "torn", "other")),
    ]

    def refused(argv: list[str]) -> None:
        program.export(parse_export(config_class, options, argv))

    before = everything(smoke.run_dir)
    for run_dir, argv, named in cases:
        assert_refused(partial(refused, [str(run_dir), *argv]), named, tmp_path)
    assert everything(smoke.run_dir) == before


def test_a_file_that_is_no_model_of_the_project_is_refused_by_infer(
    smoke: Smoke, project: str, contract: Contract, program: Program, tmp_path: Path
) -> None:
    (tmp_path / "in").mkdir()
    inputs = contract.write_inputs(tmp_path / "in")
    content = (smoke.run_dir / "model.onnx").read_bytes()
    (tmp_path / "in" / "torn.onnx").write_bytes(content[: len(content) // 2])
    model = onnx.load_from_string(content)
    next(entry for entry in model.metadata_props if entry.key == "task").value = '"another"'
    onnx.save(model, str(tmp_path / "in" / "other.onnx"))
    (tmp_path / "out").mkdir()
    for name in ("torn.onnx", "other.onnx"):
        path = tmp_path / "in" / name
        done = program(f"projects.{project}.infer", path, *inputs, *contract.infer.split(), cwd=tmp_path / "out")
        assert_left_with_2(done, "error: ", tmp_path / "out")
        assert name in done.stderr
