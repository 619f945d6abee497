"""What a notebook calls: `check`, `profile`, `hint`, `reproduce`, `provided`."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from grader.live import asked_about, in_notebook, live_program, provided_in
from grader.verdict import Verdict

if TYPE_CHECKING:
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
    from grader.render.messages import hint_text

    _, exercise, _ = asked_about(candidate)
    number = _TRIES[exercise.id] = _TRIES.get(exercise.id, 0) + 1
    print(hint_text(number, exercise.hints))  # noqa: T201


def reproduce(candidate: Callable[..., Any] | str, case: str = "") -> Any:
    """Make the call of a visible case with your own function and return its result; errors are raised as they are.

    Args:
        candidate: your function or class, or its name.
        case: the case's name, as `check` shows it.

    Raises:
        ValueError: the course has no exercise of that name, it has no such case (the text lists those that there are),
            or you have defined nothing of that name yet.
    """
    from grader.course import meant
    from grader.observe import run_plainly
    from grader.record import record

    _, exercise, live = asked_about(candidate)
    calls = {p.call.label: p.call for p in record(exercise).planned if not p.case.hidden}
    if case not in calls:
        known = ", ".join(map(repr, calls))
        problem = f"has no visible case {case!r}{meant(case, calls)}; it has" if case else "has these visible cases"
        raise ValueError(f"{exercise.id} {problem}: {known}")
    if live is None:
        raise ValueError(f"{exercise.name} is not defined")
    return run_plainly(live, calls[case])


def provided(exercise: str) -> Callable[..., Any]:
    """Return the reference's implementation of an exercise of an earlier unit, to build on."""
    from grader.course import load_course

    return load_course().find(exercise)[1].solution
