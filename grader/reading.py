"""What a call cost and which names it used: data only."""

from __future__ import annotations

from dataclasses import MISSING, Field, dataclass, field, fields
from typing import Any, Self

from grader.roofline import Row


def told(record: Any) -> dict[str, Any]:
    """Return the fields of a dataclass that are not what they are by default: most are not worth sending."""
    return {f.name: value for f in fields(record) if not is_usual(value := getattr(record, f.name), f)}


def is_usual(value: Any, field: Field[Any]) -> bool:
    """Whether a field has its default value, as far as that is plain to see."""
    usual = field.default if field.default_factory is MISSING else field.default_factory()
    if type(value) is not type(usual):
        return False
    return not value and not usual if isinstance(value, (tuple, list, dict)) else bool(value == usual)


@dataclass(frozen=True, slots=True)
class Reading:
    """What one call cost: counts, elements, bytes. See `Cost` for what each one means."""

    ops: int = 0
    matmuls: int = 0
    maxel: int = 0
    peak: int = 0
    moved: int = 0
    saved: int = 0
    syncs: int = 0
    flops: int = 0
    kinds: dict[str, int] = field(default_factory=dict)
    detail: tuple[Row, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return the reading as plain data."""
        return told(self)

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Self:
        """Rebuild a reading from plain data; raises TypeError or ValueError for anything but counts."""
        known = dict(data)
        kinds = {str(kind): count(n) for kind, n in known.pop("kinds", {}).items()}
        rows = tuple((str(kind), count(m), count(f), count(n)) for kind, m, f, n in known.pop("detail", ()))
        return cls(**{name: count(n) for name, n in known.items()}, kinds=kinds, detail=rows)


def count(value: Any) -> int:
    """Return a count as it is; raises ValueError for anything else."""
    if type(value) is not int or not 0 <= value < 2**62:
        raise ValueError(f"{value!r} is no count")
    return value


@dataclass(frozen=True, slots=True)
class Use:
    """A forbidden name that was used: the learner's spelling where it is known, and where."""

    name: str
    cell: str = ""
    line: int = 0
