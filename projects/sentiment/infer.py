"""Classifies texts with an exported file: python -m projects.sentiment.infer MODEL.onnx "a text" FILE... or < FILE.

numpy, tokenizers and onnxruntime; no torch. Labels go to standard output; where a file has labels as well, the share
that agrees goes to standard error. A word's weight is how much the label's probability falls when the word is made an
unknown one, which training has accustomed the network to. In a text of more than MAX_TRIED words only those with the
most attention are tried. `--top 0` tries none, and is fastest.
"""

import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from core.config import Parser
from core.errors import UserError, printable, run_command
from core.inference import OnnxModel
from projects.sentiment.config import TABLES
from projects.sentiment.reading import Columns, Fault, Row, fault_in, read_lines, read_table
from projects.sentiment.vocab import PAD, UNKNOWN, read_vocabulary

TASK = "text classification"
MAX_TOKENS = 16_384  # of one batch, padding counted
MAX_TEXTS = 256
MAX_TRIED = 32
CHUNK = 1_024  # texts that are read by the network before the first of them is answered
SHOWN_CHARACTERS = 60


class Answer(NamedTuple):
    """Probabilities [C] of a text; its words, and for each its attention, and its weight, zero where not tried."""

    probabilities: NDArray[Any]
    words: list[str]
    weights: NDArray[np.float64]
    attention: NDArray[np.float64]


def main() -> None:
    """The command line."""
    parser = Parser(prog="python -m projects.sentiment.infer", allow_abbrev=False)
    parser.add_argument("model", type=Path, metavar="MODEL.onnx", help="a file that export wrote")
    what = "texts, or files: .txt with a text a line, .csv, .tsv, .jsonl; - or none: a text a line from standard input"
    parser.add_argument("inputs", nargs="*", metavar="TEXT_OR_FILE", help=what)
    parser.add_argument("--text-column", metavar="NAME", help="column of the texts; guessed where it is left out")
    parser.add_argument("--label-column", metavar="NAME", help="column of labels to compare with, if there is one")
    parser.add_argument("--on-bad-row", choices=["stop", "skip"], default="stop", help="as in training (default: stop)")
    parser.add_argument("--top", type=int, default=3, metavar="N", help="words to show for a text (default: 3)")
    parser.add_argument("--json", action="store_true", help="one JSON object a line on standard output")
    parser.add_argument("--debug", action="store_true", help="show a traceback with an error")
    arguments = parser.parse_args()
    if arguments.top < 0:
        raise UserError("value out of range", f"--top {arguments.top}", "give at least 0")
    faults: list[Fault] = []
    wanted = Columns(arguments.text_column, arguments.label_column)
    rows = [row for given in arguments.inputs or ["-"] for row in read_input(given, wanted, faults)]
    if faults and arguments.on_bad_row == "stop":
        todo = "repair it, or leave out such rows with --on-bad-row skip"
        raise UserError(faults[0].what, faults[0].where, todo)
    model = OnnxModel(arguments.model, task=TASK)
    for fault in faults:
        print(printable(f"left out: {fault.where}: {fault.what}"), file=sys.stderr)
    predict(model, rows, arguments.top, arguments.json)


def read_input(given: str, wanted: Columns, faults: list[Fault]) -> list[Row]:
    """The texts that one argument stands for: itself, or those of a file. Raises UserError for what cannot be read."""
    path = Path(given) if len(given) < 4096 and "\0" not in given else Path("/")
    if given == "-":
        return read_lines(Path("/dev/stdin"), None, faults, name="standard input")
    if path.is_file():
        if path.suffix.lower() in TABLES:
            return read_table(path, wanted, faults)[0]
        return read_lines(path, None, faults)
    if path.suffix.lower() in (*TABLES, ".txt") and not any(sign.isspace() for sign in given):
        raise UserError("no such file", given, "give a text, or a file")
    fault = fault_in(given, None)
    if fault is not None:
        faults.append(Fault(fault, "an argument"))
        return []
    return [Row(given.strip(), None, "argument")]


def predict(model: OnnxModel, rows: Sequence[Row], top: int, as_json: bool) -> None:
    """Prints a line a text, in the order of rows."""
    classes: list[str] = model.metadata["classes"]
    right = known = 0
    for row, answer in zip(rows, classify(model, [row.text for row in rows], weigh=top > 0), strict=True):
        order = np.argsort(-answer.probabilities, kind="stable")
        label, probability = classes[order[0]], float(answer.probabilities[order[0]])
        known += row.label in classes
        right += row.label == label
        heaviest = np.argsort(-answer.weights, kind="stable")[:top]
        if as_json:
            record = {
                "text": row.text,
                "label": label,
                "probability": round(probability, 6),
                "probabilities": {classes[k]: round(float(answer.probabilities[k]), 6) for k in order},
                "words": [
                    {
                        "word": answer.words[k],
                        "weight": round(float(answer.weights[k]), 4),
                        "attention": round(float(answer.attention[k]), 4),
                    }
                    for k in heaviest
                ],
            }
            print(json.dumps(record))
        else:
            words = ", ".join(answer.words[k] for k in heaviest if answer.weights[k] > 0)
            text = row.text if len(row.text) <= SHOWN_CHARACTERS else row.text[: SHOWN_CHARACTERS - 1] + "…"
            weighed = f" [{words}]" if words else ""
            print(printable(f"{label} {probability:.1%}: {text}{weighed}"))
    if known:
        print(f"accuracy {right / known:.4f} of {known:,} texts with a label", file=sys.stderr)


def classify(model: OnnxModel, texts: Sequence[str], weigh: bool) -> Iterator[Answer]:
    """Answers in the order of texts."""
    vocabulary = read_vocabulary(json.dumps(model.metadata["tokenizer"]), model.metadata["max_length"])
    for start in range(0, len(texts), CHUNK):
        chunk = texts[start : start + CHUNK]
        encoded = vocabulary.encode(chunk)
        for text, tokens, (probabilities, attention) in zip(chunk, encoded, run(model, encoded), strict=True):
            words, numbers = vocabulary.words(text)
            by_word = np.bincount(numbers, weights=attention, minlength=len(words))
            weights = np.zeros(len(words))
            if weigh:
                tried = np.argsort(-by_word, kind="stable")[:MAX_TRIED]
                without = run(model, [np.where(numbers == word, UNKNOWN, tokens) for word in tried])
                label = probabilities.argmax()
                weights[tried] = [probabilities[label] - other[label] for other, _ in without]
            yield Answer(probabilities, words, weights, by_word.astype(np.float64))


def run(model: OnnxModel, encoded: Sequence[NDArray[np.int64]]) -> list[tuple[NDArray[Any], NDArray[Any]]]:
    """Probabilities [C] and attention [length] of each text; texts of like length share a batch."""
    results: dict[int, tuple[NDArray[Any], NDArray[Any]]] = {}
    for numbers in batches([len(tokens) for tokens in encoded]):
        longest = max(len(encoded[number]) for number in numbers)
        tokens = np.full((len(numbers), longest), PAD, dtype=np.int64)
        for place, number in enumerate(numbers):
            tokens[place, : len(encoded[number])] = encoded[number]
        outputs = model.run(tokens=tokens)
        for place, number in enumerate(numbers):
            length = len(encoded[number])
            results[number] = outputs["probabilities"][place], outputs["attention"][place, :length]
    return [results[number] for number in range(len(encoded))]


def batches(lengths: Sequence[int]) -> Iterator[list[int]]:
    """Numbers of texts, the short ones first, in batches of at most MAX_TEXTS texts and MAX_TOKENS tokens."""
    batch: list[int] = []
    for number in sorted(range(len(lengths)), key=lambda k: lengths[k]):
        if batch and (len(batch) == MAX_TEXTS or (len(batch) + 1) * lengths[number] > MAX_TOKENS):
            yield batch
            batch = []
        batch.append(number)
    if batch:
        yield batch


if __name__ == "__main__":
    run_command(main)
