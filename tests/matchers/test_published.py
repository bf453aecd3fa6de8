"""The published checkpoints, if present: layout, a pair with a known answer, and one published table.

`pytest -m weights` looks for them in the weights folder; for the table, ROMACLI_MEGADEPTH_1500 names the folder of the
benchmark's data, as `romacli eval list` describes it.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from support.plane import photograph_plane
from typer.testing import CliRunner

from romacli.cli.app import app
from romacli.geometry.coordinates import from_colmap_pixels
from romacli.geometry.warp import cell_centres
from romacli.images.decode import read_image
from romacli.matchers.options import MatcherOptions
from romacli.matchers.registry import MATCHERS, load_matcher
from romacli.networks.weights import locate

pytestmark = pytest.mark.weights
PUBLISHED = [name for name, spec in MATCHERS.items() if spec.defaults and spec.weights[0].url]
# Their names in the benchmark's table.
METHODS = {"roma-outdoor": "RoMa", "roma-v2": "RoMa v2", "dkm-outdoor": "DKM v3"}
TOLERANCE = 1.0  # other samples than theirs


@pytest.fixture(params=PUBLISHED)
def model(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    missing = [entry.file_name for entry in MATCHERS[name].weights if locate(entry) is None]
    if missing:
        pytest.skip(f"{', '.join(missing)} not in the weights folder")
    return name


def test_a_plane_is_matched_to_within_two_pixels(model: str, tmp_path: Path) -> None:
    photographs = photograph_plane(tmp_path, ["a.png", "b.png"])
    matcher = load_matcher(model, MatcherOptions(upsample=False))
    pictures = [matcher.prepare(read_image(tmp_path / name)) for name in photographs.names]
    features = matcher.encode(pictures)
    match = matcher.warp([(features[0], features[1])])[0]
    a, b = (photographs.plane_from_image[name] for name in photographs.names)
    shape, size = match.certainty_AB.shape, match.size_B
    points = cell_centres((shape[0], shape[1]), match.size_A) @ (np.linalg.inv(b) @ a)[:2, :2].T
    exact = points + (np.linalg.inv(b) @ a)[:2, 2]
    inside = (exact >= 4).all(axis=-1) & (exact <= np.array(size) - 4).all(axis=-1)
    expected = torch.from_numpy(from_colmap_pixels(exact, size))
    error = ((match.warp_AB.cpu() - expected).abs() * torch.tensor(size) / 2).amax(dim=-1).numpy()
    assert np.median(error[inside]) < 2
    assert match.certainty_AB.cpu().numpy()[inside].mean() > 0.5


def test_the_published_table_comes_out(model: str) -> None:
    folder = os.environ.get("ROMACLI_MEGADEPTH_1500")
    if not folder or model not in METHODS:
        pytest.skip("ROMACLI_MEGADEPTH_1500 names no folder, or no table is known for this model")
    result = CliRunner().invoke(app, ["eval", "megadepth1500", folder, "--model", model, "--json"])
    assert result.exit_code == 0, result.output
    values = json.loads(result.stdout)
    assert values["comparable"]
    published = next(row["figures"] for row in values["published"] if row["method"] == METHODS[model])
    assert [100 * figure for figure in values["figures"].values()] == pytest.approx(published, abs=TOLERANCE)
