"""Resolve the settings of a job: find and check what they name, and derive the identity of the rows."""

from __future__ import annotations

import datetime
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from segbatch import models, refiners
from segbatch.config.job import JobSpec
from segbatch.crf.params import default_prune
from segbatch.errors import PlanError
from segbatch.models.bf16 import cpu_supports_bf16
from segbatch.output.run_record import ClassEntry, RunRecord
from segbatch.planning.pools import Hardware, on_gpus
from segbatch.records import Shard
from segbatch.refiners.entry import RefinerRequest
from segbatch.skipped import Skipped
from segbatch.sources import FORMATS, Source, divided
from segbatch.sources.formats import ReadOptions
from segbatch.stages.scoring import ROWS_VERSION
from segbatch.storage.files import Files
from segbatch.storage.uri import absolute
from segbatch.text import redact


@dataclass(frozen=True)
class Job:
    """A spec and everything that its settings resolve to.

    Attributes:
        spec: As it was given, with the image column of the inputs.
        root: The corpus root, redacted. Names of shards and ids of images are relative to it.
        precision: ``fp32`` or ``bf16``; ``auto`` until the hardware is known (``with_precision``).
        skipped: What the listings of the inputs hold besides shards.
        notes: Subject and text of each note on the inputs, as ``--dry-run`` shows them.
        cautions: Warnings about the inputs.
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

    @property
    def is_refine_bound(self) -> bool:
        """Whether the refiner takes most of the CPU time, so that a segment worker for two cores suffices."""
        return self.model.is_light and self.spec.refiner == "densecrf"

    def warnings(self) -> list[str]:
        """Describe settings that work and are probably not intended, one line each."""
        name, spec, warnings = self.model.name, self.spec, [*self.cautions, *_without_effect(self.spec, self.shards)]
        if self.model.wrong_size:
            warnings.append(f"{self.model.wrong_size}. The job stops at the first image whose scores have a wrong size")
        if self.model.untried:
            warnings.append(
                f"network {name} could not be tried on this machine ({self.model.untried}); workers check its "
                "scores of each image"
            )
        if self.model.refines and spec.refiner != "none":
            warnings.append(
                f"{name} refines its scores itself ({self.model.refines}), and refiner {spec.refiner} refines them "
                "again; give --refiner none to refine them once"
            )
        if unused := self.refiner.unused:
            warnings.append(f"crf.{', crf.'.join(unused)} has no effect: refiner {spec.refiner} has no such parameter")
        prune = default_prune(len(self.model.labels))
        if spec.prune is None and self.prune != prune:
            warnings.append(f"prune is {self.prune:g}, as in the first run of this output; the default is {prune:g}")
        return warnings

    def divided(self, chunk_size: int) -> Job:
        """Divide the loose images into shards of one chunk each. Raises ``PlanError`` for two shards with one key."""
        shards = divided(self.shards, chunk_size)
        _refuse_equal_ids(shards)
        return replace(self, shards=shards)

    def with_precision(self, hardware: Hardware) -> Job:
        """Choose the precision that ``auto`` stands for, unless it is fixed.

        Returns:
            The job in bf16 if segment workers hold GPUs, or else if the CPU of this machine supports bf16 natively.
        """
        if self.precision != "auto":
            return self
        return replace(self, precision="bf16" if on_gpus(self.spec, hardware) or cpu_supports_bf16() else "fp32")

    def identity(self) -> dict[str, Any]:
        """Return everything that decides the rows. Its digest is the run's fingerprint.

        It has every field of the spec with the effect ``rows``. A field that names something enters as what it resolves
        to: inputs as the corpus root (a pattern that matches more files names the same corpus), weights as their
        digest, classes as names and colors.
        """
        given = self.spec.plain("rows")
        # Resolved below; chunk_size is a key of its own in run.json, kept from the first run.
        for name in ("inputs", "weights", "classes", "precision", "prune", "refiner_weights", "crf", "chunk_size"):
            del given[name]
        if given["image_member"] is None:  # as in outputs of earlier versions
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
            "read": given,  # the remaining fields: how the inputs are read
            "code": ROWS_VERSION,
        }

    @property
    def inputs(self) -> list[str]:
        """The inputs as run.json has them: absolute and redacted."""
        return [absolute(redact(u)) for u in self.spec.inputs]

    def record(self) -> RunRecord:
        """Return a new run.json, without a chunk size unless one is given."""
        labels = self.model.labels
        return RunRecord(
            identity=self.identity(),
            chunk_size=self.spec.chunk_size or 0,
            trial=self.model.trial,
            classes=[
                ClassEntry(id=i, name=n, color=c)
                for i, (n, c) in enumerate(zip(labels.names, labels.colors, strict=True))
            ],
            # With the parameters that come with the weights, which a repair by another version needs.
            spec={**self.spec.public(), "crf": dict(self.refiner.request.values)},
            inputs=self.inputs,
            versions=_versions(),
            started=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        )


def resolve(spec: JobSpec, kept: Mapping[str, Any] | None = None, beside: Sequence[str] = ()) -> Job:
    """Find and check everything that a spec names, before any work.

    Args:
        kept: The identity of an existing output. Its precision, ``prune`` and image column apply where the spec has
            none, so that a resume on other hardware, or by another version, gives the same rows. Its ``root`` is the
            corpus root; by default that is the folder that contains all inputs.
        beside: Folders of inputs that may follow, which the corpus root contains, too.

    Raises:
        SegbatchError: With exit code 2.
    """
    kept = kept or {}
    if spec.image_column is None:
        spec = spec.model_copy(update={"image_column": kept.get("read", {}).get("image_column")})
    request = RefinerRequest(spec.refiner, spec.crf, spec.refiner_weights, spec.storage_options)
    refiners.build(request)  # fails before weights of the network are downloaded
    model = models.describe(spec.model, spec.weights, spec.classes, spec.storage_options, check=True)
    refiner = refiners.describe(request, model)
    precision: str = kept.get("precision", "auto") if spec.precision == "auto" else spec.precision
    prune = spec.prune if spec.prune is not None else kept.get("prune", default_prune(len(model.labels)))
    source = open_inputs(spec, is_resumed="read" in kept)
    corpus = source.corpus(kept.get("root"), beside)
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


def _without_effect(spec: JobSpec, shards: Sequence[Shard]) -> list[str]:
    """Describe options of formats that no input has, one line each."""
    present = {shard.format for shard in shards}
    options = dict.fromkeys(name for format in FORMATS for name in FORMATS[format].options)
    given = spec.model_dump(include=set(options), exclude_none=True)
    formats = {name: [format for format in FORMATS if name in FORMATS[format].options] for name in options}
    return [
        f"{name} = {given[name]!r} has no effect: no input is {' or '.join(sorted(formats[name]))}"
        for name in options
        if name in given and present.isdisjoint(formats[name])
    ]


def _refuse_equal_ids(shards: Sequence[Shard]) -> None:
    """Refuse two shards with one key: their result files would overwrite each other."""
    names: dict[str, str] = {}
    for shard in shards:
        other = names.setdefault(shard.key, shard.name)
        if other != shard.name:
            raise PlanError(
                f"{other} and {shard.name}: their result files would have the same names; rename one of these shards"
            )


def open_inputs(spec: JobSpec, is_resumed: bool = False) -> Source:
    """Open the inputs of a spec with its options for reading."""
    options = ReadOptions(
        files=Files(spec.storage_options),
        format=spec.format,
        image_column=spec.image_column,
        id_column=spec.id_column,
        uri_column=spec.uri_column,
        max_record_bytes=spec.max_record_bytes,
        key=spec.key,
        image_member=spec.image_member,
        is_resumed=is_resumed,
    )
    return Source(spec.inputs, options)


def _versions() -> dict[str, str]:
    versions = {"python": platform.python_version()}
    for package in ("segbatch", "ray", "torch", "torchvision", "pyarrow", "pillow", "simplejpeg", "numpy"):
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            versions[package] = "not installed"
    return versions
