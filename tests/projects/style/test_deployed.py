"""The exported graph: equal to the network for a hundred seeds and for dark styles; a planted defect is noticed."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from numpy.typing import NDArray
from onnx import numpy_helper

from core.errors import RunError, UserError
from core.export import save_graph
from core.export_spec import ExportSpec
from core.inference import OnnxModel
from core.parity import compare_outputs
from core.program import ExportCommand, ExportOptions, parse_training
from core.stored_run import load_run
from projects.style.config import TASK, Config, Facts, ModelFacts
from projects.style.deployed import Deployed, random_inputs
from projects.style.export import build_deployed, export, spec_of
from projects.style.model import StyleNet, one_hot
from projects.style.synthetic import STYLES, draw_landscapes
from projects.style.train import train
from tests.conftest import Once
from tests.projects.style.conftest import TINY
from tests.smoke import Smoke

FACTS = Facts(
    model="",
    features="",
    features_sha256="",
    styles=STYLES,
    style_sha256=(),
    num_train=1,
    num_held_out=1,
    data_sha256="",
)


def untrained(seed: int) -> Deployed:
    """A small network with random weights; those of the norms are random, too, so that no two tensors are equal."""
    torch.manual_seed(seed)
    network = StyleNet(len(STYLES), width=4, blocks=1)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return Deployed(network).eval()


@pytest.fixture
def untrained_path(once: Once) -> Path:
    """The graph of untrained(0)."""
    return (
        once("style-untrained", lambda folder: save_graph(spec_of(untrained(0), FACTS), folder / "m.onnx")) / "m.onnx"
    )


def write_with_weights(source: Path, target: Path, old: Deployed, new: Deployed) -> None:
    """Writes a copy of an ONNX file in which the weights of `old` are replaced by those of `new`."""
    model = onnx.load(str(source))
    replaced = set()
    for tensor in model.graph.initializer:
        array = numpy_helper.to_array(tensor)
        for name, weights in old.network.state_dict().items():
            if array.size == weights.numel() and np.array_equal(array.ravel(), weights.numpy().ravel()):
                values = new.network.state_dict()[name].numpy().reshape(array.shape)
                tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
                replaced.add(name)
    assert replaced == set(old.network.state_dict())
    onnx.save(model, str(target))


def test_the_check_passes_for_a_hundred_seeds(untrained_path: Path, tmp_path: Path) -> None:
    """Exporting takes seconds, so the graph is made once and given the weights of each seed."""
    old = untrained(0)
    for seed in range(1, 101):
        new = untrained(seed)
        write_with_weights(untrained_path, tmp_path / "m.onnx", old, new)
        spec = spec_of(new, FACTS)
        report = compare_outputs(replace(spec, parity_inputs=spec.parity_inputs[-1:]), tmp_path / "m.onnx")
        assert max(row["differences"]["painted"] for row in report["checks"]) < 0.01


def darkened(deployed: Deployed) -> Deployed:
    """The network with a brightest gray level of about 5."""
    with torch.no_grad():
        assert deployed.network.last.bias is not None
        deployed.network.last.weight *= 0.01
        deployed.network.last.bias.fill_(-4.0)
    return deployed


def test_a_dark_style_passes_the_check(untrained_path: Path, tmp_path: Path) -> None:
    new = darkened(untrained(1))
    write_with_weights(untrained_path, tmp_path / "m.onnx", untrained(0), new)
    spec = spec_of(new, FACTS)
    image, blend, keep_colors, statistics = spec.example
    assert new(image, blend, 0 * keep_colors, statistics)[0].max() < 8
    compare_outputs(spec, tmp_path / "m.onnx")


@pytest.mark.parametrize("levels", [0.1, 1.0])
def test_a_bias_that_differs_by_a_fraction_of_a_gray_level_is_noticed(
    levels: float, untrained_path: Path, tmp_path: Path
) -> None:
    old, new = untrained(0), untrained(0)
    with torch.no_grad():
        assert new.network.last.bias is not None
        new.network.last.bias += 4 * levels / 255  # the sigmoid's slope is at most a quarter
    write_with_weights(untrained_path, tmp_path / "m.onnx", old, new)
    with pytest.raises(RunError, match="painted at input shapes"):
        compare_outputs(spec_of(old, FACTS), tmp_path / "m.onnx")


def freeze_statistics(spec: ExportSpec) -> ExportSpec:
    """An export whose norms use constants in place of the image's own statistics."""
    deployed = spec.module
    assert isinstance(deployed, Deployed)
    paint, constants = deployed.paint, deployed(*random_inputs(deployed, 1, 40, 40, 0))[1]

    class Frozen(torch.nn.Module):
        def forward(
            self, image: torch.Tensor, blend: torch.Tensor, keep_colors: torch.Tensor, statistics: torch.Tensor
        ) -> tuple[torch.Tensor, torch.Tensor]:
            painted, own = paint(image, blend, keep_colors, constants.expand(image.shape[0], -1, -1))
            return painted.round().to(torch.uint8), own + 0 * statistics.sum()

    return replace(spec, module=Frozen())


def test_frozen_statistics_are_noticed(tmp_path: Path) -> None:
    spec = spec_of(untrained(0), FACTS)
    with torch.no_grad():
        save_graph(freeze_statistics(spec), tmp_path / "m.onnx")
    with pytest.raises(RunError, match="does not"):
        compare_outputs(spec, tmp_path / "m.onnx")


def test_the_graph_has_standard_operators_and_the_networks_weights_alone(smoke: Smoke, model_path: Path) -> None:
    weights = load_run(smoke.run_dir, "best", Config, Facts).weights()
    graph = onnx.load(str(model_path)).graph
    assert {node.domain for node in graph.node} == {""}
    num_in_file = sum(int(np.prod(tensor.dims)) for tensor in graph.initializer)
    assert abs(num_in_file - sum(tensor.numel() for tensor in weights.values())) < 200


def inputs(
    image: NDArray[np.uint8], blend: list[float], facts: ModelFacts, colors: float = 0
) -> dict[str, NDArray[np.generic]]:
    """One photograph for the graph, with its own statistics."""
    return {
        "image": image[None],
        "blend": np.asarray([blend], np.float32),
        "keep_colors": np.asarray([colors], np.float32),
        "statistics": np.zeros((0, 2, facts.channels), np.float32),
    }


@pytest.mark.parametrize(("height", "width"), [(96, 96), (57, 140), (16, 201)])
def test_the_file_paints_what_the_trained_network_paints_at_any_size(
    height: int, width: int, smoke: Smoke, model_path: Path
) -> None:
    network = build_deployed(load_run(smoke.run_dir, "best", Config, Facts)).network
    model = OnnxModel(model_path, task=TASK, facts=ModelFacts, threads=1)
    photograph = draw_landscapes(1, 3, 201)[0][:height, :width].copy()
    image = torch.from_numpy(photograph).permute(2, 0, 1)[None].float() / 255
    for number in range(3):
        blend = one_hot(torch.tensor([number]), 3)
        with torch.no_grad():
            expected = 255 * network(image, blend)[0].permute(1, 2, 0).numpy()
        painted = model.run(**inputs(photograph, blend[0].tolist(), model.facts))["painted"][0]
        assert painted.dtype == np.uint8
        assert painted.shape == photograph.shape
        assert np.abs(painted - expected).max() <= 0.51


def test_kept_colors_are_the_photographs_and_the_luminance_is_the_paintings(model_path: Path) -> None:
    model = OnnxModel(model_path, task=TASK, facts=ModelFacts, threads=1)
    photograph = draw_landscapes(1, 4, 80)[0]
    painted, kept = (
        model.run(**inputs(photograph, [1, 0, 0], model.facts, share))["painted"][0].astype(float)
        for share in (0.0, 1.0)
    )
    free = ((kept > 0) & (kept < 255)).all(2)  # where no channel is clamped
    assert free.mean() > 0.2

    def parts(image: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        light = image @ np.array([0.299, 0.587, 0.114])
        return light, image - light[..., None]

    (light, chroma), (painted_light, painted_chroma) = parts(kept), parts(painted)
    own_chroma = parts(photograph.astype(float))[1]
    assert np.abs(chroma - own_chroma)[free].max() <= 1.01
    assert np.abs(light - painted_light)[free].max() <= 1.01
    assert np.abs(painted_chroma - own_chroma)[free].mean() > 5


def test_given_statistics_are_used_and_an_images_own_are_given(smoke: Smoke) -> None:
    deployed = build_deployed(load_run(smoke.run_dir, "best", Config, Facts))
    one, other = (torch.from_numpy(image)[None] for image in draw_landscapes(2, 9, 48))
    blend, none, empty = torch.tensor([[1.0, 0, 0]]), torch.zeros(1), torch.zeros(0, 2, deployed.num_channels)
    with torch.inference_mode():
        painted, own = deployed(one, blend, none, empty)
        _, others = deployed(other, blend, none, empty)
        assert torch.equal(deployed(one, blend, none, own)[0], painted)
        assert (deployed(one, blend, none, others)[0].int() - painted.int()).abs().max() > 5


def test_a_run_of_optimize_has_nothing_to_export(tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    train(parse_training(Config, [*TINY, "--method", "optimize", "--max-steps", "2", "--run-dir", str(run_dir)]))
    before = sorted(run_dir.rglob("*"))
    with pytest.raises(UserError, match=r"result\.png"):
        export(ExportCommand(run_dir, ExportOptions()))
    assert sorted(run_dir.rglob("*")) == before
