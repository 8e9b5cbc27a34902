"""An object store whose keys are taken literally, as S3, GCS and Azure do: one bucket, read only, on loopback."""

from __future__ import annotations

import hashlib
import itertools
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape


@contextmanager
def literal_bucket(objects: Mapping[str, bytes]) -> Iterator[dict[str, Any]]:
    """The storage options under which ``s3://bucket/`` holds ``objects``, which may change meanwhile."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            url = urlsplit(self.path)
            key = unquote(url.path).removeprefix("/bucket").removeprefix("/")
            if not key:
                query = {name: values[-1] for name, values in parse_qs(url.query).items()}
                self._send(200, _list(objects, query.get("prefix", ""), query.get("delimiter", "")))
            elif key not in objects:
                self._send(404, b"<Error><Code>NoSuchKey</Code></Error>")
            else:
                self._object(objects[key])

        do_HEAD = do_GET

        def _object(self, data: bytes) -> None:
            headers = {"ETag": _tag(data), "Last-Modified": "Mon, 02 Nov 2026 00:00:00 GMT"}
            asked = self.headers.get("Range", "").removeprefix("bytes=").split("-")
            if len(asked) < 2:
                self._send(200, data, headers)
                return
            first, last = int(asked[0]), min(int(asked[1] or len(data)), len(data) - 1)
            self._send(206, data[first : last + 1], {**headers, "Content-Range": f"bytes {first}-{last}/{len(data)}"})

        def _send(self, status: int, body: bytes, headers: Mapping[str, str] | None = None) -> None:
            self.send_response(status)
            for name, value in {**(headers or {}), "Content-Length": str(len(body))}.items():
                self.send_header(name, value)
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(body)

        def log_message(self, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    region = {"region_name": "us-east-1"}
    try:
        yield {
            "endpoint_url": f"http://127.0.0.1:{server.server_port}",
            "key": "k",
            "secret": "s",
            "client_kwargs": region,
        }
    finally:
        server.shutdown()
        server.server_close()


def _list(objects: Mapping[str, bytes], prefix: str, delimiter: str) -> bytes:
    """The answer to ListObjectsV2, all on one page."""
    keys = sorted(key for key in objects if key.startswith(prefix))

    def folder(key: str) -> str:
        end = key.find(delimiter, len(prefix)) if delimiter else -1
        return key[: end + len(delimiter)] if end >= 0 else ""

    parts = []
    for group, within in itertools.groupby(keys, folder):
        if group:
            parts.append(f"<CommonPrefixes><Prefix>{escape(group)}</Prefix></CommonPrefixes>")
            continue
        parts += [
            f"<Contents><Key>{escape(key)}</Key><Size>{len(objects[key])}</Size><ETag>{_tag(objects[key])}</ETag>"
            "<LastModified>2026-11-02T00:00:00.000Z</LastModified></Contents>"
            for key in within
        ]
    return (
        f"<ListBucketResult><Name>bucket</Name><Prefix>{escape(prefix)}</Prefix><KeyCount>{len(parts)}</KeyCount>"
        f"<IsTruncated>false</IsTruncated>{''.join(parts)}</ListBucketResult>"
    ).encode()


def _tag(data: bytes) -> str:
    return f'"{hashlib.md5(data).hexdigest()}"'
