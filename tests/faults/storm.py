"""The kill storm: a tiny training is killed or stopped, taken up again, killed again, and compared at its end."""

import random
import re
import shutil
import signal
from pathlib import Path

from tests.faults.file_calls import KINDS, Fault
from tests.faults.programs import Outcome, Program, Timed, arguments, ending, play, problem_with_newest
from tests.faults.tally import Tally

_SIGNALS = (*[signal.SIGKILL] * 7, signal.SIGTERM, signal.SIGTERM, signal.SIGINT)
_KILLS_OF_A_TRIAL = (1, 2, 4, 6, 10)
_REACH = (0.2, 0.5, 1.0)  # shares of the unbroken run within which a kill is drawn


def storm_trial(program: Program, number: int, folder: Path, tally: Tally) -> None:
    """One run with as many kills as its number says; kills, stops and what went wrong go into the tally."""
    source = random.Random(f"storm {program.name} {number}")
    run_dir, saved = folder / "storm" / "run", 0
    shutil.rmtree(run_dir.parent, ignore_errors=True)
    run_dir.parent.mkdir(parents=True)
    left = source.choice(_KILLS_OF_A_TRIAL)
    while True:
        event = _draw(program, source) if left else None
        left -= event is not None
        outcome = play(program, arguments(program, run_dir), run_dir, event)
        saved = max(saved, outcome.saved)
        where = f"{program.name} {number}: {event}"
        if problem := _problem_of_end(outcome, event):
            tally.add("others", f"{where}: {problem}")
            return
        if outcome.code == 0:
            break
        tally.count("kills" if outcome.code < 0 else "stops")
        if lost := problem_with_newest(run_dir, saved):
            tally.add("lost", f"{where}: {lost}")
            return
    tally.count("trials")
    if ending(run_dir) != program.ending:
        tally.add("unequal", f"{program.name} {number}")
    if list(run_dir.rglob(".tmp-*")):
        tally.add("others", f"{program.name} {number}: temporary files are left")


def _draw(program: Program, source: random.Random) -> Fault | Timed:
    """A kill at a random call that changes files, or after a random time."""
    signal_number, reach = source.choice(_SIGNALS), source.choice(_REACH)
    if source.random() < 0.5:
        kind = source.choice(KINDS)
        half = signal_number == signal.SIGKILL and source.random() < 0.5
        return Fault(kind, source.randint(1, max(1, round(reach * program.calls[kind]))), signal_number, half)
    return Timed(source.uniform(0, reach * program.seconds), signal_number)


def _problem_of_end(outcome: Outcome, event: Fault | Timed | None) -> str:
    """What is wrong with how a program ended; empty if nothing is."""
    if outcome.code == 0:
        return ""
    last = outcome.lines[-1] if outcome.lines else "no line"
    if event is None or any("Traceback" in line for line in outcome.lines):
        return f"exit {outcome.code}: {last}"
    number = event.signal_number
    if outcome.code == -number:
        unanswered = number != signal.SIGKILL and outcome.phase == 1
        return f"signal {number} was not answered" if unanswered else ""
    if outcome.code != 128 + number or number == signal.SIGKILL:
        return f"exit {outcome.code}: {last}"
    if "nothing was saved" in last and outcome.saved:
        return f"says that nothing was saved after step {outcome.saved}"
    said = re.search(r"step (\d+)( is saved)?; continue", last)
    if said and int(said.group(1)) != outcome.saved:
        return f"says step {said.group(1)}, step {outcome.saved} is the newest saved"
    return ""
