"""The export's comparison: untrained generators of any seed pass it, and a graph with a frozen size does not."""

from pathlib import Path

import pytest
import torch

from core.errors import RunError
from core.export import export_onnx, save_graph
from core.export_spec import ExportSpec
from core.stored_run import StoredRun
from projects.gan.config import Config, Facts
from projects.gan.export import Deployed, build_spec
from projects.gan.networks import build_generator
from tests.projects.gan.conftest import facts


def stored(run_dir: Path, facts: Facts) -> StoredRun[Config, Facts]:
    """What the file's metadata are taken from."""
    return StoredRun(run_dir, Config(width=8), facts, 1, {}, "unknown")


@pytest.mark.parametrize("seed", range(6))
def test_an_untrained_generator_of_any_seed_passes(seed: int, tmp_path: Path) -> None:
    torch.manual_seed(seed)
    known = facts(model=("dcgan", "resnet")[seed % 2], conditional=seed < 4)
    spec = build_spec(build_generator(Config(width=8, spectral_norm="both"), known), known)
    report = export_onnx(spec, stored(tmp_path, known), tmp_path / "model.onnx")
    assert len(report["checks"]) == 5


def test_a_graph_that_has_frozen_what_it_saw_at_the_export_does_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = facts()
    torch.manual_seed(0)
    generator = build_generator(Config(width=8), known)
    for part in generator.modules():
        if isinstance(part, torch.nn.Embedding):
            torch.nn.init.normal_(part.weight)
    spec = build_spec(generator, known)
    sound, seen = Deployed.forward, int(spec.example[1][0])

    def save_frozen(spec: ExportSpec, path: Path) -> None:
        with monkeypatch.context() as patch:
            patch.setattr(Deployed, "forward", lambda self, noise, label: sound(self, noise, label * 0 + seen))
            save_graph(spec, path)

    monkeypatch.setattr("core.export.save_graph", save_frozen)
    with pytest.raises(RunError, match="image at input shapes"):
        export_onnx(spec, stored(tmp_path, known), tmp_path / "model.onnx")
    assert not list(tmp_path.iterdir())
