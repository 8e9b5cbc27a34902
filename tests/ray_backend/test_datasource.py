"""How the reads of a plan are handed out."""

from __future__ import annotations

from typing import cast

import pytest

from segbatch.isolation import AttemptCounter
from segbatch.planning.chunking import Piece
from segbatch.ray_backend.datasource import ShardDatasource
from segbatch.records import Shard
from segbatch.sources import open_source


def pieces(number: int, stop: int | None) -> list[Piece]:
    return [Piece(Shard(f"/{n}", f"{n}", "images", "v", 4), 0, stop, frozenset()) for n in range(number)]


@pytest.mark.parametrize(
    ("planned", "tasks"),
    [
        (pieces(9, 1), 9),
        (pieces(100, 1), 100),
        (pieces(128, 1), 64),
        (pieces(720, 1), 90),
        (pieces(16_000, 1), 1000),
        (pieces(720, 8), 720),
        (pieces(720, None), 720),
        (pieces(3000, None), 1000),
        (pieces(3, None) + pieces(512, 1) + pieces(2, 8), 3 + 64 + 2),
    ],
)
def test_small_chunks_share_a_task_where_there_are_many(planned: list[Piece], tasks: int) -> None:
    found = ShardDatasource(open_source(["/"]), planned, 4, cast(AttemptCounter, None)).get_read_tasks(1)
    assert len(found) == tasks
