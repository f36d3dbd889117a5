"""Running an exported ONNX file: numpy and onnxruntime, no torch.

The file says what it is: its metadata has the schema version, the task and the facts that the task needs, such as
class names. Pre- and post-processing are part of the graph.
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Generic, Self, TypeVar

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from core.errors import UserError
from core.plain import from_plain
from core.program import PROVIDERS

F = TypeVar("F")
SCHEMA_VERSION = 2
_DTYPES = {"tensor(uint8)": np.uint8, "tensor(float)": np.float32, "tensor(int64)": np.int64, "tensor(int32)": np.int32}


class OnnxModel(Generic[F]):
    """A session with named inputs and outputs, and the facts that the file carries.

    task: what the caller can handle; facts: the project's dataclass; threads: 0 for all cores; provider: of
    core.program.PROVIDERS. Raises UserError for a file that is not there, not ONNX, not one of this project's, of
    another schema or task, or with other facts, and for a provider that this machine's onnxruntime cannot use.
    """

    def __init__(self, path: Path, *, task: str, facts: type[F], threads: int = 0, provider: str = "cpu") -> None:
        if not path.is_file():
            raise UserError("no such file", path, "make one with the project's export program")
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4
        options.intra_op_num_threads = threads
        _check_installed(provider)
        try:
            content = path.read_bytes()  # from memory, so that the file cannot name others to be read
            self.session = _open_session(content, options, provider)
            raw = dict(self.session.get_modelmeta().custom_metadata_map)
        except UserError:
            raise
        except Exception as error:  # onnxruntime and protobuf raise a dozen types
            reason = (str(error) or type(error).__name__).splitlines()[0].rpartition(" : ")[2]  # without its codes
            raise UserError("not a usable ONNX file", f"{path} ({reason})", "export it again") from error
        self.path, self.threads, self.provider = path, threads, provider
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

    @classmethod
    def named_by(cls, arguments: argparse.Namespace, *, task: str, facts: type[F]) -> Self:
        """The file that an infer program's command line names, with its --threads and --provider. Raises UserError."""
        return cls(arguments.model, task=task, facts=facts, threads=arguments.threads, provider=arguments.provider)

    def run(self, **inputs: NDArray[Any]) -> dict[str, NDArray[Any]]:
        """Outputs by name. Raises ValueError for a missing or unknown input, another dtype or number of dimensions."""
        if set(inputs) != set(self.inputs):
            raise ValueError(f"inputs are {sorted(inputs)}; the model takes {sorted(self.inputs)}")
        for name, array in inputs.items():
            wanted = self.inputs[name]
            if array.dtype != _DTYPES.get(wanted.type) or array.ndim != len(wanted.shape):
                raise ValueError(f"{name} is {array.dtype} {array.shape}; the model takes {wanted.type} {wanted.shape}")
        return dict(zip(self.output_names, self.session.run(None, inputs), strict=True))


def check_like_classes(files: Sequence[tuple[Path, Sequence[str]]]) -> None:
    """Raises UserError for files of other classes than the first one's, whose probabilities cannot be averaged.

    files: path and names of classes of each.
    """
    first, classes = files[0]
    for path, others in files[1:]:
        if list(others) != list(classes):
            unlike = [*sorted(set(others) ^ set(classes)), "their order"][0]
            todo = "give files of one training set"
            raise UserError("files of unlike classes cannot be averaged", f"{unlike} in {first} and {path}", todo)


def _check_installed(provider: str) -> None:
    """Raises UserError where this onnxruntime was built without a provider."""
    available = onnxruntime.get_available_providers()
    if PROVIDERS[provider] not in available:
        usable = ", ".join(name for name, full in PROVIDERS.items() if full in available)
        todo = f"it has {usable}; install a build of onnxruntime that has {provider}"
        raise UserError("onnxruntime has no such provider here", f"--provider {provider}", todo)


def _open_session(content: bytes, options: Any, provider: str) -> onnxruntime.InferenceSession:
    """A session that computes with a provider; left to itself, onnxruntime would take the CPU where it cannot.

    Raises UserError for a provider that cannot be started, and onnxruntime's errors for a file that it cannot read.
    """
    wanted, cpu = PROVIDERS[provider], PROVIDERS["cpu"]
    providers = [wanted] if provider == "cpu" else [wanted, cpu]  # the CPU for operators that the other one lacks
    reason = "it is not in use"
    try:
        session = onnxruntime.InferenceSession(content, options, providers=providers, enable_fallback=0)
        if session.get_providers()[0] == wanted:
            return session
    except (ValueError, RuntimeError) as error:
        if provider == "cpu":
            raise
        reason = (str(error) or type(error).__name__).splitlines()[0]
    todo = "see that its driver and libraries are installed, or use --provider cpu"
    raise UserError("the provider cannot be used", f"--provider {provider} ({reason})", todo)


def _parsed(value: str) -> Any:
    """A metadata value, which this project writes as JSON; of others, such as quantization tools, the text itself."""
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        return value
