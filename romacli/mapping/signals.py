"""Handle stop signals while native code runs that never checks for signals."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from romacli.stop import stop_signals


@contextmanager
def signals_end_the_process() -> Iterator[None]:
    """Let stop signals end the process immediately, with a message, while native code runs.

    Python's own handlers run only after the native code; the byte that a signal writes to a pipe arrives at once.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    numbers = stop_signals()
    before = [signal.signal(number, lambda *_: None) for number in numbers]
    listener = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    threading.Thread(target=_end_at_signal, args=(reader,), name="signals", daemon=True).start()
    try:
        yield
    finally:
        signal.set_wakeup_fd(listener)
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)
        os.close(writer)


def _end_at_signal(reader: int) -> None:
    """Wait for the byte of a signal, or for the end of the pipe."""
    with os.fdopen(reader, "rb", buffering=0) as pipe:
        number = pipe.read(1)
    if number:
        sentence = "stopped in the mapper, which cannot be continued; the same command maps again, all else is kept\n"
        with suppress(OSError):  # of a lost terminal
            os.write(2, sentence.encode())
        os._exit(128 + number[0])
