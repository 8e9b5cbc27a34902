"""JobSpec: one object describes one job. Flags, YAML and the Python API are the same fields."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from segbatch.config.base import merge, parse_spec, public_fields, read_config


class CRFSpec(BaseModel):
    """Parameters of the dense CRF (Krähenbühl & Koltun 2011), by the names of ``segbatch.crf.CRFParams``."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    w_bilateral: float = Field(4.0, ge=0, description="weight of the bilateral (position and colour) kernel")
    theta_alpha: float = Field(67.0, gt=0, description="bilateral kernel: standard deviation in pixels")
    theta_beta: float = Field(3.0, gt=0, description="bilateral kernel: standard deviation in RGB levels")
    w_spatial: float = Field(3.0, ge=0, description="weight of the spatial (smoothness) kernel")
    theta_gamma: float = Field(3.0, gt=0, description="spatial kernel: standard deviation in pixels")
    iterations: int = Field(10, ge=0, le=1000, description="mean-field iterations")
    normalization: Literal["none", "before", "after", "symmetric"] = Field(
        "symmetric", description="how kernels are normalised: none, before, after, symmetric"
    )
    engine: Literal["native", "torch", "pydensecrf"] = Field("native", description="which code runs the CRF")


class JobSpec(BaseModel):
    """Everything that says what a job does; see ``segbatch run --help`` for the same list as flags."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)

    inputs: list[str] = Field(
        description="shards: tar, Parquet, manifests, folders, globs or braces, on any fsspec URI",
        min_length=1,
    )
    output: str = Field("", description="where the masks go: a folder or an object-store prefix")

    format: Literal["webdataset", "parquet", "images", "manifest"] | None = Field(
        None, description="format of the inputs, where their names do not tell"
    )
    image_column: str | None = Field(
        None, description="Parquet column that holds the image bytes; by default the one whose first values are images"
    )
    image_member: str | None = Field(
        None,
        min_length=1,
        description="image of a tar's sample that counts, by what follows the key in its name: left.jpg, left, png",
    )
    id_column: str | None = Field(None, description="column that identifies a record (Parquet, manifests)")
    uri_column: str = Field("uri", description="manifest column that holds the image URIs")
    key: Literal["first-dot", "last-dot"] = Field(
        "first-dot",
        description="dot of a tar member's name that ends the key of its sample: first-dot (WebDataset's rule), or "
        "last-dot for names with dots of their own",
    )
    storage_options: dict[str, Any] = Field(
        default_factory=dict,
        description="passed to fsspec; never written to the output or to logs",
        repr=False,
    )
    max_pixels: int = Field(200_000_000, gt=0, description="larger images are error rows, not decoded")
    max_record_bytes: int = Field(512 * 2**20, gt=0, description="larger encoded images are error rows, not read")

    model: str = Field(
        "deeplabv3plus_mobilenet_v2", description="a name of `segbatch models`, or package.module:factory"
    )
    weights: str = Field(
        "default", description="a named set of weights, or the URI of .pth, .pt, .safetensors, .caffemodel"
    )
    classes: str | None = Field(None, description="file of class names for --weights: one a line, JSON, YAML, a table")
    device: str = Field("auto", pattern=r"^(auto|cpu|cuda(:\d+)?)$", description="auto, cpu or cuda")
    precision: Literal["auto", "fp32", "bf16"] = Field(
        "auto",
        description="arithmetic of the network; auto is bf16 if the machine that starts the first run computes in it",
    )
    batch_size: int | None = Field(
        None,
        gt=0,
        le=4096,
        description="images of 512 x 512 in a forward pass, fewer larger ones; by default 8, on CPUs up to 8 while a "
        "layer's output stays within 32 MiB",
    )
    prune: float | None = Field(
        None,
        ge=0,
        lt=0.5,
        description="classes below this probability at every pixel are left out; 0 keeps all; by default 0.02, of more "
        "than 50 classes 0.01",
    )

    refiner: str = Field("densecrf", description="what sharpens the boundaries: densecrf, crfasrnn, dpn or none")
    refiner_weights: str | None = Field(
        None,
        description="what crfasrnn or dpn learned: URI of .caffemodel, .pth, .safetensors; by default a Potts model",
    )
    crf: CRFSpec = Field(
        default_factory=lambda: CRFSpec(),
        description="parameters of the dense CRF; those not given come with the weights, for crfasrnn from its paper",
    )

    marginal: bool = Field(
        False,
        description="add a column marginal: mean over the pixels of the refiner's own probability of their label",
    )

    chunk_size: int | None = Field(
        None, gt=0, le=65536, description="records a commit; chosen at the first run of an output, then kept"
    )
    overwrite: bool = Field(
        False, description="remove the results of another job from the output; files that segbatch did not write stay"
    )
    max_error_fraction: float = Field(
        0.01, ge=0, le=1, description="exit with 3 if a larger share of the records are error rows"
    )

    address: str | None = Field(
        None,
        description="Ray cluster: auto, or host:port of its head; by default RAY_ADDRESS, else this machine alone",
    )
    num_cpus: int | None = Field(None, gt=0, description="cores to use on this machine; by default all of them")
    segment_actors: int | None = Field(None, gt=0, description="workers that run the network")
    refine_actors: int | None = Field(None, gt=0, description="workers that refine and write")
    num_gpus: float | None = Field(None, ge=0, description="GPUs, or fraction of one, a segment actor holds")
    threads: int | None = Field(None, gt=0, description="threads a worker computes with")
    stall_seconds: float = Field(
        600,
        gt=0,
        description="a worker that finishes no record for so long is restarted, and the record that hangs becomes an "
        "error row; images above 16 megapixels have proportionally more",
    )
    max_worker_bytes: int | None = Field(
        None,
        gt=0,
        description="memory a worker may hold; a record that takes more becomes an error row; by default 70 % of the "
        "machine's",
    )
    log_format: Literal["text", "json"] = Field(
        "text", description="json: a line an event on stderr, here and in every worker's log, for machines to read"
    )

    @field_validator("inputs", mode="before")
    @classmethod
    def _one_input_is_a_list(cls, value: object) -> object:
        return [value] if isinstance(value, str) else value

    @staticmethod
    def create(**fields: Any) -> JobSpec:
        """A spec from keyword arguments. Raises ``SpecError`` that names the field, the value and the remedy."""
        return parse_spec(JobSpec, fields)

    @staticmethod
    def load(uri: str | Path, **overrides: Any) -> JobSpec:
        """A spec from a YAML or JSON file on any fsspec URI; ``overrides`` win, key by key."""
        return JobSpec.create(**merge(read_config(uri), overrides))

    def public(self) -> dict[str, Any]:
        """The spec as plain data, fit to be stored: no storage options, every URI redacted.

        ``crf`` has the parameters that are set alone: the others are the refiner's own.
        """
        return {**public_fields(self), "crf": self.crf.model_dump(exclude_unset=True)}
