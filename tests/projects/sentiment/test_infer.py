"""Inference takes texts from arguments, files, folders and standard input, says which words weighed most, counts every
label, and names in one line what it cannot take."""

import csv
import json
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import pytest

from core.errors import UserError
from projects.sentiment.infer import infer
from tests.conftest import Program
from tests.projects.sentiment.conftest import WriteTable
from tests.smoke import Smoke

PRAISE, BLAME = "the acting is superb.", "although the plot is charming, the acting is not really moving."
Classify = Callable[..., tuple[str, str]]


@pytest.fixture
def classify(
    smoke: Smoke, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Classify:
    """Runs the program here, in an empty folder; returns what stands on standard output and on standard error."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: object, model: str = "model.onnx", stdin: bytes | None = None) -> tuple[str, str]:
        argv = [str(smoke.run_dir / model), *map(str, arguments)]
        if stdin is None:
            infer(argv)
        else:
            (tmp_path / "stdin").write_bytes(stdin)
            with (tmp_path / "stdin").open() as stream, pytest.MonkeyPatch.context() as patch:
                patch.setattr("sys.stdin", stream)
                infer(argv)
        return tuple(capsys.readouterr())  # type: ignore[return-value]

    return run


def records(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def test_arguments_files_folders_and_standard_input_give_the_same_results(classify: Classify, tmp_path: Path) -> None:
    texts = [PRAISE, BLAME, "☃ unknown"]
    (tmp_path / "t.TXT").write_text("\r".join(texts) + "\r")
    (tmp_path / "t.csv").write_text("text\n" + "".join(f'"{text}"\n' for text in texts), encoding="utf-16")
    (tmp_path / "t.jsonl").write_text("".join(json.dumps({"review": text}) + "\n" for text in texts))
    (tmp_path / "folder" / "below").mkdir(parents=True)
    for number, text in enumerate(texts):
        (tmp_path / "folder" / "below" / f"{number}.txt").write_text(text)
    results = [classify(*inputs, "--json") for inputs in (texts, ["t.TXT"], ["t.csv"], ["t.jsonl"], ["folder"])]
    results.append(classify("--json", stdin="\n".join(texts).encode()))
    results.append(classify("-", "--json", stdin="\r\n".join(texts).encode()))
    assert set(results) == {(results[0][0], "")}
    first, second, unknown = records(results[0][0])
    assert [first["text"], second["text"]] == [PRAISE, BLAME]
    for record in (first, second, unknown):
        assert record["probability"] == max(record["probabilities"].values())
        assert sum(record["probabilities"].values()) == pytest.approx(1, abs=1e-4)
    assert (first["label"], second["label"]) == ("positive", "negative")


def test_results_of_a_stream_come_before_its_end(smoke: Smoke, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, target = os.pipe()
    result, num_before_the_end = tmp_path / "r.jsonl", 0

    def write() -> None:
        nonlocal num_before_the_end
        for part in (f"{PRAISE}\n" * 40, f"{BLAME}\n" * 3):
            os.write(target, part.encode())
            until = time.monotonic() + 60
            while not num_before_the_end and time.monotonic() < until:
                num_before_the_end = result.read_text().count("\n") if result.exists() else 0
                time.sleep(0.01)
        os.close(target)

    writer = threading.Thread(target=write)
    writer.start()
    with open(source) as stream:
        monkeypatch.setattr("sys.stdin", stream)
        infer([str(smoke.run_dir / "model.onnx"), "--top", "0", "--output", str(result)])
    writer.join()
    assert num_before_the_end
    assert [record["label"] for record in records(result.read_text())] == ["positive"] * 40 + ["negative"] * 3


@pytest.mark.parametrize("text", [PRAISE * 16, PRAISE * 400, "a/" * 200 + ".csv is dull", "what\x1b[31m a film", "."])
def test_an_argument_that_cannot_be_a_file_is_a_text(text: str, classify: Classify) -> None:
    (tmp,) = records(classify(text, "--json")[0]) if text != "." else [{"text": "."}]
    assert tmp["text"] == text


def test_a_words_weight_is_how_much_the_probability_falls_without_it_and_the_largest_come_first(
    classify: Classify,
) -> None:
    praise, blame = records(classify(PRAISE, BLAME, "--json", "--top", 99)[0])
    assert sorted(word["word"] for word in praise["words"]) == sorted(["the", "acting", "is", "superb", "."])
    for record in (praise, blame):
        weights = [word["weight"] for word in record["words"]]
        assert weights == sorted(weights, reverse=True)
        assert sum(word["attention"] for word in record["words"]) == pytest.approx(1, abs=0.01)
    once = [word for word in blame["words"] if BLAME.count(word["word"]) == 1 and word["word"].isalpha()]
    others = records(classify(*(BLAME.replace(word["word"], "zyzzyva") for word in once), "--json")[0])
    for word, other in zip(once, others, strict=True):
        fall = blame["probability"] - other["probabilities"][blame["label"]]
        assert word["weight"] == pytest.approx(fall, abs=2e-4)


def test_without_json_a_line_is_for_people_and_harmless_on_a_terminal(classify: Classify) -> None:
    shown, _ = classify("the plot is \x1b[31mdull " + "and so on " * 20, "--top", 2)
    assert shown.count("\n") == shown.count("%") == 1
    assert "\x1b" not in shown
    assert len(shown) < 140
    assert "[" not in classify("fine", "--top", 0)[0]


def test_the_8_bit_copy_classifies_too(classify: Classify) -> None:
    assert records(classify(PRAISE, "--json", model="model.int8.onnx")[0])[0]["label"] == "positive"


def test_long_and_short_texts_are_printed_in_their_order(classify: Classify, tmp_path: Path) -> None:
    texts = [PRAISE * n for n in (300, 1, 40, 2, 1, 500)]
    (tmp_path / "t.txt").write_text("\n".join(texts) + "\n")
    together = records(classify("t.txt", "--json")[0])
    assert [record["text"] for record in together] == texts
    (alone,) = records(classify(texts[3], "--json")[0])
    assert alone["probability"] == pytest.approx(together[3]["probability"], abs=1e-5)


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        (["positive", "negative"], ["accuracy 1.0000 of 2 texts"]),
        (["positive", "meh"], ["accuracy 0.5000 of 2 texts", "1 texts have labels that the model does not know (meh;"]),
        (["Positive", "NEGATIVE"], ["accuracy 0.0000 of 2 texts", "the same: Positive, positive", "NEGATIVE"]),
    ],
)
def test_labels_that_the_model_does_not_know_are_counted_as_wrong_and_named(
    labels: list[str], words: list[str], classify: Classify, tmp_path: Path
) -> None:
    rows = [json.dumps({"text": text, "label": label}) for text, label in zip((PRAISE, BLAME), labels, strict=True)]
    (tmp_path / "t.jsonl").write_text("\n".join(rows))
    _, said = classify("t.jsonl")
    assert all(word in said for word in words), said


def test_folders_named_like_classes_give_an_accuracy_and_others_none(classify: Classify, tmp_path: Path) -> None:
    for name in ("positive", "other"):
        (tmp_path / "d" / name).mkdir(parents=True)
        (tmp_path / "d" / name / "0.txt").write_text(PRAISE)
    assert "accuracy 0.5000 of 2 texts" in classify("d")[1]
    assert classify("d/other")[1] == ""


def test_bad_rows_stop_before_anything_is_printed_or_are_left_out_by_name(
    classify: Classify, write_table: WriteTable, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write_table("t.csv", 3, extra=b",good\n")
    with pytest.raises(UserError, match=f"empty text: {path} line 5"):
        classify(path)
    assert capsys.readouterr().out == ""
    printed, said = classify(path, "--on-fault", "skip")
    assert printed.count("\n") == 3
    assert f"left out: {path} line 5: empty text" in said


def test_results_are_written_into_a_new_file_only(classify: Classify, tmp_path: Path) -> None:
    printed, _ = classify(PRAISE, "--json", "--output", "r.jsonl")
    assert (tmp_path / "r.jsonl").read_text() == printed
    for path in ("r.jsonl", "nowhere/r.jsonl", "r.txt"):
        with pytest.raises(UserError, match=f"--output {path}"):
            classify(BLAME, "--output", path)
    assert (tmp_path / "r.jsonl").read_text() == printed


def test_several_files_are_averaged_and_a_table_is_written(smoke: Smoke, classify: Classify, tmp_path: Path) -> None:
    rows = [json.dumps({"text": text, "label": label}) for text, label in ((PRAISE, "positive"), (BLAME, "negative"))]
    (tmp_path / "t1.jsonl").write_text("\n".join(rows))
    other = str(smoke.run_dir / "model.int8.onnx")
    one, two = records(classify("t1.jsonl", "--json")[0]), records(classify(other, "t1.jsonl", "--json")[0])
    alone = records(classify("t1.jsonl", "--json", model="model.int8.onnx")[0])
    for a, b, both in zip(one, alone, two, strict=True):
        mean = {name: (a["probabilities"][name] + b["probabilities"][name]) / 2 for name in a["probabilities"]}
        assert both["probabilities"] == pytest.approx(mean, abs=2e-6)
        words = ({each["word"]: each["weight"] for each in record["words"]} for record in (a, b, both))
        a_words, b_words, both_words = words
        for word in set(a_words) & set(b_words) & set(both_words):
            assert both_words[word] == pytest.approx((a_words[word] + b_words[word]) / 2, abs=2e-4)
    said = classify(other, "t?.jsonl", "--output", "r.csv", "--top", 1)[1]
    assert "accuracy 1.0000 of 2" in said
    assert f"{other} 1.0000" in said
    with (tmp_path / "r.csv").open(newline="") as file:
        assert [row["words.1.word"] for row in csv.DictReader(file)] == [each["words"][0]["word"] for each in two]
    model = onnx.load(other)
    entry = next(entry for entry in model.metadata_props if entry.key == "facts")
    entry.value = json.dumps({**json.loads(entry.value), "classes": ["negative", "good"]})
    onnx.save(model, str(tmp_path / "m.onnx"))
    with pytest.raises(UserError, match=r"good in .*m\.onnx"):
        classify("m.onnx", PRAISE)


CASES: list[tuple[list[str], str]] = [
    ([PRAISE, "--top", "-1"], "--top"),
    (["no-such.csv"], "no-such.csv"),
    (["bare.csv"], "--text-column"),
    (["bare.csv", "--text-column", "words"], "--text-column words"),
    (["empty"], "a folder without .txt files: empty"),
    (["pipe.txt"], "pipe.txt"),
    ([" "], "empty text: an argument"),
    (["fi\0ne"], "a NUL character in the text: an argument"),
    (["x" * 1_000_001], "text of more than 1,000,000 characters: an argument"),
]


@pytest.mark.parametrize(("arguments", "named"), CASES, ids=[named for _, named in CASES])
def test_inputs_that_cannot_be_are_named(arguments: list[str], named: str, classify: Classify, tmp_path: Path) -> None:
    (tmp_path / "bare.csv").write_text("date,price\n1,2\n")
    (tmp_path / "empty").mkdir()
    os.mkfifo(tmp_path / "pipe.txt")
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(UserError) as caught:
        classify(*arguments)
    assert named in str(caught.value)
    assert sorted(tmp_path.rglob("*")) == before


def test_an_empty_line_of_standard_input_is_named(classify: Classify) -> None:
    with pytest.raises(UserError, match="standard input line 2"):
        classify(stdin=b"fine\n\n")


@pytest.mark.parametrize(
    "change", [{"classes": ["one"]}, {"tokenizer": "{}"}, {"max_length": 0}, {"num_words": 3}, {"classes": 3}]
)
def test_a_file_whose_facts_do_not_fit_its_graph_is_refused(
    change: dict[str, Any], smoke: Smoke, tmp_path: Path
) -> None:
    model = onnx.load(str(smoke.run_dir / "model.onnx"))
    entry = next(entry for entry in model.metadata_props if entry.key == "facts")
    entry.value = json.dumps({**json.loads(entry.value), **change})
    onnx.save(model, str(tmp_path / "m.onnx"))
    with pytest.raises(UserError, match=r"m\.onnx"):
        infer([str(tmp_path / "m.onnx"), PRAISE])


def test_a_terminal_of_ascii_is_enough(smoke: Smoke, program: Program) -> None:
    ascii_only = {"PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0", "LC_ALL": "C", "PYTHONCOERCECLOCALE": "0"}
    arguments = ["projects.sentiment.infer", smoke.run_dir / "model.onnx", "déjà vu " * 20]
    done = program(*arguments, env=ascii_only)
    assert done.returncode == 0, done.stderr
    assert done.stdout.isascii()
    done = program(*arguments, "--json", env=ascii_only)
    assert json.loads(done.stdout)["text"] == ("déjà vu " * 20).strip()
