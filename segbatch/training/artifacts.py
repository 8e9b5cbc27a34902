"""The files that a training writes into its output."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import safetensors.torch
import torch
from torch import Tensor

from segbatch.errors import OutputError, PlanError
from segbatch.labels import LabelSet
from segbatch.storage.store import Store

CHECKPOINT, WEIGHTS, HISTORY = "checkpoint.pt", "weights.safetensors", "history.jsonl"
CURVES, RECORD, CLASSES = "curves.png", "train.json", "classes.txt"
_NAMES = (CHECKPOINT, WEIGHTS, HISTORY, CURVES, RECORD, CLASSES)


def clear(store: Store) -> None:
    """Delete the files of a training; call ``refuse_foreign`` first."""
    store.remove_all(_NAMES)


def refuse_foreign(store: Store) -> None:
    """Raise ``PlanError`` if the output holds files of these names that no training of segbatch wrote."""
    existing = [name for name in _NAMES if store.exists(name)]
    if existing and not any(_is_ours(store, name) for name in (RECORD, WEIGHTS, CHECKPOINT) if name in existing):
        raise PlanError(
            f"output {store.uri}: {', '.join(existing)} would be replaced, and no training of segbatch wrote "
            f"{'it' if len(existing) == 1 else 'them'}; choose another --output"
        )


def _is_ours(store: Store, name: str) -> bool:
    try:
        with store.open(name) as f:
            if name == RECORD:
                return {"spec", "kept"} <= json.loads(f.read()).keys()
            if name == WEIGHTS:
                header = json.loads(f.read(int.from_bytes(f.read(8), "little")))
                return "segbatch" in header.get("__metadata__", {})
            return {"spec", "state"} <= torch.load(f, map_location="cpu", weights_only=True).keys()
    except OutputError:
        raise
    except Exception:  # storage boundary: torch and json raise what they like for files of another kind
        return False


def weights_file(state: Mapping[str, Tensor], half: bool, metadata: Mapping[str, Any]) -> bytes:
    """Return a ``.safetensors`` file for ``segbatch run --weights``.

    Args:
        half: Round floats to float16.
        metadata: JSON data, stored in the header.
    """
    # Under one key: safetensors writes several in no fixed order, and equal weights should be equal files.
    notes = {"segbatch": json.dumps(metadata)}
    tensors = {k: v.half() if half and v.is_floating_point() else v for k, v in state.items()}
    return safetensors.torch.save({k: v.detach().cpu().contiguous() for k, v in tensors.items()}, notes)


def classes_file(labels: LabelSet) -> bytes:
    """Return the names and colors of the classes as a file for ``--classes``."""
    items = [{"name": n, "color": list(c)} for n, c in zip(labels.names, labels.colors, strict=True)]
    return (json.dumps(items, indent=1) + "\n").encode()
