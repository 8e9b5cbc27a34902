"""The streams of a command: results on stdout, so that pipes work; everything about the work on stderr."""

from __future__ import annotations

import codecs
import io
import os
import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console

from segbatch.errors import PlatformError
from segbatch.text import escape_lines

_PLAIN = {"■": "#", "…": "...", "×": "x", "–": "-"}


class Terminal(Console):
    """A console whose reader may leave (``| head``): the command continues, and keeps its own exit code."""

    def print(self, *objects: Any, **style: Any) -> None:
        """Print as ``Console`` does.

        Raises:
            PlatformError: stdout is on a full disk. A log that cannot be written stops no command.
        """
        with self._checked():
            super().print(*objects, **style)

    def write(self, text: str) -> None:
        """Write lines of data unchanged; on a terminal without control characters. Raises as ``print`` does."""
        if self.quiet:
            return
        with self._checked():
            try:
                self.file.write(escape_lines(text) if self.is_terminal else text)
                self.file.flush()
            except BrokenPipeError:
                self.on_broken_pipe()

    @contextmanager
    def _checked(self) -> Iterator[None]:
        try:
            yield
        except OSError as e:
            self.on_broken_pipe()
            if not self.stderr:
                raise PlatformError(f"stdout: the results cannot be written: {e.strerror}; send them elsewhere") from e

    def on_broken_pipe(self) -> None:
        """Print nothing more, also when Python flushes the stream at its exit."""
        self.quiet = True
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, self.file.fileno())
        os.close(null)


console = Terminal()  # results
log = Terminal(stderr=True)  # progress, warnings and errors


def prepare_streams() -> None:
    """Make stdout and stderr of this process safe to print on, in any locale and while Ray starts.

    A stream that was closed (``2>&-``) is opened on the null device: otherwise the next file that is opened takes its
    number, and receives what libraries print. Characters that the locale lacks are written as plain ones.
    """
    while (null := os.open(os.devnull, os.O_RDWR)) <= 2:
        os.set_inheritable(null, True)
    os.close(null)
    codecs.register_error("segbatch", _plain)
    if sys.stdout is None:
        sys.stdout = os.fdopen(1, "w")
    elif isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="segbatch")
    if sys.stderr is sys.__stderr__:
        # A copy: descriptor 2 is diverted while Ray starts, since Ray's core prints there.
        encoding = sys.stderr.encoding if sys.stderr else "utf-8"
        sys.stderr = os.fdopen(os.dup(2), "w", buffering=1, encoding=encoding, errors="segbatch")


def _plain(error: UnicodeError) -> tuple[str | bytes, int]:
    """Replace characters that an encoding lacks by plain ones, or by their escapes."""
    assert isinstance(error, UnicodeEncodeError)
    missing = error.object[error.start : error.end]
    return "".join(_PLAIN.get(c) or ascii(c)[1:-1] for c in missing), error.end


def quoted(path: str) -> str:
    """Return a path or URI as a shell and the command line take it."""
    return shlex.quote(f"./{path}" if path.startswith("-") else path)
