"""Photographs of a page, read again from the inputs of a run."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from segbatch.codecs import photograph
from segbatch.codecs.decode import decode
from segbatch.config.job import JobSpec
from segbatch.errors import RecordFailure
from segbatch.report.encoding import data_uri
from segbatch.results.originals import Originals
from segbatch.results.row import MaskRow

_MAX_PIXELS = JobSpec.model_fields["max_pixels"].default


def read_photographs(originals: Originals, rows: Iterable[MaskRow]) -> Iterator[tuple[str, str, str]]:
    """Yield (image id, data URI, problem) of each row once; the URI is "" if there is a problem."""
    for original in originals.read(rows):
        uri, problem = "", original.problem
        if original.data is not None:
            try:
                uri = data_uri(photograph.encode(decode(original.data, _MAX_PIXELS)))
            except RecordFailure as e:
                problem = e.message
        yield original.row.image_id, uri, problem
