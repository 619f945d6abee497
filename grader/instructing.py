"""Commands for whoever grades a class: grade, regrade."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from grader.cli_options import FAILED, OK, DeviceName, ExerciseName, Level, Seed, UnitName, chosen_device, console
from grader.pools import begin

instructor = typer.Typer()

Workers = Annotated[int, typer.Option("--workers", help="Workers at a time; as many as cores by default.")]


@instructor.command()
def grade(
    folder: Annotated[Path, typer.Argument(help="nbgrader's layout: <student>/<unit>/<unit>.ipynb or .py.")],
    out: Annotated[Path, typer.Option("--out", help="Where results.jsonl and grades.csv are written.")],
    unit: UnitName = None,
    exercise: ExerciseName = None,
    seed: Seed = None,
    workers: Workers = 0,
    isolation: Level = "auto",
    resume: Annotated[bool, typer.Option("--resume", help="Go on after an interrupted run.")] = False,
    scheduler: Annotated[str | None, typer.Option("--scheduler", help="A dask scheduler, tcp://host:port.")] = None,
    timing: Annotated[bool, typer.Option("--timing/--no-timing", help="Write the seconds each exercise took.")] = True,
    device: DeviceName = None,
) -> None:
    """Grade a class: hundreds of untrusted submissions."""
    from grader.render.terminal import summary

    rows = run_class(folder, out, unit, exercise, seed, workers, isolation, resume, scheduler, timing, device)
    summary(console, rows, out)
    raise typer.Exit(OK if all(r["status"] == "passed" for r in rows) else FAILED)


def run_class(
    folder: Path, out: Path, unit: str | None, exercise: str | None, seed: int | None, workers: int, level: str,
    resume: bool, scheduler: str | None, timing: bool, device: str | None = None,
) -> list[dict[str, Any]]:  # fmt: skip
    """Grade a class with a progress display."""
    if scheduler is None:  # a cluster's workers have sandboxes of their own
        begin(level)
    from grader import batch
    from grader.course import load_course
    from grader.grade import Options
    from grader.jobs import find_jobs
    from grader.record import SEED
    from grader.render.terminal import progress_display

    course = load_course()
    if exercise is not None and unit is None:
        unit = course.find(exercise)[0].name
    if unit is not None:
        course.unit(unit)
    chosen = Options(SEED if seed is None else seed, exercise=exercise, device=chosen_device(device))
    jobs = find_jobs(folder, course, chosen, level, unit)
    if not jobs:
        raise typer.BadParameter(f"{folder} holds no submissions (<student>/<unit>/<unit>.ipynb)")
    with progress_display(console, len(jobs)) as progress:
        return batch.run(
            jobs, out, workers=workers or os.cpu_count() or 1, resume=resume, timing=timing, scheduler=scheduler,
            progress=progress,
        )  # fmt: skip


@instructor.command()
def regrade(
    folder: Annotated[Path, typer.Argument(help="The class, as for grade.")],
    out: Annotated[Path, typer.Option("--out", help="The folder with the earlier results.")],
    unit: UnitName = None,
    seed: Seed = None,
    workers: Workers = 0,
    isolation: Level = "auto",
) -> None:
    """Grade again (after a mended exercise, say) and show whose points changed."""
    from grader import batch
    from grader.results_folder import RESULTS, earlier_rows

    before = earlier_rows(out / RESULTS)
    if not before:
        raise typer.BadParameter(f"{out} holds no earlier results: use grade")
    after = run_class(folder, out, unit, None, seed, workers, isolation, False, None, True)
    table = Table("student", "unit", "exercise", "before", "after")
    changed = batch.changes(before, after)
    for student, of, exercise, old, new in changed:
        table.add_row(
            escape(student), of, exercise, "-" if old is None else f"{old:g}", "-" if new is None else f"{new:g}"
        )
    console.print(table if changed else "no points changed")
