"""A train step learns; the numbers of evaluation and summary are what they say; wrong settings are named."""

import json
import math
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.optim import AdamW

from core.accelerator import Accelerator
from core.checkpoint import load_newest
from core.errors import UserError
from core.learner import Learner
from core.program import parse_training
from projects.sentiment import train as program
from projects.sentiment.config import Config
from projects.sentiment.data import Batch
from projects.sentiment.encoders import RecurrentEncoder
from projects.sentiment.evaluation import evaluate, predictions
from projects.sentiment.model import Classifier, Ensemble
from projects.sentiment.train import train_step
from tests.conftest import Program
from tests.forked import main_of, metrics, summary
from tests.projects.sentiment.conftest import WriteTable
from tests.refusals import assert_refused

train = main_of(program)
TINY = ["--data", "synthetic", "--num-synthetic", "150", "--batch-size", "10", "--epochs", "2", "--lr", "0.01"]
TINY += ["--embedding-size", "8", "--hidden-size", "6", "--layers", "1", "--device", "cpu", "--precision", "fp32"]
TINY += ["--log-every", "5", "--min-count", "1", "--members", "2"]
WRONG = [
    (["--data", "nowhere.csv"], "--data nowhere.csv"),
    (["--data", ""], "--data"),
    (["--vectors", "nowhere.txt"], "--vectors nowhere.txt"),
    (["--vectors", ".", "--tokenizer", "bpe"], "--vectors"),
    (["--text-column", "a", "--label-column", "a"], "--text-column"),
]


@pytest.mark.parametrize(("argv", "named"), WRONG)
def test_settings_that_cannot_be_are_named(
    argv: list[str], named: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert_refused(partial(parse_training, Config, argv), named, tmp_path)


def test_the_program_leaves_with_2_and_one_line_for_a_bad_row(
    program: Program, write_table: WriteTable, tmp_path: Path
) -> None:
    path = write_table("reviews.csv", 40, extra=b',good\n"\x1b[31mred,bad\n')
    before = sorted(tmp_path.rglob("*"))
    done = program("projects.sentiment.train", "--data", path)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: a broken row: ")
    assert f"{path} line 43" in done.stderr
    assert done.stderr.count("\n") == 1
    assert "\x1b" not in done.stderr
    assert sorted(tmp_path.rglob("*")) == before


def test_a_batch_that_does_not_fit_the_data_is_refused_with_nothing_created(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--batch-size 200"):
        train([*TINY, "--batch-size", "200", "--run-dir", str(tmp_path / "run")])
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("recipe", ["max word 1 0.9", "mean bpe 2 0", "attention auto 2 0.9"])
def test_every_recipe_runs_to_the_end_with_falling_rate(recipe: str, tmp_path: Path) -> None:
    pooling, tokenizer, layers, ema = recipe.split()
    argv = [*TINY, "--pooling", pooling, "--tokenizer", tokenizer, "--layers", layers, "--ema", ema]
    train([*argv, "--run-dir", str(tmp_path / "run")])
    rates = [line["lr"] for line in metrics(tmp_path / "run") if "lr" in line]
    assert 0 <= rates[-1] < max(rates) <= 0.01
    assert json.loads((tmp_path / "run" / "tokenizer.json").read_text())["model"]


def test_the_summary_is_of_the_step_that_was_best_in_validation(tmp_path: Path) -> None:
    train([*TINY, "--ema", "0.5", "--run-dir", str(tmp_path / "run")])
    numbers = summary(tmp_path / "run")
    lines = {line["step"]: line for line in metrics(tmp_path / "run") if "val/loss" in line}
    losses = {step: line["val/calibrated_loss"] for step, line in lines.items()}
    assert numbers["steps"] == max(losses)
    assert numbers["best_val_loss"] == min(losses.values()) == losses[numbers["best_step"]]
    assert numbers["best_val_accuracy"] == pytest.approx(lines[numbers["best_step"]]["val/accuracy"])
    assert numbers["num_test"] == 50
    assert round(50 * numbers["test_accuracy"], 6).is_integer()
    assert 0 <= numbers["calibration_error"] <= 1
    assert 0.1 <= numbers["temperature"] <= 10
    assert 0 <= numbers["ngrams_alone_test_accuracy"] <= 1


def test_skipped_rows_are_listed_in_the_run_folder(
    write_table: WriteTable, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write_table("reviews.csv", 80, extra=b",good\nfine\nred,\x1b[31mred\n")
    argv = [*TINY[4:], "--data", str(path), "--on-fault", "skip", "--max-steps", "2"]
    train([*argv, "--run-dir", str(tmp_path / "run")])
    listed = (tmp_path / "run" / "skipped_rows.txt").read_text().splitlines()
    assert listed[:2] == [f"{path} line 82: empty text", f"{path} line 83: 1 columns instead of 2"]
    assert len(listed) == 3
    assert "\x1b" not in listed[2] + capsys.readouterr().out


def test_word_vectors_are_where_training_begins(tmp_path: Path) -> None:
    (tmp_path / "vectors.txt").write_text("plot " + " ".join(["3.5"] * 8) + "\n")
    argv = [*TINY, "--vectors", str(tmp_path / "vectors.txt"), "--lr", "1e-9", "--max-steps", "1"]
    train([*argv, "--ema", "0", "--run-dir", str(tmp_path / "run")])
    entries = json.loads((tmp_path / "run" / "tokenizer.json").read_text())["model"]["vocab"]
    weights = load_newest(tmp_path / "run")[1]["model"]["members.1.embedding.weight"]
    torch.testing.assert_close(weights[entries["plot"]], torch.full((8,), 3.5), rtol=0, atol=1e-6)
    assert float(weights[entries["acting"]].abs().max()) < 3


def test_a_short_training_on_real_phrases_beats_chance(real_texts: Path, tmp_path: Path) -> None:
    (tmp_path / "sst2").mkdir()
    for name, num in (("train", 12_000), ("dev", 873)):
        lines = (real_texts / "sst2" / f"{name}.tsv").read_text("utf-8").splitlines()[:num]
        (tmp_path / "sst2" / f"{name}.tsv").write_text("\n".join(lines) + "\n")
    argv = (
        "--epochs 2 --batch-size 64 --embedding-size 64 --hidden-size 32 --layers 1 --members 1 --lr 0.005 --ema 0.98"
    )
    train([*argv.split(), "--device", "cpu", "--data", str(tmp_path / "sst2"), "--run-dir", str(tmp_path / "run")])
    numbers = summary(tmp_path / "run")
    assert numbers["num_test"] == 872
    assert numbers["test_accuracy"] > 0.65  # nine standard deviations above chance


def test_one_batch_is_memorized() -> None:
    losses = [float(loss) for loss in steps(60, label_smoothing=0.0)]
    assert losses[0] > 0.5
    assert losses[-1] < 0.1


def test_the_loss_of_smoothed_labels_stays_above_their_entropy() -> None:
    entropy = -0.9 * math.log(0.9) - 0.1 * math.log(0.1)
    losses = [float(loss) for loss in steps(60, label_smoothing=0.2)]
    assert entropy - 1e-4 < min(losses)
    assert losses[-1] < entropy + 0.1


def tiny_network() -> Ensemble:
    torch.manual_seed(0)
    members = [Classifier(RecurrentEncoder("lstm", 8, 8, 1), 40, 8, 2, pooling="max") for _ in range(2)]
    return Ensemble(members)


def steps(num: int, label_smoothing: float) -> Iterator[Tensor]:
    """The losses of train steps on the same 12 random texts."""
    accelerator, network = Accelerator(device="cpu", precision="fp32"), tiny_network()
    ids, labels = torch.randint(2, 40, (12, 9)), torch.arange(12) % 2
    learner = Learner(network, AdamW(network.parameters(), lr=0.02), lambda step: 1.0, accelerator)
    for _ in range(num):
        loss = train_step((ids, labels), learner=learner, label_smoothing=label_smoothing)["loss"]
        assert not loss.requires_grad
        yield loss


class Batches:
    """Nine texts in uneven batches of different lengths."""

    def __init__(self) -> None:
        generator = torch.Generator().manual_seed(0)
        self.ids = [torch.randint(2, 40, shape, generator=generator) for shape in ((5, 3), (4, 8))]
        self.labels = [torch.tensor([0, 1, 0, 1, 1]), torch.tensor([0, 1, 1, 0])]

    def __len__(self) -> int:
        return 2

    def batches(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        return zip(self.ids, self.labels, strict=True)


def test_evaluation_weighs_every_text_alike_and_calibrates_both_networks() -> None:
    loader, averaged, trained = Batches(), tiny_network(), tiny_network()
    accelerator = Accelerator(device="cpu", precision="fp32")
    numbers = evaluate(loader, averaged, trained, accelerator)
    logits, _, labels = predictions(loader, averaged, accelerator)
    assert numbers["accuracy"] == pytest.approx(float((logits.argmax(1) == labels).double().mean()))
    assert numbers["loss"] == pytest.approx(float(F.cross_entropy(logits, labels)), rel=1e-5)
    assert numbers["calibrated_loss"] <= numbers["loss"] + 1e-9
    assert float(averaged.temperature) == float(trained.temperature) != 1
    assert evaluate(loader, averaged, trained, accelerator) == numbers  # the temperature of before plays no part
