"""The command line: each command parses its options, calls one operation, and prints the result.

Exit codes: 0 success, 1 failed (the same command resumes), 2 usage or configuration error (nothing was written),
3 more error rows than ``max_error_fraction`` or a failed shard, 4 drift, 5 another run holds the lease,
130 or 143 stopped by SIGINT or SIGTERM.
"""

from __future__ import annotations

import re
import sys
import traceback
from collections.abc import Callable
from typing import NoReturn

import typer

from segbatch.errors import WRONG_PLATFORM
from segbatch.text import escape_lines

if sys.platform != "linux":  # before imports that fail elsewhere
    sys.stderr.write(f"error: {WRONG_PLATFORM}\n")
    sys.exit(2)

from segbatch.cli import compute, diagnosis, diff, export, init, labeled, outputs, query, report, select, show, version
from segbatch.cli.help import EPILOG, Command, Group
from segbatch.cli.signals import supervised
from segbatch.cli.tables import escape
from segbatch.cli.terminal import console, log, prepare_streams
from segbatch.errors import SegbatchError, SpecError
from segbatch.packages import missing_package
from segbatch.text import redact_text

app = typer.Typer(
    cls=Group,
    help="Semantic-segmentation masks for very large image corpora.",
    epilog=EPILOG,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)

app.callback()(version.options)
_COMMANDS: dict[str, dict[str, Callable[..., None]]] = {
    "Compute": {"run": compute.run, "demo": compute.demo, "nightly": compute.nightly, "init": init.init},
    "Look at an output": {
        "report": report.report,
        "stats": outputs.stats,
        "errors": outputs.errors,
        "show": show.show,
        "query": query.query,
        "diff": diff.diff,
        "select": select.select,
        "verify": outputs.verify,
        "compact": outputs.compact,
        "export": export.export,
    },
    "With labeled images": {"eval": labeled.evaluate, "tune-crf": labeled.tune_crf, "train": labeled.train},
    "Networks": {"models": outputs.models},
    "This machine": {"doctor": diagnosis.doctor},
}
for _title, _group in _COMMANDS.items():
    for _name, _command in _group.items():
        app.command(_name, cls=Command, rich_help_panel=_title)(_command)


def main() -> None:
    """Run the command line, so that a signal ends all that it has started."""
    prepare_streams()
    supervised(run_command)


def run_command() -> None:
    """Run the command of ``sys.argv`` in this process: an error of segbatch is one line, without a traceback."""
    try:
        code = app(sys.argv[1:] or ["--help"], prog_name="segbatch", standalone_mode=False)
        sys.exit(code)
    except SegbatchError as e:
        _fail(str(e), e.exit_code)
    except typer.TyperException as e:  # an option or argument that does not exist, is missing or has no valid value
        _fail(_usage_error(e), SpecError.exit_code)
    except Exception as e:  # CLI main: a defect of segbatch, whose traceback may be pasted into a report
        if message := missing_package(e, "this command"):
            _fail(message, SpecError.exit_code)
        sys.stderr.write(redact_text(traceback.format_exc()))
        sys.exit(1)


def _usage_error(error: typer.TyperException) -> str:
    """Return Typer's message as one line in the form of segbatch's errors."""
    text = " ".join(error.format_message().split())
    text = re.sub(r" \(Possible options: (.*)\)", r"; did you mean one of \1?", text.rstrip("."))
    text = re.sub(r"\.? Did you mean", "; did you mean", text)
    context = getattr(error, "ctx", None)  # every usage error of Typer has one
    command = context.command_path if context else "segbatch"
    return f"{text[0].lower()}{text[1:]}; see `{command} --help`"


def _fail(message: str, exit_code: int) -> NoReturn:
    log.print(f"[bold red]error:[/bold red] {escape(escape_lines(message))}", highlight=False, soft_wrap=True)
    sys.exit(exit_code)


__all__ = ["app", "console", "main", "run_command"]
