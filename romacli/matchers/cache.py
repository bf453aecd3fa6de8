"""The cache of image features between pairs, counted in bytes; the schedule decides what it contains."""

from __future__ import annotations

from romacli.types import Features


class FeatureCache:
    """Features by image name, with their total size."""

    def __init__(self) -> None:
        self._features: dict[str, Features] = {}
        self.nbytes = 0
        self.peak_bytes = 0

    def __len__(self) -> int:
        return len(self._features)

    def __contains__(self, name: str) -> bool:
        return name in self._features

    def __getitem__(self, name: str) -> Features:
        return self._features[name]

    def put(self, name: str, features: Features) -> None:
        self._features[name] = features
        self.nbytes += features.nbytes
        self.peak_bytes = max(self.peak_bytes, self.nbytes)

    def release(self, name: str) -> None:
        """Remove an image. Missing ones are ignored, as they may have been unreadable."""
        features = self._features.pop(name, None)
        if features is not None:
            self.nbytes -= features.nbytes
