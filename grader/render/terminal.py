"""A class on the terminal: the progress of grading, and a table of what came out."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from grader.render.results import Row, grouped


@contextlib.contextmanager
def progress_display(console: Console, total: int) -> Iterator[Callable[..., None]]:
    """Show a bar with the time left on a terminal, and plain lines elsewhere."""
    if not console.is_terminal:
        console.print(f"grading {total} submissions", soft_wrap=True)

        def plain(job: Any, graded: Any, done: int, of: int) -> None:  # noqa: ARG001
            console.print(escape(f"[{done}/{of}] {job.student} {job.unit}"), soft_wrap=True)

        yield plain
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console) as bar:
        task = bar.add_task("preparing", total=total)

        def moved(job: Any, graded: Any, done: int, of: int) -> None:  # noqa: ARG001
            bar.update(task, completed=done, description=escape(job.student[:30]))

        yield moved


def summary(console: Console, rows: list[Row], out: Path) -> None:
    """Print one line per student and unit, with the misconceptions that were recognised."""
    table = Table(title=None)
    for name, justify in (("student", "left"), ("unit", "left"), ("points", "right"), ("passed", "right")):
        table.add_column(name, justify=justify, no_wrap=name != "student")  # type: ignore[arg-type]
    table.add_column("what went wrong", overflow="fold")
    for (student, unit), own in grouped(rows).items():
        points, most = sum(r["points"] for r in own), sum(r["max_points"] for r in own)
        passed = sum(r["status"] == "passed" for r in own)
        table.add_row(escape(student), unit, f"{points:.2f} / {most}", f"{passed} / {len(own)}", escape(trouble(own)))
    console.print(table)
    levels = ", ".join(sorted({r["isolation"] for r in rows}))
    console.print(f"isolation: {levels}", soft_wrap=True)
    console.print(f"results: {out / 'results.jsonl'}, {out / 'grades.csv'}", soft_wrap=True)


def trouble(rows: list[Row]) -> str:
    """Say in a few words what went wrong in one submission."""
    if all(r["status"] == "not_attempted" for r in rows):
        return "not attempted"
    messages = {r["findings"][0]["message"] for r in rows if r["findings"]}
    if len(messages) == 1 and all(r["status"] == "error" for r in rows):
        return str(messages.pop())
    parts = []
    for r in rows:
        if r["misconception"]:
            parts.append(f"{r['exercise']}: {r['misconception']}")
        elif r["status"] in ("failed", "partly", "error"):
            first = r["findings"][0]["message"] if r["findings"] else r["status"]
            parts.append(f"{r['exercise']}: {first[:90]}")
    missing = sum(r["status"] == "not_attempted" for r in rows)
    return "\n".join(parts + ([f"{missing} not attempted"] if missing else []))
