"""Self-contained HTML pages: one file without requests, whose only script is the one that it came with."""

from __future__ import annotations

import datetime
import functools
import secrets
from collections.abc import Iterable
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

import jinja2
from markupsafe import Markup

from segbatch.report.gallery import Card, Gallery

_TEMPLATES = Path(__file__).parent / "templates"


def render(template: str, page: object) -> bytes:
    """Return a page as UTF-8.

    Args:
        template: A file in ``templates`` that extends ``base.html.j2``.
        page: What the template shows, a dataclass. Text in it is escaped; it needs no preparation.
    """
    text = (
        _environment()
        .get_template(template)
        .render(
            page=page,
            nonce=secrets.token_urlsafe(16),
            style=Markup((_TEMPLATES / "page.css").read_text()),
            script=Markup((_TEMPLATES / "page.js").read_text()),
            version=version("segbatch"),
            written=datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC"),
        )
    )
    return _encoded(text)


def fill(gallery: Gallery, cards: Iterable[Card], max_bytes: int) -> Gallery:
    """Return a gallery with the first of ``cards`` that take at most ``max_bytes`` of a page; no more are taken."""
    macro = _environment().get_template("gallery.html.j2").module.card  # type: ignore[attr-defined]
    kept, total = [], 0
    for card in cards:
        total += len(_encoded(macro(gallery, card)))
        if total > max_bytes:
            break
        kept.append(card)
    return replace(gallery, cards=tuple(kept))


@functools.cache
def _environment() -> jinja2.Environment:
    return jinja2.Environment(
        loader=jinja2.FileSystemLoader(_TEMPLATES),
        autoescape=True,  # select_autoescape() does not know the suffix .html.j2
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def _encoded(text: str) -> bytes:
    return text.encode("utf-8", "backslashreplace")
