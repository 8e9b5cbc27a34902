"""Text of strangers: configurations, class names, and what reaches a terminal, a log or a picture."""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from rich.console import Console

from segbatch.class_list import parse_class_list
from segbatch.cli import tables as show
from segbatch.config.base import read_config
from segbatch.config.job import JobSpec
from segbatch.errors import ModelError, SpecError
from segbatch.labels import LabelSet
from segbatch.models import state_dict
from segbatch.output.totals import Totals
from segbatch.records import RecordError
from segbatch.report.contact_sheet import Row, contact_sheet
from segbatch.results.dataset import MaskRow
from segbatch.text import escape_control_characters, escape_lines

# Sets the title, clears the screen, 8-bit CSI, turns text round, and ends the line to begin one of its own.
ESCAPES = "\x1b]0;title\x07\x1b[2J\x9b31m\u202egnp.exe\rok\n3 masks, 0 errors\x00\ud800"


def _laughs(first: str, line: str) -> str:
    """Eight lines, each of which has the one before it nine times."""
    return "\n".join([first, *(line.format(chr(98 + n), ", ".join([f"*{chr(97 + n)}"] * 9)) for n in range(8))])


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("!!python/object/apply:os.system ['touch HERE']", "not valid YAML"),
        ("inputs: !!python/name:os.system", "not valid YAML"),
        ("inputs: !!python/object:segbatch.config.job.JobSpec {}", "not valid YAML"),
        (_laughs("a: &a [l, l, l]", "{0}: &{0} [{1}]"), "with its aliases"),
        (_laughs("a: &a {x: 1, y: 1}", "{0}: &{0} {{<<: [{1}]}}"), "with its aliases"),
        ("inputs: &a [*a, *a]", "contains itself"),
        ("inputs: &a\n  x: *a", "contains itself"),
        ("[" * 5000, "nests too deeply"),
        ("{a: " * 5000, "nests too deeply"),
        ("#" * (16 * 2**20 + 1), "16,777,217 bytes, more than 16,777,216"),
        ("a: 1\n---\nb: 2\n", "not valid YAML"),
    ],
)  # fmt: skip
def test_a_hostile_configuration_is_refused_and_not_carried_out(tmp_path: Path, text: str, says: str):
    path = tmp_path / "job.yaml"
    path.write_text(text.replace("HERE", str(tmp_path / "was-run")))
    with pytest.raises(SpecError, match=says) as caught:
        read_config(path)
    assert "job.yaml" in str(caught.value)
    assert not (tmp_path / "was-run").exists()


def test_ordinary_aliases_are_read(tmp_path: Path):
    (tmp_path / "job.yaml").write_text("crf: &c {w_bilateral: 4}\ninputs: [a]\n")
    assert JobSpec.load(tmp_path / "job.yaml").crf == {"w_bilateral": 4}
    (tmp_path / "job.yaml").write_text("base: &b {x: 1}\nnight: {<<: *b, y: 2}\n")
    assert read_config(tmp_path / "job.yaml")["night"] == {"x": 1, "y": 2}


def test_control_characters_are_escaped_and_readable_text_is_unchanged():
    assert escape_control_characters("Straße 東京 😀 [b]") == "Straße 東京 😀 [b]"
    assert escape_control_characters("a\x1b[31mb\nc\x9b") == "a\\x1b[31mb\\nc\\x9b"
    assert escape_lines("a\nb\x07") == "a\nb\\x07"
    assert escape_control_characters(ESCAPES).isprintable()
    escape_control_characters(ESCAPES).encode()


def _shown(*calls: object) -> str:
    out = io.StringIO()
    console = Console(file=out, force_terminal=True, color_system=None, width=200)
    for call in calls:
        call(console)  # type: ignore[operator]
    return out.getvalue()


def test_nothing_in_a_row_or_a_name_acts_on_the_terminal():
    totals = Totals(1)
    totals.records, totals.errors = 2, {f"read/{ESCAPES}": 2}
    error = RecordError("read", "X", f"met {ESCAPES}")
    row = MaskRow(f"a.tar/{ESCAPES}[bold]", "a.tar", 0, None, None, error=error)
    shown = _shown(lambda c: show.errors(c, totals, [row], False), lambda c: show.print_text(c, ESCAPES))
    assert not any((ord(c) < 32 and c != "\n") or 127 <= ord(c) < 160 or 0x202A <= ord(c) <= 0x202E for c in shown)
    assert not any(line.startswith("3 masks, 0 errors") for line in shown.splitlines()[:-2])
    assert "[bold]" in shown


def test_errors_that_quote_a_stranger_do_not_act_either(tmp_path: Path, monkeypatch, capsys):
    from segbatch.cli import app as cli

    monkeypatch.setattr("sys.argv", ["segbatch", "run", "nowhere\x1b[2J\x9b.tar", "-o", str(tmp_path / "o")])
    with pytest.raises(SystemExit) as stopped:
        cli.run_command()
    assert stopped.value.code == 2
    said = capsys.readouterr()
    assert "\\x1b[2J\\x9b" in said.err
    assert "\x1b" not in said.out + said.err


@pytest.mark.parametrize("name", ["a\nb", "\x1b[31mred", "a\x9bb", "\u202egnp", "", "n" * 101])
def test_class_names_that_would_act_or_fill_the_page_are_refused(name: str):
    with pytest.raises(SpecError, match="a name has 1 to 100 characters"):
        LabelSet.of(["sky", name])


def test_label_files_that_are_no_lists_of_names():
    for text, says in (
        ("[" * 100_000, "cannot read class names"),
        (json.dumps([{"name": "a", "color": [1, 2, 300]}]), "three integers from 0 to 255"),
        (json.dumps([{"name": "a", "color": [1, 2]}]), "three integers from 0 to 255"),
        (json.dumps({"classes": [[3]]}), "cannot read class names"),
    ):
        with pytest.raises(SpecError, match=says):
            parse_class_list(text, "c.json")


def test_a_contact_sheet_is_drawn_of_any_names():
    labels = LabelSet.of(["<script>alert(1)</script>", "[bold]{x}%s", "東京", "n" * 100])
    mask = np.arange(64).reshape(8, 8) % 4
    image = np.zeros((8, 8, 3), np.uint8)
    sheet = contact_sheet([Row(ESCAPES.replace("\ud800", ""), image, (mask,))], ["photograph", "mask"], labels)
    assert sheet.width < 3000


def test_weights_that_unpack_to_more_than_their_file_are_refused():
    packed, stored = io.BytesIO(), io.BytesIO()
    torch.save({"a": torch.zeros(2**20)}, stored)
    with zipfile.ZipFile(stored) as source, zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as out:
        for member in source.infolist():
            out.writestr(member.filename, source.read(member))
    assert len(packed.getvalue()) < 2**16
    with pytest.raises(ModelError, match=r"bomb\.pth.*unpack to 4,1"):
        state_dict.parse(packed.getvalue(), "bomb.pth")
    assert state_dict.parse(stored.getvalue(), "good.pth")["a"].shape == (2**20,)


def test_safetensors_that_lie_are_refused():
    def made(header: dict[str, object], data: bytes = b"") -> bytes:
        text = json.dumps(header).encode()
        return len(text).to_bytes(8, "little") + text + data

    tensor = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}
    assert state_dict.parse(made({"a": tensor}, bytes(8)), "w.safetensors")["a"].tolist() == [0, 0]
    lies = [
        made({"a": {**tensor, "shape": [2**40]}}, bytes(8)),
        made({"a": {**tensor, "shape": [2**63, 2]}}, bytes(8)),
        made({"a": {**tensor, "data_offsets": [0, 2**40]}}, bytes(8)),
        made({"a": {**tensor, "data_offsets": [8, 0]}}, bytes(8)),
        made({"a": tensor, "b": tensor}, bytes(8)),
        made({"a": tensor}, bytes(16)),
        made({"a": {**tensor, "dtype": "PICKLE"}}, bytes(8)),
        (2**62).to_bytes(8, "little") + b"{}",
        (100_000_000).to_bytes(8, "little") + b"{}",
        (10_000).to_bytes(8, "little") + b"[" * 10_000,
    ]
    for lie in lies:
        with pytest.raises(ModelError, match=r"w\.safetensors"):
            state_dict.parse(lie, "w.safetensors")
