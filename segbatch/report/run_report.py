"""The report of an output: what ``report.html.j2`` shows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from segbatch.output.run_record import RunRecord
from segbatch.output.stats import ClassRow, class_rows
from segbatch.report import facts
from segbatch.report.cards import Images
from segbatch.report.charts import Histogram
from segbatch.report.facts import StageTime
from segbatch.report.gallery import Gallery
from segbatch.report.nights import Nights
from segbatch.report.sampling import BY_CLASS, BY_HASH, LEAST, Choice
from segbatch.report.summary import ErrorExample, Summary
from segbatch.report.verdict import Verdict
from segbatch.text import byte_size, counted


@dataclass(frozen=True)
class ClassLine:
    """A line of the table of classes: its sums, its share of the images, and images by its confidence, 0 to 1 each."""

    row: ClassRow
    image_share: float
    heights: tuple[float, ...]


@dataclass(frozen=True)
class ErrorKind:
    """Error rows of one kind: their number and the first ones."""

    kind: str
    count: int
    examples: tuple[ErrorExample, ...]


@dataclass(frozen=True)
class Sample:
    """How the images of the gallery were chosen, and what is not shown of them.

    Attributes:
        is_all: Whether these are all images of the output.
        rule: The rule, in sentences.
        problems: What is missing, one line each: images that are not available, images left out.
    """

    is_all: bool
    rule: str
    problems: tuple[str, ...]


@dataclass(frozen=True)
class RunReport:
    """The report of an output.

    Attributes:
        name: The last part of its address.
        location: Its address, redacted.
        verdict: Whether it is complete, and what to look at.
        tiles: Numbers at the top: (number, what it counts).
        facts: What was run.
        classes: Those that occur, most pixels first.
        absent: Names of those that do not.
        confidence_name: What the column ``confidence`` holds in this output.
        charts: The distributions.
        gallery: The sample.
        sample: How it was chosen.
        errors: By kind, the most frequent first.
        stages: Seconds by stage.
        seconds: Duration of the last call; "" if that is not known.
        nights: None for an output without nightly runs.
        skipped: What the inputs hold besides records, one line per reason.
        job: A job.yaml that computes the same rows.
        command: Shows the output's address as a word of a command line.
    """

    name: str
    location: str
    verdict: Verdict
    tiles: tuple[tuple[str, str], ...]
    facts: tuple[tuple[str, str], ...]
    classes: tuple[ClassLine, ...]
    absent: tuple[str, ...]
    confidence_name: str
    charts: tuple[Histogram, ...]
    gallery: Gallery
    sample: Sample
    errors: tuple[ErrorKind, ...]
    stages: tuple[StageTime, ...]
    seconds: str
    nights: Nights | None
    skipped: tuple[str, ...]
    job: str
    command: str


def class_lines(summary: Summary) -> tuple[ClassLine, ...]:
    """Return the lines of the table of classes."""
    rows = sorted((r for r in class_rows(summary.totals, summary.labels) if r.images), key=lambda r: -r.pixels)
    lines = []
    for row in rows:
        counts = summary.class_confidence[row.class_id]
        heights = tuple(float(count) / int(counts.max()) for count in counts)
        lines.append(ClassLine(row, row.images / max(1, summary.masks), heights))
    return tuple(lines)


def error_kinds(summary: Summary) -> tuple[ErrorKind, ...]:
    """Return the error rows by kind."""
    ordered = sorted(summary.totals.errors.items(), key=lambda item: (-item[1], item[0]))
    return tuple(ErrorKind(kind, count, tuple(summary.examples.get(kind, ()))) for kind, count in ordered)


def histograms(summary: Summary, confidence_name: str) -> tuple[Histogram, ...]:
    """Return the distributions over the images."""
    if not summary.masks:
        return ()
    has_background = summary.background is not None
    share = "Share that is not background" if has_background else "Share of the largest class"
    return (
        Histogram.of_shares(
            confidence_name.capitalize(),
            summary.confidence.tolist(),
            f"Images by their {confidence_name}; the mean over all pixels is {summary.mean_confidence:.3f}.",
        ),
        Histogram.of_numbers("Classes in an image", summary.num_classes.tolist(), "Images by their number of classes."),
        Histogram.of_shares(
            share, summary.foreground.tolist(), f"Images by the {share[0].lower()}{share[1:]}.", percent=True
        ),
    )


def tiles_of(record: RunRecord, summary: Summary, classes: int) -> tuple[tuple[str, str], ...]:
    """Return the numbers at the top."""
    records, failed = summary.totals.records, summary.totals.failed
    speed = facts.speed(record, records)
    size = record.timings.mask_bytes
    return (
        (f"{summary.masks:,}", "masks"),
        (f"{failed:,}", f"errors ({failed / records:.2%})" if failed else "errors"),
        (f"{classes} of {len(summary.labels)}", "classes that occur"),
        (f"{summary.mean_confidence:.3f}", f"mean {record.confidence_name}"),
        *([(speed, "images per second")] if speed else []),
        *([(byte_size(size), "result files")] if size else []),
    )


def sampling_rule(choices: Sequence[Choice], masks: int) -> str:
    """Say how the images were chosen."""
    if not choices:
        return "The page shows no images."
    if len(choices) == masks:
        return f"All {counted(masks, 'image')} of the output are shown, the least confident first."
    kinds = Counter(choice.reason for choice in choices)
    return (
        f"{len(choices):,} of {counted(masks, 'image')} were chosen: the {kinds[LEAST]:,} with the lowest confidence; "
        f"{kinds[BY_CLASS]:,} that contain each class as evenly as possible, the rarest class first; and "
        f"{kinds[BY_HASH]:,} with the lowest hash (BLAKE2b, 64 bits) of their image id, which do not depend on their "
        "content. Among images of equal rank, those come first whose photograph and network mask the run has kept. "
        "There is no random number: the same rows give the same sample. The numbers above are of all rows."
    )


def missing_images(images: Images, left_out: int) -> tuple[str, ...]:
    """Say which images the page lacks, and why."""
    problems = []
    if images.problems:
        number, example = len(images.problems), next(iter(images.problems.values()))
        are = (
            "image is not available, so its mask is" if number == 1 else "images are not available, so their masks are"
        )
        problems.append(f"{number:,} {are} shown alone: {example}")
    if left_out:
        problems.append(f"{counted(left_out, 'chosen image')} left out: the page would have exceeded 8 MB")
    return tuple(problems)
