"""Weights of mini that are the mean of several runs' weights from one start.

PYTHONPATH=. python tests/benchmarks/average_weights.py OUTPUT RUN=SHARE RUN=SHARE ...
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from safetensors import safe_open
from safetensors.torch import load_file, save_file

from romacli.networks.weights import sha256_of

COUNTS = ("steps", "pairs", "elapsed_s")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("output", type=Path)
    parser.add_argument("runs", nargs="+", metavar="RUN=SHARE", help="a weight file and its share; shares add up to 1")
    args = parser.parse_args()
    shares = {Path(run.rpartition("=")[0]): float(run.rpartition("=")[2]) for run in args.runs}
    if abs(sum(shares.values()) - 1) > 1e-6:
        parser.error("the shares must add up to 1")
    mean, facts = {}, []
    for path, share in shares.items():
        with safe_open(path, "pt") as file:
            facts.append(file.metadata())
        weights = load_file(path)
        if mean and weights.keys() != mean.keys():
            parser.error(f"{path} has other tensors than the first run")
        mean = {name: mean.get(name, 0) + share * value.float() for name, value in weights.items()}
    told = facts[0] | {name: str(sum(int(each[name]) for each in facts)) for name in COUNTS}
    told["mean_of"] = json.dumps([[sha256_of(path)[:16], share] for path, share in shares.items()])
    save_file({name: value.half().contiguous() for name, value in mean.items()}, args.output, told)


if __name__ == "__main__":
    main()
