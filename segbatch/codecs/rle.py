"""Binary masks as run lengths: the brush strokes of Label Studio and the masks of CVAT."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

_CHANNELS = 4  # Label Studio encodes RGBA
_WORD_BITS = 8
# Widths in bits of a run's length; the stream's header declares them.
_SIZE_BITS = np.array([3, 4, 8, 16])
_MAX_RUN = 1 << 16
_PAINTED = 255  # 1 would be an invisible mask


@dataclass(frozen=True)
class BoxRuns:
    """Run lengths inside the bounding box of a mask, row by row, first the run of zeros.

    Attributes:
        counts: int64 (N,); the sum is ``width * height``.
        left: First column of the box.
        top: First row.
        width: Columns of the box.
        height: Rows.
    """

    counts: np.ndarray
    left: int
    top: int
    width: int
    height: int


def box_runs(mask: np.ndarray) -> BoxRuns:
    """Return the runs of a mask, bool (H, W) with at least one pixel set, as CVAT has them."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    top, left = int(rows[0]), int(columns[0])
    box = mask[top : rows[-1] + 1, left : columns[-1] + 1]
    _, lengths = _runs(box.ravel())
    counts = np.concatenate([[0], lengths]) if box[0, 0] else lengths
    return BoxRuns(counts, left, top, box.shape[1], box.shape[0])


def brush(mask: np.ndarray) -> bytes:
    """Return a mask, bool (H, W), as Label Studio's brush tool stores it: the field ``rle`` is a list of these bytes.

    A stream of bits over the RGBA image, row by row: the number of values in 32 bits, their width, the widths of the
    four sizes of a run; then the runs, each a flag, which size, length - 1, value (github.com/thi-ng/umbrella,
    packages/rle-pack). Every run is written as a repeated value, none as literal values.
    """
    starts, lengths = _runs(mask.ravel())
    values = np.where(mask.ravel()[starts], _PAINTED, 0)
    lengths = lengths * _CHANNELS
    pieces = -(-lengths // _MAX_RUN)
    # Runs longer than the largest size are full pieces and a remainder.
    last = np.cumsum(pieces) - 1
    piece_lengths = np.full(int(pieces.sum()), _MAX_RUN)
    piece_lengths[last] = lengths - (pieces - 1) * _MAX_RUN
    return np.packbits(np.concatenate([_header(mask.size), _codes(piece_lengths, np.repeat(values, pieces))])).tobytes()


def _runs(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """First index and length of each run of equal values."""
    starts = np.concatenate([[0], np.flatnonzero(values[1:] != values[:-1]) + 1])
    return starts, np.diff(starts, append=len(values))


def _header(pixels: int) -> np.ndarray:
    """Bits, uint8 (53,), before the runs."""
    fields = [(pixels * _CHANNELS, 32), (_WORD_BITS - 1, 5), *((int(size) - 1, 4) for size in _SIZE_BITS)]
    return np.array([int(bit) for value, width in fields for bit in f"{value:0{width}b}"], np.uint8)


def _codes(lengths: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Bits of the runs, uint8 (N,)."""
    which = np.searchsorted(1 << _SIZE_BITS, lengths)
    size = _SIZE_BITS[which]
    codes = (((1 << 2 | which) << size | (lengths - 1)) << _WORD_BITS) | values
    bits = np.unpackbits(codes.astype(">u4").view(np.uint8).reshape(-1, 4), axis=1)
    return bits[np.arange(32) >= 32 - (3 + size + _WORD_BITS)[:, None]]
