"""Structured logs of the driver and the workers: one line of text or JSON per event, with run, chunk and image."""

from __future__ import annotations

import datetime
import json
import logging
import sys
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from segbatch.protocols import Reporter
from segbatch.text import redact_text

_MIN_SECRET_LENGTH = 6
_logger = logging.getLogger("segbatch")


@dataclass(frozen=True)
class Logs:
    """The log settings of one run, for all its processes. Picklable.

    Attributes:
        json: Whether events are JSON lines.
        run: Id of the run, in every line.
        secrets: Values of ``storage_options``, which are hidden in the lines of all libraries.
    """

    json: bool
    run: str
    secrets: frozenset[str] = field(default=frozenset(), repr=False)

    @staticmethod
    def of(log_format: str, storage_options: Mapping[str, Any]) -> Logs:
        """Return the log settings of a job, with a new run id."""
        now = datetime.datetime.now(datetime.UTC)
        run = f"{now:%Y%m%dT%H%M%SZ}-{uuid.uuid4().hex[:6]}"
        return Logs(log_format == "json", run, frozenset(_strings(storage_options)))

    def install(self, **context: str) -> None:
        """Write this process's events to stderr as JSON with ``context`` in each; for text, change nothing."""
        if not self.json:
            return
        handler = logging.StreamHandler(sys.stderr)
        handler.setFormatter(JsonFormatter({"run": self.run, **context}, self.secrets))
        _logger.handlers[:], _logger.propagate = [handler], False
        _logger.setLevel(logging.INFO)

    @contextmanager
    def installed(self) -> Iterator[None]:
        """Install within the block, and restore the logger afterwards."""
        before = list(_logger.handlers), _logger.propagate, _logger.level
        self.install()
        try:
            yield
        finally:
            _logger.handlers[:], _logger.propagate = before[:2]
            _logger.setLevel(before[2])


@dataclass(frozen=True)
class Event:
    """A stable name of what happened, and the fields of this occurrence."""

    what: str
    fields: dict[str, Any]

    def __str__(self) -> str:
        fields = ", ".join(f"{name} {value}" for name, value in self.fields.items())
        return f"{self.what}: {fields}" if fields else self.what


class LogReporter(Reporter):
    """The reporter of library calls: messages and warnings go to the logger ``segbatch``."""

    def message(self, text: str) -> None:
        _logger.info("%s", text)

    def warning(self, text: str) -> None:
        _logger.warning("%s", text)


def event(logger: logging.Logger, level: int, what: str, **fields: Any) -> None:
    """Log an ``Event``: one line of text, or of JSON."""
    logger.log(level, Event(what, fields))


class JsonFormatter(logging.Formatter):
    """Format ``{"time", "level", "event", **context, **fields}``; a plain message is an event without fields."""

    def __init__(self, context: dict[str, str], secrets: frozenset[str] = frozenset()) -> None:
        super().__init__()
        self._context, self._secrets = context, sorted(secrets, key=len, reverse=True)

    def format(self, record: logging.LogRecord) -> str:
        time = datetime.datetime.fromtimestamp(record.created, datetime.UTC)
        happened = record.msg if isinstance(record.msg, Event) else Event(record.getMessage(), {})
        plain = {
            "time": time.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "level": record.levelname.lower(),
            "event": happened.what,
            **self._context,
            **happened.fields,
        }
        if record.exc_info:
            plain["traceback"] = self.formatException(record.exc_info)
        return json.dumps(self._clean(plain), ensure_ascii=True)

    def _clean(self, value: Any) -> Any:
        if isinstance(value, dict):
            return {key: self._clean(item) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return [self._clean(item) for item in value]
        if not isinstance(value, str):
            return value if value is None or isinstance(value, bool | int | float) else self._clean(str(value))
        for secret in self._secrets:
            value = value.replace(secret, "(hidden)")
        return redact_text(value)


def _strings(value: Any) -> Iterator[str]:
    """Yield the strings in nested mappings and lists that are long enough to be secrets."""
    if isinstance(value, str):
        if len(value) >= _MIN_SECRET_LENGTH:
            yield value
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from _strings(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _strings(item)
