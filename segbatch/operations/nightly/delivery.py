"""Distinguish a date for which nothing was delivered from a path that is wrong."""

from __future__ import annotations

import datetime
import itertools
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass

from segbatch.config.job import JobSpec
from segbatch.config.nightly import DATE, NightlySpec, dated_uri
from segbatch.errors import AbsentInput, EmptyInput, MissingInput, SegbatchError, StorageError
from segbatch.operations.nightly.dataset import Work, prepare
from segbatch.operations.nightly.reports import dates
from segbatch.output.output import Output
from segbatch.planning.job import open_inputs
from segbatch.storage.files import Files
from segbatch.storage.listing import expand_braces, list_input
from segbatch.storage.store import Store
from segbatch.storage.uri import absolute
from segbatch.storage.walk import MAGIC
from segbatch.text import is_web, redact

_MAX_DATES = 5  # other dates that are tried
_DIRECTIVE = "\x01"
_DIGITS = {"Y": r"\d{4}", "j": r"\d{3}"} | dict.fromkeys("ymdHMSUVW", r"\d{1,2}")


@dataclass(frozen=True)
class Delivery:
    """The inputs of a dataset on a date.

    Attributes:
        present: Those that hold something.
        absent: Those for which nothing was delivered.
    """

    present: list[str]
    absent: list[str]


def find_delivery(spec: NightlySpec, name: str, date: datetime.date, earlier: Sequence[str]) -> Delivery:
    """Find out which inputs of a dataset hold nothing although their paths are right.

    A path is right if its folder is there for the date, if something is there for another date, or if masks of an
    earlier night were computed from it.

    Args:
        spec: The configuration.
        name: The dataset.
        date: The date.
        earlier: Dates of other nights, the most likely first.

    Raises:
        SegbatchError: An input cannot be read, or its path has never been right; or a dataset without dates has masks:
            inputs that disappear are a failed mount rather than no delivery.
    """
    job, templates = spec.job_of(name, date), spec.inputs_of(name)
    has_masks = not spec.dated(name) and Output.is_at(job.output, job.storage_options)
    present, absent = [], []
    for template, given in zip(templates, job.inputs, strict=True):
        try:
            open_inputs(job.model_copy(update={"inputs": [given]})).corpus()
            present.append(given)
        except (AbsentInput, EmptyInput) as e:
            is_right = isinstance(e, EmptyInput) or _is_right(spec, name, template, date, earlier)
            if has_masks or not is_right:
                raise
            absent.append(given)
    return Delivery(present, absent)


def plan_delivered(
    spec: NightlySpec,
    name: str,
    date: datetime.date,
    state: Store,
    dry_run: bool = False,
    max_removed: float | None = None,
) -> tuple[Work | None, list[str]]:
    """Plan a dataset on a date, as ``prepare`` does; ``max_removed`` is by default that of ``spec``.

    Returns:
        The work, and the inputs for which nothing was delivered. No work if that is all of them, or if the dataset has
        to have all of its inputs.

    Raises:
        SegbatchError: The job cannot run, or a path is wrong.
    """
    job, max_removed = spec.job_of(name, date), spec.max_removed if max_removed is None else max_removed
    try:
        return prepare(job, max_removed, dry_run), []
    except MissingInput:
        earlier = [day for day in reversed(dates(state)) if day != str(date)]
        delivery = find_delivery(spec, name, date, earlier)
    if delivery.absent and not (delivery.present and spec.allows_empty(name)):
        return None, delivery.absent
    beside = [_folder(absolute(given)) for given in delivery.absent]
    job = job.model_copy(update={"inputs": delivery.present})
    return prepare(job, max_removed, dry_run, beside), delivery.absent


def _folder(given: str) -> str:
    """Return a folder that contains whatever an input names: that before its last part, or its first wildcard."""
    return MAGIC.split(given.rstrip("/"))[0].rpartition("/")[0]


def _is_right(spec: NightlySpec, name: str, template: str, date: datetime.date, earlier: Sequence[str]) -> bool:
    """Whether the path of an input that does not exist on a date is right."""
    files, given = Files(spec.job_of(name, date).storage_options), dated_uri(template, date)
    if MAGIC.search(given) and _is_empty_folder(files, _folder(given)):
        return True
    if not DATE.search(template):
        return False
    days = [datetime.date.fromisoformat(d) for d in earlier[:_MAX_DATES]]
    if any(_computed(spec.job_of(name, day), dated_uri(template, day)) for day in days):
        return True
    if is_web(template):  # lists no folders
        others: Iterator[datetime.date] = (date - datetime.timedelta(n + 1) for n in range(_MAX_DATES))
    else:
        beside = itertools.chain.from_iterable(dates_beside(files, plain) for plain in expand_braces(template))
        others = (day for day in beside if dated_uri(template, day) != given)
    return any(_exists(files, dated_uri(template, day)) for day in itertools.islice(others, _MAX_DATES))


def _computed(job: JobSpec, uri: str) -> bool:
    """Whether the masks of a job were computed from an input."""
    output = Output.at(job.output, job.storage_options)
    return output.exists and absolute(redact(uri)) in output.record.inputs


def _exists(files: Files, uri: str) -> bool:
    try:
        list_input(files, uri)
    except SegbatchError:
        return False
    return True


def _is_empty_folder(files: Files, folder: str) -> bool:
    storage, path = files.resolve(folder or ".")
    with suppress(StorageError):
        return storage.stat(path).kind == "folder" and all(n.startswith(".") for n in storage.names(path))
    return False


def dates_beside(files: Files, template: str) -> Iterator[datetime.date]:
    """Yield the dates for which a storage has names that fit the dated parts of a path, the latest names first."""
    marked = DATE.sub(lambda m: re.sub(r"%-?(\w)", _DIRECTIVE + r"\1", m[1] or "%Y-%m-%d"), template)
    parts = marked.split("/")
    varying = [i for i, part in enumerate(parts) if _DIRECTIVE in part or MAGIC.search(part)]
    last = max(i for i, part in enumerate(parts) if _DIRECTIVE in part)
    folder = "/".join(parts[: varying[0]])
    yield from _dates(files, folder or ("/" if template.startswith("/") else "."), parts[varying[0] : last + 1], {})


def _dates(files: Files, folder: str, parts: list[str], values: dict[str, str]) -> Iterator[datetime.date]:
    """Yield the dates of the names below ``folder`` that match ``parts``; ``values`` are those of its directives."""
    if not parts:
        with suppress(ValueError):  # a name with the digits of no date
            yield datetime.datetime.strptime(" ".join(values.values()), " ".join(f"%{d}" for d in values)).date()
        return
    part, *below = parts
    if _DIRECTIVE not in part and not MAGIC.search(part):
        yield from _dates(files, os.path.join(folder, part), below, values)
        return
    directives = re.findall(f"{_DIRECTIVE}(\\w)", part)
    pattern = re.compile(_expression(part))
    names: list[str] = []
    with suppress(StorageError):
        storage, path = files.resolve(folder)
        names = sorted((name.rstrip("/") for name in storage.names(path)), reverse=True)
    for name in names:
        if match := pattern.fullmatch(name):
            found = list(zip(directives, match.groups(), strict=True))
            if all(values.get(d, value) == value for d, value in found):
                yield from _dates(files, os.path.join(folder, name), below, values | dict(found))


def _expression(part: str) -> str:
    """Return the regular expression of one part of a path, with a group for each directive of its date."""
    pieces = re.split(f"{_DIRECTIVE}(\\w)|([*?])", part)
    literals, letters, wildcards = pieces[::3], pieces[1::3], pieces[2::3]
    expression = re.escape(literals[0])
    for letter, wildcard, literal in zip(letters, wildcards, literals[1:], strict=True):
        expression += f"({_DIGITS.get(letter, '[^/]+?')})" if letter else {"*": ".*", "?": "."}[wildcard]
        expression += re.escape(literal)
    return expression
