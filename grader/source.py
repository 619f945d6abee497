"""What a learner's source may not contain: forbidden torch names, detours around torch, and ways into the grader."""

from __future__ import annotations

import ast
import builtins
import sys
import types
from collections.abc import Iterator
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
    "attrgetter methodcaller".split()
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
        own = {n.arg for n in nodes if isinstance(n, ast.arg)} | {
            n.name for n in nodes if isinstance(n, ast.FunctionDef)
        }
        own |= {
            target.id
            for n in nodes
            if isinstance(n, ast.Assign)
            for target in n.targets
            if isinstance(target, ast.Name)
            and target.id not in {m.id for m in ast.walk(n.value) if isinstance(m, ast.Name)}
        }
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
    bases = {id(n.value) for n in nodes if isinstance(n, ast.Attribute)}
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
        elif isinstance(node, (ast.Constant, ast.BinOp)) and (text := constant_text(node)) in FRAME_NAMES:
            yield text, node.lineno
        if isinstance(node, (ast.Name, ast.Attribute)) and id(node) not in bases and passes_module(node, nodes, known):
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
    if name in FRAME_NAMES or name in SYSTEM:
        yield name, line


def bad_torch_parts(parts: list[str], patterns: tuple[str, ...], line: int) -> Iterator[tuple[str, int]]:
    """Yield the forbidden components of a dotted name below torch."""
    for part in parts:
        private = part.startswith("_") and not part.startswith("__")
        named = patterns and (matches(part, patterns) or matches(part.lower(), patterns))
        if part in FORBIDDEN_TORCH or private or named:
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
    """Whether an attribute's name is put together: `f"weight_l{k}"` is honest, its beginning is there to read."""
    if isinstance(name, ast.Constant) and name.value in FRAME_NAMES:
        return True
    if isinstance(name, ast.JoinedStr) and isinstance(name.values[0], ast.Constant):
        return not str(name.values[0].value)[:1].isalpha()
    return not isinstance(name, (ast.Constant, ast.Name))


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


def passes_module(node: ast.Name | ast.Attribute, nodes: list[ast.AST], known: Known) -> bool:
    """Whether a module is used as a value, other than in `nn = torch.nn`: behind another name it would not be known."""
    full = known.resolve(node)
    if not isinstance(node.ctx, ast.Load) or not is_module(full):
        return False
    plain = [n.value for n in nodes if isinstance(n, ast.Assign) and all(isinstance(t, ast.Name) for t in n.targets)]
    first = [n.args[0] for n in nodes if isinstance(n, ast.Call) and dotted(n.func) == ["getattr"] and n.args]
    return not any(node is value for value in plain + first)


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
    if isinstance(node, ast.Constant):
        return node.value if isinstance(node.value, str) else ""
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        return constant_text(node.left) + constant_text(node.right)
    return ""


def dotted(node: ast.expr) -> list[str]:
    """Return ["a", "b", "c"] for the expression a.b.c, and nothing for any other."""
    parts: list[str] = []
    while isinstance(node, ast.Attribute):
        parts.append(node.attr)
        node = node.value
    return [node.id, *reversed(parts)] if isinstance(node, ast.Name) else []
