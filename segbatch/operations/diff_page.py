"""The difference of two outputs as one HTML page."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from segbatch.codecs import photograph
from segbatch.operations.diff import ChangedImage, Difference
from segbatch.operations.page_file import MAX_BYTES, write_page
from segbatch.operations.photographs import read_photographs
from segbatch.output.output import Output
from segbatch.report.encoding import data_uri, mask_uri
from segbatch.report.facts import run_facts
from segbatch.report.gallery import Card, CardClass, Gallery
from segbatch.report.page import fill, render
from segbatch.results.originals import Originals

_MAX_CONFUSED = 25  # classes of the confusion matrix


@dataclass(frozen=True)
class DiffPage:
    """What the page shows.

    Attributes:
        name_a, name_b: The outputs, for headings.
        difference: Their difference.
        facts: (what, in A, in B) of the two runs.
        confused: Ids of the classes of the confusion matrix, most pixels first.
        is_cut: Whether other classes of A are not in it.
        rates: Fractions of the pixels of a class of A that are a class of B, float64 (K, K).
        gallery: The images that differ most.
        problems: Why images are missing, one line each.
    """

    name_a: str
    name_b: str
    difference: Difference
    facts: Sequence[tuple[str, str, str]]
    confused: Sequence[int]
    is_cut: bool
    rates: np.ndarray
    gallery: Gallery
    problems: Sequence[str]


def write_diff_page(
    difference: Difference, outputs: tuple[str, str], to: Path, storage_options: dict[str, Any] | None = None
) -> tuple[str, int]:
    """Write a page with the classes, the confusion and the images of a difference; at most about 8 MB.

    Images are those that the run of A has kept for its report; others are read again from its inputs.

    Args:
        difference: Of two outputs.
        outputs: Their URIs, which in ``difference`` are redacted.
        to: The file.
        storage_options: Passed to fsspec.

    Returns:
        The path, and the size in bytes.

    Raises:
        PlatformError: The file cannot be written.
    """
    page = render("diff.html.j2", _page(difference, outputs, storage_options))
    return write_page(to, page), len(page)


def _page(difference: Difference, outputs: tuple[str, str], storage_options: dict[str, Any] | None) -> DiffPage:
    a, b = (Output.open(uri, storage_options) for uri in outputs)
    photographs, problems = _photographs(a, difference.changed, storage_options)
    name_a, name_b = _names(difference.a, difference.b)
    empty = Gallery((), difference.classes.labels, f"A: {name_a}", f"B: {name_b}")
    gallery = fill(empty, _cards(difference, photographs), MAX_BYTES)
    facts = run_facts(a.record, difference.a), run_facts(b.record, difference.b)
    pixels = difference.confusion.sum(axis=1)
    order = np.argsort(-(pixels + difference.confusion.sum(axis=0)), kind="stable")
    confused = [int(i) for i in order[:_MAX_CONFUSED] if pixels[i]]
    return DiffPage(
        name_a=name_a,
        name_b=name_b,
        difference=difference,
        facts=_beside(*map(dict, facts)),
        confused=confused,
        is_cut=len(confused) < int(np.count_nonzero(pixels)),
        rates=difference.confusion[np.ix_(confused, confused)] / pixels[confused, None],
        gallery=gallery,
        problems=problems + _left_out(difference, gallery),
    )


def _photographs(
    a: Output, changed: Sequence[ChangedImage], storage_options: dict[str, Any] | None
) -> tuple[dict[str, str], list[str]]:
    """Return data URIs of images by id, and why others are missing, one line for each reason."""
    wanted = {image.image_id: image for image in changed}
    found = {p.image_id: data_uri(p.photograph) for p in a.previews() if p.image_id in wanted}
    problems: dict[str, int] = {}
    originals = Originals(a, storage_options=storage_options)
    rows = [image.a for name, image in wanted.items() if name not in found]
    for image_id, uri, problem in read_photographs(originals, rows):
        if uri:
            found[image_id] = uri
        if problem:
            problems[problem] = problems.get(problem, 0) + 1
    return found, [f"masks without their image: {count:,}; {problem}" for problem, count in problems.items()]


def _cards(difference: Difference, photographs: Mapping[str, str]) -> Iterator[Card]:
    classes = difference.classes
    for image in difference.changed:
        mask_a, mask_b = image.a.mask, image.b.mask
        assert mask_a is not None
        assert mask_b is not None
        height, width = photograph.preview_size(*mask_a.shape)
        pixels = mask_a.size
        changes = ", ".join(f"{a} → {b} {count / pixels:.1%}" for a, b, count in image.changes)
        yield Card(
            image.image_id,
            image.a.height,
            image.a.width,
            photographs.get(image.image_id, ""),
            (
                mask_uri(mask_a, height, width, classes.labels),
                mask_uri(classes.from_b(mask_b), height, width, classes.labels),
            ),
            tuple(CardClass(c.class_id, c.fraction, c.confidence) for c in image.a.classes),
            image.a.confidence,
            f"{image.changed:.1%} of the pixels differ, mean IoU {image.mean_iou:.2f}; A → B: {changes}",
        )


def _left_out(difference: Difference, gallery: Gallery) -> list[str]:
    left_out = len(difference.changed) - len(gallery.cards)
    return [f"images left out, since the page has its {MAX_BYTES / 1e6:.0f} MB: {left_out:,}"] if left_out else []


def _beside(a: Mapping[str, str], b: Mapping[str, str]) -> list[tuple[str, str, str]]:
    return [(name, a.get(name, ""), b.get(name, "")) for name in dict.fromkeys([*a, *b])]


def _names(a: str, b: str) -> tuple[str, str]:
    """Return the last parts of two URIs; the whole URIs if these are equal."""
    names = os.path.basename(a.rstrip("/")), os.path.basename(b.rstrip("/"))
    return (a, b) if names[0] == names[1] else names
