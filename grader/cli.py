"""The `grader` command."""

from __future__ import annotations

import sys

import typer
from rich.console import Console

app = typer.Typer(add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False)
console = Console()


@app.callback()
def options() -> None:
    """Check, grade and author torch-dojo exercises."""


@app.command()
def audit(target: str = typer.Argument("", help="a unit, or unit/exercise; everything by default")) -> None:
    """Check the course itself: wrong answers must be caught, right ones must pass."""
    from grader.audit import audit as run
    from grader.course import load_course

    unit, _, exercise = target.partition("/")
    count = 0
    for name, problems in run(load_course(), unit or None, exercise or None):
        console.print(f"{name}: {'clean' if not problems else f'{len(problems)} problems'}", highlight=False)
        for problem in problems:
            console.print(f"  {problem}", highlight=False, markup=False)
        count += len(problems)
    raise typer.Exit(1 if count else 0)


def main() -> None:
    """Run the command."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")
    app()
