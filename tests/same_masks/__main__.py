"""``python -m tests.same_masks --base COMMIT``: the same jobs by two checkouts, and every difference of their rows.

Exit status 0: none but those that ``allowed.yaml`` allows.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Sequence
from fnmatch import fnmatchcase
from itertools import groupby
from pathlib import Path

from tests.same_masks import checkouts
from tests.same_masks.cases import cases, write_corpus
from tests.same_masks.compare import Allowance, Difference, compare, not_allowed, read_allowances

_SHOWN = 3  # differences of one case and column


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.same_masks", description=__doc__)
    parser.add_argument("--base", required=True, help="a commit of this repository")
    parser.add_argument("--only", nargs="*", default=["*"], help="patterns of names of cases: voc-* null")
    parser.add_argument("--allowed", type=Path, default=Path(__file__).with_name("allowed.yaml"))
    parser.add_argument("--keep", type=Path, help="an empty folder for the outputs; by default they are removed")
    args = parser.parse_args()
    allowances = read_allowances(args.allowed)
    with tempfile.TemporaryDirectory(prefix="same-masks-") as temporary:
        folder = args.keep.resolve() if args.keep else Path(temporary)
        write_corpus(folder / "in")
        jobs = {
            name: fields
            for name, fields in cases(folder / "in").items()
            if any(fnmatchcase(name, pattern) for pattern in args.only)
        }
        if not jobs:
            sys.exit(f"no case is named {' or '.join(args.only)}; see tests/same_masks/cases.py")
        listed = folder / "cases.json"
        listed.write_text(json.dumps(jobs))
        base = checkouts.export(args.base, folder / "base")
        checkouts.give_native(base, _say)
        _say(f"base, {args.base}:")
        checkouts.run_cases(checkouts.python_of(base), base, listed, folder / "out-base", _say)
        _say("this checkout:")
        checkouts.run_cases(Path(sys.executable), checkouts.ROOT, listed, folder / "out", _say)
        found = [d for name in jobs for d in compare(name, folder / "out-base" / name, folder / "out" / name)]
    left = not_allowed(found, allowances)
    print(report(left, [a for a in allowances if any(fnmatchcase(name, a.case) for name in jobs)]))
    print(f"{len(jobs)} cases: {len(found)} differences, {len(found) - len(left)} of them allowed")
    sys.exit(1 if left else 0)


def report(left: Sequence[Difference], allowances: Sequence[Allowance]) -> str:
    """The largest differences of each case and column, and the allowances that allow nothing."""
    lines = []
    for (case, column), group in groupby(
        sorted(left, key=lambda d: (d.case, d.column, -d.size)), lambda d: (d.case, d.column)
    ):
        several = list(group)
        lines += [f"{case}  {d.image}  {column}: {d.what}" for d in several[:_SHOWN]]
        if len(several) > _SHOWN:
            lines.append(f"{case}  {len(several) - _SHOWN} more images  {column}: no larger differences")
    lines += [f"allowed, and did not occur: {a.case} {a.column} ({a.reason})" for a in allowances if not a.used]
    return "\n".join(lines)


def _say(text: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {text}", flush=True)


if __name__ == "__main__":
    main()
