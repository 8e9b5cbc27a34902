"""The images of an output, read again from the inputs of its run."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from segbatch.errors import SegbatchError
from segbatch.leaves import bits_of
from segbatch.output.ledger import Ledger
from segbatch.output.output import Output
from segbatch.planning.recorded import SHARD_NAMES_SINCE, list_recorded
from segbatch.records import ChunkSelection, Record, Shard
from segbatch.results.row import MaskRow
from segbatch.sources import Source, divided
from segbatch.sources.images import Images, bits_of_image, image_names, images_by_id, leaf_of
from segbatch.sources.unique_ids import id_hash, id_hashes
from segbatch.storage.base import ObjectInfo
from segbatch.text import is_web

_CHANGED = "has changed since its masks were computed; run the same `segbatch run` command again"


@dataclass(frozen=True)
class Original:
    """The image of one row.

    Attributes:
        data: The encoded image, as the input holds it; None if it is not available.
        problem: Why it is not available, one line.
    """

    row: MaskRow
    data: bytes | None
    problem: str = ""


class Originals:
    """Reads the images that the rows of an output were computed from.

    The inputs are listed once, when the first image is read; a copy that is pickled later does not list them again. An
    image is returned only if its shard is the version that was segmented and the record has the id of the row: an input
    that is gone or has changed is a problem, never another image.

    Args:
        output: The output.
        inputs: Where the inputs are now; None for those of the run.
        storage_options: Options for fsspec.
    """

    def __init__(
        self,
        output: Output,
        *,
        inputs: Sequence[str] | None = None,
        storage_options: Mapping[str, Any] | None = None,
    ) -> None:
        self._output, self._inputs, self._storage_options = output, inputs, storage_options
        self._leaves: dict[str, Shard] = {}

    @property
    def problem(self) -> str:
        """Why no image at all is available, one line; empty if the inputs can be listed."""
        return "" if isinstance(self._planned, _Planned) else self._planned

    def read(self, rows: Iterable[MaskRow]) -> Iterator[Original]:
        """Yield the image of each row once, grouped by shard and ascending in it: a tar is read in one pass.

        Holds the rows and a few images. Images of other rows are not read.
        """
        planned = self._planned
        if not isinstance(planned, _Planned):
            yield from (Original(row, None, planned) for row in rows)
            return
        groups: dict[str, tuple[Shard, dict[int, MaskRow]]] = {}
        for row in rows:
            shard = planned.shard_of(row)
            if shard is not None and shard.format == Images.name and not planned.is_same(shard, row):
                shard = self._leaf_as_segmented(planned, row) or shard
            if shard is None:
                yield Original(row, None, f"{row.source}: is not in the inputs any more{_elsewhere(self._inputs)}")
            elif not planned.is_same(shard, row):
                yield Original(row, None, f"{_subject(shard, row)} {_CHANGED}")
            else:
                groups.setdefault(shard.id, (shard, {}))[1][row.index] = row
        for shard, wanted in groups.values():
            yield from _read_shard(planned.source, shard, wanted)

    def _leaf_as_segmented(self, planned: _Planned, row: MaskRow) -> Shard | None:
        """Return the group of loose images of a row as it was segmented, whatever images were added since.

        None if one of its images is gone or has changed: the output has one version of the whole group.
        """
        bits = bits_of_image(planned.images_by_id[row.image_id])
        shard_id = next((planned.segmented[b] for b in bits if b in planned.segmented), None)
        if shard_id is not None and shard_id not in self._leaves:
            chunks = list(planned.ledger.committed(shard_id).filenames(shard_id))
            tables = [file.read(self._output.store, ["image_id"]) for file in planned.ledger.files(chunks)]
            ids = [image_id for table in tables for image_id in table["image_id"].to_pylist()]
            present = [planned.images_by_id[image_id] for image_id in ids if image_id in planned.images_by_id]
            assert planned.loose is not None
            self._leaves[shard_id] = leaf_of(planned.loose, bits_of(shard_id.rpartition(".")[0]) or "", present)
        leaf = self._leaves.get(shard_id or "")
        return leaf if leaf is not None and leaf.id == shard_id else None

    @cached_property
    def _planned(self) -> _Planned | str:
        """The inputs, or why they cannot be listed."""
        record = self._output.record
        if record.rows_version < SHARD_NAMES_SINCE:
            return (
                f"{self._output.uri}: has rows version {record.rows_version}, which does not tell which version of an "
                "input was segmented"
            )
        try:
            source, corpus = list_recorded(record, self._inputs, self._storage_options)
            return _Planned.of(source, corpus.shards, self._output.ledger(), record.chunk_size)
        except SegbatchError as e:
            return f"{e}{_elsewhere(self._inputs, record.inputs)}"


@dataclass(frozen=True)
class _Planned:
    """The inputs as they are now, and what is committed of them.

    Attributes:
        files: Shards that are files, by name.
        leaves: Shards of loose images.
        hashes: Hashes of the ids of all loose images, uint64 (N,), sorted.
        positions: Index in ``leaves`` of each, uint32 (N,).
        loose: All loose images as one shard, if there are any.
    """

    source: Source
    ledger: Ledger
    chunk_size: int
    files: Mapping[str, Shard]
    leaves: Sequence[Shard]
    hashes: np.ndarray
    positions: np.ndarray
    loose: Shard | None

    @staticmethod
    def of(source: Source, planned: Sequence[Shard], ledger: Ledger, chunk_size: int) -> _Planned:
        loose = next((shard for shard in planned if shard.format == Images.name), None)
        shards = divided(planned, chunk_size)
        leaves = [shard for shard in shards if shard.format == Images.name]
        hashes = [id_hashes(name for name, _ in image_names(leaf)) for leaf in leaves]
        positions = np.repeat(np.arange(len(leaves), dtype=np.uint32), [len(part) for part in hashes])
        joined = np.concatenate([np.zeros(0, np.uint64), *hashes])
        order = np.argsort(joined)
        files = {shard.name: shard for shard in shards if shard.format != Images.name}
        return _Planned(source, ledger, chunk_size, files, leaves, joined[order], positions[order], loose)

    @cached_property
    def images_by_id(self) -> dict[str, ObjectInfo]:
        """All loose images."""
        return {} if self.loose is None else images_by_id(self.loose)

    @cached_property
    def segmented(self) -> dict[str, str]:
        """The groups of loose images in the output: the id of each by its bits."""
        bits = ((bits_of(shard_id.rpartition(".")[0]), shard_id) for shard_id in self.ledger.shards)
        return {b: shard_id for b, shard_id in bits if b is not None}

    def shard_of(self, row: MaskRow) -> Shard | None:
        """Return the shard that has the name of a row's shard now, in whatever version."""
        name = row.image_id
        while "/" in name:
            name = name.rpartition("/")[0]
            if name in self.files:
                return self.files[name]
        place = int(np.searchsorted(self.hashes, np.uint64(id_hash(row.image_id))))
        if place < len(self.hashes) and self.hashes[place] == id_hash(row.image_id):
            return self.leaves[self.positions[place]]
        return None

    def is_same(self, shard: Shard, row: MaskRow) -> bool:
        """Whether the output has the chunk of a row in this version of its shard."""
        return row.index // self.chunk_size in self.ledger.committed(shard.id).indices


def _read_shard(source: Source, shard: Shard, wanted: Mapping[int, MaskRow]) -> Iterator[Original]:
    """Yield the images of rows by their positions in one shard."""
    reason, remaining = _CHANGED, dict(wanted)
    try:
        # Chunks of one record: nothing but the wanted records is read, whatever the chunk size of the run.
        for chunk in source.chunks(shard, 1, _selection(wanted)):
            for record in chunk.records:
                if record.index in remaining:
                    yield _original(shard, remaining.pop(record.index), record)
    except SegbatchError as e:
        reason = f"cannot be read: {e}"
    yield from (Original(row, None, f"{_subject(shard, row)} {reason}") for row in remaining.values())


def _original(shard: Shard, row: MaskRow, record: Record) -> Original:
    if record.image_id != row.image_id:
        return Original(row, None, f"{_subject(shard, row)} {_CHANGED}")
    if record.data is None:
        reason = record.error.message if record.error is not None else "it has no image"
        return Original(row, None, f"{row.source}: cannot be read: {reason}")
    return Original(row, record.data)


def _selection(positions: Collection[int]) -> ChunkSelection:
    first, stop = min(positions), max(positions) + 1
    return ChunkSelection(first, stop, frozenset(range(first, stop)).difference(positions))


def _subject(shard: Shard, row: MaskRow) -> str:
    """Name what was segmented, for messages: loose images are compared in groups, not one by one."""
    return f"{row.source}: its group of images" if shard.format == Images.name else f"{row.source}:"


def _elsewhere(inputs: Sequence[str] | None, recorded: Sequence[str] = ()) -> str:
    """Return the remedy for inputs that are not where run.json has them."""
    if inputs is not None:
        return ""
    if any(is_web(uri) for uri in recorded):
        return "; outputs keep no signatures of URLs: if they are signed, name the inputs again, with new ones"
    return "; if the inputs were moved, name where they are now"
