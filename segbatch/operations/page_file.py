"""HTML pages as files on this machine."""

from __future__ import annotations

from pathlib import Path

from segbatch.errors import PlatformError, SpecError
from segbatch.output.report_file import is_report

MAX_BYTES = 8_000_000


def refuse_foreign(path: Path) -> None:
    """Raise ``SpecError`` for an existing file that is not a page of segbatch, or a folder that does not exist."""
    try:
        if not path.parent.is_dir():
            raise SpecError(f"{path}: there is no folder {path.parent}; create it, or choose another file")
        if path.exists() and not is_report(path.read_bytes()):
            raise SpecError(f"{path}: is not a page of segbatch, and would be replaced; choose another file")
    except OSError as e:
        raise SpecError(f"{path}: cannot be read: {e.strerror}; choose another file") from e


def write_page(path: Path, page: bytes) -> str:
    """Write a page, and return its path. Raises ``PlatformError``."""
    try:
        path.write_bytes(page)
    except OSError as e:
        raise PlatformError(f"{path}: cannot be written: {e.strerror}; choose another file") from e
    return str(path)
