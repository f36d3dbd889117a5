"""Measures an exported file on labeled texts: python -m projects.sentiment.evaluate MODEL.onnx DATA.

numpy, tokenizers and onnxruntime; no torch. DATA is read, checked and split as the training does, by the settings that
the file carries; `--split all` takes every text of it, such as a new file that the training has not seen.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from core.errors import UserError
from core.evaluate import Evaluation, no_such_split, note, parse_evaluate, run_evaluate, training_settings
from core.inference import OnnxModel
from projects.sentiment.calibration import calibration_error, reliability
from projects.sentiment.classifying import classify
from projects.sentiment.config import TASK, Config, ModelFacts
from projects.sentiment.datasets import load_dataset
from projects.sentiment.plots import LabeledTexts, plot_results
from projects.sentiment.tables import Columns, Fault, Row
from projects.sentiment.text_inputs import entries_of
from projects.sentiment.tokenizer import read_tokenizer

_LEAST_PROBABILITY = 1e-12  # so that a single sure mistake leaves the loss finite


def evaluate(model: OnnxModel[ModelFacts], arguments: argparse.Namespace) -> Evaluation:
    """Runs the file on the texts that the command line names: accuracy, cross-entropy, calibration."""
    classes, rows = model.facts.classes, _rows(model, arguments)
    texts = [row.text for row in rows]
    probabilities = np.stack([each.probabilities for each in classify(model, texts, weigh=False)]).astype(np.float32)
    labels = np.asarray([classes.index(str(row.label)) for row in rows], dtype=np.int64)
    tokenizer = read_tokenizer(model.facts.tokenizer, model.facts.max_length)
    lengths = np.asarray([len(tokens) for tokens in tokenizer.encode(texts)], dtype=np.int64)
    chosen = probabilities[np.arange(len(labels)), labels].astype(np.float64)
    numbers = {
        "accuracy": float((probabilities.argmax(1) == labels).mean()),
        "loss": float(-np.log(np.maximum(chosen, _LEAST_PROBABILITY)).mean() + 0.0),
        "calibration_error": calibration_error(probabilities, labels),
    }
    bins = [{"num": n, "probability": p, "right": share} for n, p, share in reliability(probabilities, labels)]
    labeled = LabeledTexts(texts, [row.where for row in rows], labels, lengths)

    def plot(folder: Path) -> None:
        plot_results(folder, classes, labeled, {"calibrated": probabilities})

    return Evaluation(numbers, len(rows), {"reliability": bins}, plot)


def _rows(model: OnnxModel[ModelFacts], arguments: argparse.Namespace) -> list[Row]:
    """The texts of a part of the data. Raises UserError for one without a label, or with one that the model lacks."""
    split, data, known = arguments.split, arguments.data, model.facts.classes
    config = training_settings(Config, model, data)
    if split == "all" and Path(data).exists():  # nothing is cut off, so that a small file will do
        rows = _own_rows(data, config, known)
    else:
        dataset = load_dataset(config)
        for text in dataset.notes:
            note(text)
        if split != "all" and split not in dataset.splits:
            raise no_such_split(split, data, list(dataset.splits))
        rows = [row for name, part in dataset.splits.items() if split in (name, "all") for row in part]
    unknown = sorted({str(row.label) for row in rows} - set(known))
    if unknown:
        todo = f"it has {', '.join(known)}"
        raise UserError("a label that the model lacks", f"{unknown[0]} in {data}", todo)
    return rows


def _own_rows(data: str, config: Config, known: Sequence[str]) -> list[Row]:
    """All texts of a file or folder. Raises UserError for the first bad row, unless the training skipped such rows."""
    entries = list(entries_of(data, Columns(config.text_column, config.label_column), known))
    rows = [each for each in entries if isinstance(each, Row)]
    faults = [each for each in entries if isinstance(each, Fault)]
    if faults and config.on_fault == "stop":
        raise UserError(faults[0].what, faults[0].where, "repair it")
    for fault in faults:
        note(f"left out: {fault.where}: {fault.what}")
    if not rows or any(row.label is None for row in rows):
        todo = "give a table with a column of labels, or folders named like labels"
        raise UserError("texts without labels", data, todo)
    return rows


if __name__ == "__main__":
    data = "sst2, imdb, synthetic, a .csv, .tsv or .jsonl file, or a folder of such or of .txt, as in training"
    run_evaluate(lambda: parse_evaluate(Config, data), TASK, ModelFacts, evaluate)
