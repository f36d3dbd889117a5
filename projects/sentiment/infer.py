"""Classifies texts with an exported file: python -m projects.sentiment.infer MODEL.onnx "a text" FILE... or < FILE.

numpy, tokenizers and onnxruntime; no torch. Labels go to standard output; where a file has labels as well, the accuracy
goes to standard error. A word's weight is how much the label's probability falls when the word is replaced by the
unknown one, as training does at random. In a text of more than 32 words only those with the most attention are
tried. `--top 0` tries none, and is fastest.

Files are read twice: first all are looked through for rows that cannot be used, and then texts are read as they are
classified, so that memory does not grow with their number. Standard input is read once, as it comes.
"""

import argparse
import json
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from core.benchmark import benchmark
from core.command_line import whole_number
from core.errors import UserError, printable, run_command
from core.inference import OnnxModel, check_like_classes
from core.program import infer_parser
from core.progress import counted
from core.records import FORMATS, RecordWriter, records_path
from projects.sentiment.classifying import Member, Prediction, classify_together, tokenizer_of
from projects.sentiment.config import TASK, Config, ModelFacts
from projects.sentiment.tables import Columns, Row, similar_labels
from projects.sentiment.text_inputs import STANDARD_INPUT, entries_of
from projects.sentiment.tokenizer import UNKNOWN

# Texts that the network reads before the first of them is printed: few at first, then more for batches of like length.
_FIRST_CHUNK, _CHUNK, _CHUNK_CHARACTERS = 32, 1_024, 4_000_000
_SHOWN_CHARACTERS = 60
_BENCHMARK_TOKENS = 32
_NUM_LABELS_SHOWN = 5


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
    inputs = [word for word in arguments.inputs if word not in words] or [STANDARD_INPUT]
    files = [word for word in inputs if word != STANDARD_INPUT]
    num = sum(1 for _ in _rows(files, arguments, classes))
    rows = _rows(inputs, arguments, classes, noted=files)
    predict(members, rows, num if files == inputs else None, arguments.top, arguments.json, output)


def _rows(
    inputs: Sequence[str], arguments: argparse.Namespace, classes: Sequence[str], noted: Sequence[str] = ()
) -> Iterator[Row]:
    """The good rows of all inputs. Raises UserError for a bad one, unless such are to be skipped; then it is named,
    but not those of the inputs in `noted`, which have been."""
    wanted = Columns(arguments.text_column, arguments.label_column)
    for given in inputs:
        for entry in entries_of(given, wanted, classes):
            if isinstance(entry, Row):
                yield entry
            elif arguments.on_fault == "stop":
                raise UserError(entry.what, entry.where, "repair it, or leave out such rows with --on-fault skip")
            elif given not in noted:
                _note(f"left out: {entry.where}: {entry.what}")


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


def predict(
    members: Sequence[Member], rows: Iterable[Row], num: int | None, top: int, as_json: bool, output: Path | None
) -> None:
    """Prints a line a text, in the order of rows, and the accuracy where rows have labels; writes it as it comes.

    num: how many rows there are, None where that is not known.
    """
    classes, num_right = members[0][0].facts.classes, np.zeros(1 + len(members), dtype=np.int64)
    labels: Counter[str] = Counter()
    predictions = _classify_rows(members, rows, weigh=top > 0)
    with ExitStack() as stack:
        writer = None if output is None else stack.enter_context(RecordWriter(output, _columns(classes, top)))
        for row, prediction in counted(predictions, num, "texts"):
            heaviest = np.argsort(-prediction.weights, kind="stable")[:top]
            record = to_record(row.text, prediction, classes, heaviest)
            labels.update([] if row.label is None else [row.label])
            if row.label in classes:
                best = [prediction.probabilities.argmax(), *prediction.parts.argmax(1)]
                num_right += np.array(best) == classes.index(row.label)
            if writer is not None:
                writer.add(record)
            if as_json:
                print(json.dumps(record), flush=True)
            else:
                words = ", ".join(prediction.words[k] for k in heaviest if prediction.weights[k] > 0)
                text = row.text if len(row.text) <= _SHOWN_CHARACTERS else row.text[: _SHOWN_CHARACTERS - 1] + "…"
                shown = f"{text} [{words}]" if words else text
                print(printable(f"{record['label']} {record['probability']:.1%}: {shown}"), flush=True)
    _say_accuracy(labels, num_right[0], classes)
    if labels and len(members) > 1:
        alone = zip(members, num_right[1:] / labels.total(), strict=True)
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


def _classify_rows(members: Sequence[Member], rows: Iterable[Row], weigh: bool) -> Iterator[tuple[Row, Prediction]]:
    """Rows with their predictions, a chunk at a time."""
    chunk: list[Row] = []
    num, num_characters = _FIRST_CHUNK, 0
    for row in rows:
        chunk.append(row)
        num_characters += len(row.text)
        if len(chunk) == num or num_characters > _CHUNK_CHARACTERS:
            yield from zip(chunk, classify_together(members, [each.text for each in chunk], weigh), strict=True)
            chunk, num_characters, num = [], 0, min(2 * num, _CHUNK)
    yield from zip(chunk, classify_together(members, [each.text for each in chunk], weigh), strict=True)


def _say_accuracy(labels: Counter[str], num_right: int, classes: Sequence[str]) -> None:
    """Prints the accuracy on texts with labels; texts whose label the model does not know are counted as wrong.

    labels: with how many texts have each.
    """
    if not labels:
        return
    names = sorted(set(labels) - set(classes))
    if names:
        num_unknown = sum(labels[name] for name in names)
        shown = ", ".join(names[:_NUM_LABELS_SHOWN]) + (", …" if len(names) > _NUM_LABELS_SHOWN else "")
        known = ", ".join(classes[:_NUM_LABELS_SHOWN])
        _note(f"{num_unknown:,} texts have labels that the model does not know ({shown}; it knows {known}), all wrong")
        for group in similar_labels([*classes, *names]):
            _note(f"labels that are probably the same: {', '.join(group)}")
    _note(f"accuracy {num_right / labels.total():.4f} of {labels.total():,} texts with a label", prefix="")


def _note(text: str, prefix: str = "note: ") -> None:
    """Prints a line on standard error, with control characters made visible."""
    print(printable(prefix + text), file=sys.stderr)


if __name__ == "__main__":
    run_command(infer)
