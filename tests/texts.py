"""What segbatch says: its docstrings, messages and help, drawn at random to be read.

python -m tests.texts             # fifty of them, by the hash of the commit that is checked out
python -m tests.texts --seed 7 --number 20
"""

from __future__ import annotations

import argparse
import ast
import random
import subprocess
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
_DEFINITIONS = (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
# The calls whose first string is shown to a person, and the argument of those whose help is.
_MESSAGES = frozenset({"message", "warning", "error", "info", "event"})
_HELP = frozenset({"setting", "Option", "Argument", "add_argument"})


@dataclass(frozen=True)
class Text:
    """One text. ``place`` is ``file:line``, ``kind`` docstring, message or help."""

    place: str
    kind: str
    text: str


def texts(folder: str = "segbatch") -> list[Text]:
    """Find all texts of the package, in the order of files and lines; docstrings of public names alone."""
    found: list[Text] = []
    for path in sorted((ROOT / folder).rglob("*.py")):
        name, tree = path.relative_to(ROOT), ast.parse(path.read_text())
        found += [Text(f"{name}:{line}", "docstring", text) for line, text in _docstrings(tree)]
        for node in ast.walk(tree):
            if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call):
                found += _first(f"{name}:{node.lineno}", "message", node.exc.args)
            elif isinstance(node, ast.Call):
                called = _name(node.func)
                if called in _MESSAGES:
                    found += _first(f"{name}:{node.lineno}", "message", node.args)
                elif called in _HELP:
                    given = [keyword.value for keyword in node.keywords if keyword.arg == "help"]
                    found += _first(f"{name}:{node.lineno}", "help", given or node.args[1:2])
    return found


def _docstrings(tree: ast.AST) -> Iterator[tuple[int, str]]:
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, _DEFINITIONS) and (not node.name.startswith("_") or node.name == "__init__"):
            if text := ast.get_docstring(node):
                yield node.lineno, text
            if isinstance(node, ast.ClassDef):
                yield from _docstrings(node)
    if isinstance(tree, ast.Module) and (text := ast.get_docstring(tree)):
        yield 1, text


def _first(place: str, kind: str, arguments: list[ast.expr]) -> list[Text]:
    """The first text among ``arguments`` that is a sentence or a phrase, and not a stable word for grouping."""
    shown = [text for argument in arguments if " " in (text := _written(argument))]
    return [Text(place, kind, shown[0])] if shown else []


def _written(node: ast.expr) -> str:
    """The text of a string literal as it is written, with ``{name}`` for what is filled in; "" for anything else."""
    if isinstance(node, ast.Constant):
        return node.value if isinstance(node.value, str) else ""
    if isinstance(node, ast.JoinedStr):
        parts = (v.value if isinstance(v, ast.Constant) else f"{{{ast.unparse(v.value)}}}" for v in node.values)  # type: ignore[attr-defined]
        return "".join(map(str, parts))
    return ""


def _name(node: ast.expr) -> str:
    return node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seed", help="seed of the draw (default: the hash of the commit)")
    parser.add_argument("--number", type=int, default=50)
    args = parser.parse_args()
    commit = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    drawn = random.Random(args.seed or commit.strip()).sample(texts(), args.number)
    for number, text in enumerate(drawn, 1):
        print(f"{number}. {text.place} ({text.kind})")
        print(textwrap.indent(text.text, "    "))


if __name__ == "__main__":
    main()
