"""Help in plain text, at most 100 columns wide: the common options first, all of them with ``--help-all``."""

from __future__ import annotations

import shutil
import textwrap
from collections.abc import Iterable, Iterator
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup

# What the help of a command with many options shows, in this order. The rest is behind --help-all.
COMMON: dict[str, tuple[str, ...]] = {
    "run": ("inputs", "output", "config", "model", "weights", "refiner", "overwrite", "retry_errors", "address",
            "dry_run", "report", "quiet"),
    "tune-crf": ("inputs", "labels", "output", "config", "model", "weights", "max_images", "ignore", "class_map",
                 "overwrite", "address"),
    "train": ("inputs", "labels", "output", "val", "val_labels", "config", "model", "init", "classes", "ignore",
              "epochs", "address"),
}  # fmt: skip
# What must be given, here or in the file of --config.
_REQUIRED = {"run": ("inputs", "output"), "tune-crf": ("inputs", "labels"), "train": ("inputs", "labels", "output")}
_MAX_WIDTH, _MAX_NAMES = 100, 26
_INDENT = 2
_OTHER = "Other options"

EPILOG = """Exit codes: 0 success; 1 failed, the same command resumes; 2 usage or configuration error; 3 too many error
rows, or a failed shard; 4 drift; 5 another run holds the lease; 130, 143 stopped by a signal (docs/operate.md).

`segbatch COMMAND --help` describes a command. Documentation: README.md and docs/."""


class Command(TyperCommand):
    """A command with the help of this module."""

    def format_help(self, ctx: Any, formatter: Any) -> None:
        formatter.write(command_help(self, ctx, is_all=False))


class Group(TyperGroup):
    """The program, whose help lists the commands in groups."""

    def list_commands(self, ctx: Any) -> list[str]:
        return list(self.commands)  # as registered

    def format_help(self, ctx: Any, formatter: Any) -> None:
        width = _width()
        text = [f"Usage: {ctx.command_path} COMMAND ...", "", *textwrap.wrap(self.help or "", width)]
        groups: dict[str, list[tuple[str, str]]] = {}
        for name, command in self.commands.items():
            assert isinstance(command, Command)
            first = (command.help or "").split("\n\n")[0]
            groups.setdefault(str(command.rich_help_panel), []).append((name, first))
        groups["Options"] = [_record(parameter, "") for parameter in self.get_params(ctx)]
        column = max(len(name) for rows in groups.values() for name, _ in rows)
        for title, rows in groups.items():
            text += ["", f"{title}:", *_columns(rows, width, column)]
        for paragraph in (self.epilog or "").split("\n\n"):
            text += ["", *textwrap.wrap(paragraph, width)]
        formatter.write("\n".join(text) + "\n")


def help_all(ctx: typer.Context, is_given: bool) -> None:
    """Print all options of a command and exit, if the flag is given."""
    if is_given:
        typer.echo(command_help(ctx.command, ctx, is_all=True), nl=False)
        raise typer.Exit


def command_help(command: Any, ctx: Any, is_all: bool) -> str:
    """Return the help of a command as lines of text."""
    width = _width()
    name = str(ctx.info_name)
    parameters = [p for p in command.get_params(ctx) if not p.hidden]
    common = COMMON.get(name, ())
    text = [*_usage(ctx.command_path, name, parameters, width)]
    for paragraph in (command.help or "").split("\n\n"):
        text += ["", *textwrap.wrap(paragraph, width)]
    if common and not is_all:
        chosen = {p.name: p for p in parameters}
        shown = [*(chosen[n] for n in common), chosen["help"]]
        text += ["", "Common options:", *_columns((_record(p, name) for p in shown), width)]
        others = ", ".join(p.opts[-1] for p in parameters if p not in shown)
        text += ["", *textwrap.wrap(f"Others: {others}", width, break_on_hyphens=False)]
        text += ["", f"All {len(parameters)} options: {ctx.command_path} --help-all"]
    else:
        for title, group in _grouped(parameters):
            text += ["", f"{title}:", *_columns((_record(p, name) for p in group), width)]
    return "\n".join(text) + "\n"


def _usage(path: str, name: str, parameters: list[Any], width: int) -> list[str]:
    arguments = [p for p in parameters if p.param_type_name == "argument"]
    options = [p for p in parameters if p.required or p.name in _REQUIRED.get(name, ())]
    pieces = [_names(p).rpartition(", ")[2] for p in dict.fromkeys([*arguments, *options])]
    return textwrap.wrap(" ".join(["Usage:", path, *pieces, "[OPTIONS]"]), width, subsequent_indent=" " * 7)


def _grouped(parameters: list[Any]) -> Iterator[tuple[str, list[Any]]]:
    """Yield the groups of the options in the order of their first one, those without a group last."""
    groups: dict[str, list[Any]] = {}
    for parameter in parameters:
        is_argument = parameter.param_type_name == "argument"
        title = parameter.rich_help_panel or ("Arguments" if is_argument else _OTHER)
        groups.setdefault(title, []).append(parameter)
    groups = {title: groups[title] for title in sorted(groups, key=lambda title: title == _OTHER)}
    yield from ({"Options" if len(groups) < 3 and t == _OTHER else t: g for t, g in groups.items()}).items()


def _names(parameter: Any) -> str:
    """Return ``-o, --output OUTPUT``; of an argument ``INPUT...``."""
    value = str(parameter.metavar or parameter.name.rpartition("_")[2].upper())
    if parameter.param_type_name == "argument":
        return value
    long = next((name for name in parameter.opts if name.startswith("--")), parameter.opts[0])
    if parameter.secondary_opts:
        return long.replace("--", "--[no-]", 1)
    short = [name for name in parameter.opts if not name.startswith("--")]
    return ", ".join([*short, long]) + ("" if parameter.is_flag else f" {value}")


def _record(parameter: Any, command: str) -> tuple[str, str]:
    """Return the names of an option, and its help with its default."""
    text, default = parameter.help or "", parameter.default
    if parameter.name == "help":
        text = "show this help and exit"
    elif parameter.required:
        text += " (required)"
    elif parameter.name in _REQUIRED.get(command, ()):
        text += " (required, here or in --config)"
    elif default not in (None, False, "", []) and parameter.show_default:
        shown = " ".join(map(str, default)) if isinstance(default, list) else default
        text += f" (default: {shown})"
    return _names(parameter), text


def _columns(rows: Iterable[tuple[str, str]], width: int, names: int = 0) -> list[str]:
    """Return rows of two columns, the first at least ``names`` wide; a name that is too long has its own line."""
    rows = list(rows)
    column = max(names, min(_MAX_NAMES, max(len(name) for name, _ in rows))) + 2 + _INDENT
    lines = []
    for name, text in rows:
        wrapped = textwrap.wrap(text, width - column, break_on_hyphens=False) or [""]
        if len(name) + 2 + _INDENT > column:
            lines.append(" " * _INDENT + name)
        else:
            lines.append(f"{' ' * _INDENT}{name}".ljust(column) + wrapped.pop(0))
        lines += [" " * column + line for line in wrapped]
    return [line.rstrip() for line in lines]


def _width() -> int:
    return max(40, min(_MAX_WIDTH, shutil.get_terminal_size().columns))
