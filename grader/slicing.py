"""Slice out of a learner's cells what one exercise needs."""

from __future__ import annotations

import ast
import re
import symtable
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache

COMPOUND = (ast.For, ast.If, ast.With, ast.Try, ast.While)


@dataclass(frozen=True, slots=True)
class Cell:
    """A piece of learner code: where it stands, and its text with magics blanked."""

    label: str
    source: str
    tree: ast.Module | None
    error: str | None = None


@dataclass(frozen=True, slots=True)
class Program:
    """The part of a submission that one exercise needs: (file name, source) pairs to run in order."""

    name: str
    parts: tuple[tuple[str, str], ...]
    broken: str | None = None

    @property
    def found(self) -> bool:
        """Whether the submission defines the name at all."""
        return bool(self.parts)

    @property
    def text(self) -> str:
        """The parts in one text, for a person."""
        return "\n".join(re.sub(r"\n\s*\n+", "\n", source).strip("\n") for _, source in self.parts)


@lru_cache(maxsize=10_000)
def bound_names(node: ast.stmt) -> frozenset[str]:
    """Return the names a top-level statement binds."""
    if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
        return frozenset([node.name])
    if isinstance(node, (ast.Import, ast.ImportFrom)):
        return frozenset((alias.asname or alias.name).split(".")[0] for alias in node.names)
    below = list(ast.walk(node))
    names = frozenset(n.id for n in below if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store))
    inner = frozenset(
        name
        for n in below
        if isinstance(n, (ast.FunctionDef, ast.ClassDef, ast.Import, ast.ImportFrom))
        for name in bound_names(n)
    )
    return names | inner if isinstance(node, COMPOUND) else names


@lru_cache(maxsize=10_000)
def used_names(node: ast.stmt) -> set[str]:
    """Return the names that a top-level statement reads from the notebook: those local to a function are not."""
    module = ast.Module([node], [])
    try:
        table = symtable.symtable(ast.unparse(module), "<cell>", "exec")
    except (SyntaxError, RecursionError, ValueError):
        return {n.id for n in ast.walk(node) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Load)}
    found = {symbol.get_name() for symbol in table.get_symbols() if symbol.is_referenced()}
    inner = list(table.get_children())
    while inner:
        scope = inner.pop()
        found |= {s.get_name() for s in scope.get_symbols() if s.is_global() and s.is_referenced()}
        inner += scope.get_children()
    return found


@lru_cache(maxsize=10_000)
def changed_names(node: ast.stmt) -> frozenset[str]:
    """Return names whose value a top-level statement changes without binding them.

    `X.attribute = ...`, `X[key] = ...` and `X.method(...)` do, also inside a loop, `if`, `with` or `try`, and so
    does a function decorated with `@something(X)` or `@X.something`.
    """
    if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
        calls = [d for d in node.decorator_list if isinstance(d, ast.Call)]
        given = [d.args[0].id for d in calls if d.args and isinstance(d.args[0], ast.Name)]
        bases = [base_of(d.func if isinstance(d, ast.Call) else d) for d in node.decorator_list]
        return frozenset([*given, *(base.id for base in bases if base is not None)])
    if isinstance(node, (ast.ClassDef, ast.Import, ast.ImportFrom)):
        return frozenset()
    if isinstance(node, COMPOUND):
        parts = [part for part in ast.iter_child_nodes(node) if isinstance(part, ast.stmt)]
        return frozenset(name for part in parts for name in changed_names(part))
    targets: list[ast.expr] = []
    if isinstance(node, (ast.Assign, ast.Delete)):
        targets = node.targets
    elif isinstance(node, (ast.AugAssign, ast.AnnAssign)):
        targets = [node.target]
    elif isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
        targets = [node.value.func]
    return frozenset(base.id for target in targets if (base := base_of(target)) is not None)


def base_of(target: ast.expr) -> ast.Name | None:
    """Return X of `X.a[b].c`; nothing for X itself and for any other expression."""
    if isinstance(target, ast.Name):
        return None
    while isinstance(target, (ast.Attribute, ast.Subscript)):
        target = target.value
    return target if isinstance(target, ast.Name) else None


def is_main_guard(node: ast.stmt) -> bool:
    """Whether a statement is `if __name__ == "__main__":`, which is not so when an answer is graded."""
    return isinstance(node, ast.If) and any(isinstance(n, ast.Name) and n.id == "__name__" for n in ast.walk(node.test))


def is_import(node: ast.stmt) -> bool:
    """Whether a statement is an import."""
    return isinstance(node, (ast.Import, ast.ImportFrom))


def slice_program(cells: tuple[Cell, ...], name: str, provided: frozenset[str]) -> Program:
    """Collect the top-level statements that define `name` and, transitively, what it uses."""
    statements = [(index, node) for index, cell in enumerate(cells) if cell.tree for node in cell.tree.body]
    bindings = [(index, node, bound_names(node), changed_names(node)) for index, node in statements]
    imported = {n for _, node, names, _ in bindings if is_import(node) for n in names}
    if not any(name in names for _, _, names, _ in bindings):
        return Program(name, (), broken_definition(cells, name))
    defined = frozenset(n.name for _, n in statements if isinstance(n, (ast.FunctionDef, ast.ClassDef)))
    makers: dict[str, list[int]] = {}
    for position, (_, node, names, changed) in enumerate(bindings):
        mended = changed - imported - (defined if isinstance(node, COMPOUND) else frozenset())
        for made in () if is_course_import(node) or is_main_guard(node) else names | mended:
            makers.setdefault(made, []).append(position)
    needed, todo = set(), [name]
    chosen: set[int] = set()
    while todo:
        wanted = todo.pop()
        if wanted in needed or (wanted in provided and wanted != name):
            continue
        needed.add(wanted)
        for position in makers.get(wanted, ()):
            if position not in chosen:
                chosen.add(position)
                todo += used_names(bindings[position][1])
    kept = [(bindings[p][0], bindings[p][1]) for p in sorted(chosen)]
    futures = [(i, n) for i, n in statements if isinstance(n, ast.ImportFrom) and n.module == "__future__"]
    return Program(name, tuple(render_parts(cells, futures + kept)))


def is_course_import(node: ast.stmt) -> bool:
    """Whether a statement takes something from the course or the grader: neither is there when grading."""
    if isinstance(node, ast.Assign) and isinstance(node.value, ast.Call):
        return isinstance(node.value.func, ast.Name) and node.value.func.id == "provided"
    return isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in ("grader", "reference")


def broken_definition(cells: tuple[Cell, ...], name: str) -> str | None:
    """Say which unreadable cell seems to define `name`."""
    for cell in cells:
        if cell.error and re.search(rf"^[ \t]*(def|class)[ \t]+{re.escape(name)}\b", cell.source, re.MULTILINE):
            return f"{cell.label[1:-1]}: {cell.error}"
    return None


def render_parts(cells: tuple[Cell, ...], kept: list[tuple[int, ast.stmt]]) -> Iterable[tuple[str, str]]:
    """Yield (file name, source) per cell, with every other line blank so that line numbers stay true."""
    for index in dict.fromkeys(i for i, _ in kept):
        cell = cells[index]
        keep = kept_lines([node for i, node in kept if i == index], cell.tree.body if cell.tree else [])
        lines = cell.source.split("\n")
        yield cell.label, "\n".join(text if number in keep else "" for number, text in enumerate(lines, 1))


def kept_lines(kept: list[ast.stmt], body: list[ast.stmt]) -> set[int]:
    """Return the lines of statements, with whole statements that share a line with them (`a = 1; b = 2`)."""
    lines = {line for node in kept for line in lines_of(node)}
    for node in (*body, *reversed(body)):  # neighbours of neighbours are found one way or the other
        own = lines_of(node)
        if own[0] in lines or own[-1] in lines:
            lines.update(own)
    return lines


def lines_of(node: ast.stmt) -> range:
    """Return the lines of a statement, decorators included."""
    decorators = getattr(node, "decorator_list", [])
    return range(min([node.lineno, *(d.lineno for d in decorators)]), (node.end_lineno or node.lineno) + 1)
