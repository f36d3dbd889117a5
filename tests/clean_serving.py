"""Installs what .ci/serve.Dockerfile installs into a new environment, and serves models there: for people and for CI.

    python -m tests.clean_serving PROJECT=MODEL.onnx...

It needs a package index. It fails where torch came along, where the packages take more than 400 MB, and where a model's
server does not answer.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import urllib.request
from pathlib import Path

ROOT = Path(__file__).parents[1]
INSTALLED = ("core", "projects", "cuda_ext", "pyproject.toml", "README.md", "LICENSE")
MAX_BYTES = 400e6


def main() -> int:
    """The command line; the exit code is 1 where something is not as it should be."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "source").mkdir()
        for each in INSTALLED:  # a copy, because pip builds beside the sources
            copy = shutil.copytree if (ROOT / each).is_dir() else shutil.copy
            copy(ROOT / each, folder / "source" / each)
        python = folder / "venv" / "bin" / "python"
        subprocess.run([sys.executable, "-m", "venv", str(folder / "venv")], check=True)
        install = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*install, "--requirement", str(ROOT / ".ci" / "serve-requirements.txt")], check=True)
        subprocess.run([*install, "--no-deps", str(folder / "source")], check=True)
        packages = next((folder / "venv" / "lib").glob("python*/site-packages"))
        num_bytes = sum(path.stat().st_size for path in packages.rglob("*") if path.is_file())
        print(f"{num_bytes / 1e6:.0f} MB of packages, pip among them; allowed are {MAX_BYTES / 1e6:.0f}")
        good = num_bytes <= MAX_BYTES and not (packages / "torch").exists()
        for word in sys.argv[1:]:
            project, _, path = word.partition("=")
            good &= answers(python, project, Path(path).resolve(), folder)
    return 0 if good else 1


def answers(python: Path, project: str, path: Path, folder: Path) -> bool:
    """Whether a model's server starts in the new environment and answers."""
    command = [str(python), "-m", f"projects.{project}.serve", str(path), "--port", "0"]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    with subprocess.Popen(command, cwd=folder, env=environment, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        address = re.search(r"http://[\w.:]+", server.stdout.readline())
        if address is not None:
            model = json.load(urllib.request.urlopen(f"{address[0]}/model"))
            page = [urllib.request.urlopen(f"{address[0]}/{name}").status for name in ("", "page.js", "view.js")]
            print(f"{project}: {model['task']} is served, with its page: {page}", flush=True)
        server.terminate()
    return address is not None


if __name__ == "__main__":
    sys.exit(main())
