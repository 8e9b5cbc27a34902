"""Export as a dataset of Hugging Face: Parquet files with images, masks and the names of the classes."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from segbatch.exports.format import ExportContext, ExportedImage, ExportFolder, Images, PartFolder
from segbatch.exports.shards import shards

_MAX_SHARD_BYTES = 500 * 10**6
# The viewer of the Hub reads one row group for a page of 100 rows.
_GROUP_ROWS = 100
_IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


class HuggingFaceFormat:
    """``data/SPLIT-PART-SHARD.parquet`` with an ``image`` and a ``mask`` column, ``id2label.json`` and a card."""

    name = "huggingface"
    max_classes = 32_767
    default_images: Images = "copy"
    needs_images = False
    image_folder: str | None = None
    reserved_folders: frozenset[str] = frozenset()
    has_instances = False
    has_image_urls = False

    def check(self, context: ExportContext) -> None:
        """See ``Format.check``."""

    def write_part(self, images: Iterator[ExportedImage], part: PartFolder, context: ExportContext) -> None:
        """See ``Format.write_part``."""
        schema = _schema(context)
        for shard, samples in shards(images, _MAX_SHARD_BYTES):
            path = f"data/{context.split}-{part.name}-{shard:04d}.parquet"
            with part.open(path) as f, pq.ParquetWriter(f, schema) as writer:
                while rows := [_row(image, mask, schema) for image, mask in itertools.islice(samples, _GROUP_ROWS)]:
                    writer.write_table(pa.Table.from_pylist(rows, schema))

    def finish(self, folder: ExportFolder, context: ExportContext) -> None:
        """See ``Format.finish``."""
        folder.write("id2label.json", json.dumps(dict(enumerate(context.labels.names)), indent=1).encode())
        folder.write("README.md", _card(context).encode())

    def usage(self, context: ExportContext) -> str:
        """See ``Format.usage``."""
        return f'datasets.load_dataset("{context.target}", split="{context.split}")'


def _schema(context: ExportContext) -> pa.Schema:
    """Return the columns, with the features of Hugging Face in the metadata, where ``datasets`` reads them."""
    label = {"_type": "ClassLabel", "names": list(context.labels.names)}
    columns: dict[str, tuple[pa.DataType, dict[str, Any]]] = {
        "image_id": (pa.string(), {"dtype": "string", "_type": "Value"}),
        "image": (_IMAGE, {"_type": "Image"}),
        "mask": (_IMAGE, {"_type": "Image"}),
        "classes": (pa.list_(pa.int64()), {"feature": label, "_type": "Sequence"}),
        "confidence": (pa.float32(), {"dtype": "float32", "_type": "Value"}),
    }
    if context.images == "none":
        del columns["image"]
    features = {name: feature for name, (_, feature) in columns.items()}
    schema = pa.schema([(name, kind) for name, (kind, _) in columns.items()])
    return schema.with_metadata({"huggingface": json.dumps({"info": {"features": features}})})


def _row(image: ExportedImage, mask: bytes, schema: pa.Schema) -> dict[str, Any]:
    row = {
        "image_id": image.image_id,
        "image": None if image.image is None else {"bytes": image.image, "path": image.image_file},
        "mask": {"bytes": mask, "path": f"{image.name}.png"},
        "classes": sorted(count.class_id for count in image.classes),
        "confidence": image.confidence,
    }
    return {name: row[name] for name in schema.names}


def _card(context: ExportContext) -> str:
    return (
        "---\nconfigs:\n- config_name: default\n  data_files:\n"
        f"  - split: {context.split}\n    path: data/{context.split}-*.parquet\n---\n"
        f"{context.total:,} masks, exported by segbatch. The pixels of `mask` are ids of the classes in "
        f"`id2label.json`; {context.void} is ignored.\n"
    )
