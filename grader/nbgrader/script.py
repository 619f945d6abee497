"""A .py file as the cells of a notebook: what was written for an exercise stands in that exercise's cell."""

from __future__ import annotations

import ast
from collections.abc import Mapping
from typing import Any

from nbformat.v4 import new_code_cell

from grader.statements import bound_names
from grader.submission import make_cell


def script_cells(text: str, ids: Mapping[str, str]) -> list[Any]:
    """Cut a .py file behind the last definition of each exercise, in the order in which they stand there.

    Args:
        text: the file.
        ids: the exercises' grade ids by the name that the learner defines.

    Returns:
        Code cells which claim the exercises' ids; one plain cell if the file cannot be cut without changing it.
    """
    tree = make_cell("", text).tree
    if tree is None:
        return [new_code_cell(text)]
    first = "".join(f"{ast.unparse(node)}\n" for node in tree.body if is_future(node))
    found = [(source, grade_id) for source, grade_id in pieces(text, tree, ids) if source.strip()]
    parsed = [make_cell("", source).tree for source, _ in found]
    if sum(len(part.body) for part in parsed if part) != len(tree.body):
        return [new_code_cell(text)]
    cells = []
    for number, (source, grade_id) in enumerate(found):
        metadata = {"nbgrader": {"grade_id": grade_id}} if grade_id else {}
        cells.append(new_code_cell(first * bool(number) + source.strip("\r\n"), metadata=metadata))
    return cells


def pieces(text: str, tree: ast.Module, ids: Mapping[str, str]) -> list[tuple[str, str]]:
    """Return (source, grade id) of each part of a file; what follows the last exercise has no id."""
    ends: dict[str, int] = {}
    for node in tree.body:
        for name in bound_names(node) & ids.keys():
            ends[ids[name]] = node.end_lineno or node.lineno
    lines = text.split("\n")
    found, start = [], 0
    for grade_id, end in sorted(ends.items(), key=lambda item: item[1]):
        found.append(("\n".join(lines[start:end]), grade_id))
        start = end
    return [*found, ("\n".join(lines[start:]), "")]


def is_future(node: ast.stmt) -> bool:
    """Whether a statement sets how the whole file is compiled."""
    return isinstance(node, ast.ImportFrom) and node.module == "__future__"
