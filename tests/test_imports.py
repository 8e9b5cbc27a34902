"""Imports go down only, and what is heavy is where it belongs."""

import ast
import subprocess
import sys
from pathlib import Path

import segbatch

ROOT = Path(segbatch.__file__).parent
# Layer by layer, upwards. A module may import from its own package and from what stands before it.
LAYERS = [
    {"text", "contents"},
    {"errors"},
    {"skipped", "causes", "addresses"},
    {"registry", "labels", "spec", "chunk", "retry"},
    {"leaves", "class_list", "web"},
    {"interfaces"},
    {"sources", "models", "refiners", "encodings", "metrics", "output", "crf"},
    {"report", "export", "training"},
    {"runtime"},
    {"nightly"},
    {"show", "show_eval", "options", "demo"},
    {"cli"},
    {"__main__"},
]
SIBLINGS = {
    ("output", "metrics"),
    ("refiners", "crf"),
    ("refiners", "models"),  # what networks learn with their own refining layers serves others
    ("models", "crf"),
    ("report", "encodings"),
    ("export", "encodings"),
}


def imports():
    for path in sorted(ROOT.rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        if parts == ("__init__",):
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            names = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.level == 0:
                names = [f"{node.module}.{alias.name}" for alias in node.names]
            for name in names:
                yield "/".join(parts), parts[0], name


def layer(part):
    return next(i for i, parts in enumerate(LAYERS) if part in parts)


def test_imports_go_down_only():
    wrong = []
    for where, part, name in imports():
        if not name.startswith("segbatch."):
            continue
        target = name.split(".")[1]
        if target == part or (part, target) in SIBLINGS:
            continue
        if layer(target) >= layer(part):
            wrong.append(f"{where} imports {name}")
    assert not wrong, "\n".join(wrong)


def test_crf_imports_nothing_of_segbatch():
    wrong = [f"{w}: {n}" for w, p, n in imports() if p == "crf" and n.startswith("segbatch.") and ".crf" not in n]
    assert not wrong, "\n".join(wrong)


def test_ray_is_in_runtime_alone():
    wrong = [f"{w}: {n}" for w, p, n in imports() if n.split(".")[0] == "ray" and p != "runtime"]
    assert not wrong, "\n".join(wrong)


def test_torch_is_in_models_training_and_the_torch_engine_alone():
    wrong = [
        f"{w}: {n}"
        for w, p, n in imports()
        if n.split(".")[0] in ("torch", "torchvision")
        and p not in ("models", "training")
        and not w.startswith(("crf/torch", "crf/triton"))
    ]
    assert not wrong, "\n".join(wrong)


def test_the_command_line_starts_without_torch_and_ray():
    code = "import sys, segbatch.cli; print([m for m in ('torch', 'ray') if m in sys.modules])"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
