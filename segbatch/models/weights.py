"""Sets of weights: package data, a published URL, or any URI. Does not import torch."""

from __future__ import annotations

import errno
import functools
import hashlib
import logging
import os
import tempfile
import urllib.request
from collections.abc import Container, Mapping
from dataclasses import dataclass, replace
from functools import partial
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal

from segbatch.class_list import FORMS, parse_class_list
from segbatch.contents import OF_WEIGHTS, recognized
from segbatch.errors import MissingObject, ModelError, SourceError, SpecError, StorageError
from segbatch.labels import LabelSet
from segbatch.models.info import DEEPLAB_CRF, CRFDefaults
from segbatch.registry import suggest
from segbatch.storage.base import Storage
from segbatch.storage.resolve import read_object, resolve
from segbatch.storage.retry import RetryPolicy
from segbatch.text import counted, redact

logger = logging.getLogger(__name__)

_DOWNLOAD_TIMEOUT = 20.0  # seconds without a byte
SUFFIXES = (".pth", ".pt", ".ckpt", ".bin", ".th", ".tar", ".pkl", ".safetensors", ".caffemodel")  # .tar: .pth.tar
MAX_FILES = 10_000
_BLOCK_BYTES = 8 * 2**20
HDF5 = (".h5", ".hdf5")  # refused, with a command that converts them


@dataclass(frozen=True)
class Preprocess:
    """The normalization of uint8 RGB to the network's input: each channel is ``(value / scale - mean) / std``.

    Args:
        mean: In the network's order of channels.
        std: In the network's order of channels.
        scale: Divisor of the values.
        bgr: Whether the network's order is BGR, as in the VGG16 family.
    """

    mean: tuple[float, float, float]
    std: tuple[float, float, float] = (1.0, 1.0, 1.0)
    scale: float = 255.0
    bgr: bool = False

    def affine(self) -> tuple[list[float], list[float]]:
        """Return ``a`` and ``b`` of the equivalent ``value * a + b``, per channel in the network's order."""
        return [1 / (self.scale * s) for s in self.std], [-m / s for m, s in zip(self.mean, self.std, strict=True)]

    def mean_color(self) -> tuple[int, int, int]:
        """Return the uint8 RGB color that is normalized to about zero."""
        r, g, b = (round(m * self.scale) for m in (self.mean[::-1] if self.bgr else self.mean))
        return r, g, b


IMAGENET_RGB = Preprocess((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
# Caffe's mean of ImageNet, in BGR; values stay in 0…255.
CAFFE_BGR = Preprocess((104.00698793, 116.66876762, 122.67891434), scale=1.0, bgr=True)
RAW_BGR = Preprocess((0.0, 0.0, 0.0), scale=1.0, bgr=True)


@dataclass(frozen=True)
class Weights:
    """One set of weights for one network.

    Attributes:
        origin: The meaning of ``source``: a file in this package's data, a ``url`` that is downloaded once into
            torch.hub's cache, a ``uri`` that fsspec opens, or a ``seed`` (untrained, for tests and benchmarks).
        temperature: Divisor of the logits that calibrates their softmax, fitted on labeled images that were not trained
            on (Guo et al. 2017, "On Calibration of Modern Neural Networks", section 4.2); 1 if it was not fitted.
        digest: ``sha256:`` of the content. Before the content is read, the digest of package data, or the prefix that
            the publisher of a URL states; see ``identified``.
        crf: Parameters of the dense CRF where no others are given.
        note: Which tensors of a checkpoint were loaded, if not all of them.
    """

    name: str
    origin: Literal["package", "url", "uri", "seed"]
    source: str
    labels: LabelSet
    preprocess: Preprocess = IMAGENET_RGB
    accuracy: str = "not stated"
    terms: str = ""
    temperature: float = 1.0
    digest: str = ""
    crf: CRFDefaults = DEEPLAB_CRF
    note: str = ""

    def read(self, storage_options: Mapping[str, Any] | None = None) -> bytes:
        """Return the content. Raises ``ModelError`` if it is not available, or not what was published."""
        if self.origin == "package":
            return (files("segbatch.models") / "data" / self.source).read_bytes()
        if self.origin == "url":
            return _read_published(self.source, self.digest.removeprefix("sha256:"))
        return read_uri(self.source, "weights", storage_options)

    def identified(self) -> Weights:
        """Return the weights with the digest of package data; others are returned unchanged."""
        return replace(self, digest=_package_digest(self.source)) if self.origin == "package" else self


def content_digest(data: bytes) -> str:
    """Return ``sha256:`` and 64 hex digits."""
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


@functools.cache
def _package_digest(source: str) -> str:
    return content_digest((files("segbatch.models") / "data" / source).read_bytes())


def named_digest(weights: str, storage_options: Mapping[str, Any] | None = None) -> str:
    """Identify the weights of a user's network by the content of the file or folder, or by the name of anything else.

    The digest of a folder covers the names and contents of the files in it, without hidden files, which caches write.

    Raises:
        ModelError: The file or folder exists and cannot be read.
    """
    name = repr(redact(weights))
    try:
        storage, path = resolve(weights, storage_options)
        kind = storage.stat(path).kind
    except (MissingObject, SourceError):  # or a protocol that fsspec cannot open
        return name
    except StorageError as e:
        cause = e.__cause__
        if isinstance(cause, NotADirectoryError | ValueError) or getattr(cause, "errno", 0) == errno.ENAMETOOLONG:
            return name  # no path at all
        raise _unreadable(name, e) from e
    try:
        if kind == "file":
            return _file_digest(storage, path)
        below = (info.name for info in storage.list(path, recursive=True) if info.kind == "file")
        files = [file for file in sorted(below) if "/." not in file.removeprefix(path)]
        if len(files) > MAX_FILES:
            raise _unreadable(name, f"a folder of more than {MAX_FILES:,} files; give that of the weights alone")
        tree = "".join(f"{_file_digest(storage, file)} {file.removeprefix(path)}\n" for file in files)
    except StorageError as e:
        raise _unreadable(name, e) from e
    return content_digest(tree.encode())


def _unreadable(name: str, reason: StorageError | str) -> ModelError:
    unavailable = reason if isinstance(reason, StorageError) and reason.kind == "unavailable" else None
    return ModelError(
        f"weights {name} cannot be read, to know which network it is: {reason}. Check the URI and your credentials, or "
        "let the network carry an attribute `digest`",
        like=unavailable,
    )


def _file_digest(storage: Storage, path: str) -> str:
    with storage.open(path, _BLOCK_BYTES) as f:
        return f"sha256:{hashlib.file_digest(f, 'sha256').hexdigest()}"  # type: ignore[arg-type]


def choose(model: str, named: Mapping[str, Weights], choice: str) -> Weights | str:
    """The named weights that ``--weights`` means (``default``: the first), or the URI that it is."""
    if choice == "default":
        if not named:
            raise SpecError(f"model {model!r} comes without weights; give --weights URI ({' '.join(SUFFIXES)})")
        return next(iter(named.values()))
    if choice in named:
        return named[choice]
    if "/" in choice or os.sep in choice or choice.lower().endswith((*SUFFIXES, *HDF5)):
        return choice
    known = ["default", "random", *named]
    raise SpecError(
        f"model {model!r} has no weights {choice!r}{suggest(choice, known)}. "
        f"For a file, give its path or URI ({' '.join(SUFFIXES)})"
    )


def read_uri(
    uri: str, what: str, storage_options: Mapping[str, Any] | None = None, kinds: Container[str] = OF_WEIGHTS
) -> bytes:
    """The bytes behind a path or URI; where they cannot be read, a ``ModelError`` that calls them ``what``.

    So it does if they begin as a file of a kind (see ``contents``) that is not among ``kinds``.
    """
    try:
        data = read_object(uri, storage_options)
    except MissingObject as e:
        raise ModelError(f"{what} {uri!r}: there is no such file; check the path or URI") from e
    except SourceError as e:
        raise ModelError(f"{what} {uri!r}: {e}") from e
    except StorageError as e:
        away = e.kind == "unavailable"
        remedy = "run the same command again when the store answers" if away else "check the URI"
        raise ModelError(f"{what} {uri!r}: {e.problem}; {remedy}", like=e if away else None) from e
    if other := recognized(data, kinds):
        raise ModelError(f"{what} {uri!r}: the file is {other}")
    return data


def read_labels(uri: str, count: int | None, model: str, storage_options: Mapping[str, Any] | None = None) -> LabelSet:
    """The classes in the file that ``--classes`` names; ``SpecError`` unless they are ``count`` (None: any)."""
    data = read_uri(uri, "classes", storage_options)
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as e:
        reason = f"the file is {recognized(data)}" if recognized(data) else f"not UTF-8 text ({e})"
        raise SpecError(f"classes {uri!r}: {reason}; write {FORMS}") from e
    labels = parse_class_list(text, uri).label_set()
    if count is not None and len(labels) != count:
        raise SpecError(
            f"classes {uri!r} names {counted(len(labels), 'class')}, but the weights of {model} have {count}; "
            "give as many names as the network has classes, background included"
        )
    return labels


def _read_published(url: str, digest_prefix: str) -> bytes:
    """A published file from torch.hub's cache, downloaded into it first if need be, its hash checked."""
    path = _hub_checkpoints() / Path(url).name
    if path.exists():
        data = path.read_bytes()
        if not hashlib.sha256(data).hexdigest().startswith(digest_prefix):
            raise ModelError(
                f"{path} is not the file published at {url} (its sha256 must begin with {digest_prefix}); "
                "delete it so that it is downloaded again"
            )
        return data
    remedy = (
        f"Download {url} where there is a network, then give --weights URI of that file, or put it into "
        f"{path.parent} (TORCH_HOME moves that folder); or take the built-in model "
        "deeplabv3plus_mobilenet_v2, which needs no download"
    )
    logger.info("downloading %s to %s", url, path)
    retry = RetryPolicy()
    try:
        data = retry.run(partial(_download, url), retry.deadline_seconds)
    except OSError as e:
        raise ModelError(f"cannot download {url}: {getattr(e, 'reason', None) or e}. {remedy}") from e
    if not (met := hashlib.sha256(data).hexdigest()).startswith(digest_prefix):
        raise ModelError(f"{url} gave a file with sha256 {met[:16]}…, expected {digest_prefix}…. {remedy}")
    _keep(path, data)
    return data


def _download(url: str) -> bytes:
    # Not by torch.hub, which sets no timeout: a firewall that drops packets would hang it. Not by storage, whose client
    # of HTTP does not use the proxies of the environment.
    with urllib.request.urlopen(url, timeout=_DOWNLOAD_TIMEOUT) as response:
        data: bytes = response.read()
        return data


def _keep(path: Path, data: bytes) -> None:
    """Write into the cache, atomically (several workers may download). A read-only cache is no error."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path.parent, delete=False) as f:
            f.write(data)
        os.replace(f.name, path)
    except OSError as e:
        logger.warning("cannot keep the downloaded weights at %s: %s", path, e)


def _hub_checkpoints() -> Path:
    """Where torch.hub keeps checkpoints, and so torchvision too; found without importing torch."""
    cache = os.environ.get("XDG_CACHE_HOME", "~/.cache")
    home = os.environ.get("TORCH_HOME", os.path.join(cache, "torch"))
    return Path(home).expanduser() / "hub" / "checkpoints"
