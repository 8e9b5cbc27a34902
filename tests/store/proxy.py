"""A proxy that spoils a set share of the HTTP requests that pass through it, in an order that a seed decides."""

from __future__ import annotations

import random
import re
import selectors
import socket
import socketserver
import struct
import threading
import time
from collections import Counter
from collections.abc import Iterator
from typing import Any

# refused: 503 SlowDown. reset: before the request is passed on. lost: passed on, the answer withheld.
# half: the answer breaks off in the middle. stalled: no answer, no end. slow: an answer that takes seconds.
KINDS = ("refused", "reset", "lost", "half", "stalled", "slow")
_SPOONFULS = 8
_SLOW_DOWN = (
    b"<?xml version='1.0'?><Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>"
)


class FaultyProxy:
    """Listens on ``endpoint`` for the server on ``target``; one connection carries one request.

    Of any ``of`` requests, counted in dozens of that size, ``spoil`` are spoilt: the share is exact, the places are
    drawn from ``seed``. ``counts`` says what became of them; ``unreachable`` are those that found no server.
    """

    def __init__(
        self,
        target: int,
        spoil: int,
        of: int,
        seed: int,
        kinds: tuple[str, ...] = KINDS,
        stall: float = 30.0,
        slow: float = 3.0,
    ) -> None:
        self.target, self.stall, self.slow = target, stall, slow
        self.counts: Counter[str] = Counter()
        self._fates, self._lock = _fates(spoil, of, seed, kinds), threading.Lock()
        self._server = _Server(("127.0.0.1", 0), _Handler)
        self._server.proxy = self

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    @property
    def share(self) -> float:
        """Of the requests so far, how many were spoilt."""
        return 1 - self.counts["passed"] / max(1, sum(self.counts.values()))

    def fate(self) -> str:
        with self._lock:
            fate = next(self._fates)
            self.counts[fate] += 1
            return fate

    def unreachable(self, fate: str) -> None:
        """What was to have this ``fate`` met no server."""
        with self._lock:
            self.counts[fate] -= 1
            self.counts["unreachable"] += 1

    def __enter__(self) -> FaultyProxy:
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()


def _fates(spoil: int, of: int, seed: int, kinds: tuple[str, ...]) -> Iterator[str]:
    draw = random.Random(seed)
    faults: list[str] = []
    while True:
        places = set(draw.sample(range(of), spoil))
        for i in range(of):
            if i not in places:
                yield "passed"
                continue
            faults = faults or draw.sample(kinds, len(kinds))
            yield faults.pop()


class _Server(socketserver.ThreadingTCPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 128
    proxy: FaultyProxy

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients leave in the middle; that is what this is for."""


class _Handler(socketserver.BaseRequestHandler):
    server: _Server

    def handle(self) -> None:
        client: socket.socket = self.request
        client.settimeout(60)
        received = _until_blank_line(client)
        if not received:
            return
        head, body = received
        fate = self.server.proxy.fate()
        if fate == "reset":
            return _reset(client)
        if fate == "stalled":
            client.settimeout(self.server.proxy.stall)
            while client.recv(65536):
                pass
            return None
        if fate == "refused":
            _drain(client, head, len(body))
            answer = f"HTTP/1.1 503 Slow Down\r\nConnection: close\r\nContent-Length: {len(_SLOW_DOWN)}\r\n\r\n"
            return client.sendall(answer.encode() + _SLOW_DOWN)
        try:
            store = socket.create_connection(("127.0.0.1", self.server.proxy.target), timeout=60)
        except OSError:
            return self.server.proxy.unreachable(fate)
        with store:
            store.sendall(_closing(head) + body)
            if fate == "passed":
                return _relay(client, store, lambda data: client.sendall(data))
            answer = bytearray()
            _relay(client, store, lambda data: _keep(answer, data, client))
        if fate == "half":
            # Not within the head: the client shall believe that the answer has begun.
            begin = answer.find(b"\r\n\r\n") + 4
            client.sendall(
                answer[: begin + (len(answer) - begin) // 2] if len(answer) > begin else answer[: begin // 2]
            )
            return None
        if fate == "slow":
            for begin in range(0, len(answer), len(answer) // _SPOONFULS + 1):
                time.sleep(self.server.proxy.slow / _SPOONFULS)
                client.sendall(answer[begin : begin + len(answer) // _SPOONFULS + 1])
            return None
        return _reset(client)


def _until_blank_line(client: socket.socket) -> tuple[bytes, bytes] | None:
    received = b""
    while b"\r\n\r\n" not in received:
        data = client.recv(65536)
        if not data:
            return None
        received += data
    head, _, body = received.partition(b"\r\n\r\n")
    return head, body


def _closing(head: bytes) -> bytes:
    """The head with the wish that the server closes after its answer; that header is not among the signed ones."""
    return re.sub(rb"\r\nconnection:[^\r]*", b"", head, flags=re.IGNORECASE) + b"\r\nConnection: close\r\n\r\n"


def _drain(client: socket.socket, head: bytes, received: int) -> None:
    """Take the body off the line, unless the client waits to be asked for it."""
    length = re.search(rb"\r\ncontent-length: *(\d+)", head, re.IGNORECASE)
    if length is None or re.search(rb"\r\nexpect:", head, re.IGNORECASE):
        return
    left = int(length[1]) - received
    while left > 0 and (data := client.recv(min(left, 65536))):
        left -= len(data)


def _keep(answer: bytearray, data: bytes, client: socket.socket) -> None:
    """Collect the answer; a client that waits to be asked for its body is asked."""
    answer += data
    if answer.startswith(b"HTTP/1.1 100") and b"\r\n\r\n" in answer:
        end = answer.index(b"\r\n\r\n") + 4
        client.sendall(answer[:end])
        del answer[:end]


def _relay(client: socket.socket, store: socket.socket, answered: Any) -> None:
    """What the client sends to the store, what the store sends to ``answered``, until the store closes."""
    with selectors.DefaultSelector() as ready:
        ready.register(client, selectors.EVENT_READ)
        ready.register(store, selectors.EVENT_READ)
        while True:
            for key, _ in ready.select(60):
                data = key.fileobj.recv(65536)  # type: ignore[union-attr]
                if key.fileobj is store:
                    if not data:
                        return
                    answered(data)
                elif data:
                    store.sendall(data)
                else:
                    ready.unregister(client)


def _reset(client: socket.socket) -> None:
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.close()
