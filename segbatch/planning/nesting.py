"""Refuse an output and inputs that lie in each other, before anything is read or written."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from functools import cache
from typing import Any

from segbatch.config.job import JobSpec
from segbatch.errors import PlanError
from segbatch.sources.corpus import store_of
from segbatch.storage.files import Files
from segbatch.storage.listing import expand_braces
from segbatch.storage.outputs import FOLDERS
from segbatch.storage.uri import as_plain
from segbatch.storage.walk import pattern_roots
from segbatch.text import redact


def refuse_nesting(spec: JobSpec) -> None:
    """Raise ``PlanError`` if an input is the output, or lies in a folder that segbatch writes there.

    All spellings of a place are recognized: relative, through links, by another protocol of the same store. An output
    below an input is valid, and left out of the listing (see ``storage.outputs``); so is an input in another folder of
    the output.
    """
    files = Files(spec.storage_options)
    real_folder = cache(os.path.realpath)
    output, shown_output = _place(files, spec.output, real_folder), redact(spec.output)
    for given in spec.inputs:
        for uri in dict.fromkeys((given, *expand_braces(given))):
            if _place(files, uri, real_folder) == output:
                raise PlanError(
                    f"output {shown_output}: is the input {redact(given)} itself, and the masks would lie among its "
                    f"files; give another --output, such as {shown_output.rstrip('/')}/segmented: an output below its "
                    "input is left out of the listing"
                )
            fixed = pattern_roots(files.resolve(uri)[0], f"{as_plain(uri)}/")[0]
            place = _place(files, fixed, real_folder)
            if place[: len(output)] == output and FOLDERS.intersection(place[len(output) : len(output) + 1]):
                raise PlanError(
                    f"input {redact(given)}: lies in {place[len(output)]}/ of the output {shown_output}, "
                    "where segbatch writes; give another --output"
                )


def refuse_target(
    target: str, output: str, inputs: Iterable[str], storage_options: Mapping[str, Any] | None = None
) -> None:
    """Raise ``PlanError`` if an export would lie in the output that it reads, or among its inputs."""
    files = Files(dict(storage_options or {}))
    real_folder = cache(os.path.realpath)
    place, kind = _place(files, target, real_folder), store_of(target)
    others = [("the output", output), *(("the input", uri) for given in inputs for uri in expand_braces(given))]
    for name, uri in others:
        if store_of(uri) != kind:
            continue
        fixed = pattern_roots(files.resolve(uri)[0], f"{as_plain(uri)}/")[0]
        above = _place(files, fixed, real_folder)
        if place[: len(above)] == above:
            raise PlanError(
                f"{redact(target)}: lies in {name} {redact(uri)}, where its files would be taken for others; choose "
                "another --output for the export"
            )


def _place(files: Files, uri: str, real_folder: Callable[[str], str]) -> tuple[str, ...]:
    """Return the kind of store and the parts of the path, equal for all spellings of one place."""
    path, store = files.resolve(redact(uri))[1], store_of(uri)
    if store == "file":
        folder, name = os.path.split(path)
        path = os.path.join(real_folder(folder), name)
        path = os.path.realpath(path) if os.path.islink(path) else path
    return store, *path.strip("/").split("/")
