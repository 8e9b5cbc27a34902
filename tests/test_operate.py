"""docs/operate.md tells of messages as segbatch gives them."""

from __future__ import annotations

import ast
import errno
import os
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


def messages() -> list[str]:
    """Every string in the code, with ``…`` for what is filled in."""
    found = [os.strerror(number) for number in errno.errorcode]
    for path in (ROOT / "segbatch").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.append(node.value)
            elif isinstance(node, ast.JoinedStr):
                found.append("".join(v.value if isinstance(v, ast.Constant) else "…" for v in node.values))
    return [" ".join(text.split()) for text in found]


def rows() -> list[str]:
    """The first column of the table of messages and alerts."""
    text = (ROOT / "docs/operate.md").read_text()
    table = text.split("| message, alert |")[1].split("\n\n")[0]
    return [line.split("|")[1] for line in table.splitlines()[2:]]


KNOWN = messages()
ALERTS = (ROOT / "deploy/grafana/alerts.yaml").read_text()


@pytest.mark.parametrize("row", rows())
def test_each_message_of_the_guide_is_one_that_is_given(row: str) -> None:
    quoted = re.findall(r"`([^`]+)`", row)
    assert quoted
    for message in quoted:
        if message.startswith("Segbatch"):
            assert f"alert: {message}" in ALERTS
            continue
        for part in re.split(r"\s*…\s*|\bN\b", message):
            assert not part.strip() or any(part.strip() in text for text in KNOWN), part
