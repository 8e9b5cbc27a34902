"""A client of web servers with and without HEAD, ranges, and the sizes of objects."""

from __future__ import annotations

import errno
import hashlib
from typing import Any

import aiohttp
from fsspec.implementations.http import HTTPFileSystem

from segbatch.storage.ranges import MAX_WHOLE_BYTES

_DENIED = (401, 403, 407)
_GONE = (404, 410)
_VALIDATORS = ("ETag", "Content-MD5", "Last-Modified")


class WebFileSystem(HTTPFileSystem):
    """fsspec's client of HTTP that reports what the server answered: 404 and 410 raise ``FileNotFoundError``, 401 and
    403 ``PermissionError``, all else the client's error with its status, so that 5xx is retried.

    ``info`` has the ``size``, also of servers that do not state it, up to ``MAX_WHOLE_BYTES``; ``type``, which is that
    of a folder for a page without suffix; and ``ranges``, False if the server is known to serve none.
    """

    def _raise_not_found_for_status(self, response: aiohttp.ClientResponse, url: str) -> None:
        if response.status in _GONE:
            raise FileNotFoundError(url)
        if response.status in _DENIED:
            raise PermissionError(errno.EACCES, f"the server answers {response.status} {response.reason}", url)
        response.raise_for_status()

    async def _info(self, url: str, **kwargs: Any) -> dict[str, Any]:
        session = await self.set_session()
        options = self._options(kwargs)
        async with session.head(self.encode_url(url), allow_redirects=True, **options) as r:
            size = _stated_size(r) if r.status < 400 else None
            ranges = {"bytes": True, "none": False}.get(r.headers.get("Accept-Ranges", ""))
            if size is not None and (size <= MAX_WHOLE_BYTES or ranges is not None):
                return _described(url, r, size, ranges)
        # Some servers do not answer HEAD, or answer it unlike GET: most signatures are for GET alone.
        options["headers"]["Range"] = "bytes=0-0"
        async with session.get(self.encode_url(url), **options) as r:
            if r.status == 416:  # there is no first byte
                return _described(url, r, 0, True)
            self._raise_not_found_for_status(r, url)
            info = _described(url, r, _stated_size(r), r.status == 206)
            if info["size"] is None:
                body = await _body(r, MAX_WHOLE_BYTES + 1)
                if len(body) <= MAX_WHOLE_BYTES:
                    info.update(size=len(body), sha256=hashlib.sha256(body).hexdigest())
            return info

    async def _cat_file(self, url: str, start: int | None = None, end: int | None = None, **kwargs: Any) -> bytes:
        """Read a range; of a server without ranges the whole object up to ``MAX_WHOLE_BYTES``, else the range."""
        if end is not None and (start or 0) >= end:
            return b""
        session = await self.set_session()
        options = self._options(kwargs)
        is_part = start is not None or end is not None
        if is_part:
            options["headers"]["Range"] = await self._process_limits(url, start, end)
        async with session.get(self.encode_url(url), **options) as r:
            self._raise_not_found_for_status(r, url)
            if not is_part or end is None or r.status == 206:
                return await r.read()
            body = await _body(r, max(end, MAX_WHOLE_BYTES + 1))
            return body if len(body) <= MAX_WHOLE_BYTES else body[start or 0 : end]

    def _options(self, given: dict[str, Any]) -> dict[str, Any]:
        """The options of a request, without compression: the size would be that of the compressed bytes."""
        options = {**self.kwargs, **given}
        options["headers"] = {**options.get("headers", {}), "Accept-Encoding": "identity"}
        return options


def _described(url: str, response: aiohttp.ClientResponse, size: int | None, ranges: bool | None) -> dict[str, Any]:
    stated = {name: response.headers[name] for name in _VALIDATORS if response.headers.get(name)}
    mimetype = response.headers.get("Content-Type", "").partition(";")[0].strip().lower()
    # A page under a name without suffix is how servers show a folder.
    last = url.partition("?")[0].rpartition("/")[2]
    kind = "directory" if mimetype == "text/html" and "." not in last else "file"
    return {"name": url, "type": kind, "size": size, "ranges": ranges, **stated}


def _stated_size(response: aiohttp.ClientResponse) -> int | None:
    if response.headers.get("Content-Encoding", "identity") not in ("", "identity"):
        return None  # of the compressed bytes
    stated = response.headers.get("Content-Length", "")
    if response.status == 206:
        stated = response.headers.get("Content-Range", "").rpartition("/")[2]
    return int(stated) if stated.isdecimal() else None


async def _body(response: aiohttp.ClientResponse, limit: int) -> bytes:
    """The body, or its first ``limit`` bytes."""
    body = bytearray()
    async for piece in response.content.iter_any():
        body += piece
        if len(body) >= limit:
            break
    return bytes(body[:limit])
