"""python -m cuda_ext doctor reports what this machine has and lacks; python -m cuda_ext build compiles ahead of use.

Exit codes of doctor: 0 if all kernels for this machine work or can be built, 1 otherwise; of build: 0 if all were
built, 1 if not. 2 for a wrong command line.
"""

import argparse
import os
import re
import sys
from collections.abc import Sequence
from typing import NoReturn

import torch

from cuda_ext import doctor, toolchain
from cuda_ext.build import DEVICES, obtain
from cuda_ext.kernel_library import Recipe

_NUM_LOG_LINES = 60


class _Parser(argparse.ArgumentParser):
    """argparse with errors of one line."""

    def error(self, message: str) -> NoReturn:
        """Prints what is wrong, and exits with 2."""
        self.exit(2, f"error: wrong command line: {message}; see {self.prog} --help\n")


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a command, and returns the exit code."""
    arguments = _parser().parse_args(argv)
    if arguments.command == "doctor":
        return 0 if doctor.examine() else 1
    if arguments.device == "cpu" and arguments.arch:
        _parser().error("--arch is for --device cuda")
    devices = [arguments.device] if arguments.device else _wanted_devices(arguments.arch)
    return max(_build(device, arguments.arch) for device in devices)


def _parser() -> _Parser:
    """The command line."""
    result = _Parser(prog="python -m cuda_ext", allow_abbrev=False)
    commands = result.add_subparsers(dest="command", required=True, metavar="doctor|build", parser_class=_Parser)
    commands.add_parser("doctor", help="what this machine has and lacks", allow_abbrev=False)
    build = commands.add_parser("build", help="compile now what would be compiled at its first use", allow_abbrev=False)
    build.add_argument("--device", choices=DEVICES, help="default: cpu, and cuda where there is a GPU or --arch")
    text = "GPU architectures, such as '8.0;9.0+PTX' (default: $TORCH_CUDA_ARCH_LIST, or the GPUs here)"
    build.add_argument("--arch", type=_architecture_list, metavar="LIST", help=text)
    return result


def _architecture_list(text: str) -> str:
    """A list of architectures, separated by semicolons."""
    names = [name for name in re.split(r"[;, ]+", text) if name]
    if not names or not all(re.fullmatch(r"[0-9]+\.[0-9][a-z]?(\+PTX)?", name) for name in names):
        raise argparse.ArgumentTypeError(f"{text!r} is no list of architectures such as '8.0;9.0+PTX'")
    return ";".join(names)


def _wanted_devices(arch: str | None) -> list[str]:
    """What to build where no device is named."""
    return ["cpu", "cuda"] if arch or torch.cuda.is_available() else ["cpu"]


def _build(device: str, arch: str | None) -> int:
    """Builds a device's library, even if that has failed before; prints its path, or why there is none."""
    if device == "cuda" and arch is None and not toolchain.gpus():
        arch = os.environ.get("TORCH_CUDA_ARCH_LIST") or None
    status = obtain(Recipe(device, arch=arch if device == "cuda" else None), again=True)
    if status.active:
        print(status, flush=True)
        return 0
    if status.log is not None:
        print(*status.log.read_text("utf-8").splitlines()[-_NUM_LOG_LINES:], sep="\n", file=sys.stderr)
    print(f"error: no compiled {device} kernels: {status.reason}", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
