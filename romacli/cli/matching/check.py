"""`romacli check`: verify a job's files to the last byte, and repair them."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Annotated

from romacli.cli.console import Console, stopping
from romacli.cli.options import TalkOptions, takes
from romacli.errors import StoreError
from romacli.job.options import DEFAULT_OUTPUT, MatchedJob
from romacli.options import Option
from romacli.words import counted


@dataclass(frozen=True)
class CheckOptions:
    job: MatchedJob = DEFAULT_OUTPUT
    repair: Annotated[
        bool,
        Option(
            "Remove damaged records from journals and rebuild damaged hloc files and databases with their previous "
            "settings. What cannot be repaired is moved aside."
        ),
    ] = False


@takes(CheckOptions, TalkOptions, example="romacli check job --repair")
def check(job: CheckOptions, talk: TalkOptions) -> None:
    """Verify a job's journal and everything derived from it, and report damage.

    Lists the pairs that have to be matched again. Exit code 6 if damage remains.
    """
    from romacli.job.check import check_job, sentences
    from romacli.store.layout import Layout

    with stopping() as stop, Console(talk) as console:
        summary = check_job(Layout(job.job), console, stop, mend=job.repair)
        for sentence in sentences(summary):
            console.warn(sentence)
        left = sum(not finding.is_repaired for finding in summary.findings)
        console.result(
            {
                "files": summary.files,
                "pairs": summary.pairs,
                "missing": len(summary.missing),
                "findings": [asdict(finding) for finding in summary.findings],
            },
            f"{counted(summary.files, 'file')}, {summary.pairs - len(summary.missing)} of "
            f"{counted(summary.pairs, 'pair')} done, "
            f"{counted(len(summary.findings), 'finding')}, {len(summary.findings) - left} of them "
            f"repaired; see {job.job}",
        )
    if left:
        raise StoreError(
            f"{counted(left, 'fault remains', 'faults remain')} in {job.job}.{'' if job.repair else ' Try --repair.'}"
        )
