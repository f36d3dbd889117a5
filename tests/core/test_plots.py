"""A confusion matrix is plotted whatever the number and the names of its classes, within a stated size."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from core.plots import confusion, optional


@pytest.mark.parametrize("num_classes", [2, 25, 61, 250])
def test_a_confusion_matrix_of_any_number_of_classes_has_a_limited_size(num_classes: int, tmp_path: Path) -> None:
    classes = [f"class {number}" for number in range(num_classes)]
    confusion(np.eye(num_classes, dtype=np.int64), classes, tmp_path / "plots" / "x.png")
    with Image.open(tmp_path / "plots" / "x.png") as image:
        assert max(image.size) <= 2600


@pytest.mark.parametrize("name", ["$x_1^{", "a$b$", "\ud800", "a\x1b[31m", "\u732b", "\u00c4\u00d6", "x" * 500, "a\nb"])
def test_any_text_can_be_the_name_of_a_class(name: str, tmp_path: Path) -> None:
    confusion(np.array([[3, 1], [0, 2]]), [name, "other"], tmp_path / "x.png")
    assert (tmp_path / "x.png").exists()


def test_a_plot_that_fails_becomes_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    with optional():
        raise MemoryError("9.9 GB\n\x1b[31m")
    written = capsys.readouterr().err
    assert "MemoryError: 9.9 GB" in written
    assert written.count("\n") == 1
    assert "\x1b" not in written
