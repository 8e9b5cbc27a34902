"""The webhook against a real HTTP server on this machine."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from segbatch.config.nightly import WebhookSpec
from segbatch.operations.nightly.record import DatasetReport, NightReport
from segbatch.operations.nightly.summary import to_markdown
from segbatch.operations.nightly.webhook import post


@dataclass
class Receiver:
    """Answers with ``answers`` in turn, the last for ever (None: not at all), and keeps what it was sent."""

    answers: list[int | None] = field(default_factory=lambda: [200])
    requests: list[tuple[str, dict[str, str], Any]] = field(default_factory=list)
    url: str = ""

    def spec(self, **more: Any) -> WebhookSpec:
        return WebhookSpec(url=self.url, **more)


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    found, over = Receiver(), threading.Event()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            found.requests.append((self.path, {k.lower(): v for k, v in self.headers.items()}, body))
            code = found.answers.pop(0) if len(found.answers) > 1 else found.answers[0]
            if code is None:
                over.wait(30)
                return
            self.send_response(code)
            if code == 302:
                self.send_header("Location", found.url)
            self.end_headers()

        def do_GET(self) -> None:
            found.requests.append(("GET", {}, None))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *args: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        found.url = f"http://127.0.0.1:{server.server_port}/hook/SECRET"
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield found
        over.set()
        server.shutdown()
        thread.join()


@pytest.fixture
def night() -> NightReport:
    entry = DatasetReport(
        output="s3://b/out", state="done", exit_code=4, alerts=["drift of confidence: mean 0.900 → 0.700"]
    )
    return NightReport(
        date="2026-11-20",
        started="2026-11-20T01:00:00+00:00",
        finished="2026-11-20T05:00:00+00:00",
        datasets={"street": entry},
    )


def test_it_posts_the_record_and_its_text(receiver: Receiver, night: NightReport) -> None:
    assert post(receiver.spec(headers={"Authorization": "Bearer X"}), night) == ""
    ((path, headers, body),) = receiver.requests
    assert path == "/hook/SECRET"
    assert headers["content-type"] == "application/json"
    assert headers["authorization"] == "Bearer X"
    assert body == {"text": to_markdown(night), **json.loads(json.dumps(night.to_json()))}
    assert (body["exit_code"], body["verdict"]) == (4, "DRIFT: street")


def test_a_receiver_that_fails_is_asked_again(receiver: Receiver, night: NightReport) -> None:
    receiver.answers = [503, 429, 204]
    waits: list[float] = []
    assert post(receiver.spec(), night, waits.append) == ""
    assert len(receiver.requests) == 3
    assert waits == [1, 2]


@pytest.mark.parametrize(
    ("answers", "attempts", "says"),
    [
        ([503], 4, "127.0.0.1 answers 503 Service Unavailable, 4 times"),
        ([404], 1, "127.0.0.1 answers 404 Not Found"),
        ([302], 1, "127.0.0.1 answers 302 Found"),
    ],
)
def test_why_it_was_not_posted(
    receiver: Receiver, night: NightReport, answers: list[int | None], attempts: int, says: str
) -> None:
    receiver.answers = answers
    assert post(receiver.spec(), night, lambda seconds: None) == says
    assert len(receiver.requests) == attempts, "a redirect is not followed"


def test_a_receiver_that_does_not_answer_costs_its_timeout(receiver: Receiver, night: NightReport) -> None:
    receiver.answers = [None, 200]
    assert post(receiver.spec(timeout=0.2), night, lambda seconds: None) == ""
    assert len(receiver.requests) == 2
    receiver.answers = [None]
    assert post(receiver.spec(timeout=0.2, attempts=1), night) == "127.0.0.1: TimeoutError, 1 times"


def test_nobody_there(receiver: Receiver, night: NightReport) -> None:
    nobody = WebhookSpec(url="http://127.0.0.1:9/SECRET", attempts=2)
    assert post(nobody, night, lambda seconds: None) == "127.0.0.1: ConnectionRefusedError, 2 times"
    assert "SECRET" not in repr(nobody)
