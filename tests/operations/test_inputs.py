"""Formats and damage through the whole job, on real Ray."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest

import segbatch
from segbatch import JobSpec
from segbatch.operations.verify import verify
from tests.cluster.jobs import rows
from tests.corpus import (
    Sample,
    bad_records,
    photographs,
    write_folder,
    write_manifest,
    write_parquet,
    write_tar,
)

pytestmark = pytest.mark.usefixtures("local_ray")
FAST = {"model": "tests.networks:fast", "refiner": "none"}


def in_every_format(folder: Path, samples: list[Sample]) -> dict[str, str]:
    """The same pictures as tar, compressed tar, Parquet (both ways), folder, and manifests."""
    images = write_folder(folder / "images", samples)
    uris = [str(images / name) for name, _ in samples]
    return {
        "tar": str(write_tar(folder / "a.tar", samples)),
        "tar.gz": str(write_tar(folder / "b.tar.gz", samples)),
        "parquet": str(write_parquet(folder / "c.parquet", samples)),
        "hugging face": str(write_parquet(folder / "d.parquet", samples, hugging_face=True)),
        "images": str(images),
        "csv": str(write_manifest(folder / "e.csv", uris)),
        "jsonl": str(write_manifest(folder / "f.jsonl", uris)),
        "parquet manifest": str(write_manifest(folder / "g.parquet", uris)),
    }


def assert_formats_agree(folder: Path, samples: list[Sample], kinds: list[str], **fields: Any) -> None:
    """One job over the same pictures in several formats: of each, the same rows in all but their names."""
    inputs = [in_every_format(folder / kind, samples)[kind] for kind in kinds]
    output = folder / "out"
    outcome = segbatch.run(JobSpec.create(inputs=inputs, output=str(output), **fields))
    assert (outcome.totals.records, outcome.totals.failed) == (len(kinds) * len(samples), 0)
    found = rows(output)
    assert len({r["image_id"] for r in found}) == len(found)
    stems = [Path(name).stem for name, _ in samples]
    first = None
    for kind in kinds:
        mine = sorted((r for r in found if r["image_id"].startswith(f"{kind}/")), key=lambda r: r["image_id"])
        # Every record can be found again by the name that its owner gave it.
        assert all(stem in row["image_id"] for stem, row in zip(stems, mine, strict=True)), kind
        masks = [(r["height"], r["width"], r["mask"], r["classes"], r["confidence"]) for r in mine]
        first = first or masks
        assert masks == first, kind
    assert verify(str(output)).ok


def test_every_format_gives_the_same_masks(tmp_path: Path) -> None:
    samples = photographs(7, side=64)
    assert_formats_agree(tmp_path, samples, list(in_every_format(tmp_path, samples)), chunk_size=3, **FAST)


@pytest.mark.data
@pytest.mark.long
@pytest.mark.timeout(900)
def test_48_photographs_in_every_format(data: Path, tmp_path: Path) -> None:
    """With the built-in network and the dense CRF."""
    samples = [(p.name, p.read_bytes()) for p in sorted((data / "photos").iterdir())]
    assert len(samples) == 48
    assert_formats_agree(tmp_path, samples, ["tar", "parquet", "images", "csv"])


def test_every_kind_of_damage_among_good_pictures(tmp_path: Path) -> None:
    good = photographs(10, side=64)
    bad = bad_records()
    assert len(bad) >= 25
    mixed = [*((f"bad-{n}", b.data) for n, b in bad.items()), *((f"good-{n}", d) for n, d in good)]
    mixed.sort()
    inputs = [
        str(write_tar(tmp_path / "in" / "a.tar", [(f"{i:03d}-{n}", d) for i, (n, d) in enumerate(mixed)])),
        str(write_parquet(tmp_path / "in" / "b.parquet", mixed)),
        str(write_folder(tmp_path / "in" / "images", mixed)),
    ]
    outcome = segbatch.run(
        JobSpec.create(inputs=inputs, output=str(tmp_path / "out"), chunk_size=8, max_pixels=100_000_000, **FAST)
    )
    found = rows(tmp_path / "out")
    assert (outcome.totals.records, outcome.totals.failed) == (3 * len(mixed), 3 * len(bad))
    assert outcome.exit_code == 3
    assert len({r["image_id"] for r in found}) == len(found) == 3 * len(mixed)
    for row in found:
        name = row["image_id"].rsplit("/", 1)[-1]
        assert (row["mask"] is None) == ("bad-" in name) == (row["error"] is not None), name
    for name, expected in bad.items():
        errors = [
            r["error"]
            for r in found
            if r["source"].endswith("images/bad-" + name) or r["image_id"].endswith("images/bad-" + name)
        ]
        assert [(e["stage"], e["type"]) for e in errors] == [(expected.stage, expected.type)], name
        assert len(errors[0]["message"]) > 15
        assert "Traceback" not in errors[0]["message"]
    assert verify(str(tmp_path / "out")).ok


def test_damage_to_the_shards_themselves(tmp_path: Path) -> None:
    """Cut and overwritten files: what can be read is a mask, the rest is an error row, and the job goes on."""
    samples = photographs(12, side=64)
    whole = write_tar(tmp_path / "in" / "whole.tar", samples)
    cut = tmp_path / "in" / "cut.tar"
    cut.write_bytes(whole.read_bytes()[: whole.stat().st_size * 2 // 3])
    packed = write_tar(tmp_path / "in" / "cut.tar.gz", samples)
    packed.write_bytes(packed.read_bytes()[: packed.stat().st_size * 2 // 3])
    (tmp_path / "in" / "page.tar").write_text("<!DOCTYPE html><title>404</title>")
    columns = write_parquet(tmp_path / "in" / "group.parquet", samples, rows_per_group=4, compression="none")
    raw = bytearray(columns.read_bytes())
    middle = raw.index(samples[4][1])  # the first of the second row group; before it, the header of its page
    raw[middle - 30 : middle] = bytes(30)
    columns.write_bytes(raw)
    (tmp_path / "in" / "none.parquet").write_bytes(b"PAR1" + bytes(100))
    uris = [str(tmp_path / "missing.jpg"), "nosuch://bucket/x.jpg", "", str(tmp_path / "in"), str(tmp_path / "ok.jpg")]
    (tmp_path / "ok.jpg").write_bytes(samples[0][1])
    manifest = write_manifest(tmp_path / "list.csv", [{"uri": u, "note": "x"} for u in uris])
    inputs = [*(str(tmp_path / "in" / f"*.{e}") for e in ("tar", "tar.gz", "parquet")), str(manifest)]
    outcome = segbatch.run(JobSpec.create(inputs=inputs, output=str(tmp_path / "out"), chunk_size=5, **FAST))
    names = "whole.tar cut.tar.gz cut.tar page.tar group.parquet none.parquet list.csv".split()
    by_shard: dict[str, list[dict[str, Any]]] = {}
    for row in rows(tmp_path / "out"):
        shard = next(n for n in names if n in row["image_id"])
        by_shard.setdefault(shard, []).append(row)
    count = {n: (len(r), sum(x["error"] is not None for x in r)) for n, r in by_shard.items()}
    assert count["whole.tar"] == (12, 0)
    assert count["page.tar"] == (1, 1)
    assert count["none.parquet"] == (1, 1)
    for name in ("cut.tar", "cut.tar.gz"):
        records, errors = count[name]
        assert errors == 1
        assert 5 <= records <= 12
    assert count["group.parquet"][0] == 12
    assert 1 <= count["group.parquet"][1] <= 4
    assert count["list.csv"] == (5, 4)
    assert outcome.totals.records == sum(records for records, _ in count.values())
    for group in by_shard.values():
        assert all(len(r["error"]["message"]) > 15 for r in group if r["error"])
    assert verify(str(tmp_path / "out")).ok


def test_the_summary_names_the_most_frequent_errors(tmp_path: Path) -> None:
    from rich.console import Console

    from segbatch.cli import tables as show

    good = photographs(3, side=64)
    source = write_folder(tmp_path / "in", [*good, *((f"x{i}.jpg", b"") for i in range(4)), ("y.jpg", b"<html>")])
    outcome = segbatch.run(JobSpec.create(inputs=[str(source)], output=str(tmp_path / "out"), **FAST))
    console = Console(file=io.StringIO(), width=100)
    show.run_result(console, outcome)
    text = console.file.getvalue()  # type: ignore[attr-defined]
    lines = text[text.index("error") :].splitlines()
    assert "EmptyImage" in lines[1]
    assert "4" in lines[1]
    assert "62.50% of the records are errors" in text
