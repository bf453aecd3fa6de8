"""The authors' package romatch compared with romacli: same pseudo-random weights, photographs and run, pair by pair.

    PYTHONPATH=.:tests python tests/benchmarks/reference.py --images 8 --coarse 224 --upsample 320 --json small.json
    PYTHONPATH=.:tests python tests/benchmarks/reference.py --images 4 --json full.json

The reference is what its users write, `match(path, path)` for every pair. romacli's side is what `romacli match` does:
each photograph is decoded and encoded once, `match` warps a pair in both directions and compacts the warps; rejection
is off. Pairs alternate between the two, so that both see the same load, and an interrupted run keeps the figures of the
pairs it has finished. Encodes of all photographs are charged to the pairs in equal shares. First, one pair is compared
on photographs that the reference resized: if warps or certainties differ by more than rounding explains, nothing is
timed.

For some pairs the warps alone are timed too, and sampling from them (`--samples`). The reference sums its density in
half precision, which fails on a CPU; here it uses float32, which takes 13 GB for 10,000 matches.

Needs romatch 0.1.2 and torchvision, both installed without their dependencies, and of those einops and loguru. If
torchvision's compiled part does not fit torch, its operators are declared empty: matching calls none.
"""

from __future__ import annotations

import functools
import importlib.util
import itertools
import re
import statistics
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from seeded_roma import (
    Weights,
    encoded,
    machine,
    parser_for,
    photographs,
    seeded_checkpoints,
    seeded_matcher,
    timed,
    use_threads,
    write_json,
)
from torch import Tensor

from romacli.errors import InputError
from romacli.matchers.dense import TwoPassMatcher
from romacli.matchers.sampling import SampleOptions, sample
from romacli.types import Features, PreparedImage

NEEDED = ("romatch", "torchvision", "einops", "loguru")
# The tolerances of tests/networks/test_roma_parity.py.
WARP = 2e-4  # normalised coordinates
CERTAINTY = 2e-3  # probabilities
# Where two anchors tie, rounding decides, and everything around that position differs; a network with pseudo-random
# weights has some such positions. An error in the method would move all pixels.
FLIPPED = 0.05  # share of pixels


@dataclass(frozen=True)
class Sampling:
    """Seconds of romacli's warp alone, of the reference's sampling from its own warp, and of romacli's."""

    our_warp: float
    reference: float
    ours: float


@dataclass(frozen=True)
class Seconds:
    """Seconds for one pair, without encodes."""

    reference: float
    ours: float
    sampling: Sampling | None


def main() -> None:
    parser = parser_for(__doc__)
    parser.add_argument("--samples", type=int, default=5, help="number of first pairs to sample from")
    parser.add_argument("--matches", type=int, default=10_000, help="matches to sample per pair")
    options = parser.parse_args()
    missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        print(
            f"There is nothing to compare with without {', '.join(missing)}. Install romatch 0.1.2 and torchvision "
            "without their dependencies, and einops and loguru.",
            file=sys.stderr,
        )
        sys.exit(InputError.exit_code)
    use_threads(options.threads)
    paths = photographs(options.folder, options.images)
    checkpoints = seeded_checkpoints()
    reference = reference_matcher(checkpoints, coarse=options.coarse, upsample=options.upsample)
    ours = seeded_matcher(checkpoints, coarse=options.coarse, upsample=options.upsample)
    del checkpoints
    equality = differences(reference, ours, *paths[:2])
    print(
        f"first pair, differences: {', '.join(f'{name} {value:.1e}' for name, value in equality.items())}", flush=True
    )
    if not max(equality["warp beyond"], equality["certainty beyond"]) <= FLIPPED:
        sys.exit(
            "Not the same job: warps or certainties differ on more pixels than rounding explains. Nothing is timed."
        )
    facts = {
        **machine(),
        "romatch": version("romatch"),
        "torchvision": version("torchvision"),
        "folder": str(options.folder),
        **{name: getattr(options, name) for name in ("images", "coarse", "upsample", "matches")},
        "differences": equality,
    }
    pairs = len(paths) * (len(paths) - 1) // 2
    encodes: list[float] = []
    done: list[Seconds] = []
    for seconds in in_turns(reference, ours, paths, encodes, samples=options.samples, matches=options.matches):
        done.append(seconds)
        print(f"pair {len(done)} of {pairs}: {seconds.reference:.2f} s and {seconds.ours:.2f} s", flush=True)
        ratios = summary(done, encode_share=statistics.mean(encodes) * len(paths) / pairs)
        seconds_of = {"encode_s": encodes, "pair_s": [asdict(each) for each in done]}
        write_json(options.json, {**facts, "pairs": pairs, **ratios, **seconds_of})
    print(table({**facts, "pairs": pairs, **ratios}))


def in_turns(
    reference: Any, ours: TwoPassMatcher, paths: Sequence[Path], encodes: list[float], *, samples: int, matches: int
) -> Iterator[Seconds]:
    """Each pair by the reference, then by romacli, whose encodes, when they are due, are added to `encodes`."""
    features: dict[Path, Features] = {}
    for index, pair in enumerate(itertools.combinations(paths, 2)):
        reference_s, found = timed(functools.partial(reference.match, *map(str, pair)))
        for path in pair:
            if path not in features:
                encode_s, features[path] = timed(functools.partial(encoded, ours, path))
                encodes.append(encode_s)
        both = features[pair[0]], features[pair[1]]
        ours_s, _ = timed(functools.partial(ours.match, [both], [0]))
        yield Seconds(reference_s, ours_s, sampled(reference, ours, found, both, matches) if index < samples else None)


def sampled(
    reference: Any, ours: TwoPassMatcher, found: tuple[Tensor, Tensor], pair: tuple[Features, Features], matches: int
) -> Sampling:
    """Warp a pair again, and sample from the reference's warps, passed in, and from romacli's."""
    warp_s, dense = timed(lambda: ours.warp([pair])[0])
    reference_s, _ = timed(lambda: reference.sample(*found, num=matches))
    ours_s, _ = timed(lambda: sample(replace(dense, min_certainty=0.0), 0, SampleOptions(num_matches=matches)))
    return Sampling(warp_s, reference_s, ours_s)


def reference_matcher(checkpoints: tuple[Weights, Weights], *, coarse: int, upsample: int) -> Any:
    """The authors' matcher on the CPU: both directions, second pass, no compiled local correlation."""
    _declare_operators()
    import romatch
    from loguru import logger
    from romatch.models import matcher
    from romatch.utils.kde import kde

    logger.remove()
    matcher.kde = functools.partial(kde, half=False)
    weights, backbone = checkpoints
    return romatch.roma_outdoor(
        device="cpu",
        weights=weights,
        dinov2_weights=backbone,
        coarse_res=coarse,
        upsample_res=upsample,
        use_custom_corr=False,
    )


@functools.cache
def _declare_operators() -> torch.library.Library | None:
    """Declare torchvision's operators where its library can't be loaded: without them its import fails."""
    spec = importlib.util.find_spec("torchvision")
    assert spec is not None
    assert spec.origin is not None
    folder = Path(spec.origin).parent
    try:
        for path in folder.glob("_C*.so"):
            torch.ops.load_library(str(path))
        return None
    except OSError:
        declared = torch.library.Library("torchvision", "DEF")
        text = (folder / "_meta_registrations.py").read_text(encoding="utf-8")
        for name in re.findall(r'register_(?:fake|meta)\("(?:torchvision::)?(\w+)"', text):
            declared.define(f"{name}() -> ()")
        return declared


def differences(reference: Any, ours: TwoPassMatcher, path_A: Path, path_B: Path) -> dict[str, float]:
    """Largest differences of warps and certainties in both directions, and the share of pixels out of tolerance."""
    warp, certainty = reference.match(str(path_A), str(path_B))
    width = warp.shape[2] // 2
    theirs = torch.cat([warp[0, :, :width, 2:], warp[0, :, width:, :2]], dim=1)
    features_A, features_B = (
        ours.encode([resized_by_pillow(path, coarse=reference.h_resized, upsample=reference.upsample_res[0])])[0]
        for path in (path_A, path_B)
    )
    found = ours.warp([(features_A, features_B)])[0]
    assert found.warp_BA is not None
    assert found.certainty_BA is not None
    warp_error = (torch.cat([found.warp_AB, found.warp_BA], dim=1) - theirs).abs()
    certainty_error = (torch.cat([found.certainty_AB, found.certainty_BA], dim=1) - certainty[0]).abs()
    return {
        "warp": warp_error.max().item(),
        "certainty": certainty_error.max().item(),
        "warp beyond": (warp_error > WARP).any(dim=-1).float().mean().item(),
        "certainty beyond": (certainty_error > CERTAINTY).float().mean().item(),
    }


def resized_by_pillow(path: Path, *, coarse: int, upsample: int) -> PreparedImage:
    """A photograph resized as the reference does: one grey level of difference changes a random network's output."""
    with Image.open(path) as image:
        rgb = image.convert("RGB")
    tensors = {
        name: torch.from_numpy(np.array(rgb.resize((side, side), Image.Resampling.BICUBIC))).permute(2, 0, 1)[None]
        for name, side in (("coarse", coarse), ("fine", upsample))
    }
    return PreparedImage(tensors, rgb.size)


def summary(done: Sequence[Seconds], *, encode_share: float) -> dict[str, float]:
    """Median speed-ups over pairs; romacli's pairs include their share of all encodes."""
    rows = [(pair.reference, pair.ours + encode_share) for pair in done]
    ratios = {
        "encode_share_s": encode_share,
        "reference_s": statistics.median(theirs for theirs, _ in rows),
        "ours_s": statistics.median(mine for _, mine in rows),
        "match": _median_ratio(rows),
        "match, of sums": sum(theirs for theirs, _ in rows) / sum(mine for _, mine in rows),
    }
    with_samples = [(pair, pair.sampling) for pair in done if pair.sampling is not None]
    if with_samples:
        ratios["warp alone"] = _median_ratio(
            [(pair.reference, both.our_warp + encode_share) for pair, both in with_samples]
        )
        ratios["match and sample"] = _median_ratio(
            [(pair.reference + both.reference, both.our_warp + both.ours + encode_share) for pair, both in with_samples]
        )
        ratios["sample alone"] = _median_ratio([(both.reference, both.ours) for _, both in with_samples])
    return ratios


def _median_ratio(rows: Sequence[tuple[float, float]]) -> float:
    return statistics.median(theirs / mine for theirs, mine in rows)


def table(values: Mapping[str, Any]) -> str:
    """The ratios and their context."""
    names = [
        name for name in ("match", "match, of sums", "warp alone", "match and sample", "sample alone") if name in values
    ]
    return "\n".join(
        [
            f"{values['images']} photographs, {values['pairs']} pairs, {values['coarse']}/{values['upsample']} px; "
            f"{values['threads']} threads of {values['processor']}; torch {values['torch']}, romatch "
            f"{values['romatch']}, commit {values['commit']}; the reference's density in float32",
            f"a pair, median: {values['reference_s']:.2f} s and {values['ours_s']:.2f} s, of which encodes "
            f"{values['encode_share_s']:.2f} s",
            "| | times as fast |\n|---|---|",
            *(f"| {name} | {values[name]:.2f} |" for name in names),
        ]
    )


if __name__ == "__main__":
    main()
