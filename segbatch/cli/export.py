"""The command that exports: segbatch export."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from segbatch.cli import tables as show
from segbatch.cli.arguments import Address, AsJson, MovedInputs, Output, StorageOptions, read_storage_options
from segbatch.cli.progress import reporting
from segbatch.cli.terminal import console
from segbatch.config.base import read_config
from segbatch.errors import SpecError
from segbatch.text import counted, escape_control_characters

if TYPE_CHECKING:
    from segbatch.operations.export import ExportResult

# Those of segbatch.exports, which the help does not import.
FORMATS = (
    *("png", "coco-rle", "coco-panoptic", "huggingface", "webdataset"),
    *("label-studio", "cvat", "cvat-masks", "yolo-semantic", "yolo-seg", "fiftyone"),
)
_FORMATS = ", ".join(FORMATS)
_MAX_IDS_BYTES = 2**30


def export(
    output: Output,
    inputs: MovedInputs = None,
    to: Annotated[str, typer.Option("--to", metavar="FORMAT", help=f"format: {_FORMATS}")] = "",
    target: Annotated[
        str, typer.Option("--output", "-o", metavar="TARGET", help="folder or prefix for the export, empty or new")
    ] = "",
    classes: Annotated[
        list[str] | None,
        typer.Option(
            metavar="A,B",
            help="classes to keep; may be repeated; others become background, or ignored if there is none",
        ),
    ] = None,
    class_map: Annotated[
        list[str] | None,
        typer.Option(
            "--class-map",
            metavar="A=B|FILE",
            help="class and the class that it is merged into, which may be new, or ignore; may be repeated; or a YAML "
            "or JSON file of them",
        ),
    ] = None,
    min_area: Annotated[
        int,
        typer.Option(
            min=0,
            metavar="N",
            help="remove areas of fewer pixels: of a class in an image, with --instances of a connected component",
        ),
    ] = 0,
    void_below: Annotated[
        float,
        typer.Option(
            min=0,
            max=1,
            metavar="T",
            help="ignore all pixels of a class whose mean confidence in the image is lower; there is no confidence per "
            "pixel",
        ),
    ] = 0.0,
    images: Annotated[
        str | None, typer.Option(metavar="none|copy|link", help="photographs (default: as the format needs them)")
    ] = None,
    instances: Annotated[
        bool, typer.Option("--instances", help="one annotation per connected component, not per class (coco-rle)")
    ] = False,
    split: Annotated[str, typer.Option(metavar="NAME", help="name of the split, for formats that have splits")] = (
        "train"
    ),
    image_root: Annotated[
        str | None,
        typer.Option(
            "--image-root",
            metavar="URL",
            help="where Label Studio finds the images: https://..., s3://... or a local path that it serves (default: "
            "the target, served as local files)",
        ),
    ] = None,
    image_ids: Annotated[
        str | None,
        typer.Option("--image-ids", metavar="FILE", help="text file of the image ids to export, one per line"),
    ] = None,
    address: Address = None,
    as_json: AsJson = False,
    storage_options: StorageOptions = None,
) -> None:
    """Write the masks in the format of another tool.

    The same command resumes. Error rows are in no export, but in errors.jsonl beside it.
    """
    if not to or not target:
        raise SpecError(f"export: give --to FORMAT ({_FORMATS}) and --output TARGET")
    options = read_storage_options(storage_options, output)
    with reporting("reading the output") as reporter:
        from segbatch.operations.export import export as export_output

        result = export_output(
            output,
            to=to,
            target=target,
            classes=classes or (),
            class_map=_class_map(class_map or ()),
            min_area=min_area,
            void_below=void_below,
            images=images,  # type: ignore[arg-type]
            instances=instances,
            split=split,
            image_root=image_root,
            image_ids=None if image_ids is None else _image_ids(image_ids, options),
            inputs=inputs or None,
            address=address,
            storage_options=options,
            reporter=reporter,
        )
    if as_json:
        console.print_json(data=result.to_json(), ensure_ascii=True)
    else:
        print_export(result)


def _class_map(given: list[str] | tuple[str, ...]) -> dict[str, str]:
    merged: dict[str, Any] = {}
    for text in given:
        name, equals, target = text.partition("=")
        merged |= {name: target} if equals else read_config(text)
    return {str(name): str(target) for name, target in merged.items()}


def _image_ids(uri: str, storage_options: dict[str, Any]) -> list[str]:
    from segbatch.storage.files import Files

    lines = Files(storage_options).read(uri, _MAX_IDS_BYTES).decode("utf-8", "surrogateescape").split("\n")
    ids = [line.removesuffix("\r") for line in lines if line.strip()]
    if not ids:
        raise SpecError(f"--image-ids {uri}: names no image; give one image id per line")
    return ids


def print_export(result: ExportResult) -> None:
    """Print what an export holds, what it leaves out, and how it is loaded."""
    counts = result.counts
    lines = ["the run is not finished: this is what is committed so far"] if result.is_partial else []
    rejected = [counted(counts.errors, "error row")] if counts.errors else []
    rejected += [f"{counted(counts.left_out, 'image')} without a photograph"] if counts.left_out else []
    if rejected:
        lines.append(f"not exported, and listed in errors.jsonl: {' and '.join(rejected)}")
    if counts.missing:
        lines.append(f"{counted(counts.missing, 'photograph')} not available: {counts.problem}")
    if counts.turned:
        lines.append(f"{counted(counts.turned, 'photograph')} encoded again: upright, without the EXIF orientation")
    if counts.voided:
        lines.append(f"{counts.voided:,} times, a class was ignored in an image because of its confidence")
    if counts.small:
        lines.append(f"{counted(counts.small, 'small area')} removed")
    lines.append(f"{counted(counts.images, 'image')}, {counted(len(result.classes), 'class')}: {result.target}")
    lines.append(f"load with: {result.usage}")
    for line in lines:
        show.print_text(console, escape_control_characters(line))
