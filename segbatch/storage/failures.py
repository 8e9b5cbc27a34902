"""The one translation of what clients of storage raise, and which of their failures are transient."""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from segbatch.causes import remedy
from segbatch.errors import MissingObject, SegbatchError, StorageError
from segbatch.storage.credentials import credentials_problem
from segbatch.text import redact_text

_MAX_TEXT = 200
_WRITES = ("written", "created")

_TRANSIENT_ERRNO = {
    errno.EAGAIN,
    errno.EBUSY,  # what s3fs raises for SlowDown and ServiceUnavailable
    errno.ECONNABORTED,
    errno.ECONNREFUSED,
    errno.ECONNRESET,
    errno.EHOSTUNREACH,
    errno.EINTR,
    errno.EIO,  # what s3fs raises for an unknown code
    errno.ENETDOWN,
    errno.ENETUNREACH,
    errno.ENOTCONN,  # a FUSE mount whose server has died
    errno.EPIPE,
    errno.EREMOTEIO,  # what s3fs raises for InternalError
    errno.ESTALE,
    errno.ETIMEDOUT,
}
# 409: a conflicting operation on the same object is in progress.
_TRANSIENT_STATUS = {408, 409, 425, 429, 500, 502, 503, 504}
# S3's codes for requests that the network damaged, although their status is 400.
_TRANSIENT_CODES = {"BadDigest", "IncompleteBody", "RequestTimeout", "XAmzContentSHA256Mismatch"}
# Exceptions of clients by name, since their packages are not dependencies.
_TRANSIENT_NAMES = {
    "ClientConnectionError",
    "ClientConnectorError",
    "ClientOSError",
    "ClientPayloadError",
    "ConnectionClosedError",
    "ConnectTimeoutError",
    "EndpointConnectionError",
    "HTTPClientError",
    "IncompleteReadError",
    "ReadTimeoutError",
    "ResponseParserError",
    "ResponseStreamingError",
    "ServerDisconnectedError",
    "ServerTimeoutError",
}
_TRANSIENT_WORDS = ("slow down", "slowdown", "reduce your request rate", "service unavailable", "internal error")
_PERMANENT = (FileNotFoundError, PermissionError, IsADirectoryError, NotADirectoryError, FileExistsError)


def is_transient(error: BaseException) -> bool:
    """Return whether the same request may succeed later: timeouts, broken connections, 409, 429 and 5xx."""
    if isinstance(error, StorageError):
        return error.transient
    if isinstance(error, _PERMANENT):
        return False
    if isinstance(error, TimeoutError | ConnectionError):
        return True
    if any(base.__name__ in _TRANSIENT_NAMES for base in type(error).__mro__):
        return True
    code, status = status_of(error)
    if code in _TRANSIENT_CODES or status in _TRANSIENT_STATUS:
        return True
    if not isinstance(error, OSError) or (status is not None and 400 <= status < 500):
        return False
    text = str(error).lower()
    return error.errno in _TRANSIENT_ERRNO or any(word in text for word in _TRANSIENT_WORDS)


def status_of(error: BaseException) -> tuple[str | None, int | None]:
    """Return (error code of the store, HTTP status) of a client's exception, where it has them."""
    for e in (error, error.__cause__):
        response = getattr(e, "response", None)
        if isinstance(response, dict):
            status = response.get("ResponseMetadata", {}).get("HTTPStatusCode")
            return response.get("Error", {}).get("Code"), status if isinstance(status, int) else None
        for name in ("status", "code"):
            given = getattr(e, name, None)
            if given is not None and str(given).isdigit():
                return None, int(str(given))
    return None, None


@contextmanager
def translated(uri: Callable[[], str], action: str, *, is_local: bool) -> Iterator[None]:
    """Raise ``StorageError`` for any exception of a client, but not for errors of segbatch.

    Args:
        uri: Gives the redacted URI of the object.
        action: What cannot be done: ``read``, ``written``.
        is_local: Whether the storage is of this machine: then transient failures do not get the remedy to wait.
    """
    try:
        yield
    except SegbatchError:
        raise
    except Exception as e:  # the boundary to clients of storage: each has exceptions of its own
        raise storage_error(uri(), action, e, is_local=is_local) from e


def storage_error(uri: str, action: str, error: Exception, *, is_local: bool) -> StorageError:
    """Return the ``StorageError`` for what a client raised: URI, problem and remedy in one line."""
    problem, hint, transient = problem_of(action, error), remedy(error), is_transient(error)
    if transient and not is_local:
        hint = "the store is unavailable; committed chunks are kept: run the same command again when it answers"
    elif credentials_problem(error, ""):
        hint = ""
    elif not hint and action in _WRITES:
        hint = "check the free space and the permissions there"
    missing = isinstance(error, FileNotFoundError) and action not in _WRITES
    kind = MissingObject if missing else StorageError
    translation = kind(f"{uri}: {problem}{'; ' if hint else ''}{hint}")
    translation.problem, translation.transient, translation.code = problem, transient, status_of(error)[0]
    if transient and not is_local:
        translation.kind = "unavailable"
    return translation


def problem_of(action: str, error: Exception) -> str:
    """Return why something cannot be read, written …, without its URI."""
    if isinstance(error, StorageError):
        return error.problem
    if isinstance(error, FileNotFoundError) and action not in _WRITES:
        return "does not exist"
    if problem := credentials_problem(error, brief(error)):
        return problem
    if isinstance(error, PermissionError):
        return f"access is denied ({brief(error)})"
    if isinstance(error, IsADirectoryError):
        return "is a folder, where one file must be named"
    return f"cannot be {action} ({type(error).__name__}: {brief(error)})"


def brief(error: BaseException) -> str:
    """Return what an exception says, on one short line, redacted."""
    if isinstance(error, StorageError):
        return error.problem
    text = " ".join(redact_text(getattr(error, "strerror", None) or str(error)).split())
    return text[:_MAX_TEXT] or type(error).__name__
