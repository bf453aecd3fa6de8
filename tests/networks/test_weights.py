from __future__ import annotations

import hashlib
import os
import re
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from romacli.errors import WeightsError
from romacli.matchers.registry import MATCHERS
from romacli.networks import weights
from romacli.networks.weights import (
    download,
    locate,
    open_https,
    read_state_dict,
    sha256_of,
    weights_folder,
)
from romacli.types import WeightsEntry

CONTENT = bytes(range(256)) * 1000


ROMA = MATCHERS["roma-outdoor"].weights[0]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ROMACLI_WEIGHTS_DIR", str(tmp_path / "weights"))
    return tmp_path / "weights"


class FileServer(ThreadingHTTPServer):
    """Serves CONTENT at any path; `cut` ends a response early, `ranges` says if range requests are supported."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.cut: int | None = None
        self.ranges = True
        self.asked: list[str | None] = []


class Handler(BaseHTTPRequestHandler):
    server: FileServer

    def do_GET(self) -> None:
        asked = self.headers["Range"]
        self.server.asked.append(asked)
        start = int(re.fullmatch(r"bytes=(\d+)-", asked or "bytes=0-")[1]) if self.server.ranges else 0
        if start >= len(CONTENT):
            self.send_response(416)
            self.end_headers()
            return
        self.send_response(206 if self.server.ranges else 200)
        self.send_header("Content-Length", str(len(CONTENT) - start))
        if self.server.ranges:
            self.send_header("Content-Range", f"bytes {start}-{len(CONTENT) - 1}/{len(CONTENT)}")
        self.end_headers()
        self.wfile.write(CONTENT[start : self.server.cut])

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def server() -> Iterator[FileServer]:
    with FileServer() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def entry(server: FileServer) -> WeightsEntry:
    return WeightsEntry("net", f"http://127.0.0.1:{server.server_port}/net.pth", "MIT", "net.pth")


def fetch(entry: WeightsEntry, **options: Any) -> Path:
    """Download over plain http, which is allowed in tests only."""
    return download(entry, open_url=lambda request: urllib.request.urlopen(request, timeout=5), **options)


def test_download_arrives_whole_with_its_hash_and_progress(entry: WeightsEntry, folder: Path) -> None:
    seen: list[tuple[int, int]] = []
    path = fetch(entry, progress=lambda held, whole: seen.append((held, whole)))
    assert path == folder / "net.pth" == locate(entry)
    assert path.read_bytes() == CONTENT
    assert seen[-1] == (len(CONTENT), len(CONTENT))
    assert hashlib.sha256(CONTENT).hexdigest() in (folder / "net.pth.sha256").read_text()
    assert not (folder / "net.pth.part").exists()


def test_a_file_that_is_there_is_not_fetched_again(entry: WeightsEntry, server: FileServer) -> None:
    assert fetch(entry) == fetch(entry)
    assert len(server.asked) == 1


def test_an_interrupted_download_never_gets_its_name_and_goes_on_where_it_stopped(
    entry: WeightsEntry, server: FileServer, folder: Path
) -> None:
    server.cut = 70_000
    with pytest.raises(WeightsError, match=r"70000 of 256000 bytes arrived"):
        fetch(entry)
    assert locate(entry) is None
    server.cut = None
    assert fetch(entry).read_bytes() == CONTENT
    assert server.asked == ["bytes=0-", "bytes=70000-"]


def test_a_server_without_ranges_sends_the_file_from_its_start(
    entry: WeightsEntry, server: FileServer, folder: Path
) -> None:
    folder.mkdir()
    (folder / "net.pth.part").write_bytes(b"x" * 1000)
    server.ranges = False
    assert fetch(entry).read_bytes() == CONTENT


def test_a_part_longer_than_the_file_is_dropped(entry: WeightsEntry, folder: Path) -> None:
    folder.mkdir()
    (folder / "net.pth.part").write_bytes(b"x" * (len(CONTENT) + 1))
    assert fetch(entry).read_bytes() == CONTENT


def test_without_a_connection_the_message_says_what_to_place_where(folder: Path) -> None:
    def no_network(_: urllib.request.Request) -> Any:
        raise urllib.error.URLError("Name or service not known")

    with pytest.raises(WeightsError) as error:
        download(ROMA, open_url=no_network)
    message = str(error.value)
    assert message.startswith(f"{ROMA.url} could not be fetched (Name or service not known).")
    assert f"place roma_outdoor.pth in {folder} by hand, or give the file with --weights FILE." in message


def test_plain_http_is_refused(entry: WeightsEntry, server: FileServer) -> None:
    with pytest.raises(WeightsError, match="is not an https address"):
        download(entry)
    with pytest.raises(OSError, match="not an https address"):
        open_https(urllib.request.Request("file:///etc/hostname"))
    assert server.asked == []


def test_a_redirect_away_from_https_is_refused() -> None:
    request = urllib.request.Request("https://example.org/a.pth")
    with pytest.raises(OSError, match=r"redirected to http://example.org/a.pth, which is not an https"):
        weights._HttpsRedirects().redirect_request(request, None, 302, "Found", {}, "http://example.org/a.pth")


def test_published_addresses_are_https_and_mini_is_in_the_package() -> None:
    addresses = {entry.name: entry.url for spec in MATCHERS.values() for entry in spec.weights}
    assert all(url.startswith("https://") for url in addresses.values() if url)
    assert [name for name, url in addresses.items() if url is None] == ["mini"]


def test_folder_follows_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("ROMACLI_WEIGHTS_DIR")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert weights_folder() == tmp_path / "romacli"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert weights_folder() == Path.home() / ".cache" / "romacli"


def test_the_hash_is_computed_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder.mkdir()
    path = folder / "a.pth"
    path.write_bytes(b"weights")
    expected = hashlib.sha256(b"weights").hexdigest()
    assert sha256_of(path) == expected
    monkeypatch.setattr(weights, "_hash", lambda _: pytest.fail("computed twice"))
    assert sha256_of(path) == expected


def test_a_file_touched_but_equal_is_accepted_and_a_changed_one_refused(folder: Path) -> None:
    folder.mkdir()
    path = folder / "a.pth"
    path.write_bytes(b"weights")
    first = sha256_of(path)
    os.utime(path, ns=(0, 0))
    assert sha256_of(path) == first
    path.write_bytes(b"others!")
    with pytest.raises(WeightsError, match=r"a.pth is not the file first used under this name .* a.pth.sha256"):
        sha256_of(path)
    (folder / "a.pth.sha256").unlink()
    assert sha256_of(path) == hashlib.sha256(b"others!").hexdigest()


def test_no_hash_is_written_beside_files_elsewhere(tmp_path: Path) -> None:
    path = tmp_path / "mine.pth"
    path.write_bytes(b"weights")
    assert sha256_of(path) == hashlib.sha256(b"weights").hexdigest()
    assert list(tmp_path.iterdir()) == [path]


def test_a_damaged_hash_record_is_named(folder: Path) -> None:
    folder.mkdir()
    path = folder / "a.pth"
    path.write_bytes(b"weights")
    (folder / "a.pth.sha256").write_text("{")
    with pytest.raises(WeightsError, match=r"a.pth.sha256 is damaged. Delete it"):
        sha256_of(path)


STATE = {"a.weight": torch.arange(6.0).view(2, 3), "count": torch.tensor(3)}


@pytest.mark.parametrize("name", ["a.pth", "old.pth", "a.safetensors"])
def test_state_dicts_are_read_from_each_format(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    if path.suffix == ".pth":
        torch.save(STATE, path, _use_new_zipfile_serialization=name != "old.pth")
    else:
        save_file(STATE, path)
    found = read_state_dict(path)
    assert found.keys() == STATE.keys()
    assert all(torch.equal(found[key], STATE[key]) for key in STATE)


@pytest.mark.parametrize("name", ["a.pth", "a.safetensors"])
@pytest.mark.parametrize("kept", [0, 100, 0.5, 0.99])
def test_truncated_files_are_refused_by_name(tmp_path: Path, name: str, kept: float) -> None:
    path = tmp_path / name
    state = {"w": torch.randn(300, 10)}
    torch.save(state, path) if path.suffix == ".pth" else save_file(state, path)
    content = path.read_bytes()
    path.write_bytes(content[: int(kept * len(content)) if kept < 1 else int(kept)])
    with pytest.raises(WeightsError, match=rf"{name} cannot be read as a checkpoint: .* fetch it again\.$"):
        read_state_dict(path)


def test_files_without_named_tensors_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.pth"
    torch.save({"model": {"w": torch.zeros(1)}}, path)
    with pytest.raises(WeightsError, match="does not contain only named tensors"):
        read_state_dict(path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"none.pth cannot be read as weights: No such file"):
        read_state_dict(tmp_path / "none.pth")


def test_code_in_a_checkpoint_is_not_run(tmp_path: Path) -> None:
    torch.save({"w": Mischief(tmp_path / "ran")}, tmp_path / "a.pth")
    with pytest.raises(WeightsError, match="cannot be read as a checkpoint"):
        read_state_dict(tmp_path / "a.pth")
    assert not (tmp_path / "ran").exists()


class Mischief:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


def test_the_table_is_readable_without_torch() -> None:
    code = "import sys, romacli.networks.weights; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=Path(weights.__file__).parents[2]).returncode == 0
