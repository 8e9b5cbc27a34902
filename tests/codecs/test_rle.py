"""Run lengths of masks, decoded by the rules of Label Studio and of CVAT."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from segbatch.codecs import rle

MASKS = arrays(bool, st.tuples(st.integers(1, 40), st.integers(1, 40)))


class Bits:
    """Reads numbers from a stream of bits."""

    def __init__(self, data: bytes) -> None:
        self.text, self.at = "".join(f"{byte:08b}" for byte in data), 0

    def read(self, width: int) -> int:
        self.at += width
        return int(self.text[self.at - width : self.at], 2)


def decode_brush(data: bytes) -> np.ndarray:
    """The values of a stream, as the editor of Label Studio decodes it."""
    bits = Bits(data)
    values = np.zeros(bits.read(32), np.uint8)
    width = bits.read(5) + 1
    sizes = [bits.read(4) + 1 for _ in range(4)]
    at = 0
    while at < len(values):
        is_run, stop = bits.read(1), at + 1 + bits.read(sizes[bits.read(2)])
        assert is_run
        values[at:stop] = bits.read(width)
        at = stop
    return values


def check_brush(mask: np.ndarray) -> None:
    rgba = decode_brush(rle.brush(mask)).reshape(*mask.shape, 4)
    assert np.array_equal(rgba, np.repeat(np.where(mask, 255, 0)[..., None], 4, axis=2))


@given(MASKS)
def test_brushes_are_opaque_where_the_mask_is(mask: np.ndarray) -> None:
    check_brush(mask)


def test_brushes_have_runs_of_any_length() -> None:
    for pixels in (1, 2, 4, 5, 64, 65, 16_384, 16_385, 40_000):
        mask = np.ones((1, pixels + 1), bool)
        mask[0, -1] = False
        check_brush(mask)


@given(MASKS)
def test_box_runs_are_row_major_inside_the_bounding_box(mask: np.ndarray) -> None:
    mask[mask.shape[0] // 2, mask.shape[1] // 2] = True
    box = rle.box_runs(mask)
    values = np.repeat(np.arange(len(box.counts)) % 2 == 1, box.counts).reshape(box.height, box.width)
    assert values.any(0)[[0, -1]].all()
    assert values.any(1)[[0, -1]].all()
    decoded = np.zeros_like(mask)
    decoded[box.top : box.top + box.height, box.left : box.left + box.width] = values
    assert np.array_equal(decoded, mask)
