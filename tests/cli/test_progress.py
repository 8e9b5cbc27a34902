"""What a person sees of a run, on terminals of any width and in logs."""

from __future__ import annotations

import io
import re
import time
from collections.abc import Callable

import pytest
from rich.console import Console

from segbatch.cli.progress import BarReporter, EventReporter, LineReporter, reporter_for
from segbatch.protocols import Progress

LARGE = Progress(1204, 4100, True, 1204, 308_224, 12, 3600.0, 85.1, 7512.0, True)


def text_of(console: Console) -> str:
    return console.file.getvalue()  # type: ignore[attr-defined,no-any-return]


def wait_until(is_so: Callable[[], bool]) -> None:
    end = time.monotonic() + 20
    while not is_so():
        assert time.monotonic() < end
        time.sleep(0.005)


def test_a_log_has_a_line_when_a_phase_begins_and_while_it_lasts() -> None:
    console = Console(file=io.StringIO(), width=80)
    lines = LineReporter(console, every_seconds=0.01)
    lines.phase("reading [inputs]")
    assert re.fullmatch(r"\d\d:\d\d:\d\d reading \[inputs\]\n", text_of(console))
    lines.planned(Progress(2, 6, False), "2 segment x 0.4 CPU")
    assert text_of(console).count("\n") >= 2
    assert re.search(r"^\S+ 4 of 6 chunks to do, starting workers$", text_of(console), re.MULTILINE)
    wait_until(lambda: text_of(console).count("starting workers") > 2)
    lines.committed("a", 1, 0, Progress(3, 6, False, 1, 1, 0, 9.0, None, 0.2, True))
    assert "3/6 chunks, at most 1 s left, 0 errors, 1 image\n" in text_of(console)
    lines.committed("b", 1, 1, Progress(6, 6, False, 4, 10, 1, 20.0, 2.5, 0.0))
    lines.closed()
    assert text_of(console).endswith("6/6 chunks, 1 error, 10 images, 0.5/s\n")
    assert "segment" not in text_of(console)  # the arithmetic of the workers is in --dry-run


def test_a_log_has_few_lines_of_chunks() -> None:
    console = Console(file=io.StringIO())
    lines = LineReporter(console)
    lines.planned(Progress(0, 100, False), "")
    for done in range(1, 101):
        lines.committed("a", 1, 0, Progress(done, 100, False, done, done, 0, 1.0, 1.0, 1.0))
    lines.closed()
    assert re.findall(r"(\d+)/100 chunks", text_of(console)) == ["1", "100"]


@pytest.mark.parametrize("width", [120, 80, 60, 40])
def test_the_bar_is_one_line_and_stays(width: int) -> None:
    console = Console(file=io.StringIO(), force_terminal=True, width=width, color_system=None)
    bar = BarReporter(console)
    bar.phase("loading Ray")
    bar.planned(Progress(0, 4100, True), "")
    bar.warning("image_column: two columns hold images")
    bar.committed("a", 1, 0, LARGE)
    bar.closed()
    shown = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text_of(console))
    lines = [line for line in re.split(r"[\r\n]+", shown) if line]
    assert "warning: image_column: two columns hold images" in lines
    assert max(len(line) for line in lines if "warning" not in line) <= width
    assert "1,204/4,100 chunks" in lines[-1]
    assert ("at most 2 h 05 min left" in lines[-1]) == (width >= 60)
    assert lines[-1].endswith("12 errors, 308,224 images, 85.1/s") == (width == 120)
    assert shown.endswith("\n")  # the line that remains is ended


def test_a_bar_of_a_phase_leaves_nothing() -> None:
    console = Console(file=io.StringIO(), force_terminal=True, width=80)
    bar = BarReporter(console)
    bar.phase("reading the output", 4)
    bar.advanced(3)
    assert "reading the output: 3 of at most 4" in bar.text()
    bar.closed()
    assert text_of(console).endswith("\x1b[2K")  # erased


def test_bars_are_for_terminals_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    assert type(reporter_for(Console(file=io.StringIO()))) is LineReporter
    assert type(reporter_for(Console(file=io.StringIO()), "json")) is EventReporter
