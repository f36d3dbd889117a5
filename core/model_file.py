"""What an ONNX file says of itself: its metadata, inputs, outputs, operators and weights. Needs onnx; no torch.

The format: https://onnx.ai/onnx/repo-docs/IR.html. Weights that stand in other files are counted, and not read.
"""

import hashlib
import json
import math
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import onnx
from onnx import TensorProto

from core.errors import UserError
from core.text_files import open_regular

_MAX_BYTES = 2 << 30  # what protobuf can hold
_OWN_ENTRIES = ("schema_version", "project", "task", "facts", "step", "training", "metrics", "pipeline_tag", "usage")
_TODO = "give an .onnx file"


def describe_model(path: Path) -> dict[str, Any]:
    """Everything that `core.inspect` shows of a file, as plain data.

    Entries of a file that this project did not write are None, or empty. metadata: what is left of the file's own.
    Raises UserError for a file that is not there or is no ONNX file.
    """
    content, model = _read(path)
    metadata = {entry.key: parse_loosely(entry.value) for entry in model.metadata_props}
    own = {name: metadata.pop(name, None) for name in _OWN_ENTRIES}
    commits = {name: metadata.pop(f"commit_{name}", None) for name in ("training", "export")}
    parity = _mapping(metadata.pop("parity", None))
    facts = _mapping(own["facts"])
    meanings = {name: _mapping(metadata.pop(name, None)) for name in ("inputs", "outputs")}
    initial = {tensor.name for tensor in model.graph.initializer}
    inputs = [value for value in model.graph.input if value.name not in initial]
    graphs = list(_graphs(model))
    classes = facts.get("classes")
    return {
        "kind": "model",
        "file": str(path),
        "bytes": len(content),
        "sha256": hashlib.sha256(content).hexdigest(),
        "project": own["project"],
        "task": own["task"],
        "pipeline_tag": own["pipeline_tag"],
        "usage": own["usage"],
        "schema_version": own["schema_version"],
        "classes": classes if isinstance(classes, list) else [],
        "inputs": {value.name: _of_value(value, meanings["inputs"]) for value in inputs},
        "outputs": {value.name: _of_value(value, meanings["outputs"]) for value in model.graph.output},
        "metrics": _mapping(own["metrics"]),
        "settings": _mapping(own["training"]),
        "facts": {name: value for name, value in facts.items() if name != "classes"},
        "step": own["step"],
        "commits": commits,
        "versions": {**_mapping(parity.get("versions")), **_versions(model)},
        "parity": parity.get("summary"),
        "operators": dict(Counter(_operator(node) for graph in graphs for node in graph.node).most_common()),
        "weights": _count_weights(graphs),
        "fault": _fault(model, graphs),
        "metadata": metadata,
    }


def parse_loosely(text: str) -> Any:
    """A value from JSON; the text itself where it is none. Numbers that JSON does not have become None."""
    try:
        return json.loads(text, parse_constant=lambda _: None, parse_float=_finite)
    except (ValueError, RecursionError):
        return text


def _finite(text: str) -> float | None:
    """A float; None for one beyond the largest."""
    value = float(text)
    return value if math.isfinite(value) else None


def _read(path: Path) -> tuple[bytes, onnx.ModelProto]:
    """A file's content and the model in it. Raises UserError."""
    try:
        with open_regular(path, _MAX_BYTES) as file:
            content = file.read()
    except OSError as error:
        raise UserError("not a readable file", f"{path} ({(error.strerror or 'unreadable').lower()})", _TODO) from error
    model = onnx.ModelProto()
    try:
        model.ParseFromString(content)
    except Exception as error:  # of protobuf, whose types differ between its implementations
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise UserError("not an ONNX file, or a broken one", f"{path} ({reason})", _TODO) from error
    if not model.ir_version or not model.graph.output:  # an empty file parses too
        raise UserError("not an ONNX file, or a broken one", f"{path} (it has no graph with outputs)", _TODO)
    return content, model


def _mapping(value: Any) -> dict[str, Any]:
    """The value, if it is an object of JSON; empty otherwise."""
    return value if isinstance(value, dict) else {}


def _of_value(value: onnx.ValueInfoProto, meanings: dict[str, Any]) -> dict[str, Any]:
    """Dtype and shape of an input or output; names stand for free sizes, ? for unknown ones."""
    tensor, meaning = value.type.tensor_type, meanings.get(value.name)
    kind = value.type.WhichOneof("value") or "unknown"
    shape = [_size(each) for each in tensor.shape.dim] if tensor.HasField("shape") else None
    return {
        "dtype": _dtype(tensor.elem_type) if kind == "tensor_type" else kind.removesuffix("_type"),
        "shape": shape,
        "meaning": meaning if isinstance(meaning, str) else None,
    }


def _size(size: Any) -> int | str:
    """One size of a shape."""
    return int(size.dim_value) if size.HasField("dim_value") else str(size.dim_param) or "?"


def _dtype(number: int) -> str:
    """A dtype's name, in numpy's spelling where numpy has it."""
    try:
        name: str = TensorProto.DataType.Name(number).lower()
    except ValueError:
        return f"type {number}"
    return {"float": "float32", "double": "float64"}.get(name, name)


def _graphs(model: onnx.ModelProto) -> Iterator[Any]:
    """The graph, those inside its nodes, such as the branches of If, and the bodies of its functions."""
    waiting: list[Any] = [model.graph, *model.functions]
    while waiting:
        graph = waiting.pop()
        yield graph
        for node in graph.node:
            for attribute in node.attribute:
                waiting += [attribute.g] if attribute.HasField("g") else list(attribute.graphs)


def _operator(node: onnx.NodeProto) -> str:
    """An operator's name, with its domain where that is not ONNX's own."""
    return f"{node.domain}.{node.op_type}" if node.domain not in ("", "ai.onnx") else node.op_type


def _count_weights(graphs: Sequence[Any]) -> dict[str, int]:
    """How many numbers of each dtype the file's tensors hold, the most frequent first."""
    counts: Counter[str] = Counter()
    for graph in graphs:
        tensors = list(getattr(graph, "initializer", ()))
        tensors += [a.t for node in graph.node for a in node.attribute if a.HasField("t")]
        for tensor in tensors:
            counts[_dtype(tensor.data_type)] += math.prod(tensor.dims)
        for sparse in getattr(graph, "sparse_initializer", ()):
            counts[_dtype(sparse.values.data_type)] += math.prod(sparse.values.dims)
    return dict(counts.most_common())


def _versions(model: onnx.ModelProto) -> dict[str, Any]:
    """Versions of the format, of the operators of each domain, and of the program that wrote the file."""
    opsets = {f"opset {entry.domain}".strip(): entry.version for entry in model.opset_import}
    producer = f"{model.producer_name} {model.producer_version}".strip()
    return {**({"producer": producer} if producer else {}), "ir": model.ir_version, **opsets}


def _fault(model: onnx.ModelProto, graphs: Sequence[Any]) -> str | None:
    """What onnx's checker finds wrong; None for nothing, and where weights stand in other files."""
    tensors = (tensor for graph in graphs for tensor in getattr(graph, "initializer", ()))
    if any(tensor.data_location == TensorProto.EXTERNAL for tensor in tensors):
        return None
    try:
        onnx.checker.check_model(model)
    except Exception as error:  # of onnx and protobuf
        return str(error).strip().partition("\n")[0] or type(error).__name__
    return None
