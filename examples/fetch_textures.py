"""Download freely licensed images for training the mini model, from Debian packages and scikit-image.

    python examples/fetch_textures.py /tmp/textures

Needs a Debian or Ubuntu machine (`apt-get`, `dpkg`) and pip. The output folder then contains train/, validation/
and LICENSES.txt, which lists the package of each image and its copyright file. Several of these works are
CC-BY-SA: read LICENSES.txt before redistributing them.
"""

from __future__ import annotations

import argparse
import hashlib
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

import cv2
import numpy as np

PACKAGES = (
    "gnome-backgrounds",
    "mate-backgrounds",
    "plasma-workspace-wallpapers",
    "ukui-wallpapers",
    "lxqt-themes",
    "lomiri-wallpapers-16.04",
    "lomiri-wallpapers-20.04",
    "palapeli-data",
    "sway-backgrounds",
    "stellarium-data",
    "supertuxkart-data",
)
LEFT_OUT = (
    "/nebulae/",
    "/skycultures/",
    "/gui/",
    "/karts/",
    "/models/",
    "/textures/stars",
)  # drawings, black sky
SUFFIXES = {".jpg", ".jpeg", ".png", ".webp"}
MIN_SIDE_PX = 400
MAX_SIDE_PX = 2000
MIN_EDGE_FRACTION = 0.03  # share of pixels with a gradient above 40 grey levels: images below have too little texture
VALIDATION_SHARE = 8  # every eighth source, chosen by a hash of its name, is used for validation


def fetch_packages(folder: Path) -> dict[str, str]:
    """Download and unpack every package available here into `folder` and return its version by name."""
    versions = {}
    for package in PACKAGES:
        found = subprocess.run(["apt-get", "download", package], cwd=folder, capture_output=True, text=True)
        if found.returncode != 0:
            print(f"{package}: not available here, skipped", file=sys.stderr)
            continue
        archive = next(folder.glob(f"{package}_*.deb"))
        versions[package] = archive.name.split("_")[1].replace("%3a", ":")
        subprocess.run(["dpkg", "-x", archive.name, package], cwd=folder, check=True)
        archive.unlink()
    return versions


def fetch_samples(folder: Path) -> dict[str, str]:
    """Download scikit-image's sample photographs and return the version of the package."""
    command = [
        sys.executable,
        "-m",
        "pip",
        "download",
        "--no-deps",
        "--quiet",
        "-d",
        str(folder),
        "scikit-image",
    ]
    if subprocess.run(command).returncode != 0:
        print("scikit-image: not available here, skipped", file=sys.stderr)
        return {}
    wheel = next(folder.glob("scikit_image-*.whl"))
    with zipfile.ZipFile(wheel) as archive:
        names = [n for n in archive.namelist() if n.startswith("skimage/data/") or "license" in n.lower()]
        archive.extractall(folder / "scikit-image", names)
    return {"scikit-image": wheel.name.split("-")[1]}


def source_of(path: Path) -> str:
    """The name of the motif in a file, without resolution or day and night variant."""
    if "contents" in path.parts:  # Plasma stores the resolutions of a wallpaper in NAME/contents
        return path.parts[path.parts.index("contents") - 1].lower()
    return re.sub(r"(_\d{3,}x\d{3,}|[-_]?(\d+_)?(light|dark|[ld]))$", "", path.stem.lower())


def usable(path: Path) -> np.ndarray | None:
    """Return the photograph, at most MAX_SIDE_PX wide, or None if it is small, lacks texture or is unreadable."""
    image = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    if image is None or min(image.shape[:2]) < MIN_SIDE_PX or image.ndim != 3 or image.dtype != np.uint8:
        return None
    if image.shape[2] == 4 and image[..., 3].mean() < 250:  # a cut-out sprite, not a photograph
        return None
    image = image[..., :3]
    scale = min(1.0, MAX_SIDE_PX / max(image.shape[:2]))
    image = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    half = cv2.resize(image, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
    gray = cv2.cvtColor(half, cv2.COLOR_BGR2GRAY).astype(np.float32)
    gradient = np.hypot(cv2.Sobel(gray, cv2.CV_32F, 1, 0), cv2.Sobel(gray, cv2.CV_32F, 0, 1))
    return image if (gradient > 40).mean() >= MIN_EDGE_FRACTION else None


def is_duplicate(image: np.ndarray, thumbnails: list[np.ndarray]) -> bool:
    """Whether a photograph was seen before; stores its thumbnail if not."""
    thumbnail = cv2.resize(image, (16, 16), interpolation=cv2.INTER_AREA).astype(np.float32)
    if any(np.abs(thumbnail - other).mean() < 4 for other in thumbnails):
        return True
    thumbnails.append(thumbnail)
    return False


def collect(unpacked: Path, output: Path) -> int:
    """Copy the usable photographs into train/ and validation/, split by source, and return their number."""
    files = [p for p in sorted(unpacked.rglob("*")) if p.suffix.lower() in SUFFIXES and not p.is_symlink()]
    files = [p for p in files if not any(part in p.as_posix() for part in LEFT_OUT)]
    files.sort(key=lambda path: -path.stat().st_size)  # largest resolution first
    thumbnails: list[np.ndarray] = []
    count = 0
    for path in files:
        image = usable(path)
        if image is None or is_duplicate(image, thumbnails):
            continue
        package, source = path.relative_to(unpacked).parts[0], source_of(path)
        digest = hashlib.sha256(source.encode()).hexdigest()
        split = "validation" if int(digest, 16) % VALIDATION_SHARE == 0 else "train"
        cv2.imwrite(str(output / split / f"{package}--{source}-{count:04d}.jpg"), image)
        count += 1
    return count


def write_licences(unpacked: Path, output: Path, versions: dict[str, str]) -> None:
    """Write LICENSES.txt and copy each package's copyright file next to it."""
    lines = ["Photographs in train/ and validation/ begin with the name of the package they came from.", ""]
    for package, version in versions.items():
        texts = [*(unpacked / package).rglob("copyright"), *(unpacked / package).rglob("LICENSE*")]
        for number, text in enumerate(p for p in texts if p.is_file()):
            name = f"{package}.{number}.copyright.txt"
            shutil.copyfile(text, output / name)
            lines.append(f"{package} {version}: {name}")
    (output / "LICENSES.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("output", type=Path)
    output = parser.parse_args().output
    for split in ("train", "validation"):
        (output / split).mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        unpacked = Path(scratch)
        versions = fetch_packages(unpacked) | fetch_samples(unpacked)
        count = collect(unpacked, output)
        write_licences(unpacked, output, versions)
    print(f"{count} photographs from {len(versions)} packages in {output}")


if __name__ == "__main__":
    main()
