"""Slice out of a learner's cells what one exercise needs."""

from __future__ import annotations

import ast
import re
import symtable
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache

COMPOUND = (ast.For, ast.If, ast.With, ast.Try, ast.While)
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

    `X.attribute = ...`, `X[key] = ...`, `X.method(...)` and `setattr(X, ...)` do, also inside a loop, `if`, `with` or
    `try`, and so does a function decorated with `@something(X)` or `@X.something`.
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
    if isinstance(node, (ast.Expr, ast.Assign)) and isinstance(node.value, ast.Call) and not is_kept(node):
        targets = [node.value.func]
        if isinstance(node.value.func, ast.Name) and node.value.func.id == "setattr" and node.value.args:
            targets = [ast.Attribute(node.value.args[0], "any", ast.Store())]
    return frozenset(base.id for target in targets if (base := base_of(target)) is not None)


def is_kept(node: ast.Expr | ast.Assign) -> bool:
    """Whether a statement gives a name, other than `_`, to what it computes."""
    return isinstance(node, ast.Assign) and not all(isinstance(t, ast.Name) and t.id == "_" for t in node.targets)


@lru_cache(maxsize=10_000)
def changed_by_calling(node: ast.FunctionDef) -> frozenset[str]:
    """Return the names of the notebook whose value a function changes when it is called."""
    below = [n for n in ast.walk(node) if n is not node]
    own = {a.arg for a in below if isinstance(a, ast.arg)}
    own |= {n.id for n in below if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}
    told = {name for n in below if isinstance(n, ast.Global) for name in n.names}
    changed = {name for n in below if isinstance(n, ast.stmt) for name in changed_names(n)}
    return frozenset((changed - own) | told)


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


def defines_anew(node: ast.stmt, name: str) -> bool:
    """Whether a statement binds a name always, and to something that has nothing to do with what it was."""
    if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
        return node.name == name and name not in names_at_once(node)
    if isinstance(node, (ast.Assign, ast.AnnAssign)) and node.value is not None:
        targets = node.targets if isinstance(node, ast.Assign) else [node.target]
        return any(isinstance(t, ast.Name) and t.id == name for t in targets) and name not in used_names(node)
    return False


def names_at_once(node: ast.stmt) -> set[str]:
    """Return the names that a statement reads when it is run: those in a function's body are read when it is called."""
    if not isinstance(node, ast.FunctionDef):
        return used_names(node)
    given = node.args
    heads = [*node.decorator_list, *given.defaults, *(d for d in given.kw_defaults if d is not None)]
    heads += [a.annotation for a in [*given.posonlyargs, *given.args, *given.kwonlyargs] if a.annotation is not None]
    heads += [node.returns] if node.returns is not None else []
    return {n.id for head in heads for n in ast.walk(head) if isinstance(n, ast.Name)}


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
