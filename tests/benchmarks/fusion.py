"""Fused descriptors against the maps they were fused from, on pairs that no training or choice has seen.

    python tests/benchmarks/fusion.py WEIGHTS PHOTOGRAPHS --seeds 1 2 3

For each seed: the share of visible places whose most similar cell of 8 px in the other picture is within a cell of the
truth, by the fused maps side by side and by the two maps of mini's trunk side by side.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

from romacli.eval.synthetic import matched_share, validation_pairs, validation_textures
from romacli.matchers.adapters.mini import EMBEDDED
from romacli.networks.mini import load_mini
from romacli.train.fusion import FusedTrunk, read_fusion


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("weights", type=Path)
    parser.add_argument("photographs", type=Path)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--pairs", type=int, default=128)
    options = parser.parse_args()
    torch.set_num_threads(1)
    network = FusedTrunk(load_mini(EMBEDDED).trunk, read_fusion(options.weights)).eval()
    textures = validation_textures(options.photographs)
    for seed in options.seeds:
        pairs = validation_pairs(textures, options.pairs, seed=seed)
        shares = [matched_share(describe, pairs) for describe in (network.described, network.joined)]
        print(f"seed {seed}: fused {shares[0]:.3f}, side by side {shares[1]:.3f}", flush=True)


if __name__ == "__main__":
    main()
