"""Which objects of an output segbatch has written: only these are ever deleted."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping

import pyarrow as pa
import pyarrow.parquet as pq

from segbatch.errors import PlanError
from segbatch.output.catalog import is_catalog
from segbatch.output.file_table import is_file_table
from segbatch.output.layout import (
    CARD,
    CLASSES,
    DATE,
    FILES,
    FOLDERS,
    JOURNAL,
    MASKS,
    PREVIEWS,
    REPORT,
    RETIRED,
    RUN,
    SAMPLE,
    SET_ASIDE,
    SHARDS,
    STAGED,
    SUCCESS,
    is_result,
)
from segbatch.output.previews import is_previews
from segbatch.output.promotion import Promotion
from segbatch.output.report_file import is_report
from segbatch.output.schema import CLASSES_SCHEMA
from segbatch.output.stats import is_card
from segbatch.storage.store import TEMPORARY, Store, is_temporary

_MAX_NAMES = 5


def owned(store: Store) -> dict[str, list[str]]:
    """Return the objects that segbatch wrote into an output, by kind; files of anyone else are never among them.

    Result files and temporary files are known by their names, the others by their content.
    """
    kinds = {
        "result files": _results(store, MASKS),
        "result files of unfinished nights": _results(store, STAGED),
        "retired result files": retired(store),
        "result files set aside": _results(store, SET_ASIDE),
        "previews": _results(store, PREVIEWS),
        "records and statistics": [name for name, is_own in _RECORDS.items() if _is_own(store, name, is_own)],
        "temporary files": [
            f"{TEMPORARY}/{n}" for n in (store.names(TEMPORARY) if store.local else ()) if is_temporary(n)
        ],
    }
    return {kind: names for kind, names in kinds.items() if names}


def retired(store: Store, before: str | None = None) -> list[str]:
    """Return the archived result files: all, or those that nightly runs before a date have archived."""
    names = store.names(RETIRED)
    dated = [f"{RETIRED}/{n}" for n in names if DATE.fullmatch(n) and (before is None or n < before)]
    undated = [f"{RETIRED}/{n}" for n in names if is_result(n)] if before is None else []
    return undated + [name for folder in dated for name in _results(store, folder)]


def delete(store: Store, kinds: Mapping[str, list[str]]) -> None:
    """Delete objects by kind, as ``owned`` returns them, and the local folders that are empty then."""
    store.remove_all(itertools.chain.from_iterable(kinds.values()))
    folders = {name.rpartition("/")[0] for names in kinds.values() for name in names} | {RETIRED}
    for folder in sorted(folders - {"", MASKS}, reverse=True):
        store.remove_empty(folder)


def describe(store: Store) -> list[str]:
    """Return what a job with overwrite would delete, one line per kind with the first names."""
    existing = [name for name in (RUN, SUCCESS) if store.exists(name)]
    lines = [f"{len(existing)} of the run itself: {', '.join(existing)}"] if existing else []
    return lines + [f"{len(names):,} {kind}: {_first(names)}" for kind, names in owned(store).items()]


def refuse_unwritable(store: Store) -> None:
    """Raise ``SpecError`` where permissions or mounts of this machine forbid to write an output."""
    store.refuse_unwritable(*sorted(FOLDERS))


def refuse_foreign(store: Store, overwrite: bool) -> None:
    """Raise ``PlanError`` for a folder without run.json that a job must not write to; see ``Output``."""
    foreign = list(in_the_way(store))
    if foreign:
        raise PlanError(
            f"{store.uri}: is not an output of segbatch (it holds no {RUN}), and files that segbatch did not write "
            f"are in the way: {_first(foreign)}; choose another --output"
        )
    if not overwrite and any(not name.startswith(".") for name in store.names(MASKS)):
        raise PlanError(
            f"{store.uri}: holds result files but no {RUN}, so the job that wrote them is unknown; "
            "choose another --output, or --overwrite to delete these result files"
        )


def _first(names: list[str]) -> str:
    return f"{', '.join(names[:_MAX_NAMES])}{', …' if len(names) > _MAX_NAMES else ''}"


def in_the_way(store: Store) -> Iterator[str]:
    """Yield the foreign objects of a folder without run.json that a run would replace or mix with its own."""
    names = [name for name in store.names(MASKS) if not name.startswith(".")]
    yield from (f"{MASKS}/{name}" for name in names if not is_result(name))
    if not any(is_result(name) for name in names):
        yield from (name for name in (SUCCESS, CLASSES, FILES) if store.exists(name))


def _results(store: Store, folder: str) -> list[str]:
    return [f"{folder}/{name}" for name in sorted(store.names(folder)) if is_result(name)]


def _is_own(store: Store, name: str, is_own: Callable[[bytes], bool]) -> bool:
    try:
        return is_own(store.read(name))
    except FileNotFoundError:
        return False


def _is_classes(data: bytes) -> bool:
    try:
        return bool(pq.read_schema(pa.BufferReader(data)).equals(CLASSES_SCHEMA))
    except (pa.ArrowException, OSError):
        return False


def _is_switch(data: bytes) -> bool:
    try:
        return bool(Promotion.parse(data, JOURNAL).folder)
    except (ValueError, TypeError):
        return False


_RECORDS: dict[str, Callable[[bytes], bool]] = {
    CLASSES: _is_classes,
    FILES: is_file_table,
    SAMPLE: is_previews,
    CARD: is_card,
    REPORT: is_report,
    SHARDS: is_catalog,
    JOURNAL: _is_switch,
}
