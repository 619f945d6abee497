"""What an implementation does: measured beside the reference, as tables, a picture, in a notebook."""

import base64
import math
import re
from dataclasses import replace

import pytest
import torch
from helpers import ROOT, STUB, notebook
from rich.console import Console
from test_cli import grader as command

import grader
from grader import profiling
from grader.api import profile_of
from grader.calls import Observation, Raised
from grader.case import Case
from grader.course import load_course
from grader.device import NO_GPU
from grader.exercise import Exercise
from grader.pools import open_pool
from grader.profiling import Grown, Measured, Point, Profile, Series, exponent, measured_calls, profile_program, series
from grader.reading import Reading
from grader.record import SEED, record
from grader.render import profile_html, profile_picture, profile_sheets, profile_table
from grader.roofline import T4, estimate
from grader.slicing import Program
from grader.speed import Race
from grader.subject import InProcess, Worker
from grader.submission import parse

LOOP = """
import torch

def softmax(x, dim=-1):
    rows = x.movedim(dim, -1)
    flat = [(r - r.max()).exp() for r in rows.reshape(-1, rows.shape[-1])]
    return torch.stack([w / w.sum() for w in flat]).reshape(rows.shape).movedim(-1, dim)
"""


def softmax(x, dim=-1):
    rows = x.movedim(dim, -1)
    flat = [(r - r.max()).exp() for r in rows.reshape(-1, rows.shape[-1])]
    return torch.stack([w / w.sum() for w in flat]).reshape(rows.shape).movedim(-1, dim)


@pytest.fixture(scope="module", autouse=True)
def course():
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TORCH_DOJO_ROOT", str(ROOT))
        yield


@pytest.fixture(scope="module")
def looped(course):
    return profile_of(softmax)


@pytest.fixture(scope="module")
def page(looped):
    return shown(looped)


def shown(profile, width=100):
    console = Console(width=width, highlight=False, color_system=None)
    with console.capture() as capture:
        profile_table.show(console, profile)
    return capture.get()


def points(*pairs, name="ops"):
    return [Point(size, Reading(**{name: value})) for size, value in pairs]


def test_a_loop_shows_as_operations_that_grow(looped):
    rows = next(grown for grown in looped.growths if grown.axis == "rows")
    assert [point.size for point in rows.learner.points] == [32, 64, 128, 256]
    assert exponent(rows.learner.points, "ops") == pytest.approx(1, abs=0.02)
    assert exponent(rows.reference.points, "ops") == pytest.approx(0, abs=0.02)
    classes = next(grown for grown in looped.growths if grown.axis == "classes")
    assert exponent(classes.learner.points, "ops") == pytest.approx(0, abs=0.02)
    assert exponent(classes.learner.points, "peak") == pytest.approx(1, abs=0.1)


def test_the_measured_case_is_broken_down(looped):
    (case,) = looped.cases
    assert case.learner.kinds["max"] > 1
    assert case.reference.kinds["amax"] == 1
    assert sum(many for *_, many in case.learner.detail) == case.learner.ops
    assert case.learner.saved > 0
    assert looped.complete
    assert looped.attempted


def test_the_estimate_follows_from_the_breakdown(looped):
    (case,) = looped.cases
    assert estimate(case.learner.detail, T4) == pytest.approx(case.learner.ops * T4.launch)


def test_the_cases_are_those_with_limits_or_else_the_first():
    pack = record(load_course().find("softmax")[1])
    assert [c.label for c in measured_calls(pack)] == [
        p.call.label for p in pack.planned if p.cost and not p.case.hidden
    ]
    plain = Exercise(torch.relu, 5, id="relu")
    plain.truth(torch.relu)
    plain.solution = lambda x: x.relu()
    hidden = Case("secret", torch.ones(2), hidden=True)
    plain.cases(lambda draw: iter([Case("no", 3, raises=TypeError), hidden, Case("a", torch.ones(2))]))
    assert [call.label for call in measured_calls(record(plain))] == ["a"]


def test_a_power_law_is_fitted_over_all_sizes():
    assert exponent(points((2, 40), (4, 160), (8, 640)), "ops") == pytest.approx(2)
    assert exponent(points((2, 1), (4, 1), (8, 4)), "ops") == pytest.approx(1)
    assert exponent(points((2, 0), (4, 0)), "ops") == 0
    assert exponent(points((2, 5)), "ops") is None
    assert exponent([], "ops") is None


def test_a_series_ends_with_what_raises():
    def runs(size):
        return (
            Observation(raised=Raised(("ValueError",), "too large"))
            if size > 4
            else Observation(reading=Reading(ops=1))
        )

    found = series([(n, n) for n in (2, 4, 8, 16)], runs)
    assert [point.size for point in found.points] == [2, 4]
    assert found.problem == "ValueError: too large"


def test_a_series_ends_with_what_takes_too_long(monkeypatch):
    clock = iter([0, 0.1, 1, 9])
    monkeypatch.setattr(profiling.time, "monotonic", lambda: next(clock))
    found = series([(n, n) for n in (2, 4, 8, 16)], lambda call: Observation(reading=Reading(ops=call)))
    assert [point.size for point in found.points] == [2, 4]
    assert found.problem == ""


def test_the_learner_is_not_measured_where_the_exercise_ends():
    course = load_course()
    exercise = course.find("conv2d")[1]
    found = profile_of(exercise.solution)
    groups = next(grown for grown in found.growths if grown.axis == "groups")
    assert [point.size for point in groups.learner.points] == [point.size for point in groups.reference.points]
    assert groups.reference.problem
    assert groups.learner.problem == ""


def test_an_error_is_reported_and_the_reference_still_shown(capsys):
    def softmax(x, dim=-1):
        raise KeyError("[red]no")

    found = profile_of(softmax)
    assert not found.complete
    assert found.attempted
    assert found.cases[0].reference.ops > 0
    page = shown(found)
    assert "yours ended with KeyError" in page
    assert "[red]no" in page


def test_a_stub_is_not_attempted():
    def softmax(x, dim=-1):
        raise NotImplementedError

    found = profile_of(softmax)
    assert not found.attempted
    assert "not attempted" in shown(found)
    assert "amax" not in shown(found), "how the reference works is not for those who have not tried"


def test_the_tables_say_what_they_show(page):
    words = " ".join(page.split())
    assert "softmax, case" in words
    assert re.search(r"operations +\d+ \.\. \d+ +1\.00 +5 \.\. 5 +0\.00", page)
    assert "flops" in words
    assert "kept for backward" in words
    assert "matrix products" not in words
    assert "estimated time on a GPU" in words
    assert "not measured" in words


def test_a_measured_ratio_is_shown_when_there_is_one(looped):
    assert "measured: " not in shown(looped)
    race = Race("over", 2.0, (2.5,) * 30, 2.4, 2.6, peaks=(3_000_000, 1_000_000))
    said = shown(replace(looped, race=race, device="cuda"))
    assert "measured (cuda): 2.50 times as long as the reference" in said
    assert "surely between 2.40 and 2.60" in said
    assert "memory held at a time on the GPU: 3 MB, reference 1 MB" in said
    assert "between" not in shown(replace(looped, race=replace(race, low=0.0, high=math.inf)))
    assert "there is no CUDA device" in shown(replace(looped, missing=NO_GPU))


def test_many_kinds_are_folded():
    kinds = {f"op{n}": n for n in range(1, 21)}
    profile = Profile("e", "e", (Measured("a", Reading(ops=210, kinds=kinds), Reading()),))
    rows = next(profile_sheets.sheets(profile)).rows
    assert "op20[/b]" in shown(replace(profile, cases=(Measured("a", Reading(kinds={"op20[/b]": 1}), Reading()),)))
    assert rows[1] == ("  op20", "20", "0")
    assert ("  8 other kinds", str(sum(range(1, 9))), "0") in rows


@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "cp936"])
def test_the_words_and_numbers_fit_a_narrow_console(looped, encoding, monkeypatch):
    monkeypatch.setenv("GRADER_LANG", "zh" if encoding == "cp936" else "en")
    for sheet in profile_sheets.sheets(looped):
        text = "".join([sheet.title, sheet.note, *sheet.head, *(cell for row in sheet.rows for cell in row)])
        assert text.encode(encoding).decode(encoding) == text


def test_eighty_columns_are_enough(looped):
    page = shown(looped, width=80)
    assert not [line for line in page.splitlines() if len(line) > 80]
    assert re.search(r"peak memory .* kB +\d", page)


@pytest.mark.parametrize(
    ("value", "said"), [(0.0, "0 us"), (2.5e-5, "25 us"), (1.26e-3, "1.26 ms"), (3.0, "3 s"), (0.9999e-3, "1 ms")]
)
def test_times_are_short(value, said):
    assert profile_sheets.duration(value) == said


@pytest.mark.parametrize(
    ("value", "said"),
    [(0, "0"), (99_999, "99999"), (123_456, "123 k"), (2_000_000, "2 M"), (999_999, "1 M"), (2**62, "4.61 E")],
)
def test_counts_are_exact_while_they_are_small(value, said):
    assert profile_sheets.tally(value) == said


def test_the_picture_has_two_panels_for_each_size_that_grows(looped, tmp_path):
    drawn = profile_picture.figure(looped)
    assert [axes.get_xlabel() for axes in drawn.axes] == ["rows", "rows", "classes", "classes"]
    panel = drawn.axes[1]
    assert (panel.get_xscale(), panel.get_yscale()) == ("log", "log")
    assert [text.get_text() for text in panel.get_legend().get_texts()] == ["reference: size^0.00", "yours: size^1.00"]
    assert len(panel.lines[1].get_xdata()) == 4
    path = tmp_path / "p.png"
    assert profile_picture.draw(looped, path) == f"picture: {path}"
    assert path.read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("values", "limits"), [([4, 4], (1, 10)), ([10, 10], (1, 100)), ([1, 5], (0.1, 10)), ([3, 4000], (1, 10_000))]
)
def test_scales_end_at_powers_of_ten(values, limits):
    assert profile_picture.decades(values) == pytest.approx(limits)


def test_without_growth_there_is_no_picture(tmp_path):
    profile = Profile("penalty", "penalty", (Measured("a", Reading(ops=1), Reading(ops=1)),))
    said = profile_picture.draw(profile, tmp_path / "p.png")
    assert said.startswith("no picture: penalty declares nothing that grows")
    assert not list(tmp_path.iterdir())
    assert "<img" not in profile_html.html(profile)


def test_a_picture_that_cannot_be_written_is_a_sentence(looped, tmp_path):
    assert profile_picture.draw(looped, tmp_path / "missing" / "p.png").startswith("no picture: ")
    assert profile_picture.draw(looped, tmp_path / "p.nothing").startswith("no picture: ")


def test_a_series_without_points_is_drawn_as_nothing(looped):
    empty = Profile("e", "e", looped.cases, (Grown("rows", Series((), "ValueError: no"), looped.growths[0].reference),))
    assert len(profile_picture.figure(empty).axes) == 2
    assert "rows: yours ended with ValueError: no" in " ".join(shown(empty).split())


def test_one_point_is_shown_without_an_exponent():
    assert profile_sheets.cells_of(Series(tuple(points((4, 7)))), "ops") == ("7", "-")
    assert profile_sheets.cells_of(Series(()), "ops") == ("-", "-")
    assert profile_sheets.cells_of(Series(tuple(points((4, 7), (8, 14)))), "ops") == ("7 .. 14", "1.00")


def test_html_escapes_and_holds_the_picture(looped):
    profile = Profile("e", "e", (Measured("<b>", None, Reading(), "E: <script>"),), looped.growths)
    page = profile_html.html(profile)
    assert "<script>" not in page
    assert "&lt;script&gt;" in page
    held = re.search(r"base64,([\w+/=]+)", page)
    assert base64.b64decode(held[1]).startswith(b"\x89PNG")


def test_profile_prints_outside_of_a_notebook(capfd):
    assert grader.profile(softmax) is None
    out, err = capfd.readouterr()
    assert "as a size grows" in out
    assert err == ""


def test_profile_displays_html_in_a_notebook(monkeypatch, looped):
    import IPython.display

    displayed = []
    monkeypatch.setattr("grader.api.in_notebook", lambda: True)
    monkeypatch.setattr("grader.api.profile_of", lambda candidate, **options: looped)
    monkeypatch.setattr(IPython.display, "display", displayed.append)
    grader.profile(softmax)
    assert "data:image/png;base64" in displayed[0].data


def test_an_unknown_or_missing_function_is_named():
    with pytest.raises(ValueError, match="no exercise"):
        profile_of("no_such_exercise")
    with pytest.raises(ValueError, match="softmax is not defined"):
        profile_of("softmax")


def test_the_command_runs_in_the_sandbox_and_draws(tmp_path):
    path, picture = tmp_path / "mine.ipynb", tmp_path / "p.png"
    path.write_text(notebook(LOOP))
    done = command("profile", "softmax", "--submission", path, "--picture", picture, "--isolation", "portable")
    assert done.returncode == 0, done
    assert "stack" in done.stdout
    assert "estimated time on a GPU" in done.stdout
    assert picture.read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("source", "code", "said"), [(STUB, 1, "not attempted"), ("x = 1", 2, "does not define softmax")]
)
def test_the_command_says_what_is_missing(tmp_path, source, code, said):
    path = tmp_path / "mine.ipynb"
    path.write_text(notebook(source))
    done = command("profile", "softmax", "--submission", path, "--isolation", "portable")
    assert (done.returncode, said in done.stdout + " ".join(done.stderr.split())) == (code, True), done


ENDLESS = """
def quick(x, dim):
    w = (x - x.amax(dim, keepdim=True)).exp()
    return w / w.sum(dim, keepdim=True)

def softmax(x, dim=-1):
    while x.shape[0] > 100:
        pass
    return quick(x, dim)
"""


def test_a_program_that_never_ends_costs_its_own_series_only():
    course = load_course()
    exercise = course.find("softmax")[1]
    with Worker(open_pool("portable")) as worker:
        found = profile_program(course, exercise, parse(ENDLESS.encode(), "a.py").program("softmax"), worker, SEED)
    rows, classes = found.growths
    assert [point.size for point in rows.learner.points] == [32, 64]
    assert rows.learner.problem.startswith("timeout")
    assert len(classes.learner.points) == 4
    assert exponent(classes.learner.points, "ops") == 0


def test_the_ratio_is_measured_where_the_exercise_has_a_time_limit():
    course = load_course()
    ratios = {}
    for name in ("pool2d", "softmax"):
        exercise = course.find(name)[1]
        subject = InProcess(exercise.solution)
        ratios[name] = profile_program(course, exercise, Program(exercise.name, ()), subject, SEED).race
    assert 0.3 < ratios["pool2d"].ratio < 3.0
    assert ratios["softmax"] is None
