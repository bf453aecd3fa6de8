"""The features held between pairs, counted in bytes. The schedule decides what comes and goes."""

from __future__ import annotations

from romacli.types import Features


class FeatureCache:
    """A table of features by image name that knows how much it holds."""

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
        """Forget an image; one that never came is no error, for it may have been unreadable."""
        features = self._features.pop(name, None)
        if features is not None:
            self.nbytes -= features.nbytes
