"""Jobs as their users start them: in processes of their own, which can be killed."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import tarfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

ROOT = Path(__file__).resolve().parents[2]


def tars(folder: Path, shards: int, records: int) -> list[str]:
    """``shards`` tars of ``records`` small pictures each, all different; their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for s in range(shards):
        path = folder / f"shard-{s:03d}.tar"
        with tarfile.open(path, "w") as tar:
            for r in range(records):
                data = picture(s * records + r)
                member = tarfile.TarInfo(f"{r:05d}.png")
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))
        paths.append(str(path))
    return paths


def picture(seed: int) -> bytes:
    """A PNG with a gradient and noise of its own."""
    rng = np.random.default_rng(seed)
    height, width = 40 + seed % 7, 48 + seed % 5
    ramp = np.linspace(0, 255, width)[None, :] + rng.normal(0, 20, (height, width)) + rng.uniform(-60, 60)
    pixels = np.repeat(ramp.clip(0, 255).astype(np.uint8)[..., None], 3, axis=2)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def start(*args: str, env: dict[str, str] | None = None, log: Path | None = None) -> subprocess.Popen[bytes]:
    """``segbatch ARGS`` as a process group of its own."""
    with open(log or os.devnull, "ab") as out:
        return subprocess.Popen(
            [sys.executable, "-m", "segbatch", *args],
            env=environment(env),
            stdout=out,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def environment(more: dict[str, str] | None = None) -> dict[str, str]:
    """This process's, with the tests importable in workers and no Ray cluster named."""
    plain = {k: v for k, v in os.environ.items() if k not in ("RAY_ADDRESS", "RAY_AUTH_MODE")}
    return {**plain, "PYTHONPATH": str(ROOT), **(more or {})}


def rows(output: Path) -> list[dict[str, Any]]:
    """All rows of all committed files, in order of their names."""
    files = sorted((output / "masks").glob("*.parquet"))
    return pa.concat_tables([pq.read_table(f) for f in files]).to_pylist() if files else []


def committed(output: Path) -> set[str]:
    """Names of the committed files."""
    return {f.name for f in (output / "masks").glob("*.parquet")}


def statistics(output: Path) -> list[dict[str, Any]]:
    return pq.read_table(output / "stats" / "classes.parquet").to_pylist()


def assert_same(output: Path, reference: Path) -> None:
    """Both hold the same rows, each once, and the same statistics."""
    found, expected = rows(output), rows(reference)
    twice = [name for name, n in Counter(r["image_id"] for r in found).items() if n > 1]
    assert not twice, f"twice in the output: {twice[:5]}"
    key = lambda r: r["image_id"]  # noqa: E731
    assert sorted(found, key=key) == sorted(expected, key=key)
    assert sum(r["pixels"] for r in statistics(output)) == sum(r["height"] * r["width"] for r in found)
    assert statistics(output) == statistics(reference)
    assert (output / "_SUCCESS").exists()


def workers(stage: str, ancestor: int) -> list[psutil.Process]:
    """Ray actors of one stage below a driver, such as ``SegmentWorker``."""
    try:
        below = psutil.Process(ancestor).children(recursive=True)
    except psutil.NoSuchProcess:
        return []
    found = []
    for process in below:
        try:
            if any(stage in part for part in process.cmdline()):
                found.append(process)
        except (psutil.NoSuchProcess, psutil.ZombieProcess):
            continue
    return found


def wait_for(condition: Any, seconds: float = 240.0) -> Any:
    """What ``condition`` returns, once it is true."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if found := condition():
            return found
        time.sleep(0.05)
    raise AssertionError(f"not so after {seconds:g} s")
