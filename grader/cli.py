"""The `grader` command. Exit codes: 0 all passed, 1 something failed, 2 usage, 3 infrastructure."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from grader.authoring import author
from grader.cli_options import (
    FAILED,
    INFRASTRUCTURE,
    OK,
    USAGE,
    DeviceName,
    ExerciseName,
    Level,
    Seed,
    UnitName,
    chosen_device,
    console,
)
from grader.instructing import instructor
from grader.pools import begin

app = typer.Typer(add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False)
app.add_typer(instructor)
app.add_typer(author)


@app.callback()
def options() -> None:
    """Check, grade and author torch-dojo exercises."""
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[name] = "1"  # exercises are small: more threads would only wait for one another


@app.command()
def check(
    target: Annotated[str, typer.Argument(help="A notebook, a .py file, a unit or an exercise.")],
    unit: UnitName = None,
    exercise: ExerciseName = None,
    seed: Seed = None,
    isolation: Level = "auto",
    hidden: Annotated[bool, typer.Option("--hidden", help="Run the hidden cases too, as grading does.")] = False,
    device: DeviceName = None,
) -> None:
    """Check your own notebook or file and say what is wrong and why."""
    begin(isolation)
    from grader.grade import Options
    from grader.learner import check_file, remember
    from grader.record import SEED
    from grader.render.text import points_of, text, totals

    path, unit_name, wanted = resolve(target, unit, exercise)
    options = Options(SEED if seed is None else seed, hidden, wanted, chosen_device(device))
    verdicts = check_file(path, unit_name, options, isolation)
    for verdict in verdicts:
        console.print(escape(text(verdict)), soft_wrap=True)
    points, most = totals(verdicts)
    console.print(f"{points_of(points, most)} ({path})", soft_wrap=True)
    remember(unit_name, verdicts)
    raise typer.Exit(OK if all(v.passed for v in verdicts) else FAILED)


@app.command()
def profile(
    exercise: Annotated[str, typer.Argument(help="An exercise.")],
    submission: Annotated[Path | None, typer.Option("--submission", help="Your notebook, if it is elsewhere.")] = None,
    picture: Annotated[Path | None, typer.Option("--picture", help="Draw how costs grow into this file.")] = None,
    seed: Seed = None,
    isolation: Level = "auto",
    device: DeviceName = None,
) -> None:
    """Show what your implementation does beside the reference: operations, memory, how both grow."""
    begin(isolation)
    from grader.profiling import profile_file
    from grader.render import profile_picture, profile_table

    path = submission or resolve(exercise, None, None)[0]
    found = profile_file(path, exercise, seed=seed, level=isolation, device=chosen_device(device))
    profile_table.show(console, found)
    if picture is not None:
        console.print(profile_picture.draw(found, picture), soft_wrap=True, markup=False)
    raise typer.Exit(OK if found.complete else FAILED)


def resolve(target: str, unit: str | None, exercise: str | None) -> tuple[Path, str, str | None]:
    """Turn a file, a unit or an exercise into (file, unit, exercise)."""
    from grader.course import load_course
    from grader.learner import own_file, unit_of

    course = load_course()
    path = Path(target)
    if path.suffix in (".ipynb", ".py"):
        if not path.exists():
            raise typer.BadParameter(f"there is no file {path}")
        name = unit or (course.find(exercise)[0].name if exercise else unit_of(path, course.unit_names))
        if name is None:
            names = ", ".join(course.unit_names)
            raise typer.BadParameter(f"{path} does not carry a unit's name; say --unit (one of: {names})")
        return path, name, exercise
    if target in course.unit_names:
        return own_file(course, target), target, exercise
    if path.exists() and not target.isidentifier():
        raise typer.BadParameter(f"{path} is neither a notebook (.ipynb) nor a .py file")
    found = course.find(target)
    return own_file(course, found[0].name), found[0].name, found[1].id


@app.command()
def status() -> None:
    """Show how far you are: points per unit, as of your last checks."""
    from grader.learner import progress_rows

    table = Table("unit", "points", "passed", "next")
    for row in progress_rows():
        table.add_row(*row)
    console.print(table)


@app.command()
def hint(
    exercise: Annotated[str, typer.Argument(help="An exercise.")],
    level: Annotated[int, typer.Option("--level", help="Show the hint of this number; 0 is one more.")] = 0,
) -> None:
    """Show the next hint for an exercise; each call shows one more."""
    from grader.learner import next_hint

    console.print(escape(next_hint(exercise, level)), soft_wrap=True)


@app.command()
def reset(
    exercise: Annotated[str, typer.Argument(help="An exercise.")],
    submission: Annotated[Path | None, typer.Option("--submission", help="Your notebook, if it is elsewhere.")] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """Put an exercise's cell back to the empty stub; your notebook is backed up first."""
    from grader.course import load_course
    from grader.learner import own_file, reset_exercise

    course = load_course()
    unit, found = course.find(exercise)
    path = submission or own_file(course, unit.name)
    if not yes and not typer.confirm(f"Replace your {found.name} in {path} by the empty stub?"):
        raise typer.Exit(OK)
    backup = reset_exercise(found, path)
    console.print(f"{found.name} is a stub again; the notebook as it was: {backup}", soft_wrap=True)


@app.command()
def doctor() -> None:
    """Look for what is missing on this machine and say how to mend it."""
    from grader.doctor import examine

    problems = 0
    for name, state, fix in examine():
        console.print(
            f"{'ok  ' if not fix else 'FIX '} {name}: {state}" + (f"\n       {fix}" if fix else ""),
            soft_wrap=True,
            markup=False,
        )
        problems += bool(fix)
    raise typer.Exit(INFRASTRUCTURE if problems else OK)


def main() -> None:
    """Run the command: whatever goes wrong ends in one sentence and the right exit code."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")
    try:
        app()
    except Exception as error:
        code = exit_code(error)
        if code is None:
            raise
        fail(error, code)


def exit_code(error: Exception) -> int | None:
    """Return the exit code of what went wrong; None for a fault of the grader's own."""
    from grader.course import CourseError  # not before a command has begun to open the sandbox: this loads torch
    from grader.sandbox import Unavailable, WorkerError
    from grader.submission import SubmissionError

    if isinstance(error, (CourseError, SubmissionError)):
        return USAGE
    return INFRASTRUCTURE if isinstance(error, (Unavailable, WorkerError, OSError)) else None


def fail(error: Exception, code: int) -> None:
    """Say what is wrong and end."""
    text = f"{error.strerror}: {error.filename}" if isinstance(error, OSError) and error.filename else str(error)
    Console(stderr=True, highlight=False).print(f"grader: {text}", markup=False, soft_wrap=True)
    raise SystemExit(code)


if __name__ == "__main__":
    main()
