"""Update the figures of man/romacli-mini.7 from the files written by the commands named on that page.

    python tests/benchmarks/mini_card.py man/romacli-mini.7 --synthetic synthetic.json --photographs photographs.json

The text between the two marks of the page is replaced; the rest is written by hand. The metadata of the weights and,
with --log, the training log are quoted too.
"""

from __future__ import annotations

import argparse
import csv
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from safetensors import safe_open

from romacli.matchers.adapters.mini import EMBEDDED
from romacli.networks.weights import sha256_of

BEGIN, END = '.\\" Figures: written by tests/benchmarks/mini_card.py', '.\\" End of figures.'
LOG_LINES = 8
Figures = dict[str, Any]


def replaced(page: str, figures: Sequence[str]) -> str:
    """The page with the figures between its marks replaced."""
    before, _, rest = page.partition(BEGIN)
    _, mark, after = rest.partition(END)
    if not mark:
        raise SystemExit(f"the page has no lines {BEGIN!r} and {END!r} to write between")
    return "\n".join([before + BEGIN, *figures, END]) + after


def weights_section(path: Path, log: Path | None) -> Iterator[str]:
    with safe_open(str(path), framework="pt") as file:
        facts = file.metadata()
    yield from (".SS Weights", ".nf")
    yield f"steps    {int(facts['steps']):,}"
    yield f"pairs    {int(facts['pairs']):,}"
    if "elapsed_s" in facts:
        yield f"time     {float(facts['elapsed_s']) / 60:.0f} minutes"
    if "commit" in facts:
        yield f"commit   {facts['commit'][:12]}"
    yield f"sha256   {sha256_of(path)[:16]}"
    yield f"size     {path.stat().st_size / 1e6:.1f} MB, float16"
    recipe = json.loads(facts.get("recipe", "{}"))
    start = recipe.pop("start", None)
    if start:
        yield f"start    continued from weights {start[:16]}"
    if "mean_of" in facts:
        yield "mean     of " + " and ".join(f"{share} x {run}" for run, share in json.loads(facts["mean_of"]))
    yield from (
        ".fi",
        ".PP",
        "Values of the recipe: " + ", ".join(f"{k} {v}" for k, v in recipe.items() if v is not None) + ".",
    )
    if log is not None:
        yield from curve(log)


def curve(log: Path) -> Iterator[str]:
    """Evenly spaced lines of the training log, with the columns it has."""
    with log.open(encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row.get("loss")]
    columns = [name for name in ("step", "pairs", "loss", "pck3", "pck1", "coarse", "certainty_auc") if name in rows[0]]
    judged = [row for row in rows if row.get("pck3")] or rows
    lines = min(LOG_LINES, len(judged))
    chosen = [judged[round(i * (len(judged) - 1) / max(lines - 1, 1))] for i in range(lines)]
    yield from (".PP", "Training progress, from its log:", ".PP", ".nf")
    yield "".join(f"{name:>14}" for name in columns)
    for row in chosen:
        yield "".join(f"{_short(row[name]):>14}" for name in columns)
    yield ".fi"


def synthetic_section(figures: Figures) -> Iterator[str]:
    yield from (".SS Rendered pairs", ".nf", r"romacli eval synthetic \-\-textures textures/validation", ".fi", ".PP")
    yield from accuracy_table(figures)
    yield ".SS Reliability"
    yield from reliability_table(figures["single_pass"], figures["as_matched"])


def school_section(figures: Figures) -> Iterator[str]:
    school = figures["recipe"]["school"]
    yield from (f".SS {school.capitalize()} rendered pairs", ".nf")
    yield from (rf"romacli eval synthetic \-\-{school} \-\-textures textures/validation", ".fi", ".PP")
    yield from accuracy_table(figures)


def accuracy_table(figures: Figures) -> Iterator[str]:
    recipe, results = (
        figures["recipe"],
        [figures[name] for name in ("single_pass", "single_pass_matched", "as_matched")],
    )
    yield (
        f"{recipe['pairs']} pairs of {recipe['size']} px, seed {recipe['seed']}, fingerprint {figures['fingerprint']}; "
        f"as matched: the first {recipe['matched']} of them, in two passes at "
        f"{figures['model']['coarse_resolution']} and {figures['model']['upsample_resolution']}; "
        "of matched: the same in a single pass."
    )
    yield from (".PP", ".nf", f"{'':28}{'single pass':>12}{'of matched':>12}{'as matched':>12}")
    rows = {
        "within 32 px at 448, coarse": "coarse",
        "within 32 px at 448": "robust",
        "within 5 px": "pck5",
        "within 3 px": "pck3",
        "within 1 px": "pck1",
        "certainty, area under ROC": "certainty_auc",
    }
    for title, name in rows.items():
        yield f"{title:28}" + "".join(f"{_cell(result[name]):>12}" for result in results)
    errors = (result["reliability"]["expected_error"] for result in results)
    yield f"{'calibration error':28}" + "".join(f"{_cell(error):>12}" for error in errors)
    yield ".fi"


def reliability_table(single: Figures, matched: Figures) -> Iterator[str]:
    yield (
        "Share of the pixels with a given certainty whose point is visible in the other image and found within 3 px "
        "at 256 px:"
    )
    yield from (".PP", ".nf", f"{'certainty':12}{'single pass':>14}{'pixels':>10}{'as matched':>14}{'pixels':>10}")
    for one, two in zip(single["reliability"]["bins"], matched["reliability"]["bins"], strict=True):
        cells = f"{_cell(one['share_right']):>14}{one['count']:>10}{_cell(two['share_right']):>14}{two['count']:>10}"
        yield f"{one['low']:.1f} to {one['high']:.1f}  {cells}"
    yield ".fi"


def unrelated_section(synthetic: Figures, photographs: Figures) -> Iterator[str]:
    measured = {"rendered scenes": synthetic.get("unrelated"), "photographs": photographs.get("unrelated")}
    if not any(measured.values()):
        return
    yield ".SS Unrelated pairs"
    yield "Pairs of unrelated images without a verified geometry at the default settings:"
    yield from (".PP", ".nf")
    for title, judged in measured.items():
        if judged:
            refused = f"{judged['pairs'] - judged['verified']} of {judged['pairs']}, {100 * judged['refused']:.1f} %"
            yield f"{title:18}{refused}; the matcher rejected {judged['rejected']} of them itself"
    yield ".fi"


def photographs_section(figures: Figures) -> Iterator[str]:
    yield from (".SS Photographs", ".nf", "python tests/benchmarks/photographs.py DATA \\-\\-cache CACHE", ".fi", ".PP")
    if "sceaux_sift" in figures:
        yield "Verified SIFT matches of the facade that the warp finds (px at 448 px; two passes, any certainty):"
        yield from (".PP", ".nf")
        yield f"{'':34}{'pairs':>5}{'1 px':>9}{'3 px':>9}{'32 px':>9}{'median':>9}"
        for name, title in (("all", "all that SIFT matches"), ("near", "up to three photographs apart")):
            sift = figures["sceaux_sift"][name]
            shares = "".join(f"{_percent(sift[f'within_{limit}']):>9}" for limit in (1, 3, 32))
            yield f"{title:34}{sift['pairs']:5}{shares}{sift['mean_of_medians_px']:6.2f} px"
        yield from (".fi", ".PP", "All pairs have equal weight; the last column is the mean of the pairs' medians.")
    if "warped_copies" in figures:
        yield from (".PP", "Points of a changed copy of a facade photograph found in it within 3 px at 448 px:")
        yield from (".PP", ".nf")
        rescaled = figures.get("rescaled_copies", {})
        if rescaled:
            yield f"{'':22}{'without':>9}  with \\-\\-try\\-scales"
        for title in dict.fromkeys([*figures["warped_copies"], *rescaled]):
            shares = [_percent(each[title]) if title in each else "-" for each in (figures["warped_copies"], rescaled)]
            yield f"{title:22}{shares[0]:>9}{shares[1]:>19}" if rescaled else f"{title:22}{shares[0]:>9}"
        yield ".fi"
    if "baselines" in figures:
        yield ".PP"
        yield "Relative poses of the example scene within 5 degrees of the truth, by the angle between photographs:"
        yield from (".PP", ".nf")
        for angle, row in figures["baselines"].items():
            yield f"{angle:>7}{row['within_5_deg']:>5} of {row['pairs']}{row['matches']:>8.0f} matches a pair"
        yield ".fi"
    if "reconstruct" in figures:
        yield from (".PP", "Models at the default settings, or with a known camera;")
        yield "pose differences are medians against COLMAP's model from SIFT features:"
        yield from (".PP", ".nf")
        yield f"{'':22}{'images':>9}{'SIFT':>6}{'points':>8}{'track':>7}" + "".join(
            f"{title:>10}" for title in ("error px", "rotation", "position")
        )
        for name, run in figures["reconstruct"].items():
            sift = figures["sift_registered"]
            yield _model_row(name, run, sift[name] if name in sift else sift[name.split(",")[0]])
        yield ".fi"


def _model_row(name: str, run: Figures, sift: int) -> str:
    count = f"{run['registered']} of {run['images']}"
    if not run["registered"]:
        return f"{name:22}{count:>9}{sift:>6}  no model"
    poses = ("-", "-")
    if "rotation_deg" in run and run["compared"] > 2:
        poses = (f"{run['rotation_deg']:.2f} deg", f"{100 * run['position']:.1f} %")
    return (
        f"{name:22}{count:>9}{sift:>6}{run['points3D']:>8}{run['mean_track_length']:>7.1f}"
        f"{run['mean_reprojection_error']:>10.2f}{poses[0]:>10}{poses[1]:>10}"
    )


def _cell(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def _short(text: str) -> str:
    return f"{float(text):.3f}" if "." in text else text


def _measured(path: Path | None) -> Figures:
    """The figures in a file, if measured with the weights in the package; none without a file."""
    if path is None:
        return {}
    figures: Figures = json.loads(path.read_text("utf-8"))
    found = figures.get("weights_sha256") or figures["model"]["weights_sha256"]
    if found != sha256_of(EMBEDDED):
        raise SystemExit(f"{path} was measured with other weights ({found[:16]}) than those in the package")
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("page", type=Path)
    parser.add_argument("--synthetic", type=Path, help="output of romacli eval synthetic --json")
    parser.add_argument("--hard", type=Path, help="output of romacli eval synthetic --hard --json")
    parser.add_argument("--changed", type=Path, help="output of romacli eval synthetic --changed --json")
    parser.add_argument("--photographs", type=Path, help="output of photographs.py --json")
    parser.add_argument("--log", type=Path, help="the CSV log of the training")
    options = parser.parse_args()
    synthetic, photographs = map(_measured, (options.synthetic, options.photographs))
    figures = [*weights_section(EMBEDDED, options.log)]
    figures += synthetic_section(synthetic) if synthetic else ()
    for school in filter(None, map(_measured, (options.hard, options.changed))):
        figures += school_section(school)
    figures += unrelated_section(synthetic, photographs)
    figures += photographs_section(photographs) if photographs else ()
    options.page.write_text(replaced(options.page.read_text("utf-8"), figures), encoding="utf-8")


if __name__ == "__main__":
    main()
