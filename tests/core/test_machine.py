"""The program that measures a machine: the processor as it is, and a GPU by a device that stands in for one."""

import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
import torch

from core import machine, machine_report
from tests.refusals import assert_refused


@pytest.fixture(autouse=True)
def _short(monkeypatch: pytest.MonkeyPatch) -> None:
    """No time is judged here."""
    monkeypatch.setattr(machine, "_SECONDS_EACH", 0.0)
    monkeypatch.setattr(machine, "_COPY_MEGABYTES", (1, 2))
    monkeypatch.setattr(machine, "_MEMORY_MEGABYTES", 1)


def pretended(memory: Iterator[tuple[int, int, int]], calls: list[str]) -> machine.Backend:
    """The processor as a GPU whose memory counts are given."""
    return machine.Backend(
        "gpu",
        torch.device("cpu"),
        lambda: calls.append("synchronize"),
        lambda: next(memory),
        lambda: calls.append("reset peak"),
        lambda tensor: tensor,
    )


def test_with_a_gpu_both_devices_the_copies_between_them_and_memory_are_measured() -> None:
    mega = 1 << 20
    counts = [(10 * mega, 20 * mega, 0), (11 * mega, 32 * mega, 13 * mega)] * 4
    calls: list[str] = []
    found = machine.measure(machine.cpu(), pretended(iter(counts), calls), quick=True)
    assert set(found["matrix_product_seconds"]) == {"cpu", "gpu"}
    assert {tuple(sizes) for sizes in found["matrix_product_seconds"]["gpu"].values()} == {(32, 64, 128)}
    ways = {row["way"] for row in found["copies"]}
    assert ways >= {f"{way}, {kind}" for way in ("host → gpu", "gpu → host") for kind in ("pageable", "pinned")}
    assert all(row["gigabytes_per_second"] > 0 for row in found["copies"])
    assert found["memory"][0] == {"operation": "y = relu(x)", "allocated": 1.0, "peak": 3.0, "reserved in all": 32.0}
    assert calls.count("reset peak") == 4
    assert set(found["gpu_wins_from_size"]["fp32"]) == {"data on the gpu", "with copies"}
    text = machine_report.tables(json.loads(json.dumps(found)) | {"memory": found["memory"]})
    assert "the GPU wins from this size on" in text


def test_what_torch_says_of_a_gpu_is_asked_of_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 1)
    for name, value in {"memory_allocated": 1, "memory_reserved": 2, "max_memory_allocated": 3}.items():
        monkeypatch.setattr(torch.cuda, name, lambda value=value: value)
    backend = machine.gpu()
    assert backend is not None
    assert backend.memory is not None
    assert (backend.memory(), backend.device) == ((1, 2, 3), torch.device("cuda", 1))


@pytest.mark.parametrize(
    ("other", "expected"),
    [
        ({8: 2.0, 16: 1.0, 32: 1.0}, 16),
        ({8: 0.5, 16: 9.0, 32: 1.0}, 32),  # a win below a loss is none
        ({8: 0.5, 16: 1.0, 32: 9.0}, None),
        ({8: 0.5}, 8),  # sizes that only one was measured at say nothing
        ({}, None),
    ],
    ids=str,
)
def test_a_device_wins_from_the_size_on_from_which_it_is_faster_at_every_size(
    other: dict[int, float], expected: int | None
) -> None:
    assert machine.wins_from({8: 1.0, 16: 2.0, 32: 4.0}, other) == expected


def test_a_product_of_two_matrices_takes_two_operations_for_each_of_n_cubed_terms() -> None:
    assert machine_report.tera_operations(1000, 0.5) == pytest.approx(0.004)


def test_without_a_gpu_it_says_so_and_writes_what_the_processor_does(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    machine.main(["--quick", "--output", str(tmp_path / "new")])
    assert "gpu        none" in capsys.readouterr().out
    found = json.loads((tmp_path / "new" / "machine.json").read_text("utf-8"))
    assert (found["gpu"], found["memory"], found["gpu_wins_from_size"]) == (None, None, {})
    assert all(seconds > 0 for seconds in found["matrix_product_seconds"]["cpu"]["fp32"].values())
    assert (tmp_path / "new" / "machine.png").stat().st_size > 1000
    machine.main(["--quick", "--json"])
    assert json.loads(capsys.readouterr().out)["format"] == found["format"]


def test_an_output_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert_refused(partial(machine.main, ["--output", str(tmp_path / "file")]), "--output", tmp_path)
