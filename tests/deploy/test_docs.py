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
        (r"10⁶ / \(3600 · 132\) = ([\d.]+) h", 1e6 / 3600 / 132),
        (r"1\.85 \+ 0\.237 \+ 0\.003\) / 32 / 3600 = ([\d.]+) h", 1e6 * 2.09 / 32 / 3600),
        (r"0\.113 \+ 0\.237 \+ 0\.003\) / 32 / 3600 = ([\d.]+) h", 1e6 * 0.353 / 32 / 3600),
        (r"0\.087 \+ 0\.237 \+ 0\.003\) / 32 / 3600 = ([\d.]+) h", 1e6 * 0.327 / 32 / 3600),
        (r"0\.087 \+ 0\.032 \+ 0\.003\) / 32 / 3600 = ([\d.]+) h", 1e6 * 0.122 / 32 / 3600),
        (r"`110 · 0\.243 ≈ ([\d.]+)` cores", 110 * 0.243),
        (r"`32 / 0\.243 = (\d+)` images/s", 32 / 0.243),
        (r"([\d,]+) images/s on an L4", 121e12 / 3.57e11),
        (r"images/s on an L4 \(121·10¹² FLOP/s\) and ([\d,]+) on an H200", 790e12 / 3.57e11),
    ],
)
def test_arithmetic(said: str, value: float) -> None:
    (found,) = re.findall(said, TEXT.replace("\n", " "))
    assert float(found.replace(",", "")) == pytest.approx(value, rel=0.05)
