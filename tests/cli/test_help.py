"""Help that a terminal of any width shows, and usage errors that say what to do."""

from __future__ import annotations

import re
from typing import Any

import pytest
import typer

from segbatch.cli import app as cli
from segbatch.cli.help import COMMON
from tests.cli.conftest import Command

GROUP: Any = typer.main.get_command(cli.app)


@pytest.mark.parametrize("width", [60, 80, 120])
@pytest.mark.parametrize("name", ["", *GROUP.commands])
def test_help_fits(command: Command, monkeypatch: pytest.MonkeyPatch, name: str, width: int) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    for flag in ("--help", *(["--help-all"] if name in COMMON else [])):
        code, text, other = command(*([name] if name else []), flag)
        assert (code, other) == (0, "")
        assert max(map(len, text.splitlines())) <= width
        assert text.startswith(f"Usage: segbatch {name}")
        assert not re.search(r"<\w+>|default: default|default: None", text)


def test_the_common_options_are_few_and_all_are_a_flag_away(command: Command) -> None:
    for name, common in COMMON.items():
        short, long = command(name, "--help")[1], command(name, "--help-all")[1]
        assert len(common) <= 12
        assert f"All {len(GROUP.commands[name].params) + 1} options: segbatch {name} --help-all" in short
        for parameter in GROUP.commands[name].params:
            flag = next((o for o in parameter.opts if o.startswith("--")), "INPUT...")
            shown = flag if not parameter.secondary_opts else flag.replace("--", "--[no-]")
            assert re.search(rf"^  .*{re.escape(shown)}\b", long, re.MULTILINE) or shown == "INPUT..."
            assert (re.search(rf"^  (-\w, )?{re.escape(shown)}(?![-\w])", short, re.MULTILINE) is not None) == (
                parameter.name in common
            ), parameter.name


def test_every_option_has_help() -> None:
    for name, found in GROUP.commands.items():
        for parameter in found.params:
            assert parameter.hidden or len(parameter.help or "") > 8, (name, parameter.name)


def test_inputs_come_first_and_what_must_be_given_is_in_the_first_line(command: Command) -> None:
    text = command("run", "--help-all")[1]
    assert text.startswith("Usage: segbatch run INPUT... --output OUTPUT [OPTIONS]\n")
    groups = re.findall(r"^(\w[\w ]+):$", text, re.MULTILINE)
    assert groups == ["Input", "Output", "Network", "Refinement", "Where it runs", "Other options"]
    assert "Usage: segbatch eval OUTPUT --labels LABELS [OPTIONS]\n" in command("eval", "-h")[1]
    assert "(auto, fp32, bf16; default: auto)" in " ".join(text.split())
    assert re.search(r"--log-format FORMAT .*\(text, json;\s+default:\s+text\)", text, re.DOTALL)


@pytest.mark.parametrize("arguments", [(), ("--help",), ("-h",)])
def test_the_commands_are_in_groups_with_the_exit_codes(command: Command, arguments: tuple[str, ...]) -> None:
    code, text, _ = command(*arguments)
    assert code == 0
    assert re.search(r"^Compute:\n  run  ", text, re.MULTILINE)
    assert "130, 143 stopped by a signal" in " ".join(text.split())
    for name in GROUP.commands:
        assert re.search(rf"^  {name} ", text, re.MULTILINE)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["stts"], "no such command 'stts'; did you mean 'stats'.; see `segbatch --help`"),
        (["stats"], "missing argument 'OUTPUT'; see `segbatch stats --help`"),
        (["run", "--outptu", "x"], "no such option: --outptu; did you mean .*--output.*; see"),
        (["errors", "out", "--limit"], "option '--limit' requires an argument; see"),
        (["run", "in", "-o", "out", "--chunk-size", "few"], 'chunk_size: got "few"; input should be a valid integer'),
        (["run", "in", "-o", "out", "--model", "segnt"], "did you mean .*'segnet'.* `segbatch models` lists all"),
        (["eval", "out", "--labels", "l", "--json", "m.json"], "--json takes no file.* 'm.json': give --json > FILE"),
        (["eval", "--json", "m.json", "out", "--labels", "l"], "--json takes no file.* 'm.json' and 'out'"),
    ],
)
def test_a_usage_error_is_one_line(command: Command, arguments: list[str], says: str) -> None:
    code, text, error = command(*arguments)
    assert (code, text) == (2, "")
    (line,) = [line for line in error.splitlines() if not re.match(r"\d\d:\d\d:\d\d ", line)]
    assert line.startswith("error: ")
    assert re.search(says, line), line
