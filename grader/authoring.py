"""Commands for whoever writes the course: build, audit, soak."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from grader.cli_options import FAILED, OK, UnitName, console, must_be_language

author = typer.Typer()


@author.command("build")
def build_command(
    unit: UnitName = None,
    check: Annotated[bool, typer.Option("--check", help="Write nothing; fail if a notebook is stale.")] = False,
    language: Annotated[str, typer.Option("--language", help="The notebooks' language: en or zh.")] = "en",
    into: Annotated[Path | None, typer.Option("--into", help="The folder; by default that of the course.")] = None,
) -> None:
    """Make solutions/ and assignments/ from reference/."""
    from grader.build import build, stale
    from grader.course import load_course
    from grader.render.messages import LANGUAGES

    course = load_course()
    must_be_language(language, LANGUAGES)
    if check and (into is not None or language != "en"):
        raise typer.BadParameter("--check is about the English notebooks of the course: without --into and --language")
    if language != "en" and (into is None or into.resolve() == course.root):
        raise typer.BadParameter("the notebooks of the course are in English; name another folder with --into")
    units = [unit] if unit else list(course.unit_names)
    if not check:
        for path in build(course, units, into or course.root, language):
            console.print(str(path if into else path.relative_to(course.root)), soft_wrap=True)
        return
    old = stale(course, units)
    for name in old:
        console.print(f"stale: {name}", soft_wrap=True)
    if old:
        console.print("run: grader build")
        raise typer.Exit(FAILED)


@author.command("translate")
def translate_command(
    language: Annotated[str, typer.Argument(help="The language: zh.")],
    unit: UnitName = None,
    check: Annotated[bool, typer.Option("--check", help="Write nothing; fail if a catalogue is stale.")] = False,
) -> None:
    """Bring a language's catalogues up to date, compile them, and list what is not translated yet."""
    from grader.catalogue import missing, stale
    from grader.course import load_course
    from grader.render.messages import LANGUAGES

    must_be_language(language, [name for name in LANGUAGES if name != "en"])
    course = load_course()
    names = [unit] if unit else list(course.unit_names)
    old = list(stale(course, names, language))
    for path, data in old:
        if not check:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
        console.print(f"{'stale: ' if check else ''}{path.relative_to(course.root)}", soft_wrap=True)
    todo = list(missing(course, names, language))
    for name, where in todo:
        console.print(f"not translated: {name}: {where}", markup=False, soft_wrap=True)
    raise typer.Exit(FAILED if todo or (check and old) else OK)


@author.command()
def audit(
    target: Annotated[str, typer.Argument(help="A unit, or unit/exercise; everything by default.")] = "",
    seeds: Annotated[int, typer.Option("--seeds", min=1, max=3, help="Try wrong answers on so many seeds.")] = 1,
    mutate: Annotated[bool, typer.Option("--mutate", help="Try mechanical mutants of the solutions too.")] = False,
) -> None:
    """Check the course itself: wrong answers must be caught, right ones must pass."""
    from grader.audit import audit as run
    from grader.course import load_course

    unit, _, exercise = target.partition("/")
    count = 0
    course = load_course()
    for name, problems in run(course, unit or None, exercise or None, seeds):
        console.print(f"{name}: {'clean' if not problems else f'{len(problems)} problems'}", soft_wrap=True)
        for problem in problems:
            console.print(f"  {problem}", markup=False, soft_wrap=True)
        count += len(problems)
    if mutate:
        count += mutants(course, unit or None, exercise or None)
    raise typer.Exit(FAILED if count else OK)


def mutants(course: Any, unit: str | None, exercise: str | None) -> int:
    """Report how many mutants of the solutions are rejected; returns the number of unexplained survivors."""
    from grader.mutate import mutate_course

    rejected = total = unexplained = 0
    for name, report in mutate_course(course, unit, exercise):
        rejected, total = rejected + report.rejected, total + report.behaving
        console.print(f"{name}: {report.rejected} of {report.behaving} mutants rejected", soft_wrap=True)
        for survivor in report.survivors:
            console.print(survivor.text(), markup=False, soft_wrap=True)
            unexplained += survivor.reason is None
    share = 100.0 * rejected / total if total else 100.0
    console.print(
        f"{rejected} of {total} behaving mutants rejected ({share:.1f} %), {unexplained} survivors unexplained"
    )
    return unexplained


@author.command()
def soak(
    checks: Annotated[int, typer.Option("--checks", help="How many checks of right answers to make.")] = 1000,
    unit: UnitName = None,
) -> None:
    """Check the right answers over fresh seeds: not one may be rejected."""
    from grader.audit import soak as run
    from grader.course import load_course

    made = rejected = 0
    for text in run(load_course(), checks, unit):
        made += 1
        if text:
            rejected += 1
            console.print(text, markup=False, soft_wrap=True)
    console.print(f"{rejected} false rejects in {made} checks")
    raise typer.Exit(FAILED if rejected else OK)
