"""The evidence for each label at each pixel, from a network or an annotation."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from segbatch.crf import _core

KINDS = ("probs", "logits", "unary")  # in the order of the extension's enumeration


@dataclass(frozen=True, eq=False)
class Evidence:
    """Class scores of one image.

    Args:
        values: float32 (C, H, W).
        kind: ``probs``, ``logits`` or ``unary``.
        ignore: bool (H, W), True for pixels without evidence: all labels have the same energy there, so that the
            label follows from the other pixels.
    """

    values: np.ndarray
    kind: str
    ignore: np.ndarray | None = None

    @property
    def size(self) -> tuple[int, int]:
        return (self.values.shape[1], self.values.shape[2])

    def peaks(self) -> np.ndarray:
        """Return the highest probability of each label over pixels that are not ignored, float32 (C,), or 0."""
        return _core.peaks(self.values, KINDS.index(self.kind), self.ignore)

    def likeliest(self) -> np.ndarray:
        """Return whether each label is the most likely one at a pixel that is not ignored, bool (C,)."""
        best = self.values.min(axis=0) if self.kind == "unary" else self.values.max(axis=0)
        if self.ignore is not None:
            best[self.ignore] = np.nan
        return np.array([(label == best).any() for label in self.values])

    def energies(self, keep: np.ndarray) -> np.ndarray:
        """Return unary energies float32 (K, H, W) of the labels ``keep``; probabilities are clipped at 1e-5."""
        if self.kind == "unary" and self.ignore is None and len(keep) == len(self.values):
            return self.values
        return _core.energies(self.values, KINDS.index(self.kind), self.ignore, keep.astype(np.int32))


def labels_to_probs(
    labels: np.ndarray, num_labels: int, confidence: float = 0.7, ignore_index: int | None = None
) -> np.ndarray:
    """Convert an annotation to probabilities.

    Args:
        labels: Integers (H, W), from 0 to ``num_labels - 1``.
        num_labels: Number of labels.
        confidence: Probability of the annotated label, in (0, 1]; the others share the remainder equally.
        ignore_index: Pixels of this label get a uniform distribution.

    Returns:
        float32 (num_labels, H, W).

    Raises:
        ValueError: An argument is out of range.
    """
    labels = np.asarray(labels)
    if labels.ndim != 2 or labels.dtype.kind not in "iu":
        raise ValueError(f"labels are {labels.dtype} {labels.shape}; give integers (H, W)")
    if num_labels < 1:
        raise ValueError(f"num_labels is {num_labels}; give 1 or more")
    if not 0 < confidence <= 1:
        raise ValueError(f"confidence is {confidence}; give a probability above 0, at most 1")
    is_ignored = np.zeros(labels.shape, bool) if ignore_index is None else labels == ignore_index
    known = np.where(is_ignored, 0, labels).astype(np.int64)
    if known.size and (known.min() < 0 or known.max() >= num_labels):
        wrong = int(known.min()) if known.min() < 0 else int(known.max())
        raise ValueError(f"labels hold {wrong}; give 0 to {num_labels - 1}, or set ignore_index={wrong}")
    remainder = (1.0 - confidence) / max(num_labels - 1, 1)
    probs = np.full((num_labels, *labels.shape), remainder, np.float32)
    np.put_along_axis(probs, known[None], np.float32(confidence if num_labels > 1 else 1.0), axis=0)
    probs[:, is_ignored] = 1.0 / num_labels
    return probs
