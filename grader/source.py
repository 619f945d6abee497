"""What a learner's source may not contain: forbidden torch names, detours around torch, and ways into the grader."""

from __future__ import annotations

import ast
import builtins
from collections.abc import Iterator
from itertools import pairwise

from grader.names import expand, matches
from grader.parsing import parse
from grader.reading import Use
from grader.scopes import Known, constant_text, dotted, imported, is_module, nodes_that_may_be_modules
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
