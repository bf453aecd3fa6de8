"""Compare whole warps with those computed from depth maps and poses."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from romacli.eval.benchmarks.benchmark import Task
from romacli.eval.benchmarks.marked import check_upright
from romacli.geometry.coordinates import to_colmap_pixels
from romacli.types import DenseMatch, Size

_WITHIN_PX = (1.0, 3.0, 5.0, 32.0)


@dataclass(frozen=True)
class DenseReader:
    """The first picture's warp at a given size, compared where depths show that both pictures see a point.

    The truth of a task reads both views. The errors are the mean error in px at that size, and the shares of pixels
    within 1, 3, 5 and 32 px; none for pairs with at most `fewest` such pixels.
    """

    size: Size
    fewest: int = 50

    def __str__(self) -> str:
        return (
            f"the warp of the first picture at {self.size[0]} x {self.size[1]} px, where depths agree within 5 %, on "
            f"pairs of more than {self.fewest} such pixels"
        )

    def read(self, task: Task, warps: DenseMatch) -> list[float]:
        """In px and shares.

        Raises:
            InputError: a depth map cannot be read.
        """
        import torch.nn.functional as F

        from romacli.train.data.posed import PosedView, TrainingView, Window, at_size, warp_from_depth

        def sized(view: PosedView) -> TrainingView:
            height, width = view.image.shape[:2]
            return at_size(view, Window(0, 0, width, height), self.size)

        check_upright(task, warps)
        one, other = task.truth()
        truth, visible = warp_from_depth(sized(one), sized(other))
        if np.count_nonzero(visible) <= self.fewest:
            return []
        normalised = warps.warp_AB.float().cpu().permute(2, 0, 1)[None]
        at = F.interpolate(normalised, self.size[::-1], mode="bilinear", align_corners=False)[0].permute(1, 2, 0)
        errors = np.linalg.norm(to_colmap_pixels(at, self.size).numpy() - truth, axis=-1)[visible]
        return [float(errors.mean()), *(float((errors < limit).mean()) for limit in _WITHIN_PX)]
