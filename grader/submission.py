"""A learner's notebook or .py file as source text, safely. Nothing is executed here."""

from __future__ import annotations

import json
import os
import re
import stat
import sys
import types
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from grader.parsing import parse as parse_source
from grader.render.messages import translate
from grader.slicing import Cell, Program, slice_program
from grader.verdict import N_

MAX_BYTES = 8 * 2**20
MAX_CODE = 2**18
"""Characters of code: a hundred times as many as a unit takes."""
MAX_CELLS = 2000
"""Cells of a notebook, of whatever kind: thirty times as many as a unit has."""

OLD_FORMAT = N_("{name} is in an old format of notebooks (3 or older): open it in Jupyter and save it")
NO_CELLS = N_("{name} is not a notebook: it has no list of cells")


class SubmissionError(ValueError):
    """The submission cannot be read; the text says why, in words for its author."""


@dataclass(frozen=True, slots=True)
class Submission:
    """The code cells of one file."""

    cells: tuple[Cell, ...]
    digest: str

    def program(self, name: str, provided: Iterable[str] = ()) -> Program:
        """Slice out what `name` needs; names in `provided` are left to whoever runs it."""
        return slice_program(self.cells, name, frozenset(provided))


def read_regular(path: Path, limit: int = MAX_BYTES) -> bytes:
    """Read an ordinary file: no symbolic link, no device, no hard link, not larger than `limit` bytes."""
    try:
        handle = os.open(path, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0))
    except OSError as error:
        text = translate(N_("{name} cannot be opened: {reason}"), name=path.name, reason=error.strerror)
        raise SubmissionError(text) from None
    facts = os.fstat(handle)
    if not stat.S_ISREG(facts.st_mode):  # before Python makes a file of it, which it refuses for a folder
        os.close(handle)
        raise SubmissionError(translate(N_("{name} is not an ordinary file"), name=path.name))
    with os.fdopen(handle, "rb") as file:
        if facts.st_nlink > 1:
            raise SubmissionError(translate(N_("{name} is a hard link; hand in a copy of the file"), name=path.name))
        if facts.st_size > limit:
            said = N_("{name} has {size} bytes; the limit is {limit}")
            raise SubmissionError(translate(said, name=path.name, size=f"{facts.st_size:,}", limit=f"{limit:,}"))
        return file.read(limit + 1)


def read(path: Path) -> Submission:
    """Read a notebook or .py file; raises `SubmissionError` with the reason when it cannot be read."""
    return parse(read_regular(path), path.name)


def parse(data: bytes, filename: str, *, bounded: bool = True) -> Submission:
    """Parse the bytes of a notebook (.ipynb) or Python file.

    Args:
        data: the bytes.
        filename: what it is called; its ending says what it is.
        bounded: refuse what is too large. What has been parsed before, and was completed since, may be larger.
    """
    digest = sha256(data).hexdigest()
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        said = translate(N_("{name} is not UTF-8 text (byte {place})"), name=filename, place=error.start)
        raise SubmissionError(said) from None
    if filename.endswith(".py"):
        found = [(filename, text)]
    else:
        found = list(code_cells(every_cell(text, filename, MAX_CELLS if bounded else sys.maxsize)))
    size = sum(len(source) for _, source in found)
    if bounded and size > MAX_CODE:
        said = N_("{name} has {size} characters of code; the limit is {limit}")
        raise SubmissionError(translate(said, name=filename, size=f"{size:,}", limit=f"{MAX_CODE:,}"))
    magics = not filename.endswith(".py")
    return Submission(tuple(make_cell(label, source, magics=magics) for label, source in found), digest)


def every_cell(text: str, filename: str, most: int) -> list[Any]:
    """Return a notebook's cells, as they stand there; no more than `most`."""
    try:
        notebook = json.loads(text)
    except (ValueError, RecursionError):
        said = translate(N_("{name} is not a notebook: it does not hold valid JSON"), name=filename)
        raise SubmissionError(said) from None
    cells = notebook.get("cells") if isinstance(notebook, dict) else None
    if not isinstance(cells, list):
        old = isinstance(notebook, dict) and "worksheets" in notebook
        raise SubmissionError(translate(OLD_FORMAT if old else NO_CELLS, name=filename))
    if len(cells) > most:
        said = N_("{name} has {size} cells; the limit is {limit}")
        raise SubmissionError(translate(said, name=filename, size=f"{len(cells):,}", limit=f"{most:,}"))
    return cells


def code_cells(cells: Iterable[Any]) -> Iterable[tuple[str, str]]:
    """Yield (label, source) of the code cells; tolerant of whatever does not concern the code."""
    number = 0
    for cell in cells:
        if not isinstance(cell, dict) or not is_code(cell):
            continue
        number += 1
        source = cell_text(cell)
        if source is not None and not is_check_cell(cell, source):
            yield str(number), source


def cell_text(cell: dict[str, Any]) -> str | None:
    """Return the text of a notebook's cell, a string or a list of lines; None if it has no text."""
    source = cell.get("source", "")
    if isinstance(source, list) and all(isinstance(line, str) for line in source):
        return "".join(source)
    return source if isinstance(source, str) else None


def marks_of(cell: dict[str, Any]) -> dict[str, Any]:
    """Return nbgrader's metadata of a cell, as far as it has any."""
    metadata = cell.get("metadata")
    marks = metadata.get("nbgrader") if isinstance(metadata, dict) else None
    return marks if isinstance(marks, dict) else {}


def is_code(cell: dict[str, Any]) -> bool:
    """Whether a cell holds code: also a solution cell that became Markdown by a slip of the finger."""
    marks = marks_of(cell)
    return cell.get("cell_type") == "code" or bool(marks.get("solution") and marks.get("cell_type") == "code")


def is_check_cell(cell: dict[str, Any], source: str) -> bool:
    """Whether a cell only checks or grades: it holds no learner code."""
    if str(marks_of(cell).get("grade_id", "")).startswith("check_"):
        return True
    lines = [line.strip() for line in source.strip().split("\n")]
    if len(lines) > 1 and re.fullmatch(r"from grader import [\w, ]+", lines[0]):
        del lines[0]
    return len(lines) == 1 and bool(re.fullmatch(r"check\([\w., \"'=]*\)\s*;?", lines[0]))


def strip_magics(source: str) -> str:
    """Blank IPython magics and shell lines; a cell in another language becomes empty."""
    lines = source.split("\n")
    if lines and lines[0].startswith("%%"):
        if not re.match(r"%%(time|timeit|capture|prun)\b", lines[0]):
            return ""
        lines[0] = ""
    return "\n".join(
        re.sub(r"^(\s*)[%!?].*$|^(\s*)\w[\w.]*\?{1,2}\s*$|^(\s*)\w+\s*=\s*[%!].*$", r"\1\2\3pass", line)
        for line in lines
    )


def make_cell(label: str, source: str, *, magics: bool = False) -> Cell:
    """Parse one cell; a syntax error stays with it. Magics are blanked only in what is no Python as it stands."""
    plain = source.replace("\r\n", "\n").replace("\r", "\n")
    cell = parsed_cell(label, plain)
    return parsed_cell(label, strip_magics(plain)) if magics and cell.error else cell


def parsed_cell(label: str, source: str) -> Cell:
    """Parse a cell as it stands."""
    file = f"<cell {label}>"
    try:
        return Cell(file, source, parse_source(source))
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        line = getattr(error, "lineno", None)
        said = N_("{error} (line {line}): {text}") if line else N_("{error}: {text}")
        facts = {"error": type(error).__name__, "line": line, "text": getattr(error, "msg", error)}
        return Cell(file, source, None, translate(said, **facts))


def load_program(program: Program, provided: Iterable[tuple[str, str]] = ()) -> Callable[..., Any]:
    """Run a program's definitions and return what it is about. To be called by whoever runs learner code.

    Args:
        program: the learner's slice.
        provided: (name, source) of earlier exercises, run first.
    """
    module = types.ModuleType("submission")
    sys.modules[module.__name__] = module  # dataclasses look their module up
    scope = module.__dict__
    for label, source in provided:  # each by itself: private helpers of two solutions may carry the same name
        own = dict(scope)
        exec(compile(source, label, "exec", dont_inherit=True), own)  # noqa: S102 - the course's own code
        scope.update({name: value for name, value in own.items() if not name.startswith("_")})
    for label, source in program.parts:
        exec(compile(source, label, "exec", dont_inherit=True), scope)  # noqa: S102 - this is what the sandbox is for
    return scope[program.name]  # type: ignore[no-any-return]
