"""Compare ``segbatch run`` with a Ray Data script, alternating on the same cores: ``python benchmarks/pipeline.py``.

    python benchmarks/pipeline.py --images photographs/ --folder results/
    python benchmarks/pipeline.py deeplabv3_resnet50:random --images photographs/ --folder results/ --only script

``script`` is ``ray_script.py``; ``script-pruned`` is the same with ``--prune 0.05``, to separate the effect of pruning
from that of the engine; ``segbatch`` is ``segbatch run`` with its defaults; ``other`` is that of another checkout
(``--other COMMAND``). ``FOLDER/results.json`` keeps the measurements, and a later call adds to them.

CPU time is that of the whole process tree, read from /proc five times per second (Linux only). Each side runs twice,
over ``--few`` photographs and over all. The difference is the steady state, without startup and shutdown: the cost of
one more image. ``equal`` is the fraction of pixels with the same class as in ``script``.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import io
import json
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from crf_inputs import photographs
from PIL import Image

NETWORKS = ("deeplabv3plus_mobilenet_v2", "deeplabv3_mobilenet_v3_large:random", "deeplabv3_resnet50:random")
SIDES = ("script", "script-pruned", "segbatch", "other")
_SCRIPT = Path(__file__).with_name("ray_script.py")
_SET_CHILD_SUBREAPER = 36  # <sys/prctl.h>
Figures = dict[str, float]


class Tree:
    """Context manager that sums the CPU seconds of all descendants of this process, also of ended ones."""

    def __init__(self) -> None:
        self._ticks: dict[tuple[int, str], int] = {}
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch)

    def __enter__(self) -> Tree:
        # Ray's processes outlive their driver. They become children of this process, which waits for them.
        ctypes.CDLL(None).prctl(_SET_CHILD_SUBREAPER, 1)
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._ended.set()
        self._thread.join()
        # Ended processes would count in the next measurement, too, until they are waited for.
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass

    def _watch(self) -> None:
        while not self._ended.wait(0.2):
            self.sample()

    def sample(self) -> int:
        """Take one sample, and return the number of descendants that still run."""
        parents: dict[int, int] = {}
        usage: dict[int, tuple[str, int]] = {}
        running: set[int] = set()
        for entry in os.listdir("/proc"):
            if not entry.isdecimal():
                continue
            try:
                stat = Path("/proc", entry, "stat").read_text()
            except OSError:
                continue  # it ended between listing and reading
            fields = stat.rpartition(")")[2].split()  # the name in parentheses may contain anything
            parents[int(entry)] = int(fields[1])
            usage[int(entry)] = fields[19], int(fields[11]) + int(fields[12])
            if fields[0] != "Z":
                running.add(int(entry))
        own = {os.getpid()}
        while more := {pid for pid, parent in parents.items() if parent in own} - own:
            own |= more
        for pid in own - {os.getpid()}:
            begun, ticks = usage[pid]
            self._ticks[pid, begun] = ticks
        return len(running & own) - 1

    def wait(self, timeout_seconds: float = 30.0) -> None:
        """Count until all descendants have ended. Raises ``SystemExit`` if some have not after ``timeout_seconds``."""
        deadline = time.monotonic() + timeout_seconds
        while self.sample():
            if time.monotonic() > deadline:
                raise SystemExit("processes of the last run are still running")
            time.sleep(0.2)

    def seconds(self) -> float:
        """CPU seconds so far."""
        return sum(self._ticks.values()) / os.sysconf("SC_CLK_TCK")


def command(side: str, network: str, images: Path, output: Path, other: str) -> list[str]:
    """The command line of a side."""
    name, _, weights = network.partition(":")
    which = ["--model", name, "--weights", weights or "default"]
    if side.startswith("script"):
        prune = ["--prune", "0.05"] if side == "script-pruned" else []
        return [sys.executable, str(_SCRIPT), str(images), str(output), *which, *prune]
    own = str(Path(sys.executable).with_name("segbatch"))
    return [*shlex.split(other if side == "other" else own), "run", str(images), "-o", str(output), *which]


def measure(line: list[str], output: Path, log: Path) -> tuple[int, float, float]:
    """Images, seconds and CPU seconds of one run of a side. Raises ``SystemExit`` if it fails."""
    shutil.rmtree(output, ignore_errors=True)
    begun = time.monotonic()
    with Tree() as tree, log.open("w") as text:
        code = subprocess.run(line, stdout=text, stderr=subprocess.STDOUT, cwd=output.parent).returncode
        seconds = time.monotonic() - begun
        tree.wait()
    if code:
        raise SystemExit(f"{shlex.join(line)}: exit code {code}; see {log}")
    return sum(pq.read_metadata(path).num_rows for path in masks_in(output)), seconds, tree.seconds()


def compare(few: tuple[int, float, float], all_: tuple[int, float, float]) -> Figures:
    """Return the metrics of a side from its two runs."""
    images, seconds, cpu = (a - b for a, b in zip(all_, few, strict=True))
    return {
        "images": all_[0],
        "seconds": all_[1],
        "cpu": all_[2] / all_[0],
        "few": few[0],
        "few_seconds": few[1],
        "few_cpu": few[2] / few[0],
        "rate": images / seconds,
        "steady_cpu": cpu / images,
    }


def masks_in(output: Path) -> list[Path]:
    """The Parquet files that hold masks."""
    return [p for p in output.rglob("*.parquet") if p.parent.name != "stats"]


def masks(output: Path) -> dict[str, np.ndarray]:
    """Class ids by the name of the photograph."""
    found = {}
    for path in masks_in(output):
        table = pq.read_table(path)
        key = "path" if "path" in table.column_names else "image_id"
        for name, data in zip(table[key].to_pylist(), table["mask"].to_pylist(), strict=True):
            found[Path(name).name] = np.asarray(Image.open(io.BytesIO(data)))
    return found


def equality(output: Path, reference: Path) -> float:
    """Return the fraction of pixels of ``output`` whose class is the same in ``reference``."""
    ours, theirs = masks(output), masks(reference)
    assert ours.keys() == theirs.keys(), ours.keys() ^ theirs.keys()
    equal = sum(int((ours[name] == theirs[name]).sum()) for name in ours)
    return equal / sum(mask.size for mask in ours.values())


def show(results: dict[str, dict[str, Figures]]) -> None:
    """Print a table for each network; ratios are to ``script``."""
    head = ("seconds", "CPU s/image", "ratio", "steady images/s", "CPU s/image", "ratio", "equal")
    for network, sides in results.items():
        print(f"\n{network}\n{'':<14}" + "".join(f"{title:>16}" for title in head))
        base = sides.get("script", {})
        for side in (s for s in SIDES if s in sides):
            row = {"equal": np.nan, **sides[side]}
            ratio, steady_ratio = (base.get(key, np.nan) / row[key] for key in ("cpu", "steady_cpu"))
            print(
                f"{side:<14}{row['seconds']:16.0f}{row['cpu']:16.3f}{ratio:15.2f}x{row['rate']:16.2f}"
                f"{row['steady_cpu']:16.3f}{steady_ratio:15.2f}x{row['equal']:16.4%}"
            )


def write_photographs(folder: Path) -> Path:
    """The photographs of installed packages, eight times each under other names."""
    folder.mkdir(exist_ok=True)
    for number, image in enumerate(photographs(None, None) * 8):
        Image.fromarray(image).save(folder / f"{number:03d}.jpg", quality=95)
    return folder


def link_few(images: Path, folder: Path, count: int) -> Path:
    """A folder of links to ``count`` of the photographs, evenly spread."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    names = sorted(path for path in images.iterdir() if path.is_file())
    for place in range(count):
        path = names[place * len(names) // count]
        (folder / path.name).symlink_to(path)
    return folder


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("networks", nargs="*", default=NETWORKS, help="NETWORK or NETWORK:WEIGHTS")
    parser.add_argument(
        "--images", type=Path, help="folder of photographs (default: photographs of installed packages)"
    )
    parser.add_argument("--folder", help="folder for outputs, logs and results.json")
    parser.add_argument("--only", nargs="+", choices=SIDES, help="run only these sides")
    parser.add_argument("--other", default="", help="the segbatch command of another checkout")
    parser.add_argument("--few", type=int, default=16, help="number of photographs of the short run")
    args = parser.parse_args()
    os.environ.pop("RAY_ADDRESS", None)
    sides = args.only or [side for side in SIDES if side != "other" or args.other]
    with (
        contextlib.nullcontext(args.folder)
        if args.folder
        else tempfile.TemporaryDirectory(prefix="segbatch-pipeline-") as name
    ):
        folder = Path(name).resolve()
        folder.mkdir(parents=True, exist_ok=True)
        images = args.images.resolve() if args.images else write_photographs(folder / "photographs")
        few = link_few(images, folder / "few", args.few)
        kept, results = folder / "results.json", {}
        for network in args.networks:
            outputs = {side: folder / f"{network.replace(':', '-')}-{side}" for side in SIDES}
            for side in sides:
                output, log = outputs[side], outputs[side].with_suffix(".log")
                few_line, line = (command(side, network, source, output, args.other) for source in (few, images))
                metrics = compare(measure(few_line, output, log), measure(line, output, log))
                if outputs["script"].exists():
                    metrics["equal"] = equality(output, outputs["script"])
                results = json.loads(kept.read_text()) if kept.exists() else {}
                results.setdefault(network, {})[side] = metrics
                kept.write_text(json.dumps(results, indent=1) + "\n")
                print(network, side, {key: round(value, 4) for key, value in metrics.items()}, flush=True)
        show(results)


if __name__ == "__main__":
    main()
