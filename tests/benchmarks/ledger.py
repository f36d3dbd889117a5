"""The table of benchmarks that the README shows: python -m tests.benchmarks.ledger prints it from results/*.json."""

import json
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"
MS = "{:,.2f} ms"
# Benchmark, table in its file, quantity, heading, and how a number of it is written.
SHOWN = (
    ("step", "step", "processor_us", "one optimizer step, tiny MLP, processor time", "{:,.0f} µs"),
    ("step", "step, peers loaded", "processor_us", "the same with the peers' packages loaded", "{:,.0f} µs"),
    ("images", "images", "images_per_second", "CIFAR-10 training, end to end", "{:,.0f} images/s"),
    ("text", "text", "words_per_second", "training the text classifier", "{:,.0f} words/s"),
    ("onnx", "batch 1", "wall_ms", "classifying 1 image", MS),
    ("onnx", "batch 64", "wall_ms", "classifying 64 images", "{:,.1f} ms"),
    ("serving", "throughput, fast", "images_per_second", "classifying over HTTP, small network", "{:,.0f} images/s"),
    ("serving", "throughput, resnet20", "images_per_second", "the same, resnet20", "{:,.0f} images/s"),
    ("serving", "latency, fast", "wall_ms", "one answer over HTTP, small network", MS),
    ("serving", "latency, resnet20", "wall_ms", "the same, resnet20", MS),
    ("browser", "cifar10", "wall_ms", "classifying 1 image in Chromium, onnxruntime-web", MS),
    ("browser", "cifar10, int8", "wall_ms", "the same, 8-bit copy", MS),
    ("browser", "detection", "wall_ms", "finding objects in 1 image, 256×256, in Chromium", "{:,.1f} ms"),
    ("browser", "style", "wall_ms", "painting 1 image, 256×256, in Chromium", "{:,.0f} ms"),
    ("browser", "sentiment", "wall_ms", "classifying 1 text of 20 words in Chromium", MS),
    ("kernels", "augment, 512 images", "processor_ms", "512 images gathered, cropped, flipped, cut out", MS),
    ("kernels", "instance_norm_act, channels_last, float32", "processor_ms", "instance norm, ReLU, backward", MS),
    ("kernels", "sigmoid_focal_loss", "processor_ms", "focal loss, backward; eager is torchvision's", MS),
    ("kernels", "gram_matrix", "processor_ms", "Gram matrix, backward", MS),
    ("kernels", "pool_norm_act, pooled, float32", "processor_ms", "pooling, batch norm, GELU, backward", MS),
    ("kernels", "crop_resize, float32", "processor_ms", "8 photographs cropped, resized, mirrored, normalized", MS),
    ("loader", "loader", "images_per_second", "training from JPEG files, by way of loading", "{:,.0f} images/s"),
    ("loader", "loader", "waiting_percent", "the share of a step spent waiting for its batch", "{:,.1f} %"),
    ("transfer", "transfer", "processor_ms", "a new head on resnet18, an epoch of 96 images", MS),
    ("checkpoint", "fast network", "wall_ms", "training blocked by a save, small network", "{:,.1f} ms"),
    ("checkpoint", "50 million weights", "wall_ms", "training blocked by a save, 600 MB", "{:,.0f} ms"),
)


def markdown(folder: Path = RESULTS) -> str:
    """All shown tables as one, medians with ratios to the first side of each; then machine and versions."""
    lines = ["| what | side | median | ratio |", "| --- | --- | --- | --- |"]
    environments = set()
    for benchmark, table, quantity, heading, form in SHOWN:
        result = json.loads((folder / f"{benchmark}.json").read_text("utf-8"))
        rows: list[dict[str, Any]] = result["tables"].get(table, [])
        environment = result["environment"]
        environments.add(f"{environment['processor']}, {environment['threads']} thread; torch {environment['torch']}")
        for number, row in enumerate(rows):
            median, ratio = row[quantity]["median"], row[f"{quantity}_ratio"]["median"]
            shown = f"{ratio:.2f}" if ratio > 0.05 else f"{ratio:.3f}"
            lines.append(f"| {'' if number else heading} | {row['name']} | {form.format(median)} | {shown} |")
    return "\n".join([*lines, "", "; ".join(sorted(environments))])


if __name__ == "__main__":
    print(markdown())
