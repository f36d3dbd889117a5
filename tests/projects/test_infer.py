"""What all infer programs promise beyond their results: a measurement of their speed, and no silent other provider."""

import json
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import onnxruntime
import pytest

from core.errors import run_command
from core.program import PROVIDERS
from core.vision import classification
from tests.projects.contract import Contract, module
from tests.refusals import everything
from tests.smoke import Smoke

Run = Callable[..., int]


@pytest.fixture
def run(smoke: Smoke, project: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs the project's program here, in an empty folder, on its smoke run's file; returns the exit code."""
    monkeypatch.chdir(tmp_path)
    program = module(project, "infer")
    main = getattr(program, "main", None) or getattr(program, "infer", None)
    if main is None:
        facts = getattr(program, "ModelFacts", None) or program.Facts
        main = partial(classification.infer, program.Config, facts)

    def call(*arguments: object) -> int:
        monkeypatch.setattr(sys, "argv", ["infer", *map(str, (smoke.run_dir / "model.onnx", *arguments))])
        with pytest.raises(SystemExit) as left:
            run_command(main)
        return int(left.value.code or 0)

    return call


def test_the_benchmark_needs_no_input_and_measures_each_batch_size(
    run: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setattr("core.benchmark._BATCH_SIZES", (1, 2))
    monkeypatch.setattr("core.benchmark._SECONDS", 0.0)
    monkeypatch.setattr("core.benchmark._MIN_CALLS", 1)
    assert run("--benchmark", "--threads", 1, "--json") == 0
    printed = capsys.readouterr()
    assert printed.err == ""
    lines = [json.loads(line) for line in printed.out.splitlines()]
    assert [(line["batch"], line["calls"], line["threads"]) for line in lines] == [(1, 1, 1), (2, 1, 1)]
    for line in lines:
        assert line["inputs_per_second"] == pytest.approx(1000 * line["batch"] / line["milliseconds"], rel=0.02)
    assert everything(tmp_path) == {}


def test_a_provider_or_a_number_of_threads_that_cannot_be_is_refused(
    run: Run,
    contract: Contract,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    lacking = next(name for name, full in PROVIDERS.items() if full not in onnxruntime.get_available_providers())
    inputs = contract.write_inputs(tmp_path_factory.mktemp("inputs"))
    for flags in (["--provider", lacking], ["--provider", "gpu"], ["--threads", "-1"]):
        assert run(*flags, *inputs, *contract.infer.split()) == 2
        printed = capsys.readouterr()
        assert (printed.out, printed.err.count("\n")) == ("", 1)
        assert flags[0] in printed.err
    assert everything(tmp_path) == {}
