"""What a learner's source may not contain: forbidden torch names, detours around torch, and ways into the grader."""

from __future__ import annotations

import ast
import builtins
from collections.abc import Iterator
from dataclasses import dataclass

from grader.bindings import Bindings
from grader.faults import Found, bad_name, bad_torch_parts, faults
from grader.modules import is_module, names_of
from grader.names import expand
from grader.parsing import parse
from grader.permitted import (
    FORBIDDEN_CALLS,
    FRAME_NAMES,
    MATCHED_WHOLE,
    ONLY_CALLED,
)
from grader.reading import Use
from grader.scopes import Known, dotted, imported, modules_as_values, own_scope
from grader.slicing import Program
from grader.stores import bad_stores, is_own, methods
from grader.written import ends


@dataclass(frozen=True, slots=True)
class Look:
    """What has to be known of a program to judge a part of it.

    Args:
        known: what its names stand for.
        bindings: what they are bound to.
        patterns: what the exercise forbids.
        number: the number of the statement at hand.
    """

    known: Known
    bindings: Bindings
    patterns: tuple[str, ...]
    number: int = 0


def scan(program: Program, forbid: tuple[str, ...]) -> list[Use]:
    """Return what in a program's source is forbidden, with cell and line."""
    found: dict[str, Use] = {}
    trees = [(label, with_annotations(parse(text))) for label, text in program.parts]
    statements = [(label, statement) for label, tree in trees for statement in tree.body]
    known = Known.of([statement for _, statement in statements])
    bindings = Bindings.of([node for _, statement in statements for node in ast.walk(statement)], known)
    patterns = expand(forbid)
    for number, (label, statement) in enumerate(statements):
        for name, line in scan_statement(statement, Look(known, bindings, patterns, number)):
            found.setdefault(name, Use(name, label, line))
    return list(found.values())


def with_annotations(tree: ast.Module) -> ast.Module:
    """Read the texts in annotations as what they are, code: `singledispatch`, for one, runs them.

    A single name does nothing; as in `Literal["sum"]`, it may be no code at all.
    """
    todo: list[ast.AST] = list(notes_of(tree))
    while todo:
        for node in ast.walk(todo.pop()):
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and not node.value.isidentifier():
                read = read_annotation(node)
                tree.body[:0] = read  # before all: a name that is bound later is not the learner's yet
                todo += read
    return tree


def read_annotation(node: ast.Constant) -> list[ast.stmt]:
    """Parse a text in an annotation, as if it stood where the text stands; what is no code is nothing."""
    try:
        read = parse(str(node.value).strip())
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return []
    for inner in ast.walk(read):
        ast.copy_location(inner, node)
    return read.body


def notes_of(tree: ast.Module) -> Iterator[ast.expr]:
    """Yield the annotations in a tree."""
    for node in ast.walk(tree):
        if isinstance(node, (ast.arg, ast.AnnAssign)) and node.annotation:
            yield node.annotation
        elif isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) and node.returns:
            yield node.returns


def scan_statement(statement: ast.stmt, look: Look) -> Found:
    """Yield forbidden things in one statement."""
    nodes = list(ast.walk(statement))
    called = {id(n.func) for n in nodes if isinstance(n, ast.Call)}
    left = {id(n.left) for n in nodes if isinstance(n, ast.BinOp)}
    for node in nodes:
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            yield from bad_import(node, look)
        elif isinstance(node, ast.ClassDef):
            yield from bad_class(node)
        elif isinstance(node, ast.Name):
            yield from bad_plain_name(node, look, is_called=id(node) in called)
        elif isinstance(node, ast.Call):
            yield from bad_call(node, look)
        elif isinstance(node, ast.Attribute):
            yield from bad_attribute(node, look)
        elif isinstance(node, ast.MatchClass):
            yield from bad_pattern(node, look)
        elif isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) and node.name in FRAME_NAMES | {"__rmod__"}:
            yield node.name, node.lineno
        elif isinstance(node, (ast.Constant, ast.BinOp, ast.JoinedStr)) and id(node) not in left:
            yield from ((text, node.lineno) for text in look.bindings.texts_of(node) or () if text in FRAME_NAMES)
    for module in modules_as_values(nodes, look.known):
        yield f"{'.'.join(dotted(module))} as a value", module.lineno


def bad_import(node: ast.Import | ast.ImportFrom, look: Look) -> Found:
    """Yield an import that is not allowed; one that is never used is."""
    for local, full in imported(node):
        if local in look.known.used:
            yield from faults(full.split("."), look.patterns, node.lineno)
    for alias in node.names:
        module = (getattr(node, "module", None) or "").split(".")
        if alias.name == "*" and not any(names_of(module)):
            yield f"from {'.'.join(module)} import *", node.lineno


def bad_class(node: ast.ClassDef) -> Found:
    """Yield imports in a class: they would be attributes of it, and not known as modules any more."""
    for part in node.body:
        for inner in own_scope(part):
            if isinstance(inner, (ast.Import, ast.ImportFrom)):
                yield "import in a class", inner.lineno


def bad_plain_name(node: ast.Name, look: Look, *, is_called: bool) -> Found:
    """Yield a built-in function that tensor code has no use for; the learner's own may be called like one."""
    if node.id in FRAME_NAMES:
        yield node.id, node.lineno
    if not isinstance(node.ctx, ast.Load) or is_learners(node, look):
        return
    harmless = (node.id == "vars" and is_called) or (node.id == "locals" and id(node) in look.known.bare)
    if (node.id in FORBIDDEN_CALLS and not harmless) or (node.id in ONLY_CALLED and not is_called):
        yield node.id, node.lineno


def is_learners(node: ast.Name, look: Look) -> bool:
    """Whether a name is the learner's own where it stands: local, or bound by an earlier statement."""
    return id(node) in look.known.places or look.known.since.get(node.id, look.number) < look.number


def bad_call(node: ast.Call, look: Look) -> Found:
    """Yield calls whose arguments decide what they reach: getattr and its like, vars, type."""
    name = node.func.id if isinstance(node.func, ast.Name) and not is_learners(node.func, look) else ""
    plain = not node.keywords and not any(isinstance(a, ast.Starred) for a in node.args)
    if (name == "vars" and not (plain and len(node.args) == 1)) or (
        name == "type" and not (plain and len(node.args) == 1)
    ):
        yield name, node.lineno
    elif name in ONLY_CALLED:
        yield from bad_reach(node, look, name) if plain and len(node.args) > 1 else [(name, node.lineno)]


def bad_reach(node: ast.Call, look: Look, name: str) -> Found:
    """Yield getattr, setattr or delattr with a name that is not known, or that may not be used as an attribute."""
    owner, attribute = node.args[:2]
    for form in look.bindings.forms_of(attribute) or [attribute]:
        texts = look.bindings.texts_of(form)
        if texts is None and not is_harmless(owner, form, look, reads=name == "getattr"):
            yield name, node.lineno
        for text in texts or ():
            context = ast.Load() if name == "getattr" else ast.Store()
            written = ast.copy_location(ast.Attribute(owner, text, context), node)
            yield from bad_attribute(written, look)
            if is_module(look.known.resolve(written)):
                yield f"{text} as a value", node.lineno


def is_harmless(owner: ast.expr, attribute: ast.expr, look: Look, *, reads: bool) -> bool:
    """Whether the written beginning and end of an attribute's name rule out all that may not be reached.

    What is set on an object of the learner's own needs no name that is known.
    """
    if look.known.resolve(owner) or (isinstance(owner, ast.Name) and hasattr(builtins, owner.id)):
        return False
    if not reads and is_own(owner, look.bindings):
        return True
    start, end = ends(attribute, look.known)
    bad = FRAME_NAMES | {"__class__", "__dict__"} | (frozenset() if reads else methods())
    return not any(name.startswith(start) and name.endswith(end) for name in bad)


def bad_attribute(node: ast.Attribute, look: Look) -> Found:
    """Yield a forbidden attribute: of torch or one of its modules, a patched one, one that leads to the system."""
    full = look.known.resolve(node)
    if full:
        yield from faults(full, look.patterns, node.lineno)
    elif node.attr in FRAME_NAMES or not dotted(node):  # `self.gc` may be a gate
        yield from bad_name(node.attr, node.lineno)
        if node.attr in ("_C", "_VF"):
            yield node.attr, node.lineno
    patched = not isinstance(node.ctx, ast.Load)
    if full and ((patched and "backends" not in full) or "__dict__" in full):
        yield f"{'.'.join(full)} changed" if patched else "__dict__", node.lineno
    elif patched:
        yield from ((name, node.lineno) for name in bad_stores(node.value, frozenset([node.attr]), look.bindings))
    if node.attr in ("__setattr__", "__delattr__") and not full and not is_base(node.value, look.known):
        yield node.attr, node.lineno


def is_base(node: ast.expr, known: Known) -> bool:
    """Whether an expression is `super()` or `object`: what sets attributes for them sets none of classes."""
    is_super = isinstance(node, ast.Call) and known.is_builtin(node.func, "super")
    return is_super or known.is_builtin(node, "object")


def bad_pattern(node: ast.MatchClass, look: Look) -> Found:
    """Yield attributes that a class pattern reads: by keyword as anywhere, by position only of Python's own types."""
    for name in node.kwd_attrs:
        yield from bad_name(name, node.lineno)
        yield from bad_torch_parts([name], look.patterns, node.lineno)
    if node.patterns and dotted(node.cls) not in [[name] for name in MATCHED_WHOLE]:
        yield "a class pattern without names", node.lineno
