"""A curriculum by success: scenes of a kind that the network half masters are drawn most often."""

from __future__ import annotations

import multiprocessing
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from romacli.geometry.coordinates import to_colmap_pixels
from romacli.geometry.ground_truth import ground_truth_at

from .scenes import Camera, TexturedPlane, outline, warp_between

# Limits between kinds: how much larger one picture shows the same, how much it is foreshortened in the other, and by
# how many degrees it is turned.
ENLARGED = (1.4, 2.0)
STRETCHED = (1.5, 2.5)
TURNED = (20.0,)
COARSE_LIMIT = 32 / 448  # of the image's side, found if nearer than this: RoMa's robustness criterion
KINDS = (len(ENLARGED) + 1) * (len(STRETCHED) + 1) * (len(TURNED) + 1)
SCOUT_PX = 24
MEMORY = 0.98  # share of a rate that remains after one more pair
LEAST_KEPT = 0.1  # share of the pairs that are kept of any kind, in terms of the kind kept most often


class Curriculum:
    """The share of visible points that the network finds, by kind of pair; shared by all processes that draw pairs.

    A kind is kept in proportion to the variance r (1 - r) of its rate r: most often if half is found, hardly if all or
    nothing is.
    """

    def __init__(self) -> None:
        self._rates = multiprocessing.Array("d", [0.5] * KINDS)

    @property
    def rates(self) -> tuple[float, ...]:
        """The share found of each kind, most recent pairs first; 0.5 before the first."""
        return tuple(self._rates[:])

    def keeps(
        self, rng: np.random.Generator, planes: Sequence[TexturedPlane], cameras: tuple[Camera, Camera], least: float
    ) -> bool:
        """Whether to use a scene: seldom if the network does not learn from its kind, never if little is in both views.

        Args:
            least: share of the first picture that the second must show.
        """
        small = [scouting(camera) for camera in cameras]
        views = [outline(planes, camera, picture) for picture, camera in enumerate(small)]
        warp, visible = warp_between(small[0], views[0], small[1], views[1])
        if visible.mean() <= least:
            return False
        variance = np.array([rate * (1 - rate) for rate in self.rates])
        kept = np.maximum(variance / max(variance.max(), 1e-6), LEAST_KEPT)
        return bool(rng.random() < kept[kind_of(warp, visible)])

    def learn(self, warp: Tensor, visible: Tensor, found: Tensor) -> None:
        """Update the rates.

        Args:
            warp, visible: (N, S, S, 2) normalised and (N, S, S), the truth of a batch.
            found: (N,) of `share_found`.
        """
        truth, seen = ground_truth_at(warp, visible, (SCOUT_PX, SCOUT_PX))
        warps = to_colmap_pixels(truth.cpu(), (SCOUT_PX, SCOUT_PX)).numpy()
        for each, shown, share in zip(warps, seen.cpu().numpy(), found.tolist(), strict=True):
            if shown.any() and np.isfinite(share) and np.isfinite(each).all():  # photographs are not of its choice
                kind = kind_of(each, shown)
                self._rates[kind] = MEMORY * self._rates[kind] + (1 - MEMORY) * share


@torch.no_grad()
def share_found(predicted: Tensor, warp: Tensor, visible: Tensor) -> Tensor:
    """Return the share (N,) of visible points whose predicted match is within `COARSE_LIMIT`; NaN if none is visible.

    Args:
        predicted: (N, h, w, 2) normalised. warp, visible: (N, S, S, 2) normalised and (N, S, S), the truth.
    """
    truth, seen = ground_truth_at(warp, visible, (predicted.shape[1], predicted.shape[2]))
    near = (predicted - truth).norm(dim=-1) < 2 * COARSE_LIMIT
    return (near & seen).sum(dim=(1, 2)) / seen.sum(dim=(1, 2))


def kind_of(warp: NDArray[np.float32], visible: NDArray[np.bool_]) -> int:
    """The kind of a pair, below `KINDS`, by the medians over what both pictures show.

    Args:
        warp: (S, S, 2) px of a picture of equal size. visible: (S, S).
    """
    across, down = np.diff(warp, axis=1)[:-1], np.diff(warp, axis=0)[:, :-1]
    both = visible[:-1, :-1] & visible[:-1, 1:] & visible[1:, :-1]
    if not both.any():
        return 0
    area = np.abs(across[..., 0] * down[..., 1] - across[..., 1] * down[..., 0])[both].clip(1e-6)
    # Of the Jacobian's singular values, area is the product; the stretch is their quotient.
    sum_of_squares = ((across**2).sum(axis=-1) + (down**2).sum(axis=-1))[both]
    half = sum_of_squares / (2 * area)
    stretch = half + np.sqrt(np.maximum(half**2 - 1, 0))
    size = float(np.sqrt(np.median(area)))
    # The turn of the rotation nearest to the Jacobian.
    turn = np.arctan2(across[..., 1] - down[..., 0], across[..., 0] + down[..., 1])[both]
    enlarged = int(np.searchsorted(ENLARGED, max(size, 1 / size)))
    stretched = int(np.searchsorted(STRETCHED, float(np.median(stretch))))
    turned = int(np.searchsorted(TURNED, float(np.median(np.abs(np.degrees(turn))))))
    return (turned * (len(ENLARGED) + 1) + enlarged) * (len(STRETCHED) + 1) + stretched


def scouting(camera: Camera) -> Camera:
    """The same camera with a picture `SCOUT_PX` wide."""
    shrink = SCOUT_PX / camera.size[0]
    return replace(camera, K=np.diag((shrink, shrink, 1.0)) @ camera.K, size=(SCOUT_PX, SCOUT_PX))
