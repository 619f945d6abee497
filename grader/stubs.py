"""Mark in a solution what the learner writes, so that the stub can be made by removing it."""

from __future__ import annotations

import ast
import json
import re
import textwrap

from grader.course import CourseError, solution_source
from grader.exercise import Exercise
from grader.parsing import parse

BEGIN, END = "### BEGIN SOLUTION", "### END SOLUTION"
STUB_LINES = ("# YOUR CODE HERE", "raise NotImplementedError()")
SHORT = 12
"""Lines of at most so many characters give nothing away."""
BEGIN_HELPERS, END_HELPERS = "### BEGIN HELPERS", "### END HELPERS"


def solution_cell(exercise: Exercise) -> str:
    """Return the solution with markers around what the learner writes; helpers vanish from the stub."""
    parts = []
    for _, text in solution_source(exercise):
        lines = text.split("\n")
        for node in parse(text).body:
            if isinstance(node, (ast.Import, ast.ImportFrom)):
                continue
            source = "\n".join(lines[first_line(node) - 1 : node.end_lineno])
            if getattr(node, "name", "") == exercise.name:
                parts.append(marked(source))
            else:
                parts.append(f"{BEGIN_HELPERS}\n{source}\n{END_HELPERS}")
    return "\n\n\n".join(parts)


def first_line(node: ast.stmt) -> int:
    """Return a statement's first line, decorators included."""
    lines: list[int] = [node.lineno, *(d.lineno for d in getattr(node, "decorator_list", []))]
    return min(lines)


def marked(source: str) -> str:
    """Put markers around the bodies of a function, or of a class's methods."""
    node = parse(source).body[0]
    lines = source.split("\n")
    if isinstance(node, ast.FunctionDef):
        edits = [body_edit(node)]
    elif isinstance(node, ast.ClassDef):
        edits = [edit for member in node.body for edit in member_edits(member)]
    else:
        raise CourseError("a solution is a function or a class")
    for start, end, indent, begin, finish in sorted(edits, reverse=True):
        lines[start - 1 : end] = [f"{indent}{begin}", *lines[start - 1 : end], f"{indent}{finish}"]
    return "\n".join(lines)


Edit = tuple[int, int, str, str, str]


def body_edit(node: ast.FunctionDef) -> Edit:
    """Return where the body of a function, without its docstring, begins and ends."""
    body = node.body[1:] if ast.get_docstring(node) is not None and len(node.body) > 1 else node.body
    return first_line(body[0]), body[-1].end_lineno or body[-1].lineno, " " * body[0].col_offset, BEGIN, END


def member_edits(member: ast.stmt) -> list[Edit]:
    """Return the edits for one member of a class: bodies of public methods, private members whole."""
    if isinstance(member, ast.Expr) and isinstance(member.value, ast.Constant):
        return []
    if isinstance(member, ast.AnnAssign) and member.value is None:
        return []
    name = getattr(member, "name", "_")
    if isinstance(member, ast.FunctionDef) and (not name.startswith("_") or name.endswith("__")):
        return [body_edit(member)]
    return [
        (first_line(member), member.end_lineno or member.lineno, " " * member.col_offset, BEGIN_HELPERS, END_HELPERS)
    ]


def without_helpers(source: str) -> str:
    """Remove marked helpers from a solution cell."""
    pattern = rf"^[ \t]*{BEGIN_HELPERS}\n.*?^[ \t]*{END_HELPERS}\n*"
    return re.sub(pattern, "", source + "\n", flags=re.DOTALL | re.MULTILINE).strip("\n")


def stub(exercise: Exercise) -> str:
    """Return an exercise's stub, the text that nbgrader's release makes of its solution cell."""
    region = rf"^([ \t]*){BEGIN}\n.*?^[ \t]*{END}$"
    cleared = without_helpers(solution_cell(exercise))
    return re.sub(region, rf"\1{STUB_LINES[0]}\n\1{STUB_LINES[1]}", cleared, flags=re.DOTALL | re.MULTILINE)


def leaked_lines(exercise: Exercise, release: str) -> list[str]:
    """Return lines of the solution's body that the stubs of a release notebook still hold."""
    source = solution_cell(exercise)
    bodies = re.findall(rf"{BEGIN}\n(.*?)\n\s*{END}", source, flags=re.DOTALL)
    bodies += re.findall(rf"{BEGIN_HELPERS}\n(.*?)\n\s*{END_HELPERS}", source, flags=re.DOTALL)
    lines = [line.strip() for body in bodies for line in textwrap.dedent(body).split("\n")]
    cells = json.loads(release)["cells"]
    stubs = [c for c in cells if c["metadata"].get("nbgrader", {}).get("solution")]
    code = "\n".join("".join(cell["source"]) for cell in stubs)
    shown = {line.strip() for line in code.split("\n")}
    return [line for line in lines if is_telling(line) and line in shown]


def is_telling(line: str) -> bool:
    """Whether a line does something: a stub may share the lines of a signature with a solution's helper."""
    return len(line) > SHORT and not line.startswith(")") and ("=" in line or "(" in line or line.startswith("return"))
