"""What TensorBoard is given: scalars, histograms, images and settings, each once, also after a resume."""

import shutil
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import IMAGES, EventAccumulator
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

from core.event_file import EventFile

SETTINGS = {"lr": 0.1, "epochs": 3, "flip": True, "model": "fast", "clip_norm": None, "sizes": [1, 2]}


def read(folder: Path) -> EventAccumulator:
    """Everything in a folder's file; there has to be one file only."""
    assert len(list(folder.iterdir())) == 1
    return EventAccumulator(str(folder), size_guidance={IMAGES: 0}).Reload()


@pytest.fixture
def plots(tmp_path: Path) -> Path:
    """A folder with a plot."""
    (tmp_path / "plots").mkdir()
    Image.new("RGB", (7, 5), "red").save(tmp_path / "plots" / "curves.png")
    return tmp_path / "plots"


def write(folder: Path, plots: Path) -> None:
    """Two steps of a run, with histograms and images after the first."""
    events = EventFile(folder, SETTINGS)
    events.add(10, {"val/loss": 2.0})
    events.add_histograms({"model/weight": np.array([-1.0, 0.5, 3.0, np.nan], dtype=np.float32)})
    events.add_images(plots)
    events.add_images(plots)
    events.add(20, {"val/loss": 1.0})
    events.close()


def test_everything_that_was_written_is_read_by_tensorboard(tmp_path: Path, plots: Path) -> None:
    write(tmp_path / "tensorboard", plots)
    found = read(tmp_path / "tensorboard")
    assert [(each.step, each.value) for each in found.Scalars("val/loss")] == [(10, 2.0), (20, 1.0)]
    (histogram,) = found.Histograms("model/weight")
    assert histogram.step == 10
    assert (histogram.histogram_value.min, histogram.histogram_value.max, histogram.histogram_value.num) == (-1, 3, 3)
    assert sum(histogram.histogram_value.bucket) == 3
    (image,) = found.Images("plots/curves")
    assert (image.step, image.width, image.height) == (10, 7, 5)
    assert image.encoded_image_string == (plots / "curves.png").read_bytes()
    content = found.PluginTagToContent("hparams")["_hparams_/session_start_info"]
    settings = HParamsPluginData.FromString(content).session_start_info.hparams
    assert (settings["lr"].number_value, settings["flip"].bool_value) == (0.1, True)
    assert [settings[name].string_value for name in ("model", "clip_norm", "sizes")] == ["fast", "None", "1 2"]


def test_a_resumed_run_keeps_what_came_before_the_cut_and_adds_only_new_images(tmp_path: Path, plots: Path) -> None:
    folder = tmp_path / "tensorboard"
    write(folder, plots)
    events = EventFile(folder, {**SETTINGS, "epochs": 9}, num_kept=1)
    events.add(15, {"val/loss": 1.5})
    events.add_images(plots)
    shutil.copy(plots / "curves.png", plots / "samples.png")
    time.sleep(0.01)
    events.add_images(plots)
    events.close()
    found = read(folder)
    assert [each.step for each in found.Scalars("val/loss")] == [10, 15]
    assert len(found.Histograms("model/weight")) == 1
    assert [each.step for each in found.Images("plots/curves")] == [10]
    assert [each.step for each in found.Images("plots/samples")] == [15]
    content = found.PluginTagToContent("hparams")["_hparams_/session_start_info"]
    assert HParamsPluginData.FromString(content).session_start_info.hparams["epochs"].number_value == 9


def test_what_is_no_png_or_too_large_is_left_out(tmp_path: Path, plots: Path) -> None:
    (plots / "text.png").write_text("not an image")
    (plots / "large.png").write_bytes((plots / "curves.png").read_bytes() + bytes(5 << 20))
    write(tmp_path / "tensorboard", plots)
    assert read(tmp_path / "tensorboard").Tags()["images"] == ["plots/curves"]
