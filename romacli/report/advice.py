"""The verdict of a report and its advice. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Literal

from romacli.job.diagnosis import advice, doubts
from romacli.keypoints.checks import connected
from romacli.words import counted, counted_of, first_few

from .summary import ModelSummary, Summary

# Fractions below which a stage gets a warning, chosen by judgement.
_FEW_KEYPOINTS = 0.2
_MANY_REJECTED = 0.5
_MANY_UNVERIFIED = 0.25
_DOMINATING = 0.6
_FEWEST_LINKS = 2
_OVERLONG_SHARE = 0.05
_BLANK_SHARE = 0.6
_NAMES_SHOWN = 4


@dataclass(frozen=True)
class Verdict:
    """The job in a sentence. state: sets its colour; "open" is an unfinished job."""

    state: Literal["good", "fair", "poor", "open"]
    sentence: str


def verdict(summary: Summary) -> Verdict:
    """Whether the job worked, by the fraction of images that passed its last stage."""
    total, pairs = len(summary.images), summary.pairs
    undone = summary.count("not done")
    if summary.outdated and summary.model is not None:
        return Verdict("open", f"The model is out of date: {' '.join(summary.outdated)}")
    if summary.model is not None:
        return _of_model(summary, summary.model)
    if undone:
        done = counted_of(len(pairs) - undone, len(pairs), "pair", "is", "are")
        return Verdict("open", f"Unfinished: {done} matched.")
    if not summary.count("matched", "verified"):
        return Verdict("poor", f"None of {counted(len(pairs), 'pair')} matched.")
    joined = summary.groups[0] if summary.groups else 0
    kind = "verified" if summary.verified else "matched"
    joining = summary.count("verified") if summary.verified else summary.count("matched", "verified")
    told = counted_of(joining, len(pairs), "pair", f"is {kind} and connects", f"are {kind} and connect")
    return Verdict(
        "good" if joined == total else "fair" if joined >= total / 2 else "poor",
        f"{told} {joined} of {counted(total, 'image')}. There is no model yet.",
    )


def _of_model(summary: Summary, model: ModelSummary) -> Verdict:
    total = len(summary.images)
    state: Literal["good", "fair", "poor"] = "good" if model.registered == total else "fair"
    against = doubts(summary.placed) if summary.placed else []
    if against and state == "good":
        state = "fair"
    smaller = [one.registered for one in summary.smaller]
    if model.registered + sum(smaller) < total / 2 or not model.points3D or any("GPS" in doubt for doubt in against):
        state = "poor"
    sizes = f", of {first_few([*map(str, smaller)])} images" if smaller else ""
    beside = (
        f" There {'is' if model.models == 2 else 'are'} also {counted(model.models - 1, 'smaller model')}{sizes}."
        if model.models > 1
        else ""
    )
    return Verdict(
        state,
        f"{counted_of(model.registered, total, 'image', 'is', 'are')} registered, with "
        f"{counted(model.points3D, 'point')} and a mean "
        f"reprojection error of {model.mean_reprojection_error:.2f} px.{beside}"
        + (f" But {'; '.join(against)}." if against else ""),
    )


def warnings(summary: Summary, blank: Mapping[str, float] | None = None) -> tuple[str, ...]:
    """Warnings, each with advice.

    blank: by readable photograph, the fraction of its area without texture.
    """
    return (
        *summary.checks,
        *_about_overlap(summary),
        *_about_verification(summary),
        *_about_tracks(summary),
        *_about_dominance(summary),
        *_about_texture(summary, blank or {}),
        *(advice(summary.placed) if summary.placed else ()),
    )


def _about_overlap(summary: Summary) -> list[str]:
    found = []
    rejected, done = summary.count("rejected"), len(summary.pairs) - summary.count("not done")
    if done and not summary.count("matched", "verified"):
        return [
            "No pair overlaps enough to be matched. Check that the photographs show the same scene, or try --model "
            "roma-outdoor, which copes with larger changes of viewpoint, light and scale."
        ]
    if rejected > _MANY_REJECTED * done:
        found.append(
            f"Low overlap: {counted_of(rejected, done, 'pair', 'was', 'were')} rejected. This is normal for exhaustive "
            "pairing; otherwise add photographs in between, or try --model roma-outdoor."
        )
    if summary.count("not done"):
        return found
    weak = [image.name for image in summary.images if image.matched < min(_FEWEST_LINKS, image.pairs)]
    lonely = [image.name for image in summary.images if not image.matched]
    if lonely:
        found.append(
            f"{counted_of(len(lonely), len(summary.images), 'image', 'has', 'have')} no matched pair: "
            f"{_listed(lonely)}. Add pairs with photographs of the same scene, or leave such images out."
        )
    weak = [name for name in weak if name not in lonely]
    if weak:
        found.append(
            f"{counted(len(weak), 'image depends', 'images depend')} on a single pair: {_listed(weak)}. Add pairs or "
            "photographs around."
        )
    if len(summary.groups) > max(1, _matched_groups(summary) if summary.checks else 1):  # else the checks tell it
        sizes = ", ".join(map(str, summary.groups[:_NAMES_SHOWN]))
        found.append(
            f"The images form {len(summary.groups)} disconnected groups ({sizes} images), which share a model only if "
            "--rig-config joins them. Add pairs or photographs between them."
        )
    return found


def _matched_groups(summary: Summary) -> int:
    """The groups connected by matched pairs, verified or not."""
    joined = {summary.names_of(pair): 1 for pair in summary.pairs if pair.state in ("matched", "verified")}
    return len(connected(joined))


def _about_verification(summary: Summary) -> list[str]:
    matched = summary.count("matched", "verified")
    unverified = summary.count("matched") if summary.verified else 0
    if unverified <= _MANY_UNVERIFIED * matched:
        return []
    return [
        f"{unverified} of {matched} matched pairs failed geometric verification. Repetitive structure or moving "
        "objects may mislead the matcher: inspect the worst pairs below, raise --min-certainty, or try --model "
        "roma-outdoor."
    ]


def _about_tracks(summary: Summary) -> list[str]:
    if summary.tracks is None:
        return []
    overlong = sum(count for length, count in summary.tracks.lengths.items() if length > len(summary.images))
    if overlong <= _OVERLONG_SHARE * summary.tracks.count:
        return []
    return [
        f"{counted_of(overlong, summary.tracks.count, 'track', 'is', 'are')} longer than the number of images, so "
        "matches connect different points. Use --method tracks, or a smaller --max-distance with external keypoints."
    ]


def _about_dominance(summary: Summary) -> list[str]:
    total = sum(image.inliers for image in summary.images) / 2
    if len(summary.images) < 5 or not total:
        return []
    first = max(summary.images, key=lambda image: image.inliers)
    share = first.inliers / total
    if share < _DOMINATING:
        return []
    return [
        f"One image dominates: {share:.0%} of all verified matches involve {first.name}. Also pair the other images "
        "with each other; a model that depends on one image is weak."
    ]


def _about_texture(summary: Summary, blank: Mapping[str, float]) -> list[str]:
    found = []
    bare = [name for name, share in blank.items() if share > _BLANK_SHARE]
    if bare:
        found.append(
            f"{counted(len(bare), 'image is', 'images are')} mostly without texture (sky, bare walls, blur, wrong "
            f"exposure): {_listed(bare)}. Expect few keypoints there; closer or sharper photographs help."
        )
    counts = [image.in_tracks for image in summary.images if image.matched]
    if summary.tracks is None or len(counts) < 3:
        return found
    few = [
        image.name
        for image in summary.images
        if image.matched and image.in_tracks < _FEW_KEYPOINTS * median(counts) and image.name not in bare
    ]
    if few:
        found.append(
            f"{counted(len(few), 'image has', 'images have')} less than {_FEW_KEYPOINTS:.0%} of the median number of "
            f"matched keypoints: {_listed(few)}. Such images may be textureless or blurred, or overlap little "
            "with the others."
        )
    return found


def _listed(names: Sequence[str]) -> str:
    return first_few(names, _NAMES_SHOWN)
