"""`romacli eval`: measure a matcher against ground truth."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from romacli.cli.console import Console, print_report
from romacli.cli.options import TalkOptions, takes
from romacli.disk import check_writable, written_whole
from romacli.errors import UsageError
from romacli.eval.features.options import StudyOptions
from romacli.keypoints.options import AggregateOptions, Method
from romacli.matchers.options import MatcherChoice
from romacli.options import Option
from romacli.words import counted

if TYPE_CHECKING:
    from romacli.eval.relative_pose import PairScore, PoseResult
    from romacli.eval.synthetic import Recipe, ValidationResult
    from romacli.matchers.matcher import Matcher

app = typer.Typer(help="Measure matchers, models and point clouds against ground truth.", no_args_is_help=True)

Table = Annotated[Path | None, Option("CSV file for the rows behind the figures.", metavar="FILE", short="o")]


@dataclass(frozen=True)
class SyntheticOptions:
    textures: Annotated[
        Path | None,
        Option(
            "Photographs used as textures of the scenes, none of them seen in training. Default: generated textures "
            "only.",
            metavar="DIR",
        ),
    ] = None
    count: Annotated[
        int, Option("Number of rendered pairs. Only figures with the same count are comparable.", min=1)
    ] = 256
    matched: Annotated[
        int, Option("Number of these pairs to also match like photographs, in two passes; slower.", min=0)
    ] = 64
    unrelated: Annotated[int, Option("Number of pairs of unrelated scenes to match and verify; slower.", min=0)] = 64
    hard: Annotated[
        bool,
        Option(
            "Render harder pairs: turns of up to 80 degrees, scales of up to 4, repeated motifs, railings, night, and "
            "unrelated scenes that repeat the same motif."
        ),
    ] = False
    changed: Annotated[
        bool, Option("Render pairs whose sky, passers-by, colours and contrast differ between the pictures.")
    ] = False
    output: Table = None


@dataclass(frozen=True)
class PairsOptions:
    pose_list: Annotated[
        Path, Option("Pairs with intrinsics and poses in SuperGlue's format.", metavar="LIST", is_argument=True)
    ]
    images: Annotated[
        Path, Option("Folder that the names in LIST are relative to.", metavar="IMAGES", is_argument=True)
    ]
    method: Annotated[Method, Option("How matches are made from a warp; tracks is a job's default.")] = Method.tracks
    max_error: Annotated[float, Option("Maximum distance of an inlier from its epipolar line, in px.", min=0)] = 1.0
    ransac_seeds: Annotated[int, Option("Estimates per pose, for confidence intervals. More take longer.", min=1)] = 5
    seed: Annotated[int, Option("Seed of every random choice.", min=0)] = 0
    output: Table = None


@dataclass(frozen=True)
class PosesOptions:
    sparse: Annotated[
        Path, Option("Folder of a COLMAP model, such as OUT/sparse/0.", metavar="SPARSE", is_argument=True)
    ]
    truth: Annotated[
        Path,
        Option(
            "True poses: a COLMAP model, a folder of NAME.camera files as in Strecha's data sets, or a text file of "
            "lines NAME qw qx qy qz tx ty tz as in COLMAP's images.txt.",
            metavar="TRUTH",
            is_argument=True,
        ),
    ]
    output: Table = None


def _tolerances(text: str) -> tuple[float, ...]:
    try:
        found = tuple(float(part) for part in text.split(","))
    except ValueError:
        found = ()
    if not found or not all(0 < tolerance < float("inf") for tolerance in found):
        raise UsageError(f"--tolerances {text} is not a list of lengths, such as 0.01,0.02,0.05.")
    return found


@dataclass(frozen=True)
class CloudOptions:
    cloud: Annotated[
        Path, Option("PLY file of points, such as OUT/dense/fused.ply.", metavar="CLOUD", is_argument=True)
    ]
    reference: Annotated[
        Path, Option("PLY file of points or triangles to compare with.", metavar="REFERENCE", is_argument=True)
    ]
    tolerances: Annotated[
        tuple[float, ...] | None,
        Option(
            "Distances within which points count as correct, in REFERENCE's unit. Default: 0.1, 0.2, 0.5 and 1 % of "
            "its extent.",
            metavar="D,...",
            parse=_tolerances,
        ),
    ] = None
    model: Annotated[
        Path | None,
        Option(
            "The model CLOUD was made from; with --truth, CLOUD is aligned by the similarity between the cameras of "
            "both. Default: CLOUD and REFERENCE share a frame.",
            metavar="SPARSE",
        ),
    ] = None
    truth: Annotated[
        Path | None,
        Option("The same cameras in REFERENCE's frame, as `romacli eval poses` reads them.", metavar="TRUTH"),
    ] = None
    voxel: Annotated[
        float | None,
        Option(
            "Side of the voxels in which points count once, in REFERENCE's unit; 0 counts all. Default: half the "
            "smallest tolerance.",
            min=0,
        ),
    ] = None


@app.command(epilog="Example: romacli eval synthetic --textures textures/validation")
@takes(SyntheticOptions, MatcherChoice, TalkOptions)
def synthetic(flags: SyntheticOptions, chosen: MatcherChoice, talk: TalkOptions) -> None:
    """Measure a matcher on rendered pairs with exact warps: fraction of correct pixels, and calibration of certainty.

    The pairs are fixed, 256 of 256 px. Every matcher is measured as it matches photographs, mini also in a single
    pass. Pairs of unrelated scenes are matched and verified too: none should pass.
    """
    from romacli.eval.synthetic import evaluate_matcher, fingerprint, validation_pairs, validation_textures
    from romacli.eval.two_view import encode, judge_unrelated, unrelated_pictures
    from romacli.matchers.matcher import DenseMatcher
    from romacli.matchers.registry import matcher_named

    recipe = _recipe(flags)
    if flags.output:
        check_writable(flags.output)
    matcher = _matcher(chosen)
    if not isinstance(matcher, DenseMatcher):
        raise UsageError(
            f"{chosen.model} produces keypoint matches, not warps to compare with the truth. Use `romacli eval pairs`."
        )
    with Console(talk) as console:
        console.begin("rendering pairs", 1)
        textures = validation_textures(flags.textures, recipe)
        pairs = validation_pairs(textures, recipe.pairs, size=recipe.size, seed=recipe.seed, school=recipe.school)
        results: dict[str, ValidationResult] = {}
        if matcher_named(chosen.model).has_single_pass:
            console.begin("single pass", len(pairs))
            results["single_pass"] = _single_pass(chosen, pairs, console.advance)
            if 0 < recipe.matched < len(pairs):
                console.begin("single pass of the pairs to match", recipe.matched)
                results["single_pass_matched"] = _single_pass(chosen, pairs[: recipe.matched], console.advance)
        if recipe.matched:
            console.begin("as matched", recipe.matched)
            results["as_matched"] = evaluate_matcher(matcher, pairs[: recipe.matched], advance=console.advance)
        refused: dict[str, Any] = {}
        if recipe.unrelated:
            console.begin("unrelated pairs", recipe.unrelated)
            pictures = unrelated_pictures(textures, recipe.unrelated, seed=recipe.seed)
            features = ((encode(matcher, one), encode(matcher, other)) for one, other in pictures)
            judged = judge_unrelated(matcher, features, advance=console.advance)
            refused = {**asdict(judged), "refused": judged.refused}
    values: dict[str, Any] = {
        "model": matcher.settings,
        "recipe": {**asdict(recipe), "textures": str(flags.textures) if flags.textures else None},
        "fingerprint": fingerprint(pairs),
        **{name: asdict(result) for name, result in results.items()},
        "unrelated": refused,
    }
    if flags.output:
        rows = [{"inference": name, **asdict(row)} for name, r in results.items() for row in r.reliability.bins]
        _write_csv(flags.output, rows)
    print_report(values, _synthetic_table(results, refused, values["fingerprint"]), talk)


@app.command(epilog="Example: romacli eval features --features mini-8,mini-16,dinov2=dinov2_vitl14_pretrain.pth")
@takes(StudyOptions, TalkOptions)
def features(options: StudyOptions, talk: TalkOptions) -> None:
    """Measure how well frozen features match, as in table 1 of the RoMa paper.

    A linear layer per feature is trained on rendered pairs so that the softmax-weighted mean position in B, by cosine
    similarity, is close to the truth. Each image is encoded once. Errors are in px at a width of 448; robust is the
    fraction within 32 px of the truth. Untrained features are compared without the layer.
    """
    from statistics import mean, stdev

    from romacli.eval.features.maps import feature_map
    from romacli.eval.features.study import study

    with Console(talk) as console:
        found = study(lambda word, seed: feature_map(word, seed=seed), options, say=console.say)
    rows = []
    for name, (plain, trained) in found.items():
        row: dict[str, Any] = {
            "features": name,
            "untrained": asdict(plain),
            "trained": [asdict(one) for one in trained],
        }
        for key in ("error_px", "robust"):
            values = [getattr(one, key) for one in trained]
            row[key] = {"mean": mean(values), "deviation": stdev(values) if len(values) > 1 else float("nan")}
        rows.append(row)
    lines = [
        f"{options.repeats} trainings of {options.steps} steps on {options.pairs} rendered pairs of {options.size} px, "
        f"judged by {options.judged}; temperature {options.temperature:g}, width {options.width}",
        f"{'':<12}{'error px':>16}{'robust %':>16}{'untrained px':>14}{'%':>7}",
    ]
    for row in rows:
        error, robust, plain = row["error_px"], row["robust"], row["untrained"]
        lines.append(
            f"{row['features']:<12}{error['mean']:>9.1f} ({error['deviation']:.1f})"
            f"{100 * robust['mean']:>9.1f} ({100 * robust['deviation']:.1f})"
            f"{plain['error_px']:>14.1f}{100 * plain['robust']:>7.1f}"
        )
    given = {key: str(value) if isinstance(value, Path) else value for key, value in asdict(options).items()}
    print_report({"options": given, "results": rows}, "\n".join(lines), talk)


@app.command(epilog="Example: romacli eval pairs pairs_with_gt.txt photos/ --ransac-seeds 10")
@takes(PairsOptions, MatcherChoice, TalkOptions)
def pairs(flags: PairsOptions, chosen: MatcherChoice, talk: TalkOptions) -> None:
    """Measure the relative poses from a matcher's matches, on pairs of photographs with known poses.

    A line of LIST is name0 name1 rot0 rot1 K0 K1 T_0to1, matrices in row-major order. The error is the larger of the
    angular errors of rotation and translation direction. The same matches with one side shuffled are the control, at
    chance level.
    """
    from romacli.eval.pose_list import read_pose_list
    from romacli.eval.relative_pose import PoseOptions, evaluate_pairs, summarise

    listed = read_pose_list(flags.pose_list, flags.images)
    if flags.output:
        check_writable(flags.output)
    matcher = _matcher(chosen)
    options = PoseOptions(max_error_px=flags.max_error, ransac_seeds=flags.ransac_seeds, seed=flags.seed)
    aggregate = AggregateOptions(method=flags.method, seed=flags.seed)
    with Console(talk) as console:
        console.begin("matching", len(listed))
        scores = evaluate_pairs(matcher, listed, flags.images, options, aggregate, advance=console.advance)
    result = summarise(scores)
    if flags.output:
        _write_csv(flags.output, [row for score in scores for row in _pose_rows(score, flags.seed)])
    values = {"model": matcher.settings, "pairs": len(scores), "ransac_seeds": flags.ransac_seeds, **asdict(result)}
    print_report(values, _pose_table(result, len(scores), flags.ransac_seeds), talk)


@app.command(epilog="Example: romacli eval poses job/sparse/0 truth/")
@takes(PosesOptions, TalkOptions)
def poses(flags: PosesOptions, talk: TalkOptions) -> None:
    """Measure the errors of a model's cameras against ground truth.

    Positions are compared after similarity alignment, in the unit of TRUTH, orientations after rotation alignment. AUC
    is over all pairs with known poses, of the larger of the angular errors of rotation and translation direction; pairs
    missing from the model count as wrong.
    """
    from romacli.colmap.pose_files import read_written_poses
    from romacli.eval.model_poses import evaluate_poses, read_estimate

    truth = read_written_poses(flags.truth)
    found = evaluate_poses(read_estimate(flags.sparse), truth)
    rows = [
        {"name": name, "rotation_deg": float(rotation), "position": float(position)}
        for name, rotation, position in zip(found.names, found.rotation_deg, found.position, strict=True)
    ]
    if flags.output:
        _write_csv(flags.output, rows)
    values = {"truth": found.truth, "registered": found.registered, **found.figures, "auc": found.auc, "images": rows}
    lines = [f"registered    {found.registered} of {found.truth} images with a known pose", ""]
    lines.append(f"{'':14}{'mean':>10}{'median':>10}{'largest':>10}")
    for title, key in (("rotation, deg", "rotation_deg"), ("position", "position")):
        lines.append(f"{title:14}" + "".join(f"{_figures(value):>10}" for value in found.figures[key].values()))
    lines += ["", *(f"AUC at {limit:g} deg".ljust(14) + f"{area:>10.3f}" for limit, area in found.auc.items())]
    print_report(values, "\n".join(lines), talk)


@app.command(epilog="Example: romacli eval cloud job/dense/fused.ply scan.ply --tolerances 0.01,0.02,0.05")
@takes(CloudOptions, TalkOptions)
def cloud(flags: CloudOptions, talk: TalkOptions) -> None:
    """Measure a dense cloud against a scan: accuracy, completeness and F1 at several tolerances.

    Accuracy is the fraction of CLOUD within the tolerance of REFERENCE, completeness the fraction of REFERENCE within
    it of CLOUD, as in ETH3D. Crop REFERENCE to what the photographs see: everything else counts as missed.
    """
    from romacli.eval.cloud import extent_of, read_cloud, read_reference, score_cloud

    if (flags.model is None) != (flags.truth is None):
        raise UsageError("--model and --truth align CLOUD together. Give both, or neither.")
    found, target = read_cloud(flags.cloud, flags.model, flags.truth), read_reference(flags.reference)
    extent = extent_of(target)
    tolerances = flags.tolerances or tuple(share * extent for share in (0.001, 0.002, 0.005, 0.01))
    voxel = min(tolerances) / 2 if flags.voxel is None else flags.voxel
    scores = score_cloud(found, target, tolerances, voxel=voxel)
    rows = [{**asdict(score), "f1": score.f1} for score in scores]
    lines = [f"{'tolerance':>12}{'accuracy':>12}{'completeness':>14}{'F1':>8}"]
    lines += [
        f"{_figures(row['tolerance']):>12}{row['accuracy']:>12.3f}{row['completeness']:>14.3f}{row['f1']:>8.3f}"
        for row in rows
    ]
    values = {"points": len(found), "reference_points": len(target), "extent": extent, "voxel": voxel, "scores": rows}
    print_report(values, "\n".join(lines), talk)


def _figures(value: float) -> str:
    """Four significant digits, as positions may be in any unit."""
    return "-" if value != value else f"{value:.4g}"


def _matcher(chosen: MatcherChoice) -> Matcher:
    from romacli.matchers.registry import load_matcher

    return load_matcher(chosen.model, chosen.matcher)


def _recipe(flags: SyntheticOptions) -> Recipe:
    from romacli.eval.synthetic import RECIPE

    if flags.hard and flags.changed:
        raise UsageError("--hard and --changed are different recipes. Give one.")
    school = "hard" if flags.hard else "changed" if flags.changed else "ordinary"
    matched = min(flags.matched, flags.count)
    return replace(RECIPE, pairs=flags.count, matched=matched, unrelated=flags.unrelated, school=school)


def _single_pass(chosen: MatcherChoice, pairs: Sequence[Any], advance: Any) -> ValidationResult:
    from romacli.eval.synthetic import evaluate
    from romacli.matchers.adapters.mini import EMBEDDED
    from romacli.matchers.device import resolve_device
    from romacli.networks.mini import load_mini

    network = load_mini(chosen.matcher.weights or EMBEDDED).to(resolve_device(chosen.matcher.device)).eval()
    return evaluate(network, pairs, advance=advance)


def _synthetic_table(results: Mapping[str, ValidationResult], refused: Mapping[str, Any], fingerprint: str) -> str:
    titles = {"single_pass": "single pass", "single_pass_matched": "of matched", "as_matched": "as matched"}
    rows = {
        "within 32 px at 448, coarse": "coarse",
        "within 32 px at 448": "robust",
        "PCK@5": "pck5",
        "PCK@3": "pck3",
        "PCK@1": "pck1",
        "certainty AUC": "certainty_auc",
    }
    lines = [f"pairs {fingerprint}", "", f"{'':30}" + "".join(f"{titles[name]:>13}" for name in results)]
    for title, field in rows.items():
        cells = (getattr(result, field) for result in results.values())
        lines.append(f"{title:30}" + "".join(f"{_number(cell):>13}" for cell in cells))
    for name, result in results.items():
        lines += ["", f"certainty, {titles[name]}: mean, share right within 3 px, pixels"]
        lines += [
            f"  {row.low:.1f} to {row.high:.1f}"
            f"{_number(row.mean_certainty):>10}{_number(row.share_right):>8}{row.count:>11}"
            for row in result.reliability.bins
        ]
        lines.append(f"  expected calibration error {_number(result.reliability.expected_error)}")
    if refused:
        lines += [
            "",
            f"unrelated pairs not verified: {refused['pairs'] - refused['verified']} of {refused['pairs']}; "
            f"{refused['rejected']} rejected by the matcher itself",
        ]
    return "\n".join(lines)


def _pose_table(result: PoseResult, count: int, seeds: int) -> str:
    heading = f"{counted(count, 'pair')}, {counted(seeds, 'RANSAC seed')}"
    lines = [heading, "", f"{'':14}{'AUC':>8}{'95 % interval':>18}{'shuffled':>10}"]
    for threshold, area in result.auc.items():
        title, control = f"at {threshold:g} deg", _number(result.shuffled_auc[threshold].mean)
        bounds = f"{_number(area.low)} to {_number(area.high)}"
        lines.append(f"{title:14}{_number(area.mean):>8}{bounds:>18}{control:>10}")
    return "\n".join(
        [
            *lines,
            "",
            f"matches       {result.matches:>8.0f} per pair",
            f"precision     {_number(result.precision):>8} of them within SuperGlue's 5e-4 of the true epipolar lines",
            f"inliers       {_number(result.inliers):>8} of them; shuffled {_number(result.shuffled_inliers)}",
            f"without pose  {result.without_pose:>8} pairs",
        ]
    )


def _pose_rows(score: PairScore, first_seed: int) -> list[dict[str, Any]]:
    name0, name1 = score.pair.names
    common = {"name0": name0, "name1": name1, "matches": score.matches, "precision": score.precision}
    return [
        {**common, "ransac_seed": first_seed + index, "error_deg": error, "shuffled_error_deg": shuffled}
        for index, (error, shuffled) in enumerate(zip(score.errors_deg, score.shuffled_errors_deg, strict=True))
    ]


def _number(value: float) -> str:
    return "-" if value != value else f"{value:.3f}"


def _write_csv(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    with written_whole(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, rows[0] if rows else ())
        writer.writeheader()
        writer.writerows(rows)
