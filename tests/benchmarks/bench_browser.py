"""Latency of exported files in the browser, in onnxruntime-web, against onnxruntime itself; one thread each.

The same arrays go through the same graph: one input, an image of 256×256 pixels, a text of 20 words, a table's newest
rows, noise. The browser is a headless Chromium on this machine. Of a round's calls the best ones count, as both sides
wait for whatever else the machine does.
"""

import contextlib
import io
import math
import shutil
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from core.errors import UserError
from core.parity import open_session
from core.program import ClassifierExportOptions, ExportCommand
from core.web import fetch_runtime
from projects.cifar10.export import export
from tests.benchmarks import measure
from tests.benchmarks.bench_onnx import untrained_run
from tests.projects.browser import Browser, chromium, static_host

BASELINE, OURS = "onnxruntime", "browser"
SIZES = {"batch": 1, "height": 256, "width": 256, "length": 20, "given": 0}  # of free dimensions, by name
DTYPES = {"tensor(uint8)": "uint8", "tensor(float)": "float32", "tensor(int64)": "int64"}
MILLISECONDS_IN_A_ROW = 1  # as a browser's clock is right to a tenth of a millisecond
MODELS = ("cifar10", "transfer", "sentiment", "forecast", "style", "gan", "detection")
OPEN = """
    const ort = await import(new URL("/runtime/ort.wasm.min.mjs", location));
    ort.env.wasm.numThreads = 1;
    ort.env.wasm.wasmPaths = new URL("/runtime/", location).href;
    const content = await (await fetch(args[0])).arrayBuffer();
    window.session = await ort.InferenceSession.create(new Uint8Array(content), { executionProviders: ["wasm"] });
    const kinds = { uint8: Uint8Array, float32: Float32Array, int64: BigInt64Array };
    window.feeds = {};
    for (const [name, [type, values, dims]] of Object.entries(args[1])) {
      const data = kinds[type].from(values, type === "int64" ? BigInt : Number);
      window.feeds[name] = new ort.Tensor(type, data, dims);
    }"""
RUN = """
    await session.run(feeds);
    let best = Infinity;
    for (let k = 0; k < args[0]; k++) {
      const began = performance.now();
      for (let call = 0; call < args[1]; call++) await session.run(feeds);
      best = Math.min(best, (performance.now() - began) / args[1]);
    }
    return best"""
CLOSE = "await session.release(); session = feeds = null"


@dataclass
class Found:
    """Rows, and reasons of what was not measured, by the model's title; megabytes of each file."""

    tables: dict[str, Any] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)
    megabytes: dict[str, float] = field(default_factory=dict)


def make_feeds(session: onnxruntime.InferenceSession) -> dict[str, NDArray[Any]]:
    """One input of a model: numbers that suit its names and types."""
    random, feeds = np.random.default_rng(0), {}
    for each in session.get_inputs():
        shape = [size if isinstance(size, int) else SIZES[size] for size in each.shape]
        dtype = DTYPES[each.type]
        if dtype == "float32":
            feeds[each.name] = random.standard_normal(shape, np.float32)
        else:
            feeds[each.name] = random.integers(1, 256 if dtype == "uint8" else 2, shape).astype(dtype)
    return feeds


def in_python(call: Callable[[], object], repeats: int, calls: int) -> dict[str, float]:
    """Wall time of a call, the best mean of so many calls in a row, after one that is not counted."""
    call()
    best = math.inf
    for _ in range(repeats):
        began = time.perf_counter()
        for _ in range(calls):
            call()
        best = min(best, (time.perf_counter() - began) / calls)
    return {"wall_ms": 1e3 * best}


def in_browser(browser: Browser, repeats: int, calls: int) -> dict[str, float]:
    """The same in the browser."""
    return {"wall_ms": float(browser.run(RUN, repeats, calls))}


def main(argv: Sequence[str] | None = None) -> None:
    """The command line."""
    flags = measure.parser("browser", "Latency in the browser.", rounds=5)
    flags.add_argument("--repeats", type=int, default=10, help="timings a round (default: %(default)s)")
    runs = "folder of run folders named like projects, with model.onnx (default: an untrained fast classifier alone)"
    flags.add_argument("--runs", type=Path, metavar="DIR", help=runs)
    arguments = flags.parse_args(argv)
    if arguments.threads != 1:
        flags.error("--threads: the browser has one")
    try:
        runtime = fetch_runtime()
    except UserError as error:
        flags.error(str(error))
    measure.use_threads(1)
    found = Found()
    with tempfile.TemporaryDirectory() as folder:
        site = Path(folder) / "site"
        shutil.copytree(runtime, site / "runtime")
        (site / "index.html").write_text("<!doctype html><title>benchmark</title>")
        if arguments.runs is None:
            untrained_run(Path(folder) / "runs" / "cifar10")
            with contextlib.redirect_stdout(io.StringIO()):
                export(ExportCommand(Path(folder) / "runs" / "cifar10", ClassifierExportOptions(checkpoint="last")))
        with chromium(Path(folder)) as browser, static_host(site) as host:
            version = browser.run("return navigator.userAgent").partition("Chrome/")[2].split(" ")[0]
            browser.open(host)
            for name in MODELS:
                compare_files(browser, site, (arguments.runs or Path(folder) / "runs") / name, arguments, found)
    facts = {"chromium": version, "sizes": SIZES, "megabytes": found.megabytes}
    measure.write("browser", argv, arguments, found.tables, found.skipped, baseline=BASELINE, ours=OURS, **facts)


def compare_files(browser: Browser, site: Path, run_dir: Path, arguments: Any, found: Found) -> None:
    """Measures the exported files of a run, and shows what it has found."""
    for file, title in (("model.onnx", run_dir.name), ("model.int8.onnx", f"{run_dir.name}, int8")):
        path = run_dir / file
        if not path.exists():
            found.skipped[title] = "no such file in the runs"
            continue
        shutil.copy(path, site / "measured.onnx")
        found.megabytes[title] = path.stat().st_size / 1e6
        found.tables[title] = compare(browser, f"/measured.onnx?{title}", path, arguments)
        measure.show(f"{title}, one input", found.tables[title], {"wall_ms": "wall ms"}, BASELINE)


def compare(browser: Browser, address: str, path: Path, arguments: Any) -> list[dict[str, Any]]:
    """The rows of one file."""
    session = open_session(path, threads=1)
    feeds = make_feeds(session)
    plain = {name: [str(array.dtype), array.ravel().tolist(), array.shape] for name, array in feeds.items()}
    browser.run(OPEN, address, plain)
    call = partial(session.run, None, feeds)
    calls = math.ceil(MILLISECONDS_IN_A_ROW / in_python(call, 3, 1)["wall_ms"])
    sides = {
        BASELINE: partial(in_python, call, arguments.repeats, calls),
        OURS: partial(in_browser, browser, arguments.repeats, calls),
    }
    rows = measure.summarize(measure.interleaved(sides, arguments.rounds), BASELINE)
    browser.run(CLOSE)
    return rows


if __name__ == "__main__":
    main()
