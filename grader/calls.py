"""What is sent to whoever runs a candidate, and what comes back. Data only, never a verdict."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, Self

from torch import Tensor

from grader.reading import Reading, Use, told
from grader.texts import text_of

MOST_ITEMS = 1000
CHANGES = frozenset("replaced values requires_grad grad size flags global".split())
"""Kinds of change that are looked for."""


@dataclass(frozen=True, slots=True)
class Call:
    """One call to make.

    Args:
        label: the case's name and the variant: `"large scores"`, `"large scores / double"`.
        args: positional arguments.
        names: names of the positional arguments, for gradients and messages.
        kwargs: keyword arguments.
        init: constructor arguments of a class, or None to pass the class itself to the probe.
        state: the state dict to load strictly; None for anything but a module.
        train: put the module into train mode.
        probe: source of the driver, or None for a plain call.
        gradients: names of arguments to differentiate with respect to.
        mutates: names of arguments that may be changed in place; their values afterwards are reported.
        attributes: attributes of the module to report.
        forbid: words that may not be called.
        autograd: the candidate may run backward passes.
        saved: measure the bytes saved for backward.
        costs: read what the call costs; otherwise only its operations are counted.
        watched: see every operation: names, costs, origins. A long training run through a probe is not watched; what
            it may not call is looked for in the shorter runs.
        detail: report the reading's breakdown by operation.
        draws: torch's global generator may be used.
        seed: seeds the global generator and the cotangent.
        seconds: CPU time limit.
        device: where the inputs and the module are put: "cpu" or "cuda".
    """

    label: str
    args: tuple[Any, ...] = ()
    names: tuple[str, ...] = ()
    kwargs: dict[str, Any] = field(default_factory=dict)
    init: tuple[Any, ...] | dict[str, Any] | None = None
    state: dict[str, Tensor] | None = None
    train: bool = False
    probe: str | None = None
    gradients: tuple[str, ...] = ()
    mutates: tuple[str, ...] = ()
    attributes: tuple[str, ...] = ()
    forbid: tuple[str, ...] = ()
    autograd: bool = False
    saved: bool = False
    costs: bool = True
    watched: bool = True
    detail: bool = False
    draws: bool = False
    seed: int = 0
    seconds: float = 10.0
    device: str = "cpu"

    @property
    def inputs(self) -> dict[str, Any]:
        """The arguments by name."""
        return dict(zip(self.names, self.args, strict=True)) | self.kwargs

    def to_data(self) -> dict[str, Any]:
        """Return the call as plain data."""
        return told(self)

    @classmethod
    def from_data(cls, data: dict[str, Any]) -> Self:
        """Rebuild a call from plain data."""
        return cls(**data)


@dataclass(frozen=True, slots=True)
class Raised:
    """An exception as data: its type and bases, its text, and the learner's lines it passed through."""

    types: tuple[str, ...]
    text: str
    stage: str = "call"
    trace: tuple[tuple[str, int, str], ...] = ()

    @property
    def name(self) -> str:
        """The exception's own type."""
        return self.types[0] if self.types else "Exception"

    @classmethod
    def from_data(cls, data: dict[str, Any]) -> Self:
        """Rebuild an exception from plain data; raises TypeError or ValueError for malformed data."""
        made = cls(**data)
        trace = tuple((text_of(cell), int(line), text_of(function)) for cell, line, function in made.trace[:MOST_ITEMS])
        return cls(texts_of(made.types), text_of(made.text), text_of(made.stage), trace)


@dataclass(frozen=True, slots=True)
class Observation:
    """What a candidate did on a call.

    Args:
        outputs: the result as plain data; absent (None) when something was raised.
        raised: the exception.
        gradients: gradient by input path; None where none arrived.
        after: values afterwards of arguments that may be changed, attributes and buffers.
        changed: what was changed though it may not be, as (kind, name).
        aliases: paths of results that share memory with an input, as (path, input).
        graphs: paths of results that carry a graph.
        uses: forbidden names used.
        orphans: paths of results that no visible torch operation made.
        elsewhere: paths of results that are not on the call's device.
        reading: what it cost.
        generators: digests of the states of the generators among the inputs afterwards.
        crash: why there is no observation: "timeout", "memory", "crash" ...: the worker died. Text in `raised.text`.
    """

    outputs: Any = None
    raised: Raised | None = None
    gradients: dict[str, Tensor | None] = field(default_factory=dict)
    after: dict[str, Any] = field(default_factory=dict)
    changed: tuple[tuple[str, str], ...] = ()
    aliases: tuple[tuple[str, str], ...] = ()
    graphs: tuple[str, ...] = ()
    uses: tuple[Use, ...] = ()
    orphans: tuple[str, ...] = ()
    elsewhere: tuple[str, ...] = ()
    reading: Reading = field(default_factory=Reading)
    generators: tuple[str, ...] = ()
    crash: str | None = None

    def to_data(self) -> dict[str, Any]:
        """Return the observation as plain data."""
        data = told(self) | {"reading": self.reading.to_dict()}
        if self.uses:
            data["uses"] = [(use.name, use.cell, use.line) for use in self.uses]
        if self.raised is not None:
            data["raised"] = told(self.raised)
        return data

    @classmethod
    def from_data(cls, data: dict[str, Any]) -> Self:
        """Rebuild an observation from plain data; raises TypeError, ValueError or KeyError for malformed data."""
        made = cls(**data)
        gradients = made.gradients.values()
        if not isinstance(made.after, dict) or not all(g is None or isinstance(g, Tensor) for g in gradients):
            raise TypeError("gradients and after are dicts, gradients of tensors")
        return replace(
            made,
            crash=None,  # who can say so has not crashed
            raised=None if made.raised is None else Raised.from_data(data["raised"]),
            uses=tuple(
                Use(text_of(name), text_of(cell), int(line)) for name, cell, line in data.get("uses", ())[:MOST_ITEMS]
            ),
            reading=Reading.from_dict(data["reading"]),
            changed=tuple((known_change(kind), text_of(name)) for kind, name in made.changed[:MOST_ITEMS]),
            aliases=tuple((text_of(path), text_of(source)) for path, source in made.aliases[:MOST_ITEMS]),
            graphs=texts_of(made.graphs),
            orphans=texts_of(made.orphans),
            elsewhere=texts_of(made.elsewhere),
            generators=texts_of(made.generators),
        )


def texts_of(values: Any) -> tuple[str, ...]:
    """Return texts that an untrusted process sent, not without end."""
    return tuple(text_of(value) for value in values[:MOST_ITEMS])


def known_change(kind: Any) -> str:
    """Return a kind of change; raises ValueError for any other."""
    if kind not in CHANGES:
        raise ValueError(f"{kind!r} is no kind of change")
    return str(kind)


def crashed(kind: str, text: str) -> Observation:
    """Return the observation of a worker that died."""
    return Observation(crash=kind, raised=Raised((kind,), text, stage="worker"))
