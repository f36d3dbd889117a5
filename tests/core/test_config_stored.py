"""Settings survive their way through run.json; what does not fit is refused by name, there and on resume."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pytest

from core.config import RunConfig, from_plain, option
from core.errors import UserError
from core.plain import to_plain
from core.program import TrainCommand, parse_training


@dataclass(frozen=True, kw_only=True)
class Config(RunConfig):
    """A project's settings with every kind of field."""

    flavor: Literal["plain", "sour"] = option("plain", "how it tastes")
    flip: bool = option(True, "mirror images")
    source: Path | None = option(None, "a folder")
    limit: int | None = option(None, "largest number", low=1)


def parse(*argv: object) -> TrainCommand[Config]:
    """A parsed command line."""
    return parse_training(Config, [str(word) for word in argv])


def test_settings_survive_json() -> None:
    config = parse("--source", "a/ü", "--limit", 3, "--flavor", "sour", "--lr", "0.1", "--clip-norm", 1).config
    assert from_plain(Config, json.loads(json.dumps(to_plain(config))), "run.json") == config


BAD_VALUES: list[tuple[str, Any]] = [
    ("epochs", "3"),
    ("epochs", 1.0),
    ("epochs", True),
    ("epochs", None),
    ("epochs", 10**400),
    ("lr", 10**400),
    ("lr", float("inf")),
    ("lr", "0.1"),
    ("flip", 1),
    ("flavor", "sweet"),
    ("flavor", ["plain"]),
    ("source", 3),
    ("seed", -1),
    ("keep", 1),
    ("limit", 0),
    ("unheard_of", 1),
]


@pytest.mark.parametrize(("name", "value"), BAD_VALUES, ids=[f"{n}={str(v)[:12]}" for n, v in BAD_VALUES])
def test_a_wrong_stored_setting_is_refused_by_name(name: str, value: Any) -> None:
    with pytest.raises(UserError, match=name.replace("_", "[-_]")):
        from_plain(Config, {**to_plain(Config()), name: value}, "run.json")


def test_a_missing_stored_setting_is_refused_by_name() -> None:
    plain = to_plain(Config())
    del plain["accumulate"]
    with pytest.raises(UserError, match="accumulate"):
        from_plain(Config, plain, "run.json")


def stored(folder: Path, config: Config) -> Path:
    """A run folder with only its description."""
    (folder / "run.json").write_text(json.dumps({"config": to_plain(config)}), encoding="utf-8")
    return folder


BAD_FILES = ['{"config": {"lr": 1, "lr": 2}}', "[]", "{", '{"config": {"lr": NaN}}', "{}", "\xff", "[" * 100_000]


@pytest.mark.parametrize("text", BAD_FILES, ids=lambda text: str(text)[:12])
def test_a_broken_run_json_is_a_user_error_that_names_the_file(text: str, tmp_path: Path) -> None:
    (tmp_path / "run.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(UserError, match=r"run\.json"):
        parse("--resume", tmp_path)


def test_resuming_what_is_no_run_is_a_user_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="not a run folder"):
        parse("--resume", tmp_path / "nowhere")


@pytest.mark.parametrize(
    "change", [["--lr", 0.2], ["--batch-size", 64], ["--seed", 1], ["--no-flip"], ["--precision", "bf16"]]
)
def test_resume_refuses_a_changed_structural_setting_by_name(change: list[object], tmp_path: Path) -> None:
    with pytest.raises(UserError, match=str(change[0]).replace("--no-", "--")):
        parse("--resume", stored(tmp_path, Config()), *change)


def test_resume_takes_harmless_settings_and_keeps_the_others(tmp_path: Path) -> None:
    before = Config(lr=0.3, seed=5)
    command = parse(
        "--resume", stored(tmp_path, before), "--epochs", 20, "--workers", 2, "--lr", 0.3, "--device", "cpu"
    )
    assert command.resume
    assert command.run_dir == tmp_path
    assert (command.config.epochs, command.config.workers, command.config.device) == (20, 2, "cpu")
    assert (command.config.lr, command.config.seed) == (0.3, 5)
