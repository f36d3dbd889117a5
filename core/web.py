"""A folder for any static host: a page that runs an exported file in the visitor's browser. No torch.

The page's files stand in core/pages and in the project's folder, see core/pages/page.js. The network runs in
onnxruntime-web (https://onnxruntime.ai/docs/tutorials/web), whose package is fetched once with npm, checked, and kept
in the cache. Nothing else is loaded from anywhere, and no header is asked of the host.
"""

import shlex
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Callable, Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any, TypeVar

from core.config import RunConfig, module_of
from core.download import cache_dir, sha256_of
from core.errors import UserError, printable, run_command
from core.files import temporary_beside, write_json
from core.inference import OnnxModel
from core.program import project_parser

F = TypeVar("F")
_RUNTIME_VERSION = "1.30.0"
_RUNTIME_FILES: Mapping[str, str] = {  # of the package's dist/, with their SHA-256
    "ort.wasm.min.mjs": "219e6a1fc8a9938268d18efca3c91d310bd2f4a59bbd13744df5b2b7fc6cee3b",
    "ort-wasm-simd-threaded.mjs": "e13f7f94fc51b4ca72b12faeb1ee95f4ace6dfbc8939bc718aabdc0a27c4299b",
    "ort-wasm-simd-threaded.wasm": "3398c10d07d229bd91b364548e130e0e51a8e5704b88c7c083ebbeb78842dee2",
}
_PACKAGE = f"onnxruntime-web@{_RUNTIME_VERSION}"
_NPM_SECONDS = 300
_RENAMED = {"browser.js": "answer.js", "server.js": None, "page.html": "index.html"}  # None: left out


def run_web(
    config_class: type[RunConfig],
    facts_class: type[F],
    task: str,
    check: Callable[[F], None] | None = None,
) -> None:
    """The web program of a project: reads the command line and leaves with the exit code of core.errors.

    check: raises UserError for facts that the project's page cannot handle.
    """
    run_command(lambda: web(config_class, facts_class, task, check))


def web(
    config_class: type[RunConfig],
    facts_class: type[F],
    task: str,
    check: Callable[[F], None] | None = None,
    argv: Sequence[str] | None = None,
) -> None:
    """Writes the folder that the command line asks for, as a whole or not at all. Raises UserError."""
    parser = project_parser(config_class, "web")
    parser.add_argument("model", type=Path, metavar="MODEL.onnx", help="a file that export wrote")
    parser.add_argument("--output", type=Path, required=True, metavar="DIR", help="new folder for the page")
    text = f"folder with the dist/ files of {_PACKAGE} (default: fetched with npm, once)"
    parser.add_argument("--runtime", type=Path, metavar="DIR", help=text)
    arguments = parser.parse_args(argv)
    output: Path = arguments.output
    if output.exists() and not (output.is_dir() and not any(output.iterdir())):
        raise UserError("not a new or empty folder", f"--output {output}", "give another, or remove it")
    if not output.absolute().parent.is_dir():
        raise UserError("no such folder", output.absolute().parent, "make it, or give another --output")
    model = OnnxModel(arguments.model, task=task, facts=facts_class)
    if check is not None:
        check(model.facts)
    runtime = fetch_runtime() if arguments.runtime is None else _checked_runtime(arguments.runtime)
    scratch = temporary_beside(output.absolute())
    try:
        _fill(scratch, arguments.model, model.metadata, module_of(config_class).rpartition(".")[0], runtime)
        if output.exists():
            output.rmdir()
        scratch.rename(output)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    num_bytes = sum(path.stat().st_size for path in output.rglob("*") if path.is_file())
    print(f"{printable(str(output))}  {num_bytes / 1e6:.1f} MB, for any static host")
    print(f"{'next':<14}python -m http.server --bind 127.0.0.1 --directory {shlex.quote(str(output))}")


def _page_files(package: str) -> dict[str, bytes]:
    """The page's files by name: core's, and those of a project. package: the project's, as in its modules' names."""
    files: dict[str, bytes] = {}
    for folder in (resources.files("core") / "pages", resources.files(package)):
        for entry in folder.iterdir():
            if entry.name.endswith((".js", ".css", ".html")):
                files[entry.name] = entry.read_bytes()
    return files


def _fill(folder: Path, model: Path, metadata: Mapping[str, Any], package: str, runtime: Path) -> None:
    """Writes page, model and runtime into a new folder."""
    (folder / "runtime").mkdir(parents=True)
    for name, content in _page_files(package).items():
        if target := _RENAMED.get(name, name):
            (folder / target).write_bytes(content)
    for name in _RUNTIME_FILES:
        shutil.copyfile(runtime / name, folder / "runtime" / name)
    shutil.copyfile(model, folder / "model.onnx")
    write_json(folder / "model.json", dict(metadata))


def _checked_runtime(folder: Path) -> Path:
    """A folder, once all files of the runtime in it are the expected ones. Raises UserError."""
    for name, expected in _RUNTIME_FILES.items():
        path = folder / name
        if not path.is_file():
            raise UserError("a file of onnxruntime-web is missing", path, f"give the dist folder of {_PACKAGE}")
        if sha256_of(path) != expected:
            raise UserError("another file of onnxruntime-web than expected", path, f"give that of {_PACKAGE}")
    return folder


def fetch_runtime() -> Path:
    """The runtime's folder in the cache, fetched with npm where it is not there yet. Raises UserError."""
    folder = cache_dir() / f"onnxruntime-web-{_RUNTIME_VERSION}"
    if folder.exists():
        return _checked_runtime(folder)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
            dist = Path(scratch) / "dist"
            dist.mkdir()
            _unpack(_packed(Path(scratch)), dist)
            _checked_runtime(dist)
            if not folder.exists():  # another process may have been faster
                dist.rename(folder)
    except OSError as error:
        where = f"{error.filename or folder} ({(error.strerror or str(error)).lower()})"
        raise UserError("the cache cannot be used", where, "set ATELIER_CACHE to a folder for downloads") from error
    return folder


def _packed(folder: Path) -> Path:
    """The package as npm gives it, a .tgz in `folder`. Raises UserError where there is no npm or no network."""
    npm = shutil.which("npm")
    todo = f"on another machine run npm pack {_PACKAGE}, unpack it, and give its package/dist with --runtime DIR"
    if npm is None:
        raise UserError("the browser's runtime has to be fetched", "npm is not installed", f"install it, or {todo}")
    command = [npm, "pack", "--silent", "--ignore-scripts", _PACKAGE]
    print(f"fetching {_PACKAGE} with npm", flush=True)
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=_NPM_SECONDS)
        reason = done.stderr.strip().rpartition("\n")[2]
    except subprocess.TimeoutExpired:
        reason = f"no answer in {_NPM_SECONDS} seconds"
    packed = sorted(folder.glob("*.tgz"))
    if not packed:
        raise UserError(f"npm did not give {_PACKAGE}", reason or "it said nothing", todo)
    return packed[0]


def _unpack(package: Path, folder: Path) -> None:
    """Writes the runtime's files of a package into a folder. Raises UserError for another package."""
    try:
        with tarfile.open(package) as archive:
            for name in _RUNTIME_FILES:
                member = archive.extractfile(f"package/dist/{name}")
                if member is None:
                    raise KeyError(name)
                (folder / name).write_bytes(member.read())
    except (tarfile.TarError, KeyError, EOFError) as error:
        reason = str(error).partition("\n")[0]
        raise UserError("not the package that was expected", f"{_PACKAGE} ({reason})", "see npm's settings") from error
