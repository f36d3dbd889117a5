"""The average with a linear model: its share and its intervals are those that the given windows ask for."""

import torch
from torch import Tensor, nn

from core.accelerator import Accelerator
from projects.forecast.blend import Blend, fit_blend
from projects.forecast.data import Windows
from projects.forecast.model import solve_linear

LEVELS = (0.05, 0.1, 0.5, 0.9, 0.95)
LOOKBACK, HORIZON = 12, 3


class Guess(nn.Module):
    """Says the last row again plus an error, between levels that are far too narrow."""

    def forward(self, inputs: Tensor) -> Tensor:
        steps = torch.tensor([-0.02, -0.01, 0.5, 0.01, 0.02])
        return inputs[:, -1:, :, None].expand(-1, HORIZON, -1, -1) + steps + 0.5 * (steps != 0.5)


def a_blend(noise: float) -> tuple[Blend, Windows]:
    """Of walks with a drift of 1, whose linear model knows the drift."""
    generator = torch.Generator().manual_seed(0)
    walk = (1 + noise * torch.randn(900, 2, generator=generator)).cumsum(0)
    linear = solve_linear([walk], LOOKBACK, HORIZON, 1e-3, anchored=True)
    windows = Windows(walk, torch.arange(880), LOOKBACK, HORIZON)
    return Blend(Guess(), linear, 2, len(LEVELS)).eval(), windows


def test_levels_hold_the_share_of_truths_that_they_say_and_never_cross() -> None:
    blend, windows = a_blend(noise=0.5)
    assert fit_blend([blend], windows, LEVELS, Accelerator(device="cpu", precision="fp32"))["linear_share"] > 0.8
    inputs, targets = windows.batch(torch.arange(880))
    levels = blend(inputs)
    assert (levels.diff(dim=-1) >= 0).all()
    shares = (targets[..., None] <= levels).float().mean(0)
    for number, level in enumerate(LEVELS):
        if level != 0.5:
            assert (shares[..., number] - level).abs().max() < 0.02


def test_the_better_part_has_the_larger_share_and_training_is_of_the_network_alone() -> None:
    blend, windows = a_blend(noise=0.0)
    other = Blend(Guess(), torch.zeros_like(blend.linear), 2, len(LEVELS)).eval()
    accelerator = Accelerator(device="cpu", precision="fp32")
    assert fit_blend([blend], windows, LEVELS, accelerator)["linear_share"] > 0.9
    assert fit_blend([other], windows, LEVELS, accelerator)["linear_share"] < 0.1
    inputs, _ = windows.batch(torch.arange(4))
    assert torch.equal(blend.train()(inputs), Guess()(inputs))
    torch.testing.assert_close(blend.linear_forecast(inputs + 5), blend.linear_forecast(inputs) + 5, atol=1e-3, rtol=0)
