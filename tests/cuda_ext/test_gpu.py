"""What only a GPU can show of the operations. Skipped without one; in a -gpu environment a missing GPU is a failure."""

import os
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor

from cuda_ext import augment, instance_norm_act, pool_norm_act, reference, sigmoid_focal_loss
from tests.conftest import ROOT
from tests.cuda_ext.cases import (
    STATES,
    Shape,
    augment_case,
    crop,
    crop_case,
    enter,
    focal_case,
    norm_case,
    plain_crop,
    pool_case,
)

pytestmark = pytest.mark.usefixtures("gpu")
DTYPES = [torch.float32, torch.float16, torch.bfloat16]
TOLERANCE = {torch.float32: 2e-5, torch.float16: 2e-3, torch.bfloat16: 1.6e-2}


@pytest.fixture(params=STATES)
def _state(request: pytest.FixtureRequest, gpu: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """With and without compiled kernels."""
    enter(request.param, monkeypatch, "cuda")


@pytest.fixture
def _kernels(gpu: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """With compiled kernels."""
    enter("compiled", monkeypatch, "cuda")


def misplaced(tensor: Tensor) -> Tensor:
    """The same numbers on the GPU, from an address on that no wide access can begin at."""
    room = torch.empty(tensor.numel() + 1, dtype=tensor.dtype, device="cuda")[1:]
    found = room.as_strided(tensor.shape, tensor.stride()).copy_(tensor)
    assert found.data_ptr() % 16
    return found


def on_gpu(tensors: tuple[Tensor | None, ...]) -> list[Any]:
    """The tensors on the GPU, None for None."""
    return [None if tensor is None else tensor.cuda() for tensor in tensors]


@pytest.mark.usefixtures("_state")
@pytest.mark.parametrize("dtype", [*DTYPES, torch.float64])
@pytest.mark.parametrize(
    "size", [(32, 32, 3), (5, 7, 3), (28, 28, 1), (64, 64, 3), (65, 63, 3), (16, 8, 4), (9, 8, 6), (224, 224, 3)]
)
def test_augmented_pictures_are_those_of_a_cpu_bit_for_bit(size: tuple[int, int, int], dtype: torch.dtype) -> None:
    images, indices, params, table = augment_case(37, *size, 3, dtype)
    for cutout in (0, 5):
        expected = reference.augment(images, indices, params, table, 3, cutout)
        found = augment(images.cuda(), indices.cuda(), params.cuda(), table.cuda(), 3, cutout)
        assert torch.equal(found.cpu(), expected)
        assert found.stride() == expected.stride()
        assert torch.equal(
            augment(misplaced(images), indices.cuda(), params.cuda(), misplaced(table), 3, cutout).cpu(), expected
        )
    none = augment(images.cuda(), indices.cuda()[:0], params.cuda()[:0], table.cuda(), 3, 0)
    assert none.shape == (0, size[2], *size[:2])


@pytest.mark.usefixtures("_state")
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("rows", "classes"), [(1, 1), (100, 80), (77, 91), (3000, 16), (5000, 21), (0, 5), (3, 0)])
@pytest.mark.parametrize(("alpha", "gamma"), [(0.25, 2.0), (-1, 0.5)])
def test_the_focal_loss_is_that_of_float64(
    rows: int, classes: int, alpha: float, gamma: float, dtype: torch.dtype
) -> None:
    logits, labels = focal_case(rows, classes, dtype)
    wide = logits.double().requires_grad_()
    expected = sigmoid_focal_loss(wide, labels, alpha, gamma)
    expected.backward()
    assert wide.grad is not None
    for place in (Tensor.cuda, misplaced) if logits.numel() else (Tensor.cuda,):
        leaf = place(logits).requires_grad_()
        loss = sigmoid_focal_loss(leaf, labels.cuda(), alpha, gamma)
        loss.backward()
        assert loss.dtype == torch.float32
        assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
        assert leaf.grad is not None
        close = TOLERANCE[dtype]
        torch.testing.assert_close(leaf.grad.cpu().double(), wide.grad, rtol=close, atol=1e-7)


@pytest.mark.usefixtures("_state")
@pytest.mark.parametrize("gamma", [0.0, 0.3, 2.0])
def test_the_focal_loss_is_finite_for_finite_logits(gamma: float) -> None:
    values = torch.tensor([0.0, 1e-7, 20, 80, 90, 1e4, 1e36], device="cuda")
    logits = torch.cat([values, -values])[:, None].expand(14, 4).contiguous().requires_grad_()
    loss = sigmoid_focal_loss(logits, torch.tensor([0] * 7 + [1] * 7, device="cuda"), 0.25, gamma)
    loss.backward()
    assert torch.isfinite(loss)
    assert logits.grad is not None
    assert torch.isfinite(logits.grad).all()


SHAPES = [(2, 32, 64, 48), (1, 24, 33, 31), (3, 5, 7, 9), (1, 1, 2, 3), (2, 3000, 3, 4), (1, 128, 128, 128)]


@pytest.mark.usefixtures("_state")
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("channels_last", [True, False])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(
    ("parameters", "with_residual", "relu"),
    [("none", False, True), ("shared", False, True), ("shared", True, False), ("per sample", True, True)],
)
def test_instance_norm_is_that_of_float64(
    shape: Shape, parameters: str, with_residual: bool, relu: bool, channels_last: bool, dtype: torch.dtype
) -> None:
    case = on_gpu(norm_case(shape, parameters, dtype, channels_last))
    doubles = [None if part is None else part.double() for part in case]
    assert doubles[0] is not None
    before = instance_norm_act(doubles[0], *doubles[1:3], residual=doubles[3] if with_residual else None, relu=False)
    grad = case[4].masked_fill(before.abs() < 1e-3, 0)  # rounding decides about ReLU there
    for place in (Tensor.clone, misplaced):
        leaves = [place(case[0]), *case[1:3], case[3] if with_residual else None]
        results = []
        for wide in (False, True):
            inputs = [None if part is None else (part.double() if wide else part) for part in leaves]
            tracked = [None if part is None else part.detach().requires_grad_() for part in inputs]
            assert tracked[0] is not None
            y = instance_norm_act(tracked[0], *tracked[1:3], residual=tracked[3], relu=relu)
            given = [part for part in tracked if part is not None]
            results.append([y.detach(), *torch.autograd.grad(y, given, grad.to(y.dtype))])
        close = TOLERANCE[dtype]
        assert results[0][0].stride() == leaves[0].stride()
        for number, (mine, other) in enumerate(zip(*results, strict=True)):
            is_sum = mine.dim() < 4
            factor = (mine.numel() and other.abs().max().item() + 1) if is_sum else 1
            torch.testing.assert_close(
                mine.double(), other, rtol=close, atol=close * factor, msg=partial("result {}: {}".format, number)
            )


@pytest.mark.usefixtures("_state")
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(3, 64, 31, 31), (2, 24, 9, 7), (5, 5, 6, 8), (2, 3000, 4, 4), (40, 8, 96, 64)])
@pytest.mark.parametrize(
    ("pool", "activation", "training"),
    [(True, "gelu", True), (True, "relu", True), (False, "gelu", True), (True, "gelu", False), (False, "relu", False)],
)
def test_pool_norm_is_that_of_float64(
    shape: Shape, pool: bool, activation: Any, training: bool, dtype: torch.dtype
) -> None:
    x, weight, bias, grad = on_gpu(pool_case(shape, dtype, pool))
    for place in (Tensor.clone, misplaced):
        results = []
        for wide in (False, True):
            leaves = [(part.double() if wide else part).detach().requires_grad_() for part in (place(x), weight, bias)]
            averages = [torch.full_like(leaves[1], value).detach() for value in (0.5, 2.0)]
            y = pool_norm_act(
                *(leaves[0], leaves[1], leaves[2], averages[0], averages[1]),
                training=training,
                activation=activation,
                pool=pool,
            )
            results.append([*averages, y.detach(), *torch.autograd.grad(y, leaves, place(grad).to(y.dtype))])
        close = TOLERANCE[dtype]
        assert results[0][2].stride() == grad.stride()
        assert results[0][3].stride() == x.stride()
        for number, (mine, other) in enumerate(zip(*results, strict=True)):
            factor = other.abs().max().item() + 1 if mine.dim() < 4 else 1
            torch.testing.assert_close(
                mine.double(), other, rtol=close, atol=close * factor, msg=partial("result {}: {}".format, number)
            )


@pytest.mark.usefixtures("_state")
@pytest.mark.parametrize("dtype", [*DTYPES, torch.float64])
@pytest.mark.parametrize("size", [(5, 7), (64, 100), (1, 33)])
def test_resized_boxes_are_those_of_a_cpu_but_for_single_levels(size: tuple[int, int], dtype: torch.dtype) -> None:
    case, choices = crop_case(dtype)
    for chosen in (choices, (None, None, None)):
        expected, found = plain_crop(case, size, chosen), crop(on_gpu(tuple(case)), size, on_gpu(tuple(chosen)))
        assert found.stride() == expected.stride()
        assert (found.cpu().float() - expected.float()).abs().max() <= 1
        assert (found.cpu() != expected).float().mean() < 0.01
    none = crop(on_gpu((*case[:3], case[3][:0], case[4][:0], case[5])), size)
    assert none.shape == (0, 3, *size)


def steps() -> dict[str, tuple[Callable[..., list[Tensor]], list[Tensor]]]:
    """Each operation with its derivative, as a function of tensors on the GPU."""
    x, weight, bias, residual, grad = on_gpu(norm_case((4, 64, 40, 40), "shared", torch.bfloat16, True))
    logits, labels = on_gpu(focal_case(4000, 80, torch.bfloat16))
    wide_x, scale, offset, wide_grad = on_gpu(pool_case((16, 64, 31, 30), torch.bfloat16, True))
    images, indices, params, table = on_gpu(augment_case(50, 32, 32, 3, 4, torch.bfloat16))

    def norm(*tensors: Tensor) -> list[Tensor]:
        x, weight, bias, residual = (tensor.detach().requires_grad_() for tensor in tensors[:4])
        y = instance_norm_act(x, weight, bias, residual=residual)
        return [y.detach(), *torch.autograd.grad(y, (x, weight, bias, residual), tensors[4])]

    def focal(logits: Tensor, labels: Tensor) -> list[Tensor]:
        leaf = logits.detach().requires_grad_()
        loss = sigmoid_focal_loss(leaf, labels)
        return [loss.detach(), *torch.autograd.grad(loss, leaf)]

    def shift(images: Tensor, indices: Tensor, params: Tensor, table: Tensor) -> list[Tensor]:
        return [augment(images, indices, params, table, 4, 8)]

    case, choices = crop_case(torch.float32)

    def resize(*tensors: Tensor) -> list[Tensor]:
        return [crop(tensors[:6], (50, 40), tensors[6:])]

    def pool(*tensors: Tensor) -> list[Tensor]:
        x, weight, bias = (tensor.detach().requires_grad_() for tensor in tensors[:3])
        averages = [torch.zeros_like(tensors[1]) for _ in range(2)]
        y = pool_norm_act(x, weight, bias, *averages, training=True)
        return [y.detach(), *averages, *torch.autograd.grad(y, (x, weight, bias), tensors[3])]

    return {
        "augment": (shift, [images, indices, params, table]),
        "focal": (focal, [logits, labels]),
        "norm": (norm, [x, weight, bias, residual, grad]),
        "pool": (pool, [wide_x, scale, offset, wide_grad]),
        "resize": (resize, on_gpu((*case, *choices))),
    }


NAMES = ["augment", "focal", "norm", "pool", "resize"]


def equal(one: list[Tensor], other: list[Tensor]) -> bool:
    return all(torch.equal(mine, theirs) for mine, theirs in zip(one, other, strict=True))


@pytest.mark.usefixtures("_kernels")
@pytest.mark.parametrize("name", NAMES)
def test_results_are_the_same_each_time(name: str) -> None:
    step, inputs = steps()[name]
    first = step(*inputs)
    assert all(equal(first, step(*inputs)) for _ in range(10))


@pytest.mark.usefixtures("_kernels")
@pytest.mark.parametrize("name", NAMES)
def test_a_cuda_graph_holds_the_work(name: str) -> None:
    step, inputs = steps()[name]
    static = [tensor.clone() for tensor in inputs]
    static[0].zero_()
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        step(*static)
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        found = step(*static)
    static[0].copy_(inputs[0])
    graph.replay()
    torch.cuda.synchronize()
    assert equal(found, step(*inputs))


@pytest.mark.usefixtures("_kernels")
@pytest.mark.parametrize("name", NAMES)
def test_work_waits_for_its_input_on_the_stream_that_is_current(name: str) -> None:
    step, inputs = steps()[name]
    expected = step(*inputs)
    late = [torch.zeros_like(tensor) for tensor in inputs]
    torch.cuda.synchronize()
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        torch.cuda._sleep(200_000_000)  # cycles of the GPU: a kernel on another stream would see zeros
        for tensor, other in zip(late, inputs, strict=True):
            tensor.copy_(other)
        found = step(*late)
    stream.synchronize()
    assert equal(found, expected)


@pytest.mark.usefixtures("_kernels")
@pytest.mark.parametrize("name", NAMES)
def test_work_runs_on_the_device_of_its_input(name: str) -> None:
    if torch.cuda.device_count() < 2:
        pytest.skip("one GPU only")
    step, inputs = steps()[name]
    found = step(*(tensor.to("cuda:1") for tensor in inputs))
    assert all(tensor.device.index == 1 for tensor in found)
    assert equal([tensor.cpu() for tensor in found], [tensor.cpu() for tensor in step(*inputs)])


@pytest.mark.usefixtures("_kernels")
@pytest.mark.parametrize("name", ["focal", "norm"])
def test_a_compiled_graph_computes_the_same(name: str) -> None:
    step, inputs = steps()[name]
    torch.compiler.reset()
    if name == "focal":
        compiled = torch.compile(sigmoid_focal_loss, fullgraph=True)
        leaf = inputs[0].detach().requires_grad_()
        loss = compiled(leaf, inputs[1])
        assert equal([loss.detach(), *torch.autograd.grad(loss, leaf)], step(*inputs))
    else:
        whole: Any = torch.compile(instance_norm_act, fullgraph=True)
        leaves = [tensor.detach().requires_grad_() for tensor in inputs[:4]]
        y = whole(*leaves[:3], residual=leaves[3])
        assert equal([y.detach(), *torch.autograd.grad(y, leaves, inputs[4])], step(*inputs))


def large_enough(gigabytes: float) -> None:
    """Skips where the GPU has too little memory left."""
    torch.cuda.empty_cache()
    free = torch.cuda.mem_get_info()[0] / 1e9
    if free < gigabytes:
        pytest.skip(f"{free:.0f} GB of the GPU are free, {gigabytes:.0f} needed")


@pytest.mark.usefixtures("_kernels")
def test_more_than_two_thousand_million_logits_are_reached() -> None:
    large_enough(12)
    classes = 64
    rows = 2**31 // classes + 100
    logits, labels = focal_case(100, classes, torch.bfloat16)
    many = torch.full((rows, classes), -200.0, dtype=torch.bfloat16, device="cuda")  # no loss
    many[-100:] = logits.cuda()
    all_labels = torch.full((rows,), -1, device="cuda")
    all_labels[-100:] = labels.cuda()
    many.requires_grad_()
    loss = sigmoid_focal_loss(many, all_labels)
    loss.backward()
    few = logits.cuda().requires_grad_()
    expected = sigmoid_focal_loss(few, labels.cuda())
    expected.backward()
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
    assert many.grad is not None
    assert few.grad is not None
    assert torch.equal(many.grad[-100:], few.grad)
    assert not many.grad[:-100].any()


@pytest.mark.usefixtures("_kernels")
@pytest.mark.parametrize("channels_last", [True, False])
def test_more_than_two_thousand_million_features_are_reached(channels_last: bool) -> None:
    large_enough(24)
    layout = torch.channels_last if channels_last else torch.contiguous_format
    x = torch.empty((3, 64, 4096, 2752), dtype=torch.bfloat16, device="cuda", memory_format=layout)
    assert x.numel() > 2**31
    x.normal_()
    x.requires_grad_()
    y = instance_norm_act(x)
    (grad,) = torch.autograd.grad(y, x, y.detach())
    alone = x.detach()[2:].requires_grad_()
    expected = instance_norm_act(alone)
    (grad_alone,) = torch.autograd.grad(expected, alone, expected.detach())
    torch.testing.assert_close(y[2:, :, -8:], expected[:, :, -8:], rtol=1e-2, atol=1e-2)
    torch.testing.assert_close(grad[2:, :, -8:], grad_alone[:, :, -8:], rtol=1e-2, atol=1e-2)


@pytest.mark.usefixtures("_kernels")
def test_more_than_two_thousand_million_bytes_of_pictures_are_reached() -> None:
    large_enough(8)
    num = 2**31 // 3072 + 100
    images = torch.zeros((num, 32, 32, 3), dtype=torch.uint8, device="cuda")
    some, _, params, table = augment_case(4, 32, 32, 3, 4, torch.bfloat16)
    images[-4:] = some.cuda()
    every = torch.arange(num, device="cuda")
    choices = torch.zeros((num, 5), dtype=torch.int64, device="cuda")
    choices[-4:] = params.cuda()
    found = augment(images, every, choices, table.cuda(), 4, 8)
    assert torch.equal(found[-4:].cpu(), reference.augment(some, torch.arange(4), params, table, 4, 8))


@pytest.mark.usefixtures("_kernels")
def test_the_focal_loss_stores_nothing_of_the_size_of_its_logits() -> None:
    logits = torch.randn(20_000, 80, device="cuda", requires_grad=True)
    labels = torch.full((20_000,), -1, device="cuda")
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    loss = sigmoid_focal_loss(logits, labels)
    assert torch.cuda.max_memory_allocated() - before < 100_000
    loss.backward()
    assert torch.cuda.max_memory_allocated() - before < 1.1 * 4 * logits.numel()


@pytest.mark.usefixtures("_state")
def test_autocast_leaves_dtypes_as_they_are() -> None:
    step, inputs = steps()["norm"]
    with torch.autocast("cuda", torch.bfloat16):
        found = step(*inputs)
    assert [tensor.dtype for tensor in found] == [torch.bfloat16, torch.bfloat16, *[torch.float32] * 2, torch.bfloat16]
    assert equal(found, step(*inputs))


OUT_OF_RANGE = {
    "an index": "augment(images, rows + 2, choices, torch.ones(3, 256).cuda(), 1, 0)",
    "a choice": "augment(images, rows, choices + 7, torch.ones(3, 256).cuda(), 1, 0)",
    "a box": "crop_resize(images.flatten(), rows * 0, torch.tensor([[4, 4]]).cuda(), rows * 0, torch.ones(1, 4).cuda(),"
    " (2, 2), torch.ones(3, 256).cuda())",
    "a label": "sigmoid_focal_loss(torch.ones(1, 4).cuda(), rows + 3)",
}


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("what", OUT_OF_RANGE)
def test_a_number_out_of_range_ends_the_program(what: str, state: str) -> None:
    program = f"""
import torch
from cuda_ext import augment, crop_resize, sigmoid_focal_loss
images, rows = torch.zeros(2, 4, 4, 3, dtype=torch.uint8).cuda(), torch.tensor([1]).cuda()
choices = torch.zeros(1, 5).long().cuda()
{OUT_OF_RANGE[what]}
torch.cuda.synchronize()
"""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "ATELIER_EXT": "off" if state == "plain" else "auto"}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, timeout=200)
    assert done.returncode != 0
    assert "out of range" in done.stderr or "device-side assert" in done.stderr, done.stderr
