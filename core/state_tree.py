"""A tree of tensors and plain data as safetensors files and JSON, and back."""

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from core.errors import RunError
from core.files import Buffer

_DTYPE_NAMES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}


class _NotFinite(Exception):
    """A number that JSON does not have; the text says where it stands."""


def encode_files(state: Mapping[str, Any], step: int, tree_file: str) -> dict[str, Sequence[Buffer]]:
    """The files of a checkpoint by name: NAME.safetensors for each name with tensors, tree_file for the rest.

    Raises RunError for a number that is not finite.
    """
    files: dict[str, Sequence[Buffer]] = {}
    tree = {}
    for name, value in state.items():
        tensors: dict[str, Tensor] = {}
        try:
            tree[name] = _encode(value, name, "", tensors, {})
        except _NotFinite as error:
            raise RunError("a value is not finite", f"{error} at step {step}", "try a lower --lr") from error
        for key, tensor in tensors.items():
            if tensor.is_floating_point() and not _is_finite(tensor):
                raise RunError("a value is not finite", f"{name}/{key} at step {step}", "try a lower --lr")
        if tensors:
            files[f"{name}.safetensors"] = _as_safetensors(tensors)
    files[tree_file] = [json.dumps(tree, allow_nan=False).encode()]
    return files


def _is_finite(tensor: Tensor) -> bool:
    """Whether no value is NaN or infinite; one pass without a copy, since NaN is both minimum and maximum."""
    return tensor.numel() == 0 or all(bool(torch.isfinite(bound)) for bound in torch.aminmax(tensor))


def _as_safetensors(tensors: Mapping[str, Tensor]) -> Sequence[Buffer]:
    """The pieces of a safetensors file: the header's length and the header, then each tensor's own memory.

    The library's save() would copy every tensor once more; the format is
    https://huggingface.co/docs/safetensors/index#format, and the library reads it.
    """
    header, buffers, end = {}, [], 0
    for name, tensor in sorted(tensors.items(), key=lambda item: -item[1].element_size()):  # keeps all aligned
        begin, end = end, end + tensor.nbytes
        header[name] = {"dtype": _DTYPE_NAMES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [begin, end]}
        buffers.append(tensor.reshape(-1).view(torch.uint8).numpy().data)
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    return [len(text).to_bytes(8, "little") + text, *buffers]


def _encode(value: Any, name: str, path: str, tensors: dict[str, Tensor], seen: dict[Any, str]) -> Any:
    """A tree as JSON, its tensors put aside under their paths; a tensor that stands twice is stored once."""
    if isinstance(value, Tensor):
        identity = (value.data_ptr(), value.shape, value.stride(), value.dtype) if value.numel() else path
        if identity not in seen:
            while path in tensors:  # {"a.b": x} beside {"a": {"b": y}}, or 1 beside "1"
                path += "'"
            seen[identity] = path
            tensors[path] = _stored_alone(value.detach().cpu().contiguous())
        # Optimizers walk weights and moments side by side in memory, so the layout has to come back as well.
        channels_last = value.ndim == 4 and not value.is_contiguous()
        return {"tensor": f"{name}/{seen[identity]}", "channels_last": channels_last}
    if isinstance(value, Mapping):
        pairs = [[key, _encode(item, name, f"{path}.{key}".lstrip("."), tensors, seen)] for key, item in value.items()]
        if not all(isinstance(key, str | int) and not isinstance(key, bool) for key, _ in pairs):
            raise TypeError(f"{name}/{path}: a checkpoint's keys are strings and whole numbers")
        return {"items": pairs}
    if isinstance(value, list | tuple):
        items = [_encode(item, name, f"{path}.{i}".lstrip("."), tensors, seen) for i, item in enumerate(value)]
        return {"tuple": items} if isinstance(value, tuple) else items
    if isinstance(value, float) and not math.isfinite(value):
        raise _NotFinite(f"{name}/{path}".rstrip("/"))
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise TypeError(f"{name}/{path}: {type(value).__name__} has no place in a checkpoint")


def _stored_alone(tensor: Tensor) -> Tensor:
    """The tensor in memory of its own: safetensors refuses views that overlap."""
    return tensor if tensor.nbytes == tensor.untyped_storage().nbytes() else tensor.clone()


def decode(value: Any, tensors: Mapping[str, Tensor]) -> Any:
    """The tree that encode was given."""
    if isinstance(value, list):
        return [decode(item, tensors) for item in value]
    if not isinstance(value, dict):
        return value
    if "tensor" in value:
        tensor = tensors[value["tensor"]]
        return tensor.contiguous(memory_format=torch.channels_last) if value["channels_last"] else tensor
    if "tuple" in value:
        return tuple(decode(item, tensors) for item in value["tuple"])
    return {key: decode(item, tensors) for key, item in value["items"]}
