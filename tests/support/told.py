"""A listener that remembers what it is told."""

from __future__ import annotations

from romacli.progress import Silent


class Told(Silent):
    """begun: titles; sentences: all of them, warnings too."""

    def __init__(self) -> None:
        self.begun: list[str] = []
        self.sentences: list[str] = []
        self.warnings: list[str] = []

    def begin(self, title: str, total: int) -> None:
        self.begun.append(title)

    def say(self, sentence: str) -> None:
        self.sentences.append(sentence)

    def warn(self, sentence: str) -> None:
        self.sentences.append(sentence)
        self.warnings.append(sentence)
