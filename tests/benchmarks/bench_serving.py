"""What a server costs: throughput and latency against onnxruntime in a loop, and thousands of requests good and bad.

The networks are untrained classifiers whose images take a millisecond or two, which is about what HTTP takes. The loop
calls onnxruntime on ready pixels with the batch size that is best for it; the server gets PNG files over HTTP, and
decodes, batches and answers. Server, load generator and model share the machine. For the throughput the model has
--threads threads on either side; latency is that of a server with its own defaults, for one client alone and for
clients that come at random moments.
"""

import argparse
import asyncio
import base64
import contextlib
import gc
import io
import json
import pickle
import re
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Coroutine, Iterator, Sequence
from dataclasses import replace
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from core.distributed import World
from core.parity import open_session
from core.program import ClassifierExportOptions, ExportCommand, TrainCommand
from core.run import RunFolder
from projects.cifar10.config import Config
from projects.cifar10.export import export
from projects.cifar10.model import build_model
from projects.cifar10.synthetic import draw_images
from tests.benchmarks import measure
from tests.benchmarks.bench_onnx import FACTS
from tests.benchmarks.load import Exchange, Outcome, closed_load, open_load, post
from tests.conftest import ROOT

BASELINE, OURS = "onnxruntime in a loop", "served"
PACKAGES = ("fastapi", "uvicorn", "uvloop", "httptools")
BATCH_SIZES = (1, 2, 4, 8, 16, 32)
CONNECTIONS, LOADS, IMAGES_A_REQUEST = 16, (0.3, 0.5), 8
TOLERANCE = 2e-5  # of probabilities that are rounded to 6 digits
Address = tuple[str, int]


@contextlib.contextmanager
def served(path: Path, *flags: object) -> Iterator[tuple[Address, int]]:
    """A server of a classifier in a process of its own: its address and process number."""
    command = [sys.executable, "-m", "projects.cifar10.serve", str(path), "--port", "0", *map(str, flags)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as server:
        assert server.stdout is not None
        address = re.search(r"http://([\d.]+):(\d+)", server.stdout.readline())
        assert address is not None, "the server did not start"
        try:
            yield (address[1], int(address[2])), server.pid
        finally:
            server.terminate()


def png(pixels: NDArray[np.uint8]) -> bytes:
    """An image file."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def asked(images: NDArray[np.uint8], expected: NDArray[np.float32] | None = None) -> Exchange:
    """A request with one image as a bare body, or several in base64; expected: probabilities [N, num_classes]."""
    check = None if expected is None else partial(is_right, expected)
    if len(images) == 1:
        return Exchange(post("/predict?top=1", png(images[0]), "image/png"), check=check)
    texts = [base64.b64encode(png(image)).decode() for image in images]
    return Exchange(post("/predict?top=1", json.dumps({"inputs": texts}).encode(), "application/json"), check=check)


def is_right(expected: NDArray[np.float32], body: bytes) -> bool:
    """Whether an answer has the largest probability of each image."""
    found = [each["probability"] for each in json.loads(body)["predictions"]]
    return len(found) == len(expected) and bool(np.abs(np.array(found) - expected.max(axis=1)).max() <= TOLERANCE)


def bad_requests() -> list[Exchange]:
    """Requests that have to be refused, with their status."""
    good = png(np.zeros((32, 32, 3), np.uint8))
    wide = good[:16] + (40_000).to_bytes(4, "big") * 2 + good[24:]  # the size in its header is a lie
    image, text = "image/png", "application/json"
    return [
        Exchange(post("/predict", wide, image), 422),
        Exchange(post("/predict", good[:45], image), 422),
        Exchange(post("/predict", pickle.dumps({"a": 1}), image), 422),
        Exchange(post("/predict", b"", image), 422),
        Exchange(post("/predict", b"[" * 50_000, text), 400),
        Exchange(post("/predict", b'{"inputs": ["not base64"]}', text), 422),
        Exchange(post("/predict", b"--b\r\nbroken", "multipart/form-data; boundary=b"), 400),
        Exchange(post("/predict", good, "application/x-unknown"), 415),
        Exchange(post("/predict?top=0", good, image), 422),
        Exchange(post("/models/nothing/predict", good, image), 404),
        Exchange(post("/predict", bytes(3 << 20), image), 413),
    ]


def in_loop(session: Any, images: NDArray[np.uint8], batch_size: int, seconds: float) -> measure.Numbers:
    """onnxruntime again and again with one batch size."""
    num, began = 0, time.perf_counter()
    while (passed := time.perf_counter() - began) < seconds:
        session.run(None, {"image": images[:batch_size]})
        num += batch_size
    return {"images_per_second": num / passed, "wall_ms": 1e3 * passed / num}


def run_load(load: Coroutine[Any, Any, Outcome]) -> Outcome:
    """What came back; every answer has to be right."""
    outcome = asyncio.run(load)
    assert not outcome.wrong, f"{len(outcome.wrong)} wrong answers"
    assert not outcome.lost, f"{outcome.lost} requests without an answer"
    return outcome


def throughput(address: Address, exchanges: Sequence[Exchange], images_each: int) -> measure.Numbers:
    """Images a second where CONNECTIONS clients ask as fast as they are answered."""
    num = len(exchanges) * images_each
    outcome = run_load(closed_load(*address, exchanges, max(4, CONNECTIONS // images_each)))
    return {"images_per_second": num / outcome.seconds, "wall_ms": 1e3 * outcome.seconds / num}


def alone(address: Address, exchanges: Sequence[Exchange]) -> measure.Numbers:
    """The median time of a single request."""
    outcome = run_load(closed_load(*address, exchanges, 1))
    return {"images_per_second": len(exchanges) / outcome.seconds, "wall_ms": 1e3 * outcome.percentile(0.5)}


def loaded(address: Address, exchanges: Sequence[Exchange], rate: float) -> measure.Numbers:
    """The 99th percentile where requests come at random moments, `rate` a second."""
    outcome = run_load(open_load(*address, exchanges, rate, seed=0))
    return {"images_per_second": len(exchanges) / outcome.seconds, "wall_ms": 1e3 * outcome.percentile(0.99)}


def mixed(address: Address, process: int, good: Sequence[Exchange], num: int) -> dict[str, Any]:
    """Sends `num` requests, three of ten of them bad, in random order; memory is compared with that after a fifth."""
    random, bad = np.random.default_rng(0), bad_requests()
    kinds = [bad if random.random() < 0.3 else good for _ in range(num)]
    exchanges = [kind[int(random.integers(len(kind)))] for kind in kinds]
    parts, megabytes = [], []
    for some in (exchanges[: num // 5], exchanges[num // 5 :], good):
        parts.append(asyncio.run(closed_load(*address, some, CONNECTIONS)))
        megabytes.append(resident_megabytes(process))
    statuses = sum((part.statuses for part in parts[:2]), Counter[int]())
    return {
        "requests": num,
        "statuses": {str(status): count for status, count in sorted(statuses.items())},
        "wrong": sum(len(part.wrong) for part in parts),
        "lost": sum(part.lost for part in parts),
        "megabytes_after_a_fifth": megabytes[0],
        "megabytes_at_the_end": megabytes[1],
    }


def resident_megabytes(process: int) -> float:
    """Memory that a process holds."""
    text = Path(f"/proc/{process}/status").read_text()
    return int(text.partition("VmRSS:")[2].split()[0]) / 1024


def measured(name: str, folder: Path, arguments: argparse.Namespace) -> tuple[dict[str, Any], dict[str, Any]]:
    """The tables of one network, and what else was found."""
    path, images, num = folder / name / "model.onnx", draw_images(64, seed=2)[0], arguments.requests
    with contextlib.redirect_stdout(io.StringIO()):
        untrained_run(path.parent, name)
        export(ExportCommand(path.parent, ClassifierExportOptions(checkpoint="last")))
    session = open_session(path, threads=arguments.threads)
    expected = session.run(None, {"image": images})[0]
    speeds = {size: in_loop(session, images, size, 1e-3 * num)["images_per_second"] for size in BATCH_SIZES}
    best = max(speeds, key=lambda size: speeds[size])
    singles = [asked(images[k : k + 1], expected[k : k + 1]) for k in range(len(images))]
    several = [slice(k, k + IMAGES_A_REQUEST) for k in range(0, len(images), IMAGES_A_REQUEST)]
    eights = [asked(images[some], expected[some]) for some in several]
    ones, packs = repeated(singles, num), repeated(eights, max(1, num // IMAGES_A_REQUEST))
    with served(path, "--workers", arguments.threads) as (address, _):
        throughput(address, ones, 1)
        sides = {
            BASELINE: partial(in_loop, session, images, best, 1e-3 * num),
            OURS: partial(throughput, address, ones, 1),
            f"served, {IMAGES_A_REQUEST} images a request": partial(throughput, address, packs, IMAGES_A_REQUEST),
        }
        rates = measure.summarize(measure.interleaved(sides, arguments.rounds), BASELINE)
    most = next(row for row in rates if row["name"] == OURS)["images_per_second"]["median"]
    with served(path, "--max-body-mb", 2) as (address, process):
        throughput(address, ones, 1)
        sides = {
            BASELINE: partial(in_loop, session, images, 1, 1e-3 * num),
            OURS: partial(alone, address, repeated(singles, max(1, num // 4))),
            **{f"served, p99 at {load:.0%} load": partial(loaded, address, ones, load * most) for load in LOADS},
        }
        latencies = measure.summarize(measure.interleaved(sides, arguments.rounds), BASELINE)
        endured = mixed(address, process, singles, arguments.mixed)
    tables = {f"throughput, {name}": rates, f"latency, {name}": latencies}
    return tables, {"best_batch": best, "mixed": endured}


def untrained_run(path: Path, name: str) -> None:
    """Makes a run folder with a checkpoint of step 0."""
    torch.manual_seed(0)
    config, facts = Config(data="synthetic", ema=0.0, model=name), replace(FACTS, model=name)
    run = RunFolder.start(TrainCommand(config, path), facts, World())
    run.save(0, {"model": build_model(name, len(FACTS.classes)).state_dict(), "loop": {"step": 0}}, None)


def main(argv: Sequence[str] | None = None) -> None:
    """The command line."""
    flags = measure.parser("serving", "Throughput and latency of a server.", rounds=5)
    flags.add_argument("--requests", type=int, default=400, help="requests of a side and round (default: %(default)s)")
    flags.add_argument(
        "--mixed", type=int, default=5_000, help="requests good and bad, a network (default: %(default)s)"
    )
    flags.add_argument("--networks", nargs="+", default=["fast", "resnet20"], help="names (default: fast resnet20)")
    arguments = flags.parse_args(argv)
    measure.use_threads(arguments.threads)
    gc.freeze()  # the generator's own pauses are not the server's
    tables: dict[str, Any] = {}
    facts: dict[str, Any] = {"packages": {name: version(name) for name in PACKAGES}}
    with tempfile.TemporaryDirectory() as folder:
        for name in arguments.networks:
            found, facts[name] = measured(name, Path(folder), arguments)
            tables |= found
            print(f"{name}: {json.dumps(facts[name])}")
    for title, rows in tables.items():
        measure.show(title, rows, {"images_per_second": "images/s", "wall_ms": "wall ms"}, BASELINE)
    measure.write("serving", argv, arguments, tables, baseline=BASELINE, ours=OURS, **facts)


def version(package: str) -> str | None:
    """An installed package's version."""
    with contextlib.suppress(metadata.PackageNotFoundError):
        return metadata.version(package)
    return None


def repeated(exchanges: Sequence[Exchange], num: int) -> list[Exchange]:
    """`num` requests, the same again and again."""
    return [exchanges[number % len(exchanges)] for number in range(num)]


if __name__ == "__main__":
    main()
