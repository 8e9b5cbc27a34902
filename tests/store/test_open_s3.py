"""An output on S3 whose images are on S3, opened as a dataset, also in forked workers of a DataLoader."""

from __future__ import annotations

import numpy as np
import pytest
from torch.utils.data import DataLoader

import segbatch
from tests import here
from tests.corpus import photographs, tar_bytes
from tests.store.seaweed import Seaweed


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_masks_and_images_on_s3_are_read_by_forked_workers(seaweed: Seaweed, place: str) -> None:
    options, output = seaweed.storage_options(), f"s3://{place}/out"
    with seaweed.client().open(f"{place}/in/a.tar", "wb") as f:
        f.write(tar_bytes(photographs(8, side=40)))
    here.run(here.spec([f"s3://{place}/in/*.tar"], output, storage_options=options))
    masks = segbatch.open(output, storage_options=options)
    rows = list(masks)
    assert [masks[row.image_id] for row in rows] == rows
    assert len(masks.select(classes=["bright"])) == sum(2 in {c.class_id for c in row.classes} for row in rows)
    assert np.asarray(rows[0].overlay()).shape == (rows[0].height, rows[0].width, 3)
    pairs = masks.to_torch_dataset()
    assert pairs[0][1].shape == (rows[0].height, rows[0].width)
    loader = DataLoader(pairs, batch_size=2, num_workers=2, collate_fn=list, multiprocessing_context="fork", timeout=60)
    loaded = [mask for batch in loader for _, mask in batch]
    assert all(np.array_equal(mask, row.mask) for mask, row in zip(loaded, rows, strict=True))
