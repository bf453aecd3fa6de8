"""Add new photographs to a job's finished model: match, pose and triangulate them, and keep everything else."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from romacli.colmap.reading import read_model
from romacli.errors import InputError, UsageError
from romacli.images.options import ImageOptions
from romacli.job.job import Job, describer_of, listed_images, open_job
from romacli.job.matching import run_job
from romacli.job.options import ImportOptions, JobOptions
from romacli.job.outputs.database import import_matches
from romacli.job.outputs.model import database_of_model, extend_mapped, images_elsewhere
from romacli.job.outputs.recipe import noted_import
from romacli.localize.options import Adjust, RegisterOptions
from romacli.mapping.options import MapperOptions
from romacli.mapping.reconstruct import ReconstructionSummary
from romacli.pairing.options import PairingOptions, source_options
from romacli.pairing.sources import choose_pairs
from romacli.pairs.listfile import read_pairs
from romacli.pairs.retrieval import PartnerOptions, RetrievalOptions, retrieve
from romacli.progress import Progress
from romacli.run.match import MatchSummary
from romacli.stop import StopRequest
from romacli.store.history import photographs_of
from romacli.store.layout import Layout, layout_of, model_of
from romacli.store.manifest import manifest_of
from romacli.types import Pair, PairList, canonical
from romacli.words import counted, first_few


@dataclass(frozen=True)
class Registered:
    """The result. model, matched: None if there were no new photographs. without: those without a pose."""

    added: Sequence[str] = ()
    without: Sequence[str] = ()
    model: ReconstructionSummary | None = None
    matched: MatchSummary | None = None


def register(options: JobOptions, asked: RegisterOptions, progress: Progress, stop: StopRequest) -> Registered:
    """Add the photographs of a folder that a job's models lack to the job and to one of the models.

    Ids of images, cameras and points, keypoints and the coordinate frame stay. Earlier results are reused.

    Args:
        options: of the job, whose output may be the folder of a model, see `layout_of`; the folder of photographs
            contains the model's and the new ones, or is inside the former.
            pairs or pairing: how the new photographs are paired; by default with similar ones.

    Raises:
        InputError: there is no model, or the folder does not fit it.
        NothingFoundError: no photograph could be added.
    """
    layout = layout_of(options.output)
    options = replace(options, output=layout.root)
    if options.overwrite:
        raise UsageError("--overwrite would remove the model to which photographs are added. Leave it out.")
    manifest_of(layout, "reconstruct")
    posed = read_model(model_of(layout)).poses.keys()
    with stop.at_once():
        root, new = _new(options, layout, posed)
        if not new:
            progress.say(f"all photographs of {options.images.folder} are in a model")
            return Registered()
        job = _job(options, root, new, layout, progress)
    progress.say(f"{counted(len(new), 'new photograph')}, {counted(len(job.pairs), 'pair')} in all")
    matched = run_job(job, progress, stop)
    database = database_of_model(layout)
    noted = noted_import(layout, database)
    importing = replace(noted.options if noted else ImportOptions(), database=database, known_poses=None)
    if importing.only is not None:
        importing = replace(importing, only=importing.only | set(new))
    import_matches(root, layout, importing, progress, stop)
    mapping = MapperOptions(seed=options.match.seed, refine_intrinsics=not importing.cameras.are_given)
    added, model = extend_mapped(
        *(root, layout, database, new, mapping, progress, stop), adjusts_all=asked.adjust is Adjust.all
    )
    return Registered(added, sorted(set(new) - set(added)), model, matched)


def _new(options: JobOptions, layout: Layout, posed: Collection[str]) -> tuple[Path, list[str]]:
    """The folder of all photographs, and the names of those to add."""
    folder, known = options.images.folder, photographs_of(layout)
    names, placed = listed_images(options).names, {*posed, *images_elsewhere(layout)}
    gone = sorted(set(posed) - set(names))
    if not gone:
        return folder, [name for name in names if name not in placed]
    if known is not None and folder.resolve() != known.resolve() and folder.resolve().is_relative_to(known.resolve()):
        inside = folder.resolve().relative_to(known.resolve()).as_posix()
        return known, [f"{inside}/{name}" for name in names if f"{inside}/{name}" not in placed]
    raise InputError(
        f"{folder} lacks {len(gone)} of the model's {len(posed)} photographs, {gone[0]} first. COLMAP needs all in one "
        f"folder: put the new ones into {known or 'that of the others'} or a folder inside it, and give either."
    )


def _job(options: JobOptions, root: Path, new: Sequence[str], layout: Layout, progress: Progress) -> Job:
    """The job with its earlier pairs and those of the new photographs."""
    plain = replace(options, images=ImageOptions(root), pairs=str(layout.pairs), pairing=PairingOptions())
    job = open_job(plain, progress)
    chosen, failures = _pairs(options, job, set(new), progress)
    known = set(map(canonical, job.pairs.pairs))
    more = [pair for pair in chosen if canonical(pair) not in known]
    return replace(job, pairs=PairList((*job.pairs.pairs, *more)), unreadable=failures)


def _pairs(
    options: JobOptions, job: Job, new: set[str], progress: Progress
) -> tuple[Sequence[Pair], Mapping[str, str]]:
    """The pairs that include a new photograph, and the photographs that could not be read for them."""
    describer = describer_of(options, job.layout, job.matcher, progress)
    if options.pairs is not None:
        found = read_pairs(options.pairs, job.images.names).pairs
    elif options.pairing.pairing is not None:
        found = choose_pairs(job.images, source_options(options.pairing), progress, describe=describer)
    else:
        described = describer(job.images)
        partners = PartnerOptions(options.pairing.num_matched).partners(len(described.names))
        found = retrieve(
            described.names,
            described.descriptors,
            RetrievalOptions(num_matched=partners),
            queries=[name for name in described.names if name in new],
            database=list(described.names),
        )
    chosen = [pair for pair in found.pairs if new & set(pair)]
    if not chosen:
        raise InputError(f"no pair has a new photograph, such as {first_few(sorted(new), 1)}. Give other --pairs.")
    return chosen, describer.failures
