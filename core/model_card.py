"""The model card of an exported file, README.md in the form of the Hugging Face hub, and a package to upload.

The form: https://huggingface.co/docs/hub/model-cards. Everything that a card says stands in the ONNX file; plots come
from the run. Names that are the user's own, such as classes, are written so that neither YAML nor Markdown reads
anything into them. The license is left to the user.
"""

import hashlib
import json
import re
import shutil
import sys
import zipfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]

from core.errors import printable
from core.files import temporary_beside, write_atomically, write_synced
from core.model_file import describe_model

CARD = "README.md"
_LICENSE = "# license: the hub lists the names at https://huggingface.co/docs/hub/repositories-licenses\n"
_MARK = "<!-- written by export, which replaces this file unless it was changed; SHA-256 of the lines above: {} -->\n"
_SPLITS = ("test_", "val_", "held_out_")
_NO_METRICS = ("seconds", "threshold", "temperature")
_MAX_CLASSES = 200
_PLOTS = "plots"
_PLOT_NAME = r"[\w.-]+\.(png|webp)"


def model_card(found: Mapping[str, Any], plots: Sequence[str] = ()) -> str:
    """The text of a card. found: what describe_model gives; plots: paths as the card's folder has them."""
    name = Path(found["file"]).name
    results = list(_results(found["metrics"]))
    parts = [
        f"---\n{_LICENSE}{yaml.safe_dump(_front_matter(found), sort_keys=False, allow_unicode=True)}---\n",
        f"# {str(found['task']).capitalize()}\n",
        f"{_foreign(name)} ({found['bytes'] / 1e6:.2f} MB) is an ONNX file for {found['task']}: raw input in, final "
        f"answer out, pre- and post-processing are in its graph. {_origin(found)}\n",
        "## Inputs and outputs\n",
        _table(("name", "dtype and shape", "meaning"), _values(found)),
    ]
    if classes := found["classes"]:
        more = f" and {len(classes) - _MAX_CLASSES:,} more" if len(classes) > _MAX_CLASSES else ""
        named = ", ".join(_foreign(str(each)) for each in classes[:_MAX_CLASSES])
        parts += [f"## {len(classes):,} classes\n", f"{named}{more}\n"]
    if found["usage"]:
        usage = str(found["usage"]).replace('"MODEL.onnx"', json.dumps(name))
        parts += ["## Use\n", f"```python\n{usage}```\n"]
    if results:
        rows = [(_foreign(_in_words(split, key)), f"{value:.6g}") for split, key, value in results]
        parts += ["## Results\n", _table(("metric", "value"), rows)]
    parts += [f"![{Path(each).stem.replace('_', ' ')}]({each})\n" for each in plots]
    parts += ["## Training\n", *_training(found)]
    versions = ", ".join(f"{name} {version}" for name, version in found["versions"].items())
    parts += ["## Versions\n", f"`{versions}`\n"]
    return "\n".join(parts)


def write_card(model: Path, run_dir: Path) -> None:
    """Writes README.md beside a file, and says so. One that export did not write, or that was changed since, stays.

    The run's plots are shown where the file stands in its folder.
    """
    path = model.with_name(CARD)
    if path.exists() and not _is_ours(path):
        print(printable(f"note: {path} stays as it is; --package writes the model card elsewhere"), file=sys.stderr)
        return
    plots = _plots_of(run_dir) if model.parent.resolve() == run_dir.resolve() else []
    write_atomically(path, _marked(model_card(describe_model(model), plots)))
    print(f"{'model card':<14}{path}")


def write_package(target: Path, model: Path, run_dir: Path, *, int8: bool) -> None:
    """Writes a new folder, or a zip file where the name ends so, that can be uploaded as it is, and says so.

    It holds the model, its 8-bit copy if there is one, their reports, the card, and the run's plots. All or nothing.
    """
    plots = _plots_of(run_dir)
    files = [model, *([model.with_name(f"{model.stem}.int8.onnx")] if int8 else [])]
    files += [path.with_name(f"{path.stem}.parity.json") for path in files]
    contents = {CARD: _marked(model_card(describe_model(model), plots))}
    contents |= {path.name: path.read_bytes() for path in files}
    contents |= {name: (run_dir / name).read_bytes() for name in plots}
    temporary = temporary_beside(target)
    try:
        if target.suffix.lower() == ".zip":
            with zipfile.ZipFile(temporary, "x", zipfile.ZIP_DEFLATED) as archive:
                for name, content in contents.items():
                    archive.writestr(name, content)
        else:
            (temporary / _PLOTS).mkdir(parents=True)
            for name, content in contents.items():
                write_synced(temporary / name, [content])
        temporary.rename(target)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        with suppress(OSError):
            temporary.unlink()
    print(f"{'package':<14}{target}  {len(contents)} files, {sum(map(len, contents.values())) / 1e6:.2f} MB")


def _plots_of(run_dir: Path) -> list[str]:
    """The plots of a run by their names in its folder; those whose names a link can hold as they are."""
    names = (path.name for path in (run_dir / _PLOTS).glob("*") if path.is_file())
    return [f"{_PLOTS}/{name}" for name in sorted(names) if re.fullmatch(_PLOT_NAME, name)]


def _front_matter(found: Mapping[str, Any]) -> dict[str, Any]:
    """What the hub reads: library, task, tags, metrics in the form of its model index."""
    tag, facts = found["pipeline_tag"], found["facts"]
    results = list(_results(found["metrics"]))
    matter: dict[str, Any] = {"library_name": "onnx"}
    if tag:
        matter["pipeline_tag"] = tag
    matter["tags"] = ["onnx", "onnxruntime", str(found["project"])]
    if results:
        matter["metrics"] = sorted({key for _, key, _ in results if key.isidentifier()})
        data = {"type": "own", "name": f"data with SHA-256 {str(facts.get('data_sha256', 'unknown'))[:16]}"}
        entries: list[dict[str, Any]] = []
        for split in dict.fromkeys(split for split, _, _ in results):
            where = {**data, "split": split} if split else data
            rows = [(key, value) for of, key, value in results if of == split]
            metrics = [{"type": key, "name": _in_words(split, key), "value": value} for key, value in rows]
            task = {"type": tag or "other", "name": found["task"]}
            entries.append({"task": task, "dataset": where, "metrics": metrics})
        matter["model-index"] = [{"name": f"{found['project']} {facts.get('model', '')}".strip(), "results": entries}]
    return matter


def _results(metrics: Mapping[str, Any]) -> Iterator[tuple[str, str, float]]:
    """Yields (split, name, value) of the numbers of a summary that say how good a model is: those of a test or of
    held-out data; where there are none by name, all but counts and times."""
    numbers = {k: v for k, v in metrics.items() if isinstance(v, float) and k not in _NO_METRICS}
    named = {key: value for key, value in numbers.items() if key.startswith(_SPLITS)}
    for key, value in (named or numbers).items():
        prefix = next((prefix for prefix in _SPLITS if key.startswith(prefix)), "")
        yield prefix.rstrip("_"), key.removeprefix(prefix), value


def _in_words(split: str, key: str) -> str:
    """A metric as people read it."""
    return f"{split} {key}".strip().replace("_", " ")


def _origin(found: Mapping[str, Any]) -> str:
    """Where the weights are from, and how far the file equals the network."""
    step = f"The weights are those of step {found['step']} of a training. " if found["step"] is not None else ""
    same = f"Compared with the network in PyTorch: {found['parity']}." if found["parity"] else ""
    return f"{step}{same}"


def _values(found: Mapping[str, Any]) -> Iterator[tuple[str, str, str]]:
    """A row for each input and output."""
    for kind in ("inputs", "outputs"):
        for name, value in found[kind].items():
            shape = ", ".join(map(str, value["shape"] or ()))
            meaning = str(value["meaning"] or "").partition("], ")[2]  # which begins with dtype and shape
            yield f"{kind[:-1]} {_foreign(name)}", f"{value['dtype']} [{shape}]", meaning.replace("|", "/")


def _training(found: Mapping[str, Any]) -> Iterator[str]:
    """What the model was trained on, with which settings, by which code."""
    facts, commits = found["facts"], found["commits"]
    known = {
        "training samples": facts.get("num_train"),
        "SHA-256 of the data before it was split": facts.get("data_sha256"),
        "network": facts.get("model"),
        "commit of the training": commits["training"],
        "commit of the export": commits["export"],
    }
    rows = [(what, _foreign(str(value))) for what, value in known.items() if value is not None]
    yield _table(("what", "value"), rows)
    yield f"```json\n{json.dumps(found['settings'], indent=1)}\n```\n"


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table; its cells hold no pipe."""
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _foreign(text: str) -> str:
    """A text that is not ours as Markdown that shows it and nothing else: no link, tag, picture or cell of a table."""
    shown = (c if c.isalnum() or c in " -" else f"&#{ord(c)};" for c in printable(text))
    return f"<code>{''.join(shown)}</code>"


def _marked(card: str) -> bytes:
    """The card with a last line by which export knows it again."""
    content = card.encode("utf-8", "replace")
    return content + _MARK.format(hashlib.sha256(content).hexdigest()).encode()


def _is_ours(path: Path) -> bool:
    """Whether a file is just as `write_card` wrote it."""
    try:
        content = path.read_bytes()
    except OSError:  # a folder, or not readable
        return False
    above, _, digest = content.rpartition(b"<!-- ")
    last = re.search(rb"([0-9a-f]{64}) -->\n$", digest)
    return last is not None and last.group(1).decode() == hashlib.sha256(above).hexdigest()
