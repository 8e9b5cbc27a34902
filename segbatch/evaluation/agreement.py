"""Agreement of two masks of one image."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image

from segbatch.codecs import mask_png
from segbatch.evaluation import scores
from segbatch.labels import LabelSet

_HEADER = slice(8, 33)  # IHDR, the first chunk of a PNG
_PIXELS = b"IDAT"


class CommonClasses:
    """The classes of two outputs, matched by name: those of A in their order, then those that only B has.

    Attributes:
        names: Their names.
        labels: Names and colors, those of A where both have a class.
        only_a: Names that B does not have.
        only_b: Names that A does not have.
        ids_of_b: Position in ``names`` of each class id of B, uint16 (C_B,), or uint8 for up to 256 classes.
        are_equal: Whether a class id means the same in both outputs.
    """

    def __init__(self, a: LabelSet, b: LabelSet) -> None:
        self.only_a = tuple(name for name in a.names if name not in b.names)
        self.only_b = tuple(name for name in b.names if name not in a.names)
        self.names = (*a.names, *self.only_b)
        position = {name: i for i, name in enumerate(self.names)}
        colors = {**dict(zip(b.names, b.colors, strict=True)), **dict(zip(a.names, a.colors, strict=True))}
        self.labels = LabelSet(self.names, tuple(colors[name] for name in self.names))
        kind = np.uint8 if len(self.names) <= 256 else np.uint16
        self.ids_of_b = np.array([position[name] for name in b.names], kind)
        self.are_equal = a.names == b.names

    def from_b(self, mask: np.ndarray) -> np.ndarray:
        """Return a mask of B with the ids of ``names``."""
        return mask if self.are_equal else self.ids_of_b[mask]


def have_equal_pixels(a: bytes, b: bytes) -> bool:
    """Return whether two mask PNGs have the same header and compressed pixels; their palettes may differ.

    False says nothing: equal pixels can be compressed in several ways.
    """
    return a == b or (a[_HEADER] == b[_HEADER] and a[a.find(_PIXELS) :] == b[b.find(_PIXELS) :])


def confusion(a: np.ndarray, b: np.ndarray, num_classes: int) -> np.ndarray:
    """Return the pixels that are class i in mask ``a`` and class j in ``b``, int64 (C, C).

    Raises:
        ValueError: The sizes differ, or a mask contains an id that is not a class.
    """
    if a.shape != b.shape:
        raise ValueError(f"the masks are {a.shape[0]} x {a.shape[1]} and {b.shape[0]} x {b.shape[1]} pixels")
    if a.size and max(a.max(), b.max()) >= num_classes:
        raise ValueError(f"a mask holds the id {max(a.max(), b.max())}, but there are {num_classes} classes")
    changed = a != b  # a few percent of the pixels: counting these alone takes a tenth of the time
    pairs = a[changed].astype(np.int64) * num_classes + b[changed]
    counts = np.bincount(pairs, minlength=num_classes**2).reshape(num_classes, num_classes)
    np.fill_diagonal(counts, _pixels(a, num_classes) - counts.sum(axis=1))
    return counts


def _pixels(mask: np.ndarray, num_classes: int) -> np.ndarray:
    """Return the number of pixels of each class, int64 (C,)."""
    if mask.dtype == np.uint8 and mask.size:  # Pillow takes a tenth of the time of bincount, which casts to int64
        histogram = np.array(Image.fromarray(mask).histogram(), np.int64)
        return np.pad(histogram, (0, max(0, num_classes - 256)))[:num_classes]
    return np.bincount(mask.ravel(), minlength=num_classes)


def class_iou(counts: np.ndarray) -> np.ndarray:
    """Return the IoU of each class (C,) of a confusion matrix; NaN for a class in neither mask."""
    return scores.iou(np.diag(counts), counts.sum(axis=1), counts.sum(axis=0))


def mean_iou(a: bytes, b: bytes) -> float:
    """Return the mean IoU of two mask PNGs over the classes in either; ``b`` is resized (nearest) to the size of ``a``.

    Raises:
        ValueError: One of them is not a mask.
    """
    if have_equal_pixels(a, b):
        return 1.0
    first, second = mask_png.decode(a), mask_png.decode(b)
    if first.shape != second.shape:
        size = (first.shape[1], first.shape[0])
        second = np.asarray(Image.fromarray(second).resize(size, Image.Resampling.NEAREST))
    num_classes = int(max(first.max(), second.max())) + 1
    return float(scores.mean(class_iou(confusion(first, second, num_classes))))


def largest_changes(counts: np.ndarray, names: Sequence[str], limit: int = 2) -> list[tuple[str, str, int]]:
    """Return (class in A, class in B, pixels) of the largest entries beside the diagonal of a confusion matrix."""
    changed = counts - np.diag(np.diag(counts))
    order = np.argsort(-changed, axis=None, kind="stable")[:limit]
    found = [(*divmod(int(i), len(counts)), int(changed.flat[i])) for i in order]
    return [(names[i], names[j], pixels) for i, j, pixels in found if pixels]
