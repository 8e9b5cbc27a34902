"""Print results: tables and closing lines."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from segbatch.cli.terminal import quoted
from segbatch.labels import LabelSet
from segbatch.output.totals import Totals
from segbatch.skipped import Skipped
from segbatch.text import byte_size, counted, escape_control_characters, escape_lines, redact_text

if TYPE_CHECKING:
    from segbatch.evaluation.crf_search import Tuning
    from segbatch.operations.finish import RunResult
    from segbatch.operations.verify import Verification
    from segbatch.output.compaction import Compaction
    from segbatch.results.dataset import MaskDataset, MaskRow
    from segbatch.training.result import TrainingResult

_MAX_CLASSES = 40


def run_result(console: Console, result: RunResult) -> None:
    """Print the table of classes, the most frequent errors, and the totals of a run."""
    console.print(class_table(result.totals, result.labels))
    if result.totals.failed:
        console.print(error_table(result.totals))
    masks = counted(result.totals.records - result.totals.failed, "mask")
    before = result.chunks - result.computed
    resumed = f" ({before} of {counted(result.chunks, 'chunk')} committed before)" if before else ""
    failed = counted(result.totals.failed, "error")
    print_text(console, f"{masks}, {failed} in {result.seconds:.1f} s{resumed}: {result.output}")
    _skipped(console, result.skipped)
    if result.retired:
        print_text(console, f"{result.retired} chunks of inputs that changed or are gone were archived")
    for message in result.failed_shards:
        print_text(console, f"a shard failed: {escape_control_characters(message)}")
    if unnamed := result.totals.failed_shards - len(result.failed_shards):
        print_text(console, f"and {counted(unnamed, 'more shard')} failed")
    if result.error_fraction > result.max_error_fraction:
        print_text(
            console,
            f"{result.error_fraction:.2%} of the records are errors, more than max_error_fraction "
            f"{result.max_error_fraction:.2%}",
        )


def next_commands(console: Console, result: RunResult, has_report: bool = False) -> None:
    """Print the commands that a user runs next."""
    output = quoted(result.output)
    commands = [f"segbatch errors {output}"] if result.totals.failed else []
    commands += (
        [f"segbatch export {output} --to coco-rle --output coco"] if has_report else [f"segbatch report {output}"]
    )
    print_text(console, f"next: {'; '.join(commands)}")


def class_table(totals: Totals, labels: LabelSet, confidence: str = "confidence") -> Table:
    """Build the table of classes that occur, most pixels first. ``confidence`` is the title of its last column."""
    from segbatch.output.stats import class_rows

    table = Table(box=None, header_style="bold", pad_edge=False)
    for name in ("class", "images", "pixels", "share", confidence):
        table.add_column(name, justify="left" if name == "class" else "right")
    rows = sorted((r for r in class_rows(totals, labels) if r.images), key=lambda r: -r.pixels)
    for r in rows[:_MAX_CLASSES]:
        r_, g, b = labels.colors[r.class_id]
        swatch = f"[rgb({r_},{g},{b})]■[/] {escape(escape_control_characters(r.name))}"
        table.add_row(swatch, f"{r.images:,}", f"{r.pixels:,}", f"{r.share:.2%}", f"{r.confidence or 0:.3f}")
    if len(rows) > _MAX_CLASSES:
        table.add_row(f"and {len(rows) - _MAX_CLASSES} more", "", "", "", "")
    absent = len(labels) - len(rows)
    if absent:
        table.add_row(f"[dim]{absent} {'class' if absent == 1 else 'classes'} in no image[/]", "", "", "", "")
    return table


def error_table(totals: Totals, max_rows: int = 10) -> Table:
    """Build the table of the most frequent types of errors."""
    table = Table(box=None, header_style="bold red", pad_edge=False)
    table.add_column("error")
    table.add_column("records", justify="right")
    for kind, n in sorted(totals.errors.items(), key=lambda item: (-item[1], item[0]))[:max_rows]:
        table.add_row(escape(escape_control_characters(kind)), f"{n:,}")
    if len(totals.errors) > max_rows:
        table.add_row(f"and {len(totals.errors) - max_rows} more types", "")
    return table


def stats(console: Console, found: MaskDataset, as_json: bool) -> None:
    if as_json:
        from segbatch.output.stats import class_rows

        rows = class_rows(found.totals, found.record.labels)
        renamed = {"confidence": found.record.confidence_name}
        plain = {
            "done": found.is_complete,
            "records": found.totals.records,
            "errors": found.totals.errors,
            "skipped": found.skipped.to_json(),
            "classes": [{renamed.get(k, k): v for k, v in vars(r).items()} for r in rows],
        }
        console.print_json(json.dumps(plain), ensure_ascii=True)
        return
    console.print(class_table(found.totals, found.record.labels, found.record.confidence_name))
    state = "" if found.is_complete else "; the run is not finished: these are the committed chunks"
    masks, failed = found.totals.records - found.totals.failed, found.totals.failed
    print_text(console, f"{counted(masks, 'mask')}, {counted(failed, 'error')}{state}")
    _skipped(console, found.skipped)


def errors(console: Console, totals: Totals, rows: Sequence[MaskRow], as_json: bool) -> None:
    """Print the number of error rows of each type, and the first rows."""
    if as_json:
        shown = [{"image_id": row.image_id, "source": row.source, **vars(row.error)} for row in rows if row.error]
        console.print_json(data={"records": totals.records, "errors": totals.errors, "rows": shown}, ensure_ascii=True)
        return
    if not totals.failed:
        print_text(console, f"no errors among {totals.records:,} records")
        return
    console.print(error_table(totals, max_rows=50))
    for row in rows:
        if error := row.error:
            print_text(
                console, escape_control_characters(f"{row.image_id}  {error.stage}/{error.type}: {error.message}")
            )
    if len(rows) < totals.failed:
        print_text(console, f"({len(rows)} of {totals.failed:,} shown; --limit shows more)")


def training(console: Console, result: TrainingResult) -> None:
    """Print the IoU of each class where there was a validation, and the location of the weights."""
    if result.class_iou is not None and result.mean_iou is not None and result.pixel_accuracy is not None:
        table = Table(box=None, header_style="bold", pad_edge=False)
        table.add_column("class")
        table.add_column("IoU, %", justify="right")
        for name, value in zip(result.labels.names, result.class_iou, strict=True):
            table.add_row(escape(escape_control_characters(name)), "" if value != value else f"{100 * value:.1f}")
        console.print(table)
        print_text(
            console,
            f"mean IoU {100 * result.mean_iou:.2f}, pixel accuracy {100 * result.pixel_accuracy:.2f} on the validation "
            f"images, which chose these weights (epoch {result.epoch:g})",
        )
    print_text(console, f"{result.updates} updates in {result.seconds:.0f} s")
    print_text(
        console, f"segbatch run INPUT... --model {result.model} --weights {result.weights} --classes {result.classes}"
    )


def tuning(console: Console, found: Tuning) -> None:
    """Print the network alone, the best settings, and the conclusion."""
    from segbatch.evaluation.crf_search import COARSE

    table = Table(box=None, header_style="bold", pad_edge=False)
    for name in (*COARSE, "mean IoU", "pixel accuracy"):
        table.add_column(name, justify="right")
    for row in found.rows():
        table.add_row(*row)
    console.print(table)
    if found.failed:
        print_text(console, f"{found.failed} images gave no scores and were left out")
    print_text(console, found.summary())


def verification(console: Console, report: Verification) -> None:
    for problem in report.problems:
        print_text(console, f"problem: {escape_control_characters(problem)}")
    if report.more:
        print_text(console, f"and {report.more} more problems")
    print_text(
        console,
        f"{counted(report.records, 'row')} in {counted(report.files, 'file')} read; "
        f"{counted(report.masks, 'mask')} decoded, {counted(report.errors, 'error')}; {report.against}",
    )
    _skipped(console, report.skipped)
    print_text(
        console,
        "verified: every record exactly once, statistics equal to the recomputed ones" if report.ok else "NOT verified",
    )


def compaction(console: Console, done: Compaction) -> None:
    if not done.written and done.files_before == done.files_after:
        print_text(console, f"nothing to merge: {done.files_before:,} files, {byte_size(done.bytes_before)}")
        return
    print_text(
        console,
        f"{done.files_before:,} files, {byte_size(done.bytes_before)}, are now {done.files_after:,}, "
        f"{byte_size(done.bytes_after)}; the rows are unchanged",
    )


def _skipped(console: Console, skipped: Skipped) -> None:
    """Print what the inputs hold besides records, one line per reason."""
    for line in skipped.lines():
        print_text(console, f"skipped: {escape_control_characters(line)}")


def print_text(console: Console, text: str) -> None:
    """Print lines that may contain untrusted text, without credentials; long ones are not broken."""
    console.print(escape_lines(redact_text(text)), highlight=False, soft_wrap=True, markup=False)


__all__ = [
    "class_table",
    "compaction",
    "error_table",
    "errors",
    "escape",
    "next_commands",
    "print_text",
    "run_result",
    "stats",
    "tuning",
    "verification",
]
