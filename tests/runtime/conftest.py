"""A small corpus, and the output of a job over it that nothing disturbed, made without Ray."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests import here
from tests.corpus import photographs, write_tar


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
