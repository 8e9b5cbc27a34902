"""One object store for all tests of a session."""

from __future__ import annotations

import uuid
from collections.abc import Iterator

import pytest

from tests.store.seaweed import Seaweed


@pytest.fixture(scope="session")
def seaweed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Seaweed]:
    server = Seaweed(tmp_path_factory.mktemp("seaweed"))
    try:
        server.start()
        yield server
    finally:
        server.kill()


@pytest.fixture
def place(seaweed: Seaweed) -> str:
    """A prefix that nobody else uses; one bucket for all, since SeaweedFS sets volumes aside for each."""
    return f"tests/{uuid.uuid4().hex[:12]}"
