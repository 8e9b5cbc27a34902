"""Lakehouse tables: folders of Parquet files whose log says which files are current. They are refused."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor

from segbatch.errors import SourceError, StorageError
from segbatch.storage.base import Storage
from segbatch.storage.files import Files, outage
from segbatch.text import redact

_LOGS = {"_delta_log": "a Delta table", ".hoodie": "a Hudi table", "_spark_metadata": "a sink of Spark streaming"}
_ICEBERG = "metadata/*.metadata.json"
_MARK = re.compile(
    rf"(?:(?P<folder>.*?)/)?(?:(?P<log>{'|'.join(map(re.escape, _LOGS))})/.*|metadata/[^/]+\.metadata\.json(?:\.gz)?)",
    re.DOTALL,
)
_CONCURRENT = 16


def table_mark(name: str) -> tuple[str, str] | None:
    """Return (folder of a table, its marker) if ``name`` is part of a table's log, else None."""
    if "metadata" not in name and "_delta_log" not in name and ".hoodie" not in name:
        return None
    match = _MARK.fullmatch(name)
    return (match["folder"] or "", match["log"] or _ICEBERG) if match else None


def refuse_tables(files: Files, root: str, names: list[str], marks: Iterable[tuple[str, str]], whole: bool) -> None:
    """Refuse Parquet files of a table.

    Args:
        files: Requests what the listing does not show: markers in folders above ``root``, and in those between that a
            pattern has passed over.
        root: URI that was listed.
        names: Files that would be read, below ``root``.
        marks: Results of ``table_mark`` below ``root``.
        whole: Whether ``marks`` are all there are below ``root``.

    Raises:
        SourceError: A Parquet file among ``names`` lies in a table.
    """
    parquet = [name for name in names if name.lower().endswith((".parquet", ".pq"))]
    if not parquet:
        return
    for folder, marker in sorted(marks):
        if any(name.startswith(f"{folder}/") or not folder for name in parquet):
            raise _refusal(f"{root}/{folder}".rstrip("/"), marker)
    storage, path = files.resolve(root)
    parents = {f"{path}/{name}".rpartition("/")[0] for name in parquet}
    folders = set(_above(path))
    if not whole:
        folders |= {above for parent in parents for above in _above(f"{parent}/") if len(above) >= len(path)}
    candidates = [(folder, marker) for folder in sorted(folders) for marker in (*_LOGS, _ICEBERG)]
    data = {folder for folder in folders if any(f"{parent}/".startswith(f"{folder}/data/") for parent in parents)}
    with ThreadPoolExecutor(_CONCURRENT) as pool:
        held = pool.map(lambda c: (c[1] != _ICEBERG or c[0] in data) and _holds(storage, *c), candidates)
        for (folder, marker), holds in zip(candidates, held, strict=True):
            if holds:
                shown = (
                    f"{root}{folder[len(path) :]}"
                    if len(folder) > len(path)
                    else root.removesuffix(path[len(folder) :])
                )
                raise _refusal(shown, marker)


def _above(path: str) -> Iterator[str]:
    """Yield the folders above ``path``, without partitions such as ``day=1``."""
    while path := path.rpartition("/")[0]:
        if "=" not in path.rpartition("/")[2]:
            yield path


def _holds(storage: Storage, folder: str, marker: str) -> bool:
    try:
        if marker == _ICEBERG:
            return any(table_mark(info.name) for info in storage.list(f"{folder}/metadata", recursive=True))
        return storage.exists(f"{folder}/{marker}")
    except StorageError as e:  # stores refuse in many ways to describe what lies above the folders that they share
        if e.transient:
            raise outage(folder, e) from e
        return False


def _refusal(folder: str, marker: str) -> SourceError:
    kind = _LOGS.get(marker, "an Iceberg table")
    return SourceError(
        f"{redact(folder)}: is {kind} (it holds {marker}), whose Parquet files are not all current; export its current "
        "version to a separate folder and give that folder, or, if rows are only removed by rewriting files, give the "
        "current files as inputs, each by its full name"
    )
