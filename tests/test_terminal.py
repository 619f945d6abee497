"""A class on the terminal, at the widths that people have, and in a file."""

import io
from pathlib import Path

import pytest
from rich.console import Console

from grader.render.terminal import summary


def row(student, status="passed", message="", **more):
    facts = {
        "student": student, "unit": "softmax_regression", "exercise": "softmax", "status": status,
        "points": 5.0 if status == "passed" else 0.0, "max_points": 5, "misconception": None, "isolation": "portable",
        "findings": [{"message": message}] if message else [], "untested": [], "source_sha256": "0",
    }  # fmt: skip
    return facts | more


def shown(*rows, width=80, terminal=True):
    console = Console(file=io.StringIO(), width=width, force_terminal=terminal, color_system=None, highlight=False)
    summary(console, list(rows), Path("out"))
    return [line.rstrip() for line in console.file.getvalue().splitlines()]


LONG = "uses something_that_is_long which is not allowed in this exercise " * 2


@pytest.mark.parametrize("width", [80, 140])
def test_what_went_wrong_is_folded_between_words(width):
    lines = shown(row("ann"), row("a student of a long name", "failed", LONG), width=width)
    assert all(len(line) <= width for line in lines[:-2])
    told = " ".join(line.strip() for line in lines[3:-2])
    assert told == f"- softmax: {LONG.strip()}"


def test_columns_stand_below_one_another_whatever_the_names():
    lines = shown(row("ann"), row("\u674e\u96f7", "failed", "x"), row("a student of a long name"))
    assert lines[0] == f"{'student':24}  {'unit':18}    points  passed"
    assert lines[2] == f"{chr(0x674E)}{chr(0x96F7)}{' ' * 20}  softmax_regression  0.00 / 5   0 / 1"


def test_in_a_file_nothing_is_folded_and_what_is_cut_ends_in_dots():
    lines = shown(row("ann", "failed", LONG), row("bob", "failed", "x\n" * 500), terminal=False)
    assert f"  - softmax: {LONG.strip()}" in lines
    (cut,) = [line for line in lines if line.startswith("  - softmax: x x")]
    assert cut.endswith("x\u2026")
    assert len(cut) < 220


def test_who_handed_in_nothing_is_told_from_who_tried_nothing():
    absent = row("ann", "not_attempted", untested=["nothing was handed in"], source_sha256=None)
    lines = shown(absent, row("bob", "not_attempted", untested=["there is no CUDA device"]))
    assert lines[2] == "  - nothing was handed in"
    assert lines[4] == "  - not attempted"


def test_what_was_not_tested_is_said_once():
    left = "there is no CUDA device"
    lines = shown(row("ann", untested=[left]), row("bob", untested=[left]), row("cy", "not_attempted", untested=[left]))
    assert [line for line in lines if left in line] == [f"{left} (2 of 3 exercises)"]
