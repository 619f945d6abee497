"""What the audit finds wrong with a course: each problem in an exercise that is otherwise sound."""

import re
from dataclasses import replace

import pytest
import torch

from grader import Case, Cost, Exercise
from grader.audit import audit, audit_exercise
from grader.course import CourseError, Unit, load_course
from grader.declaration_checks import uses_problems


def twice(x):
    """Double a tensor.

    Args:
        x: any shape, floating point.

    Returns:
        Tensor shaped like `x`.

    Raises:
        TypeError: `x` is not floating point.

    Example:
        >>> twice(torch.ones(2))
        tensor([2., 2.])
    """
    if not x.is_floating_point():
        raise TypeError("x must be floating point")
    return 2 * x


def added(x):
    return x + x if x.is_floating_point() else twice(x)


def tripled(x):
    return 3 * twice(x) / 2


def shifted(x):
    return twice(x) + 1


def cut(x):
    return twice(x.detach())


def lenient(x):
    return 2 * x


def sound():
    """Return an exercise with which nothing is wrong."""
    hints = ("Add it to itself.", "x + x, or a factor.", "return 2 * x")
    exercise = Exercise(twice, 5, gradients=("x",), cost=Cost(ops=4), hints=hints, source="none", forbid=("mm",))
    exercise.truth(lambda x: x.add(x))

    @exercise.cases
    def cases(draw):
        yield Case("plain", draw.normal(3, 2))
        yield Case("large", 1e4 * draw.normal(4), hidden=True)
        yield Case("integers", torch.arange(3), raises=TypeError)

    exercise.wrong("Twice, not three times.")(tripled)
    exercise.wrong("Add nothing.")(shifted)
    exercise.wrong("Keep the graph.", caught_by="gradients")(cut)
    exercise.wrong("Refuse integers.", caught_by="errors")(lenient)
    exercise.right("a sum")(added)
    return exercise


def problems(exercise, seeds=1):
    unit = Unit("unit", "A unit", (exercise,), None)
    return [problem.text for problem in audit_exercise(load_course(), unit, exercise, seeds)]


def test_a_sound_exercise_has_no_problems():
    assert problems(sound()) == []


def changed(change):
    exercise = sound()
    change(exercise)
    return problems(exercise)


def wrong(exercise, hint, candidate, **options):
    exercise.wrong(hint, **options)(candidate)


def slow(x):
    for _ in range(400):
        twice(x)
    return twice(x)


def timed(exercise):
    exercise.cost = Cost()
    exercise.speed(3.0, size=100_000)(lambda draw, size: Case("large", draw.normal(size)))


def nearly(x):
    return twice(x) * (1 + 1e-15)


def crashing(x):
    return torch.stack(x)


def right_or_crashing(x):
    return twice(x) if x.ndim == 1 else torch.stack(x)


def mistyped(draw):
    yield Case("plain", draw.nromal(2))


def other_shift(x):
    return twice(x) + 1


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda e: wrong(e, "Be exact.", nearly), "'nearly' passes: add a case that catches it"),
        (lambda e: wrong(e, "A shift.", other_shift), "'shifted' and 'other_shift' look alike on every case"),
        (lambda e: wrong(e, "Twice, not three times.", slow, caught_by="cost"), "two wrong answers have the same hint"),
        (lambda e: wrong(e, "No loop.", slow, caught_by="values"), "should be caught by 'values' but is caught by"),
        (lambda e: e.right("off by one")(shifted), "the right answer 'off by one' does not pass"),
        (lambda e: setattr(e, "cost", Cost(ops=0)), "the solution does not pass"),
        (lambda e: setattr(e, "hints", ()), "has 0 hints; at least 3 are needed"),
        (lambda e: e.wrongs.clear(), "has 0 wrong answers; at least 4 are needed"),
        (lambda e: e.rights.clear(), "has 0 right answers; at least 1 are needed"),
        (lambda e: setattr(e, "source", ""), "names no source"),
        (lambda e: setattr(e, "gradients", ("xs",)), "gradients names 'xs'"),
        (lambda e: e.truth(lambda x: x.add(x).add(1e-3)), "the solution does not pass"),
        (lambda e: (timed(e), e.right("in a loop")(slow)), "the right answer 'in a loop' is too slow"),
        (lambda e: (timed(e), wrong(e, "Fast.", added, caught_by="speed")), "'added' passes: add a case"),
        (lambda e: setattr(e, "uses", ("sofmax",)), "uses 'sofmax', which the course does not have (did you mean 'so"),
        (lambda e: wrong(e, "No crash.", crashing), "'crashing' does nothing wrong but raise (plain: raised TypeError"),
        (lambda e: wrong(e, "No crash.", crashing, caught_by="errors"), "mend it, or say caught_by='runs'"),
        (lambda e: wrong(e, "No crash.", right_or_crashing), "'right_or_crashing' does nothing wrong but raise"),
        (
            lambda e: setattr(e, "cost", Cost(peak={"y": 2})),
            "twice, case 'plain': Cost(peak=...) names 'y'; there are x, result, parameters, reference",
        ),
        (lambda e: setattr(e, "cost", Cost(maxel=("x", "y"))), "Cost(maxel=...) names 'y'"),
        (lambda e: e.cases(mistyped), "cannot be audited: "),
    ],
)
def test_a_problem_is_found(change, said):
    assert any(said in text for text in changed(change)), changed(change)


def test_a_wrong_answer_may_be_one_that_raises():
    assert changed(lambda e: wrong(e, "No crash.", crashing, caught_by="runs")) == []


def test_a_mistake_in_the_cases_is_said_with_its_line():
    (said,) = changed(lambda e: e.cases(mistyped))
    assert re.fullmatch(r"cannot be audited: .*test_audit.py, line \d+: AttributeError: .*'nromal'.*", said)


def test_an_earlier_exercise_stands_before():
    course = load_course()
    exercise = course.find("log_softmax")[1]
    used = replace(exercise, uses=("softmax", "cross_entropy"))
    assert list(uses_problems(course, used)) == ["uses 'cross_entropy', which does not stand before it in the course"]


@pytest.mark.parametrize(
    ("word", "value", "said"),
    [
        ("forbid", "rms_norm", "twice: forbid is a tuple of texts"),
        ("forbid", ("",), "twice: forbid has an empty text"),
        ("uses", ["softmax"], "twice: uses is a tuple of texts"),
        ("gradients", "x", "twice: gradients is a tuple of texts"),
        ("mutates", (1,), "twice: mutates is a tuple of texts"),
        ("attributes", "weights", "twice: attributes is a tuple of texts"),
        ("hints", "use rsqrt", "twice: hints is a tuple of texts"),
        ("hints", ("one", "two", " "), "twice: hints has an empty text"),
    ],
)
def test_names_and_hints_are_tuples_of_texts(word, value, said):
    with pytest.raises((TypeError, ValueError), match=said):
        Exercise(twice, 5, **{word: value})


def test_a_reading_that_there_is_not_cannot_grow():
    with pytest.raises(TypeError, match=r"there is no reading 'memory'; there are ops, .*, peak,"):
        sound().growth("rows", memory=1)


def test_an_empty_text_is_none():
    exercise = sound()
    for decorator in (exercise.right, exercise.wrong):
        with pytest.raises(ValueError, match="has an empty text"):
            decorator(" ")


def test_a_decorator_without_its_text_is_refused():
    exercise = sound()
    for decorator in (exercise.right, exercise.wrong):
        with pytest.raises(TypeError, match="with a text"):
            decorator(twice)


def test_an_exercise_that_is_not_there_is_no_clean_one():
    with pytest.raises(CourseError, match="did you mean 'softmax'"):
        list(audit(load_course(), "softmax_regression", "softmaxx"))


def test_a_slow_wrong_answer_is_caught_by_its_time():
    assert changed(lambda e: (timed(e), wrong(e, "No loop.", slow, caught_by="speed"))) == []


def sevens(x):
    return twice(x) + (x == 7)


def seed_dependent():
    """Return an exercise whose wrong answer shows on the first seed only."""
    exercise = sound()
    usual, seeds = exercise.case_maker, []

    @exercise.cases
    def cases(draw):
        yield from usual(draw)
        seeds.append(draw)
        if len(seeds) == 1:
            yield Case("telling", torch.full((2,), 7.0))

    wrong(exercise, "No sevens.", sevens)
    return exercise


def test_wrong_answers_can_be_tried_on_more_seeds():
    assert problems(seed_dependent()) == []
    assert problems(seed_dependent(), seeds=2) == ["the wrong answer 'sevens' passes: add a case that catches it"]


def test_an_undocumented_exercise_is_told_what_is_missing():
    def bare(x):
        return 2 * x

    exercise = sound()
    exercise.solution = bare
    said = " ".join(problems(exercise))
    for part in ("no 'Args:' section", "no 'Returns:' section", "no 'Raises:' section", "no worked numeric example"):
        assert part in said
