"""TrainSpec: one object describes one training. Flags, YAML and the Python API are the same fields."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from segbatch.config.base import parse_spec, public_fields
from segbatch.config.training_defaults import defaults_of
from segbatch.labels import LABEL_COLORS, LABEL_SUFFIX, REDUCE_ZERO, LabelOptions
from segbatch.records import digest

# What may change between a run and its continuation: where and how fast, not what is computed.
_FREE = {
    *("output", "storage_options", "device", "threads", "loaders", "overwrite", "checkpoint_minutes", "until"),
    *("workers", "accumulate", "address"),
}


class TrainSpec(BaseModel):
    """Everything that says what a training does; see ``segbatch train --help`` for the same list as flags.

    A field that is not given has the value that the network's authors trained with, where they say it
    (``segbatch.config.training_defaults``), else the default here.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)

    inputs: list[str] = Field(
        min_length=1, description="images to train on: folders, globs, or shards (tar, Parquet), on any fsspec URI"
    )
    labels: str | None = Field(None, description="folder or glob of images of class ids, named like the images")
    label_column: str | None = Field(
        None, description="for shards: the Parquet column that holds the labels, or their ending in a tar, as seg.png"
    )
    image_column: str | None = Field(
        None, description="Parquet column that holds the image bytes; by default the one whose first values are images"
    )
    image_member: str | None = Field(
        None,
        min_length=1,
        description="image of a tar's sample that counts, by what follows the key in its name: left.jpg, left, png",
    )
    val: list[str] = Field(default_factory=list, description="images to validate on; the best weights are kept")
    val_labels: str | None = Field(None, description="their labels")
    output: str = Field(description="where the weights, the curves and the checkpoint go: a folder")
    ignore: list[int] = Field([255], description="label value that does not count; may be repeated")
    class_map: dict[Any, Any] | None = Field(None, description="label value -> class or 'ignore' (see segbatch eval)")
    label_suffix: str = Field("", description=LABEL_SUFFIX)
    label_colors: str | None = Field(None, description=LABEL_COLORS)
    reduce_zero_label: bool = Field(False, description=REDUCE_ZERO)
    storage_options: dict[str, Any] = Field(
        default_factory=dict, description="passed to fsspec; never written to the output or to logs", repr=False
    )
    max_pixels: int = Field(200_000_000, gt=0, description="larger images are left out")

    model: str = Field("deeplabv3plus_mobilenet_v2", description="a name of `segbatch models`")
    classes: str | None = Field(None, description="file of class names: one a line, JSON, YAML or a table")
    init: str = Field(
        "scratch",
        description="weights to begin with: scratch; a named set or URI of this network's; backbone (ImageNet, from "
        "timm) or backbone:URI",
    )

    epochs: float = Field(50, gt=0, description="passes over the images")
    until: float | None = Field(None, gt=0, description="stop after so many of the epochs; a later run may go on")
    batch_size: int = Field(8, gt=0, description="images an update, over all workers")
    accumulate: int = Field(1, gt=0, description="forward passes, one after another, that each worker's share takes")
    crop: tuple[int, int] | None = Field(
        None, description="height and width of what is cut out; by default the whole image"
    )
    scale: tuple[float, float] = Field((1.0, 1.0), description="images are scaled by a factor from this range")
    flip: bool = Field(True, description="mirror half of the images")
    jitter: float = Field(0.0, ge=0, lt=1, description="brightness, contrast and saturation change by up to this share")

    lr: float = Field(0.01, gt=0, description="learning rate")
    schedule: Literal["poly", "fixed"] = Field("poly", description="poly: lr * (1 - progress) ** power; or fixed")
    power: float = Field(0.9, ge=0, description="of the poly schedule")
    warmup: int = Field(0, ge=0, description="updates over which lr rises from 0")
    momentum: float = Field(0.9, ge=0, lt=1, description="of the gradient descent")
    weight_decay: float = Field(1e-4, ge=0, description="of weights; biases and normalisations have none")
    head_lr: float = Field(1.0, gt=0, description="lr of the layers that depend on the classes, as a multiple")
    bias_lr: float = Field(1.0, ge=0, description="lr of biases, as a multiple")
    balance: Literal["none", "median-frequency"] = Field("none", description="weights of the classes in the loss")
    balance_power: float = Field(1.0, gt=0, description="exponent of these weights; 0.5 is milder")
    calibrate: bool = Field(
        False, description="take these weights out of the scores that are written: learnt by, not preferred"
    )
    reduction: Literal["mean", "sum"] = Field("mean", description="loss of a batch: mean or sum over its pixels")
    hardest: float = Field(1.0, gt=0, le=1, description="share of the pixels that count, those of the highest loss")
    freeze_norm: bool = Field(False, description="leave the statistics of batch normalisation as they were loaded")
    freeze: list[str] = Field(
        default_factory=list,
        description="beginning of a module's name, as backbone.0, or a pattern, as conv*, that stays; may be repeated",
    )
    ema: float = Field(
        0.0, ge=0, lt=1, description="decay of a moving average of the weights, which then is the result"
    )

    workers: int = Field(1, gt=0, description="processes that share each batch, by Ray Train")
    address: str | None = Field(None, description="their Ray cluster: auto, or host:port of its head; by default here")
    seed: int = Field(0, ge=0, description="of everything random")
    precision: Literal["auto", "fp32", "bf16"] = Field("auto", description="auto is bf16 on a GPU that computes in it")
    device: str = Field("auto", pattern=r"^(auto|cpu|cuda(:\d+)?)$", description="auto, cpu or cuda")
    threads: int | None = Field(None, gt=0, description="threads that torch computes with")
    loaders: int = Field(2, gt=0, description="threads that read and augment images")
    validate_every: float = Field(1.0, gt=0, description="epochs between validations")
    checkpoint_minutes: float = Field(5.0, ge=0, description="minutes between checkpoints")
    weights_precision: Literal["fp32", "fp16"] = Field("fp16", description="of the weights that are written")
    overwrite: bool = Field(False, description="remove what another training left in the output")

    @field_validator("inputs", "val", mode="before")
    @classmethod
    def _one_input_is_a_list(cls, value: object) -> object:
        return [value] if isinstance(value, str) else value

    @field_validator("scale")
    @classmethod
    def _scale_is_a_range(cls, value: tuple[float, float]) -> tuple[float, float]:
        if not 0 < value[0] <= value[1]:
            raise ValueError("give the smaller factor first, such as 0.5 2; both above 0")
        return value

    @field_validator("crop")
    @classmethod
    def _crop_is_positive(cls, value: tuple[int, int] | None) -> tuple[int, int] | None:
        if value is not None and min(value) < 1:
            raise ValueError("sides are at least 1 pixel")
        return value

    def label_options(self) -> LabelOptions:
        """How labels are paired and read."""
        return LabelOptions(
            tuple(self.ignore), self.class_map, self.label_suffix, self.label_colors, self.reduce_zero_label
        )

    @staticmethod
    def create(**fields: Any) -> TrainSpec:
        """A spec from keyword arguments. Raises ``SpecError`` that names the field, the value and the remedy."""
        defaults = defaults_of(str(fields.get("model", TrainSpec.model_fields["model"].default)))
        return parse_spec(TrainSpec, {**defaults, **fields})

    def public(self) -> dict[str, Any]:
        """The spec as plain data, fit to be stored: no storage options, every URI redacted."""
        return public_fields(self)

    def decisive(self) -> dict[str, str]:
        """What two trainings must share to be one: everything that changes what is computed."""
        decisive = {key: repr(value) for key, value in self.public().items() if key not in _FREE}
        if self.image_member is None:  # trainings of earlier versions go on
            del decisive["image_member"]
        return decisive

    @property
    def fingerprint(self) -> str:
        return digest(*(f"{key}={value}" for key, value in sorted(self.decisive().items())), length=16)
