"""Manifests: what their rows may look like, and what becomes of rows that say nothing."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from segbatch.errors import SourceError
from segbatch.records import ChunkSelection, Record
from segbatch.sources.formats import ReadOptions
from segbatch.sources.line_stream import LineStream
from segbatch.sources.text_rows import TextRows
from segbatch.storage.files import Files
from tests.corpus import photographs, write_folder, write_manifest
from tests.inputs import open_source
from tests.sources.contract import only, read

SAMPLES = photographs(3, side=32)
TEXT = ["m.csv", "m.tsv", "m.jsonl", "m.csv.gz", "m.jsonl.gz"]


@pytest.fixture(autouse=True)
def images(tmp_path: Path) -> Path:
    return write_folder(tmp_path / "i", [("a.jpg", SAMPLES[0][1]), ("b, c.jpg", SAMPLES[1][1]), ('d"\ne.jpg', b"x")])


def rows(path: Path, **options: str) -> list[Record]:
    return read(open_source([str(path)], **options), 2)


def refusal(path: Path, **options: str) -> str:
    with pytest.raises(SourceError) as caught:
        list(open_source([str(path)], **options).shards())
    return str(caught.value)


def errors(records: list[Record]) -> list[str | None]:
    return [None if r.error is None else r.error.type for r in records]


@pytest.mark.parametrize("name", [*TEXT, "m.parquet"])
def test_commas_quotes_and_newlines(tmp_path: Path, name: str):
    uris = ["i/a.jpg", "i/b, c.jpg", 'i/d"\ne.jpg', "./i/a.jpg", str(tmp_path / "i" / "a.jpg")]
    path = write_manifest(tmp_path / name, [{"caption": 'said "hi",\nand left', "uri": uri} for uri in uris])
    found = rows(path)
    assert [r.data for r in found] == [SAMPLES[0][1], SAMPLES[1][1], b"x", SAMPLES[0][1], SAMPLES[0][1]]
    assert [r.image_id for r in found] == [f"{name}/{uri}" for uri in uris]
    assert found[0].source == str(tmp_path / "i" / "a.jpg")


@pytest.mark.parametrize("name", [*TEXT, "m.parquet"])
def test_a_missing_column_is_named_with_those_there_are(tmp_path: Path, name: str):
    path = write_manifest(tmp_path / name, [{"url": "i/a.jpg", "caption": "a"}])
    if "parquet" in name:
        assert "no column holds encoded images" in refusal(path)
        assert "no text column 'uri'; the columns are url (string), caption (string)" in refusal(
            path, format="manifest"
        )
    else:
        assert "no column 'uri'; the columns are url, caption; set the option uri_column" in refusal(path)
        assert "to the one that is meant, such as url" in refusal(path)
    assert rows(path, uri_column="url")[0].data == SAMPLES[0][1]


@pytest.mark.parametrize("name", [*TEXT, "m.parquet"])
def test_ids_come_from_a_column_and_are_made_unique(tmp_path: Path, name: str):
    table = [{"uri": "i/a.jpg", "key": key, "other": f"o{n}"} for n, key in enumerate(["k", "l", "k", "", "k#2"])]
    path = write_manifest(tmp_path / name, table)
    ids = [r.image_id.removeprefix(f"{name}/") for r in rows(path)]
    assert len(set(ids)) == 5
    assert ids[:2] == ["k", "l"]
    assert ids[2].startswith("k#2")
    assert [r.image_id for r in rows(path, id_column="other")] == [f"{name}/o{n}" for n in range(5)]
    if "jsonl" not in name:
        assert "id_column" in refusal(path, id_column="absent")


@pytest.mark.parametrize("name", [*TEXT, "m.parquet"])
def test_rows_without_a_readable_image_are_error_rows(tmp_path: Path, name: str):
    uris = ["i/a.jpg", "", "i/none.jpg", "i", "nosuch://x/y.jpg", "  ", "memory://none/z.jpg", "i/a.jpg"]
    path = write_manifest(tmp_path / name, [{"uri": uri, "note": "n"} for uri in uris])
    found = rows(path)
    assert errors(found) == [
        None, "MissingUri", "MissingObject", "UnreadableObject", "UnreadableObject", "MissingUri", "MissingObject", None
    ]  # fmt: skip
    assert {r.error.stage for r in found if r.error} == {"read"}
    messages = [r.error.message if r.error else "" for r in found]
    assert messages[1] == "row 1 has no value in column 'uri'"
    assert messages[2] == f"{tmp_path}/i/none.jpg: does not exist"
    assert "is a folder" in messages[3]
    assert "is not a protocol that fsspec knows" in messages[4]


def test_a_quote_that_is_not_closed_costs_one_row(tmp_path: Path):
    path = tmp_path / "m.csv"
    path.write_text('uri,caption\ni/a.jpg,x\n"i/a.jpg,x\ni/a.jpg,5" wide\ni/a.jpg,"5" wide"\ni/a.jpg,x\n')
    found = rows(path)
    assert errors(found) == [None, "BadManifestRow", None, "BadManifestRow", None]
    assert [r.error.message.split(":")[0] for r in found if r.error] == ["line 3 is not CSV", "line 5 is not CSV"]


def test_lines_that_are_no_json_object_cost_one_row_each(tmp_path: Path):
    path = tmp_path / "m.jsonl"
    path.write_text('{"uri": "i/a.jpg"}\n{"uri": "i/a\n\n[1]\n{"uri": 7}\n{"uri": "i/a.jpg"}')
    found = rows(path)
    assert errors(found) == [None, "BadManifestRow", "BadManifestRow", "MissingUri", None]
    assert found[1].error is not None
    assert found[1].error.message.startswith("line 2 is not JSON: ")


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_line_ends_byte_order_mark_and_blank_lines(tmp_path: Path, end: str, mark: str):
    path = tmp_path / "m.csv"
    path.write_bytes((mark + end.join(["uri,n", "i/a.jpg,1", "", "i/a.jpg,2", "short", ""])).encode())
    found = rows(path)
    assert [r.data for r in found] == [SAMPLES[0][1], SAMPLES[0][1], None]
    assert errors(found) == [None, None, "MissingObject"]


def test_bytes_that_are_not_utf8_are_kept_readable(tmp_path: Path):
    path = tmp_path / "m.csv"
    path.write_bytes(b"uri,n\ni/caf\xe9.jpg,1\n")
    (record,) = rows(path)
    assert record.image_id == "m.csv/i/caf\\udce9.jpg"


def test_manifests_that_cannot_be_read_are_refused_before_the_work(tmp_path: Path):
    whole = gzip.compress(b"uri\n" + b"".join(b"i/%d.jpg\n" % n for n in range(20_000)), mtime=0)
    cases: dict[str, tuple[bytes, str]] = {
        "cut.csv.gz": (whole[: len(whole) // 2], "the manifest cannot be read"),
        "changed.csv.gz": (whole[:5000] + b"\xff" * 50 + whole[5050:], "the manifest cannot be read"),
        "none.csv.gz": (b"uri\ni/a.jpg\n", "the manifest cannot be read"),
        "wide.csv": ("uri\ni/a.jpg\n".encode("utf-16"), "is UTF-16; save it as UTF-8"),
        "empty.csv": (b"", "no column 'uri'; the columns are none"),
    }
    for name, (data, said) in cases.items():
        (tmp_path / name).write_bytes(data)
        assert said in refusal(tmp_path / name), name


def test_a_manifest_that_changed_since_it_was_planned_stops_the_job(tmp_path: Path):
    path = write_manifest(tmp_path / "m.csv", ["i/a.jpg"] * 3)
    source = open_source([str(path)])
    shard = only(source)
    path.write_text("uri\ni/a.jpg\n")
    with pytest.raises(SourceError, match="when the job was planned; run the job again"):
        list(source.chunks(shard, 2))
    path.unlink()
    with pytest.raises(SourceError, match="run the job again"):
        list(source.chunks(shard, 2))


@pytest.mark.parametrize("name", ["m.csv", "m.jsonl", "m.jsonl.gz"])
def test_a_piece_in_the_middle_is_read_from_near_it(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch):
    path = write_manifest(tmp_path / name, [{"uri": f"i/{n}.jpg", "key": str(n % 4999)} for n in range(5000)])
    parsed = _counting(monkeypatch)
    with TextRows(Files(), str(path), ReadOptions()) as lines:
        index = lines.index()
    assert (index.records, len(index.offsets), index.renamed.unpack()) == (5000, 5, {4999: "0#4999"})
    parsed.clear()
    with TextRows(Files(), str(path), ReadOptions()) as lines:
        found = list(lines.rows([range(4100, 4104), range(4998, 5000)], index))
    assert [(row, id, line.uri) for row, id, line in found] == [
        *((n, str(n), f"i/{n}.jpg") for n in (4100, 4101, 4102, 4103, 4998)), (4999, "0#4999", "i/4999.jpg")
    ]  # fmt: skip
    assert sum(parsed) == 5000 - 4096


def _counting(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Grows by one for each row that is parsed from now on."""
    parsed: list[int] = []
    begin_row = LineStream.begin_row

    def counted(self: LineStream) -> tuple[int, int]:
        parsed.append(1)
        return begin_row(self)

    monkeypatch.setattr(LineStream, "begin_row", counted)
    return parsed


def test_offsets_are_thinned_out_in_long_manifests(tmp_path: Path):
    path = write_manifest(tmp_path / "m.csv", [f"i/{n}.jpg" for n in range(9000)])
    with TextRows(Files(), str(path), ReadOptions()) as lines:
        index = lines.index(max_offsets=2)
        assert (index.every, len(index.offsets)) == (8192, 2)
        assert [line.uri for _, _, line in lines.rows([range(8999, 9000)], index)] == ["i/8999.jpg"]


def test_skipped_images_are_not_fetched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = write_manifest(tmp_path / "m.csv", [f"i/{n}.jpg" for n in range(20)])
    source = open_source([str(path)])
    asked: list[str] = []
    monkeypatch.setattr(Files, "read", lambda self, uri, *how: asked.append(uri) or b"")
    (chunk,) = source.chunks(only(source), 5, ChunkSelection(2, 3))
    assert [Path(uri).name for uri in sorted(asked)] == [f"{n}.jpg" for n in range(10, 15)]
    assert [r.index for r in chunk.records] == list(range(10, 15))


@pytest.mark.parametrize("name", [*TEXT, "m.parquet"])
def test_of_several_columns_of_addresses_none_is_guessed(tmp_path: Path, name: str):
    table = [{"thumb_url": "i/b, c.jpg", "image_url": "i/a.jpg", "n": "1"}]
    path = write_manifest(tmp_path / name, table)
    assert "thumb_url" in (said := refusal(path))
    assert "image_url" in said
    assert "uri_column" in said
    (record,) = rows(path, uri_column="image_url", id_column="n")
    assert (record.data, record.image_id) == (SAMPLES[0][1], f"{name}/1")
    assert "nosuch" in refusal(path, uri_column="image_url", id_column="nosuch")
    notes = open_source([str(path)], uri_column="image_url").corpus().notes
    assert notes == (("images", "URIs in column image_url"), ("ids", "column image_url"))


def test_columns_of_one_name_are_refused_where_they_are_meant(tmp_path: Path):
    path = tmp_path / "m.csv"
    path.write_text("uri,n,n,uri\ni/a.jpg,1,2,i/b.jpg\n")
    assert "2 columns are called 'uri'" in refusal(path)
    path.write_text("uri,n,n\ni/a.jpg,1,2\n")
    assert rows(path)[0].data == SAMPLES[0][1]
    assert "2 columns are called 'n'" in refusal(path, id_column="n")


def test_numbers_of_jsonl_are_ids_as_they_are_meant(tmp_path: Path):
    path = tmp_path / "m.jsonl"
    lines = [{"id": value, "uri": "i/a.jpg"} for value in (7.0, 7.25, 0, "x", None, [1])]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    ids = [r.image_id.removeprefix("m.jsonl/") for r in rows(path)]
    assert ids == ["7", "7.25", "0", "x", "i/a.jpg", "i/a.jpg#5"]


def test_a_category_of_uris_is_read(tmp_path: Path):
    table = pa.table({"uri": pa.array(["i/a.jpg", "i/b, c.jpg"]).dictionary_encode()})
    pq.write_table(table, tmp_path / "m.parquet")
    assert [r.data for r in rows(tmp_path / "m.parquet")] == [SAMPLES[0][1], SAMPLES[1][1]]
