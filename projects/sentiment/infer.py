"""Classifies texts with an exported file: python -m projects.sentiment.infer MODEL.onnx "a text" FILE... or < FILE.

numpy, tokenizers and onnxruntime; no torch. Labels go to standard output; where a file has labels as well, the accuracy
goes to standard error. A word's weight is how much the label's probability falls when the word is replaced by the
unknown one, as training does at random. In a text of more than 32 words only those with the most attention are
tried. `--top 0` tries none, and is fastest.
"""

import json
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from core.command_line import whole_number
from core.errors import UserError, printable, run_command
from core.inference import OnnxModel
from core.program import infer_parser
from projects.sentiment.config import TABLES, TASK, Config, ModelFacts
from projects.sentiment.tables import Columns, Fault, Row, add_row, read_table, similar_labels
from projects.sentiment.text_folders import read_lines, read_text, text_files_below
from projects.sentiment.tokenizer import PAD, UNKNOWN, Tokenizer, read_tokenizer

_MAX_TOKENS = 16_384  # of one batch, padding counted
_MAX_TEXTS = 256  # of one batch
_MAX_TRIED = 32
_CHUNK = 1_024  # texts that the network reads before the first of them is printed
_SHOWN_CHARACTERS = 60
_NUM_LABELS_SHOWN = 5


class Prediction(NamedTuple):
    """Probabilities [C] of a text; its words, and for each its attention, and its weight, zero where not tried."""

    probabilities: NDArray[Any]
    words: list[str]
    weights: NDArray[np.float64]
    attention: NDArray[np.float64]


def infer(argv: Sequence[str] | None = None) -> None:
    """Classifies what the command line names; prints a line a text, and writes a file where --output is given."""
    inputs = (
        "texts; .txt (a text a line), .csv, .tsv or .jsonl files; folders of .txt (a text a file); - or none: lines"
    )
    parser = infer_parser(
        Config, f"{inputs} of standard input", "new file for a JSON object a line", needs_inputs=False
    )
    parser.add_argument("--text-column", metavar="NAME", help="column of the texts; guessed where it is left out")
    parser.add_argument("--label-column", metavar="NAME", help="column of labels to compare with, if there is one")
    parser.add_argument("--on-fault", choices=["stop", "skip"], default="stop", help="as in training (default: stop)")
    parser.add_argument("--top", type=whole_number, default=3, metavar="N", help="words to show of a text (default: 3)")
    arguments = parser.parse_args(argv)
    if arguments.top < 0:
        raise UserError("value out of range", f"--top {arguments.top}", "give at least 0")
    if arguments.output is not None and (arguments.output.exists() or not arguments.output.parent.is_dir()):
        raise UserError("not a new file in a folder that exists", f"--output {arguments.output}", "give another path")
    model = OnnxModel(arguments.model, task=TASK, facts=ModelFacts)
    rows: list[Row] = []
    faults: list[Fault] = []
    wanted = Columns(arguments.text_column, arguments.label_column)
    for given in arguments.inputs or ["-"]:
        read_input(given, wanted, model.facts.classes, rows, faults)
    if faults and arguments.on_fault == "stop":
        todo = "repair it, or leave out such rows with --on-fault skip"
        raise UserError(faults[0].what, faults[0].where, todo)
    for fault in faults:
        _note(f"left out: {fault.where}: {fault.what}")
    predict(model, rows, arguments.top, arguments.json, arguments.output)


def read_input(given: str, wanted: Columns, classes: Sequence[str], rows: list[Row], faults: list[Fault]) -> None:
    """Adds the texts that one argument stands for: itself, or those of a file or folder. Raises UserError."""
    if any("\ud800" <= character <= "\udfff" for character in given):  # on a terminal of ASCII
        given = os.fsencode(given).decode("utf-8", "surrogateescape")
    path = Path(given)
    kind = _kind_of(path)
    if given == "-":
        read_lines(None, None, rows, faults)
    elif kind == "folder":
        paths, _ = text_files_below(path)
        if not paths:
            raise UserError("a folder without .txt files", path, "name its tables themselves")
        labeled = any(each.parent.name in classes for each in paths)
        for each in paths:
            read_text(each, each.parent.name if labeled else None, rows, faults)
    elif kind == "file" and path.suffix.lower() in TABLES:
        rows += read_table(path, wanted, faults)[0]
    elif kind == "file":
        read_lines(path, None, rows, faults)
    elif path.suffix.lower() in (*TABLES, ".txt") and not any(map(str.isspace, given)):
        raise UserError("no such file", given, "give a text, or a file")
    else:
        add_row((given, None), "an argument", rows, faults)


def _kind_of(path: Path) -> str | None:
    """Whether there is a file or a folder at a path; None for a text, which may be too long for a path."""
    try:
        return "folder" if path.is_dir() else "file" if path.exists() else None
    except (OSError, ValueError):
        return None


def predict(model: OnnxModel[ModelFacts], rows: Sequence[Row], top: int, as_json: bool, output: Path | None) -> None:
    """Prints a line a text, in the order of rows, and the accuracy where rows have labels."""
    classes, lines, num_right = model.facts.classes, [], 0
    for row, prediction in zip(rows, classify(model, [row.text for row in rows], weigh=top > 0), strict=True):
        heaviest = np.argsort(-prediction.weights, kind="stable")[:top]
        record = _record(row, prediction, classes, heaviest)
        lines.append(json.dumps(record))
        num_right += row.label == record["label"]
        if as_json:
            print(lines[-1])
        else:
            words = ", ".join(prediction.words[k] for k in heaviest if prediction.weights[k] > 0)
            text = row.text if len(row.text) <= _SHOWN_CHARACTERS else row.text[: _SHOWN_CHARACTERS - 1] + "…"
            shown = f"{text} [{words}]" if words else text
            print(printable(f"{record['label']} {record['probability']:.1%}: {shown}"))
    _say_accuracy([row.label for row in rows if row.label is not None], num_right, classes)
    if output is not None:
        output.write_text("\n".join([*lines, ""]), encoding="utf-8")


def _record(
    row: Row, prediction: Prediction, classes: Sequence[str], words: Sequence[int] | NDArray[np.intp]
) -> dict[str, Any]:
    """The JSON object of a text. words: numbers of those to name."""
    order = np.argsort(-prediction.probabilities, kind="stable")
    return {
        "text": row.text,
        "label": classes[order[0]],
        "probability": round(float(prediction.probabilities[order[0]]), 6),
        "probabilities": {classes[k]: round(float(prediction.probabilities[k]), 6) for k in order},
        "words": [
            {
                "word": prediction.words[k],
                "weight": round(float(prediction.weights[k]), 4),
                "attention": round(float(prediction.attention[k]), 4),
            }
            for k in words
        ],
    }


def _say_accuracy(labels: Sequence[str], num_right: int, classes: Sequence[str]) -> None:
    """Prints the accuracy on texts with labels; texts whose label the model does not know are counted as wrong."""
    if not labels:
        return
    unknown = [label for label in labels if label not in classes]
    if unknown:
        names = sorted(set(unknown))
        shown = ", ".join(names[:_NUM_LABELS_SHOWN]) + (", …" if len(names) > _NUM_LABELS_SHOWN else "")
        known = ", ".join(classes[:_NUM_LABELS_SHOWN])
        _note(f"{len(unknown):,} texts have labels that the model does not know ({shown}; it knows {known}), all wrong")
        for group in similar_labels([*classes, *names]):
            _note(f"labels that are probably the same: {', '.join(group)}")
    _note(f"accuracy {num_right / len(labels):.4f} of {len(labels):,} texts with a label", prefix="")


def _note(text: str, prefix: str = "note: ") -> None:
    """Prints a line on standard error, with control characters made visible."""
    print(printable(prefix + text), file=sys.stderr)


def _tokenizer_of(model: OnnxModel[ModelFacts]) -> Tokenizer:
    """The tokenizer that a file carries. Raises UserError where it is none, or does not fit the graph."""
    facts = model.facts
    try:
        tokenizer = read_tokenizer(facts.tokenizer, facts.max_length)
    except Exception as error:  # the package raises bare exceptions
        raise UserError(
            "not a usable ONNX file", f"{model.path} (its tokenizer: {error})", "export it again"
        ) from error
    num_classes = model.session.get_outputs()[0].shape[-1]
    if facts.max_length < 2 or len(tokenizer) != facts.num_words or len(facts.classes) != num_classes:
        raise UserError("not a usable ONNX file", f"{model.path} (its facts disagree)", "export it again")
    return tokenizer


def classify(model: OnnxModel[ModelFacts], texts: Sequence[str], weigh: bool) -> Iterator[Prediction]:
    """Predictions in the order of texts. weigh: whether to compute the words' weights."""
    tokenizer = _tokenizer_of(model)
    for start in range(0, len(texts), _CHUNK):
        chunk = texts[start : start + _CHUNK]
        encoded = tokenizer.encode(chunk)
        for text, tokens, (probabilities, attention) in zip(chunk, encoded, _run(model, encoded), strict=True):
            words, numbers = tokenizer.words(text)
            by_word = np.bincount(numbers, weights=attention, minlength=len(words))
            weights = np.zeros(len(words))
            if weigh:
                tried = np.argsort(-by_word, kind="stable")[:_MAX_TRIED]
                without = _run(model, [np.where(numbers == word, UNKNOWN, tokens) for word in tried])
                label = probabilities.argmax()
                weights[tried] = [probabilities[label] - other[label] for other, _ in without]
            yield Prediction(probabilities, words, weights, by_word.astype(np.float64))


def _run(model: OnnxModel[ModelFacts], encoded: Sequence[NDArray[np.int64]]) -> list[tuple[NDArray[Any], NDArray[Any]]]:
    """Probabilities [C] and attention [length] of each text; texts of like length share a batch."""
    results: dict[int, tuple[NDArray[Any], NDArray[Any]]] = {}
    for numbers in _batches([len(tokens) for tokens in encoded]):
        longest = max(len(encoded[number]) for number in numbers)
        tokens = np.full((len(numbers), longest), PAD, dtype=np.int64)
        for place, number in enumerate(numbers):
            tokens[place, : len(encoded[number])] = encoded[number]
        outputs = model.run(tokens=tokens)
        for place, number in enumerate(numbers):
            length = len(encoded[number])
            results[number] = outputs["probabilities"][place], outputs["attention"][place, :length]
    return [results[number] for number in range(len(encoded))]


def _batches(lengths: Sequence[int]) -> Iterator[list[int]]:
    """Numbers of texts, the short ones first, in batches of at most _MAX_TEXTS texts and _MAX_TOKENS tokens."""
    batch: list[int] = []
    for number in sorted(range(len(lengths)), key=lambda k: lengths[k]):
        if batch and (len(batch) == _MAX_TEXTS or (len(batch) + 1) * lengths[number] > _MAX_TOKENS):
            yield batch
            batch = []
        batch.append(number)
    if batch:
        yield batch


if __name__ == "__main__":
    run_command(infer)
