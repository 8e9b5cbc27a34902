"""Members of tars: each is part of a record, an error row, or skipped by name; whatever packed and compressed them."""

from __future__ import annotations

import io
import shutil
import subprocess
import tarfile
from collections.abc import Sequence
from pathlib import Path

import fsspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from segbatch.errors import SourceError
from segbatch.records import Chunk, ChunkSelection, Record
from segbatch.skipped import Skipped
from tests.corpus import tar_bytes, write_tar
from tests.inputs import open_source
from tests.sources.contract import only, read

MACOS = "members that macOS adds (._*, .DS_Store)"
HIDDEN = "members whose names begin with a dot"
BARE = "members without a suffix"
SPECIAL = "members that are devices, pipes or of a vendor's own type"
SHARING = "images that share their key with another one"
LONELY = "images beside the image of their sample, in a field that no other sample has"


def chunks(path: Path, size: int = 100, **options: object) -> list[Chunk]:
    source = open_source([str(path)], **options)  # type: ignore[arg-type]
    return list(source.chunks(only(source), size))


def outcome(path: Path, **options: object) -> tuple[list[str], Skipped]:
    """Of each record its key, with its error if it has one; and what was skipped."""
    found = chunks(path, **options)
    records = [r for c in found for r in c.records]
    return [_shown(r, path) for r in records], Skipped.merged(*(c.skipped for c in found))


def _shown(record: Record, path: Path) -> str:
    key = record.image_id.removeprefix(f"{path.name}/")
    return key if record.error is None else f"{key} {record.error.type}"


def packed(path: Path, names: Sequence[str]) -> Path:
    """A tar in which the content of each member is its name."""
    return write_tar(path, [(name, name.encode()) for name in names])


def counts(skipped: Skipped) -> dict[str, list[str]]:
    assert all(kind.count == len(kind.names) for kind in skipped.kinds.values())
    return {reason: kind.names for reason, kind in skipped.kinds.items()}


def test_members_outside_of_samples_are_counted_and_named(tmp_path: Path):
    names = ["a.jpg", "a.json", "IMG_2", "d/IMG_3", ".hidden.jpg", "d/.b.jpg", "._a.jpg", "d/.DS_Store", "c.jpg", "e.",
             "__MACOSX/._c.jpg", "f.jpg", "g.jpg", "h.JPG", "i.jpg", "./j.jpg"]  # fmt: skip
    records, skipped = outcome(packed(tmp_path / "a.tar", names))
    assert records == ["a", "c", "f", "g", "h", "i", "j"]
    assert counts(skipped) == {
        BARE: ["a.tar/IMG_2", "a.tar/d/IMG_3", "a.tar/e."],
        HIDDEN: ["a.tar/.hidden.jpg", "a.tar/d/.b.jpg"],
        MACOS: ["a.tar/._a.jpg", "a.tar/__MACOSX/._c.jpg", "a.tar/d/.DS_Store"],
    }


def test_devices_and_pipes_are_named_folders_and_headers_are_no_members(tmp_path: Path):
    special = {"null.jpg": tarfile.CHRTYPE, "disk": tarfile.BLKTYPE, "pipe.jpg": tarfile.FIFOTYPE, "piece.jpg": b"M",
               "vendor.jpg": b"Q"}  # fmt: skip
    no_members = {"d.jpg": tarfile.DIRTYPE, "label.jpg": b"V"}
    regular = {"a.jpg": tarfile.REGTYPE, "b.jpg": b"7", "c.jpg": b"\0", "d/e.jpg": b"0", "f.jpg": b"0"}
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, kind in (special | no_members | regular).items():
            info = tarfile.TarInfo(name)
            info.type = kind
            tar.addfile(info)
    (tmp_path / "a.tar").write_bytes(out.getvalue())
    records, skipped = outcome(tmp_path / "a.tar")
    assert records == ["a", "b", "c", "d/e", "f"]
    assert counts(skipped) == {
        SPECIAL: ["a.tar/disk", "a.tar/null.jpg", "a.tar/piece.jpg", "a.tar/pipe.jpg", "a.tar/vendor.jpg"]
    }


@pytest.mark.parametrize(
    "names",
    [
        ["a.json", "b.json", "c.json", "a.jpg", "b.jpg", "c.jpg"],
        ["a.jpg", "b.jpg", "c.jpg", "a.json", "b.json", "c.json"],
        ["a.json", "b.json", "c.json", "a.txt", "b.txt", "c.txt", "c.jpg", "a.jpg", "b.jpg", "b.cls"],
        ["a.jpg", "b.json", "c.json", "b.jpg", "a.json", "c.jpg"],
        ["a.txt", "._a.jpg", "a.jpg", "b.json", "a.cls", "c.jpg", "b.jpg", "b.cls"],
    ],
)
def test_notes_may_lie_anywhere_in_the_archive(tmp_path: Path, names: list[str]):
    path = packed(tmp_path / "a.tar", names)
    records = [r for c in chunks(path, 2) for r in c.records]
    assert {r.image_id: r.data for r in records} == {f"a.tar/{k}": f"{k}.jpg".encode() for k in "abc"}


def test_a_sample_without_an_image_is_an_error_row_at_the_end(tmp_path: Path):
    names = ["a.json", "a.txt", "b.json", "c.jpg", "a.cls", "b.jpg", "d.pdf", "e.jpg.1"]
    path = packed(tmp_path / "a.tar", names)
    assert outcome(path)[0] == ["c", "b", "a NoImage", "d NoImage", "e NoImage"]
    records = [r for c in chunks(path) for r in c.records if r.error]
    assert "no image among the members (json, txt) of sample 'a'" in records[0].error.message  # type: ignore[union-attr]
    cut = tar_bytes([(n, b"x") for n in names])[: 5 * 1024]
    (tmp_path / "a.tar").write_bytes(cut)
    assert outcome(path)[0] == ["c", "a NoImage", "b NoImage", "#3 TruncatedShard"]


def test_images_of_one_key_apart_are_no_second_record(tmp_path: Path):
    path = packed(tmp_path / "a.tar", ["a.jpg", "b.jpg", "a.jpg", "a.json", "c.png", "c.jpg", "a.png"])
    assert outcome(path)[0] == ["a", "b", "a#2 SplitSample", "c", "a#4 SplitSample"]


@pytest.mark.parametrize(
    ("names", "records", "lonely"),
    [
        (["a.jpg", "a.seg.png", "b.jpg", "b.seg.png"], ["a", "b"], []),
        (["a.seg.png", "a.jpg", "b.seg.png", "b.jpg", "b.json"], ["a", "b"], []),
        (["a.png", "a.jpg", "b.png", "b.jpg"], ["a", "b"], []),
        (["a.input.jpg", "a.json", "b.input.jpg"], ["a", "b"], []),
        (["a.jpg", "a.1.jpg", "a.2.jpg", "b.jpg"], ["a", "b"], ["a.tar/a.1.jpg", "a.tar/a.2.jpg"]),
        (["a.jpg", "a.EDIT.JPG", "b.JPG"], ["a", "b"], ["a.tar/a.EDIT.JPG"]),
        (["a.heic", "b.mpo", "c.jpe", "d.jfif", "d.heic", "e.avif"], ["a", "b", "c", "d", "e"], ["a.tar/d.heic"]),
    ],
)
def test_fields_of_samples_are_told_from_images_of_their_own(
    tmp_path: Path, names: list[str], records: list[str], lonely: list[str]
):
    found, skipped = outcome(packed(tmp_path / "a.tar", names))
    assert found == records
    assert counts(skipped) == ({LONELY: lonely} if lonely else {})


SERIES = tuple(f".{i}" for i in range(12))


def test_images_of_one_key_are_an_error_row_and_skipped_by_name(tmp_path: Path):
    odd = ["o.Left.JPG", "o.right.jpg", "o.txt", "o.up.jpg"]
    good = [f"{i}.jpg" for i in range(20)]
    records, skipped = outcome(packed(tmp_path / "a.tar", [*good, *odd, "7.jpg", "7.jpg"]))
    assert records == [*(str(i) for i in range(20)), "o AmbiguousImage", "7#21 SplitSample"]
    assert counts(skipped) == {SHARING: ["a.tar/7.jpg", "a.tar/o.right.jpg", "a.tar/o.up.jpg"]}
    _, skipped = outcome(packed(tmp_path / "a.tar", [f"o.{i}.jpg" for i in range(500)]))
    assert skipped.kinds[SHARING].count == 499


COLLAPSED = {
    "some": ([f"DSC_{i}.jpg" for i in range(15)] + [f"2019.07.{i}.jpg" for i in range(60)], 60),
    "few": ([f"v1.5_{i}.jpg" for i in range(3)], 3),
    "some keys": ([f"{2000 + i // 3}.05.{i}.jpg" for i in range(12)] + [f"D{i}.jpg" for i in range(300)], 12),
    "many keys": ([f"{2000 + i // 3}.05.{i}.jpg" for i in range(30)], 30),
    "among good ones": ([f"DSC_{i}.jpg" for i in range(500)] + [f"a.b.{i}.jpg" for i in range(9)], 9),
    "interleaved": ([n for i in range(40) for n in (f"D{i}.jpg", f"2019.{i}.jpg")], 40),
    "beside an image": (["scan.jpg"] + [f"scan.{i}.jpg" for i in range(30)], 31),
    "before an image": ([f"scan.{i}.jpg" for i in range(30)] + ["scan.jpg", "a.jpg"], 31),
    "series": ([f"{s}{n}.jpg" for s in "ab" for n in ("", *SERIES)] + ["c.jpg", "d.jpg", "e.jpg"], 13),
    "png": ([f"x.{i}.png" for i in range(20)], 20),
}  # fmt: skip


@pytest.mark.parametrize("kind", COLLAPSED)
@pytest.mark.parametrize("size", [3, 1000])
def test_an_archive_whose_samples_collapse_into_one_key_fails(tmp_path: Path, kind: str, size: int):
    names, number = COLLAPSED[kind]
    path = packed(tmp_path / "a.tar", names)
    *_, last = [r for c in chunks(path, size) for r in c.records]
    assert last.error is not None
    assert last.error.type == "CollapsedKeys"
    assert f" {number} " in last.error.message
    assert last.error.message.startswith("a.tar: ")
    assert "run with --key last-dot" in last.error.message
    records = [r for c in chunks(path, size, key="last-dot") for r in c.records]
    assert sorted(r.data for r in records if r.data) == sorted(n.encode() for n in names)


def test_an_archive_most_of_whose_members_are_no_samples_fails(tmp_path: Path):
    path = packed(tmp_path / "a.tar", ["about.jpg", *(f"{i:040x}" for i in range(40))])
    records, skipped = outcome(path)
    assert records == ["about", "#1 NoSamples"]
    assert skipped.kinds[BARE].count == 40
    error = [r for c in chunks(path) for r in c.records][-1].error
    assert error is not None
    assert "a.tar: 40 of the 41 members are not part of a sample" in error.message


@pytest.mark.parametrize(
    "names",
    [
        ["a.jpg", "LICENSE"],
        [n for i in range(30) for n in (f"._{i}.jpg", f"{i}.jpg")] + ["._d", ".DS_Store", "d/._e", "d/.DS_Store"],
        [f"{i:03}.jpg" for i in range(1000)] + ["x.a.jpg", "x.b.jpg", "x.c.jpg"],
        ["a.left.jpg", "a.right.jpg"],
        ["a.jpg", "a.jpg", "b.jpg"],
        [f"{i}.{view:02}.png" for i in range(4) for view in range(2)] + [f"k{i}.jpg" for i in range(99)],
        [f"{i}.{view:02}.png" for i in range(5) for view in range(2)] + [f"k{i}.jpg" for i in range(1000)],
        [n for i in range(9) for n in (f"{i}.jpg", *(f"{i}.view{v:02}.png" for v in range(24)))],
        ["._only.jpg"],
        [],
    ],
)
def test_an_archive_with_some_odd_samples_does_not_fail(tmp_path: Path, names: list[str]):
    records, _ = outcome(packed(tmp_path / "a.tar", names))
    assert not [r for r in records if r.endswith(("CollapsedKeys", "NoSamples"))]


def test_what_the_first_members_show_is_found_before_work(tmp_path: Path):
    for name in ("a.tar", "b.tar.gz", "c.tar.xz"):
        path = packed(tmp_path / name, [f"DSC_{i}.jpg" for i in range(15)] + [f"2019.07.{i}.jpg" for i in range(60)])
        source = open_source([str(path)])
        with pytest.raises(SourceError, match=rf"{name}: .* 60 of the 75 images .*--key last-dot"):
            source.check(list(source.shards()))
        source = open_source([str(path)], key="last-dot")
        source.check(list(source.shards()))
    mixed = packed(tmp_path / "d.tar", [f"{i:040x}" for i in range(1999)] + [f"{i}.jpg" for i in range(3000)])
    source = open_source([str(mixed)])
    source.check(list(source.shards()))  # most of its first members are no samples, most of its members are
    (tmp_path / "e.tar").write_bytes(b"not a tar")
    source = open_source([str(tmp_path / "e.tar")])
    source.check(list(source.shards()))  # an error row, when it is read


def test_of_a_remote_archive_little_is_read_before_work():
    store = fsspec.filesystem("memory")
    large = bytes(2**20)
    for name, members in {
        "/look/dots.tar": [(f"2019.07.{i}.jpg", b"x") for i in range(3000)],
        "/large/dots.tar": [(f"2019.07.{i}.jpg", large) for i in range(12)],
        "/empty/none.tar": None,
    }.items():
        store.pipe_file(name, b"" if members is None else tar_bytes(members))
    source = open_source(["memory://look"])
    with pytest.raises(SourceError, match=r"dots\.tar: in its first 512 members 512 of the 512 images"):
        source.check(list(source.shards()))
    source = open_source(["memory://large"])  # the first member is larger than what is read: by headers alone
    with pytest.raises(SourceError, match=r"dots\.tar: in its first 12 members 12 of the 12 images"):
        source.check(list(source.shards()))
    source = open_source(["memory://empty"])
    source.check(list(source.shards()))
    *_, last = read(open_source(["memory://large"]))
    assert last.error is not None
    assert last.error.type == "CollapsedKeys"


NAMES = st.sampled_from(
    [*("a.jpg", "b.jpg", "c.jpg", "a.json", "b.json", "c.json", "a.png", "b.x.png", "c.1.jpg", "c.2.jpg"),
     *("bare", ".h.jpg", "._a.jpg", "d.json", "e.heic")]
)  # fmt: skip
RULES = st.sampled_from(["first-dot", "last-dot"])


@settings(deadline=None)
@given(st.lists(NAMES, max_size=14), st.integers(1, 5), st.sets(st.integers(0, 5)), RULES)
def test_every_image_is_read_at_most_once_whatever_is_done(
    tmp_path_factory: pytest.TempPathFactory, names: list[str], size: int, done: set[int], key: str
):
    path = tmp_path_factory.mktemp("any") / "a.tar"
    path.write_bytes(tar_bytes((name, f"{i} {name}".encode()) for i, name in enumerate(names)))
    source = open_source([str(path)], key=key)  # type: ignore[arg-type]
    whole = list(source.chunks(only(source), size))
    wanted = ChunkSelection(done=frozenset(done))
    assert list(source.chunks(only(source), size, wanted)) == [c for c in whole if c.id.index in wanted]
    records = [r for c in whole for r in c.records]
    assert len({r.image_id for r in records}) == len(records)
    data = [r.data for r in records if r.data is not None]
    assert len(set(data)) == len(data)
    kinds = Skipped.merged(*(c.skipped for c in whole)).kinds
    outside = [n for n in names if n[0] == "." or "." not in n]
    assert sum(kind.count for reason, kind in kinds.items() if reason not in (LONELY, SHARING)) == len(outside)
    keys = {n.split(".")[0] if key == "first-dot" else n.rsplit(".", 1)[0] for n in names if n not in outside}
    assert keys == {r.image_id.removeprefix("a.tar/").split("#")[0] for r in records} - {""}


SPARSE = ["--format=gnu", *(f"--format=pax --sparse-version={v}" for v in ("0.0", "0.1", "1.0"))]


@pytest.mark.skipif(shutil.which("tar") is None, reason="GNU tar packs the sparse files")
@pytest.mark.parametrize("options", SPARSE)
def test_sparse_files_are_read_as_they_were(tmp_path: Path, options: str):
    contents = {
        "a.bmp": b"A" * 5000 + bytes(300_000) + b"B" * 70_001 + bytes(600_000),
        "b.bmp": b"".join(b"%03d" % i * 400 + bytes(65_536 - 1200) for i in range(60)),
        "c.bmp": bytes(1_000_000),
        "d.bmp": b"dense",
    }
    for name, data in contents.items():
        with (tmp_path / name).open("wb") as f:
            for at in range(0, len(data), 4096):
                block = data[at : at + 4096]
                f.seek(at + len(block)) if not any(block) else f.write(block)
            f.truncate(len(data))
    command = ["tar", "-S", "--hole-detection=raw", *options.split(), "-cf", "a.tar", *contents]
    subprocess.run(command, cwd=tmp_path, check=True)
    path = tmp_path / "a.tar"
    assert path.stat().st_size < 400_000, "the files are not packed as sparse ones"
    records = read(open_source([str(path)]))
    assert {r.image_id: r.data for r in records} == {f"a.tar/{n.removesuffix('.bmp')}": d for n, d in contents.items()}
    small = read(open_source([str(path)], max_record_bytes=100_000))
    assert [r.error.type if r.error else r.data for r in small] == ["RecordTooLarge"] * 3 + [b"dense"]


@pytest.mark.parametrize("at", [386, 398, 410, 483])
def test_a_damaged_map_of_a_sparse_file_is_an_error_row(tmp_path: Path, at: int):
    info = tarfile.TarInfo("a.jpg")
    info.type, info.size = tarfile.GNUTYPE_SPARSE, 512
    header = bytearray(info.tobuf(tarfile.GNU_FORMAT))
    for place, number in ((386, 0), (398, 512), (410, 4096), (422, 0), (483, 4096)):
        header[place : place + 12] = b"%011o\0" % number
    good = _summed(header) + b"x" * 512 + bytes(1024)
    (tmp_path / "a.tar").write_bytes(good)
    (record,) = read(open_source([str(tmp_path / "a.tar")]))
    assert record.data == b"x" * 512 + bytes(4096 - 512)
    header[at : at + 12] = b"%011o\0" % (5000 if at != 483 else 100)
    (tmp_path / "a.tar").write_bytes(_summed(header) + b"x" * 512 + bytes(1024))
    (record,) = read(open_source([str(tmp_path / "a.tar")]))
    assert record.error is not None
    assert (record.error.type, "a sparse file whose map cannot be read" in record.error.message) == (
        "CorruptShard",
        True,
    )


def _summed(header: bytearray) -> bytes:
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    return bytes(header)
