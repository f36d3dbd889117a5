"""Running an exported ONNX file: numpy and onnxruntime, no torch.

The file says what it is: its metadata has the schema version, the task and the facts that the task needs, such as
class names. Pre- and post-processing are part of the graph.
"""

import json
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from core.errors import UserError
from core.plain import from_plain

F = TypeVar("F")
SCHEMA_VERSION = 2
_DTYPES = {"tensor(uint8)": np.uint8, "tensor(float)": np.float32, "tensor(int64)": np.int64, "tensor(int32)": np.int32}


class OnnxModel(Generic[F]):
    """A session on the CPU with named inputs and outputs, and the facts that the file carries.

    task: what the caller can handle; facts: the project's dataclass; threads: 0 for all cores. Raises UserError for a
    file that is not there, not ONNX, not one of this project's, of another schema or task, or with other facts.
    """

    def __init__(self, path: Path, *, task: str, facts: type[F], threads: int = 0) -> None:
        if not path.is_file():
            raise UserError("no such file", path, "make one with the project's export program")
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4
        options.intra_op_num_threads = threads
        try:
            content = path.read_bytes()  # from memory, so that the file cannot name others to be read
            self.session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
            raw = dict(self.session.get_modelmeta().custom_metadata_map)
        except Exception as error:  # onnxruntime and protobuf raise a dozen types
            reason = (str(error) or type(error).__name__).splitlines()[0].rpartition(" : ")[2]  # without its codes
            raise UserError("not a usable ONNX file", f"{path} ({reason})", "export it again") from error
        self.path = path
        self.metadata = {key: _parsed(value) for key, value in raw.items()}
        version, own_task = self.metadata.get("schema_version"), self.metadata.get("task")
        if version != SCHEMA_VERSION:
            raise UserError(
                "unknown schema version", f"{path}: {version or 'none'}", f"this version reads {SCHEMA_VERSION}"
            )
        if own_task != task:
            raise UserError("a model for another task", f"{path}: {own_task}", f"give one for {task}")
        self.facts = from_plain(facts, self.metadata.get("facts"), f"the facts of {path}")
        self.inputs = {each.name: each for each in self.session.get_inputs()}
        self.output_names = [each.name for each in self.session.get_outputs()]

    def run(self, **inputs: NDArray[Any]) -> dict[str, NDArray[Any]]:
        """Outputs by name. Raises ValueError for a missing or unknown input, another dtype or number of dimensions."""
        if set(inputs) != set(self.inputs):
            raise ValueError(f"inputs are {sorted(inputs)}; the model takes {sorted(self.inputs)}")
        for name, array in inputs.items():
            wanted = self.inputs[name]
            if array.dtype != _DTYPES.get(wanted.type) or array.ndim != len(wanted.shape):
                raise ValueError(f"{name} is {array.dtype} {array.shape}; the model takes {wanted.type} {wanted.shape}")
        return dict(zip(self.output_names, self.session.run(None, inputs), strict=True))


def _parsed(value: str) -> Any:
    """A metadata value, which this project writes as JSON; of others, such as quantization tools, the text itself."""
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        return value
