"""Damaged shards of every format, with the error row that each must end in."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import NamedTuple

import pyarrow.parquet as pq

from tests.corpus import Sample, photographs, tar_bytes, write_manifest, write_parquet

GOOD = photographs(6, side=48)


class BadShard(NamedTuple):
    """A file; its records in order, each the bytes that must come out, or the type of a read error."""

    path: Path
    records: list[bytes | str]


def bad_shards(folder: Path) -> dict[str, BadShard]:
    """One damaged shard of every kind, written below ``folder``."""
    found: dict[str, BadShard] = {}

    def put(name: str, data: bytes, records: list[bytes | str]) -> None:
        (folder / name).write_bytes(data)
        found[name] = BadShard(folder / name, records)

    folder.mkdir(parents=True, exist_ok=True)
    names, good = [n for n, _ in GOOD], [d for _, d in GOOD]
    for name, (data, records) in {**_tars(names, good), **_damaged_tars(good)}.items():
        put(name, data, records)
    put("empty.parquet", b"", ["CorruptShard"])
    put("text.parquet", b"not Parquet at all" * 10, ["CorruptShard"])
    whole = write_parquet(folder / "whole.parquet", GOOD, rows_per_group=2, compression="none", use_dictionary=False)
    data = whole.read_bytes()
    put("cut.parquet", data[: len(data) // 2], ["CorruptShard"])
    put("group-overwritten.parquet", _without_group(whole, 1), [*good[:2], *["CorruptRowGroup"] * 2, *good[4:]])
    rows = [(names[0], good[0]), (names[1], None), (names[2], good[2])]
    for name, hugging_face, problem in (
        ("null.parquet", False, "MissingBytes"),
        ("null-struct.parquet", True, "MissingObject"),
    ):
        path = write_parquet(folder / name, rows, hugging_face=hugging_face)
        found[name] = BadShard(path, [good[0], problem, good[2]])
    (folder / "one.jpg").write_bytes(good[0])
    uris = ["one.jpg", "", "none.jpg", ".", "nosuch://bucket/x.jpg"]
    kinds = [good[0], "MissingUri", "MissingObject", "UnreadableObject", "UnreadableObject"]
    for name in ("uris.csv", "uris.jsonl", "uris.parquet"):
        table = [{"uri": uri, "note": "n"} for uri in uris]
        found[name] = BadShard(write_manifest(folder / name, table), list(kinds))
    whole.unlink()
    return found


def _tars(names: list[str], good: list[bytes]) -> dict[str, tuple[bytes, list[bytes | str]]]:
    """Whole archives whose samples are wrong."""
    keys = [n.removesuffix(".jpg") for n in names]
    samples: dict[str, tuple[list[Sample], list[bytes | str]]] = {
        "json-only.tar": ([("a.jpg", good[0]), ("b.json", b"{}"), ("c.jpg", good[2])], [good[0], good[2], "NoImage"]),
        "notes-apart.tar": (
            [("a.jpg", good[0]), ("b.json", b"{}"), ("a.json", b"{}"), ("b.txt", b""), ("b.jpg", good[1])],
            [good[0], good[1]],
        ),
        "duplicate.tar": (
            [("a.jpg", good[0]), ("b.jpg", good[1]), ("a.jpg", good[2])],
            [good[0], good[1], "SplitSample"],
        ),
        "twice-in-a-row.tar": ([("a.jpg", good[0]), ("a.jpg", good[1])], ["AmbiguousImage"]),
        "two-inputs.tar": ([("a.left.jpg", good[0]), ("a.right.jpg", good[1])], ["AmbiguousImage"]),
        "climbing.tar": (
            [("../../etc/a.jpg", good[0]), ("/b.jpg", good[1]), ("c/../d.jpg", good[2])],
            [good[0], good[1], good[2]],
        ),
        "no-samples.tar": ([("README", b"hello"), (".hidden.jpg", b"x"), ("folder/", b"")], ["NoSamples"]),
        "prefers-the-photograph.tar": ([(f"{keys[0]}.png", b"labels"), (names[0], good[0])], [good[0]]),
    }
    return {name: (tar_bytes(members), records) for name, (members, records) in samples.items()}


def _damaged_tars(good: list[bytes]) -> dict[str, tuple[bytes, list[bytes | str]]]:
    """Archives of six images of which the first two, at the least, are whole."""
    tar = tar_bytes(GOOD)
    fourth = tar.index(b"0003-rocket.jpg")
    zipped = gzip.compress(tar, 1, mtime=0)
    # Six whole images, and nothing compressed: what is damaged is known to the byte.
    stored = gzip.compress(tar, 0, mtime=0)
    return {
        "cut-in-data.tar": (tar[: fourth + 512 + 100], [*good[:3], "TruncatedShard"]),
        "cut-in-header.tar": (tar[: fourth + 100], [*good[:3], "TruncatedShard"]),
        "cut-between.tar": (tar[:fourth], [*good[:3], "TruncatedShard"]),
        "header-overwritten.tar": (tar[:fourth] + b"\x55" * 512 + tar[fourth + 512 :], [*good[:3], "CorruptShard"]),
        "hole-of-zeros.tar": (tar[:fourth] + bytes(512) + tar[fourth + 512 :], [*good[:3], "CorruptShard"]),
        "size-too-large.tar": (_sized(tar, fourth, b"77777777777\0"), [*good[:3], "TruncatedShard"]),
        "size-no-number.tar": (_sized(tar, fourth, b"no number 12"), [*good[:3], "CorruptShard"]),
        "empty.tar": (b"", ["TruncatedShard"]),
        "page.tar": (b"<html>404 Not Found</html>".ljust(600), ["CorruptShard"]),
        "cut.tar.gz": (stored[: fourth + 512 + 300], [*good[:3], "TruncatedShard"]),
        "cut-compressed.tgz": (zipped[:40], ["TruncatedShard"]),
        "checksum.tar.gz": (zipped[:-8] + bytes(4) + zipped[-4:], [*good, "CorruptShard"]),
        "empty.tar.gz": (b"", ["TruncatedShard"]),
        "two-in-one.tar": (tar_bytes(GOOD[:2]) + tar_bytes(GOOD[2:]), list(good)),
    }


def _sized(tar: bytes, at: int, size: bytes) -> bytes:
    header = bytearray(tar[at : at + 512])
    header[124:136] = size
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    return tar[:at] + bytes(header) + tar[at + 512 :]


def _without_group(path: Path, group: int) -> bytes:
    metadata = pq.read_metadata(path).row_group(group)
    columns = [metadata.column(i) for i in range(metadata.num_columns)]
    image = next(c for c in columns if c.path_in_schema == "image")
    data = bytearray(path.read_bytes())
    data[image.data_page_offset : image.data_page_offset + 200] = b"\xff" * 200
    return bytes(data)
