"""An 8-bit file is as right on a processor that cuts sums of products at 16 bits as on one that does not."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from core.parity import open_session
from core.quantize import quantize_dynamic, quantize_static

NUM_INPUTS, NUM_CLASSES, NUM_SAMPLES = 64, 10, 400


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A classifier of one matrix product, float32 [N, 64] in [0, 1] → float32 [N, 10]."""
    weights = np.random.default_rng(0).uniform(-1, 1, (NUM_INPUTS, NUM_CLASSES)).astype(np.float32)
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "weights"], ["scores"])],
        "classifier",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", NUM_INPUTS])],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["batch", NUM_CLASSES])],
        [numpy_helper.from_array(weights, "weights")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    onnx.save(model, str(tmp_path / "model.onnx"))
    return tmp_path / "model.onnx"


def inputs() -> NDArray[np.float32]:
    """Bright inputs, whose bytes are large."""
    return np.random.default_rng(1).uniform(0.6, 1, (NUM_SAMPLES, NUM_INPUTS)).astype(np.float32)


def static(source: Path, target: Path) -> None:
    quantize_static(source, target, input_name="x", calibration=[inputs()], kept=[])


def weights_of(path: Path) -> NDArray[np.int8]:
    """The file's weights in bytes."""
    arrays = [numpy_helper.to_array(each) for each in onnx.load(str(path)).graph.initializer]
    (weights,) = [array for array in arrays if array.dtype == np.int8 and array.shape == (NUM_INPUTS, NUM_CLASSES)]
    return weights


def product(inputs: NDArray[np.uint8], weights: NDArray[np.int8], *, cut: bool) -> NDArray[np.int64]:
    """inputs @ weights as AVX2's vpmaddubsw and vpaddd compute it: products in pairs, whose sum is cut at 16 bits."""
    products = inputs[:, :, None].astype(np.int64) * weights[None].astype(np.int64)
    pairs = products.reshape(len(inputs), NUM_INPUTS // 2, 2, NUM_CLASSES).sum(2)
    sums: NDArray[np.int64] = (np.clip(pairs, -(2**15), 2**15 - 1) if cut else pairs).sum(1)
    return sums


@pytest.mark.parametrize("quantize", [static, quantize_dynamic])
def test_cutting_sums_at_16_bits_changes_no_number(
    quantize: Callable[[Path, Path], None], source: Path, tmp_path: Path
) -> None:
    quantize(source, tmp_path / "int8.onnx")
    weights, lowest = weights_of(tmp_path / "int8.onnx"), inputs().min()
    taken = np.round((inputs() - lowest) / (1 - lowest) * 255).astype(np.uint8)
    assert np.array_equal(product(taken, weights, cut=True), product(taken, weights, cut=False))
    eight_bits = np.clip(weights.astype(np.int64) * 2, -127, 127).astype(np.int8)
    whole, cut = (product(taken, eight_bits, cut=cut).argmax(1) for cut in (False, True))
    assert (whole != cut).mean() > 0.05, "with all 8 bits the emulated processor does lose answers"


@pytest.mark.parametrize("quantize", [static, quantize_dynamic])
def test_seven_bits_of_weight_lose_next_to_nothing(
    quantize: Callable[[Path, Path], None], source: Path, tmp_path: Path
) -> None:
    quantize(source, tmp_path / "int8.onnx")
    whole, small = (open_session(path).run(None, {"x": inputs()})[0] for path in (source, tmp_path / "int8.onnx"))
    assert (whole.argmax(1) == small.argmax(1)).mean() > 0.95
    assert np.abs(whole - small).max() < 0.05 * np.abs(whole).max()
