"""A wish to stop, made by a signal and honoured between two batches."""

from __future__ import annotations


class Stopped(KeyboardInterrupt):
    """Work ended early because a signal asked for it; everything finished is on disk."""

    def __init__(self, signal_number: int) -> None:
        super().__init__(f"stopped by signal {signal_number}")
        self.signal_number = signal_number


class StopRequest:
    """Set by a signal handler, checked by loops that can end cleanly."""

    def __init__(self) -> None:
        self.signal_number: int | None = None

    def set(self, signal_number: int) -> None:
        self.signal_number = signal_number

    def check(self) -> None:
        """Raise `Stopped` when a signal has come."""
        if self.signal_number is not None:
            raise Stopped(self.signal_number)
