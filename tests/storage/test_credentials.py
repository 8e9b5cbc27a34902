"""Credentials that a store lacks or refuses: called that, with what a user can do, for each kind of store."""

from __future__ import annotations

from pathlib import Path

import pytest

from segbatch.errors import ModelError, SegbatchError, SourceError
from segbatch.models.weights import read_uri
from segbatch.storage import clients
from segbatch.storage.failures import storage_error
from segbatch.storage.files import Files
from segbatch.storage.listing import list_input
from segbatch.storage.store import Store

S3 = ("credentials for S3 are missing", "AWS_PROFILE", "storage_options", "anon")


def of(package: str, name: str, text: str, base: type[Exception] = Exception) -> Exception:
    """An exception of a client that is not installed."""
    kind: type[Exception] = type(name, (base,), {"__module__": f"{package}.exceptions"})
    return kind(text)


@pytest.fixture
def no_credentials(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> dict[str, object]:
    """A machine without a key, a profile or a role; storage options for a store on loopback, which is not asked."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    for name in ("AWS_SHARED_CREDENTIALS_FILE", "AWS_CONFIG_FILE"):
        monkeypatch.setenv(name, str(tmp_path / "none"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    return {"client_kwargs": {"endpoint_url": "http://127.0.0.1:9", "region_name": "us-east-1"}}


def test_inputs_outputs_and_weights_name_the_remedy(no_credentials: dict[str, object]) -> None:
    said = []
    for attempt in (
        lambda: list_input(Files(no_credentials), "s3://bucket/photos/"),
        lambda: list_input(Files(no_credentials), "s3://bucket/photos/*.jpg"),
        lambda: Store("s3://bucket/out", no_credentials).exists("run.json"),
        lambda: Store("s3://bucket/out", no_credentials).write("a", b""),
        lambda: read_uri("s3://bucket/net.pth", "weights", no_credentials),
    ):
        with pytest.raises(SegbatchError) as refused:
            attempt()
        said.append(str(refused.value))
    for text in said:
        assert all(word in text for word in S3), text
        assert "s3://bucket" in text or "bucket/net.pth" in text
        assert "free space" not in text


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (
            of("google.auth", "DefaultCredentialsError", "could not be found"),
            ("Google Cloud Storage are missing", "GOOGLE_APPLICATION_CREDENTIALS", "token: anon"),
        ),
        (
            of("gcsfs", "HttpError", "Anonymous caller does not have storage.objects.list access, 401"),
            ("Google Cloud Storage are missing", "storage_options"),
        ),
        (of("google.auth", "RefreshError", "invalid_grant"), ("Google Cloud Storage are refused", "gcloud auth")),
        (
            of("azure.core", "ClientAuthenticationError", "NoAuthenticationInformation"),
            ("Azure are missing", "AZURE_STORAGE_CONNECTION_STRING", "storage_options"),
        ),
        (of("azure.core", "ClientAuthenticationError", "Server failed to authenticate"), ("Azure are refused", "anon")),
        (
            of("botocore", "ProfileNotFound", "The config profile (x) could not be found"),
            ("S3 are missing", "AWS_PROFILE"),
        ),
        (
            of("botocore", "ClientError", "(ExpiredToken) when calling ListObjectsV2"),
            ("S3 are refused", "ExpiredToken"),
        ),
    ],
)
@pytest.mark.parametrize("action", ["listed", "written"])
def test_each_kind_of_store_has_its_remedy(error: Exception, words: tuple[str, ...], action: str) -> None:
    text = str(storage_error("x://bucket/a", action, error, is_local=False))
    assert text.startswith("x://bucket/a: credentials for ")
    assert all(word in text for word in words), text
    assert "free space" not in text


def test_a_client_that_wants_credentials_at_once_is_understood(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise ValueError("Must provide either a connection_string or account_name with credentials!!")

    monkeypatch.setattr(clients.fsspec, "filesystem", refuse)
    with pytest.raises(SourceError, match=r"^credentials for Azure are missing .*account_name"):
        clients.connect("az://container", {})


def test_other_refusals_are_not_called_missing_credentials(tmp_path: Path) -> None:
    with pytest.raises(ModelError) as missing:
        read_uri(str(tmp_path / "credentials.pth"), "weights")
    assert "credentials for" not in str(missing.value)
    denied = storage_error("s3://b/a", "read", PermissionError("Forbidden"), is_local=False)
    assert "access is denied" in str(denied)
