"""State dicts out of files, without running any code in them, and into networks, whole or not at all."""

from __future__ import annotations

import io
import pickle
import re
import struct
import zipfile
from collections.abc import Mapping
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from segbatch.errors import ModelError
from segbatch.models.unwrap import StateDict, guess, some, take
from segbatch.models.weights import HDF5, SUFFIXES, read_uri
from segbatch.models.zoo import caffe
from segbatch.text import without_query

# Data beside the weights in checkpoints as people have them, of which no code is needed: arguments of a training, best
# scores, paths.
_INERT = (
    "argparse.Namespace",
    "types.SimpleNamespace",
    *(f"pathlib.{name}" for name in ("Path", "PosixPath", "WindowsPath", "PurePosixPath", "PureWindowsPath")),
    *("datetime.datetime", "datetime.date", "datetime.timedelta"),
    *(f"numpy.{core}.multiarray.{name}" for core in ("core", "_core") for name in ("scalar", "_reconstruct")),
    *("numpy.dtype", "numpy.ndarray"),
    *(f"numpy.dtypes.{name}DType" for name in ("Float16", "Float32", "Float64", "Int32", "Int64", "Bool", "UInt8")),
)
_RESAVE = (
    "python -c \"import torch, safetensors.torch as s; d = torch.load('FILE', 'cpu', weights_only=False); "
    "d = d if isinstance(d, dict) else {'model': d}; d = d.get('state_dict', d.get('model', d)); "
    "d = d if isinstance(d, dict) else d.state_dict(); "
    "s.save_file({k: v.clone() for k, v in d.items() if hasattr(v, 'clone')}, 'FILE.safetensors')\""
)
_CONVERSION = (
    'Convert them once, where h5py is installed: python -c "import h5py, torch, safetensors.torch as s; '
    "d = h5py.File('FILE.h5')['data']; s.save_file({f'{l}/{i}': torch.tensor(d[l][i][()]) for l in d for i in d[l]}, "
    "'FILE.safetensors')\" (Caffe's .caffemodel.h5; from other HDF5 files, save the tensors under this network's names)"
)


def parse(data: bytes, source: str) -> StateDict:
    """The state dict in a file of weights, on the CPU, where no network says which is meant: see ``unwrap.guess``.

    Raises ``ModelError`` as ``load`` does. Caffe's blobs are called ``LAYER/INDEX``.
    """
    return guess(load(data, source))


def load(data: bytes, source: str) -> Mapping[Any, Any]:
    """What a file of weights holds: tensors by name, or tables of them, on the CPU.

    Nothing in the file is executed: objects of ``_INERT`` become placeholders, and any other is a ``ModelError``, as
    are files that are damaged, or hold no tensors by name.
    """
    path = without_query(source)
    suffix = path[path.rfind(".") :].lower()
    if suffix in HDF5:
        raise ModelError(f"weights {source!r} are HDF5, which is not read here. {_CONVERSION}")
    if suffix not in SUFFIXES:
        raise ModelError(f"weights {source!r}: unknown kind of file; give one of {' '.join(SUFFIXES)}")
    if suffix == ".caffemodel":
        return caffe.read(data, source)
    is_pickle = data.startswith((b"PK", b"\x80"))
    if _is_safetensors(data) or (suffix == ".safetensors" and not is_pickle):
        return _read_safetensors(data, source)
    loaded = _read_pickle(data, source)
    if not isinstance(loaded, Mapping) or not guess(loaded):
        raise ModelError(
            f"weights {source!r} hold {type(loaded).__name__}, no state dict (a map of tensors by name); save "
            "network.state_dict() alone"
        )
    return loaded


def load_into(network: nn.Module, uri: str, storage_options: Mapping[str, Any] | None = None) -> str:
    """Put the weights in a file into a network of your own, under whatever prefix its keys are there.

    Returns a sentence on what was taken, empty for a plain state dict. Raises ``ModelError`` for a file that cannot be
    read, has NaN or infinity, or does not fit; the network is unchanged then.
    """
    own = network.state_dict()
    taken = take(load(read_uri(uri, "weights", storage_options), uri), uri, lambda state: own)
    check_keys(taken.state, own, uri, type(network).__name__)
    check_finite(taken.state, uri)
    network.load_state_dict(taken.state, strict=False)
    return taken.note


class _Inert:
    """Stands for an object beside the weights that is nothing but data. Does nothing and keeps nothing."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        pass

    def __setstate__(self, state: Any) -> None:
        pass


def _read_pickle(data: bytes, source: str) -> Any:
    _check_archive(data, source)
    try:
        with torch.serialization.safe_globals([(_Inert, name) for name in _INERT]):
            return torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as e:
        if not (names := _unsafe_names(data, e)):
            raise ModelError(f"weights {source!r} cannot be read: the file is damaged, or no checkpoint") from e
        raise ModelError(
            f"weights {source!r} are refused: the file holds code that loading would run: {some(names)}. Where it was "
            f"made, or where you trust it, save its tensors alone: {_RESAVE}"
        ) from e
    # torch names no exceptions for damaged files: each layer raises its own.
    except (RuntimeError, EOFError, ValueError, KeyError, OSError, AttributeError, IndexError, TypeError) as e:
        raise ModelError(f"weights {source!r} cannot be read: {e}; the file may be cut short") from e


def _unsafe_names(data: bytes, error: pickle.UnpicklingError) -> list[str]:
    """The objects that a checkpoint names beside tensors; nothing of it is run."""
    try:
        names = torch.serialization.get_unsafe_globals_in_checkpoint(io.BytesIO(data))
    except Exception:  # of a damaged file, or one of the old format without a ZIP: torch names the first
        names = re.findall(r"GLOBAL ([\w.]+)", str(error))
    return sorted(set(names) - set(_INERT))


def _is_safetensors(data: bytes) -> bool:
    return 8 < len(data) >= 8 + int.from_bytes(data[:8], "little") and data[8:9] == b"{"


def _check_archive(data: bytes, source: str) -> None:
    """Refuse a ZIP whose contents are larger than the file: torch.save compresses nothing, a bomb does."""
    if not data.startswith(b"PK"):
        return
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            members = archive.infolist()
            total = sum(member.file_size for member in members)
    except (zipfile.BadZipFile, ValueError, NotImplementedError, struct.error) as e:
        raise ModelError(f"weights {source!r} cannot be read: {e}; the file may be cut short") from e
    if any(member.filename.endswith("/constants.pkl") for member in members):
        raise ModelError(
            f"weights {source!r} are a TorchScript program, which is not run here; save its tensors alone: "
            "torch.save(torch.jit.load('FILE').state_dict(), 'FILE.pth')"
        )
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
    said = [f"{len(keys)} {fault}: {some(keys)}" for fault, keys in faults.items() if keys]
    if said:
        raise ModelError(
            f"weights {source!r} do not fit {model}. {'. '.join(said)}. {_classes_differ(state, wanted)}Check that "
            "they were trained for this --model"
        )


def _classes_differ(state: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> str:
    """Said if all that is wrong is the first dimension of the last layer: its number of classes."""
    shapes = [(state[key].shape, value.shape) for key, value in wanted.items() if key in state]
    pairs = {(a[:1], b[:1]) if a[1:] == b[1:] else ((), ()) for a, b in shapes if a != b}
    has, built_for = next(iter(pairs)) if len(pairs) == 1 else ((), ())
    return (
        f"The final layer has {has[0]} classes, the network is built for {built_for[0]}. " if has and built_for else ""
    )


def check_finite(state: Mapping[str, Tensor], source: str) -> None:
    """Nothing, if all numbers are finite; else one ``ModelError`` that names the tensors where they are not."""
    wrong = [key for key, value in state.items() if not value.float().isfinite().all()]
    if wrong:
        raise ModelError(
            f"weights {source!r} hold NaN or infinity in {some(wrong)}; they are damaged, or of a training that "
            "diverged: give an earlier checkpoint"
        )
