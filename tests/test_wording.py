"""Notebooks in another language: other words, the same code, cells and points."""

import ast
import os
import re
import subprocess
import sys

import nbformat
import pytest
from helpers import ROOT

from grader import submission
from grader.build import build, heading, solution_notebook
from grader.course import load_course
from grader.grade import Options, grade
from grader.learner import reset_exercise
from grader.pools import open_pool
from grader.render.messages import language, speaking
from grader.stubs import solution_cell, stub
from grader.subject import Worker
from grader.wording import blocks, docstrings, translated, with_docstrings

COURSE = load_course(ROOT)
EXERCISES = [e for unit in COURSE.units for e in unit.exercises]
CHINESE = re.compile(r"[\u4e00-\u9fff]")


@pytest.fixture(scope="module")
def chinese(tmp_path_factory):
    folder = tmp_path_factory.mktemp("zh")
    build(COURSE, COURSE.unit_names, folder, "zh")
    return folder


def without_docstrings(code):
    tree = ast.parse(code)
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)) and ast.get_docstring(node) is not None:
            del node.body[0]
    return ast.dump(tree)


def test_blocks_are_what_a_translator_needs():
    words, code, formula = "Some words and `code`\nover two lines.", "Example:\n    >>> f(1)\n    2", "$$a + b$$"
    assert list(blocks("\n\n".join(["# Title", words + "\n ", formula, code, "| 1 | `x` |\n"]))) == ["# Title", words]


QUOTED = '''class A:
    r"""One.

    Args:
        x: two \\alpha.
    """

    def f(self):
        """Three."""
'''


def test_a_docstring_keeps_its_quotes_and_indentation():
    assert list(docstrings(QUOTED)) == ["One.\n\nArgs:\n    x: two \\alpha.", "Three."]
    assert with_docstrings(QUOTED, lambda text: text) == QUOTED
    changed = with_docstrings(QUOTED, lambda text: text.replace("two", "four,\n        five").replace("Three", "3"))
    assert changed == QUOTED.replace("two", "four,\n            five").replace("Three", "3")
    assert with_docstrings('def f(): "on one line"\n', str.upper) == 'def f(): "on one line"\n'


@pytest.mark.parametrize("exercise", EXERCISES, ids=[e.id for e in EXERCISES])
def test_a_contract_in_chinese_keeps_the_code(exercise):
    with speaking("en"):
        assert with_docstrings(solution_cell(exercise), translated) == solution_cell(exercise)
    with speaking("zh"):
        said = with_docstrings(stub(exercise), translated)
    assert CHINESE.search(said)
    assert without_docstrings(said) == without_docstrings(stub(exercise))
    for english, other in zip(docstrings(stub(exercise)), docstrings(said), strict=True):
        sections = re.compile(r"^(?:Args|Returns|Raises|State|Example):$|^ *>>> .*$", re.MULTILINE)
        assert sections.findall(other) == sections.findall(english)
    assert [line for line in said.split("\n") if width(line) > 120] == []


def width(line):
    """Return how many columns a line takes: Chinese characters take two."""
    return sum(2 if ord(letter) > 0x2E7F else 1 for letter in line)


@pytest.mark.parametrize("unit", COURSE.unit_names)
@pytest.mark.parametrize("kind", ["solutions", "assignments"])
def test_a_notebook_in_chinese_has_the_same_cells(chinese, unit, kind):
    ours = nbformat.read(ROOT / kind / unit / f"{unit}.ipynb", 4).cells
    theirs = nbformat.read(chinese / kind / unit / f"{unit}.ipynb", 4).cells
    assert len(theirs) == len(ours)
    for a, b in zip(ours, theirs, strict=True):
        grade_id = a.metadata.get("nbgrader", {}).get("grade_id", "")
        known = {key: value for key, value in a.metadata.get("nbgrader", {}).items() if key != "checksum"}
        assert {k: v for k, v in b.metadata.get("nbgrader", {}).items() if k != "checksum"} == known
        assert (a.cell_type, a.id) == (b.cell_type, b.id)
        if a.cell_type == "markdown":
            assert CHINESE.search(b.source)
        elif grade_id == "setup":
            assert b.source.endswith('os.environ.setdefault("GRADER_LANG", "zh")')
            assert a.source in b.source
        else:
            assert without_docstrings(b.source) == without_docstrings(a.source)


def test_what_is_written_in_a_chinese_notebook_is_graded_like_any_other(chinese):
    unit = COURSE.unit("softmax_regression")
    with Worker(open_pool("auto")) as worker:
        for kind, status in (("assignments", "not_attempted"), ("solutions", "passed")):
            path = chinese / kind / unit.name / f"{unit.name}.ipynb"
            found = grade(COURSE, unit, submission.read(path), worker, Options())
            assert {verdict.status for verdict in found} == {status}


def test_the_language_of_a_build_is_that_which_was_asked_for(monkeypatch, tmp_path):
    monkeypatch.setenv("GRADER_LANG", "zh")
    unit = COURSE.unit("regularization")
    (path, _) = build(COURSE, [unit.name], tmp_path)
    assert path.read_bytes() == (ROOT / "solutions" / unit.name / f"{unit.name}.ipynb").read_bytes()
    assert language() == "zh"
    assert CHINESE.search(heading(unit, unit.exercises[0]))
    with speaking("en"):
        assert not CHINESE.search(str(solution_notebook(COURSE, unit)))


def test_reset_speaks_the_language(monkeypatch, tmp_path, chinese):
    monkeypatch.setenv("GRADER_LANG", "zh")
    unit = COURSE.unit("softmax_regression")
    path = tmp_path / "softmax_regression.ipynb"
    original = chinese / "assignments" / unit.name / f"{unit.name}.ipynb"
    notebook = nbformat.read(original, 4)
    (cell,) = (c for c in notebook.cells if c.metadata.get("nbgrader", {}).get("grade_id") == "softmax")
    released, cell.source = cell.source, "def softmax(X, dim): return X"
    nbformat.write(notebook, path)
    reset_exercise(unit.exercise("softmax"), path)
    (cell,) = (c for c in nbformat.read(path, 4).cells if c.metadata.get("nbgrader", {}).get("grade_id") == "softmax")
    assert cell.source == released


@pytest.mark.parametrize(
    "words, said",
    [
        (("--language", "zh"), "name another folder with --into"),
        (("--language", "zh", "--into", "."), "name another folder with --into"),
        (("--language", "fr", "--into", "x"), "no such language: 'fr'; there are en, zh"),
        (("--check", "--into", "x"), "without --into and"),
    ],
)
def test_the_english_notebooks_are_not_overwritten(words, said):
    code = f"import sys; sys.argv = ['grader', 'build', *{words}]; from grader.cli import main; main()"
    run = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=os.environ | {"COLUMNS": "300"}, text=True, capture_output=True
    )
    assert run.returncode == 2
    assert said in run.stderr
