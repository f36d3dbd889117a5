"""What all projects promise of resuming and of their command lines; each has its entry in contract.py."""

import dataclasses
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any, get_type_hints

import pytest

from core.command_line import flag
from core.config import RunConfig
from core.errors import UserError
from core.plain import kind
from core.program import parse_training
from tests import emulated_graph, forked
from tests.conftest import Program
from tests.projects.contract import CONTRACTS, Contract, module
from tests.refusals import assert_left_with_2, assert_refused

PROGRAMS = ("train", "export", "infer")
# Settings of core that change nothing of what the steps compute, and so may change on resume.
HARMLESS = {"data", "device", "epochs", "max_steps", "patience", "workers", "checkpoint_every", "keep"} | {
    "profile",
    "graph",
}


@pytest.fixture(scope="module")
def training(project: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ModuleType]:
    """The train program, with all that it imports, ready to be forked; plots are left empty, which saves most of a tiny
    run's time."""
    if project not in CONTRACTS:
        pytest.skip(f"{project} has no entry in tests/projects/contract.py")
    loaded = module(project, "train")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("matplotlib.figure.Figure.savefig", lambda self, path, **_: Path(path).touch())
        folder = tmp_path_factory.mktemp("warm")
        settings = [*CONTRACTS[project].settings, "--max-steps", 2]
        forked.warm_up(forked.main_of(loaded), ["--run-dir", folder / "run", *settings])
        yield loaded


def ending(run_dir: Path, renamed: tuple[str, str] = ("", "")) -> object:
    """What has to be equal at the end of two runs: the last checkpoint, metrics, summary, and all files beside them.

    renamed: a folder's former and present name, where files may name it.
    """
    apart = ("run.json", "run.lock", "metrics.jsonl", "summary.json", "checkpoints", "tensorboard")
    files = {str(p.relative_to(run_dir)): p.read_bytes() for p in run_dir.rglob("*") if p.is_file()}
    former, present = (name.encode() for name in renamed)
    others = {path: content.replace(present, former) for path, content in files.items() if not path.startswith(apart)}
    return forked.ending(run_dir), forked.summary(run_dir), others


# Resuming


@pytest.mark.parametrize("number", [0, 1])
def test_killed_at_any_instant_and_resumed_it_ends_as_the_unbroken_run(
    training: ModuleType, contract: Contract, number: int, tmp_path: Path
) -> None:
    settings = [*contract.settings, *contract.kinds[number].split()]
    share = (0.25, 0.6)[number]
    forked.assert_killed_runs_end_alike(forked.main_of(training), settings, tmp_path, ending, share=share)


def test_stopped_in_an_epoch_and_resumed_with_moved_data_and_other_workers_it_ends_as_the_unbroken_run(
    training: ModuleType, contract: Contract, tmp_path: Path
) -> None:
    (tmp_path / "here").mkdir()
    data, main = contract.write_data(tmp_path / "here"), forked.main_of(training)
    settings = [*contract.settings, "--data", data, *contract.own.split()]
    assert forked.run(main, ["--run-dir", tmp_path / "whole", *settings, "--workers", 0]) == 0
    stopped = forked.stopping_at(3, training)
    assert forked.run(stopped, ["--run-dir", tmp_path / "broken", *settings, "--workers", 1]) == 128 + 15
    assert not (tmp_path / "broken" / "summary.json").exists()
    (tmp_path / "here").rename(tmp_path / "there")
    moved = tmp_path / "there" / data.relative_to(tmp_path / "here")
    assert forked.run(main, ["--resume", tmp_path / "broken", "--data", moved, "--workers", 0]) == 0
    assert ending(tmp_path / "broken", renamed=("/here/", "/there/")) == ending(tmp_path / "whole")


@pytest.mark.parametrize("number", [0, 1])
def test_steps_that_a_gpu_replays_end_as_ordinary_ones(
    training: ModuleType, contract: Contract, number: int, tmp_path: Path
) -> None:
    settings = [*contract.settings, *contract.kinds[number].split()]
    for name in ("ordinary", "replayed"):
        main = emulated_graph.training(forked.main_of(training), replays=name == "replayed")
        assert forked.run(main, ["--run-dir", tmp_path / name, *settings]) == 0
    assert ending(tmp_path / "replayed") == ending(tmp_path / "ordinary")


def test_a_complete_run_says_so_and_goes_on_when_more_epochs_are_asked_for(
    training: ModuleType, contract: Contract, tmp_path: Path
) -> None:
    run_dir, main = tmp_path / "run", forked.main_of(training)
    assert forked.run(main, ["--run-dir", run_dir, *contract.settings, "--epochs", 1]) == 0
    steps, before = forked.summary(run_dir)["steps"], forked.contents(run_dir)
    assert forked.said(main, ["--resume", run_dir], tmp_path) == f"already complete: {run_dir}\n"
    assert forked.contents(run_dir) == before
    assert forked.run(main, ["--resume", run_dir, "--epochs", 2]) == 0
    assert forked.summary(run_dir)["steps"] == 2 * steps


def test_only_harmless_settings_may_change_on_resume_and_the_data_has_to_be_the_same(
    training: ModuleType, contract: Contract, config_class: type[RunConfig], tmp_path: Path
) -> None:
    (tmp_path / "data").mkdir()
    data, run_dir = contract.write_data(tmp_path / "data"), tmp_path / "run"
    settings = [*contract.settings, "--data", data, *contract.own.split(), "--max-steps", 1]
    assert forked.run(forked.main_of(training), ["--run-dir", run_dir, *settings]) == 0
    before = forked.contents(run_dir)
    config = parse_training(config_class, ["--resume", str(run_dir)]).config
    assert {f.name for f in dataclasses.fields(config_class) if f.metadata["harmless"]} == {
        *HARMLESS,
        *contract.harmless.split(),
    }
    for field in dataclasses.fields(config_class):
        if (words := another_value(config, field)) is None:
            continue
        argv = ["--resume", str(run_dir), *words]
        if field.metadata["harmless"]:
            assert getattr(parse_training(config_class, argv).config, field.name) != getattr(config, field.name)
        else:
            with pytest.raises(UserError, match=rf"cannot change on resume: {flag(field.name)} "):
                parse_training(config_class, argv)
    contract.change_data(data)
    assert forked.run(forked.main_of(training), ["--resume", run_dir, "--max-steps", 2]) == 2
    assert forked.contents(run_dir) == before


def another_value(config: RunConfig, field: "dataclasses.Field[Any]") -> list[str] | None:
    """The words that give a setting another value within its bounds; None where there is no such for certain."""
    base, _, choices = kind(get_type_hints(type(config))[field.name])
    value, bounds = getattr(config, field.name), field.metadata["bounds"]
    if field.name in ("device", "data"):
        return None
    if base is bool:
        return [f"--no-{field.name.replace('_', '-')}" if value else flag(field.name)]
    if choices:
        return [flag(field.name), next(choice for choice in choices if choice != value)]
    if base not in (int, float):
        return None
    if value is None:
        return [flag(field.name), str(bounds["low"] or 1)]
    high = bounds["high"]
    if base is float:
        return [flag(field.name), str(value / 2 or 0.5)]
    return [flag(field.name), str(value + 1 if high is None or value < high else value - 1)]


# Command lines


def test_every_flag_refuses_what_its_declaration_excludes(
    config_class: type[RunConfig], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(config_class, "check", lambda self: None)
    monkeypatch.setattr(config_class, "check_present", lambda self, resuming: None)
    hints = get_type_hints(config_class)
    for field in dataclasses.fields(config_class):
        name, bounds = flag(field.name), field.metadata["bounds"]
        base, _, choices = kind(hints[field.name])
        if base in (int, float):
            assert bounds["low"] is not None or bounds["above"] is not None, f"{name} has no lower bound"
        step = 1 if base is int else 1e-3
        beyond = {"low": -step, "high": step, "above": 0, "below": 0}
        wrong = [base(bound + beyond[end]) for end, bound in bounds.items() if bound is not None]
        words = {int: ["1.5", "1_0", "x", ""], float: ["nan", "inf", "1_0", "x", ""]}.get(base, [])
        words += ["no-such-choice"] if choices else []
        for word in [*map(str, wrong), *words]:
            assert_refused(partial(parse_training, config_class, [name, word]), name, tmp_path)
        for end in ("low", "high"):
            if bounds[end] is not None:
                config = parse_training(config_class, [name, str(bounds[end])]).config
                assert getattr(config, field.name) == bounds[end]
        for choice in choices:
            assert getattr(parse_training(config_class, [name, choice]).config, field.name) == choice
    for argv in (["--no-such-flag"], ["--epoch", "1"], ["word"], ["--resume", "a", "--run-dir", "b"]):
        assert_refused(partial(parse_training, config_class, argv), argv[0], tmp_path)
    for place in (".", "nowhere"):
        assert_refused(partial(parse_training, config_class, ["--resume", place]), "run folder", tmp_path)


@pytest.mark.parametrize("name", PROGRAMS)
def test_help_and_wrong_flags_are_answered_before_torch_is_loaded(
    name: str, project: str, program: Program, tmp_path: Path
) -> None:
    done = program(f"projects.{project}.{name}", "--help", torch=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert "--debug" in done.stdout
    required = [] if name == "train" else ["nowhere"]
    done = program(f"projects.{project}.{name}", *required, "--no-such-flag", "1", torch=False)
    assert_left_with_2(done, "error: unknown option: --no-such-flag; ", tmp_path)


def test_an_input_that_is_not_there_leaves_one_line_and_creates_nothing(
    project: str,
    contract: Contract,
    program: Program,
    tmp_path: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    missing, inputs = str(tmp_path / "no-such"), tmp_path_factory.mktemp("inputs")
    argv = {
        "train": [*contract.settings, "--data", missing, "--run-dir", "run"],
        "export": [missing],
        "infer": [missing, *map(str, contract.write_inputs(inputs)), *contract.infer.split()],
    }
    for name, arguments in argv.items():
        done = program(f"projects.{project}.{name}", *arguments)
        assert_left_with_2(done, "error: ", tmp_path)
        assert missing in done.stderr
