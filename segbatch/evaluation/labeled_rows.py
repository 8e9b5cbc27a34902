"""The rows of an output that have a label, found by their ids before any mask is read."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from segbatch.errors import OutputError, SpecError
from segbatch.evaluation.class_map import ClassMap
from segbatch.evaluation.label_counts import InspectedLabel
from segbatch.evaluation.label_images import LabelFile, LabelReader
from segbatch.evaluation.pairing import ImageName, Suffix, has_name, pair, refusal
from segbatch.evaluation.survey import LabelSurvey, survey
from segbatch.labels import LabelOptions, LabelSet
from segbatch.output.ledger import Ledger
from segbatch.output.result_file import ResultFile
from segbatch.storage.store import Store

IS_LABEL = -1  # instead of the index of an image's label: it is a label itself
_READERS = 16
_MAX_SHOWN = 1000  # ids that are examined for the message if none has a label


@dataclass(frozen=True)
class LabeledRows:
    """The rows of an output, paired with labels.

    Attributes:
        files: The result files of the output.
        labels: All labels.
        places: Index in ``labels`` of the label of each image id; ``IS_LABEL`` for an image that is a label itself.
        sizes: (height, width) of the row with a mask, by the index of its label.
        notes: Messages about rows without a label.
        labels_without: Names of the labels without a row.
    """

    files: Sequence[ResultFile]
    labels: Sequence[LabelFile]
    places: Mapping[str, int]
    sizes: Mapping[int, tuple[int, int]]
    notes: Sequence[str]
    labels_without: Sequence[str]

    @staticmethod
    def of(store: Store, labels: Sequence[LabelFile], given: str, suffix: Suffix) -> LabeledRows:
        """Pair the rows of an output with ``labels``, which were listed at ``given``.

        Reads the columns of ids and sizes, and keeps the rows whose name some label has.

        Raises:
            OutputError: The output has no rows.
            SpecError: No row has a label, or names do not tell which row a label belongs to.
        """
        files = Ledger.read(store).files()
        if not files:
            raise OutputError(f"{store.uri}: holds no masks yet; run the job again to finish it")
        rows: list[tuple[ImageName, tuple[int, int] | None]] = []
        first: list[ImageName] = []
        total, named = 0, has_name(labels, suffix)
        with ThreadPoolExecutor(_READERS) as pool:
            for found in pool.map(lambda file: list(_rows(store, file)), files):
                total += len(found)
                first += [name for name, _ in found[: max(0, _MAX_SHOWN - len(first))]]
                rows += [row for row in found if named(row[0])]
        names = [name for name, _ in rows]
        paired = pair(names, labels, suffix)
        if not paired.labels:
            raise SpecError(refusal(first, labels, suffix, given, store.uri))
        place = {label.uri: i for i, label in enumerate(labels)}
        places = {names[i].name: place[label.uri] for i, label in paired.labels.items()}
        without = total - len(places) - len(paired.label_images)
        return LabeledRows(
            files,
            labels,
            {**places, **dict.fromkeys(paired.label_images, IS_LABEL)},
            {place[label.uri]: size for i, label in paired.labels.items() if (size := rows[i][1]) is not None},
            [f"{len(places):,} of {total - len(paired.label_images):,} images have one"] if without else [],
            paired.labels_without,
        )

    def survey(self, reader: LabelReader, classes: ClassMap, names: LabelSet, options: LabelOptions) -> LabelSurvey:
        """Return a survey of the labels that have a row, see ``evaluation.survey``."""
        places = sorted(place for place in self.places.values() if place != IS_LABEL)

        def inspect(index: int) -> InspectedLabel:
            file = self.labels[places[index]]
            label = reader.read(file.uri)
            return InspectedLabel(file.name, label.values, label.palette, self.sizes.get(places[index]))

        return survey(
            len(places),
            inspect,
            classes,
            names,
            strict=False,
            check_palettes=options.checks_palettes,
            notes=self.notes,
        )


def _rows(store: Store, file: ResultFile) -> Iterator[tuple[ImageName, tuple[int, int] | None]]:
    table = file.read(store, ["image_id", "source", "height", "width"])
    for image_id, source, height, width in zip(*(column.to_pylist() for column in table.columns), strict=True):
        yield ImageName(image_id, source), None if height is None else (height, width)
