"""The protocols between the packages, on one page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from segbatch.labels import LabelSet
from segbatch.records import Chunk, Scores

if TYPE_CHECKING:
    import numpy as np

Json = str | int | float | bool | None | Sequence["Json"] | Mapping[str, "Json"]


class Model(Protocol):
    """A network in eval mode on its device.

    A network of a user's own needs fewer members: ``models.custom`` completes it.

    Attributes:
        name: Shown in messages.
        labels: One class per channel of the scores.
        stride: Pixels per cell of the scores, in each direction.
        digest: Identifies what the network computes. Workers compare it with the plan's.
    """

    name: str
    labels: LabelSet
    stride: int
    digest: str

    def scores(self, images: Sequence[np.ndarray], image_ids: Sequence[str] = ()) -> list[np.ndarray]:
        """Score images of any sizes.

        The center of cell (i, j) lies at pixel ``((i + 0.5) * stride - 0.5, (j + 0.5) * stride - 0.5)``.

        Args:
            images: uint8 (H, W, 3) RGB each.
            image_ids: One per image, for networks that look something up by them. A job always gives them.

        Returns:
            Logits of each image, float32 (C, ceil(H / stride), ceil(W / stride)).
        """
        ...


class Refiner(Protocol):
    """A refinement (post-processing) method: turns coarse scores into the mask of the image, at the image's size.

    It is given one image at a time: a worker refines one image per thread, and a failure is one record's.

    Attributes:
        needs_image: Whether ``refine`` looks at the image. If not, workers do not decode it again.
        num_classes: Classes of the networks that it fits; None if it fits any number.
        parameters: Everything that decides its masks besides its name, weights as their digest. Part of the run's
            identity: an output made with other values is refused.
    """

    needs_image: bool

    @property
    def num_classes(self) -> int | None: ...

    @property
    def parameters(self) -> Mapping[str, Json]: ...

    def refine(self, image: np.ndarray | None, scores: Scores) -> tuple[np.ndarray, np.ndarray]:
        """Refine the scores of one image.

        Args:
            image: uint8 (H, W, 3) RGB; None if ``needs_image`` is false.
            scores: Of the image's candidate classes.

        Returns:
            The mask, int16 (H, W) of ids among ``scores.class_ids``, and the refiner's own probability of each pixel's
            class, float32 (H, W).
        """
        ...


class InFlight:
    """A no-op tracker of the records of a chunk that a stage has in flight."""

    def begin(self, stage: str, positions: Sequence[int], pixels: int) -> None:
        """Record that the records at ``positions``, ``pixels`` pixels in total, have entered ``stage``."""

    def end(self, positions: Sequence[int]) -> None:
        """Record that the records at ``positions`` are done."""


UNTRACKED = InFlight()


class Stage(Protocol):
    """One step of the job, with the network or the refiner that it needs loaded in its worker."""

    name: str

    def __call__(self, chunk: Chunk, in_flight: InFlight) -> Chunk:
        """Return the chunk with all its records, in order, each with the result of this stage or with an ``error``.

        Reports to ``in_flight`` which records it is working on. An exception is not caused by any record.
        """
        ...

    def canary(self) -> Chunk:
        """Return sample images. A stage that crashes on them is broken on this machine, whatever the records are."""
        ...


@dataclass(frozen=True)
class Progress:
    """The state of a run at one moment.

    Attributes:
        done: Committed chunks, those of earlier runs included.
        total: Chunks of the whole job; an estimate (``is_estimate``) while a tar has not been read to its end.
        computed: Chunks committed by this run, with ``records`` records, of which ``errors`` are error rows.
        seconds: Time since the work was planned.
        records_per_second: Since every worker has committed a chunk; None before, while workers start.
        seconds_left: Estimate of the time to the end; None before the first chunk.
        is_bound: Whether ``seconds_left`` is an upper bound: the first chunk of a worker takes longer than others.
    """

    done: int
    total: int
    is_estimate: bool
    computed: int = 0
    records: int = 0
    errors: int = 0
    seconds: float = 0.0
    records_per_second: float | None = None
    seconds_left: float | None = None
    is_bound: bool = False


class Reporter:
    """Receives the progress and the messages of a call; a subclass overrides what it shows. This one is silent."""

    def phase(self, name: str, total: int = 0) -> None:
        """A phase of at most ``total`` steps begins; 0 if its steps are not counted."""

    def advanced(self, steps: int = 1) -> None:
        """Some steps of the current phase are done."""

    def planned(self, progress: Progress, workers: str) -> None:
        """The chunks to compute are known, and so are the workers that compute them."""

    def committed(self, chunk: str, records: int, errors: int, progress: Progress) -> None:
        """A chunk is committed, with ``records`` records, of which ``errors`` are error rows."""

    def message(self, text: str) -> None:
        """Report one line about the work."""

    def warning(self, text: str) -> None:
        """Report what works and is probably not intended."""

    def closed(self) -> None:
        """The current phase or run has ended, also after a failure. Another may follow."""
