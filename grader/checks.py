"""What an observation is checked for: one pure function each. They compare data; they never run learner code."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from grader.calls import Observation, Raised
from grader.compare import compare, finding, shape_of, strange_places, value_finding
from grader.pack import Planned
from grader.tolerance import DOUBLE as DOUBLE_LIMIT
from grader.tolerance import GRADIENT_FLOOR, RELATIVE_FLOOR, difference, within
from grader.verdict import Finding

IN_PLACE = "leaf Variable that requires grad is being used in an in-place operation"


def value_findings(planned: Planned, seen: Observation) -> Iterator[Finding]:
    """Compare results: type, structure, shape, dtype, finite, values; stops at the first that is wrong."""
    if seen.raised is not None:
        yield raised_finding(planned, seen.raised, crash=seen.crash)
        return
    expected = planned.expected
    pairs = [("result", seen.outputs, expected.outputs, expected.like)]
    for name, wanted in expected.after.items():
        if name not in seen.after:
            yield finding(planned, "structure", "missing", path=name)
            return
        pairs.append((name, seen.after[name], wanted, expected.after_like[name]))
    for path, got, wanted, like in pairs:
        wrong = next(compare(planned, path, got, wanted, like), None)
        if wrong is not None:
            yield wrong
            return


def raised_finding(planned: Planned, raised: Raised, *, crash: str | None) -> Finding:
    """Report an exception where a result was wanted."""
    kind = (
        f"worker_{crash}"
        if crash
        else f"raised_in_{raised.stage}"
        if raised.stage in ("constructor", "state", "backward", "load")
        else "raised_in_place"
        if IN_PLACE in raised.text and not planned.call.autograd and {*planned.call.gradients} & {*planned.call.inputs}
        else "raised"
    )
    check = "gradients" if raised.stage == "backward" else "runs"
    text = seen_from_the_module(raised.text) if raised.stage == "state" else raised.text
    return finding(planned, check, kind, trace=raised.trace, error=raised.name, text=text)


def seen_from_the_module(text: str) -> str:
    """Say what torch says of loading a state dict from the learner's side, who has not written the state dict."""
    text = text.replace("Missing key(s) in state_dict:", "your module has what the contract does not list:")
    return text.replace("Unexpected key(s) in state_dict:", "your module lacks what the contract lists:")


def error_findings(planned: Planned, seen: Observation) -> Iterator[Finding]:
    """Check that the exception that was wanted was raised, by type."""
    wanted = planned.case.raises
    if wanted is None:
        return
    if seen.crash:
        yield raised_finding(planned, seen.raised or Raised((), ""), crash=seen.crash)
    elif seen.raised is None:
        yield finding(planned, "errors", "not_raised", wanted=wanted.__name__)
    elif seen.raised.stage == "state":  # it could be built, and what is loaded then says nothing to a learner
        yield finding(planned, "errors", "built", wanted=wanted.__name__)
    elif wanted.__name__ not in seen.raised.types:
        raised = seen.raised
        yield finding(
            planned,
            "errors",
            "raised_other",
            trace=raised.trace,
            wanted=wanted.__name__,
            got=raised.name,
            text=raised.text,
        )


def gradient_findings(planned: Planned, seen: Observation) -> Iterator[Finding]:
    """Compare the gradients of a random weighting of the results, in float64."""
    if seen.raised is not None:
        return
    largest = max(
        (float(g.abs().max()) for g in planned.expected.gradients.values() if g is not None and g.numel()), default=0.0
    )
    floor = max(GRADIENT_FLOOR, RELATIVE_FLOOR * largest) if largest < float("inf") else GRADIENT_FLOOR
    for path, wanted in planned.expected.gradients.items():
        got = seen.gradients.get(path)
        size = 0.0 if wanted is None or not wanted.numel() else float(wanted.abs().max())
        if got is None:
            if size:
                yield finding(planned, "gradients", "no_gradient", path=path)
                return
            continue
        target = torch.zeros_like(got) if wanted is None else wanted
        if got.shape != target.shape:
            yield finding(planned, "gradients", "gradient_shape", path=path, got=shape_of(got), wanted=shape_of(target))
            return
        strange = strange_places(got, target)
        error = difference(got, target, floor)
        if strange is not None or not within(error, DOUBLE_LIMIT):
            kind = "gradient_nan" if strange else "gradient_values"
            yield value_finding(planned, "gradients", kind, path, got, target, error, DOUBLE_LIMIT)
            return
    yield from graph_findings(planned, seen)


def graph_findings(planned: Planned, seen: Observation) -> Iterator[Finding]:
    """Check that no result carries a graph that the reference's does not."""
    extra = [path for path in seen.graphs if path not in planned.expected.graphs]
    if extra:
        yield finding(planned, "gradients", "graph_kept", path=extra[0])


def input_findings(planned: Planned, seen: Observation, *, may_alias: bool) -> Iterator[Finding]:
    """Check that inputs are left alone and that results own their memory."""
    for kind, name in seen.changed:
        if kind != "global":
            yield finding(planned, "inputs", f"changed_{kind}", path=name)
            return
    if not may_alias and seen.raised is None:
        for path, source in seen.aliases:
            yield finding(planned, "inputs", "alias", path=path, source=source)
            return


def state_findings(planned: Planned, seen: Observation) -> Iterator[Finding]:
    """Check that process-wide settings are left alone and generators are used as prescribed."""
    for kind, name in seen.changed:
        if kind == "global":
            yield finding(planned, "state", "global", name=name)
            return
    if seen.raised is None and seen.generators != planned.expected.generators:
        yield finding(planned, "state", "generator")


def device_findings(planned: Planned, seen: Observation) -> Iterator[Finding]:
    """Check that results are where the inputs are."""
    for path in seen.elsewhere:
        yield finding(planned, "device", "device", path=path, wanted=planned.call.device)
        return


def forbidden_findings(planned: Planned, seen: Observation) -> Iterator[Finding]:
    """Check that nothing forbidden was called and that results come from visible torch operations."""
    for use in seen.uses:
        yield finding(planned, "forbidden", "forbidden", name=use.name, cell=use.cell.strip("<>"), line=use.line)
        return
    for path in seen.orphans:
        yield finding(planned, "forbidden", "orphan", path=path)
        return
