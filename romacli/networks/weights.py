"""Find, download and read checkpoints: recorded hashes, strict layouts.

Works on files and state dicts, independent of the networks; torch is imported only to read a file.
"""

from __future__ import annotations

import fcntl
import hashlib
import http.client
import json
import os
import urllib.error
import urllib.request
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from email.message import Message
from http import HTTPStatus
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from romacli.errors import WeightsError
from romacli.types import WeightsEntry
from romacli.words import first_few

if TYPE_CHECKING:
    from torch import Tensor, nn

CHUNK_BYTES = 1 << 20
TIMEOUT_S = 60

Progress = Callable[[int, int], None]
"""Called with the bytes received so far and the size of the whole file."""

OpenUrl = Callable[[urllib.request.Request], Any]
"""Opens a request as `urllib.request.urlopen` does."""


def weights_folder() -> Path:
    """The folder of downloaded files: $ROMACLI_WEIGHTS_DIR, or romacli in the user's cache."""
    if folder := os.environ.get("ROMACLI_WEIGHTS_DIR"):
        return Path(folder).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "romacli"


def expected_path(entry: WeightsEntry) -> Path:
    """Where the entry's file is, or would be after download."""
    return (weights_folder() if entry.url else Path(__file__).parent) / entry.file_name


def locate(entry: WeightsEntry) -> Path | None:
    """The entry's file, or None if it has not been downloaded."""
    path = expected_path(entry)
    return path if path.is_file() else None


def download(entry: WeightsEntry, *, progress: Progress | None = None, open_url: OpenUrl | None = None) -> Path:
    """Download the entry's file into the weights folder unless it is there, and return its path.

    An interrupted download resumes where it stopped; a second process waits for the first. The file appears only when
    complete and of the announced length. As no published hash is known, the first one seen is recorded next to the
    file, and later uses are compared with it.

    Args:
        progress: called after every chunk.
        open_url: opens a request; by default urllib over https.

    Raises:
        WeightsError: no connection, or a file of a different length; the message says where to place it by hand.
    """
    if (path := locate(entry)) is not None:
        return path
    if entry.url is None:
        raise WeightsError(f"{entry.file_name} is missing from the installation. Install romacli again.")
    path = weights_folder() / entry.file_name
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with _alone(path):
            if not path.is_file():
                _fetch(entry.url, path, progress=progress, open_url=open_url or open_https)
    except (OSError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", None) or error
        raise WeightsError(
            f"{entry.url} could not be fetched ({reason}). Run the command again to resume, "
            f"or place {entry.file_name} in {path.parent} by hand, or give the file with --weights FILE."
        ) from error
    sha256_of(path)
    return path


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Wait until no other process is fetching this file; the lock ends with the process that holds it."""
    with path.with_name(f"{path.name}.lock").open("wb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _fetch(url: str, path: Path, *, progress: Progress | None, open_url: OpenUrl) -> None:
    """Complete the part file, check its length and rename it."""
    part = path.with_name(f"{path.name}.part")
    held = part.stat().st_size if part.exists() else 0
    request = urllib.request.Request(url, headers={"Range": f"bytes={held}-"})
    try:
        response = open_url(request)
    except urllib.error.HTTPError as error:
        if error.code != HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE or not held:
            raise
        part.unlink()  # longer than the published file, so not its beginning
        return _fetch(url, path, progress=progress, open_url=open_url)
    with response:
        resumed = response.status == HTTPStatus.PARTIAL_CONTENT
        length = _whole_length(response.headers, resumed=resumed)
        with part.open("ab" if resumed else "wb") as file:
            while piece := response.read(CHUNK_BYTES):
                file.write(piece)
                if progress is not None:
                    progress(file.tell(), length)
    if (arrived := part.stat().st_size) != length:
        raise OSError(f"{arrived} of {length} bytes arrived")
    os.replace(part, path)


def _whole_length(headers: Message, *, resumed: bool) -> int:
    """The size of the whole file in bytes, as stated by the server."""
    stated = headers.get("Content-Range", "").rpartition("/")[2] if resumed else headers.get("Content-Length", "")
    if not stated.isdecimal():
        raise OSError("the server does not state the file's length")
    return int(stated)


def open_https(request: urllib.request.Request) -> Any:
    """Open a request; refuse any address or redirect that is not https."""
    if request.type != "https":
        raise OSError(f"{request.full_url} is not an https address")
    return urllib.request.build_opener(_HttpsRedirects).open(request, timeout=TIMEOUT_S)


class _HttpsRedirects(urllib.request.HTTPRedirectHandler):
    def redirect_request(
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: Any, newurl: str
    ) -> urllib.request.Request | None:
        if not newurl.startswith("https://"):
            raise OSError(f"redirected to {newurl}, which is not an https address")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def sha256_of(path: Path) -> str:
    """The file's SHA-256 in hexadecimal.

    For files in the weights folder it is stored in `<file>.sha256` with the file's size and time, so it is computed
    only once, and a changed file is noticed.

    Raises:
        WeightsError: the file does not exist, or a file in the weights folder is not the one first seen there.
    """
    _require_readable(path)
    if path.resolve().parent != weights_folder().resolve():
        return _hash(path)
    sidecar, state = path.with_name(f"{path.name}.sha256"), path.stat()
    stamp = {"size": state.st_size, "mtime_ns": state.st_mtime_ns}
    recorded = _read_sidecar(sidecar)
    if stamp.items() <= recorded.items():
        return recorded["sha256"]
    sha256 = _hash(path)
    if recorded and recorded["sha256"] != sha256:
        raise WeightsError(
            f"{path} is not the file first used under this name (sha256 {sha256[:12]}, was "
            f"{recorded['sha256'][:12]}). Delete it to fetch it again, or delete {sidecar.name} to accept it."
        )
    with suppress(OSError):  # if the folder is not writable, the hash is computed each time
        written = sidecar.with_name(f"{sidecar.name}.{os.getpid()}")
        written.write_text(json.dumps({"sha256": sha256, **stamp}) + "\n", encoding="utf-8")
        os.replace(written, sidecar)
    return sha256


def _require_readable(path: Path) -> None:
    try:
        path.open("rb").close()
    except OSError as error:
        raise WeightsError(f"{path} cannot be read as weights: {error.strerror}. Give a file of weights.") from error


def recorded_sha256(path: Path) -> str | None:
    """The SHA-256 recorded at a file's first use, or None before that; nothing is computed."""
    recorded: str | None = _read_sidecar(path.with_name(f"{path.name}.sha256")).get("sha256")
    return recorded


def _hash(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(CHUNK_BYTES):
            digest.update(piece)
    return digest.hexdigest()


def _read_sidecar(sidecar: Path) -> dict[str, Any]:
    try:
        recorded = json.loads(sidecar.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except ValueError:
        recorded = None
    if not isinstance(recorded, dict) or "sha256" not in recorded:
        raise WeightsError(f"{sidecar} is damaged. Delete it; it is recomputed at the next use.")
    return recorded


def read_state_dict(path: Path, *, within: str | None = None) -> dict[str, Tensor]:
    """Read the tensors of a .pth or .safetensors file by name, on the CPU; a .pth file is memory-mapped.

    within: the key of the state dict inside the file.

    Raises:
        WeightsError: the file is missing, truncated or contains something else.
    """
    _require_readable(path)
    try:
        state = _open_state_dict(path)
    except Exception as error:  # the readers' errors for foreign bytes have no common base class
        raise WeightsError(f"{path} cannot be read as a checkpoint: {_first_line(error)} {_REMEDY}") from error
    if within is not None and isinstance(state, dict):
        state = state.get(within, state)
    if not _is_state_dict(state):
        raise WeightsError(f"{path} does not contain only named tensors, as a checkpoint does. {_REMEDY}")
    return state


def read_weights(path: Path) -> tuple[dict[str, str], dict[str, Tensor]]:
    """Read the metadata and the tensors of a file made by `romacli train`.

    Raises:
        WeightsError: the file is missing or damaged.
    """
    from safetensors import SafetensorError, safe_open

    _require_readable(path)
    try:
        with safe_open(str(path), framework="pt") as file:
            return file.metadata() or {}, {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise WeightsError(f"{path} cannot be read as weights: {error}. Fetch it again or train a new one.") from error


def read_facts(path: Path) -> dict[str, str]:
    """The metadata of a .safetensors file; empty for other or damaged files, which `read_state_dict` reports."""
    from safetensors import SafetensorError, safe_open

    if path.suffix != ".safetensors" or not path.is_file():
        return {}
    try:
        with safe_open(str(path), framework="pt") as file:
            return file.metadata() or {}
    except (OSError, SafetensorError):
        return {}


_REMEDY = "It may be truncated or the wrong file: fetch it again."


def _open_state_dict(path: Path) -> Any:
    if path.suffix == ".safetensors":
        from safetensors.torch import load_file

        return load_file(path)
    import torch

    return torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))


def _is_state_dict(state: Any) -> bool:
    import torch

    return isinstance(state, dict) and all(
        isinstance(name, str) and isinstance(tensor, torch.Tensor) for name, tensor in state.items()
    )


def _first_line(error: Exception) -> str:
    text = (str(error).splitlines() or [""])[0].rstrip(".")
    return f"{text}." if text else f"{type(error).__name__}."


def load_strictly(
    net: nn.Module,
    found: Mapping[str, Tensor],
    name_of: Callable[[str], str],
    *,
    what: str,
    unread: Mapping[str, tuple[int, ...]] | None = None,
) -> None:
    """Load a published state dict into a network, in float32, and set it to inference.

    Args:
        net: built on any device, including `meta`.
        found: tensors by their published names; float tensors of any precision.
        name_of: maps the name of one of the network's tensors to its published name.
        what: the network, for messages.
        unread: names and shapes of tensors in the file that the network does not use.

    Raises:
        WeightsError: a name is missing, unexpected or of another shape.
    """
    layout = {name_of(name): tuple(tensor.shape) for name, tensor in net.state_dict().items()}
    require_layout(found, {**layout, **(unread or {})}, what=what)
    net.load_state_dict({name: to_float32(found[name_of(name)]) for name in net.state_dict()}, strict=True, assign=True)
    net.eval().requires_grad_(False)


def to_float32(tensor: Tensor) -> Tensor:
    """Convert float tensors of any precision to float32; others are unchanged."""
    return tensor.float() if tensor.is_floating_point() else tensor


# For each network, a name that occurs only in its files.
_SIGNATURES = {
    "decoder.embedding_decoder.to_out.weight": "RoMa",
    "decoder.embedding_decoder.cab.16.conv1.weight": "DKM",
    "coarse_matcher.0.layer.0.weight": "Tiny RoMa",
    "matcher.omega": "RoMa v2",
    "patch_embed_c.proj.weight": "MATCHA",
    "pos_embed": "DINOv2",
    "heatmap_head.0.layer.0.weight": "XFeat",
    "storage_tokens": "DINOv3",
}


def published_name(name: str, prefixes: Mapping[str, str]) -> str:
    """The name in a published file of a tensor of a network.

    prefixes: the network's prefix of each published one.
    """
    theirs, ours = next(pair for pair in prefixes.items() if name.startswith(pair[1]))
    return theirs + name.removeprefix(ours)


def require_layout(found: Mapping[str, Tensor], expected: Mapping[str, tuple[int, ...]], *, what: str) -> None:
    """Refuse a state dict whose names or shapes differ from the expected ones.

    Args:
        found: by name.
        expected: shapes by name.
        what: the network, for the message.

    Raises:
        WeightsError: names are missing, unexpected or of another shape; the message counts and names them.
    """
    wrong = [
        f"{name} {tuple(found[name].shape)} instead of {shape}"
        for name, shape in expected.items()
        if name in found and tuple(found[name].shape) != shape
    ]
    problems = {
        "missing": [name for name in expected if name not in found],
        "unexpected": [name for name in found if name not in expected],
        "of another shape": wrong,
    }
    if any(problems.values()):
        other = next((name for key, name in _SIGNATURES.items() if key in found and name != what), None)
        if other:
            raise WeightsError(f"The weights are those of {other}, not of {what}. Give the file made for this network.")
        found_wrong = "; ".join(f"{len(n)} {kind} ({first_few(n, 3)})" for kind, n in problems.items() if n)
        raise WeightsError(f"The weights do not fit {what}: {found_wrong}. Give the file made for this network.")
