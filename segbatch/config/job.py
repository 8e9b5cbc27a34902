"""JobSpec: one object describes one job. Flags, YAML and the Python API are the same fields."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import field_validator

from segbatch.config.base import Spec, merge, parse_spec, read_config, setting
from segbatch.config.crf_mapping import CRFValue, crf_values
from segbatch.config.image_fields import IMAGE_COLUMN, IMAGE_MEMBER


class JobSpec(Spec):
    """Everything that says what a job does; see ``segbatch run --help`` for the same list as flags."""

    inputs: list[str] = setting(
        ..., "shards: tar, Parquet, manifests, folders, globs or braces, on any fsspec URI", effect="rows", min_length=1
    )
    output: str = setting("", "where the masks go: a folder or an object-store prefix", effect="runtime")

    format: str | None = setting(None, "format of the inputs, where their names do not tell", effect="rows")
    image_column: str | None = IMAGE_COLUMN
    image_member: str | None = IMAGE_MEMBER
    id_column: str | None = setting(None, "column that identifies a record (Parquet, manifests)", effect="rows")
    uri_column: str = setting("uri", "manifest column that holds the image URIs", effect="rows")
    key: Literal["first-dot", "last-dot"] = setting(
        "first-dot",
        "dot of a tar member's name that ends the key of its sample: first-dot (WebDataset's rule), or "
        "last-dot for names with dots of their own",
        effect="rows",
    )
    storage_options: dict[str, Any] = setting(
        {}, "passed to fsspec; never written to the output or to logs", effect="secret"
    )
    max_pixels: int = setting(200_000_000, "larger images are error rows, not decoded", effect="limit", gt=0)
    max_record_bytes: int = setting(512 * 2**20, "larger encoded images are error rows, not read", effect="limit", gt=0)

    model: str = setting(
        "deeplabv3plus_mobilenet_v2", "a name of `segbatch models`, or package.module:factory", effect="rows"
    )
    weights: str = setting(
        "default", "a named set of weights, or the URI of .pth, .pt, .safetensors, .caffemodel", effect="rows"
    )
    classes: str | None = setting(
        None, "file of class names for --weights: one a line, JSON, YAML, a table", effect="rows"
    )
    device: str = setting("auto", "auto, cpu or cuda", effect="runtime", pattern=r"^(auto|cpu|cuda(:\d+)?)$")
    precision: Literal["auto", "fp32", "bf16"] = setting(
        "auto",
        "arithmetic of the network; auto is bf16 if the machine that starts the first run computes in it",
        effect="rows",
    )
    batch_size: int | None = setting(
        None,
        "images of 512 x 512 in a forward pass, fewer larger ones; by default 8, on CPUs up to 8 while a "
        "layer's output stays within 32 MiB",
        effect="runtime",
        gt=0,
        le=4096,
    )
    prune: float | None = setting(
        None,
        "classes below this probability at every pixel are left out; 0 keeps all; by default 0.02, of more "
        "than 50 classes 0.01",
        effect="rows",
        ge=0,
        lt=0.5,
    )

    refiner: str = setting(
        "densecrf", "refinement method: densecrf, crfasrnn, dpn, none, or package.module:factory", effect="rows"
    )
    refiner_weights: str | None = setting(
        None,
        "trained weights of crfasrnn or dpn: URI of .caffemodel, .pth, .safetensors; by default a Potts model",
        effect="rows",
    )
    crf: dict[str, CRFValue] = setting(
        {},
        "parameters of the dense CRF; those not given come with the weights, for crfasrnn from its paper",
        effect="rows",
    )

    marginal: bool = setting(
        False,
        "add a column marginal: mean over the pixels of the refiner's own probability of their label",
        effect="rows",
    )

    chunk_size: int | None = setting(
        None, "records a commit; chosen at the first run of an output, then kept", effect="rows", gt=0, le=65536
    )
    overwrite: bool = setting(
        False,
        "remove the results of another job from the output; files that segbatch did not write stay",
        effect="call",
    )
    retry_errors: bool = setting(
        False, "compute chunks with error rows again; their earlier rows are archived", effect="call"
    )
    max_error_fraction: float = setting(
        0.01, "exit with 3 if a larger share of the records are error rows", effect="call", ge=0, le=1
    )

    address: str | None = setting(
        None,
        "Ray cluster: auto, or host:port of its head; by default RAY_ADDRESS, else this machine alone",
        effect="runtime",
    )
    num_cpus: int | None = setting(None, "cores to use on this machine; by default all of them", effect="runtime", gt=0)
    segment_actors: int | None = setting(None, "workers that run the network", effect="runtime", gt=0)
    refine_actors: int | None = setting(None, "workers that refine and write", effect="runtime", gt=0)
    num_gpus: float | None = setting(None, "GPUs, or fraction of one, a segment actor holds", effect="runtime", ge=0)
    threads: int | None = setting(None, "threads a worker computes with", effect="runtime", gt=0)
    stall_seconds: float = setting(
        600,
        "a worker that finishes no record for so long is restarted, and the record that hangs becomes an "
        "error row; images above 16 megapixels have proportionally more",
        effect="limit",
        gt=0,
    )
    max_worker_bytes: int | None = setting(
        None,
        "memory a worker may hold; a record that takes more becomes an error row; by default 70 % of the machine's",
        effect="limit",
        gt=0,
    )
    log_format: Literal["text", "json"] = setting(
        "text", "json: a line an event on stderr, here and in every worker's log, for machines to read", effect="call"
    )

    @field_validator("inputs", mode="before")
    @classmethod
    def _one_input_is_a_list(cls, value: object) -> object:
        return [value] if isinstance(value, str) else value

    @field_validator("crf", mode="before")
    @classmethod
    def _known_parameters(cls, value: object) -> object:
        return crf_values(value) if isinstance(value, dict) else value

    @staticmethod
    def create(**fields: Any) -> JobSpec:
        """A spec from keyword arguments. Raises ``SpecError`` that names the field, the value and the remedy."""
        return parse_spec(JobSpec, fields)

    @staticmethod
    def load(uri: str | Path, **overrides: Any) -> JobSpec:
        """A spec from a YAML or JSON file on any fsspec URI; ``overrides`` win, key by key."""
        return JobSpec.create(**merge(read_config(uri), overrides))
