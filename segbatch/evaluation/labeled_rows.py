"""Which rows of an output have a label, known before any of its masks is read."""

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

_READERS = 16
_SHOWN = 1000  # ids that a refusal looks at


@dataclass(frozen=True)
class LabeledRows:
    """The place of the label of each image id in the list of labels; -1 for an image that is a label itself.

    ``files`` are the result files that hold the rows; ``sizes`` are (height, width) by the place of the label, of rows
    with a mask; ``notes`` and ``labels_without`` are those of the pairing.
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

        Reads the ids alone, and keeps those that some label has the name of. Raises ``OutputError`` for an output
        without rows, ``SpecError`` if no row has a label or names do not tell whose a label is.
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
                first += [name for name, _ in found[: max(0, _SHOWN - len(first))]]
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
            {**places, **dict.fromkeys(paired.label_images, -1)},
            {place[label.uri]: size for i, label in paired.labels.items() if (size := rows[i][1]) is not None},
            [f"{len(places):,} of {total - len(paired.label_images):,} images have one"] if without else [],
            paired.labels_without,
        )

    def survey(self, reader: LabelReader, classes: ClassMap, names: LabelSet, options: LabelOptions) -> LabelSurvey:
        """A look at the labels that have a row; see ``evaluation.survey.survey``."""
        places = sorted(place for place in self.places.values() if place >= 0)

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
