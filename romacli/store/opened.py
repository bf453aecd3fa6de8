"""A job's journal, restricted to the current versions of its photographs."""

from __future__ import annotations

from collections.abc import Mapping

from romacli.types import Manifest

from .images import KnownImage, read_images
from .journal import Journal
from .layout import Layout
from .manifest import fingerprint


def open_journal(
    layout: Layout, manifest: Manifest | None, images: Mapping[str, KnownImage] | None = None, *, verify: bool = False
) -> Journal:
    """Open the journal of a job; records from other versions of its photographs do not count.

    manifest: None to accept any settings. images: the known photographs, by default those recorded in the job. verify:
    as for `Journal`.

    Raises:
        SettingsDifferError: a file was made with other settings.
        StoreError: a file cannot be read, is damaged or of a newer format.
    """
    known = read_images(layout.images) if images is None else images
    stamps = {name: image.stamps for name, image in known.items()}
    made_with, retries = (fingerprint(manifest), manifest.retries) if manifest else (None, None)
    return Journal(layout.journal, made_with, stamps=stamps, retries=retries, verify=verify)
