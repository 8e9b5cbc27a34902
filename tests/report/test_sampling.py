"""Which images a report shows, and what it says about all rows."""

from __future__ import annotations

import dataclasses

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from segbatch.labels import LabelSet
from segbatch.output.schema import to_table
from segbatch.output.totals import Totals
from segbatch.records import ClassCount, Record, RecordError
from segbatch.report.charts import Histogram
from segbatch.report.sampling import BY_CLASS, BY_HASH, LEAST, Choice, Sampler
from segbatch.report.summary import LOW_CONFIDENCE, Counts, Summary

LABELS = LabelSet.of(("background", "cat", "dog", "bus"))


def record(number: int, *class_ids: int, confidence: float = 0.9, error: str = "") -> Record:
    plain = Record(f"a.tar/{number:04}", "a.tar", number)
    if error:
        return plain.failed("decode", error, f"{error} of {number}")
    pixels = [100 // len(class_ids)] * len(class_ids)
    counts = tuple(
        ClassCount(c, n, float(np.float32(n / sum(pixels))), confidence) for c, n in zip(class_ids, pixels, strict=True)
    )
    return dataclasses.replace(plain, height=10, width=10, mask=b"-", classes=counts, confidence=confidence)


def batches(records: list[Record], size: int) -> list[pa.RecordBatch]:
    table = to_table(records).select(["image_id", "classes", "confidence", "error"])
    return table.combine_chunks().to_batches(size) if records else []


def chosen(records: list[Record], size: int, *, step: int = 7, previewed: tuple[str, ...] = ()) -> list[Choice]:
    sampler = Sampler(size, len(LABELS), previewed)
    for file, batch in enumerate(batches(records, step)):
        sampler.add(batch, Counts.of(batch), file, 0)
    return sampler.choose()


RECORDS = [
    record(i, *((0, 3) if i == 77 else (0, 2) if i % 20 == 0 else (0, 1)), confidence=0.5 + (i * 37 % 100) / 250)
    for i in range(100)
]


def test_a_third_is_least_confident_a_third_has_each_class_and_a_third_follows_the_hash() -> None:
    choices = chosen(RECORDS, 12)
    kinds = {kind: [c for c in choices if c.reason == kind] for kind in (LEAST, BY_CLASS, BY_HASH)}
    assert {kind: len(of_kind) for kind, of_kind in kinds.items()} == {LEAST: 4, BY_CLASS: 4, BY_HASH: 4}
    assert len({c.candidate.image_id for c in choices}) == 12
    lowest = sorted(RECORDS, key=lambda r: r.confidence or 0)[:4]
    assert {c.candidate.image_id for c in kinds[LEAST]} == {r.image_id for r in lowest}
    assert kinds[BY_CLASS][0].class_id == 3
    assert "a.tar/0077" in {c.candidate.image_id for c in choices}
    assert [c.reason for c in choices[:3]] == [LEAST, BY_CLASS, BY_HASH]


def test_the_sample_does_not_depend_on_how_rows_are_read() -> None:
    def ids(choices: list[Choice]) -> list[str]:
        return [c.candidate.image_id for c in choices]

    assert ids(chosen(RECORDS, 12, step=3)) == ids(chosen(RECORDS, 12, step=100)) == ids(chosen(RECORDS[::-1], 12))


def test_rows_with_a_preview_come_first_where_confidence_does_not_decide() -> None:
    previewed = tuple(r.image_id for r in RECORDS[40:60])
    choices = chosen(RECORDS, 12, previewed=previewed)
    assert all(c.candidate.image_id in previewed for c in choices if c.reason == BY_HASH)


@pytest.mark.parametrize("size", [0, 1, 2, 5, 100, 200])
def test_a_sample_has_as_many_images_as_asked_for_or_as_there_are(size: int) -> None:
    records = [*RECORDS[:9], record(9, error="EmptyImage")]
    assert len(chosen(records, size)) == min(size, 9)


@given(
    st.lists(
        st.one_of(
            st.builds(
                lambda i, ids, c: record(i, *ids, confidence=float(np.float32(c))),
                st.integers(0, 10**6),
                st.lists(st.integers(0, 3), min_size=1, max_size=4, unique=True),
                st.floats(0, 1),
            ),
            st.builds(lambda i, e: record(i, error=e), st.integers(0, 10**6), st.sampled_from(["EmptyImage", "Cut"])),
        ),
        max_size=30,
    ),
    st.integers(1, 8),
)
def test_the_sums_are_those_of_the_totals(records: list[Record], step: int) -> None:
    summary, totals = Summary(LABELS), Totals(len(LABELS))
    for batch in batches(records, step):
        summary.add(batch, Counts.of(batch))
    for r in records:
        if isinstance(r.error, RecordError):
            totals.add_error(r.error.stage, r.error.type)
        else:
            totals.add_image(r.classes)
    masks = [r for r in records if r.error is None]
    assert summary.totals == totals
    assert summary.confidence.sum() == summary.num_classes.sum() == summary.foreground.sum() == len(masks)
    assert summary.low == sum((r.confidence or 0) < LOW_CONFIDENCE for r in masks)
    assert summary.empty == sum([c.class_id for c in r.classes] == [0] for r in masks)
    assert summary.class_confidence.sum(axis=1).tolist() == totals.images


def test_a_histogram_leaves_out_the_empty_quarters_at_its_left() -> None:
    counts = [0] * 30 + [1] * 10
    drawn = Histogram.of_shares("Confidence", counts, "")
    assert (len(drawn.bars), drawn.ticks[0], drawn.ticks[-1]) == (10, (0, "0.75"), (1, "1"))
    assert drawn.bars[0].title == "0.75 to 0.775: 1 image"
