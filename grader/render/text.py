"""Verdicts as plain text, for terminals, pytest and consoles without HTML."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from grader.render.messages import place, sentence, translate
from grader.verdict import ERROR, FAILED, N_, NOT_ATTEMPTED, NOT_GRADABLE, PARTLY, PASSED, Finding, Verdict

STATUS = {
    PASSED: N_("passed"),
    PARTLY: N_("partly right"),
    FAILED: N_("failed"),
    ERROR: N_("error"),
    NOT_ATTEMPTED: N_("not attempted"),
    NOT_GRADABLE: N_("not gradable here"),
}
HIDDEN = {
    "runs": N_("it does not run"),
    "type": N_("the result is of another type"),
    "structure": N_("the result has other parts"),
    "shape": N_("a shape is not right"),
    "dtype": N_("a dtype is not right"),
    "device": N_("the result is not on the device of the inputs"),
    "finite": N_("nan or inf stand where they should not, or are missing"),
    "values": N_("values are not right"),
    "errors": N_("the exception that is wanted is not raised"),
    "gradients": N_("gradients are not right"),
    "inputs": N_("inputs are not left as they are"),
    "state": N_("something besides the result is left changed"),
    "forbidden": N_("something is called that is not allowed"),
    "cost": N_("it costs more than is allowed"),
    "growth": N_("its cost grows faster than is allowed"),
    "speed": N_("it takes longer than is allowed"),
}
"""What is said of a hidden case, by check."""
MOST_CASES = 3


def number(points: float) -> str:
    """Write points without needless digits."""
    return f"{points:g}"


def headline(verdict: Verdict) -> str:
    """Say name, status and points in one line."""
    status = translate(STATUS[verdict.status])
    points = points_of(verdict.points, verdict.max_points)
    return translate(N_("{name}: {status}, {points}"), name=verdict.name, status=status, points=points)


def points_of(points: float, most: int) -> str:
    """Say points with how many there are."""
    return translate(N_("{points} of {most} points"), points=number(points), most=most)


def hint_line(verdict: Verdict) -> str:
    """Say the hint of a verdict, if it has one."""
    return translate(N_("hint: {hint}"), hint=translate(verdict.hint)) if verdict.hint else ""


def by_case(verdict: Verdict) -> list[Finding]:
    """Return the first finding of each case, the visible ones first."""
    found: dict[str, Finding] = {}
    for finding in verdict.findings:
        found.setdefault(finding.case, finding)
    return list(found.values())


def most_telling(wrong: Sequence[Finding]) -> list[Finding]:
    """Choose the few findings that are shown: one of each check before two of one; no single one is left over."""
    if len(wrong) <= MOST_CASES + 1:
        return list(wrong)
    first = {finding.check: index for index, finding in reversed(list(enumerate(wrong)))}
    chosen = sorted(range(len(wrong)), key=lambda index: first[wrong[index].check] != index)[:MOST_CASES]
    return [wrong[index] for index in sorted(chosen)]


def case_name(finding: Finding) -> str:
    """Name the case of a finding; a hidden one by its category only."""
    if not finding.case:
        return translate(N_("the code"))
    if finding.hidden:
        return translate(N_("a hidden case ({category})"), category=finding.case)
    variants = {
        "double": N_("{case}, in float64"),
        "strided": N_("{case}, non-contiguous"),
        "expanded": N_("{case}, expanded"),
    }
    variant = variants.get(str(finding.facts.get("variant", "")))
    return translate(variant, case=finding.case) if variant else finding.case


def places(finding: Finding) -> list[str]:
    """Name the learner's own lines in which it happened, the innermost last."""
    named = N_("{place}, in {function}")
    return [translate(named, place=place(cell, line), function=f) for cell, line, f in finding.trace[-2:]]


def what_is_wrong(finding: Finding) -> str:
    """Say a finding; of a hidden case only the kind of check, never its values."""
    return translate(HIDDEN[finding.check]) if finding.hidden else sentence(finding)


def lines(verdict: Verdict) -> Iterator[str]:
    """Write a verdict, line by line."""
    yield headline(verdict)
    wrong = by_case(verdict)
    shown = most_telling(wrong)
    for finding in shown:
        yield f"  - {case_name(finding)}{translate(N_(': '))}{what_is_wrong(finding)}"
        if finding.snippet:
            yield f"      {finding.snippet}"
        yield from (f"      {where}" for where in places(finding))
    if len(wrong) > len(shown):
        yield "  - " + translate(N_("and {count} more cases"), count=len(wrong) - len(shown))
    if verdict.hint:
        yield f"  {hint_line(verdict)}"
    for reason in verdict.untested:
        yield "  " + translate(N_("({reason})"), reason=translate(reason))
    if verdict.passed and verdict.hidden_left:
        yield "  " + translate(N_("all public checks passed; hidden checks run at grading"))


def text(verdict: Verdict) -> str:
    """Write a verdict as text."""
    return "\n".join(lines(verdict))


def totals(verdicts: Sequence[Verdict]) -> tuple[float, int]:
    """Add up the points of several verdicts."""
    return round(sum(v.points for v in verdicts), 2), sum(v.max_points for v in verdicts)
