"""Running an exported ONNX file: numpy and onnxruntime, no torch.

The file says what it is: `OnnxModel.metadata` has the schema version, the task and what the task needs, such as
class names. Pre- and post-processing are part of the graph.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from core.errors import UserError

SCHEMA_VERSION = 1
DTYPES = {"tensor(uint8)": np.uint8, "tensor(float)": np.float32, "tensor(int64)": np.int64, "tensor(int32)": np.int32}


class OnnxModel:
    """A session on the CPU with named inputs and outputs.

    task: what the caller can handle; threads: 0 for all cores. Raises UserError for a file that is not there, not
    ONNX, not one of this project's, of a newer schema, or of another task.
    """

    def __init__(self, path: Path, *, task: str, threads: int = 0) -> None:
        if not path.is_file():
            raise UserError("no such file", path, "make one with the project's export program")
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4
        options.intra_op_num_threads = threads
        try:
            content = path.read_bytes()  # from memory, so that the file cannot name others to be read
            self.session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime and protobuf raise a dozen types
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise UserError("not a usable ONNX file", f"{path} ({reason})", "export it again") from error
        raw = self.session.get_modelmeta().custom_metadata_map
        if raw.get("schema_version") != str(SCHEMA_VERSION):
            found = raw.get("schema_version", "none")
            raise UserError("unknown schema version", f"{path}: {found}", f"this version reads {SCHEMA_VERSION}")
        self.metadata: dict[str, Any] = {key: parsed(value) for key, value in raw.items()}
        if self.metadata.get("task") != task:
            raise UserError("a model for another task", f"{path}: {self.metadata.get('task')}", f"give one for {task}")
        self.path = path
        self.inputs = {each.name: each for each in self.session.get_inputs()}
        self.output_names = [each.name for each in self.session.get_outputs()]

    def run(self, **inputs: NDArray[Any]) -> dict[str, NDArray[Any]]:
        """Outputs by name. Raises ValueError for a missing or unknown input, another dtype or number of dimensions."""
        if set(inputs) != set(self.inputs):
            raise ValueError(f"inputs are {sorted(inputs)}; the model takes {sorted(self.inputs)}")
        for name, array in inputs.items():
            wanted = self.inputs[name]
            if array.dtype != DTYPES.get(wanted.type) or array.ndim != len(wanted.shape):
                raise ValueError(f"{name} is {array.dtype} {array.shape}; the model takes {wanted.type} {wanted.shape}")
        return dict(zip(self.output_names, self.session.run(None, inputs), strict=True))


def parsed(value: str) -> Any:
    """A metadata value: JSON where it is JSON, the text itself elsewhere."""
    try:
        return json.loads(value)
    except ValueError:
        return value
