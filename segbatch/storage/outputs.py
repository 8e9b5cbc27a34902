"""Outputs of segbatch below an input: recognized by their records, excluded from the listing."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cache

from segbatch.errors import RecordFailure
from segbatch.storage.base import ObjectInfo
from segbatch.storage.files import Files

REASON = "outputs of segbatch"
_MAX_RECORD_BYTES = 64 * 2**20
# Each costs a request. More such files are those of another program.
_MAX_RECORDS = 1000


@dataclass(frozen=True)
class Layout:
    """One kind of output.

    Attributes:
        record: Name of the file by which it is recognized.
        keys: Keys in the record, or in its first line.
        folders: Folders that segbatch writes below the output.
        files: Files that segbatch writes there.
        witnesses: Those of ``files`` that could be taken for records of an input: beside one the record is looked for.
        suffix: Ending of files in ``folders`` that could be taken for records of an input.
    """

    record: str
    keys: frozenset[str]
    folders: frozenset[str]
    files: frozenset[str]
    witnesses: frozenset[str]
    suffix: str | None


LAYOUTS = (
    Layout(
        record="run.json",
        keys=frozenset({"fingerprint", "identity", "chunk_size"}),
        folders=frozenset({"masks", "stats", "previews", "incoming", "retired", "set-aside", ".tmp"}),
        files=frozenset({"run.json", "README.md", "report.html", "shards.parquet", "switch.json", "_SUCCESS"}),
        witnesses=frozenset({"shards.parquet"}),
        suffix=".parquet",
    ),
    Layout(
        record="history.jsonl",
        keys=frozenset({"update", "epoch", "loss", "lr"}),
        folders=frozenset({".tmp"}),
        files=frozenset(
            {"checkpoint.pt", "weights.safetensors", "history.jsonl", "curves.png", "train.json", "classes.txt"}
        ),
        witnesses=frozenset({"history.jsonl", "curves.png"}),
        suffix=None,
    ),
)
FOLDERS = LAYOUTS[0].folders


def without_outputs(
    files: Files, uri_of: Callable[[str], str], root: str, objects: list[ObjectInfo], whole: bool
) -> tuple[list[ObjectInfo], list[str]]:
    """Exclude the files of outputs from a listing.

    Args:
        files: Reads the records.
        uri_of: Returns the URI of a path in the input's storage.
        root: Path of the input in its storage.
        objects: The listing, by names below ``root``.
        whole: Whether ``objects`` is everything below ``root``: then a record that is not in it costs no request.

    Returns:
        The rest of ``objects``, and the folders of these outputs, relative to ``root``.
    """
    names = {entry.name for entry in objects if entry.name.endswith(tuple(x.record for x in LAYOUTS))}
    few, above = len(names) <= _MAX_RECORDS, f"{root}/"

    @cache
    def is_output(folder: str, layout: Layout) -> bool:
        record = f"{folder}/{layout.record}"
        if whole and record.startswith(above) and record[len(above) :] not in names:
            return False
        return _has_keys(files, uri_of(record), layout)

    owned: dict[str, set[Layout]] = {}
    for layout in LAYOUTS:
        for folder in _candidates((f"{above}{entry.name}" for entry in objects), layout, few):
            if is_output(folder, layout):
                owned.setdefault(folder, set()).add(layout)
    if not owned:
        return objects, []
    kept = [entry for entry in objects if not _is_owned(f"{above}{entry.name}", owned)]
    return kept, sorted(f"{folder[len(above) :]}/" if folder.startswith(above) else "./" for folder in owned)


def _candidates(paths: Iterable[str], layout: Layout, by_record: bool) -> Iterator[str]:
    """Yield folders that may be outputs, by files that would otherwise be read as records, or by their records."""
    seen: set[str] = set()
    for path in paths:
        folder, _, name = path.rpartition("/")
        if name in layout.witnesses or (by_record and name == layout.record):
            yield folder
        if layout.suffix is None or not name.endswith(layout.suffix) or folder in seen:
            continue
        seen.add(folder)
        parts = folder.split("/")
        yield from ("/".join(parts[:i]) for i, part in enumerate(parts) if part in layout.folders)


def _is_owned(path: str, owned: dict[str, set[Layout]]) -> bool:
    for folder, layouts in owned.items():
        if path.startswith(f"{folder}/"):
            first, below, _ = path[len(folder) + 1 :].partition("/")
            if any(first in (x.folders if below else x.files) for x in layouts):
                return True
    return False


def _has_keys(files: Files, uri: str, layout: Layout) -> bool:
    try:
        text = files.read(uri, _MAX_RECORD_BYTES)
        plain = json.loads(text.splitlines()[0] if layout.record.endswith("l") else text)
    except (RecordFailure, ValueError, IndexError):
        return False
    return isinstance(plain, dict) and layout.keys <= plain.keys()


__all__ = ["FOLDERS", "LAYOUTS", "REASON", "without_outputs"]
