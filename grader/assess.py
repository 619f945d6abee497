"""Apply every check to what a candidate did: findings and items."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from grader import checks
from grader.budget import cost_findings, growth_findings, speed_finding
from grader.calls import Observation
from grader.pack import DERIVED, DOUBLE, Pack, Planned
from grader.reading import Use
from grader.snippet import snippet
from grader.speed import WRONG, Race
from grader.verdict import CHECKS, Finding, Item

FLOAT32 = "float32_inside"
"""The kind of finding where a formula is right and something in it is computed in float32."""


@dataclass(frozen=True, slots=True)
class Report:
    """Findings and items of one candidate on one pack."""

    findings: tuple[Finding, ...]
    items: tuple[Item, ...]


def assess(pack: Pack, seen: Sequence[Observation], uses: Sequence[Use] = (), race: Race | None = None) -> Report:
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
        name = planned.call.label if planned.variant in DERIVED else planned.case.name
        if planned.case.raises is not None:
            note(category, name, list(checks.error_findings(planned, observation)))
        else:
            off = list(checks.value_findings(planned, observation))
            note(category, name, [f for f in off if f.kind != FLOAT32])
            if planned.variant == DOUBLE:  # the formula is right, and that is most of it
                note("edges", "float64 stays float64", [f for f in off if f.kind == FLOAT32])
        if planned.expected.gradients and planned.case.raises is None:
            note("gradients", name, list(checks.gradient_findings(planned, observation)))
            if observation.raised is not None:
                right["gradients", name] = False
        elif planned.case.raises is None and not planned.call.gradients:
            note("edges", "no graph is kept", list(checks.graph_findings(planned, observation)))
        note(
            "edges",
            "inputs are left alone",
            list(checks.input_findings(planned, observation, may_alias=exercise.may_alias)),
        )
        note("edges", "global state is left alone", list(checks.state_findings(planned, observation)))
        note(category, name, list(checks.device_findings(planned, observation)))
        findings.extend(checks.forbidden_findings(planned, observation))
    solid = all(ok for (category, _), ok in right.items() if category == "numerics")
    for name, found in budget(pack, seen):
        right["budget", name] = solid and found is None
        findings += [found] if solid and found is not None else []
    if race is not None and race.outcome == WRONG:
        note("numerics", "timed calls", [race.finding] if race.finding is not None else [])
    elif race is not None:  # what is undecided counts as right, so that points do not depend on how busy a machine is
        note("budget", "time", [speed_finding(race)] if race.failed else [])
    elif pack.speed is not None and not solid:
        right["budget", "time"] = False
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
    edge = planned.case.edge or planned.case.raises is not None or planned.variant in DERIVED
    return "edges" if edge else "numerics"


def budget(pack: Pack, seen: Sequence[Observation]) -> list[tuple[str, Finding | None]]:
    """Return (name, what is wrong or None) of every limit on cost and growth."""
    found: list[tuple[str, Finding | None]] = []
    for planned, observation in zip(pack.planned, seen, strict=False):
        found += [(f"{name}, {planned.case.name}", wrong) for name, wrong in cost_findings(planned, observation)]
    rest = list(seen[len(pack.planned) :])
    for growth, pair in zip(pack.growths, zip(rest[::2], rest[1::2], strict=False), strict=False):
        found += [(f"growth of {name} with {growth.axis}", wrong) for name, wrong in growth_findings(growth, pair)]
    return found


def source_finding(use: Use) -> Finding:
    """Report a forbidden thing in the source."""
    facts = {"name": use.name, "cell": use.cell.strip("<>"), "line": use.line}
    return Finding("forbidden", "forbidden_source", facts=facts)
