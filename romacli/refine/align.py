"""One photograph's patches found again in another, to a fraction of a pixel: least-squares matching."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

import numpy as np

from romacli.refine.options import RefineOptions
from romacli.refine.photograph import CORRELATED_PX, Patches, Photograph

_CHUNK = 1024
# What remains of error where there is no noise: reading between pixels, and surfaces that are not flat.
_FLOOR_PX = 0.02
_LEAST_GAIN = 1e-3
# Starts are not more exact than this: warps are quantised and interpolated between cells.
_LEAST_START_PX = 0.1
# Of a patch: where more of it is black or white, what lies between tells too little.
_MOST_CLIPPED = 0.1
# Steps are damped by this share of a patch's variance. Where its slopes are hardly more, along an edge, they would seem
# to arrive while they creep.
_DAMPING = 1e-4
_LEAST_SLOPES = 10 * _DAMPING


@dataclass(frozen=True)
class Alignment:
    """What came of n places.

    xy: (n, 2) float64 COLMAP pixels of the target, the start where it failed; covariance: (n, 2, 2) px² there;
    source_covariance: (n, 2, 2) the same in px of the source; quality: (n,) correlation of the patches in [-1, 1];
    good: (n,) bool, whether it is to be believed.
    """

    xy: np.ndarray
    covariance: np.ndarray
    source_covariance: np.ndarray
    quality: np.ndarray
    good: np.ndarray


def align(
    source: Photograph,
    target: Photograph,
    places: np.ndarray,
    starts: np.ndarray,
    affines: np.ndarray,
    options: RefineOptions,
    precisions: np.ndarray | None = None,
) -> Alignment:
    """Move `starts` until the patches around them look like those around `places`, whatever gain and offset.

    Args:
        places: (n, 2) COLMAP pixels of the source. starts: (n, 2) of the target, right within `options.reach_px`.
        affines: (n, 2, 2) target px per source px around each place. precisions: (n,) 1 / px², the inverse variance per
        axis of starts, 0 if unknown; the result is the mean with the start, weighted by inverse covariances.
    """
    whole = [rows.astype(np.float64) for rows in (places, starts, affines)]
    parts = []
    for start in range(0, max(len(places), 1), _CHUNK):
        rows = slice(start, start + _CHUNK)
        parts.append(_align_chunk(source, target, whole[0][rows], whole[1][rows], whole[2][rows], options))
    found = Alignment(*(np.concatenate([getattr(part, f.name) for part in parts]) for f in fields(Alignment)))
    precisions = np.zeros(len(places)) if precisions is None else precisions
    return _confirmed(found, source, target, whole, precisions, options)


def _confirmed(
    found: Alignment,
    source: Photograph,
    target: Photograph,
    whole: list[np.ndarray],
    precisions: np.ndarray,
    options: RefineOptions,
) -> Alignment:
    """Believe what wider patches lead back to where it came from, unlike wrong texture and patches over an edge.

    How far off they end counts as uncertainty.
    """
    places, starts, affines = whole
    wider = replace(options, half_patch=options.back_half_patch)
    scale = 2.0 ** (1 - min(len(source.levels), len(target.levels)))
    # What is too doubtful on the way there can only become more so on the way back, unless its start is known.
    rows = np.flatnonzero(found.good & (_sure(found, starts, scale, options) | (precisions > 0)))
    returned = np.zeros(len(places), bool)
    for start in range(0, len(rows), _CHUNK):
        some = rows[start : start + _CHUNK]
        back = _align_chunk(target, source, found.xy[some], places[some], np.linalg.inv(affines[some]), wider)
        off = (back.xy - places[some])[..., None]
        there = affines[some] @ off
        found.source_covariance[some] += off @ off.transpose(0, 2, 1)
        found.covariance[some] += there @ there.transpose(0, 2, 1)
        told = some[precisions[some] > 0]
        _draw_to_starts(found, told, starts[told], precisions[told])
        returned[some] = back.good
    good = returned & _sure(found, starts, scale, options)
    return replace(found, xy=np.where(good[:, None], found.xy, starts), good=good)


def _sure(found: Alignment, starts: np.ndarray, scale: float, options: RefineOptions) -> np.ndarray:
    """Which places are fixed well enough, (n,) bool: the farther one went the better it has to be, as wrong texture is
    seldom near the start.

    scale: px of the coarsest level per px of the target.
    """
    deviation = np.sqrt(_eigenvalues(found.covariance)[1])
    shift = np.linalg.norm(found.xy - starts, axis=1) * scale
    return (deviation < options.max_deviation_px) & (deviation * shift < options.max_doubt_px2)


def _draw_to_starts(found: Alignment, rows: np.ndarray, starts: np.ndarray, precisions: np.ndarray) -> None:
    """Average positions with their starts, weighted by inverse covariances."""
    by_start = np.minimum(precisions, _LEAST_START_PX**-2)[:, None, None]
    kept = np.linalg.inv(np.eye(2) + found.covariance[rows] * by_start)
    found.xy[rows] = starts + (kept @ (found.xy[rows] - starts)[..., None])[..., 0]
    found.covariance[rows] = kept @ found.covariance[rows]


def _align_chunk(
    source: Photograph,
    target: Photograph,
    places: np.ndarray,
    starts: np.ndarray,
    affines: np.ndarray,
    options: RefineOptions,
) -> Alignment:
    xy = starts.copy()
    # Where the target shows less detail, source patches are read at its spacing.
    area = np.abs(np.linalg.det(affines))
    sound = (area > options.smallest_area) & (area < 1 / options.smallest_area)
    affines = np.where(sound[:, None, None], affines, np.eye(2))
    spread = options.spacing * np.maximum(1, np.where(sound, area, 1) ** -0.5)
    levels = min(len(source.levels), len(target.levels))
    for level in reversed(range(levels)):
        templates = _Templates.cut(source, level, places, spread, options)
        scale = target.scale(level)
        shear = affines * scale[:, None] / source.scale(level)
        fit = _fit(target, level, templates, xy * scale, shear, sound, options)
        xy = np.where(fit.good[:, None], fit.xy / scale, xy)
    covariance, deviation = _covariance(templates, fit, shear, options)
    good = fit.good & (fit.quality > options.min_correlation) & (deviation < options.max_deviation_px)
    good &= np.linalg.norm(xy - starts, axis=1) < options.reach_px * 2 ** (levels - 1)
    xy = np.where(good[:, None], xy, starts)
    return Alignment(xy, shear @ covariance @ shear.transpose(0, 2, 1), covariance, fit.quality, good)


@dataclass(frozen=True)
class _Templates:
    """Patches of the source: what a step needs of them, the same in every step.

    half: of the patches; spread: (n,) px of the source per step of theirs; window: (p,) of their samples, sums to 1;
    power: (n,) variance of the greys; weights: (n, 3, p) differences over two steps across and down and greys, times
    the window, by which a step weighs what it reads of the target; tensor: (n, 2, 2) of the slopes, which are per px,
    orthogonal to the greys and to constants; good: (n,) bool.
    """

    half: int
    spread: np.ndarray
    window: np.ndarray
    power: np.ndarray
    weights: np.ndarray
    tensor: np.ndarray
    good: np.ndarray

    @classmethod
    def cut(
        cls, photograph: Photograph, level: int, places: np.ndarray, spread: np.ndarray, options: RefineOptions
    ) -> _Templates:
        half = options.half_patch
        read_at = Patches(places * photograph.scale(level), np.eye(2) * spread[:, None, None], half + 1)
        wide = photograph.read(level, read_at)
        fall = np.exp(-(np.arange(-half, half + 1, dtype=np.float32) ** 2) / (2 * (half / 1.6) ** 2))
        window = np.outer(fall, fall).ravel()
        window /= window.sum()
        grey = wide[:, 1:-1, 1:-1].reshape(-1, len(window))
        clipped = photograph.clipped(grey) @ window
        grey -= (grey @ window)[:, None]
        weights = np.empty((len(grey), 3, len(window)), np.float32)
        weighted = np.multiply(grey, window, out=weights[:, 2])
        power = np.maximum(np.einsum("np,np->n", grey, weighted), 1e-6)
        rises = np.empty((len(grey), 2, len(fall), len(fall)), np.float32)
        np.subtract(wide[:, 1:-1, 2:], wide[:, 1:-1, :-2], out=rises[:, 0])
        np.subtract(wide[:, 2:, 1:-1], wide[:, :-2, 1:-1], out=rises[:, 1])
        slopes = rises.reshape(-1, 2, len(window))
        slopes -= (slopes @ window)[..., None]
        along = slopes @ weighted[..., None]
        slopes -= along / power[:, None, None] * grey[:, None]
        np.multiply(slopes, window, out=weights[:, :2])
        tensor = (weights[:, :2] @ slopes.transpose(0, 2, 1)).astype(np.float64)
        tensor /= (2 * spread[:, None, None]) ** 2
        steep = _eigenvalues(tensor)[0] > _LEAST_SLOPES * power
        good = steep & photograph.holds(level, read_at) & (clipped < _MOST_CLIPPED)
        return cls(half, spread, window, power, weights, tensor, good)


@dataclass(frozen=True)
class _Fit:
    """xy: (n, 2) px of the level; noise: (n,) variance of what remains, in greys of the source; quality, good: (n,)."""

    xy: np.ndarray
    noise: np.ndarray
    quality: np.ndarray
    good: np.ndarray


def _fit(
    target: Photograph,
    level: int,
    templates: _Templates,
    xy: np.ndarray,
    shear: np.ndarray,
    alive: np.ndarray,
    options: RefineOptions,
) -> _Fit:
    """Step until the patches agree or are out of reach: the slopes are the source's, so a step is one reading."""
    window, powers = templates.window, templates.power
    spread = templates.spread[:, None, None]
    damped = templates.tensor + np.eye(2) * (_DAMPING * powers[:, None, None])
    inverse, stretch = shear @ np.linalg.inv(damped) / (2 * spread), shear * spread
    good = alive & templates.good & target.holds(level, Patches(xy, stretch, templates.half))
    length = np.full(len(xy), np.inf)
    moving, starts, xy = np.flatnonzero(good), xy, xy.copy()
    for _ in range(options.steps):
        seen = target.read(level, Patches(xy[moving], stretch[moving], templates.half))
        sums = (templates.weights[moving] @ seen.reshape(-1, len(window), 1))[..., 0]
        gain = sums[:, 2] / powers[moving]
        step = (inverse[moving] @ sums[:, :2, None])[..., 0] / np.maximum(gain, _LEAST_GAIN)[:, None]
        size = np.hypot(step[:, 0], step[:, 1])
        length[moving] = size
        xy[moving] -= step * np.minimum(1, options.longest_step_px / np.maximum(size, 1e-9))[:, None]
        off = xy[moving] - starts[moving]
        is_near = np.hypot(off[:, 0], off[:, 1]) < options.reach_px
        moving = moving[is_near & (size > options.converged_px / 4)]
        if not len(moving):
            break
    seen = target.read(level, Patches(xy, stretch, templates.half)).reshape(-1, len(window))
    good &= target.clipped(seen) @ window < _MOST_CLIPPED
    gain = (templates.weights[:, 2:] @ seen[..., None])[:, 0, 0] / powers
    seen -= (seen @ window)[:, None]
    power = np.maximum(np.square(seen, out=seen) @ window, 1e-6)
    quality = gain * np.sqrt(powers / power)
    noise = np.maximum(power / np.maximum(gain, _LEAST_GAIN) ** 2 - powers, 0)
    settled = (length < options.converged_px) if level == 0 else np.isfinite(length)
    return _Fit(xy, noise, quality, good & settled & (gain > _LEAST_GAIN))


def _covariance(
    templates: _Templates, fit: _Fit, shear: np.ndarray, options: RefineOptions
) -> tuple[np.ndarray, np.ndarray]:
    """The covariance (n, 2, 2) in source px, and the largest deviation (n,) in target px."""
    samples = 1 / (templates.window**2).sum() / max(1, CORRELATED_PX / options.spacing**2)
    tensor = templates.tensor + np.eye(2) * 1e-6
    covariance = np.linalg.inv(tensor) * (fit.noise / samples)[:, None, None] + np.eye(2) * _FLOOR_PX**2
    there = shear @ covariance @ shear.transpose(0, 2, 1)
    return covariance, np.sqrt(_eigenvalues(there)[1])


def _eigenvalues(symmetric: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The smaller and the larger ones, (n,) each, of (n, 2, 2)."""
    mean = (symmetric[:, 0, 0] + symmetric[:, 1, 1]) / 2
    radius = np.hypot((symmetric[:, 0, 0] - symmetric[:, 1, 1]) / 2, symmetric[:, 0, 1])
    return mean - radius, mean + radius
