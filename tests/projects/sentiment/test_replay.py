"""Train steps of every encoder can be recorded as CUDA graphs, and replayed equal ordinary ones; batches are cut and
padded on the device."""

from functools import partial
from typing import Any

import pytest
import torch
from torch.optim import AdamW

from core.accelerator import Accelerator
from core.config import Device
from core.learner import Learner
from core.optim import warmup_cosine
from core.step_graphs import Capture, StepGraphs
from projects.sentiment.config import Config
from projects.sentiment.data import LengthOrder, TextSet, batch_loader
from projects.sentiment.model import Ensemble
from projects.sentiment.train import train_step
from tests.emulated_graph import capture

NUM_TEXTS, NUM_WORDS, PADDED_TO = 160, 40, (6, 12)
ENCODERS = ({"cell": "lstm"}, {"cell": "gru"}, {"cell": "rnn"}, {"model": "transformer"}, {"model": "cnn"})


def make_texts() -> TextSet:
    """Random texts of 1 to 12 words."""
    generator = torch.Generator().manual_seed(0)
    lengths = torch.randint(1, 13, (NUM_TEXTS,), generator=generator)
    tokens = torch.randint(1, NUM_WORDS, (int(lengths.sum()),), generator=generator)
    labels = torch.randint(2, (NUM_TEXTS,), generator=generator).numpy()
    return TextSet([""] * NUM_TEXTS, labels, [""] * NUM_TEXTS, tokens, lengths.cumsum(0) - lengths, lengths)


def trained(
    replays: bool, encoder: dict[str, Any], device: Device = "cpu", capture: Capture | None = capture
) -> tuple[list[float], dict[str, Any]]:
    """The losses of an epoch's steps, and all that they change. capture: None for a GPU's own."""
    config = Config(embedding_size=8, hidden_size=6, members=2, **encoder)
    torch.manual_seed(0)
    network = Ensemble.of(config, NUM_WORDS - 10, 2, None, torch.randn(NUM_WORDS, 3))
    accelerator = Accelerator(device=device, precision="fp32", clip_norm=1.0, looks_at_once=False)
    optimizer = AdamW(network.parameters(), lr=0.01, fused=True)
    learner = Learner(network, optimizer, warmup_cosine(20, 2), accelerator, ema=0.9)
    step = partial(train_step, learner=learner, label_smoothing=0.1)
    texts = make_texts().to(accelerator.device)
    loader = batch_loader(texts, LengthOrder(len(texts), 8, lengths=texts.lengths), PADDED_TO)
    with StepGraphs(step, accelerator, (lambda: "step") if replays else None, capture) as graphs:
        losses = [float(graphs(batch)["loss"]) for batch in loader.batches(0)]
    assert graphs.num_graphs == (len(PADDED_TO) if replays else 0)
    accelerator.check()
    return losses, {name: part.state_dict() for name, part in learner.state().items()}


@pytest.mark.parametrize("encoder", ENCODERS, ids=lambda encoder: next(iter(encoder.values())))
def test_replayed_steps_equal_ordinary_ones(encoder: dict[str, Any]) -> None:
    ordinary, replayed = (trained(replays, encoder) for replays in (False, True))
    torch.testing.assert_close(replayed, ordinary, rtol=0, atol=0)


@pytest.mark.usefixtures("gpu")
@pytest.mark.parametrize("encoder", ENCODERS, ids=lambda encoder: next(iter(encoder.values())))
def test_steps_replayed_by_a_gpu_are_near_ordinary_ones(encoder: dict[str, Any]) -> None:
    (ordinary, _), (replayed, _) = (trained(replays, encoder, "cuda", None) for replays in (False, True))
    assert replayed == pytest.approx(ordinary, rel=1e-2)
