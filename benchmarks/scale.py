"""Measure a job without a network over many small records: planning, records per second, driver memory, resume.

    python benchmarks/scale.py --records 1000000 --shards 1000
    python benchmarks/scale.py --records 1000000 --shards 1000 --format parquet
    python benchmarks/scale.py --stages
    python benchmarks/scale.py --stages --images photographs/ --model deeplabv3_resnet50 --weights random

The first two write a corpus into a temporary folder and run the null model without a refiner over it: all costs except
those of the network and the CRF. ``--stages`` prints the time of each stage, run one after another in this process
without Ray; with ``--images``, of a job with a network and a refiner over a folder of photographs.
"""

from __future__ import annotations

import argparse
import io
import tarfile
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

import segbatch
from segbatch.isolation import Limits
from segbatch.isolation.watchdog import Watchdog
from segbatch.packing import chunk_from_row, chunk_to_row
from segbatch.planning.claim import publish
from segbatch.planning.plan import make_plan
from segbatch.planning.pools import Pools
from segbatch.planning.stages import refine_config, segment_config
from segbatch.protocols import Progress, Reporter
from segbatch.records import Chunk

_MB = 2**20


class MemorySampler(Reporter):
    """Samples the time and this process's memory at each commit."""

    def __init__(self) -> None:
        self.samples: list[tuple[float, int, int]] = []

    def planned(self, progress: Progress, workers: str) -> None:
        print(f"planned: {resident():.0f} MB; {workers}", flush=True)

    def committed(self, chunk: str, records: int, errors: int, progress: Progress) -> None:
        self.samples.append((time.monotonic(), progress.records, resident()))


def resident() -> float:
    """Return the resident memory of this process in MB."""
    return float(psutil.Process().memory_info().rss / _MB)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--records", type=int, default=200_000)
    parser.add_argument("--shards", type=int, default=200)
    parser.add_argument("--format", choices=("tar", "parquet"), default="tar")
    parser.add_argument("--side", type=int, default=32, help="height and width of an image in pixels")
    parser.add_argument("--folder", help="folder for corpus and output, from which another call resumes")
    parser.add_argument("--stages", action="store_true", help="print the time of each stage, over 8 of the shards")
    parser.add_argument("--images", help="with --stages: a folder of photographs, instead of small records")
    parser.add_argument("--model", default=segbatch.JobSpec.model_fields["model"].default, help="of --images")
    parser.add_argument("--weights", default="default", help="of --images")
    parser.add_argument("--refiner", default="densecrf", help="of --images")
    args = parser.parse_args()
    with nullcontext(args.folder) if args.folder else tempfile.TemporaryDirectory(prefix="segbatch-scale-") as folder:
        if args.images:
            options = {key: getattr(args, key) for key in ("model", "weights", "refiner")}
            print_stages(
                segbatch.JobSpec.create(inputs=[args.images], output=folder + "/out", chunk_size=16, **options)
            )
            return
        shards = min(args.shards, 8) if args.stages else args.shards
        records = args.records * shards // args.shards
        if not (Path(folder) / "in").exists():
            write_corpus(Path(folder) / "in", records, shards, args.side, args.format)
        spec = segbatch.JobSpec.create(
            inputs=[folder + "/in"], output=folder + "/out", model="null", refiner="none", chunk_size=256
        )
        print(f"{records:,} records in {shards:,} {args.format} shards, {psutil.cpu_count()} cores", flush=True)
        if args.stages:
            print_stages(spec)
        else:
            print_job(spec, records)


def print_job(spec: segbatch.JobSpec, records: int) -> None:
    """Run the whole job, then the same command again."""
    begun = time.monotonic()
    make_plan(spec)
    print(f"planning: {time.monotonic() - begun:.2f} s", flush=True)
    sampler = MemorySampler()
    begun = time.monotonic()
    outcome = segbatch.run(spec, reporter=sampler)
    seconds = time.monotonic() - begun
    assert outcome.totals.records == records, outcome.totals.records
    first, last = sampler.samples[0], sampler.samples[-1]
    busy = (last[1] - first[1]) / (last[0] - first[0])
    peak = max(rss for _, _, rss in sampler.samples)
    print(f"{outcome.computed:,} of {outcome.chunks:,} chunks in {seconds:.1f} s")
    print(f"{busy:,.0f} records/s from the first to the last commit")
    for part in (0.0, 0.25, 0.5, 0.75, 1.0):
        _, done, rss = sampler.samples[int(part * (len(sampler.samples) - 1))]
        print(f"driver RSS {rss:6.0f} MB at {done:,} records")
    print(f"peak {peak:.0f} MB, growth {peak - first[2]:+.0f} MB since the first commit", flush=True)
    begun = time.monotonic()
    again = segbatch.run(spec)
    print(f"a run with nothing to do: {time.monotonic() - begun:.2f} s, {again.computed} chunks computed")


def print_stages(spec: segbatch.JobSpec) -> None:
    """Print the CPU and wall time per record of each stage, in microseconds, as a worker runs the stage."""
    plan = publish(make_plan(spec))
    pools = Pools(1, 1, 0, 1, 1, 1, 1, "cpu")
    segment, refine = segment_config(plan.job, pools).build(), refine_config(plan.job, pools).build()
    writer = plan.writer()
    watchdog = Watchdog(Limits.of(spec, 1))
    cpu: Counter[str] = Counter()
    clock: Counter[str] = Counter()
    records = passed = 0

    def stages(chunks: Iterator[Chunk]) -> Iterator[str]:
        """Run the stages one after another, and yield the name of each completed one."""
        nonlocal records, passed
        for chunk in chunks:
            yield "read"
            row = chunk_to_row(chunk)
            chunk = chunk_from_row(row)
            yield "pass on"
            with watchdog:
                chunk = segment(chunk, watchdog)
            yield "segment"
            row = chunk_to_row(chunk)
            passed += row.nbytes
            chunk = chunk_from_row(row)
            yield "pass on"
            with watchdog:
                chunk = refine(chunk, watchdog)
            yield "refine"
            writer.commit(chunk)
            yield "commit"
            records += len(chunk.records)

    for shard in plan.job.shards:
        before = time.process_time(), time.perf_counter()
        for stage in stages(plan.job.source.chunks(shard, plan.chunk_size)):
            now = time.process_time(), time.perf_counter()
            cpu[stage] += now[0] - before[0]
            clock[stage] += now[1] - before[1]
            before = now
    for stage, seconds in (*cpu.items(), ("sum", cpu.total())):
        by_clock = clock[stage] if stage in clock else clock.total()
        print(
            f"{stage:<8} {seconds / records * 1e6:6.0f} us CPU per record, {by_clock / records * 1e6:6.0f} us wall time"
        )
    print(f"{passed / records / 1e3:,.0f} KB per record from segment to refine")


def write_corpus(folder: Path, records: int, shards: int, side: int, format: str) -> None:
    """Write shards that contain one small PNG under many names."""
    folder.mkdir(parents=True)
    buffer = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (side, side, 3), np.uint8)).save(buffer, "PNG")
    data = buffer.getvalue()
    for s in range(shards):
        numbers = range(s, records, shards)
        if format == "parquet":
            rows = {"id": [f"{r:09d}" for r in numbers], "image": pa.array([data] * len(numbers), pa.binary())}
            pq.write_table(pa.table(rows), folder / f"{s:06d}.parquet", use_dictionary=False)
            continue
        with tarfile.open(folder / f"{s:06d}.tar", "w") as tar:
            for r in numbers:
                member = tarfile.TarInfo(f"{r:09d}.png")
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))


if __name__ == "__main__":
    main()
