"""The numbers are what their names say, checked against plain numpy."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from projects.forecast.loss import forecast_loss, pinball
from projects.forecast.metrics import Scale, Scores, naive_error

LEVELS = (0.1, 0.5, 0.9)
COLUMNS = ("a", "b", "c")


@pytest.fixture(scope="module")
def forecasts() -> tuple[torch.Tensor, torch.Tensor]:
    """23 windows of 4 steps, 3 columns, 3 levels."""
    generator = torch.Generator().manual_seed(0)
    targets = torch.randn(23, 4, 3, generator=generator)
    middle = targets + torch.randn(23, 4, 3, generator=generator) * torch.tensor([1.0, 0.5, 2.0])
    return torch.stack([middle - 0.8, middle, middle + 0.9], dim=-1), targets


def scored(forecasts: tuple[torch.Tensor, torch.Tensor], sizes: list[int], num_parts: int = 4) -> Scores:
    scale = Scale(np.array([10.0, 0.0, -3.0]), np.array([2.0, 0.1, 5.0]), np.array([1.5, 0.2, 0.0]))
    scores = Scores(scale, LEVELS, np.arange(23) * num_parts // 23)
    for forecast, targets in zip(*(tensor.split(sizes) for tensor in forecasts), strict=True):
        scores.add(forecast.numpy(), targets.numpy())
    return scores


def test_scores_are_means_over_windows_steps_and_columns(forecasts: tuple[torch.Tensor, torch.Tensor]) -> None:
    result = scored(forecasts, [10, 10, 3]).result(COLUMNS)
    error = (forecasts[0][..., 1] - forecasts[1]).double().numpy()
    assert result["num_windows"] == 23
    assert result["mse"] == pytest.approx(np.square(error).mean())
    assert result["mae"] == pytest.approx(np.abs(error).mean())
    np.testing.assert_allclose(result["mse_by_step"], np.square(error).mean(axis=(0, 2)))
    np.testing.assert_allclose(result["mae_by_step"], np.abs(error).mean(axis=(0, 2)))


def test_scores_do_not_depend_on_how_windows_are_batched(forecasts: tuple[torch.Tensor, torch.Tensor]) -> None:
    one, other = (scored(forecasts, sizes).result(COLUMNS) for sizes in ([23], [5, 5, 5, 5, 3]))
    assert one["mse"] == pytest.approx(other["mse"], rel=1e-12)
    assert one["original_units"]["a"] == pytest.approx(other["original_units"]["a"], rel=1e-12)
    assert one["coverage"] == other["coverage"]


def test_original_units_are_those_of_the_columns(forecasts: tuple[torch.Tensor, torch.Tensor]) -> None:
    result = scored(forecasts, [23]).result(COLUMNS)["original_units"]
    for k, (name, mean, std, naive) in enumerate(zip(COLUMNS, (10, 0, -3), (2, 0.1, 5), (1.5, 0.2, 0), strict=True)):
        forecast = forecasts[0][..., k, 1].double().numpy() * std + mean
        truth = forecasts[1][..., k].double().numpy() * std + mean
        assert result[name]["mse"] == pytest.approx(np.square(forecast - truth).mean())
        assert result[name]["rmse"] == pytest.approx(np.sqrt(np.square(forecast - truth).mean()))
        assert result[name]["mae"] == pytest.approx(np.abs(forecast - truth).mean())
        expected = (200 * np.abs(forecast - truth) / (np.abs(forecast) + np.abs(truth))).mean()
        assert result[name]["smape"] == pytest.approx(expected)
        assert result[name]["mase"] == (pytest.approx(np.abs(forecast - truth).mean() / naive) if naive else None)


def test_the_backtest_scores_equal_parts_of_the_windows_in_time(forecasts: tuple[torch.Tensor, torch.Tensor]) -> None:
    result = scored(forecasts, [7, 7, 7, 2], num_parts=2).result(COLUMNS)["backtest"]
    error = (forecasts[0][..., 1] - forecasts[1]).double().numpy()
    for part, rows in zip(result, (slice(0, 12), slice(12, 23)), strict=True):
        assert part["mse"] == pytest.approx(np.square(error[rows]).mean())
        assert part["mae"] == pytest.approx(np.abs(error[rows]).mean())
        np.testing.assert_allclose(part["mse_by_step"], np.square(error[rows]).mean(axis=(0, 2)))


def test_coverage_is_the_share_of_truths_in_the_interval(forecasts: tuple[torch.Tensor, torch.Tensor]) -> None:
    result = scored(forecasts, [9, 14]).result(COLUMNS)
    lower, middle, upper = (forecasts[0][..., k] for k in range(3))
    truth = forecasts[1]
    assert result["coverage"] == pytest.approx(float(((truth > lower) & (truth <= upper)).double().mean()))
    assert result["coverage_wanted"] == pytest.approx(0.8)
    for share, level in zip(result["share_below"], (lower, middle, upper), strict=True):
        assert share == pytest.approx(float((truth <= level).double().mean()))


def test_coverage_of_true_quantiles_is_what_they_say() -> None:
    truth = torch.from_numpy(np.random.default_rng(0).normal(size=(400, 5, 1)))
    levels = torch.tensor([-1.2816, 0.0, 1.2816]).expand(400, 5, 1, 3)
    scores = Scores(Scale(np.zeros(1), np.ones(1), np.ones(1)), LEVELS, np.zeros(400, np.int64))
    scores.add(levels.numpy(), truth.numpy())
    result = scores.result(["a"])
    assert result["coverage"] == pytest.approx(0.8, abs=0.03)
    np.testing.assert_allclose(result["share_below"], LEVELS, atol=0.03)


def test_the_worst_windows_are_not_neighbors(forecasts: tuple[torch.Tensor, torch.Tensor]) -> None:
    scores = scored(forecasts, [23])
    errors = (forecasts[0][..., 1] - forecasts[1]).square().mean((1, 2))
    worst = scores.worst_windows(3, apart=4)
    assert worst[0] == int(errors.argmax())
    assert all(abs(one - other) >= 4 for k, one in enumerate(worst) for other in worst[:k])


def test_the_pinball_loss_is_least_at_the_quantile() -> None:
    truth = torch.from_numpy(np.random.default_rng(1).gamma(2, size=20_000)).float()
    for level in (0.1, 0.5, 0.9):
        quantile = torch.quantile(truth, level)
        losses = [pinball((quantile + shift).expand(20_000, 1), truth, [level]).mean() for shift in (-0.1, 0.0, 0.1)]
        assert losses[1] < min(losses[0], losses[2])


def test_losses_are_those_that_their_names_say(forecasts: tuple[torch.Tensor, torch.Tensor]) -> None:
    forecast, targets = forecasts
    point = forecast[..., 1:2]
    assert forecast_loss(point, targets, [0.5], "mae") == F.l1_loss(point[..., 0], targets)
    assert forecast_loss(point, targets, [0.5], "mse") == F.mse_loss(point[..., 0], targets)
    assert forecast_loss(point, targets, [0.5], "huber") == F.smooth_l1_loss(point[..., 0], targets)
    intervals = pinball(forecast[..., [0, 2]], targets, [0.1, 0.9]).mean()
    for name in ("mae", "mse", "huber"):
        alone = forecast_loss(point, targets, [0.5], name)
        torch.testing.assert_close(forecast_loss(forecast, targets, LEVELS, name), alone + intervals)


def test_the_naive_error_is_of_the_value_a_season_ago() -> None:
    values = np.array([[1.0], [5.0], [2.0], [4.0], [9.0]])
    assert naive_error([values], 1) == pytest.approx([(4 + 3 + 2 + 5) / 4])
    assert naive_error([values], 2) == pytest.approx([(1 + 1 + 7) / 3])
    assert naive_error([values[:3], values[3:]], 1) == pytest.approx([(4 + 3 + 5) / 3])  # not across two series
