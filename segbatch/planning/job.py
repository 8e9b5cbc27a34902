"""From a spec to a job: what its settings name is found, checked and decided, and so is the identity of its rows."""

from __future__ import annotations

import datetime
import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from segbatch import models, refiners
from segbatch.config.job import JobSpec
from segbatch.crf.params import default_prune
from segbatch.errors import PlanError, SpecError
from segbatch.output.run_record import ClassEntry, RunRecord
from segbatch.records import Shard
from segbatch.refiners.entry import RefinerRequest
from segbatch.skipped import Skipped
from segbatch.sources import FORMATS, Source, divided, open_source
from segbatch.stages.scoring import ROWS_VERSION
from segbatch.storage.uri import is_uri
from segbatch.text import redact


@dataclass(frozen=True)
class Job:
    """A spec with what it names found: the source, its shards, the network's facts, precision and prune decided.

    ``skipped`` is what the listings of the inputs hold besides shards; ``notes`` and ``cautions`` are the corpus' own
    (``chunk.Corpus``).
    ``root`` is the corpus root, redacted, to which the names of shards and the ids of images are relative.
    """

    spec: JobSpec
    source: Source
    root: str
    shards: list[Shard] = field(repr=False)
    model: models.ModelInfo
    precision: str
    prune: float
    refiner: refiners.RefinerInfo
    skipped: Skipped = field(default_factory=Skipped, repr=False)
    notes: tuple[tuple[str, str], ...] = ()
    cautions: tuple[str, ...] = ()

    def warnings(self) -> list[str]:
        """What will work, and is likely not meant."""
        name, spec, said = self.model.name, self.spec, [*self.cautions, *_undecisive(self.spec, self.shards)]
        if self.model.wrong_size:
            said.append(f"{self.model.wrong_size}. The job stops at the first image whose scores have a wrong size")
        if self.model.untried:
            said.append(
                f"network {name} could not be tried on this machine ({self.model.untried}); its scores are checked "
                "at each image, in the workers"
            )
        if self.model.refines and spec.refiner != "none":
            said.append(
                f"{name} refines its scores itself ({self.model.refines}), and refiner {spec.refiner} refines them "
                "again; give --refiner none, unless you want both"
            )
        if unused := self.refiner.unused:
            said.append(f"crf.{', crf.'.join(unused)} decides nothing: refiner {spec.refiner} has no such parameter")
        prune = default_prune(len(self.model.labels))
        if spec.prune is None and self.prune != prune:
            said.append(f"prune is {self.prune:g}, with which this output was begun; the default is {prune:g}")
        return said

    def divided(self, chunk_size: int) -> Job:
        """This job with its loose images in shards of one chunk each. Raises ``PlanError`` for shards of one key."""
        shards = divided(self.shards, chunk_size)
        _refuse_equal_ids(shards)
        return replace(self, shards=shards)

    def identity(self) -> dict[str, Any]:
        """All that decides the rows; its digest is the run's fingerprint.

        Every field of the spec with the effect ``rows`` is in it. A field that names something enters as what that is
        on this machine now: inputs as the corpus root (a pattern that grows names the same corpus), weights as their
        digest, classes as names and colors.
        """
        given = self.spec.plain("rows")
        # Resolved below; chunk_size is a key of its own in run.json, kept from the first run.
        for name in ("inputs", "weights", "classes", "precision", "prune", "refiner_weights", "crf", "chunk_size"):
            del given[name]
        if given["image_member"] is None:  # runs of earlier versions go on
            del given["image_member"]
        return {
            "root": self.root,
            "model": {
                "name": given.pop("model"),
                "weights": self.model.digest,
                "temperature": self.model.temperature,
                "classes": list(self.model.labels.names),
                "colors": [f"#{r:02x}{g:02x}{b:02x}" for r, g, b in self.model.labels.colors],
            },
            "precision": self.precision,
            "prune": self.prune,
            "refiner": given.pop("refiner"),
            "crf": dict(self.refiner.parameters) or None,
            "marginal": given.pop("marginal"),
            "read": given,  # what is left: how the inputs are read
            "code": ROWS_VERSION,
        }

    def record(self) -> RunRecord:
        """A new run.json; its chunk size is set when the hardware is known."""
        labels = self.model.labels
        return RunRecord(
            identity=self.identity(),
            chunk_size=self.spec.chunk_size or 0,
            classes=[
                ClassEntry(id=i, name=n, color=c)
                for i, (n, c) in enumerate(zip(labels.names, labels.colors, strict=True))
            ],
            # With the parameters that came with the weights: a repair by another version needs them.
            spec={**self.spec.public(), "crf": dict(self.refiner.request.values)},
            inputs=[_absolute(redact(u)) for u in self.spec.inputs],
            versions=_versions(),
            started=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        )


def resolve(spec: JobSpec, kept: Mapping[str, Any] | None = None) -> Job:
    """Check everything that can be found wrong beforehand. Raises a ``SegbatchError`` whose exit code is 2.

    ``kept`` is the identity of an output that exists: its ``precision`` and ``prune`` apply where the spec has none, so
    that a resume on other hardware, or by another version, gives the same rows; so does its column of images, which its
    first run may have found by the values. Its ``root`` is the corpus root, by default the folder that all inputs lie
    in.
    """
    kept = kept or {}
    if spec.image_column is None:
        spec = spec.model_copy(update={"image_column": kept.get("read", {}).get("image_column")})
    request = RefinerRequest(spec.refiner, spec.crf, spec.refiner_weights, spec.storage_options)
    refiners.build(request)  # before weights of the network are downloaded
    model = models.describe(spec.model, spec.weights, spec.classes, spec.storage_options, check=True)
    refiner = refiners.describe(request, model)
    precision: str = spec.precision
    if precision == "auto":
        precision = kept.get("precision") or _auto_precision(spec)
    prune = spec.prune if spec.prune is not None else kept.get("prune", default_prune(len(model.labels)))
    source = open_inputs(spec, is_resumed="read" in kept)
    corpus = source.corpus(kept.get("root"))
    if corpus.image_column is not None:
        spec = spec.model_copy(update={"image_column": corpus.image_column})
    _refuse_equal_ids(corpus.shards)
    return Job(
        spec,
        source,
        corpus.root,
        corpus.shards,
        model,
        precision,
        prune,
        refiner,
        corpus.skipped,
        corpus.notes,
        corpus.warnings,
    )


def _undecisive(spec: JobSpec, shards: Sequence[Shard]) -> list[str]:
    """Options that choose within formats that no input is of."""
    present = {shard.format for shard in shards}
    options = dict.fromkeys(name for format in FORMATS for name in FORMATS[format].options)
    given = spec.model_dump(include=set(options), exclude_none=True)
    formats = {name: [format for format in FORMATS if name in FORMATS[format].options] for name in options}
    return [
        f"{name} = {given[name]!r} decides nothing: no input is {' or '.join(sorted(formats[name]))}"
        for name in options
        if name in given and present.isdisjoint(formats[name])
    ]


def _refuse_equal_ids(shards: Sequence[Shard]) -> None:
    """The files of a shard are called by its key: two shards with one key would overwrite each other."""
    names: dict[str, str] = {}
    for shard in shards:
        other = names.setdefault(shard.key, shard.name)
        if other != shard.name:
            raise PlanError(f"{other} and {shard.name}: their files would have equal names; rename one of these shards")


def _auto_precision(spec: JobSpec) -> str:
    """bf16 where this machine computes in it; a cluster may have other hardware than this machine."""
    elsewhere = spec.address or os.environ.get("RAY_ADDRESS")
    try:
        return "bf16" if models.supports_bf16(spec.device) else "fp32"
    except SpecError:
        if not elsewhere:
            raise
        return "fp32"


def open_inputs(spec: JobSpec, is_resumed: bool = False) -> Source:
    """The source that the spec's inputs and reading options name, or that an output which exists was made of."""
    return open_source(
        spec.inputs,
        storage_options=spec.storage_options,
        image_column=spec.image_column,
        image_member=spec.image_member,
        id_column=spec.id_column,
        uri_column=spec.uri_column,
        key=spec.key,
        format=spec.format,
        max_record_bytes=spec.max_record_bytes,
        is_resumed=is_resumed,
    )


def _absolute(uri: str) -> str:
    return uri if is_uri(uri) else os.path.abspath(os.path.expanduser(uri))


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for package in ("segbatch", "ray", "torch", "torchvision", "pyarrow", "pillow", "simplejpeg", "numpy"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return found
