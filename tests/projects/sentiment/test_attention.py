"""The picture of the attention: in every run, of short texts alone, and of words as they stand in the text."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from core import plots
from projects.sentiment.attention import plot_attention
from projects.sentiment.config import Config
from projects.sentiment.data import TextSet
from projects.sentiment.model import Ensemble
from projects.sentiment.tokenizer import train_tokenizer
from tests.smoke import Smoke

TEXTS = ["a fine film", "a weak film", "not a weak film", " ".join(["weak"] * 60)]
LABELS = np.array([1, 0, 1, 0])


def draw(path: Path, texts: list[str], labels: np.ndarray[Any, np.dtype[np.int64]]) -> None:
    tokenizer = train_tokenizer(TEXTS, "word", 50, 1, 100)
    tokens = [torch.from_numpy(ids) for ids in tokenizer.encode(texts)]
    lengths = torch.tensor([len(ids) for ids in tokens])
    text_set = TextSet(texts, labels, ["x"] * len(texts), torch.cat(tokens), lengths.cumsum(0) - lengths, lengths)
    torch.manual_seed(0)
    network = Ensemble.of(Config(members=2, hidden_size=4, embedding_size=4), len(tokenizer), 2, None)
    probabilities = np.array([[0.1, 0.9], [0.7, 0.3], [0.8, 0.2], [0.9, 0.1]], np.float32)[: len(texts)]
    plot_attention(path, text_set, probabilities, ["bad", "good"], tokenizer, network)


def test_short_texts_are_drawn_word_for_word(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[Any] = []
    monkeypatch.setattr(plots, "save_figure", lambda figure, path: drawn.append(figure))
    draw(tmp_path / "a.png", TEXTS, LABELS)
    shown = [text.get_text() for text in drawn[0].axes[0].texts]
    titles = [text.partition(";")[0] for text in shown if ";" in text]
    assert titles == ["good 90.0%, right", "bad 70.0%, right", "bad 80.0%, is good"]
    words = [text for text in shown if ";" not in text]
    assert words == ["a", "fine", "film", "a", "weak", "film", "not", "a", "weak", "film"]
    alphas = [text.get_bbox_patch().get_facecolor()[3] for text in drawn[0].axes[0].texts if ";" not in text.get_text()]
    assert max(alphas[:3]) == pytest.approx(0.85)
    assert min(alphas[:3]) == 0


def test_where_all_texts_are_long_nothing_is_drawn(tmp_path: Path) -> None:
    draw(tmp_path / "a.png", TEXTS[3:], LABELS[3:])
    assert not list(tmp_path.iterdir())


def test_a_run_has_the_picture(smoke: Smoke) -> None:
    with Image.open(smoke.run_dir / "plots" / "attention.png") as image:
        assert image.width > 800
