"""How long a run takes to say its first word and to commit its first chunk, beside another version of segbatch.

    python benchmarks/start.py --input photos --other ../before/.venv/bin/python --turns 3

Each turn runs the job once with each interpreter, one after the other, into a new output. The first word is the first
byte on either stream; the first chunk is the first file in ``masks/``. CPU seconds are those of all processes.
"""

from __future__ import annotations

import argparse
import os
import resource
import select
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

STEPS = ("first word", "first chunk", "end", "CPU")


def measure(python: str, source: str, options: list[str]) -> dict[str, float]:
    """Run the job once; seconds of each step."""
    folder = Path(tempfile.mkdtemp())
    command = [python, "-m", "segbatch", "run", source, "-o", str(folder / "out"), *options]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    begun = time.monotonic()
    found: dict[str, float] = {}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, cwd=folder)
    assert process.stdout is not None
    try:
        while True:
            ready, _, _ = select.select([process.stdout], [], [], 0.01)
            now = time.monotonic() - begun
            if ready:
                if not os.read(process.stdout.fileno(), 1 << 16):
                    break
                found.setdefault("first word", now)
            if "first chunk" not in found and any((folder / "out/masks").glob("*.parquet")):
                found["first chunk"] = now
        if process.wait():
            sys.exit(f"{' '.join(command)}: exit code {process.returncode}")
        found["end"] = time.monotonic() - begun
    finally:
        shutil.rmtree(folder)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    found["CPU"] = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--input", required=True, help="images, such as a folder of 48 photographs")
    parser.add_argument("--other", help="interpreter that has another version of segbatch installed")
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("options", nargs="*", help="further options of segbatch run, after --")
    args = parser.parse_args()
    source = str(Path(args.input).resolve())
    pythons = {"here": sys.executable, **({"other": args.other} if args.other else {})}
    turns: dict[str, list[dict[str, float]]] = {name: [] for name in pythons}
    for turn in range(args.turns):
        for name, python in pythons.items():
            turns[name].append(measure(os.path.abspath(python), source, args.options))
            shown = ", ".join(f"{step} {turns[name][-1][step]:.1f} s" for step in STEPS)
            print(f"turn {turn + 1}, {name}: {shown}", flush=True)
    medians = {name: {s: statistics.median(t[s] for t in turns[name]) for s in STEPS} for name in pythons}
    for step in STEPS:
        line = ", ".join(f"{name} {medians[name][step]:.1f} s" for name in pythons)
        ratio = f", ratio {medians['here'][step] / medians['other'][step]:.2f}" if args.other else ""
        print(f"{step}: {line}{ratio}")


if __name__ == "__main__":
    main()
