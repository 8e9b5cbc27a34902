"""The lattice's gathers as Triton kernels, for a GPU: sums of weighted rows, and a step of mean field in one pass.

torch's ``embedding_bag`` gives a row of values one thread a column and took nine tenths of the filter's time on an
H100; here a row is read 16 bytes a thread. Each row is summed in the order of its entries: the same bits in every run.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

# Values a program sums, and its warps, measured on an H100 at 4 and 24 columns. A warp waits for the longest of its
# rows, and of few columns it has many.
_FEW, _MANY = (128, 1), (256, 2)


@triton.jit
def _gather_kernel(  # type: ignore[no-untyped-def]
    values,
    index,
    weights,
    starts,
    ends,
    out,
    rows,
    K: tl.constexpr,
    ROWS: tl.constexpr,
    COLS: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    column = tl.arange(0, COLS)
    inside = row < rows
    start = tl.load(starts + row, inside, 0)
    end = tl.load(ends + row, inside, 0)
    total = tl.zeros((ROWS, COLS), values.dtype.element_ty)
    for step in range(tl.max(end - start, 0)):
        entry = start + step
        live = entry < end
        source = tl.load(index + entry, live, 0).to(tl.int64)
        weight = tl.load(weights + entry, live, 0.0)
        read = live[:, None] & (column < K)[None, :]
        total += weight[:, None] * tl.load(values + source[:, None] * K + column[None, :], read, 0.0)
    tl.store(out + row[:, None] * K + column[None, :], total, inside[:, None] & (column < K)[None, :])


@triton.jit
def _slice_kernel(  # type: ignore[no-untyped-def]
    values,
    index,
    weights,
    base,
    out,
    coupling,
    rows,
    SOFTMAX: tl.constexpr,
    CORNERS: tl.constexpr,
    K: tl.constexpr,
    ROWS: tl.constexpr,
    COLS: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    column = tl.arange(0, COLS)
    inside = row < rows
    read = inside[:, None] & (column < K)[None, :]
    total = tl.zeros((ROWS, COLS), values.dtype.element_ty)
    for corner in tl.static_range(CORNERS):
        entry = row * CORNERS + corner
        source = tl.load(index + entry, inside, 0).to(tl.int64)
        weight = tl.load(weights + entry, inside, 0.0)
        total += weight[:, None] * tl.load(values + source[:, None] * K + column[None, :], read, 0.0)
    # Columns that are not there must not win.
    scores = tl.load(base + row[:, None] * K + column[None, :], read, float("-inf")) + coupling * total
    if SOFTMAX:
        scores = tl.exp(scores - tl.max(scores, 1)[:, None])
        scores = scores / tl.sum(scores, 1)[:, None]
    tl.store(out + row[:, None] * K + column[None, :], scores, read)


def gather(index: Tensor, starts: Tensor, ends: Tensor, weights: Tensor, values: Tensor) -> Tensor:
    """``out[r] = sum(weights[e] * values[index[e]] for starts[r] <= e < ends[r])``, values (n, K), contiguous."""
    assert values.is_contiguous()
    rows, columns = starts.numel(), values.shape[1]
    out = values.new_empty(rows, columns)
    block, cols, warps = _shape(columns)
    with torch.cuda.device_of(values):
        _gather_kernel[(triton.cdiv(rows, block),)](
            *(values, index, weights, starts, ends, out, rows),
            *(columns, block, cols),
            num_warps=warps,
        )
    return out


def add_slice(
    index: Tensor, weights: Tensor, values: Tensor, base: Tensor, coupling: float, *, softmax: bool
) -> Tensor:
    """``base + coupling * slice(values)`` (points, K), each point from as many entries; its softmax if so said.

    ``values`` and ``base`` are contiguous.
    """
    assert values.is_contiguous()
    assert base.is_contiguous()
    points, columns = base.shape
    out = torch.empty_like(base)
    block, cols, warps = _shape(columns)
    with torch.cuda.device_of(values):
        _slice_kernel[(triton.cdiv(points, block),)](
            *(values, index, weights, base, out, coupling, points),
            *(softmax, index.numel() // points, columns, block, cols),
            num_warps=warps,
        )
    return out


def _shape(columns: int) -> tuple[int, int, int]:
    """Rows, columns (a power of two) and warps of a program."""
    cols = triton.next_power_of_2(columns)
    values, warps = _MANY if cols >= 16 else _FEW
    return max(1, values // cols), cols, warps
