"""Exports a run's classifier: python -m projects.sentiment.export RUN_DIR writes RUN_DIR/model.onnx.

The graph takes tokens int64 [N, T], zero at the padding, of any N and T, and gives calibrated probabilities and the
pooling's attention. A recurrent layer is ONNX's own operator, which reads each text backwards from its own last word.
The tokenizer stands in the file's metadata, so that inference needs this one file only.
"""

from core.program import ExportCommand, answer_early, parse_export, run_export
from projects.sentiment.config import (
    PACKAGED_SIZE,
    PACKAGED_VECTORS,
    TASK,
    Config,
    ExportOptions,
    Facts,
    ModelFacts,
)

if __name__ == "__main__":  # --help and a wrong flag are answered here, before torch is loaded
    answer_early(parse_export, Config, ExportOptions)

import dataclasses
import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from core.errors import UserError
from core.export import export_onnx, finish_export
from core.export_spec import ExportSpec
from core.parity import open_session
from core.plain import to_plain
from core.quantize import HeldOut, export_int8, quantize_dynamic
from core.stored_run import StoredRun, load_run
from projects.sentiment.data import TextSet, load_data
from projects.sentiment.encoders import Cell, RecurrentEncoder
from projects.sentiment.model import Classifier, Ensemble
from projects.sentiment.ngrams import Ngrams
from projects.sentiment.tokenizer import PAD

Run = StoredRun[Config, Facts]
_USAGE = """\
import json, onnxruntime
import numpy as np
from tokenizers import Tokenizer
model = onnxruntime.InferenceSession("MODEL.onnx")
facts = json.loads(model.get_modelmeta().custom_metadata_map["facts"])
tokens = Tokenizer.from_str(facts["tokenizer"]).encode("the acting is superb").ids or [1]
probabilities = model.run(["probabilities"], {"tokens": np.array([tokens], dtype=np.int64)})[0][0]
print(facts["classes"][probabilities.argmax()], probabilities.max())
"""


# ONNX's operator for each kind of cell, its attributes, and where its gates stand in PyTorch's order (input, forget,
# cell, output of an LSTM; reset, update, new of a GRU).
_OPERATORS: Mapping[Cell, tuple[str, dict[str, int], tuple[int, ...]]] = {
    "lstm": ("LSTM", {}, (0, 3, 1, 2)),
    "gru": ("GRU", {"linear_before_reset": 1}, (1, 0, 2)),
    "rnn": ("RNN", {}, (0,)),
}


class GraphEncoder(nn.Module):
    """Recurrent layers that become one ONNX operator each in an exported graph."""

    def __init__(self, encoder: RecurrentEncoder) -> None:
        super().__init__()
        self.encoder = encoder
        self.operator, self.attributes, order = _OPERATORS[encoder.cell]
        self.packed = nn.ParameterList()  # the weights of both directions in ONNX's order of gates
        for pair in zip(encoder.forwards, encoder.backwards, strict=True):
            for name in ("weight_ih_l0", "weight_hh_l0"):
                self.packed.append(torch.stack([_reordered(layer.get_parameter(name), order) for layer in pair]))
            biases = [[layer.get_parameter(f"bias_{kind}_l0") for kind in ("ih", "hh")] for layer in pair]
            self.packed.append(torch.stack([torch.cat([_reordered(bias, order) for bias in both]) for both in biases]))
        self.packed.requires_grad_(False)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """Embedded words [T, N, E] → states [T, N, 2H]."""
        if not torch.onnx.is_in_onnx_export():
            states: Tensor = self.encoder(x, mask)
            return states
        lengths = mask.sum(0).clamp(min=1).to(torch.int32)
        weights = list(self.packed)
        for input_weights, recurrent_weights, biases in zip(weights[::3], weights[1::3], weights[2::3], strict=True):
            (steps, texts), size = x.shape[:2], recurrent_weights.shape[2]
            last = [[2, texts, size]] * (2 if self.operator == "LSTM" else 1)
            all_states, *_ = torch.onnx.ops.symbolic_multi_out(
                self.operator,
                (x, input_weights, recurrent_weights, biases, lengths),
                {"hidden_size": size, "direction": "bidirectional", **self.attributes},
                dtypes=(x.dtype,) * (1 + len(last)),
                shapes=([steps, 2, texts, size], *last),
                version=14,
            )
            x = all_states.transpose(1, 2).flatten(2)
        return x


def _reordered(values: Tensor, order: Sequence[int]) -> Tensor:
    """Weights with PyTorch's gates in another order."""
    gates = values.detach().chunk(len(order))
    return torch.cat([gates[index] for index in order])


class Deployed(nn.Module):
    """The exported module: tokens in, calibrated probabilities out."""

    def __init__(self, network: Ensemble) -> None:
        super().__init__()
        self.network = network

    def forward(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """int64 [N, T] → probabilities float32 [N, C], attention float32 [N, T]."""
        logits, attention = self.network.explain(tokens)
        return logits.softmax(1), attention


def build_deployed(run: Run) -> Deployed:
    """The module to export, with a checkpoint's weights."""
    facts = run.facts
    ngrams = Ngrams(facts.num_words, facts.num_ngrams, len(facts.classes)) if facts.num_ngrams else None
    has_vectors = run.config.vectors == PACKAGED_VECTORS
    vectors = torch.zeros(facts.num_words, PACKAGED_SIZE) if has_vectors else None
    network = Ensemble.of(run.config, facts.num_learned_words, len(facts.classes), ngrams, vectors)
    network.load_state_dict(run.weights())
    for member in network.members:
        assert isinstance(member, Classifier)
        if isinstance(member.encoder, RecurrentEncoder):
            member.encoder = GraphEncoder(member.encoder)
    return Deployed(network).eval()


def random_tokens(num_words: int, *lengths: int) -> tuple[Tensor, ...]:
    """Texts of random words, of the given lengths, padded to the longest."""
    generator = torch.Generator().manual_seed(sum(lengths))
    tokens = torch.randint(1, num_words, (len(lengths), max(lengths)), generator=generator)
    is_word = torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]
    return (torch.where(is_word, tokens, PAD),)


def export(command: ExportCommand[ExportOptions]) -> None:
    """Writes the ONNX file, its parity report, and the 8-bit copy if asked for."""
    run = load_run(command.run_dir, command.options.checkpoint, Config, Facts)
    facts = _model_facts(run)
    held_out = _validation_texts(run, command.options.data) if command.options.int8 else None
    export_onnx(spec_of(build_deployed(run), facts), run, command.output)
    if held_out is not None:
        _write_int8(command.output, held_out)
    finish_export(command, run, '"a text" FILE...')


def spec_of(deployed: Deployed, facts: ModelFacts) -> ExportSpec:
    """What the graph is, and the texts on which the file has to equal PyTorch."""
    num_words = facts.num_words
    return ExportSpec(
        module=deployed,
        task=TASK,
        facts=facts,
        inputs={"tokens": "int64 [batch, length], of the facts' tokenizer, 0 at the padding, which is at the end"},
        outputs={"probabilities": "float32 [batch, classes]", "attention": "float32 [batch, length], sums to 1"},
        example=random_tokens(num_words, 7, 3, 5),
        dynamic_shapes=({0: "batch", 1: "length"},),
        output_shapes=[["batch", len(facts.classes)], ["batch", "length"]],
        parity_inputs=[
            random_tokens(num_words, 1),
            random_tokens(num_words, 1, 1, 2),
            random_tokens(num_words, 1, 40),
            random_tokens(num_words, 33, 33, 33, 33),
            random_tokens(num_words, 200, 199, 1, 64, 150),
        ],
        pipeline_tag="text-classification",
        usage=_USAGE,
    )


def _model_facts(run: Run) -> ModelFacts:
    """What the file has to know. Raises UserError for a tokenizer that is missing or not the run's."""
    path, todo = run.path / "tokenizer.json", "put it back, or train again"
    try:
        tokenizer = path.read_bytes()
    except OSError as error:
        raise UserError("the run's tokenizer is missing", path, todo) from error
    if hashlib.sha256(tokenizer).hexdigest() != run.facts.tokenizer_sha256:
        raise UserError("the run's tokenizer was changed", path, todo)
    return ModelFacts(
        **to_plain(run.facts) | {"classes": run.facts.classes},
        tokenizer=tokenizer.decode(),
        max_length=run.config.max_length,
    )


def _validation_texts(run: Run, place: str | None) -> TextSet:
    """The validation texts of a run, which an 8-bit copy is compared on.

    place: where the data stands now; None for its old place. Raises UserError where it is not the run's.
    """
    config = dataclasses.replace(run.config, data=place or run.config.data)
    todo = "name its place now with --data, or leave out --int8"
    try:
        dataclasses.replace(config, vectors=None).check_present(resuming=True)
    except UserError as error:
        raise UserError(
            "--int8 needs the run's validation texts", f"--data {config.data} is not there", todo
        ) from error
    data = load_data(config)
    if (data.sha256, data.tokenizer.sha256()) != (run.facts.data_sha256, run.facts.tokenizer_sha256):
        raise UserError("--int8 needs the run's validation texts", f"--data {config.data} has other texts", todo)
    return data.val


def _write_int8(source: Path, texts: TextSet) -> None:
    """Writes MODEL.int8.onnx, compared with its source on validation texts."""
    order = texts.lengths.argsort(stable=True)
    middle = order[len(order) // 2 :][:64]  # texts of median length
    one, many = texts.padded(middle[:1]).numpy(), texts.padded(middle).numpy()
    held_out = HeldOut(
        accuracy=lambda path: _accuracy(path, texts),
        samples=f"{len(texts):,} validation texts",
        timed={"1 text": one, f"{len(many)} texts": many},
        input_name="tokens",
    )
    export_int8(source, quantize_dynamic, held_out)


def _accuracy(path: Path, texts: TextSet, batch: int = 64) -> float:
    """Share of texts that an ONNX file classifies correctly."""
    session = open_session(path)
    right = 0
    for rows in torch.split(texts.lengths.argsort(stable=True), batch):
        probabilities: NDArray[np.float32] = session.run(["probabilities"], {"tokens": texts.padded(rows).numpy()})[0]
        right += int((probabilities.argmax(1) == texts.labels[rows.numpy()]).sum())
    return right / len(texts)


if __name__ == "__main__":
    run_export(Config, ExportOptions, export)
