"""What messages advise can be done: options exist, and what `models` shows for --weights is taken."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import typer

from segbatch import models
from segbatch.cli import app as cli
from segbatch.config.crf_mapping import CRF_FIELDS
from segbatch.config.job import JobSpec
from segbatch.config.nightly import NightlySpec
from segbatch.config.training import TrainSpec

ROOT = Path(__file__).resolve().parents[1]
COMMANDS = typer.main.get_command(cli.app).commands  # type: ignore[attr-defined]
FLAGS = {name for c in COMMANDS.values() for p in c.params for name in (*p.opts, *p.secondary_opts)}
FIELDS = {name for spec in (JobSpec, TrainSpec, NightlySpec) for name in spec.model_fields} | CRF_FIELDS.keys()
# Names with an underscore that are no options, and flags of other programs.
OTHER_NAMES = {
    "image_id",
    "account_name",
    "account_key",
    "connection_string",
    "state_dict",
    "weights_only",
    "py_modules",
    "config_name",
    "data_files",
    "dataset_info",
    "lock_configuration",
    "needs_image",
    "num_classes",
    "z_order",
    "color_rgb",
    "dataset_dir",
    "dataset_type",
}
OTHER_FLAGS = {"--help", "--head", "--dereference", "--hard-dereference"}


def sentences() -> Iterator[tuple[str, str]]:
    """Every string in the code of a job that has several words and is no docstring: (file, text)."""
    for path in sorted((ROOT / "segbatch").rglob("*.py")):
        parts = path.relative_to(ROOT).parts
        if parts[1] == "crf" or path.name in ("tiles.py", "receptive_field.py"):  # their callers write Python
            continue
        tree = ast.parse(path.read_text())
        skipped = {id(n.value) for n in ast.walk(tree) if isinstance(n, ast.Expr)}
        skipped |= {id(v) for n in ast.walk(tree) if isinstance(n, ast.JoinedStr) for v in n.values}
        for node in ast.walk(tree):
            if id(node) in skipped:
                continue
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                text = node.value
            elif isinstance(node, ast.JoinedStr):
                text = "".join(v.value if isinstance(v, ast.Constant) else "…" for v in node.values)
            else:
                continue
            if " " in text:
                yield path.name, text


def test_each_option_that_a_message_names_can_be_set() -> None:
    wrong = []
    for file, text in sentences():
        flags = set(re.findall(r"(?<![\w-])--[a-z][a-z-]*[a-z](?![\w-])", text)) - FLAGS - OTHER_FLAGS
        names = set(re.findall(r"(?<![\w./…])[a-z]+(?:_[a-z]+)+(?![\w(./])", text)) - FIELDS - OTHER_NAMES
        wrong += [f"{file}: {name}: {text[:150]}" for name in sorted(flags | names)]
    assert not wrong, "\n".join(wrong)


def test_the_weights_that_models_shows_are_taken() -> None:
    for info in models.names():
        if info.weights:
            assert models.describe(info.name, info.weights).classes == info.classes
        else:
            assert "file" in info.source, info.name


LINUX = "import sys; sys.platform = 'darwin'; "


def test_another_platform_is_told_in_one_line() -> None:
    done = subprocess.run([sys.executable, "-c", f"{LINUX}import segbatch.cli.app"], capture_output=True, text=True)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert done.stderr.startswith("error: segbatch runs on Linux, and this is darwin")
    with_api = [sys.executable, "-c", f"{LINUX}import segbatch; segbatch.run"]
    assert "ImportError: segbatch runs on Linux" in subprocess.run(with_api, capture_output=True, text=True).stderr
