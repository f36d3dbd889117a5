"""A torch.export program (MODEL.pt2) beside the ONNX file: the graph for those who stay in PyTorch, after TorchScript.

Loaded with `torch.export.load(path).module()`, which needs no code of the network. It unpickles, so load only files
that you trust. Follows https://docs.pytorch.org/docs/stable/export.html.
"""

import io
import warnings
from pathlib import Path
from typing import Any

import torch

from core.errors import RunError
from core.export_spec import ExportSpec
from core.files import write_atomically, write_json
from core.parity import difference, open_session

_LEFT_OUT = ("stack_trace", "source_fn_stack", "nn_module_stack")  # what a graph says of the code it was made from
_ONLY_ONNX = "only the ONNX file was written"


def export_program(spec: ExportSpec, onnx_path: Path) -> None:
    """Writes the program and its comparison (MODEL.pt2.parity.json) beside an ONNX file, and says so.

    What was written is loaded again and run at all of the spec's shapes, and has to give what the ONNX file gives.
    Raises RunError, with no program written, for a network that torch.export cannot take, and where results differ.
    """
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # torch's notes on its own internals
        content = _saved(spec)
        report = _compare(spec, content, onnx_path)
    path = onnx_path.with_suffix(".pt2")
    write_atomically(path, content)
    write_json(path.with_name(f"{path.name}.parity.json"), report)
    print(f"{path}  {path.stat().st_size / 1e6:.2f} MB, {report['summary']}")


def _saved(spec: ExportSpec) -> bytes:
    """The file with the module's program, whose sizes are as free as in the ONNX file."""
    free = torch.export.Dim.DYNAMIC
    shapes = tuple(dict.fromkeys(names, free) for names in spec.dynamic_shapes)
    try:
        program = torch.export.export(spec.module.eval(), spec.example, dynamic_shapes=shapes, strict=False)
    except Exception as error:
        raise RunError("torch.export cannot take the network", str(error).splitlines()[0], _ONLY_ONNX) from error
    for module in program.graph_module.modules():
        for node in getattr(getattr(module, "graph", None), "nodes", ()):
            for name in _LEFT_OUT:
                node.meta.pop(name, None)
    content = io.BytesIO()
    torch.export.save(program, content)
    return content.getvalue()


def _compare(spec: ExportSpec, content: bytes, onnx_path: Path) -> dict[str, Any]:
    """Runs both files on the same inputs; the largest difference at each shape, or RunError."""
    module, session = torch.export.load(io.BytesIO(content)).module(), open_session(onnx_path)
    rows: list[dict[str, Any]] = []
    for inputs in (spec.example, *spec.parity_inputs):
        expected = session.run(None, {name: tensor.numpy() for name, tensor in zip(spec.inputs, inputs, strict=True)})
        outputs = module(*inputs)
        results = [each.numpy() for each in (outputs if isinstance(outputs, tuple | list) else (outputs,))]
        shapes = [list(tensor.shape) for tensor in inputs]
        apart = max(difference(result, value) for result, value in zip(results, expected, strict=True))
        if not apart <= spec.tolerance:
            what = f"at input shapes {shapes} by {apart:.3g}, allowed are {spec.tolerance:g}"
            raise RunError("the program does not equal the ONNX file", what, _ONLY_ONNX)
        rows.append({"input_shapes": shapes, "difference": apart})
    largest = max(row["difference"] for row in rows)
    summary = f"loaded again, {largest:.1e} from the ONNX file at most, {len(rows)} shapes"
    return {"tolerance": spec.tolerance, "checks": rows, "summary": summary}
