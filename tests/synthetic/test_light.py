from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch

from romacli.synthetic.light import Dice, blur, blur_kernels, jpeg, light, photograph_all
from romacli.synthetic.photometric import photograph

SIDE = 48


def pictures(count: int) -> torch.Tensor:
    coarse = np.random.default_rng(0).integers(30, 220, (count, 12, 12, 3), dtype=np.uint8)
    large = np.stack([cv2.resize(image, (SIDE, SIDE), interpolation=cv2.INTER_CUBIC) for image in coarse])
    return torch.from_numpy(large).permute(0, 3, 1, 2).float()


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_same_seed_gives_the_same_light_and_pictures_differ_in_it():
    rgb = pictures(1).expand(6, -1, -1, -1)
    first, second, other = (photograph_all(rgb, generator(seed)) for seed in (1, 1, 2))
    assert first.dtype == torch.uint8
    assert first.shape == rgb.shape
    assert torch.equal(first, second)
    assert not torch.equal(first, other)
    assert not torch.equal(first[0], first[1])


def test_changes_are_as_strong_as_those_of_the_other_renderer():
    rgb = pictures(150)
    mine = photograph_all(rgb, generator()).float()
    before = rgb.permute(0, 2, 3, 1).numpy().astype(np.uint8)
    theirs = np.stack([photograph(image, np.random.default_rng(i)) for i, image in enumerate(before)])
    theirs = torch.from_numpy(theirs).permute(0, 3, 1, 2).float()
    for measure in (
        lambda changed: (changed - rgb).abs().mean(),
        lambda changed: changed.mean(dim=(1, 2, 3)).std(),
        lambda changed: changed.std(dim=(2, 3)).mean(),
        lambda changed: (changed[..., 1:] - changed[..., :-1]).abs().mean(),
    ):
        assert measure(mine).item() == pytest.approx(measure(theirs).item(), rel=0.2)


@pytest.mark.parametrize("quality", [30, 50, 80])
def test_jpeg_leaves_what_a_jpeg_file_leaves(quality):
    rgb = (pictures(3) + torch.randn(3, 3, SIDE, SIDE, generator=generator()) * 12).clamp(0, 255).round()
    mine = jpeg(rgb, torch.full((3, 1, 1, 1), float(quality)))
    for picture, found in zip(rgb, mine, strict=True):
        bgr = picture.permute(1, 2, 0).numpy().astype(np.uint8)[..., ::-1]
        settings = [cv2.IMWRITE_JPEG_QUALITY, quality, cv2.IMWRITE_JPEG_SAMPLING_FACTOR, 0x111111]
        decoded = cv2.imdecode(cv2.imencode(".jpg", bgr, settings)[1], cv2.IMREAD_COLOR)[..., ::-1]
        mine_too = found.permute(1, 2, 0).numpy()
        lost = np.abs(decoded - picture.permute(1, 2, 0).numpy()).mean()
        assert np.abs(mine_too - decoded).mean() < 0.4 * lost
        assert np.abs(mine_too - picture.permute(1, 2, 0).numpy()).mean() == pytest.approx(lost, rel=0.15)


def test_jpeg_of_other_sides_keeps_them():
    assert jpeg(torch.full((1, 3, 13, 21), 90.0), torch.full((1, 1, 1, 1), 60.0)).shape == (1, 3, 13, 21)


def test_kernels_keep_the_brightness_and_most_leave_the_picture_alone():
    kernels = blur_kernels(Dice(200, generator()))
    torch.testing.assert_close(kernels.sum(dim=(2, 3)), torch.ones(200, 1))
    assert (kernels[:, 0, 4, 4] == 1).float().mean() == pytest.approx(0.58, abs=0.1)
    rgb = pictures(2)
    still = torch.zeros(2, 1, 9, 9)
    still[:, :, 4, 4] = 1
    torch.testing.assert_close(blur(rgb, still), rgb)


def test_light_is_even_for_about_half_of_the_pictures():
    gain = light(Dice(300, generator()), 32)
    assert (gain == 1).flatten(1).all(dim=1).float().mean() == pytest.approx(0.49, abs=0.1)
    assert gain.min() > 0.1
    assert gain.max() < 2


def test_no_blur_moves_the_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    kernels, real = [], cv2.filter2D

    def spied(image: np.ndarray, depth: int, kernel: np.ndarray) -> np.ndarray:
        kernels.append(kernel)
        return real(image, depth, kernel)

    monkeypatch.setattr(cv2, "filter2D", spied)
    for seed in range(150):
        photograph(np.full((SIDE, SIDE, 3), 100, np.uint8), np.random.default_rng(seed))
    assert len(kernels) > 5
    assert all(len(kernel) % 2 and np.array_equal(kernel, kernel[::-1, ::-1]) for kernel in kernels)
