"""Lines of a text file with their positions."""

from __future__ import annotations

from collections import deque
from typing import BinaryIO


class LineStream:
    """Iterates over the lines of ``stream`` from byte ``at``, which starts line ``number``. Can rewind within a row."""

    def __init__(self, stream: BinaryIO, at: int, number: int) -> None:
        stream.seek(at)
        self.at, self.number = at, number
        self._source = (line for long in stream for line in long.splitlines(True))
        self._taken: list[bytes] = []
        self._again: deque[bytes] = deque()

    def __iter__(self) -> LineStream:
        return self

    def __next__(self) -> str:
        line = self._again.popleft() if self._again else next(self._source)
        self._taken.append(line)
        text = line.decode("utf-8-sig" if self.at == 0 else "utf-8", "surrogateescape")
        self.at += len(line)
        self.number += 1
        return text

    def begin_row(self) -> tuple[int, int]:
        """Return (byte, line number) of the next line, which starts a row."""
        self._taken.clear()
        return self.at, self.number

    def rewind(self) -> None:
        """Return to the end of the first line of the row."""
        back = self._taken[1:]
        self._again.extendleft(reversed(back))
        self.at -= sum(map(len, back))
        self.number -= len(back)
