"""A large export runs in Ray tasks."""

from __future__ import annotations

from pathlib import Path

import pytest

from segbatch.operations.export import export


@pytest.mark.usefixtures("local_ray")
def test_parts_that_ray_tasks_write_are_those_of_this_process(whole: Path, tmp_path: Path) -> None:
    def files(name: str, address: str | None) -> dict[str, bytes]:
        target = tmp_path / name
        counts = export(str(whole), to="coco-rle", target=str(target), images="copy", address=address).counts
        assert (counts.images, counts.errors, counts.missing) == (14, 1, 0)
        return {str(p.relative_to(target)): p.read_bytes() for p in target.rglob("*") if p.is_file()}

    assert files("ray", "auto") == files("here", None)
