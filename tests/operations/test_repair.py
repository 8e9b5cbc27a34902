"""`verify` finds every kind of damage, and names it; `--repair` redoes that and nothing else."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from segbatch.errors import SourceError
from segbatch.operations.compact import compact
from segbatch.operations.repair import repair
from segbatch.operations.verify import verify
from segbatch.output.ledger import Ledger
from segbatch.output.receipt import Receipt, merged_footer
from segbatch.output.result_file import read_file
from segbatch.output.stats import read_classes
from segbatch.output.writer import to_parquet
from segbatch.storage.store import Store
from tests import here
from tests.cluster.jobs import rows as glob_rows
from tests.corpus import photographs, tar_bytes
from tests.kills import by_id, counted, every_kill
from tests.reporters import Said

Change = Callable[[Receipt, list[dict[str, Any]]], Receipt | None]


def first(output: Path) -> Path:
    return sorted((output / "masks").iterdir())[0]


def rewrite(output: Path, change: Change) -> None:
    """Change the rows of the first chunk in place; the file stays a good one, with a receipt for the rows it has."""
    path = first(output)
    chunks = [(r, rows.to_pylist(), rows.schema) for r, rows in read_file(Store(str(output)), path.name)]
    receipts, rows = [r for r, *_ in chunks], chunks[0][1]
    receipts[0] = change(receipts[0], rows) or receipts[0]
    table = pa.Table.from_pylist([row for _, some, _ in chunks for row in some], schema=chunks[0][2])
    footer = merged_footer(receipts) if len(receipts) > 1 else receipts[0].footer()
    path.write_bytes(to_parquet(table, footer))


def lose_a_row(receipt: Receipt, rows: list[dict[str, Any]]) -> Receipt:
    row = rows.pop()
    totals = receipt.totals
    totals.records -= 1
    for c in row["classes"]:
        totals.images[c["class_id"]] -= 1
        totals.pixels[c["class_id"]] -= c["pixels"]
        totals.confidence[c["class_id"]] -= round(c["confidence"] * c["pixels"] * 1024)
    return receipt


def swap_two_rows(receipt: Receipt, rows: list[dict[str, Any]]) -> None:
    rows[0], rows[1] = rows[1], rows[0]


def count_wrong(receipt: Receipt, rows: list[dict[str, Any]]) -> None:
    rows[0]["classes"][0]["pixels"] += 1


def rename_a_record(receipt: Receipt, rows: list[dict[str, Any]]) -> None:
    rows[1]["image_id"] = rows[0]["image_id"]


def another_job(receipt: Receipt, rows: list[dict[str, Any]]) -> Receipt:
    return replace(receipt, fingerprint="0" * 16)


def flip_a_bit(output: Path) -> None:
    path = first(output)
    data = bytearray(path.read_bytes())
    data[data.index(b"IDAT") + 9] ^= 4
    path.write_bytes(data)


def truncate(output: Path) -> None:
    path = first(output)
    path.write_bytes(path.read_bytes()[:-20])


def take_another_s_place(output: Path) -> None:
    one, two, *_ = sorted((output / "masks").iterdir())
    shutil.copy(one, two)


def claim_success(output: Path) -> None:
    """As if _SUCCESS were left over from before more chunks were due."""
    record = json.loads((output / "run.json").read_text())
    (output / "run.json").write_text(json.dumps(record | {"state": "running", "totals": {}}))
    first(output).unlink()


def damage(change: Change) -> Callable[[Path], None]:
    return lambda output: rewrite(output, change)


def statistics_wrong(output: Path) -> None:
    path = output / "stats" / "classes.parquet"
    rows = pq.read_table(path)
    pq.write_table(rows.set_column(3, rows.schema.field(3), pa.array([7] * rows.num_rows, pa.int64())), path)


def totals_wrong(output: Path) -> None:
    record = json.loads((output / "run.json").read_text())
    record["totals"]["classes"][0][2] += 1
    (output / "run.json").write_text(json.dumps(record))


# What is done, what verify says, the chunks that are computed anew where each is a file of its own.
DAMAGE: dict[str, tuple[Callable[[Path], None], str, int]] = {
    "a file is gone": (lambda o: first(o).unlink(), "a.tar: 1 of 3 chunks, the first is 0", 1),
    "a file is cut off": (truncate, "not a readable result file", 1),
    "a file is no Parquet": (lambda o: first(o).write_bytes(b"<html>"), "not a readable result file", 1),
    "a bit is flipped": (flip_a_bit, "not a readable result file", 1),
    "a row is lost": (damage(lose_a_row), "3 rows instead of 4", 1),
    "rows are swapped": (damage(swap_two_rows), "the indices of its rows are not 0 to 3", 1),
    "a count is wrong": (damage(count_wrong), "its class counts are not those of its mask", 1),
    "an id is there twice": (damage(rename_a_record), "occurs 2 times", 1),
    "another job's": (damage(another_job), "written by another job (fingerprint 0000000000000000)", 1),
    "one file is another's": (take_another_s_place, "holds another chunk than its name says", 1),
    "something is no result": (
        lambda o: (o / "masks" / "part-0.parquet").write_bytes(b""),
        "masks/part-0.parquet: not a name that segbatch gives",
        0,
    ),
    "statistics are gone": (lambda o: (o / "stats/classes.parquet").unlink(), "stats/classes.parquet: cannot be", 0),
    "statistics are wrong": (statistics_wrong, "stats/classes.parquet: does not have the sums of the rows", 0),
    "totals are wrong": (totals_wrong, "run.json: its totals are not the sums of the rows", 0),
    "_SUCCESS is stale": (claim_success, "a run or a compaction is not finished", 1),
    "_SUCCESS is gone": (lambda o: (o / "_SUCCESS").unlink(), "a run or a compaction is not finished", 0),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_damage_is_named_and_only_it_is_redone(name: str, whole: Path, tmp_path: Path) -> None:
    do, says, chunks = DAMAGE[name]
    output = Path(shutil.copytree(whole, tmp_path / "out"))
    do(output)
    report = verify(str(output))
    assert any(says in problem for problem in report.problems), report.problems
    told: list[str] = []
    outcome = repair(str(output), report, here.run, reporter=Said(told))
    assert outcome.computed == chunks
    assert told[-1] == f"computed {chunks} of 6 chunks; statistics and totals are written again"
    assert verify(str(output), read_input=True).problems == []
    assert by_id(glob_rows(output)) == counted(whole)
    assert read_classes(Store(str(output))) == read_classes(Store(str(whole)))
    assert (output / "_SUCCESS").exists()
    aside = {f"masks/{p.name}: moved to set-aside/" for p in (output / "set-aside").glob("*")}
    assert aside == set(told[:-1])


@pytest.mark.parametrize("name", [n for n in DAMAGE if n != "one file is another's"])
def test_of_a_merged_file_what_is_right_is_kept(name: str, whole: Path, tmp_path: Path) -> None:
    do, _, chunks = DAMAGE[name]
    output = Path(shutil.copytree(whole, tmp_path / "out"))
    compact(str(output), target_bytes=10**9)
    do(output)
    report = verify(str(output))
    assert report.problems
    readable = do not in (truncate, flip_a_bit, claim_success) and not name.startswith("a file is")
    outcome = repair(str(output), report, here.run)
    assert outcome.computed == (chunks if readable else 6)
    assert verify(str(output), read_input=True).problems == []
    assert by_id(glob_rows(output)) == counted(whole)


def test_repair_killed_at_every_step(whole: Path, tmp_path: Path) -> None:
    base = Path(shutil.copytree(whole, tmp_path / "base"))
    compact(str(base), target_bytes=10**9)
    rewrite(base, count_wrong)
    (base / "masks" / "part-0.parquet").write_bytes(b"")

    def again(output: Path) -> None:
        repair(str(output), verify(str(output)), here.run)

    for output in every_kill(base, tmp_path, again):
        again(output)
        assert verify(str(output)).problems == []
        assert by_id(glob_rows(output)) == counted(whole)
        assert len(Ledger.read(Store(str(output)))) == 6


def test_the_whole_output_is_proved_by_reading_the_input(small_corpus: Path, tmp_path: Path) -> None:
    """Other records under a name, size and time that are as before: only reading shows them."""
    source = Path(shutil.copytree(small_corpus, tmp_path / "in"))
    output = tmp_path / "out"
    here.run(here.spec([str(source)], output))
    assert verify(str(output), read_input=True).against == "compared with 3 input shards, all 15 records read"
    tar = source / "b.tar"
    before = tar.stat()
    tar.write_bytes(tar_bytes([(n.replace("0009-", "0099-"), d) for n, d in photographs(14, side=24)[9:]]))
    os.utime(tar, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert tar.stat().st_size == before.st_size
    assert verify(str(output)).problems == []
    (problem,) = verify(str(output), read_input=True).problems
    assert "its ids are not those of its input" in problem
    report = verify(str(output), read_input=True)
    assert repair(str(output), report, here.run).computed == 1
    assert verify(str(output), read_input=True).problems == []
    assert any(r["image_id"].startswith("b.tar/0099-") for r in glob_rows(output))


def test_a_run_that_cannot_be_repeated_is_refused_with_the_difference(
    whole: Path, small_corpus: Path, tmp_path: Path
) -> None:
    output = Path(shutil.copytree(whole, tmp_path / "out"))
    moved = Path(shutil.copytree(small_corpus, tmp_path / "moved"))
    first(output).unlink()
    report = verify(str(output))
    with pytest.raises(SourceError, match=r"moved: lies outside of .*, the corpus root"):
        repair(str(output), report, here.run, [str(moved)])
