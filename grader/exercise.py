"""The declaring words: what one file in `reference/` says about one exercise."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from torch import nn

from grader.draw import Draw

Candidate = Callable[..., Any]
"""A function, an `nn.Module` class or another class: the solution, the truth, a wrong answer, the learner's own."""

LEVELS = {5: "easy", 8: "medium", 12: "hard", 20: "hard"}


Limit = int | Mapping[str, float] | None
"""A number, or multiples of named quantities that are added up."""


@dataclass(frozen=True, slots=True)
class Cost:
    """Limits on what one call may cost. Every field left at None is not limited.

    Any limit may be given as `{"reference": 1.5}`: a multiple of what the solution costs on the same call.

    Args:
        ops: dispatched ATen calls; views and metadata are free.
        matmuls: calls of the matmul family (mm, addmm, bmm, baddbmm, mv, dot).
        maxel: elements of the largest tensor made inside: a number, the name of an argument (its elements),
            `"result"` (elements of the largest tensor returned), or a tuple of these, of which the largest counts.
        peak: bytes of new memory alive at one time: a number of bytes, or multiples of the bytes of named
            arguments and of `"result"` that are added up, such as `{"X": 2, "result": 1}`.
        saved: bytes kept for the backward pass, in the same notation as `peak`.
        moved: bytes that operations read and write, in the same notation as `peak`.
        syncs: reads of device values by the host (`item()`, `tolist()`, `if tensor`, boolean-mask indexing ...).
        flops: floating-point operations: two per multiplication of a matrix product, convolution or attention, one per
            element of the result of whatever else is called.
    """

    ops: Limit = None
    matmuls: Limit = None
    maxel: Limit | str | tuple[int | str, ...] = None
    peak: Limit = None
    saved: Limit = None
    moved: Limit = None
    syncs: Limit = None
    flops: Limit = None

    def over(self, other: Cost) -> Cost:
        """Return these limits, filled up with those of `other` where nothing is said."""
        said = {name: getattr(self, name) for name in self.__slots__ if getattr(self, name) is not None}
        return replace(other, **said)


class Case:
    """One call: its inputs and a name a learner can read.

    Args:
        name: what the case is about, unique within the exercise: "large scores", "rows far apart".
        args: positional arguments of the call (plain data: tensors, numbers, strings, dtypes, generators, and
            lists, tuples and dicts of these). Functions and modules cannot be sent; build them in a probe.
        hidden: run at grading only and never shown.
        raises: the exception that the call must raise, by type.
        edge: an edge case: counts for the "edge cases and errors" share of the points.
        init: for a class: arguments of the constructor, a tuple or a dict.
        state: for a module: tensors to put into its state dict in place of those the engine draws (by key).
        train: for a module: train mode; the default is eval mode.
        probe: drive this case with this function in place of the exercise's probe or a plain call.
        grad: set False to skip the gradients on this case.
        double: set False where the call makes no sense in float64; then only the given dtype is run.
        draws: True where the call is meant to draw from torch's global generator.
        cost: True to measure the exercise's `Cost` on this case, or a `Cost` of its own (filled up with the
            exercise's). When no case says so, the first visible case with a value is measured.
        layouts: set False to keep the derived layouts (strided, expanded) away from this case.
        kwargs: keyword arguments of the call. The words above are taken.
    """

    __slots__ = (
        "args", "cost", "double", "draws", "edge", "grad", "hidden", "init", "kwargs", "layouts", "name", "probe",
        "raises", "state", "train",
    )  # fmt: skip

    def __init__(
        self,
        name: str,
        /,
        *args: Any,
        hidden: bool = False,
        raises: type[BaseException] | None = None,
        edge: bool = False,
        init: tuple[Any, ...] | dict[str, Any] | None = None,
        state: Mapping[str, Any] | None = None,
        train: bool = False,
        probe: Callable[..., Any] | None = None,
        grad: bool = True,
        double: bool = True,
        draws: bool = False,
        cost: bool | Cost = False,
        layouts: bool = True,
        **kwargs: Any,
    ) -> None:
        self.name, self.args, self.kwargs = name, args, kwargs
        self.hidden, self.raises, self.edge = hidden, raises, edge
        self.init, self.state, self.train, self.probe = init, state, train, probe
        self.grad, self.double, self.draws = grad, double, draws
        self.cost, self.layouts = cost, layouts

    def __repr__(self) -> str:
        return f"Case({self.name!r})"

    def said(self) -> set[str]:
        """Return the words, other than the call's own arguments, that this case gives another value than usual."""
        usual = Case(self.name)
        words = set(self.__slots__) - {"name", "args", "kwargs"}
        return {word for word in words if getattr(self, word) is not getattr(usual, word)}


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

        def declare(candidate: Candidate) -> Candidate:
            self.wrongs.append(Wrong(candidate, hint, caught_by))
            return candidate

        return declare

    def right(self, title: str) -> Callable[[Candidate], Candidate]:
        """Declare a correct but unusual answer."""

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
