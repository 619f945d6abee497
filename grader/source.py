"""What a learner's source may not contain: forbidden torch names, detours around torch, and ways into the grader."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from itertools import pairwise

from grader.names import expand, matches
from grader.parsing import parse
from grader.reading import Use
from grader.slicing import Program

ALLOWED_IMPORTS = frozenset(
    [
        "torch",
        "math",
        "cmath",
        "typing",
        "typing_extensions",
        "collections",
        "itertools",
        "functools",
        "dataclasses",
        "operator",
        "string",
        "re",
        "random",
        "statistics",
        "heapq",
        "bisect",
        "copy",
        "enum",
        "abc",
        "numbers",
        "fractions",
        "decimal",
        "contextlib",
        "warnings",
        "time",
        "textwrap",
        "einops",
        "jaxtyping",
        "matplotlib",
        "IPython",
        "__future__",
    ]
)
FORBIDDEN_CALLS = frozenset(["exec", "eval", "compile", "__import__", "globals", "vars", "open", "breakpoint", "input"])
FORBIDDEN_TORCH = frozenset(
    [
        "ops",
        "jit",
        "compile",
        "library",
        "_refs",
        "_prims",
        "_inductor",
        "_dynamo",
        "_C",
        "_VF",
        "cpp_extension",
        "load_inline",
        "multiprocessing",
        "DisableTorchFunction",
        "DisableTorchFunctionSubclass",
        "hub",
        "fx",
        "export",
    ]
)
FRAME_NAMES = frozenset(
    [
        "__globals__",
        "__code__",
        "__closure__",
        "__subclasses__",
        "__builtins__",
        "__loader__",
        "__spec__",
        "f_back",
        "f_globals",
        "f_locals",
        "gi_frame",
        "tb_frame",
        "cr_frame",
    ]
)


def scan(program: Program, forbid: tuple[str, ...]) -> list[Use]:
    """Return what in a program's source is forbidden, with cell and line."""
    found: dict[str, Use] = {}
    for label, text in program.parts:
        for name, line in scan_part(parse(text), expand(forbid)):
            found.setdefault(name, Use(name, label, line))
    return list(found.values())


def scan_part(tree: ast.Module, patterns: tuple[str, ...]) -> Iterator[tuple[str, int]]:
    """Yield (name, line) of forbidden things in one part."""
    nodes = list(ast.walk(tree))
    used = {n.id for n in nodes if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Load)}
    aliases: dict[str, str] = {}
    for node in nodes:
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            for local, full in imported(node):
                aliases[local] = full
                if local in used:
                    yield from bad_import(full, patterns, node.lineno)
    for node in nodes:
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            yield from bad_call(node)
        elif isinstance(node, ast.Attribute):
            yield from bad_attribute(node, aliases, patterns)


def imported(node: ast.Import | ast.ImportFrom) -> Iterator[tuple[str, str]]:
    """Yield (local name, full dotted name) of what an import binds."""
    for alias in node.names:
        if isinstance(node, ast.ImportFrom):
            yield alias.asname or alias.name, f"{node.module or ''}.{alias.name}"
        elif alias.asname:
            yield alias.asname, alias.name
        else:
            yield alias.name.split(".")[0], alias.name.split(".")[0]


def bad_import(full: str, patterns: tuple[str, ...], line: int) -> Iterator[tuple[str, int]]:
    """Yield an import that is not allowed."""
    parts = full.split(".")
    if parts[0] not in ALLOWED_IMPORTS:
        yield parts[0], line
    elif parts[0] == "torch":
        yield from bad_torch_parts(parts[1:], patterns, line)


def bad_torch_parts(parts: list[str], patterns: tuple[str, ...], line: int) -> Iterator[tuple[str, int]]:
    """Yield the forbidden components of a dotted name below torch."""
    for part in parts:
        private = part.startswith("_") and not part.startswith("__")
        named = patterns and (matches(part, patterns) or matches(part.lower(), patterns))
        if part in FORBIDDEN_TORCH or private or named:
            yield ".".join(["torch", *parts]), line
            return


def bad_call(node: ast.Call) -> Iterator[tuple[str, int]]:
    """Yield a call of a forbidden builtin, or of getattr with a computed name."""
    name = node.func.id if isinstance(node.func, ast.Name) else ""
    if name in FORBIDDEN_CALLS:
        yield name, node.lineno
    if name == "getattr" and len(node.args) > 1 and is_computed(node.args[1]):
        yield "getattr", node.lineno


def is_computed(name: ast.expr) -> bool:
    """Whether an attribute's name is put together: `f"weight_l{k}"` is honest, its beginning is there to read."""
    if isinstance(name, ast.Constant) and name.value in FRAME_NAMES:
        return True
    if isinstance(name, ast.JoinedStr) and isinstance(name.values[0], ast.Constant):
        return not str(name.values[0].value)[:1].isalpha()
    return not isinstance(name, (ast.Constant, ast.Name))


def bad_attribute(node: ast.Attribute, aliases: dict[str, str], patterns: tuple[str, ...]) -> Iterator[tuple[str, int]]:
    """Yield a forbidden attribute: of torch or one of its modules, or one that leads to frames and code."""
    if node.attr in FRAME_NAMES:
        yield node.attr, node.lineno
    parts = dotted(node)
    if parts and parts[0] in aliases:
        full = aliases[parts[0]].split(".") + parts[1:]
        if full[0] == "torch" and not any(a == "Tensor" and b == "unfold" for a, b in pairwise(full)):
            yield from bad_torch_parts(full[1:], patterns, node.lineno)


def dotted(node: ast.expr) -> list[str]:
    """Return ["a", "b", "c"] for the expression a.b.c, and nothing for any other."""
    parts: list[str] = []
    while isinstance(node, ast.Attribute):
        parts.append(node.attr)
        node = node.value
    return [node.id, *reversed(parts)] if isinstance(node, ast.Name) else []
