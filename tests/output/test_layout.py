"""The names of an output's files are in output/layout.py; no other package contains them."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import segbatch

ROOT = Path(segbatch.__file__).parent
NAMES = re.compile(
    r"\b(?:masks|stats|previews|incoming|retired|set-aside)/|\brun\.json\b|\b_SUCCESS\b|\b(?:shards|classes|files)\.parquet|"
    r"\bswitch\.json|^(?:incoming|set-aside)$|^\.tmp$"
)
FUNCTIONS = {"DATE", "key_of"}
EXCEPT = {
    "exports/png.py": "a folder of the export",
    "exports/yolo_semantic.py": "a folder of the export, by the convention of Ultralytics",
    "storage/hidden.py": "the marker of Spark's outputs, which listings skip",
    "storage/outputs.py": "what listings leave out; tests/planning/test_nesting.py holds it to output/layout.py",
    "storage/local.py": "the folder of its own temporary files",
}


def strings(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Every string of a module that is no docstring."""
    docstrings = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docstrings:
            yield node.lineno, node.value


def test_no_module_outside_output_names_a_file_of_an_output() -> None:
    wrong = []
    for path in sorted(ROOT.rglob("*.py")):
        name = path.relative_to(ROOT).as_posix()
        if name.startswith("output/") or name in EXCEPT:
            continue
        tree = ast.parse(path.read_text())
        wrong += [f"{name}:{line}: {text}" for line, text in strings(tree) if NAMES.search(text)]
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and node.module == "segbatch.output.layout":
                wrong += [f"{name} imports {alias.name}" for alias in node.names if alias.name not in FUNCTIONS]
    assert not wrong, "\n".join(wrong)
