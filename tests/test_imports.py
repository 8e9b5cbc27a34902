"""Imports go down only, and what is heavy is where it belongs."""

import ast
import subprocess
import sys
from pathlib import Path

import segbatch
import segbatch.isolation

ROOT = Path(segbatch.__file__).parent
# One order, upwards: a module imports from its own package, and from what stands before it.
ORDER = (
    *(
        "crf",
        "text",
        "contents",
        "errors",
        "packages",
        "shadowing",
        "stopping",
        "processes",
        "registry",
        "labels",
        "class_list",
        "skipped",
    ),
    *("causes", "records"),
    *(
        "packing",
        "leaves",
        "protocols",
        "logs",
        "storage",
        "config",
        "codecs",
        "sources",
        "models",
        "refiners",
        "stages",
        "output",
    ),
    *("isolation", "planning", "results", "evaluation", "training", "report", "exports"),
    *("ray_backend", "operations", "cli", "__main__"),
)


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


def test_imports_point_one_way():
    wrong = set()
    for where, part, name in imports():
        target = name.split(".")[1] if name.startswith("segbatch.") else part
        if target != part and ORDER.index(target) > ORDER.index(part):
            wrong.add(f"{where} imports {target}")
    assert not wrong, "\n".join(sorted(wrong))


def test_crf_imports_nothing_of_segbatch():
    wrong = [f"{w}: {n}" for w, p, n in imports() if p == "crf" and n.startswith("segbatch.") and ".crf" not in n]
    assert not wrong, "\n".join(wrong)


def test_other_packages_see_of_isolation_what_its_init_names():
    wrong = [
        f"{w}: {n}"
        for w, p, n in imports()
        if p != "isolation"
        and n.startswith("segbatch.isolation.")
        and not n.startswith("segbatch.isolation.failures.")
        and n.removeprefix("segbatch.isolation.") not in segbatch.isolation.__all__
    ]
    assert not wrong, "\n".join(wrong)


def test_ray_is_in_its_backend_alone():
    wrong = [f"{w}: {n}" for w, p, n in imports() if n.split(".")[0] == "ray" and p != "ray_backend"]
    assert not wrong, "\n".join(wrong)


def test_torch_is_in_models_training_the_torch_engine_and_the_dataset_of_torch_alone():
    wrong = [
        f"{w}: {n}"
        for w, p, n in imports()
        if n.split(".")[0] in ("torch", "torchvision")
        and p not in ("models", "training")
        and not w.startswith(("crf/torch", "crf/triton", "results/torch_dataset"))
    ]
    assert not wrong, "\n".join(wrong)


def test_fsspec_is_in_storage_alone():
    wrong = [f"{w}: {n}" for w, p, n in imports() if n.split(".")[0] == "fsspec" and p != "storage"]
    assert not wrong, "\n".join(wrong)


def test_duckdb_is_in_one_operation_alone():
    wrong = [w for w, _, n in imports() if n.split(".")[0] == "duckdb" and w != "operations/query"]
    assert not wrong, "\n".join(wrong)


def test_the_help_is_shown_without_the_packages_of_the_work():
    heavy = ("torch", "torchvision", "ray", "pyarrow", "fsspec", "PIL", "pandas", "numpy", "duckdb")
    code = f"""
import sys
from segbatch.cli.app import app
for command in ([], ["run"]):
    app([*command, "--help"], standalone_mode=False)
print([m for m in {heavy} if m in sys.modules])
"""
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "--weights" in found.stdout
    assert found.stdout.splitlines()[-1] == "[]"


def test_the_help_names_the_formats_of_the_registry():
    code = "from segbatch.config.job import INPUT_FORMATS; from segbatch.sources import FORMATS; "
    found = subprocess.run([sys.executable, "-c", f"{code}assert tuple(FORMATS) == INPUT_FORMATS"], check=False)
    assert found.returncode == 0


def test_a_plan_of_the_built_in_network_imports_no_torch(tmp_path, small_corpus):
    code = """
import sys
from segbatch.config.job import JobSpec
from segbatch.operations.explain import explain
from segbatch.operations.run import run
spec = JobSpec.create(inputs=[sys.argv[1]], output=sys.argv[2])
for weights in ("voc", "random:7"):
    assert weights in explain(spec.model_copy(update={"weights": weights})).to_text()
print([m for m in ("torch", "torchvision") if m in sys.modules])
"""
    given = [sys.executable, "-c", code, str(small_corpus), str(tmp_path / "out")]
    found = subprocess.run(given, capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
