"""A class on the terminal: the progress of grading, and a table of what came out."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from rich.cells import cell_len
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from grader.render.results import Row, grouped
from grader.verdict import ERROR, NOT_ATTEMPTED, PASSED

HEADING = ("student", "unit", "points", "passed")
NUMBERS = (False, False, True, True)
LONGEST = 200
"""Characters of a message."""


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
    """Print one line per student and unit, what went wrong beneath it, and what could not be tested at the end."""
    groups = grouped(rows)
    for line, own in zip(columns(groups), [[], *groups.values()], strict=True):
        console.print(line, markup=False, soft_wrap=True)
        for text in trouble(own):
            show_item(console, text)
    levels = ", ".join(sorted({r["isolation"] for r in rows}))
    console.print(f"isolation: {levels}", soft_wrap=True)
    open_questions = Counter(text for r in rows if r["status"] != NOT_ATTEMPTED for text in r["untested"])
    for text, count in open_questions.items():
        console.print(f"{text} ({count} of {len(rows)} exercises)", markup=False, soft_wrap=True)
    console.print(f"results: {out / 'results.jsonl'}, {out / 'grades.csv'}", markup=False, soft_wrap=True)


def columns(groups: Mapping[tuple[str, str], list[Row]]) -> list[str]:
    """Return a heading and one line per student and unit, all columns as wide as what stands in them."""
    table = [HEADING]
    for (student, unit), own in groups.items():
        points, most = sum(r["points"] for r in own), sum(r["max_points"] for r in own)
        passed = sum(r["status"] == PASSED for r in own)
        table.append((student, unit, f"{points:.2f} / {most}", f"{passed} / {len(own)}"))
    widths = [max(map(cell_len, column)) for column in zip(*table, strict=True)]
    return ["  ".join(map(aligned, cells, widths, NUMBERS)) for cells in table]


def aligned(text: str, width: int, number: bool) -> str:
    """Fill a text up to a width: a number from the left, words from the right."""
    gap = " " * (width - cell_len(text))
    return gap + text if number else text + gap


def show_item(console: Console, text: str) -> None:
    """Print an indented item; on a terminal it is folded between words, and its lines stand below one another."""
    if not console.is_terminal:
        console.print(f"  - {text}", markup=False, soft_wrap=True)
        return
    item = Table.grid(padding=(0, 1))
    item.add_row("  -", Text(text, overflow="fold"))
    console.print(item)


def trouble(rows: list[Row]) -> list[str]:
    """Say in a few words what went wrong in one submission."""
    if rows and all(r["status"] == NOT_ATTEMPTED for r in rows):
        handed_in = any(r["source_sha256"] for r in rows)
        return ["not attempted"] if handed_in else rows[0]["untested"][:1]
    messages = {r["findings"][0]["message"] for r in rows if r["findings"]}
    if len(messages) == 1 and all(r["status"] == ERROR for r in rows):
        return [shortened(messages.pop())]
    parts = []
    for r in rows:
        if r["misconception"]:
            parts.append(f"{r['exercise']}: {r['misconception']}")
        elif r["status"] not in (PASSED, NOT_ATTEMPTED):
            first = r["findings"][0]["message"] if r["findings"] else r["status"]
            parts.append(f"{r['exercise']}: {shortened(first)}")
    missing = sum(r["status"] == NOT_ATTEMPTED for r in rows)
    return parts + ([f"{missing} not attempted"] if missing else [])


def shortened(text: str) -> str:
    """Return a text in one line that is not too long; dots show where it was cut."""
    line = " ".join(text.split())
    return line if len(line) <= LONGEST else line[: LONGEST - 1].rstrip() + "…"
