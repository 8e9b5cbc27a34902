"""A new format is one object: plan, rows, help and messages follow from its registration."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
from pathlib import Path

from tests.corpus import photographs


def test_a_registered_format_is_planned_read_and_named_in_messages(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "a.xyz").touch()
    lines = [base64.b64encode(data) for _, data in photographs(6, side=32)]
    (tmp_path / "in" / "a.b64").write_bytes(b"\n".join([*lines, base64.b64encode(b"no image")]))
    done = subprocess.run(
        [sys.executable, "-m", "tests.sources.toy_format", str(tmp_path)],
        capture_output=True,
        text=True,
        env={**os.environ, "COLUMNS": "200"},
        cwd=Path(__file__).resolve().parents[2],
    )
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout.splitlines()[-1])
    assert (said["records"], said["errors"]) == (7, 1)
    assert "1 shard (base64-lines)" in said["plan"]
    assert "committed 2 chunks, 1 complete shard" in said["plan"]
    assert "1 shard (base64-lines)" in said["chosen"]
    assert "unknown format 'base64-line'; did you mean 'base64-lines'?" in said["unknown format"]
    assert ".b64" in said["unknown suffix"]
