"""What the tests of the whole job share: one local Ray for all that run in this process."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import here
from tests.corpus import photographs, write_tar

ROOT = Path(__file__).resolve().parents[1]
# What `make check` leaves out: tests that start Ray, a server or other processes of ours, or compute with networks.
_SLOW_FOLDERS = frozenset(
    {"chaos", "cluster", "crf", "deploy", "gpu", "models", "nightly", "ray_backend", "refiners", "store", "training"}
)
_SLOW_FILES = frozenset({"test_cli.py", "test_damage.py", "test_inputs.py", "test_literal_names.py", "test_outages.py"})


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        fixtures = getattr(item, "fixturenames", ())
        if "local_ray" in fixtures or item.path.parent.name in _SLOW_FOLDERS or item.path.name in _SLOW_FILES:
            item.add_marker("slow")


@pytest.fixture(scope="session")
def local_ray() -> Iterator[None]:
    """Ray on this machine, started once: jobs in this process join it and leave it running."""
    import ray

    from segbatch.config.job import JobSpec
    from segbatch.ray_backend.connection import join

    join(JobSpec.create(inputs=["unused"], num_cpus=2))
    yield
    ray.shutdown()


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """torch computes with one thread, for modules whose many small operations more threads only slow down."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def data() -> Path:
    """The development data beside the checkout; tests that ask for them are skipped without."""
    found = ROOT.parent / "shared" / "data"
    if not found.is_dir():
        pytest.skip("the development data (../shared/data) are not here")
    return found


@pytest.fixture(scope="session")
def small_corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three tars: ten records, one of them no picture; five; and none."""
    folder = tmp_path_factory.mktemp("in")
    pictures = photographs(14, side=24)
    write_tar(folder / "a.tar", [*pictures[:9], ("page.jpg", b"<html>gone</html>")])
    write_tar(folder / "b.tar", pictures[9:])
    (folder / "c.tar").write_bytes(bytes(10240))
    return folder


@pytest.fixture(scope="session")
def whole(small_corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its output: six chunks, fifteen rows. Not to be changed."""
    output = tmp_path_factory.mktemp("whole") / "out"
    outcome = here.run(here.spec([str(small_corpus)], output))
    assert (outcome.totals.records, outcome.totals.failed, outcome.chunks) == (15, 1, 6)
    return output
