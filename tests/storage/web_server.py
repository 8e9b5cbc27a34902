"""A web server on loopback that lacks what a test takes away: ranges, sizes, HEAD."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote

Answer = bytes | int | str | list[bytes | int | str]


@contextmanager
def web_server(
    answers: Mapping[str, Answer], ranges: bool = True, sizes: bool = True, head: bool = True
) -> Iterator[tuple[str, list[str]]]:
    """(URL of the server, the requests that came). ``answers`` by decoded path and query.

    Bytes are an object, a number is the status of a failure, text is where the server redirects to; of several the
    first is for the first request, the last for all that follow.
    """
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            asked.append(f"{self.command} {self.path}")
            answer = answers.get(unquote(self.path), 404)
            if isinstance(answer, list):
                answer = answer.pop(0) if len(answer) > 1 else answer[0]
            if self.command == "HEAD" and not head:
                self._send(405, {})
            elif isinstance(answer, int):
                self._send(answer, {})
            elif isinstance(answer, str):
                self._send(302, {"Location": answer})
            else:
                self._object(answer)

        do_HEAD = do_GET

        def _object(self, data: bytes) -> None:
            wanted = self.headers.get("Range", "").removeprefix("bytes=").split("-")
            if not ranges or len(wanted) < 2:
                return self._send(200, {}, data)
            first, last = int(wanted[0]), min(int(wanted[1] or len(data)), len(data) - 1)
            if first > last:
                return self._send(416, {})
            self._send(206, {"Content-Range": f"bytes {first}-{last}/{len(data)}"}, data[first : last + 1])

        def _send(self, status: int, headers: Mapping[str, str], body: bytes = b"") -> None:
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            if sizes or status != 200:
                self.send_header("Content-Length", str(len(body)))
            else:
                self.close_connection = True
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        def log_message(self, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.handle_error = lambda *args: None  # type: ignore[method-assign]  # of clients that leave early
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}", asked
    finally:
        server.shutdown()
        server.server_close()
