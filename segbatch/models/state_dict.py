"""Read state dicts from files without executing code, and check that they fit a network."""

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

# Classes of plain data that checkpoints hold beside the weights, such as arguments, best scores and paths.
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
    """Return the most likely state dict of a file of weights, on the CPU, without a network to compare with.

    Blobs of Caffe are named ``LAYER/INDEX``.

    Raises:
        ModelError: As ``load``.
    """
    return guess(load(data, source))


def load(data: bytes, source: str) -> Mapping[Any, Any]:
    """Load a file of weights: a mapping of tensors by name, or of such mappings, on the CPU.

    Nothing in the file is executed: objects of the classes in ``_INERT`` become placeholders.

    Args:
        data: The content of the file.
        source: Its path or URI; the suffix selects the format.

    Raises:
        ModelError: The file is damaged, holds other objects or no tensors by name, or its format is not supported.
    """
    path = without_query(source)
    suffix = path[path.rfind(".") :].lower()
    if suffix in HDF5:
        raise ModelError(f"weights {source!r} are HDF5, which is not supported. {_CONVERSION}")
    if suffix not in SUFFIXES:
        raise ModelError(f"weights {source!r}: unknown file format; give one of {' '.join(SUFFIXES)}")
    if suffix == ".caffemodel":
        return caffe.read(data, source)
    is_pickle = data.startswith((b"PK", b"\x80"))
    if _is_safetensors(data) or (suffix == ".safetensors" and not is_pickle):
        return _read_safetensors(data, source)
    loaded = _read_pickle(data, source)
    if not isinstance(loaded, Mapping) or not guess(loaded):
        raise ModelError(
            f"weights {source!r} hold {type(loaded).__name__}, not a state dict (tensors by name); save "
            "network.state_dict() alone"
        )
    return loaded


def load_into(network: nn.Module, uri: str, storage_options: Mapping[str, Any] | None = None) -> str:
    """Load the weights in a file into a network, whatever prefix a training framework gave their keys.

    Args:
        network: Is unchanged if an error is raised.
        uri: Path or URI of the file.
        storage_options: Options for fsspec.

    Returns:
        A sentence on which tensors of the file were loaded; empty for all tensors of a plain state dict.

    Raises:
        ModelError: The file cannot be read, holds NaN or infinity, or does not fit the network.
    """
    own = network.state_dict()
    taken = take(load(read_uri(uri, "weights", storage_options), uri), uri, lambda state: own)
    check_keys(taken.state, own, uri, type(network).__name__)
    check_finite(taken.state, uri)
    network.load_state_dict(taken.state, strict=False)
    return taken.note


class _Inert:
    """A placeholder for an object of plain data beside the weights; keeps nothing."""

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
            raise ModelError(f"weights {source!r} cannot be read: the file is damaged, or not a checkpoint") from e
        raise ModelError(
            f"weights {source!r} are refused: loading the file would execute code: {some(names)}. Where it was "
            f"made, or where you trust it, save its tensors alone: {_RESAVE}"
        ) from e
    # torch documents no exception for damaged files: each layer raises its own.
    except (RuntimeError, EOFError, ValueError, KeyError, OSError, AttributeError, IndexError, TypeError) as e:
        raise ModelError(f"weights {source!r} cannot be read: {e}; the file may be truncated") from e


def _unsafe_names(data: bytes, error: pickle.UnpicklingError) -> list[str]:
    """Return the names of a checkpoint's objects that are neither tensors nor plain data, without executing any."""
    try:
        names = torch.serialization.get_unsafe_globals_in_checkpoint(io.BytesIO(data))
    except Exception:  # torch documents none for damaged files or the old format without a ZIP; its error has a name
        names = re.findall(r"GLOBAL ([\w.]+)", str(error))
    return sorted(set(names) - set(_INERT))


def _is_safetensors(data: bytes) -> bool:
    return 8 < len(data) >= 8 + int.from_bytes(data[:8], "little") and data[8:9] == b"{"


def _check_archive(data: bytes, source: str) -> None:
    """Refuse a ZIP archive that is compressed, as a decompression bomb is: torch.save does not compress."""
    if not data.startswith(b"PK"):
        return
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            members = archive.infolist()
            total = sum(member.file_size for member in members)
    except (zipfile.BadZipFile, ValueError, NotImplementedError, struct.error) as e:
        raise ModelError(f"weights {source!r} cannot be read: {e}; the file may be truncated") from e
    if any(member.filename.endswith("/constants.pkl") for member in members):
        raise ModelError(
            f"weights {source!r} are a TorchScript program, which is not executed; save its tensors alone: "
            "torch.save(torch.jit.load('FILE').state_dict(), 'FILE.pth')"
        )
    if total > len(data):
        raise ModelError(
            f"weights {source!r} are refused: {len(data):,} bytes that unpack to {total:,}, which torch.save does not "
            "write; save them again with torch.save(network.state_dict(), path)"
        )


def _read_safetensors(data: bytes, source: str) -> Any:
    try:
        return safetensors.torch.load(data)
    except SafetensorError as e:
        raise ModelError(f"weights {source!r} cannot be read: {e}; the file may be truncated") from e


def check(state: Mapping[str, Tensor], network: nn.Module, source: str, model: str) -> None:
    """Raise one ``ModelError`` that lists all keys and shapes of a state dict that do not fit a network."""
    check_keys(state, network.state_dict(), source, model)


def check_keys(state: Mapping[str, Tensor], wanted: Mapping[str, Tensor], source: str, model: str) -> None:
    """Raise one ``ModelError`` that lists all keys and shapes that differ from those of the tensors ``wanted``."""
    faults = {
        "missing": [key for key in wanted if key not in state and not key.endswith("num_batches_tracked")],
        "unexpected": [key for key in state if key not in wanted],
        "of another shape": [
            f"{key} {tuple(value.shape)} for {tuple(wanted[key].shape)}"
            for key, value in state.items()
            if key in wanted and value.shape != wanted[key].shape
        ],
    }
    problems = [f"{len(keys)} {fault}: {some(keys)}" for fault, keys in faults.items() if keys]
    if problems:
        raise ModelError(
            f"weights {source!r} do not fit {model}. {'. '.join(problems)}. {_classes_differ(state, wanted)}Check that "
            "they were trained for this --model"
        )


def _classes_differ(state: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> str:
    """A sentence if only the first dimension of the last layer differs: the number of classes."""
    shapes = [(state[key].shape, value.shape) for key, value in wanted.items() if key in state]
    pairs = {(a[:1], b[:1]) if a[1:] == b[1:] else ((), ()) for a, b in shapes if a != b}
    has, built_for = next(iter(pairs)) if len(pairs) == 1 else ((), ())
    return (
        f"The final layer has {has[0]} classes, the network is built for {built_for[0]}. " if has and built_for else ""
    )


def check_finite(state: Mapping[str, Tensor], source: str) -> None:
    """Raise one ``ModelError`` that lists the tensors with NaN or infinity."""
    wrong = [key for key, value in state.items() if not value.float().isfinite().all()]
    if wrong:
        raise ModelError(
            f"weights {source!r} hold NaN or infinity in {some(wrong)}; they are damaged, or their training "
            "diverged; give an earlier checkpoint"
        )
