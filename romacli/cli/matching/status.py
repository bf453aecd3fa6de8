"""`romacli status`: progress of a job."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from romacli.cli.console import print_report
from romacli.cli.options import TalkOptions, takes
from romacli.job.options import DEFAULT_OUTPUT, AnyJob


@dataclass(frozen=True)
class StatusOptions:
    job: AnyJob = DEFAULT_OUTPUT


@takes(StatusOptions, TalkOptions, example="romacli status job")
def status(options: StatusOptions, talk: TalkOptions) -> None:
    """Show the progress of a job: what is done, what is out of date, and which command comes next.

    Only reads the job's files; safe while the job runs.
    """
    from romacli.job.status import status as status_of
    from romacli.store.layout import Layout

    found = status_of(Layout(options.job))
    lines = [f"{stage.name:10} {stage.state:13} {stage.detail}" for stage in found.stages]
    lines.append(f"next: {found.next.command}" if found.next else "all is done")
    values = {"stages": [asdict(stage) for stage in found.stages], "next": found.next.command if found.next else None}
    print_report(values, "\n".join(lines), talk)
