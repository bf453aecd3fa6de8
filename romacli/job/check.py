"""Every file of a job read to its last byte: what is damaged, what can be mended, what must be matched again."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from romacli.colmap.access import database_faults, require_closed
from romacli.errors import InputError, RomacliError, StoreError
from romacli.job.aggregate import noted_options, reaggregate
from romacli.job.hold import hold
from romacli.job.outputs.database import import_matches
from romacli.job.outputs.recipe import noted_databases, noted_import
from romacli.pairs import read_pairs
from romacli.progress import Progress
from romacli.stop import StopRequest
from romacli.store.hloc import UNREAD, FeaturesFile, MatchesFile
from romacli.store.images import read_images
from romacli.store.journal import FORMAT, Journal
from romacli.store.layout import Layout
from romacli.store.manifest import fingerprint, read_manifest
from romacli.store.repair import Survey, repair, survey
from romacli.types import Manifest, Pair


@dataclass(frozen=True)
class Finding:
    """Something wrong with a file. remedy: what was done about it, or is to be done."""

    file: str
    fault: str
    remedy: str
    is_repaired: bool = False

    def __str__(self) -> str:
        return f"{self.file}: {self.fault}. {self.remedy}"


@dataclass(frozen=True)
class CheckSummary:
    """What a job's folder holds. missing: pairs of the job that have no sound record and are to be matched."""

    files: int
    pairs: int
    missing: Sequence[Pair]
    findings: Sequence[Finding]

    @property
    def unrepaired(self) -> list[Finding]:
        return [finding for finding in self.findings if not finding.is_repaired]


def check_job(layout: Layout, progress: Progress, stop: StopRequest, *, mend: bool = False) -> CheckSummary:
    """Verify every file of a job; with `mend` repair what can be.

    Raises:
        BusyError: with `mend`, another process is at work in the folder.
        InputError: the folder holds no job.
    """
    if not (layout.manifest.exists() or layout.journal.is_dir()):
        raise InputError(f"{layout.root} holds no job. Name a folder that `romacli match` has made.")
    with ExitStack() as stack:
        if mend:
            stack.enter_context(hold(layout, progress, stop))
        check = _Check(layout, progress, stop, mend)
        with stop.at_once():
            check.small_files()
            check.journals()
            databases = check.databases()
            damaged = check.hloc_files()
    if damaged and mend:
        check.derive_hloc(damaged)
    for path, faults in databases.items():
        if mend:
            check.make_database(path, faults)
    missing = check.missing()
    return CheckSummary(check.files, len(check.pairs), missing, tuple(check.findings))


class _Check:
    """One walk through a folder."""

    def __init__(self, layout: Layout, progress: Progress, stop: StopRequest, mend: bool) -> None:
        self._layout, self._progress, self._stop, self._mend = layout, progress, stop, mend
        self.files = 0
        self.pairs: Sequence[Pair] = ()
        self.findings: list[Finding] = []
        self._manifest: Manifest | None = None

    def small_files(self) -> None:
        """The manifest, the pairs and the photographs: a line for each that cannot be read."""
        again = "The same `romacli match` command writes it anew and continues"
        with self._noting(self._layout.manifest, again + ", if its settings are the same.", removable=True):
            self._manifest = read_manifest(self._layout.manifest)
        with self._noting(self._layout.pairs, again + "."):
            self.pairs = read_pairs(self._layout.pairs, None).pairs.pairs
        with self._noting(self._layout.images, "Photographs are taken as they are at the next run.", removable=True):
            read_images(self._layout.images)

    def journals(self) -> None:
        """Every record of every file."""
        paths = sorted(self._layout.journal.glob("*.jnl"))
        self._progress.begin("checking journals", len(paths))
        for path in paths:
            self.files += 1
            try:
                self._journal(survey(path))
            except OSError as error:
                self._add(path, f"cannot be read: {error.strerror or error}", "Allow reading it.")
            self._progress.advance()

    def _journal(self, surveyed: Survey) -> None:
        stored = surveyed.records[0].header.get("fingerprint") if surveyed.records else None
        if stored is not None and self._manifest is not None and stored != fingerprint(self._manifest):
            self._add(surveyed.path, "it was made with other settings", "Move it away.")
            return
        if surveyed.records and surveyed.records[0].header.get("format", FORMAT) != FORMAT:
            self._add(surveyed.path, "it is of another version of romacli", "Update romacli.")
            return
        mended = self._mend and self._manifest is not None and bool(surveyed.damages)
        if mended:
            assert self._manifest is not None
            repair(surveyed, fingerprint(self._manifest))
        for damage in surveyed.damages:
            if damage.is_torn:
                fault = f"its last {damage.end - damage.start} bytes are an unfinished record ({damage.reason})"
                remedy = (
                    "They were cut off." if mended else "Being written, or left by a kill: the next run cuts it off."
                )
            else:
                fault = f"bytes {damage.start} to {damage.end} are damaged ({damage.reason})"
                remedy = "They were cut out." if mended else "Sound records around them count; --repair cuts them out."
            self._add(surveyed.path, fault, remedy, is_repaired=mended)

    def hloc_files(self) -> list[Path]:
        """The hloc files that are not sound."""
        damaged = []
        reads: dict[Path, Callable[[], str | None]] = {
            self._layout.features: self._features_fault,
            self._layout.matches: self._matches_fault,
        }
        for path, read in reads.items():
            if not path.exists():
                continue
            self.files += 1
            try:
                fault = read()
            except RomacliError as error:
                fault = str(error)
            if fault:
                damaged.append(path)
                if not self._mend:
                    self._add(path, fault.rstrip("."), "--repair derives it anew from the journal.")
        return damaged

    def _features_fault(self) -> str | None:
        with FeaturesFile(self._layout.features) as file:
            names = file.names()
            self._progress.begin("checking keypoints", len(names))
            for name in names:
                keypoints, size, precision = file.keypoints(name).xy, file.image_size(name), file.precision(name)
                is_unread = size == UNREAD and not len(keypoints)
                if not np.isfinite(keypoints).all() or (min(size) < 1 and not is_unread):
                    return f"the keypoints of {name} are no places in an image"
                if precision is not None and len(precision.quality) != len(keypoints):
                    return f"{name} has {len(keypoints)} keypoints and {len(precision.quality)} covariances"
                self._progress.advance()
        return None

    def _matches_fault(self) -> str | None:
        with FeaturesFile(self._layout.features) as features, MatchesFile(self._layout.matches) as file:
            counts = {name: len(features.keypoints(name)) for name in features.names()}
            pairs = file.pairs(counts)
            self._progress.begin("checking matches", len(pairs))
            for pair in pairs:
                indices = file.matches(*pair).indices
                if len(indices) and (indices.max(axis=0) >= [counts[name] for name in pair]).any():
                    return f"the matches of {' '.join(pair)} point outside the keypoints"
                self._progress.advance()
        return None

    def derive_hloc(self, damaged: Sequence[Path]) -> None:
        """Make the hloc files anew with the options they were made with."""
        for path in damaged:
            path.unlink(missing_ok=True)
        try:
            reaggregate(self._layout, noted_options(self._layout), self._progress, self._stop)
            remedy, done = "It was derived anew from the journal.", True
        except RomacliError as error:
            remedy, done = f"It was removed; deriving it anew failed: {error}", False
        for path in damaged:
            self._add(path, "it is damaged", remedy, is_repaired=done)

    def databases(self) -> dict[Path, list[str]]:
        """What is wrong with each database that is not sound."""
        damaged = {}
        for path in self._databases():
            if not path.exists():
                continue
            self.files += 1
            faults = database_faults(path)
            if faults:
                damaged[path] = faults
            for fault in faults if not self._mend else ():
                self._add(
                    path, fault, f"--repair makes it anew, as does `{self._command(path)}` once it is moved away."
                )
        return damaged

    def make_database(self, path: Path, faults: Sequence[str]) -> None:
        """Put a database aside and make it anew from the hloc files, as it was made before."""
        aside, done = path.with_name(path.name + ".damaged"), False
        try:
            require_closed(path)
            command, noted = self._command(path), noted_import(self._layout, path)
            path.replace(aside)
            remedy = f"It was put aside as {aside.name}; `{command}` makes it anew."
            if noted is not None:
                import_matches(noted.images, self._layout, noted.options, self._progress, self._stop)
                remedy, done = f"It was made anew from the hloc files; the damaged one is {aside.name}.", True
        except (RomacliError, OSError) as error:
            remedy = f"Making it anew failed: {error} Then run `{self._command(path)}`."
        for fault in faults:
            self._add(path, fault, remedy, is_repaired=done)

    def _databases(self) -> list[Path]:
        return noted_databases(self._layout) if self._manifest is not None else [self._layout.database]

    def _command(self, path: Path) -> str:
        """What makes a database, as a person would type it."""
        usual = f"romacli colmap-import PHOTOS -o {shlex.quote(str(self._layout.root))}"
        try:
            noted = noted_import(self._layout, path)
        except RomacliError:
            return usual
        return noted.command(self._layout) if noted else usual

    def missing(self) -> list[Pair]:
        """Pairs without a sound record, every payload verified."""
        if self._manifest is None:
            return []
        try:
            stamps = {name: image.stamps for name, image in read_images(self._layout.images).items()}
        except StoreError:
            stamps = {}
        try:
            with Journal.open(self._layout.journal, fingerprint(self._manifest), stamps=stamps, verify=True) as journal:
                return [pair for pair in self.pairs if pair not in journal]
        except RomacliError:
            return []

    def _noting(self, path: Path, remedy: str, *, removable: bool = False) -> _Noting:
        self.files += path.exists()
        return _Noting(self, path, remedy, removable and self._mend)

    def _add(self, path: Path, fault: str, remedy: str, *, is_repaired: bool = False) -> None:
        self.findings.append(Finding(str(path), fault, remedy, is_repaired))


class _Noting:
    """Notes an expected error of its block, and puts the file aside when it may."""

    def __init__(self, check: _Check, path: Path, remedy: str, aside: bool) -> None:
        self._check, self._path, self._remedy, self._aside = check, path, remedy, aside

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> bool:
        if not isinstance(error, RomacliError):
            return False
        if self._path.exists() and self._aside:
            self._path.replace(self._path.with_name(self._path.name + ".damaged"))
        self._check._add(self._path, "it is missing or damaged", self._remedy, is_repaired=self._aside)
        return True


def sentences(summary: CheckSummary) -> Iterator[str]:
    """What a person is told, a line for each finding."""
    for finding in summary.findings:
        yield str(finding)
    if summary.missing:
        yield (
            f"{len(summary.missing)} of {summary.pairs} pairs are to be matched, {' '.join(summary.missing[0])} first: "
            "run the same `romacli match` command again"
        )
