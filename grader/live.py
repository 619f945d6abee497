"""Live objects of a running notebook: found by name, with their source, and with the reference's earlier exercises."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from grader.course import Course
    from grader.exercise import Exercise


def asked_about(candidate: Callable[..., Any] | str) -> tuple[Course, Exercise, Any]:
    """Return the course, the exercise and the live object that a candidate or its name stands for; None if undefined.

    Raises:
        ValueError: the course has no exercise of that name.
    """
    from grader.course import UnknownError, load_course

    course = load_course()
    name = candidate if isinstance(candidate, str) else getattr(candidate, "__name__", type(candidate).__name__)
    try:
        _, exercise = course.find(name)
    except UnknownError as error:
        raise ValueError(f"{error}; rename your function as the exercise asks") from None
    return course, exercise, live_object(name) if isinstance(candidate, str) else candidate


@contextlib.contextmanager
def provided_in(live: Any, course: Any, exercise: Any) -> Iterator[None]:
    """Put the reference's earlier exercises in place of the learner's own while checking."""
    scope = getattr(live, "__globals__", None) or getattr(getattr(live, "forward", None), "__globals__", None)
    names = {course.find(used)[1].name: course.find(used)[1].solution for used in exercise.uses}
    if scope is None or not names:
        yield
        return
    before = {name: scope[name] for name in names if name in scope}
    scope.update(names)
    try:
        yield
    finally:
        for name in names:
            scope.pop(name, None)
        scope.update(before)


def live_object(name: str) -> Any:
    """Find an object of the running notebook by name."""
    shell = ipython()
    return None if shell is None else shell.user_ns.get(name)


def ipython() -> Any:
    """Return the running IPython shell, if there is one."""
    module = sys.modules.get("IPython")
    return module.get_ipython() if module is not None else None


def live_program(name: str, live: Any) -> Any:
    """Return the source of a live object: from the notebook's executed cells, or from its file."""
    import inspect

    from grader.slicing import Program
    from grader.submission import Submission, make_cell

    shell = ipython()
    if shell is not None:
        cells = tuple(make_cell(str(n), source) for n, source in enumerate(shell.user_ns.get("In", [])))
    else:
        try:
            text = inspect.getsource(inspect.getmodule(live) or live)
        except (OSError, TypeError):
            return Program(name, ())
        cells = (make_cell(getattr(live, "__module__", "code"), text),)
    return Submission(cells, "").program(name)


def in_notebook() -> bool:
    """Whether this is a notebook's kernel, which can show HTML."""
    return type(ipython()).__name__ == "ZMQInteractiveShell"
