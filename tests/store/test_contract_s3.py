"""The contract of storage on a real object store."""

from __future__ import annotations

import pytest

from segbatch.storage.base import Storage
from segbatch.storage.remote import RemoteStorage
from tests.storage.contract import StorageContract
from tests.store.seaweed import Seaweed


class TestS3(StorageContract):
    @pytest.fixture
    def storage(self, seaweed: Seaweed, place: str) -> Storage:
        return RemoteStorage(f"s3://{place}", seaweed.storage_options())
