"""Untrusted names in XML files."""

from __future__ import annotations

import re
from xml.sax.saxutils import escape, quoteattr

# XML 1.0 has no form for these, not even as references.
_ILLEGAL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff\ufffe\uffff]")
_WHITESPACE = {"\t": "&#9;", "\n": "&#10;", "\r": "&#13;"}


def legal(name: str) -> str:
    """Return a name with U+FFFD for each character that XML cannot hold."""
    return _ILLEGAL.sub("\ufffd", name)


def quoted(name: str) -> str:
    """Return the value of an attribute, with its quotes; a parser returns ``legal(name)``."""
    return quoteattr(legal(name), _WHITESPACE)


def element_text(name: str) -> str:
    """Return the text of an element; a parser returns ``legal(name)``."""
    return escape(legal(name))
