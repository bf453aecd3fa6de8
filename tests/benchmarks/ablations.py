"""The contribution of the parts of RoMa's decoder on mini: rows of its table 2 that need no other encoder.

    python tests/benchmarks/ablations.py ablations.jsonl

The backbone and all parts not under test keep mini's published weights, frozen; the part that a row changes is trained
from random weights on rendered pairs, the same for all rows. Rows of the coarse decoder are evaluated with mini's own
refiners, rows of the refiners' loss with mini's own decoder. Each line of the file is a row with one seed; existing
lines are not recomputed. At the end a table is printed: mean and standard deviation over the seeds.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from statistics import mean, stdev

import numpy as np
import torch
from torch import Tensor, nn

from romacli.eval.synthetic import evaluate, validation_pairs, validation_textures
from romacli.matchers.adapters.mini import EMBEDDED
from romacli.matchers.dense import normalise
from romacli.matchers.memory import keep_freed_memory
from romacli.networks.mini import COARSE_STRIDE, read_mini
from romacli.networks.mini_config import MiniConfig
from romacli.synthetic.batch import stacked
from romacli.synthetic.pairs import SyntheticPair, sample_pair
from romacli.synthetic.textures import Textures
from romacli.train.loop import train_step
from romacli.train.losses import mini_loss
from romacli.train.mini import MiniTrainable
from romacli.train.options import TrainOptions
from romacli.train.state import restored
from romacli.train.trainable import Batch, Phase

COARSE = {
    "II": "convolutions, regression",
    "IV": "transformer, regression",
    "VI": "transformer, classification",
    "VIII": "convolutions, classification",
    "mini": "transformer, classification and cosines",
}
REFINERS = {"VI": "mean distance", "VII": "generalised Charbonnier"}
FIGURES = ("coarse", "robust", "pck1", "pck3", "pck5")


class Frozen(MiniTrainable):
    """Mini with its published weights, some parts of which are reset and trained."""

    def __init__(self, options: TrainOptions, learning: tuple[str, ...]) -> None:
        super().__init__(options, torch.device("cpu"))
        fresh, published = self.network.state_dict(), read_mini(EMBEDDED).state_dict()
        for name in fresh:
            if not name.startswith(learning):
                fresh[name] = published[name.replace("fine_trunk.", "trunk.")]
        self.network.load_state_dict(fresh)
        self.network.config = replace(self.network.config, ensemble=False)  # rows differ by what is trained alone
        for name, value in self.network.named_parameters():
            value.requires_grad_(name.startswith(learning))

    def train(self, mode: bool = True) -> Frozen:
        super().train(mode)
        for trunk in (self.network.trunk, self.network.fine_trunk):
            if trunk is not None:
                trunk.eval()
        return self


class CoarseAlone(Frozen):
    """The coarse stage, on precomputed backbone features."""

    def __init__(self, options: TrainOptions) -> None:
        super().__init__(options, ("tokens.", "match_encoder.", "decoder.", "log_token_gain"))

    def forward(self, batch: Batch, phase: Phase) -> tuple[Tensor, dict[str, Tensor]]:
        maps, warp, visible = batch
        with torch.autocast("cpu", torch.bfloat16, enabled=self.precision == "bfloat16"):
            encoded = self.network.encode_tokens({COARSE_STRIDE: maps})
            trace = self.network.trace(encoded)
        return mini_loss(self.network, encoded, trace, warp, visible)


class RefinersAlone(Frozen):
    """The refiners, after mini's decoder."""

    def __init__(self, options: TrainOptions) -> None:
        super().__init__(replace(options, setup=None, config=None), ("refiners.", "log_descriptor_gain"))
        self.robust = options.setup == "VII"


def run(
    kind: str, row: str, seed: int, options: argparse.Namespace, batches: Batch, judged: list[SyntheticPair]
) -> dict:
    torch.manual_seed(seed)
    steps = options.steps if kind == "coarse" else options.refiner_steps
    asked = TrainOptions(
        Path("none.safetensors"),
        setup=None if row == "mini" else row,
        sizes=(options.side,) * 3,
        resume=False,
        config=MiniConfig(context_blocks=0, crossings=0, exchanges=0, scales=1),
    )
    trainable = (CoarseAlone if kind == "coarse" else RefinersAlone)(asked)
    state = restored(asked, trainable)
    rng, began = np.random.default_rng(seed), time.process_time()
    losses = []
    for step in range(steps):
        state.set_learning_rate(step / steps)
        found = train_step(state, trainable, drawn(batches, rng, options.batch), Phase(options.side))
        losses.append(float(found["loss"]) if found else float("nan"))
    trained = sum(value.numel() for value in trainable.network.parameters() if value.requires_grad)
    figures = evaluate(state.average.network.eval(), judged).figures
    return {
        "kind": kind, "row": row, "seed": seed, "steps": steps, "batch": options.batch, "side": options.side,
        "pairs": options.pairs, "parameters": trained, "loss": float(np.mean(losses[-20:])),
        "cpu_s": round(time.process_time() - began), **{name: figures[name] for name in FIGURES},
    }  # fmt: skip


def drawn(batches: Batch, rng: np.random.Generator, count: int) -> Batch:
    """A batch of some of the pairs: the first half of each tensor is A's, the second B's."""
    pairs = len(batches[0]) // 2
    some = rng.choice(pairs, count, replace=False)
    rows = torch.from_numpy(np.concatenate([some, some + pairs]))
    images, warp, visible = (tensor[rows] for tensor in batches)
    return images, warp, visible


@torch.no_grad()
def maps_of(trunk: nn.Module, images: Tensor) -> Tensor:
    return torch.cat([trunk(normalise(part))[COARSE_STRIDE] for part in images.split(16)])


def table(lines: Iterable[dict]) -> list[str]:
    groups: dict[tuple[str, str], list[dict]] = {}
    for line in lines:
        groups.setdefault((line["kind"], line["row"]), []).append(line)
    rows = [
        "| stage | row | | seeds | parameters, M | " + " | ".join(FIGURES) + " |",
        "|---" * (5 + len(FIGURES)) + "|",
    ]
    for (kind, row), found in groups.items():
        cells = []
        for name in FIGURES:
            values = [100 * line[name] for line in found]
            spread = f" ({stdev(values):.1f})" if len(values) > 1 else ""
            cells.append(f"{mean(values):.1f}{spread}")
        what = (COARSE if kind == "coarse" else REFINERS)[row]
        millions = f"{found[0]['parameters'] / 1e6:.2f}"
        rows.append(f"| {kind} | {row} | {what} | {len(found)} | {millions} | " + " | ".join(cells) + " |")
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("output", type=Path)
    parser.add_argument("--steps", type=int, default=500, help="training steps of the coarse stage")
    parser.add_argument("--refiner-steps", type=int, default=200)
    parser.add_argument("--pairs", type=int, default=1000, help="training pairs")
    parser.add_argument("--judged", type=int, default=64)
    parser.add_argument("--side", type=int, default=160, help="image side, px")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--rows", nargs="+", default=list(COARSE), help="rows of the coarse stage")
    options = parser.parse_args()
    torch.set_num_threads(1)
    keep_freed_memory()
    lines = (
        [json.loads(line) for line in options.output.read_text(encoding="utf-8").splitlines()]
        if options.output.exists()
        else []
    )
    done = {(line["kind"], line["row"], line["seed"]) for line in lines}
    judged = validation_pairs(validation_textures(None), options.judged, size=options.side)
    textures, rng = Textures.load(None, procedural=100, seed=0), np.random.default_rng(0)
    images, warp, visible = stacked([sample_pair(textures, rng, options.side) for _ in range(options.pairs)])
    maps = maps_of(read_mini(EMBEDDED).trunk.eval(), images)
    given: dict[str, Batch] = {"coarse": (maps, warp, visible), "refiners": (images, warp, visible)}
    for seed in range(options.seeds):
        for kind, rows in (("coarse", options.rows), ("refiners", REFINERS)):
            for row in rows:
                if (kind, row, seed) in done:
                    continue
                lines.append(run(kind, row, seed, options, given[kind], judged))
                with options.output.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(lines[-1]) + "\n")
                print(lines[-1], flush=True)
    print("\n".join(table(lines)))


if __name__ == "__main__":
    main()
