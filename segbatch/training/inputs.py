"""From what a person names to labelled images: folders of files, or shards that hold both."""

from __future__ import annotations

from collections.abc import Callable

from segbatch.errors import SourceError, SpecError
from segbatch.metrics.class_map import ClassMap
from segbatch.sources import AnySource, open_source
from segbatch.sources.io import Files
from segbatch.training.examples import Examples, image_files
from segbatch.training.spec import TrainSpec
from segbatch.training.spool import spool


def open_examples(
    spec: TrainSpec, inputs: list[str], labels: str | None, classes: ClassMap, tell: Callable[[str], None]
) -> Examples:
    """The examples of ``inputs``: with a folder ``labels``, image files; else the records of shards.

    Raises ``SpecError`` for what cannot be paired, ``SourceError`` for what cannot be listed or read.
    """
    files = Files(spec.storage_options)
    if labels is not None:
        return image_files(inputs, labels, classes, files, spec.max_pixels, tell)
    if spec.label_column is None:
        raise SpecError("labels: give a folder of label images, or for shards --label-column")
    images = open_source(
        inputs,
        storage_options=spec.storage_options,
        image_column=spec.image_column,
        image_member=spec.image_member,
        label_column=spec.label_column,
    )
    shards = list(images.shards())
    formats = {shard.format for shard in shards}
    truths: AnySource | str = spec.label_column
    if formats == {"parquet"}:
        truths = open_source(
            inputs, storage_options=spec.storage_options, image_column=spec.label_column, format="parquet"
        )
        try:
            list(truths.shards())
        except SourceError as e:
            raise SpecError(f"label_column: {str(e).replace('image_column', 'label_column')}") from e
    elif formats != {"webdataset"}:
        raise SpecError(
            f"label_column: is for Parquet files or for tars, and the inputs are {' and '.join(sorted(formats))}; "
            "give a folder as --labels"
        )
    images.check(shards)
    return spool(images, truths, files, classes, spec.max_pixels, tell)
