"""Pooling, batch normalization and activation: value, gradients and running averages of torch's own operations."""

from functools import partial
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cuda_ext import pool_norm_act
from cuda_ext.pool_norm import Activation
from tests.cuda_ext.cases import STATES, Shape, enter, pool_case

TOLERANCE = {torch.float64: 1e-10, torch.float32: 1e-5, torch.float16: 2e-3, torch.bfloat16: 1.6e-2}


@pytest.fixture(params=STATES, autouse=True)
def state(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    enter(request.param, monkeypatch)
    return str(request.param)


def one_by_one(x: Tensor, norm: nn.BatchNorm2d, activation: Activation, pool: bool) -> Tensor:
    """The three operations, with a module's parameters, running averages and mode."""
    value = norm(F.max_pool2d(x, 2) if pool else x)
    return F.gelu(value) if activation == "gelu" else F.relu(value)


def module(weight: Tensor, bias: Tensor, training: bool) -> nn.BatchNorm2d:
    """Batch normalization in float64 with running averages that are not those of the start."""
    norm = nn.BatchNorm2d(len(weight), momentum=0.3).double().train(training)
    norm.load_state_dict(
        norm.state_dict()
        | {"weight": weight, "bias": bias, "running_mean": bias * 0 + 0.5, "running_var": bias.double() ** 2 + 1}
    )
    return norm


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("shape", [(2, 16, 4, 6), (3, 21, 7, 5), (1, 3, 4, 5)])
@pytest.mark.parametrize("pool", [True, False])
@pytest.mark.parametrize(("activation", "training"), [("gelu", True), ("relu", True), ("gelu", False), ("relu", False)])
def test_value_gradients_and_running_averages_are_those_of_the_three_operations(
    shape: Shape, pool: bool, activation: Activation, training: bool, dtype: torch.dtype
) -> None:
    x, weight, bias, grad = pool_case(shape, dtype, pool)
    norm = module(weight, bias, training)
    computed = torch.promote_types(dtype, torch.float32)
    averages = [bias.to(computed) * 0 + 0.5, bias.to(computed) ** 2 + 1]
    twin = x.double().requires_grad_()
    expected = one_by_one(twin, norm, activation, pool)
    slopes = torch.autograd.grad(expected, (twin, norm.weight, norm.bias), grad.double())
    leaves = [leaf.requires_grad_() for leaf in (x, weight, bias)]
    y = pool_norm_act(
        *(leaves[0], leaves[1], leaves[2]), *averages, training=training, momentum=0.3, activation=activation, pool=pool
    )
    found = torch.autograd.grad(y, leaves, grad)
    close = TOLERANCE[dtype]
    assert y.dtype == dtype
    for tensor in (y, found[0]):
        assert tensor.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(y.detach().double(), expected.detach(), rtol=close, atol=close)
    for name, mine, other in zip(("x", "weight", "bias"), found, slopes, strict=True):
        near = close if name == "x" else 1e-5 * max(1.0, close / 1e-5 * 8)  # of parameters: sums
        torch.testing.assert_close(mine.double(), other, rtol=near, atol=near, msg=partial("{}: {}".format, name))
    for mine, kept in zip(averages, (norm.running_mean, norm.running_var), strict=True):
        torch.testing.assert_close(mine.double(), kept, rtol=max(close / 10, 1e-10), atol=1e-6)
    with torch.no_grad():  # where nothing is kept for backward
        again = pool_norm_act(
            *(x, weight, bias), *averages, training=training, momentum=0, activation=activation, pool=pool
        )
    if training:
        assert torch.equal(again, y)


@pytest.mark.parametrize("pool", [True, False])
def test_the_first_of_equal_maxima_and_what_is_not_a_number_are_treated_as_torch_does(pool: bool) -> None:
    x, weight, bias, grad = pool_case((2, 19, 8, 6), torch.float32, pool)
    x[0, 3, 2, 1] = x[1, 18, 7, 5] = x[0, 0, 0, 0] = x[0, 0, 1, 1] = torch.nan
    x[:, 1, :2, :2] = -torch.inf
    x.requires_grad_()
    zeros, ones = torch.zeros(19), torch.ones(19)
    for activation in ("gelu", "relu"):
        y = pool_norm_act(x, weight, bias, zeros, ones, training=False, activation=activation, pool=pool)
        value = F.batch_norm(F.max_pool2d(x, 2) if pool else x, zeros, ones, weight, bias)
        expected = F.gelu(value) if activation == "gelu" else F.relu(value)
        close: dict[str, Any] = {"rtol": 1e-5, "atol": 1e-5, "equal_nan": True}
        torch.testing.assert_close(y, expected, **close)
        mine, other = (torch.autograd.grad(result, x, grad)[0] for result in (y, expected))
        torch.testing.assert_close(mine, other, **close)
    trained = pool_norm_act(x, weight, bias, None, None, training=True, pool=pool)
    assert trained.isnan().any((0, 2, 3)).tolist() == [channel in (0, 1, 3, 18) for channel in range(19)]


def test_derivatives_are_those_of_small_steps() -> None:
    x = torch.randn(2, 3, 5, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).requires_grad_()
    weight, bias = (torch.randn(3, dtype=torch.float64, requires_grad=True) for _ in range(2))
    for pool in (True, False):

        def norm(x: Tensor, weight: Tensor, bias: Tensor, pool: bool = pool) -> Tensor:
            return pool_norm_act(x, weight, bias, None, None, training=True, pool=pool)

        assert torch.autograd.gradcheck(norm, (x, weight, bias))


def test_results_of_kernels_do_not_depend_on_the_number_of_threads(state: str) -> None:
    if state == "plain":
        pytest.skip("plain PyTorch rounds as its threads divide the work")
    x, weight, bias, grad = pool_case((5, 40, 37, 31), torch.float32, True)
    before, found = torch.get_num_threads(), []
    try:
        for threads in (1, 3):
            torch.set_num_threads(threads)
            leaves = [leaf.detach().requires_grad_() for leaf in (x, weight, bias)]
            y = pool_norm_act(leaves[0], leaves[1], leaves[2], None, None, training=True)
            found.append((y.detach(), *torch.autograd.grad(y, leaves, grad)))
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(one, three) for one, three in zip(*found, strict=True))


@pytest.mark.parametrize("training", [True, False])
def test_two_bits_for_a_pooled_number_are_kept_for_backward(training: bool, state: str) -> None:
    if state == "plain":
        pytest.skip("plain PyTorch keeps what its operations do")
    x, weight, bias, _ = pool_case((2, 8, 10, 6), torch.bfloat16, True)
    kept: list[Tensor] = []

    def keep(tensor: Tensor) -> Tensor:
        kept.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        pool_norm_act(x.requires_grad_(), weight, bias, bias, bias.square(), training=training)
    assert sorted(tensor.nbytes for tensor in kept) == [32, 32, 2 * 8 * 15 // 4, 3 * 32, 2 * 8 * 15 * 2]


def test_a_large_mean_costs_no_more_digits_than_it_has_to() -> None:
    x = torch.randn(3, 4, 30, 20, generator=torch.Generator().manual_seed(0)) + 1000
    found = pool_norm_act(x, None, None, None, None, training=True, activation="relu")
    expected = pool_norm_act(x.double(), None, None, None, None, training=True, activation="relu")
    torch.testing.assert_close(found.double(), expected, rtol=3e-4, atol=3e-4)


def test_contiguous_and_cut_out_inputs_are_taken_and_weight_and_bias_may_be_missing() -> None:
    x, weight, bias, grad = pool_case((2, 5, 6, 8), torch.float32, True)
    whole = torch.zeros(2, 5, 9, 9)
    whole[:, :, 1:7, :8] = x
    for scale, shift in ((weight, bias), (None, bias), (weight, None)):
        results = []
        for leaf in (x, x.contiguous(), whole[:, :, 1:7, :8]):
            leaf = leaf.detach().requires_grad_()
            y = pool_norm_act(leaf, scale, shift, None, None, training=True)
            results.append((y.detach(), torch.autograd.grad(y, leaf, grad.contiguous())[0]))
        assert results[0][0].is_contiguous(memory_format=torch.channels_last)
        assert results[1][0].is_contiguous()
        for other in results[1:]:
            torch.testing.assert_close(other, results[0], rtol=1e-5, atol=1e-5)


def test_parameters_of_half_precision_and_autocast_change_no_dtype() -> None:
    x, weight, bias, grad = pool_case((2, 8, 4, 4), torch.bfloat16, True)
    half = weight.bfloat16().requires_grad_()
    mean, var = torch.zeros(8), torch.ones(8)
    with torch.autocast("cpu", torch.bfloat16):
        y = pool_norm_act(x, half, bias.bfloat16(), mean, var, training=True)
    (slope,) = torch.autograd.grad(y, half, grad)
    assert (y.dtype, slope.dtype, mean.dtype) == (torch.bfloat16, torch.bfloat16, torch.float32)
    assert torch.equal(y, pool_norm_act(x, half.float(), bias.bfloat16().float(), None, None, training=True))


def test_no_images_give_none_back_and_a_second_derivative_is_refused_by_name(state: str) -> None:
    none = torch.randn(0, 3, 4, 4, requires_grad=True)
    y = pool_norm_act(none, torch.ones(3), None, torch.zeros(3), torch.ones(3), training=False)
    y.sum().backward()
    assert y.shape == (0, 3, 2, 2)
    if state == "compiled":
        x = torch.randn(1, 2, 4, 4, requires_grad=True)
        result = pool_norm_act(x, None, None, None, None, training=True)
        with pytest.raises(NotImplementedError, match="pool_norm_act: there is no second derivative"):
            torch.autograd.grad(result.sum(), x, create_graph=True)


X, WEIGHT, BIAS, _ = pool_case((2, 3, 4, 6), torch.float32, True)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"x": X.int()}, r"x: int32 \[2, 3, 4, 6\].*; must be float \[N, C, H, W\]"),
        ({"x": X[0]}, "x: .*; must be float"),
        ({"x": X[:, :, :1]}, "x: .*; must have two rows and two columns or more"),
        ({"x": X[:1, :, :2, :3]}, "x: .*; must have two values or more for each channel"),
        ({"x": torch.empty(2**20, 3, 2**6, 2**5, device="meta")}, r"x: .*; must have less than 2\^31 pixels"),
        ({"weight": torch.ones(4)}, r"weight: float32 \[4\]; must be float \[3\]"),
        ({"bias": torch.ones(3).int()}, r"bias: int32 \[3\]; must be float"),
        ({"bias": torch.ones(3, device="meta")}, "bias: on meta; must be on cpu, where x is"),
        ({"running_mean": torch.zeros(3).half()}, "running_mean: float16 .*; must be float32"),
        ({"running_var": None}, "running_mean, running_var: one of them alone; must be both or none"),
        ({"running_mean": None, "running_var": None, "training": False}, "running_mean: None; must be there"),
        ({"momentum": 1.5}, "momentum: 1.5; must be from 0 to 1"),
        ({"eps": 0.0}, "eps: 0.0; must be more than 0, and finite"),
        ({"activation": "silu"}, "activation: 'silu'; choose from gelu, relu"),
    ],
)
def test_wrong_arguments_are_named_with_what_is_allowed(changed: dict[str, object], message: str) -> None:
    arguments: dict[str, object] = {"x": X, "weight": WEIGHT, "bias": BIAS, "training": True}
    arguments |= {"running_mean": torch.zeros(3), "running_var": torch.ones(3)}
    pool_norm_act(**arguments)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=message):
        pool_norm_act(**{**arguments, **changed})  # type: ignore[arg-type]
