"""Posts the summary of a nightly run as JSON. A failed post is a line in the report, never a failed run."""

from __future__ import annotations

import http.client
import json
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from urllib.parse import urlsplit

from segbatch.config.nightly import WebhookSpec
from segbatch.operations.nightly.record import NightReport
from segbatch.operations.nightly.summary import to_markdown

_FIRST_WAIT = 1.0
_TRANSIENT = {408, 425, 429, 500, 502, 503, 504}


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *args: object, **kwargs: object) -> None:
        """urllib would follow by GET, without the summary and with the headers."""


def post(spec: WebhookSpec, night: NightReport, sleep: Callable[[float], None] = time.sleep) -> str:
    """POST ``{"text": the Markdown, ... the report}``, with retries.

    Returns:
        Why it could not be posted, or "".
    """
    body = json.dumps({"text": to_markdown(night), **night.to_json()}).encode()
    headers = {"Content-Type": "application/json", "User-Agent": "segbatch", **spec.headers}
    host = urlsplit(spec.url).hostname
    opener = urllib.request.build_opener(_NoRedirects)
    wait, reason = _FIRST_WAIT, ""
    for attempt in range(spec.attempts):
        if attempt:
            sleep(wait)
            wait *= 2
        try:
            request = urllib.request.Request(spec.url, body, headers, method="POST")
            with opener.open(request, timeout=spec.timeout):
                return ""
        except urllib.error.HTTPError as e:
            e.close()
            reason = f"{host} answers {e.code} {e.reason}"
            if e.code not in _TRANSIENT:
                return reason
        except (OSError, http.client.HTTPException, ValueError) as e:
            # Only the type: some messages hold the URL, which may be a secret.
            reason = f"{host}: {type(e.reason if isinstance(e, urllib.error.URLError) else e).__name__}"
    return f"{reason}, {spec.attempts} times"
