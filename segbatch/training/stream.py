"""The examples of a training as an infinite stream with random access.

The example at place n and its augmentation follow from the seed and n alone: a training can resume at any place, and
the examples do not depend on the number of workers and of loading threads.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np

from segbatch.training.augment import Augment
from segbatch.training.examples import Examples, load_or_placeholder

Batch = list[tuple[np.ndarray, np.ndarray]]


class Stream:
    """Epoch after epoch of ``examples``, each in another random order, each example augmented."""

    def __init__(self, examples: Examples, augment: Augment, seed: int) -> None:
        self.examples, self.augment, self.seed = examples, augment, seed
        self._order: tuple[int, np.ndarray] = (-1, np.empty(0, np.int64))

    def index(self, place: int) -> int:
        """Return the index of the example at ``place``."""
        epoch, at = divmod(place, len(self.examples))
        if self._order[0] != epoch:
            self._order = epoch, np.random.default_rng((self.seed, epoch)).permutation(len(self.examples))
        return int(self._order[1][at])

    def example(self, place: int, index: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the example ``index`` augmented for ``place``: uint8 (H, W, 3), class ids int32 (H, W)."""
        # Three numbers seed it, and two the order of an epoch: the generators differ.
        rng = np.random.default_rng((self.seed, place, 1))
        return self.augment(*load_or_placeholder(self.examples, index), rng)

    def batches(self, places: Sequence[Sequence[int]] | Iterator[Sequence[int]], threads: int) -> Iterator[Batch]:
        """Yield the examples at each of ``places``, in order, loaded ahead by ``threads`` threads."""
        with ThreadPoolExecutor(threads) as pool:
            ahead: deque[list[Future[tuple[np.ndarray, np.ndarray]]]] = deque()
            remaining = iter(places)
            try:
                while True:
                    for group in itertools.islice(remaining, 2 - len(ahead)):
                        ahead.append([pool.submit(self.example, place, self.index(place)) for place in group])
                    if not ahead:
                        return
                    yield [future.result() for future in ahead.popleft()]
            finally:
                for future in itertools.chain.from_iterable(ahead):
                    future.cancel()
