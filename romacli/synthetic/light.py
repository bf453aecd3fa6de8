"""The effects of light, lens and sensor in `photometric`, for a whole batch on any device."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

KERNEL_PX = 9
SHADOW_SIDES = 5
LAMPS = 4
LOCAL_CELLS = 8  # per side, whose mean local contrast refers to
BLOCK_PX = 8
# Quantisation tables of the JPEG standard, annex K, at quality 50.
LUMINANCE = (
    (16, 11, 10, 16, 24, 40, 51, 61),
    (12, 12, 14, 19, 26, 58, 60, 55),
    (14, 13, 16, 24, 40, 57, 69, 56),
    (14, 17, 22, 29, 51, 87, 80, 62),
    (18, 22, 37, 56, 68, 109, 103, 77),
    (24, 35, 55, 64, 81, 104, 113, 92),
    (49, 64, 78, 87, 103, 121, 120, 101),
    (72, 92, 95, 98, 112, 100, 103, 99),
)
CHROMINANCE = (
    (17, 18, 24, 47, 99, 99, 99, 99),
    (18, 21, 26, 66, 99, 99, 99, 99),
    (24, 26, 56, 99, 99, 99, 99, 99),
    (47, 66, 99, 99, 99, 99, 99, 99),
    *((99,) * 8,) * 4,
)
YCBCR = ((0.299, 0.587, 0.114), (-0.168736, -0.331264, 0.5), (0.5, -0.418688, -0.081312))


class Dice:
    """Random numbers for a batch of pictures, shaped to broadcast over (V, C, H, W)."""

    def __init__(self, count: int, generator: torch.Generator) -> None:
        self.count, self.generator = count, generator

    def uniform(self, low: float, high: float, *shape: int) -> Tensor:
        """(V, *shape) between low and high; (V, 1, 1, 1) without a shape."""
        drawn = torch.rand(self.count, *(shape or (1, 1, 1)), generator=self.generator, device=self.generator.device)
        return low + (high - low) * drawn

    def chance(self, share: float) -> Tensor:
        """(V, 1, 1, 1) bool, true with this probability."""
        return self.uniform(0, 1) < share


def photograph_all(
    rgb: Tensor, generator: torch.Generator, at_night: Tensor | None = None, graded: Tensor | None = None
) -> Tensor:
    """Return pictures under changed light: random shadows, blur, exposure, colour, noise and JPEG.

    Args:
        rgb: (V, 3, S, S) float32 in [0, 255].
        generator: determines which effects and how strong; on the same device.
        at_night: (V,) bool, pictures without daylight.
        graded: (V,) bool, pictures with changed saturation and local contrast.

    Returns:
        (V, 3, S, S) uint8.
    """
    dice = Dice(len(rgb), generator)
    if at_night is not None and at_night.any():
        rgb = torch.where(at_night[:, None, None, None], (rgb * lamps(dice, rgb.shape[-1])).clamp(max=255), rgb)
    rgb = (rgb * light(dice, rgb.shape[-1])).clamp(0, 255)
    rgb = blur(rgb, blur_kernels(dice)).clamp(0, 255)
    if graded is not None and graded.any():
        rgb = torch.where(graded[:, None, None, None], grade(rgb, dice), rgb)
    rgb = tone(rgb, dice)
    grain = torch.randn(rgb.shape, generator=generator, device=rgb.device) * dice.uniform(1, 12)
    rgb = torch.where(dice.chance(0.6), rgb + grain, rgb).clamp(0, 255).round()
    rgb = torch.where(dice.chance(0.2), jpeg(rgb, dice.uniform(25, 85)), rgb)
    return rgb.clamp(0, 255).round().to(torch.uint8)


def lamps(dice: Dice, size: int) -> Tensor:
    """Return a gain (V, 3, S, S) at night: dim bluish light, and pools of warm light."""
    centres = (torch.arange(size, device=dice.generator.device) + 0.5) / size
    gain = dice.uniform(0.1, 0.35) * centres.new_tensor((0.8, 0.9, 1.15)).view(1, 3, 1, 1)
    x = centres[None, None, None, :] - dice.uniform(-0.1, 1.1, LAMPS, 1, 1)
    y = centres[None, None, :, None] - dice.uniform(-0.1, 1.1, LAMPS, 1, 1)
    pools = (-(x.square() + y.square()) / (2 * dice.uniform(0.08, 0.4, LAMPS, 1, 1).square())).exp()
    pools = pools * dice.uniform(0.4, 1.6, LAMPS, 1, 1) * (dice.uniform(0, 1, LAMPS, 1, 1) < 0.6)
    warmth = torch.cat((torch.ones_like(dice.uniform(0, 1)), dice.uniform(0.7, 0.9), dice.uniform(0.35, 0.7)), dim=1)
    return gain + pools.sum(dim=1, keepdim=True) * warmth


def light(dice: Dice, size: int) -> Tensor:
    """Return a gain (V, 1, S, S) from a cast shadow with straight edges and uneven illumination."""
    centres = (torch.arange(size, device=dice.generator.device) + 0.5) / size
    x, y = centres[None, None, None, :] - dice.uniform(0, 1), centres[None, None, :, None] - dice.uniform(0, 1)
    angles = dice.uniform(0, 2 * math.pi, SHADOW_SIDES, 1, 1)
    reach = dice.uniform(0.1, 0.8) * dice.uniform(0.3, 1.2, SHADOW_SIDES, 1, 1)
    softness = dice.uniform(1, 6) / size
    inside = torch.sigmoid((reach - angles.cos() * x - angles.sin() * y) / softness).prod(dim=1, keepdim=True)
    shadow = 1 - torch.where(dice.chance(0.3), inside * dice.uniform(0.2, 0.65), 0.0)
    uneven = F.interpolate(dice.uniform(0.55, 1.45, 1, 3, 3), (size, size), mode="bicubic")
    return shadow * torch.where(dice.chance(0.3), uneven, 1.0)


def blur_kernels(dice: Dice) -> Tensor:
    """Return one kernel (V, 1, K, K) per picture: defocus, motion blur, sharpening, or most often none."""
    steps = torch.arange(KERNEL_PX, device=dice.generator.device, dtype=torch.float32) - KERNEL_PX // 2
    x, y = steps[None, None, None, :], steps[None, None, :, None]
    untouched = ((x == 0) & (y == 0)).float().expand(dice.count, -1, -1, -1)
    squared = x.square() + y.square()
    defocus = _summing_to_one((-squared / (2 * dice.uniform(0.4, 1.6).square())).exp())
    angle, half = dice.uniform(0, math.pi), dice.uniform(1.5, 3.5)
    along, across = angle.cos() * x + angle.sin() * y, angle.cos() * y - angle.sin() * x
    beyond = (along.abs() - half).clamp(min=0)
    motion = _summing_to_one((-(across.square() + beyond.square()) / (2 * 0.4**2)).exp())
    amount = dice.uniform(0.3, 1.5)
    sharpened = (1 + amount) * untouched - amount * _summing_to_one((-squared / (2 * 1.5**2)).exp())
    chance = dice.uniform(0, 1)
    return torch.where(
        chance < 0.25, defocus, torch.where(chance < 0.33, motion, torch.where(chance < 0.42, sharpened, untouched))
    )


def blur(rgb: Tensor, kernels: Tensor) -> Tensor:
    """Return pictures (V, 3, S, S) convolved with their kernels (V, 1, K, K)."""
    count = len(rgb)
    padded = F.pad(rgb, (KERNEL_PX // 2,) * 4, mode="reflect").reshape(
        1, -1, *(s + KERNEL_PX - 1 for s in rgb.shape[2:])
    )
    return F.conv2d(padded, kernels.repeat_interleave(3, dim=0), groups=3 * count).view_as(rgb)


def grade(rgb: Tensor, dice: Dice) -> Tensor:
    """Return pictures with stronger local contrast, and paler, richer or no colours."""
    coarse = F.interpolate(F.adaptive_avg_pool2d(rgb, LOCAL_CELLS), rgb.shape[2:], mode="bicubic")
    rgb = rgb + dice.uniform(0, 1.5) * (rgb - coarse)
    grey = (rgb * rgb.new_tensor(YCBCR[0]).view(1, 3, 1, 1)).sum(dim=1, keepdim=True)
    saturation = torch.where(dice.chance(0.15), 0.0, dice.uniform(-1.0, 0.7).exp())
    return (grey + saturation * (rgb - grey)).clamp(0, 255)


def tone(rgb: Tensor, dice: Dice) -> Tensor:
    """Return pictures with changed exposure, white balance, contrast and gamma; rarely a negative."""
    mean = rgb.mean(dim=(1, 2, 3), keepdim=True) / 255
    value = rgb / 255 * dice.uniform(0.6, 1.35) * dice.uniform(0.88, 1.12, 3, 1, 1)
    value = ((value - mean) * dice.uniform(0.6, 1.4) + mean + dice.uniform(-0.1, 0.1)).clamp(1e-3, 1)
    value = torch.where(dice.chance(0.7), value ** dice.uniform(-0.6, 0.6).exp(), value)
    return torch.where(dice.chance(0.02), 1 - value, value) * 255


def jpeg(rgb: Tensor, quality: Tensor) -> Tensor:
    """Return pictures (V, 3, S, S) after JPEG compression without chroma subsampling.

    Args:
        quality: (V, 1, 1, 1), 1 to 100.
    """
    height, width = rgb.shape[2:]
    padded = F.pad(rgb, (0, -width % BLOCK_PX, 0, -height % BLOCK_PX), mode="replicate")
    to_ycc = rgb.new_tensor(YCBCR)
    ycc = torch.einsum("ij,vjhw->vihw", to_ycc, padded - 128)
    blocks = (
        ycc.unflatten(3, (-1, BLOCK_PX)).unflatten(2, (-1, BLOCK_PX)).transpose(3, 4)
    )  # (V, 3, rows, columns, 8, 8)
    basis = _cosines(rgb.device)
    tables = rgb.new_tensor([LUMINANCE, CHROMINANCE, CHROMINANCE])[None, :, None, None]
    scale = torch.where(quality < 50, 5000 / quality, 200 - 2 * quality)[..., None, None] / 100
    step = (tables * scale).round().clamp(1, 255)
    kept = (basis @ blocks @ basis.T / step).round() * step
    ycc = (basis.T @ kept @ basis).transpose(3, 4).flatten(4, 5).flatten(2, 3)
    restored = torch.einsum("ij,vjhw->vihw", torch.linalg.inv(to_ycc), ycc) + 128
    return restored[..., :height, :width].clamp(0, 255)


def _cosines(device: torch.device) -> Tensor:
    """The orthonormal basis (8, 8) of the discrete cosine transform."""
    steps = torch.arange(BLOCK_PX, device=device, dtype=torch.float32)
    basis = torch.cos(steps[:, None] * (2 * steps + 1) * math.pi / (2 * BLOCK_PX)) * math.sqrt(2 / BLOCK_PX)
    basis[0] /= math.sqrt(2)
    return basis


def _summing_to_one(kernels: Tensor) -> Tensor:
    return kernels / kernels.sum(dim=(2, 3), keepdim=True)
