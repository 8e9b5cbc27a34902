"""Clients of storage: the one place where fsspec, which users configure, is asked for them."""

from __future__ import annotations

import re
from typing import Any

import fsspec

from segbatch.errors import SourceError
from segbatch.storage.credentials import credentials_problem
from segbatch.storage.failures import brief

WEB = ("http", "https")
CHAIN = re.compile(r"::[A-Za-z][A-Za-z0-9+.-]*://")
_PACKAGES = {
    "s3": "s3fs",
    "s3a": "s3fs",
    "gs": "gcsfs",
    "gcs": "gcsfs",
    **dict.fromkeys(("az", "abfs", "abfss"), "adlfs"),
    "hf": "huggingface_hub",
}


def connect(root: str, options: dict[str, Any]) -> tuple[Any, str]:
    """Return fsspec's client for the URI ``root``, and the path of the root in it; "" if that is a protocol alone.

    Raises:
        SourceError: The protocol is unknown, its package is not installed, or it does not take these options.
    """
    protocol = root.partition("://")[0].lower()
    try:
        return _client(root, protocol, options)
    except ImportError as e:
        package = _PACKAGES.get(protocol)
        remedy = f"pip install {package}" if package else "install the package it names"
        raise SourceError(f"{protocol}:// needs a package that is not installed ({e}); {remedy}") from None
    except Exception as e:  # the boundary to clients of storage: some look for credentials at once
        if problem := credentials_problem(e, brief(e), protocol):
            raise SourceError(problem) from None
        if isinstance(e, TypeError):
            raise SourceError(f"storage options that {protocol}:// does not take: {brief(e)}") from None
        if not isinstance(e, ValueError):
            raise
        raise SourceError(
            f"{protocol}:// is not a protocol that fsspec knows, or its storage options are wrong "
            f"({brief(e)}); s3, gs, az, hf, https and local paths are usual"
        ) from None


def _client(root: str, protocol: str, options: dict[str, Any]) -> tuple[Any, str]:
    if CHAIN.search(root):
        fs, path = fsspec.core.url_to_fs(root, **options)
        return fs, str(path)
    if protocol in WEB:
        from segbatch.storage.web import WebFileSystem  # its client takes long to import

        fs = WebFileSystem(**options)
    else:
        fs = fsspec.filesystem(protocol, **options)
    return fs, "" if root.endswith("://") else str(fs._strip_protocol(root))
