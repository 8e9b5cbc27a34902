"""The page of a report in a browser: it loads nothing, escapes everything, and its controls do what they say."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from segbatch.codecs.photograph import encode
from segbatch.operations.report import MAX_BYTES, ReportOptions, build_report
from segbatch.output.output import Output
from segbatch.report.encoding import data_uri, mask_uri
from segbatch.report.gallery import Card, CardClass, Gallery
from segbatch.report.page import fill, render
from segbatch.report.run_report import RunReport
from tests import here
from tests.corpus import photograph, photographs, write_tar
from tests.report.conftest import Visit
from tests.report.networks import NAMES

HOSTILE_ID = '"><img src=x onerror=alert(1)>'


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> RunReport:
    """Five masks, each compared with its mirror image, and two errors; names of images and classes are hostile."""
    folder = tmp_path_factory.mktemp("report")
    samples = photographs(5, side=120)
    samples[0] = (f"{HOSTILE_ID}.jpg", samples[0][1])
    broken = [("<svg onload=alert(2)>.jpg", b"<html>gone</html>"), ("empty.jpg", b"")]
    write_tar(folder / "in" / "a.tar", [*samples, *broken])
    here.run(here.spec([str(folder / "in")], folder / "out", model="tests.report.networks:hostile"))
    report = build_report(Output.open(str(folder / "out")), ReportOptions())
    mirrored = mask_uri((np.indices((40, 60))[1] // 20).astype(np.uint8), 40, 60, report.gallery.labels)
    cards = tuple(
        dataclasses.replace(card, masks=(*card.masks, mirrored)) if card.masks else card
        for card in report.gallery.cards
    )
    return dataclasses.replace(report, gallery=dataclasses.replace(report.gallery, cards=cards))


@pytest.fixture(scope="module")
def file(report: RunReport, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("page") / "report.html"
    path.write_bytes(render("report.html.j2", report))
    return path


@pytest.fixture(scope="module")
def opened(browser: Any, file: Path) -> Visit:
    return Visit.of(browser, file, viewport={"width": 1280, "height": 900})


@pytest.fixture
def visit(opened: Visit) -> Visit:
    """The page as it is when it was loaded."""
    opened.page.reload(wait_until="load")
    opened.events.clear()
    return opened


def shown(visit: Visit) -> int:
    return int(visit.page.locator("#gallery .grid .card:visible").count())


def test_a_page_loads_nothing_says_nothing_and_shows_hostile_names_as_text(browser: Any, file: Path) -> None:
    visit = Visit.of(browser, file)
    visit.page.wait_for_timeout(100)
    assert visit.events == []
    assert HOSTILE_ID in visit.page.locator("#gallery").text_content()
    assert "<svg onload=alert(2)>" in visit.page.locator("#errors").text_content()
    assert all(name in visit.page.locator("#classes").text_content() for name in NAMES[1:])
    assert visit.page.locator("img[src=x], svg[onload], section script:not([type])").count() == 0
    visit.page.close()


def test_a_script_that_is_injected_does_not_run(browser: Any, file: Path, tmp_path: Path) -> None:
    """Were the escaping to fail, the policy of the page refuses scripts, handlers, images and forms."""
    attack = (
        "<script>alert('inline')</script><img src=https://example.com/a.png onerror=alert('handler')>"
        "<a id=link href=\"javascript:alert('link')\">link</a><form action=https://example.com><button id=send></form>"
    )
    (tmp_path / "page.html").write_text(file.read_text().replace("</main>", f"{attack}</main>"))
    visit = Visit.of(browser, tmp_path / "page.html")
    visit.page.locator("#link").click()
    visit.page.evaluate("document.querySelector('form').requestSubmit()")
    visit.page.wait_for_timeout(100)
    done = [event for event in visit.events if not event.startswith("console: ")]
    assert done == ["request: https://example.com/a.png", "refused: https://example.com/a.png by csp"]
    assert sum("Content Security Policy" in event for event in visit.events) == 5  # each of them
    visit.page.close()


def test_the_sliders_uncover_the_other_mask_and_the_photograph(visit: Visit) -> None:
    def style(selector: str, name: str) -> str:
        script = "(e, name) => getComputedStyle(e)[name]"
        return str(visit.page.locator(f".grid .card {selector}").first.evaluate(script, name))

    def covers() -> tuple[str, str]:
        return style(".mask.left", "clipPath"), style(".mask.right", "clipPath")

    assert covers() == ("inset(0px 0px 0px 0%)", "inset(0px 100% 0px 0px)")
    slider = visit.page.locator("#gallery > .controls .split")
    slider.focus()
    slider.press("End")
    assert covers() == ("inset(0px 0px 0px 100%)", "inset(0px 0% 0px 0px)")
    slider.press("ArrowLeft")
    assert covers() == ("inset(0px 0px 0px 99%)", "inset(0px 1% 0px 0px)")
    visit.page.locator("#gallery > .controls .opacity").fill("0")
    assert style(".mask.left", "opacity") == "0"
    assert visit.events == []


def test_the_filters_choose_cards(visit: Visit, report: RunReport) -> None:
    cards = report.gallery.cards
    assert shown(visit) == len(cards) == 7
    for class_id in report.gallery.class_ids:
        visit.page.locator(".by-class").select_option(str(class_id))
        assert shown(visit) == sum(class_id in {c.id for c in card.classes} for card in cards)
    visit.page.locator(".by-class").select_option("")
    visit.page.locator(".by-error").select_option("none")
    assert shown(visit) == 5
    visit.page.locator(".by-error").select_option("decode/EmptyImage")
    assert shown(visit) == 1
    visit.page.locator(".by-error").select_option("")
    visit.page.locator(".by-masks").check()
    assert shown(visit) == 5
    visit.page.locator(".by-masks").uncheck()
    limit = sorted(card.confidence for card in cards if card.confidence is not None)[2]
    visit.page.locator(".by-confidence").fill(str(int(100 * limit)))
    bound = int(100 * limit) / 100
    assert shown(visit) == sum(card.confidence is not None and card.confidence <= bound for card in cards)
    assert visit.page.locator(".shown").inner_text() == f"{shown(visit)} of 7 shown"


def test_the_table_of_classes_is_sorted_by_its_headings(visit: Visit) -> None:
    heads = visit.page.locator("#classes th:has(button)")
    assert heads.nth(2).get_attribute("aria-sort") == "descending"
    for column, order in ((0, "ascending"), (0, "descending"), (3, "ascending"), (1, "descending")):
        heads.nth(column).locator("button").click()
        assert heads.nth(column).get_attribute("aria-sort") == order
        assert visit.page.locator("#classes th[aria-sort]").count() == 1
        read = (
            "(cells, column) => cells.map(c => column ? Number(c.dataset.value) : c.textContent.trim().toLowerCase())"
        )
        values = visit.page.locator(f"#classes tbody td:nth-child({column + 1})").evaluate_all(read, column)
        assert values == sorted(values, reverse=order == "descending")


def test_the_keyboard_moves_enlarges_and_closes(visit: Visit) -> None:
    keyboard, focused = (
        visit.page.keyboard,
        "[...document.querySelectorAll('.grid .card')].indexOf(document.activeElement)",
    )
    for key, expected in (("j", 0), ("j", 1), ("j", 2), ("k", 1)):
        keyboard.press(key)
        assert visit.page.evaluate(focused) == expected
    keyboard.press("Enter")
    viewer = visit.page.locator("#viewer")
    assert viewer.evaluate("dialog => dialog.open")
    before = viewer.locator("bdi").inner_text()
    keyboard.press("j")
    assert viewer.locator("bdi").inner_text() != before
    keyboard.press("Escape")
    assert not viewer.evaluate("dialog => dialog.open")
    visit.page.wait_for_function(f"{focused} === 2")
    keyboard.press("m")
    assert visit.page.locator("#gallery > .controls .opacity").input_value() == "0"
    assert visit.events == []


def test_the_class_below_the_pointer_is_named(visit: Visit) -> None:
    """The second mask has background, the first and the second class in three vertical stripes."""
    visit.page.locator("#gallery > .controls .split").fill("100")
    visit.page.locator(".grid .card .stage:has(.mask.right)").first.click()
    stage = visit.page.locator("#viewer .stage").bounding_box()
    names = []
    for third in (-1, 0, 1):
        x, y = stage["x"] + stage["width"] / 2 + third * stage["height"] / 2, stage["y"] + stage["height"] / 2
        visit.page.mouse.move(x, y)
        names.append(visit.page.locator("#hover").inner_text())
    assert names == [f"{name} ({i})" for i, name in enumerate(NAMES)]


def test_a_phone_scrolls_in_one_direction_alone(browser: Any, file: Path) -> None:
    visit = Visit.of(browser, file, viewport={"width": 390, "height": 844}, has_touch=True)
    assert visit.page.evaluate("document.documentElement.scrollWidth") == 390
    visit.page.locator(".grid .card .stage").first.tap()
    assert visit.page.locator("#viewer").evaluate("d => d.open && d.getBoundingClientRect().right <= 390")
    visit.page.close()


def test_the_page_follows_the_color_scheme_and_prints_without_controls(browser: Any, file: Path) -> None:
    visit = Visit.of(browser, file, color_scheme="dark")
    paper = "getComputedStyle(document.body).backgroundColor"
    dark = visit.page.evaluate(paper)
    visit.page.emulate_media(color_scheme="light")
    assert dark != visit.page.evaluate(paper)
    visit.page.emulate_media(media="print", color_scheme="dark")
    assert visit.page.evaluate(paper) == "rgb(255, 255, 255)"
    assert not visit.page.locator("#gallery > .controls").is_visible()
    assert visit.page.locator(".grid .card").first.is_visible()
    visit.page.close()


def test_a_gallery_stays_within_the_bytes_that_it_is_given(report: RunReport) -> None:
    """200 photographs of the size of the previews fit into a page; one that is too large is cut."""
    labels, image = report.gallery.labels, photograph(0, side=480)
    mask = np.kron(np.random.default_rng(0).integers(0, 3, (12, 16)), np.ones((30, 30), int)).astype(np.uint8)
    encoded = mask_uri(mask, *image.shape[:2], labels)
    classes = tuple(CardClass(c, 0.3, 0.5) for c in range(3))
    card = Card(
        "a/" + "&é" * 40, *image.shape[:2], data_uri(encode(image)), (encoded, encoded), classes, 0.5, "by hash"
    )

    def page(gallery: Gallery) -> int:
        return len(render("report.html.j2", dataclasses.replace(report, gallery=gallery)))

    empty = dataclasses.replace(report.gallery, cards=())
    assert page(fill(empty, [card] * 200, MAX_BYTES)) < MAX_BYTES
    cut = fill(empty, iter([card] * 200), 1_000_000)
    assert 20 < len(cut.cards) < 40
    assert abs(page(cut) - page(empty) - 1_000_000) < 50_000
