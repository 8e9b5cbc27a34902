"""The reports of nightly runs in the state: one folder per night."""

from __future__ import annotations

import json

from segbatch.errors import OutputError
from segbatch.operations.nightly.record import NightReport
from segbatch.operations.nightly.summary import to_markdown
from segbatch.output.layout import DATE
from segbatch.storage.store import Store

NIGHTS = "nights"
RECORD = "night.json"
SUMMARY = "summary.md"


def write_night(store: Store, night: NightReport) -> None:
    """Write the report of a night into the state, with its summary."""
    folder = f"{NIGHTS}/{night.date}"
    store.write(f"{folder}/{SUMMARY}", to_markdown(night).encode())
    store.write(f"{folder}/{RECORD}", (json.dumps(night.to_json(), indent=1) + "\n").encode())


def read_night(store: Store, date: str) -> NightReport | None:
    """Read the report of a night, or None. Raises ``OutputError`` for another file."""
    name = f"{NIGHTS}/{date}/{RECORD}"
    try:
        return NightReport.parse(store.read(name), f"{store.uri}/{name}")
    except FileNotFoundError:
        return None
    except ValueError as e:
        raise OutputError(f"{store.uri}/{name}: not the report of a nightly run ({e}); remove it") from None


def remove_night(store: Store, date: str) -> None:
    """Delete the report of a night, and its folder unless it holds files of anyone else."""
    folder = f"{NIGHTS}/{date}"
    store.remove_all([f"{folder}/{RECORD}", f"{folder}/{SUMMARY}"])
    store.remove_empty(folder)


def dates(store: Store) -> list[str]:
    """Return the dates with a report, in order."""
    return sorted(n for n in store.names(NIGHTS) if DATE.fullmatch(n))
