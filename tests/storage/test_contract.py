"""Every storage keeps the contract: here without a server; see tests/store for the one of S3."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest

from segbatch.errors import MissingObject, ObjectTooLarge
from segbatch.storage.base import Storage
from segbatch.storage.local import LocalStorage
from segbatch.storage.remote import RemoteStorage
from segbatch.storage.resolve import read_object, resolve
from tests.storage.contract import StorageContract
from tests.storage.web_server import web_server


class TestLocal(StorageContract):
    @pytest.fixture
    def storage(self, tmp_path: Path) -> Storage:
        (tmp_path / "root").mkdir()
        return LocalStorage(str(tmp_path / "root"))


class TestMemory(StorageContract):
    @pytest.fixture
    def storage(self, tmp_path: Path) -> Storage:
        return RemoteStorage(f"memory://contract/{tmp_path.name}")


@pytest.mark.parametrize("kind", [{"ranges": True, "head": True}, {"ranges": False, "head": False}])
def test_a_web_server_is_read_only_storage(kind: dict[str, bool]) -> None:
    with web_server({"/a": bytes(range(100)), "/page": b"<html>"}, **kind) as (url, _):
        storage, name = resolve(f"{url}/a")
        assert storage.read(name, 100) == storage.read(name, 100, 100) == bytes(range(100))
        with pytest.raises(ObjectTooLarge):
            storage.read(name, 99)
        with storage.open(name) as stream:
            assert (stream.seek(-2, 2), stream.read()) == (98, b"bc")
        assert (storage.stat(name).size, storage.uri_of(name)) == (100, f"{url}/a")
        with pytest.raises(MissingObject, match=f"^{url}/none: does not exist$"):
            storage.read(resolve(f"{url}/none?token=5ec0000")[1])


def test_an_object_in_an_archive_is_read_by_a_chain(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "jobs.zip", "w") as archive:
        archive.writestr("job.yaml", "inputs: [a]")
    assert read_object(f"zip://job.yaml::file://{tmp_path}/jobs.zip") == b"inputs: [a]"
    with pytest.raises(MissingObject):
        read_object(f"zip://none.yaml::file://{tmp_path}/jobs.zip")


def test_a_uri_is_resolved_to_its_storage_and_name(tmp_path: Path) -> None:
    (tmp_path / "a b").write_bytes(b"x")
    for uri in (f"{tmp_path}/a b", f"file://{tmp_path}/a%20b", f"{tmp_path}/./a b"):
        storage, name = resolve(uri)
        assert (storage.is_local, name, storage.read(name)) == (True, f"{tmp_path}/a b", b"x")
