"""Wrong settings are refused in one line with nothing created; a train step learns; the numbers are what they say."""

import json
import math
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.optim import AdamW

from core.accelerator import Accelerator
from core.errors import UserError
from core.optim import decay_groups
from projects.sentiment.data import Batch
from projects.sentiment.model import Reader, Sentiment
from projects.sentiment.train import (
    build_schedule,
    evaluate,
    parse_arguments,
    predictions,
    train,
    train_step,
)
from tests.conftest import Program
from tests.projects.sentiment.conftest import WriteTable, summary
from tests.refusals import assert_refused

TINY = ["--data", "synthetic", "--num-synthetic", "150", "--batch-size", "10", "--epochs", "2", "--lr", "0.01"]
TINY += ["--embedding-size", "8", "--hidden-size", "6", "--layers", "1", "--device", "cpu", "--precision", "fp32"]
TINY += ["--log-every", "5", "--min-count", "1", "--members", "2"]
WRONG = {
    "--data": [["--data", "nowhere"], ["--data", "nowhere.csv"], ["--data", ""]],
    "--tokenizer": [["--tokenizer", "character"]],
    "--pooling": [["--pooling", "last"]],
    "--on-bad-row": [["--on-bad-row", "ignore"]],
    "--vectors": [["--vectors", "nowhere.txt"], ["--vectors", ".", "--tokenizer", "bpe"]],
    "--text-column": [["--text-column", "a", "--label-column", "a"]],
    "--vocab-size": [["--vocab-size", "15"]],
    "--max-length": [["--max-length", "1"]],
    "--word-dropout": [["--word-dropout", "1"]],
    "--dropout": [["--dropout", "-0.1"]],
    "--members": [["--members", "0"], ["--members", "51"]],
    "--layers": [["--layers", "0"], ["--layers", "9"]],
    "--hidden-size": [["--hidden-size", "0"]],
    "--resume": [["--resume", "r", "--run-dir", "q"], ["--resume", "r", "--smoke"]],
    "not a run folder": [["--resume", "."], ["--resume", "nowhere"]],
    "--epochs": [["--epochs", "0"], ["--epochs", "1.5"], ["--epoch", "1"]],
    "--batch-size": [["--batch-size", "0"], ["--batch-size", "1_000"]],
    "--lr": [["--lr", "0"], ["--lr", "nan"]],
    "--warmup": [["--warmup", "1"]],
    "--ema": [["--ema", "1"]],
    "--val-fraction": [["--val-fraction", "0"], ["--val-fraction", "1"]],
    "--test-fraction": [["--test-fraction", "1"]],
    "--num-synthetic": [["--num-synthetic", "99"]],
    "--frobnicate": [["--frobnicate"]],
}
CASES = [(named, argv) for named, cases in WRONG.items() for argv in cases]


@pytest.mark.parametrize(("named", "argv"), CASES, ids=[" ".join(argv) for _, argv in CASES])
def test_a_wrong_flag_is_named_in_one_line_and_nothing_is_created(
    named: str, argv: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert_refused(lambda: parse_arguments(argv), named, tmp_path)


def test_the_program_leaves_with_2_and_one_line_for_a_bad_row(
    program: Program, write_table: WriteTable, tmp_path: Path
) -> None:
    path = write_table("reviews.csv", 40, extra=b',good\n"\x1b[31mred,bad\n')
    before = sorted(tmp_path.rglob("*"))
    done = program("projects.sentiment.train", "--data", path)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith("error: broken quote: ")
    assert f"{path} line 43" in done.stderr
    assert done.stderr.count("\n") == 1
    assert "\x1b" not in done.stderr
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    ("argv", "named"), [(["--batch-size", "200"], "--batch-size 200"), (["--vectors", "."], "--vectors .")]
)
def test_what_does_not_fit_the_data_is_refused_with_nothing_created(
    argv: list[str], named: str, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=named):
        train(parse_arguments([*TINY, *argv, "--run-dir", str(tmp_path / "run")]))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("recipe", ["max word 1 0.9", "mean bpe 2 0", "attention word 2 0.9"])
def test_every_recipe_runs_to_the_end_with_falling_rate(recipe: str, tmp_path: Path) -> None:
    pooling, tokenizer, layers, ema = recipe.split()
    argv = [*TINY, "--pooling", pooling, "--tokenizer", tokenizer, "--layers", layers, "--ema", ema]
    train(parse_arguments([*argv, "--run-dir", str(tmp_path / "run")]))
    rates = [line["lr"] for line in read_metrics(tmp_path / "run") if "lr" in line]
    assert 0 <= rates[-1] < max(rates) <= 0.01
    assert json.loads((tmp_path / "run" / "tokenizer.json").read_text())["model"]


def test_the_summary_is_of_the_step_that_was_best_in_validation(tmp_path: Path) -> None:
    train(parse_arguments([*TINY, "--ema", "0.5", "--baseline", "--run-dir", str(tmp_path / "run")]))
    found = summary(tmp_path / "run")
    lines = {line["step"]: line for line in read_metrics(tmp_path / "run") if "val/loss" in line}
    losses = {step: line["val/calibrated_loss"] for step, line in lines.items()}
    assert found["steps"] == max(losses)
    assert found["best_val_loss"] == min(losses.values()) == losses[found["best_step"]]
    assert found["best_val_accuracy"] == pytest.approx(lines[found["best_step"]]["val/accuracy"])
    assert found["num_test"] == 50
    assert round(50 * found["test_accuracy"], 6).is_integer()
    assert 0 <= found["calibration_error"] <= 1
    assert 0.1 <= found["temperature"] <= 10
    assert 0 <= found["baseline_test_accuracy"] <= 1


def test_skipped_rows_are_listed_in_the_run_folder(write_table: WriteTable, tmp_path: Path) -> None:
    path = write_table("reviews.csv", 80, extra=b",good\nfine\n")
    argv = [*TINY[4:], "--data", str(path), "--on-bad-row", "skip", "--max-steps", "2"]
    train(parse_arguments([*argv, "--run-dir", str(tmp_path / "run")]))
    listed = (tmp_path / "run" / "skipped_rows.txt").read_text().splitlines()
    assert listed == [f"{path} line 82: empty text", f"{path} line 83: 1 columns instead of 2"]


def test_word_vectors_are_where_training_begins(tmp_path: Path) -> None:
    (tmp_path / "vectors.txt").write_text("plot " + " ".join(["3.5"] * 8) + "\n")
    argv = [*TINY, "--vectors", str(tmp_path / "vectors.txt"), "--lr", "1e-9", "--max-steps", "1"]
    train(parse_arguments([*argv, "--ema", "0", "--run-dir", str(tmp_path / "run")]))
    from core.checkpoint import load, newest_good

    vocabulary = json.loads((tmp_path / "run" / "tokenizer.json").read_text())["model"]["vocab"]
    weights = load(newest_good(tmp_path / "run"))["model"]["members.1.embedding.weight"]
    torch.testing.assert_close(weights[vocabulary["plot"]], torch.full((8,), 3.5), rtol=0, atol=1e-6)
    assert float(weights[vocabulary["acting"]].abs().max()) < 3


def test_one_batch_is_learned_by_heart() -> None:
    losses = [float(loss) for loss in steps(60, label_smoothing=0.0)]
    assert losses[0] > 0.5
    assert losses[-1] < 0.1


def test_smoothed_labels_cannot_be_learned_below_their_entropy() -> None:
    smoothing = 0.2
    entropy = -0.9 * math.log(0.9) - 0.1 * math.log(0.1)
    losses = [float(loss) for loss in steps(60, label_smoothing=smoothing)]
    assert entropy - 1e-4 < min(losses)
    assert losses[-1] < entropy + 0.1


def tiny_network() -> Sentiment:
    torch.manual_seed(0)
    return Sentiment([Reader(40, 2, embedding_size=8, hidden_size=8, layers=1, pooling="max") for _ in range(2)])


def steps(num: int, label_smoothing: float) -> Iterator[Tensor]:
    """The losses of train steps on the same 12 random texts."""
    accelerator, network = Accelerator(device="cpu", precision="fp32"), tiny_network()
    ids, labels = torch.randint(2, 40, (12, 9)), torch.arange(12) % 2
    config = parse_arguments([*TINY, "--lr", "0.02", "--warmup", "0"]).config
    optimizer = AdamW(decay_groups(network, 0.0), lr=config.lr)
    scheduler = build_schedule(optimizer, config, 10_000)
    for _ in range(num):
        accelerator.micro_batch(0, 1)
        metrics = train_step(
            (ids, labels),
            forward=network,
            optimizer=optimizer,
            scheduler=scheduler,
            ema=None,
            accelerator=accelerator,
            label_smoothing=label_smoothing,
        )
        assert not metrics["loss"].requires_grad
        yield metrics["loss"]


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
    loader, judged, trained = Batches(), tiny_network(), tiny_network()
    accelerator = Accelerator(device="cpu", precision="fp32")
    found = evaluate(loader, judged, trained, accelerator)
    logits, labels = predictions(loader, judged, accelerator)
    assert found["accuracy"] == pytest.approx(float((logits.argmax(1) == labels).double().mean()))
    assert found["loss"] == pytest.approx(float(F.cross_entropy(logits, labels)), rel=1e-5)
    assert found["calibrated_loss"] <= found["loss"] + 1e-9
    assert float(judged.temperature) == float(trained.temperature) != 1
    again = evaluate(loader, judged, trained, accelerator)
    assert again == found  # the temperature of before plays no part


def read_metrics(run_dir: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]
