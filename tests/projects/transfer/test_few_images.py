"""Accuracy against the number of images: from a run with a frozen backbone, with numbers and a picture."""

import json
import sys
from pathlib import Path

import pytest

from core.errors import UserError
from projects.transfer import few_images
from tests.projects.transfer.conftest import TINY, MakeFolder, main


@pytest.mark.usefixtures("_quick")
def test_heads_are_fitted_to_few_images_of_each_class(
    make_folder: MakeFolder, source_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "run"
    given = ["--data", make_folder(train=8, test=4), *TINY, "--backbone", f"run:{source_run}", "--epochs", 1]
    main([*given, "--strategy", "head", "--views", 1, "--run-dir", run])
    monkeypatch.setattr(sys, "argv", ["few_images", str(run), "--num", "1", "3", "--draws", "2"])
    few_images.main()
    points = json.loads((run / "few_images.json").read_text())["points"]
    assert [len(point["accuracies"]) for point in points] == [2, 2, 1]
    assert all(0 <= share <= 1 for point in points for share in point["accuracies"])
    assert points[-1]["num_of_a_class"] > 3
    assert (run / "plots" / "few_images.png").stat().st_size > 1000
    monkeypatch.setattr(sys, "argv", ["few_images", str(run), "--num", "100"])
    with pytest.raises(UserError, match="--num 100"):
        few_images.main()
