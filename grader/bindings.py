"""What the names of a program are bound to, as far as the source shows it: `getattr(self, name)` needs to be known."""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Self

from grader.scopes import COMPREHENSIONS, FUNCTIONS, Known, arguments, imported, named_otherwise, own_scope, pairs
from grader.written import MANY, Texts, pieces_of, together

DEEP = 12
Key = tuple[int, str]


@dataclass(frozen=True, slots=True)
class Part:
    """One of the values that a loop goes through, or what stands in it at a place."""

    of: ast.expr
    path: tuple[int, ...] = ()


Value = ast.expr | Part | None
"""What a name is bound to; None for what cannot be told."""


@dataclass(frozen=True, slots=True)
class Bindings:
    """What each name of a program is bound to.

    Args:
        known: what its names stand for.
        values: by place and name, all that it is bound to; None for what cannot be told.
        opaque: names that are bound by definitions, imports, patterns and the like.
        changing: by place and name, what is used otherwise than to go through it: a list may grow by that.
        defined: names of functions and classes.
        classes: names of classes.
    """

    known: Known
    values: dict[Key, list[Value]]
    opaque: frozenset[str]
    changing: frozenset[Key]
    defined: frozenset[str]
    classes: frozenset[str]
    _forms: dict[Key, list[ast.expr] | None] = field(default_factory=dict)
    _texts: dict[Key, Texts] = field(default_factory=dict)

    @classmethod
    def of(cls, nodes: list[ast.AST], known: Known) -> Self:
        """Gather them from all nodes of a program."""
        values: dict[Key, list[Value]] = {}
        told: set[int] = set()
        for name, value in (pair for node in nodes for pair in told_bindings(node)):
            values.setdefault(known.key(name), []).append(value)
            told.add(id(name))
        for node in nodes:
            if isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Load) and id(node) not in told:
                values.setdefault(known.key(node), []).append(None)
        for key, given in arguments_given(nodes):
            values.setdefault(key, []).extend(given)
        gone = gone_through(nodes)
        loads = [n for n in nodes if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Load)]
        changing = frozenset(known.key(n) for n in loads if id(n) not in gone)
        classes = frozenset(n.name for n in nodes if isinstance(n, ast.ClassDef))
        functions = frozenset(n.name for n in nodes if isinstance(n, (ast.FunctionDef, ast.AsyncFunctionDef)))
        return cls(known, values, bound_otherwise(nodes), changing, classes | functions, classes)

    def of_name(self, name: ast.Name) -> list[Value]:
        """Return all that a name is bound to."""
        return [None] if name.id in self.opaque else self.values.get(self.known.key(name), [None])

    def forms_of(self, node: Value, depth: int = 0) -> list[ast.expr] | None:
        """Return all that an expression can be, names and loops followed to what is written; None if not known."""
        if node is None or depth > DEEP:
            return None
        if isinstance(node, ast.Name):
            key = self.known.key(node)
            if key not in self._forms:
                self._forms[key] = None  # while it is being found out: `a = a + "x"` has no end
                self._forms[key] = self.forms_of_all(self.of_name(node), depth)
            return self._forms[key]
        if isinstance(node, Part):
            return self.forms_of_all(self.parts_of(node, depth), depth)
        return self.forms_of_all([node.body, node.orelse], depth) if isinstance(node, ast.IfExp) else [node]

    def forms_of_all(self, nodes: list[Value], depth: int) -> list[ast.expr] | None:
        """Return all that several expressions can be."""
        every: list[ast.expr] = []
        for node in nodes:
            forms = self.forms_of(node, depth + 1)
            if forms is None or len(every) > MANY:
                return None
            every += forms
        return every

    def texts_of(self, node: ast.expr, depth: int = 0) -> Texts:
        """Return all texts that an expression can be; None if they are not known."""
        if isinstance(node, ast.Name):
            key = self.known.key(node)
            if key not in self._texts:
                self._texts[key] = None
                self._texts[key] = self.texts_of_all(self.forms_of(node), depth)
            return self._texts[key]
        if isinstance(node, ast.Constant):
            return frozenset([node.value]) if isinstance(node.value, str) else None
        if isinstance(node, ast.IfExp):
            return self.texts_of_all(self.forms_of(node), depth)
        pieces = pieces_of(node)
        if len(pieces) == 1 or depth > DEEP:
            return None
        return together([self.texts_of(piece, depth + 1) for piece in pieces])

    def texts_of_all(self, forms: list[ast.expr] | None, depth: int) -> Texts:
        """Return all texts that several expressions can be."""
        found = [self.texts_of(form, depth + 1) for form in forms or []]
        if forms is None or depth > DEEP or None in found:
            return None
        return frozenset(text for texts in found for text in texts or ())

    def parts_of(self, part: Part, depth: int) -> list[Value]:
        """Return what a loop goes through, at one place of each value, where that is written out."""
        whole, path = part.of, part.path
        if isinstance(whole, ast.Name):
            mutable = self.known.key(whole) in self.changing
            fixed = (ast.Tuple, ast.Constant) if mutable else (ast.Tuple, ast.Constant, ast.List, ast.Set, ast.Dict)
            values = self.of_name(whole)
            sure = depth < DEEP and all(isinstance(value, fixed) for value in values)
            return [Part(value, path) for value in values if isinstance(value, ast.expr)] if sure else [None]
        if isinstance(whole, ast.Constant) and isinstance(whole.value, str) and not path:
            return [ast.Constant(letter) for letter in whole.value]
        if isinstance(whole, (ast.Tuple, ast.List, ast.Set)):
            return [at(value, path) for value in whole.elts]
        if isinstance(whole, ast.Dict) and not path:
            return [*whole.keys]
        return [column_of(whole, path, self.known) if isinstance(whole, ast.Call) else None]


def column_of(call: ast.Call, path: tuple[int, ...], known: Known) -> Part | None:
    """Return what one variable of a loop gets of `enumerate(...)`, `zip(...)` and `d.items()`."""
    function = call.func
    if isinstance(function, ast.Attribute) and not call.args:
        if function.attr == "keys":
            return Part(function.value, path)
        return Part(function.value, path[1:]) if function.attr == "items" and path[:1] == (0,) else None
    columns: list[ast.expr | None] = []
    if known.is_builtin(function, "zip", "enumerate") and not call.keywords:
        columns = [*call.args] if known.is_builtin(function, "zip") else [None, *call.args]
    column = columns[path[0]] if path and path[0] < len(columns) else None
    return Part(column, path[1:]) if column is not None else None


def gone_through(nodes: list[ast.AST]) -> set[int]:
    """Return the ids of name nodes that a loop only goes through."""
    wholes = [part.of for node in nodes for _, part in told_bindings(node) if isinstance(part, Part)]
    ways = ("items", "keys", "values")
    methods = [w.func for w in wholes if isinstance(w, ast.Call) and isinstance(w.func, ast.Attribute)]
    return {id(whole) for whole in wholes} | {id(method.value) for method in methods if method.attr in ways}


def arguments_given(nodes: list[ast.AST]) -> Iterator[tuple[Key, list[Value]]]:
    """Yield (place and name, what it can be) of the parameters of functions: what their calls give them.

    That is known of a function that nothing but its own name leads to, and all it does is to be called. The grader
    gives what the contract says.
    """
    methods = {id(f) for n in nodes if isinstance(n, ast.ClassDef) for part in n.body for f in own_scope(part)}
    calls: dict[str, list[ast.Call]] = {}
    for node in nodes:
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            calls.setdefault(node.func.id, []).append(node)
    read = {n.id for n in nodes if isinstance(n, ast.Name)}
    called = {id(call.func) for group in calls.values() for call in group}
    values = {n.id for n in nodes if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Load) and id(n) not in called}
    counts = Counter(
        n.name for n in nodes if isinstance(n, (*FUNCTIONS, ast.ClassDef)) and not isinstance(n, ast.Lambda)
    )
    for node in nodes:
        if isinstance(node, FUNCTIONS):
            plain = isinstance(node, ast.FunctionDef) and not node.decorator_list and id(node) not in methods
            alone = plain and isinstance(node, ast.FunctionDef) and node.name not in values and counts[node.name] == 1
            given = calls.get(node.name, []) if alone and isinstance(node, ast.FunctionDef) else None
            every = arguments(node.args)
            sure = given is not None and "locals" not in read and len(given) * len(every) <= MANY * MANY
            for argument in every:
                yield (id(node), argument.arg), passed(node.args, argument, given or []) if sure else [None]


def passed(args: ast.arguments, argument: ast.arg, calls: list[ast.Call]) -> list[Value]:
    """Return what calls pass for a parameter, its default included."""
    places = [*args.posonlyargs, *args.args]
    if argument not in [*places, *args.kwonlyargs]:
        return [None]
    place = places.index(argument) if argument in places else len(places)
    found: list[Value] = [*args.defaults, *(default for default in args.kw_defaults if default)]
    for call in calls:
        if any(isinstance(a, ast.Starred) for a in call.args) or any(k.arg is None for k in call.keywords):
            return [None]
        found += call.args[place : place + 1] if argument in places else []
        found += [k.value for k in call.keywords if k.arg == argument.arg]
    return found


def bound_otherwise(nodes: list[ast.AST]) -> frozenset[str]:
    """Return the names that are bound by definitions, imports, patterns, or from other functions."""
    names = named_otherwise(nodes)
    names |= {name for n in nodes if isinstance(n, (ast.Global, ast.Nonlocal)) for name in n.names}
    return frozenset(names | {k for n in nodes if isinstance(n, (ast.Import, ast.ImportFrom)) for k, _ in imported(n)})


def told_bindings(node: ast.AST) -> Iterator[tuple[ast.Name, ast.expr | Part]]:
    """Yield (name, value) of what an assignment or a loop binds."""
    if isinstance(node, ast.Assign):
        yield from pairs(node)
    elif isinstance(node, (ast.AnnAssign, ast.NamedExpr)) and node.value and isinstance(node.target, ast.Name):
        yield node.target, node.value
    elif isinstance(node, ast.For):
        yield from unpacked(node.target, Part(node.iter))
    elif isinstance(node, COMPREHENSIONS):
        for part in node.generators:
            yield from unpacked(part.target, Part(part.iter))


def unpacked(target: ast.expr, part: Part) -> Iterator[tuple[ast.Name, Part]]:
    """Yield (name, what it gets) of the target of a loop."""
    if isinstance(target, ast.Name):
        yield target, part
    elif isinstance(target, ast.Tuple) and not any(isinstance(t, ast.Starred) for t in target.elts):
        for number, inner in enumerate(target.elts):
            yield from unpacked(inner, Part(part.of, (*part.path, number)))


def at(value: ast.expr, path: tuple[int, ...]) -> ast.expr | None:
    """Return what stands at a place in written tuples; None if there is nothing, or what cannot be told."""
    for number in path:
        if not isinstance(value, (ast.Tuple, ast.List)) or any(isinstance(v, ast.Starred) for v in value.elts):
            return None
        if number >= len(value.elts):
            return None
        value = value.elts[number]
    return value
