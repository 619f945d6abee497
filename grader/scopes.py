"""What the names in a learner's source stand for: imports, modules under other names, local variables."""

from __future__ import annotations

import ast
import sys
import types
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Self

SCOPES = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda, ast.ListComp, ast.SetComp, ast.GeneratorExp, ast.DictComp)


@dataclass(frozen=True, slots=True)
class Known:
    """What the names of a program stand for, wherever in it they are bound.

    Args:
        aliases: full dotted names by local name, of what was imported or assigned from that: `nn = torch.nn`.
        used: names that are read somewhere.
        own: names that the learner binds.
    """

    aliases: dict[str, str]
    used: frozenset[str]
    own: frozenset[str]

    @classmethod
    def of(cls, nodes: list[ast.AST]) -> Self:
        """Gather them from all nodes of a program."""
        aliases = {k: v for n in nodes if isinstance(n, (ast.Import, ast.ImportFrom)) for k, v in imported(n)}
        assigned = [n for n in nodes if isinstance(n, ast.Assign) and dotted(n.value)]
        for _ in range(3):  # through a few hands
            for node in assigned:
                for target in node.targets:
                    if isinstance(target, ast.Name) and (full := full_name(dotted(node.value), aliases)):
                        aliases.setdefault(target.id, ".".join(full))
        used = {n.id for n in nodes if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Load)}
        from_itself: set[str] = set()
        for binding in nodes:
            if isinstance(binding, (ast.Assign, ast.AnnAssign, ast.NamedExpr)) and binding.value is not None:
                stored = {n.id for n in ast.walk(binding) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}
                from_itself |= stored & {n.id for n in ast.walk(binding.value) if isinstance(n, ast.Name)}
        own = {n.id for n in nodes if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)} - from_itself
        own |= {n.arg for n in nodes if isinstance(n, ast.arg)}
        own |= {n.name for n in nodes if isinstance(n, ast.FunctionDef)}
        own |= {local for n in nodes if isinstance(n, (ast.Import, ast.ImportFrom)) for local, _ in imported(n)}
        return cls(aliases, frozenset(used), frozenset(own))

    def resolve(self, node: ast.expr) -> list[str]:
        """Return the full dotted name of an expression that begins with an import, and nothing for any other."""
        return full_name(dotted(node), self.aliases)


def full_name(parts: list[str], aliases: dict[str, str]) -> list[str]:
    """Put the full name of an import in place of its local one."""
    return aliases[parts[0]].split(".") + parts[1:] if parts and parts[0] in aliases else []


def imported(node: ast.Import | ast.ImportFrom) -> Iterator[tuple[str, str]]:
    """Yield (local name, full dotted name) of what an import binds."""
    for alias in node.names:
        if isinstance(node, ast.ImportFrom):
            yield alias.asname or alias.name, f"{node.module or ''}.{alias.name}"
        elif alias.asname:
            yield alias.asname, alias.name
        else:
            yield alias.name.split(".")[0], alias.name.split(".")[0]


def nodes_that_may_be_modules(nodes: list[ast.AST], known: Known) -> Iterator[ast.AST]:
    """Yield names that may stand for a module: behind any other name it would not be known.

    They may do so in `torch.nn`, `nn = torch.nn` and `hasattr(torch, ...)`; and a local variable may be called like
    a module without being one.
    """
    for node in nodes:
        if isinstance(node, ast.Attribute) or (
            isinstance(node, ast.Assign) and all(isinstance(target, ast.Name) for target in node.targets)
        ):
            yield node.value
        elif isinstance(node, ast.Call) and dotted(node.func) in (["getattr"], ["hasattr"]) and node.args:
            yield node.args[0]
        elif isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            yield from local_names(node.body, [node.args], known)
        elif isinstance(node, ast.Lambda):
            yield from local_names([node.body], [node.args], known)
        elif isinstance(node, (ast.ListComp, ast.SetComp, ast.GeneratorExp, ast.DictComp)):
            results = [node.key, node.value] if isinstance(node, ast.DictComp) else [node.elt]
            yield from local_names(results, [part.target for part in node.generators], known)
        if isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Load):
            yield node


def local_names(body: Sequence[ast.AST], binding: Sequence[ast.AST], known: Known) -> Iterator[ast.AST]:
    """Yield the names in a function's or comprehension's body that are local to it, and no other name of an import."""
    own = [n for part in (*body, *binding) for n in own_scope(part)]
    everywhere = [n for part in body for n in ast.walk(part)]
    bound = {n.arg for n in own if isinstance(n, ast.arg)}
    bound |= {n.id for n in own if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}
    bound -= {name for n in everywhere if isinstance(n, (ast.Global, ast.Nonlocal)) for name in n.names}
    renamed = [n for n in own if isinstance(n, ast.Assign) and known.resolve(n.value)]
    bound -= {t.id for n in renamed for t in n.targets if isinstance(t, ast.Name)}
    yield from (n for n in everywhere if isinstance(n, ast.Name) and n.id in bound)


def own_scope(node: ast.AST) -> Iterator[ast.AST]:
    """Walk a syntax tree without the insides of functions and comprehensions."""
    todo = [node]
    while todo:
        found = todo.pop()
        yield found
        if not isinstance(found, SCOPES):
            todo += ast.iter_child_nodes(found)


def is_module(full: list[str]) -> bool:
    """Whether a full dotted name is a module's, as far as its package is loaded here."""
    if not full or full[0] not in sys.modules:
        return len(full) == 1
    found: object = sys.modules[full[0]]
    for part in full[1:]:
        found = vars(found).get(part) if isinstance(found, types.ModuleType) else None
    return isinstance(found, types.ModuleType)


def constant_text(node: ast.expr) -> str:
    """Return the text of a constant, or of constants put together with +."""
    parts: list[str] = []
    while isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        parts.append(constant_text(node.right))
        node = node.left
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        parts.append(node.value)
    return "".join(reversed(parts))


def dotted(node: ast.expr) -> list[str]:
    """Return ["a", "b", "c"] for the expression a.b.c, and nothing for any other."""
    parts: list[str] = []
    while isinstance(node, ast.Attribute):
        parts.append(node.attr)
        node = node.value
    return [node.id, *reversed(parts)] if isinstance(node, ast.Name) else []
