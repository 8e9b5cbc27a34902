"""Commands that need labeled images: eval, tune-crf, train."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from segbatch.cli import tables as show
from segbatch.cli.arguments import (
    Address,
    AsJson,
    ClassMapFile,
    Configs,
    Ignore,
    LabelColors,
    Labels,
    LabelSuffix,
    Output,
    ReduceZero,
    StorageOptions,
    file_path,
    read_class_map,
    read_configs,
    read_storage_options,
)
from segbatch.cli.options import with_spec_options, with_train_options
from segbatch.cli.progress import reporting
from segbatch.cli.terminal import console, quoted
from segbatch.config.base import read_config
from segbatch.config.job import JobSpec
from segbatch.config.training import TrainSpec
from segbatch.errors import SpecError
from segbatch.labels import IGNORE_INDEX

# What a run writes and how it ends, and the parameters that the search sets.
_WITHOUT_EFFECT_ON_TUNING = (
    "output",
    "refiner",
    "refiner_weights",
    "marginal",
    "chunk_size",
    "overwrite",
    "retry_errors",
    "max_error_fraction",
)


def evaluate(
    output: Output,
    labels: Labels,
    old_json_file: Annotated[str | None, typer.Argument(hidden=True)] = None,
    against: Annotated[
        str | None, typer.Option(help="second output to compare, such as one with --refiner none")
    ] = None,
    ignore: Ignore = [IGNORE_INDEX],  # noqa: B006
    class_map: ClassMapFile = None,
    label_suffix: LabelSuffix = "",
    label_colors: LabelColors = None,
    reduce_zero_label: ReduceZero = False,
    as_json: AsJson = False,
    plot: Annotated[
        Path | None, typer.Option(parser=file_path, metavar="FILE", help="file for the plot: .png, .svg or .pdf")
    ] = None,
    resamples: Annotated[
        int, typer.Option(min=0, metavar="N", help="bootstrap replicates for the 95 % confidence intervals")
    ] = 1000,
    seed: Annotated[int, typer.Option(min=0, metavar="N", help="seed of the bootstrap")] = 0,
    address: Address = None,
    storage_options: StorageOptions = None,
) -> None:
    """Compare an output with label images.

    Prints accuracy, IoU, boundary F1, accuracy near boundaries and calibration, with confidence intervals. Calibration
    is measured on regions (all pixels of a class in an image): an output has no confidence per pixel.
    """
    from segbatch.cli import evaluation as show_eval

    if old_json_file is not None:
        raise SpecError(
            f"--json takes no file, and eval one OUTPUT; got {output!r} and {old_json_file!r}: give --json > FILE"
        )
    if plot is not None:
        show_eval.check_plot(plot)
        plot.parent.mkdir(parents=True, exist_ok=True)
    with reporting("loading Ray") as reporter:
        from segbatch.operations.evaluate import evaluate as evaluate_output

        found = evaluate_output(
            output,
            labels=labels,
            against=against,
            ignore=ignore,
            class_map=read_class_map(class_map),
            label_suffix=label_suffix,
            label_colors=label_colors,
            reduce_zero_label=reduce_zero_label,
            resamples=resamples,
            seed=seed,
            address=address,
            storage_options=read_storage_options(storage_options, output),
            reporter=reporter,
        )
    if as_json:
        console.print_json(data=found.to_json(), ensure_ascii=True)
    else:
        show_eval.evaluation(console, found)
    if plot is not None:
        show_eval.plot(found, plot)


@with_spec_options(*_WITHOUT_EFFECT_ON_TUNING)
def tune_crf(
    fields: dict[str, Any],
    labels: Labels,
    # --write and --images are the names in earlier versions.
    output: Annotated[
        Path,
        typer.Option(
            "--output",
            "-o",
            "--write",
            parser=file_path,
            metavar="FILE",
            help="file for the network and the best parameters, for run --config",
        ),
    ] = Path("crf.yaml"),
    overwrite: Annotated[bool, typer.Option("--overwrite", help="replace a file that exists")] = False,
    max_images: Annotated[
        int,
        typer.Option(
            "--max-images", "--images", min=1, metavar="N", help="maximum number of labeled images to search on"
        ),
    ] = 100,
    ignore: Ignore = [IGNORE_INDEX],  # noqa: B006
    class_map: ClassMapFile = None,
    label_suffix: LabelSuffix = "",
    label_colors: LabelColors = None,
    reduce_zero_label: ReduceZero = False,
    config: Configs = None,
) -> None:
    """Search CRF parameters of the highest mean IoU on labeled images.

    The file that is written is for `segbatch run --config`.
    """
    if output.exists() and not overwrite:
        raise SpecError(f"{output} exists; choose another --output, or --overwrite to replace it")
    spec = JobSpec.create(**read_configs(config, fields))
    with reporting("loading Ray") as reporter:
        from segbatch.operations.tune import tune_crf as tune

        found = tune(
            spec,
            labels=labels,
            images=max_images,
            ignore=ignore,
            class_map=read_class_map(class_map),
            label_suffix=label_suffix,
            label_colors=label_colors,
            reduce_zero_label=reduce_zero_label,
            reporter=reporter,
        )
    show.tuning(console, found)
    output.write_text(found.to_yaml())
    show.print_text(console, f"next: segbatch run INPUT... --config {quoted(str(output))}")


@with_train_options
def train(
    fields: dict[str, Any],
    class_map: ClassMapFile = None,
    config: Configs = None,
) -> None:
    """Train a network on labeled images.

    The result is for `segbatch run --weights`. The same command resumes.

    Defaults that differ between networks are those of the networks' papers (docs/training.md).
    """
    if class_map is not None:
        fields["class_map"] = read_config(class_map)
    spec = TrainSpec.create(**read_configs(config, fields))
    with reporting("loading PyTorch") as reporter:
        from segbatch.ray_backend.train import train as train_network

        result = train_network(spec, reporter=reporter)
    show.training(console, result)
