"""What is saved comes back just as it was; what cannot be saved is refused; older checkpoints go when they should."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from core import checkpoint
from core.checkpoint import MANIFEST, folders, load, load_newest, save
from core.errors import RunError, UserError, run_command
from core.retention import rotate, sweep

Program = Callable[..., Any]


def state(step: int = 1) -> dict[str, Any]:
    """A small state that tells its step."""
    return {"model": {"weight": torch.full((2, 3), float(step))}, "loop": {"step": step}}


@pytest.fixture
def two(tmp_path: Path) -> tuple[Path, Path]:
    """An older and a newer checkpoint's folders."""
    return save(tmp_path, 1, state(1), project="any"), save(tmp_path, 2, state(2), project="any")


TENSORS: dict[str, Tensor] = {
    "scalar": torch.tensor(2.5),
    "bf16": torch.randn(3, 4).bfloat16(),
    "fp16": torch.randn(3).half(),
    "float64": torch.randn(2, dtype=torch.float64),
    "bytes": torch.arange(200, dtype=torch.uint8),
    "int64": torch.tensor([-(2**63), 2**63 - 1]),
    "bool": torch.tensor([True, False]),
    "empty": torch.empty(0),
    "empty rows": torch.empty(0, 3, dtype=torch.int64),
    "channels last": torch.randn(2, 3, 4, 5).contiguous(memory_format=torch.channels_last),
    "transposed": torch.randn(3, 4).T,
    "part of another": torch.randn(4, 6)[1:3, 2:],
    "expanded": torch.randn(3, 1).expand(3, 4),
    "parameter": torch.nn.Parameter(torch.randn(2, 2)),
}


def assert_same(found: Any, expected: Any) -> None:
    """Equal types, keys and values, bit for bit."""
    if isinstance(expected, Tensor):
        assert (found.dtype, found.shape) == (expected.dtype, expected.shape)
        assert torch.equal(found, expected)
    elif isinstance(expected, dict):
        assert list(found) == list(expected)
        for key in expected:
            assert_same(found[key], expected[key])
    elif isinstance(expected, list | tuple):
        assert type(found) is type(expected)
        for left, right in zip(found, expected, strict=True):
            assert_same(left, right)
    else:
        assert (type(found), found) == (type(expected), expected)


TREES: dict[str, Any] = {
    "tensors": TENSORS,
    "a tensor": torch.ones(2),
    "plain": {"a": None, "b": True, "c": 1, "d": 0.1, "e": "ü\n\x00", "f": 10**30, "g": 1e-320},
    "containers": {"list": [1, (2, [torch.ones(1)]), {}], "tuple": (), "none": [None]},
    "whole-number keys": {"state": {0: {"step": torch.tensor(3.0)}, 1: {"step": torch.tensor(4.0)}}},
    "words of the format": {"tensor": 1, "tuple": torch.ones(1), "items": [["a", 1]], "channels_last": {"tensor": "x"}},
    "keys with dots": {"a.b": torch.ones(1), "a": {"b": torch.zeros(1)}, ".a": {"b": torch.full((1,), 2.0)}},
    "1 and '1'": {1: torch.ones(1), "1": torch.zeros(1)},
    "neighbors in memory": {"a": (whole := torch.arange(6.0))[:3], "b": whole[3:]},
    "overlapping": {"a": whole[:4], "b": whole[2:]},
}


@pytest.mark.parametrize("name", TREES)
def test_what_is_saved_comes_back(name: str, tmp_path: Path) -> None:
    folder = save(tmp_path, 7, {"thing": TREES[name], "other": {"n": 1}}, project="any")
    assert folder == tmp_path / "checkpoints" / "step-00000007"
    assert_same(load(folder, project="any"), {"thing": TREES[name], "other": {"n": 1}})


def test_the_layout_of_filters_comes_back(tmp_path: Path) -> None:
    filters = TENSORS["channels last"]
    found = load(save(tmp_path, 1, {"model": {"last": filters, "first": filters.contiguous()}}, project="any"))["model"]
    assert (found["last"].stride(), found["first"].stride()) == (filters.stride(), filters.contiguous().stride())


def test_a_shared_tensor_is_stored_once_and_stands_twice(tmp_path: Path) -> None:
    weight = torch.randn(100, 100)
    folder = save(tmp_path, 1, {"model": {"encoder": weight, "decoder": weight}}, project="any")
    assert (folder / "model.safetensors").stat().st_size < 1.1 * weight.nbytes
    found = load(folder)["model"]
    assert torch.equal(found["encoder"], weight)
    assert torch.equal(found["decoder"], weight)


def test_another_projects_checkpoint_is_a_user_error(two: tuple[Path, Path]) -> None:
    with pytest.raises(UserError, match="made by any"):
        load(two[0], project="other")


def test_a_run_without_checkpoints_is_a_user_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="it has none"):
        load_newest(tmp_path)


def test_rotation_keeps_the_newest_and_the_protected(tmp_path: Path) -> None:
    for step in (1, 2, 5, 10, 100):
        save(tmp_path, step, state(step), project="any")
    rotate(tmp_path, 2, [2, 77])
    assert [int(folder.name[5:]) for folder in folders(tmp_path)] == [2, 10, 100]
    assert len(list((tmp_path / "checkpoints").iterdir())) == 3


def test_sweeping_takes_what_a_killed_save_left_and_nothing_else(two: tuple[Path, Path], tmp_path: Path) -> None:
    (tmp_path / "checkpoints" / ".tmp-00000003-99" / "deep").mkdir(parents=True)
    sweep(tmp_path)
    assert sorted((tmp_path / "checkpoints").iterdir()) == sorted(two)


BAD: list[Any] = [torch.tensor([1.0, float("nan")]), torch.tensor(float("inf")).bfloat16(), float("nan"), float("-inf")]


@pytest.mark.parametrize("value", BAD, ids=str)
def test_a_value_that_is_not_finite_is_refused_with_nothing_left(value: Any, tmp_path: Path) -> None:
    with pytest.raises(RunError, match="step 3"):
        save(tmp_path, 3, {"model": {"weight": value}}, project="any")
    assert list(tmp_path.rglob("*")) == []


def test_saving_a_step_again_replaces_it(two: tuple[Path, Path], tmp_path: Path) -> None:
    (two[1] / MANIFEST).unlink()
    save(tmp_path, 2, state(3), project="any")
    assert load(two[1])["loop"] == {"step": 3}


def test_the_program_says_good_with_exit_code_0(
    two: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["checkpoint", "verify", str(tmp_path)])
    with pytest.raises(SystemExit) as left:
        run_command(checkpoint.main)
    lines = capsys.readouterr().out.splitlines()
    assert left.value.code == 0
    assert [line.split()[:2] for line in lines] == [[folder.name, "good"] for folder in two]


def test_the_program_says_broken_with_exit_code_1(two: tuple[Path, Path], tmp_path: Path, program: Program) -> None:
    (two[1] / MANIFEST).unlink()
    done = program("core.checkpoint", "verify", tmp_path)
    assert done.returncode == 1
    assert [line.split()[1] for line in done.stdout.splitlines()] == ["good", "BROKEN"]
    assert done.stderr.startswith("error: 1 of 2 checkpoints are broken")


@pytest.mark.parametrize("argv", [["verify"], ["delete", "x"], ["verify", "nowhere"]])
def test_a_wrong_command_line_ends_in_the_line_of_the_contract(
    argv: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["checkpoint", *argv])
    with pytest.raises(SystemExit) as left:
        run_command(checkpoint.main)
    assert left.value.code == 2
    assert capsys.readouterr().err.splitlines()[-1].startswith("error: ")
