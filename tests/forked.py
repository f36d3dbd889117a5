"""Programs run in forked children, killed at chosen instants, and what they leave behind compared.

Forking a process that has torch loaded costs some 40 ms, where starting one costs seconds.
"""

import hashlib
import json
import os
import signal
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch

from core import checkpoint
from core.errors import run_command
from core.run import TIME_FIELDS

Main = Callable[[list[str]], None]


def run(main: Main, argv: Sequence[object], *, kill_after: float | None = None) -> int:
    """Runs main(argv) in a child and returns its exit code; SIGKILLs it after `kill_after` seconds if given."""
    child = start(main, argv)
    if kill_after is not None:
        time.sleep(kill_after)
        with suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)
    return wait(child)


def start(main: Main, argv: Sequence[object], *, own_group: bool = False) -> int:
    """Starts main(argv) in a child and returns its number."""
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        if own_group:
            os.setpgid(0, 0)
        silence = os.open(os.devnull, os.O_WRONLY)
        os.dup2(silence, 1)
        os.dup2(silence, 2)
        run_command(lambda: main([str(argument) for argument in argv]))
    except SystemExit as error:
        code = int(error.code or 0)
    finally:
        os._exit(code)


def wait(child: int) -> int:
    """A child's exit code; the negative number of the signal that ended it, where one did."""
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def ending(run_dir: Path) -> tuple[str, list[dict[str, Any]]]:
    """What has to be equal at the end of two runs: the SHA-256 of the last checkpoint's tensors and JSON, and the
    lines of metrics.jsonl without time fields."""
    folder = checkpoint.folders(run_dir)[-1]
    digest = hashlib.sha256()
    for path in sorted(folder.iterdir()):
        if path.name != checkpoint.MANIFEST:
            digest.update(path.name.encode() + path.read_bytes())
    return digest.hexdigest(), metrics(run_dir)


def metrics(run_dir: Path) -> list[dict[str, Any]]:
    """The lines of metrics.jsonl without time fields."""
    lines = (run_dir / "metrics.jsonl").read_text("utf-8").splitlines()
    return [{key: value for key, value in json.loads(line).items() if key not in TIME_FIELDS} for line in lines]


def warm_up(main: Main, argv: Sequence[object]) -> None:
    """Runs main(argv) here, so that children find everything imported; with one thread, which forking needs."""
    torch.set_num_threads(1)
    main([str(argument) for argument in argv])
