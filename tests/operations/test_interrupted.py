"""Whatever happens to a job, its output and its input: no row is read twice, and in the end every record is there once.

A few histories in a test run; ``SEGBATCH_FUZZ_EXAMPLES=1000`` tries more.
"""

from __future__ import annotations

import itertools
import os
import tarfile
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from segbatch.errors import SegbatchError
from segbatch.operations.compact import compact
from segbatch.operations.verify import verify
from segbatch.output.layout import SUCCESS
from segbatch.output.ledger import Ledger
from segbatch.output.receipt import Receipt
from segbatch.planning.inline import execute
from segbatch.planning.plan import Plan
from segbatch.storage.store import Store
from tests import accounts, here
from tests.corpus import write_tar

EXAMPLES = int(os.environ.get("SEGBATCH_FUZZ_EXAMPLES", "20"))
HISTORIES = settings(
    max_examples=EXAMPLES, deadline=None, derandomize=EXAMPLES < 100, suppress_health_check=list(HealthCheck)
)
NUMBERS = st.integers(0, 15)
STEPS = st.one_of(
    st.tuples(st.just("interrupt"), st.integers(0, 6)),
    st.tuples(st.just("run")),
    st.tuples(st.just("compact"), st.sampled_from([1, 2000, 10**6])),
    st.tuples(st.just("damage"), NUMBERS, st.sampled_from(["truncate", "flip", "empty", "remove"])),
    st.tuples(st.just("write_image"), NUMBERS),
    st.tuples(st.just("remove_image"), NUMBERS),
    st.tuples(st.just("write_tar"), st.integers(0, 3), st.integers(1, 9)),
    st.tuples(st.just("remove_tar"), st.integers(0, 3)),
)


class Interrupted(Exception):
    """Where a driver is killed."""


class World:
    """An input of loose images and tars, its output, and the ids that must be there in the end."""

    def __init__(self, folder: Path) -> None:
        self.input, self.output = folder / "in", folder / "out"
        self._turn = itertools.count()
        for i in range(9):
            self.write_image(i)
        self.write_tar(0, 5)

    def run(self, work: Any = execute) -> None:
        inputs = [str(self.input / "images"), str(self.input / "tars")]
        here.run(here.spec(inputs, self.output, precision="fp32"), work)

    def interrupt(self, chunks: int) -> None:
        def some(plan: Plan) -> Iterator[Receipt]:
            yield from itertools.islice(execute(plan), chunks)
            raise Interrupted

        with suppress(Interrupted):
            self.run(some)

    def compact(self, size: int) -> None:
        with suppress(SegbatchError):  # nothing there, not finished, or damaged
            compact(str(self.output), target_bytes=size)

    def damage(self, which: int, how: str) -> None:
        """Something happens to one of the result files behind segbatch's back."""
        files = sorted((self.output / "masks").glob("*.parquet"))
        if not files:
            return
        path = files[which % len(files)]
        data = path.read_bytes()
        if how == "remove":
            path.unlink()
        elif how == "flip":
            at = len(data) * which // 16
            path.write_bytes(data[:at] + bytes([data[at] ^ 4]) + data[at + 1 :] if data else b"")
        else:
            path.write_bytes(data[: len(data) * which // 16] if how == "truncate" else b"")

    def write_image(self, i: int) -> None:
        path = self.input / "images" / f"{i}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(accounts.IMAGES[next(self._turn) % 3])

    def remove_image(self, i: int) -> None:
        if len(list((self.input / "images").iterdir())) > 1:
            (self.input / "images" / f"{i}.jpg").unlink(missing_ok=True)

    def write_tar(self, i: int, records: int) -> None:
        first = next(self._turn) % 3
        members = [(f"k{n}.jpg", accounts.IMAGES[(first + n) % 3]) for n in range(records)]
        write_tar(self.input / "tars" / f"{i}.tar", members)

    def remove_tar(self, i: int) -> None:
        if len(list((self.input / "tars").iterdir())) > 1:
            (self.input / "tars" / f"{i}.tar").unlink(missing_ok=True)

    def ids(self) -> list[str]:
        """Of all rows, as every reader of an output finds them; those of files that cannot be read are left out."""
        store, found = Store(str(self.output)), []
        for file in Ledger.read(store, damaged={}).files():
            with suppress(SegbatchError):
                found += file.read(store, ["image_id"])["image_id"].to_pylist()
        return found

    def expected(self) -> list[str]:
        images = [f"images/{path.name}" for path in (self.input / "images").iterdir()]
        tars = [(path, keys_of(path)) for path in (self.input / "tars").iterdir()]
        return sorted(images + [f"tars/{path.name}/{key}" for path, keys in tars for key in keys])

    def check(self) -> None:
        """An output that is marked as complete is read without a row that is there twice."""
        if (self.output / SUCCESS).exists():
            assert max(Counter(self.ids()).values(), default=1) == 1


def keys_of(path: Path) -> list[str]:
    with tarfile.open(path) as archive:
        return [name.removesuffix(".jpg") for name in archive.getnames()]


@HISTORIES
@given(st.lists(STEPS, max_size=8))
def test_whatever_happens_every_record_is_there_once_after_the_next_run(steps: list[tuple[Any, ...]]):
    with tempfile.TemporaryDirectory() as folder:
        world = World(Path(folder))
        for name, *arguments in steps:
            getattr(world, name)(*arguments)
            world.check()
        world.run()
        assert sorted(world.ids()) == world.expected()
        report = verify(str(world.output), read_input=True)
        assert report.problems == []
        assert report.records == len(world.expected())
