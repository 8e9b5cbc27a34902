"""Which tensors of a checkpoint are a network's weights: in which of its tables, and under which prefix."""

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
# What wrappers put before all keys of a network, or into them: DataParallel and DeepSpeed, torch.compile, Lightning and
# what people call the network in it, FSDP, knowledge distillation, mmseg.
_PREFIXES = ("module.", "_orig_mod.", "_forward_module.", "model.", "net.", "network.", "segmentor.", "student.")
_INFIXES = ("_orig_mod.", "_fsdp_wrapped_module.", "_checkpoint_wrapped_module.")
_COMMON = 0.9
# Tables that are not looked into: states of optimizers and of training, and what Lightning keeps beside its averages.
_OF_TRAINING = re.compile(r"optim|sched|scaler|hyper_?param|callback|current_model_state", re.IGNORECASE)
# Averages over the steps of a training, which are what is meant to be used.
_AVERAGED = re.compile(r"(?:^|[._])(?:ema|swa|avg|averaged?|shadow)(?:[._]|$)", re.IGNORECASE)
# Modules that a training keeps beside the network, and AveragedModel's counter.
_NO_WEIGHTS = re.compile(
    r"(?:[a-z0-9]+_)*(?:loss(?:es)?|loss_fn|loss_func|criterions?|criteria|metrics?|acc|accuracy|m?iou|jaccard|dice|confmat)"
    r"\d*[._]|n_averaged$",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Taken:
    """The tensors that were taken from a checkpoint, by the network's keys.

    ``note`` says how, empty for all of a plain state dict; ``share`` is the fraction of the network's tensors that fit.
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
        table = ".".join(self.table) or "its outermost table"
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
    """The tensors in ``loaded`` that fit best, by the number of keys and shapes.

    ``wanted_of`` gives the network's own tensors, which may depend on those that were found (the number of classes);
    ``convert`` turns a file's keys into the network's. Of several that fit as a whole, averaged weights (EMA, SWA) are
    taken; raises ``ModelError`` with the candidates if that does not decide. What fits in part is returned too.
    """
    tables = _tables(loaded)
    keys = wanted_of({})
    found = [c for path, table in tables for c in _candidates(path, table, keys, wanted_of, convert)]
    if not found:
        return Taken({}, "")
    whole = _different([c for c in found if not c.misfits])
    averaged = [c for c in whole if c.is_averaged]
    if len(whole) > 1 and len(averaged) != 1:
        raise ModelError(
            f"weights {source!r} hold several networks that fit: {', '.join(c.name for c in whole)}; save the tensors "
            "of the one that is meant: safetensors.torch.save_file(network.state_dict(), 'FILE.safetensors')"
        )
    chosen = averaged[0] if len(whole) > 1 else whole[0] if whole else max(found, key=lambda c: c.score)
    others = [c.name for c in whole if c is not chosen]
    return Taken(chosen.state, _note(loaded, chosen, others), chosen.share)


def guess(loaded: Mapping[Any, Any]) -> StateDict:
    """The tensors in ``loaded`` where no network says which are meant: averaged ones, else the largest table."""
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
    """The mappings in a checkpoint that have tensors, with the keys that lead to them; the largest of many."""
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
    """One for each prefix under which the network's keys may be."""
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
        lacking = sum(
            (key not in state and not key.endswith("num_batches_tracked"))
            or (key in state and state[key].shape != value.shape)
            for key, value in wanted.items()
        )
        yield _Candidate(path, prefix, state, tuple(left), fits, lacking + extra)


def _prefixes(table: StateDict, keys: Mapping[str, Tensor]) -> list[str]:
    """None, what wrappers are known to write, and what stands before most of the network's own keys."""
    seen: Counter[str] = Counter()
    for key in table:
        parts = key.split(".")
        for i in range(len(parts)):
            if ".".join(parts[i:]) in keys:
                seen[".".join([*parts[:i], ""]) if i else ""] += 1
    most = max(seen.values(), default=0)
    often = [prefix for prefix, count in seen.most_common(_SHOWN) if count > most / 2]
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
    """Those that do not hold the same numbers as an earlier one."""
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
    """The first ten of ``keys``, and how many more there are."""
    more = f", … ({len(keys) - _SHOWN} more)" if len(keys) > _SHOWN else ""
    return ", ".join(keys[:_SHOWN]) + more
