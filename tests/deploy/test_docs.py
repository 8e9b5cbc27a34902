"""docs/deploy.md names what is there, and its arithmetic is right."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "docs" / "deploy.md").read_text()


def test_paths_exist() -> None:
    linked = re.findall(r"\]\(\.\./([^)]+)\)", TEXT)
    named = re.findall(r"(?<![\w/.])(?:deploy|jobs)/[\w./-]+\w", TEXT)
    assert len(set(linked)) > 5
    for path in {*linked, *named}:
        assert list(ROOT.glob(path.removesuffix("/"))) or list(ROOT.glob(f"{path}*")), path


@pytest.mark.parametrize(
    ("said", "value"),
    [
        (r"10⁶ / \(3600 · 220\) = ([\d.]+) h", 1e6 / 3600 / 220),
        (r"0\.70 \+ 0\.083\) / 32 / 3600 = ([\d.]+) h", 1e6 * 0.786 / 32 / 3600),
        (r"0\.054 \+ 0\.083\) / 32 / 3600 = ([\d.]+) h", 1e6 * 0.14 / 32 / 3600),
        (r"`110 · 0\.086 ≈ ([\d.]+)` cores", 110 * 0.086),
        (r"([\d,]+) images/s on an L4", 121e12 / 3.57e11),
        (r"images/s on an L4 and ([\d,]+) on an H200", 790e12 / 3.57e11),
    ],
)
def test_arithmetic(said: str, value: float) -> None:
    (found,) = re.findall(said, TEXT.replace("\n", " "))
    assert float(found.replace(",", "")) == pytest.approx(value, rel=0.05)
