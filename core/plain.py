"""Dataclasses as plain data for JSON, and back: strict both ways. This module loads no torch.

A field's annotation is its type: int, float, str, bool, Path, Literal, `tuple[T, ...]`, another dataclass, or one of
these `| None`.
"""

import dataclasses
import types
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from core.errors import UserError

D = TypeVar("D")


def to_plain(instance: Any) -> dict[str, Any]:
    """A dataclass as dicts, lists, numbers, strings and None, as JSON will give it back."""
    return {field.name: _plain(getattr(instance, field.name)) for field in dataclasses.fields(instance)}


def from_plain(cls: type[D], data: Any, where: object) -> D:
    """A dataclass from what to_plain gave. Raises UserError, naming the entry, for one that is unknown, missing or of
    another type."""
    if not isinstance(data, Mapping):
        raise UserError(f"no {cls.__name__.lower()}", where, "use a file that this version of the project wrote")
    hints = get_type_hints(cls)
    names = [field.name for field in dataclasses.fields(cls)]  # type: ignore[arg-type]
    for name in [*sorted(set(data) - set(names), key=str), *(name for name in names if name not in data)]:
        problem = "unknown entry" if name in data else "missing entry"
        raise UserError(problem, f"{name} in {where}", "use the version of this project that wrote it")
    return cls(**{name: _read(hints[name], data[name], f"{name} in {where}") for name in names})


def kind(annotation: Any) -> tuple[Any, bool, tuple[str, ...]]:
    """An annotation's base type, whether it may be None, and its closed choices."""
    optional = False
    if get_origin(annotation) in (Union, types.UnionType):
        rest = [a for a in get_args(annotation) if a is not type(None)]
        optional, annotation = len(rest) < len(get_args(annotation)), rest[0]
    if get_origin(annotation) is Literal:
        return str, optional, get_args(annotation)
    return annotation, optional, ()


def _plain(value: Any) -> Any:
    """One value as plain data."""
    if dataclasses.is_dataclass(value):
        return to_plain(value)
    if isinstance(value, tuple | list):
        return [_plain(item) for item in value]
    return str(value) if isinstance(value, Path) else value


def _read(annotation: Any, value: Any, where: str) -> Any:
    """One value of an annotated type. Raises UserError with `where`."""
    base, optional, choices = kind(annotation)
    if value is None and optional:
        return None
    if dataclasses.is_dataclass(base):
        return from_plain(base, value, where)  # type: ignore[arg-type]
    if get_origin(base) is tuple:
        if not isinstance(value, list | tuple):
            raise UserError("wrong type of entry", where, "it must be a list")
        return tuple(_read(get_args(base)[0], item, where) for item in value)
    if base is float and type(value) is int and abs(value) < 2**63:
        value = float(value)
    if base is Path and isinstance(value, str):
        value = Path(value)
    if not isinstance(value, base) or (base is not bool and isinstance(value, bool)):
        raise UserError("wrong type of entry", where, f"it must be {base.__name__}")
    if choices and value not in choices:
        raise UserError("unknown value", f"{where}: {value}", f"choose from {', '.join(choices)}")
    return value
