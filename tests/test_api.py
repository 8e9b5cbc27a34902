"""The public Python interface: its names, its signatures, and that it leaves the caller's process as it was."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import segbatch
from segbatch import SegbatchError


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("images")
    rng = np.random.default_rng(0)
    (folder / "labels").mkdir()
    for i in range(3):
        Image.fromarray(rng.integers(0, 255, (24, 32, 3), np.uint8)).save(folder / f"{i}.png")
        Image.fromarray(rng.integers(0, 2, (24, 32), np.uint8)).save(folder / "labels" / f"{i}.png")
    (folder / "classes.txt").write_text("ground\nobject\n")
    return folder


def process_state() -> dict[str, Any]:
    """What a library must not alter behind its caller's back. Imports, which add filters of warnings, come first."""
    import aiohttp.web  # noqa: F401  Ray imports it when it starts
    import torch._inductor.config
    from ray.data import DataContext

    names = ("", "ray", "ray.data", "ray.train", "segbatch", "PIL")
    return {
        "loggers": {n: (logging.getLogger(n).level, list(logging.getLogger(n).handlers)) for n in names},
        "environment": dict(os.environ),
        "warnings": {str(entry): 1 for entry in warnings.filters},
        "threads": torch.get_num_threads(),
        "random numbers": (torch.get_rng_state().sum().item(), str(np.random.get_state()[1])),  # type: ignore[index]
        "signals": {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)},
        "hooks": (sys.excepthook, sys.unraisablehook, sys.breakpointhook),
        "folder": os.getcwd(),
        "dataset settings": vars(DataContext.get_current()).copy(),
    }


def test_dir_lists_the_public_names() -> None:
    assert set(dir(segbatch)) >= set(segbatch.__all__)
    for name in segbatch.__all__:
        assert getattr(segbatch, name) is not None
    assert segbatch.__version__.count(".") == 2


def test_the_package_costs_nothing_to_import() -> None:
    program = (
        "import sys, segbatch; dir(segbatch); segbatch.SegbatchError;"
        "print(sorted({'numpy', 'ray', 'torch', 'pyarrow'} & sys.modules.keys()))"
    )
    assert subprocess.run([sys.executable, "-c", program], capture_output=True, text=True).stdout == "[]\n"


def test_settings_are_given_by_name_or_as_one_spec(images: Path, tmp_path: Path) -> None:
    spec = segbatch.JobSpec.create(inputs=[str(images)])
    with pytest.raises(
        SegbatchError, match=r"refiner: given beside a JobSpec; pass one JobSpec, or settings alone"
    ) as e:
        segbatch.run(spec, refiner="none")
    assert (e.value.kind, e.value.exit_code) == ("usage", 2)
    with pytest.raises(SegbatchError, match=r"unknown key 'refinr'; did you mean 'refiner'\?"):
        segbatch.run(inputs=[str(images)], refinr="none")
    with pytest.raises(SegbatchError, match="got str where a JobSpec is expected; pass settings by name"):
        segbatch.run(str(images))  # type: ignore[arg-type]


def test_library_calls_leave_the_process_as_it_was(images: Path, tmp_path: Path) -> None:
    arguments = [sys.executable, "-c", "from tests.test_api import calls; calls()", str(images), str(tmp_path)]
    done = subprocess.run(arguments, capture_output=True, text=True, cwd=Path(__file__).parents[1])
    assert (done.stdout.splitlines()[-1:], done.returncode) == (["train"], 0), done.stdout + done.stderr


def differing(before: Any, after: Any) -> Any:
    if not isinstance(before, dict):
        return before, after
    return {k: (before.get(k), after.get(k)) for k in before.keys() | after.keys() if before.get(k) != after.get(k)}


def calls() -> None:
    """What that test runs in a process of its own, whose Ray is started and stopped by each call."""
    images, folder = sys.argv[1:]
    output = f"{folder}/out"
    job = {"inputs": [f"{images}/*.png"], "model": "tests.networks:fast", "num_cpus": 2}
    labels: dict[str, Any] = {"labels": f"{images}/labels"}
    steps: dict[str, Callable[[], Any]] = {
        "run": lambda: segbatch.run(**job, output=output, refiner="none", log_format="json", threads=1),
        "open": lambda: list(segbatch.open(output)),
        "segment": lambda: segbatch.segment(f"{images}/0.png", device="cpu"),
        "evaluate": lambda: segbatch.evaluate(output, **labels, resamples=10),
        "verify": lambda: segbatch.verify(output, read_input=True),
        "compact": lambda: segbatch.compact(output),
        "tune_crf": lambda: segbatch.tune_crf(segbatch.JobSpec.create(**job), **labels, rounds=0),
        "train": lambda: segbatch.train(
            inputs=job["inputs"],
            **labels,
            output=f"{folder}/trained",
            model="deeplabv3plus_mobilenet_v2",
            init="scratch",
            classes=f"{images}/classes.txt",
            epochs=1,
            crop=[33, 33],
            batch_size=2,
            threads=1,
            device="cpu",
        ),
    }
    before = process_state()
    for name, call in steps.items():
        call()
        after = process_state()
        for what in before:
            assert after[what] == before[what], f"{name} altered {what}: {differing(before[what], after[what])}"
        print(name)


@pytest.mark.parametrize(
    ("name", "call"),
    [
        ("output", lambda: segbatch.open("")),
        ("output", lambda: segbatch.verify(" ")),
        ("output", lambda: segbatch.compact("\t")),
        ("sql", lambda: segbatch.query("out", " ")),
        ("other", lambda: segbatch.select("out", other="")),
        ("b", lambda: segbatch.diff("out", "")),
        ("output", lambda: segbatch.run(inputs=["a"], output=" ")),
        ("labels", lambda: segbatch.evaluate("out", labels="")),
        ("against", lambda: segbatch.evaluate("out", labels="labels", against="")),
        ("labels", lambda: segbatch.tune_crf(inputs=["a"], labels=" ")),
        ("inputs", lambda: segbatch.train(inputs=["a", ""], labels="labels", output="out")),
        ("val_labels", lambda: segbatch.train(inputs=["a"], labels="labels", val=["b"], val_labels="", output="out")),
        ("config", lambda: segbatch.JobSpec.load("")),
    ],
)
def test_an_empty_path_is_refused_and_its_argument_named(name: str, call: Callable[[], object]) -> None:
    with pytest.raises(SegbatchError, match=f"^{name}: got .*; is empty or blank") as refused:
        call()
    assert refused.value.exit_code == 2
