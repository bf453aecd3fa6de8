"""The folder of photographs: names, pixels, metadata. Knows no matchers."""

from __future__ import annotations

from .decode import image_size, read_image
from .extras import remedy
from .listing import EXTENSIONS, left_out, list_images
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
    "left_out",
    "list_images",
    "read_image",
    "read_metadata",
    "remedy",
    "without_masks",
]
