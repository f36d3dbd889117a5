"""Instance normalization with ReLU and residual: value and gradients of the formula, in both layouts and all dtypes."""

from functools import partial

import pytest
import torch
from torch import Tensor

from cuda_ext import instance_norm_act
from tests.cuda_ext.cases import STATES, Shape, enter, norm_case

TOLERANCE = {torch.float64: 1e-10, torch.float32: 1e-5, torch.float16: 2e-3, torch.bfloat16: 1.6e-2}


@pytest.fixture(params=STATES, autouse=True)
def state(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    enter(request.param, monkeypatch)
    return str(request.param)


def formula(
    x: Tensor, weight: Tensor | None, bias: Tensor | None, residual: Tensor | None, relu: bool, eps: float
) -> Tensor:
    """Each channel of each sample by itself, in float64."""
    samples = []
    for n, sample in enumerate(x.double()):
        channels = []
        for c, plane in enumerate(sample):
            value = (plane - plane.mean()) / (((plane - plane.mean()) ** 2).mean() + eps) ** 0.5
            if weight is not None and bias is not None:
                at = (n, c) if weight.dim() == 2 else (c,)
                value = value * weight[at].double() + bias[at].double()
            channels.append(value)
        samples.append(torch.stack(channels))
    value = torch.stack(samples)
    value = value if residual is None else value + residual.double()
    return torch.where(value > 0, value, 0) if relu else value


def check(leaves: list[Tensor | None], grad: Tensor, relu: bool) -> None:
    """Compares value and gradients with the formula's. leaves: x, weight, bias, residual."""
    mine = [None if leaf is None else leaf.detach().requires_grad_() for leaf in leaves]
    other = [None if leaf is None else leaf.detach().double().requires_grad_() for leaf in leaves]
    assert mine[0] is not None
    assert other[0] is not None
    x, tolerance = mine[0], TOLERANCE[mine[0].dtype]
    y = instance_norm_act(x, mine[1], mine[2], residual=mine[3], relu=relu)
    y.backward(grad)
    expected = formula(other[0], other[1], other[2], other[3], relu, 1e-5)
    expected.backward(grad.double())
    assert y.dtype == x.dtype
    assert y.stride() == x.stride()
    torch.testing.assert_close(y.detach().double(), expected.detach(), rtol=tolerance, atol=tolerance)
    for name, leaf, twin in zip(("x", "weight", "bias", "residual"), mine, other, strict=True):
        if leaf is not None:
            assert leaf.grad is not None
            assert twin is not None
            assert twin.grad is not None
            close = tolerance if leaf.dim() == 4 else max(8 * tolerance, 1e-5)  # parameters: sums, in float32
            found = leaf.grad.double()
            torch.testing.assert_close(found, twin.grad, rtol=close, atol=close, msg=partial("{}: {}".format, name))


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("channels_last", [True, False])
@pytest.mark.parametrize("shape", [(2, 3, 5, 4), (1, 20, 9, 2), (3, 16, 4, 7)])
@pytest.mark.parametrize(
    ("parameters", "with_residual", "relu"),
    [("none", False, True), ("shared", False, True), ("shared", True, False), ("per sample", True, True)],
)
def test_value_and_gradients_are_those_of_the_formula(
    shape: Shape, parameters: str, with_residual: bool, relu: bool, channels_last: bool, dtype: torch.dtype
) -> None:
    x, weight, bias, residual, grad = norm_case(shape, parameters, dtype, channels_last)
    check([x, weight, bias, residual if with_residual else None], grad, relu)


def test_one_sample_in_channels_last_has_right_gradients() -> None:
    # F.instance_norm's are wrong by their own size here on a CPU, for want of ReLU between it and the gradient.
    x, weight, bias, _, grad = norm_case((1, 8, 6, 5), "shared", torch.float32, channels_last=True)
    check([x, weight, bias, None], grad, relu=False)


def test_more_numbers_than_one_strip_holds_are_added_up() -> None:
    for channels_last in (True, False):
        x, weight, bias, residual, grad = norm_case((1, 19, 67, 65), "shared", torch.float32, channels_last)
        leaves = [tensor.requires_grad_() for tensor in (x, weight, bias, residual) if tensor is not None]
        y = instance_norm_act(x, weight, bias, residual=residual)
        found = torch.autograd.grad(y, leaves, grad)
        doubles = [leaf.detach().double().requires_grad_() for leaf in leaves]
        expected = instance_norm_act(doubles[0], doubles[1], doubles[2], residual=doubles[3])
        torch.testing.assert_close(y.detach().double(), expected.detach(), rtol=1e-5, atol=1e-5)
        for mine, other in zip(found, torch.autograd.grad(expected, doubles, grad.double()), strict=True):
            torch.testing.assert_close(mine.double(), other, rtol=1e-4, atol=1e-4)


def test_a_large_mean_costs_no_more_digits_than_it_has_to() -> None:
    x = (torch.randn(2, 4, 30, 20, generator=torch.Generator().manual_seed(0)) + 1000).requires_grad_()
    y = instance_norm_act(x, relu=False).detach()
    torch.testing.assert_close(y.double(), formula(x.detach(), None, None, None, False, 1e-5), rtol=3e-4, atol=3e-4)


def test_without_any_variance_the_bias_is_left() -> None:
    y = instance_norm_act(torch.full((1, 2, 3, 3), 1e4), torch.ones(2), torch.tensor([3.0, -1]))
    assert y[0].flatten(1).tolist() == [[3.0] * 9, [0.0] * 9]


def test_results_of_kernels_do_not_depend_on_the_number_of_threads(state: str) -> None:
    if state == "plain":
        pytest.skip("plain PyTorch rounds as its threads divide the work")
    x, weight, bias, residual, grad = norm_case((3, 40, 37, 31), "shared", torch.float32, channels_last=True)
    before, found = torch.get_num_threads(), []
    try:
        for threads in (1, 3):
            torch.set_num_threads(threads)
            leaf = x.detach().requires_grad_()
            y = instance_norm_act(leaf, weight, bias, residual=residual)
            found.append((y.detach(), *torch.autograd.grad(y, leaf, grad)))
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(one, three) for one, three in zip(*found, strict=True))


def test_only_x_and_a_few_numbers_are_kept_for_backward() -> None:
    x, weight, bias, _, _ = norm_case((2, 3, 10, 10), "shared", torch.float32, channels_last=True)
    kept: list[Tensor] = []

    def keep(tensor: Tensor) -> Tensor:
        kept.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        instance_norm_act(x.requires_grad_(), weight, bias)
    sizes = sorted(tensor.numel() for tensor in kept)
    assert sizes == [3, 3, 6, 6, x.numel()]


def test_other_layouts_keep_the_nearer_one() -> None:
    for layout in (torch.contiguous_format, torch.channels_last):
        whole = torch.randn(2, 3, 6, 10).contiguous(memory_format=layout)
        part = whole[:, :, 1:5, 2:9].requires_grad_()
        y = instance_norm_act(part, residual=part)
        assert y.is_contiguous(memory_format=layout)
        expected = formula(part.detach(), None, None, part.detach(), True, 1e-5)
        torch.testing.assert_close(y.detach().double(), expected, rtol=1e-5, atol=1e-5)
        y.sum().backward()  # whose gradient is one number, expanded


def test_no_samples_give_none_back() -> None:
    x, weight = torch.randn(0, 3, 4, 4, requires_grad=True), torch.randn(3, requires_grad=True)
    y = instance_norm_act(x, weight, torch.zeros(3))
    y.sum().backward()
    assert y.shape == x.shape
    assert torch.equal(weight.grad, torch.zeros(3))  # type: ignore[arg-type]


def test_what_is_not_a_number_stays_so() -> None:
    x = torch.randn(1, 2, 4, 4)
    x[0, 0, 0, 0] = torch.nan
    y = instance_norm_act(x)
    assert y[0, 0].isnan().all()
    assert not y[0, 1].isnan().any()


def test_autocast_leaves_dtypes_as_they_are() -> None:
    x, weight, bias, _, _ = norm_case((2, 3, 4, 5), "shared", torch.bfloat16, channels_last=True)
    with torch.autocast("cpu", torch.bfloat16):
        y = instance_norm_act(x, weight, bias)
    assert y.dtype == torch.bfloat16
    assert torch.equal(y, instance_norm_act(x, weight, bias))


def test_parameters_of_half_precision_are_widened() -> None:
    x, weight, bias, _, grad = norm_case((2, 3, 4, 5), "shared", torch.bfloat16, channels_last=False)
    assert weight is not None
    assert bias is not None
    half = weight.bfloat16().requires_grad_()
    y = instance_norm_act(x, half, bias.bfloat16())
    y.backward(grad)
    assert torch.equal(y, instance_norm_act(x, weight.bfloat16().float(), bias.bfloat16().float()))
    assert half.grad is not None
    assert half.grad.dtype == torch.bfloat16


def test_a_second_derivative_is_refused_by_name() -> None:
    x = torch.randn(1, 2, 3, 3, requires_grad=True)
    (grad,) = torch.autograd.grad(instance_norm_act(x).sum(), x, create_graph=True)
    with pytest.raises(NotImplementedError, match="instance_norm_act: there is no second derivative"):
        grad.sum().backward()


X, WEIGHT, BIAS, RESIDUAL, _ = norm_case((2, 3, 4, 5), "shared", torch.float32, channels_last=False)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"x": X.int()}, r"x: int32 \[2, 3, 4, 5\]; must be float \[N, C, H, W\]"),
        ({"x": X[0]}, r"x: float32 \[3, 4, 5\]; must be"),
        ({"x": X[:, :, :1, :1]}, "x: .*; must have two pixels or more, for a variance"),
        ({"weight": None}, "weight, bias: one of them alone; must be both or none"),
        ({"weight": torch.ones(4)}, r"weight: float32 \[4\]; must be float \[3\] or \[2, 3\]"),
        ({"bias": torch.ones(3).int()}, r"bias: int32 \[3\]; must be float"),
        ({"bias": torch.ones(2, 3)}, r"bias: float32 \[2, 3\]; must be of weight's shape, \[3\]"),
        ({"weight": torch.ones(3, device="meta")}, "weight: on meta; must be on cpu, where x is"),
        ({"residual": RESIDUAL[:1]}, r"residual: float32 \[1, 3, 4, 5\]; must be float32 \[2, 3, 4, 5\], like x"),
        ({"residual": RESIDUAL.half()}, "residual: float16 .*; must be float32"),
        ({"eps": 0.0}, "eps: 0.0; must be more than 0, and finite"),
    ],
)
def test_wrong_arguments_are_named_with_what_is_allowed(changed: dict[str, object], message: str) -> None:
    arguments = {"x": X, "weight": WEIGHT, "bias": BIAS, "residual": RESIDUAL, "eps": 1e-3}
    instance_norm_act(**arguments)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=message):
        instance_norm_act(**{**arguments, **changed})  # type: ignore[arg-type]
