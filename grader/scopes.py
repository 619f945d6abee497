"""What the names in a learner's source stand for: imports, modules under other names, local variables."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Self

from grader.modules import is_module, names_of

FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)
COMPREHENSIONS = (ast.ListComp, ast.SetComp, ast.GeneratorExp, ast.DictComp)
SCOPES = (*FUNCTIONS, *COMPREHENSIONS, ast.ClassDef)
Around = dict[str, int]
"""Local names that are seen from a place, with the id of the function or comprehension whose they are."""


@dataclass(frozen=True, slots=True)
class Known:
    """What the names of a program stand for, wherever in it they are bound.

    Args:
        aliases: full dotted names by local name, of what was imported or assigned from that: `nn = torch.nn`.
        used: names that are read somewhere.
        own: names that the program binds anywhere.
        since: names that the program binds at its top for good, with the number of the statement that does.
        places: for the id of a name's node that is local to a function or comprehension, the id of that one's.
        bare: ids of name nodes inside functions that hold no modules.
        selves: first arguments of methods, each with the id of its function.
    """

    aliases: dict[str, str]
    used: frozenset[str]
    own: frozenset[str]
    since: dict[str, int]
    places: dict[int, int]
    bare: frozenset[int]
    selves: frozenset[tuple[int, str]]

    @classmethod
    def of(cls, statements: list[ast.stmt]) -> Self:
        """Gather them from the statements of a program."""
        nodes = [node for statement in statements for node in ast.walk(statement)]
        aliases = aliases_of(nodes)
        used = {n.id for n in nodes if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Load)}
        places, bare = local_names(statements, nodes, aliases)
        methods = [f for n in nodes if isinstance(n, ast.ClassDef) for f in n.body if isinstance(f, FUNCTIONS)]
        selves = {(id(f), a.arg) for f in methods for a in (*f.args.posonlyargs, *f.args.args)[:1]}
        own = stored(nodes) | named_otherwise(nodes) | {n.arg for n in nodes if isinstance(n, ast.arg)} | {*aliases}
        since = since_when(statements, nodes)
        return cls(aliases, frozenset(used), frozenset(own), since, places, bare, frozenset(selves))

    def is_builtin(self, node: ast.expr, *names: str) -> bool:
        """Whether an expression is one of these built-in functions, and not an own one of that name."""
        return isinstance(node, ast.Name) and node.id in names and node.id not in self.own

    def key(self, name: ast.Name) -> tuple[int, str]:
        """Return where a name is local, 0 for nowhere, and the name."""
        return self.places.get(id(name), 0), name.id

    def resolve(self, node: ast.expr) -> list[str]:
        """Return the full dotted name of an expression that begins with an import, and nothing for any other."""
        base = node
        while isinstance(base, ast.Attribute):
            base = base.value
        return [] if id(base) in self.places else full_name(dotted(node), self.aliases)


def aliases_of(nodes: list[ast.AST]) -> dict[str, str]:
    """Return what was imported, and what was assigned from that, through a few hands."""
    aliases = {k: v for n in nodes if isinstance(n, (ast.Import, ast.ImportFrom)) for k, v in imported(n)}
    assigned = [pair for n in nodes if isinstance(n, ast.Assign) for pair in pairs(n) if dotted(pair[1])]
    for _ in range(3):
        for target, value in assigned:
            if full := full_name(dotted(value), aliases):
                aliases.setdefault(target.id, ".".join(full))
    return aliases


def full_name(parts: list[str], aliases: dict[str, str]) -> list[str]:
    """Put the full name of an import in place of its local one."""
    return aliases[parts[0]].split(".") + parts[1:] if parts and parts[0] in aliases else []


def imported(node: ast.Import | ast.ImportFrom) -> Iterator[tuple[str, str]]:
    """Yield (local name, full dotted name) of what an import binds."""
    for alias in node.names:
        if isinstance(node, ast.ImportFrom) and alias.name == "*":
            module = node.module or ""
            yield from ((name, f"{module}.{name}") for name in names_of(module.split(".")))
        elif isinstance(node, ast.ImportFrom):
            yield alias.asname or alias.name, f"{node.module or ''}.{alias.name}"
        elif alias.asname:
            yield alias.asname, alias.name
        else:
            yield alias.name.split(".")[0], alias.name.split(".")[0]


def pairs(node: ast.Assign) -> Iterator[tuple[ast.Name, ast.expr]]:
    """Yield (name, value) of an assignment, also of `a, b = x, y`."""
    for target in node.targets:
        if isinstance(target, ast.Name):
            yield target, node.value
        elif isinstance(target, (ast.Tuple, ast.List)) and isinstance(node.value, (ast.Tuple, ast.List)):
            both = [*target.elts, *node.value.elts]
            if len(target.elts) == len(node.value.elts) and not any(isinstance(n, ast.Starred) for n in both):
                couples = zip(target.elts, node.value.elts, strict=True)
                yield from ((name, value) for name, value in couples if isinstance(name, ast.Name))


def since_when(statements: list[ast.stmt], nodes: list[ast.AST]) -> dict[str, int]:
    """Return the names that are bound at the top of a program and never unbound, with the statement's number."""
    found: dict[str, int] = {}
    for number, node in enumerate(statements):
        names = [node.name] if isinstance(node, (ast.FunctionDef, ast.ClassDef)) else []
        names += [target.id for target, _ in pairs(node)] if isinstance(node, ast.Assign) else []
        for name in names:
            found.setdefault(name, number)
    gone = {n.id for n in nodes if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Del)}
    gone |= {n.name for n in nodes if isinstance(n, ast.ExceptHandler) and n.name}
    return {name: number for name, number in found.items() if name not in gone}


def local_names(
    statements: list[ast.stmt], nodes: list[ast.AST], aliases: dict[str, str]
) -> tuple[dict[int, int], frozenset[int]]:
    """Return where each local name's node is local, and the name nodes inside functions that hold no modules."""
    shared = {name for n in nodes if isinstance(n, (ast.Global, ast.Nonlocal)) for name in n.names}
    places: dict[int, int] = {}
    bare: set[int] = set()
    todo: list[tuple[ast.AST, Around, frozenset[bool]]] = [(node, {}, frozenset()) for node in statements]
    while todo:
        node, around, holding = todo.pop()  # whether each function around holds modules
        if isinstance(node, ast.Name):
            if node.id in around:
                places[id(node)] = around[node.id]
            if holding == {False}:
                bare.add(id(node))
        outside, inside = split(node)
        todo += ((child, around, holding) for child in outside)
        if inside:
            own, held = bound(node, aliases)
            around = {name: place for name, place in around.items() if name not in held}
            around |= dict.fromkeys(own - held - shared, id(node))
            holding |= {bool(held)} if isinstance(node, FUNCTIONS) else set()
            todo += ((child, around, holding) for child in inside)
    return places, frozenset(bare)


def split(node: ast.AST) -> tuple[list[ast.AST], list[ast.AST]]:
    """Return the parts of a node that are run around it, and those that are run in a scope of its own."""
    if isinstance(node, FUNCTIONS):
        notes = [a.annotation for a in arguments(node.args) if a.annotation]
        defaults = [d for d in (*node.args.defaults, *node.args.kw_defaults) if d]
        if isinstance(node, ast.Lambda):
            return [*defaults], [node.body]
        return [*notes, *defaults, *node.decorator_list, *([node.returns] if node.returns else [])], [*node.body]
    if isinstance(node, COMPREHENSIONS):
        first, *others = node.generators
        results = [node.key, node.value] if isinstance(node, ast.DictComp) else [node.elt]
        return [first.iter], [*results, first.target, *first.ifs, *others]
    return list(ast.iter_child_nodes(node)), []


def arguments(args: ast.arguments) -> list[ast.arg]:
    """Return all parameters of a function."""
    rest = [a for a in (args.vararg, args.kwarg) if a]
    return [*args.posonlyargs, *args.args, *args.kwonlyargs, *rest]


def bound(node: ast.AST, aliases: dict[str, str]) -> tuple[set[str], set[str]]:
    """Return the names that a function or comprehension binds for itself, and those of them that hold imports."""
    if isinstance(node, COMPREHENSIONS):
        return {n for part in node.generators for n in stored(ast.walk(part.target))}, set()
    assert isinstance(node, FUNCTIONS)
    body = [node.body] if isinstance(node, ast.Lambda) else node.body
    own = [n for part in body for n in own_scope(part)]
    names = {a.arg for a in arguments(node.args)} | stored(own) | named_otherwise(own)
    renamed = [pair for n in own if isinstance(n, ast.Assign) for pair in pairs(n)]
    held = {target.id for target, value in renamed if full_name(dotted(value), aliases)}
    held |= {k for n in own if isinstance(n, (ast.Import, ast.ImportFrom)) for k, _ in imported(n)}
    return names, held


def stored(nodes: Iterable[ast.AST]) -> set[str]:
    """Return the names that are assigned to."""
    return {n.id for n in nodes if isinstance(n, ast.Name) and not isinstance(n.ctx, ast.Load)}


def named_otherwise(nodes: Iterable[ast.AST]) -> set[str]:
    """Return the names that are bound by definitions, handlers and patterns."""
    named = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.ExceptHandler, ast.MatchAs, ast.MatchStar)
    found = {n.name for n in nodes if isinstance(n, named) and n.name}
    return found | {n.rest for n in nodes if isinstance(n, ast.MatchMapping) and n.rest}


def own_scope(node: ast.AST) -> Iterator[ast.AST]:
    """Walk a syntax tree without the insides of functions, comprehensions and classes."""
    todo = [node]
    while todo:
        found = todo.pop()
        yield found
        if not isinstance(found, SCOPES):
            todo += ast.iter_child_nodes(found)


def modules_as_values(nodes: list[ast.AST], known: Known) -> Iterator[ast.Name | ast.Attribute]:
    """Yield names of modules where the module could get behind a name that would not be known.

    It does not in `torch.nn`, `nn = torch.nn`, `hasattr(torch, ...)` and `torch is None`.
    """
    fine = {id(n) for n in nodes_that_may_be_modules(nodes, known)}
    for node in nodes:
        if id(node) in fine or not isinstance(node, (ast.Name, ast.Attribute)):
            continue
        if isinstance(node.ctx, ast.Load) and is_module(known.resolve(node)):
            yield node


def nodes_that_may_be_modules(nodes: list[ast.AST], known: Known) -> Iterator[ast.AST]:
    """Yield what may be a module where it stands: it stays known as one. A class would keep it as `A.torch`."""
    in_classes = {
        id(n) for node in nodes if isinstance(node, ast.ClassDef) for part in node.body for n in own_scope(part)
    }
    for node in nodes:
        if isinstance(node, ast.Attribute):
            yield node.value
        elif isinstance(node, ast.Assign) and id(node) not in in_classes:
            yield from [value for _, value in pairs(node)] if stays_known(node) else []
        elif isinstance(node, ast.Call) and known.is_builtin(node.func, "getattr", "hasattr") and node.args:
            yield node.args[0]
        elif isinstance(node, ast.Compare) and all(isinstance(op, (ast.Is, ast.IsNot)) for op in node.ops):
            yield from (node.left, *node.comparators)


def stays_known(node: ast.Assign) -> bool:
    """Whether all that is assigned gets a name of its own: not in `f.torch = nn = torch`, `both = a, b = torch, nn`."""
    parts = [target.elts if isinstance(target, (ast.Tuple, ast.List)) else [target] for target in node.targets]
    alike = len({isinstance(target, ast.Name) for target in node.targets}) == 1
    return alike and all(isinstance(part, ast.Name) for elements in parts for part in elements)


def dotted(node: ast.expr) -> list[str]:
    """Return ["a", "b", "c"] for the expression a.b.c, and nothing for any other."""
    parts: list[str] = []
    while isinstance(node, ast.Attribute):
        parts.append(node.attr)
        node = node.value
    return [node.id, *reversed(parts)] if isinstance(node, ast.Name) else []
