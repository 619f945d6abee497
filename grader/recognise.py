"""Which declared wrong answer a learner's code behaves like: the misconception."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from grader.assess import Report, assess
from grader.calls import Observation
from grader.compare import strange_places
from grader.exercise import Wrong
from grader.pack import Pack
from grader.record import run_all
from grader.tolerance import difference
from grader.wire import leaves

ALIKE = {torch.float64: 1e-6, torch.float32: 1e-3}


def recognise(pack: Pack, seen: Sequence[Observation], report: Report) -> Wrong | None:
    """Return the declared wrong answer that behaves as the learner's does.

    First one that does the same on every call. Failing that, the learner made other mistakes besides: then the one
    that fails on most calls among those that do the same wherever they fail.
    """
    partial: list[tuple[int, Wrong]] = []
    for wrong, answers, its_report in wrong_answers(pack):
        same_calls = [alike(a, b) for a, b in zip(answers, seen, strict=False)]
        if signature(its_report) == signature(report) and all(same_calls):
            return wrong
        failing = failing_calls(pack, its_report)
        if failing and all(same_calls[n] for n in failing) and signature(its_report) <= signature(report):
            partial.append((len(failing), wrong))
    return max(partial, key=lambda found: found[0])[1] if partial else None


BEHAVIOUR = frozenset(
    ("runs", "type", "structure", "shape", "dtype", "finite", "values", "errors", "gradients", "inputs")
)


def failing_calls(pack: Pack, report: Report) -> list[int]:
    """Return the calls on which a wrong answer behaves wrongly."""
    found = {(f.case, f.facts.get("variant")) for f in report.findings if f.check in BEHAVIOUR}
    return [n for n, p in enumerate(pack.planned) if (p.case.name, p.variant) in found]


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
        if strange_places(a, b) is not None:
            return False
        error = difference(a, b)
        return error.max <= ALIKE.get(a.dtype, 3e-2)
    if type(a) is not type(b):
        return False
    if isinstance(a, float):
        return bool(a == b or (a != a and b != b) or abs(a - b) <= 1e-6 * max(abs(a), abs(b)))
    return bool(a == b)
