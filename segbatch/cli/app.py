"""The command line: each command parses its options, calls one operation, and prints the result.

Exit codes: 0 success, 1 failed (the same command resumes), 2 usage or configuration error (nothing was written),
3 more error rows than ``max_error_fraction`` or a failed shard, 4 drift, 5 another run holds the lease,
130 or 143 stopped by SIGINT or SIGTERM.
"""

from __future__ import annotations

import datetime
import json
import sys
import traceback
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from segbatch.errors import WRONG_PLATFORM
from segbatch.text import escape_lines

if sys.platform != "linux":  # before imports that fail elsewhere
    sys.stderr.write(f"error: {WRONG_PLATFORM}\n")
    sys.exit(2)

from segbatch.cli import tables as show
from segbatch.cli.options import with_spec_options, with_train_options
from segbatch.cli.progress import reporting
from segbatch.cli.signals import supervised
from segbatch.cli.terminal import console, log, prepare_streams, quoted
from segbatch.config.base import merge, read_config, refuse_blank
from segbatch.config.job import JobSpec
from segbatch.config.training import TrainSpec
from segbatch.errors import SegbatchError, SpecError
from segbatch.labels import IGNORE_INDEX, LABEL_COLORS, LABEL_SUFFIX, REDUCE_ZERO
from segbatch.text import redact_text

if TYPE_CHECKING:
    from segbatch.operations.verify import Verification

app = typer.Typer(
    help="Semantic-segmentation masks for very large image corpora.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)

Output = Annotated[str, typer.Argument(help="output of a run: a folder or prefix", show_default=False)]
Limit = Annotated[int, typer.Option(min=0, help="maximum number of rows to show")]
Ignore = Annotated[list[int], typer.Option(help="label value to ignore; may be repeated")]
ClassMapFile = Annotated[
    str | None,
    typer.Option(
        "--map", help="YAML or JSON file: label value -> class, or ignore; class -> class that it is merged into"
    ),
]
LabelSuffix = Annotated[str, typer.Option(help=LABEL_SUFFIX)]
LabelColors = Annotated[str | None, typer.Option(help=LABEL_COLORS)]
ReduceZero = Annotated[bool, typer.Option("--reduce-zero-label", help=REDUCE_ZERO)]
RunConfig = Annotated[str | None, typer.Option("--config", help="configuration of the run, for its storage_options")]


@app.command()
@with_spec_options
def run(
    fields: dict[str, Any],
    config: Annotated[
        str | None, typer.Option(help="YAML or JSON file of the same settings; flags override it")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="print the plan; nothing is written")] = False,
) -> None:
    """Segment a corpus: image shards in, Parquet masks and per-class statistics out. The same command resumes."""
    spec = JobSpec.create(**merge(read_config(config) if config is not None else {}, fields))
    _run(spec, dry_run)


def _run(spec: JobSpec, dry_run: bool = False) -> None:
    if dry_run:
        with reporting("reading inputs"):
            from segbatch.operations.explain import explain

            plan = explain(spec)
        show.print_text(console, plan)
        return
    structured = spec.log_format == "json"
    try:
        with reporting("loading Ray", spec.log_format) as reporter:
            from segbatch.operations.run import run as run_job

            outcome = run_job(spec, reporter=reporter)
    except SegbatchError as e:
        if structured:  # it is in the log
            raise typer.Exit(e.exit_code) from None
        raise
    if not structured:
        show.run_result(console, outcome)
        show.next_commands(console, outcome)
    raise typer.Exit(outcome.exit_code)


@app.command()
def nightly(
    config: Annotated[
        str, typer.Argument(help="YAML or JSON file of the datasets (docs/nightly.md)", show_default=False)
    ],
    date: Annotated[
        str | None, typer.Option(help="date to backfill, such as 2026-11-25, of datasets with {date} in their inputs")
    ] = None,
    dataset: Annotated[list[str] | None, typer.Option(help="process only this dataset; may be repeated")] = None,
    until: Annotated[
        str | None,
        typer.Option(help="deadline of this night, such as 06:00, or none; the configured hours are then ignored"),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="print what is new; nothing is written")] = False,
) -> None:
    """Process what is new in several datasets until a deadline, and compare the masks with those of earlier nights."""
    from segbatch.config.nightly import NightlySpec

    spec = NightlySpec.load(config)
    day = _date(date)
    if dry_run:
        with reporting("reading inputs"):
            from segbatch.operations.nightly.explain import explain

            plan = explain(spec, date=day, only=dataset or (), until=until)
        show.print_text(console, plan)
        return
    with reporting("loading Ray") as reporter:
        from segbatch.operations.nightly.night import run_night
        from segbatch.operations.nightly.summary import to_markdown

        night = run_night(spec, date=day, only=dataset or (), until=until, reporter=reporter)
    if night is not None:
        show.print_text(console, to_markdown(night))
        raise typer.Exit(night.exit_code)


def _date(given: str | None) -> datetime.date | None:
    try:
        return None if given is None else datetime.date.fromisoformat(given)
    except ValueError:
        raise SpecError(f"--date: {given!r} is not a date; write it as 2026-11-25") from None


@app.command()
def demo(
    output: Annotated[
        Path,
        typer.Option("--output", "-o", help="folder for the results; replaces those of an earlier demonstration"),
    ] = Path("demo-out"),
) -> None:
    """Segment four photographs from installed packages, without network access, and draw a contact sheet."""
    with reporting("loading Ray") as reporter:
        from segbatch.operations.demo import run_demo

        outcome, sheet = run_demo(output, reporter)
    show.run_result(console, outcome)
    show.print_text(console, f"look at {sheet}: photograph | network | after CRF")
    show.next_commands(console, outcome)
    raise typer.Exit(outcome.exit_code)


@app.command("tune-crf")
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
            class_map=_class_map(class_map),
            label_suffix=label_suffix,
            label_colors=label_colors,
            reduce_zero_label=reduce_zero_label,
            reporter=reporter,
        )
    show.tuning(console, found)
    write.write_text(found.to_yaml())
    show.print_text(console, f"next: segbatch run INPUT... --config {quoted(str(write))}")


@app.command()
def stats(
    output: Output,
    as_json: Annotated[bool, typer.Option("--json", help="print JSON instead of a table")] = False,
    config: RunConfig = None,
) -> None:
    """Print images, pixels, share and confidence of each class in an output."""
    from segbatch.output.dataset import MaskDataset

    show.stats(console, MaskDataset.open(output, storage_options=_storage_options(config)), as_json)


@app.command()
def errors(output: Output, limit: Limit = 20, config: RunConfig = None) -> None:
    """Print how many error rows of each type an output has, and the first of them."""
    from segbatch.output.dataset import MaskDataset

    dataset = MaskDataset.open(output, storage_options=_storage_options(config))
    show.errors(console, dataset.totals, list(dataset.errors(limit)))


@app.command()
def verify(
    output: Output,
    inputs: Annotated[
        list[str] | None, typer.Argument(help="inputs, if they were moved (default: those of the run)")
    ] = None,
    read_input: Annotated[
        bool, typer.Option("--read-input", help="also read the inputs, and compare every id")
    ] = False,
    repair: Annotated[
        bool, typer.Option("--repair", help="recompute what is damaged or missing, and nothing else")
    ] = False,
    config: RunConfig = None,
) -> None:
    """Check that an output has each input record exactly once, readable files, and the right statistics."""
    options = _storage_options(config)

    def checked() -> Verification:
        with reporting("reading the output"):
            from segbatch.operations.verify import verify as verify_output

            report = verify_output(output, inputs=inputs or None, storage_options=options, read_input=read_input)
        show.verification(console, report, output)
        return report

    report = checked()
    if repair and not report.ok:
        with reporting("loading Ray") as reporter:
            from segbatch.operations.repair import repair as repair_output
            from segbatch.operations.run import run as run_job

            again = partial(run_job, reporter=reporter)
            repair_output(output, report, again, inputs or None, options, reporter)
        report = checked()
    raise typer.Exit(0 if report.ok else 1)


@app.command()
def compact(
    output: Output,
    target_mb: Annotated[int, typer.Option(min=1, help="size of the merged files in megabytes")] = 128,
    config: RunConfig = None,
) -> None:
    """Merge small mask files of a finished run into few large ones. Safe to kill: the same command resumes."""
    options = _storage_options(config)
    with reporting("reading the output") as reporter:
        from segbatch.operations.compact import compact as compact_output

        compaction = compact_output(output, target_bytes=target_mb * 10**6, storage_options=options, reporter=reporter)
    show.compaction(console, compaction)


@app.command("eval")
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
            class_map=_class_map(class_map),
            label_suffix=label_suffix,
            label_colors=label_colors,
            reduce_zero_label=reduce_zero_label,
            resamples=resamples,
            seed=seed,
            address=address,
            storage_options=_storage_options(config),
            reporter=reporter,
        )
    show_eval.evaluation(console, found)
    if write_json is not None:
        write_json.write_text(json.dumps(found.to_json(), indent=1) + "\n")
    if plot is not None:
        show_eval.plot(found, plot)


@app.command()
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


@app.command()
def models(
    as_json: Annotated[bool, typer.Option("--json", help="print JSON instead of a table")] = False,
) -> None:
    """List what --model and --weights accept: classes, size, source of the weights, published accuracy."""
    from segbatch.models import names

    show.models(console, names(), as_json)


def _class_map(uri: str | None) -> dict[Any, Any] | None:
    refuse_blank(map=uri)
    return read_config(uri) if uri is not None else None


def _storage_options(config: str | None) -> dict[str, Any]:
    return (read_config(config).get("storage_options") if config is not None else None) or {}


def main() -> None:
    """Run the command line, so that a signal ends all that it has started."""
    prepare_streams()
    supervised(run_command)


def run_command() -> None:
    """Run the command of ``sys.argv`` in this process: an error of segbatch is one line, without a traceback."""
    try:
        app(standalone_mode=True)
    except SegbatchError as e:
        log.print(
            f"[bold red]error:[/bold red] {show.escape(escape_lines(str(e)))}",
            highlight=False,
            soft_wrap=True,
        )
        sys.exit(e.exit_code)
    except Exception:  # CLI main: a defect of segbatch, whose traceback may be pasted into a report
        sys.stderr.write(redact_text(traceback.format_exc()))
        sys.exit(1)
