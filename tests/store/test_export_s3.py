"""An export from an object store into an object store."""

from __future__ import annotations

from pathlib import Path

import pytest

from segbatch.errors import PlanError, SpecError
from segbatch.operations.export import export
from tests import here
from tests.corpus import photographs, write_folder
from tests.store.seaweed import Seaweed


def test_an_export_on_s3_has_the_files_of_a_local_one(seaweed: Seaweed, place: str, tmp_path: Path) -> None:
    options, inputs = seaweed.storage_options(), write_folder(tmp_path / "in", photographs(5, side=32))
    seaweed.client().put(str(inputs), f"{place}/in", recursive=True)
    here.run(here.spec([f"s3://{place}/in"], f"s3://{place}/out", storage_options=options))
    for to in ("coco-rle", "webdataset"):
        target = f"s3://{place}/{to}"
        first = export(f"s3://{place}/out", to=to, target=target, images="copy", storage_options=options)
        again = export(f"s3://{place}/out", to=to, target=target, images="copy", storage_options=options)
        assert first == again
        assert (first.counts.images, first.counts.missing) == (5, 0)
        export(
            f"s3://{place}/out", to=to, target=str(tmp_path / to), images="copy", storage_options=options,
        )  # fmt: skip
        local = {str(p.relative_to(tmp_path / to)): p.read_bytes() for p in (tmp_path / to).rglob("*") if p.is_file()}
        fs = seaweed.client()
        stored = {str(p).removeprefix(f"{place}/{to}/"): fs.cat_file(p) for p in fs.find(f"{place}/{to}")}
        assert stored == local
    with pytest.raises(SpecError, match="is not a folder of this machine; give --images copy or none"):
        export(f"s3://{place}/out", to="png", target=f"s3://{place}/png", images="link", storage_options=options)
    with pytest.raises(PlanError, match="lies in the input"):
        export(f"s3://{place}/out", to="png", target=f"s3://{place}/in/masks", storage_options=options)
