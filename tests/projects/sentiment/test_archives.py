"""The published archives are read as they are laid out, and others are refused."""

import hashlib
import io
import socket
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from core.download import RemoteFile
from core.errors import UserError
from projects.sentiment import archives
from projects.sentiment.config import Config
from projects.sentiment.datasets import load_dataset

Install = Callable[[str, bytes], Path]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Install:
    """Puts content into the cache as the archive that is expected there."""

    def put(name: str, content: bytes) -> Path:
        pinned: RemoteFile = getattr(archives, name)
        path = tmp_path / "cache" / pinned.name
        path.parent.mkdir()
        path.write_bytes(content)
        digest = hashlib.sha256(content).hexdigest()
        monkeypatch.setattr(archives, name, RemoteFile(path.name, len(content), digest, ()))
        monkeypatch.setenv("ATELIER_CACHE", str(path.parent))
        return path

    return put


def zipped(**members: str) -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        for name, text in members.items():
            archive.writestr(f"SST-2/{name}.tsv", text)
        archive.writestr("SST-2/test.tsv", "index\tsentence\n0\tno label\n")
    return content.getvalue()


def tarred(members: list[tuple[str, str]]) -> bytes:
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w:gz") as archive:
        for name, text in members:
            member = tarfile.TarInfo(f"aclImdb/{name}")
            member.size = len(text.encode())
            archive.addfile(member, io.BytesIO(text.encode()))
    return content.getvalue()


def test_sst2_is_read_from_its_zip(install: Install, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archives, "SST2_SIZES", {"train": 2, "dev": 1})
    install("SST2", zipped(train="sentence\tlabel\nit 's fine \t1\n\" dull \t0\n", dev="sentence\tlabel\nso so\t0\n"))
    rows = archives.read_sst2()
    assert [(row.text, row.label) for row in rows["train"]] == [("it 's fine", "positive"), ('" dull', "negative")]
    assert [tuple(row) for row in rows["dev"]] == [("so so", "negative", "SST-2.zip/SST-2/dev.tsv line 2")]


@pytest.mark.parametrize("lines", ["fine\t1\n", "fine\t1\nbad\t2\n", "fine\t1\nbad\n"])
def test_an_sst2_of_other_lines_is_refused(lines: str, install: Install, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archives, "SST2_SIZES", {"train": 2, "dev": 2})
    path = install("SST2", zipped(train="sentence\tlabel\n" + lines, dev=""))
    with pytest.raises(UserError, match="not the SST-2 sentences") as caught:
        archives.read_sst2()
    assert str(path) in str(caught.value)


MEMBERS = [
    ("train/pos/1_9.txt", "best"),
    ("train/pos/0_8.txt", "good<br />fun"),
    ("train/neg/0_1.txt", "bad"),
    ("train/neg/1_2.txt", "wörse"),
    ("train/unsup/0_0.txt", "no label"),
    ("train/urls_pos.txt", "addresses"),
    ("test/pos/0_9.txt", "fine"),
    ("test/pos/1_9.txt", "fine too"),
    ("test/neg/0_1.txt", "dull"),
    ("test/neg/1_1.txt", "dull too"),
    ("README", "words"),
]


def test_imdb_is_read_in_the_order_of_numbers_wherever_members_stand(
    install: Install, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(archives, "IMDB_SIZE", 2)
    install("IMDB", tarred(MEMBERS))
    before = sorted(tmp_path.rglob("*"))
    rows = archives.read_imdb()
    assert [(row.text, row.label) for row in rows["train"]] == [
        ("bad", "negative"),
        ("wörse", "negative"),
        ("good<br />fun", "positive"),
        ("best", "positive"),
    ]
    assert [row.text for row in rows["test"]] == ["dull", "dull too", "fine", "fine too"]
    assert sorted(tmp_path.rglob("*")) == before  # nothing is unpacked


def test_an_imdb_that_lacks_a_review_is_refused(install: Install, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archives, "IMDB_SIZE", 2)
    path = install("IMDB", tarred([member for member in MEMBERS if member[1] != "dull"]))
    with pytest.raises(UserError, match="1 in aclImdb/test/neg") as caught:
        archives.read_imdb()
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("name", ["SST2", "IMDB"])
def test_a_changed_archive_is_refused(name: str, install: Install) -> None:
    path = install(name, b"something")
    path.write_bytes(b"something else")
    with pytest.raises(UserError, match="changed") as caught:
        {"SST2": archives.read_sst2, "IMDB": archives.read_imdb}[name]()
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("name", ["SST2", "IMDB"])
def test_without_network_one_line_says_what_file_to_put_where(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    pinned: RemoteFile = getattr(archives, name)
    nowhere = [f"http://127.0.0.1:{port}/{part}" for part in ("a", "b")]
    monkeypatch.setattr(archives, name, RemoteFile(pinned.name, pinned.size, pinned.sha256, nowhere))
    monkeypatch.setenv("ATELIER_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with pytest.raises(UserError) as caught:
        load_dataset(Config(data=name.lower()))
    message = str(caught.value)
    for part in (pinned.name, str(pinned.size), pinned.sha256, str(tmp_path / "cache" / pinned.name)):
        assert part in message
    assert "\n" not in message
    assert not list(tmp_path.rglob("*.part"))


def test_every_mirror_is_asked_over_https_and_the_files_are_pinned() -> None:
    for pinned in (archives.SST2, archives.IMDB):
        assert len(pinned.urls) >= 2
        assert all(url.startswith("https://") for url in pinned.urls)
        assert len(pinned.sha256) == 64
