"""Factories in a user's own code, ``package.module:factory``, for ``--model`` and ``--refiner``."""

from __future__ import annotations

import functools
import importlib
import inspect
import sys
import types
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from segbatch.errors import ModelError, SpecError
from segbatch.models.weights import content_digest
from segbatch.registry import suggest
from segbatch.text import escape_control_characters

_MAX_TEXT = 500  # characters


@dataclass(frozen=True)
class UserFactory:
    """A function or class that a user names.

    Args:
        kind: ``model`` or ``refiner``, for messages.
        name: ``package.module:factory``.
    """

    kind: str
    name: str

    def load(self) -> Callable[..., Any]:
        """Import the factory. Raises ``SpecError`` if it cannot be imported or called."""
        module_name, _, attribute = self.name.partition(":")
        try:
            module = importlib.import_module(module_name)
        except (ImportError, ValueError) as e:
            raise SpecError(
                f"{self.kind} {self.name!r}: cannot import {module_name!r} ({e}); it must be importable here and on "
                "every worker (PYTHONPATH, or py_modules in the runtime environment)"
            ) from e
        factory = getattr(module, attribute, None)
        if not callable(factory):
            functions = [n for n, value in vars(module).items() if callable(value) and not n.startswith("_")]
            what = "is not callable" if factory is not None else "does not exist"
            raise SpecError(f"{self.kind} {self.name!r}: {attribute!r} {what}{suggest(attribute, functions)}")
        return factory

    def call(self, offered: Mapping[str, Any]) -> Any:
        """Call the factory with those of the keywords ``offered`` that its signature accepts.

        Raises:
            ModelError: The factory raised an exception, or needs an argument that is not offered.
        """
        factory = self.load()
        parameters = inspect.signature(factory).parameters.values()
        if not any(p.kind is p.VAR_KEYWORD for p in parameters):
            names = {p.name for p in parameters if p.kind is not p.POSITIONAL_ONLY}
            offered = {key: value for key, value in offered.items() if key in names}
        try:
            return factory(**offered)
        except TypeError as e:
            raise ModelError(
                f"{self.kind} {self.name!r}: calling the factory with {', '.join(offered) or 'no arguments'}: {e}"
            ) from e

    def summary(self) -> str:
        """Return the first line of the factory's docstring."""
        return (inspect.getdoc(self.load()) or f"a user's {self.kind}").splitlines()[0]

    def source_digest(self, made: object) -> str:
        """Return the digest of the source files of the factory and of the class of its result ``made``.

        Modules that these files import are not included.
        """
        named = importlib.import_module(self.name.partition(":")[0])
        parts = (_defined(self.load()), type(made))
        others = [module for part in parts if (module := inspect.getmodule(part)) and _is_users(module)]
        sources = sorted({_source_digest(module) for module in (named, *others)})
        return content_digest(" ".join(sources).encode())


def reason(error: Exception) -> str:
    """Describe an exception of a user's code, for a message."""
    return shown(f"{type(error).__name__}: {error}")


def shown(text: str) -> str:
    """Truncate a text of a user's code and escape control characters, for a message."""
    return escape_control_characters(text[:_MAX_TEXT])


def _defined(factory: Callable[..., Any]) -> Any:
    """The function or class behind decorators and ``functools.partial``; of another object, its class."""
    while isinstance(factory, functools.partial):
        factory = factory.func
    inner = inspect.unwrap(factory)
    return inner if inspect.isfunction(inner) or inspect.isclass(inner) else type(inner)


def _is_users(module: types.ModuleType) -> bool:
    return module.__name__.partition(".")[0] not in {"segbatch", *sys.stdlib_module_names}


def _source_digest(module: types.ModuleType) -> str:
    """Empty for a module without a file."""
    file = getattr(module, "__file__", None)
    if file is None:
        return ""
    read = getattr(getattr(module, "__loader__", None), "get_data", None)  # modules in archives have no other way
    try:
        return content_digest(read(file) if read else Path(file).read_bytes())
    except OSError:  # a frozen application, or a module that was removed since
        return ""
