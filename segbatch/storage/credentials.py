"""Credentials that a store lacks or refuses: recognized by the exceptions of its client, with the remedy."""

from __future__ import annotations

from segbatch.causes import causes

_REMEDIES = {
    "S3": "set AWS_PROFILE, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or give key and secret as storage_options "
    "in --config; for a public bucket give storage_options: {anon: true}",
    "Google Cloud Storage": "set GOOGLE_APPLICATION_CREDENTIALS, or run `gcloud auth application-default login`, or "
    "give token as storage_options in --config; for a public bucket give storage_options: {token: anon}",
    "Azure": "set AZURE_STORAGE_CONNECTION_STRING, or AZURE_STORAGE_ACCOUNT_NAME and AZURE_STORAGE_ACCOUNT_KEY, or "
    "give account_name and account_key as storage_options in --config; for a public container give account_name and "
    "anon: true",
}
# Of an exception's class, and of protocols.
_STORES = {
    **dict.fromkeys(("botocore", "aiobotocore", "s3fs", "s3", "s3a"), "S3"),
    **dict.fromkeys(("google", "gcsfs", "gs", "gcs"), "Google Cloud Storage"),
    **dict.fromkeys(("azure", "adlfs", "az", "abfs", "abfss"), "Azure"),
}
# By name, since the packages of clients are not dependencies.
_MISSING = {
    "NoCredentialsError",
    "PartialCredentialsError",
    "ProfileNotFound",
    "DefaultCredentialsError",
    "CredentialUnavailableError",
}
_REFUSED = {
    "CredentialRetrievalError",
    "TokenRetrievalError",
    "SSOError",
    "RefreshError",
    "ClientAuthenticationError",
}
_REFUSED_CODES = (
    "InvalidAccessKeyId",
    "SignatureDoesNotMatch",
    "ExpiredToken",
    "InvalidToken",
    "TokenRefreshRequired",
)
_MISSING_TEXTS = ("anonymous caller", "must provide either a connection_string", "noauthenticationinformation")


def credentials_problem(error: BaseException, reason: str, protocol: str = "") -> str:
    """Return which credentials are missing or refused, and the remedy; "" for an error that has another cause.

    Args:
        reason: What the error says, redacted.
        protocol: Of the store, for clients that raise plain ``ValueError``.
    """
    links = list(causes(error))
    classes = [base for link in links for base in type(link).__mro__]
    names = {base.__name__ for base in classes}
    text = " ".join(map(str, links))
    if names & _MISSING or any(words in text.lower() for words in _MISSING_TEXTS):
        state = "are missing"
    elif names & _REFUSED or any(code in text for code in _REFUSED_CODES) or _is_unauthorized(links):
        state = "are refused"
    else:
        return ""
    packages = (protocol, *(base.__module__.partition(".")[0] for base in classes))
    store = next((_STORES[package] for package in packages if package in _STORES), None)
    return "" if store is None else f"credentials for {store} {state} ({reason}): {_REMEDIES[store]}"


def _is_unauthorized(links: list[BaseException]) -> bool:
    # A client that has ``status`` may warn of ``code``.
    return any(str(getattr(link, "status", None) or getattr(link, "code", "")) == "401" for link in links)
