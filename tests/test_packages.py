"""Without a package, what does not need it works, and what needs it says in one line what to install."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

# Hides packages as if they were not installed, then runs code, or a command of segbatch.
HIDE = """
import importlib.abc, importlib.util, sys
hidden = set(sys.argv[1].split(","))
class Hide(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name.partition(".")[0] in hidden:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Hide())
found = importlib.util.find_spec
importlib.util.find_spec = lambda name, package=None: None if name in hidden else found(name, package)
if sys.argv[2] == "-c":
    exec(sys.argv[3])
else:
    from segbatch.cli.app import run_command
    del sys.argv[1]
    run_command()
"""
OPTIONAL = "torch,torchvision,ray,triton,pydensecrf,timm,matplotlib,s3fs,gcsfs,adlfs,pillow_heif,skimage,imgviz"


def run(hidden: str, *given: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", HIDE, hidden, *given], capture_output=True, text=True, check=False)


def test_reading_outputs_and_the_crf_need_none_of_the_optional_packages(whole: Path, tmp_path: Path) -> None:
    code = f"""
import numpy as np
import segbatch
from segbatch.cli.app import app
from segbatch.config.nightly import NightlySpec
from segbatch.crf import CRFParams, DenseCRF
output = {str(whole)!r}
for command in (["stats", output], ["errors", output], ["models"], ["--help"]):
    app(command, standalone_mode=False)
dataset = segbatch.open(output)
assert len([row for row in dataset if row.mask is not None]) == 14
assert segbatch.verify(output).ok
assert segbatch.compact
(open({str(tmp_path / "n.yaml")!r}, "w")).write("datasets: {{a: {{inputs: [in], output: out}}}}\\nstate: state\\n")
NightlySpec.load({str(tmp_path / "n.yaml")!r})
probs = np.full((3, 20, 30), 1 / 3, np.float32)
print(DenseCRF(CRFParams()).refine(np.zeros((20, 30, 3), np.uint8), probs=probs).shape)
"""
    done = run(OPTIONAL, "-c", code)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "(3, 20, 30)"


@pytest.mark.parametrize(
    ("hidden", "given", "says"),
    [
        ("ray", ["run", "in", "-o", "out"], "needs ray, which is not installed; pip install 'ray[data,default]'"),
        ("torch", ["train", "in", "--labels", "in", "-o", "out"], "needs torch, which is not installed; pip install"),
        ("torch", ["run", "in", "-o", "out", "--crf-engine", "torch", "--dry-run"], "pip install torch"),
        ("pydensecrf", ["run", "in", "-o", "out", "--crf-engine", "pydensecrf", "--dry-run"], "segbatch[reference]"),
        ("s3fs", ["stats", "s3://bucket/out"], "pip install s3fs"),
        ("adlfs", ["stats", "abfs://in@account/x"], "pip install adlfs"),
    ],
)
def test_a_command_says_what_to_install(hidden: str, given: list[str], says: str) -> None:
    done = run(hidden, *given)
    assert (done.returncode, done.stdout) == (2, "")
    errors = [line for line in done.stderr.splitlines() if "error" in line.lower()]
    assert errors == [done.stderr.splitlines()[-1]]
    assert errors[0].startswith("error: ")
    assert says in errors[0]


def test_a_call_says_what_to_install() -> None:
    code = """
import segbatch
for call in (
    lambda: segbatch.run,
    lambda: segbatch.build_dataset,
    lambda: segbatch.train,
    lambda: segbatch.models.build("deeplabv3plus_mobilenet_v2"),
):
    try:
        call()
    except (ImportError, segbatch.SegbatchError) as e:
        print(f"{type(e).__name__}: {e}")
"""
    run_line, dataset, train, build = run("ray,torch", "-c", code).stdout.splitlines()
    assert run_line == "ImportError: segbatch.run needs ray, which is not installed; pip install 'ray[data,default]'"
    assert dataset.startswith("ImportError: segbatch.build_dataset needs ray, which is not installed; pip install")
    assert train.startswith("ImportError: segbatch.train needs ")
    assert (
        build == "ModelError: model deeplabv3plus_mobilenet_v2 needs torch, which is not installed; pip install torch"
    )
