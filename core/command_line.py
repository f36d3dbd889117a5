"""argparse for this project's programs: errors of one line, and flags made from a dataclass. Loads no torch."""

import argparse
import dataclasses
import difflib
import math
import re
from pathlib import Path
from typing import Any, NoReturn, get_args, get_origin, get_type_hints

from core.errors import UserError
from core.plain import kind


class Parser(argparse.ArgumentParser):
    """argparse whose errors are UserErrors of one line, and which takes no abbreviated flags."""

    def __init__(self, module: str, description: str | None = None) -> None:
        super().__init__(prog=f"python -m {module}", description=description, allow_abbrev=False)
        self.add_argument("--debug", action="store_true", help="show a traceback with an error")

    def error(self, message: str) -> NoReturn:
        """Raises UserError instead of printing the usage."""
        unknown = re.fullmatch(r"unrecognized arguments: (.*)", message, flags=re.DOTALL)
        if unknown:
            word = (unknown.group(1).split() or ["(an empty word)"])[0]
            known = [name for action in self._actions for name in action.option_strings]
            near = difflib.get_close_matches(word.split("=")[0], known, n=1)
            todo = f"did you mean {near[0]}?" if near else f"see {self.prog} --help"
            raise UserError("unknown option", word, todo)
        wrong = re.fullmatch(r"argument (?:[^:]*/)?([^:]+): (.*)", message, flags=re.DOTALL)
        if wrong:
            raise UserError("wrong value", f"{wrong.group(1)}: {wrong.group(2)}", f"see {self.prog} --help")
        raise UserError("wrong command line", message, f"see {self.prog} --help")


def add_options(parser: argparse.ArgumentParser, options: type) -> None:
    """Adds a flag for every field of a dataclass; a flag that is not given leaves no attribute behind."""
    hints = get_type_hints(options)
    for field in dataclasses.fields(options):
        base, _, choices = kind(hints[field.name])
        several = get_origin(base) is tuple  # a flag with several words
        default = _default_in_words(options, field)
        text = f"{field.metadata['help'].replace('%', '%%')} (default: {default})"
        if base is bool:
            action = argparse.BooleanOptionalAction
            parser.add_argument(flag(field.name), action=action, default=argparse.SUPPRESS, help=text)
        else:
            base = get_args(base)[0] if several else base
            parser.add_argument(
                flag(field.name),
                action=_StoreTuple if several else "store",
                nargs="+" if several else None,
                type={int: whole_number, float: real_number}.get(base, base),
                choices=choices or None,
                default=argparse.SUPPRESS,
                help=text,
                metavar=None if choices else {int: "N", float: "X", Path: "PATH"}.get(base, "NAME"),
            )


def _default_in_words(options: Any, field: "dataclasses.Field[Any]") -> str:
    """A flag's default, and those that other settings bring (RunConfig.defaults_for)."""
    words = [_in_words(field.default)]
    for name, of_value in getattr(options, "defaults_for", {}).items():
        for value, brought in of_value.items():
            if field.name in brought:
                words.append(f"{_in_words(brought[field.name])} for {flag(name)} {value}")
    return "; ".join(words)


def _in_words(value: Any) -> str:
    """A setting's value as it would be given."""
    return " ".join(map(str, value)) if isinstance(value, tuple) else "none" if value is None else str(value)


class _StoreTuple(argparse.Action):
    """Stores the words of a flag as a tuple, which is how a stored setting is read back."""

    def __call__(self, _: object, namespace: argparse.Namespace, values: Any, __: str | None = None) -> None:
        """Called by argparse."""
        setattr(namespace, self.dest, tuple(values))


def flag(name: str) -> str:
    """A field's flag."""
    return "--" + name.replace("_", "-")


def whole_number(text: str) -> int:
    """An int from plain ASCII digits; int() would take 1_000 and digits of other scripts too."""
    if not re.fullmatch(r"[+-]?[0-9]{1,18}", text):
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number")
    return int(text)


def positive_number(text: str) -> int:
    """A whole number of at least 1."""
    if (number := whole_number(text)) < 1:
        raise argparse.ArgumentTypeError(f"{text} is out of range; give at least 1")
    return number


def real_number(text: str) -> float:
    """A finite float in plain ASCII notation."""
    if not re.fullmatch(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?", text) or math.isinf(float(text)):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number")
    return float(text)
