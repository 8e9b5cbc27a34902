"""The labeled images that a spec names: folders of files, or shards that contain both."""

from __future__ import annotations

from segbatch.config.training import TrainSpec
from segbatch.errors import RecordFailure, SourceError, SpecError
from segbatch.evaluation.label_counts import InspectedLabel
from segbatch.evaluation.label_images import open_labels
from segbatch.evaluation.survey import LabelSurvey, survey
from segbatch.labels import LabelSet
from segbatch.sources import Source
from segbatch.sources.formats import ReadOptions
from segbatch.storage.files import Files
from segbatch.training.examples import Examples, image_files
from segbatch.training.spool import spool

_MAX_DECODED = 64  # images whose size is compared with their label's before any work


def open_examples(
    spec: TrainSpec, inputs: list[str], labels: str | None, names: LabelSet
) -> tuple[Examples, LabelSurvey]:
    """Return the examples of ``inputs``, and a survey of their labels.

    Args:
        labels: Folder or glob of label images; None for shards that contain the labels.
        names: The classes.

    Raises:
        SpecError: Images and labels cannot be paired, or the labels are unusable.
        SourceError: An input cannot be listed or read.
    """
    files = Files(spec.storage_options)
    options = spec.label_options()
    reader, classes = open_labels(options, names, files)
    examples: Examples
    if labels is not None:
        examples, notes = image_files(inputs, labels, options.suffix, classes, reader, spec.max_pixels)
    else:
        examples, notes = spool(*_shards(spec, inputs), classes, reader, spec.max_pixels)
    every = max(1, len(examples) // _MAX_DECODED)

    def inspect(index: int) -> InspectedLabel:
        name, label = examples.label(index)
        size = _size(examples, index) if index % every == 0 else None
        return InspectedLabel(name, label.values, label.palette, size)

    return examples, survey(
        len(examples), inspect, classes, names, strict=True, check_palettes=options.checks_palettes, notes=notes
    )


def _size(examples: Examples, index: int) -> tuple[int, int] | None:
    try:
        height, width, _ = examples.image(index).shape
    except RecordFailure:  # the training leaves it out
        return None
    return height, width


def _shards(spec: TrainSpec, inputs: list[str]) -> tuple[Source, Source | str]:
    """The source of the images, and that of the labels, or the ending of their member names in tars."""
    if spec.label_column is None:
        raise SpecError("labels: give a folder of label images, or for shards --label-column")
    files = Files(spec.storage_options)
    options = ReadOptions(
        files, image_column=spec.image_column, image_member=spec.image_member, label_column=spec.label_column
    )
    images = Source(inputs, options)
    shards = list(images.shards())
    formats = {shard.format for shard in shards}
    if not formats <= {"parquet", "webdataset"} or len(formats) > 1:
        raise SpecError(
            f"label_column: is for Parquet files or for tars, and the inputs are {' and '.join(sorted(formats))}; "
            "give a folder as --labels"
        )
    if formats == {"webdataset"}:
        images.check(shards)
        return images, spec.label_column
    truths = Source(inputs, ReadOptions(files, format="parquet", image_column=spec.label_column))
    try:
        list(truths.shards())
    except SourceError as e:
        raise SpecError(f"label_column: {str(e).replace('image_column', 'label_column')}") from e
    images.check(shards)
    return images, truths
