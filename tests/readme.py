"""The table of projects in the README: python -m tests.readme prints it from the stored results."""

from pathlib import Path
from typing import Any

from core.files import read_json
from core.results import measured

ROOT = Path(__file__).parent.parent
# Project, what it does, the stored result that stands for it, which of its numbers, and what the number is.
SHOWN = (
    ("cifar10", "classifies images, from scratch", "cifar10-jpeg", "test_accuracy", "accuracy, CIFAR-10"),
    (
        "transfer",
        "fine-tunes a pretrained backbone",
        "imagenet-head",
        "test_accuracy",
        "accuracy, ants and bees",
    ),
    ("sentiment", "classifies texts with an LSTM", "sst2", "test_accuracy", "accuracy, SST-2"),
    ("forecast", "forecasts series, with intervals", "etth1-96", "test_mse", "squared error, ETTh1, 96 hours"),
    ("detection", "finds objects in images", "bccd", "test_ap50", "AP50, blood cells"),
    ("style", "paints photographs like another image", "candy-random-features", "loss_ratio", "loss, optimization = 1"),
    ("gan", "generates images like given ones", "digits", "frechet", "Fréchet distance, digits"),
)


def projects_table() -> str:
    """A row a project: task, result with its spread over seeds, minutes of training, command."""
    machines = set()
    lines = ["| project | what it does | result | minutes | try it |", "| --- | --- | --- | --- | --- |"]
    for project, task, name, key, meaning in SHOWN:
        result: dict[str, Any] = read_json(
            ROOT / "projects" / project / "results" / f"{name}.json", "result", "store it"
        )
        value = f"{measured(result, key, result['show'][key])} {meaning}"
        minutes = result["numbers"]["seconds"]["mean"] / 60
        command = f"`python -m projects.{project}.train --data synthetic`"
        link = f"[{project}](projects/{project}/README.md)"
        lines.append(f"| {link} | {task} | {value} | {minutes:.{0 if minutes >= 1 else 1}f} | {command} |")
        versions = ", ".join(f"{name} {version}" for name, version in result["versions"].items())
        machines.add(f"{result['gpu'] or result['processor']}; {versions}")
    return "\n".join(
        [*lines, "", f"Minutes of training with one or two threads; ± over seeds; {', '.join(sorted(machines))}."]
    )


if __name__ == "__main__":
    print(projects_table())
