"""Exercise and seed -> Pack: makes the calls and runs the truth and the solution on them."""

from __future__ import annotations

import functools
import inspect
import secrets
import zlib
from collections.abc import Iterator
from dataclasses import replace
from functools import lru_cache

import torch
from torch import Tensor

from grader.budget import unknown_sizes
from grader.calls import Call, Observation
from grader.case import Case, Cost
from grader.course import CourseError, probe_source
from grader.device import CPU
from grader.draw import Draw
from grader.exercise import Candidate, Exercise, Speed
from grader.observe import observe
from grader.pack import DOUBLE, GIVEN, LAYOUTS, LONG, Expected, Pack, Planned, PlannedGrowth, PlannedSpeed
from grader.rounding import rounding, value_leaves
from grader.trees import fresh
from grader.variants import (
    drawn_like,
    has_float,
    has_half,
    has_layouts,
    nudge,
    relayout,
    same_dtypes,
    to_double,
)

SEED = 20_240_229
NUDGES = 3
LAYOUT_CASES = 2
SALT = secrets.token_hex(8)
"""Makes the inputs of timed calls unpredictable: they need not be the same for everybody, only of the same sizes."""


@lru_cache(maxsize=256)
def record(exercise: Exercise, seed: int = SEED) -> Pack:
    """Make the pack of an exercise. The same seed gives the same pack."""
    return _Recorder(exercise, seed).pack()


def growing_call(exercise: Exercise, index: int, size: int, seed: int = SEED) -> Call:
    """Make the call of an exercise's growth, given by its place, at any size."""
    return _Recorder(exercise, seed).growing(index, size)


def saving(exercise: Exercise, call: Call) -> Call:
    """Return a call that is differentiated and reports what is kept for the backward pass."""
    return replace(call, saved=True, gradients=gradients_of(exercise, call))


def gradients_of(exercise: Exercise, call: Call) -> tuple[str, ...]:
    """Return what a call is differentiated with respect to, as far as the call has it."""
    known = {*call.inputs, *(("parameters",) if call.state is not None else ())}
    return tuple(name for name in exercise.gradients if name in known)


def run_all(candidate: Candidate, pack: Pack) -> list[Observation]:
    """Run a candidate on all calls of a pack in this process."""
    return [observe(candidate, call) for call in pack.calls()]


class _Recorder:
    def __init__(self, exercise: Exercise, seed: int) -> None:
        if exercise.truth_candidate is None or exercise.case_maker is None:
            raise CourseError(f"{exercise.id} declares no truth or no cases")
        self.exercise, self.seed = exercise, seed
        self.truth: Candidate = exercise.truth_candidate
        self.maker = exercise.case_maker

    def pack(self) -> Pack:
        cases = list(self.maker(Draw(self.seed, self.exercise.id)))
        if not cases:
            raise CourseError(f"{self.exercise.id} has no cases")
        names = [case.name for case in cases]
        if len(set(names)) < len(names):
            raise CourseError(f"{self.exercise.id}: two cases have the same name")
        measured = self.measured(cases)
        layouts = [c for c in cases if c.layouts and c.raises is None and not c.hidden and has_layouts(c)]
        planned: list[Planned] = []
        for case in cases:
            planned += self.plan(case, measured.get(case.name), with_layouts=case in layouts[:LAYOUT_CASES])
        for entry in planned:
            for problem in unknown_sizes(entry):
                raise CourseError(f"{self.exercise.id}, case {entry.call.label!r}: {problem}")
        return Pack(self.exercise, self.seed, tuple(planned), tuple(self.growths()), self.speed())

    def measured(self, cases: list[Case]) -> dict[str, Cost]:
        """Return the limits by name of the cases on which costs are measured."""
        own = self.exercise.cost
        said = {c.name: c.cost.over(own) if isinstance(c.cost, Cost) else own for c in cases if c.cost}
        if said or own == Cost():
            return said
        plain = [c.name for c in cases if c.raises is None and not c.hidden]
        return {plain[0]: own} if plain else {}

    def plan(self, case: Case, cost: Cost | None, *, with_layouts: bool) -> Iterator[Planned]:
        given = replace(self.call(case), costs=cost is not None)
        if cost is not None and cost.saved is not None:
            given = saving(self.exercise, given)
        if case.raises is not None:
            yield Planned(given, case, GIVEN, Expected(), None)
            return
        double = to_double(given) if case.double and has_float(given) else None
        if double is not None and case.grad:
            double = replace(double, gradients=gradients_of(self.exercise, given))
        if double is not None and same_dtypes(given, double):
            expected = self.expect(double, double)
            yield Planned(watched_if_short(double, cost, expected), case, DOUBLE, expected, cost)
        else:
            expected = self.expect(given, double)
            given = watched_if_short(given, cost, expected)
            yield Planned(given, case, GIVEN, replace(expected, gradients={}), cost)
            if double is not None and not has_half(given):
                wide = replace(double, label=f"{case.name} / {DOUBLE}")
                yield Planned(wide, case, DOUBLE, self.in_double(wide, expected))
        for layout in LAYOUTS if with_layouts else ():
            changed = relayout(given, layout, self.exercise.mutates)
            if changed is not None:
                exact = to_double(changed) if double is not None else None
                yield Planned(changed, case, layout, replace(self.expect(changed, exact), gradients={}))

    def call(self, case: Case) -> Call:
        """Make the call of a case."""
        exercise = self.exercise
        probe = case.probe or exercise.default_probe
        state = None
        if exercise.is_module and case.init is not None:
            state = self.state(case)
        plain = getattr(exercise.solution, "forward") if state is not None else exercise.solution  # noqa: B009 - a class
        signature = inspect.signature(probe or plain)
        skip = 1 if probe or state is not None else 0
        names = [p.name for p in list(signature.parameters.values())[skip:]][: len(case.args)]
        if len(names) < len(case.args):
            raise CourseError(f"{exercise.id}, case {case.name!r}: more arguments than the call takes")
        for taken in (set(signature.parameters) - set(names)) & case.said():
            raise CourseError(f"{exercise.id}, case {case.name!r}: {taken!r} is a word of Case; pass it by position")
        return Call(
            label=case.name,
            args=case.args,
            names=tuple(names),
            kwargs=dict(case.kwargs),
            init=case.init,
            state=state,
            train=case.train,
            probe=None if probe is None else probe_source(probe),
            mutates=exercise.mutates,
            attributes=exercise.attributes if state is not None else (),
            forbid=exercise.forbid,
            autograd=exercise.autograd,
            draws=case.draws,
            seed=zlib.crc32(f"{self.seed}/{exercise.id}/{case.name}".encode()),
            seconds=exercise.seconds,
        )

    def state(self, case: Case) -> dict[str, Tensor] | None:
        """Build the solution's state dict for a case, with parameters drawn so that none of them is special."""
        init = fresh(case.init)
        try:
            with torch.random.fork_rng(devices=[]):
                torch.default_generator.manual_seed(self.seed)
                made = self.exercise.solution(**init) if isinstance(init, dict) else self.exercise.solution(*init)
        except Exception:
            if case.raises is not None:
                return {}
            raise
        draw = Draw(self.seed, f"{self.exercise.id}/{case.name}/state")
        parameters = dict(made.named_parameters())
        state = {k: drawn_like(k, t, draw) if k in parameters else t for k, t in made.state_dict().items()}
        unknown = set(case.state or {}) - set(state)
        if unknown:
            raise CourseError(f"{self.exercise.id}, case {case.name!r}: the state has no {sorted(unknown)}")
        return state | dict(case.state or {})

    def expect(self, given: Call, double: Call | None) -> Expected:
        """Run truth and solution: values from the truth in float64, shapes and dtypes from the solution."""
        wide = double or given
        truth = self.must_run(self.truth, replace(wide, watched=False), "the truth")
        like = self.must_run(self.exercise.solution, given, "the solution")
        nudged = [
            self.must_run(self.truth, replace(nudge(wide, given, n), watched=False, gradients=()), "the truth")
            for n in range(NUDGES if any(value_leaves(truth)) else 0)
        ]
        return Expected(
            outputs=truth.outputs,
            like=like.outputs,
            after=truth.after,
            after_like=like.after,
            gradients=self.gradients(truth, wide),
            rounding=rounding(truth, like, nudged, given),
            graphs=like.graphs,
            generators=like.generators,
            reading=like.reading,
        )

    def in_double(self, double: Call, expected: Expected) -> Expected:
        """Return what the float64 run must do: the same values, with the solution's float64 types."""
        like = self.must_run(self.exercise.solution, double, "the solution")
        return replace(
            expected, like=like.outputs, after_like=like.after, graphs=like.graphs, generators=like.generators
        )

    def gradients(self, truth: Observation, wide: Call) -> dict[str, Tensor | None]:
        """Take the truth's gradients; where its result has no graph (a loop over numbers), the solution's."""
        if not wide.gradients or truth.graphs:
            return truth.gradients
        return self.must_run(self.exercise.solution, wide, "the solution").gradients

    def must_run(self, candidate: Candidate, call: Call, who: str) -> Observation:
        seen = observe(candidate, call)
        if seen.raised is not None:
            raised = seen.raised
            problem = f"{who} raises {raised.name} in its {raised.stage}: {raised.text}"
            raise CourseError(f"{self.exercise.id}, case {call.label!r}: {problem}")
        return seen

    def growths(self) -> Iterator[PlannedGrowth]:
        for index, growth in enumerate(self.exercise.growths):
            calls = [self.growing(index, size) for size in growth.sizes]
            seen = [self.must_run(self.exercise.solution, call, "the solution") for call in calls]
            yield PlannedGrowth(
                growth.axis, growth.sizes, growth.limits, (calls[0], calls[1]), (seen[0].reading, seen[1].reading)
            )

    def growing(self, index: int, size: int) -> Call:
        growth = self.exercise.growths[index]
        case = growth.make(Draw(self.seed, f"{self.exercise.id}/growth{index}"), size)
        call = replace(self.call(case), label=f"{growth.axis} {size}")
        return saving(self.exercise, call) if "saved" in growth.limits else call

    def speed(self) -> PlannedSpeed | None:
        timed = self.exercise.timed
        return None if timed is None else PlannedSpeed(timed.at_most, functools.partial(self.fresh, timed))

    def fresh(self, timed: Speed, number: int, device: str) -> Call:
        """Make one more timed call; no two processes ever make the same."""
        draw = Draw(self.seed, f"{self.exercise.id}/{SALT}/{number}")
        call = self.call(timed.make(draw, timed.size if device == CPU else timed.cuda))
        return replace(call, forbid=(), device=device)


def watched_if_short(call: Call, cost: Cost | None, expected: Expected) -> Call:
    """Return the call as it is made by others: a long run through a probe is not watched, unless its cost matters."""
    short = call.probe is None or cost is not None or expected.reading.ops <= LONG
    return call if short else replace(call, watched=False)
