"""Commands that need labeled images: eval, tune-crf, train."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from segbatch.cli import tables as show
from segbatch.cli.arguments import (
    ClassMapFile,
    Ignore,
    LabelColors,
    LabelSuffix,
    Output,
    ReduceZero,
    RunConfig,
    read_class_map,
    read_storage_options,
)
from segbatch.cli.options import with_spec_options, with_train_options
from segbatch.cli.progress import reporting
from segbatch.cli.terminal import console, quoted
from segbatch.config.base import merge, read_config
from segbatch.config.job import JobSpec
from segbatch.config.training import TrainSpec
from segbatch.labels import IGNORE_INDEX


def evaluate(
    output: Output,
    labels: Annotated[str, typer.Option(help="folder or glob of label images, named like the inputs")],
    against: Annotated[
        str | None, typer.Option(help="second output to compare, such as one with --refiner none")
    ] = None,
    ignore: Ignore = [IGNORE_INDEX],  # noqa: B006
    class_map: ClassMapFile = None,
    label_suffix: LabelSuffix = "",
    label_colors: LabelColors = None,
    reduce_zero_label: ReduceZero = False,
    write_json: Annotated[Path | None, typer.Option("--json", help="JSON file for all metrics")] = None,
    plot: Annotated[Path | None, typer.Option(help="file for the plot: .png, .svg or .pdf")] = None,
    resamples: Annotated[
        int, typer.Option(min=0, help="bootstrap replicates for the 95 % confidence intervals")
    ] = 1000,
    seed: Annotated[int, typer.Option(min=0, help="seed of the bootstrap")] = 0,
    address: Annotated[str | None, typer.Option(help="Ray cluster to run on (default: this machine)")] = None,
    config: RunConfig = None,
) -> None:
    """Compare an output with label images: accuracy, IoU, boundary F1, trimaps, calibration, confidence intervals.

    Calibration is measured on regions (all pixels of a class in an image): an output has no confidence per pixel.
    """
    from segbatch.cli import evaluation as show_eval

    if plot is not None:
        show_eval.check_plot(plot)
    for path in (write_json, plot):
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
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
            storage_options=read_storage_options(config, output),
            reporter=reporter,
        )
    show_eval.evaluation(console, found)
    if write_json is not None:
        write_json.write_text(json.dumps(found.to_json(), indent=1) + "\n")
    if plot is not None:
        show_eval.plot(found, plot)


@with_spec_options
def tune_crf(
    fields: dict[str, Any],
    labels: Annotated[str, typer.Option(help="folder or glob of label images, named like the inputs")],
    write: Annotated[Path, typer.Option(help="file for the network and the best parameters, for run --config")] = Path(
        "crf.yaml"
    ),
    images: Annotated[int, typer.Option(min=1, help="number of labeled images to search on")] = 100,
    ignore: Ignore = [IGNORE_INDEX],  # noqa: B006
    class_map: ClassMapFile = None,
    label_suffix: LabelSuffix = "",
    label_colors: LabelColors = None,
    reduce_zero_label: ReduceZero = False,
    config: Annotated[
        str | None, typer.Option(help="YAML or JSON file of the same settings; flags override it")
    ] = None,
) -> None:
    """Search the parameters of the dense CRF that give the highest mean IoU on labeled images, coarse to fine."""
    spec = JobSpec.create(**merge(read_config(config) if config is not None else {}, fields))
    with reporting("loading Ray") as reporter:
        from segbatch.operations.tune import tune_crf as tune

        found = tune(
            spec,
            labels=labels,
            images=images,
            ignore=ignore,
            class_map=read_class_map(class_map),
            label_suffix=label_suffix,
            label_colors=label_colors,
            reduce_zero_label=reduce_zero_label,
            reporter=reporter,
        )
    show.tuning(console, found)
    write.write_text(found.to_yaml())
    show.print_text(console, f"next: segbatch run INPUT... --config {quoted(str(write))}")


@with_train_options
def train(
    fields: dict[str, Any],
    class_map: ClassMapFile = None,
    config: Annotated[
        str | None, typer.Option(help="YAML or JSON file of the same settings; flags override it")
    ] = None,
) -> None:
    """Train a network on labeled images; the result is for run --weights. The same command resumes.

    Defaults that differ between networks are those of the networks' papers (docs/training.md).
    """
    if class_map is not None:
        fields["class_map"] = read_config(class_map)
    spec = TrainSpec.create(**merge(read_config(config) if config is not None else {}, fields))
    with reporting("loading PyTorch") as reporter:
        from segbatch.ray_backend.train import train as train_network

        result = train_network(spec, reporter=reporter)
    show.training(console, result)
