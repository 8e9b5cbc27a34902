"""Measure ``segbatch query``, ``select`` and ``diff`` on two synthetic outputs.

    python benchmarks/query.py --rows 100000 --files 400

Writes outputs of photograph-sized masks to a temporary folder. The baseline of the queries is DuckDB's own reader of
Parquet (``parquet_scan``) on the same files. Seconds of one process, page cache warm; memory is its peak.
"""

from __future__ import annotations

import argparse
import resource
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import duckdb
import numpy as np
from PIL import Image

import segbatch
from segbatch.codecs import mask_png
from segbatch.labels import VOC, LabelSet
from segbatch.output.output import Output
from segbatch.output.run_record import RunRecord
from segbatch.output.totals import Totals
from segbatch.records import Chunk, ChunkId, ClassCount, Record, Shard

LABELS = LabelSet.of(VOC)
HEIGHT, WIDTH = 375, 500
PAIRS = 2000  # images of the disagreement query, of --other, and of diff
# Name, the statement, and how parquet_scan answers it; None where it cannot.
QUERIES = (
    ("count", "SELECT count(*) FROM masks", "SELECT count(*) FROM parquet_scan('{files}') WHERE error IS NULL"),
    (
        "pixels of each class",
        "SELECT name, sum(pixels) FROM classes GROUP BY name",
        "SELECT c.class_id, sum(c.pixels) FROM (SELECT unnest(classes) c FROM parquet_scan('{files}')) GROUP BY ALL",
    ),
    (
        "more than 30 % person",
        "SELECT image_id, share(classes, 'person') s FROM masks WHERE s > 0.3",
        "SELECT image_id, list_sum([c.fraction for c in classes if c.class_id = 15]) s FROM parquet_scan('{files}') "
        "WHERE s > 0.3",
    ),
    (
        "co-occurrence",
        "SELECT a.name, b.name, count(*) FROM classes a JOIN classes b "
        "ON a.image_id = b.image_id AND a.class_id < b.class_id GROUP BY ALL",
        None,
    ),
    (
        "least confident thousand",
        "SELECT image_id, confidence FROM masks ORDER BY confidence LIMIT 1000",
        "SELECT image_id, confidence FROM parquet_scan('{files}') ORDER BY confidence LIMIT 1000",
    ),
    (
        "equal masks",
        "SELECT md5(mask) h, count(*) FROM masks GROUP BY h HAVING count(*) > 1",
        "SELECT md5(mask) h, count(*) FROM parquet_scan('{files}') GROUP BY h HAVING count(*) > 1",
    ),
    ("near-duplicates", "SELECT class_hash(classes) h, count(*) FROM masks GROUP BY h HAVING count(*) > 1", None),
    ("one id", "SELECT confidence FROM masks WHERE image_id = '00007.tar/00000007'", None),
)


def masks(rng: np.random.Generator, count: int) -> list[bytes]:
    """Masks of about 4.5 kB, as the network and the CRF give them of photographs."""
    encoded = []
    for _ in range(count):
        noise = rng.integers(0, 255, (5, 6), np.uint8)
        smooth = np.asarray(Image.fromarray(noise).resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC)).astype(int)
        levels = np.digitize(smooth + rng.integers(0, 2, (HEIGHT, WIDTH)), (90, 120, 150, 180))
        encoded.append(mask_png.encode(levels, LABELS.palette(), len(LABELS)))
    return encoded


def write(folder: Path, rows: int, files: int, seed: int, pool: list[bytes]) -> None:
    """Write an output of ``rows`` rows of one to four classes each."""
    rng, size, output, totals = (
        np.random.default_rng(seed),
        -(-rows // files),
        Output.at(str(folder)),
        Totals(len(LABELS)),
    )
    classes = [{"id": i, "name": name, "color": LABELS.colors[i]} for i, name in enumerate(LABELS.names)]
    plain = {"identity": {"code": 5}, "chunk_size": size, "classes": classes, "spec": {}, "versions": {}, "started": ""}
    output.join(RunRecord.model_validate(plain))
    writer = output.writer()
    for number in range(files):
        shard = Shard(f"/data/{number:05}.tar", f"{number:05}.tar", "webdataset", "1")
        records = [row(rng, shard, i, pool) for i in range(min(size, rows - number * size))]
        totals.add(writer.commit(Chunk(ChunkId(shard.id, 0, True), records)).totals)
    output.update(state="done", totals=totals.sparse())


def row(rng: np.random.Generator, shard: Shard, number: int, pool: list[bytes]) -> Record:
    ids = [0, *rng.choice(np.arange(1, len(LABELS)), rng.integers(0, 4), replace=False).tolist()]
    pixels = np.diff(np.sort(rng.integers(1, HEIGHT * WIDTH, len(ids) - 1)), prepend=0, append=HEIGHT * WIDTH)
    counts = tuple(
        ClassCount(c, int(p), float(np.float32(p / (HEIGHT * WIDTH))), float(np.float32(rng.beta(8, 2))))
        for c, p in zip(ids, pixels.tolist(), strict=True)
        if p
    )
    confidence = float(np.float32(sum(c.pixels * c.confidence for c in counts) / (HEIGHT * WIDTH)))
    return Record(
        f"{shard.name}/{number:08}",
        shard.uri,
        number,
        height=HEIGHT,
        width=WIDTH,
        mask=pool[int(rng.integers(len(pool)))],
        classes=counts,
        confidence=confidence,
    )


def timed(call: Callable[[], object]) -> float:
    begun = time.perf_counter()
    call()
    return time.perf_counter() - begun


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--files", type=int, default=400)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        rng, out, other = np.random.default_rng(0), Path(folder, "out"), Path(folder, "other")
        pool = masks(rng, 64)
        write(out, given.rows, given.files, 1, pool)
        write(other, PAIRS, max(1, PAIRS * given.files // given.rows), 2, pool)
        print(f"{given.rows:,} rows, {given.files:,} files, masks of {np.mean([len(m) for m in pool]):,.0f} bytes")
        for name, sql, baseline in QUERIES:
            seconds = min(timed(lambda sql=sql: segbatch.query(str(out), sql)) for _ in range(3))  # type: ignore[misc]
            shown = ""
            if baseline is not None:
                plain = baseline.format(files=f"{out}/masks/*.parquet")
                shown = f"; parquet_scan {min(timed(lambda p=plain: duckdb.sql(p).fetchall()) for _ in range(3)):.2f} s"  # type: ignore[misc]
            print(f"query {name}: {seconds:.2f} s{shown}")
        sql = "SELECT image_id, iou(a.mask, b.mask) FROM masks a JOIN other_masks b USING (image_id)"
        seconds = timed(lambda: segbatch.query(str(out), sql, other=str(other)))
        print(f"query iou of {PAIRS:,} pairs: {seconds:.2f} s")
        for strategy in ("least-confident", "rare-class", "diverse"):
            seconds = timed(lambda s=strategy: segbatch.select(str(out), strategy=s))  # type: ignore[misc]
            print(f"select 1,000 {strategy}: {seconds:.2f} s")
        seconds = timed(lambda: segbatch.diff(str(out), str(other)))
        print(f"diff with {PAIRS:,} images in common: {seconds:.2f} s")
        print(f"peak memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6:.2f} GB")


if __name__ == "__main__":
    main()
