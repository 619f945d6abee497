"""Verdicts as rows: the JSON lines and the CSV of a class."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import grader
from grader.render.messages import translate
from grader.render.text import by_case, what_is_wrong
from grader.verdict import Verdict

SCHEMA = "torch-dojo/result/v1"
FORMULA_STARTS = tuple("=+-@＝＋－＠")
"""In some languages a spreadsheet takes the wide forms for the others."""
Row = dict[str, Any]


def row(verdict: Verdict, student: str, unit: str, digest: str | None, seed: int | None = None) -> Row:
    """Return one (student, exercise) as plain data, in the published order of fields."""
    found = [{"check": f.check, "case": f.case, "message": what_is_wrong(f)} for f in by_case(verdict)]
    return {
        "schema": SCHEMA,
        "student": student,
        "unit": unit,
        "exercise": verdict.exercise,
        "status": verdict.status,
        "points": verdict.points,
        "max_points": verdict.max_points,
        "findings": found,
        "misconception": verdict.misconception,
        "hint": None if verdict.hint is None else translate(verdict.hint),
        "untested": [translate(reason) for reason in verdict.untested],
        "isolation": verdict.isolation,
        "seed": seed,
        "seconds": verdict.seconds,
        "grader_version": grader.__version__,
        "source_sha256": digest,
    }


def json_line(data: Mapping[str, Any]) -> str:
    """Write one row as one line of strict JSON (never NaN, always UTF-8)."""
    return json.dumps(data, ensure_ascii=False, allow_nan=False).encode("utf-8", "backslashreplace").decode() + "\n"


def safe_cell(value: object) -> str:
    """Return a text that a spreadsheet does not take for a formula."""
    text = str(value)
    return f"'{text}" if text.lstrip().startswith(FORMULA_STARTS) else text  # whatever kind of blank comes before


def grades_csv(rows: Sequence[Row]) -> str:
    """Write one line per student and unit: points, maximum, and the points of each exercise."""
    exercises = list(dict.fromkeys((r["unit"], r["exercise"]) for r in rows))
    out = io.StringIO()
    writer = csv.writer(out, quoting=csv.QUOTE_ALL, lineterminator="\n")
    writer.writerow(["student", "unit", "points", "max_points", *(safe_cell(name) for _, name in exercises)])
    for (student, unit), own in grouped(rows).items():
        points = {r["exercise"]: r["points"] for r in own}
        cells = [points.get(name, "") if of == unit else "" for of, name in exercises]
        total, most = round(sum(points.values()), 2), sum(r["max_points"] for r in own)
        writer.writerow([safe_cell(student), unit, total, most, *cells])
    return out.getvalue()


def grouped(rows: Iterable[Row]) -> dict[tuple[str, str], list[Row]]:
    """Group rows by student and unit, in order."""
    groups: dict[tuple[str, str], list[Row]] = {}
    for one in rows:
        groups.setdefault((one["student"], one["unit"]), []).append(one)
    return groups
