"""``python -m tests.chaos --minutes 30``: chaos for so long, then a table of what it was and what it cost.

Exit status 0: every output was as it must be, and at least one in ten requests failed.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import time
from pathlib import Path

from tests.chaos.chaos import History, rage
from tests.chaos.world import KINDS, world


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--seed", type=int, default=random.randrange(10**6), help="of what is killed, when, and spoilt")
    parser.add_argument("--pause", type=float, nargs=2, default=(5.0, 20.0), help="seconds between kills: least, most")
    parser.add_argument("--brief", action="store_true", help="instead: one kill of each kind within a short job")
    args = parser.parse_args()

    def say(text: str) -> None:
        print(f"{time.strftime('%H:%M:%S')} {text}", flush=True)

    def over(history: History) -> bool:
        if args.brief:
            return set(history.kills) == set(KINDS)
        return time.monotonic() - history.begun > args.minutes * 60

    size = {"shards": 4, "nodes": 2, "actors": 2, "stall": 4.0} if args.brief else {"shards": 8}
    pauses = (0.2, 0.8) if args.brief else tuple(args.pause)
    say(f"seed {args.seed}, {'one kill of each kind' if args.brief else f'{args.minutes:g} minutes'}")
    with (
        tempfile.TemporaryDirectory(prefix="segbatch-chaos-") as folder,
        world(Path(folder), args.seed, records=60, **size) as here,
    ):
        history = rage(here, args.seed, pauses, over, say, args.brief)
    print(f"\n{'seed':<20} {args.seed}\n{history.table()}")
    if history.failed < 0.1:
        sys.exit("fewer than one in ten requests failed")


if __name__ == "__main__":
    main()
