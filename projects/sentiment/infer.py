"""Classifies texts with an exported file: python -m projects.sentiment.infer MODEL.onnx "a text" FILE... or < FILE.

numpy, tokenizers and onnxruntime; no torch. Labels go to standard output; where a file has labels as well, the accuracy
goes to standard error. A word's weight is how much the label's probability falls when the word is replaced by the
unknown one, as training does at random. In a text of more than 32 words only those with the most attention are
tried. `--top 0` tries none, and is fastest.
"""

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from core.benchmark import benchmark
from core.command_line import whole_number
from core.errors import UserError, printable, run_command
from core.inference import OnnxModel, check_like_classes
from core.program import infer_parser
from core.progress import counted
from core.records import FORMATS, RecordWriter, records_path
from projects.sentiment.config import TASK, Config, ModelFacts
from projects.sentiment.tables import Columns, Fault, Row, similar_labels
from projects.sentiment.text_inputs import read_input
from projects.sentiment.token_batches import run_in_batches
from projects.sentiment.tokenizer import UNKNOWN, Tokenizer, read_tokenizer

Member = tuple[OnnxModel[ModelFacts], Tokenizer]
_MAX_TRIED = 32
_CHUNK = 1_024  # texts that the network reads before the first of them is printed
_SHOWN_CHARACTERS = 60
_BENCHMARK_TOKENS = 32
_NUM_LABELS_SHOWN = 5


class Prediction(NamedTuple):
    """Probabilities [C] of a text; its words, and for each its attention, and its weight, zero where not tried.

    parts: the probabilities of each file that was averaged, [files, C].
    """

    probabilities: NDArray[Any]
    words: list[str]
    weights: NDArray[np.float64]
    attention: NDArray[np.float64]
    parts: NDArray[Any]


def infer(argv: Sequence[str] | None = None) -> None:
    """Classifies what the command line names; prints a line a text, and writes a file where --output is given."""
    arguments = _parse_arguments(argv)
    words = [word for word in arguments.inputs if word.lower().endswith(".onnx")]
    output = records_path(arguments.output, arguments.format, "predictions")
    members = _open_members([arguments.model, *map(Path, words)], arguments)
    classes = members[0][0].facts.classes
    if arguments.benchmark:
        for model, _ in members:
            example = np.full((1, min(_BENCHMARK_TOKENS, model.facts.max_length)), UNKNOWN, dtype=np.int64)
            benchmark(model, lambda num, example=example: {"tokens": example.repeat(num, 0)}, as_json=arguments.json)  # type: ignore[misc]
        return
    rows: list[Row] = []
    faults: list[Fault] = []
    wanted = Columns(arguments.text_column, arguments.label_column)
    for given in [word for word in arguments.inputs if word not in words] or ["-"]:
        read_input(given, wanted, classes, rows, faults)
    if faults and arguments.on_fault == "stop":
        todo = "repair it, or leave out such rows with --on-fault skip"
        raise UserError(faults[0].what, faults[0].where, todo)
    for fault in faults:
        _note(f"left out: {fault.where}: {fault.what}")
    predict(members, rows, arguments.top, arguments.json, output)


def _parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    """The command line. Raises UserError."""
    inputs = "texts; .txt (a text a line), .csv, .tsv or .jsonl files; folders of .txt (a text a file); patterns; - or "
    inputs += "none: lines of standard input; and first more MODEL.onnx, to be averaged"
    output = "new .csv, .jsonl or .parquet file, or a folder for predictions.jsonl; written as results come"
    parser = infer_parser(Config, inputs, output, needs_inputs=False)
    parser.add_argument("--format", choices=FORMATS, help="of the predictions in the folder --output (default: jsonl)")
    parser.add_argument("--text-column", metavar="NAME", help="column of the texts; guessed where it is left out")
    parser.add_argument("--label-column", metavar="NAME", help="column of labels to compare with, if there is one")
    parser.add_argument("--on-fault", choices=["stop", "skip"], default="stop", help="as in training (default: stop)")
    parser.add_argument("--top", type=whole_number, default=3, metavar="N", help="words to show of a text (default: 3)")
    arguments = parser.parse_args(argv)
    if arguments.top < 0:
        raise UserError("value out of range", f"--top {arguments.top}", "give at least 0")
    return arguments


def _open_members(paths: Sequence[Path], arguments: argparse.Namespace) -> list[Member]:
    """The files to average, with their tokenizers. Raises UserError for files of unlike classes."""
    about = {"threads": arguments.threads, "provider": arguments.provider}
    models = [OnnxModel(path, task=TASK, facts=ModelFacts, **about) for path in paths]
    check_like_classes([(model.path, model.facts.classes) for model in models])
    return [(model, tokenizer_of(model)) for model in models]


def predict(members: Sequence[Member], rows: Sequence[Row], top: int, as_json: bool, output: Path | None) -> None:
    """Prints a line a text, in the order of rows, and the accuracy where rows have labels; writes it as it comes."""
    classes, num_right = members[0][0].facts.classes, np.zeros(1 + len(members), dtype=np.int64)
    predictions = classify_together(members, [row.text for row in rows], weigh=top > 0)
    with ExitStack() as stack:
        writer = None if output is None else stack.enter_context(RecordWriter(output, _columns(classes, top)))
        for row, prediction in zip(counted(rows, len(rows), "texts"), predictions, strict=True):
            heaviest = np.argsort(-prediction.weights, kind="stable")[:top]
            record = to_record(row.text, prediction, classes, heaviest)
            if row.label in classes:
                best = [prediction.probabilities.argmax(), *prediction.parts.argmax(1)]
                num_right += np.array(best) == classes.index(row.label)
            if writer is not None:
                writer.add(record)
            if as_json:
                print(json.dumps(record))
            else:
                words = ", ".join(prediction.words[k] for k in heaviest if prediction.weights[k] > 0)
                text = row.text if len(row.text) <= _SHOWN_CHARACTERS else row.text[: _SHOWN_CHARACTERS - 1] + "…"
                shown = f"{text} [{words}]" if words else text
                print(printable(f"{record['label']} {record['probability']:.1%}: {shown}"))
    labels = [row.label for row in rows if row.label is not None]
    _say_accuracy(labels, num_right[0], classes)
    if labels and len(members) > 1:
        alone = zip(members, num_right[1:] / len(labels), strict=True)
        _note("alone: " + ", ".join(f"{model.path} {share:.4f}" for (model, _), share in alone), prefix="")


def _columns(classes: Sequence[str], top: int) -> dict[str, type]:
    """The columns of records in a table."""
    kinds = {"word": str, "weight": float, "attention": float}
    words = {f"words.{k}.{name}": kind for k in range(1, top + 1) for name, kind in kinds.items()}
    probabilities = dict.fromkeys((f"probabilities.{name}" for name in classes), float)
    return {"text": str, "label": str, "probability": float, **probabilities, **words}


def to_record(
    text: str, prediction: Prediction, classes: Sequence[str], words: Sequence[int] | NDArray[np.intp]
) -> dict[str, Any]:
    """The JSON object of a text. words: numbers of those to name."""
    order = np.argsort(-prediction.probabilities, kind="stable")
    return {
        "text": text,
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


def tokenizer_of(model: OnnxModel[ModelFacts]) -> Tokenizer:
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
    return classify_with(model, tokenizer_of(model), texts, weigh)


def classify_with(
    model: OnnxModel[ModelFacts], tokenizer: Tokenizer, texts: Sequence[str], weigh: bool
) -> Iterator[Prediction]:
    """classify with the file's tokenizer, which takes a while to read."""
    return classify_together([(model, tokenizer)], texts, weigh)


def classify_together(members: Sequence[Member], texts: Sequence[str], weigh: bool) -> Iterator[Prediction]:
    """Predictions in the order of texts, the mean over several files. weigh: whether to compute the words' weights."""
    for start in range(0, len(texts), _CHUNK):
        chunk = texts[start : start + _CHUNK]
        encoded = [tokenizer.encode(chunk) for _, tokenizer in members]
        outputs = [run_in_batches(model, tokens) for (model, _), tokens in zip(members, encoded, strict=True)]
        for place, text in enumerate(chunk):
            split = [tokenizer.words(text) for _, tokenizer in members]
            words = split[0][0]  # the same for all: a piece of a word belongs to it
            parts = np.stack([its_outputs[place][0] for its_outputs in outputs])
            attention = np.mean(
                [
                    np.bincount(numbers, weights=its_outputs[place][1], minlength=len(words))
                    for (_, numbers), its_outputs in zip(split, outputs, strict=True)
                ],
                axis=0,
            )
            probabilities, weights = parts.mean(0), np.zeros(len(words))
            if weigh:
                tried = np.argsort(-attention, kind="stable")[:_MAX_TRIED]
                label = probabilities.argmax()
                without = [
                    run_in_batches(model, [np.where(numbers == word, UNKNOWN, tokens[place]) for word in tried])
                    for (model, _), (_, numbers), tokens in zip(members, split, encoded, strict=True)
                ]
                others = np.mean([[other[label] for other, _ in its] for its in without], axis=0)
                weights[tried] = probabilities[label] - others
            yield Prediction(probabilities, words, weights, attention, parts)


if __name__ == "__main__":
    run_command(infer)
