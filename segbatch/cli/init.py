"""``segbatch init``: a configuration with every setting, from the fields of the specs."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer
import yaml
from pydantic.fields import FieldInfo

from segbatch.cli.help import COMMON
from segbatch.cli.options import GROUPS
from segbatch.cli.tables import print_text
from segbatch.cli.terminal import console, quoted
from segbatch.config.base import described, effect_of, model_of
from segbatch.config.crf_mapping import CRF_FIELDS
from segbatch.config.job import JobSpec
from segbatch.config.nightly import NightlySpec
from segbatch.errors import SpecError

_WIDTH = 100
_EXAMPLES: dict[str, Any] = {
    "inputs": ["photos/"],
    "output": "masks",
    "state": "nights",
    "datasets": {"photos": {"inputs": ["photos/"], "output": "masks"}},
    "url": "https://HOST/PATH",
}
_HEAD = """\
# {title}
# To change a setting, remove the # before its key. The values are the defaults; where there is none, the text
# names what is taken.
"""


def init(
    kind: Annotated[str, typer.Argument(metavar="[job|nightly]", help="what is configured")] = "job",
    file: Annotated[
        str | None, typer.Argument(metavar="[FILE]", help="file to write; - prints it; by default KIND.yaml")
    ] = None,
) -> None:
    """Write a configuration with every setting explained.

    A file that exists is not replaced.
    """
    if kind not in ("job", "nightly"):
        raise SpecError(f"init: got {kind!r}; give job or nightly first, such as `segbatch init job {quoted(kind)}`")
    text = job_template() if kind == "job" else nightly_template()
    path = file if file is not None else f"{kind}.yaml"
    if path == "-":
        print_text(console, text.rstrip("\n"))
        return
    try:
        with Path(path).open("x") as f:
            f.write(text)
    except FileExistsError:
        raise SpecError(f"{path} exists, and init replaces no file; give another FILE") from None
    except OSError as e:
        raise SpecError(f"{path}: cannot be written: {e.strerror}; give another FILE") from e
    command = "run --config" if kind == "job" else "nightly"
    print_text(console, f"edit {path}; next: segbatch {command} {quoted(path)} --dry-run")


def job_template() -> str:
    """Return the settings of a job: inputs and output, the common ones, then the others by group."""
    fields = {name: f for name, f in JobSpec.model_fields.items() if not _is_for_one_call(f)}
    common = [name for name in COMMON["run"] if name in fields]
    groups: dict[str, list[str]] = {"Common": common}
    title = ""
    for name in JobSpec.model_fields:
        title = GROUPS[JobSpec].get(name, title)
        if name in fields and name not in common:
            groups.setdefault(title, []).append(name)
    lines = [_HEAD.format(title="Settings of `segbatch run --config FILE`; flags take precedence.")]
    for title, names in groups.items():
        lines += [f"# ---- {title} ----", ""]
        for name in names:
            lines += [*_setting(name, fields[name], name in ("inputs", "output")), ""]
    return "\n".join(lines)


def nightly_template() -> str:
    """Return the settings of `segbatch nightly`: what is required, then the others."""
    fields = NightlySpec.model_fields
    lines = [_HEAD.format(title="Settings of `segbatch nightly FILE`; docs/nightly.md explains them.")]
    for name in sorted(fields, key=lambda name: not fields[name].is_required()):
        lines += [*_setting(name, fields[name], fields[name].is_required()), ""]
    return "\n".join(lines)


def _setting(name: str, field: FieldInfo, is_given: bool) -> Iterator[str]:
    """Yield a setting and its meaning, as a comment unless it is given."""
    yield from textwrap.wrap(described(field), _WIDTH, initial_indent="# ", subsequent_indent="# ")
    inner = _inner_fields(name, field)
    mark = "" if is_given else "#"
    if not inner:
        value = _EXAMPLES.get(name, None if field.is_required() else field.get_default(call_default_factory=True))
        yield from (f"{mark}{line}" for line in _yaml(name, value))
        return
    yield f"{mark}{name}:"
    for key, part in inner.items():
        (line,) = _yaml(key, _EXAMPLES.get(key, part.get_default(call_default_factory=True)))
        comment = textwrap.wrap(described(part), _WIDTH - 4, initial_indent="#   # ", subsequent_indent="#   # ")
        yield from (*comment, f"{mark}  {line}")


def _inner_fields(name: str, field: FieldInfo) -> dict[str, FieldInfo]:
    if name == "crf":
        return CRF_FIELDS
    inner = model_of(field)
    return dict(inner.model_fields) if inner is not None else {}


def _yaml(name: str, value: Any) -> list[str]:
    if value is None:
        return [f"{name}:"]
    if isinstance(value, dict) and value:
        return yaml.safe_dump({name: value}, default_flow_style=None, sort_keys=False).splitlines()
    return [f"{name}: {yaml.safe_dump(value, default_flow_style=True).splitlines()[0]}"]


def _is_for_one_call(field: FieldInfo) -> bool:
    """Whether a field is a switch such as --overwrite, which a file would set in every call."""
    return effect_of(field) == "call" and field.annotation is bool
