"""The Gram matrix and its derivative, written by hand, against their definition and against torch's own checks."""

import pytest
import torch

from cuda_ext import gram_matrix


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_it_is_the_mean_product_of_all_pairs_of_channels(dtype: torch.dtype, layout: torch.memory_format) -> None:
    features = torch.randn(2, 3, 4, 5).to(dtype).contiguous(memory_format=layout).requires_grad_()
    found = gram_matrix(features)
    found.square().sum().backward()
    wide = features.detach().double().requires_grad_()
    expected = torch.einsum("nchw,ndhw->ncd", wide, wide) / 60
    expected.square().sum().backward()
    tolerance = {torch.float64: 1e-12, torch.float32: 1e-5, torch.float16: 1e-3, torch.bfloat16: 1e-2}[dtype]
    assert found.dtype == dtype
    torch.testing.assert_close(found.detach().double(), expected.detach(), rtol=tolerance, atol=tolerance / 10)
    assert features.grad is not None
    assert wide.grad is not None
    torch.testing.assert_close(features.grad.double(), wide.grad, rtol=2 * tolerance, atol=tolerance)


def test_first_and_second_derivatives_are_those_of_small_steps() -> None:
    features = torch.randn(2, 3, 2, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(gram_matrix, (features,))
    assert torch.autograd.gradgradcheck(gram_matrix, (features,))


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_the_gradient_has_the_layout_of_the_features(layout: torch.memory_format) -> None:
    features = torch.randn(2, 3, 4, 5).contiguous(memory_format=layout).requires_grad_()
    (gradient,) = torch.autograd.grad(gram_matrix(features).square().sum(), features)
    assert gradient.stride() == features.stride()


def test_a_large_sum_does_not_overflow_in_float16() -> None:
    features = torch.full((1, 2, 64, 64), 30.0, dtype=torch.float16)  # the sum is 3.7 million; float16 ends at 65504
    assert gram_matrix(features).tolist() == [[[450.0, 450.0], [450.0, 450.0]]]


def test_autocast_neither_rounds_it_nor_mixes_dtypes_in_backward() -> None:
    features = torch.randn(1, 3, 4, 4, requires_grad=True)
    with torch.autocast("cpu", torch.bfloat16):
        found = gram_matrix(features)
    assert found.dtype == torch.float32
    assert torch.equal(found, gram_matrix(features))
    found.sum().backward()


def test_a_change_of_the_features_before_backward_is_noticed() -> None:
    features = torch.randn(1, 2, 3, 3, requires_grad=True)
    changed = features * 1
    found = gram_matrix(changed)
    changed.mul_(2)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        found.sum().backward()


def test_no_samples_give_none_back() -> None:
    features = torch.randn(0, 3, 4, 4, requires_grad=True)
    gram_matrix(features).sum().backward()
    assert gram_matrix(features).shape == (0, 3, 3)


@pytest.mark.parametrize(
    ("features", "message"),
    [
        (torch.ones(3, 4, 4), r"features: torch.float32 \[3, 4, 4\]; must be \[N, C, H, W\]"),
        (torch.ones(1, 3, 4, 4).int(), "features: torch.int32 .*; must be .* of a floating point dtype"),
        (torch.ones(1, 3, 0, 4), r"features: \[1, 3, 0, 4\]; C, H and W must be 1 or more"),
    ],
)
def test_wrong_arguments_are_named_with_what_is_allowed(features: torch.Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        gram_matrix(features)
