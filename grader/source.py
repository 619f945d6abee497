"""What a learner's source may not contain: forbidden torch names, detours around torch, and ways into the grader."""

from __future__ import annotations

import ast
import builtins
import sys
import types
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Self

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
REBOUND = frozenset(["compile", "vars", "open", "input"])
"""Of these, ordinary words: a learner's own variable may be called so."""
SYSTEM = frozenset(
    "sys os builtins importlib threading _thread inspect gc ctypes subprocess multiprocessing concurrent marshal "
    "attrgetter methodcaller get_type_hints ForwardRef Formatter get_field".split()
)
"""Ways out of tensor code, under whatever module they are found."""
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
        "overrides",
        "_python_dispatch",
    ]
)
SCOPES = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda, ast.ListComp, ast.SetComp, ast.GeneratorExp, ast.DictComp)
HELPERS = frozenset("_single _pair _triple _quadruple _size_1_t _size_2_t _size_3_t".split())
"""Private names of torch that honest layers import."""
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
        "f_builtins",
        "f_code",
        "__torch_dispatch__",
        "__torch_function__",
        "__getattribute__",
    ]
)


def scan(program: Program, forbid: tuple[str, ...]) -> list[Use]:
    """Return what in a program's source is forbidden, with cell and line."""
    found: dict[str, Use] = {}
    parts = [(label, list(ast.walk(parse(text)))) for label, text in program.parts]
    known = Known.of([node for _, nodes in parts for node in nodes])
    for label, nodes in parts:
        for name, line in scan_part(nodes, known, expand(forbid)):
            found.setdefault(name, Use(name, label, line))
    return list(found.values())


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
        own |= {n.arg for n in nodes if isinstance(n, ast.arg)} | {
            n.name for n in nodes if isinstance(n, ast.FunctionDef)
        }
        own |= {local for n in nodes if isinstance(n, (ast.Import, ast.ImportFrom)) for local, _ in imported(n)}
        return cls(aliases, frozenset(used), frozenset(own))

    def resolve(self, node: ast.expr) -> list[str]:
        """Return the full dotted name of an expression that begins with an import, and nothing for any other."""
        return full_name(dotted(node), self.aliases)


def full_name(parts: list[str], aliases: dict[str, str]) -> list[str]:
    """Put the full name of an import in place of its local one."""
    return aliases[parts[0]].split(".") + parts[1:] if parts and parts[0] in aliases else []


def scan_part(nodes: list[ast.AST], known: Known, patterns: tuple[str, ...]) -> Iterator[tuple[str, int]]:
    """Yield (name, line) of forbidden things in one part."""
    for node in nodes:
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            for local, full in imported(node):
                if local in known.used:
                    yield from bad_import(full, patterns, node.lineno)
    defaults = {id(d) for n in nodes if isinstance(n, ast.arguments) for d in (*n.defaults, *n.kw_defaults)}
    called = {id(n.func) for n in nodes if isinstance(n, ast.Call)}
    left = {id(n.left) for n in nodes if isinstance(n, ast.BinOp)}
    plain = {id(n) for n in nodes_that_may_be_modules(nodes, known)}
    for node in nodes:
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load):
            rebound = node.id in REBOUND and node.id in known.own and id(node) not in defaults
            if (node.id in FORBIDDEN_CALLS and not rebound) or (node.id == "getattr" and id(node) not in called):
                yield node.id, node.lineno
        elif isinstance(node, ast.Call):
            yield from bad_call(node, known)
        elif isinstance(node, ast.Attribute):
            yield from bad_attribute(node, known, patterns)
        elif isinstance(node, ast.MatchClass):
            for name in node.kwd_attrs:
                yield from bad_name(name, node.lineno)
                yield from bad_torch_parts([name], patterns, node.lineno)
        elif isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            yield from bad_name(node.name, node.lineno)
        elif isinstance(node, (ast.Constant, ast.BinOp)) and id(node) not in left:
            yield from ((text, node.lineno) for text in [constant_text(node)] if text in FRAME_NAMES)
        if isinstance(node, (ast.Name, ast.Attribute)) and id(node) not in plain and is_module(known.resolve(node)):
            yield f"{'.'.join(dotted(node))} as a value", node.lineno


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
    for part in parts[1:]:
        yield from bad_name(part, line)


def bad_name(name: str, line: int) -> Iterator[tuple[str, int]]:
    """Yield a name that leads to frames, code or the system, whatever it is a name of."""
    if name in FRAME_NAMES or name in SYSTEM or name.lstrip("_") in SYSTEM:
        yield name, line


def bad_torch_parts(parts: list[str], patterns: tuple[str, ...], line: int) -> Iterator[tuple[str, int]]:
    """Yield the forbidden components of a dotted name below torch."""
    for part in parts:
        private = part.startswith("_") and not part.startswith("__")
        named = patterns and (matches(part, patterns) or matches(part.lower(), patterns))
        if part in FORBIDDEN_TORCH or (private and part not in HELPERS) or named:
            yield ".".join(["torch", *parts]), line
            return


def bad_call(node: ast.Call, known: Known) -> Iterator[tuple[str, int]]:
    """Yield getattr with a computed name, or with any but a written one of an import; setattr on an import."""
    name = node.func.id if isinstance(node.func, ast.Name) else ""
    if name not in ("getattr", "setattr", "delattr") or len(node.args) < 2:
        return
    owner, attribute = node.args[:2]
    of_import = bool(known.resolve(owner)) or (isinstance(owner, ast.Name) and hasattr(builtins, owner.id))
    written = str(attribute.value) if isinstance(attribute, ast.Constant) else ""
    if (of_import and not (written and name == "getattr")) or is_computed(attribute):
        yield name, node.lineno
    elif of_import:
        yield from bad_torch_parts([written], (), node.lineno)
        yield from bad_name(written, node.lineno)
        if is_module([*known.resolve(owner), written]):
            yield f"{written} as a value", node.lineno


def is_computed(name: ast.expr) -> bool:
    """Whether the written parts of an attribute's name point at Python's own: `f"weight_l{k}"` is honest."""
    texts = [n.value for n in ast.walk(name) if isinstance(n, ast.Constant) and isinstance(n.value, str)]
    return any("__" in text or text in FRAME_NAMES for text in [*texts, constant_text(name)])


def bad_attribute(node: ast.Attribute, known: Known, patterns: tuple[str, ...]) -> Iterator[tuple[str, int]]:
    """Yield a forbidden attribute: of torch or one of its modules, a patched one, one that leads to the system."""
    full = known.resolve(node)
    if node.attr in FRAME_NAMES or full or not dotted(node):  # `self.gc` may be a gate
        yield from bad_name(node.attr, node.lineno)
    if not full:
        return
    if full[0] == "torch" and not any(a == "Tensor" and b == "unfold" for a, b in pairwise(full)):
        yield from bad_torch_parts(full[1:], patterns, node.lineno)
    patched = not isinstance(node.ctx, ast.Load) and "backends" not in full
    if patched or "__dict__" in full:
        yield f"{'.'.join(full)} changed" if patched else "__dict__", node.lineno


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
