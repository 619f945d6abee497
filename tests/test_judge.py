"""From observations to a verdict: statuses, points, misconceptions, gates."""

import pytest
import torch

from grader import Case, Cost, Exercise
from grader.answers import wrong_answers
from grader.calls import Observation, Raised
from grader.compare import value_finding
from grader.course import CourseError
from grader.judge import judge
from grader.likeness import alike
from grader.pack import Pack
from grader.reading import Use
from grader.recognise import TRIES
from grader.record import record, run_all
from grader.render.messages import sentence
from grader.tolerance import Error
from grader.verdict import Item, score


def scale(x, factor=2.0):
    if x.ndim == 0:
        raise ValueError("x has no dimensions")
    return x * factor


EXERCISE = Exercise(scale, 5, gradients=("x",), cost=Cost(ops=3, maxel="x"), forbid=("softmax",))


@EXERCISE.truth
def truth(x, factor=2.0):
    return x + x * (factor - 1)


@EXERCISE.cases
def cases(draw):
    yield Case("plain", draw.normal(3, 2))
    yield Case("another factor", draw.normal(4), factor=3.0)
    yield Case("large", 1e4 * draw.normal(2, 5), hidden=True)
    yield Case("a number", torch.tensor(1.0), raises=ValueError)


@EXERCISE.growth("rows", sizes=(8, 16), ops=0)
def rows(draw, size):
    return Case(f"{size} rows", draw.normal(size, 2))


@EXERCISE.wrong("Use the argument.")
def ignores_factor(x, factor=2.0):
    return scale(x)


@EXERCISE.wrong("Raise ValueError for a number.", caught_by="errors")
def accepts_numbers(x, factor=2.0):
    return x * factor


PACK = record(EXERCISE)


def verdict(candidate, pack=PACK):
    return judge(pack, run_all(candidate, pack))


def kinds(candidate):
    return {f.kind for f in verdict(candidate).findings}


def test_the_solution_passes_with_all_points():
    found = verdict(scale)
    assert (found.status, found.points, found.findings, found.hint) == ("passed", 5.0, (), None)


def test_a_misconception_is_named_with_its_hint():
    found = verdict(ignores_factor)
    assert (found.status, found.misconception, found.hint) == ("partly", "ignores_factor", "Use the argument.")
    assert 0 < found.points < 5


def test_a_misconception_beside_another_mistake_is_still_named():
    def both(x, factor=2.0):
        return x * 2.0  # the factor ignored, and no error raised

    assert verdict(both).misconception == "ignores_factor"


def test_a_misconception_behind_exceptions_is_named():
    def fussy(x, factor=2.0):
        if x.ndim == 2:
            raise TypeError("one dimension only")
        return scale(x)

    def fussy_only(x, factor=2.0):
        return scale(fussy(x) / 2, factor)

    assert verdict(fussy).misconception == "ignores_factor"
    assert verdict(fussy_only).misconception is None


def test_who_does_nothing_the_same_is_run_a_few_times_only():
    def triple(x):
        return 3 * x

    calls = []

    def four_times(x):
        calls.append(x)
        return 4 * x

    exercise = Exercise(triple, 5)
    exercise.truth(lambda x: x + x + x)
    exercise.cases(lambda draw: [Case(f"case {n}", draw.normal(2, 3)) for n in range(20)])
    exercise.wrong("Three times, not four.")(four_times)
    pack = record(exercise)
    assert judge(pack, run_all(lambda x: 2 * x, pack)).misconception is None
    assert len(calls) == TRIES
    assert judge(pack, run_all(lambda x: 4 * x, pack)).misconception == "four_times"


def careful_triple(x):
    if x.ndim != 2:
        raise ValueError("x is no matrix")
    return 3 * x


def slow_triple(x):
    for _ in range(9):
        x = x + 0
    return x + x + x


@pytest.mark.parametrize(
    ("candidate", "expected"),
    [(lambda x: 4 * x, "four_times"), (slow_triple, "loops"), (lambda x: 3 * x, "unchecked"), (lambda x: 2 * x, None)],
)
def test_who_checks_no_arguments_still_learns_of_the_real_mistake(candidate, expected):
    def unchecked(x):
        return 3 * x

    def four_times(x):
        return careful_triple(x) * 4 / 3

    def loops(x):
        return slow_triple(careful_triple(x) / 3)

    exercise = Exercise(careful_triple, 5, cost=Cost(ops=4))
    exercise.truth(lambda x: x + x + x)
    refused = [Case(f"no matrix {n}", torch.ones([2] * n), raises=ValueError) for n in (0, 1, 3, 4, 5, 6)]
    exercise.cases(lambda draw: [Case(f"case {n}", draw.normal(2, 3)) for n in range(2)] + refused)
    exercise.wrong("Refuse what is no matrix.", caught_by="errors")(unchecked)
    exercise.wrong("Three times, not four.")(four_times)
    exercise.wrong("No loop.", caught_by="cost")(loops)
    pack = record(exercise)
    assert judge(pack, run_all(candidate, pack)).misconception == expected


def test_a_new_mistake_has_no_hint():
    found = verdict(lambda x, factor=2.0: x - factor)
    assert (found.misconception, found.hint) == (None, None)


def test_a_stub_is_not_attempted():
    def stub(x, factor=2.0):
        raise NotImplementedError

    assert (verdict(stub).status, verdict(stub).points) == ("not_attempted", 0.0)


def test_code_that_always_raises_is_an_error():
    def broken(x, factor=2.0):
        return undefined_name  # noqa: F821

    found = verdict(broken)
    assert (found.status, found.points) == ("error", 0.0)
    assert "NameError" in sentence(found.findings[0])


def test_forbidden_calls_are_a_gate():
    def cheat(x, factor=2.0):
        torch.softmax(x.reshape(-1), 0)
        return scale(x, factor)

    found = verdict(cheat)
    assert (found.status, found.points, found.findings[0].check) == ("failed", 0.0, "forbidden")


def test_forbidden_source_is_a_gate():
    found = judge(PACK, run_all(scale, PACK), [Use("torch.softmax", "<cell 2>", 7)])
    assert found.points == 0.0
    assert "cell 2, line 7" in sentence(found.findings[0])


def test_always_raising_the_wanted_error_earns_nothing():
    def lazy(x, factor=2.0):
        raise ValueError

    assert verdict(lazy).points == 0.0


@pytest.mark.parametrize(
    ("candidate", "kind"),
    [
        (lambda x, factor=2.0: None, "type"),
        (lambda x, factor=2.0: [scale(x, factor)], "type"),
        (lambda x, factor=2.0: scale(x, factor)[None], "rank"),
        (lambda x, factor=2.0: scale(x, factor)[:1], "shape"),
        (lambda x, factor=2.0: scale(x, factor).to(torch.float16), "dtype"),
        (lambda x, factor=2.0: scale(x, factor).float().to(x.dtype), "float32_inside"),
        (lambda x, factor=2.0: scale(x, factor) * 1.001, "values"),
        (lambda x, factor=2.0: scale(x, factor) * torch.nan, "nan"),
        (lambda x, factor=2.0: scale(x, factor) + torch.inf, "inf"),
        (lambda x, factor=2.0: scale(x.detach(), factor), "no_gradient"),
        (lambda x, factor=2.0: scale(x, factor) + (x - x.detach()), "gradient_values"),
        (lambda x, factor=2.0: (torch.rand(1), scale(x, factor))[1], "global"),
    ],
)
def test_each_kind_of_mistake_is_told_apart(candidate, kind):
    assert kind in kinds(candidate)


def test_float32_inside_costs_a_share_of_the_edges_only():
    found = verdict(lambda x, factor=2.0: scale(x, factor).float().to(x.dtype))
    assert found.status == "partly"
    wrong = [(item.category, item.name) for item in found.items if not item.ok]
    assert ("edges", "float64 stays float64") in wrong
    assert not [name for category, name in wrong if category == "numerics"]
    assert 0.7 * found.max_points < found.points < found.max_points


def test_loops_are_told_by_their_growth():
    def loop(x, factor=2.0):
        scale(x, factor)
        return torch.stack([row * factor for row in x])

    found = verdict(loop)
    assert "growth_ops" in {f.kind for f in found.findings}
    assert "a Python loop over rows" in " ".join(sentence(f) for f in found.findings)


def test_budgets_wait_for_right_values():
    def wrong_and_slow(x, factor=2.0):
        return torch.stack([row * factor for row in x]) + 1 if x.ndim else scale(x)

    assert not {"cost", "growth"} & {f.check for f in verdict(wrong_and_slow).findings}


def test_hidden_cases_can_be_left_out():
    visible = PACK.visible()
    assert "large" not in {p.case.name for p in visible.planned}
    assert judge(visible, run_all(scale, visible)).hidden_left


def test_packs_of_one_size_are_kept_apart():
    def without(number):
        return Pack(EXERCISE, PACK.seed, PACK.planned[:number] + PACK.planned[number + 1 :], PACK.growths)

    for pack in (without(0), without(5)):
        wrong = next(seen for wrong, seen, _ in wrong_answers(pack) if wrong.name == "ignores_factor")
        own = run_all(ignores_factor, pack)
        assert all(alike(a, b) for a, b in zip(wrong, own, strict=True))


def test_snippets_rebuild_the_input():
    found = verdict(lambda x, factor=2.0: x * 0 if x.ndim else scale(x))
    finding = next(f for f in found.findings if f.case == "another factor")
    seen = {}
    exec(finding.snippet.replace("scale(", "keep("), {"torch": torch, "keep": lambda x, factor: seen.update(x=x)})
    own = next(p.call.args[0] for p in PACK.planned if p.call.label == "another factor")
    assert torch.equal(seen["x"], own)


def test_points_follow_the_shares():
    def items(**right):
        return tuple(Item(c, str(n), ok) for c, flags in right.items() for n, ok in enumerate(flags))

    assert score(items(numerics=[True], edges=[True], gradients=[True], budget=[True]), 8) == 8
    assert score(items(numerics=[True, False], edges=[True], gradients=[True], budget=[True]), 8) == 6
    assert score(items(numerics=[True], edges=[False], gradients=[True], budget=[True]), 10) == 8
    assert score(items(numerics=[True, False]), 10) == 5  # what is missing goes to numerics
    assert score(items(numerics=[False], edges=[True], gradients=[True], budget=[True]), 8) == 0
    assert score((), 5) == 0


def test_the_same_seed_gives_the_same_pack():
    first, again = record(EXERCISE, 5), record.__wrapped__(EXERCISE, 5)
    assert first is not again
    for a, b in zip(first.planned, again.planned, strict=True):
        assert a.call.label == b.call.label
        assert all(torch.equal(x, y) for x, y in zip(a.call.args, b.call.args, strict=True))
    assert not torch.equal(record(EXERCISE, 6).planned[0].call.args[0], first.planned[0].call.args[0])


def test_an_argument_that_a_case_would_swallow_is_an_error():
    def decay(x, state=None):
        return x if state is None else x + state

    exercise = Exercise(decay, 5)
    exercise.truth(decay)

    @exercise.cases
    def cases(draw):
        yield Case("swallowed", draw.normal(3), state=draw.normal(3))

    with pytest.raises(CourseError, match="'state' is a word of Case; pass it by position"):
        record(exercise)

    @exercise.cases
    def by_position(draw):
        yield Case("by position", draw.normal(3), draw.normal(3))

    assert record(exercise).planned


def test_only_edge_cases_count_as_edges():
    names = {item.name for item in verdict(scale).items if item.category == "edges"}
    cases = {p.case.name for p in PACK.planned if p.case.raises is None}
    assert not names & cases
    assert {"a number", "inputs are left alone", "global state is left alone"} <= names


def test_changing_an_input_in_place_is_called_that():
    def in_place(x, factor=2.0):
        if x.ndim == 0:
            raise ValueError
        x *= factor
        return x

    found = [finding for finding in verdict(in_place).findings if finding.kind == "raised_in_place"]
    assert {finding.case for finding in found} == {"plain", "another factor", "large"}
    assert "in place" in sentence(found[0])


def test_values_that_are_all_a_little_off_are_told_as_that():
    wanted = torch.ones(3)
    all_off, allowed = Error(rms=2e-5, max=5e-5), Error(rms=1e-5, max=1e-4)
    found = value_finding(PACK.planned[0], "values", "values", "result", wanted * 1.00005, wanted, all_off, allowed)
    assert found.facts["error"] > found.facts["limit"]
    assert "root mean square" in sentence(found)


@pytest.mark.parametrize(
    ("kind", "one", "other", "expected"),
    [
        ("RuntimeError", "mat1 and mat2 cannot be multiplied (3x4 and 5x6)",
         "mat1 and mat2 cannot be multiplied (2x7 and 12x1)", True),
        ("RuntimeError", "The size of tensor a (3) must match", "can't allocate memory", False),
        ("TypeError", "'int' object is not callable", "'int' object is not iterable", False),
        ("ValueError", "a label is too large", "label 7 is outside [0, 5)", True),
    ],
)  # fmt: skip
def test_exceptions_are_alike_if_they_say_the_same_but_for_numbers(kind, one, other, expected):
    first, second = (Observation(raised=Raised((kind,), text)) for text in (one, other))
    assert alike(first, second) is expected


def test_a_module_is_told_what_it_has_and_lacks():
    class Own(torch.nn.Module):
        def __init__(self, size):
            super().__init__()
            if size < 1:
                raise ValueError("size must be positive")
            self.weight = torch.nn.Parameter(torch.ones(size))

        def forward(self, x):
            return x * self.weight

    class Other(torch.nn.Module):
        def __init__(self, size):
            super().__init__()
            self.gain = torch.nn.Parameter(torch.ones(max(size, 1)))

        def forward(self, x):
            return x * self.gain

    exercise = Exercise(Own, 5)
    exercise.truth(Own)
    exercise.cases(lambda draw: [Case("two", draw.normal(2), init=(2,)), Case("none", init=(0,), raises=ValueError)])
    pack = record(exercise)
    found = {f.case: sentence(f) for f in judge(pack, run_all(Other, pack)).findings}
    assert 'your module has what the contract does not list: "gain"' in found["two"]
    assert 'your module lacks what the contract lists: "weight"' in found["two"]
    assert found["none"] == "was built without an error, but must raise ValueError"


def test_the_worst_value_is_shown():
    def off(x, factor=2.0):
        found = scale(x, factor)
        return torch.cat([found.flatten()[:-1] * 1.001, found.flatten()[-1:] + 5]).reshape(found.shape)

    first = next(f for f in verdict(off).findings if f.check == "values")
    assert first.facts["index"] == [2, 1]


def test_state_dicts_that_do_not_fit_are_alike_only_if_the_same_keys_are_wrong():
    def seen(keys):
        text = f"Error(s) in loading state_dict for {keys[0].title()}:\n\tMissing key(s): {keys}"
        return Observation(raised=Raised(("RuntimeError",), text, "state"))

    other_class = Observation(raised=Raised(("RuntimeError",), seen(["w"]).raised.text.replace("W:", "V:"), "state"))
    assert alike(seen(["w"]), other_class)
    assert not alike(seen(["w"]), seen(["out"]))
