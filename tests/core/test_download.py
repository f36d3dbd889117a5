"""A download is the right file as a whole, or a message with all that is needed to fetch it by hand."""

import contextlib
import hashlib
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from core.download import RemoteFile, fetch
from core.errors import UserError

CONTENT = bytes(range(256)) * 40
SHA256 = hashlib.sha256(CONTENT).hexdigest()


class Mirror(BaseHTTPRequestHandler):
    """Serves CONTENT at /good, and faults elsewhere."""

    def do_GET(self) -> None:
        """Answers."""
        kind = self.path.strip("/")
        if kind == "gibberish":
            self.wfile.write(b"hello\r\n\r\n")
        elif kind == "missing":
            self.send_error(404)
        elif kind == "chunked":
            self.send_response(200)
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            self.wfile.write(b"400\r\nonly this")
        elif kind == "slow":
            self.send_response(200)
            self.send_header("Content-Length", str(len(CONTENT)))
            self.end_headers()
            with contextlib.suppress(OSError):
                for byte in CONTENT:
                    self.wfile.write(bytes([byte]))
                    time.sleep(0.05)
        elif kind == "elsewhere":
            self.send_response(302)
            port = self.headers["Host"].rpartition(":")[2]
            self.send_header("Location", f"http://localhost:{port}/good")
            self.end_headers()
        else:
            bodies = {"changed": CONTENT[:-1] + b"x", "truncated": CONTENT[:-9], "oversized": CONTENT * 2}
            body = bodies.get(kind, CONTENT)
            self.send_response(200)
            self.send_header("Content-Length", str(max(len(body), len(CONTENT))))
            self.end_headers()
            self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Is silent."""


@pytest.fixture(scope="module")
def mirror() -> Iterator[str]:
    """The address of a running mirror."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Mirror)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache folder that does not exist yet."""
    monkeypatch.setenv("ATELIER_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("no_proxy", "*")
    return tmp_path / "cache"


def remote(*urls: str) -> RemoteFile:
    """The file, as a project pins it."""
    return RemoteFile("data.bin", len(CONTENT), SHA256, urls)


DEAD = "http://127.0.0.1:1"
FAULTS = ["changed", "truncated", "oversized", "missing", "elsewhere", "gibberish", "chunked"]


def test_a_good_file_is_kept_and_not_fetched_again(mirror: str, cache: Path) -> None:
    path = fetch(remote(f"{mirror}/good"))
    assert path == cache / "data.bin"
    assert path.read_bytes() == CONTENT
    assert fetch(remote(DEAD)) == path
    assert list(cache.iterdir()) == [path]


@pytest.mark.parametrize("fault", [*FAULTS, "dead", "file"])
def test_the_next_mirror_is_used_after_one_that_fails(fault: str, mirror: str, cache: Path) -> None:
    first = {"dead": DEAD, "file": "file:///etc/hostname"}.get(fault, f"{mirror}/{fault}")
    assert fetch(remote(first, f"{mirror}/good")).read_bytes() == CONTENT
    assert [path.name for path in cache.iterdir()] == ["data.bin"]


@pytest.mark.parametrize("fault", FAULTS)
def test_what_is_not_the_pinned_file_is_never_left_behind(fault: str, mirror: str, cache: Path) -> None:
    with pytest.raises(UserError, match=r"no mirror gave data\.bin"):
        fetch(remote(f"{mirror}/{fault}"))
    assert list(cache.iterdir()) == []


def test_offline_the_message_says_what_to_put_where(cache: Path) -> None:
    with pytest.raises(UserError) as caught:
        fetch(remote(DEAD, "http://127.0.0.1:2/x"))
    for word in ("data.bin", f"{len(CONTENT)} bytes", SHA256, str(cache / "data.bin"), "127.0.0.1:1", "127.0.0.1:2"):
        assert word in str(caught.value)


def test_a_file_put_there_by_hand_is_used(cache: Path) -> None:
    cache.mkdir()
    (cache / "data.bin").write_bytes(CONTENT)
    assert fetch(remote(DEAD)) == cache / "data.bin"


@pytest.mark.parametrize("content", [b"", CONTENT[:-1] + b"x", CONTENT + b"x"])
def test_a_changed_file_in_the_cache_is_refused_and_not_deleted(content: bytes, mirror: str, cache: Path) -> None:
    cache.mkdir()
    (cache / "data.bin").write_bytes(content)
    with pytest.raises(UserError, match=f"data\\.bin.*{SHA256}"):
        fetch(remote(f"{mirror}/good"))
    assert (cache / "data.bin").read_bytes() == content


def test_a_mirror_that_trickles_is_given_up_after_the_time_for_the_whole(
    mirror: str, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("core.download._SECONDS_FOR_ANY", 0.2)
    began = time.monotonic()
    assert fetch(remote(f"{mirror}/slow", f"{mirror}/good")).read_bytes() == CONTENT
    assert time.monotonic() - began < 10


@pytest.mark.parametrize("place", ["file", "file/cache"])
def test_a_cache_that_cannot_be_used_names_the_variable(
    place: str, tmp_path: Path, mirror: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("x", encoding="utf-8")
    monkeypatch.setenv("ATELIER_CACHE", str(tmp_path / place))
    with pytest.raises(UserError, match="ATELIER_CACHE"):
        fetch(remote(f"{mirror}/good"))


def test_a_file_in_the_cache_that_cannot_be_read_names_the_variable(cache: Path) -> None:
    (cache / "data.bin").mkdir(parents=True)
    file = remote(DEAD)
    with pytest.raises(UserError, match="ATELIER_CACHE"):
        fetch(RemoteFile(file.name, (cache / "data.bin").stat().st_size, file.sha256, file.urls))


def test_without_a_home_the_variable_is_named(mirror: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ATELIER_CACHE", raising=False)

    def no_home() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", no_home)
    with pytest.raises(UserError, match="ATELIER_CACHE"):
        fetch(remote(f"{mirror}/good"))
