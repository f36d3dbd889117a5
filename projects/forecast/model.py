"""The forecaster's networks: SegRNN, a seq2seq LSTM with attention, DLinear; and the seasonal-naive rule.

All take standardized windows [N, lookback, columns] and give forecasts [N, horizon, columns, levels]: quantiles, with
the point forecast in the middle. SegRNN: Lin et al. 2023 (arXiv 2308.11200). Attention: Luong et al. 2015 (arXiv
1508.04025), global with general scores. DLinear: Zeng et al. 2022 (arXiv 2205.13504); its least-squares optimum in
closed form: Toner and Darlow 2024 (arXiv 2403.14587). Normalizing a window and putting it back: subtracting its last
row as SegRNN does, or mean and deviation, Kim et al. 2022 ("Reversible Instance Normalization").
"""

from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from projects.forecast.config import Config

_Normalize = Literal["last", "anchor", "revin", "none"]
_WINDOWS_AT_ONCE = 2_048
_LEAST_DEVIATION = 0.01  # standardized


def build_model(config: Config, num_columns: int) -> nn.Module:
    """The network that settled settings name, untrained."""
    num_levels = len(config.levels)
    network: nn.Module
    if config.model == "segrnn":
        network = SegRNN(
            config.lookback, config.horizon, num_columns, config.width, config.segment, config.dropout, num_levels
        )
    elif config.model == "lstm":
        network = Seq2Seq(config.horizon, num_columns, config.width, config.dropout, num_levels)
    else:
        network = DLinear(config.lookback, config.horizon, num_levels)
    assert config.normalize != "auto"
    return Reversible(network, config.normalize, config.horizon, num_columns)


class Reversible(nn.Module):
    """A network between the normalization of each window and its reverse; its levels never cross.

    "last" subtracts a window's last row and adds it to the whole forecast. "anchor" adds a learned share of it, one for
    each step and column, which begins at 1; a smaller share moves the forecast towards the series' mean.
    """

    def __init__(
        self, network: nn.Module, normalize: _Normalize, horizon: int, num_columns: int, epsilon: float = 1e-5
    ) -> None:
        super().__init__()
        self.network, self.normalize, self.epsilon = network, normalize, epsilon
        self.share = nn.Parameter(torch.ones(horizon, num_columns)) if normalize == "anchor" else None

    def forward(self, inputs: Tensor) -> Tensor:
        """[N, lookback, columns] → float32 [N, horizon, columns, levels]."""
        inputs = inputs.float()
        # Distances between levels are in units of the window's deviation: restless months have wider intervals.
        deviation = inputs.std(1, unbiased=False).clamp(min=_LEAST_DEVIATION)[:, None, :, None]
        if self.normalize == "none":
            return raw_to_levels(self.network(inputs).float(), deviation)
        if self.normalize == "revin":
            shift = inputs.mean(1, keepdim=True)
            scale = torch.sqrt(inputs.var(1, keepdim=True, unbiased=False) + self.epsilon)
            return raw_to_levels(self.network((inputs - shift) / scale).float()) * scale[..., None] + shift[..., None]
        last = inputs[:, -1:]
        added = last if self.share is None else self.share * last
        raw = self.network(inputs - last).float()
        return raw_to_levels(torch.cat([raw[..., :1] + added[..., None], raw[..., 1:]], dim=-1), deviation)


def raw_to_levels(raw: Tensor, unit: Tensor | float = 1.0) -> Tensor:
    """Levels that rise: the first raw number in the middle, the others as distances outwards; [..., levels]."""
    middle, distances = raw[..., :1], F.softplus(raw[..., 1:]) * unit
    if raw.shape[-1] == 1:
        return raw
    below, above = distances.chunk(2, dim=-1)
    fixed = middle.detach()
    return torch.cat([fixed - below.cumsum(-1).flip(-1), middle, fixed + above.cumsum(-1)], dim=-1)


class Head(nn.Module):
    """The last layer: the point forecast, and distances to the other levels that leave all else untouched.

    The distances are learned from the features without a gradient into them, so a network with intervals makes bit for
    bit the point forecasts of one without.
    """

    def __init__(self, width: int, num_outputs: int, num_levels: int) -> None:
        super().__init__()
        self.num_outputs, self.num_levels = num_outputs, num_levels
        self.point = nn.Linear(width, num_outputs)
        self.distances = nn.Linear(width, num_outputs * (num_levels - 1)) if num_levels > 1 else None

    def forward(self, features: Tensor) -> Tensor:
        """[..., width] → raw numbers [..., num_outputs, levels], the point forecast first."""
        point: Tensor = self.point(features)[..., None]
        if self.distances is None:
            return point
        distances = self.distances(features.detach()).unflatten(-1, (self.num_outputs, self.num_levels - 1))
        return torch.cat([point, distances], dim=-1)


class SegRNN(nn.Module):
    """A GRU over segments of each column; all segments of the forecast are decoded at once from its last state.

    Columns share all weights except an embedding, which is half of the decoder's input; the other half is an embedding
    of the segment's position. The oldest lookback mod segment rows are left out.
    """

    def __init__(
        self, lookback: int, horizon: int, num_columns: int, width: int, segment: int, dropout: float, num_levels: int
    ) -> None:
        super().__init__()
        self.horizon, self.segment = horizon, segment
        self.num_input, self.num_output = lookback // segment, -(-horizon // segment)
        self.embed = nn.Linear(segment, width)
        self.gru = nn.GRU(width, width, batch_first=True)
        self.position = nn.Parameter(torch.randn(self.num_output, width // 2))
        self.column = nn.Parameter(torch.randn(num_columns, width // 2))
        self.dropout = nn.Dropout(dropout)
        self.head = Head(width, segment, num_levels)

    def forward(self, inputs: Tensor) -> Tensor:
        """[N, lookback, columns] → [N, horizon, columns, levels]."""
        num, columns = inputs.shape[0], inputs.shape[2]
        rows = inputs[:, inputs.shape[1] - self.num_input * self.segment :].transpose(1, 2)
        segments = rows.reshape(num * columns, self.num_input, self.segment)
        _, state = self.gru(F.relu(self.embed(segments)))
        width = state.shape[-1]
        state = state[0, :, None].expand(-1, self.num_output, -1).reshape(1, -1, width)
        output, _ = self.gru(self._decoder_inputs(num, columns), state.contiguous())
        raw = self.head(self.dropout(output[:, 0]))
        raw = raw.reshape(num, columns, self.num_output * self.segment, -1)
        forecast: Tensor = raw[:, :, : self.horizon].transpose(1, 2)
        return forecast

    def _decoder_inputs(self, num: int, columns: int) -> Tensor:
        """The decoder's inputs, position beside column: [num · columns · num_output, 1, width]."""
        position = self.position.expand(columns, -1, -1)
        column = self.column[:, None].expand(-1, self.num_output, -1)
        one = torch.cat([position, column], dim=-1).reshape(1, columns * self.num_output, -1)
        return one.expand(num, -1, -1).reshape(num * columns * self.num_output, 1, -1)


class Seq2Seq(nn.Module):
    """An LSTM encodes all columns row by row, another decodes row by row with attention on the encoder's states.

    The decoder's input is an embedding of the step ahead instead of its own last output, so that errors do not
    accumulate, and training does the same as inference.
    """

    def __init__(self, horizon: int, num_columns: int, width: int, dropout: float, num_levels: int) -> None:
        super().__init__()
        self.encoder = nn.LSTM(num_columns, width, batch_first=True)
        self.steps = nn.Parameter(torch.randn(horizon, width) * 0.1)
        self.decoder = nn.LSTM(width, width, batch_first=True)
        self.score = nn.Linear(width, width, bias=False)
        self.mix = nn.Linear(2 * width, width)
        self.dropout = nn.Dropout(dropout)
        self.head = Head(width, num_columns, num_levels)

    def forward(self, inputs: Tensor) -> Tensor:
        """[N, lookback, columns] → [N, horizon, columns, levels]."""
        decoded, encoded, weights = self._attend(inputs)
        mixed = torch.tanh(self.mix(torch.cat([decoded, weights @ encoded], dim=-1)))
        forecast: Tensor = self.head(self.dropout(mixed))
        return forecast

    def attention(self, inputs: Tensor) -> Tensor:
        """[N, lookback, columns] → the share that each row has for each step ahead, [N, horizon, lookback], with sum 1
        over the rows (Bahdanau et al. 2015, arXiv 1409.0473; bilinear score: Luong et al. 2015, arXiv 1508.04025)."""
        return self._attend(inputs)[2]

    def _attend(self, inputs: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """States of the decoder and of the encoder, and the attention of the first on the second."""
        encoded, state = self.encoder(inputs)
        # In torch 2.11's exporter both parts of an LSTM's state have a dimension too many.
        hidden, cell = (part.reshape(1, -1, self.steps.shape[1]) for part in state)
        decoded, _ = self.decoder(self.steps.expand(inputs.shape[0], -1, -1), (hidden, cell))
        return decoded, encoded, (self.score(decoded) @ encoded.transpose(1, 2)).softmax(-1)


class DLinear(nn.Module):
    """A linear map of the moving average and another of the rest, the same for all columns."""

    def __init__(self, lookback: int, horizon: int, num_levels: int = 1, kernel: int = 25) -> None:
        super().__init__()
        self.kernel = kernel
        self.trend = Head(lookback, horizon, num_levels)
        self.season = Head(lookback, horizon, num_levels)

    def forward(self, inputs: Tensor) -> Tensor:
        """[N, lookback, columns] → [N, horizon, columns, levels]."""
        rows = inputs.transpose(1, 2)
        trend = moving_average(rows, self.kernel)
        forecast: Tensor = self.trend(trend) + self.season(rows - trend)
        return forecast.transpose(1, 2)


def moving_average(rows: Tensor, kernel: int) -> Tensor:
    """Centered means over `kernel` (odd) values, the ends repeated: [N, columns, rows], same shape."""
    padded = F.pad(rows, (kernel // 2, kernel // 2), mode="replicate")
    return F.avg_pool1d(padded, kernel, stride=1)


def solve_dlinear(series: Sequence[Tensor], lookback: int, horizon: int, ridge: float = 1e-3) -> DLinear:
    """The DLinear with the least squared error over all windows of some series (float32 [rows, columns] each).

    Both of its maps get the same weights, without loss, because their inputs add up to the window.
    """
    weights = solve_linear(series, lookback, horizon, ridge)
    model = DLinear(lookback, horizon)
    with torch.no_grad():
        for layer in (model.trend.point, model.season.point):
            layer.weight.copy_(weights[:-1].T)
            layer.bias.copy_(weights[-1] / 2)
    return model.to(weights.device).requires_grad_(False).eval()


def solve_linear(
    series: Sequence[Tensor], lookback: int, horizon: int, ridge: float, *, anchored: bool = False
) -> Tensor:
    """The linear map from windows to what follows with the least squared error over all windows of some series.

    series: float32 [rows, columns] each. ridge: penalty of the squared weights, as a share of the mean diagonal of the
    normal equations. anchored: each window's last value is subtracted from it and from what follows. Returns weights
    and, in the last row, biases, float32 [lookback + 1, horizon].
    """
    device = series[0].device
    normal = torch.zeros(lookback + 1, lookback + 1, dtype=torch.float64, device=device)
    products = torch.zeros(lookback + 1, horizon, dtype=torch.float64, device=device)
    for values in series:
        windows = values.unfold(0, lookback + horizon, 1)  # [windows, columns, rows], a view
        for part in torch.split(windows, _WINDOWS_AT_ONCE):
            rows = part.reshape(-1, lookback + horizon)
            if anchored:
                rows = rows - rows[:, lookback - 1 : lookback]
            inputs, targets = F.pad(rows[:, :lookback], (0, 1), value=1.0), rows[:, lookback:]  # a one for the bias
            normal += inputs.T @ inputs
            products += inputs.T @ targets
    normal.diagonal()[:-1] += ridge * normal.diagonal()[:-1].mean()
    weights: Tensor = torch.linalg.solve(normal, products).float()
    return weights


def seasonal_naive(inputs: Tensor, horizon: int, season: int) -> Tensor:
    """The last `season` rows, repeated: [N, lookback, columns] → [N, horizon, columns, 1]."""
    steps = torch.arange(horizon, device=inputs.device) % season
    return inputs[:, inputs.shape[1] - season + steps][..., None]
