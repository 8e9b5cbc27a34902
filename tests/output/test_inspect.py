"""`stats`, `errors` and `verify` of an output whose store asks for a key and drops every third request."""

from __future__ import annotations

import itertools
import json
import sys
from pathlib import Path
from typing import Any

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from segbatch.cli import app as cli
from tests import here
from tests.corpus import photographs, write_folder


class Shy(MemoryFileSystem):
    """Opens for a key alone, and is not always in the mood."""

    protocol = "shy"
    cachable = False
    asked = itertools.count()

    def __init__(self, key: str = "", **options: Any) -> None:
        if key != "sesame":
            raise ValueError("the key is wrong")
        super().__init__(**options)

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        return super()._strip_protocol(path.replace("shy://", "memory://"))

    def cat_file(self, path: str, start: int | None = None, end: int | None = None, **kwargs: Any) -> bytes:
        if next(self.asked) % 3 == 0:
            raise ConnectionResetError("connection reset by peer")
        return super().cat_file(path, start, end, **kwargs)


def test_storage_options_and_patience_reach_every_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fsspec.register_implementation("shy", Shy, clobber=True)
    monkeypatch.setattr("random.uniform", lambda low, high: 0.0)  # the waits between attempts
    folder = write_folder(tmp_path / "in", [*photographs(3, side=40), ("page.jpg", b"<html>gone</html>")])
    output, config = f"shy://{tmp_path.name}/out", tmp_path / "job.yaml"
    here.run(here.spec([str(folder)], output, storage_options={"key": "sesame"}))
    config.write_text("storage_options: {key: sesame}\n")

    def segbatch(*args: str) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["segbatch", *args])
        with pytest.raises(SystemExit) as end:
            cli.main()
        said = capsys.readouterr()
        return int(end.value.code or 0), said.out + said.err

    code, text = segbatch("stats", output, "--json", "--config", str(config))
    assert (code, json.loads(text)["records"]) == (0, 4)
    code, text = segbatch("errors", output, "--config", str(config))
    assert (code, "page.jpg  decode/UnknownFormat" in text) == (0, True)
    code, text = segbatch("verify", output, "--config", str(config))
    assert code == 0, text
    for command in ("stats", "errors", "verify"):
        code, text = segbatch(command, output)
        assert (code, "the key is wrong" in text) == (2, True)
