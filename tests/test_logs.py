"""One event, one line, and no secret in it, whoever logs."""

from __future__ import annotations

import json
import logging
import pickle
from collections.abc import Iterator

import pytest

from segbatch import JobSpec
from segbatch.logs import Event, Logs, event


@pytest.fixture
def package() -> Iterator[logging.Logger]:
    found = logging.getLogger("segbatch")
    before = found.handlers, found.propagate, found.level
    yield found
    found.handlers, found.propagate = before[:2]
    found.setLevel(before[2])


def logs(**more: object) -> Logs:
    spec = JobSpec.create(inputs=["in"], **more)
    return Logs.of(spec.log_format, spec.storage_options)


def test_events_and_plain_messages_are_lines(package: logging.Logger, capsys: pytest.CaptureFixture[str]) -> None:
    pickle.loads(pickle.dumps(logs(log_format="json"))).install(worker="segment")
    logger = logging.getLogger("segbatch.somewhere")
    event(logger, logging.INFO, "a thing is done", chunk="c", count=3, parts={"a": 0.5}, of=None)
    logger.warning("two\nlines of %s", "text \x1b[2J")
    try:
        raise ValueError("why")
    except ValueError:
        logger.exception("it broke")
    one, two, three = map(json.loads, capsys.readouterr().err.splitlines())
    assert {k: one[k] for k in ("level", "event", "worker", "chunk", "count", "parts", "of")} == {
        "level": "info", "event": "a thing is done", "worker": "segment", "chunk": "c", "count": 3,
        "parts": {"a": 0.5}, "of": None,
    }  # fmt: skip
    assert (two["level"], two["event"]) == ("warning", "two\nlines of text \x1b[2J")
    assert three["traceback"].endswith("ValueError: why")
    assert one["run"] == two["run"]


def test_text_stays_as_it_was(package: logging.Logger, capsys: pytest.CaptureFixture[str]) -> None:
    before = package.handlers, package.propagate, package.level
    logs().install()
    assert (package.handlers, package.propagate, package.level) == before
    assert str(Event("poison record isolated", {"image": "a.tar/1", "stage": "decode"})) == (
        "poison record isolated: image a.tar/1, stage decode"
    )


def test_secrets_are_hidden_wherever_they_turn_up(package: logging.Logger, capsys: pytest.CaptureFixture[str]) -> None:
    options = {"key": "AKIA123456", "client_kwargs": {"headers": ["Bearer s3cr3t-t0ken"]}, "anon": False}
    found = logs(log_format="json", storage_options=options)
    assert "AKIA" not in repr(found)
    found.install()
    logger = logging.getLogger("segbatch.somewhere")
    logger.error("403 for AKIA123456 with %s", {"Authorization": "Bearer s3cr3t-t0ken"})
    event(
        logger,
        logging.INFO,
        "x",
        uri="s3://me:pass@bucket/a",
        nested=[{"k": "AKIA123456"}],
        why=ValueError("AKIA123456"),
    )
    said = capsys.readouterr().err
    assert not any(word in said for word in ("AKIA", "s3cr3t", "me:pass"))
    assert json.loads(said.splitlines()[1])["uri"] == "s3://bucket/a"
