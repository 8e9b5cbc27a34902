"""For any input: records = rows + skipped, each id once, and ``verify --read-input`` agrees.

A few inputs in a test run; ``SEGBATCH_FUZZ_EXAMPLES=1000`` tries more.
"""

from __future__ import annotations

import os
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from segbatch.errors import SHARD_FAILURES, SourceError
from segbatch.operations.compact import compact
from segbatch.operations.verify import verify
from segbatch.output.run_record import RunRecord
from segbatch.storage.store import Store
from tests import accounts, here
from tests.accounts import Table, Tar

EXAMPLES = int(os.environ.get("SEGBATCH_FUZZ_EXAMPLES", "15"))
PROPERTY = settings(
    max_examples=EXAMPLES, deadline=None, derandomize=EXAMPLES < 100, suppress_health_check=list(HealthCheck)
)
KEYS = st.sampled_from(["first-dot", "last-dot"])
DAMAGED = {"TruncatedShard", "CorruptShard"}


def rows_of(output: Path) -> list[dict[str, Any]]:
    files = sorted((output / "masks").glob("*.parquet"))
    return [row for f in files for row in pq.read_table(f, columns=["image_id", "source", "error"]).to_pylist()]


def run(folder: Path, **options: Any) -> tuple[list[dict[str, Any]], RunRecord]:
    """The rows of a job over ``folder/in`` and its run.json; each id is there once, and ``verify`` is content."""
    output = folder / "out"
    outcome = here.run(here.spec([str(folder / "in")], output, precision="fp32", max_error_fraction=1, **options))
    rows, record = rows_of(output), RunRecord.need(Store(str(output)))
    assert max(Counter(row["image_id"] for row in rows).values(), default=1) == 1
    assert len(rows) == outcome.totals.records
    for turn in range(2):
        report = verify(str(output), read_input=True)
        assert [p for p in report.problems if not p.startswith("a shard failed: ")] == []
        assert report.skipped == record.all_skipped
        assert f"all {len(rows):,} record" in report.against
        if turn == 0:
            compact(str(output), target_bytes=10**6)
    return rows, record


@PROPERTY
@given(accounts.trees())
def test_each_file_of_a_folder_is_a_row_or_is_named_as_skipped(paths: list[str]):
    with tempfile.TemporaryDirectory() as folder:
        accounts.write_tree(Path(folder, "in"), paths)
        rows, record = run(Path(folder))
        skipped = record.skipped.files
        names = [name for kind in skipped.kinds.values() for name in kind.names]
        assert skipped.count == len(names)
        assert Counter([row["image_id"] for row in rows] + names) == accounts.files_below(Path(folder, "in"))


@PROPERTY
@given(KEYS.flatmap(lambda key: st.lists(accounts.tars(key), min_size=1, max_size=3)))
def test_each_member_of_a_tar_is_of_a_row_or_is_counted_as_skipped(tars: list[Tar]):
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder, "in")
        source.mkdir()
        (source / "notes.txt").write_text("of no format")
        for i, tar in enumerate(tars):
            tar.write(source / f"{i}{tar.suffix}")
        try:
            rows, record = run(Path(folder), key=tars[0].key)
        except SourceError:
            assert any(t.account.may_fail for t in tars)
            return
        failed = [row for row in rows if (row["error"] or {}).get("type") in SHARD_FAILURES]
        assert not failed or any(t.account.may_fail for t in tars)
        rows = [row for row in rows if row not in failed]
        of_shard = Counter(Path(row["source"]).name for row in rows)
        assert of_shard == +Counter({f"{i}{t.suffix}": t.account.rows for i, t in enumerate(tars)})
        assert record.skipped.members.count == sum(t.account.skipped for t in tars)
        assert record.skipped.files.count == 1


@PROPERTY
@given(accounts.tars("first-dot", max_cut=3000))
def test_of_a_damaged_tar_rows_are_kept_one_says_so_and_reading_it_again_gives_the_same(tar: Tar):
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "in").mkdir()
        tar.write(Path(folder, "in", f"0{tar.suffix}"))
        try:
            rows, _ = run(Path(folder))
        except SourceError:
            return
        assert sum((row["error"] or {}).get("type") in DAMAGED for row in rows) <= 1
        assert len(rows) <= tar.account.rows + 2


@PROPERTY
@given(st.lists(accounts.tables(), min_size=1, max_size=2))
def test_each_row_of_a_table_is_a_row(tables: list[Table]):
    check_tables(tables)


@PROPERTY
@given(st.lists(accounts.manifests(), min_size=1, max_size=2))
def test_each_row_of_a_manifest_is_a_row(manifests: list[Table]):
    check_tables(manifests, format="manifest")


def check_tables(tables: list[Table], **options: Any) -> None:
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder, "in")
        (source / "images").mkdir(parents=True)
        for i, image in enumerate(accounts.IMAGES):
            (source / "images" / f"{i}.jpg").write_bytes(image)
        for i, table in enumerate(tables):
            table.write(source / f"{i}{table.suffix}")
        rows, record = run(Path(folder), **{"format": "parquet", **options})
        of_shard = Counter(row["image_id"].partition("/")[0] for row in rows)
        assert of_shard == +Counter({f"{i}{t.suffix}": t.rows for i, t in enumerate(tables)})
        assert record.skipped.files.count == len(accounts.IMAGES)
        assert not record.skipped.members
