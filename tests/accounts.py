"""Random inputs for the property tests, each with an account of what lies there, counted without segbatch."""

from __future__ import annotations

import csv
import gzip
import io
import json
import os
import tarfile
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from hypothesis import strategies as st

from tests.corpus import COMPRESS, encode, photograph

IMAGES = [encode(photograph(i, 8)) for i in range(3)]
DATA = st.sampled_from([*IMAGES, b"", b"no image", IMAGES[0][:-40]])
IDS = st.sampled_from([None, "", "a", "b", "a#1", "b/c", " ", "é", "0", "#2"])


@dataclass
class Account:
    """What a tar holds: ``outside`` members are of no sample, ``sharing`` images have no key of their own.

    ``skipped`` are those outside, and the images after the first of one sample.
    """

    rows: int = 0
    members: int = 0
    outside: int = 0
    sharing: int = 0
    skipped: int = 0

    @property
    def may_fail(self) -> bool:
        """Whether the shard is no set of samples, so that it may fail as a whole, or the job be refused."""
        return self.sharing >= 3 or 2 * self.outside > self.members


# ---- folders of images

_LETTERS = st.text("ab.é_- #%?*[]{}'\"\\\n~@:,;=&\udcff", min_size=1, max_size=6)
_SUFFIXES = (".jpg", ".JPG", ".png", ".jpeg", ".MPO", ".heic", "", ".", ".txt", ".arw", ".jpg_large", ".jpg~", ".csv")
_FOLDERS = ("d", "_d", ".d", "e.jpg", "__MACOSX", "_temporary", "é d")
_NAMES = st.one_of(
    st.tuples(_LETTERS, st.sampled_from(_SUFFIXES)).map("".join),
    st.sampled_from(["_SUCCESS", "Thumbs.db", ".DS_Store", "._a.jpg", "_DSC0001.JPG", "a?sig=b.jpg", "a@b.jpg"]),
).filter(lambda name: name not in (".", ".."))


@st.composite
def trees(draw: st.DrawFn) -> list[str]:
    """Paths of files below a folder, one of them surely an image."""
    paths = {"z/z.jpg"}
    for _ in range(draw(st.integers(0, 12))):
        folders = draw(st.lists(st.sampled_from(_FOLDERS), max_size=2))
        paths.add("/".join([*folders, draw(_NAMES)]))
    folders_of = {parent for path in paths for parent in map(str, Path(path).parents)}
    return sorted(path for path in paths if path not in folders_of)


def write_tree(folder: Path, paths: list[str]) -> None:
    for i, path in enumerate(paths):
        target = folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(IMAGES[i % len(IMAGES)])


def files_below(folder: Path) -> Counter[str]:
    """Paths of all files, as valid Unicode."""
    found = (os.path.relpath(os.path.join(top, name), folder) for top, _, names in os.walk(folder) for name in names)
    return Counter(path.encode("utf-8", "backslashreplace").decode() for path in found)


# ---- tars

_KEYS = ("a", "b", "d/a", "x y", "é", *(f"k{i}" for i in range(9)))
_OUTSIDE = ("bare", "d/bare", ".h.jpg", "._a.jpg", "d/.k")


@dataclass
class Tar:
    """``members`` in order: (name, tar's letter of the type, data). ``cut`` bytes are missing at the end."""

    members: list[tuple[str, bytes, bytes]]
    key: str
    suffix: str
    cut: int = 0
    account: Account = field(default_factory=Account)

    def write(self, path: Path) -> None:
        out = io.BytesIO()
        with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as archive:
            for name, kind, data in self.members:
                info = tarfile.TarInfo(name)
                info.type, info.size, info.linkname = kind, len(data), "a.jpg" if kind in b"12" else ""
                archive.addfile(info, io.BytesIO(data))
        packed = COMPRESS.get(path.suffix, bytes)(out.getvalue())
        path.write_bytes(packed[: len(packed) - self.cut])


@st.composite
def tars(draw: st.DrawFn, key: str, max_cut: int = 0) -> Tar:
    """Samples of several members, members of none, folders, links, pipes; with last-dot also keys with dots."""
    keys = st.sampled_from([*_KEYS, *(("2024.01", "2024.02", "d/v1.a") if key == "last-dot" else ())])
    sample = st.tuples(keys, st.lists(st.sampled_from(["json", "jpg", "txt"]), min_size=1, max_size=3, unique=True))
    other = st.sampled_from([(name, b"0") for name in _OUTSIDE] + [("p.jpg", b"6"), ("d/", b"5")])
    link = st.tuples(keys.map("{}.jpg".format), st.sampled_from([b"1", b"2"]))
    members: list[tuple[str, bytes, bytes]] = []
    for item in draw(st.lists(st.one_of(sample, sample, sample, other, link), max_size=14)):
        if isinstance(item[1], list):
            members += [(f"{item[0]}.{e}", b"0", draw(DATA) if e == "jpg" else b"{}") for e in item[1]]
        else:
            members.append((*item, b""))
    suffix = draw(st.sampled_from([".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.zst"]))
    return Tar(members, key, suffix, draw(st.integers(min(1, max_cut), max_cut)), _account_of(members))


def _account_of(members: list[tuple[str, bytes, bytes]]) -> Account:
    """Rows: each run of members with one key that has an image, and each key that has none anywhere."""
    account = Account()
    runs: list[tuple[str, int]] = []
    for name, kind, _ in members:
        folder, _, last = name.rpartition("/")
        if kind == b"5":
            continue
        account.members += 1
        if kind == b"6" or last.startswith(".") or "." not in last:
            account.outside += 1
            continue
        stem, _, extension = last.rpartition(".")
        key = f"{folder}/{stem}" if folder else stem
        images = int(extension == "jpg")
        if runs and runs[-1][0] == key:
            runs[-1] = key, runs[-1][1] + images
        else:
            runs.append((key, images))
    with_image = [key for key, images in runs if images]
    account.rows = len(with_image) + len({key for key, _ in runs} - set(with_image))
    account.skipped = account.outside + sum(images - 1 for _, images in runs if images)
    account.sharing = sum(images for _, images in runs if images > 1) + len(with_image) - len(set(with_image))
    return account


# ---- tables and manifests


@dataclass
class Table:
    """``write`` makes the file of ``suffix``; ``rows`` are counted by how it is made."""

    suffix: str
    data: bytes
    rows: int

    def write(self, path: Path) -> None:
        path.write_bytes(self.data)


@st.composite
def tables(draw: st.DrawFn) -> Table:
    """Parquet with image bytes or nulls, ids that repeat, are missing or null, in row groups of any size."""
    rows = draw(st.lists(st.tuples(st.one_of(st.none(), DATA), IDS), max_size=11))
    images: list[Any] = [image for image, _ in rows]
    if draw(st.booleans()):
        images = [None if image is None else {"bytes": image or None, "path": name} for image, name in rows]
        kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    else:
        kind = draw(st.sampled_from([pa.binary(), pa.large_binary()]))
    columns = {"image": pa.array(images, kind)}
    ids = draw(st.sampled_from(["text", "number", "none"]))
    if ids != "none":
        columns["id"] = pa.array([name if ids == "text" else len(name or "") for _, name in rows])
    return Table(".parquet", _parquet(pa.table(columns), draw(st.integers(1, 12))), len(rows))


def _parquet(table: pa.Table, group: int) -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, row_group_size=group)
    return sink.getvalue().to_pybytes()


@st.composite
def manifests(draw: st.DrawFn) -> Table:
    """Rows that name images, nothing, or what is not there; lines that are blank or no rows."""
    uris = st.sampled_from(["images/0.jpg", "images/1.jpg", "./images/2.jpg", "images/none.jpg", "", None, 'q,"\n.jpg'])
    rows = draw(st.lists(st.tuples(uris, IDS), max_size=11))
    kind = draw(st.sampled_from([".csv", ".tsv", ".jsonl", ".ndjson.gz", ".csv.gz", ".parquet"]))
    names = draw(st.booleans())
    if kind == ".parquet":
        columns = {"uri": pa.array([uri for uri, _ in rows], pa.string())}
        columns |= {"id": pa.array([name for _, name in rows], pa.string())} if names else {}
        return Table(kind, _parquet(pa.table(columns), draw(st.integers(1, 12))), len(rows))
    if "json" in kind:
        lines = [json.dumps({"uri": uri, **({"id": name} if names else {})}) for uri, name in rows]
        lines += draw(st.lists(st.sampled_from(["", "   ", "{", "[1]", '"a"']), max_size=4))
        lines = draw(st.permutations(lines))
        text = "".join(f"{line}\n" for line in lines)
        total = sum(bool(line.strip()) for line in lines)
    else:
        out = io.StringIO()
        writer = csv.writer(out, delimiter="\t" if kind.startswith(".tsv") else ",")
        writer.writerow(["uri", "id"] if names else ["uri"])
        writer.writerows(row if names else row[:1] for row in rows)
        text, total = out.getvalue(), len(rows)
    data = text.encode()
    return Table(kind, gzip.compress(data) if kind.endswith(".gz") else data, total)
