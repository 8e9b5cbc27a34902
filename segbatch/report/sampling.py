"""Which images a page shows: the least confident ones, some of each class, and others by the hash of their ids."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa

from segbatch.report.summary import Counts
from segbatch.sources.unique_ids import id_hashes

LEAST, BY_CLASS, BY_HASH = "least confident", "class", "by hash"
_MAX_KEY = np.uint64(2**64 - 1)
_LAST = np.uint64(2**63)


@dataclass(frozen=True, order=True)
class Candidate:
    """A row that may be shown.

    Attributes:
        key: Order by the hash of the id, rows with a preview first.
        image_id: Its id.
        file: Index of its file in the ledger.
        row: Its position among the current rows of the file.
        confidence: Its confidence, 0 to 1.
    """

    key: int
    image_id: str
    file: int
    row: int
    confidence: float


@dataclass(frozen=True)
class Choice:
    """A row that is shown, and why: ``LEAST``, ``BY_HASH``, or ``BY_CLASS`` with the class."""

    candidate: Candidate
    reason: str
    class_id: int | None = None


@dataclass
class Sampler:
    """Chooses ``size`` rows of an output in one pass; the same rows in any order of the files.

    A third is least confident; a third contains each class as evenly as possible, the rarest class first; the others
    follow the hash of their ids. Among rows of equal rank those with a preview come first.

    Attributes:
        size: Number of rows to choose.
        num_classes: Number of classes.
        previewed: Ids of the rows with a preview.
    """

    size: int
    num_classes: int
    previewed: Collection[str] = ()
    _least: list[tuple[float, int, Candidate]] = field(default_factory=list)
    _by_hash: list[tuple[int, Candidate]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._by_class: list[list[tuple[int, Candidate]]] = [[] for _ in range(self.num_classes)]
        self._limits = np.full(self.num_classes, _MAX_KEY, np.uint64)

    def add(self, batch: pa.RecordBatch, counts: Counts, file: int, start: int) -> None:
        """Consider the masks of a batch: the rows of a file from ``start`` on."""
        if not self.size:
            return
        ids = batch["image_id"].to_pylist()
        keys = id_hashes(ids)
        is_previewed = np.array([image_id in self.previewed for image_id in ids], bool)
        keys = np.where(is_previewed, keys & ~_LAST, keys | _LAST)
        confidence = batch["confidence"].to_numpy(zero_copy_only=False).astype(np.float64)

        def candidate(row: int) -> Candidate:
            return Candidate(int(keys[row]), ids[row], file, start + row, float(confidence[row]))

        rows = np.flatnonzero(~np.isnan(confidence))
        for row in rows[confidence[rows] <= (-self._least[0][0] if len(self._least) >= self.size else np.inf)]:
            _keep(self._least, (-float(confidence[row]), -int(keys[row]), candidate(int(row))), self.size)
        limit = -self._by_hash[0][0] if len(self._by_hash) >= self.size else int(_MAX_KEY)
        for row in rows[keys[rows] <= np.uint64(limit)]:
            _keep(self._by_hash, (-int(keys[row]), candidate(int(row))), self.size)
        for at in np.flatnonzero(keys[counts.row] <= self._limits[counts.class_id]):
            row, class_id = int(counts.row[at]), int(counts.class_id[at])
            heap = self._by_class[class_id]
            _keep(heap, (-int(keys[row]), candidate(row)), self._third)
            if len(heap) == self._third:
                self._limits[class_id] = np.uint64(-heap[0][0])

    @property
    def _third(self) -> int:
        return max(1, self.size // 3)

    def choose(self) -> list[Choice]:
        """Return the chosen rows, the three kinds in turn, so that a page that is cut short has all of them."""
        taken: set[str] = set()
        least = [Choice(c, LEAST) for *_, c in sorted(self._least, reverse=True)]
        least = list(_new(least, taken, self._third))
        by_class = list(_new(self._in_turn(), taken, min(self._third, self.size - len(least))))
        remaining = self.size - len(least) - len(by_class)
        by_hash = list(_new([Choice(c, BY_HASH) for _, c in sorted(self._by_hash, reverse=True)], taken, remaining))
        turns = itertools.zip_longest(least, by_class, by_hash)
        return [choice for turn in turns for choice in turn if choice is not None]

    def _in_turn(self) -> Iterator[Choice]:
        """Yield one row of each class, the class with the fewest rows first, then a second one of each."""
        order = sorted(range(self.num_classes), key=lambda class_id: (len(self._by_class[class_id]), class_id))
        rows = [[Choice(c, BY_CLASS, k) for _, c in sorted(self._by_class[k], reverse=True)] for k in order]
        for turn in itertools.zip_longest(*rows):
            yield from (choice for choice in turn if choice is not None)


def _keep(heap: list, entry: tuple, size: int) -> None:
    """Add an entry to a heap of the ``size`` largest ones."""
    if len(heap) < size:
        heapq.heappush(heap, entry)
    else:
        heapq.heappushpop(heap, entry)


def _new(choices: Iterator[Choice] | list[Choice], taken: set[str], count: int) -> Iterator[Choice]:
    """Yield the first ``count`` choices whose rows are not taken yet, and take them."""
    fresh = (choice for choice in choices if choice.candidate.image_id not in taken)
    for choice in itertools.islice(fresh, max(0, count)):
        taken.add(choice.candidate.image_id)
        yield choice
