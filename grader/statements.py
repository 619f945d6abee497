"""What a top-level statement of a notebook binds, reads and changes."""

from __future__ import annotations

import ast
import symtable
from functools import lru_cache

COMPOUND = (ast.For, ast.If, ast.With, ast.Try, ast.While)


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


def is_course_import(node: ast.stmt) -> bool:
    """Whether a statement takes something from the course or the grader: neither is there when grading."""
    if isinstance(node, ast.Assign) and isinstance(node.value, ast.Call):
        return isinstance(node.value.func, ast.Name) and node.value.func.id == "provided"
    return isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in ("grader", "reference")
