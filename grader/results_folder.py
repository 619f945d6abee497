"""The folder that a run writes into: its journal, which belongs to one run at a time, and the results of all runs."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from grader.render.results import Row, grades_csv
from grader.submission import SubmissionError

JOURNAL = "journal.jsonl"
RESULTS = "results.jsonl"
GRADES = "grades.csv"

Graded = tuple[Row, ...]
"""The rows of one job."""


def read_journal(path: Path) -> dict[str, Graded]:
    """Read the finished submissions of an earlier run; a line cut short by a kill is left out."""
    if not path.exists():
        return {}
    found = {}
    for line in path.read_bytes().split(b"\n"):
        try:
            data = json.loads(line)
            found[data["key"]] = tuple(data["rows"])
        except (ValueError, KeyError, TypeError):
            continue
    return found


@contextlib.contextmanager
def own_journal(out: Path) -> Iterator[BinaryIO]:
    """Open a folder's journal, as it is, for one run: whatever it reads and writes there is its own until it ends."""
    out.mkdir(parents=True, exist_ok=True)
    with (out / JOURNAL).open("ab") as file:
        if not claimed(file):
            raise SubmissionError(f"another run is writing into {out}: wait for it, or choose another folder")
        yield file


def claimed(file: BinaryIO) -> bool:
    """Take the lock of an open file, which ends with the process at the latest; False where another one has it."""
    if sys.platform == "win32":
        return True  # nothing is graded there
    import fcntl

    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return True  # this file system knows no locks
    return True


def earlier_rows(path: Path) -> list[Row]:
    """Read the results that stand in a folder, if there are any; a file that holds something else is left alone."""
    try:
        found = read_rows(path) if path.exists() else []
        grades_csv(found)  # needs every field that the files are made from
    except (ValueError, KeyError, TypeError):
        raise SubmissionError(f"{path} does not hold results: move it away, or choose another folder") from None
    return found


def with_others(earlier: list[Row], rows: list[Row]) -> list[Row]:
    """Return rows together with the earlier results of exercises that are not among them: of other units, say."""
    covered = {(r["unit"], r["exercise"]) for r in rows}
    others = [r for r in earlier if (r["unit"], r["exercise"]) not in covered]
    return sorted([*others, *rows], key=lambda r: (r["student"], r["unit"])) if others else rows


def write_whole(path: Path, text: str) -> None:
    """Replace a file in one step, so that nobody ever sees half of it."""
    partial = path.with_name(path.name + ".partial")
    partial.write_text(text, encoding="utf-8", newline="\n")
    partial.replace(path)


def read_rows(path: Path) -> list[Row]:
    """Read an earlier results.jsonl."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line]
