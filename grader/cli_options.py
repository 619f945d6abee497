"""What the commands share: exit codes, the console, options of the same name."""

from __future__ import annotations

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


def chosen_device(name: str | None) -> str:
    """Return the device to grade on."""
    from grader import device

    try:
        return device.resolve(name)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None
