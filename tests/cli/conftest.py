"""The command line, called in this process."""

from __future__ import annotations

import sys
from collections.abc import Callable

import pytest

from segbatch.cli import app as cli

Command = Callable[..., tuple[int, str, str]]


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """Calls a command with its arguments; (exit code, stdout, stderr)."""

    def call(*args: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["segbatch", *map(str, args)])
        with pytest.raises(SystemExit) as ended:
            cli.run_command()
        printed = capsys.readouterr()
        return int(ended.value.code or 0), printed.out, printed.err

    return call
