"""What torch sees of the operations: whole graphs with derivatives, exports in standard ONNX, sound registrations."""

import itertools
import os
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import Tensor, nn

from cuda_ext import (
    augment,
    build,
    gram_matrix,
    instance_norm_act,
    pool_norm_act,
    sigmoid_focal_loss,
)
from tests.conftest import ROOT
from tests.cuda_ext.cases import STATES, augment_case, crop, crop_case, enter, focal_case, norm_case, pool_case

# torch of some versions warns of itself when it traces.
pytestmark = [pytest.mark.filterwarnings(f"ignore::{name}") for name in ("DeprecationWarning", "FutureWarning")]
Operation = tuple[Callable[..., Tensor], tuple[Any, ...]]


def operations() -> dict[str, Operation]:
    """Each operation as a function of tensors, and its input; the first tensor's gradient is looked at."""
    x, weight, bias, residual, _ = norm_case((2, 5, 4, 6), "shared", torch.float32, channels_last=True)
    logits, labels = focal_case(6, 5, torch.float32)
    images, indices, params, table = augment_case(3, 6, 7, 3, 2, torch.float32)

    def shift(images: Tensor, indices: Tensor, params: Tensor, table: Tensor) -> Tensor:
        return augment(images, indices, params, table, 2, 3)

    wide_x, *parameters, _ = pool_case((2, 5, 4, 6), torch.float32, True)

    def pool(x: Tensor, weight: Tensor, bias: Tensor, mean: Tensor, var: Tensor) -> Tensor:
        return pool_norm_act(x, weight, bias, mean, var, training=False)

    def resize(*tensors: Tensor) -> Tensor:
        return crop(tensors, (4, 6))

    def norm(x: Tensor, weight: Tensor, bias: Tensor, residual: Tensor) -> Tensor:
        return instance_norm_act(x, weight, bias, residual=residual)

    return {
        "augment": (shift, (images, indices, params, table)),
        "crop_resize": (resize, tuple(crop_case(torch.float32)[0])),
        "gram_matrix": (gram_matrix, (x,)),
        "instance_norm_act": (norm, (x, weight, bias, residual)),
        "pool_norm_act": (pool, (wide_x, *parameters, torch.zeros(5), torch.ones(5))),
        "sigmoid_focal_loss": (sigmoid_focal_loss, (logits, labels)),
    }


NAMES = list(operations())


@pytest.fixture(params=STATES)
def state(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """With and without compiled kernels."""
    enter(request.param, monkeypatch)
    torch.compiler.reset()
    return str(request.param)


class AsModule(nn.Module):
    """A function as a module."""

    def __init__(self, function: Callable[..., Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, *arguments: Tensor) -> Tensor:
        return self.function(*arguments)


def with_gradient(function: Callable[..., Tensor], arguments: tuple[Tensor, ...]) -> list[Tensor]:
    """The result, and the gradient of the first argument unless that is bytes."""
    if not arguments[0].is_floating_point():
        return [function(*arguments)]
    first = arguments[0].detach().requires_grad_()
    result = function(first, *arguments[1:])
    return [result.detach(), *torch.autograd.grad(result.square().sum(), first)]


@pytest.mark.parametrize("name", NAMES)
def test_a_compiled_graph_is_whole_and_computes_the_same(name: str, state: str) -> None:
    function, arguments = operations()[name]
    expected = with_gradient(function, arguments)
    compiled = torch.compile(function, fullgraph=True, backend="aot_eager")
    for mine, other in zip(with_gradient(compiled, arguments), expected, strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-5, atol=1e-5)
        assert mine.stride() == other.stride()


@pytest.mark.parametrize("name", ["augment", "instance_norm_act"])
def test_a_compiled_graph_holds_the_kernel_where_there_is_one_and_plain_operations_elsewhere(
    name: str, state: str
) -> None:
    old = tuple(int(part) for part in torch.__version__.split(".")[:2]) < (2, 12)
    if old and state == "compiled" and name in ("augment", "instance_norm_act"):
        pytest.skip("torch 2.11 compiles the plain operations here: the same values, without the kernel")
    graphs: list[torch.fx.GraphModule] = []

    def look(graph: torch.fx.GraphModule, _: Any) -> Any:
        graphs.append(graph)
        return graph.forward

    function, arguments = operations()[name]
    torch.compile(function, fullgraph=True, backend=look)(*arguments)
    found = {str(node.target).split(".")[0] for node in graphs[0].graph.nodes if node.op == "call_function"}
    assert ("atelier" in found) == (state == "compiled")


@pytest.mark.parametrize("name", [name for name in NAMES if name != "crop_resize"])  # which no network contains
def test_an_export_holds_standard_operators_only_whatever_the_state(name: str, state: str) -> None:
    function, arguments = operations()[name]
    module = AsModule(function).eval()
    for strict in (False, True):
        program = torch.export.export(module, arguments, strict=strict)
        assert not [node for node in program.graph.nodes if str(node.target).startswith("atelier")]
    if state == "plain":
        return
    exported = torch.onnx.export(module, arguments, dynamo=True, opset_version=20, verbose=False)
    assert exported is not None
    graph = exported.model_proto
    onnx.checker.check_model(graph, full_check=True)
    assert {node.domain for node in graph.graph.node} == {""}
    assert {entry.domain for entry in graph.opset_import} == {""}
    session = onnxruntime.InferenceSession(graph.SerializeToString(), providers=["CPUExecutionProvider"])
    inputs = {entry.name: value.numpy() for entry, value in zip(session.get_inputs(), arguments, strict=True)}
    found = session.run(None, inputs)[0]
    np.testing.assert_allclose(found, function(*arguments).numpy(), rtol=1e-3, atol=1e-5)  # ONNX: log(sigmoid(z))


def test_tracing_never_builds(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(device_type: str) -> bool:
        raise AssertionError(device_type)

    monkeypatch.setattr(build, "ensure", refuse)
    torch.compiler.reset()
    for function, arguments in operations().values():
        torch.compile(function, fullgraph=True, backend="aot_eager")(*arguments)
        torch.export.export(AsModule(function), arguments, strict=False)


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")  # torch's own looking about
@pytest.mark.parametrize("name", [name for name in NAMES if name != "gram_matrix"])
def test_registrations_are_sound(name: str, state: str) -> None:
    if name == "pool_norm_act" and state == "plain":
        pytest.skip("the operator has compiled kernels only")
    operator = getattr(torch.ops.atelier, name)
    first, *others = operations()[name][1]
    if name == "augment":
        samples = [(first, *others, 2, 3)]
    elif name == "crop_resize":
        choices = crop_case(torch.float32)[1]
        samples = [(first, *others[:4], *chosen, others[4], 4, 6) for chosen in ([None] * 3, choices)]
    elif name == "pool_norm_act":
        leaves = [tensor.requires_grad_() for tensor in (first, *others[:2])]
        modes = itertools.product((True, False), repeat=2)
        samples = [(*leaves, *others[2:], training, 1e-5, True, pool, True) for training, pool in modes]
    elif name == "sigmoid_focal_loss":
        samples = [(first.requires_grad_(), *others, 0.25, 2.0)]
    else:
        weight, bias, residual = (tensor.requires_grad_() for tensor in others)
        small = torch.randn(1, 3, 1, 2, requires_grad=True)
        samples = [(first.requires_grad_(), weight, bias, residual, True, 1e-5), (small, None, None, None, False, 1e-5)]
    for sample in samples:
        torch.library.opcheck(operator, sample)


WITHOUT_KERNELS = """
import torch
from cuda_ext import build, augment, instance_norm_act
images, rows, choices = torch.zeros(2, 4, 4, 3, dtype=torch.uint8), torch.tensor([1]), torch.zeros(1, 5).long()
assert augment(images, rows, choices, torch.ones(3, 256), 1, 0).sum() == 48
assert instance_norm_act(torch.randn(2, 3, 4, 4)).shape == (2, 3, 4, 4)
assert not build.is_active("cpu")
assert not torch._C._dispatch_has_kernel_for_dispatch_key("atelier::augment", "CPU")
"""


def test_a_program_that_switches_kernels_off_computes_without_them() -> None:
    environment = {**os.environ, "ATELIER_EXT": "off", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_KERNELS], env=environment, capture_output=True, text=True, timeout=120
    )
    assert (done.returncode, done.stderr) == (0, "")
