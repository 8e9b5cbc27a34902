"""A browser that opens pages from files, and what a page did in it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest


@dataclass
class Visit:
    """A page that is open, and what it said, asked for and failed at."""

    page: Any
    events: list[str] = field(default_factory=list)

    @staticmethod
    def of(browser: Any, file: Path, **context: Any) -> Visit:
        visit = Visit(browser.new_page(**context))
        visit.page.on("console", lambda message: visit.events.append(f"console: {message.text}"))
        visit.page.on("pageerror", lambda error: visit.events.append(f"error: {error}"))
        visit.page.on("dialog", lambda dialog: (visit.events.append(f"dialog: {dialog.message}"), dialog.dismiss()))
        visit.page.on("request", visit._requested)
        visit.page.on("requestfailed", lambda r: visit.events.append(f"refused: {r.url} by {r.failure}"))
        visit.page.goto(file.as_uri(), wait_until="load")
        visit.events.remove(f"request: {file.as_uri()}")
        return visit

    def _requested(self, request: Any) -> None:
        if not request.url.startswith("data:"):
            self.events.append(f"request: {request.url}")


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """Chromium; without it the tests are skipped, or fail where SEGBATCH_REQUIRE_BROWSER is 1."""
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        if os.environ.get("SEGBATCH_REQUIRE_BROWSER") == "1":
            pytest.fail("no chromium on the path, and SEGBATCH_REQUIRE_BROWSER is 1")
        pytest.skip("no chromium on the path: apt-get install chromium")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        yield browser
        browser.close()
