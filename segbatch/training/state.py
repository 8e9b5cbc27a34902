"""Checkpoints: all that a killed training needs to go on as if it had not been killed."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import safetensors.torch
import torch
from torch import Tensor

from segbatch.config.training import TrainSpec
from segbatch.errors import OutputError, PlanError
from segbatch.labels import LabelSet
from segbatch.storage.store import Store

CHECKPOINT, WEIGHTS, HISTORY, CURVES, RECORD, CLASSES = (
    *("checkpoint.pt", "weights.safetensors", "history.jsonl", "curves.png", "train.json", "classes.txt"),
)


_NAMES = (CHECKPOINT, WEIGHTS, HISTORY, CURVES, RECORD, CLASSES)


# Fields of checkpoints as earlier versions called them.
_RENAMED = {"optimiser": "optimizer"}


@dataclass
class State:
    """Where a training stands after ``update`` updates.

    There is no state of random generators: what is drawn follows from the seed and the number of the image or update.
    ``best`` is the highest validation mean IoU so far, ``loss`` the sum and number of losses since the last line of
    ``history``, which has one for each validation.
    """

    update: int
    network: dict[str, Tensor]
    optimizer: dict[str, Any]
    average: dict[str, Tensor] | None
    class_weights: list[float] | None
    best: float | None
    loss: tuple[float, int] = (0.0, 0)
    history: list[dict[str, Any]] = field(default_factory=list)


def save(store: Store, spec: TrainSpec, state: State) -> None:
    """Write the checkpoint and the history, each whole or not at all. Raises ``OutputError``."""
    out = io.BytesIO()
    torch.save({"spec": spec.decisive(), "state": vars(state)}, out)
    store.write(CHECKPOINT, out.getvalue())
    write_history(store, state)


def write_history(store: Store, state: State) -> None:
    store.write(HISTORY, "".join(json.dumps(line) + "\n" for line in state.history).encode())


def load(store: Store, spec: TrainSpec) -> State | None:
    """The state that was saved last, on the CPU; None if there is none.

    Raises ``PlanError`` if it is that of another training, ``OutputError`` if it cannot be read.
    """
    try:
        data = store.read(CHECKPOINT)
    except FileNotFoundError:
        return None
    try:
        loaded = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
        fields = {_RENAMED.get(name, name): value for name, value in loaded["state"].items()}
        before, state = loaded["spec"], State(**fields)
    except Exception as e:  # torch names no exceptions for damaged files
        raise OutputError(
            f"output {store.uri}: {CHECKPOINT} cannot be read ({str(e).splitlines()[0]}); "
            "remove it, or give --overwrite"
        ) from e
    now = spec.decisive()
    differ = [
        f"{k}: {before.get(k)} then, {now.get(k)} now" for k in sorted({*before, *now}) if before.get(k) != now.get(k)
    ]
    if differ:
        raise PlanError(
            f"output {store.uri}: holds another training ({'; '.join(differ)}); give another --output, or --overwrite"
        )
    return state


def clear(store: Store) -> None:
    """Remove what a training left in the output, which ``refuse_foreign`` has let pass."""
    store.remove_all(_NAMES)


def refuse_foreign(store: Store) -> None:
    """Raise ``PlanError`` if files that no training of segbatch wrote have the names that this one would write."""
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
    except Exception:  # torch names no exceptions for files of another kind
        return False


def export(state: Mapping[str, Tensor], half: bool, about: Mapping[str, Any]) -> bytes:
    """A ``.safetensors`` file for ``--weights`` of ``segbatch run``; ``half`` rounds floats to float16."""
    # Under one key: safetensors writes several in an order of its own, and equal weights shall be equal files.
    notes = {"segbatch": json.dumps(about)}
    tensors = {k: v.half() if half and v.is_floating_point() else v for k, v in state.items()}
    return safetensors.torch.save({k: v.detach().cpu().contiguous() for k, v in tensors.items()}, notes)


def classes_file(labels: LabelSet) -> bytes:
    """The classes as ``--classes`` takes them, with their colors."""
    items = [{"name": n, "color": list(c)} for n, c in zip(labels.names, labels.colors, strict=True)]
    return (json.dumps(items, indent=1) + "\n").encode()
