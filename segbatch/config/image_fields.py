"""Settings that choose the image of a record, the same in every spec."""

from __future__ import annotations

from segbatch.config.base import setting

IMAGE_COLUMN = setting(
    None,
    "Parquet column that holds the image bytes; by default the one whose first values are images",
    effect="rows",
)
IMAGE_MEMBER = setting(
    None,
    "image of a tar's sample that counts, by what follows the key in its name: left.jpg, left, png; by default the "
    "first of jpg, jpeg, webp, png, …",
    effect="rows",
    min_length=1,
)
