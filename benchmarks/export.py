"""Measure ``segbatch export`` on a synthetic output: time per image, and the memory of one process.

    python -m benchmarks.export --rows 100000 --files 400 --to coco-rle

Exports in one process, as each Ray task does a part and the driver the rest. The baseline of the memory is this process
with everything imported; the baseline of the time is a read of all rows.
"""

from __future__ import annotations

import argparse
import multiprocessing
import resource
import tempfile
import time

from benchmarks.open import write
from segbatch.exports import EXPORTS
from segbatch.exports.finish import finish_export
from segbatch.exports.options import ExportOptions
from segbatch.exports.part import write_part
from segbatch.exports.plan import identity, join, plan_export
from segbatch.output.output import Output
from segbatch.results.originals import Originals
from segbatch.storage.store import Store


def peak() -> float:
    """Largest memory of this process so far, in megabytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3


def measure(folder: str, target: str, to: str, rows: int) -> None:
    """Print the time and the memory of an export."""
    output, store, options = Output.open(folder), Store(target), ExportOptions(to, images="none")
    print(f"{to}: {peak():.0f} MB before")
    begun = time.perf_counter()
    for _ in output.batches():
        pass
    print(f"  read all rows  {time.perf_counter() - begun:6.1f} s, {peak():.0f} MB")
    begun = time.perf_counter()
    job = plan_export(output, store, options, None, Originals(output))
    requested = identity(job, options)
    join(store, requested)
    print(f"  names          {time.perf_counter() - begun:6.1f} s, {peak():.0f} MB")
    begun = time.perf_counter()
    for i in range(len(job.parts)):
        write_part(job, i)
    seconds = time.perf_counter() - begun
    print(f"  parts          {seconds:6.1f} s, {seconds / rows * 1e3:.2f} ms per image, {peak():.0f} MB")
    begun = time.perf_counter()
    finish_export(job, requested)
    print(f"  joining        {time.perf_counter() - begun:6.1f} s, {peak():.0f} MB")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--files", type=int, default=400)
    parser.add_argument("--to", choices=list(EXPORTS), default="coco-rle")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        spawn = multiprocessing.get_context("spawn")
        for step, given in (
            (write, (f"{folder}/out", args.rows, args.files)),
            (measure, (f"{folder}/out", f"{folder}/export", args.to, args.rows)),
        ):
            process = spawn.Process(target=step, args=given)
            process.start()
            process.join()
            if process.exitcode:
                raise SystemExit(process.exitcode)


if __name__ == "__main__":
    main()
