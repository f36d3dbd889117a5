"""From a request's body to a model's inputs: images, texts, tables and seeds, as files, JSON or a bare body.

Whatever a body holds, it costs a refusal at most: images are decoded by core.vision.decoding within a limit of pixels,
JSON is read strictly, nothing is unpickled or run.
"""

import base64
import binascii
import csv
import io
import re
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from core.errors import UserError
from core.files import strict_json
from core.serving.limits import Held, Refused, ServeOptions
from core.serving.service import Kind, Service
from core.vision.decoding import decode_bytes

MULTIPART, JSON = "multipart/form-data", "application/json"
# Bare bodies of one input, by kind; a form's files may have any type.
BARE_TYPES: Mapping[Kind, tuple[str, ...]] = {
    "image": ("image/", "application/octet-stream"),
    "text": ("text/plain",),
    "table": ("text/csv", "text/plain"),
    "seeds": ("text/plain",),
}
Raw = Any  # bytes of a file or bare body, str of a form's field, or a value of JSON
_DATA_URL = re.compile(r"data:[^,]{0,100};base64,")
_MAX_SEED, _MAX_FLOAT = 2**63 - 1, sys.float_info.max


def raws_of_json(body: bytes) -> list[Raw]:
    """The inputs in a body {"inputs": [...]}. Raises Refused."""
    try:
        data = strict_json(body)
    except (ValueError, RecursionError) as error:
        reason = "nested too deeply" if isinstance(error, RecursionError) else str(error)
        raise Refused(400, "not_json", f"the body is not JSON: {reason}") from error
    if not isinstance(data, dict) or set(data) != {"inputs"} or not isinstance(data["inputs"], list):
        todo = "options such as ?name=value go into the address"
        raise Refused(422, "wrong_body", f'the body has to be an object {{"inputs": [...]}} and nothing else; {todo}')
    return data["inputs"]


def read_inputs(
    service: Service[Any, Any, Any], model: Any, raws: Sequence[Raw], limits: ServeOptions, held: Held
) -> list[Any]:
    """What the service's predict takes, an entry an input. Raises Refused, naming the input."""
    if not raws:
        raise Refused(422, "no_input", "the request has no input")
    if len(raws) > limits.max_inputs:
        raise Refused(413, "too_many_inputs", f"{len(raws):,} inputs, more than {limits.max_inputs:,}")
    readers: Mapping[Kind, Callable[[Raw, Path, ServeOptions, Held], Any]] = {
        "image": _image,
        "text": _text,
        "table": _table,
        "seeds": _seed,
    }
    result = []
    with tempfile.TemporaryDirectory() if service.kind == "table" else nullcontext("") as folder:
        for number, raw in enumerate(raws, 1):
            path = Path(folder, f"input {number}")
            try:
                result.append(service.read(model, readers[service.kind](raw, path, limits, held)))
            except UserError as error:
                text = str(error).replace(f"{folder}/", "")
                raise Refused(422, "unusable_input", text) from error
    return result


def _image(raw: Raw, path: Path, limits: ServeOptions, held: Held) -> Any:
    """uint8 [H, W, 3] from a file's bytes, or from base64, also of a data URL."""
    if isinstance(raw, str):
        start = _DATA_URL.match(raw)
        try:
            raw = base64.b64decode(raw[start.end() if start else 0 :], validate=True)
        except (ValueError, binascii.Error) as error:
            raise Refused(422, "unusable_input", f"{path}: not an image in base64") from error
    if not isinstance(raw, bytes):
        raise Refused(422, "unusable_input", f"{path}: not an image; give a file, or base64 as a string")
    pixels = decode_bytes(raw, path, limits.max_pixels)
    held.add(pixels.nbytes)
    return pixels


def _text(raw: Raw, path: Path, limits: ServeOptions, held: Held) -> str:
    """A text that is not empty."""
    if isinstance(raw, bytes):
        try:
            raw = raw.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            raise Refused(422, "unusable_input", f"{path}: not UTF-8") from error
    if not isinstance(raw, str) or not raw.strip():
        raise Refused(422, "unusable_input", f"{path}: not a text with letters in it")
    if any("\ud800" <= character <= "\udfff" for character in raw):
        raise Refused(422, "unusable_input", f"{path}: half of a surrogate pair")
    if len(raw) > limits.max_characters:
        where = f"{path}: {len(raw):,} characters"
        raise Refused(413, "text_too_long", f"{where}, more than {limits.max_characters:,}")
    return raw


def _table(raw: Raw, path: Path, limits: ServeOptions, held: Held) -> Path:
    """The path of a .csv: from CSV, from an object of columns, or from a list of objects, one a row."""
    if isinstance(raw, Mapping | list):
        raw = _as_csv(raw, path)
    if isinstance(raw, str):
        raw = raw.encode("utf-8", "replace")
    if not isinstance(raw, bytes):
        raise Refused(422, "unusable_input", f"{path}: not a table; give CSV, columns, or a list of rows")
    held.add(len(raw))
    path.write_bytes(raw)
    return path


def _seed(raw: Raw, path: Path, limits: ServeOptions, held: Held) -> int | list[float]:
    """A whole number from 0 on, or the numbers that a seed stands for."""
    if isinstance(raw, bytes):
        raw = raw.decode("ascii", "replace")
    if isinstance(raw, str) and re.fullmatch(r"\s*[0-9]{1,19}\s*", raw):
        raw = int(raw)
    if isinstance(raw, list) and raw and all(type(number) in (int, float) for number in raw):
        if all(abs(number) <= _MAX_FLOAT for number in raw):  # JSON also has 1e999, and whole numbers of any length
            return [float(number) for number in raw]
        raise Refused(422, "unusable_input", f"{path}: a number beyond the range of floating point")
    if type(raw) is not int or not 0 <= raw <= _MAX_SEED:
        todo = f"give a whole number of 0 to {_MAX_SEED}, or a list of numbers"
        raise Refused(422, "unusable_input", f"{path}: not a seed; {todo}")
    return raw


def _as_csv(table: Mapping[str, Any] | list[Any], path: Path) -> str:
    """CSV from JSON: {"column": [values], ...} or [{"column": value, ...}, ...]. Raises Refused."""
    wrong = Refused(422, "unusable_input", f"{path}: columns of unlike lengths, or rows of unlike columns")
    if isinstance(table, Mapping):
        header, columns = list(table), list(table.values())
        if not all(isinstance(column, list) for column in columns) or len({len(column) for column in columns}) > 1:
            raise wrong
        rows = list(zip(*columns, strict=True))
    else:
        header = list(table[0]) if table and isinstance(table[0], Mapping) else []
        if not header or not all(isinstance(row, Mapping) and list(row) == header for row in table):
            raise wrong
        rows = [tuple(row.values()) for row in table]
    if not all(cell is None or isinstance(cell, str | int | float) for row in rows for cell in row):
        raise Refused(422, "unusable_input", f"{path}: a cell that is no text, number or null")
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    return text.getvalue()
