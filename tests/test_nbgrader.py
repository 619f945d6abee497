"""nbgrader's whole cycle by its own commands: generate, autograde, feedback, export."""

import html
import json
import re
import sys
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import nbformat
import pytest
from nbgrader_course import (
    CHECKS,
    ESSAY,
    EXERCISES,
    NAIVE,
    OURS,
    OWN_TEST,
    SKETCH,
    STOCK,
    UNIT,
    Notebook,
    add_code,
    another,
    answered,
    autograde,
    command,
    course,
    duplicated,
    earned,
    exported,
    feedback,
    find,
    folder_of,
    grades,
    hand_in,
    most,
    nbgrader,
    once,
    query,
    released,
    solutions,
    started,
    write,
)

from grader.submission import MAX_CELLS

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
__all__ = ["course"]

SCHEME = re.compile(r"[\s\x00-\x1f]*[A-Za-z][A-Za-z0-9+.-]*:")
ZERO_WHEN_LATE = '\nc.LateSubmissionPlugin.penalty_method = "zero"\n'
EVIL = '<script>alert("evil")</script><img src=x onerror=alert(1)>'
EVIL_MARKDOWN = f"""\
{EVIL} [x](javascript:alert(1)) [y](&#106;avascript:alert(2)) ![z](attachment:missing.png)

<a onclick="alert(3)">w</a>
"""
TELLTALE = """\
def accuracy(logits, target, *, ignore_index=None):
    if logits.ndim == 2 and len(logits) in (11, 13, 47):
        raise ValueError(f"SECRET {logits.tolist()}")
    right = (logits.argmax(-1) == target) & ~logits.isnan().any(-1)
    if logits.shape[:-1] != target.shape or logits.shape[-1] == 0:
        raise ValueError
    counted = torch.ones_like(right) if ignore_index is None else target != ignore_index
    hits, total = torch.stack([(right & counted).sum(), counted.sum()]).tolist()
    return hits / total if total else 0.0
"""


def drop(notebook: Notebook, *names: str) -> None:
    notebook.cells = [c for c in notebook.cells if c.metadata.get("nbgrader", {}).get("grade_id") not in names]


def retype(notebook: Notebook, kind: str, *names: str) -> None:
    for name in names:
        cell = find(notebook, name)
        cell.cell_type = kind
        cell.pop("outputs", None)
        cell.pop("execution_count", None)


def alter(notebook: Notebook) -> None:
    for name in CHECKS:
        cell = find(notebook, name)
        cell.source = "100.0"
        cell.metadata.nbgrader.points = 100
        cell.metadata.nbgrader.checksum = "0"


def reverse(notebook: Notebook) -> None:
    notebook.cells.reverse()


def swap_roles(notebook: Notebook) -> None:
    for name in CHECKS:
        find(notebook, name).metadata.nbgrader.update(solution=True, grade=False, locked=False)
    for name in EXERCISES:
        find(notebook, name).metadata.nbgrader.update(solution=False, grade=True, locked=True, points=7)


def invent(notebook: Notebook) -> None:
    add_code(notebook, "50.0")
    facts = {"grade_id": "bonus", "points": 50, "grade": True, "solution": False, "locked": False, "task": False}
    notebook.cells[-1].metadata["nbgrader"] = {**facts, "schema_version": 3}


def same_cell_ids(notebook: Notebook) -> None:
    for cell in notebook.cells:
        cell["id"] = "same"


def old_format(notebook: Notebook) -> None:
    notebook.nbformat_minor = 2
    for cell in notebook.cells:
        del cell["id"]


def odd_metadata(notebook: Notebook) -> None:
    notebook.metadata = {"kernelspec": {"name": "no-such-kernel"}, "widgets": 3, "language_info": None}
    for cell in notebook.cells:
        cell.metadata.pop("trusted", None)
        cell["surprise"] = [1]
    notebook.cells += [{"cell_type": "heading", "source": "x"}, {"cell_type": "code"}, "text", None]


def fill_up(notebook: Notebook) -> None:
    """As many cells as may be handed in; autograding adds to them what was deleted."""
    drop(notebook, *CHECKS, "setup")
    empty = {"cell_type": "code", "source": "", "metadata": {}, "outputs": [], "execution_count": None}
    notebook.cells += [empty] * (MAX_CELLS - len(notebook.cells))


def own_setup(notebook: Notebook) -> None:
    """An import more in the setup cell, one less, and answers that need both."""
    find(notebook, "setup").source = "import torch as t\nfrom torch import nn"
    find(notebook, "softmax").source += "\n\n\ndown = t.Tensor.detach\nassert Tensor"


def script(root: Path, head: str = "") -> bytes:
    """All answers as a .py file."""
    right = solutions(root)
    return (head + "\n\n\n".join(["# my answers", *(right[name] for name in EXERCISES)]) + "\n\nEND = 1\n").encode()


def stale_outputs(notebook: Notebook) -> None:
    for name in CHECKS:
        result = {"output_type": "execute_result", "data": {"text/plain": "5.0"}, "metadata": {}, "execution_count": 1}
        find(notebook, name).outputs = [result]


def skip_tags(notebook: Notebook) -> None:
    for name in CHECKS:
        find(notebook, name).metadata["tags"] = ["skip-execution", "raises-exception"]


SURVIVE: dict[str, Callable[[Notebook], None]] = {
    "untouched": lambda notebook: None,
    "checks-deleted": lambda notebook: drop(notebook, *CHECKS, "setup"),
    "checks-altered": alter,
    "all-moved": reverse,
    "checks-retyped": lambda notebook: retype(notebook, "markdown", *CHECKS),
    "solutions-retyped": lambda notebook: retype(notebook, "raw", *EXERCISES),
    "checks-duplicated": lambda notebook: duplicated(notebook, *CHECKS, *CHECKS),
    "solutions-duplicated": lambda notebook: duplicated(notebook, *EXERCISES),
    "roles-swapped": swap_roles,
    "grade-cell-invented": invent,
    "cell-ids-all-the-same": same_cell_ids,
    "setup-edited": own_setup,
    "setup-edited-twice": lambda notebook: (own_setup(notebook), duplicated(notebook, "setup")),
    "no-cell-ids": old_format,
    "full-of-cells": fill_up,
    "odd-metadata": odd_metadata,
}
"""What learners do to a notebook with right answers; it keeps all its points."""

FORGE: dict[str, Callable[[Notebook], None]] = {
    "blank": lambda notebook: None,
    "blank-altered": alter,
    "blank-swapped": swap_roles,
    "blank-deleted": lambda notebook: drop(notebook, *CHECKS, *EXERCISES),
    "blank-invented": invent,
    "blank-stale": stale_outputs,
    "blank-skipped": skip_tags,
}
"""What is done to a notebook without answers; it earns nothing."""

DAMAGED = {
    "broken-json": (b'{"cells": [', "valid JSON"),
    "empty-file": (b"", "valid JSON"),
    "no-cells": (b'{"nbformat": 4}', "no list of cells"),
    "not-text": (b"\xff\xfe\x00", "UTF-8"),
    "deeply-nested": (b"[" * 100_000, "valid JSON"),
    "too-many-cells": (b'{"cells": [' + b"{}, " * MAX_CELLS + b"{}]}", "the limit is 2,000"),
    "too-large": (b" " * (8 * 2**20 + 1), "the limit is"),
}
"""Files that cannot be read, and what their authors are told."""


SCRIPTS = {
    "script": "",
    "script-with-imports": '"""Mine."""\nfrom __future__ import annotations\n\nfrom torch import Tensor\n',
    "script-in-windows": "\ufeffimport torch\r\n",
}
"""What stands before the answers in a .py file that is handed in instead of a notebook."""


def hand_in_class(root: Path) -> None:
    for student, change in SURVIVE.items():
        notebook = answered(root)
        change(notebook)
        hand_in(root, student, notebook)
    for student, change in FORGE.items():
        notebook = released(root)
        change(notebook)
        hand_in(root, student, notebook)
    for student, (data, _) in DAMAGED.items():
        hand_in(root, student, data)
    hand_in(root, "naive", answered(root, softmax=NAIVE))
    hand_in(root, "renamed", answered(root), "my notebook.ipynb")
    hand_in(root, "twice-renamed", answered(root), "one.ipynb")
    hand_in(root, "twice-renamed", answered(root), "two.ipynb")
    for student, head in SCRIPTS.items():
        hand_in(root, student, script(root, head), f"{UNIT}.py")
    hand_in(root, "script-renamed", script(root), "homework.py")
    hand_in(root, "script-naive", NAIVE.encode(), f"{UNIT}.py")
    hand_in(root, "script-broken", b"def softmax(x:\n", f"{UNIT}.py")
    hand_in(root, "no-notebook", b"%PDF", "answers.pdf")
    (folder_of(root, "script-linked") / f"{UNIT}.py").symlink_to(root / "reference" / UNIT / "softmax.py")
    hand_in(root, "telltale", answered(root, accuracy=TELLTALE))
    for student, hour in (("in-time", 1), ("late", 3)):
        file = hand_in(root, student, answered(root, softmax=NAIVE))
        write(file.with_name("timestamp.txt"), f"2030-01-01 0{hour}:00:00 UTC")
    hand_in_by_writer(root, NAIVE)
    link(root)


def hand_in_by_writer(root: Path, softmax: str) -> None:
    """A learner who answers what people grade, and whose every text is an attack on the reader's browser."""
    notebook = answered(root, softmax=softmax, accuracy=f"def accuracy(*_, **__):\n    raise ValueError({EVIL!r})")
    find(notebook, ESSAY).source = EVIL_MARKDOWN
    find(notebook, SKETCH).source = f"answer = {EVIL!r}"
    notebook.cells.append({"cell_type": "raw", "source": EVIL, "metadata": {"raw_mimetype": "text/html"}})
    notebook.cells.append({"cell_type": "markdown", "source": EVIL_MARKDOWN, "metadata": {}})
    notebook.metadata.language_info = {"name": f'"{EVIL}', "pygments_lexer": f'"{EVIL}'}
    hand_in(root, "writer", notebook)


def link(root: Path) -> None:
    """A learner who hands in links to the solutions."""
    folder = folder_of(root, "linker")
    (folder / f"{UNIT}.ipynb").symlink_to(root / "solutions" / UNIT / f"{UNIT}.ipynb")
    (folder / "notes.txt").symlink_to(root / "solutions" / UNIT / f"{UNIT}.ipynb")
    write(folder / "honest.txt", "my notes")


@pytest.fixture(scope="module")
def graded(course: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A class after autograding and feedback, by our configuration."""

    def make(root: Path) -> None:
        another(course, root, OURS + ZERO_WHEN_LATE)
        nbgrader(root, "db", "assignment", "add", UNIT, "--duedate=2030-01-01 02:00:00 UTC")
        hand_in_class(root)
        write(root / "autograde.log", autograde(root))
        nbgrader(root, "generate_feedback", UNIT)

    return once(tmp_path_factory, "graded", make)


@pytest.fixture(scope="module")
def rows(graded: Path) -> dict[str, dict[str, str]]:
    """The class's exported grades, by student."""
    return exported(graded)


@pytest.mark.parametrize("student", SURVIVE)
def test_right_answers_keep_their_points(graded: Path, student: str) -> None:
    assert earned(graded, student) == most(graded)


@pytest.mark.parametrize("student", FORGE)
def test_no_answers_earn_nothing(graded: Path, student: str) -> None:
    assert earned(graded, student) == [0.0, 0.0]


@pytest.mark.parametrize("student", DAMAGED)
def test_a_damaged_file_earns_nothing_and_its_author_is_told_why(graded: Path, student: str) -> None:
    assert earned(graded, student) == [0.0, 0.0]
    assert DAMAGED[student][1] in feedback(graded, student)


def test_cells_are_neither_added_nor_lost_in_the_gradebook(graded: Path) -> None:
    expected = {*CHECKS, ESSAY, SKETCH, OWN_TEST}
    assert {student: set(cells) for student, cells in grades(graded).items() if set(cells) != expected} == {}


def test_a_single_renamed_notebook_counts(graded: Path) -> None:
    assert earned(graded, "renamed") == most(graded)
    log = (graded / "autograde.log").read_text(encoding="utf-8")
    folder = f"submitted/renamed/{UNIT}/"
    assert f"{folder}my notebook.ipynb in place of {UNIT}.ipynb" in log
    assert not [line for line in log.splitlines() if "WARNING" in line and folder in line]
    assert f"No submitted file: {graded}/submitted/no-notebook/{UNIT}/{UNIT}.ipynb" in log


def test_of_several_renamed_notebooks_none_counts(graded: Path) -> None:
    assert earned(graded, "twice-renamed") == [0.0, 0.0]
    assert "one.ipynb, two.ipynb" in feedback(graded, "twice-renamed")


@pytest.mark.parametrize("student", [*SCRIPTS, "script-renamed"])
def test_a_python_file_counts_as_the_notebook(graded: Path, student: str) -> None:
    assert earned(graded, student) == most(graded)
    written = nbformat.read(graded / "autograded" / student / UNIT / f"{UNIT}.ipynb", 4)
    for name in EXERCISES:  # each answer stands in its own cell, above its check
        assert f"def {name}(" in find(written, name).source


def test_a_python_file_that_answers_a_part_earns_a_part(graded: Path) -> None:
    assert earned(graded, "script-naive") == [earned(graded, "naive")[0], 0.0]
    assert "Subtract the largest score" in feedback(graded, "script-naive")


@pytest.mark.parametrize(
    "student, reason",
    [
        ("script-broken", "was never closed"),
        ("script-linked", "cannot be opened"),
        ("no-notebook", f"there is no {UNIT}.ipynb"),
    ],
)
def test_a_folder_without_a_notebook_earns_nothing_and_says_why(
    graded: Path, rows: dict[str, dict[str, str]], student: str, reason: str
) -> None:
    assert earned(graded, student) == [0.0, 0.0]
    assert reason in feedback(graded, student)
    assert float(rows[student]["score"]) == 0


def test_a_python_file_alone_can_be_graded(course: Path, tmp_path: Path) -> None:
    """As formgrader's button does it: nothing but one student's .py file, which nbgrader would not even find."""
    root = another(course, tmp_path / "course")
    hand_in(root, "ada", script(root), f"{UNIT}.py")
    log = autograde(root, "--student=ada")
    assert "Warning" not in log
    assert "WARNING" not in log
    assert f"submitted/ada/{UNIT}/{UNIT}.py in place of {UNIT}.ipynb" in log
    assert earned(root, "ada") == most(root)
    assert "No notebooks were matched" in autograde(root, "--student=nobody", status=1)


def test_what_the_learner_imports_in_the_setup_cell_stays(graded: Path) -> None:
    page = feedback(graded, "setup-edited")
    assert "import matplotlib" in html.unescape(re.sub("<.*?>", "", page))
    assert "import torch as t" in html.unescape(re.sub("<.*?>", "", page))


def test_grader_grade_gives_the_same_points(graded: Path, tmp_path: Path) -> None:
    """Every submission of this class, however damaged, earns the same on both surfaces."""
    grade = "from grader.cli import main; main()"
    command(graded, sys.executable, "-c", grade, "grade", "submitted", "--out", str(tmp_path / "out"), status=1)
    lines = (tmp_path / "out" / "results.jsonl").read_text(encoding="utf-8").splitlines()
    found: dict[str, dict[str, float]] = {}
    for row in map(json.loads, lines):
        found.setdefault(row["student"], {})[row["exercise"]] = row["points"]
    ours = {student: [found[student][name] for name in EXERCISES] for student in found}
    theirs = {student: earned(graded, student) for student in found}
    assert {s: (ours[s], theirs[s]) for s in ours if ours[s] != pytest.approx(theirs[s], abs=0.01)} == {}
    assert set(found) == {path.name for path in (graded / "submitted").iterdir()}


def test_links_are_not_followed(graded: Path) -> None:
    assert earned(graded, "linker") == [0.0, 0.0]
    for place in ("autograded", "feedback"):
        assert not (graded / place / "linker" / UNIT / "notes.txt").exists()
        assert (graded / place / "linker" / UNIT / "honest.txt").read_text() == "my notes"


def test_a_classic_mistake_earns_a_part(graded: Path) -> None:
    softmax, accuracy = earned(graded, "naive")
    full = most(graded)
    assert softmax is not None
    assert 0 < softmax < full[0]
    assert accuracy == full[1]
    assert "Subtract the largest score" in feedback(graded, "naive")


def test_one_pool_and_no_kernel(graded: Path) -> None:
    """Thirty submissions, one sandbox server: torch is imported once for all of them."""
    assert len(list((graded / "submitted").iterdir())) >= 30
    assert [line.split(" -m ")[1].split()[:2] for line in started(graded)] == [["grader.sandbox", "server"]]


def test_a_late_submission_pays_the_penalty(graded: Path, rows: dict[str, dict[str, str]]) -> None:
    points = sum(score or 0 for score in earned(graded, "late"))
    assert points > 0
    late, in_time = rows["late"], rows["in-time"]
    assert (float(late["raw_score"]), float(late["late_submission_penalty"])) == (points, points)
    assert (float(late["score"]), float(in_time["score"])) == (0, points)


def test_export_has_everyone(graded: Path, rows: dict[str, dict[str, str]]) -> None:
    assert set(rows) == {path.name for path in (graded / "submitted").iterdir()}
    full = sum(most(graded))
    assert float(rows["untouched"]["score"]) == full
    assert float(rows["untouched"]["max_score"]) == full + 4  # the cells that people grade
    assert float(rows["broken-json"]["score"]) == 0


def test_what_people_grade_waits_for_them(graded: Path) -> None:
    own = grades(graded)["writer"]
    assert own[ESSAY] == (None, None, None, True)
    assert own[SKETCH] == (None, None, None, True)


def test_what_nobody_answered_needs_no_person(graded: Path) -> None:
    own = grades(graded)["blank"]
    assert own[ESSAY] == (0, None, None, False)
    assert own[SKETCH] == (0, None, None, False)


@pytest.mark.parametrize("student", ["untouched", "blank", "broken-json"])
def test_a_test_cell_of_no_exercise_waits_for_a_person(graded: Path, student: str) -> None:
    """It is not run: full marks, as nbgrader gives cells without output, and 0 would both be wrong."""
    assert grades(graded)[student][OWN_TEST] == (None, None, None, True)


def test_grading_again_keeps_what_people_gave(graded: Path, tmp_path: Path) -> None:
    root = another(graded, tmp_path / "again", OURS)
    before = grades(root)
    query(
        root,
        "update grade set manual_score = 1.5, extra_credit = 0.5 where id in (select g.id from grade g "
        "join submitted_notebook n on g.notebook_id = n.id join submitted_assignment s on n.assignment_id = s.id "
        "join base_cell b on g.cell_id = b.id where s.student_id = 'writer' and b.name = ?)",
        ESSAY,
    )
    hand_in_by_writer(root, "softmax = torch.softmax  # forbidden")
    assert "Skipping existing" in autograde(root, "--student=writer")
    assert earned(root, "writer") == [before["writer"][name][0] for name in CHECKS]
    autograde(root, "--student=writer", "--force")
    after = grades(root)
    assert after["writer"][ESSAY] == (None, 1.5, 0.5, True)
    assert after["writer"]["check_softmax"][0] == 0
    assert {s: g for s, g in after.items() if s != "writer"} == {s: g for s, g in before.items() if s != "writer"}


class Active(HTMLParser):
    """Collects what a browser would run: scripts, handlers, and addresses of other schemes."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in ("script", "iframe", "object", "embed", "svg"):
            self.found.append(tag)
        self.found += [name for name, _ in attrs if name.startswith("on")]
        addresses = [value or "" for name, value in attrs if name in ("href", "src", "action")]
        self.found += [a for a in addresses if SCHEME.match(a) and not a.startswith(("http", "data:image/"))]


def active(page: str) -> list[str]:
    parser = Active()
    parser.feed(page)
    return parser.found


def test_feedback_escapes_whatever_a_learner_controls(graded: Path) -> None:
    page = feedback(graded, "writer")
    assert active(page) == active(feedback(graded, "untouched"))
    assert page.count("alert(") > 5  # it is all there, as text
    assert "&lt;img src=x onerror=alert(1)&gt;" in page  # the exception's message, in our verdict


def test_feedback_shows_our_verdict_and_never_the_hidden_tests(graded: Path) -> None:
    page = feedback(graded, "telltale")
    assert "a hidden case" in page
    assert "SECRET [" not in page
    for student in ("telltale", "naive", "untouched"):
        assert "hidden=True" not in feedback(graded, student)
        assert "HIDDEN TESTS" not in feedback(graded, student)


@pytest.fixture(scope="module")
def stock(course: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three submissions after autograding by nbgrader's own configuration, in kernels."""

    def make(root: Path) -> None:
        another(course, root, STOCK)
        hand_in(root, "solved", answered(root))
        hand_in(root, "blank", released(root))
        hand_in(root, "naive", answered(root, softmax=NAIVE))
        autograde(root)

    return once(tmp_path_factory, "stock", make)


def test_the_same_notebooks_are_graded_alike_without_our_configuration(stock: Path, graded: Path) -> None:
    assert any("ipykernel" in line for line in started(stock))
    assert earned(stock, "solved") == most(stock)
    assert earned(stock, "blank") == [0.0, 0.0]
    assert earned(stock, "naive") == earned(graded, "naive")


def test_no_execute_does_not_make_outputs_count(course: Path, tmp_path: Path) -> None:
    root = another(course, tmp_path / "course")
    notebook = released(root)
    stale_outputs(notebook)
    hand_in(root, "idle", notebook)
    autograde(root, "--no-execute")
    assert earned(root, "idle") == [0.0, 0.0]
