"""The folder of photographs: names, pixels, metadata. Knows no matchers."""

from __future__ import annotations

from .decode import image_size, read_image
from .extras import remedy
from .listing import EXTENSIONS, list_images, other_photographs
from .masks import MaskOptions, Masks, find_masks, kept_cells, without_masks
from .metadata import ImageMetadata, read_metadata

__all__ = [
    "EXTENSIONS",
    "ImageMetadata",
    "MaskOptions",
    "Masks",
    "find_masks",
    "image_size",
    "kept_cells",
    "list_images",
    "other_photographs",
    "read_image",
    "read_metadata",
    "remedy",
    "without_masks",
]
