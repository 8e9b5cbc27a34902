"""The cards of a report: chosen rows with their images and masks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from segbatch.codecs import mask_png, photograph
from segbatch.labels import LabelSet
from segbatch.records import Preview
from segbatch.report.encoding import data_uri, mask_uri
from segbatch.report.gallery import Card, CardClass
from segbatch.report.sampling import BY_CLASS, BY_HASH, LEAST, Choice
from segbatch.report.summary import Summary
from segbatch.results.row import MaskRow

_MAX_ERRORS = 12


@dataclass(frozen=True)
class Images:
    """What is known of the images of chosen rows.

    Attributes:
        previews: Kept by the run, by image id.
        photographs: Data URIs of images that were read again, by image id.
        problems: Why other images are not available, by image id.
        is_refined: Whether the network's own mask is another one than that of the output.
    """

    previews: Mapping[str, Preview]
    photographs: Mapping[str, str]
    problems: Mapping[str, str]
    is_refined: bool = True


def cards_of(
    choices: Sequence[Choice], rows: Sequence[MaskRow], images: Images, labels: LabelSet, is_all: bool
) -> Iterator[Card]:
    """Yield the card of each chosen row with a mask; they are encoded as they are taken."""
    captions = {LEAST: "among the least confident", BY_HASH: "chosen by hash"}
    for choice, row in zip(choices, rows, strict=True):
        if choice.reason == BY_CLASS and choice.class_id is not None:
            caption = f"chosen for {labels.names[choice.class_id]}"
        else:
            caption = captions[choice.reason]
        yield _card(row, images, labels, "" if is_all else caption)


def error_cards(summary: Summary) -> Iterator[Card]:
    """Yield the first records without a mask, those of different kinds in turn."""
    kinds = [(kind, list(examples)) for kind, examples in sorted(summary.examples.items())]
    left = _MAX_ERRORS
    while left > 0 and any(examples for _, examples in kinds):
        for kind, examples in kinds:
            if examples and left > 0:
                example, left = examples.pop(0), left - 1
                yield Card(example.image_id, error=kind, problem=example.message, caption="without a mask")


def _card(row: MaskRow, images: Images, labels: LabelSet, caption: str) -> Card:
    mask = row.mask
    assert mask is not None
    height, width = photograph.preview_size(*mask.shape)
    shown, masks = images.photographs.get(row.image_id, ""), []
    if preview := images.previews.get(row.image_id):
        shown, alone = data_uri(preview.photograph), mask_png.decode(preview.network)
        height, width = alone.shape
        masks = [mask_uri(alone, height, width, labels)] if images.is_refined else []
    return Card(
        row.image_id,
        row.height,
        row.width,
        shown,
        (mask_uri(mask, height, width, labels), *masks),
        tuple(CardClass(c.class_id, c.fraction, c.confidence) for c in row.classes),
        row.confidence,
        caption,
        problem=images.problems.get(row.image_id, ""),
    )
