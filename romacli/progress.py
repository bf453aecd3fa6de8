"""The protocol by which long-running work reports its progress, independent of who listens."""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    """A listener. `begin` starts a task of `total` parts and ends the previous one."""

    def begin(self, title: str, total: int) -> None: ...

    def advance(self, count: int = 1) -> None: ...

    def say(self, sentence: str) -> None: ...

    def warn(self, sentence: str) -> None: ...


class Silent:
    """A listener that ignores everything."""

    def begin(self, title: str, total: int) -> None:
        pass

    def advance(self, count: int = 1) -> None:
        pass

    def say(self, sentence: str) -> None:
        pass

    def warn(self, sentence: str) -> None:
        pass
