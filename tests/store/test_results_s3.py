"""Outputs on S3, queried, selected from and compared where they are."""

from __future__ import annotations

from pathlib import Path

import pytest

from segbatch.errors import SegbatchError
from segbatch.operations.diff import diff
from segbatch.operations.query import query
from segbatch.operations.report import write_report
from segbatch.operations.select import select
from segbatch.storage.store import Store
from tests import here
from tests.corpus import photographs, write_folder
from tests.store.seaweed import Seaweed


def test_outputs_on_s3_are_queried_selected_from_and_compared(seaweed: Seaweed, place: str, tmp_path: Path) -> None:
    files = [*photographs(6, side=40), ("page.jpg", b"<html>gone</html>")]
    inputs, options = [str(write_folder(tmp_path / "in", files))], seaweed.storage_options()
    a, b = f"s3://{place}/a", f"s3://{place}/b"
    here.run(here.spec(inputs, a, storage_options=options))
    here.run(here.spec(inputs, b, storage_options=options, model="tests.networks:Faded"))
    sql = "SELECT iou(a.mask, b.mask) AS agreement FROM masks a JOIN other_masks b USING (image_id)"
    agreement = query(a, sql, other=b, storage_options=options)["agreement"].to_pylist()
    chosen = select(a, strategy="disagreement", other=b, n=6, storage_options=options)
    assert [1 - score for score in chosen.table["score"].to_pylist()] == pytest.approx(sorted(agreement))
    found = diff(a, b, storage_options=options)
    assert (found.images, found.errors_both, len(found.changed)) == (6, 1, 6)
    assert sorted(image.mean_iou for image in found.changed) == pytest.approx(sorted(agreement))
    with pytest.raises(SegbatchError) as refused:
        query(a, sql, other=b, storage_options={**options, "secret": "another"})
    assert seaweed.key not in str(refused.value)


def test_the_report_of_an_output_on_s3_is_written_beside_its_rows(seaweed: Seaweed, place: str, tmp_path: Path) -> None:
    inputs, options = [str(write_folder(tmp_path / "in", photographs(3, side=40)))], seaweed.storage_options()
    output = f"s3://{place}/out"
    here.run(here.spec(inputs, output, storage_options=options))
    written = write_report(output, storage_options=options)
    assert (written.address, written.images) == (f"{output}/report.html", 3)
    page = Store(output, options).read("report.html")
    assert len(page) == written.size_bytes
    assert seaweed.key.encode() not in page
