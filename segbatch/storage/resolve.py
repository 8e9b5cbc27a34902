"""The storage of a URI, and the object's name in it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from segbatch.storage.base import Storage
from segbatch.storage.clients import CHAIN
from segbatch.storage.local import LocalStorage
from segbatch.storage.remote import RemoteStorage
from segbatch.storage.retry import RetryPolicy
from segbatch.storage.uri import as_plain, split_uri


class Resolver:
    """Storage by URI: one per protocol, so that a job has one client for each. Picklable; displays no options."""

    def __init__(self, options: Mapping[str, Any] | None = None, retry: RetryPolicy | None = None) -> None:
        self._options, self._retry = dict(options or {}), retry or RetryPolicy()
        self._local, self._remote = LocalStorage(), dict[str, RemoteStorage]()

    def __call__(self, uri: str) -> tuple[Storage, str]:
        """Return the storage of ``uri``, and the object's name there: of a local one its absolute path.

        Raises:
            SourceError: The protocol is unknown or not installed, or does not take the options.
        """
        protocol, location = split_uri(uri)
        if protocol == "file":
            path = os.path.abspath(os.path.expanduser(location))
            return self._local, f"/{path.lstrip('/')}"  # abspath keeps two slashes at the beginning
        if protocol not in self._remote:
            self._remote[protocol] = RemoteStorage(f"{protocol}://", self._options, self._retry)
        storage = self._remote[protocol]
        return storage, storage.name_of(location)


def resolve(uri: str, options: Mapping[str, Any] | None = None) -> tuple[Storage, str]:
    """Return the storage of one URI, and the object's name there. See ``Resolver``, for many.

    A chain of fsspec, ``zip://job.yaml::s3://…``, is a storage whose root is the object.
    """
    if CHAIN.search(uri):
        return RemoteStorage(uri, dict(options or {})), ""
    return Resolver(options)(as_plain(uri))


def read_object(uri: str, options: Mapping[str, Any] | None = None, limit: int | None = None) -> bytes:
    """Read the object at ``uri``, of at most ``limit`` bytes, with retries.

    Raises:
        MissingObject: It does not exist.
        ObjectTooLarge: It is larger.
        StorageError: It cannot be read.
        SourceError: The protocol is unknown or not installed, or does not take the options.
    """
    storage, name = resolve(uri, options)
    return storage.read(name, limit)
