"""The messages of long work, during it and at its end, on a terminal and in a log."""

from __future__ import annotations

import io
import json
import signal
import sys

import pytest

from romacli.cli import console
from romacli.cli.console import Console
from romacli.cli.options import TalkOptions


class Clock:
    """A clock advanced by hand."""

    def __init__(self) -> None:
        self.now = 100.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(console, "time", made)
    return made


def work(listener: Console, clock: Clock, *, seconds_each: float, parts: int = 40) -> None:
    with listener:
        listener.begin("matching", parts)
        for _ in range(parts):
            clock.now += seconds_each
            listener.advance()
        listener.result({"pairs": parts}, "all matched")


def test_a_log_has_what_how_fast_and_how_long(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    work(Console(), clock, seconds_each=2.0)
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "matching: 40 to do"
    assert lines[1] == "matching: 8 of 40, 2.0 s each, 1:04 left"
    assert lines[-2:] == ["matching: 40 done in 1:20", "all matched"]
    work(Console(), clock, seconds_each=0.25, parts=100)
    lines = capsys.readouterr().err.splitlines()
    assert lines[1] == "matching: 60 of 100, 4.0 per second, 0:10 left"


def test_short_work_and_quiet_work_say_little(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    work(Console(), clock, seconds_each=0.01)
    assert capsys.readouterr().err.splitlines() == ["matching: 40 to do", "all matched"]
    work(Console(TalkOptions(quiet=True)), clock, seconds_each=10.0)
    assert capsys.readouterr().err == ""


def test_figures_without_data_are_null(capsys: pytest.CaptureFixture[str]) -> None:
    Console(TalkOptions(as_json=True)).result({"errors": {"mean": float("nan")}, "range": [1.0, float("inf")]}, "done")
    assert json.loads(capsys.readouterr().out) == {"errors": {"mean": None}, "range": [1.0, None]}


def test_nothing_to_do_and_further_rounds_are_not_announced(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    listener = Console()
    with listener:
        listener.begin("matching keypoints", 0)
        for _ in range(3):
            listener.begin("refining", 5)
            listener.advance(5)
    assert capsys.readouterr().err.splitlines() == ["refining: 5 to do"]


def test_a_terminal_has_them_in_a_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")
    with Console() as listener:
        listener.begin("matching", 3)
        for _ in range(3):
            listener.advance()
    assert "matching" in terminal.getvalue()
    assert "3/3" in terminal.getvalue()
    assert "per second" in terminal.getvalue() or "s each" in terminal.getvalue()


@pytest.mark.parametrize("overwrites", [False, True])
def test_a_stopped_command_tells_how_to_resume(capsys: pytest.CaptureFixture[str], overwrites: bool) -> None:
    with console.stopping(overwrites=overwrites):
        signal.raise_signal(signal.SIGTERM)
    assert ("--overwrite" in capsys.readouterr().err) is overwrites


def test_a_lost_terminal_ends_work_except_under_nohup() -> None:
    before = signal.getsignal(signal.SIGHUP)
    try:
        signal.signal(signal.SIGHUP, signal.SIG_DFL)
        with console.stopping() as stop:
            signal.raise_signal(signal.SIGHUP)
        assert stop.signal_number == signal.SIGHUP
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        with console.stopping() as stop:
            signal.raise_signal(signal.SIGHUP)
        assert stop.signal_number is None
    finally:
        signal.signal(signal.SIGHUP, before)
