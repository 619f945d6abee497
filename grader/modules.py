"""Which full dotted names are modules: looked up in the real ones, as far as they are loaded or can be loaded here."""

from __future__ import annotations

import importlib
import importlib.util
import types
from collections.abc import Iterator
from functools import lru_cache

from grader.permitted import ALLOWED_IMPORTS, OF_A_MODULE, PUBLIC, TORCH_MODULES


def is_module(full: list[str]) -> bool:
    """Whether a full dotted name is a module's."""
    return bool(full) and (len(full) == 1 or ".".join(full) in PUBLIC or len(modules_along(tuple(full))) == len(full))


def strange_module(full: list[str]) -> str:
    """Return the first part of a dotted name that leads where it should not, with what is before it.

    That is a module that is not of the same package (`enum.bltns`, `torch.serialization.pickle`), one of torch's
    that tensor code has no use for, or what Python keeps about a module (`torch.__getattr__`).
    """
    along = modules_along(tuple(full))
    for number, name in enumerate(along):
        if name.split(".")[0] != full[0] or not is_permitted(name):
            return ".".join(full[: number + 1])
    beyond = full[len(along)] if along and len(along) < len(full) else ""
    return ".".join(full[: len(along) + 1]) if beyond.startswith("__") and beyond not in OF_A_MODULE else ""


def is_permitted(name: str) -> bool:
    """Whether a module, by its own name, is one that tensor code may use."""
    package, _, below = name.partition(".")
    return package != "torch" or below in ("", "utils") or f"{below}.".startswith(tuple(f"{m}." for m in TORCH_MODULES))


@lru_cache(maxsize=10_000)
def modules_along(full: tuple[str, ...]) -> tuple[str, ...]:
    """Return the own names of the modules that a dotted name goes through, from the first on."""
    found: object = root(full[0])
    names: list[str] = []
    for part in (*full[1:], ""):
        if not isinstance(found, types.ModuleType):
            break
        names.append(found.__name__)
        if part and part not in vars(found) and is_file(f"{found.__name__}.{part}"):
            return (*names, f"{found.__name__}.{part}")
        found = vars(found).get(part)
    return tuple(names)


def root(package: str) -> object:
    """Return a package that may be imported; nothing for any other, and for one that is not installed."""
    try:
        return importlib.import_module(package) if package in ALLOWED_IMPORTS else None
    except ImportError:
        return None


def is_file(name: str) -> bool:
    """Whether a module that is not loaded could be; its package is loaded."""
    try:
        return importlib.util.find_spec(name) is not None
    except (ImportError, ValueError):
        return False


def names_of(full: list[str]) -> Iterator[str]:
    """Yield the names that `from ... import *` takes from a module."""
    along = modules_along(tuple(full))
    if len(along) == len(full) and is_permitted(along[-1]):
        names = vars(importlib.import_module(along[-1]))
        yield from names.get("__all__") or (name for name in names if not name.startswith("_"))
