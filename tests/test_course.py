"""The course itself: every exercise is sound, every notebook fresh, solutions pass and stubs are not attempted."""

import nbformat
import pytest
import torch
from helpers import ROOT
from nbclient import NotebookClient

from grader import Cost, submission
from grader.audit import audit_exercise, unit_problems
from grader.build import heading
from grader.course import load_course, solution_source
from grader.grade import Options, grade
from grader.pools import open_pool
from grader.render.text import text
from grader.stubs import leaked_lines, stub
from grader.subject import Worker

COURSE = load_course(ROOT)
UNITS = COURSE.unit_names
EXERCISES = [(unit, e.id) for unit in UNITS for e in COURSE.unit(unit).exercises]


@pytest.mark.timeout(1000)
@pytest.mark.parametrize("unit, exercise", EXERCISES, ids=[f"{u}/{e}" for u, e in EXERCISES])
def test_the_audit_is_clean(unit, exercise):
    found = COURSE.unit(unit)
    assert [str(p) for p in audit_exercise(COURSE, found, found.exercise(exercise))] == []


@pytest.mark.parametrize("unit", UNITS)
def test_helpers_do_not_collide(unit):
    assert [str(p) for p in unit_problems(COURSE.unit(unit))] == []


def notebook(kind, unit):
    return ROOT / kind / unit / f"{unit}.ipynb"


def verdicts(path, unit):
    with Worker(open_pool("auto")) as worker:
        return grade(COURSE, COURSE.unit(unit), submission.read(path), worker, Options())


@pytest.mark.parametrize("unit", UNITS)
def test_the_solution_earns_full_points_and_the_stub_is_not_attempted(unit):
    for verdict in verdicts(notebook("solutions", unit), unit):
        assert verdict.passed, text(verdict)
        assert verdict.points == verdict.max_points
    assert {v.status for v in verdicts(notebook("assignments", unit), unit)} == {"not_attempted"}


@pytest.mark.parametrize("unit", UNITS)
def test_no_solution_line_is_in_the_stub(unit):
    release = notebook("assignments", unit).read_text(encoding="utf-8")
    for exercise in COURSE.unit(unit).exercises:
        assert leaked_lines(exercise, release) == [], exercise.id


@pytest.mark.parametrize("unit", UNITS)
def test_reset_restores_what_was_released(unit):
    cells = nbformat.read(notebook("assignments", unit), 4).cells
    released = {c.metadata.get("nbgrader", {}).get("grade_id"): c.source for c in cells}
    for exercise in COURSE.unit(unit).exercises:
        assert stub(exercise) == released[exercise.id]


@pytest.mark.slow
@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("unit", UNITS)
def test_the_lesson_runs_with_the_solutions(unit):
    lesson = nbformat.read(notebook("solutions", unit), 4)
    lesson.cells = [c for c in lesson.cells if not c.metadata.get("nbgrader", {}).get("grade")]
    NotebookClient(lesson, timeout=250, resources={"metadata": {"path": str(ROOT)}}).execute()
    shown = [output for cell in lesson.cells for output in cell.get("outputs", [])]
    assert any("image/png" in output.get("data", {}) for output in shown), "a lesson has pictures"
    noise = [output.text for output in shown if output.output_type == "stream" and output.name == "stderr"]
    assert noise == []


@pytest.mark.parametrize("unit", UNITS)
def test_a_lesson_uses_one_thread(unit):
    """On a busy machine, threads that wait for one another made a cell of four seconds one of four minutes."""
    cells = nbformat.read(notebook("assignments", unit), 4).cells
    (setup,) = (c.source for c in cells if c.metadata.get("nbgrader", {}).get("grade_id") == "setup")
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        exec(setup, {})
        assert torch.get_num_threads() == 1
    finally:
        torch.set_num_threads(before)


def test_the_check_cells_of_a_solution_give_full_points():
    """What nbgrader without our configuration does: run everything in a kernel and read the last value."""
    unit = "softmax_regression"
    graded = nbformat.read(notebook("solutions", unit), 4)
    keep = ("setup", "softmax", "check_softmax", "accuracy", "check_accuracy")
    graded.cells = [c for c in graded.cells if c.metadata.get("nbgrader", {}).get("grade_id") in keep]
    NotebookClient(graded, timeout=250, resources={"metadata": {"path": str(ROOT)}}).execute()
    for cell in graded.cells:
        marks = cell.metadata.nbgrader
        if marks.grade:
            assert not [o for o in cell.outputs if o.output_type == "stream" and o.name == "stderr"]
            results = [o.data["text/plain"] for o in cell.outputs if o.output_type == "execute_result"]
            assert results == [repr(float(marks.points))]


def test_the_course_is_not_importable_without_its_root():
    assert all("reference" not in text for _, text in solution_source(COURSE.find("encoder_block")[1]))


def test_every_limit_that_is_graded_stands_in_the_notebook():
    told = {e.id: heading(u, e) for u in COURSE.units for e in u.exercises}
    assert "at most 14 operations" in told["group_norm"]
    assert "no Python loop over groups or images" in told["group_norm"]
    assert "at most 6 times the time of the reference" in told["conv2d"]
    assert "at most 5.25 x `X` of new memory" in told["batch_norm"]
    assert "no value is read back" in told["batch_norm_layer"]
    for unit in COURSE.units:
        for exercise in unit.exercises:
            limited = exercise.cost != Cost() or exercise.growths or exercise.timed
            assert ("what it costs" in told[exercise.id]) == bool(limited), exercise.id
            assert all(f"`{word}`" in told[exercise.id] for word in exercise.forbid)
