"""TrainSpec: the settings of one training. Flags, YAML keys and keyword arguments are the same fields."""

from __future__ import annotations

from typing import Any, Literal, TypedDict

from pydantic import field_validator

from segbatch.config.base import Spec, parse_spec, setting
from segbatch.config.image_fields import IMAGE_COLUMN, IMAGE_MEMBER
from segbatch.labels import LABEL_COLORS, LABEL_SUFFIX, REDUCE_ZERO, LabelOptions


class TrainingRecipe(TypedDict, total=False):
    """The fields of ``TrainSpec`` with which the authors of a network trained it, as far as stated."""

    batch_size: int
    crop: tuple[int, int]
    scale: tuple[float, float]
    flip: bool
    lr: float
    schedule: Literal["poly", "fixed"]
    momentum: float
    weight_decay: float
    head_lr: float
    bias_lr: float
    balance: Literal["none", "median-frequency"]
    reduction: Literal["mean", "sum"]


# Fields whose default depends on the network.
RECIPE_FIELDS = frozenset(TrainingRecipe.__annotations__)


class TrainSpec(Spec):
    """The settings of a training; ``segbatch train --help`` lists the same fields as flags.

    ``model_fields_set`` are the fields that were given. ``completed_by`` the recipe of the network, its other fields
    have the values that the network's authors trained with, where they state them, else the defaults here.
    """

    inputs: list[str] = setting(
        ...,
        "training images: folders, globs, or shards (tar, Parquet), on any fsspec URI",
        effect="rows",
        min_length=1,
    )
    labels: str | None = setting(None, "folder or glob of label images, named like the images", effect="rows")
    label_column: str | None = setting(
        None,
        "for shards: the Parquet column of the labels, or the ending of their names in a tar, such as seg.png",
        effect="rows",
    )
    image_column: str | None = IMAGE_COLUMN
    image_member: str | None = IMAGE_MEMBER
    val: list[str] = setting([], "validation images; the weights of the highest mean IoU are kept", effect="rows")
    val_labels: str | None = setting(None, "folder or glob of the labels of --val", effect="rows")
    output: str = setting(..., "folder of the weights, the curves and the checkpoint", effect="runtime")
    ignore: list[int] = setting([255], "ignored label value; may be repeated", effect="rows")
    class_map: dict[Any, Any] | None = setting(
        None, "label value -> class or 'ignore' (see segbatch eval)", effect="rows"
    )
    label_suffix: str = setting("", LABEL_SUFFIX, effect="rows")
    label_colors: str | None = setting(None, LABEL_COLORS, effect="rows")
    reduce_zero_label: bool = setting(False, REDUCE_ZERO, effect="rows")
    storage_options: dict[str, Any] = setting(
        {}, "passed to fsspec; never written to the output or to logs", effect="secret"
    )
    max_pixels: int = setting(200_000_000, "maximum pixels of an image; larger ones are left out", effect="rows", gt=0)

    model: str = setting("deeplabv3plus_mobilenet_v2", "a name of `segbatch models`", effect="rows")
    classes: str | None = setting(None, "file of class names: one per line, JSON, YAML or a table", effect="rows")
    init: str = setting(
        "scratch",
        "initial weights: scratch; a named set or URI of this network's; backbone (ImageNet, from timm) or "
        "backbone:URI",
        effect="rows",
    )

    epochs: float = setting(50, "passes over the training images", effect="rows", gt=0)
    stop_after: float | None = setting(
        None, "stop after so many of the epochs; a later call may continue", effect="call", earlier="until", gt=0
    )
    batch_size: int = setting(8, "images per update, over all workers", effect="rows", gt=0)
    accumulate: int = setting(1, "sequential forward passes per update in each worker", effect="runtime", gt=0)
    crop: tuple[int, int] | None = setting(
        None, "height and width of random crops; by default the whole image", effect="rows"
    )
    scale: tuple[float, float] = setting((1.0, 1.0), "range of the random scale of images", effect="rows")
    flip: bool = setting(True, "mirror images with probability 0.5", effect="rows")
    jitter: float = setting(
        0.0, "maximum relative change of brightness, contrast and saturation", effect="rows", ge=0, lt=1
    )

    lr: float = setting(0.01, "learning rate", effect="rows", gt=0)
    schedule: Literal["poly", "fixed"] = setting("poly", "poly: lr * (1 - progress) ** power; or fixed", effect="rows")
    power: float = setting(0.9, "exponent of the poly schedule", effect="rows", ge=0)
    warmup: int = setting(0, "updates of linear warmup from 0", effect="rows", ge=0)
    momentum: float = setting(0.9, "momentum of SGD", effect="rows", ge=0, lt=1)
    weight_decay: float = setting(1e-4, "weight decay, without biases and normalizations", effect="rows", ge=0)
    head_lr: float = setting(
        1.0, "factor of the learning rate of layers that depend on the classes", effect="rows", gt=0
    )
    bias_lr: float = setting(1.0, "factor of the learning rate of biases", effect="rows", ge=0)
    balance: Literal["none", "median-frequency"] = setting("none", "weights of the classes in the loss", effect="rows")
    balance_power: float = setting(1.0, "exponent of the class weights; 0.5 is milder", effect="rows", gt=0)
    calibrate: bool = setting(
        False, "subtract the logarithm of the class weights from the bias of the written weights", effect="rows"
    )
    reduction: Literal["mean", "sum"] = setting(
        "mean", "reduction of the loss over the pixels of a batch: mean or sum", effect="rows"
    )
    hardest: float = setting(
        1.0, "fraction of the pixels that count, those of the highest loss (OHEM)", effect="rows", gt=0, le=1
    )
    freeze_norm: bool = setting(False, "keep the statistics of batch normalization as loaded", effect="rows")
    freeze: list[str] = setting(
        [],
        "module that is not trained: prefix of its name, such as backbone.0, or a pattern, such as conv*; may be "
        "repeated",
        effect="rows",
    )
    ema: float = setting(
        0.0, "decay of the moving average of the weights that becomes the result", effect="rows", ge=0, lt=1
    )

    workers: int = setting(1, "processes that share each batch (Ray Train)", effect="runtime", gt=0)
    address: str | None = setting(
        None, "Ray cluster of the workers: auto, or host:port of its head; by default this machine", effect="runtime"
    )
    seed: int = setting(0, "seed of all random numbers", effect="rows", ge=0)
    precision: Literal["auto", "fp32", "bf16"] = setting(
        "auto", "arithmetic of the network; auto is bf16 on a GPU that supports it", effect="rows"
    )
    device: str = setting("auto", "auto, cpu or cuda", effect="runtime", pattern=r"^(auto|cpu|cuda(:\d+)?)$")
    threads: int | None = setting(None, "threads of torch", effect="runtime", gt=0)
    loaders: int = setting(2, "threads that read and augment images", effect="runtime", gt=0)
    validate_every: float = setting(1.0, "epochs between validations", effect="rows", gt=0)
    checkpoint_minutes: float = setting(5.0, "minutes between checkpoints", effect="runtime", ge=0)
    weights_precision: Literal["fp32", "fp16"] = setting("fp16", "precision of the written weights", effect="rows")
    overwrite: bool = setting(False, "delete the files of another training from the output", effect="call")

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
        """Return how labels are paired with images and read."""
        return LabelOptions(
            tuple(self.ignore), self.class_map, self.label_suffix, self.label_colors, self.reduce_zero_label
        )

    @staticmethod
    def create(**fields: Any) -> TrainSpec:
        """Return a spec from keyword arguments.

        Raises:
            SpecError: Names the field, the value and the remedy.
        """
        return parse_spec(TrainSpec, fields)

    def completed_by(self, recipe: TrainingRecipe) -> TrainSpec:
        """Return the spec with the values of a recipe in the fields that were not given."""
        given = {name: value for name, value in self if name in self.model_fields_set}
        return parse_spec(TrainSpec, {**recipe, **given})

    def decisive(self) -> dict[str, str]:
        """Return the settings that two calls of one training share: all that change what is computed."""
        decisive = {key: repr(value) for key, value in self.plain("rows").items()}
        if self.image_member is None:  # trainings of earlier versions, which lack it, can be resumed
            del decisive["image_member"]
        return decisive
