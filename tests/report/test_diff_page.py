"""The page of a difference in a browser: A at one end of the slider, B at the other, and hostile names as text."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from segbatch.errors import SpecError
from segbatch.operations.diff import diff
from segbatch.operations.diff_page import write_diff_page
from segbatch.operations.page_file import refuse_foreign
from tests import here
from tests.corpus import photographs, write_folder
from tests.report.conftest import Visit

HOSTILE = '"><img src=x onerror=alert(1)>.jpg'


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("diff")
    (_, data), *images = photographs(6, side=64)
    inputs = [str(write_folder(folder / "in", [(HOSTILE, data), *images]))]
    a, b, to = str(folder / "a"), str(folder / "b"), folder / "diff.html"
    here.run(here.spec(inputs, a))
    here.run(here.spec(inputs, b, model="tests.networks:Reordered"))
    found = diff(a, b)
    address, size = write_diff_page(found, (a, b), to)
    assert (address, size) == (str(to), to.stat().st_size)
    assert len(found.changed) == 6
    return to


@pytest.fixture(scope="module")
def visit(browser: Any, page: Path) -> Iterator[Visit]:
    visit = Visit.of(browser, page)
    yield visit
    visit.page.close()


def test_the_slider_moves_from_a_to_b(visit: Visit) -> None:
    cards = visit.page.locator(".card")
    assert cards.count() == 6
    assert cards.first.locator(".photograph").count() == 1
    left = cards.first.locator(".mask.left")
    before = left.evaluate("e => getComputedStyle(e).clipPath")
    slider = visit.page.locator("#gallery .split").first
    slider.focus()
    for _ in range(30):
        visit.page.keyboard.press("ArrowRight")
    assert left.evaluate("e => getComputedStyle(e).clipPath") != before
    labels = visit.page.locator("#gallery label.range", has=visit.page.locator(".split")).first.inner_text()
    assert labels.index("A: a") < labels.index("B: b")


def test_the_classes_of_both_are_matched_by_name(visit: Visit) -> None:
    names = visit.page.locator("#classes td.name").all_inner_texts()
    assert set(names) == {"dark", "middle", "bright", "gray"}
    rates = visit.page.locator("table.confusion tbody tr").first.locator("td").all_inner_texts()
    assert 99 < sum(float(rate) for rate in rates if rate) <= 100.1
    assert "classes that only A has: middle" in visit.page.locator("#verdict").inner_text()


def test_hostile_names_are_text_and_nothing_is_requested(visit: Visit) -> None:
    assert any(HOSTILE in text for text in visit.page.locator(".card .id").all_inner_texts())
    assert visit.events == []


def test_only_a_page_of_segbatch_is_replaced(page: Path, tmp_path: Path) -> None:
    refuse_foreign(page)
    refuse_foreign(tmp_path / "new.html")
    (tmp_path / "mine.html").write_text("<html>")
    with pytest.raises(SpecError, match="is not a page of segbatch"):
        refuse_foreign(tmp_path / "mine.html")
