"""The serve command line of every project: python -m projects.NAME.serve MODEL.onnx... [--port 8000].

numpy and onnxruntime, FastAPI and uvicorn; no torch. SIGTERM and SIGINT let the requests that have come be answered.
"""

import gc
import importlib.util
import logging
import math
import socket
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from core.command_line import add_options
from core.config import RunConfig, check_bounds
from core.errors import UserError, note_saved, run_command
from core.program import project_parser
from core.serving.limits import ServeOptions
from core.serving.model_files import ModelFiles, named_files
from core.serving.service import Service

_NEEDED = ("fastapi", "prometheus_client", "python_multipart", "uvicorn")
_PAGES = Path(__file__).parent.parent / "pages"
_MEDIA_TYPES = {".html": "text/html", ".css": "text/css", ".js": "text/javascript"}
_BACKLOG = 2048  # connections that wait to be accepted
_SWITCH_SECONDS = 0.0001  # Python's own 5 ms would keep a thread with an answer waiting


def run_serving(config_class: type[RunConfig], service: Service[Any, Any, Any]) -> None:
    """The serve program of a project: reads the command line and leaves with the exit code of core.errors."""
    run_command(lambda: serve(config_class, service), outlives_output=True)


def serve(config_class: type[RunConfig], service: Service[Any, Any, Any], argv: Sequence[str] | None = None) -> None:
    """Loads the files, listens, and answers until a signal comes."""
    limits, given = parse_serving(config_class, argv)
    threads = limits.threads
    files: ModelFiles[Any] = named_files(given, lambda path: service.load(path, threads))
    listener = _listen(limits.host, limits.port)
    import uvicorn

    from core.serving.app import make_app

    app = make_app(service, files, limits, page_files(Path(sys.modules[config_class.__module__].__file__ or "").parent))
    config = uvicorn.Config(
        app,
        log_config=None,
        log_level="warning",
        access_log=False,
        proxy_headers=False,
        server_header=False,
        ws="none",
        timeout_graceful_shutdown=math.ceil(limits.time_limit) + 1,
    )
    host, port = listener.getsockname()[:2]
    address = f"http://{f'[{host}]' if ':' in host else host}:{port}"
    print(f"{', '.join(files.by_name)} at {address}  (page; /predict, /model, /health, /metrics)", flush=True)
    note_saved("every request was answered")
    logging.getLogger("python_multipart").setLevel(logging.ERROR)  # the answer says already what is wrong with a form
    sys.setswitchinterval(_SWITCH_SECONDS)
    gc.collect()
    gc.freeze()  # what has been loaded stays: collections need not look at it, which takes up to 100 ms
    uvicorn.Server(config).run(sockets=[listener])


def parse_serving(config_class: type[RunConfig], argv: Sequence[str] | None = None) -> tuple[ServeOptions, list[str]]:
    """The flags and the files of a serve program's command line. Raises UserError."""
    parser = project_parser(config_class, "serve")
    named = "files that export wrote; a name for the address, or the file's own"
    parser.add_argument("models", nargs="+", metavar="[NAME=]MODEL.onnx", help=named)
    add_options(parser, ServeOptions)
    given = vars(parser.parse_args(argv))
    files, _ = given.pop("models"), given.pop("debug")
    options = ServeOptions(**given)
    check_bounds(options)
    missing = [name for name in _NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        raise UserError("a library is missing", f"{missing[0]}, to serve", "python -m pip install -e .[serve]")
    return options, files


def page_files(project: Path) -> Mapping[str, tuple[bytes, str]]:
    """The page's files by the names that it asks for, with their media types; "" is the page itself."""
    own = {"view.js": project / "view.js", "answer.js": _PAGES / "server.js", "": _PAGES / "page.html"}
    paths = {path.name: path for path in _PAGES.iterdir() if path.suffix in (".css", ".js")} | own
    return {name: (path.read_bytes(), _MEDIA_TYPES[path.suffix]) for name, path in paths.items() if path.is_file()}


def _listen(host: str, port: int) -> socket.socket:
    """A socket that listens. Raises UserError."""
    listener = None
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family, kind, protocol)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(_BACKLOG)
    except (OSError, UnicodeError) as error:
        if listener is not None:
            listener.close()
        reason = getattr(error, "strerror", None) or str(error)
        raise UserError("cannot listen", f"--host {host} --port {port} ({reason})", "give another") from error
    return listener
