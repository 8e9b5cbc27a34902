"""Measure ``segbatch.open`` on a synthetic output: its index, and reading a random mask.

    python benchmarks/open.py --rows 100000 --files 400

Writes an output of blobs into a temporary folder, measures it as a run leaves it and after ``segbatch compact``, and
compares with a filter on the same files by ``pyarrow.dataset``. Milliseconds of one process, page cache warm.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pyarrow.compute as pc
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


def blobs(rng: np.random.Generator) -> bytes:
    """A mask of about 4.5 kB, as the network and the CRF give them of photographs."""
    noise = Image.fromarray(rng.integers(0, 255, (4, 6), np.uint8)).resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC)
    levels = np.digitize(np.asarray(noise), (90, 120, 150, 180))
    return mask_png.encode(levels, LABELS.palette(), len(LABELS))


def write(folder: str, rows: int, files: int) -> Output:
    """Write an output of ``rows`` rows in ``files`` files."""
    rng, size = np.random.default_rng(0), -(-rows // files)
    masks = [blobs(rng) for _ in range(32)]
    print(f"{rows:,} rows, {files:,} files, masks of {np.mean([len(mask) for mask in masks]):,.0f} bytes")
    classes = [{"id": i, "name": name, "color": LABELS.colors[i]} for i, name in enumerate(LABELS.names)]
    record = RunRecord.model_validate(
        {"identity": {"code": 5}, "chunk_size": size, "classes": classes, "spec": {}, "versions": {}, "started": ""}
    )
    output, totals = Output.at(folder), Totals(len(LABELS))
    output.join(record)
    writer = output.writer()
    for number in range(files):
        shard = Shard(f"{folder}/{number:05}.tar", f"{number:05}.tar", "tar", "1")
        records = [row(shard, i, number * size + i, masks) for i in range(min(size, rows - number * size))]
        totals.add(writer.commit(Chunk(ChunkId(shard.id, 0, True), records)).totals)
    output.update(state="done", totals=totals.sparse())
    return output


def row(shard: Shard, index: int, number: int, masks: list[bytes]) -> Record:
    """A row whose mask is one of ``masks``, made unique by bytes after the end of the PNG."""
    counts = (ClassCount(0, HEIGHT * WIDTH, 1.0, 0.875),)  # exact as float32
    mask = masks[number % len(masks)] + number.to_bytes(8, "little")
    blank = Record(f"{shard.name}/{number:08}.jpg", shard.uri, index, height=HEIGHT, width=WIDTH)
    return replace(blank, mask=mask, classes=counts, confidence=number % 1000 / 1000)


def timed(read: Callable[[str], object], image_ids: list[str]) -> str:
    """Median and 95th percentile of the milliseconds of one read."""
    seconds = []
    for image_id in image_ids:
        begun = time.perf_counter()
        read(image_id)
        seconds.append(time.perf_counter() - begun)
    return f"median {np.median(seconds) * 1e3:6.1f} ms, p95 {np.quantile(seconds, 0.95) * 1e3:6.1f} ms"


def measure(folder: str, name: str, rows: int, files: int, reads: int) -> None:
    """Print the time of the index and of random masks, and that of the baseline."""
    size = -(-rows // files)
    chosen = np.random.default_rng(1).integers(0, rows, reads)
    image_ids = [f"{number // size:05}.tar/{number:08}.jpg" for number in map(int, chosen)]
    dataset = segbatch.open(folder)
    begun = time.perf_counter()
    assert image_ids[0] in dataset
    print(f"{name}: index of {rows:,} rows {time.perf_counter() - begun:.2f} s")
    print(f"  random mask           {timed(lambda i: dataset[i].mask, image_ids)}")
    print(f"  once more             {timed(lambda i: dataset[i].mask, image_ids)}")
    scanned = dataset.to_arrow_dataset()

    def by_filter(image_id: str) -> np.ndarray:
        (mask,) = scanned.to_table(columns=["mask"], filter=pc.field("image_id") == image_id)["mask"].to_pylist()
        return mask_png.decode(mask)

    print(f"  filter of a dataset   {timed(by_filter, image_ids[:10])}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--files", type=int, default=400)
    parser.add_argument("--reads", type=int, default=200, help="number of random masks")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        output = write(folder, args.rows, args.files)
        measure(folder, "as the run leaves it", args.rows, args.files, args.reads)
        compaction = segbatch.compact(output.uri)
        measure(folder, f"compacted, {compaction.files_after} files", args.rows, args.files, args.reads)


if __name__ == "__main__":
    main()
