"""Feeds changed files to a parser, in a child process, and counts what is not an error of the project's own."""

import json
import os
import random
import resource
import shutil
import signal
import traceback
import warnings
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from core.checkpoint import Broken
from core.errors import RunError, UserError
from tests import forked
from tests.faults.mutations import mutate
from tests.faults.parsers import PARSERS

# Of processor time, and of waiting, as for a FIFO; on a busy machine every input takes longer than it should.
SECONDS_FOR_ONE, _WAITING_SECONDS, _MAX_GROWTH_BYTES = 5.0, 300, 1 << 30


@dataclass
class Report:
    """inputs: how many were tried; refused: by the project's own errors. others: other exceptions by type and place,
    hangs, and deaths, with their number; first: the number of the first input of each."""

    inputs: int = 0
    refused: int = 0
    others: Counter[str] = field(default_factory=Counter)
    first: dict[str, int] = field(default_factory=dict)


class _Hang(BaseException):
    """An input took too long."""


def fuzz(name: str, numbers: range, folder: Path) -> Report:
    """Tries the inputs of these numbers; each is a function of its number."""
    report, begin = Report(), numbers.start
    while begin < numbers.stop:
        part = _in_child(name, range(begin, numbers.stop), folder)
        report.inputs += part.inputs
        report.refused += part.refused
        report.others.update(part.others)
        report.first = {**part.first, **report.first}
        begin += max(part.inputs, 1)
    return report


def _in_child(name: str, numbers: range, folder: Path) -> Report:
    """Tries inputs in a forked child, up to the first that kills it."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    reader, writer = os.pipe()
    child = forked.fork()
    if child == 0:
        os.close(reader)
        silence = os.open(os.devnull, os.O_WRONLY)
        os.dup2(silence, 1)
        os.dup2(silence, 2)
        try:
            PARSERS[name].seeds(folder)
            whole_file = (folder / PARSERS[name].file).read_bytes()
            with os.fdopen(writer, "w") as file:
                for number in numbers:
                    print(json.dumps(vars(_one(name, number, folder, whole_file))), file=file, flush=True)
            os._exit(0)
        finally:
            os._exit(1)
    os.close(writer)
    whole = Report()
    with os.fdopen(reader) as file:
        for line in file:
            one = json.loads(line)
            whole.inputs += 1
            whole.refused += one["refused"]
            whole.others.update(one["others"])
            whole.first = {**one["first"], **whole.first}
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if code:
        kind = f"died by signal {-code}" if code < 0 else "the harness failed"
        whole.others[kind] += 1
        whole.first.setdefault(kind, numbers.start + whole.inputs)
        whole.inputs += 1
    return whole


def _one(name: str, number: int, folder: Path, whole_file: bytes) -> Report:
    """Tries one input."""
    parser, report = PARSERS[name], Report(inputs=1)
    (folder / parser.file).write_bytes(mutate(whole_file, random.Random(f"{name} {number}")))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    kind = ""
    for signal_number in (signal.SIGALRM, signal.SIGPROF):
        signal.signal(signal_number, _stop)
    signal.setitimer(signal.ITIMER_PROF, SECONDS_FOR_ONE)
    signal.alarm(_WAITING_SECONDS)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            parser.read(folder)
    except (UserError, RunError, Broken):
        report.refused = 1
    except _Hang:
        kind = f"longer than {SECONDS_FOR_ONE:g} s"
    except BaseException as error:
        place = traceback.extract_tb(error.__traceback__)[-1]
        kind = f"{type(error).__name__} in {Path(place.filename).name}:{place.name}"
    finally:
        signal.alarm(0)
        signal.setitimer(signal.ITIMER_PROF, 0)
    if (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) << 10 > _MAX_GROWTH_BYTES:
        kind = "more than 1 GB"
    if kind:
        report.others[kind] += 1
        report.first[kind] = number
    return report


def _stop(*_: object) -> None:
    """Ends an input that takes too long."""
    raise _Hang
