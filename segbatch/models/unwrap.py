"""Find a network's weights in a checkpoint: in which of its mappings, and under which prefix."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from segbatch.errors import ModelError

StateDict = dict[str, Tensor]

_MAX_DEPTH, _MAX_TABLES = 4, 50
_SHOWN = 10
# What wrappers add before or into all keys of a network: DataParallel, DeepSpeed, torch.compile, Lightning with the
# usual names of its attribute, FSDP, knowledge distillation, mmseg.
_PREFIXES = ("module.", "_orig_mod.", "_forward_module.", "model.", "net.", "network.", "segmentor.", "student.")
_INFIXES = ("_orig_mod.", "_fsdp_wrapped_module.", "_checkpoint_wrapped_module.")
_COMMON = 0.9
# Mappings that are skipped: states of optimizers and of the training, and what Lightning stores beside its averages.
_OF_TRAINING = re.compile(r"optim|sched|scaler|hyper_?param|callback|current_model_state", re.IGNORECASE)
# Averages over the steps of a training (EMA, SWA), which are meant to be used.
_AVERAGED = re.compile(r"(?:^|[._])(?:ema|swa|avg|averaged?|shadow)(?:[._]|$)", re.IGNORECASE)
# Modules of a training that are not part of the network, and AveragedModel's counter.
_NO_WEIGHTS = re.compile(
    r"(?:[a-z0-9]+_)*(?:loss(?:es)?|loss_fn|loss_func|criterions?|criteria|metrics?|acc|accuracy|m?iou|jaccard|dice|confmat)"
    r"\d*[._]|n_averaged$",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Taken:
    """The tensors that were selected from a checkpoint.

    Attributes:
        state: By the network's keys.
        note: How they were selected; empty for all tensors of a plain state dict.
        share: Fraction of the network's tensors that fit.
    """

    state: StateDict
    note: str
    share: float = 0.0


@dataclass(frozen=True)
class _Candidate:
    table: tuple[str, ...]
    prefix: str
    state: StateDict
    left: tuple[str, ...]
    score: int
    misfits: int

    @property
    def share(self) -> float:
        return self.score / max(self.score + self.misfits, 1)

    @property
    def name(self) -> str:
        table = ".".join(self.table) or "its outermost mapping"
        return f"{table} under {self.prefix!r}" if self.prefix else table

    @property
    def is_averaged(self) -> bool:
        return _AVERAGED.search(".".join((*self.table, self.prefix))) is not None


def take(
    loaded: Mapping[Any, Any],
    source: str,
    wanted_of: Callable[[StateDict], Mapping[str, Tensor]],
    convert: Callable[[StateDict], StateDict] = dict,
) -> Taken:
    """Select the tensors of a checkpoint that fit a network best, by the number of keys and shapes.

    Of several sets that fit completely, averaged weights (EMA, SWA) are preferred. If none fits completely, the best
    partial fit is returned.

    Args:
        loaded: The checkpoint.
        source: Its URI, for messages.
        wanted_of: Returns the network's own tensors for a candidate state dict, on whose number of classes they may
            depend.
        convert: Translates the keys of the file to those of the network.

    Raises:
        ModelError: Several sets fit completely. The message lists them.
    """
    tables = _tables(loaded)
    keys = wanted_of({})
    candidates = [c for path, table in tables for c in _candidates(path, table, keys, wanted_of, convert)]
    if not candidates:
        return Taken({}, "")
    whole = _different([c for c in candidates if not c.misfits])
    averaged = [c for c in whole if c.is_averaged]
    if len(whole) > 1 and len(averaged) != 1:
        raise ModelError(
            f"weights {source!r} hold several sets of weights that fit: {', '.join(c.name for c in whole)}; save the "
            "tensors of the one to use: safetensors.torch.save_file(network.state_dict(), 'FILE.safetensors')"
        )
    chosen = averaged[0] if len(whole) > 1 else whole[0] if whole else max(candidates, key=lambda c: c.score)
    others = [c.name for c in whole if c is not chosen]
    return Taken(chosen.state, _note(loaded, chosen, others), chosen.share)


def guess(loaded: Mapping[Any, Any]) -> StateDict:
    """Select the most likely weights of a checkpoint without a network: averaged ones, or else the largest mapping."""
    tables = sorted(_tables(loaded), key=lambda item: -len(item[1]))
    if not tables:
        return {}
    whole = [item for item in tables if len(item[1]) > len(tables[0][1]) / 2]
    averaged = [table for path, table in whole if _AVERAGED.search(".".join(path))]
    table = _without_infixes(averaged[0] if averaged else tables[0][1])
    table = {key: value for key, value in table.items() if not _NO_WEIGHTS.match(key)} or table
    prefix = _known_prefix(table)
    return {key.removeprefix(prefix): value for key, value in table.items()}


def _tables(loaded: Mapping[Any, Any]) -> list[tuple[tuple[str, ...], StateDict]]:
    """Return the largest mappings of a checkpoint that hold tensors, each with the keys that lead to it."""
    found: list[tuple[tuple[str, ...], StateDict]] = []
    seen: set[int] = set()  # a mapping may hold itself

    def visit(mapping: Mapping[Any, Any], path: tuple[str, ...]) -> None:
        if id(mapping) in seen or len(path) > _MAX_DEPTH:
            return
        seen.add(id(mapping))
        if tensors := {str(key): value for key, value in mapping.items() if isinstance(value, Tensor)}:
            found.append((path, tensors))
        for key, value in mapping.items():
            if isinstance(value, Mapping) and not _OF_TRAINING.search(str(key)):
                visit(value, (*path, str(key)))

    visit(loaded, ())
    largest = sorted(found, key=lambda item: -len(item[1]))[:_MAX_TABLES]
    return [item for item in found if any(item is kept for kept in largest)]


def _candidates(
    path: tuple[str, ...],
    table: StateDict,
    keys: Mapping[str, Tensor],
    wanted_of: Callable[[StateDict], Mapping[str, Tensor]],
    convert: Callable[[StateDict], StateDict],
) -> Iterator[_Candidate]:
    """Yield a candidate for each prefix that the network's keys may have."""
    table = _without_infixes(table)
    for prefix in _prefixes(table, keys):
        below = {key.removeprefix(prefix): value for key, value in table.items() if key.startswith(prefix)}
        state = convert(below)
        wanted = wanted_of(state)
        left = [key for key in table if not key.startswith(prefix)]
        left += [prefix + key for key in state if key not in wanted and _NO_WEIGHTS.match(key)]
        state = {key: value for key, value in state.items() if key in wanted or not _NO_WEIGHTS.match(key)}
        extra = sum(key not in wanted for key in state)
        fits = sum(key in state and state[key].shape == value.shape for key, value in wanted.items())
        missing = sum(
            (key not in state and not key.endswith("num_batches_tracked"))
            or (key in state and state[key].shape != value.shape)
            for key, value in wanted.items()
        )
        yield _Candidate(path, prefix, state, tuple(left), fits, missing + extra)


def _prefixes(table: StateDict, keys: Mapping[str, Tensor]) -> list[str]:
    """Return the prefixes to try: none, those of known wrappers, and those before most of the network's keys."""
    counts: Counter[str] = Counter()
    for key in table:
        parts = key.split(".")
        for i in range(len(parts)):
            if ".".join(parts[i:]) in keys:
                counts[".".join([*parts[:i], ""]) if i else ""] += 1
    most = max(counts.values(), default=0)
    often = [prefix for prefix, count in counts.most_common(_SHOWN) if count > most / 2]
    return list(dict.fromkeys([*often, _known_prefix(table), ""]))


def _known_prefix(table: StateDict) -> str:
    prefix = ""
    while True:
        for known in _PREFIXES:
            if sum(key.startswith(prefix + known) for key in table) >= _COMMON * len(table):
                prefix += known
                break
        else:
            return prefix


def _without_infixes(table: StateDict) -> StateDict:
    if not any(infix in key for key in table for infix in _INFIXES):
        return table
    plain: StateDict = {}
    for key, value in table.items():
        for infix in _INFIXES:
            key = key.replace(infix, "")
        plain.setdefault(key, value)
    return plain


def _different(candidates: Sequence[_Candidate]) -> list[_Candidate]:
    """Return the candidates without those whose tensors equal those of an earlier one."""
    kept: list[_Candidate] = []
    for candidate in candidates:
        if not any(_equal(candidate.state, other.state) for other in kept):
            kept.append(candidate)
    return kept


def _equal(first: StateDict, second: StateDict) -> bool:
    return all(
        key in second and (value is second[key] or torch.equal(value, second[key])) for key, value in first.items()
    )


def _note(loaded: Mapping[Any, Any], chosen: _Candidate, others: Sequence[str]) -> str:
    notes = []
    if chosen.table or chosen.prefix:
        notes.append(f"taken from {chosen.name}")
    if others:
        notes.append(f"averaged over training, not those of {', '.join(others)}")
    mentioned = {*chosen.table[:1], *others}
    beside = [str(key) for key in loaded if str(key) not in mentioned] if chosen.table else []
    left = [*beside, *chosen.left]
    if left:
        notes.append(f"not used: {some(left)}")
    return "; ".join(notes)


def some(keys: Sequence[str]) -> str:
    """Return the first ten keys, and the number of the others, for a message."""
    more = f", … ({len(keys) - _SHOWN} more)" if len(keys) > _SHOWN else ""
    return ", ".join(keys[:_SHOWN]) + more
