"""Jobs under chaos, and the judgment on what they leave: the rows that must be there, each once, and no more."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import pyarrow as pa

from segbatch.config.job import JobSpec
from segbatch.operations.finish import finish
from segbatch.output.sums import ReceiptSums
from segbatch.planning.claim import publish
from segbatch.planning.plan import make_plan
from segbatch.planning.pools import Hardware, Pools
from segbatch.planning.stages import refine_config, segment_config
from segbatch.protocols import UNTRACKED
from tests.chaos.world import CHUNK, KINDS, World
from tests.cluster.jobs import environment, wait_for, workers
from tests.store import proxy

REFERENCE = "s3://tests/chaos/reference"
# A kind of which nothing is there to be killed is put off for so long, then until its next turn.
_TIMEOUT_SECONDS = 30.0
_MAX_ROUND_SECONDS = 1800.0


@dataclass
class History:
    """What happened since ``begun``. ``rounds``: seconds of each disturbed job, to compare with ``undisturbed``."""

    undisturbed: float = 0.0
    begun: float = 0.0
    rounds: list[float] = field(default_factory=list)
    kills: Counter[str] = field(default_factory=Counter)
    drivers: int = 0
    gave_up: int = 0
    records: int = 0
    chunks: int = 0
    redone: int = 0
    requests: Counter[str] = field(default_factory=Counter)

    @property
    def failed(self) -> float:
        """Share of the requests that failed by the proxy's doing: neither the slow ones nor a dead server's."""
        return sum(self.requests[k] for k in proxy.KINDS if k != "slow") / max(1, sum(self.requests.values()))

    def table(self) -> str:
        killed = ", ".join(f"{self.kills[k]} {k}" for k in KINDS)
        spoilt = ", ".join(f"{self.requests[k]} {k}" for k in (*proxy.KINDS, "unreachable"))
        seconds = ", ".join(f"{s:.0f}" for s in self.rounds)
        mean = sum(self.rounds) / max(1, len(self.rounds))
        lines = {
            "jobs": f"{len(self.rounds)}, each right in every row: {self.records:,} rows, {self.chunks:,} chunks",
            "kills": f"{sum(self.kills.values())}: {killed}",
            "drivers started": f"{self.drivers}, of which {self.gave_up} ended by themselves with an error",
            "requests": f"{sum(self.requests.values()):,}, {self.failed:.1%} failed by the proxy: {spoilt}",
            "chunks scored again": f"{self.redone:,} of {self.chunks * len(self.rounds):,}, "
            f"{self.redone / max(1, sum(self.kills.values())):.1f} a kill",
            "seconds a job": f"{mean:.0f} on average ({seconds})"
            + (f", undisturbed {self.undisturbed:.0f}" if self.undisturbed else ""),
        }
        return "\n".join(f"{name:<20} {text}" for name, text in lines.items())


def rehearse(world: World) -> int:
    """Write the output against which the others are held: the stages one after another in this process, without Ray.

    Returns how many images the network scores in it.
    """
    spec = JobSpec.create(**world.spec(REFERENCE, world.store.endpoint) | {"model": "tests.networks:fast"})
    plan = publish(make_plan(spec).with_precision(Hardware(1, 0, 1, 0)))
    classes = len(plan.job.model.labels)
    writer, receipt_sums, scored = plan.writer(), ReceiptSums(classes), 0
    pools = Pools(1, 1, 0, 1, 1, 1, 1, "cpu")
    segment, refine = segment_config(plan.job, pools).build(), refine_config(plan.job, pools).build()
    for shard in plan.job.shards:
        for chunk in plan.job.source.chunks(shard, CHUNK):
            with_scores = segment(chunk, UNTRACKED)
            scored += sum(record.scores is not None for record in with_scores.records)
            receipt_sums.add(writer.commit(refine(with_scores, UNTRACKED)))
    finish(plan, receipt_sums, 0.0)
    return scored


def rage(
    world: World,
    seed: int,
    pauses: tuple[float, float],
    over: Callable[[History], bool],
    say: Callable[[str], None],
    brief: bool = False,
) -> History:
    """Jobs one after another, with a kill after each of the drawn ``pauses``, until ``over``; the last one is finished.

    The first one is undisturbed, to compare the time. If it shall be ``brief`` there is none, and what is killed is
    killed at work: not before the network has scored something for the driver. Raises ``AssertionError`` for an output
    that is not as it must be.
    """
    images, history = rehearse(world), History()
    history.records = world.rows(REFERENCE).num_rows
    history.chunks = sum(name.startswith("masks/") for name in world.names(REFERENCE))
    say(f"{history.records} rows in {history.chunks} chunks")
    if not brief:
        begun, output = time.monotonic(), "s3://tests/chaos/undisturbed"
        assert world.run(output, spoilt=False).wait(900) == 0, world.log.read_text()
        history.undisturbed = time.monotonic() - begun
        judge(world, output)
        say(f"undisturbed job: as it must be, after {history.undisturbed:.0f} s")
    moments = _moments(seed, pauses)
    history.begun = time.monotonic()
    while not history.rounds or not over(history):
        output = f"s3://tests/chaos/job-{len(history.rounds) + 1}"
        begun, before = time.monotonic(), world.scored()
        _endure(world, output, history, moments, over, say, brief)
        history.rounds.append(time.monotonic() - begun)
        history.redone += round((world.scored() - before - images) / CHUNK)
        judge(world, output)
        say(f"job {len(history.rounds)}: as it must be, after {history.rounds[-1]:.0f} s")
    history.requests = world.proxy.counts.copy()
    return history


def _moments(seed: int, pauses: tuple[float, float]) -> Iterator[tuple[float, str]]:
    """(seconds since the last kill, what is killed), every kind as often as the others."""
    draw = random.Random(seed)
    while True:
        for kind in draw.sample(KINDS, len(KINDS)):
            yield draw.uniform(*pauses), kind


def _endure(
    world: World,
    output: str,
    history: History,
    moments: Iterator[tuple[float, str]],
    over: Callable[[History], bool],
    say: Callable[[str], None],
    at_work: bool,
) -> None:
    """One job to its end: drivers that ended are started again, as an operator's loop does."""
    end = time.monotonic() + _MAX_ROUND_SECONDS
    pause, kind = next(moments)
    due = time.monotonic() + pause
    driver, before = world.run(output, spoilt=True), world.scored()
    history.drivers += 1
    while True:
        code = driver.poll()
        if code == 0:
            return
        if code is not None:
            history.gave_up += code > 0
            if code > 0:
                say(f"a driver ended with {code}: {world.log.read_text()[-500:]}")
            driver, before = world.run(output, spoilt=True), world.scored()
            history.drivers += 1
        assert time.monotonic() < end, (
            f"{output}: not done in {_MAX_ROUND_SECONDS:g} s\n{world.log.read_text()[-3000:]}"
        )
        world.tend()
        now = time.monotonic()
        if at_work and world.scored() == before:
            due = max(due, now)
        elif now >= due and not over(history):
            if struck := world.strike(kind):
                history.kills[kind] += 1
                say(f"killed: {kind}")
            if struck or now >= due + _TIMEOUT_SECONDS:
                pause, kind = next(moments)
                due = time.monotonic() + pause
        time.sleep(0.05)


def difference(found: pa.Table, expected: pa.Table) -> str | None:
    """What is wrong with the rows of ``found``, both in order of ``image_id``; None if every column is equal."""
    ids = Counter(found["image_id"].to_pylist())
    known = set(expected["image_id"].to_pylist())
    named = {
        "are lost": sorted(known - ids.keys()),
        "are of no input": sorted(ids.keys() - known),
        "are there twice": sorted(name for name, count in ids.items() if count > 1),
    }
    for what, names in named.items():
        if names:
            return f"{len(names)} records {what}, the first is {names[0]}"
    if not found.schema.equals(expected.schema):
        return f"other columns: {found.schema}"
    differing = [n for n in found.column_names if not found[n].equals(expected[n])]
    return f"other values in {', '.join(differing)}" if differing else None


def judge(world: World, output: str) -> None:
    """The output is the reference, row by row and object by object; nothing else is left behind."""
    wrong = difference(world.rows(output), world.rows(REFERENCE))
    assert wrong is None, f"{output}: {wrong}"
    assert world.statistics(output) == world.statistics(REFERENCE)
    assert world.names(output) == world.names(REFERENCE), "objects were left behind, or are missing"
    assert not world.unfinished_uploads()
    config = world.configuration(output, world.store.endpoint)
    command = [sys.executable, "-m", "segbatch", "verify", output, "--config", str(config)]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    wait_for(lambda: not workers("Worker(", os.getpid()) and not workers("Worker)", os.getpid()), 60)
