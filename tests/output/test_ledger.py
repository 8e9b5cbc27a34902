"""Resume, at its purest: a listing and a set difference."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from segbatch.errors import OutputError
from segbatch.output.ledger import Ledger
from segbatch.output.receipt import Receipt
from segbatch.output.result_file import read_footer, read_footers
from segbatch.output.run_record import Claim
from segbatch.output.totals import Totals
from segbatch.output.writer import Writer
from segbatch.records import Chunk, ChunkId, ClassCount, Record, RecordError, Shard
from segbatch.skipped import Skipped
from segbatch.storage.store import Store


def shard(name="train/000.tar", version="v1"):
    return Shard(f"s3://b/{name}", name, "webdataset", version)


@settings(deadline=None)
@given(st.sets(st.integers(0, 30)), st.integers(0, 30))
def test_a_shard_is_complete_when_every_chunk_up_to_its_last_is_there(indices, last):
    ids = {ChunkId(shard().id, i, i == last) for i in indices if i <= last}
    ledger = Ledger(c.filename for c in ids)
    expected = ids == {ChunkId(shard().id, i, i == last) for i in range(last + 1)}
    assert ledger.committed(shard().id).is_complete == expected
    assert sorted(ledger.filenames()) == sorted(c.filename for c in ids)


def test_versions_of_a_shard_are_told_apart():
    ledger = Ledger([ChunkId(shard(version="v1").id, 0, True).filename])
    assert ledger.committed(shard(version="v1").id).is_complete
    assert not ledger.committed(shard(version="v2").id).is_complete


def test_foreign_names_are_kept_apart():
    ledger = Ledger(["part-0.parquet", ".DS_Store", ChunkId(shard().id, 0, True).filename])
    assert ledger.foreign == ["part-0.parquet", ".DS_Store"]
    assert len(ledger) == 1


def record(image_id, *, error=None):
    if error:
        return Record(image_id, "s", 0, error=error)
    classes = (ClassCount(1, 4, 1.0, 0.75),)
    return Record(image_id, "s", 0, height=2, width=2, mask=b"png", classes=classes, confidence=0.75)


CLAIM = Claim("f" * 16, 4, 3)


@pytest.fixture
def store(tmp_path):
    """An output that ``CLAIM`` holds."""
    store = Store(str(tmp_path))
    record = {"fingerprint": CLAIM.fingerprint, "chunk_size": CLAIM.chunk_size, "classes": [{}] * CLAIM.num_classes}
    store.write("run.json", json.dumps(record).encode())
    return store


def test_receipt_comes_back_from_the_footer(store):
    chunk = ChunkId(shard().id, 3, False)
    records = [record("a"), record("b", error=RecordError("decode", "TruncatedImage", "cut"))]
    skipped = Skipped()
    skipped.add("members without a suffix", "000.tar/README")
    receipt = Writer(store, CLAIM).commit(Chunk(chunk, records, {"read": 0.25}, skipped))
    assert read_footer(store, chunk.filename) == [receipt]
    assert receipt.totals.records == 2
    assert receipt.totals.errors == {"decode/TruncatedImage": 1}
    assert receipt.totals.pixels == [0, 4, 0]
    assert receipt.totals.confidence == [0, 3 * 1024, 0]
    assert receipt.skipped == skipped
    assert list(read_footers(store, [chunk.filename] * 3)) == [(chunk.filename, [receipt])] * 3


def test_a_footer_of_an_earlier_version_skipped_nothing():
    footer = Receipt("x", "f", Totals(3), 0, {}).footer()
    assert b"skipped" not in footer
    assert not Receipt.from_footer(footer, 0).skipped


def test_committing_twice_leaves_one_file(store):
    chunk = ChunkId(shard().id, 0, True)
    for _ in range(2):
        Writer(store, CLAIM).commit(Chunk(chunk, [record("a")]))
    assert store.names("masks") == [chunk.filename]


def test_a_record_without_mask_and_error_is_a_bug_that_shows(store):
    with pytest.raises(ValueError, match="neither a mask nor an error"):
        Writer(store, CLAIM).commit(Chunk(ChunkId(shard().id, 0, True), [Record("a", "s", 0)]))


@pytest.mark.parametrize("content", [b"", b"not parquet", b"PAR1" + b"\0" * 40 + b"PAR1"])
def test_unreadable_file_is_named_with_its_remedy(tmp_path, content):
    store = Store(str(tmp_path))
    store.write("masks/x.parquet", content)
    with pytest.raises(OutputError, match=r"masks/x\.parquet: not a readable result file.*verify --repair"):
        read_footer(store, "x.parquet")


counts = st.lists(
    st.builds(ClassCount, st.integers(0, 4), st.integers(1, 10**6), st.just(0.5), st.floats(0, 1, width=32)),
    max_size=5,
    unique_by=lambda c: c.class_id,
)


@settings(deadline=None)
@given(st.lists(counts, max_size=8), st.randoms())
def test_sums_do_not_depend_on_the_order(images, random):
    def total(order):
        totals = Totals(5)
        for c in order:
            one = Totals(5)
            one.add_image(c)
            totals.add(one)
        return totals

    shuffled = list(images)
    random.shuffle(shuffled)
    assert total(images) == total(shuffled)
    receipt = Receipt("x", "f", total(images), 0, {})
    assert Receipt.from_footer(receipt.footer(), 0) == receipt
