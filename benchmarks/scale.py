"""The job without a network over very many small records: records a second, and the driver's memory.

    python benchmarks/scale.py --records 200000 --shards 200

Writes a corpus of tars into a temporary folder, runs the null model without a refiner over it, and prints the driver's
resident memory at the first and at the last commit, then what a second run costs that finds everything done.
"""

from __future__ import annotations

import argparse
import io
import tarfile
import tempfile
import time
from pathlib import Path

import numpy as np
import psutil
from PIL import Image

import segbatch
from segbatch.output.writer import Receipt
from segbatch.runtime.progress import Progress

_MB = 2**20


class Watch(Progress):
    """Samples this process's memory at commits, and the time."""

    def __init__(self) -> None:
        self.samples: list[tuple[float, int, int]] = []

    def advance(self, receipt: Receipt) -> None:
        super().advance(receipt)
        rss = psutil.Process().memory_info().rss
        self.samples.append((time.monotonic(), self.records, rss))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--records", type=int, default=200_000)
    parser.add_argument("--shards", type=int, default=200)
    parser.add_argument("--side", type=int, default=32, help="pixels of a record's side")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="segbatch-scale-") as folder:
        write_corpus(Path(folder) / "in", args.records, args.shards, args.side)
        spec = segbatch.JobSpec.create(
            inputs=[folder + "/in"], output=folder + "/out", model="null", refiner="none", chunk_size=256
        )
        watch = Watch()
        begun = time.monotonic()
        outcome = segbatch.run(spec, watch)
        seconds = time.monotonic() - begun
        assert outcome.totals.records == args.records, outcome.totals.records
        first, last = watch.samples[0], watch.samples[-1]
        busy = (last[1] - first[1]) / (last[0] - first[0])
        peak = max(rss for _, _, rss in watch.samples)
        print(
            f"{args.records:,} records in {args.shards:,} shards, {outcome.chunks:,} chunks, {psutil.cpu_count()} cores"
        )
        print(f"{seconds:.1f} s in all; {busy:,.0f} records/s from the first to the last commit")
        for part in (0.0, 0.25, 0.5, 0.75, 1.0):
            _, records, rss = watch.samples[int(part * (len(watch.samples) - 1))]
            print(f"driver RSS {rss / _MB:6.0f} MB at {records:,} records")
        print(f"peak {peak / _MB:.0f} MB, growth {(last[2] - first[2]) / _MB:+.0f} MB")
        begun = time.monotonic()
        again = segbatch.run(spec)
        print(f"a run that finds all done: {time.monotonic() - begun:.2f} s, {again.computed} chunks computed")


def write_corpus(folder: Path, records: int, shards: int, side: int) -> None:
    """Tars of one small PNG under many names."""
    folder.mkdir()
    buffer = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (side, side, 3), np.uint8)).save(buffer, "PNG")
    data = buffer.getvalue()
    for s in range(shards):
        with tarfile.open(folder / f"{s:06d}.tar", "w") as tar:
            for r in range(s, records, shards):
                member = tarfile.TarInfo(f"{r:09d}.png")
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))


if __name__ == "__main__":
    main()
