"""What a text is put together from, as far as the source shows it, and how it begins and ends."""

from __future__ import annotations

import ast
import re
from itertools import product

from grader.scopes import Known

MANY = 60
Texts = frozenset[str] | None
"""All texts that something can be; None where they are not known."""


def together(found: list[Texts]) -> Texts:
    """Return all texts that consist of one of each."""
    count = 1
    for texts in found:
        count *= MANY if texts is None else len(texts)
        if texts is None or count > MANY:
            return None
    return frozenset("".join(pieces) for pieces in product(*(texts or () for texts in found)))


def pieces_of(node: ast.expr) -> list[ast.expr]:
    """Return what a text is put together from, by + or as an f-string; the expression itself if by neither."""
    if isinstance(node, ast.JoinedStr):
        return [
            ast.Constant(""),
            *(v.value if isinstance(v, ast.FormattedValue) and is_plain(v) else v for v in node.values),
        ]
    pieces: list[ast.expr] = []
    while isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        pieces.append(node.right)
        node = node.left
    return [node, *reversed(pieces)]


def is_plain(value: ast.FormattedValue) -> bool:
    """Whether a value stands in an f-string as it is."""
    return value.conversion == -1 and not value.format_spec


def ends(node: ast.expr, known: Known) -> tuple[str, str]:
    """Return how a text begins and how it ends, as far as that is sure: `f"weight_l{k}"` begins with weight_l.

    What is added with + has to be a text: an object of the learner's could make anything of such a sum.
    """
    pieces = pieces_of(node)
    if isinstance(node, ast.JoinedStr):
        return edges(pieces[1], known)[0] if len(pieces) > 1 else "", edges(pieces[-1], known)[1]
    sure = len(pieces) == 1 or all(
        isinstance(p, ast.JoinedStr) or any(edges(p, known)) or is_str(p, known) for p in pieces
    )
    return (edges(pieces[0], known)[0], edges(pieces[-1], known)[1]) if sure else ("", "")


def is_str(node: ast.expr, known: Known) -> bool:
    """Whether an expression is `str(...)`."""
    return isinstance(node, ast.Call) and known.is_builtin(node.func, "str")


def edges(piece: ast.expr, known: Known) -> tuple[str, str]:
    """Return how a piece of a text begins and ends: a constant, or one with a place to fill in."""
    if isinstance(piece, ast.Constant) and isinstance(piece.value, str):
        return piece.value, piece.value
    if isinstance(piece, ast.JoinedStr):
        return ends(piece, known)
    filled = piece.left if isinstance(piece, ast.BinOp) and isinstance(piece.op, ast.Mod) else None
    if isinstance(piece, ast.Call) and isinstance(piece.func, ast.Attribute) and piece.func.attr == "format":
        filled = piece.func.value
    if isinstance(filled, ast.Constant) and isinstance(filled.value, str):
        found = re.fullmatch(r"([^%{}]*)(?:%[sdi]|\{\d?\})([^%{}]*)", filled.value)
        return (found[1], found[2]) if found else (re.split(r"[%{]", filled.value)[0], "")
    return "", ""
