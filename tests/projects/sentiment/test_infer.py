"""Inference takes texts from arguments, files and standard input, says which words weighed, and names in one line
what it cannot take."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Program
from tests.projects.sentiment.conftest import WriteTable
from tests.smoke import Smoke

MODULE = "projects.sentiment.infer"
PRAISE, BLAME = "the acting is superb.", "although the plot is charming, the acting is not really moving."


def records(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def test_arguments_files_and_standard_input_give_the_same_answers(
    smoke: Smoke, program: Program, tmp_path: Path
) -> None:
    model, texts = smoke.run_dir / "model.onnx", [PRAISE, BLAME, "☃ unknown"]
    (tmp_path / "t.txt").write_text("\n".join(texts) + "\n")
    (tmp_path / "t.csv").write_text("text\n" + "".join(f'"{text}"\n' for text in texts))
    (tmp_path / "t.jsonl").write_text("".join(json.dumps({"review": text}) + "\n" for text in texts))
    answers = [program(MODULE, model, *inputs, "--json") for inputs in (texts, ["t.txt"], ["t.csv"], ["t.jsonl"])]
    answers.append(program(MODULE, model, "--json", input="\n".join(texts)))
    answers.append(program(MODULE, model, "-", "--json", input="\r\n".join(texts)))
    for answer in answers:
        assert answer.returncode == 0, answer.stderr
        assert answer.stderr == ""
        assert answer.stdout == answers[0].stdout
    first, second, unknown = records(answers[0].stdout)
    assert [first["text"], second["text"]] == [PRAISE, BLAME]
    for record in (first, second, unknown):
        assert record["probability"] == max(record["probabilities"].values())
        assert sum(record["probabilities"].values()) == pytest.approx(1, abs=1e-4)
        assert record["label"] in ("negative", "positive")
    assert (first["label"], second["label"]) == ("positive", "negative")


def test_the_words_that_weighed_most_come_first(smoke: Smoke, program: Program) -> None:
    done = program(MODULE, smoke.run_dir / "model.onnx", PRAISE, BLAME, "--json", "--top", 99)
    praise, blame = records(done.stdout)
    assert sorted(word["word"] for word in praise["words"]) == sorted(["the", "acting", "is", "superb", "."])
    for record in (praise, blame):
        weights = [word["weight"] for word in record["words"]]
        assert weights == sorted(weights, reverse=True)
        assert sum(word["attention"] for word in record["words"]) == pytest.approx(1, abs=0.01)
    assert praise["words"][0]["word"] == "superb"
    assert {"not", "moving"} & {word["word"] for word in blame["words"][:3]}
    without = program(MODULE, smoke.run_dir / "model.onnx", PRAISE.replace("superb", "zyzzyva"), "--json")
    fall = praise["probabilities"]["positive"] - records(without.stdout)[0]["probabilities"]["positive"]
    assert praise["words"][0]["weight"] == pytest.approx(fall, abs=2e-4)


def test_without_json_a_line_is_for_people_and_harmless_on_a_terminal(smoke: Smoke, program: Program) -> None:
    text = "the plot is \x1b[31mdull " + "and so on " * 20
    done = program(MODULE, smoke.run_dir / "model.onnx", text, "--top", 2)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("\n") == 1
    assert "\x1b" not in done.stdout
    assert done.stdout.count("%") == 1
    assert len(done.stdout) < 140
    assert "[" not in program(MODULE, smoke.run_dir / "model.onnx", "fine", "--top", 0).stdout


def test_the_8_bit_copy_answers_too(smoke: Smoke, program: Program) -> None:
    done = program(MODULE, smoke.run_dir / "model.int8.onnx", PRAISE, "--json")
    assert done.returncode == 0, done.stderr
    assert records(done.stdout)[0]["label"] == "positive"


def test_long_and_short_texts_are_answered_in_their_order(smoke: Smoke, program: Program, tmp_path: Path) -> None:
    texts = [PRAISE * n for n in (300, 1, 40, 2, 1, 500)]
    (tmp_path / "t.txt").write_text("\n".join(texts) + "\n")
    done = program(MODULE, smoke.run_dir / "model.onnx", "t.txt", "--json")
    assert [record["text"] for record in records(done.stdout)] == texts
    alone = program(MODULE, smoke.run_dir / "model.onnx", texts[3], "--json")
    assert records(alone.stdout)[0]["probability"] == pytest.approx(records(done.stdout)[3]["probability"], abs=1e-5)


def test_bad_rows_stop_before_anything_is_printed_or_are_left_out_by_name(
    smoke: Smoke, program: Program, write_table: WriteTable
) -> None:
    path = write_table("t.csv", 3, extra=b",good\n")
    stopped = program(MODULE, smoke.run_dir / "model.onnx", path)
    assert (stopped.returncode, stopped.stdout) == (2, "")
    assert_one_line(stopped.stderr, f"empty text: {path} line 5")
    done = program(MODULE, smoke.run_dir / "model.onnx", path, "--on-bad-row", "skip")
    assert (done.returncode, done.stdout.count("\n")) == (0, 3)
    assert f"left out: {path} line 5: empty text" in done.stderr


def test_inputs_that_cannot_be_are_refused_in_one_line(smoke: Smoke, program: Program, tmp_path: Path) -> None:
    model = smoke.run_dir / "model.onnx"
    (tmp_path / "bare.csv").write_text("date,price\n1,2\n")
    (tmp_path / "notes.txt").write_text("no model\n")
    cases: list[tuple[list[object], str]] = [
        (["missing.onnx", PRAISE], "missing.onnx"),
        (["notes.txt", PRAISE], "notes.txt"),
        ([model, PRAISE, "--top", "-1"], "--top"),
        ([model, "no-such.csv"], "no-such.csv"),
        ([model, "bare.csv"], "--text-column"),
        ([model, "bare.csv", "--text-column", "words"], "--text-column words"),
        ([model, " "], "empty text: an argument"),
        ([model, PRAISE, "--jsn"], "--json"),
    ]
    before = sorted(tmp_path.rglob("*"))
    for arguments, named in cases:
        done = program(MODULE, *arguments)
        assert (done.returncode, done.stdout) == (2, ""), arguments
        assert_one_line(done.stderr, named)
    assert_one_line(program(MODULE, model, input="fine\n\n").stderr, "standard input line 2")
    assert sorted(tmp_path.rglob("*")) == before


def assert_one_line(text: str, named: str) -> None:
    """Standard error is one line, an error that names something."""
    assert text.startswith("error: ")
    assert text.count("\n") == 1
    assert named in text
