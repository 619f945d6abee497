"""One call and what it may cost: the declaring words `Case` and `Cost`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

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
