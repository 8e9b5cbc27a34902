"""JobSpec: one object describes one job. Flags, YAML and the Python API are the same fields."""

from __future__ import annotations

import difflib
import itertools
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar

import fsspec
import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from segbatch.contents import recognized
from segbatch.errors import SpecError
from segbatch.storage.uri import as_plain
from segbatch.text import redact, redact_text

S = TypeVar("S", bound=BaseModel)
_LARGEST_CONFIG = 16 * 2**20
_MOST_VALUES = 1_000_000
# Fields whose values no message shows.
_SECRET = ("storage_options", "webhook.url", "webhook.headers")


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


def read_config(uri: str | Path, storage_options: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """The mapping in a YAML or JSON file. Raises ``SpecError`` that names the file and the line."""
    try:
        with fsspec.open(as_plain(str(uri)), "rb", **(storage_options or {})) as f:
            data = f.read(_LARGEST_CONFIG + 1)
        if len(data) > _LARGEST_CONFIG:
            raise SpecError(f"{uri}: a configuration of more than {_LARGEST_CONFIG:,} bytes; give the right file")
        if other := recognized(data, {"JSON"}):
            raise SpecError(f"{uri}: not a configuration, but {other}")
        loader = yaml.SafeLoader(data)
        root = loader.get_single_node()
        _check_aliases(root, str(uri))
        loaded = None if root is None else loader.construct_document(root)
    except FileNotFoundError:
        raise SpecError(f"{uri}: no such configuration file") from None
    except yaml.YAMLError as e:
        raise SpecError(f"{uri}: not valid YAML: {_without_snippet(e)}") from None
    except RecursionError:
        raise SpecError(f"{uri}: the configuration nests too deeply; write it flat, as in README.md") from None
    except SpecError:
        raise
    except Exception as e:  # clients of stores have exceptions of their own
        raise SpecError(f"{uri}: cannot read the configuration: {e}") from None
    if not isinstance(loaded, dict):
        raise SpecError(
            f"{uri}: a configuration is a mapping of keys, such as `inputs:`; found {type(loaded).__name__}"
        )
    return loaded


def _without_snippet(error: yaml.YAMLError) -> str:
    """What is wrong, and where; PyYAML's own text quotes the line, which may hold a secret."""
    mark = getattr(error, "problem_mark", None)
    return f"line {mark.line + 1}, column {mark.column + 1}: {error.problem}" if mark else str(error)  # type: ignore[attr-defined]


def _check_aliases(root: yaml.Node | None, uri: str) -> None:
    """Refuse YAML whose aliases, written out, would come to very many values, or to no end ("billion laughs")."""
    sizes: dict[int, int] = {}

    def size(node: yaml.Node | None) -> int:
        if not isinstance(node, yaml.CollectionNode):
            return 1
        if id(node) not in sizes:
            sizes[id(node)] = _MOST_VALUES + 1  # what it is found to be if it contains itself
            parts = itertools.chain.from_iterable(node.value) if isinstance(node, yaml.MappingNode) else node.value
            sizes[id(node)] = 1 + sum(map(size, parts))
        return sizes[id(node)]

    if size(root) > _MOST_VALUES:
        raise SpecError(
            f"{uri}: with its aliases (*name) written out, the configuration has more than {_MOST_VALUES:,} values, or "
            "contains itself; write it without aliases, and long lists of inputs as a glob or a manifest"
        )


def merge(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    """``base`` with the keys of ``over`` that are not None; ``crf`` is merged key by key."""
    merged = dict(base)
    for key, value in over.items():
        if key == "crf" and isinstance(value, dict):
            merged["crf"] = {**(merged.get("crf") or {}), **value}
        elif value is not None:
            merged[key] = value
    return merged


def public_fields(spec: BaseModel) -> dict[str, Any]:
    """The fields of a spec as plain data without its ``storage_options``, every URI redacted."""

    def public(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: public(item) for key, item in value.items()}
        if isinstance(value, list):
            return [public(item) for item in value]
        return redact(value) if isinstance(value, str) else value

    plain: dict[str, Any] = public(spec.model_dump(mode="json", exclude={"storage_options"}))
    return plain


def parse_spec(kind: type[S], fields: dict[str, Any]) -> S:
    """A spec of the class ``kind``. Raises ``SpecError`` that names the field, the value and the remedy."""
    check_keys(kind, fields)
    try:
        return kind(**fields)
    except ValidationError as e:
        raise SpecError("\n".join(_explain(err) for err in e.errors())) from None


def check_keys(model: type[BaseModel], given: Mapping[str, Any], where: str = "") -> None:
    """Raise ``SpecError`` for a key that is no field of ``model``, or of a model within it, naming the nearest."""
    known = model.model_fields
    for key, value in given.items():
        if key not in known:
            near = difflib.get_close_matches(str(key), known, n=1, cutoff=0.5)
            hint = f"did you mean {where + near[0]!r}?" if near else f"known keys: {', '.join(sorted(known))}"
            raise SpecError(f"unknown key {where + str(key)!r}; {hint}")
        inner = known[key].annotation
        if isinstance(value, Mapping) and isinstance(inner, type) and issubclass(inner, BaseModel):
            check_keys(inner, value, f"{where}{key}.")


def _explain(error: Any) -> str:
    field = ".".join(str(part) for part in error["loc"])
    if error["type"] == "missing":
        return f"{field}: required, and not given"
    given = redact_text(json.dumps(error["input"], default=str))  # before it is cut: half a URI hides its "@"
    if field == "webhook" or field.startswith(_SECRET):
        given = "(hidden)"
    return f"{field}: got {given[:200]}; {error['msg'][0].lower() + error['msg'][1:]}"
