"""Binary masks as polygons, one for each connected component, with bridges to its holes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np


@dataclass
class _Ring:
    """The pixels around a component or a hole, int64 (N, 2) of x and y, and the rings to which bridges lead.

    ``bridges`` are triples: an index in ``points``, the other ring, and an index in its points.
    """

    points: np.ndarray
    is_hole: bool
    bridges: list[tuple[int, _Ring, int]] = field(default_factory=list)

    def once_around(self, start: int) -> Iterator[np.ndarray | tuple[_Ring, int]]:
        """Pixels from ``start`` to itself, and between them the ring and index to which each bridge leads."""
        points = np.roll(self.points, -start, axis=0)
        turned = [((index - start) % len(points), ring, other) for index, ring, other in self.bridges]
        at = 0
        for index, ring, other in sorted(turned, key=lambda bridge: bridge[0]):
            yield points[at : index + 1]
            yield ring, other
            at = index
        yield points[at:]
        yield points[:1]


def polygons(mask: np.ndarray) -> list[np.ndarray]:
    """Return a closed polygon for each 8-connected component of a mask.

    A polygon has every boundary pixel of its component. One ring cannot have holes: a bridge of zero width leads from
    the ring to each hole and back, so that filling by the even-odd rule leaves the holes empty. Bridges are horizontal,
    from the leftmost pixel around a hole to the next ring on its left, and so never leave the component.

    Args:
        mask: bool (H, W).

    Returns:
        x and y of pixels, int64 (N, 2) with N >= 3; the last is the first again.
    """
    rings = sorted(_rings(mask), key=lambda ring: (ring.is_hole, int(ring.points[:, 0].min())))
    ring_at = np.full(mask.shape, -1)  # index in ``rings``
    index_at = np.zeros(mask.shape, np.int64)
    for i, ring in enumerate(rings):
        x, y = ring.points.T
        if ring.is_hole:
            start = int(x.argmin())
            row = y[start]
            column = np.flatnonzero(ring_at[row, : x[start] + 1] >= 0)[-1]
            rings[ring_at[row, column]].bridges.append((int(index_at[row, column]), ring, start))
        ring_at[y, x], index_at[y, x] = i, np.arange(len(x))
    return [_path(ring) for ring in rings if not ring.is_hole]


def _rings(mask: np.ndarray) -> list[_Ring]:
    import cv2

    contours, hierarchy = cv2.findContours(mask.astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    parents = [] if hierarchy is None else hierarchy[0][:, 3]
    return [
        _Ring(contour[:, 0].astype(np.int64), parent >= 0) for contour, parent in zip(contours, parents, strict=True)
    ]


def _path(ring: _Ring) -> np.ndarray:
    """The polygon of a component. Not recursive: a chain of holes may be longer than Python's stack."""
    pieces: list[np.ndarray] = []
    walks = [ring.once_around(0)]
    while walks:
        step = next(walks[-1], None)
        if step is None:
            walks.pop()
        elif isinstance(step, tuple):
            walks.append(step[0].once_around(step[1]))
        else:
            pieces.append(step)
    path = np.concatenate(pieces)
    return np.concatenate([path, *[path[-1:]] * (3 - len(path))])
