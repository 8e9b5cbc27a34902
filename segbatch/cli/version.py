"""``segbatch --version``: the versions that a report of a problem needs, without importing the packages."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as installed_version
from typing import Annotated

import typer


def version_text() -> str:
    """Return segbatch's version, then those of Ray, torch and Python, and the instruction set of the CRF engine."""
    from segbatch.crf.native_engine import instruction_set  # imports NumPy

    others = (f"Ray {_version('ray')}", f"torch {_version('torch')}", f"Python {platform.python_version()}")
    return f"segbatch {_version('segbatch')}\n{', '.join(others)}; dense CRF in C++ for {instruction_set()}"


def _print(is_given: bool) -> None:
    if is_given:
        typer.echo(version_text())
        raise typer.Exit


def options(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_print, is_eager=True, help="print the versions of this installation"),
    ] = False,
) -> None:
    """Take the options that come before the name of a command."""


def _version(package: str) -> str:
    try:
        return installed_version(package)
    except PackageNotFoundError:
        return "not installed"
