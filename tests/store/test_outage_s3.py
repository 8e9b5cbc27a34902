"""A bucket that is gone or denied is an outage; an object that is gone is an error row."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from segbatch.errors import Outage
from segbatch.sources import Source, divided
from segbatch.sources.formats import ReadOptions
from segbatch.storage.files import Files
from segbatch.storage.retry import RetryPolicy
from tests.corpus import photographs, write_manifest
from tests.store.seaweed import Seaweed

PICTURES = photographs(4, side=16)


def errors(given: str, shards: list[Any], options: dict[str, Any]) -> list[str | None]:
    files = Files(options, RetryPolicy(deadline_seconds=1.0, local_deadline_seconds=0.0))
    source = Source([given], ReadOptions(files, max_record_bytes=2**17))
    records = [record for shard in shards for chunk in source.chunks(shard, 4) for record in chunk.records]
    return [record.error.type if record.error else None for record in records]


@pytest.mark.parametrize("kind", ["listed", "manifest"])
def test_what_a_bucket_does_not_give(seaweed: Seaweed, tmp_path: Path, kind: str) -> None:
    store, bucket, options = seaweed.client(), f"outage-{kind}", seaweed.storage_options()
    store.mkdir(bucket)
    uris = [f"s3://{bucket}/in/{name}" for name, _ in PICTURES]
    for uri, (_, data) in zip(uris, PICTURES, strict=True):
        store.pipe_file(uri, data)
    given = f"s3://{bucket}/in" if kind == "listed" else str(write_manifest(tmp_path / "list.csv", uris))
    shards = divided(list(Source([given], ReadOptions(Files(options))).shards()), 4)
    with pytest.raises(Outage, match="PermissionError"):
        errors(given, shards, {**options, "key": "UNKNOWN"})
    store.rm_file(uris[0])
    assert errors(given, shards, options) == ["MissingObject", None, None, None]
    store.rm(bucket, recursive=True)
    with pytest.raises(Outage, match="bucket does not exist"):
        errors(given, shards, options)
