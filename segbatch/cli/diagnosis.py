"""The command doctor, and how it prints a diagnosis."""

from __future__ import annotations

import datetime
import textwrap
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.text import Text

from segbatch.cli.arguments import AsJson
from segbatch.cli.progress import reporting
from segbatch.cli.terminal import console
from segbatch.config.base import read_config
from segbatch.text import counted, escape_lines

if TYPE_CHECKING:
    from segbatch.operations.doctor import Diagnosis

_STYLES = {"ok": "green", "warning": "yellow", "problem": "bold red"}
_MAX_WIDTH = 100


def doctor(
    output: Annotated[
        list[str] | None,
        typer.Option(
            "--output", "-o", metavar="URI", help="folder or prefix to list, write to and delete from; may be repeated"
        ),
    ] = None,
    config: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="YAML or JSON file of a job or of nights, whose outputs are checked"),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Check this machine, Ray and storage before a job.

    The exit code is 1 if a job would fail. --json prints a report without secrets, to paste into an issue.
    """
    settings, configured = _configured(config)
    with reporting("checking this machine") as reporter:
        from segbatch.operations.doctor import doctor as diagnose

        diagnosis = diagnose([*(output or ()), *configured], settings=settings, reporter=reporter)
    if as_json:
        console.print_json(data=diagnosis.to_json(), ensure_ascii=True)
    else:
        _print(console, diagnosis)
    raise typer.Exit(0 if diagnosis.ok else 1)


def _configured(config: str | None) -> tuple[dict[str, Any], list[str]]:
    """Return the settings of a job, and its outputs."""
    plain = {} if config is None else read_config(config)
    if "datasets" not in plain:
        return plain, [plain["output"]] if plain.get("output") else []
    from segbatch.config.nightly import NightlySpec

    spec = NightlySpec.create(**plain)
    outputs = [spec.job_of(name, datetime.date.today()).output for name in spec.datasets]
    return {"storage_options": spec.storage_options, **spec.job}, [spec.state, *outputs]


def _print(console: Console, diagnosis: Diagnosis) -> None:
    """Print one paragraph for each check: status, name, what was found, and the remedy."""
    width = min(console.width, _MAX_WIDTH)
    for check in diagnosis.checks:
        text = Text(f"{check.status:8}", style=_STYLES[check.status])
        remedy = f"; {check.remedy}" if check.remedy else ""
        words = escape_lines(f"{check.name}: {check.found}{remedy}")
        lines = textwrap.wrap(words, width - 8, break_on_hyphens=False, break_long_words=False)
        text.append(f"\n{' ' * 8}".join(lines), style="default")
        console.print(text, soft_wrap=True, highlight=False)
    problems, warnings = diagnosis.count("problem"), diagnosis.count("warning")
    console.print(f"{counted(problems, 'problem')}, {counted(warnings, 'warning')}", highlight=False)
