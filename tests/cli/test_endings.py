"""How commands end: one form for every error, one JSON object, and work that continues when nobody reads its output."""

from __future__ import annotations

import errno
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from support.commands import REPOSITORY
from support.plane import photograph_plane
from typer.testing import CliRunner, Result

from romacli.cli.app import app
from romacli.cli.console import Console
from romacli.cli.options import model_names

SMALL = ("--coarse-resolution", "64", "--no-upsample", "--min-overlap", "0", "--device", "cpu", "--no-refine")


@pytest.fixture
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    photograph_plane(tmp_path / "photos", [f"{number}.png" for number in range(4)])
    return tmp_path / "photos"


def run(*words: object) -> Result:
    return CliRunner().invoke(app, [str(word) for word in words])


def start(*words: object, stderr: int, stdout: int = subprocess.PIPE) -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    command = [sys.executable, "-m", "romacli", *map(str, words)]
    return subprocess.Popen(command, stdout=stdout, stderr=stderr, text=True, env=environment)


@pytest.mark.parametrize(
    ("words", "code"),
    [(("match", "nowhere"), 3), (("match", "photos", "--seed", "many"), 2), (("status", "nowhere"), 3)],
)
def test_errors_are_json_too_and_alone_on_stdout(photos: Path, words: tuple[str, ...], code: int) -> None:
    result = run(*words, "--json")
    told = json.loads(result.stdout)
    assert result.exit_code == told["exit_code"] == code
    assert f"error: {told['error']}" in result.stderr


def test_an_object_is_not_followed_by_a_second(photos: Path) -> None:
    (photos / "broken.png").write_bytes(b"nothing")
    result = run("match", "photos", *SMALL, "--json")
    assert result.exit_code == 4
    assert json.loads(result.stdout)["images"] == 5


def test_usage_errors_look_like_ours(photos: Path) -> None:
    result = run("match", "photos", "--no-such-option")
    assert result.exit_code == 2
    assert result.stderr.startswith("error: ")
    assert "match --help" in result.stderr
    assert "Usage" not in result.stderr


def test_pairs_are_in_the_object_where_both_would_be_on_stdout(photos: Path) -> None:
    told = json.loads(run("pairs", "exhaustive", "photos", "--json").stdout)
    assert (told["pairs"], told["list"][0]) == (6, ["0.png", "1.png"])


@pytest.mark.skipif(sys.platform != "linux", reason="needs /dev/full")
def test_messages_without_room_do_not_end_the_work(photos: Path) -> None:
    with open("/dev/full", "w") as full:
        process = start("match", "photos", "-o", "job", *SMALL, stderr=full.fileno())
        process.communicate()
    assert process.returncode == 0
    assert (photos.parent / "job/matches.h5").exists()


@pytest.mark.skipif(sys.platform != "linux", reason="needs /dev/full")
@pytest.mark.parametrize("words", [("pairs", "exhaustive", "photos"), ("pairs", "exhaustive", "photos", "--json")])
def test_results_without_room_are_an_error(photos: Path, words: tuple[str, ...]) -> None:
    with open("/dev/full", "w") as full:
        process = start(*words, stdout=full.fileno(), stderr=subprocess.PIPE)
        _, messages = process.communicate()
    assert process.returncode == 6
    assert "error: the output cannot be written: No space left on device" in messages
    assert "Traceback" not in messages


def test_closed_streams_do_not_end_the_work(photos: Path) -> None:
    process = subprocess.run(
        ["/bin/sh", "-c", f"{sys.executable} -m romacli pairs exhaustive photos -o pairs.txt <&- >&- 2>&-"],
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        check=False,
    )
    assert process.returncode == 0
    assert len(Path("pairs.txt").read_text().splitlines()) == 6


def test_processes_inherit_the_streams_that_were_closed(tmp_path: Path) -> None:
    code = (
        "import subprocess; from romacli.cli.console import open_streams; open_streams(); "
        f"subprocess.run('cat && echo heard && echo warned >&2 && touch {tmp_path}/told', shell=True)"
    )
    subprocess.run(
        ["/bin/sh", "-c", f'{sys.executable} -c "{code}" <&- >&- 2>&-'],
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        check=True,
    )
    assert (tmp_path / "told").exists()


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (MemoryError(), 75, "not enough memory"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory"), 75, "not enough memory"),
        (ImportError("libtorch_cpu.so: failed to map segment from shared object"), 75, "not enough memory"),
        (OSError(errno.ENOSPC, "No space left on device", "a.bin"), 6, "a.bin cannot be written: No space left"),
        (OSError(errno.EIO, "Input/output error", "a.bin"), 6, "a.bin cannot be read or written: Input/output"),
    ],
)
def test_faults_of_the_machine_are_sentences(
    photos: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, code: int, words: str
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr("romacli.images.listing.list_images", fail)
    result = run("pairs", "exhaustive", "photos")
    assert result.exit_code == code
    assert words in result.stderr


def test_messages_without_a_reader_do_not_end_the_work(photos: Path) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    process = start("match", "photos", "-o", "job", *SMALL, "--json", stderr=writer)
    os.close(writer)
    told, _ = process.communicate()
    assert process.returncode == 0
    assert json.loads(told)["pairs"] == 6


def test_a_signal_is_answered_with_what_is_done(photos: Path) -> None:
    photograph_plane(photos, [f"{number}.png" for number in range(12)])
    process = start("match", "photos", "-o", "job", "--min-overlap", "0", "--device", "cpu", stderr=subprocess.PIPE)
    journal = photos.parent / "job/journal"
    for _ in range(600):
        if any(path.stat().st_size > 10_000 for path in journal.glob("*.jnl")):
            break
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    _, messages = process.communicate()
    assert process.returncode == 130
    assert re.search(r"of 66 pairs (is|are) done and kept", messages)


def test_progress_never_shows_more_than_all(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("romacli.cli.console.SECONDS_BETWEEN_LINES", 0.0)
    with Console() as console:
        console.begin("mapping", 29)
        for _ in range(43):
            console.advance()
    messages = capsys.readouterr().err
    assert "29 of 29" in messages
    assert not any(f"{count} of 29" in messages for count in range(30, 44))


def test_help_shows_panels_and_whole_sentences(photos: Path) -> None:
    lines = run("match", "--help").stdout.splitlines()
    panels = [line for line in lines if line.endswith(":") and not line.startswith(" ")]
    assert panels == ["Arguments:", "Photographs:", "Pairs:", "Matcher:", "Keypoints:", "Running:", "Output:"]
    assert "..." not in run("--help").stdout.split("Commands:")[1]


def test_names_of_models_complete() -> None:
    assert {"roma-outdoor", "roma-indoor"} <= set(model_names("roma"))
    assert model_names("roma-i") == ["roma-indoor"]


def test_a_dry_run_of_a_reconstruction_makes_nothing(photos: Path) -> None:
    result = run("reconstruct", "photos", "-o", "job", *SMALL, "--dry-run", "--json")
    assert result.exit_code == 0, result.stderr
    assert json.loads(result.stdout)["remaining"] == 6
    assert not (photos.parent / "job").exists()
