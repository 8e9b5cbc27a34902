"""Detection of files of another kind than their names say, by their first bytes."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from segbatch.contents import FIRST_BYTES
from segbatch.errors import SegbatchError
from segbatch.records import Shard
from segbatch.storage.files import Files, shard_failure
from segbatch.text import redact

_CHECKED = 3


def mistaken(
    files: Files, shards: Sequence[Shard], expected: str, kind_of: Callable[[Shard, bytes], str]
) -> str | None:
    """Return one line if the first few ``shards`` are all of another kind, else None.

    A single one among shards of the right kind becomes an error row.

    Args:
        expected: The kind that their names say, with an article.
        kind_of: Returns the kind of a shard by its first bytes, "" for the expected one.
    """
    kinds = [kind_of(shard, first_bytes(files, shard.uri)) for shard in shards[:_CHECKED]]
    if not kinds or not all(kinds):
        return None
    return f"{redact(shards[0].uri)}: not {expected}, but {kinds[0]}{others_suffix(len(kinds), len(shards))}"


def others_suffix(checked: int, total: int) -> str:
    return f"; so are the others of the first {checked}, of {total:,}" if total > 1 else ""


def first_bytes(files: Files, uri: str) -> bytes:
    """Return enough of a file to recognize its kind, nothing if it cannot be read."""
    try:
        with files.beginning(uri, FIRST_BYTES) as stream:
            return stream.read(FIRST_BYTES)
    except (OSError, SegbatchError) as e:
        shard_failure(uri, e)  # raises an outage; anything else is the file's, and becomes its error row
        return b""
