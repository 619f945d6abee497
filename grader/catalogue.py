"""The course's texts in other languages: a gettext catalogue for each unit, which follows the English texts.

Translators fill in `<package>/locale/<language>/LC_MESSAGES/<unit>.po`; what they have not done is said in English.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from grader.build import lesson, lesson_cells
from grader.course import Course, CourseError, Unit
from grader.stubs import stub
from grader.wording import blocks, docstrings

if TYPE_CHECKING:
    from babel.messages import Catalog

LONG_AGO = datetime(2026, 1, 1, tzinfo=UTC)
"""For the header: the same texts make the same file on any day."""
WIDTH = 120


def texts(unit: Unit) -> Iterator[tuple[str, str]]:
    """Yield (text, where it is said) of all texts of a unit: hints, what grows, lesson and contracts."""
    for exercise in unit.exercises:
        yield from ((text, f"{exercise.id}, hint {number}") for number, text in enumerate(exercise.hints, 1))
        yield from ((wrong.hint, f"{exercise.id}, {wrong.name}") for wrong in exercise.wrongs)
        yield from ((growth.axis, f"{exercise.id}, what grows") for growth in exercise.growths)
    section = ""
    for cell in lesson_cells(lesson(unit)):
        if not isinstance(cell, str) and cell.cell_type == "markdown":
            section = cell.source.partition("\n")[0].strip("# ") if cell.source.startswith("#") else section
            yield from ((block, f"lesson: {section}") for block in blocks(cell.source))
    for exercise in unit.exercises:
        for contract in docstrings(stub(exercise)):
            yield from ((block, f"{exercise.id}, contract") for block in blocks(contract))


def catalogue(path: Path, unit: Unit, language: str) -> Catalog:
    """Return the catalogue in a file (an empty one if there is none) with the unit's texts as they are now.

    The translation of a text that has changed is kept for a person to look at, marked fuzzy: until then it is not used.
    """
    from babel.messages import Catalog
    from babel.messages.pofile import read_po

    wanted = Catalog(creation_date=LONG_AGO)
    for text, where in texts(unit):
        wanted.add(text, auto_comments=[where])
    found = Catalog(language, header_comment=f"# The texts of {unit.name}.", project="torch-dojo",
                    creation_date=LONG_AGO, revision_date=LONG_AGO, fuzzy=False)  # fmt: skip
    if path.exists():
        with path.open("rb") as file:
            found = read_po(file, locale=language)
    found.update(wanted)
    return found


def stale(course: Course, names: Sequence[str], language: str) -> Iterator[tuple[Path, bytes]]:
    """Yield the catalogue files of some units that are not as they should be: the text, and the compiled form.

    Raises:
        CourseError: Babel is not installed.
    """
    try:
        from babel.messages.mofile import read_mo, write_mo
        from babel.messages.pofile import read_po, write_po
    except ImportError:
        raise CourseError("catalogues are made with Babel: pip install Babel") from None
    for name in names:
        path = place(course, name, language)
        found = catalogue(path, course.unit(name), language)
        text, compiled = io.BytesIO(), io.BytesIO()
        if not path.exists() or entries(read_po(io.BytesIO(path.read_bytes()))) != entries(found):
            write_po(text, found, width=WIDTH, ignore_obsolete=True, include_previous=True)
            yield path, text.getvalue()
        binary = path.with_suffix(".mo")
        if not binary.exists() or spoken(read_mo(io.BytesIO(binary.read_bytes()))) != spoken(found):
            write_mo(compiled, found)
            yield binary, compiled.getvalue()


def place(course: Course, unit: str, language: str) -> Path:
    """Return the catalogue file of a unit."""
    return course.locales / language / "LC_MESSAGES" / f"{unit}.po"


def entries(found: Catalog) -> list[Any]:
    """Return what a translator sees, but for the header."""
    return [(m.id, m.string, sorted(m.flags), m.auto_comments) for m in found if m.id]


def spoken(found: Catalog) -> dict[Any, Any]:
    """Return the translations that are used."""
    return {m.id: m.string for m in found if m.id and m.string and not m.fuzzy}


def missing(course: Course, names: Sequence[str], language: str) -> Iterator[tuple[str, str]]:
    """Yield (unit, where) of each text that is not translated."""
    for name in names:
        found = catalogue(place(course, name, language), course.unit(name), language)
        done = spoken(found)
        yield from ((name, "; ".join(m.auto_comments)) for m in found if m.id and m.id not in done)
