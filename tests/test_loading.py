"""A course whose author made a mistake: the message names the file and the fix."""

import itertools

import pytest

from grader import course as course_module
from grader import live
from grader.audit import audit
from grader.build import marking_problem, solution_notebook
from grader.catalogue import texts
from grader.course import CourseError, UnknownError, load_course
from grader.nbgrader.reading import exercise_ids

NUMBERS = itertools.count()
HALF = "from grader import Exercise\n\ndef half(x):\n    return x / 2\n\nexercise = Exercise(half, 5)\n"
USUAL = {
    "__init__.py": "UNITS = ('first', 'second')\n",
    "first/__init__.py": "TITLE = 'One'\nEXERCISES = ('half',)\n",
    "first/half.py": HALF,
    "second/__init__.py": "TITLE = 'Two'\nEXERCISES = ('third',)\n",
    "second/third.py": HALF.replace("half", "third"),
}


@pytest.fixture
def course(tmp_path):
    """Return a function that makes a course of small files: those of `USUAL`, but for what it is given."""
    package = f"course_{next(NUMBERS)}"

    def make(**changed):
        (tmp_path / "pyproject.toml").write_text(f'[tool.grader]\ncourse = "{package}"\n')
        for name, text in {**USUAL, **changed}.items():
            path = tmp_path / package / name
            path.parent.mkdir(parents=True, exist_ok=True)
            if text is not None:
                path.write_text(text)
        return load_course(tmp_path)

    return make


def test_a_course_is_loaded(course):
    made = course()
    assert [[e.id for e in unit.exercises] for unit in made.units] == [["half"], ["third"]]
    assert made.unit("first").title == "One"


INIT, FILE = "first/__init__.py", "first/half.py"


@pytest.mark.parametrize(
    ("file", "text", "said"),
    [
        (FILE, None, "first/half.py is missing: write it, or take 'half' out of EXERCISES in {}/first/__init__.py"),
        (INIT, None, "{}/first/__init__.py is missing (it names TITLE and EXERCISES)"),
        (INIT, "EXERCISES = ('half',)", "first/__init__.py names no TITLE"),
        (INIT, "TITLE = 'One'", "first/__init__.py must name EXERCISES, each as a text"),
        (INIT, "TITLE = 'One'\nEXERCISES = 'half'", "first/__init__.py must name EXERCISES, each as a text"),
        (INIT, "TITLE = 'One'\nEXERCISES = ('half', 'half')", "first/__init__.py: EXERCISES names 'half' twice"),
        (FILE, HALF.replace("5", "5, forbid='mm'"), "half.py, line 6: TypeError: half: forbid is a tuple of texts"),
        (FILE, HALF.replace("x / 2", "x /"), "half.py, line 4: SyntaxError: invalid syntax"),
        (FILE, f"import no_such_thing\n{HALF}", "half.py, line 1: ModuleNotFoundError: No module named 'no_such_"),
        (FILE, "", "half.py must define `exercise = Exercise(...)`"),
    ],
)
def test_what_is_wrong_with_a_unit_is_said_with_its_place(course, file, text, said):
    made = course(**{file: text})
    with pytest.raises(CourseError) as error:
        made.unit("first")
    assert said.format(made.package) in str(error.value)
    assert not isinstance(error.value, UnknownError)


def test_a_unit_without_a_folder_is_missed(course):
    made = course(**{"__init__.py": "UNITS = ('first', 'third')\n"})
    with pytest.raises(CourseError, match=r"third/__init__.py is missing \(it names TITLE and EXERCISES\)"):
        made.unit("third")


@pytest.mark.parametrize("text", ["", "UNITS = 'first'", "UNITS = ('first', 'first')"])
def test_units_are_names_each_once(course, text):
    with pytest.raises(CourseError, match="UNITS"):
        course(**{"__init__.py": text})


@pytest.mark.parametrize("file", ["__init__.py", "lesson.md"])
def test_a_unit_that_is_not_listed_is_told_where_to_be(course, file):
    made = course(**{f"new/{file}": ""})
    with pytest.raises(UnknownError, match=rf"add it to UNITS in {made.package}/__init__.py"):
        made.unit("new")


@pytest.mark.parametrize(
    ("name", "said"), [("half", "the exercise is first/half"), ("secnod", "did you mean 'second'?"), ("x", "first, se")]
)
def test_an_unknown_unit_is_told_what_was_meant(course, name, said):
    with pytest.raises(UnknownError, match="there is no unit") as error:
        course().unit(name)
    assert said in str(error.value)


def test_the_other_units_are_audited_all_the_same(course):
    made = course(**{INIT: "EXERCISES = ('half',)"})
    found = {name: [str(problem) for problem in problems] for name, problems in audit(made)}
    assert list(found) == ["first", "second/third", "second"]
    assert "names no TITLE" in found["first"][0]
    assert "third declares no truth or no cases" in found["second/third"][0]
    assert found["second"] == []


def test_a_broken_course_is_not_taken_for_an_unknown_name(course, monkeypatch):
    made = course(**{FILE: "1 / 0"})
    monkeypatch.setenv("TORCH_DOJO_ROOT", str(made.root))
    monkeypatch.setattr(course_module, "load_course", load_course.__wrapped__)
    with pytest.raises(CourseError, match=r"half.py, line 1: ZeroDivisionError"):
        live.asked_about("half")
    assert live.asked_about("third")[1].id == "third"


def test_nbgrader_does_not_take_a_broken_unit_for_none(course):
    made = course(**{FILE: "1 / 0"})
    assert exercise_ids(made.root, "other") == {}
    assert exercise_ids(made.root, "second") == {"third": "third"}
    with pytest.raises(CourseError, match="ZeroDivisionError"):
        exercise_ids(made.root, "first")


@pytest.mark.parametrize(
    ("placed", "said"),
    [
        ("abc", ""),
        ("b", "it does not mark a, c"),
        ("abbc", "it marks more than once b"),
        ("aab", "it does not mark c; it marks more than once a"),
        ("acb", "it marks a, c, b, wanted a, b, c"),
    ],
)
def test_a_lesson_is_told_which_marks_are_wrong(placed, said):
    assert marking_problem(list(placed), list("abc")) == said


def test_a_lesson_marks_every_exercise(course):
    made = course(**{"first/lesson.md": "# One\n"})
    with pytest.raises(CourseError, match=r"lesson.md must mark every exercise once.*: it does not mark half"):
        solution_notebook(made, made.unit("first"))
    with pytest.raises(CourseError, match=r"lesson.md is missing"):
        solution_notebook(made, made.unit("second"))
    with pytest.raises(CourseError, match=r"lesson.md is missing"):
        list(texts(made.unit("second")))
