"""Pack + observations -> Verdict. Pure: runs no learner code. Names the misconception."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from grader import checks
from grader.calls import Observation
from grader.exercise import Wrong
from grader.meter import Use
from grader.pack import LAYOUTS, Pack, Planned
from grader.record import run_all
from grader.snippet import snippet
from grader.tolerance import difference
from grader.verdict import (
    CHECKS,
    ERROR,
    FAILED,
    NOT_ATTEMPTED,
    PASSED,
    Finding,
    Item,
    Verdict,
    score,
    status_of,
)
from grader.wire import leaves

ALIKE = {torch.float64: 1e-6, torch.float32: 1e-3}
STUB_ERROR = "NotImplementedError"


@dataclass(frozen=True, slots=True)
class Report:
    """Findings and items of one candidate on one pack."""

    findings: tuple[Finding, ...]
    items: tuple[Item, ...]


def judge(pack: Pack, seen: Sequence[Observation], uses: Sequence[Use] = ()) -> Verdict:
    """Judge what a candidate did.

    Args:
        pack: the calls and what was expected.
        seen: one observation per call of the pack, in order.
        uses: forbidden things that its source shows.
    """
    exercise = pack.exercise
    base = Verdict(exercise.id, exercise.name, NOT_ATTEMPTED, 0.0, exercise.points)
    if not_attempted(seen):
        return base
    report = assess(pack, seen, uses)
    gated = any(f.check == "forbidden" for f in report.findings)
    points = 0.0 if gated else score(report.items, exercise.points)
    status = FAILED if gated else status_of(report.items, points)
    if points == 0 and any(f.check == "runs" for f in report.findings) and all_raised(pack, seen):
        status = ERROR
    wrong = None if status == PASSED else recognise(pack, seen, report)
    return replace(
        base,
        status=status,
        points=points,
        findings=report.findings,
        items=report.items,
        misconception=wrong.name if wrong else None,
        hint=wrong.hint if wrong else None,
        hidden_left=not any(p.case.hidden for p in pack.planned),
    )


def not_attempted(seen: Sequence[Observation]) -> bool:
    """Whether every call ended in the stub's NotImplementedError."""
    return all(o.raised is not None and o.crash is None and o.raised.name == STUB_ERROR for o in seen)


def all_raised(pack: Pack, seen: Sequence[Observation]) -> bool:
    """Whether no call that should return something did."""
    return all(o.raised is not None for p, o in zip(pack.planned, seen, strict=False) if p.case.raises is None)


def assess(pack: Pack, seen: Sequence[Observation], uses: Sequence[Use] = ()) -> Report:
    """Apply every check; findings are sorted by how basic they are, items keep the order of the cases."""
    exercise = pack.exercise
    findings: list[Finding] = [source_finding(use) for use in uses][:1]
    broken = next((o for o in seen if o.raised is not None and o.raised.stage == "load"), None)
    if broken is not None and broken.raised is not None:
        raised = broken.raised
        facts = {"error": raised.name, "text": raised.text}
        item = Item("numerics", "the code can be run", ok=False)
        return Report((*findings, Finding("runs", "raised_in_load", facts=facts, trace=raised.trace)), (item,))
    right: dict[tuple[str, str], bool] = {}

    def note(category: str, name: str, found: Sequence[Finding]) -> None:
        right[category, name] = right.get((category, name), True) and not found
        findings.extend(found)

    for planned, observation in zip(pack.planned, seen, strict=False):
        category = category_of(planned)
        name = planned.call.label if planned.variant in LAYOUTS else planned.case.name
        if planned.case.raises is not None:
            note(category, name, list(checks.error_findings(planned, observation)))
        else:
            note(category, name, list(checks.value_findings(planned, observation)))
        if planned.expected.gradients and planned.case.raises is None:
            note("gradients", name, list(checks.gradient_findings(planned, observation)))
            if observation.raised is not None:
                right["gradients", name] = False
        elif planned.case.raises is None and not planned.call.gradients:
            note("edges", "no graph is kept", list(graph_findings(planned, observation)))
        note(
            "edges",
            "inputs are left alone",
            list(checks.input_findings(planned, observation, may_alias=exercise.may_alias)),
        )
        note("edges", "global state is left alone", list(checks.state_findings(planned, observation)))
        findings.extend(checks.forbidden_findings(planned, observation))
    solid = all(ok for (category, _), ok in right.items() if category == "numerics")
    for name, found in budget(pack, seen):
        right["budget", name] = solid and found is None
        findings += [found] if solid and found is not None else []
    findings = [f for f in findings if f.kind != "worker_closed"]  # said once, by what ended the process
    ordered = sorted(findings, key=lambda f: (f.check != "forbidden", f.hidden, CHECKS.index(f.check)))
    ordered = [with_snippet(pack, f) for f in ordered]
    return Report(tuple(ordered), tuple(Item(category, name, ok) for (category, name), ok in right.items()))


def with_snippet(pack: Pack, finding: Finding) -> Finding:
    """Add code that reproduces a finding about a visible case."""
    if finding.hidden or not finding.case:
        return finding
    for planned in pack.planned:
        if planned.case.name == finding.case and planned.variant == finding.facts.get("variant"):
            return replace(finding, snippet=snippet(pack.exercise, planned.call))
    return finding


def category_of(planned: Planned) -> str:
    """Return which share of the points a call counts for."""
    edge = planned.case.edge or planned.case.raises is not None or planned.variant in LAYOUTS
    return "edges" if edge else "numerics"


def graph_findings(planned: Planned, seen: Observation) -> list[Finding]:
    """Check, where no gradient is compared, that no result carries a graph that the reference's does not."""
    extra = [path for path in seen.graphs if path not in planned.expected.graphs]
    return [checks.finding(planned, "gradients", "graph_kept", path=extra[0])] if extra else []


def budget(pack: Pack, seen: Sequence[Observation]) -> list[tuple[str, Finding | None]]:
    """Return (name, what is wrong or None) of every limit on cost and growth."""
    found: list[tuple[str, Finding | None]] = []
    for planned, observation in zip(pack.planned, seen, strict=False):
        found += [(f"{name}, {planned.case.name}", wrong) for name, wrong in checks.cost_findings(planned, observation)]
    rest = list(seen[len(pack.planned) :])
    for growth, pair in zip(pack.growths, zip(rest[::2], rest[1::2], strict=False), strict=False):
        found += [
            (f"growth of {name} with {growth.axis}", wrong) for name, wrong in checks.growth_findings(growth, pair)
        ]
    return found


def source_finding(use: Use) -> Finding:
    """Report a forbidden thing in the source."""
    facts = {"name": use.name, "cell": use.cell.strip("<>"), "line": use.line}
    return Finding("forbidden", "forbidden_source", facts=facts)


def recognise(pack: Pack, seen: Sequence[Observation], report: Report) -> Wrong | None:
    """Return the declared wrong answer that behaves as the learner's does on every call, if one does."""
    for wrong, answers, its_report in wrong_answers(pack):
        if signature(its_report) == signature(report) and all(alike(a, b) for a, b in zip(answers, seen, strict=False)):
            return wrong
    return None


def signature(report: Report) -> frozenset[tuple[str, str]]:
    """Return which checks fail on which cases."""
    return frozenset((f.check, f.case) for f in report.findings)


@lru_cache(maxsize=256)
def _all_wrong_answers(pack_key: _Key) -> tuple[tuple[Wrong, list[Observation], Report], ...]:
    pack = pack_key.pack
    answers = []
    for wrong in pack.exercise.wrongs:
        seen = run_all(wrong.candidate, pack)
        answers.append((wrong, seen, assess(pack, seen)))
    return tuple(answers)


class _Key:
    """Makes a pack hashable by identity of its exercise, its seed and its size."""

    def __init__(self, pack: Pack) -> None:
        self.pack = pack
        self.facts = (id(pack.exercise), pack.seed, len(pack.planned))

    def __hash__(self) -> int:
        return hash(self.facts)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Key) and self.facts == other.facts


def wrong_answers(pack: Pack) -> tuple[tuple[Wrong, list[Observation], Report], ...]:
    """Run every declared wrong answer on the pack, once."""
    return _all_wrong_answers(_Key(pack))


def alike(a: Observation, b: Observation) -> bool:
    """Whether two candidates did the same on a call: same exception, or nearly the same results and gradients."""
    if a.crash or b.crash:
        return a.crash == b.crash
    if a.raised is not None or b.raised is not None:
        return a.raised is not None and b.raised is not None and a.raised.name == b.raised.name
    return (
        same(a.outputs, b.outputs)
        and same(dict(a.after), dict(b.after))
        and same(dict(a.gradients), dict(b.gradients))
        and a.changed == b.changed
    )


def same(a: Any, b: Any) -> bool:
    """Whether two pieces of plain data are nearly equal."""
    left, right = list(leaves(a)), list(leaves(b))
    return len(left) == len(right) and all(
        p == q and same_leaf(x, y) for (p, x), (q, y) in zip(left, right, strict=True)
    )


def same_leaf(a: Any, b: Any) -> bool:
    """Whether two leaves are nearly equal; nan equals nan."""
    if isinstance(a, Tensor) and isinstance(b, Tensor):
        if a.shape != b.shape or a.dtype != b.dtype:
            return False
        if not a.is_floating_point():
            return torch.equal(a, b)
        if checks.strange_places(a, b) is not None:
            return False
        error = difference(a, b)
        return error.max <= ALIKE.get(a.dtype, 3e-2)
    if type(a) is not type(b):
        return False
    if isinstance(a, float):
        return a == b or (a != a and b != b) or abs(a - b) <= 1e-6 * max(abs(a), abs(b))
    return bool(a == b)
