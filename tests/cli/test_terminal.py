"""What a command prints reaches whoever reads it, whatever the streams are."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from segbatch.cli.terminal import quoted

PRINTS = """
from segbatch.cli.terminal import console, log, prepare_streams
prepare_streams()
for n in range(2000):
    log.print(f"working on {n}", soft_wrap=True)
console.print("■ gêant 10³ …", soft_wrap=True)
for n in range(2000):
    console.print(f"result {n}", soft_wrap=True)
raise SystemExit(3)
"""


def printed(shell: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a command line in which ``$PRINTS`` prints 2,000 lines on each stream, and exits with 3."""
    program = f"{sys.executable} -c '{PRINTS}'"
    environ = {**os.environ, "PRINTS": program, **environment}
    command = ["bash", "-c", f"set -o pipefail; {shell.replace('$PRINTS', program)}"]
    return subprocess.run(command, capture_output=True, text=True, env=environ, encoding="utf-8", errors="replace")


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_every_locale_shows_what_it_can(encoding: str) -> None:
    done = printed("$PRINTS 2>/dev/null", PYTHONIOENCODING=encoding)
    expected = {"ascii": "# g\\xeaant 10\\xb3 ...", "latin-1": "# g\ufffdant 10\ufffd ...", "utf-8": "■ gêant 10³ …"}
    assert (done.returncode, done.stdout.splitlines()[0], done.stderr) == (3, expected[encoding], "")


@pytest.mark.parametrize(
    ("shell", "lines"),
    [
        ("$PRINTS 2>&1 | head -n 3", 3),  # the reader leaves while the command works
        ("$PRINTS 2>/dev/null | head -n 1", 1),
        ("$PRINTS 2>&-", 2001),
        ("$PRINTS >&-", 0),
        ("$PRINTS >&- 2>&-", 0),
    ],
)
def test_a_stream_that_nobody_reads_changes_neither_work_nor_exit_code(shell: str, lines: int) -> None:
    done = printed(shell)
    assert (done.returncode, len(done.stdout.splitlines())) == (3, lines)
    assert "Traceback" not in done.stderr
    assert "Exception ignored" not in done.stderr


def test_results_that_cannot_be_written_are_an_error_and_a_log_is_not() -> None:
    done = printed("$PRINTS 2>/dev/full")
    assert (done.returncode, len(done.stdout.splitlines())) == (3, 2001)
    done = printed("$PRINTS >/dev/full")
    assert "PlatformError: stdout: the results cannot be written: No space left on device" in done.stderr
    assert "Exception ignored" not in done.stderr


def test_stderr_is_written_while_descriptor_2_is_diverted() -> None:
    code = (
        "import os; from segbatch.cli.terminal import log, prepare_streams; prepare_streams(); "
        "os.dup2(os.open(os.devnull, os.O_WRONLY), 2); log.print('starting Ray')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stderr == "starting Ray\n"


def test_a_path_is_quoted_as_a_shell_and_the_command_line_take_it() -> None:
    assert [quoted(path) for path in ("out", "my masks", "-masks", "s3://b/it's")] == [
        "out",
        "'my masks'",
        "./-masks",
        "'s3://b/it'\"'\"'s'",
    ]
