"""Object proposals: boxes of an image, read from a file, or on a sliding grid of several sizes."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq

from segbatch.contents import OF_WEIGHTS
from segbatch.errors import ModelError, RecordFailure
from segbatch.models.weights import read_uri
from segbatch.text import without_query

# (image uint8 (H, W, 3), its id or None) -> int (N, 4): top, left, height, width in pixels, the best box first.
Proposals = Callable[[np.ndarray, str | None], np.ndarray]
MAX_BOXES = 50  # per image, unless a file states another number
SIDES = ("top", "left", "height", "width")
# Sides of the grid's squares as fractions of the shorter side of the image.
_SCALES = (1.0, 2 / 3, 1 / 2, 1 / 3)


def grid(height: int, width: int, most: int) -> np.ndarray:
    """Return the whole image, then squares that overlap by half, coarse to fine: int (N, 4).

    N is at most ``most``. Each size covers the image. The first size that would exceed ``most`` boxes ends the list.
    """
    boxes = [(0, 0, height, width)]
    for scale in _SCALES:
        side = max(1, round(scale * min(height, width)))
        finer = [(t, l, side, side) for t in _starts(height, side) for l in _starts(width, side)]  # noqa: E741
        if len(boxes) + len(finer) > most:
            break
        boxes += finer
    return np.array(boxes, np.int64)


def from_grid(most: int) -> Proposals:
    """Return proposals that depend on the size of the image only."""
    return lambda image, image_id: grid(image.shape[0], image.shape[1], most)


class FileProposals:
    """The boxes in a file, by ``image_id`` as in the output. They are held in memory.

    Args:
        data: Parquet or CSV with the columns ``image_id, top, left, height, width`` and, unless the rows are in
            descending order, ``score``; or JSON, ``{image_id: [[top, left, height, width], ...]}``.
        uri: Its suffix is the format.

    Raises:
        ModelError: The file cannot be read as proposals.
    """

    def __init__(self, data: bytes, uri: str) -> None:
        self._uri, path = uri, without_query(uri)
        try:
            table = _READERS[path[path.rfind(".") :].lower()](data)
        except KeyError:
            raise ModelError(f"proposals {uri!r}: unknown kind of file; give one of {' '.join(_READERS)}") from None
        except (pa.ArrowException, OSError, ValueError, TypeError, RecursionError) as e:
            reason = " ".join(str(e).split())[:200]
            raise ModelError(
                f"proposals {uri!r} cannot be read: {reason}; columns image_id, {', '.join(SIDES)}, or in JSON "
                "{image_id: [[top, left, height, width], ...]}"
            ) from e
        self._boxes, self._rows = _sorted(table, uri)

    def __call__(self, image: np.ndarray, image_id: str | None) -> np.ndarray:
        """Return the boxes of an image, the best first.

        Raises:
            RecordFailure: ``NoProposals``, the file has none for this id.
        """
        if image_id is None:
            raise ValueError(f"the proposals of {self._uri!r} are by image id; call scores(images, ids)")
        rows = self._rows.get(image_id)
        if rows is None:
            raise RecordFailure(
                "segment",
                "NoProposals",
                f"{self._uri} has no boxes for image_id {image_id!r}; add some, by the image_id of the output, or give "
                "no proposals for a sliding grid",
            )
        return self._boxes[rows]


def read_proposals(uri: str, storage_options: Mapping[str, Any] | None = None) -> tuple[FileProposals, bytes]:
    """Read the proposals at a path or URI; also return the bytes of the file."""
    data = read_uri(uri, "proposals", storage_options, {*OF_WEIGHTS, "a Parquet file"})
    return FileProposals(data, uri), data


def clipped(boxes: np.ndarray, height: int, width: int, most: int) -> np.ndarray:
    """Return the first ``most`` boxes that intersect the image, clipped to it: int (N, 4).

    Raises:
        RecordFailure: ``NoProposals``, none intersects it.
        ValueError: The array does not contain boxes.
    """
    boxes = np.asarray(boxes)
    if boxes.ndim != 2 or boxes.shape[1] != 4 or not np.issubdtype(boxes.dtype, np.integer):
        raise ValueError(f"proposals are {boxes.dtype} {boxes.shape}; give integers (N, 4): {', '.join(SIDES)}")
    begin = np.clip(boxes[:, :2], 0, (height, width))
    end = np.clip(boxes[:, :2] + boxes[:, 2:], 0, (height, width))
    inside = np.concatenate([begin, end - begin], axis=1)
    inside = inside[(inside[:, 2:] > 0).all(axis=1)][:most]
    if not len(inside):
        raise RecordFailure(
            "segment", "NoProposals", f"none of its {len(boxes)} boxes meets the image of {height} x {width} pixels"
        )
    return inside


def _starts(length: int, side: int) -> list[int]:
    """Positions of windows of ``side`` that cover ``length`` and overlap by about half."""
    count = 1 + -(-2 * (length - side) // side)
    return [round(i * (length - side) / max(1, count - 1)) for i in range(count)]


def _read_json(data: bytes) -> pa.Table:
    loaded = json.loads(data)
    if not isinstance(loaded, dict):
        raise ValueError(f"JSON that is a {type(loaded).__name__}")
    rows = [(key, *box) for key, boxes in loaded.items() for box in boxes]
    if any(len(row) != 5 for row in rows):
        raise ValueError("a box that is not four numbers")
    names = ("image_id", *SIDES)
    return pa.table({name: [row[i] for row in rows] for i, name in enumerate(names)})


_READERS: dict[str, Callable[[bytes], pa.Table]] = {
    ".parquet": lambda data: pq.read_table(io.BytesIO(data)),
    ".csv": lambda data: pyarrow.csv.read_csv(
        io.BytesIO(data), convert_options=pyarrow.csv.ConvertOptions(column_types={"image_id": pa.string()})
    ),
    ".json": _read_json,
}


def _sorted(table: pa.Table, uri: str) -> tuple[np.ndarray, dict[str, slice]]:
    """Boxes by image and, within one, by score; and the rows of each image."""
    absent = [name for name in ("image_id", *SIDES) if name not in table.column_names]
    if absent:
        raise ModelError(
            f"proposals {uri!r} lack {', '.join(absent)}; the columns are {', '.join(table.column_names[:20])}"
        )
    ids = table["image_id"].cast(pa.string()).combine_chunks()
    keys = ["image_id", *(["score"] if "score" in table.column_names else [])]
    rank = table.select(keys[1:]).append_column("image_id", ids).append_column("row", pa.array(range(len(table))))
    directions = [("image_id", "ascending"), *((k, "descending") for k in keys[1:]), ("row", "ascending")]
    order = pc.sort_indices(rank, sort_keys=directions).to_numpy()
    columns = [table[name].to_numpy(zero_copy_only=False) for name in SIDES]
    wrong = next((n for n, c in zip(SIDES, columns, strict=True) if not np.issubdtype(c.dtype, np.number)), None)
    values = np.stack(columns, axis=1) if wrong is None and columns[0].size else np.zeros((0, 4))
    bad = ~(np.isfinite(values) & (np.abs(values) < 2**31)).all(axis=1) | (values[:, 2:] <= 0).any(axis=1)
    if wrong is not None or bad.any() or ids.null_count:
        row = int(np.argmax(bad)) if wrong is None and bad.any() else 0
        met = (
            f"column {wrong} is not a number"
            if wrong
            else f"row {row} is {values[row].tolist() if len(values) else []}"
        )
        raise ModelError(
            f"proposals {uri!r}: {met}; every row needs an image_id, and {', '.join(SIDES)} in pixels, the last two "
            "above 0"
        )
    sorted_ids = ids.take(pa.array(order)).to_pylist()
    begins = [i for i in range(len(sorted_ids)) if i == 0 or sorted_ids[i] != sorted_ids[i - 1]]
    ends = [*begins[1:], len(sorted_ids)]
    rows = {sorted_ids[b]: slice(b, e) for b, e in zip(begins, ends, strict=True)} if begins else {}
    return np.rint(values[order]).astype(np.int64), rows
