"""The names and phrases that this project has given up do not come back: each has a term of the field instead."""

from __future__ import annotations

import io
import re
import subprocess
import tokenize
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
# What is not written -> what is written instead. Names are compared as whole identifiers, without strings and comments.
NAMES = {
    r"_?(MOST|LARGEST|LONGEST)_[A-Z_]+|_PATIENCE\w*|most_(?!common)\w+|\w+_most": "MAX_X, max_x, …_TIMEOUT_SECONDS",
    "Cell|Death|_Ward|riddles|_examine": "ChildProcess, ChildExit, Bisection, unexplained crashes, run_alone",
    "Piece|retreat": "ShardSlice, rewind",
    "Watch|_Teller|Stopped": "InFlight, PipeTracker, Draining",
    "Switch|carry_out|INCOMING|settle\\w*": "Promotion, apply, the staging area, fix_chunk_size",
    "tidy|sweep|discard_all": "remove_superseded, clean_temporary_files, delete",
    "holders": "file_of",
    "spoilt|spoil|lacking|excess": "damaged, mark_damaged, missing, extraneous",
    r"\w*_?patiently": "retry",
    "visible|visible_lines": "escape_control_characters",
    "shown_uri|without_credentials": "redact",
    "Feed|to_learning|as_shipped": "collate, set_train_mode, inference_model",
    "Average|World": "EMA, ProcessGroup",
    "Tally|Estimate|CRFSpec|Outcome|figures": "ReceiptSums, ConfidenceInterval, CRFParams, RunResult, metrics",
    "_tell|telling|due|told": "reporter, should_stop",
}
PHRASES = {
    r"once it is so\b": "once true",
    r"\bfor ever\b": "without limit; deadlocks silently",
    r"\banew\b": "again; recompute; rebuild",
    r"\bin hand\b": "in flight",
    r"\bsays so\b|\bis told of\b": "reports; names; is given",
    r"\bwhat \w+ came to\b": "the result; the total",
    r"\bgo(es)? on from there\b|\b[Gg]ive (it|the same command) again\b": "the same command resumes",
    r"\bwhat is committed stays\b": "committed chunks are kept",
    r"\bis harmless\b|\bmakes that harmless\b": "is idempotent",
    r"\bdies of a record\b|\bat fault\b|\baccus(e|ed|ing)\b|\bdied over\b": "crashes its worker; caused the crash",
    r"\bbegins nothing more\b": "no new chunks are started",
    r"\bbecomes? current\b|\bmake current\b": "is promoted; is replaced",
    r"\bshard is whole\b|\bnot whole yet\b": "complete; incomplete",
    r"\bwith patience\b|\bfailures that pass\b": "with retries; transient errors",
    r"\bstore keeps failing\b": "storage is unavailable",
    r"\bgives? the lease back\b|\bsign of life\b|\banother night runs\b": "releases the lease; missed heartbeats",
    r"\bmakes? up for\b|\bmade up for\b|\btold to end\b": "backfills; on SIGTERM",
    r"\bof a stranger\b": "untrusted text",
    r"\bfit to be shown\b": "redacted",
    r"\bnetwork (says|hands on)\b": "class scores at the output stride",
    r"\bclasses that can win\b|\bsurest\b|\bwinning marginals?\b": "candidate classes; confidence",
    r"\bwhat sharpens\b": "refinement method",
    r"à trous surgery|\bthinned labels\b": "dilated convolution; subsampled labels",
    r"\bbegins? anew\b|\bwhat it begins with\b": "is re-initialized; initial weights",
    r"\bheld against\b": "compared with",
    r"[Kk]nows? no(thing)? (of )?(torch|Ray)\b": "does not import torch",
    r"\b(cannot|not to) be had\b|\bheeded\b|\byet to come\b": "is not available; honored; in the future",
    r"\bnone of ours\b": "not written by segbatch",
}
_SOURCES = ("segbatch", "jobs", "benchmarks", "deploy")
_DOCUMENTS = ("docs", "README.md", "CONTRIBUTING.md", "SECURITY.md")


def _files(*folders: str) -> list[Path]:
    listed = subprocess.run(["git", "ls-files", *folders], cwd=ROOT, capture_output=True, text=True, check=True)
    return [ROOT / name for name in listed.stdout.splitlines() if name.endswith((".py", ".md", ".yaml", ".yml"))]


@pytest.fixture(scope="module")
def names() -> dict[str, list[str]]:
    """Every identifier of the code, and where it stands."""
    found: dict[str, list[str]] = {}
    for path in _files(*_SOURCES):
        if path.suffix == ".py":
            for token in tokenize.generate_tokens(io.StringIO(path.read_text()).readline):
                if token.type == tokenize.NAME:
                    found.setdefault(token.string, []).append(f"{path.relative_to(ROOT)}:{token.start[0]}")
    return found


@pytest.mark.parametrize("pattern", NAMES)
def test_an_abandoned_name_is_not_used(pattern: str, names: dict[str, list[str]]) -> None:
    found = {name: places for name, places in names.items() if re.fullmatch(pattern, name)}
    assert not found, f"write {NAMES[pattern]} instead"


@pytest.fixture(scope="module")
def lines() -> list[tuple[str, str]]:
    paths = _files(*_SOURCES, *_DOCUMENTS)
    return [(f"{p.relative_to(ROOT)}:{n}", line) for p in paths for n, line in enumerate(p.read_text().split("\n"), 1)]


@pytest.mark.parametrize("phrase", PHRASES)
def test_an_abandoned_phrase_is_not_used(phrase: str, lines: list[tuple[str, str]]) -> None:
    found = [f"{place}: {line.strip()}" for place, line in lines if re.search(phrase, line)]
    assert not found, f"write {PHRASES[phrase]} instead:\n" + "\n".join(found)
