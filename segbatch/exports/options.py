"""What an export is asked for: classes, photographs, sizes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from segbatch.errors import SpecError
from segbatch.exports.format import Images
from segbatch.exports.names import safe_name
from segbatch.text import escape_control_characters, redact


@dataclass(frozen=True)
class ExportOptions:
    """What decides the content of an export, besides the output.

    Attributes:
        to: Name of the format.
        classes: Classes to keep, after merging, each alone or several with commas; all of them if empty.
        class_map: Class -> class that it is merged into, which may be a new name, or ``ignore``.
        min_area: Smaller areas are removed, in pixels: of a class in an image, with ``instances`` of a component.
        void_below: Pixels of a class whose mean confidence in the image is lower are ignored pixels.
        images: Whether photographs are exported; None for the default of the format.
        instances: Whether an annotation is one connected component.
        split: Name of the split.
        image_root: Folder or URL below which annotation tools find the photographs.
    """

    to: str
    classes: tuple[str, ...] = ()
    class_map: Mapping[str, str] = field(default_factory=dict)
    min_area: int = 0
    void_below: float = 0.0
    images: Images | None = None
    instances: bool = False
    split: str = "train"
    image_root: str | None = None

    def check(self) -> None:
        """Raise ``SpecError`` for a value that no format takes."""
        if self.min_area < 0:
            raise SpecError(f"--min-area: got {self.min_area}; give a number of pixels, 0 for all areas")
        if not 0 <= self.void_below <= 1:
            raise SpecError(f"--void-below: got {self.void_below}; a confidence is from 0 to 1")
        if self.images not in (None, "none", "copy", "link"):
            raise SpecError(f"--images: got {self.images!r}; give none, copy or link")
        if not self.split or safe_name(self.split) != self.split or "/" in self.split:
            raise SpecError(
                f"--split: got {escape_control_characters(self.split)!r}; a split is a name of letters, digits, _ and -"
            )

    def to_json(self) -> dict[str, Any]:
        """Return plain data, by which two exports are compared."""
        image_root = None if self.image_root is None else redact(self.image_root)
        plain = {"classes": list(self.classes), "class_map": dict(self.class_map), "image_root": image_root}
        return {**vars(self), **plain}
