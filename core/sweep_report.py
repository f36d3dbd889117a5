"""What a sweep ends with: the best command line, a table of its runs, how the settings and their results go together.

Importance is fANOVA's (Hutter et al. 2014, "An Efficient Approach for Assessing Hyperparameter Importance"): the share
of the results' variance that a setting explains by itself, in a random forest fitted to the trials.
"""

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from core import plots
from core.comparison import Comparison, as_markdown, as_text
from core.errors import RunError
from core.files import write_atomically, write_json
from core.search_space import Dimension, SearchSpace
from core.sweep_settings import Sweep, load_optuna
from core.trial import Place

_ROWS_SHOWN = 12
_MIN_TRIALS_FOR_IMPORTANCE = 4


def report(study: Any, space: SearchSpace, sweep: Sweep, place: Place) -> None:
    """Writes best.json, comparison.json, comparison.md and plots/, and prints the table and the best command.

    Raises RunError where no trial is complete.
    """
    trials = study.get_trials(deepcopy=False)
    complete = [trial for trial in trials if trial.state.name == "COMPLETE"]
    if not complete:
        raise RunError("no trial is complete", place.folder, "see output/ there, then go on with --resume")
    best = min(complete, key=lambda trial: trial.value)
    records = [record for trial in trials for record in place.records(trial.number) if record.lines]
    compared = Comparison.of(records, allow_different_data=True)
    metrics, goal = compared.metrics(), compared.goal
    rows = compared.table(metrics)
    assert goal is not None
    values = _settings_of(best, space, place)
    command = shlex.join(["python", "-m", sweep.program, *space.fixed, *space.flags(values)])
    importances = _importances(study, complete)
    sign = -1 if goal.larger_is_better else 1
    body = {
        "sweep": sweep.command,
        "command": command,
        "goal": goal._asdict(),
        "value": sign * best.value,
        "settings": values,
        "trial": best.number,
        "seeds": list(place.seeds),
        "trials": [_trial_data(trial, sign, _settings_of(trial, space, place)) for trial in trials],
        "importances": importances,
        "environment": compared.data(metrics)["environment"],
    }
    write_json(place.folder / "best.json", body)
    write_json(place.folder / "comparison.json", compared.data(metrics))
    write_atomically(place.folder / "comparison.md", f"{as_markdown(rows)}\n".encode())
    with plots.optional():
        _parallel_coordinates(complete, sign, space.dimensions, goal.name, place.folder / "plots" / "parallel.png")
        if importances:
            _bars(importances, place.folder / "plots" / "importance.png")
    print(f"\n{as_text(rows[: _ROWS_SHOWN + 1])}")
    if len(rows) > _ROWS_SHOWN + 1:
        print(f"... and {len(rows) - _ROWS_SHOWN - 1} more in {place.folder / 'comparison.md'}")
    for note in compared.notes:
        print(f"note: {note}")
    words = {"COMPLETE": "complete", "PRUNED": "pruned", "FAIL": "failed"}
    counted = ", ".join(f"{sum(each.state.name == state for each in trials)} {word}" for state, word in words.items())
    print(f"\n{counted}; plots in {place.folder / 'plots'}")
    print(f"best {goal.name} {sign * best.value:.5g} (trial {best.number}), chosen on validation data:\n{command}")


def _settings_of(trial: Any, space: SearchSpace, place: Place) -> dict[str, Any]:
    """The searched settings as a trial's first run has them; of one that never began, as they were drawn."""
    records = place.records(trial.number)
    found = records[0].config if records else trial.params
    return {dimension.name: found.get(dimension.name) for dimension in space.dimensions}


def _trial_data(trial: Any, sign: int, settings: Mapping[str, Any]) -> dict[str, Any]:
    """A trial as plain data."""
    value = sign * trial.value if trial.state.name == "COMPLETE" else None
    reason = trial.user_attrs.get("reason")
    return {"number": trial.number, "state": trial.state.name.lower(), "value": value, **settings, "reason": reason}


def _importances(study: Any, complete: Sequence[Any]) -> dict[str, float]:
    """The importance of each setting, the largest first; empty where there are too few trials, or all are equal."""
    varied = len({trial.value for trial in complete}) > 1 and any(
        len({str(trial.params[name]) for trial in complete}) > 1 for name in complete[0].params
    )
    if len(complete) < _MIN_TRIALS_FOR_IMPORTANCE or not varied:
        return {}
    optuna = load_optuna()
    evaluator = optuna.importance.FanovaImportanceEvaluator(seed=0)
    found: Mapping[str, float] = optuna.importance.get_param_importances(study, evaluator=evaluator)
    return {name: float(value) for name, value in found.items()}


def _parallel_coordinates(
    trials: Sequence[Any], sign: int, dimensions: Sequence[Dimension], goal: str, path: Path
) -> None:
    """A line for each trial through an axis for each setting and one for the result, whose color it has."""
    from matplotlib import colormaps

    order = np.argsort([-trial.value for trial in trials])  # the best are drawn last
    axes = [_axis([trial.params[each.name] for trial in trials], each) for each in dimensions]
    axes.append(_axis([sign * trial.value for trial in trials], Dimension(goal)))
    drawn, grid = plots.figure(2.2 * len(axes) + 1, 4.6)
    panel = grid[0, 0]
    heights = np.array([height for height, _ in axes])  # [num_axes, num_trials]
    for rank, index in enumerate(order):
        share = rank / max(1, len(order) - 1)
        panel.plot(heights[:, index], color=colormaps["viridis"](0.95 * share), linewidth=1 + 1.5 * share)
    for number, (_, marks) in enumerate(axes):
        panel.axvline(number, color="black", linewidth=0.8)
        for height, text in marks:
            panel.text(number + 0.02, height, text, fontsize=8, va="center")
    names = [f"{each.name} (log)" if each.is_log else each.name for each in dimensions]
    panel.set(xticks=range(len(axes)), yticks=[], ylim=(-0.05, 1.05), xlim=(-0.1, len(axes) - 0.7))
    panel.set_xticklabels([*names, goal])
    panel.set_title(f"{len(trials)} complete trials; the brighter, the better", fontsize=9)
    panel.set_frame_on(False)
    plots.save_figure(drawn, path)


def _axis(values: Sequence[Any], dimension: Dimension) -> tuple[np.ndarray[Any, np.dtype[np.float64]], list[Any]]:
    """Where values lie on an axis, in [0, 1], and the axis's marks: height and text."""
    if not all(isinstance(value, int | float) and not isinstance(value, bool) for value in values):
        names = list(dict.fromkeys(map(str, dimension.values or values)))
        places = {name: index / max(1, len(names) - 1) for index, name in enumerate(names)}
        return np.array([places[str(value)] for value in values]), [(at, name) for name, at in places.items()]
    numbers = np.array(values, dtype=np.float64)
    scaled = np.log(numbers) if dimension.is_log else numbers
    low, high = scaled.min(), scaled.max()
    heights = (scaled - low) / (high - low) if high > low else np.full(len(scaled), 0.5)
    ticks = np.linspace(low, high, 4) if high > low else np.array([low])
    back = np.exp(ticks) if dimension.is_log else ticks
    places_of = np.linspace(0, 1, len(ticks)) if high > low else [0.5]
    return heights, [(at, f"{value:.3g}") for at, value in zip(places_of, back, strict=True)]


def _bars(importances: Mapping[str, float], path: Path) -> None:
    """A bar for each setting's share of the results' variance."""
    drawn, grid = plots.figure(6, 0.5 * len(importances) + 1.2)
    names = list(importances)[::-1]
    grid[0, 0].barh(names, [importances[name] for name in names])
    grid[0, 0].set(xlabel="share of the variance of the results (fANOVA)", xlim=(0, 1))
    plots.save_figure(drawn, path)
