"""Statistics per class, and the dataset card."""

from __future__ import annotations

import html
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.parquet as pq

from segbatch.labels import LabelSet
from segbatch.output.layout import CARD, CLASSES
from segbatch.output.run_record import RunRecord
from segbatch.output.schema import CLASSES_SCHEMA, Column, columns
from segbatch.output.totals import CONFIDENCE_UNIT, Totals
from segbatch.storage.store import Store
from segbatch.text import counted


@dataclass(frozen=True)
class ClassRow:
    """One class over the corpus.

    Attributes:
        class_id: Its id.
        name: Its name.
        images: Number of images that contain it.
        pixels: Number of its pixels.
        share: Their share of all pixels, 0 to 1.
        confidence: Their mean confidence, 0 to 1; None for a class that never occurs.
    """

    class_id: int
    name: str
    images: int
    pixels: int
    share: float
    confidence: float | None


def class_rows(totals: Totals, labels: LabelSet) -> list[ClassRow]:
    """Return one row per class, in order of ids."""
    everything = sum(totals.pixels)
    return [
        ClassRow(
            c,
            labels.names[c],
            totals.images[c],
            totals.pixels[c],
            totals.pixels[c] / everything if everything else 0.0,
            totals.confidence[c] / CONFIDENCE_UNIT / totals.pixels[c] if totals.pixels[c] else None,
        )
        for c in range(len(labels))
    ]


def classes_table(totals: Totals, labels: LabelSet) -> pa.Table:
    """Return one row per class, in order of ids, as stats/classes.parquet has them."""
    return pa.Table.from_pylist([vars(r) for r in class_rows(totals, labels)], schema=CLASSES_SCHEMA)


def write_classes(store: Store, totals: Totals, labels: LabelSet) -> None:
    """Write stats/classes.parquet."""
    sink = pa.BufferOutputStream()
    pq.write_table(classes_table(totals, labels), sink, compression="ZSTD")
    store.write(CLASSES, sink.getvalue().to_pybytes())


def read_classes(store: Store) -> list[ClassRow]:
    """Read stats/classes.parquet. Raises ``FileNotFoundError`` before the run is done."""
    table = pq.read_table(pa.BufferReader(store.read(CLASSES)))
    return [ClassRow(**row) for row in table.to_pylist()]


_CARD_HEAD = """---
configs:
- config_name: default
  data_files: masks/*.parquet
dataset_info:
  features:
"""

_SIGNATURE = "made by segbatch"


def is_card(data: bytes) -> bool:
    """Whether a README.md was written by ``write_card``."""
    return data.startswith(b"---") and _SIGNATURE.encode() in data


def write_card(store: Store, record: RunRecord, totals: Totals) -> None:
    """Write README.md: a Hugging Face dataset card, so that ``datasets`` decodes the masks and viewers show them.

    A README.md of anyone else is kept.
    """
    if store.exists(CARD) and not is_card(store.read(CARD)):
        return
    rows = [
        f"| {r.class_id} | {_cell(r.name)} | {r.images} | {r.pixels} | {r.share:.4%} | "
        f"{'' if r.confidence is None else f'{r.confidence:.3f}'} |"
        for r in class_rows(totals, record.labels)
    ]
    features = "".join(map(_feature, columns(has_marginal=record.has_marginal)))
    text = (
        f"{_CARD_HEAD}{features}---\n\n# Segmentation masks\n\n"
        f"{counted(totals.records, 'record')}, {totals.failed:,} of them errors; network `{record.spec['model']}`, "
        f"refiner `{record.spec['refiner']}`; {_SIGNATURE} {record.versions['segbatch']}.\n"
        "One row per record: `mask` is a palette PNG whose pixel values are class ids, or `error` says why there is "
        "none; `confidence` is the mean over the pixels of the network's probability of their class.\n\n"
        "| id | class | images | pixels | share | confidence |\n|---|---|---|---|---|---|\n"
    )
    store.write(CARD, (text + "\n".join(rows) + "\n").encode())


def _feature(column: Column) -> str:
    """Return a column in the YAML of a dataset card."""
    is_list = pa.types.is_list(column.type)
    if not is_list and not pa.types.is_struct(column.type):
        return f"  - {{name: {column.name}, dtype: {'image' if column.is_image else _dtype(column.type)}}}\n"
    inner = column.type.value_type if is_list else column.type
    fields = "".join(f"    - {{name: {field.name}, dtype: {_dtype(field.type)}}}\n" for field in inner)
    return f"  - name: {column.name}\n    {'list' if is_list else 'struct'}:\n{fields}"


def _dtype(kind: pa.DataType) -> str:
    return "float32" if pa.types.is_float32(kind) else str(kind)


def _cell(text: str) -> str:
    """Return a class name as text of a Markdown table; names come from files, and may contain markup."""
    return html.escape(" ".join(text.split())).replace("|", "&#124;").replace("`", "&#96;")
