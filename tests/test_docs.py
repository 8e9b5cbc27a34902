"""What README.md and docs/ show can be pasted, and what they list is what there is."""

from __future__ import annotations

import ast
import re
import shlex
import signal
import sys
import types
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer

from segbatch import models, refiners
from segbatch.cli import app as cli
from segbatch.config.training import RECIPE_FIELDS
from segbatch.errors import SegbatchError
from segbatch.labels import CAMVID_LABELS, VOC_LABELS
from segbatch.operations.nightly import record
from segbatch.output.schema import reference
from segbatch.records import Scores
from segbatch.refiners.entry import RefinerRequest
from tests import here
from tests.corpus import photographs, write_tar

ROOT = Path(__file__).resolve().parents[1]
PAGES = {p.name: p.read_text() for p in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))}
GROUP = typer.main.get_command(cli.app)
# What stands for words of the reader's own, in lines of commands.
PLACEHOLDERS = {"...": "", "$DATA": "in --labels labels", "$HOW": ""}


def code(page: str) -> list[str]:
    """The fenced blocks of a page."""
    return [text.partition("\n")[2] for text in re.split(r"^```", PAGES[page], flags=re.M)[1::2]]


def commands() -> list[tuple[str, str]]:
    """Every line ``segbatch COMMAND ...`` of the blocks of code, and of what is submitted to Ray: (page, line)."""
    found = []
    for page in PAGES:
        for line in [*"\n".join(code(page)).replace("\\\n", " ").splitlines(), *submitted(page)]:
            line = re.split(r" # |;|$", line)[0]
            if match := re.search(r"(?:^|-- |^\.venv/bin/)(segbatch .*)$", line):
                found.append((page, match[1]))
    return found


def submitted(page: str) -> list[str]:
    """Every ``ray job submit``, in blocks of code and in the text."""
    return [" ".join(t.split()) for t in re.findall(r"ray job submit [^`\n]*(?:\n[^`\n]+(?=`))?", PAGES[page])]


@pytest.mark.parametrize(("page", "line"), commands())
def test_the_command_line_takes_each_line(page: str, line: str) -> None:
    for word, stands_for in PLACEHOLDERS.items():
        line = re.sub(rf"(?<=\s){re.escape(word)}(?=\s|$)", stands_for, line)
    _, name, *words = shlex.split(line)
    GROUP.commands[name].make_context(name, words).close()  # type: ignore[attr-defined]


def test_enough_lines_are_found() -> None:
    names = {shlex.split(line)[1] for _, line in commands()}
    assert {"run", "train", "verify", "nightly"} <= names
    assert len(commands()) > 20


def test_what_is_submitted_to_ray_finds_its_files() -> None:
    """A relative path is read in the folder that ``--working-dir`` uploads; without one there is none."""
    lines = [line for page in PAGES for line in submitted(page) if " -- " in line]
    assert len(lines) > 3
    for line in lines:
        before, _, entry = line.partition(" -- ")
        folder = re.search(r"--working-dir (\S+)", before)
        for word in entry.split():
            if word.endswith((".py", ".yaml")) and not word.startswith(("/", "s3://")):
                assert folder is not None, line
                assert (ROOT / folder[1] / word).exists(), line


def test_the_layout_of_an_output(tmp_path: Path) -> None:
    layout = next(block for block in code("README.md") if block.startswith("OUTPUT/"))
    listed = [line.split()[0] for line in layout.splitlines()[1:]]
    patterns = [re.sub(r"<\w+>", "*", name).replace("[-end]", "*") for name in listed]
    write_tar(tmp_path / "in" / "a.tar", photographs(5, side=24))
    here.run(here.spec([str(tmp_path / "in")], tmp_path / "out"))
    there = [str(f.relative_to(tmp_path / "out")) for f in (tmp_path / "out").rglob("*") if f.is_file()]
    for file in there:
        assert any(fnmatchcase(file, p) for p in patterns), file
    for pattern in patterns:
        only_at_times = pattern in ("report.html", "retired/", "set-aside/")
        assert only_at_times or any(fnmatchcase(file, pattern) for file in there), pattern


def test_the_columns_are_those_of_the_schema() -> None:
    assert reference() in PAGES["README.md"], f"README.md, What comes out, should have:\n{reference()}"


def test_the_table_of_exit_codes_is_that_of_the_code() -> None:
    table = PAGES["operate.md"].split("| code | of | meaning |")[1].split("\n\n")[0]
    said = {int(n) for cell in re.findall(r"^\| ([\d, ]+) \|", table, re.M) for n in cell.split(",")}
    nodes = [n for path in (ROOT / "segbatch/cli").glob("*.py") for n in ast.walk(ast.parse(path.read_text()))]
    ends = [n for n in nodes if isinstance(n, ast.Call) and ast.unparse(n.func) in ("sys.exit", "typer.Exit")]
    literal = {c.value for n in ends for a in n.args for c in ast.walk(a) if isinstance(c, ast.Constant)}
    raised = {kind.exit_code for kind in _below(SegbatchError)}
    by_signals = {128 + number for number in (signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP)}
    assert said == {0, record.ERRORS, record.DRIFT} | raised | literal | by_signals


def _below(kind: type[SegbatchError]) -> set[type[SegbatchError]]:
    return {kind}.union(*(_below(k) for k in kind.__subclasses__()))


def test_the_names_of_the_classes() -> None:
    card = (ROOT / "segbatch" / "models" / "data" / "README.md").read_text()
    for text, labels in ((PAGES["README.md"], VOC_LABELS), (card, VOC_LABELS), (card, CAMVID_LABELS)):
        assert ", ".join(labels.names) in " ".join(text.split())


def test_help_marks_the_defaults_that_depend_on_the_network() -> None:
    for parameter in GROUP.commands["train"].params:  # type: ignore[attr-defined]
        marked = "another for some networks" in (getattr(parameter, "help", None) or "")
        assert marked == (parameter.name in RECIPE_FIELDS), parameter.name


def test_the_refiner_of_the_contributors_guide_works() -> None:
    block = re.search(r"```python\n(.*?)```", (ROOT / "CONTRIBUTING.md").read_text(), re.DOTALL)
    assert block
    names: dict[str, type] = {}
    exec(block[1].replace("REFINERS.add(", "(lambda *_: None)("), names)
    values = np.random.default_rng(0).normal(size=(3, 4, 5)).astype(np.float16)
    scores = Scores(values, np.arange(3), 15, 18, 4)
    mask, marginal = names["ModeRefiner"]().refine(None, scores)
    assert (mask.shape, mask.dtype, marginal.shape) == ((15, 18), np.int16, (15, 18))


def test_the_network_and_the_refiner_of_the_readme_are_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    module: Any = types.ModuleType("of_the_readme")
    for block in code("README.md"):
        if "class Network" in block or "class Refiner" in block:
            exec(block, vars(module))
    module.Network.logits = lambda self, image: np.zeros((3, -(-image.shape[0] // 8), -(-image.shape[1] // 8)), "f4")
    monkeypatch.setitem(sys.modules, "of_the_readme", module)
    model = models.describe("of_the_readme:Network")
    assert (model.labels.names, model.stride, model.wrong_size, model.untried) == (
        ("background", "road", "sky"),
        8,
        "",
        "",
    )
    assert refiners.describe(RefinerRequest("of_the_readme:Refiner"), model).parameters["temperature"] == 2
