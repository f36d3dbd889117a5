"""The exported file: padding changes nothing, probabilities are calibrated, the 8-bit copy is as right, and data that
has moved or changed is noticed."""

import json
import shutil
from pathlib import Path
from typing import Any, cast

import onnx
import onnxruntime
import pytest
import torch

from core.errors import UserError
from core.export import save_graph
from core.parity import compare_outputs
from core.program import parse_export
from core.stored_run import load_run
from projects.sentiment import train as program
from projects.sentiment.config import Config, ExportOptions, Facts, ModelFacts
from projects.sentiment.encoders import RecurrentEncoder
from projects.sentiment.export import Deployed, GraphEncoder, build_deployed, export, random_tokens, spec_of
from projects.sentiment.model import Classifier, Ensemble
from projects.sentiment.ngrams import Ngrams
from projects.sentiment.tokenizer import read_tokenizer
from tests.forked import main_of, summary
from tests.projects.sentiment.conftest import WriteTable
from tests.smoke import Smoke


def run_export(*argv: object) -> None:
    export(parse_export(Config, ExportOptions, [str(word) for word in argv]))


def facts_in(path: Path) -> dict[str, Any]:
    entries = {entry.key: entry.value for entry in onnx.load(str(path)).metadata_props}
    facts: dict[str, Any] = json.loads(entries["facts"])
    return facts


def test_the_file_carries_the_tokenizer_and_one_operator_for_a_layer(smoke: Smoke) -> None:
    facts = facts_in(smoke.run_dir / "model.onnx")
    assert facts["classes"] == ["negative", "positive"]
    assert facts["tokenizer"] == (smoke.run_dir / "tokenizer.json").read_text()
    tokenizer = read_tokenizer(facts["tokenizer"], facts["max_length"])
    assert (len(tokenizer), tokenizer.sha256()) == (facts["num_words"], facts["tokenizer_sha256"])
    assert sum(node.op_type == "LSTM" for node in onnx.load(str(smoke.run_dir / "model.onnx")).graph.node) == 1


@pytest.mark.parametrize("kind", ["cell=gru GRU", "cell=rnn RNN", "model=transformer Softmax", "model=cnn Conv"])
def test_other_networks_are_the_operators_that_equal_them(kind: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    setting, operator = kind.split()
    ngrams = Ngrams(40, 7, 2)
    ngrams.codes[:] = torch.tensor([0, *(1600 * (1 + torch.arange(6)))])
    ngrams.weights[1:].normal_()
    config = Config(hidden_size=6, embedding_size=8, **dict([setting.split("=")]))  # type: ignore[arg-type]
    network = Ensemble.of(config, 40, 2, ngrams)
    network.share.fill_(0.5)
    for member in network.members:
        if isinstance(encoder := cast(Classifier, member).encoder, RecurrentEncoder):
            cast(Classifier, member).encoder = GraphEncoder(encoder)
    facts = ModelFacts(
        model="",
        classes=("a", "b"),
        num_words=40,
        num_learned_words=40,
        num_ngrams=7,
        num_train=1,
        data_sha256="",
        tokenizer_sha256="",
        tokenizer="",
        max_length=9,
    )
    spec = spec_of(Deployed(network).eval(), facts)
    save_graph(spec, tmp_path / "m.onnx")
    checks = compare_outputs(spec, tmp_path / "m.onnx")["checks"]
    assert max(row["differences"]["probabilities"] for row in checks) < 1e-5
    kinds = [node.op_type for node in onnx.load(str(tmp_path / "m.onnx")).graph.node]
    assert kinds.count(operator) in (6, 7, 9)  # three members of two layers, or of three widths; and the last softmax


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
    deployed = build_deployed(load_run(smoke.run_dir, "best", Config, Facts))
    assert float(deployed.network.temperature) == pytest.approx(summary(smoke.run_dir)["temperature"])
    (tokens,) = random_tokens(50, 5, 9)
    with torch.inference_mode():
        logits = deployed.network(tokens)
        torch.testing.assert_close(deployed(tokens)[0], logits.softmax(1))
        uncalibrated = deployed.network.parts(tokens)[0] * (1 - deployed.network.share)
        uncalibrated = uncalibrated + deployed.network.parts(tokens)[1] * deployed.network.share
        torch.testing.assert_close(logits * deployed.network.temperature, uncalibrated)


def test_the_8_bit_copy_is_smaller_and_nearly_as_right(smoke: Smoke) -> None:
    path = smoke.run_dir / "model.int8.onnx"
    report = json.loads((smoke.run_dir / "model.int8.parity.json").read_text())
    assert path.stat().st_size < 0.9 * (smoke.run_dir / "model.onnx").stat().st_size
    assert report["int8"]["val_accuracy"] >= report["fp32"]["val_accuracy"] - 0.01


def test_the_mistakes_are_listed_the_most_confident_first(smoke: Smoke) -> None:
    first, _, *lines = (smoke.run_dir / "mistakes.txt").read_text().splitlines()
    numbers = summary(smoke.run_dir)
    wrong = round((1 - numbers["test_accuracy"]) * numbers["num_test"])
    assert first.startswith(f"{wrong} of {numbers['num_test']} are wrong")
    assert len(lines) == min(100, wrong)
    shares = [float(line.split()[1].rstrip("%,")) for line in lines]
    assert shares == sorted(shares, reverse=True)


def test_8_bit_export_needs_the_runs_own_texts_wherever_they_stand_and_plain_export_needs_none(
    write_table: WriteTable, tmp_path: Path
) -> None:
    data, run_dir = write_table("here/reviews.csv", 100), tmp_path / "run"
    tiny = "--embedding-size 8 --hidden-size 6 --layers 1 --members 1 --batch-size 10 --max-steps 1 --device cpu"
    main_of(program)(["--data", str(data), "--run-dir", str(run_dir), "--min-count", "1", *tiny.split()])
    there = Path(shutil.move(data, tmp_path / "there.csv"))
    with pytest.raises(UserError, match=r"--int8 needs .*here/reviews\.csv"):
        run_export(run_dir, "--int8")
    assert not list(run_dir.glob("*.onnx"))
    run_export(run_dir)
    run_export(run_dir, "--int8", "--data", there)
    with there.open("a") as file:
        file.write("one more fine text,good\n")
    with pytest.raises(UserError, match="has other texts"):
        run_export(run_dir, "--int8", "--data", there)


@pytest.mark.parametrize(("content", "what"), [(None, "missing"), ("{}", "changed")])
def test_a_tokenizer_that_is_not_the_runs_is_refused(
    content: str | None, what: str, smoke: Smoke, tmp_path: Path
) -> None:
    run_dir = tmp_path / "run"
    shutil.copytree(smoke.run_dir, run_dir)
    (run_dir / "tokenizer.json").unlink()
    if content is not None:
        (run_dir / "tokenizer.json").write_text(content)
    with pytest.raises(UserError, match=rf"{what}: .*tokenizer\.json"):
        run_export(run_dir, "--output", tmp_path / "model.onnx")
    assert not (tmp_path / "model.onnx").exists()
