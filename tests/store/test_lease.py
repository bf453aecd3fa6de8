from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from romacli.errors import BusyError, StoreError
from romacli.store import lease as lease_module
from romacli.store.lease import Work, lease

ROOT = Path(__file__).resolve().parents[2]
HOLDER = """
import pathlib, sys, time
from romacli.store.lease import lease
with lease(pathlib.Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def leases(tmp_path: Path) -> Path:
    return tmp_path / "job" / "leases"


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease_module, "PATIENCE_S", 0.4)
    monkeypatch.setattr(lease_module, "BEAT_S", 0.05)
    monkeypatch.setattr(lease_module, "_LOOK_EVERY_S", 0.1)


def in_another_process(leases: Path) -> subprocess.Popen[str]:
    process = subprocess.Popen([sys.executable, "-c", HOLDER, str(leases)], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def forged(path: Path, **changed: object) -> Callable[[], None]:
    """A lease from another machine, and a function that renews it once."""
    content = {"host": "far", "machine": "another", "pid": 7, "started": "1", "name": "job", "plan": None, **changed}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({**content, "beat": "000000000001"}))
    return lambda: path.write_text(json.dumps({**content, "beat": "000000000002"}))


def test_a_second_holder_is_refused_and_nothing_is_left_behind(leases: Path) -> None:
    with lease(leases), pytest.raises(BusyError, match=rf"job is in use by process {os.getpid()} on "), lease(leases):
        pass
    assert not leases.exists()
    with lease(leases):
        pass


def test_a_living_process_is_respected_and_a_killed_one_never_blocks(leases: Path) -> None:
    process = in_another_process(leases)
    with pytest.raises(BusyError, match=f"process {process.pid}"), lease(leases):
        pass
    process.send_signal(signal.SIGSTOP)
    with pytest.raises(BusyError, match=f"process {process.pid}"), lease(leases):
        pass
    process.kill()
    process.communicate()
    start = time.monotonic()
    with lease(leases):
        assert time.monotonic() - start < 1


def test_a_process_that_has_the_id_of_a_dead_one_is_not_taken_for_it(leases: Path) -> None:
    with lease(leases):
        content = json.loads((leases / "job.json").read_text())
    forged(leases / "job.json", **{**content, "started": "1"})
    with lease(leases):
        pass


def test_a_silent_lease_of_another_machine_expires(leases: Path, impatient: None) -> None:
    forged(leases / "job.json")
    said: list[str] = []
    with lease(leases, say=said.append) as held:
        held.check()
    assert said == [f"checking whether process 7 on far is still working in {leases.parent}"]


def test_a_beating_lease_of_another_machine_is_respected(leases: Path, impatient: None) -> None:
    beat = forged(leases / "job.json")
    with pytest.raises(BusyError, match="process 7 on far"), lease(leases, say=lambda _: beat()):
        pass
    assert (leases / "job.json").exists()


def test_a_lease_beats(leases: Path, impatient: None) -> None:
    with lease(leases):
        before = (leases / "job.json").read_text()
        time.sleep(0.3)
        assert (leases / "job.json").read_text() != before


WITHOUT_PLAN = '{"host": "far", "machine": "another", "pid": 7, "started": "1", "name": "job"}'


@pytest.mark.parametrize("content", ["", "{", "[]", "[" * 100_000, '{"name": 1}', WITHOUT_PLAN])
def test_a_damaged_lease_expires(leases: Path, impatient: None, content: str) -> None:
    leases.mkdir(parents=True)
    (leases / "job.json").write_text(content)
    with lease(leases):
        pass


def test_pieces_of_one_plan_go_side_by_side_and_nothing_else_does(leases: Path) -> None:
    with lease(leases, Work("shard-0-of-2", "plan")), lease(leases, Work("shard-1-of-2", "plan")):
        for other in (Work(), Work("shard-0-of-2", "plan"), Work("shard-1-of-3", "another plan")):
            with pytest.raises(BusyError), lease(leases, other):
                pass
    with lease(leases), pytest.raises(BusyError), lease(leases, Work("shard-0-of-2", "plan")):
        pass
    assert not leases.exists()


def test_who_was_taken_over_is_told(leases: Path) -> None:
    with lease(leases) as held:
        held.check()
        (leases / "job.json").unlink()
        forged(leases / "job.json")
        with pytest.raises(BusyError, match="was taken over by another process"):
            held.check()
    assert (leases / "job.json").exists()


def test_a_folder_that_cannot_be_made_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "leases").write_text("a file")
    with pytest.raises((StoreError, BusyError), match="leases"), lease(tmp_path / "leases"):
        pass


def test_a_full_disk_leaves_no_empty_lease(leases: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patched:
        patched.setattr(os, "pwrite", fail)
        with pytest.raises(StoreError, match="full"), lease(leases):
            pass
    assert list(leases.iterdir()) == []
