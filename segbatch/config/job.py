"""The settings of one job. Flags, YAML keys and keyword arguments are the same fields."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import field_validator

from segbatch.config.base import Spec, merge, parse_spec, read_config, setting
from segbatch.config.crf_mapping import CRFValue, crf_values
from segbatch.config.image_fields import IMAGE_COLUMN, IMAGE_MEMBER

# The names in ``sources.FORMATS``, for the help, which does not import the formats.
INPUT_FORMATS = ("webdataset", "parquet", "images", "manifest")


class JobSpec(Spec):
    """All settings of a job; ``segbatch run --help`` lists them as flags."""

    inputs: list[str] = setting(
        ...,
        "input shards: tar, Parquet, manifests, folders, globs or braces, on any fsspec URI",
        effect="rows",
        min_length=1,
    )
    output: str = setting("", "folder or object-store prefix of the masks", effect="runtime")

    format: str | None = setting(None, "format of inputs; by default the one that their names show", effect="rows")
    image_column: str | None = IMAGE_COLUMN
    image_member: str | None = IMAGE_MEMBER
    id_column: str | None = setting(
        None,
        "column that identifies a record (Parquet, manifests); by default the first of image_id, id, key, … that "
        "exists",
        effect="rows",
    )
    uri_column: str = setting("uri", "manifest column that holds the image URIs", effect="rows")
    key: Literal["first-dot", "last-dot"] = setting(
        "first-dot",
        "dot of a tar member's name that ends the key of its sample: first-dot (WebDataset's rule), or "
        "last-dot for keys that contain dots",
        effect="rows",
    )
    storage_options: dict[str, Any] = setting(
        {}, "options for fsspec; never written to the output or to logs", effect="secret"
    )
    max_pixels: int = setting(
        200_000_000,
        "maximum pixels of an image; larger images become error rows without being decoded",
        effect="limit",
        gt=0,
    )
    max_record_bytes: int = setting(
        512 * 2**20,
        "maximum bytes of an encoded image; larger images become error rows without being read",
        effect="limit",
        gt=0,
    )

    model: str = setting(
        "deeplabv3plus_mobilenet_v2",
        "network: a name that `segbatch models` lists, or package.module:factory",
        effect="rows",
    )
    weights: str = setting(
        "default",
        "name of a set of weights, or URI of a file: .pth, .pt, .safetensors, .caffemodel; by default the first set of "
        "the network",
        effect="rows",
    )
    classes: str | None = setting(
        None, "URI of the class names of --weights: one per line, JSON, YAML or a table", effect="rows"
    )
    device: str = setting(
        "auto",
        "device of the network: auto, cpu, cuda or cuda:N",
        effect="runtime",
        pattern=r"^(auto|cpu|cuda(:\d+)?)$",
    )
    precision: Literal["auto", "fp32", "bf16"] = setting(
        "auto",
        "arithmetic of the network; auto is bf16 where workers have GPUs, otherwise if this machine's CPU supports "
        "it natively",
        effect="rows",
    )
    batch_size: int | None = setting(
        None,
        "images of 512 x 512 pixels per forward pass, fewer if larger; by default 8, on CPUs at most as many "
        "as keep the output of a layer within 32 MiB",
        effect="runtime",
        gt=0,
        le=4096,
    )
    prune: float | None = setting(
        None,
        "probability below which, at every pixel, a class is left out; 0 keeps all; by default 0.02, 0.01 for "
        "more than 50 classes",
        effect="rows",
        ge=0,
        lt=0.5,
    )

    refiner: str = setting(
        "densecrf",
        "refinement (post-processing) method: densecrf, crfasrnn, dpn, none, or package.module:factory",
        effect="rows",
    )
    refiner_weights: str | None = setting(
        None,
        "trained weights of crfasrnn or dpn: URI of .caffemodel, .pth, .safetensors; by default a Potts model",
        effect="rows",
    )
    crf: dict[str, CRFValue] = setting(
        {},
        "parameters of the dense CRF; by default those that come with the weights, for crfasrnn its paper's",
        effect="rows",
    )

    marginal: bool = setting(
        False,
        "add a column marginal: mean over the pixels of the refiner's own probability of the predicted class",
        effect="rows",
    )

    report_samples: int = setting(
        200,
        "images of which a photograph of 480 pixels and the network's own mask are kept for reports; 0 keeps none",
        effect="runtime",
        ge=0,
        le=10_000,
    )

    chunk_size: int | None = setting(
        None,
        "records per chunk, the unit of commits; by default at most 256, chosen at the first run of an output and kept",
        effect="rows",
        gt=0,
        le=65536,
    )
    overwrite: bool = setting(
        False,
        "delete the results of another job from the output; files that segbatch did not write are kept",
        effect="call",
    )
    retry_errors: bool = setting(
        False, "compute chunks with error rows again; their earlier rows are archived", effect="call"
    )
    max_error_fraction: float = setting(
        0.01, "maximum fraction of error rows; above it the exit code is 3", effect="call", ge=0, le=1
    )

    address: str | None = setting(
        None,
        "Ray cluster: auto, or host:port of its head; by default RAY_ADDRESS, or else this machine",
        effect="runtime",
    )
    num_cpus: int | None = setting(None, "CPU cores to use on this machine; by default all", effect="runtime", gt=0)
    segment_actors: int | None = setting(
        None, "workers that run the network; by default one per core, or per GPU", effect="runtime", gt=0
    )
    refine_actors: int | None = setting(
        None, "workers that refine and write; by default one per core", effect="runtime", gt=0
    )
    num_gpus: float | None = setting(
        None,
        "GPUs per segment actor, or a fraction of one; 0 runs the network on CPUs; by default 1 if there are GPUs",
        effect="runtime",
        ge=0,
    )
    threads: int | None = setting(None, "threads per worker; by default 1", effect="runtime", gt=0)
    stall_seconds: float = setting(
        600,
        "seconds without a finished record after which a worker is restarted and the record that hangs "
        "becomes an error row; proportionally more for images above 16 megapixels",
        effect="limit",
        gt=0,
    )
    max_worker_bytes: int | None = setting(
        None,
        "maximum memory of a worker in bytes; a record that takes more becomes an error row; by default an equal "
        "share of 70 % of its machine or container, and more while all workers there hold less than that",
        effect="limit",
        gt=0,
    )
    log_format: Literal["text", "json"] = setting(
        "text",
        "format of logs; json writes one line per event to stderr, here and in every worker's log",
        effect="call",
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
        """Make a spec from keyword arguments. Raises ``SpecError`` that names the field, the value and the remedy."""
        return parse_spec(JobSpec, fields)

    @staticmethod
    def load(uri: str | Path, **overrides: Any) -> JobSpec:
        """Make a spec from a YAML or JSON file on any fsspec URI; ``overrides`` take precedence, key by key."""
        return JobSpec.create(**merge(read_config(uri), overrides))
