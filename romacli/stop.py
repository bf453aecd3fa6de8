"""A request to stop, made by a signal and honoured between batches."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager


def stop_signals() -> list[int]:
    """The signals that end work: SIGINT, SIGTERM, and SIGHUP unless it is ignored, as under nohup."""
    is_ignored = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    return [signal.SIGINT, signal.SIGTERM, *([] if is_ignored else [signal.SIGHUP])]


class Stopped(KeyboardInterrupt):
    """Work ended early by a signal; everything finished is on disk."""

    def __init__(self, signal_number: int) -> None:
        super().__init__(f"stopped by signal {signal_number}")
        self.signal_number = signal_number


class StopRequest:
    """Set by a signal handler and checked by loops that can end cleanly."""

    def __init__(self) -> None:
        self.signal_number: int | None = None
        self._at_once = False

    def set(self, signal_number: int) -> None:
        """Record the signal; inside `at_once`, stop immediately.

        Raises:
            Stopped: inside `at_once`.
        """
        self.signal_number = signal_number
        if self._at_once:
            raise Stopped(signal_number)

    def check(self) -> None:
        """Raise `Stopped` if a signal has arrived."""
        if self.signal_number is not None:
            raise Stopped(self.signal_number)

    @contextmanager
    def at_once(self) -> Iterator[None]:
        """Context for work without batches: a signal ends it immediately."""
        self.check()
        self._at_once = True
        try:
            yield
        finally:
            self._at_once = False
