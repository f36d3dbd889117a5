"""Train, export, infer as a user runs them: what is printed, what lies on the disk, and that the numbers agree."""

import json
from pathlib import Path

import onnx
import onnxruntime
import pytest
import torch
from PIL import Image

from core.errors import UserError
from core.export import chosen_checkpoint
from projects.sentiment.config import Config
from projects.sentiment.export import build_deployed, export, random_tokens
from projects.sentiment.synthetic import write_reviews
from projects.sentiment.vocab import read_vocabulary
from tests.conftest import ROOT, Program
from tests.projects.sentiment.conftest import summary
from tests.refusals import assert_refused
from tests.smoke import Smoke


def test_training_says_where_everything_is_and_what_to_run_next(smoke: Smoke) -> None:
    run_dir, said = smoke.run_dir, smoke.trained.stdout
    assert f"run folder     {run_dir}" in said
    assert said.rstrip().endswith(f"python -m projects.sentiment.export {run_dir}")
    assert f"bag of words   {summary(run_dir)['baseline_test_accuracy']:.4f}" in said
    assert "Traceback" not in smoke.trained.stderr
    assert "Warning" not in smoke.trained.stderr


def test_a_run_folder_holds_settings_tokenizer_metrics_pictures_and_checkpoints(smoke: Smoke) -> None:
    run = json.loads((smoke.run_dir / "run.json").read_text())
    assert run["project"] == "sentiment"
    assert run["config"]["data"] == "synthetic"
    assert run["facts"]["classes"] == ["negative", "positive"]
    vocabulary = read_vocabulary((smoke.run_dir / "tokenizer.json").read_text(), 10)
    assert vocabulary.digest() == run["facts"]["tokenizer_sha256"]
    assert len(vocabulary) == run["facts"]["num_words"]
    assert list((smoke.run_dir / "tensorboard").iterdir())
    steps = [folder.name for folder in sorted((smoke.run_dir / "checkpoints").iterdir())]
    assert f"step-{summary(smoke.run_dir)['best_step']:08d}" in steps
    assert steps[-1] == f"step-{summary(smoke.run_dir)['steps']:08d}"
    for name in ("curves", "confusion", "reliability", "lengths"):
        with Image.open(smoke.run_dir / "plots" / f"{name}.png") as picture:
            picture.load()
            assert min(picture.size) > 200


def test_the_mistakes_are_listed_the_most_confident_first(smoke: Smoke) -> None:
    first, _, *lines = (smoke.run_dir / "mistakes.txt").read_text().splitlines()
    found = summary(smoke.run_dir)
    wrong = round((1 - found["test_accuracy"]) * found["num_test"])
    assert first.startswith(f"{wrong} of {found['num_test']} are wrong")
    assert len(lines) == min(100, wrong)
    shares = [float(line.split()[1].rstrip("%,")) for line in lines]
    assert shares == sorted(shares, reverse=True)


def test_the_loss_fell(smoke: Smoke) -> None:
    lines = [json.loads(line) for line in (smoke.run_dir / "metrics.jsonl").read_text().splitlines()]
    losses = [line["train/loss"] for line in lines if "train/loss" in line]
    assert losses[-1] < 0.8 * losses[0]


def test_export_writes_a_file_that_says_what_it_is_and_a_parity_report(smoke: Smoke) -> None:
    assert smoke.exported.returncode == 0, smoke.exported.stderr
    path = smoke.run_dir / "model.onnx"
    assert f"python -m projects.sentiment.infer {path}" in smoke.exported.stdout
    model = onnx.load(str(path))
    told = {entry.key: entry.value for entry in model.metadata_props}
    assert json.loads(told["classes"]) == ["negative", "positive"]
    assert json.loads(told["tokenizer"]) == json.loads((smoke.run_dir / "tokenizer.json").read_text())
    assert json.loads(told["metrics"])["test_accuracy"] == summary(smoke.run_dir)["test_accuracy"]
    assert (told["project"], told["task"]) == ("sentiment", "text classification")
    assert int(told["step"]) == summary(smoke.run_dir)["best_step"]
    assert str(smoke.run_dir) not in path.read_bytes().decode("latin-1")
    assert sum(node.op_type == "LSTM" for node in model.graph.node) == 1
    report = json.loads((smoke.run_dir / "model.parity.json").read_text())
    assert {check["input_shapes"][0][1] for check in report["checks"]} >= {1, 2, 40, 200}
    assert all(0 <= check["max_difference"] <= report["tolerance"] for check in report["checks"])


def test_in_the_file_padding_changes_nothing_and_one_word_is_enough(smoke: Smoke) -> None:
    session = onnxruntime.InferenceSession(str(smoke.run_dir / "model.onnx"), providers=["CPUExecutionProvider"])
    for length in (1, 2, 17):
        (tokens,) = random_tokens(50, length)
        alone = session.run(None, {"tokens": tokens.numpy()})
        padded = torch.zeros(3, 60, dtype=torch.int64)
        padded[:, :length] = tokens
        padded[1, :60] = 7
        far = session.run(None, {"tokens": padded.numpy()})
        assert abs(alone[0][0] - far[0][2]).max() < 1e-6
        assert abs(alone[1][0] - far[1][2, :length]).max() < 1e-6
        assert not far[1][2, length:].any()


def test_the_probabilities_are_calibrated_by_the_checkpoints_own_temperature(smoke: Smoke) -> None:
    _, state, run = chosen_checkpoint(smoke.run_dir, "best", "sentiment")
    config = Config(**run["config"])
    deployed = build_deployed(run["facts"], config, state["ema"]["module"])
    assert float(deployed.network.temperature) == pytest.approx(summary(smoke.run_dir)["temperature"])
    (tokens,) = random_tokens(50, 5, 9)
    with torch.inference_mode():
        logits = deployed.network(tokens)
        torch.testing.assert_close(deployed(tokens)[0], (logits / deployed.network.temperature).softmax(1))


def test_the_8_bit_copy_is_smaller_and_nearly_as_right(smoke: Smoke) -> None:
    path = smoke.run_dir / "model.int8.onnx"
    report = json.loads((smoke.run_dir / "model.int8.parity.json").read_text())
    assert path.stat().st_size < 0.7 * (smoke.run_dir / "model.onnx").stat().st_size
    assert report["int8"]["val_accuracy"] >= report["fp32"]["val_accuracy"] - 0.01
    assert not list(smoke.run_dir.glob(".tmp-*"))


def test_inference_without_torch_is_as_right_as_training_said(smoke: Smoke, program: Program, tmp_path: Path) -> None:
    config = json.loads((smoke.run_dir / "run.json").read_text())["config"]
    num = config["num_synthetic"] // 6
    texts, labels = write_reviews(num, config["seed"])
    lines = [f'"{text}",{("negative", "positive")[y]}' for text, y in zip(texts, labels, strict=True)]
    (tmp_path / "test.csv").write_text("\n".join(["review,sentiment", *lines]) + "\n")
    blocked = tmp_path / "blocked"
    blocked.mkdir()
    (blocked / "sitecustomize.py").write_text("import sys\nsys.modules['torch'] = None\n")
    arguments = [smoke.run_dir / "model.onnx", "test.csv", "--json", "--top", 2]
    done = program("projects.sentiment.infer", *arguments, env={"PYTHONPATH": f"{blocked}:{ROOT}"})
    assert done.returncode == 0, done.stderr
    found = [json.loads(line) for line in done.stdout.splitlines()]
    assert [line["text"] for line in found] == texts
    right = sum(line["label"] == ("negative", "positive")[y] for line, y in zip(found, labels, strict=True))
    assert abs(right / num - summary(smoke.run_dir)["test_accuracy"]) <= 4 / 500  # bf16 there, float32 here
    assert f"accuracy {right / num:.4f} of {num:,} texts with a label" in done.stderr


def test_the_last_checkpoint_can_be_exported_too(smoke: Smoke, tmp_path: Path) -> None:
    export(smoke.run_dir, "last", tmp_path / "last.onnx", int8=False)
    told = {entry.key: entry.value for entry in onnx.load(str(tmp_path / "last.onnx")).metadata_props}
    assert int(told["step"]) == summary(smoke.run_dir)["steps"]
    assert (tmp_path / "last.parity.json").exists()


@pytest.mark.parametrize(
    ("choice", "words"),
    [("999999", "step-00999999"), ("newest", "--checkpoint newest"), ("-1", "--checkpoint -1")],
)
def test_a_checkpoint_that_is_not_there_is_named(smoke: Smoke, choice: str, words: str, tmp_path: Path) -> None:
    assert_refused(lambda: export(smoke.run_dir, choice, tmp_path / "model.onnx", int8=False), words, tmp_path)


@pytest.mark.parametrize("content", [None, "{}", "no json", '{"format": 1, "project": "gan"}'])
def test_a_folder_that_is_no_run_of_this_project_is_named(content: str | None, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / "run.json").write_text(content)
    assert_refused(lambda: export(tmp_path, "best", None, int8=False), str(tmp_path), tmp_path)


def test_export_into_a_folder_that_is_not_there_is_refused(smoke: Smoke, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="nowhere"):
        export(smoke.run_dir, "best", tmp_path / "nowhere" / "model.onnx", int8=False)


def test_a_missing_tokenizer_is_named(smoke: Smoke, tmp_path: Path) -> None:
    kept = smoke.run_dir / "tokenizer.json"
    moved = kept.rename(tmp_path / "away.json")
    try:
        with pytest.raises(UserError, match=r"tokenizer\.json"):
            export(smoke.run_dir, "best", tmp_path / "model.onnx", int8=False)
    finally:
        moved.rename(kept)
