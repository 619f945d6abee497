"""The setup cell of a unit: every notebook begins with it, and so does every submission when it is graded."""

from __future__ import annotations

import ast
from dataclasses import replace
from functools import lru_cache

from grader.course import Course, Unit, solution_source
from grader.exercise import Exercise
from grader.parsing import parse
from grader.slicing import Cell
from grader.statements import bound_names
from grader.submission import Submission, make_cell

SETUP = """\
import math

import matplotlib.pyplot as plt
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from grader import check, data, hint, profile, provided, reproduce

torch.set_num_threads(1)  # for small tensors one is nearly as fast as many, and never waits for another
"""


def prepared(course: Course, unit: Unit, found: Submission) -> Submission:
    """Put a unit's setup in front of a submission's own cells.

    What a learner added to the setup cell counts, and what they removed from it is there all the same: a deleted
    cell, or a .py file that begins with the first exercise, costs no points, on whichever surface it is graded.
    """
    return replace(found, cells=(setup_cell(course, unit), *found.cells))


@lru_cache
def setup_cell(course: Course, unit: Unit) -> Cell:
    """Return the setup of a unit as a cell."""
    return make_cell("setup", setup(course, unit))


def setup(course: Course, unit: Unit) -> str:
    """Return the setup cell: the imports of all solutions, and what earlier units provide."""
    usual = parse(SETUP).body
    known = {ast.unparse(node) for node in usual}
    bound = {name for node in usual for name in bound_names(node)}
    extra: dict[str, None] = {}
    for exercise in unit.exercises:
        for node in imports_of(exercise):
            for alias in node.names:
                single = (
                    ast.Import([alias]) if isinstance(node, ast.Import) else ast.ImportFrom(node.module, [alias], 0)
                )
                text = ast.unparse(single)
                if text not in known and (alias.asname or alias.name) not in bound:
                    extra[text] = None
    own = {e.id for e in unit.exercises}
    earlier = dict.fromkeys(used for e in unit.exercises for used in e.uses if used not in own)
    names = [f'{course.find(used)[1].name} = provided("{used}")' for used in earlier]
    parts = ["\n".join(sorted(extra)) + "\n" + SETUP if extra else SETUP, "\n".join(names)]
    return "\n".join(part for part in parts if part).strip()


def imports_of(exercise: Exercise) -> list[ast.Import | ast.ImportFrom]:
    """Return the import statements that a solution needs, the course's own left aside."""
    found = []
    for _, text in solution_source(exercise):
        for node in parse(text).body:
            if isinstance(node, ast.Import) or (isinstance(node, ast.ImportFrom) and node.module != "__future__"):
                found.append(node)
    return found
