"""The gallery of a page: images with one or two masks over them."""

from __future__ import annotations

from dataclasses import dataclass

from segbatch.labels import LabelSet
from segbatch.report.encoding import background_of


@dataclass(frozen=True)
class CardClass:
    """A class in an image: its share of the pixels and its mean confidence, both 0 to 1."""

    id: int
    share: float
    confidence: float | None = None


@dataclass(frozen=True)
class Card:
    """One image of a gallery, or one record without a mask.

    Attributes:
        image_id: Its id.
        height: Of the image in pixels, None if it is not known.
        width: Of the image in pixels.
        photograph: Data URI of the image; "" if it is not available.
        masks: Data URIs of its masks: the one at the left end of the slider, then the one at the right end, if any.
        classes: Its classes, most pixels first.
        confidence: Its confidence, 0 to 1.
        caption: Why it is in the gallery, or what is to be seen.
        error: ``stage/type`` of a record without a mask.
        problem: Why there is no image or no mask, one line.
    """

    image_id: str
    height: int | None = None
    width: int | None = None
    photograph: str = ""
    masks: tuple[str, ...] = ()
    classes: tuple[CardClass, ...] = ()
    confidence: float | None = None
    caption: str = ""
    error: str = ""
    problem: str = ""


@dataclass(frozen=True)
class Gallery:
    """The gallery of a page.

    Attributes:
        cards: In the order in which they are shown.
        labels: The classes.
        left: Name of the first mask of each image, at the left end of the slider.
        right: Name of the second mask.
    """

    cards: tuple[Card, ...]
    labels: LabelSet
    left: str
    right: str

    @property
    def compared(self) -> int:
        """Number of images with both masks."""
        return sum(len(card.masks) == 2 for card in self.cards)

    @property
    def background(self) -> int | None:
        """The class that is left uncolored."""
        return background_of(self.labels)

    @property
    def class_ids(self) -> list[int]:
        """The classes of all images, by name."""
        ids = {c.id for card in self.cards for c in card.classes}
        return sorted(ids, key=lambda class_id: self.labels.names[class_id].casefold())

    @property
    def errors(self) -> list[str]:
        """The kinds of errors of all records without a mask."""
        return sorted({card.error for card in self.cards if card.error})
