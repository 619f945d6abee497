"""Slice out of a learner's cells what one exercise needs."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable
from dataclasses import dataclass

from grader.statements import (
    COMPOUND,
    bound_names,
    changed_by_calling,
    changed_names,
    defines_anew,
    is_course_import,
    is_import,
    is_main_guard,
    names_at_once,
    used_names,
)

MANY = 1000
"""In programs of more statements drafts are not looked for: nobody wrote them by hand."""


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


@dataclass(frozen=True, slots=True)
class Statement:
    """A top-level statement: the number of its cell, the names it makes (binds or changes), and those it binds."""

    cell: int
    node: ast.stmt
    makes: frozenset[str]
    binds: frozenset[str]


def statements_of(cells: tuple[Cell, ...]) -> list[Statement]:
    """Return the statements of all cells in order."""
    nodes = [(number, node) for number, cell in enumerate(cells) if cell.tree for node in cell.tree.body]
    imported = {name for _, node in nodes if is_import(node) for name in bound_names(node)}
    defined = frozenset(n.name for _, n in nodes if isinstance(n, (ast.FunctionDef, ast.ClassDef)))
    effects = {n.name: changed_by_calling(n) - defined - imported for _, n in nodes if isinstance(n, ast.FunctionDef)}
    found = []
    for number, node in nodes:
        changed = changed_names(node) - imported - (defined if isinstance(node, COMPOUND) else frozenset())
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Call) and isinstance(node.value.func, ast.Name):
            changed |= effects.get(node.value.func.id, frozenset())
        idle = is_course_import(node) or is_main_guard(node)
        makes = frozenset() if idle else bound_names(node) | changed
        found.append(Statement(number, node, makes, bound_names(node)))
    return found


def slice_program(cells: tuple[Cell, ...], name: str, provided: frozenset[str]) -> Program:
    """Collect the top-level statements that define `name` and, transitively, what it uses.

    What a later definition replaces is left out, unless something that is kept needs it in between: a draft that
    calls what is forbidden, or that does not run, counts for nothing once it has been written anew.
    """
    statements = statements_of(cells)
    if not any(name in s.binds for s in statements):
        return Program(name, (), broken_definition(cells, name))
    left_out: set[int] = set()
    while True:
        chosen = needed_for(name, statements, provided, left_out)
        more = replaced(statements, chosen)
        if not more:
            break
        left_out |= more
    kept = [(statements[p].cell, statements[p].node) for p in sorted(chosen)]
    futures = [
        (s.cell, s.node) for s in statements if isinstance(s.node, ast.ImportFrom) and s.node.module == "__future__"
    ]
    return Program(name, tuple(render_parts(cells, futures + kept)))


def needed_for(
    name: str, statements: list[Statement], provided: frozenset[str], left_out: set[int]
) -> dict[int, frozenset[str]]:
    """Return the positions of the statements that make a name and all it uses, each with the names it reads."""
    makers: dict[str, list[int]] = {}
    for position, statement in enumerate(statements):
        for made in statement.makes if position not in left_out else ():
            makers.setdefault(made, []).append(position)
    needed, todo = set(), [name]
    chosen: dict[int, frozenset[str]] = {}
    while todo:
        wanted = todo.pop()
        if wanted in needed or (wanted in provided and wanted != name):
            continue
        needed.add(wanted)
        for position in makers.get(wanted, makers.get("*", ())):
            if position not in chosen:
                chosen[position] = frozenset(used_names(statements[position].node))
                todo += chosen[position]
    return chosen


def replaced(statements: list[Statement], chosen: dict[int, frozenset[str]]) -> set[int]:
    """Return which chosen statements make only what is defined anew before anything chosen looks at it."""
    if len(chosen) > MANY:
        return set()
    found: set[int] = set()
    makers: dict[str, list[int]] = {}
    reads: dict[str, set[str]] = {}
    for position in sorted(chosen):
        for name in statements[position].makes:
            makers.setdefault(name, []).append(position)
            reads.setdefault(name, set()).update(chosen[position])
    for name, positions in makers.items():
        last = max((p for p in positions if defines_anew(statements[p].node, name)), default=-1)
        before = [p for p in positions if p < last and statements[p].makes == {name}]
        if before:
            others = (p for p in chosen if before[0] < p < last and p not in before)
            looked_at = max((p for p in others if name in reached(statements[p].node, reads)), default=-1)
            found.update(p for p in before if p > looked_at)
    return found


def reached(node: ast.stmt, reads: dict[str, set[str]]) -> set[str]:
    """Return the names that are read when a statement is run, also by the functions that it may call."""
    found: set[str] = set()
    todo = list(names_at_once(node))
    while todo:
        name = todo.pop()
        if name not in found:
            found.add(name)
            todo += reads.get(name, ())
    return found


def broken_definition(cells: tuple[Cell, ...], name: str) -> str | None:
    """Say which unreadable cell seems to define `name`."""
    for cell in cells:
        if cell.error and re.search(rf"^[ \t]*(def|class)[ \t]+{re.escape(name)}\b", cell.source, re.MULTILINE):
            return f"{cell.label[1:-1]}: {cell.error}"
    return None


def render_parts(cells: tuple[Cell, ...], kept: list[tuple[int, ast.stmt]]) -> Iterable[tuple[str, str]]:
    """Yield (file name, source) per cell, with every other line blank so that line numbers stay true."""
    own: dict[int, list[ast.stmt]] = {}
    for index, node in kept:
        own.setdefault(index, []).append(node)
    for index, nodes in own.items():
        cell = cells[index]
        keep = kept_lines(nodes, cell.tree.body if cell.tree else [])
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
