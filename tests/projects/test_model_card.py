"""Each project's export writes a model card that the hub reads and whose code runs without torch."""

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.conftest import ROOT
from tests.projects.sample_data import recent_rows
from tests.smoke import Smoke


def test_the_card_beside_the_file_is_read_by_the_hubs_library(smoke: Smoke, project: str) -> None:
    hub = pytest.importorskip("huggingface_hub")
    text = (smoke.run_dir / "README.md").read_text("utf-8")
    data = hub.ModelCard(text).data
    assert data.library_name == "onnx"
    assert re.fullmatch("[a-z]+(-[a-z]+)+", data.pipeline_tag)
    assert data.license is None  # the user's choice
    assert {"onnx", project} <= set(data.tags)
    assert all(np.isfinite(result.metric_value) for result in data.eval_results)
    shown = re.findall(r"!\[[^]]*\]\(([^)]+)\)", text)
    assert "plots/curves.png" in shown
    assert all((smoke.run_dir / name).is_file() for name in shown)
    assert str(ROOT) not in text
    assert str(smoke.run_dir) not in text


def test_the_cards_code_runs_without_torch(smoke: Smoke, project: str, tmp_path: Path) -> None:
    code = re.search(r"```python\n(.*?)```", (smoke.run_dir / "README.md").read_text("utf-8"), re.DOTALL)
    assert code is not None
    assert len(code.group(1).splitlines()) <= 10
    (tmp_path / "model.onnx").symlink_to(smoke.run_dir / "model.onnx")
    pixels = np.random.default_rng(0).integers(0, 255, (48, 60, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "image.jpg")
    Path(str(recent_rows(tmp_path)[0])).rename(tmp_path / "series.csv")
    before = set(tmp_path.iterdir())
    program = f"import sys; sys.modules['torch'] = None\n{code.group(1)}"
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, timeout=120, env={**os.environ}
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.strip() or set(tmp_path.iterdir()) > before
