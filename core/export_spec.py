"""What a project says of the network that it exports."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn


@dataclass(frozen=True)
class ExportSpec:
    """What to export, and what to compare.

    module: raw inputs in, final answers out, in evaluation mode. task: what the file is for, in a few words.
    facts: the dataclass that inference reads. inputs, outputs: what the graph takes and gives, by name, in words.
    example: inputs with no size of 1 and no two equal ones. dynamic_shapes: as torch.onnx.export takes it, names for
    free dimensions. output_shapes: sizes and names. parity_inputs: other shapes to compare at. tolerance: largest
    |onnx - torch| of floating-point outputs, divided by max(1, largest value). unrounded: gives the module's outputs,
    with integer ones as float32 before they are rounded: to within half a unit and rounding_tolerance the file's have
    to be these; without it integers have to be equal. pipeline_tag: the hub's name of the task. usage: a few lines of
    Python that use the file, which they call MODEL.onnx; both stand in the file and in its model card.
    """

    module: nn.Module
    task: str
    facts: Any
    inputs: Mapping[str, str]
    outputs: Mapping[str, str]
    example: tuple[Tensor, ...]
    dynamic_shapes: Any
    output_shapes: Sequence[Sequence[int | str]]
    parity_inputs: Sequence[tuple[Tensor, ...]]
    tolerance: float = 1e-4
    unrounded: Callable[..., tuple[Tensor, ...]] | None = None
    rounding_tolerance: float = 0.02
    custom_translation_table: Mapping[Any, Any] = field(default_factory=dict)
    pipeline_tag: str | None = None
    usage: str | None = None
