"""Mechanical mutants of a source text: one operator, constant, argument or method changed at a time."""

from __future__ import annotations

import ast
import copy
from collections.abc import Iterator
from dataclasses import dataclass

from grader.parsing import parse

SWAPS: dict[type[ast.AST], tuple[type[ast.AST], ...]] = {
    ast.Add: (ast.Sub,), ast.Sub: (ast.Add,), ast.Mult: (ast.Div,), ast.Div: (ast.Mult,), ast.FloorDiv: (ast.Mult,),
    ast.Mod: (ast.FloorDiv,), ast.Lt: (ast.LtE,), ast.LtE: (ast.Lt,), ast.Gt: (ast.GtE,), ast.GtE: (ast.Gt,),
    ast.Eq: (ast.NotEq,), ast.NotEq: (ast.Eq,), ast.And: (ast.Or,), ast.Or: (ast.And,), ast.BitAnd: (ast.BitOr,),
    ast.BitOr: (ast.BitAnd,), ast.Is: (ast.IsNot,), ast.IsNot: (ast.Is,),
}  # fmt: skip


METHODS = {
    "amax": "amin", "amin": "amax", "max": "min", "min": "max", "sum": "mean", "mean": "sum", "sin": "cos",
    "cos": "sin",
    "exp": "expm1", "log": "log1p", "tanh": "sigmoid", "sigmoid": "tanh", "relu": "abs", "tril": "triu", "triu": "tril",
    "zeros": "ones", "ones": "zeros", "new_zeros": "new_ones", "sqrt": "abs", "rsqrt": "reciprocal", "cat": "stack",
}  # fmt: skip


DROPPED_METHODS = frozenset(
    [
        "detach",
        "contiguous",
        "clone",
        "float",
        "to",
        "double",
        "abs",
        "exp",
        "log",
        "sqrt",
        "unsqueeze",
        "squeeze",
        "flip",
        "clamp",
        "clamp_min",
        "masked_fill",
        "T",
        "mT",
    ]
)


@dataclass(frozen=True, slots=True)
class Mutant:
    """One changed solution: what was changed, and the new source."""

    title: str
    source: str


def mutants(source: str) -> Iterator[Mutant]:
    """Yield every single-step mutant of a source text, each distinct."""
    tree = parse(source)
    original = ast.unparse(tree)
    seen = {original}
    for position, node in enumerate(ast.walk(tree)):
        for number in range(changes_of(node)):
            changed = copy.deepcopy(tree)
            target = list(ast.walk(changed))[position]
            title = apply_change(changed, target, number)
            try:
                text = ast.unparse(ast.fix_missing_locations(changed))
            except (ValueError, AttributeError, RecursionError):
                continue
            if title and text not in seen:
                seen.add(text)
                yield Mutant(f"line {getattr(node, 'lineno', '?')}: {title}", text)


def changes_of(node: ast.AST) -> int:
    """Return how many changes `apply_change` knows for a node at most."""
    if isinstance(node, ast.Call):
        return 3 + len(node.keywords)
    kinds = (ast.BinOp, ast.Compare, ast.BoolOp, ast.Constant, ast.UnaryOp, ast.If, ast.AugAssign, ast.IfExp)
    return 3 if isinstance(node, kinds) else 0


def apply_change(tree: ast.AST, node: ast.AST, number: int) -> str:
    """Change one node in place; returns what was done, or nothing where that change does not apply."""
    if isinstance(node, ast.BinOp):
        return change_operator(tree, node, number)
    if isinstance(node, ast.Compare):
        swap = SWAPS.get(type(node.ops[0])) if number == 0 else None
        if swap:
            node.ops[0] = swap[0]()  # type: ignore[call-overload]
            return "another comparison"
    if isinstance(node, ast.BoolOp) and number == 0:
        node.op = ast.Or() if isinstance(node.op, ast.And) else ast.And()
        return "and for or"
    if isinstance(node, ast.Constant):
        return change_constant(node, number)
    if isinstance(node, ast.UnaryOp) and number == 0:
        replace_node(tree, node, node.operand)
        return "a sign or not dropped"
    if isinstance(node, ast.If) and number < 2:
        node.test = ast.Constant(bool(number))
        return f"a condition always {bool(number)}"
    if isinstance(node, ast.IfExp) and number < 2:
        replace_node(tree, node, node.body if number else node.orelse)
        return "one side of a conditional expression"
    if isinstance(node, ast.AugAssign) and number == 0 and type(node.op) in SWAPS:
        node.op = SWAPS[type(node.op)][0]()  # type: ignore[assignment]
        return "another augmented assignment"
    if isinstance(node, ast.Call):
        return change_call(tree, node, number)
    return ""


def change_operator(tree: ast.AST, node: ast.BinOp, number: int) -> str:
    """Swap an operator, or drop one of its sides."""
    if number == 0 and type(node.op) in SWAPS:
        node.op = SWAPS[type(node.op)][0]()  # type: ignore[assignment]
        return "another operator"
    if number in (1, 2) and isinstance(node.op, (ast.Add, ast.Sub, ast.Mult, ast.Div)):
        replace_node(tree, node, node.left if number == 1 else node.right)
        return "one side of an operation dropped"
    return ""


def change_constant(node: ast.Constant, number: int) -> str:
    """Move a number by one, or negate a truth value."""
    if isinstance(node.value, bool):
        if number == 0:
            node.value = not node.value
            return "True for False"
    elif isinstance(node.value, (int, float)) and number < 2:
        node.value = node.value + (1 if number == 0 else -1)
        return "a constant moved by one"
    return ""


def change_call(tree: ast.AST, node: ast.Call, number: int) -> str:
    """Drop a keyword, call the opposite method, drop a method, or swap two arguments."""
    if number >= 3:
        if number - 3 < len(node.keywords):
            name = node.keywords.pop(number - 3).arg
            return f"the argument {name} dropped"
        return ""
    if number == 0 and isinstance(node.func, ast.Attribute) and node.func.attr in METHODS:
        old, node.func.attr = node.func.attr, METHODS[node.func.attr]
        return f"{node.func.attr} for {old}"
    if number == 1 and isinstance(node.func, ast.Attribute) and node.func.attr in DROPPED_METHODS:
        replace_node(tree, node, node.func.value)
        return f"{node.func.attr} dropped"
    if number == 2 and len(node.args) >= 2:
        node.args[0], node.args[1] = node.args[1], node.args[0]
        return "two arguments swapped"
    return ""


def replace_node(tree: ast.AST, old: ast.AST, new: ast.AST) -> None:
    """Put `new` where `old` stands."""
    for parent in ast.walk(tree):
        for name, value in ast.iter_fields(parent):
            if value is old:
                setattr(parent, name, new)
            elif isinstance(value, list):
                value[:] = [new if item is old else item for item in value]
