"""What the commands share: exit codes, the console, options of the same name."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import typer
from rich.console import Console

OK, FAILED, USAGE, INFRASTRUCTURE = 0, 1, 2, 3

console = Console(highlight=False)

ISOLATION = ("auto", "portable", "linux", "strict")


def known_level(value: str) -> str:
    """Refuse an isolation level that there is not."""
    if value not in ISOLATION:
        raise typer.BadParameter(f"no such isolation level: {value!r}; there are {', '.join(ISOLATION)}")
    return value


UnitName = Annotated[str | None, typer.Option("--unit", help="Only this unit.")]
ExerciseName = Annotated[str | None, typer.Option("--exercise", help="Only this exercise.")]
Level = Annotated[str, typer.Option("--isolation", callback=known_level, help="auto, portable, linux or strict.")]
DeviceName = Annotated[str | None, typer.Option("--device", help="cpu, cuda or auto; cpu by default.")]
Seed = Annotated[int | None, typer.Option("--seed", help="Draw other random inputs than by default.")]


def must_be_language(name: str, known: Sequence[str]) -> None:
    """Refuse a language that there is not."""
    if name not in known:
        there = "there is" if len(known) == 1 else "there are"
        raise typer.BadParameter(f"no such language: {name!r}; {there} {', '.join(known)}")


def chosen_device(name: str | None) -> str:
    """Return the device to grade on."""
    from grader import device

    try:
        return device.resolve(name)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None
