"""Random effects of light, lens and sensor on a picture; the geometry is unchanged."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

Image = np.ndarray  # (H, W, 3) uint8 RGB
Rng = np.random.Generator

GREY = (0.299, 0.587, 0.114)  # weights of red, green and blue in luminance


def photograph(image: Image, rng: Rng, *, at_night: bool = False, graded: bool = False) -> Image:
    """Return the picture under changed light: random shadows, blur, exposure, colour, noise and JPEG.

    Args:
        image: (H, W, 3) uint8 RGB.
        rng: determines which effects and how strong.
        at_night: dim, bluish light and some warm lamps instead of daylight.
        graded: changed saturation and local contrast.
    """
    if at_night:
        image = np.clip(image * _lamps(image.shape[:2], rng), 0, 255).astype(np.uint8)
    light = _light(image.shape[:2], rng)
    if light is not None:
        image = np.clip(image * light[..., None], 0, 255).astype(np.uint8)
    image = _blur(image, rng)
    if graded:
        image = _graded(image, rng)
    image = cv2.LUT(image, _tone_curves(float(image[::4, ::4].mean()) / 255, rng))
    if rng.random() < 0.6:
        grain = rng.standard_normal(image.shape, np.float32) * np.float32(rng.uniform(1, 12))
        image = cv2.add(image, grain, dtype=cv2.CV_8U)
    if rng.random() < 0.2:
        image = _compressed(image, int(rng.integers(25, 85)))
    return image


def _compressed(image: Image, quality: int) -> Image:
    encoded = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
    decoded = cv2.imdecode(encoded, cv2.IMREAD_COLOR)
    assert decoded is not None
    return decoded


def _light(shape: tuple[int, int], rng: Rng) -> NDArray[np.float32] | None:
    """A gain for every pixel, from a cast shadow and uneven illumination; None if neither."""
    shadow, uneven = rng.random(2) < 0.3
    if not (shadow or uneven):
        return None
    height, width = shape
    gain = np.ones(shape, np.float32)
    if shadow:
        centre, radius = rng.uniform(0, 1, 2) * (width, height), rng.uniform(0.1, 0.8) * width
        corners = centre + rng.normal(0, 1, (int(rng.integers(3, 7)), 2)) * radius
        cast = cv2.fillPoly(np.zeros(shape, np.float32), [corners.astype(np.int32)], 1.0)
        gain -= cv2.GaussianBlur(cast, (0, 0), rng.uniform(1, 6)) * np.float32(rng.uniform(0.2, 0.65))
    if uneven:
        coarse = rng.uniform(0.55, 1.45, (3, 3)).astype(np.float32)
        gain *= cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
    return gain


def _lamps(shape: tuple[int, int], rng: Rng) -> NDArray[np.float32]:
    """A gain (H, W, 3) for every pixel and channel: dim bluish light, and pools of warm light."""
    x, y = (np.arange(side, dtype=np.float32) / max(shape) for side in shape[::-1])
    gain = np.full((*shape, 3), rng.uniform(0.1, 0.35), np.float32) * np.array([0.8, 0.9, 1.15], np.float32)
    for _ in range(int(rng.integers(1, 5))):
        (left, top), reach = rng.uniform(-0.1, 1.1, 2), rng.uniform(0.08, 0.4)
        pool = np.exp(-((x[None] - left) ** 2 + (y[:, None] - top) ** 2) / (2 * reach**2)) * rng.uniform(0.4, 1.6)
        gain += pool[..., None] * np.array([1.0, rng.uniform(0.7, 0.9), rng.uniform(0.35, 0.7)])
    return gain


def _blur(image: Image, rng: Rng) -> Image:
    chance = rng.random()
    if chance < 0.25:
        return cv2.GaussianBlur(image, (0, 0), rng.uniform(0.4, 1.6))
    if chance < 0.33:
        return cv2.filter2D(image, -1, _motion_kernel(int(rng.integers(3, 8)) | 1, rng.uniform(0, np.pi)))
    if chance < 0.42:
        amount = rng.uniform(0.3, 1.5)
        return cv2.addWeighted(image, 1 + amount, cv2.GaussianBlur(image, (0, 0), 1.5), -amount, 0)
    return image


def _motion_kernel(length: int, angle: float) -> NDArray[np.float32]:
    # Symmetric about the centre, or the picture would shift.
    half = length // 2
    along = np.round(half * np.array([np.cos(angle), np.sin(angle)])).astype(int)
    start, end = (tuple(int(v) for v in half + sign * along) for sign in (-1, 1))
    drawn = np.asarray(cv2.line(np.zeros((length, length), np.float32), start, end, 1.0), np.float32)
    kernel = drawn + drawn[::-1, ::-1]
    return np.asarray(kernel / kernel.sum(), np.float32)


def _graded(image: Image, rng: Rng) -> Image:
    """The picture with stronger local contrast, and paler, richer or no colours."""
    height, width = image.shape[:2]
    cells, amount = int(rng.integers(4, 13)), rng.uniform(0, 1.5)
    saturation = 0.0 if rng.random() < 0.15 else np.exp(rng.uniform(-1.0, 0.7))
    values = image.astype(np.float32)
    coarse = cv2.resize(values, (cells, cells), interpolation=cv2.INTER_AREA)
    values += amount * (values - cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC))
    grey = values @ np.array(GREY, np.float32)
    return np.clip(grey[..., None] + saturation * (values - grey[..., None]), 0, 255).astype(np.uint8)


def _tone_curves(mean: float, rng: Rng) -> Image:
    """Exposure, white balance, contrast and gamma as one (1, 256, 3) table; rarely inverted."""
    value = np.linspace(0, 1, 256)[:, None] * rng.uniform(0.6, 1.35) * rng.uniform(0.88, 1.12, 3)
    value = (value - mean) * rng.uniform(0.6, 1.4) + mean + rng.uniform(-0.1, 0.1)
    value = np.clip(value, 1e-3, 1)
    if rng.random() < 0.7:
        value = value ** np.exp(rng.uniform(-0.6, 0.6))
    if rng.random() < 0.02:
        value = 1 - value
    return (value * 255).astype(np.uint8)[None]
