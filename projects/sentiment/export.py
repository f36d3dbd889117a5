"""Exports a run's classifier: python -m projects.sentiment.export RUN_DIR writes RUN_DIR/model.onnx.

The graph takes tokens int64 [N, T], zero at the padding, of any N and T, and gives calibrated probabilities and the
pooling's attention. The LSTM is ONNX's own operator, which reads each text backwards from its own last word. The
tokenizer stands in the file's metadata, so that one file is enough to ask.
"""

import argparse
import json
from pathlib import Path
from typing import Any

from core.config import answer_early, export_parser, from_plain
from core.errors import RunError, UserError, run_command
from projects.sentiment.config import PROJECT, Config


def parse_arguments(argv: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    return export_parser("projects.sentiment.export", int8=True).parse_args(argv)


if __name__ == "__main__":  # --help and a wrong flag are answered here, before torch is loaded
    answer_early(parse_arguments)

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from core.checkpoint import write_atomically
from core.export import (
    ExportSpec,
    chosen_checkpoint,
    export_onnx,
    milliseconds,
    open_session,
    output_path,
    quantize_dynamic_int8,
    report_path,
    run_metadata,
)
from projects.sentiment.data import Split, load_data
from projects.sentiment.model import Reader, Sentiment
from projects.sentiment.vocab import PAD

TASK = "text classification"
MAX_ACCURACY_DROP = 0.01
OUTPUTS = ("probabilities", "attention")


class GraphReader(Reader):
    """The reader whose recurrent layers become one ONNX operator each when its graph is taken."""

    def pack(self) -> None:
        """Puts the weights of both directions into ONNX's order of gates: input, output, forget, cell."""
        self.packed = nn.ParameterList()
        for pair in zip(self.forwards, self.backwards, strict=True):
            for name in ("weight_ih_l0", "weight_hh_l0"):
                self.packed.append(torch.stack([gates(lstm.get_parameter(name)) for lstm in pair]))
            both = [torch.cat([gates(lstm.get_parameter(f"bias_{k}_l0")) for k in ("ih", "hh")]) for lstm in pair]
            self.packed.append(torch.stack(both))
        self.packed.requires_grad_(False)

    def recur(self, x: Tensor, mask: Tensor) -> Tensor:
        """Embedded words [T, N, E] → states [T, N, 2H]."""
        if not torch.onnx.is_in_onnx_export():
            return super().recur(x, mask)
        lengths = mask.sum(0).clamp(min=1).to(torch.int32)
        weights = list(self.packed)
        for input_weights, recurrent_weights, biases in zip(weights[::3], weights[1::3], weights[2::3], strict=True):
            (steps, texts), size = x.shape[:2], recurrent_weights.shape[2]
            states, _, _ = torch.onnx.ops.symbolic_multi_out(
                "LSTM",
                (x, input_weights, recurrent_weights, biases, lengths),
                {"hidden_size": size, "direction": "bidirectional"},
                dtypes=(x.dtype,) * 3,
                shapes=([steps, 2, texts, size], [2, texts, size], [2, texts, size]),
                version=14,
            )
            x = states.transpose(1, 2).flatten(2)
        return x


def gates(values: Tensor) -> Tensor:
    """PyTorch's order of gates (input, forget, cell, output) in ONNX's."""
    i, f, g, o = values.detach().chunk(4)
    return torch.cat([i, o, f, g])


class Deployed(nn.Module):
    """The network between tokens and calibrated probabilities."""

    def __init__(self, network: Sentiment) -> None:
        super().__init__()
        self.network = network

    def forward(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """int64 [N, T] → probabilities float32 [N, C], attention float32 [N, T]."""
        logits, attention = self.network.explain(tokens)
        return (logits / self.network.temperature).softmax(1), attention


def build_deployed(facts: dict[str, Any], config: Config, weights: dict[str, Tensor]) -> Deployed:
    """The module to export, from what the run knows and a checkpoint's weights."""
    network = Sentiment.of(config, facts["num_words"], len(facts["classes"]), GraphReader)
    network.load_state_dict(weights)
    for member in network.members:
        assert isinstance(member, GraphReader)
        member.pack()
    return Deployed(network).eval()


def random_tokens(num_words: int, *lengths: int) -> tuple[Tensor, ...]:
    """Texts of random words, of the given lengths, padded to the longest."""
    generator = torch.Generator().manual_seed(sum(lengths))
    tokens = torch.randint(1, num_words, (len(lengths), max(lengths)), generator=generator)
    inside = torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]
    return (torch.where(inside, tokens, PAD),)


def export(run_dir: Path, checkpoint: str, output: Path | None, int8: bool) -> None:
    """Writes the ONNX file, its parity report, and the 8-bit copy if asked for."""
    folder, state, run = chosen_checkpoint(run_dir, checkpoint, PROJECT)
    config = from_plain(Config, run["config"], run_dir / "run.json")
    output = output_path(run_dir, output)
    facts = run["facts"]
    try:
        tokenizer = (run_dir / "tokenizer.json").read_text("utf-8")
    except OSError as error:
        raise UserError("the run's tokenizer is missing", error.filename, "put it back, or train again") from error
    deployed = build_deployed(facts, config, state["ema"]["module"] if config.ema else state["model"])
    metadata = run_metadata(run_dir, run, state["loop"]["step"], config, TASK)
    metadata["classes"] = facts["classes"]
    metadata["input"] = "tokens: int64 [batch, length], of the tokenizer below, 0 at the padding, which is at the end"
    metadata["output"] = "probabilities: float32 [batch, classes]; attention: float32 [batch, length]"
    metadata["max_length"] = config.max_length
    metadata["tokenizer"] = tokenizer
    num_words = facts["num_words"]
    spec = ExportSpec(
        module=deployed,
        example=random_tokens(num_words, 7, 3, 5),
        input_names=["tokens"],
        output_names=OUTPUTS,
        dynamic_shapes=({0: "batch", 1: "length"},),
        output_shapes=[["batch", len(facts["classes"])], ["batch", "length"]],
        parity_inputs=[
            random_tokens(num_words, 1),
            random_tokens(num_words, 1, 1, 2),
            random_tokens(num_words, 1, 40),
            random_tokens(num_words, 33, 33, 33, 33),
            random_tokens(num_words, 200, 199, 1, 64, 150),
        ],
        metadata=metadata,
    )
    report = export_onnx(spec, output)
    worst = max(row["max_difference"] for row in report["checks"])
    size_mb = output.stat().st_size / 1e6
    print(f"{output}  {size_mb:.2f} MB, from {folder.name}")
    print(f"parity      {len(report['checks'])} shapes, largest difference {worst:.1e} (allowed {spec.tolerance:g})")
    if int8:
        export_int8(output, config)
    print(f'next        python -m projects.sentiment.infer {output} "a text" FILE...')


def export_int8(source: Path, config: Config) -> None:
    """Writes MODEL.int8.onnx, unless it loses more than MAX_ACCURACY_DROP of accuracy on validation texts."""
    held_out = load_data(config).val
    target = source.with_name(f"{source.stem}.int8.onnx")
    candidate = source.with_name(f".tmp-{source.stem}.int8.onnx")
    order = held_out.lengths.argsort(stable=True)
    middle = order[len(order) // 2 :][:64]  # texts of median length
    one, many = held_out.padded(middle[:1]).numpy(), held_out.padded(middle).numpy()
    try:
        quantize_dynamic_int8(source, candidate)
        accuracies = [accuracy(path, held_out) for path in (source, candidate)]
        times = [milliseconds([source, candidate], tokens) for tokens in (one, many)]
        sizes = [path.stat().st_size / 1e6 for path in (source, candidate)]
        print(f"            {'fp32':>10}{'int8':>10}")
        print(f"size        {sizes[0]:>7.2f} MB{sizes[1]:>7.2f} MB")
        print(f"1 text      {times[0][0]:>7.2f} ms{times[0][1]:>7.2f} ms   one thread, {one.shape[1]} tokens")
        print(f"{len(many):<2} texts    {times[1][0]:>7.1f} ms{times[1][1]:>7.1f} ms   one thread")
        print(f"accuracy    {accuracies[0]:>10.4f}{accuracies[1]:>10.4f}   {len(held_out):,} validation texts")
        if accuracies[1] < accuracies[0] - MAX_ACCURACY_DROP:
            drop = f"{100 * (accuracies[0] - accuracies[1]):.1f} points on validation"
            raise RunError("the 8-bit model loses too much", drop, f"use {source}; nothing else was written")
        candidate.replace(target)
    finally:
        candidate.unlink(missing_ok=True)
    report: dict[str, dict[str, float]] = {"fp32": {}, "int8": {}}
    for number, name in enumerate(report):
        report[name] = {
            "megabytes": sizes[number],
            "milliseconds_1": times[0][number],
            f"milliseconds_{len(many)}": times[1][number],
            "val_accuracy": accuracies[number],
        }
    write_atomically(report_path(target), json.dumps(report, indent=1).encode())
    print(f"{target}")


def accuracy(path: Path, split: Split, batch: int = 64) -> float:
    """Share of texts that an ONNX file gets right."""
    session = open_session(path)
    right = 0
    for rows in torch.split(split.lengths.argsort(stable=True), batch):
        probabilities: NDArray[np.float32] = session.run(["probabilities"], {"tokens": split.padded(rows).numpy()})[0]
        right += int((probabilities.argmax(1) == split.labels[rows.numpy()]).sum())
    return right / len(split)


def main() -> None:
    """The command line."""
    arguments = parse_arguments()
    export(arguments.run_dir, arguments.checkpoint, arguments.output, arguments.int8)


if __name__ == "__main__":
    run_command(main)
