"""The command line: each command parses its options, calls one operation, and prints the result.

Exit codes: 0 success, 1 failed (the same command resumes), 2 usage or configuration error (nothing was written),
3 more error rows than ``max_error_fraction`` or a failed shard, 4 drift, 5 another run holds the lease,
130 or 143 stopped by SIGINT or SIGTERM.
"""

from __future__ import annotations

import sys
import traceback
from typing import NoReturn

import typer

from segbatch.errors import WRONG_PLATFORM
from segbatch.text import escape_lines

if sys.platform != "linux":  # before imports that fail elsewhere
    sys.stderr.write(f"error: {WRONG_PLATFORM}\n")
    sys.exit(2)

from segbatch.cli import compute, labeled, outputs, version
from segbatch.cli.signals import supervised
from segbatch.cli.tables import escape
from segbatch.cli.terminal import console, log, prepare_streams
from segbatch.errors import SegbatchError, SpecError
from segbatch.packages import missing_package
from segbatch.text import redact_text

app = typer.Typer(
    help="Semantic-segmentation masks for very large image corpora.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)

app.callback()(version.options)
app.command()(compute.run)
app.command()(compute.nightly)
app.command()(compute.demo)
app.command("tune-crf")(labeled.tune_crf)
app.command()(outputs.stats)
app.command()(outputs.errors)
app.command()(outputs.verify)
app.command()(outputs.compact)
app.command("eval")(labeled.evaluate)
app.command()(labeled.train)
app.command()(outputs.models)


def main() -> None:
    """Run the command line, so that a signal ends all that it has started."""
    prepare_streams()
    supervised(run_command)


def run_command() -> None:
    """Run the command of ``sys.argv`` in this process: an error of segbatch is one line, without a traceback."""
    try:
        app(standalone_mode=True)
    except SegbatchError as e:
        _fail(str(e), e.exit_code)
    except Exception as e:  # CLI main: a defect of segbatch, whose traceback may be pasted into a report
        if message := missing_package(e, "this command"):
            _fail(message, SpecError.exit_code)
        sys.stderr.write(redact_text(traceback.format_exc()))
        sys.exit(1)


def _fail(message: str, exit_code: int) -> NoReturn:
    log.print(f"[bold red]error:[/bold red] {escape(escape_lines(message))}", highlight=False, soft_wrap=True)
    sys.exit(exit_code)


__all__ = ["app", "console", "main", "run_command"]
