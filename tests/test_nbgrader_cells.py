"""What our preprocessors do to single cells."""

import logging
import os
import time
import warnings
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import nbformat
import pytest
from helpers import UNIT, hand_in, open_folder, shut

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # nbgrader's and nbconvert's own
    from nbconvert.filters import markdown2html
    from nbgrader.utils import determine_grade

    from grader.nbgrader.folders import find_submissions
    from grader.nbgrader.markdown import MOST_IN_ALL, MOST_IN_CELL, MOST_PICTURES, EscapeMarkdown, harmless
    from grader.nbgrader.reading import clean, pictures, read_submitted
    from grader.nbgrader.restore import Original, restored, unique_ids
    from grader.nbgrader.scores import BY_HAND, clamped, fill, is_check
    from grader.nbgrader.script import script_cells

from grader.verdict import ERROR, NOT_GRADABLE, PARTLY, Verdict

ATTACKS = [
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "\\<script>alert(1)\\</script>",
    "<\nscript>alert(1)</script>",
    "<!--><script>alert(1)</script>",
    "[x](javascript:alert(1))",
    "[x](JaVaScRiPt:alert(1))",
    "[x](javascript\\:alert(1))",
    "[x](&#106;avascript:alert(1))",
    "[x](&#106avascript:alert(1))",
    "[x](&amp;#106;avascript:alert(1))",
    "[x](javascript&colon;alert(1))",
    "[x](java&Tab;script:alert(1))",
    "[x](<javascript:alert(1)>)",
    "<javascript:alert(1)>",
    "[x][y]\n\n[y]: javascript:alert(1)",
    "[x](vbscript:alert(1))",
    "![x](data:text/html;base64,PHNjcmlwdD4=)",
    '![a"onerror="alert(1)](x)',
    '[x](y "a\\"onclick=\\"alert(1)")',
    '```"><script>alert(1)</script>\nx\n```',
    "```mermaid\n<script>alert(1)</script>\n```",
    "$<img src=x onerror=alert(1)>$",
    "\\begin{x}<script>alert(1)</script>\\end{x}",
    "![x](attachment:missing.png)",
    "![x](attachment\\:missing.png)",
    "| <script>alert(1)</script> |\n|---|\n| <img onerror=alert(1)> |",
]
HARMLESS = {
    "p", "a", "img", "pre", "code", "br", "table", "thead", "tbody", "tr", "td", "th", "em", "strong", "div", "span",
    "h1", "ul", "li",
}  # fmt: skip


class Tags(HTMLParser):
    """Asserts of each tag that a browser runs nothing of it."""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag in HARMLESS, tag
        for name, value in attrs:
            assert not name.startswith("on")
            scheme = (value or "").partition(":")[0] if name in ("href", "src") and ":" in (value or "") else ""
            assert scheme in ("", "http", "https") or "%" in scheme or "#" in scheme, value


@pytest.mark.parametrize("source", ATTACKS)
def test_markdown_cannot_run_anything(source: str) -> None:
    Tags().feed(markdown2html(harmless(source, set())))


def test_formulas_cannot_link() -> None:
    assert "\\href" not in harmless(r"$\newcommand{\j}[1]{\href{java#1:alert(1)}{x}}\j{script}$", set())


def test_markdown_stays_readable() -> None:
    text = "**Because** $0<p<1$ and `a < b`, see [the book](https://d2l.ai) & that.\n\n- R&D: see figure"
    page = markdown2html(harmless(text, set()))
    for part in ("<strong>Because</strong>", 'href="https://d2l.ai"', "<code>a &lt; b</code>", "<li>R&amp;D: see"):
        assert part in page
    assert "$0&lt; p&lt;1$" in page


def test_an_attached_picture_can_be_shown() -> None:
    kept = pictures({
        "a.png": {"image/png": "iVBORw0K", "text/html": "<script>"},
        "b.svg": {"image/svg+xml": "<svg/>"},
        "c.png": {"image/png": '"><script>'},
        'd".png': {"image/png": "iVBORw0K"},
        "e.png": None,
    })  # fmt: skip
    assert kept == {"a.png": {"image/png": "iVBORw0K"}}
    assert harmless("![x](attachment:a.png)", set(kept)) == "![x](attachment:a.png)"


def test_pictures_shown_very_often_are_not_shown() -> None:
    for way in ("![a](attachment:a.png)", "![a][r]"):
        once, often = (f"{way * n}\n\n[r]: attachment:a.png" for n in (1, MOST_PICTURES + 1))
        assert "attachment:a.png" in harmless(once, {"a.png"})
        assert "attachment:a.png" not in harmless(often, {"a.png"})


def shown(*sources: str) -> list[str]:
    """Return what feedback is made of, for a notebook of Markdown cells."""
    cells = [nbformat.v4.new_markdown_cell(source) for source in sources]
    made, _ = EscapeMarkdown().preprocess(nbformat.v4.new_notebook(cells=cells), {})
    return [cell.source for cell in made.cells]


@pytest.mark.parametrize("unit", [" ", "\\begin{a}", "\\\\(", "[", "*a **a "])
def test_showing_markdown_takes_no_longer_than_it_is_long(unit: str) -> None:
    (text,) = shown("a" + unit * (400_000 // len(unit)) + "b")
    start = time.process_time()
    markdown2html(text)
    assert time.process_time() - start < 20  # in whole it takes minutes
    assert "cut here" in text


def test_a_book_of_markdown_is_cut() -> None:
    texts = shown("essay", *["x" * MOST_IN_CELL] * 20, "last")
    assert texts[0] == "essay"
    assert texts[1] == "x" * MOST_IN_CELL
    assert "cut here: feedback shows 16,384 characters of a cell" in texts[-1]
    assert sum(map(len, texts)) < MOST_IN_ALL + 22 * 200


class Course:
    """As much of nbgrader's course as finding submissions takes."""

    submitted_directory, source_directory, student_id, assignment_id, notebook_id = "in", "solutions", "*", UNIT, "*"

    def __init__(self, root: Path) -> None:
        self.root = root

    def format_path(self, step: str, student: str, assignment: str) -> str:
        return str(self.root / step / student / assignment)


@pytest.mark.skipif(not hasattr(os, "seteuid"), reason="files have no owners")
@pytest.mark.parametrize("place", ["bob", f"bob/{UNIT}"])
def test_a_folder_that_cannot_be_read_is_named(place: str, caplog: pytest.LogCaptureFixture) -> None:
    with open_folder() as root:
        (root / "solutions" / UNIT).mkdir(parents=True)
        (root / "solutions" / UNIT / f"{UNIT}.ipynb").touch()
        files = {student: hand_in(root / "in", student, "x = 1") for student in ("ann", "bob")}
        converter = SimpleNamespace(coursedir=Course(root), log=logging.getLogger("test"))
        with shut(root / "in" / place):
            find_submissions(converter)
            found, problem = read_submitted(files["bob"], {})
    assert converter.assignments[str(files["ann"].parent)] == [str(files["ann"])]
    assert (found.cells, problem) == ([], f"the folder {UNIT} cannot be read: Permission denied")
    if place == "bob":  # nbgrader looks no further
        assert "bob' cannot be read" in caplog.text
    else:
        assert converter.assignments[str(files["bob"].parent)] == [str(files["bob"])]


@pytest.mark.parametrize(
    "cell",
    [None, "text", {}, {"cell_type": []}, {"cell_type": "heading", "source": "x"}, {"cell_type": "code", "source": 3}],
)
def test_what_is_no_cell_is_left_out(cell: Any) -> None:
    assert clean(cell) is None


def test_a_cell_is_made_anew() -> None:
    marks = {"grade_id": "softmax", "grade": True, "points": 100}
    cell = {
        "cell_type": "code",
        "source": ["a\n", "b\ud800"],
        "metadata": {"nbgrader": marks, "tags": ["skip-execution"]},
    }
    made = clean({**cell, "outputs": "none", "surprise": 1})
    assert made is not None
    assert made.source == "a\nb?"
    assert made.metadata == {"nbgrader": {"grade_id": "softmax"}}
    assert made.outputs == []
    assert "surprise" not in made


def original(name: str, solution: bool) -> Original:
    return Original(name, "code", f"{name} of the gradebook", "0", not solution, not solution, solution, False, 1.0)


KNOWN = {name: original(name, solution=name in ("a", "b")) for name in ("setup", "a", "check_a", "b", "check_b")}


def order(*names: str) -> list[str]:
    """Restore a notebook with cells of these names (those with a dot have no id) and name its cells."""
    cells = []
    for name in names:
        metadata = {} if "." in name else {"nbgrader": {"grade_id": name}}
        cells.append(nbformat.v4.new_code_cell(name, metadata=metadata))
    return [c.metadata.get("nbgrader", {}).get("grade_id") or c.source for c in restored(cells, KNOWN)]


@pytest.mark.parametrize(
    "names, expected",
    [
        ("title. setup a check_a b check_b", "title. setup a check_a b check_b"),
        ("title. a b", "setup title. a check_a b check_b"),
        ("", "setup a check_a b check_b"),
        ("title. a check_a b check_b setup", "setup title. a check_a b check_b"),
        ("setup check_a check_b x. a b", "setup x. a check_a b check_b"),
        ("setup b check_b a check_a", "setup b check_b a check_a"),
        ("setup a a check_a check_a b check_b check_b", "setup a a check_a b check_b"),
        ("setup a unknown check_a b check_b", "setup a unknown check_a b check_b"),
    ],
    ids=["as it was", "deleted", "empty", "setup last", "checks first", "solutions swapped", "copies", "invented"],
)
def test_locked_cells_return_to_their_places(names: str, expected: str) -> None:
    assert order(*names.split()) == expected.split()


def test_only_solutions_keep_the_learners_text() -> None:
    cells = [nbformat.v4.new_code_cell("mine", metadata={"nbgrader": {"grade_id": name}}) for name in KNOWN]
    texts = {c.metadata.nbgrader.grade_id: c.source for c in restored(cells, KNOWN)}
    assert {name for name, text in texts.items() if text == "mine"} == {"a", "b"}


def test_a_learners_own_setup_stands_behind_the_restored_one() -> None:
    def cell(text: str) -> Any:
        return nbformat.v4.new_code_cell(text, metadata={"nbgrader": {"grade_id": "setup"}})

    known = {"setup": replace(KNOWN["setup"], grade=False)}
    for mine, expected in (
        (["setup of the gradebook\n"], ["setup of the gradebook"]),
        (["import a"], ["setup of the gradebook", "import a"]),
        (["import a", "import b"], ["setup of the gradebook", "import a", "import b"]),
    ):
        found = restored([cell(text) for text in mine], known)
        assert [c.source for c in found] == expected
        assert ["nbgrader" in c.metadata for c in found] == [True] + [False] * (len(found) - 1)


IDS = {"f": "id_f", "g": "id_g"}


@pytest.mark.parametrize(
    "text, expected",
    [
        ("", []),
        ("def f(): 1\n\n\n# g\ndef g(): 2\ng()", [("def f(): 1", "id_f"), ("# g\ndef g(): 2", "id_g"), ("g()", "")]),
        ("def g(): 2\nimport a\ndef f(): 1\n", [("def g(): 2", "id_g"), ("import a\ndef f(): 1", "id_f")]),
        ("def f(): 1\nf = a(f)\nx", [("def f(): 1\nf = a(f)", "id_f"), ("x", "")]),
        (
            "from __future__ import annotations\ndef f(): 1\ndef g(): 2",
            [
                ("from __future__ import annotations\ndef f(): 1", "id_f"),
                ("from __future__ import annotations\ndef g(): 2", "id_g"),
            ],
        ),
        ("def h(): 1", [("def h(): 1", "")]),
        ("def f(: 1", [("def f(: 1", "")]),
        ("f = 1; g = (\n2)", [("f = 1; g = (\n2)", "")]),
        ("def f(): 1\n%%bash\ng = 2", [("def f(): 1\n%%bash\ng = 2", "")]),
    ],
    ids=["empty", "in order", "swapped", "redefined", "future", "none", "broken", "cannot be cut", "magic"],
)
def test_a_python_file_is_cut_into_cells(text: str, expected: list[tuple[str, str]]) -> None:
    cells = script_cells(text, IDS)
    assert [(c.source, c.metadata.get("nbgrader", {}).get("grade_id", "")) for c in cells] == expected


def test_cell_ids_are_made_unique() -> None:
    cells: list[dict[str, Any]] = [{"id": "x"}, {"id": "x"}, {"id": 'bad"id'}, {}, {"id": 3}, {"id": "restored-1"}]
    unique_ids(cells)
    assert len({cell["id"] for cell in cells}) == len(cells)


def check_cell(points: float = 4.0) -> Any:
    marks = {"grade": True, "solution": False, "grade_id": "check_a", "points": points}
    return nbformat.v4.new_code_cell("check(a)", metadata={"nbgrader": marks})


@pytest.mark.parametrize(
    "points, most, of, expected",
    [
        (2.5, 5, 5, 2.5),
        (0.0, 5, 5, 0.0),
        (5.0, 5, 5, 5.0),
        (5.0, 5, 3, 3.0),
        (-1.0, 5, 5, 0.0),
        (9.0, 5, 5, 5.0),
        (1.0, 0, 5, 0.0),
    ],
)
def test_nbgrader_reads_the_score_that_we_mean(points: float, most: int, of: float, expected: float) -> None:
    cell = check_cell(of)
    fill(cell, Verdict("a", "a", PARTLY, points, most))
    assert determine_grade(cell) == (expected, of)
    assert cell.outputs[0].data["text/html"].startswith("<div")


@pytest.mark.parametrize("verdict", [None, Verdict("a", "a", NOT_GRADABLE, 0.0, 4)])
def test_what_cannot_be_graded_is_never_full_marks(verdict: Verdict | None) -> None:
    cell = check_cell()
    fill(cell, verdict)
    assert determine_grade(cell) == (0, 4.0)
    assert cell.outputs[0].ename == BY_HAND


def test_points_that_are_no_number_are_our_fault() -> None:
    with pytest.raises(ValueError, match="nan"):
        clamped(Verdict("a", "a", ERROR, float("nan"), 4), 4.0)


def test_cells_that_people_grade_are_no_checks() -> None:
    cell = check_cell()
    assert is_check(cell)
    cell.metadata.nbgrader.solution = True
    assert not is_check(cell)
