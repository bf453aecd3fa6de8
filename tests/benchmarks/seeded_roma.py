"""RoMa of the published size with pseudo-random weights, and the details to report with every timing."""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import torch
from support.seeded_weights import seeded_state_dict
from torch import Tensor

from romacli.images.decode import read_image
from romacli.images.listing import list_images
from romacli.matchers.dense import DenseSettings, TwoPassMatcher
from romacli.matchers.registry import MATCHERS
from romacli.networks.roma import RoMa, checkpoint_layouts
from romacli.types import Features

ROOT = Path(__file__).resolve().parents[2]
SCENE = ROOT / "examples" / "scene" / "images"
SEED = 6

Weights = dict[str, Tensor]


def seeded_checkpoints() -> tuple[Weights, Weights]:
    """RoMa's and DINOv2's state dicts, 1.7 GB; a matcher's time does not depend on their values."""
    with torch.device("meta"):
        roma, dinov2 = checkpoint_layouts(RoMa())
    return seeded_state_dict(roma, seed=SEED, group="roma"), seeded_state_dict(dinov2, seed=SEED, group="dinov2")


def seeded_matcher(
    checkpoints: tuple[Weights, Weights], *, coarse: int, upsample: int, dtype: torch.dtype = torch.float32
) -> TwoPassMatcher:
    """romacli's matcher with these weights on the CPU, for square images of these sides; it rejects no pair."""
    settings = DenseSettings(
        model="roma-seeded",
        weights_sha256="",
        coarse_resolution=(coarse, coarse),
        upsample_resolution=(upsample, upsample),
        min_certainty=MATCHERS["roma-outdoor"].defaults.min_certainty,
        min_overlap=0.0,
        dtype=str(dtype).removeprefix("torch."),
    )
    network = RoMa.from_checkpoints(*checkpoints).to(dtype=dtype).eval()
    return TwoPassMatcher(network, settings, device=torch.device("cpu"), autocast=False)


def encoded(matcher: TwoPassMatcher, path: Path) -> Features:
    """A photograph, from file to features."""
    return matcher.encode([matcher.prepare(read_image(path))])[0]


def timed(work: Callable[[], Any]) -> tuple[float, Any]:
    """Wall-clock seconds, and the result."""
    start = time.perf_counter()
    value = work()
    return time.perf_counter() - start, value


def photographs(folder: Path, count: int) -> list[Path]:
    """The first `count` photographs of a folder."""
    listed = list_images(folder)
    if len(listed.names) < max(count, 2):
        raise SystemExit(f"{folder} has {len(listed.names)} photographs of {count}. Give another folder or --images.")
    return [listed.root / name for name in listed.names[:count]]


def parser_for(description: str) -> argparse.ArgumentParser:
    """The options that programs with these weights share."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "folder", type=Path, nargs="?", default=SCENE, help="folder of photographs (default: the example scene)"
    )
    parser.add_argument(
        "--images", type=int, default=8, help="number of first images in the folder, matched in all pairs"
    )
    parser.add_argument("--coarse", type=int, default=560, help="side of the first pass in px, a multiple of 14")
    parser.add_argument("--upsample", type=int, default=864, help="side of the second pass in px, a multiple of 8")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", type=Path, help="file for the figures, written after every pair")
    return parser


def use_threads(count: int) -> None:
    torch.set_num_threads(count)
    cv2.setNumThreads(count)


def machine() -> dict[str, Any]:
    """Hardware, threads and versions."""
    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "commit": _commit(),
    }


def write_json(path: Path | None, values: dict[str, Any]) -> None:
    """Replace the file atomically: a run may be stopped at any pair."""
    if path is None:
        return
    part = path.with_name(path.name + ".part")
    part.write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")
    part.replace(path)


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


def _commit() -> str:
    words = ["git", "-C", str(ROOT), "describe", "--always", "--dirty"]
    found = subprocess.run(words, capture_output=True, encoding="utf-8")
    return found.stdout.strip() or "unknown"
