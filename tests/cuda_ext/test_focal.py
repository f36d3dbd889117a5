"""The focal loss and its gradient are the paper's formula, stay finite, and know background and ignored rows."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from cuda_ext import sigmoid_focal_loss
from tests.cuda_ext.cases import STATES, enter, focal_case

HALF_OR_SINGLE = [torch.float32, torch.float16, torch.bfloat16]


@pytest.fixture(params=STATES, autouse=True)
def state(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    enter(request.param, monkeypatch)
    return str(request.param)


def formula(logits: Tensor, labels: Tensor, alpha: float, gamma: float) -> Tensor:
    """The paper's, with targets of zeros and ones, in float64; row by row for labels."""
    kept = labels != -2
    logits, labels = logits.double()[kept], labels[kept]
    targets = torch.zeros_like(logits)
    for row, label in enumerate(labels.tolist()):
        if label >= 0:
            targets[row, label] = 1
    p = torch.sigmoid(logits)
    cross_entropy = F.binary_cross_entropy_with_logits(logits, targets, reduction="none")
    p_t = p * targets + (1 - p) * (1 - targets)
    weight = alpha * targets + (1 - alpha) * (1 - targets) if alpha >= 0 else 1
    return (weight * (1 - p_t) ** gamma * cross_entropy).sum()


@pytest.mark.parametrize("dtype", [*HALF_OR_SINGLE, torch.float64])
@pytest.mark.parametrize(("alpha", "gamma"), [(0.25, 2.0), (0.25, 1.0), (0.0, 3.5), (1.0, 2.0), (-1, 2.0), (0.4, 0)])
def test_loss_and_gradient_are_those_of_the_formula(alpha: float, gamma: float, dtype: torch.dtype) -> None:
    logits, labels = focal_case(40, 7, dtype)
    logits = logits.clamp(-15, 15).requires_grad_()  # beyond, the formula itself loses digits
    loss = sigmoid_focal_loss(logits, labels, alpha, gamma)
    loss.backward()
    wide = logits.detach().double().requires_grad_()
    expected = formula(wide, labels, alpha, gamma)
    expected.backward()
    assert loss.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    assert loss.shape == ()
    assert loss.item() == pytest.approx(expected.item(), rel=1e-6)
    assert logits.grad is not None
    assert wide.grad is not None
    assert logits.grad.dtype == dtype
    tolerance = {torch.float64: 1e-9, torch.float32: 1e-5, torch.float16: 1e-3, torch.bfloat16: 8e-3}[dtype]
    torch.testing.assert_close(logits.grad.double(), wide.grad, rtol=tolerance, atol=1e-7)


@pytest.mark.parametrize("dtype", HALF_OR_SINGLE)
@pytest.mark.parametrize("gamma", [0.0, 0.3, 1.0, 2.0, 50.0])
def test_loss_and_gradient_are_finite_for_finite_logits(gamma: float, dtype: torch.dtype) -> None:
    largest = torch.finfo(dtype).max / 64  # so that the sum has room
    values = torch.tensor([0.0, 1e-7, 20, 80, 90, 1e4, largest])
    logits = torch.cat([values, -values]).to(dtype)[:, None].expand(14, 2).contiguous().requires_grad_()
    loss = sigmoid_focal_loss(logits, torch.tensor([0] * 7 + [1] * 7), 0.25, gamma)
    loss.backward()
    assert torch.isfinite(loss)
    assert logits.grad is not None
    assert torch.isfinite(logits.grad).all()


def test_ignored_rows_have_no_part_even_where_they_are_not_numbers() -> None:
    logits, labels = focal_case(20, 5, torch.float32)
    assert -2 in labels
    logits[labels == -2] = torch.nan
    logits.requires_grad_()
    loss = sigmoid_focal_loss(logits, labels)
    loss.backward()
    kept = labels != -2
    assert loss.item() == pytest.approx(sigmoid_focal_loss(logits[kept], labels[kept]).item(), rel=1e-6)
    assert logits.grad is not None
    assert torch.equal(logits.grad[~kept], torch.zeros(int((~kept).sum()), 5))
    assert sigmoid_focal_loss(logits, torch.full_like(labels, -2)).item() == 0


def test_a_background_row_has_no_class() -> None:
    logits = torch.tensor([[-3.0, 2.0]])
    p = torch.sigmoid(logits)
    expected = -(0.75 * p**2 * torch.log(1 - p)).sum()
    assert sigmoid_focal_loss(logits, torch.tensor([-1])).item() == pytest.approx(expected.item())


@pytest.mark.parametrize("shape", [(2, 3, 4, 5), (6, 5), (5,), (0, 5), (3, 0), (2, 0, 5)])
def test_rows_may_have_any_shape(shape: tuple[int, ...]) -> None:
    logits = torch.randn(shape, requires_grad=True)
    labels = torch.randint(-2, shape[-1], shape[:-1])
    loss = sigmoid_focal_loss(logits, labels)
    loss.backward()
    expected = formula(logits.detach().reshape(labels.numel(), shape[-1]), labels.flatten(), 0.25, 2)
    assert loss.item() == pytest.approx(expected.item())
    assert logits.grad is not None
    assert logits.grad.shape == shape


def test_any_strides_are_taken() -> None:
    logits, labels = focal_case(8, 6, torch.float32)
    turned = logits.t().contiguous().t().requires_grad_()
    loss = sigmoid_focal_loss(turned, torch.stack([labels, labels], 1)[:, 1])
    loss.backward()
    straight = logits.clone().requires_grad_()
    sigmoid_focal_loss(straight, labels).backward()
    assert turned.grad is not None
    assert straight.grad is not None
    assert torch.equal(turned.grad, straight.grad)


def test_autocast_changes_nothing() -> None:
    logits, labels = focal_case(8, 6, torch.bfloat16)
    with torch.autocast("cpu", torch.bfloat16):
        loss = sigmoid_focal_loss(logits, labels)
    assert loss.dtype == torch.float32
    assert torch.equal(loss, sigmoid_focal_loss(logits, labels))


def test_results_of_kernels_do_not_depend_on_the_number_of_threads(state: str) -> None:
    if state == "plain":
        pytest.skip("plain PyTorch rounds as its threads divide the work")
    logits, labels = focal_case(2000, 21, torch.float32)
    before, found = torch.get_num_threads(), []
    try:
        for threads in (1, 3):
            torch.set_num_threads(threads)
            leaf = logits.detach().requires_grad_()
            loss = sigmoid_focal_loss(leaf, labels)
            found.append((loss.detach(), *torch.autograd.grad(loss, leaf)))
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(one, three) for one, three in zip(*found, strict=True))


def test_a_second_derivative_is_refused_by_name() -> None:
    logits, labels = focal_case(4, 3, torch.float32)
    logits.requires_grad_()
    (grad,) = torch.autograd.grad(sigmoid_focal_loss(logits, labels), logits, create_graph=True)
    with pytest.raises(NotImplementedError, match="sigmoid_focal_loss: there is no second derivative"):
        grad.sum().backward()


LOGITS, LABELS = focal_case(3, 4, torch.float32)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"logits": LOGITS.int()}, r"logits: int32 \[3, 4\]; must be float \[..., C\]"),
        ({"logits": LOGITS[0, 0]}, r"logits: float32 \[\]; must be float"),
        ({"labels": LABELS.int()}, r"labels: int32 \[3\]; must be int64 \[3\], one for each row"),
        ({"labels": LABELS[:2]}, r"labels: int64 \[2\]; must be int64 \[3\]"),
        ({"labels": LABELS * 0 + 4}, "labels: 4; must be from -2 to 3"),
        ({"labels": LABELS * 0 - 3}, "labels: -3; must be from -2 to 3"),
        ({"labels": LABELS.to("meta")}, "labels: on meta; must be on cpu, where logits are"),
        ({"alpha": 1.5}, "alpha: 1.5; must be from 0 to 1, or -1 for no weights"),
        ({"alpha": -0.5}, "alpha: -0.5; must be"),
        ({"alpha": float("nan")}, "alpha: nan; must be"),
        ({"gamma": -1.0}, "gamma: -1.0; must be 0 or more, and finite"),
        ({"gamma": float("inf")}, "gamma: inf; must be"),
    ],
)
def test_wrong_arguments_are_named_with_what_is_allowed(changed: dict[str, object], message: str) -> None:
    arguments = {"logits": LOGITS, "labels": LABELS, "alpha": 0.25, "gamma": 2.0}
    sigmoid_focal_loss(**arguments)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=message):
        sigmoid_focal_loss(**{**arguments, **changed})  # type: ignore[arg-type]
