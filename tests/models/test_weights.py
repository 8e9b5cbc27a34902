"""Weights: where they come from, what is refused, and how it is said."""

from __future__ import annotations

import hashlib
import http.server
import pickle
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import safetensors.torch
import torch

from segbatch import models
from segbatch.config.base import read_config
from segbatch.errors import ModelError, SpecError
from segbatch.labels import LabelSet
from segbatch.models import state_dict
from segbatch.models.weights import Weights, read_uri
from tests.storage.web_server import web_server

NAME = "lraspp_mobilenet_v3_large"


class Trap:
    """Code that a pickle would run."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return (Path.touch, (self.marker,))


def test_code_in_a_weights_file_is_refused_and_not_run(tmp_path: Path) -> None:
    marker, path = tmp_path / "was-run", tmp_path / "trap.pth"
    torch.save({"state_dict": Trap(marker)}, path)
    with pytest.raises(ModelError, match="loading the file would execute code"):
        models.build(NAME, weights=str(path), device="cpu")
    path.write_bytes(pickle.dumps(Trap(marker), protocol=2))
    with pytest.raises(ModelError, match=r"trap\.pth"):
        models.describe(NAME, weights=str(path))
    assert not marker.exists()


@pytest.mark.parametrize(
    ("content", "suffix", "says"),
    [
        (b"", ".pth", "may be truncated|damaged"),
        (b"PK\x03\x04 half a zip", ".pt", "may be truncated|damaged"),
        (b"\x08\0\0\0\0\0\0\0{}", ".safetensors", "may be truncated"),
        (b"<html>", ".safetensors", "may be truncated"),
        (b"anything", ".onnx", "unknown file format; give one of .pth .pt .ckpt .bin"),
        (b"anything", ".bin", "cannot be read"),
    ],
)
def test_files_that_are_no_weights(content: bytes, suffix: str, says: str) -> None:
    with pytest.raises(ModelError, match=says):
        state_dict.parse(content, f"weights{suffix}")


def test_all_that_does_not_fit_is_in_one_error(tmp_path: Path) -> None:
    state = dict(models.entry(NAME).network(21).state_dict())  # type: ignore[attr-defined]
    first, second, *_ = (k for k, v in state.items() if v.ndim == 4)
    del state[first]
    state[second] = torch.zeros(1, 2, 3, 4)
    state["stranger"] = torch.zeros(1)
    path = tmp_path / "w.safetensors"
    safetensors.torch.save_file(state, path)
    with pytest.raises(ModelError) as e:
        models.build(NAME, weights=str(path), device="cpu")
    for part in (first, f"{second} (1, 2, 3, 4) for", "stranger", "1 missing", "Check that they were trained"):
        assert part in str(e.value)


def test_names_that_are_not_there() -> None:
    with pytest.raises(SpecError, match=r"has no weights 'publshed'.*published"):
        models.describe(NAME, weights="publshed")
    with pytest.raises(ModelError, match="there is no such file"):
        models.describe(NAME, weights="nowhere/w.pth")
    with pytest.raises(SpecError, match="deeplabv3_resnet50"):
        models.describe("deeplabv3_resnet5")


@pytest.fixture
def publisher(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[str, bytes]]:
    """A web server with a weights file, and an empty cache."""
    folder = tmp_path / "www"
    folder.mkdir()
    content = b"weights as they were published"
    (folder / "w.pth").write_bytes(content)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "cache"))

    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *args: object) -> None:
            super().__init__(*args, directory=str(folder))  # type: ignore[arg-type]

        def log_message(self, *args: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/w.pth", content
        server.shutdown()
        thread.join()


def published(url: str, digest: str) -> Weights:
    return Weights("published", "url", url, LabelSet.of(("a", "b")), digest=f"sha256:{digest}")


def test_published_weights_are_fetched_once_and_checked(publisher: tuple[str, bytes], tmp_path: Path) -> None:
    url, content = publisher
    weights = published(url, hashlib.sha256(content).hexdigest()[:8])
    assert weights.read() == content
    (tmp_path / "www" / "w.pth").unlink()
    assert weights.read() == content  # from the cache
    kept = tmp_path / "cache" / "hub" / "checkpoints" / "w.pth"
    kept.write_bytes(b"something else")
    with pytest.raises(ModelError, match="delete it so that it is downloaded again"):
        weights.read()
    kept.unlink()
    with pytest.raises(ModelError, match=r"cannot download .*give --weights URI of that file"):
        weights.read()


def test_weights_and_configurations_are_requested_again_after_a_transient_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "cache"))
    answers = {"/w.pth": [503, b"weights"], "/published.pth": [503, b"weights"], "/job.yaml": [503, b"inputs: [a]"]}
    with web_server(answers) as (url, _):
        assert read_uri(f"{url}/w.pth", "weights") == b"weights"
        assert published(f"{url}/published.pth", hashlib.sha256(b"weights").hexdigest()).read() == b"weights"
        assert read_config(f"{url}/job.yaml") == {"inputs": ["a"]}


def test_a_file_that_is_not_the_published_one(publisher: tuple[str, bytes], tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="gave a file with sha256"):
        published(publisher[0], "00000000").read()
    assert not (tmp_path / "cache").exists()


def test_classes_come_from_a_file(tmp_path: Path) -> None:
    names = tmp_path / "names.txt"
    names.write_text("\n".join(f"class {i}" for i in range(21)))
    assert models.describe(NAME, classes=str(names)).labels.names[20] == "class 20"
    names.write_text("one\ntwo\n")
    with pytest.raises(SpecError, match=r"names 2 classes, but the weights of .* have 21"):
        models.describe(NAME, classes=str(names))
    names.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(SpecError, match="not UTF-8"):
        models.describe(NAME, classes=str(names))


@pytest.mark.parametrize("kind", [{}, {"ranges": False, "sizes": False, "head": False}])
def test_weights_on_a_web_server(kind: dict[str, bool]) -> None:
    answers = {
        "/w 1.pth?v=2": b"\x80data",
        "/moved.pth": "/w 1.pth?v=2",
        "/busy.pth": [503] * 3 + [b"\x80data"],
        "/no.pth": 403,
    }
    with web_server(answers, **kind) as (url, _):
        for name in ("w%201.pth?v=2", "moved.pth", "busy.pth"):
            assert read_uri(f"{url}/{name}", "weights") == b"\x80data"
        for name, message in (("gone.pth", "there is no such file"), ("no.pth", "the server answers 403 Forbidden")):
            with pytest.raises(ModelError, match=message):
                read_uri(f"{url}/{name}", "weights")
