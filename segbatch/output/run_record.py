"""run.json: what was run, so that a resume plans the same chunks and another job is told apart."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from segbatch.errors import OutputError, PlanError
from segbatch.labels import LabelSet
from segbatch.output.layout import RUN
from segbatch.output.stored import StoredRecord, StoredSkipped
from segbatch.output.totals import SparseTotals, Totals
from segbatch.records import digest
from segbatch.skipped import Skipped
from segbatch.storage.store import Store


class OutputTaken(OutputError):
    """Another job has taken the output over: this one writes nothing more."""


@dataclass(frozen=True)
class Claim:
    """Which job an output belongs to: the fingerprint of its rows, their chunks' size, the classes, as in run.json.

    ``has_marginal`` says whether the rows have the column ``marginal``; the fingerprint decides that, too.
    """

    fingerprint: str
    chunk_size: int
    num_classes: int
    has_marginal: bool = field(default=False, compare=False)

    @staticmethod
    def current(store: Store) -> Claim:
        """The claim in run.json, by one small read. Raises ``OutputTaken`` if there is none."""
        try:
            plain = json.loads(store.read(RUN))
            return Claim(plain["fingerprint"], plain["chunk_size"], len(plain["classes"]))
        except FileNotFoundError:
            raise OutputTaken(
                f"{store.uri}/{RUN}: is gone; nothing more is written. Run the same command again if the output is "
                "still wanted"
            ) from None
        except (ValueError, TypeError, KeyError) as e:
            raise OutputTaken(f"{store.uri}/{RUN}: is not a run record of segbatch any more: {e}") from None

    def check(self, store: Store) -> None:
        """Raise ``OutputTaken`` unless run.json still names this job."""
        current = Claim.current(store)
        if current != self:
            raise OutputTaken(
                f"{store.uri}: another job has taken this output over (fingerprint {current.fingerprint}, chunks of "
                f"{current.chunk_size}; this job has {self.fingerprint}, chunks of {self.chunk_size}), as --overwrite "
                "does; nothing more is written. Choose another --output for one of them"
            )


class ClassEntry(BaseModel):
    """One class: its id, name, and color (R, G, B)."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    id: int
    name: str
    color: tuple[int, int, int]


class Timings(BaseModel):
    """What a run took: seconds of all its workers by stage, over all calls of it; all else is of the last call."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    worker_seconds: dict[str, float] = {}
    seconds: float = 0.0
    chunks: int = 0
    chunks_computed: int = 0
    mask_bytes: int = 0


class SkippedInputs(BaseModel):
    """What the inputs hold besides records: ``files`` of the listings, ``members`` within shards."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    files: StoredSkipped = Field(default_factory=Skipped)
    members: StoredSkipped = Field(default_factory=Skipped)


class RunRecord(StoredRecord):
    """The content of run.json.

    Attributes:
        identity: All that decides the rows; ``fingerprint`` is its digest.
        inputs: Those of the latest run, absolute and redacted, as are the limits in ``spec``.
        spec: The settings of the first run but for secrets.
    """

    identity: dict[str, Any]
    chunk_size: int
    classes: list[ClassEntry]
    spec: dict[str, Any]
    versions: dict[str, str]
    started: str
    inputs: list[str] = Field(default_factory=list)
    state: str = "running"
    finished: str | None = None
    totals: SparseTotals = SparseTotals()
    timings: Timings = Timings()
    skipped: SkippedInputs = SkippedInputs()

    @property
    def fingerprint(self) -> str:
        return digest(json.dumps(self.identity, sort_keys=True), length=16)

    @property
    def deciding(self) -> dict[str, Any]:
        """What of ``identity`` decides the rows: all but the limits, which were part of it earlier in version 5."""
        return {key: value for key, value in self.identity.items() if key != "limits"}

    @property
    def claim(self) -> Claim:
        return Claim(self.fingerprint, self.chunk_size, len(self.classes), self.has_marginal)

    @property
    def rows_version(self) -> int:
        """``stages.scoring.ROWS_VERSION`` of the segbatch that wrote the rows."""
        return int(self.identity["code"])

    @property
    def has_marginal(self) -> bool:
        """Whether the rows have the column ``marginal``."""
        return bool(self.identity.get("marginal"))  # rows version 3 and earlier have no such key

    @property
    def confidence_name(self) -> str:
        """What the column ``confidence`` holds: before rows version 4 the mean of the refiner's marginals."""
        return "confidence" if self.rows_version >= 4 else "marginal"

    @property
    def labels(self) -> LabelSet:
        return LabelSet.of([c.name for c in self.classes], [c.color for c in self.classes])

    def sums(self) -> Totals:
        """Return the totals of the run. Raises ``OutputError`` before it is done."""
        if self.state != "done":
            raise OutputError("the run is not finished; give the same `segbatch run` command again to finish it")
        return self.totals.expand(len(self.classes))

    @property
    def all_skipped(self) -> Skipped:
        """What the inputs hold besides records: files, and members of shards."""
        return Skipped.merged(self.skipped.files, self.skipped.members)

    def changed(self, **fields: Any) -> RunRecord:
        """Return the record with other values of some fields."""
        return self.model_copy(update=fields)

    def to_bytes(self) -> bytes:
        """Return the text of run.json."""
        return (json.dumps({"fingerprint": self.fingerprint, **self.to_json()}, indent=1) + "\n").encode()

    @staticmethod
    def read(store: Store) -> RunRecord | None:
        """Read the run.json of an output; None if there is none. Raises ``PlanError`` if segbatch did not write it."""
        where = f"{store.uri}/{RUN}"
        try:
            plain = json.loads(store.read(RUN))
            fingerprint = plain["fingerprint"]
            plain.setdefault("inputs", plain["identity"].get("inputs", []))  # rows version 2
            record = RunRecord.parse(plain, where)
            if record.fingerprint != fingerprint:
                raise ValueError(f"its fingerprint is {fingerprint}, of its identity {record.fingerprint}")
            return record
        except FileNotFoundError:
            return None
        except (ValueError, TypeError, KeyError, AttributeError) as e:
            reason = " ".join(f"{type(e).__name__}: {e}".split())
            raise PlanError(
                f"{where}: not a run record of segbatch ({reason}); give the folder that was --output of "
                "`segbatch run`, or for a new run another --output"
            ) from None

    @staticmethod
    def need(store: Store) -> RunRecord:
        """The output's run.json; an output without one is an error that says so."""
        record = RunRecord.read(store)
        if record is None:
            raise PlanError(f"{store.uri}: holds no {RUN}; give the folder that was --output of `segbatch run`")
        return record


def flatten(plain: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """``{"crf": {"iterations": 5}}`` -> ``{"crf.iterations": 5}``."""
    flat: dict[str, Any] = {}
    for key, value in plain.items():
        if isinstance(value, dict):
            flat.update(flatten(value, f"{prefix}{key}."))
        else:
            flat[prefix + key] = value
    return flat


def differences(there: dict[str, Any], here: dict[str, Any]) -> list[str]:
    """What differs between two identities, a line each: ``crf.theta_alpha: 67.0 there, 80.0 here``."""
    a, b = flatten(there), flatten(here)
    return [
        f"{k}: {json.dumps(a.get(k))} in the output, {json.dumps(b.get(k))} in this job"
        for k in sorted(a.keys() | b.keys())
        if a.get(k) != b.get(k)
    ]
