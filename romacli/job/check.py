"""Verify every file of a job: what is damaged, what can be repaired, what must be matched again."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from romacli.errors import InputError, RomacliError, StoreError
from romacli.job.hold import hold
from romacli.job.outputs.output import Fault, Output
from romacli.job.outputs.table import OUTPUTS
from romacli.pairs.listfile import read_written_pairs
from romacli.progress import Progress
from romacli.stop import StopRequest
from romacli.store.hloc import unread_images
from romacli.store.images import read_images
from romacli.store.journal import FORMAT
from romacli.store.layout import Layout
from romacli.store.manifest import fingerprint, read_manifest
from romacli.store.opened import open_journal
from romacli.store.repair import Survey, repair, survey
from romacli.types import Manifest, Pair
from romacli.words import counted_of


@dataclass(frozen=True)
class Finding:
    """A fault of a file. remedy: what was done about it, or what to do."""

    file: str
    fault: str
    remedy: str
    is_repaired: bool = False

    def __str__(self) -> str:
        return f"{self.file}: {self.fault}. {self.remedy}"


@dataclass(frozen=True)
class CheckSummary:
    """The result of a check.

    missing: pairs without a valid record, which must be matched. unread: photographs that could not be read for that.
    """

    files: int
    pairs: int
    missing: Sequence[Pair]
    findings: Sequence[Finding]
    unread: frozenset[str] = frozenset()


def check_job(layout: Layout, progress: Progress, stop: StopRequest, *, mend: bool = False) -> CheckSummary:
    """Verify every file of a job; with `mend`, repair what is possible.

    Raises:
        BusyError: with `mend`, another process is at work in the folder.
        InputError: the folder contains no job.
    """
    if not (layout.manifest.exists() or layout.journal.is_dir()):
        raise InputError(f"{layout.root} contains no job. Give a folder that `romacli match` wrote.")
    with ExitStack() as stack:
        if mend:
            stack.enter_context(hold(layout, progress, stop))
        check = _Check(layout, progress, stop, mend)
        with stop.at_once():
            check.small_files()
            check.journals()
            faults = check.outputs()
    for output, found in faults.items():
        check.tell(output, found)
    missing = check.missing()
    unread = unread_images(layout.features) if missing else frozenset()
    return CheckSummary(check.files, len(check.pairs), missing, tuple(check.findings), unread)


class _Check:
    """One check of a folder."""

    def __init__(self, layout: Layout, progress: Progress, stop: StopRequest, mend: bool) -> None:
        self._layout, self._progress, self._stop, self._mend = layout, progress, stop, mend
        self.files = 0
        self.pairs: Sequence[Pair] = ()
        self.findings: list[Finding] = []
        self._manifest: Manifest | None = None

    def small_files(self) -> None:
        """Check the manifest, the pairs and the list of photographs."""
        again = "Running the same `romacli match` command rewrites it and continues"
        same = again + ", if its settings are the same."
        with self._noting(self._layout.manifest, same, removable=True, is_needed=True):
            self._manifest = read_manifest(self._layout.manifest)
            if self._manifest is None:
                self._add(self._layout.manifest, "it is missing", same)
        with self._noting(self._layout.pairs, again + "."):
            self.pairs = read_written_pairs(self._layout.pairs).pairs
        with self._noting(self._layout.images, "The next run takes the photographs as they are then.", removable=True):
            read_images(self._layout.images)

    def journals(self) -> None:
        """Check every record of every journal file."""
        paths = sorted(self._layout.journal.glob("*.jnl"))
        self._progress.begin("checking journals", len(paths))
        for path in paths:
            self.files += 1
            try:
                self._journal(survey(path))
            except OSError as error:
                self._add(path, f"cannot be read: {error.strerror or error}", "Make it readable.")
            self._progress.advance()

    def _journal(self, surveyed: Survey) -> None:
        stored = surveyed.records[0].header.get("fingerprint") if surveyed.records else None
        if stored is not None and self._manifest is not None and stored != fingerprint(self._manifest):
            self._add(surveyed.path, "it was made with other settings", "Move it away.")
            return
        if surveyed.records and surveyed.records[0].header.get("format", FORMAT) != FORMAT:
            self._add(surveyed.path, "it is from another version of romacli", "Update romacli.")
            return
        mended = self._mend and self._manifest is not None and bool(surveyed.damages)
        if mended:
            assert self._manifest is not None
            repair(surveyed, fingerprint(self._manifest))
        for damage in surveyed.damages:
            if damage.is_torn:
                fault = f"its last {damage.end - damage.start} bytes are an unfinished record ({damage.reason})"
                remedy = (
                    "They were removed."
                    if mended
                    else "Being written, or left by a killed run: the next run removes it."
                )
            else:
                fault = f"bytes {damage.start} to {damage.end} are damaged ({damage.reason})"
                remedy = (
                    "They were removed."
                    if mended
                    else "Valid records around them are still used; --repair removes the damage."
                )
            self._add(surveyed.path, fault, remedy, is_repaired=mended)

    def outputs(self) -> dict[Output, list[Fault]]:
        """Check the files made from the journal."""
        found = {}
        for output in OUTPUTS:
            self.files += sum(path.exists() for path in output.checked(self._layout))
            found[output] = output.faults(self._layout, self._progress)
        return found

    def tell(self, output: Output, faults: Sequence[Fault]) -> None:
        """Record the faults of an output, after repairing what is possible."""
        if not faults:
            return
        if not self._mend or output.mend is None:
            for fault in faults:
                self._add(fault.path, fault.sentence, fault.remedy)
            return
        for mended in output.mend(self._layout, faults, self._progress, self._stop):
            self._add(mended.fault.path, mended.fault.sentence, mended.done, is_repaired=mended.is_repaired)

    def missing(self) -> list[Pair]:
        """Pairs without a valid record, every payload verified; without a manifest, records of any settings count."""
        try:
            images = read_images(self._layout.images)
        except StoreError:
            images = {}
        try:
            with open_journal(self._layout, self._manifest, images, verify=True) as journal:
                return list(journal.waiting(self.pairs))
        except RomacliError:
            return []

    @contextmanager
    def _noting(self, path: Path, remedy: str, *, removable: bool = False, is_needed: bool = False) -> Iterator[None]:
        """Record an expected error of the block, and move a damaged file aside if allowed.

        is_needed: whether moving it aside leaves a fault.
        """
        self.files += path.exists()
        aside = removable and self._mend
        try:
            yield
        except RomacliError as error:
            if isinstance(error.__cause__, OSError) and path.exists():
                self._add(path, f"cannot be read: {error.__cause__.strerror}", "Make it readable.")
            elif removable and error.__cause__ is None:
                self._add(path, "it is from another version of romacli", "Update romacli.")
            elif not path.exists():
                self._add(path, "it is missing", remedy)
            else:
                if aside:
                    moved = path.replace(path.with_name(path.name + ".damaged"))
                    remedy = f"It is now {moved.name}. {remedy}"
                self._add(path, "it is damaged", remedy, is_repaired=aside and not is_needed)

    def _add(self, path: Path, fault: str, remedy: str, *, is_repaired: bool = False) -> None:
        self.findings.append(Finding(str(path), fault, remedy, is_repaired))


def sentences(summary: CheckSummary) -> Iterator[str]:
    """The findings as sentences."""
    for finding in summary.findings:
        yield str(finding)
    lost = [pair for pair in summary.missing if not summary.unread.isdisjoint(pair)]
    for pairs, advice in (
        ([pair for pair in summary.missing if pair not in lost], ""),
        (lost, ". Their photographs could not be read: replace or remove these, then"),
    ):
        if pairs:
            yield (
                f"{counted_of(len(pairs), summary.pairs, 'pair', 'must', 'must')} be matched, starting with "
                f"{' '.join(pairs[0])}{advice or ':'} run the same `romacli match` command again"
            )
