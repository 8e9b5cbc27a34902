"""Reporters that keep what they receive."""

from __future__ import annotations

from segbatch.protocols import Reporter


class Said(Reporter):
    """Appends each message to ``lines``, warnings with their prefix."""

    def __init__(self, lines: list[str]) -> None:
        self.lines = lines

    def message(self, text: str) -> None:
        self.lines.append(text)

    def warning(self, text: str) -> None:
        self.lines.append(f"warning: {text}")
