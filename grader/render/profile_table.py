"""A profile on the terminal."""

from __future__ import annotations

from rich.box import SIMPLE
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from grader.profiling import Profile
from grader.render.profile_sheets import Sheet, sheets


def show(console: Console, profile: Profile) -> None:
    """Print a profile's tables with their notes."""
    for sheet in sheets(profile):
        console.print(escape(sheet.title), style="bold", soft_wrap=True)
        console.print(table(sheet))
        if sheet.note:
            console.print(escape(sheet.note), soft_wrap=True)
        console.print()


def table(sheet: Sheet) -> Table:
    """Make a table; what a learner's code can name is escaped."""
    made = Table(box=SIMPLE, pad_edge=False, show_edge=False)
    for number, name in enumerate(sheet.head):
        words = not name or number == 0
        made.add_column(escape(name), justify="left" if words else "right", overflow="fold")
    for row in sheet.rows:
        made.add_row(*map(escape, row))
    return made
