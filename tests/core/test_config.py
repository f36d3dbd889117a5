"""A wrong flag is answered by name, before torch is loaded and anything is written."""

import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import pytest

from core.config import RunConfig, check, option
from core.errors import UserError
from core.program import TrainCommand, parse_training

ROOT = Path(__file__).parents[2]
Program = Callable[..., "subprocess.CompletedProcess[str]"]


@dataclass(frozen=True, kw_only=True)
class Config(RunConfig):
    """A project's settings with every kind of field."""

    smoke: ClassVar[Mapping[str, Any]] = {"epochs": 2}

    flavor: Literal["plain", "sour"] = option("plain", "how it tastes")
    rate: float = option(0.5, "share, in 100 %", low=0, below=1)
    flip: bool = option(True, "mirror images")
    source: Path | None = option(None, "a folder")
    limit: int | None = option(None, "largest number", low=1)

    def check(self) -> None:
        """Raises UserError for a combination."""
        if self.flavor == "sour" and self.limit is None:
            raise UserError("no limit", "--flavor sour", "give --limit")


def parse(*argv: object) -> TrainCommand[Config]:
    """A parsed command line."""
    return parse_training(Config, [str(word) for word in argv])


WRONG = [
    (["--epoch", "3"], "--epochs"),
    (["--batchsize", "3"], "--batch-size"),
    (["--learning-rate=1"], "--learning-rate"),
    (["nonsense"], "nonsense"),
    (["--epochs"], "--epochs"),
    (["--epochs", "0"], "--epochs"),
    (["--epochs", "1.5"], "--epochs"),
    (["--epochs", "1_000"], "--epochs"),
    (["--epochs", "٣"], "--epochs"),
    (["--epochs", "1e3"], "--epochs"),
    (["--epochs", ""], "--epochs"),
    (["--epochs", "9" * 400], "--epochs"),
    (["--seed", str(2**63)], "--seed"),
    (["--lr", "nan"], "--lr"),
    (["--lr", "inf"], "--lr"),
    (["--lr", "1e999"], "--lr"),
    (["--lr", "0"], "--lr"),
    (["--lr", "1_0.0"], "--lr"),
    (["--lr", "٠.١"], "--lr"),
    (["--lr", "0.1\n0.2"], "--lr"),
    (["--ema", "1"], "--ema"),
    (["--rate", "1.0"], "--rate"),
    (["--device", "tpu"], "--device"),
    (["--flavor", "sweet"], "--flavor"),
    (["--flavor", "sour"], "--flavor"),
    (["--flip=3"], "flip"),
    (["--smoke", "--resume", "x"], "--smoke"),
    (["--run-dir", "y", "--resume", "x"], "--run-dir"),
]


@pytest.mark.parametrize(("argv", "named"), WRONG, ids=[" ".join(argv)[:30] for argv, _ in WRONG])
def test_a_wrong_flag_is_a_user_error_of_one_line_that_names_it(argv: list[str], named: str) -> None:
    with pytest.raises(UserError) as caught:
        parse(*argv)
    assert named in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("word", ["", " "])
def test_an_empty_word_is_a_user_error(word: str) -> None:
    with pytest.raises(UserError):
        parse(word)


def test_flags_take_the_type_of_their_field() -> None:
    config = parse("--lr", ".5e-1", "--no-flip", "--source", "a/b", "--limit", "+7", "--epochs", 3).config
    assert (config.lr, config.flip, config.source, config.limit, config.epochs) == (0.05, False, Path("a/b"), 7, 3)


def test_smoke_changes_defaults_and_yields_to_given_flags() -> None:
    assert parse("--smoke").config.epochs == 2
    assert parse("--smoke", "--epochs", 5).config.epochs == 5
    assert parse().config.epochs == RunConfig().epochs


PREFLIGHT = """
import runpy, sys
sys.argv = ["train", *sys.argv[1:]]
try:
    runpy.run_module("projects.cifar10.train", run_name="__main__", alter_sys=True)
except SystemExit as left:
    print(left.code, [name for name in ("torch", "numpy", "matplotlib") if name in sys.modules])
"""


@pytest.mark.parametrize(("argv", "code"), [(["--epochs", "0"], 2), (["--nonsense"], 2), (["--help"], 0)])
def test_a_wrong_flag_and_help_are_answered_without_torch(argv: list[str], code: int, tmp_path: Path) -> None:
    command = [sys.executable, "-c", PREFLIGHT, *argv]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env={"PYTHONPATH": str(ROOT)})
    assert done.stdout.splitlines()[-1] == f"{code} []"


def test_a_wrong_flag_gives_exit_code_2_one_line_and_no_files(program: Program, tmp_path: Path) -> None:
    done = program("projects.cifar10.train", "--epochs", "zero\x1b[31m\n")
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1
    assert done.stderr.endswith("\n")
    assert "\x1b" not in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_help_names_every_flag_with_its_default(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        parse("--help")
    text = capsys.readouterr().out
    assert left.value.code == 0
    for flag in ("--epochs", "--batch-size", "--clip-norm", "--no-flip", "--source", "--resume", "--smoke", "--debug"):
        assert flag in text
    assert "100 %" in text
    assert "default: 0.001" in text


def test_the_defaults_of_core_lie_within_their_bounds() -> None:
    check(Config())


@dataclass(frozen=True, kw_only=True)
class ShorterConfig(Config):
    """Settings with shorter trainings on generated data and for sour things, which mint is."""

    defaults_for: ClassVar[Mapping[str, Mapping[str, Mapping[str, Any]]]] = {
        "data": {"synthetic": {"epochs": 3}, "lemons": {"flavor": "sour"}},
        "flavor": {"sour": {"epochs": 4, "lr": 0.5, "limit": 7}},
    }


@pytest.mark.parametrize(
    ("argv", "epochs", "lr"),
    [
        ("", 3, 0.001),  # the data are generated ones by default
        ("--data synthetic", 3, 0.001),
        ("--epochs 5", 5, 0.001),
        ("--data other", 10, 0.001),
        ("--smoke", 2, 0.001),
        ("--flavor sour", 3, 0.5),  # what the data say of epochs holds
        ("--data lemons", 4, 0.5),
        ("--data lemons --lr 0.1", 4, 0.1),
        ("--data lemons --flavor plain", 10, 0.001),
    ],
)
def test_a_setting_brings_defaults_for_others(argv: str, epochs: int, lr: float) -> None:
    config = parse_training(ShorterConfig, argv.split()).config
    assert (config.epochs, config.lr) == (epochs, lr)


def test_help_tells_the_defaults_that_other_settings_bring(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse_training(ShorterConfig, ["--help"])
    text = " ".join(capsys.readouterr().out.split())
    assert "(default: 10; 3 for --data synthetic; 4 for --flavor sour)" in text
    assert "(default: none; 7 for --flavor sour)" in text
