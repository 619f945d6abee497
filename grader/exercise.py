"""The declaring words: what one file in `reference/` says about one exercise."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from grader.case import Case, Cost
from grader.draw import Draw
from grader.verdict import N_

Candidate = Callable[..., Any]
"""A function, an `nn.Module` class or another class: the solution, the truth, a wrong answer, the learner's own."""

LEVELS = {5: N_("easy"), 8: N_("medium"), 12: N_("hard"), 20: N_("hard")}


@dataclass(frozen=True, slots=True)
class Wrong:
    """A plausible wrong implementation, the hint its author deserves and the check that must catch it."""

    candidate: Candidate
    hint: str
    caught_by: str | None

    @property
    def name(self) -> str:
        """The misconception's name: the name of the function or class."""
        return self.candidate.__name__


@dataclass(frozen=True, slots=True)
class Right:
    """A correct but unusual implementation: the grader must accept it."""

    candidate: Candidate
    title: str


@dataclass(frozen=True, slots=True)
class Growth:
    """How readings may grow when one size doubles: reading name -> exponent."""

    axis: str
    make: Callable[[Draw, int], Case]
    sizes: tuple[int, int]
    limits: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Speed:
    """How long a call may take, as a multiple of the reference solution's time measured side by side."""

    at_most: float
    make: Callable[[Draw, int], Case]
    size: int
    cuda: int


CaseMaker = Callable[[Draw], Iterator[Case]]


@dataclass(slots=True, eq=False)
class Exercise:
    """What the learner implements, with everything needed to judge it.

    Args:
        solution: the reference function or class; its docstring is the contract learners read.
        points: 5 easy, 8 medium, 12 hard.
        extra: a voluntary exercise.
        gradients: names of arguments whose gradients are compared; `"parameters"` stands for all of a module's.
        mutates: names of arguments that the contract changes in place; their values afterwards are compared.
        attributes: names of attributes that a module sets in forward; they are compared as results.
        may_alias: the result may share memory with an input ("may be a view").
        autograd: the function may run backward passes itself (training loops).
        cost: limits for the measured case(s).
        forbid: torch names that may not be called, in any spelling; `*` is a wildcard: `("softmax", "conv*")`.
        uses: ids of earlier exercises that this one may call; the reference provides them when grading.
        hints: three hints, from a nudge to nearly the answer.
        source: where the topic stands in the book.
        seconds: CPU time one candidate may take for one case.
        id: the exercise's name; by default that of the function, or of the file for a class.
    """

    solution: Candidate
    points: int
    extra: bool = False
    gradients: tuple[str, ...] = ()
    mutates: tuple[str, ...] = ()
    attributes: tuple[str, ...] = ()
    may_alias: bool = False
    autograd: bool = False
    cost: Cost = field(default_factory=Cost)
    forbid: tuple[str, ...] = ()
    uses: tuple[str, ...] = ()
    hints: tuple[str, ...] = ()
    source: str = ""
    seconds: float = 4.0
    id: str = ""
    truth_candidate: Candidate | None = field(default=None, init=False)
    case_maker: CaseMaker | None = field(default=None, init=False)
    default_probe: Callable[..., Any] | None = field(default=None, init=False)
    wrongs: list[Wrong] = field(default_factory=list, init=False)
    rights: list[Right] = field(default_factory=list, init=False)
    growths: list[Growth] = field(default_factory=list, init=False)
    timed: Speed | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        if not self.id:
            is_class = inspect.isclass(self.solution)
            self.id = self.solution.__module__.rpartition(".")[2] if is_class else self.solution.__name__
        for word in ("gradients", "mutates", "attributes", "forbid", "uses", "hints"):
            must_be_texts(getattr(self, word), f"{self.id}: {word}")
        if self.points not in LEVELS:
            raise ValueError(f"{self.id}: points must be one of {sorted(LEVELS)}, got {self.points}")

    @property
    def name(self) -> str:
        """The name the learner defines: the function's or the class's."""
        return self.solution.__name__

    @property
    def is_module(self) -> bool:
        """Whether the learner writes an `nn.Module`."""
        return inspect.isclass(self.solution) and issubclass(self.solution, nn.Module)

    def truth(self, candidate: Candidate) -> Candidate:
        """Declare the independent truth: same signature as the solution, run in float64.

        For a module it is a class with the same constructor and the same state dict keys.
        """
        self.truth_candidate = candidate
        return candidate

    def cases(self, maker: CaseMaker) -> CaseMaker:
        """Declare the generator of cases; it receives a `Draw`."""
        self.case_maker = maker
        return maker

    def probe(self, driver: Callable[..., Any]) -> Callable[..., Any]:
        """Declare the default driver: `driver(candidate, *args, **kwargs)` returns named plain data.

        Its source alone is sent to the worker: it may use torch, nn, F, Tensor, math, itertools and what it
        imports itself, nothing else of its file. A module with `init` arrives built and loaded, any other
        class as it is.
        """
        self.default_probe = driver
        return driver

    def wrong(self, hint: str, *, caught_by: str | None = None) -> Callable[[Candidate], Candidate]:
        """Declare a wrong answer with its hint, and the check that must catch it where it is not the values."""
        must_be_text(hint, f"{self.id}: @exercise.wrong")

        def declare(candidate: Candidate) -> Candidate:
            self.wrongs.append(Wrong(candidate, hint, caught_by))
            return candidate

        return declare

    def right(self, title: str) -> Callable[[Candidate], Candidate]:
        """Declare a correct but unusual answer."""
        must_be_text(title, f"{self.id}: @exercise.right")

        def declare(candidate: Candidate) -> Candidate:
            self.rights.append(Right(candidate, title))
            return candidate

        return declare

    def growth(
        self, axis: str, *, sizes: tuple[int, int] = (32, 64), **limits: float
    ) -> Callable[[Callable[[Draw, int], Case]], Callable[[Draw, int], Case]]:
        """Declare a case of growing size: `make(draw, size)`; `limits` are exponents by reading.

        `ops=0` says that the number of operations must not grow with `axis`, `peak=1` that memory grows linearly.
        Readings: ops, matmuls, maxel, peak, moved, saved, syncs, flops. Ops may exceed the exponent by 0.15,
        others by 0.25.
        """
        for reading in limits:
            if reading not in Cost.__slots__:
                known = ", ".join(Cost.__slots__)
                raise TypeError(f"{self.id}: growth({axis!r}): there is no reading {reading!r}; there are {known}")

        def declare(make: Callable[[Draw, int], Case]) -> Callable[[Draw, int], Case]:
            self.growths.append(Growth(axis, make, sizes, limits))
            return make

        return declare

    def speed(
        self, at_most: float, *, size: int, cuda: int | None = None
    ) -> Callable[[Callable[[Draw, int], Case]], Callable[[Draw, int], Case]]:
        """Declare the case on which time is measured: `make(draw, size)`, a new draw for every timed call.

        Args:
            at_most: time as a multiple of the solution's; at least 1.25 times what the slowest right answer takes.
            size: makes the solution take about 1 to 20 ms on a CPU.
            cuda: the size on a GPU, large enough to keep it busy; 4 times `size` by default.
        """

        def declare(make: Callable[[Draw, int], Case]) -> Callable[[Draw, int], Case]:
            self.timed = Speed(at_most, make, size, 4 * size if cuda is None else cuda)
            return make

        return declare


def must_be_text(words: object, where: str) -> None:
    """Refuse a decorator without its text, which would declare nothing."""
    if not isinstance(words, str):
        raise TypeError(f'{where}("...") is written with a text')
    if not words.strip():
        raise ValueError(f'{where}("...") has an empty text')


def must_be_texts(words: object, where: str) -> None:
    """Refuse anything but a tuple of texts, such as the text that stands there when the comma is forgotten."""
    if not isinstance(words, tuple) or not all(isinstance(word, str) for word in words):
        raise TypeError(f'{where} is a tuple of texts, also of a single one: ("...",); got {words!r}')
    if not all(word.strip() for word in words):
        raise ValueError(f"{where} has an empty text")
