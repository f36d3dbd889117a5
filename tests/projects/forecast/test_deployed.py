"""The exported module does to raw rows what training did to its own, so serving cannot disagree with it."""

import numpy as np
import pytest
import torch

from projects.forecast.config import Config, settled
from projects.forecast.data import load_data
from projects.forecast.export import Deployed
from projects.forecast.model import build_model


@pytest.mark.parametrize("head", ["point", "quantile"])
@pytest.mark.parametrize("normalize", ["last", "anchor", "revin", "none"])
def test_raw_rows_give_the_forecast_of_training_in_original_units(head: str, normalize: str) -> None:
    torch.manual_seed(0)
    settings = {"data": "synthetic", "num_synthetic": 600, "lookback": 48, "horizon": 10, "width": 8}
    config = settled(Config(**settings, head=head, normalize=normalize))  # type: ignore[arg-type]
    data = load_data(config, torch.device("cpu"))
    network = build_model(config, 4).eval()
    deployed = Deployed(network, data.mean.tolist(), data.std.tolist(), len(config.levels)).eval()
    inputs, _ = data.test.batch(torch.arange(3))
    first = int(data.test.starts[0])
    raw = np.stack([data.series[0].values[first + k : first + k + 48] for k in range(3)]).astype(np.float32)
    with torch.inference_mode():
        expected = network(inputs).numpy() * data.std[:, None] + data.mean[:, None]
        outputs = deployed(torch.from_numpy(raw))
    levels = outputs[1].numpy() if isinstance(outputs, tuple) else outputs.numpy()[..., None]
    np.testing.assert_allclose(levels, expected, atol=1e-3)
    if isinstance(outputs, tuple):
        np.testing.assert_array_equal(outputs[0].numpy(), levels[..., 1])


def test_other_units_give_the_same_forecast_in_those_units() -> None:
    torch.manual_seed(0)
    config = settled(Config(lookback=48, horizon=10, width=8))
    network = build_model(config, 1).eval()
    rows = 20 + torch.randn(2, 48, 1)
    with torch.inference_mode():
        celsius = Deployed(network, [20.0], [3.0], 3).eval()(rows)
        fahrenheit = Deployed(network, [68.0], [5.4], 3).eval()(rows * 1.8 + 32)
    torch.testing.assert_close(celsius[1] * 1.8 + 32, fahrenheit[1], atol=1e-3, rtol=0)
