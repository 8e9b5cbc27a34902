"""The names of the files and folders of an output. No module outside ``output/`` contains them."""

from __future__ import annotations

import re

from segbatch.records import ChunkId
from segbatch.storage.store import TEMPORARY

# Result files: one chunk each, or many after a compaction.
MASKS = "masks"
# The record of the run, which is also its claim to the output; the marker of a finished run.
RUN = "run.json"
SUCCESS = "_SUCCESS"
# Statistics of the classes, the table of result files, the dataset card.
CLASSES = "stats/classes.parquet"
FILES = "stats/files.parquet"
CARD = "README.md"
# The page of `segbatch report`.
REPORT = "report.html"
# Of nightly runs: the catalog of shards, the staging area, the journal of a promotion.
SHARDS = "shards.parquet"
STAGED = "incoming"
JOURNAL = "switch.json"
# Small images and masks of the network for reports: those of a chunk under its name, and the sample of a finished run.
PREVIEWS = "previews"
SAMPLE = "previews/sample.parquet"
# Archived and damaged result files: nothing is destroyed.
RETIRED = "retired"
SET_ASIDE = "set-aside"

FOLDERS = frozenset({MASKS, "stats", PREVIEWS, STAGED, RETIRED, SET_ASIDE, TEMPORARY})
_MERGED = re.compile(r"merged-(\d+)-[0-9a-f]{16}\.parquet")
DATE = re.compile(r"\d{4}-\d{2}-\d{2}")


def key_of(shard_id: str) -> str:
    """Return the ``Shard.key`` of a ``Shard.id``."""
    return shard_id.rpartition(".")[0]


def shard_of(filename: str) -> str:
    """Return the ``Shard.id`` of a chunk's file. Raises ``ValueError`` for any other name."""
    chunk = ChunkId.parse(filename)
    if chunk is None:
        raise ValueError(f"{filename}: not the name of a chunk")
    return chunk.shard_id


def generation(filename: str) -> int:
    """Return how often the rows of a file were merged, from its name; 0 for a file that is not merged."""
    m = _MERGED.fullmatch(filename)
    return int(m[1]) if m else 0


def is_result(filename: str) -> bool:
    """Whether only segbatch gives such a name: that of a chunk, or of merged chunks."""
    return ChunkId.parse(filename) is not None or generation(filename) > 0
