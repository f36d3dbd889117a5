"""Searches settings: python -m core.sweep PROGRAM --search NAME=VALUES... [--jobs N] -- FLAGS OF EVERY RUN.

Every trial is a process of the train program with settings that optuna chose (grid, random, or tree-structured Parzen
estimator: Bergstra et al. 2011, "Algorithms for Hyper-Parameter Optimization"); a trial whose evaluations fall behind
the others' is stopped early (median, or Hyperband: Li et al. 2018, arXiv 1603.06560). Settings are chosen by the number
of the validation that the program itself chooses its weights by; test data has no part in it. The study is an SQLite
file in the sweep's folder: with --resume, a sweep that was killed goes on, and several processes work on one.

    SWEEP/sweep.json  study.sqlite  trials/<run folders>  output/  claims/  best.json  comparison.*  plots/
"""

import os
import shlex
import sys
import time
from argparse import SUPPRESS
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from core.command_line import Parser, positive_number, whole_number
from core.config import project_of
from core.errors import RunError, UserError, note_saved, printable, run_command
from core.search_space import SearchSpace
from core.sweep_report import report
from core.sweep_settings import Sweep, load_optuna
from core.trial import Outcome, Place, RunningTrial, environments

_SECONDS_BETWEEN_LOOKS = 0.5
_FAILURES_AT_THE_BEGINNING = 3  # without any success: then something else is wrong
_DEFAULT_TRIALS = 20
_SEARCH_HELP = "what to search: lr=log:1e-3:1, momentum=0.8:0.99, batch_size=32:256, optimizer=sgd,adamw; once for each"


def main() -> None:
    """The command line."""
    words = sys.argv[1:]
    end = words.index("--") if "--" in words else len(words)
    arguments = _parser().parse_args(words[:end])
    sweep, folder, space = _resumed(arguments) if arguments.resume else _new(arguments, words[end + 1 :])
    num_trials = arguments.trials or sweep.trials
    if sweep.sampler == "grid":
        num_trials = min(num_trials, len(space.points()))
    with sweep.study(folder, space.base().epochs) as study:
        note_saved(f"all trials are saved; continue with python -m core.sweep --resume {shlex.quote(str(folder))}")
        print(f"sweep folder {folder}: {num_trials} trials, {arguments.jobs} at a time", flush=True)
        _work(sweep, space, study, folder, num_trials, arguments.jobs)
        report(study, space, sweep, Place(folder, _seeds(sweep, space)))


def _parser() -> Parser:
    """The flags."""
    parser = Parser("core.sweep", "Search the settings of a train program; its own flags stand behind --.")
    parser.add_argument("program", nargs="?", metavar="PROGRAM", help="module of a train program, as after python -m")
    parser.add_argument("--search", action="append", default=[], metavar="NAME=VALUES", help=_SEARCH_HELP)
    parser.add_argument("--sampler", choices=["tpe", "random", "grid"], default=SUPPRESS, help="(default: tpe)")
    parser.add_argument("--pruner", choices=["none", "median", "hyperband"], default=SUPPRESS, help="(default: median)")
    parser.add_argument("--seeds", type=positive_number, default=SUPPRESS, help="runs of each trial (default: 1)")
    parser.add_argument("--sampler-seed", type=whole_number, default=SUPPRESS, help="of the sampler (default: 0)")
    parser.add_argument("--trials", type=positive_number, help="in all; a grid's points or 20 where not given")
    parser.add_argument("--jobs", type=positive_number, default=1, help="trials at a time, a GPU each (default: 1)")
    parser.add_argument("--sweep-dir", type=Path, metavar="DIR", help="default: runs/<project>/sweep-<date>-<n>")
    parser.add_argument("--resume", type=Path, metavar="SWEEP", help="go on with a sweep, or join in with it")
    return parser


def _new(arguments: Any, fixed: Sequence[str]) -> tuple[Sweep, Path, SearchSpace]:
    """A new sweep, with its folder made. Raises UserError before anything is made."""
    if arguments.program is None or not arguments.search:
        missing = "PROGRAM" if arguments.program is None else "--search NAME=VALUES"
        raise UserError("missing on the command line", missing, "see python -m core.sweep --help")
    given: dict[str, Any] = {"sampler": "tpe", "pruner": "median", "seeds": 1, "sampler_seed": 0}
    given.update({name: vars(arguments)[name] for name in given if name in vars(arguments)})
    space = SearchSpace.parse(arguments.program, arguments.search, fixed)
    trials = arguments.trials or (len(space.points()) if given["sampler"] == "grid" else _DEFAULT_TRIALS)
    sweep = Sweep(arguments.program, tuple(arguments.search), tuple(fixed), trials=trials, **given)
    if not 0 <= sweep.sampler_seed < 2**31:
        raise UserError("value out of range", f"--sampler-seed {sweep.sampler_seed}", "give 0 to 2147483647")
    load_optuna()
    folder = arguments.sweep_dir or _unused_folder(Path("runs", project_of(space.config_class)))
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError("the sweep's folder is not empty", folder, f"give another, or --resume {folder}")
    try:
        for name in ("trials", "output", "claims"):
            (folder / name).mkdir(parents=True)
        sweep.write(folder)
    except OSError as error:
        where = f"{folder} ({(error.strerror or str(error)).lower()})"
        raise UserError("the sweep's folder cannot be written", where, "give another --sweep-dir") from error
    return sweep, folder, space


def _resumed(arguments: Any) -> tuple[Sweep, Path, SearchSpace]:
    """A sweep that stands on the disk. Raises UserError for flags that it has settled."""
    settled = [name for name in ("sampler", "pruner", "seeds", "sampler_seed") if name in vars(arguments)]
    others = {"program": arguments.program, "search": arguments.search, "sweep_dir": arguments.sweep_dir}
    settled += [name for name, value in others.items() if value]
    if settled or "--" in sys.argv:
        word = f"--{settled[0].replace('_', '-')}" if settled else "--"
        raise UserError("settled when the sweep began", word, "with --resume give only --trials and --jobs")
    sweep = Sweep.read(arguments.resume)
    load_optuna()
    return sweep, arguments.resume, SearchSpace.parse(sweep.program, sweep.search, sweep.fixed)


def _work(sweep: Sweep, space: SearchSpace, study: Any, folder: Path, num_trials: int, jobs: int) -> None:
    """Runs trials until there are as many as wanted and none of this process is open."""
    place, settings = Place(folder, _seeds(sweep, space)), environments(jobs)
    open_trials: list[RunningTrial | None] = [None] * jobs
    try:
        while True:
            for slot, running in enumerate(open_trials):
                if running is not None and (outcome := running.poll()) is not None:
                    _tell(study, running.trial, outcome)
                    running.close()  # only now: a claim that is open on an unfinished trial is taken over
                    open_trials[slot] = None
                if open_trials[slot] is None:
                    open_trials[slot] = _next_trial(sweep, space, study, place, num_trials, settings[slot])
            if not any(open_trials):
                return
            time.sleep(_SECONDS_BETWEEN_LOOKS)
    finally:
        for running in open_trials:
            if running is not None:
                running.stop()


def _next_trial(
    sweep: Sweep, space: SearchSpace, study: Any, place: Place, num_trials: int, environment: Mapping[str, str]
) -> RunningTrial | None:
    """A trial that its process has left, or a new one; None where there are enough."""
    optuna, names = load_optuna(), [each.name for each in space.dimensions]
    with _one_at_a_time(place):
        trials = study.get_trials(deepcopy=False)
        states = [trial.state for trial in trials]
        num_begun = len(states) - states.count(optuna.trial.TrialState.WAITING)
        study.sampler = sweep.sampler_of(num_begun)
        for number in (trial.number for trial in trials if trial.state == optuna.trial.TrialState.RUNNING):
            if (lock := place.claim(number)) is None:
                continue
            frozen = study.get_trials(deepcopy=False)[number]  # it may have ended before its claim was ours
            if frozen.state == optuna.trial.TrialState.RUNNING:
                trial, num_reported = optuna.trial.Trial(study, frozen._trial_id), len(frozen.intermediate_values)
                break
            os.close(lock)
        else:
            if num_begun >= num_trials:
                return None
            if sweep.sampler == "grid" and num_begun == len(trials):
                study.enqueue_trial(dict(zip(names, space.points()[num_begun], strict=True)))
            trial, num_reported = study.ask(), 0
            lock = place.claim(trial.number)
        values = {each.name: each.suggest(trial, is_grid=sweep.sampler == "grid") for each in space.dimensions}
    assert lock is not None
    print(f"trial {trial.number}: {shlex.join(space.flags(values))}", flush=True)
    flags = [*space.fixed, *space.flags(values)]
    return RunningTrial(trial, place, sweep.program, flags, lock, environment, num_reported)


def _tell(study: Any, trial: Any, outcome: Outcome) -> None:
    """Stores and prints how a trial ended. Raises RunError where the first ones all failed."""
    states = load_optuna().trial.TrialState
    trial.set_user_attr("reason", outcome.reason)
    print(printable(f"trial {trial.number} {outcome.state}: {outcome.reason}"), flush=True)
    if outcome.value is not None:
        study.tell(trial, outcome.value)
        return
    study.tell(trial, state=states.PRUNED if outcome.state == "pruned" else states.FAIL)
    ended = [each.state for each in study.get_trials(deepcopy=False) if each.state.is_finished()]
    if len(ended) >= _FAILURES_AT_THE_BEGINNING and set(ended) == {states.FAIL}:
        raise RunError(f"the first {len(ended)} trials failed", outcome.reason, "see output/ in the sweep's folder")


@contextmanager
def _one_at_a_time(place: Place) -> Iterator[None]:
    """Within it, no other process that works on the sweep chooses a trial."""
    while (lock := place.claim("choosing")) is None:
        time.sleep(_SECONDS_BETWEEN_LOOKS / 10)
    try:
        yield
    finally:
        os.close(lock)


def _seeds(sweep: Sweep, space: SearchSpace) -> tuple[int, ...]:
    """The seeds of every trial's runs."""
    first = space.base().seed
    return tuple(range(first, first + sweep.seeds))


def _unused_folder(parent: Path) -> Path:
    """<parent>/sweep-<date>-<n> with the first n that is free."""
    date, number = time.strftime("%Y-%m-%d"), 1
    while (parent / f"sweep-{date}-{number}").exists():
        number += 1
    return parent / f"sweep-{date}-{number}"


if __name__ == "__main__":
    run_command(main)
