"""Console output: progress and messages on stderr, results on stdout, errors as sentences with an exit code."""

from __future__ import annotations

import errno
import io
import json
import os
import signal
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

from romacli.cli.options import TalkOptions
from romacli.disk import is_full
from romacli.errors import BusyError, RomacliError, StoreError, is_out_of_memory
from romacli.stop import Stopped, StopRequest, stop_signals

if TYPE_CHECKING:
    from rich.progress import Progress as Bar

SECONDS_BETWEEN_LINES = 15.0
UNEXPECTED = 1
SIGNAL_BASE = 128


class Console:
    """Progress with remaining time on a terminal, occasional lines elsewhere, and a command's result.

    has_told: whether a JSON object was printed on stdout, where only one is allowed.
    """

    has_told = False

    def __init__(self, talk: TalkOptions | None = None) -> None:
        self.talk = talk or TalkOptions()
        self._bar: Bar | None = None
        self._task: Any = None
        self._title = ""
        self._done = self._total = 0
        self._started = self._spoken = 0.0

    def __enter__(self) -> Console:
        return self

    def __exit__(self, *_: object) -> None:
        self._close()

    def begin(self, title: str, total: int) -> None:
        self._close()
        is_another = title != self._title
        self._title, self._done, self._total = title, 0, total
        self._started = self._spoken = time.monotonic()
        if self.talk.quiet or not total:
            return
        if sys.stderr.isatty():
            self._bar = _bar()
            self._task = self._bar.add_task(title, total=total, rate="")
            self._bar.start()
        elif is_another:
            self._line(f"{title}: {total} to do")

    def advance(self, count: int = 1) -> None:
        count = min(count, self._total - self._done)  # a task may advance further than announced
        self._done += count
        if self._bar is not None:
            self._bar.update(self._task, advance=count, rate=_rate(self._seconds_each()))
        elif not self.talk.quiet and time.monotonic() - self._spoken >= SECONDS_BETWEEN_LINES:
            self._spoken = time.monotonic()
            self._line(f"{self._title}: {self._done} of {self._total}{self._pace()}")

    def say(self, sentence: str) -> None:
        if not self.talk.quiet:
            self._line(sentence)

    def warn(self, sentence: str) -> None:
        self._line(f"warning: {sentence}")

    def result(self, values: Mapping[str, Any], sentence: str) -> None:
        """The command's result: one JSON object on stdout for scripts, or a sentence for people."""
        self._close()
        if self.talk.as_json:
            print(json.dumps(_without_nan(values)), flush=True)
            Console.has_told = True
        elif not self.talk.quiet:
            self._line(sentence)

    def _line(self, sentence: str) -> None:
        if self._bar is not None:
            self._bar.console.print(sentence, markup=False, highlight=False, soft_wrap=True)
        else:
            print(sentence, file=sys.stderr, flush=True)

    def _pace(self) -> str:
        """Rate and remaining time, once they can be estimated."""
        if not 0 < self._done < self._total:
            return ""
        seconds_each = self._seconds_each()
        return f", {_rate(seconds_each)}, {_duration(seconds_each * (self._total - self._done))} left"

    def _seconds_each(self) -> float:
        return (time.monotonic() - self._started) / max(self._done, 1)

    def _close(self) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None
        elif self._spoken > self._started and 0 < self._done >= self._total:
            self._line(f"{self._title}: {self._done} done in {_duration(time.monotonic() - self._started)}")
            self._spoken = self._started


def print_report(values: Mapping[str, Any], text: str, talk: TalkOptions) -> None:
    """A command's result on stdout, which is a text of several lines for people."""
    if talk.as_json:
        Console(talk).result(values, text)
    else:
        print(text)


def _without_nan(value: Any) -> Any:
    """The same values with None for numbers that JSON cannot represent."""
    if isinstance(value, Mapping):
        return {str(key): _without_nan(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_without_nan(inner) for inner in value]
    return None if isinstance(value, float) and not abs(value) < float("inf") else value


def _bar() -> Bar:
    from rich.console import Console as RichConsole
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        console=RichConsole(stderr=True),
    )


def _rate(seconds_each: float) -> str:
    return f"{1 / seconds_each:.1f} per second" if 0 < seconds_each < 1 else f"{seconds_each:.1f} s each"


def _duration(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"


@contextmanager
def stopping(*, overwrites: bool = False) -> Iterator[StopRequest]:
    """Turn the first stop signal into a request to stop after the current batch; exit at once on the second.

    overwrites: whether --overwrite was given, which would start over.
    """
    request = StopRequest()
    without = ", without --overwrite," if overwrites else ""

    def handle(number: int, _: object) -> None:
        if request.signal_number is not None:
            os._exit(SIGNAL_BASE + number)
        print(f"stopping; run the same command again{without} to resume", file=sys.stderr, flush=True)
        request.set(number)

    previous = {number: signal.signal(number, handle) for number in stop_signals()}
    try:
        yield request
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def open_streams() -> None:
    """Open the standard streams that the caller closed, so that no file takes their numbers and their messages.

    Processes started from here inherit them.
    """
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:
            if (null := os.open(os.devnull, os.O_RDWR)) != number:
                os.dup2(null, number)
                os.close(null)
            os.set_inheritable(number, True)
            setattr(sys, name, os.fdopen(number, "w" if number else "r"))


def flush_output() -> None:
    """Write what is left of the output while a failure can still be told; if nobody reads it, exit as click does."""
    try:
        sys.stdout.flush()
    except OSError as error:
        sys.stdout = io.StringIO()  # the end of the process would try again
        if error.errno == errno.EPIPE:
            sys.exit(UNEXPECTED)
        raise


def expected(error: BaseException) -> BaseException | None:
    """The error to tell of: of files and memory, one with a sentence; None if it is a fault of the program."""
    if isinstance(error, RomacliError | KeyboardInterrupt) or hasattr(error, "format_message"):
        return error
    if isinstance(error, OSError) and error.errno is not None:
        where = f"{os.fsdecode(error.filename)} " if error.filename is not None else "the output "
        what = "cannot be written" if is_full(error) else "cannot be read or written"
        mend = "Free some space" if is_full(error) else "Mend that"
        return StoreError(f"{where}{what}: {error.strerror}. {mend}, and run the same command again.")
    if is_out_of_memory(error):
        return BusyError(
            "there is not enough memory. Finished work is kept: end other programs or raise the limit and run the same "
            "command again, or give a smaller --coarse-resolution or --max-keypoints."
        )
    return None


def exit_code(error: BaseException) -> int:
    """The exit code of an error."""
    if isinstance(error, Stopped):
        return SIGNAL_BASE + error.signal_number
    if isinstance(error, KeyboardInterrupt):
        return SIGNAL_BASE + signal.SIGINT
    return int(getattr(error, "exit_code", UNEXPECTED))


def tell(error: BaseException, *, as_json: bool) -> None:
    """Print an error on stderr, and as JSON on stdout if the command has not printed its object yet."""
    sentence = error.format_message() if hasattr(error, "format_message") else str(error)
    if not isinstance(error, KeyboardInterrupt):
        print(f"error: {sentence}", file=sys.stderr, flush=True)
    if as_json and not Console.has_told:
        with suppress(OSError):  # which may be the error
            print(json.dumps({"error": sentence or "interrupted", "exit_code": exit_code(error)}), flush=True)


class Unheard:
    """A stream whose reader may disappear: failed writes are dropped, and the work continues."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        with suppress(OSError, ValueError):
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        with suppress(OSError, ValueError):
            self._stream.flush()

    def writelines(self, lines: Iterable[str]) -> None:
        for line in lines:
            self.write(line)

    def isatty(self) -> bool:
        with suppress(OSError, ValueError):
            return bool(self._stream.isatty())
        return False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)
