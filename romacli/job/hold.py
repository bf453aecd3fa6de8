"""The lease on a job's folder."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext

from romacli.progress import Progress
from romacli.stop import StopRequest
from romacli.store.layout import Layout
from romacli.store.lease import Lease, Work, lease


@contextmanager
def hold(layout: Layout, progress: Progress, stop: StopRequest, work: Work | None = None) -> Iterator[Lease]:
    """Hold the folder for this process; a signal ends the wait.

    Raises:
        BusyError: another process is working in it.
    """
    with ExitStack() as stack:
        with stop.at_once():
            taken = stack.enter_context(lease(layout.leases, work, say=progress.say))
        yield taken


@contextmanager
def hold_job(layout: Layout, progress: Progress, stop: StopRequest) -> Iterator[None]:
    """Hold the folder if it is a job's; other tools' files may be in read-only folders."""
    with hold(layout, progress, stop) if layout.manifest.exists() else nullcontext():
        yield
