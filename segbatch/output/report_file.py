"""The report of an output: report.html, which belongs to segbatch as run.json does."""

from __future__ import annotations

from segbatch.errors import OutputError, SpecError
from segbatch.output.layout import REPORT
from segbatch.storage.store import TEMPORARY, Store


def is_report(data: bytes) -> bool:
    """Whether a file is a page that segbatch wrote."""
    return b'<meta name="generator" content="segbatch' in data[:4096]


def write_report(store: Store, page: bytes) -> str:
    """Write a page into an output, and return its address, redacted.

    Raises:
        SpecError: The output holds a report.html that segbatch did not write.
        OutputError: The store refuses the page.
    """
    address = f"{store.uri}/{REPORT}"
    try:
        if not is_report(store.read(REPORT)):
            raise SpecError(f"{address}: is not a report of segbatch, and would be replaced; choose a file by --to")
    except FileNotFoundError:
        pass
    try:
        store.write(REPORT, page)
    except OutputError as e:
        raise OutputError(f"{e}; --to FILE.html writes the report elsewhere", like=e) from e
    store.remove_empty(TEMPORARY)
    return address
