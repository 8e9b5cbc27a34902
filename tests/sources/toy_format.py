"""``python -m tests.sources.toy_format FOLDER``: registers a format, and uses it as a person would.

Prints one JSON object. A process of its own, as a registered format stays.
"""

from __future__ import annotations

import base64
import contextlib
import io
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from segbatch.records import Chunk, ChunkSelection, Record, Shard
from segbatch.sources import FORMATS
from segbatch.sources.chunking import chunked
from segbatch.sources.formats import Listing, PlannedShards, ReadOptions


class Base64Lines:
    """An image per line."""

    name = "base64-lines"
    extensions: tuple[str, ...] = (".b64",)
    options: tuple[str, ...] = ()

    def shards(self, listing: Listing, options: ReadOptions) -> PlannedShards:
        return PlannedShards([file.shard(self.name) for file in listing.files()])

    def problems(self, shards: Sequence[Shard], options: ReadOptions) -> Iterator[str]:
        return iter(())

    def divide(self, shard: Shard, size: int) -> list[Shard]:
        return [shard]

    def starts(self, shard: Shard, size: int) -> list[int]:
        return [0]

    def index(self, shard: Shard, options: ReadOptions) -> Shard:
        return shard

    def chunks(self, shard: Shard, size: int, wanted: ChunkSelection, options: ReadOptions) -> Iterator[Chunk]:
        return chunked(self._records(shard, options), shard, size, wanted)

    def _records(self, shard: Shard, options: ReadOptions) -> Iterator[Record]:
        with options.files.open(shard.uri) as stream:
            for row, line in enumerate(stream):
                yield Record(f"{shard.name}/{row}", shard.uri, row, base64.b64decode(line))


MODEL = ("--model", "tests.networks:fast", "--refiner", "none")
FORMATS.add(Base64Lines.name, Base64Lines())


def main(folder: Path) -> None:
    # After the registration: the flags are made when the command line is imported.
    from segbatch.cli import app
    from tests import here

    def command(*args: str) -> str:
        sys.argv, output = ["segbatch", *args], io.StringIO()
        with contextlib.redirect_stdout(output), contextlib.redirect_stderr(output), contextlib.suppress(SystemExit):
            app.run_command()
        return " ".join(output.getvalue().split())

    job, other = ([*MODEL, "-o", f"{folder}/{name}"] for name in ("out", "other-out"))
    outcome = here.run(here.spec([f"{folder}/in"], folder / "out"))
    said = {
        "plan": command("run", f"{folder}/in", "--dry-run", *job),
        "chosen": command("run", f"{folder}/other/a.xyz", "--format", "base64-lines", "--dry-run", *other),
        "unknown format": command("run", f"{folder}/in", "--format", "base64-line", "--dry-run", *job),
        "unknown suffix": command("run", f"{folder}/other", "--dry-run", *other),
        "records": outcome.totals.records,
        "errors": outcome.totals.failed,
    }
    print(json.dumps(said))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
