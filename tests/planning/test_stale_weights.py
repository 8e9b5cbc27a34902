"""The bytes of its weights and of its source decide which network it is, when a job is planned and in its workers."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import segbatch.models
from segbatch.crf.torch_mean_field import MeanField
from segbatch.errors import ModelError, NetworkError, PlanError
from segbatch.models.weights import named_digest
from segbatch.planning.inline import SINGLE_PROCESS
from segbatch.planning.plan import Plan, make_plan
from segbatch.planning.stages import refine_config, segment_config
from tests import here
from tests.corpus import photographs, write_folder

PACKAGE_WEIGHTS = Path(segbatch.models.__file__).parent / "data/deeplabv3plus_mobilenet_v2_voc.safetensors"
NETWORK = """
import os
import numpy as np
from segbatch.labels import LabelSet

WINS = 0

class Net:
    name, stride, labels = "net", 8, LabelSet.of(("a", "b", "c"))

    def __init__(self, weights):
        self.bias = np.load(os.path.join(weights, "w.npy") if os.path.isdir(weights) else weights)

    def scores(self, images):
        shapes = [(-(-i.shape[0] // 8), -(-i.shape[1] // 8)) for i in images]
        return [np.broadcast_to(np.roll(self.bias, WINS)[:, None, None], (3, *s)).astype(np.float32) for s in shapes]

def factory(weights):
    return Net(weights)

def named(weights):
    net = Net.__new__(Net)
    net.bias = np.float32([1, 0, 0])
    return net

def digested(weights):
    net = named(weights)
    net.digest = "release 7"
    return net
"""


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Writes a module that can be imported; its name is that of the test's folder, so no two tests share one."""
    folder = tmp_path / "modules"
    folder.mkdir()
    monkeypatch.syspath_prepend(folder)
    written: list[str] = []

    def write(source: str, name: str = "net") -> str:
        full = f"{name}_{tmp_path.name}"
        (folder / f"{full}.py").write_text(source.replace("THIS_TEST", tmp_path.name))
        written.append(full)
        return full

    yield write
    for name in written:
        sys.modules.pop(name, None)


@pytest.fixture
def source(tmp_path: Path) -> str:
    return str(write_folder(tmp_path / "in", photographs(3, side=48)))


def saved(path: Path, *bias: float) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    np.save(path, np.float32(bias))
    return path


def rewrite(path: Path, change: Callable[[], object]) -> None:
    """Another content under the same name, size and time."""
    before = path.stat()
    change()
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert path.stat().st_size == before.st_size


def test_new_weights_under_the_same_name_size_and_time_are_another_network(
    module: Any, source: str, tmp_path: Path
) -> None:
    weights = saved(tmp_path / "w.npy", 5, 0, 0)
    spec = here.spec([source], tmp_path / "out", model=f"{module(NETWORK)}:factory", weights=str(weights))
    assert here.run(spec).computed > 0
    rewrite(weights, lambda: saved(weights, 0, 5, 0))
    with pytest.raises(PlanError, match=r"model\.weights"):
        here.run(spec)


def test_the_same_weights_elsewhere_are_the_same_network(module: Any, source: str, tmp_path: Path) -> None:
    name = module(NETWORK)
    folders = [saved(tmp_path / name / "w.npy", 5, 0, 0).parent for name in ("one", "two/deep")]
    (folders[1] / ".cache").mkdir()
    (folders[1] / ".cache/downloaded").write_text("today")
    for output, weights in (("files", [f / "w.npy" for f in folders]), ("folders", folders)):
        specs = [here.spec([source], tmp_path / output, model=f"{name}:factory", weights=str(path)) for path in weights]
        assert here.run(specs[0]).computed > 0
        assert here.run(specs[1]).computed == 0


@pytest.mark.parametrize("change", ["content", "name", "one more", "one less"])
def test_a_changed_file_of_a_folder_is_other_weights(change: str, tmp_path: Path) -> None:
    folder = saved(tmp_path / "w/a.npy", 1, 2).parent
    saved(folder / "sub/b.npy", 3, 4)
    before = named_digest(str(folder))
    assert before == named_digest(f"file://{folder}") == named_digest(f"{folder}/")
    if change == "content":
        rewrite(folder / "sub/b.npy", lambda: saved(folder / "sub/b.npy", 3, 5))
    elif change == "name":
        (folder / "sub/b.npy").rename(folder / "sub/c.npy")
    elif change == "one more":
        shutil.copy(folder / "a.npy", folder / "d.npy")
    else:
        (folder / "a.npy").unlink()
    assert named_digest(str(folder)) != before


def test_weights_that_are_no_file_count_by_their_name(tmp_path: Path) -> None:
    file = str(saved(tmp_path / "w.npy", 1))
    absent = [str(tmp_path / "absent.pt"), f"{file}/inside", "{" + "a" * 5000 + "}"]
    names = ["default", "v2", "v3", "org/network", "unknown://bucket/w", *absent]
    assert len({named_digest(name) for name in names}) == len(names)
    assert named_digest("v2") == named_digest("v2")


def test_weights_that_are_there_and_cannot_be_read_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("segbatch.models.weights.MAX_FILES", 3)
    for i in range(4):
        saved(tmp_path / f"{i}.npy", i)
    with pytest.raises(ModelError, match=r"more than 3 files.*`digest`"):
        named_digest(str(tmp_path))


def digest_of(name: str, **more: Any) -> str:
    return segbatch.models.describe(name, **more).digest


def test_an_edited_source_is_another_network(module: Any) -> None:
    name = module(NETWORK)
    before = digest_of(f"{name}:named")
    assert digest_of(f"{name}:named") == before
    module(NETWORK.replace("WINS = 0", "WINS = 2"))
    assert digest_of(f"{name}:named") != before


@pytest.mark.parametrize(
    ("edit", "resumes"),
    [
        (("def named", "# a comment, and a longer name\ndef named"), True),
        (("self.bias = np.load", "self.bias = 1.0 * np.load"), True),
        (("WINS = 0", "WINS = 2  # the last"), False),
        (("scores(self, images):", "scores(self, images):\n        self.bias = self.bias * 1.001"), False),
    ],
)
def test_an_edited_source_resumes_if_it_scores_as_before(
    edit: tuple[str, str], resumes: bool, module: Any, source: str, tmp_path: Path
) -> None:
    name, weights = module(NETWORK), saved(tmp_path / "w.npy", 5, 1, 0)
    spec = here.spec([source], tmp_path / "out", model=f"{name}:factory", weights=str(weights))
    here.run(spec)
    module(NETWORK.replace(*edit))
    del sys.modules[name]
    if not resumes:
        with pytest.raises(PlanError, match=r"model\.weights"):
            make_plan(spec)
        return
    assert make_plan(spec).is_complete
    assert any("source" in text and "exactly as before" in text for text in make_plan(spec).warnings())
    with pytest.raises(PlanError, match="chunk_size"):
        make_plan(spec.model_copy(update={"chunk_size": 7}))
    saved(weights, 5, 1, 0.5)  # other weights are another network, whatever it scores
    with pytest.raises(PlanError, match=r"model\.weights"):
        make_plan(spec)


@pytest.mark.parametrize(
    "factory",
    [
        "from net_THIS_TEST import named as factory",
        "import functools, net_THIS_TEST\nfactory = functools.partial(net_THIS_TEST.named, weights='v1')",
        "import net_THIS_TEST\ndef factory():\n    return net_THIS_TEST.named('v1')",
        "import functools, net_THIS_TEST\n@functools.wraps(net_THIS_TEST.named)\ndef factory(**k):\n"
        "    return net_THIS_TEST.named('v1')",
    ],
)
def test_the_files_of_the_function_and_of_the_class_count(factory: str, module: Any) -> None:
    module(NETWORK)
    name = module(factory, "factory")
    before = digest_of(f"{name}:factory")
    module(NETWORK.replace("WINS = 0", "WINS = 2"))
    assert digest_of(f"{name}:factory") != before


def test_a_digest_that_the_network_gives_wins(module: Any, tmp_path: Path) -> None:
    name = module(NETWORK)
    assert digest_of(f"{name}:digested", weights=str(saved(tmp_path / "w.npy", 1))) == "release 7"
    module(NETWORK.replace("WINS = 0", "WINS = 2"))
    assert digest_of(f"{name}:digested", weights="v2") == "release 7"


def test_a_copy_of_the_built_in_weights_is_the_built_in_network(source: str, tmp_path: Path) -> None:
    copy = shutil.copy(PACKAGE_WEIGHTS, tmp_path / "copy.safetensors")
    fields = {"model": "deeplabv3plus_mobilenet_v2", "precision": "fp32"}
    plans = [make_plan(here.spec([source], tmp_path / "out", weights=w, **fields)) for w in ("default", str(copy))]
    assert plans[0].job.identity() == plans[1].job.identity()


def test_other_names_or_colors_of_classes_are_another_job(source: str, tmp_path: Path) -> None:
    def identity(text: str) -> dict[str, Any]:
        classes = tmp_path / "classes.json"
        classes.write_text(text)
        return make_plan(here.spec([source], tmp_path / "out", model="null", classes=str(classes))).job.identity()

    first = identity('[{"name": "a", "color": [0, 0, 0]}, {"name": "b", "color": [255, 0, 0]}]')
    assert first["model"]["colors"] == ["#000000", "#ff0000"]
    assert identity('[{"name": "a", "color": [0, 0, 0]}, {"name": "b", "color": [255, 0, 1]}]') != first
    assert identity('[{"name": "a", "color": [0, 0, 0]}, {"name": "c", "color": [255, 0, 0]}]') != first
    assert identity('[{"color": [0, 0, 0], "name": "a"}, {"name": "b", "color": [255, 0, 0]}]\n') == first


# Replaced between the plan and the start of a worker.


def planned(source: str, tmp_path: Path, **fields: Any) -> Plan:
    plan = make_plan(here.spec([source], tmp_path / "out", **fields))
    segment_config(plan.job, SINGLE_PROCESS).build()
    refine_config(plan.job, SINGLE_PROCESS).build()
    return plan


def test_a_worker_refuses_weights_that_were_replaced(module: Any, source: str, tmp_path: Path) -> None:
    weights = saved(tmp_path / "net.npy", 5, 0, 0)
    plan = planned(source, tmp_path, model=f"{module(NETWORK)}:factory", weights=str(weights))
    rewrite(weights, lambda: saved(weights, 0, 5, 0))
    with pytest.raises(NetworkError, match=r"changed since the job was planned.*net\.npy.*planned.*loaded") as refused:
        segment_config(plan.job, SINGLE_PROCESS).build()
    assert refused.value.exit_code == 1
    rewrite(weights, lambda: saved(weights, 5, 0, 0))
    segment_config(plan.job, SINGLE_PROCESS).build()


def test_a_worker_refuses_an_edited_module(module: Any, source: str, tmp_path: Path) -> None:
    plan = planned(source, tmp_path, model=f"{module(NETWORK)}:named", weights="v2")
    module(NETWORK.replace("WINS = 0", "WINS = 2"))
    with pytest.raises(NetworkError, match=r"'v2' and their network: planned.*loaded"):
        segment_config(plan.job, SINGLE_PROCESS).build()


def test_a_worker_refuses_replaced_weights_of_a_built_in_network(source: str, tmp_path: Path) -> None:
    weights = tmp_path / "net.safetensors"
    shutil.copy(PACKAGE_WEIGHTS, weights)
    fields = {"model": "deeplabv3plus_mobilenet_v2", "precision": "fp32", "weights": str(weights)}
    plan = planned(source, tmp_path, **fields)
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    rewrite(weights, lambda: weights.write_bytes(data))
    with pytest.raises(NetworkError, match=r"net\.safetensors.*planned sha256:.*loaded sha256:"):
        segment_config(plan.job, SINGLE_PROCESS).build()


@pytest.mark.parametrize("changed", ['[{"name": "a"}, {"name": "c"}]', '["b", "a"]', '["a", "b", "c"]'])
def test_a_worker_refuses_replaced_classes(changed: str, source: str, tmp_path: Path) -> None:
    classes = tmp_path / "names.json"
    classes.write_text('["a", "b"]')
    plan = planned(source, tmp_path, model="null", classes=str(classes))
    classes.write_text(changed)
    with pytest.raises(NetworkError, match=r"names\.json"):
        segment_config(plan.job, SINGLE_PROCESS).build()


def test_a_worker_refuses_replaced_weights_of_a_refiner(source: str, tmp_path: Path) -> None:
    weights = tmp_path / "crf.pth"

    def learned(factor: float) -> None:
        torch.save({key: value * factor for key, value in MeanField(2).state_dict().items()}, weights)

    learned(1.0)
    plan = planned(source, tmp_path, model="null", refiner="crfasrnn", refiner_weights=str(weights))
    copy = shutil.copy(weights, tmp_path / "copy.pth")
    other = planned(source, tmp_path, model="null", refiner="crfasrnn", refiner_weights=str(copy))
    assert plan.job.identity() == other.job.identity()
    rewrite(weights, lambda: learned(2.0))
    with pytest.raises(NetworkError, match=r"refiner_weights '.*crf\.pth'"):
        refine_config(plan.job, SINGLE_PROCESS).build()
