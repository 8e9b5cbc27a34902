"""Safe names for image ids, which are untrusted text: unique in an export, in any format and on any file system."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from urllib.parse import quote

import numpy as np

from segbatch.errors import PlanError
from segbatch.sources.images import IMAGE_EXTENSIONS
from segbatch.sources.unique_ids import id_hash

_MAX_SEGMENT_BYTES = 200
_MAX_PATH_BYTES = 800  # keys of S3 have up to 1,024 bytes with the prefix
_HASH_DIGITS = 8
_PLAIN = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]*")
_CUT_ESCAPE = re.compile(r"%[0-9A-F]?$")
# A folder of such a name could be the file of another image.
_FILE_NAME = re.compile(
    rf"\.(?=(?:{'|'.join(e[1:] for e in (*IMAGE_EXTENSIONS, '.txt', '.json', '.xml'))})$)", re.IGNORECASE
)


def safe_name(image_id: str, reserved: frozenset[str] = frozenset()) -> str:
    """Return a relative path for an image id: its extension removed, unsafe characters percent-encoded.

    Segments consist of ``A-Z a-z 0-9 . _ - %`` and do not begin with a dot. Ones longer than 200 bytes, and paths
    longer than 800, are cut, and end in ``~`` and a hash. Different ids can have the same name, see ``Names``.

    Args:
        reserved: Names of folders that are encoded, see ``Format.reserved_folders``.
    """
    *folders, last = [segment for segment in image_id.split("/") if segment] or ["image"]
    stem, dot, extension = last.rpartition(".")
    if stem and f"{dot}{extension}".lower() in IMAGE_EXTENSIONS:
        last = stem
    segments = [_FILE_NAME.sub("%2E", _safe_segment(folder)) for folder in folders]
    segments = [f"%{ord(folder[0]):02X}{folder[1:]}" if folder in reserved else folder for folder in segments]
    return _cut("/".join([*segments, _safe_segment(last)]), _MAX_PATH_BYTES, image_id)


def hashed_name(name: str, image_id: str) -> str:
    """Return a name that only this image has: ``~`` is in no name that is not hashed."""
    digest = hashlib.sha256(image_id.encode("utf-8", "surrogatepass")).hexdigest()
    return f"{name}~{digest[:_HASH_DIGITS]}"


def _safe_segment(segment: str) -> str:
    if not _PLAIN.fullmatch(segment):
        segment = quote(segment.encode("utf-8", "surrogatepass"), safe="").replace("~", "%7E")
        if segment.startswith("."):
            segment = f"%2E{segment[1:]}"
    return _cut(segment, _MAX_SEGMENT_BYTES, segment)


def _cut(name: str, max_bytes: int, of: str) -> str:
    if len(name) <= max_bytes:
        return name
    kept = _CUT_ESCAPE.sub("", name[: max_bytes - _HASH_DIGITS - 1].rstrip("/"))
    return hashed_name(kept, of)


@dataclass(frozen=True)
class Names:
    """The names of all images of an export. Holds hashes, no ids.

    Attributes:
        ambiguous: Hashes of the names that several images would have, regardless of case; these get a hash.
        reserved: See ``safe_name``.
    """

    ambiguous: frozenset[int] = frozenset()
    reserved: frozenset[str] = frozenset()

    @staticmethod
    def of(hashes: Iterable[np.ndarray], reserved: frozenset[str] = frozenset()) -> Names:
        """Return the names of images, by ``name_hashes`` of their ids, (N, 2) uint64 each.

        Raises:
            PlanError: Two images have the same name with a hash, too.
        """
        pairs = np.concatenate([np.zeros((0, 2), np.uint64), *hashes])
        order = np.sort(pairs[:, 0])
        repeated = np.unique(order[1:][order[1:] == order[:-1]])
        final = np.where(np.isin(pairs[:, 0], repeated), pairs[:, 1], pairs[:, 0])
        if len(np.unique(final)) < len(final):
            raise PlanError(
                f"two of {len(final):,} image ids would have the same file name in the export, although a hash is part "
                "of it; export them separately with --image-ids"
            )
        return Names(frozenset(repeated.tolist()), reserved)

    def name_of(self, image_id: str) -> str:
        """Return the name of one image."""
        name = safe_name(image_id, self.reserved)
        return hashed_name(name, image_id) if id_hash(name.casefold()) in self.ambiguous else name


def name_hashes(image_ids: Iterable[str], reserved: frozenset[str] = frozenset()) -> np.ndarray:
    """Return two hashes of each id, uint64 (N, 2): of its name, and of its name with a hash, regardless of case."""
    rows = []
    for image_id in image_ids:
        name = safe_name(image_id, reserved)
        rows.append((id_hash(name.casefold()), id_hash(hashed_name(name, image_id).casefold())))
    return np.array(rows, np.uint64).reshape(-1, 2)
