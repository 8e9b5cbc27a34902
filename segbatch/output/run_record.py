"""run.json: the settings and results of a run, by which a resume plans the same chunks and other jobs are refused."""

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
    """Which job an output belongs to, as in run.json.

    Attributes:
        fingerprint: Digest of all that decides the rows.
        chunk_size: Records per chunk.
        num_classes: Number of classes.
        has_marginal: Whether the rows have the column ``marginal``; the fingerprint decides that, too.
    """

    fingerprint: str
    chunk_size: int
    num_classes: int
    has_marginal: bool = field(default=False, compare=False)

    @staticmethod
    def current(store: Store) -> Claim:
        """Read the claim in run.json. Raises ``OutputTaken`` if there is none."""
        try:
            plain = json.loads(store.read(RUN))
            return Claim(plain["fingerprint"], plain["chunk_size"], len(plain["classes"]))
        except FileNotFoundError:
            raise OutputTaken(
                f"{store.uri}/{RUN}: is gone, so nothing more is written; run the same command to write it again"
            ) from None
        except (ValueError, TypeError, KeyError) as e:
            raise OutputTaken(
                f"{store.uri}/{RUN}: is no longer a run record of segbatch ({e}), so nothing more is written; choose "
                "another --output"
            ) from None

    def check(self, store: Store) -> None:
        """Raise ``OutputTaken`` unless run.json names this job."""
        current = Claim.current(store)
        if current != self:
            raise OutputTaken(
                f"{store.uri}: another job has taken this output over (fingerprint {current.fingerprint}, chunks of "
                f"{current.chunk_size}; this job has {self.fingerprint}, chunks of {self.chunk_size}), as --overwrite "
                "does, so nothing more is written; choose another --output for one of them"
            )


class ClassEntry(BaseModel):
    """One class: its id, name, and color (R, G, B)."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    id: int
    name: str
    color: tuple[int, int, int]


class Timings(BaseModel):
    """Durations and sizes of a run.

    Attributes:
        worker_seconds: Seconds of all workers by stage, summed over all calls.
        seconds: Duration of the last call.
        chunks: Number of chunks of the output.
        chunks_computed: Number of chunks that the last call has computed.
        mask_bytes: Size of all result files.
    """

    model_config = ConfigDict(extra="ignore", frozen=True)

    worker_seconds: dict[str, float] = {}
    seconds: float = 0.0
    chunks: int = 0
    chunks_computed: int = 0
    mask_bytes: int = 0


class SkippedInputs(BaseModel):
    """What the inputs hold besides records.

    Attributes:
        files: Skipped by the listings.
        members: Skipped within shards.
    """

    model_config = ConfigDict(extra="ignore", frozen=True)

    files: StoredSkipped = Field(default_factory=Skipped)
    members: StoredSkipped = Field(default_factory=Skipped)


class RunRecord(StoredRecord):
    """The content of run.json.

    Attributes:
        identity: All that decides the rows; ``fingerprint`` is its digest.
        chunk_size: Records per chunk, fixed by the first run.
        classes: The classes, in order of ids.
        trial: Digest of the scores that a user's network gives the sample images; empty where it could not be tried.
        spec: The settings of the first run without secrets; the limits are those of the latest run.
        versions: Of segbatch and the packages that it uses.
        started: ISO 8601, UTC.
        inputs: Those of the latest run, absolute and redacted.
        state: ``running`` or ``done``.
        finished: ISO 8601, UTC.
        totals: Sums over all rows, once done.
        timings: Durations and sizes.
        skipped: What the inputs hold besides records.
    """

    identity: dict[str, Any]
    chunk_size: int
    classes: list[ClassEntry]
    trial: str = ""
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
        """Digest of ``identity``: 16 hexadecimal digits."""
        return digest(json.dumps(self.identity, sort_keys=True), length=16)

    @property
    def deciding(self) -> dict[str, Any]:
        """``identity`` without the limits, which early outputs of rows version 5 have in it."""
        return {key: value for key, value in self.identity.items() if key != "limits"}

    @property
    def claim(self) -> Claim:
        """The claim of the job that wrote the record."""
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
        """What the column ``confidence`` holds: before rows version 4 the mean marginal of the refiner."""
        return "confidence" if self.rows_version >= 4 else "marginal"

    @property
    def labels(self) -> LabelSet:
        """Names and colors of the classes."""
        return LabelSet.of([c.name for c in self.classes], [c.color for c in self.classes])

    def sums(self) -> Totals:
        """Return the totals of the run. Raises ``OutputError`` before it is done."""
        if self.state != "done":
            raise OutputError("the run is not finished; run the same `segbatch run` command again")
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
        """Read the run.json of an output. Raises ``PlanError`` if there is none."""
        record = RunRecord.read(store)
        if record is None:
            raise PlanError(f"{store.uri}: holds no {RUN}; give the folder that was --output of `segbatch run`")
        return record


def flatten(plain: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Turn ``{"crf": {"iterations": 5}}`` into ``{"crf.iterations": 5}``."""
    flat: dict[str, Any] = {}
    for key, value in plain.items():
        if isinstance(value, dict):
            flat.update(flatten(value, f"{prefix}{key}."))
        else:
            flat[prefix + key] = value
    return flat


def differences(existing: dict[str, Any], requested: dict[str, Any]) -> list[str]:
    """Return what differs between two identities: ``crf.theta_alpha 67.0 there, 80.0 requested``."""
    a, b = flatten(existing), flatten(requested)
    return [
        f"{k} {json.dumps(a.get(k))} there, {json.dumps(b.get(k))} requested"
        for k in sorted(a.keys() | b.keys())
        if a.get(k) != b.get(k)
    ]
