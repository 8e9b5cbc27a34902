"""``python -m tests.chaos --minutes 30``: chaos for so long, then a table of what it was and what it cost."""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import time
from pathlib import Path

from tests.chaos.chaos import rage
from tests.chaos.world import world


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--seed", type=int, default=random.randrange(10**6), help="of what is killed, when, and spoilt")
    parser.add_argument("--pause", type=float, nargs=2, default=(5.0, 20.0), help="seconds between kills: least, most")
    parser.add_argument("--shards", type=int, default=8)
    parser.add_argument("--records", type=int, default=60, help="of each shard")
    args = parser.parse_args()

    def say(text: str) -> None:
        print(f"{time.strftime('%H:%M:%S')} {text}", flush=True)

    say(f"seed {args.seed}, {args.minutes:g} minutes")
    with (
        tempfile.TemporaryDirectory(prefix="segbatch-chaos-") as folder,
        world(Path(folder), args.seed, shards=args.shards, records=args.records) as here,
    ):
        history = rage(
            here,
            args.seed,
            tuple(args.pause),
            lambda history: time.monotonic() - history.begun > args.minutes * 60,
            say,
        )
    print(f"\n{'seed':<20} {args.seed}\n{history.table()}")
    if history.failed < 0.1:
        sys.exit("fewer than one in ten requests failed")


if __name__ == "__main__":
    main()
