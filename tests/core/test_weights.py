"""Weights files: read without running code, and found in torch.hub's cache or downloaded into it."""

import hashlib
import os
import pickle
import threading
import zipfile
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import safetensors.torch
import torch
from torch import Tensor

from core.errors import UserError
from core.weights import read_weights, torch_hub_file


def weights() -> dict[str, Tensor]:
    return {"conv.weight": torch.arange(24.0).reshape(2, 3, 2, 2), "norm.count": torch.tensor(3)}


@pytest.mark.parametrize("name", ["w.safetensors", "w.pth", "w.pt"])
def test_a_file_of_tensors_comes_back_as_it_was(name: str, tmp_path: Path) -> None:
    save(weights(), tmp_path / name)
    found = read_weights(tmp_path / name)
    assert found.keys() == weights().keys()
    assert all(torch.equal(found[key], tensor) for key, tensor in weights().items())


def save(tensors: dict[str, Tensor], path: Path) -> None:
    (safetensors.torch.save_file if path.suffix == ".safetensors" else torch.save)(tensors, path)


@pytest.mark.parametrize("key", ["state_dict", "model"])
def test_the_wrappings_of_training_programs_are_taken_off(key: str, tmp_path: Path) -> None:
    wrapped = {f"module.{name}": tensor for name, tensor in weights().items()}
    torch.save({key: wrapped, "epoch": 3}, tmp_path / "w.pth")
    assert read_weights(tmp_path / "w.pth").keys() == weights().keys()


class Bomb:
    """Makes a file when it is unpickled the careless way."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (self.path,)


def test_a_file_with_code_in_it_is_refused_and_the_code_does_not_run(tmp_path: Path) -> None:
    victim = tmp_path / "made by the file"
    torch.save({"conv.weight": torch.zeros(1), "more": Bomb(victim)}, tmp_path / "zip.pth")
    (tmp_path / "raw.pth").write_bytes(pickle.dumps(Bomb(victim)))
    for name in ("zip.pth", "raw.pth"):
        with pytest.raises(UserError, match="not a readable weights file") as caught:
            read_weights(tmp_path / name)
        assert str(tmp_path / name) in str(caught.value)
        assert "\n" not in str(caught.value)
        assert "weights_only=False" not in str(caught.value)
    assert not victim.exists()
    pickle.loads((tmp_path / "raw.pth").read_bytes())
    assert victim.exists(), "the code is live"


@pytest.mark.parametrize("name", ["w.safetensors", "w.pth"])
@pytest.mark.parametrize("content", [b"", b"a text", b"<html></html>", b"\x80\x02"])
def test_what_is_no_weights_file_is_named_in_one_line(name: str, content: bytes, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=name) as caught:
        read_weights(tmp_path / name)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("keep", [0.1, 0.5, 0.99])
@pytest.mark.parametrize("name", ["w.safetensors", "w.pth"])
def test_a_truncated_file_is_refused(name: str, keep: float, tmp_path: Path) -> None:
    path = tmp_path / name
    save(weights(), path)
    path.write_bytes(path.read_bytes()[: int(keep * path.stat().st_size)])
    with pytest.raises(UserError, match=name):
        read_weights(path)


@pytest.mark.parametrize("found", [{}, {"a": 1}, {"model": {"b": "text"}}, [1, 2]])
def test_a_file_without_tensors_by_name_is_refused(found: object, tmp_path: Path) -> None:
    torch.save(found, tmp_path / "w.pth")
    with pytest.raises(UserError, match="no weights in the file"):
        read_weights(tmp_path / "w.pth")


TENSORS = {
    "meta": lambda: torch.empty(3, device="meta"),
    "sparse": lambda: torch.eye(3).to_sparse(),
    "a view of one number": lambda: torch.zeros(1).expand(10**12),
}


@pytest.mark.parametrize("kind", TENSORS)
def test_a_tensor_without_numbers_of_its_own_is_named(kind: str, tmp_path: Path) -> None:
    torch.save({"conv.weight": TENSORS[kind]()}, tmp_path / "w.pth")
    with pytest.raises(UserError, match=r"conv\.weight in .*w\.pth"):
        read_weights(tmp_path / "w.pth")


@pytest.mark.parametrize("name", ["w.pth", "w.safetensors"])
def test_a_fifo_is_refused_and_not_waited_for(name: str, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / name)
    with pytest.raises(UserError, match=name):
        read_weights(tmp_path / name)


def test_a_zip_that_holds_no_tensors_is_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "w.pth", "w") as archive:
        archive.writestr("archive/data.pkl", b"not a pickle")
    with pytest.raises(UserError, match=r"w\.pth"):
        read_weights(tmp_path / "w.pth")


class Quiet(SimpleHTTPRequestHandler):
    """A server of a folder that says nothing."""

    def log_message(self, format: str, *arguments: object) -> None:
        """Nothing."""


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[str, Path]]:
    """The address of a server, the folder that it serves, and an empty torch.hub cache in tmp_path/hub."""
    (tmp_path / "served").mkdir()
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "home"))
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=tmp_path / "served")) as running:
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{running.server_port}", tmp_path / "served"
        running.shutdown()
        thread.join()


def test_a_file_is_downloaded_once_and_read_again_when_the_server_is_gone(
    server: tuple[str, Path], tmp_path: Path
) -> None:
    content = safetensors.torch.save(weights())
    name = f"net-{hashlib.sha256(content).hexdigest()[:8]}.safetensors"
    (server[1] / name).write_bytes(content)
    path = torch_hub_file(f"{server[0]}/{name}")
    assert path == tmp_path / "home" / "hub" / "checkpoints" / name
    assert path.read_bytes() == content
    (server[1] / name).unlink()
    assert torch_hub_file(f"{server[0]}/{name}") == path


def test_a_wrong_file_is_not_kept_and_one_that_was_changed_is_named(server: tuple[str, Path]) -> None:
    (server[1] / "net-00000000.pth").write_bytes(b"another file")
    url = f"{server[0]}/net-00000000.pth"
    with pytest.raises(UserError, match=r"no pretrained weights: .*SHA-256 does not begin with 00000000.*put it at"):
        torch_hub_file(url)
    folder = Path(torch.hub.get_dir()) / "checkpoints"
    assert list(folder.iterdir()) == []
    (folder / "net-00000000.pth").write_bytes(b"another file")
    with pytest.raises(UserError, match="a downloaded file was changed"):
        torch_hub_file(url)


def test_a_file_that_no_server_has_is_named_with_the_place_where_it_may_be_put(server: tuple[str, Path]) -> None:
    with pytest.raises(UserError, match=r"net-00000000\.pth .*[Nn]ot found.*put it at .*checkpoints/net-00000000\.pth"):
        torch_hub_file(f"{server[0]}/net-00000000.pth")
