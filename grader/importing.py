"""Import the files of a course; what is wrong with one of them is said with its place and the fix."""

from __future__ import annotations

import importlib
import sys
import traceback
from pathlib import Path
from typing import Any


class CourseError(RuntimeError):
    """The course cannot be found or is not sound; the text names the file and the fix."""


def import_from(root: Path, name: str, missing: str) -> Any:
    """Import a module of the course package with `root` on the path.

    Args:
        root: the course's folder.
        name: the module's full name.
        missing: what to say if there is no such file.

    Raises:
        CourseError: it is missing, it raises something, or it is another one of the same name.
    """
    if str(root) not in sys.path:
        sys.path.insert(0, str(root))
    try:
        module = importlib.import_module(name)
    except Exception as error:
        absent = isinstance(error, ModuleNotFoundError) and error.name == name
        raise CourseError(missing if absent else blame(error, root / name.partition(".")[0])) from error
    if module.__file__ is None:  # a folder without __init__.py
        raise CourseError(missing)
    if not Path(module.__file__).is_relative_to(root):
        raise CourseError(f"{name} was imported from {module.__file__}, not from {root}: start a fresh process there")
    return module


def blame(error: Exception, package: Path) -> str:
    """Say an exception with the last line of the course's package that it went through."""
    text = str(error)
    if isinstance(error, SyntaxError) and error.filename:
        places, text = [(error.filename, error.lineno)], error.msg
    else:
        places = [(frame.filename, frame.lineno) for frame in traceback.extract_tb(error.__traceback__)]
    own = [place for place in places if Path(place[0]).is_relative_to(package)]
    file, line = (own or places)[-1]
    shown = Path(file).relative_to(package.parent) if own else file
    return f"{shown}, line {line}: {type(error).__name__}: {text}"


def title_in(module: Any) -> str:
    """Return the TITLE that a unit names."""
    found = getattr(module, "TITLE", None)
    if not isinstance(found, str):
        raise CourseError(f'{module.__file__} names no TITLE: TITLE = "..."')
    return found


def names_in(module: Any, what: str) -> tuple[str, ...]:
    """Return the UNITS or EXERCISES that a package names, each once."""
    found = getattr(module, what, None)
    if not isinstance(found, (tuple, list)) or not all(isinstance(name, str) for name in found):
        raise CourseError(f'{module.__file__} must name {what}, each as a text: {what} = ("one", "another")')
    twice = [name for number, name in enumerate(found) if name in found[:number]]
    if twice:
        raise CourseError(f"{module.__file__}: {what} names {twice[0]!r} twice")
    return tuple(found)
