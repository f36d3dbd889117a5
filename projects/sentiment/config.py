"""The classifier's settings. This module loads no torch, so a wrong flag is answered at once."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from core.config import RunConfig, option
from core.errors import UserError

PROJECT = "sentiment"
KNOWN_DATA = ("sst2", "imdb", "synthetic")
TABLES = (".csv", ".tsv", ".jsonl")
# What --smoke puts in place of the defaults: under a minute on one CPU core.
SMOKE = {
    "data": "synthetic",
    "epochs": 10,
    "batch_size": 32,
    "num_synthetic": 3_000,
    "embedding_size": 48,
    "hidden_size": 48,
    "members": 1,
    "layers": 1,
    "lr": 0.01,
    "word_dropout": 0.0,
    "embedding_dropout": 0.1,
    "dropout": 0.1,
    "ema": 0.98,
    "log_every": 10,
}


@dataclass(frozen=True, kw_only=True)
class Config(RunConfig):
    """Fields beyond core's: where texts and labels stand, the tokenizer, the network, the recipe, the splits."""

    data: str = option(
        "sst2", "sst2 or imdb (downloaded), synthetic, FILE.csv|.tsv|.jsonl, or a folder of such or .txt"
    )
    text_column: str | None = option(None, "column of the texts; guessed from the header where it is left out")
    label_column: str | None = option(None, "column of the labels; guessed from the header where it is left out")
    on_bad_row: Literal["stop", "skip"] = option("stop", "name the first unusable row and stop, or list and skip all")
    tokenizer: Literal["word", "bpe"] = option("word", "whole words, or pieces of words (byte-pair encoding)")
    vocab_size: int = option(20_000, "most entries of the tokenizer", low=16, high=1_000_000)
    min_count: int = option(2, "how often a word occurs in the training texts to have an entry", low=1)
    max_length: int = option(
        400, "tokens kept of a text; of a longer one its beginning and its end", low=2, high=10_000
    )
    vectors: Path | None = option(None, "file of word vectors in GloVe's format to begin with")
    embedding_size: int = option(200, "numbers that stand for a word", low=1, high=4096)
    hidden_size: int = option(100, "units of the LSTM in each direction", low=1, high=4096)
    members: int = option(3, "networks that learn side by side and are averaged", low=1, high=50)
    layers: int = option(2, "layers of the LSTM", low=1, high=8)
    pooling: Literal["max", "mean", "attention"] = option("max", "how the states of all words become one")
    word_dropout: float = option(0.1, "share of words replaced by the unknown word in training", low=0, below=1)
    embedding_dropout: float = option(0.5, "share of embedded numbers left out in training", low=0, below=1)
    dropout: float = option(0.5, "share of units left out between layers and before the last one", low=0, below=1)
    epochs: int = option(4, "passes over the training texts", low=1, harmless=True)
    batch_size: int = option(64, "texts of one forward pass, over all ranks together", low=1)
    lr: float = option(0.001, "peak learning rate of AdamW", above=0)
    weight_decay: float = option(0.01, "weight decay of matrices; none for biases", low=0)
    warmup: float = option(
        0.1, "share of the training in which the rate rises; then it falls as a cosine", low=0, below=1
    )
    clip_norm: float | None = option(1.0, "largest norm of the whole gradient", above=0)
    label_smoothing: float = option(0.0, "share of a label's weight that goes to all classes", low=0, below=1)
    ema: float = option(0.998, "decay of the moving average of the weights per step; 0 keeps none", low=0, below=1)
    val_fraction: float = option(0.05, "share cut off for validation where there is no such file", above=0, below=1)
    test_fraction: float = option(0.2, "share of a single file cut off for the test", above=0, below=1)
    num_synthetic: int = option(12_000, "reviews that `synthetic` writes for training", low=100, high=1_000_000)
    baseline: bool = option(False, "measure a bag of words on the same splits, beside the LSTM", harmless=True)

    def check(self) -> None:
        """Raises UserError for data that cannot be, and for settings that do not fit together."""
        path = Path(self.data)
        usable = path.is_dir() or (path.is_file() and path.suffix.lower() in TABLES)
        if self.data not in KNOWN_DATA and not (self.data and usable):
            todo = f"give {', '.join(KNOWN_DATA)}, a folder, or a file of the kinds {', '.join(TABLES)}"
            raise UserError("unknown data", f"--data {self.data}", todo)
        if self.vectors is not None and self.tokenizer != "word":
            raise UserError("word vectors need whole words", f"--vectors {self.vectors}", "use --tokenizer word")
        if self.vectors is not None and not self.vectors.is_file():
            raise UserError("no such file", f"--vectors {self.vectors}", "give a file in GloVe's format")
        if self.text_column is not None and self.text_column == self.label_column:
            raise UserError("texts and labels in one column", f"--text-column {self.text_column}", "name two columns")
