"""State dicts out of files, without running any code in them, and into networks, whole or not at all."""

from __future__ import annotations

import io
import pickle
import struct
import zipfile
from collections.abc import Callable, Mapping
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from segbatch.errors import ModelError
from segbatch.models import caffe
from segbatch.models.weights import HDF5
from segbatch.text import without_query

StateDict = dict[str, Tensor]
_WRAPPERS = ("state_dict", "model_state_dict", "model")
_SHOWN = 10
_CONVERSION = (
    'Convert them once, where h5py is installed: python -c "import h5py, torch, safetensors.torch as s; '
    "d = h5py.File('FILE.h5')['data']; s.save_file({f'{l}/{i}': torch.tensor(d[l][i][()]) for l in d for i in d[l]}, "
    "'FILE.safetensors')\" (Caffe's .caffemodel.h5; from other HDF5 files, save the tensors under this network's names)"
)


def parse(data: bytes, source: str) -> StateDict:
    """The state dict in a ``.pth``, ``.pt``, ``.safetensors`` or ``.caffemodel`` file, on the CPU.

    Unwraps ``{"state_dict": …}``, ``{"model_state_dict": …}`` and ``{"model": …}``, and takes off the
    ``module.`` that DataParallel puts before every key. Nothing in the file is executed: ``ModelError`` for a
    file that would need it, is damaged, or holds no tensors by name. Caffe's blobs are called ``LAYER/INDEX``.
    """
    path = without_query(source)
    suffix = path[path.rfind(".") :].lower()
    if suffix in HDF5:
        raise ModelError(f"weights {source!r} are HDF5, which is not read here. {_CONVERSION}")
    if suffix not in READERS:
        raise ModelError(f"weights {source!r}: unknown kind of file; give one of {' '.join(READERS)}")
    loaded = READERS[suffix](data, source)
    for wrapper in _WRAPPERS:
        if isinstance(loaded, Mapping) and isinstance(loaded.get(wrapper), Mapping):
            loaded = loaded[wrapper]
            break
    if not isinstance(loaded, Mapping) or not loaded:
        raise ModelError(f"weights {source!r} hold {type(loaded).__name__}, no state dict (a map of tensors by name)")
    strangers = [str(key) for key, value in loaded.items() if not isinstance(value, Tensor)]
    if strangers:
        raise ModelError(
            f"weights {source!r}: not tensors: {_some(strangers)}; save network.state_dict(), alone or under "
            f"one of the keys {', '.join(_WRAPPERS)}"
        )
    wrapped = all(key.startswith("module.") for key in loaded)
    return {key.removeprefix("module.") if wrapped else key: value for key, value in loaded.items()}


def _read_pickle(data: bytes, source: str) -> Any:
    _check_archive(data, source)
    try:
        return torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as e:
        raise ModelError(
            f"weights {source!r} are refused: the file is damaged, or holds code that loading would run. "
            "Save the state dict alone: torch.save(network.state_dict(), path)"
        ) from e
    # torch names no exceptions for damaged files: each layer raises its own.
    except (RuntimeError, EOFError, ValueError, KeyError, OSError, AttributeError, IndexError) as e:
        raise ModelError(f"weights {source!r} cannot be read: {e}; the file may be cut short") from e


def _check_archive(data: bytes, source: str) -> None:
    """Refuse a ZIP whose contents are larger than the file: torch.save compresses nothing, a bomb does."""
    if not data.startswith(b"PK"):
        return
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            total = sum(member.file_size for member in archive.infolist())
    except (zipfile.BadZipFile, ValueError, NotImplementedError, struct.error) as e:
        raise ModelError(f"weights {source!r} cannot be read: {e}; the file may be cut short") from e
    if total > len(data):
        raise ModelError(
            f"weights {source!r} are refused: {len(data):,} bytes that unpack to {total:,}, which torch.save does not "
            "write; save them anew with torch.save(network.state_dict(), path)"
        )


def _read_safetensors(data: bytes, source: str) -> Any:
    try:
        return safetensors.torch.load(data)
    except SafetensorError as e:
        raise ModelError(f"weights {source!r} cannot be read: {e}; the file may be cut short") from e


READERS: dict[str, Callable[[bytes, str], Any]] = {
    ".pth": _read_pickle,
    ".pt": _read_pickle,
    ".safetensors": _read_safetensors,
    ".caffemodel": caffe.read,
}


def check(state: Mapping[str, Tensor], network: nn.Module, source: str, model: str) -> None:
    """Nothing, if the state dict fits the network; else one ``ModelError`` with all that does not fit."""
    check_keys(state, network.state_dict(), source, model)


def check_keys(state: Mapping[str, Tensor], wanted: Mapping[str, Tensor], source: str, model: str) -> None:
    """The same for the tensors that are ``wanted``, which may be those of a part of a network."""
    faults = {
        "missing": [key for key in wanted if key not in state and not key.endswith("num_batches_tracked")],
        "unexpected": [key for key in state if key not in wanted],
        "of another shape": [
            f"{key} {tuple(value.shape)} for {tuple(wanted[key].shape)}"
            for key, value in state.items()
            if key in wanted and value.shape != wanted[key].shape
        ],
    }
    said = [f"{len(keys)} {fault}: {_some(keys)}" for fault, keys in faults.items() if keys]
    if said:
        raise ModelError(
            f"weights {source!r} do not fit {model}. {'. '.join(said)}. Check that they were trained for this --model"
        )


def check_finite(state: Mapping[str, Tensor], source: str) -> None:
    """Nothing, if all numbers are finite; else one ``ModelError`` that names the tensors where they are not."""
    wrong = [key for key, value in state.items() if not value.isfinite().all()]
    if wrong:
        raise ModelError(
            f"weights {source!r} hold NaN or infinity in {_some(wrong)}; they are damaged, or of a training that "
            "diverged: give an earlier checkpoint"
        )


def _some(keys: list[str]) -> str:
    more = f", … ({len(keys) - _SHOWN} more)" if len(keys) > _SHOWN else ""
    return ", ".join(keys[:_SHOWN]) + more
