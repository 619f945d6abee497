"""A small course in a folder of its own, submissions for it, and nbgrader's commands run on it."""

import copy
import csv
import json
import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nbformat
import pytest
from filelock import FileLock

REPOSITORY = Path(__file__).resolve().parent.parent
UNIT = "softmax_regression"
EXERCISES = ("softmax", "accuracy")
CHECKS = tuple(f"check_{name}" for name in EXERCISES)
LESSON = """\
# Scores and probabilities

For $0<p<1$ see the text.

<!-- exercise: softmax -->

## How good is it?

<!-- exercise: accuracy -->
"""
UNIT_MODULE = f"""\
TITLE = "Softmax regression"
EXERCISES = {EXERCISES}
FORBID = ("softmax", "log_softmax", "logsumexp")
"""
OURS = (REPOSITORY / "nbgrader_config.py").read_text(encoding="utf-8")
STOCK = """\
import os

c = get_config()
c.CourseDirectory.course_id = "torch-dojo"
c.CourseDirectory.source_directory = "solutions"
c.CourseDirectory.release_directory = "assignments"
c.CourseDirectory.root = os.path.dirname(os.path.abspath(__file__))
c.Execute.timeout = 120
"""
NAIVE = "def softmax(x, dim=-1):\n    return x.exp() / x.exp().sum(dim, keepdim=True)"
WRONG = {
    "softmax": "def softmax(x, dim=-1):\n    return torch.zeros_like(x)",
    "accuracy": "def accuracy(logits, target, *, ignore_index=None):\n    return 2.0",
}
ESSAY, SKETCH, OWN_TEST = "essay", "sketch", "own_test"
PROCESSES = "processes.txt"
RECORDED = f"""\
import sys
from nbgrader.apps import NbGraderApp
def note(event, arguments):
    if event == "subprocess.Popen":
        with open({PROCESSES!r}, "a") as file:
            file.write(" ".join(map(str, arguments[1])) + "\\n")
sys.addaudithook(note)
NbGraderApp.launch_instance(sys.argv[1:])
"""
Notebook = Any
Edit = Callable[[Notebook], None]


def once(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], None]) -> Path:
    """Make a folder once for all of pytest-xdist's workers, which do not share fixtures."""
    base = factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / name
    with FileLock(f"{folder}.lock"):
        if not (folder / ".made").exists():
            shutil.rmtree(folder, ignore_errors=True)
            make(folder)
            (folder / ".made").touch()
    return folder


@pytest.fixture(scope="session")
def course(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A released course; copy it before changing anything."""
    return once(tmp_path_factory, "course", make_course)


def another(course: Path, root: Path, config: str = OURS) -> Path:
    """Copy a course, with an nbgrader_config.py of its own."""
    shutil.copytree(course, root, symlinks=True, dirs_exist_ok=True)
    write(root / "nbgrader_config.py", config)
    return root


def make_course(root: Path) -> None:
    """Make a course of two exercises and release it, with cells of the instructor's own in its notebook."""
    folder = root / "reference" / UNIT
    write(folder / "__init__.py", UNIT_MODULE)
    write(folder / "lesson.md", LESSON)
    for name in EXERCISES:
        shutil.copy(REPOSITORY / "reference" / UNIT / f"{name}.py", folder)
    build(root)
    release(root, own_cells)


def build(root: Path) -> None:
    """Make what a course's folder needs besides the unit, and the unit's notebooks."""
    write(root / "pyproject.toml", '[tool.grader]\ncourse = "reference"\n')
    write(root / "reference" / "__init__.py", f'TITLE = "A course"\nUNITS = ("{UNIT}",)\n')
    write(root / "nbgrader_config.py", OURS)
    command(root, sys.executable, "-c", "from grader.cli import main; main()", "build")


def release(root: Path, edit: Edit) -> None:
    """Change a course's solution notebook and release it."""
    path = root / "solutions" / UNIT / f"{UNIT}.ipynb"
    notebook = nbformat.read(path, 4)
    edit(notebook)
    nbformat.write(notebook, path)
    nbgrader(root, "generate_assignment", UNIT, "--create", "--force")


def own_cells(notebook: Notebook) -> None:
    """Add an essay and a sketch, both for a person to grade, and a test cell that belongs to no exercise."""
    essay = nbformat.v4.new_markdown_cell("Because.", metadata=marks(ESSAY, 2, solution=True))
    sketch = nbformat.v4.new_code_cell("answer = 42", metadata=marks(SKETCH, 1, solution=True))
    own_test = nbformat.v4.new_code_cell("assert True", metadata=marks(OWN_TEST, 1, solution=False))
    notebook.cells += [essay, sketch, own_test]


def marks(name: str, points: int, solution: bool) -> dict[str, Any]:
    """nbgrader's metadata of a graded cell."""
    facts = {"grade_id": name, "points": points, "grade": True, "solution": solution, "locked": not solution}
    return {"nbgrader": {**facts, "task": False, "schema_version": 3}}


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def environment(root: Path) -> dict[str, str]:
    """The environment for commands in a course: nothing of this user's Jupyter, one thread."""
    env = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST_", "TORCH_DOJO"))}
    env["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), env.get("PATH", "")])
    env.update(JUPYTER_CONFIG_DIR=str(root / ".jupyter"), IPYTHONDIR=str(root / ".ipython"), OMP_NUM_THREADS="1")
    return env


def command(root: Path, *words: str, status: int = 0) -> str:
    """Run a command in a course and return what it printed."""
    done = subprocess.run(
        words, cwd=root, env=environment(root), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False
    )
    printed = done.stdout.decode("utf-8", "replace")
    assert done.returncode == status, f"{' '.join(words)} ended with {done.returncode}\n{printed[-6000:]}"
    return printed


def nbgrader(root: Path, *words: str, status: int = 0) -> str:
    """Run an nbgrader command in a course and return what it printed."""
    return command(root, sys.executable, "-m", "nbgrader", *words, status=status)


def autograde(root: Path, *words: str, status: int = 0) -> str:
    """Run `nbgrader autograde` and note in the course which processes it starts."""
    return command(root, sys.executable, "-c", RECORDED, "autograde", UNIT, *words, status=status)


def started(root: Path) -> list[str]:
    """Return the command lines of the processes that autograding started."""
    return (root / PROCESSES).read_text(encoding="utf-8").splitlines()


def released(root: Path) -> Notebook:
    """Read the notebook that learners get."""
    return nbformat.read(root / "assignments" / UNIT / f"{UNIT}.ipynb", 4)


def solutions(root: Path) -> dict[str, str]:
    """Return the solutions' code, by exercise."""
    notebook = nbformat.read(root / "solutions" / UNIT / f"{UNIT}.ipynb", 4)
    return {name: cell.source for name in named(notebook) if (cell := find(notebook, name)).cell_type == "code"}


def named(notebook: Notebook) -> list[str]:
    """List the grade ids in a notebook."""
    return [cell.metadata.nbgrader.grade_id for cell in notebook.cells if "nbgrader" in cell.metadata]


def find(notebook: Notebook, name: str) -> Any:
    """Return the cell with a grade id."""
    return next(c for c in notebook.cells if c.metadata.get("nbgrader", {}).get("grade_id") == name)


def answered(root: Path, **answers: str) -> Notebook:
    """Return the release notebook with some solution cells filled in, by default with the solutions."""
    notebook, right = released(root), solutions(root)
    for name in EXERCISES:
        find(notebook, name).source = answers.get(name, right[name])
    return notebook


def add_code(notebook: Notebook, source: str, before: str = "softmax", **metadata: Any) -> None:
    """Put a code cell of the learner's before a known cell."""
    cell = nbformat.v4.new_code_cell(source, metadata=metadata)
    notebook.cells.insert(notebook.cells.index(find(notebook, before)), cell)


def duplicated(notebook: Notebook, *names: str) -> None:
    """Put a copy of cells, ids and all, at the end."""
    notebook.cells += [copy.deepcopy(find(notebook, name)) for name in names]


def folder_of(root: Path, student: str) -> Path:
    """Return the folder that a student hands in."""
    folder = root / "submitted" / student / UNIT
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def hand_in(root: Path, student: str, notebook: Notebook, name: str = f"{UNIT}.ipynb") -> Path:
    """Hand in a notebook as it is, without nbformat's blessing; or a file's bytes."""
    path = folder_of(root, student) / name
    data = notebook if isinstance(notebook, bytes) else json.dumps(notebook).encode()
    path.write_bytes(data)
    return path


def query(root: Path, sql: str, *values: object) -> list[tuple[Any, ...]]:
    """Ask the gradebook, or change it."""
    with sqlite3.connect(root / "gradebook.db", timeout=30) as base:
        found = base.execute(sql, values).fetchall()
    base.close()
    return found


Grades = dict[str, dict[str, tuple[float | None, float | None, float | None, bool]]]


def grades(root: Path) -> Grades:
    """Return (auto, manual, extra, needs a person) by student and cell."""
    rows = query(
        root,
        "select s.student_id, b.name, g.auto_score, g.manual_score, g.extra_credit, g.needs_manual_grade "
        "from grade g join submitted_notebook n on g.notebook_id = n.id "
        "join submitted_assignment s on n.assignment_id = s.id join base_cell b on g.cell_id = b.id",
    )
    found: Grades = {}
    for student, cell, auto, manual, extra, needs in rows:
        found.setdefault(student, {})[cell] = (auto, manual, extra, bool(needs))
    return found


def most(root: Path) -> list[float]:
    """Return the points of the check cells."""
    points = dict(query(root, "select b.name, c.max_score from base_cell b join grade_cells c on b.id = c.id"))
    return [points[name] for name in CHECKS]


def earned(root: Path, student: str) -> list[float | None]:
    """Return a student's automatic scores of the check cells."""
    own = grades(root)[student]
    return [own[name][0] for name in CHECKS]


def exported(root: Path) -> dict[str, dict[str, str]]:
    """Run `nbgrader export` and return its rows by student."""
    nbgrader(root, "export")
    with (root / "grades.csv").open(newline="") as file:
        return {row["student_id"]: row for row in csv.DictReader(file)}


def feedback(root: Path, student: str) -> str:
    """Read a student's feedback page."""
    return (root / "feedback" / student / UNIT / f"{UNIT}.html").read_text(encoding="utf-8")
