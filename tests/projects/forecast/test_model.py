"""The networks have the shapes, symmetries and limits that their descriptions promise."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from projects.forecast.config import Config, settled
from projects.forecast.loss import forecast_loss
from projects.forecast.model import (
    DLinear,
    Reversible,
    Seq2Seq,
    build_model,
    moving_average,
    raw_to_levels,
    seasonal_naive,
    solve_dlinear,
)

NETWORKS: dict[str, dict[str, Any]] = {
    "segrnn": {"model": "segrnn", "segment": 5},
    "segrnn, anchor": {"model": "segrnn", "segment": 5, "normalize": "anchor"},
    "segrnn, point, revin": {"model": "segrnn", "segment": 7, "head": "point", "normalize": "revin"},
    "lstm": {"model": "lstm"},
    "dlinear": {"model": "dlinear"},
    "dlinear, point, last": {"model": "dlinear", "head": "point", "normalize": "last"},
}
LOOKBACK, HORIZON, NUM_COLUMNS = 40, 12, 3


def built(name: str) -> tuple[nn.Module, Config]:
    torch.manual_seed(0)
    config = settled(Config(lookback=LOOKBACK, horizon=HORIZON, width=16, **NETWORKS[name]))
    return build_model(config, NUM_COLUMNS).eval(), config


def windows(num: int = 4) -> Tensor:
    return torch.randn(num, LOOKBACK, NUM_COLUMNS, generator=torch.Generator().manual_seed(1)).cumsum(1)


@pytest.mark.parametrize("name", NETWORKS)
def test_a_forecast_has_horizon_columns_and_levels_and_every_weight_learns(name: str) -> None:
    network, config = built(name)
    forecast = network(windows())
    assert forecast.shape == (4, HORIZON, NUM_COLUMNS, len(config.levels))
    assert forecast.dtype == torch.float32
    forecast.square().mean().backward()
    for parameter_name, parameter in network.named_parameters():
        assert parameter.grad is not None, parameter_name
        assert parameter.grad.abs().sum() > 0, parameter_name


@pytest.mark.parametrize("name", NETWORKS)
def test_a_window_is_forecast_alike_alone_and_in_company(name: str) -> None:
    network, _ = built(name)
    some = windows(5)
    torch.testing.assert_close(network(some)[3:4], network(some[3:4]), atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", ["segrnn", "lstm", "dlinear"])
def test_levels_never_cross(name: str) -> None:
    network, _ = built(name)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.mul_(20)
    levels = network(windows(50))
    assert (levels.diff(dim=-1) >= 0).all()


def test_levels_lie_round_the_point_forecast_in_their_order() -> None:
    raw = torch.tensor([[5.0, 0.0, 1.0, 0.0, 1.0]])
    near, far = F.softplus(torch.tensor([0.0, 1.0])).tolist()
    expected = [5 - near - far, 5 - near, 5, 5 + near, 5 + near + far]
    torch.testing.assert_close(raw_to_levels(raw)[0], torch.tensor(expected))


@pytest.mark.parametrize("model", ["segrnn", "lstm"])
def test_intervals_cost_the_point_forecast_nothing_at_all(model: Any) -> None:
    ends = []
    for head in ("point", "quantile"):
        torch.manual_seed(0)
        config = settled(Config(model=model, head=head, lookback=LOOKBACK, horizon=HORIZON, width=16, segment=5))
        network = build_model(config, NUM_COLUMNS)
        torch.manual_seed(1)  # of the dropout
        optimizer = torch.optim.AdamW(network.parameters(), lr=0.01)
        for _ in range(5):
            loss = forecast_loss(network(windows()), windows(4)[:, :HORIZON], config.levels, config.loss)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        ends.append(network.eval()(windows())[..., len(config.levels) // 2])
    assert torch.equal(ends[0], ends[1])


@pytest.mark.parametrize("name", ["segrnn", "dlinear"])
def test_a_column_does_not_see_the_others(name: str) -> None:
    network, _ = built(name)
    some = windows()
    other = some.clone()
    other[..., 1] += torch.randn(4, LOOKBACK, generator=torch.Generator().manual_seed(2))
    before, after = network(some), network(other)
    torch.testing.assert_close(after[..., [0, 2], :], before[..., [0, 2], :], atol=1e-5, rtol=0)
    assert not torch.allclose(after[..., 1, :], before[..., 1, :])


def test_the_lstm_sees_all_columns() -> None:
    network, _ = built("lstm")
    some = windows()
    other = some.clone()
    other[:, :-1, 1] += 1  # the last row is what the window's normalization takes from each column
    assert not torch.allclose(network(other)[..., 0, :], network(some)[..., 0, :])


def test_the_attention_is_a_share_of_each_row_for_each_step() -> None:
    torch.manual_seed(0)
    network = Seq2Seq(5, NUM_COLUMNS, 8, 0.0, 1)
    weights = network.attention(windows())
    assert weights.shape == (4, 5, LOOKBACK)
    torch.testing.assert_close(weights.sum(2), torch.ones(4, 5))
    with torch.no_grad():
        network.score.weight.zero_()
    torch.testing.assert_close(network.attention(windows()), torch.full((4, 5, LOOKBACK), 1 / LOOKBACK))


def test_segrnn_tells_columns_apart() -> None:
    network, _ = built("segrnn")
    same = windows()[..., :1].expand(-1, -1, NUM_COLUMNS)
    forecast = network(same)
    assert not torch.allclose(forecast[..., 0, :], forecast[..., 1, :])


@pytest.mark.parametrize("name", ["segrnn", "segrnn, point, revin"])
def test_a_raised_window_is_forecast_as_raised(name: str) -> None:
    network, _ = built(name)
    some = windows()
    torch.testing.assert_close(network(some + 7), network(some) + 7, atol=1e-3, rtol=0)
    if name.endswith("revin"):
        torch.testing.assert_close(network(some * 3), network(some) * 3, atol=2e-2, rtol=1e-3)


def test_a_learned_share_of_the_last_row_holds_at_each_step_and_column() -> None:
    network, _ = built("segrnn, anchor")
    assert isinstance(network, Reversible)
    assert network.share is not None
    some = windows()
    torch.testing.assert_close(network(some + 7), network(some) + 7, atol=1e-3, rtol=0)
    with torch.no_grad():
        network.share[5:, 1] = 0.25
    raised = network(some + 8) - network(some)
    torch.testing.assert_close(raised[:, 5:, 1], torch.full_like(raised[:, 5:, 1], 2.0), atol=1e-3, rtol=0)
    torch.testing.assert_close(raised[:, :5], torch.full_like(raised[:, :5], 8.0), atol=1e-3, rtol=0)


def test_a_window_that_stands_still_has_a_finite_forecast_and_gradient() -> None:
    for name in NETWORKS:
        network, _ = built(name)
        forecast = network(torch.full((2, LOOKBACK, NUM_COLUMNS), 5.0))
        forecast.sum().backward()
        assert torch.isfinite(forecast).all()
        assert all(torch.isfinite(p.grad).all() for p in network.parameters() if p.grad is not None)


@pytest.mark.parametrize("segment", [1, 7, 24, 40])
def test_any_segment_fits_any_lookback_and_horizon(segment: int) -> None:
    config = settled(Config(lookback=LOOKBACK, horizon=HORIZON, width=8, segment=segment))
    network = build_model(config, NUM_COLUMNS).eval()
    some = windows()
    assert network(some).shape == (4, HORIZON, NUM_COLUMNS, 3)
    left_out = LOOKBACK % segment
    other = some.clone()
    other[:, :left_out] += 100
    assert torch.equal(network(other)[..., 1], network(some)[..., 1])  # the levels depend on all rows' deviation


def test_the_decomposition_is_a_centered_mean_and_the_rest() -> None:
    rows = windows().transpose(1, 2)
    trend = moving_average(rows, 25)
    assert trend.shape == rows.shape
    padded = torch.cat([rows[..., :1].expand(-1, -1, 12), rows, rows[..., -1:].expand(-1, -1, 12)], dim=-1)
    expected = torch.stack([padded[..., k : k + 25].mean(-1) for k in range(LOOKBACK)], dim=-1)
    torch.testing.assert_close(trend, expected, atol=1e-5, rtol=0)
    straight = torch.arange(100.0).expand(1, 1, 100)
    torch.testing.assert_close(moving_average(straight, 25)[..., 12:-12], straight[..., 12:-12])


def test_dlinear_is_the_sum_of_two_linear_maps() -> None:
    torch.manual_seed(0)
    network = DLinear(LOOKBACK, HORIZON)
    some = windows()
    trend = moving_average(some.transpose(1, 2), 25)
    expected = F.linear(trend, network.trend.point.weight, network.trend.point.bias)
    expected = expected + F.linear(some.transpose(1, 2) - trend, network.season.point.weight, network.season.point.bias)
    torch.testing.assert_close(network(some)[..., 0], expected.transpose(1, 2))


def test_the_closed_form_is_the_least_squares_optimum() -> None:
    values = torch.randn(400, 2, generator=torch.Generator().manual_seed(0)).cumsum(0) / 20
    solved = solve_dlinear([values], 10, 4, ridge=1e-9)
    both = values.unfold(0, 14, 1).reshape(-1, 14).double()
    design = torch.cat([both[:, :10], torch.ones(len(both), 1, dtype=torch.float64)], dim=1)
    expected = design @ torch.linalg.lstsq(design, both[:, 10:]).solution
    forecast = solved(both[:, :10, None].float())[..., 0, 0].double()
    torch.testing.assert_close(forecast, expected, atol=1e-3, rtol=0)


def test_seasonal_naive_repeats_the_last_season() -> None:
    series = torch.arange(20.0)[None, :, None]
    assert seasonal_naive(series, 7, 4)[0, :, 0, 0].tolist() == [16, 17, 18, 19, 16, 17, 18]
    assert seasonal_naive(series, 3, 1)[0, :, 0, 0].tolist() == [19, 19, 19]
