"""The command diff: the table, JSON, and the page."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests import here
from tests.cli.conftest import Command
from tests.corpus import photographs, write_folder

HOSTILE = "\x1b[31mred[bold].jpg"


@pytest.fixture(scope="module")
def outputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("diff")
    (_, data), *images = photographs(3, side=48)
    inputs = [str(write_folder(folder / "in", [(HOSTILE, data), *images]))]
    here.run(here.spec(inputs, folder / "a"))
    here.run(here.spec(inputs, folder / "b", model="tests.networks:Faded"))
    return folder


def test_the_table_says_which_is_a_and_what_to_do_next(outputs: Path, command: Command) -> None:
    code, text, _ = command("diff", outputs / "a", outputs / "b")
    lines = text.splitlines()
    assert (code, lines[:2]) == (0, [f"A: {outputs / 'a'}", f"B: {outputs / 'b'}"])
    assert lines[2].split("  ")[0] == "class"
    assert "\x1b" not in text
    assert "\\x1b[31mred[bold].jpg" in text
    assert lines[-2].startswith("3 images in both, 0 with equal masks; ")
    assert lines[-1] == f"next: segbatch diff {outputs / 'a'} {outputs / 'b'} --to FILE.html shows the images"
    assert all(len(line) <= 80 for line in lines[2:-2])


def test_the_page_and_the_json(outputs: Path, command: Command, tmp_path: Path) -> None:
    code, text, _ = command("diff", outputs / "a", outputs / "b", "--to", tmp_path / "diff.html", "--images", 1)
    assert (code, text.splitlines()[-1].startswith(f"page: {tmp_path / 'diff.html'} (0.")) == (0, True)
    plain = json.loads(command("diff", outputs / "a", outputs / "b", "--json")[1])
    assert (plain["images"], len(plain["changed"]), len(plain["confusion"])) == (3, 3, 3)
    assert sum(map(sum, plain["confusion"])) == sum(c["pixels_a"] for c in plain["classes"])
    (tmp_path / "mine.html").write_text("<html>")
    code, _, log = command("diff", outputs / "a", outputs / "b", "--to", tmp_path / "mine.html")
    assert (code, "would be replaced" in log, (tmp_path / "mine.html").read_text()) == (2, True, "<html>")
