"""How the reads of a plan are handed out."""

from __future__ import annotations

from typing import cast

import pytest

from segbatch.isolation import AttemptCounter
from segbatch.ray_backend.datasource import ShardDatasource
from segbatch.records import ChunkSelection, Shard, ShardSlice
from tests.inputs import open_source


def slices(number: int, stop: int | None) -> list[ShardSlice]:
    shards = (Shard(f"/{n}", f"{n}", "images", "v", 4) for n in range(number))
    return [ShardSlice(shard, ChunkSelection(stop=stop)) for shard in shards]


@pytest.mark.parametrize(
    ("planned", "tasks"),
    [
        (slices(9, 1), 9),
        (slices(100, 1), 100),
        (slices(128, 1), 64),
        (slices(720, 1), 90),
        (slices(16_000, 1), 1000),
        (slices(720, 8), 720),
        (slices(720, None), 720),
        (slices(3000, None), 1000),
        (slices(3, None) + slices(512, 1) + slices(2, 8), 3 + 64 + 2),
    ],
)
def test_small_chunks_share_a_task_where_there_are_many(planned: list[ShardSlice], tasks: int) -> None:
    found = ShardDatasource(open_source(["/"]), planned, 4, cast(AttemptCounter, None)).get_read_tasks(1)
    assert len(found) == tasks
