"""Inference names in one line what it cannot do, and writes nothing then; a generator without classes draws too."""

import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from core.errors import UserError
from projects.gan import infer
from projects.gan.export import export
from projects.gan.sheet import sheet
from projects.gan.train import parse_arguments, train
from tests.projects.gan.conftest import Smoke
from tests.projects.gan.test_train import TINY


def run(*arguments: object) -> None:
    """The program's main function with a command line."""
    before, sys.argv = sys.argv, ["infer", *(str(argument) for argument in arguments)]
    try:
        infer.main()
    finally:
        sys.argv = before


def test_what_cannot_be_is_refused_and_nothing_is_written(
    smoke: Smoke, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    model = smoke.run_dir / "model.onnx"
    (tmp_path / "taken").write_text("a file")
    (tmp_path / "folder.png").mkdir()
    cases: list[tuple[list[object], str]] = [
        (["missing.onnx", "--output", "a.png"], "missing.onnx"),
        (["taken", "--output", "a.png"], "taken"),
        ([model], "--output"),
        ([model, "--output", "a.png", "--label", "cat"], "--label cat; choose from cross, disc, ring, square"),
        ([model, "--output", "a.png", "--num", 0], "--num 0"),
        ([model, "--output", "a.png", "--num", "many"], "--num"),
        ([model, "--output", "a.png", "--seed", -1], "--seed -1"),
        ([model, "--output", "nowhere/a.png"], "nowhere/a.png"),
        ([model, "--output", "folder.png"], "folder.png"),
        ([model, "--output", "taken"], "taken"),
        ([model, "--output", "a.png", "--sed", 1], "--seed"),
    ]
    before = sorted(tmp_path.rglob("*"))
    for arguments, named in cases:
        with pytest.raises(UserError) as caught:
            run(*arguments)
        assert named in str(caught.value)
    assert sorted(tmp_path.rglob("*")) == before


def test_a_generator_without_classes_is_exported_and_draws(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    train(
        parse_arguments([*TINY, "--no-conditional", "--spectral-norm", "both", "--max-steps", "2", "--run-dir", "run"])
    )
    export(Path("run"), "best", None)
    run("run/model.onnx", "--num", 3, "--output", "drawn")
    assert sorted(path.name for path in Path("drawn").iterdir()) == ["000000.png", "000001.png", "000002.png"]
    with pytest.raises(UserError, match="--label ring"):
        run("run/model.onnx", "--label", "ring", "--output", "a.png")


def test_a_sheet_shows_each_picture_enlarged_in_its_place() -> None:
    pictures = np.arange(5, dtype=np.uint8)[:, None, None, None] * np.full((1, 8, 8, 1), 20, dtype=np.uint8)
    drawn = sheet(pictures, columns=2)
    assert (drawn.mode, drawn.size) == ("L", (2 * 50 + 2, 3 * 50 + 2))
    values = np.asarray(drawn)
    assert [int(values[2 + 50 * (k // 2), 2 + 50 * (k % 2)]) for k in range(5)] == [0, 20, 40, 60, 80]
    assert (values[102:150, 52:100] == 255).all()
    assert sheet(np.zeros((1, 64, 64, 3), dtype=np.uint8), columns=1).size == (68, 68)
    assert isinstance(drawn, Image.Image)
