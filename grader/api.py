"""What a notebook calls: `check`, `profile`, `hint`, `reproduce`, `provided`."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from grader.verdict import Verdict

if TYPE_CHECKING:
    from grader.course import Course
    from grader.exercise import Exercise
    from grader.profiling import Profile

_TRIES: dict[str, int] = {}


def check(
    candidate: Callable[..., Any] | str, *, hidden: bool = False, seed: int | None = None, device: str | None = None
) -> float:
    """Check a function or class of an exercise and show what is wrong with it and why.

    Args:
        candidate: your function or class, such as `softmax`; its name says which exercise it is.
        hidden: run the hidden cases too, as grading does.
        seed: draw other random inputs.
        device: "cuda" to check and time it on the GPU too; "auto" to do so where there is one.

    Returns:
        The points, a plain float.

    Raises:
        ValueError: the course has no exercise of that name, or there is no device of that name.
    """
    with silent_stderr():
        verdict = verdict_of(candidate, hidden=hidden, seed=seed, device=device)
    show(verdict)
    return float(verdict.points)


def verdict_of(
    candidate: Callable[..., Any] | str, *, hidden: bool = False, seed: int | None = None, device: str | None = None
) -> Verdict:
    """Judge a live function or class in this process."""
    from grader.device import resolve
    from grader.grade import Options, absent, verdict_on
    from grader.record import SEED
    from grader.slicing import Program
    from grader.subject import InProcess

    course, exercise, live = asked_about(candidate)
    if live is None:
        return absent(exercise, Program(exercise.name, ()))
    options = Options(SEED if seed is None else seed, hidden=hidden, device=resolve(device))
    with provided_in(live, course, exercise):
        return verdict_on(course, exercise, live_program(exercise.name, live), InProcess(live), options)


def asked_about(candidate: Callable[..., Any] | str) -> tuple[Course, Exercise, Any]:
    """Return the course, the exercise and the live object that a candidate or its name stands for; None if undefined.

    Raises:
        ValueError: the course has no exercise of that name.
    """
    from grader.course import CourseError, load_course

    course = load_course()
    name = candidate if isinstance(candidate, str) else getattr(candidate, "__name__", type(candidate).__name__)
    try:
        _, exercise = course.find(name)
    except CourseError as error:
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


def profile(candidate: Callable[..., Any] | str, *, seed: int | None = None, device: str | None = None) -> None:
    """Show what your function or class does beside the reference: operations, memory, how both grow, a picture.

    Args:
        candidate: your function or class, such as `softmax`; its name says which exercise it is.
        seed: draw other random inputs.
        device: "cuda" to measure its time there; "auto" to do so where there is one.

    Raises:
        ValueError: the course has no exercise of that name, or you have defined nothing of that name yet.
    """
    with silent_stderr():
        found = profile_of(candidate, seed=seed, device=device)
    if in_notebook():
        from IPython.display import HTML, display

        from grader.render import profile_html

        display(HTML(profile_html.html(found)))
    else:
        from rich.console import Console

        from grader.render import profile_table

        profile_table.show(Console(highlight=False), found)


def profile_of(candidate: Callable[..., Any] | str, *, seed: int | None = None, device: str | None = None) -> Profile:
    """Profile a live function or class in this process."""
    from grader.device import resolve
    from grader.profiling import profile_program
    from grader.record import SEED
    from grader.slicing import Program
    from grader.subject import InProcess

    course, exercise, live = asked_about(candidate)
    if live is None:
        raise ValueError(f"{exercise.name} is not defined")
    program = Program(exercise.name, ())
    with provided_in(live, course, exercise):
        chosen = SEED if seed is None else seed
        return profile_program(course, exercise, program, InProcess(live), chosen, resolve(device))


def in_notebook() -> bool:
    """Whether this is a notebook's kernel, which can show HTML."""
    return type(ipython()).__name__ == "ZMQInteractiveShell"


def show(verdict: Verdict) -> None:
    """Display a verdict: HTML in a notebook, text elsewhere."""
    if in_notebook():
        from IPython.display import HTML, display

        from grader.render.html import html

        display(HTML(html(verdict)))
    else:
        from grader.render.text import text

        print(text(verdict))  # noqa: T201 - showing it is the point


@contextlib.contextmanager
def silent_stderr() -> Iterator[None]:
    """Send file descriptor 2 nowhere: nbgrader gives no points to a cell that writes to stderr, C++ included."""
    sys.stderr.flush()
    try:
        saved = os.dup(2)
    except OSError:
        yield
        return
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(saved, 2)
        os.close(saved)
        os.close(nowhere)


def hint(candidate: Callable[..., Any] | str) -> None:
    """Show the next hint of an exercise; each call shows one more, from a nudge to nearly the answer."""
    from grader.course import load_course
    from grader.render.messages import hint_text

    name = candidate if isinstance(candidate, str) else candidate.__name__
    _, exercise = load_course().find(name)
    number = _TRIES[exercise.id] = min(_TRIES.get(exercise.id, 0) + 1, len(exercise.hints))
    print(hint_text(number, exercise.hints))  # noqa: T201


def reproduce(candidate: Callable[..., Any], case: str) -> Any:
    """Make the call of a visible case with your own function and return its result; errors are raised as they are.

    Args:
        candidate: your function or class.
        case: the case's name, as `check` shows it.
    """
    from grader.course import load_course
    from grader.observe import run_plainly
    from grader.record import record

    _, exercise = load_course().find(candidate.__name__)
    calls = {p.call.label: p.call for p in record(exercise).planned if not p.case.hidden}
    if case not in calls:
        raise ValueError(f"{exercise.id} has no visible case {case!r}; it has: {', '.join(calls)}")
    return run_plainly(candidate, calls[case])


def provided(exercise: str) -> Callable[..., Any]:
    """Return the reference's implementation of an exercise of an earlier unit, to build on."""
    from grader.course import load_course

    return load_course().find(exercise)[1].solution
