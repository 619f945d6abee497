"""What is wrong with a full dotted name: its package, a module on its way, or the name itself."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

from grader.modules import strange_module
from grader.names import matches
from grader.permitted import ALLOWED_IMPORTS, FORBIDDEN_TORCH, FRAME_NAMES, HELPERS, OF_A_MODULE, PUBLIC, SYSTEM, TYPES

Found = Iterator[tuple[str, int]]
"""Pairs of (name, line)."""


def bad_name(name: str, line: int) -> Found:
    """Yield a name that leads to frames, code or the system, whatever it is a name of."""
    if name in FRAME_NAMES or name in SYSTEM or name.lstrip("_") in SYSTEM:
        yield name, line


def faults(full: list[str], patterns: tuple[str, ...], line: int) -> Found:
    """Yield what is wrong with a full dotted name: of a package, a module or something in it."""
    name = outside(full) or strange_module(full)
    if name:
        yield name, line
        return
    if full[0] == "torch" and not any(a == "Tensor" and b == "unfold" for a, b in pairwise(full)):
        yield from bad_torch_parts(full[1:], patterns, line)
    elif full[0] != "torch" and any(is_private(part) for part in full[1:]):
        yield ".".join(full), line
    for part in full[1:]:
        yield from bad_name(part, line)


def outside(full: list[str]) -> str:
    """Return the part of a dotted name up to where it is not allowed; nothing if it is."""
    if full[0] not in ALLOWED_IMPORTS and full[0] not in PUBLIC:
        return full[0]
    for number in range(1, len(full)):
        public = PUBLIC.get(".".join(full[:number]))
        if public is not None and full[number] not in public.split() and full[number] not in OF_A_MODULE:
            return ".".join(full[: number + 1])
    return ""


def is_private(name: str) -> bool:
    """Whether a name is private to its library."""
    return name.startswith("_") and not name.startswith("__") and name not in HELPERS


def bad_torch_parts(parts: list[str], patterns: tuple[str, ...], line: int) -> Found:
    """Yield the forbidden components of a dotted name below torch."""
    for part in parts:
        named = patterns and part not in TYPES and (matches(part, patterns) or matches(part.lower(), patterns))
        if part in FORBIDDEN_TORCH or is_private(part) or named:
            yield ".".join(["torch", *parts]), line
            return
