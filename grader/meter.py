"""What a call costs and which torch functions it uses, seen by torch's dispatcher and function overrides."""

from __future__ import annotations

import sys
import weakref
from collections import Counter
from collections.abc import Callable, Iterable
from functools import lru_cache
from types import FrameType, TracebackType
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from grader.names import expand, matches
from grader.ops import (
    FUNCTION_SYNCS,
    MATMULS,
    SYNCS,
    Facts,
    elements,
    existing_bytes,
    has_storage,
    is_mask_index,
    op_facts,
    result_elements,
    tensors_in,
)
from grader.reading import Reading, Use
from grader.untouched import storage_of

LEARNER_FILE = "<cell "
"""File names of learner code start so: `<cell 3>`."""

DETOURS = frozenset(("numpy", "__array__", "from_numpy", "data_ptr"))
ENDLESS = 2_000_000
MOST_ROWS = 5_000
"""A breakdown of more rows than this goes on in powers of two."""
FEW_NUMBERS = 64
"""As many numbers may enter a result through `torch.tensor([...])`; more were computed outside of torch."""
FEW_LIFTS = 8
"""So many tensors made of Python numbers are constants; each one more counts as an operation."""


@lru_cache(maxsize=256)
def known_good(patterns: tuple[str, ...]) -> set[str]:  # noqa: ARG001 - the cache's key
    """Return the set in which names that these patterns do not forbid are remembered."""
    return set()


class TooManyOpsError(RuntimeError):
    """The call was stopped: it had dispatched more operations than any exercise needs."""


def is_learner_file(name: str) -> bool:
    """Whether a file name stands for learner code: a submission's cell or a live notebook's."""
    return name.startswith((LEARNER_FILE, "<ipython-input")) or "ipykernel_" in name


def learner_line() -> tuple[str, int]:
    """Return the cell and line of the innermost learner frame on the stack."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        if is_learner_file(frame.f_code.co_filename):
            return frame.f_code.co_filename, frame.f_lineno
        frame = frame.f_back
    return "", 0


class Meter:
    """Measures what runs inside `with meter:`; may be entered several times.

    Args:
        forbid: words that may not be called; see `grader.names`.
        autograd: backward passes inside the call are allowed.
        saved: count the bytes saved for the backward pass too.
        detail: break the work down by operation too.
        costs: read more than the number of operations; that takes most of the meter's time.
        origins: follow where tensors come from, for `orphan`.
        known: tensors that the call is given (inputs, parameters): they are no orphans, and cost nothing.
        reachable: what else exists before the call (globals): no orphans either, but what is written to them counts.
    """

    def __init__(
        self,
        forbid: tuple[str, ...] = (),
        *,
        autograd: bool = False,
        saved: bool = False,
        detail: bool = False,
        costs: bool = True,
        origins: bool = True,
        known: Iterable[Tensor] = (),
        reachable: Iterable[Tensor] = (),
    ) -> None:
        self.patterns = expand(forbid)
        self.allowed = known_good(self.patterns)
        self.costs, self.origins = costs, origins or costs
        self.autograd = autograd
        self.uses: dict[str, Use] = {}
        self.kinds: Counter[str] = Counter()
        self.totals: Counter[str] = Counter()
        self.ops = 0
        self.detail: Counter[tuple[str, int, int]] | None = Counter() if detail else None
        self.live: dict[int, weakref.ref[Any]] = {}
        self.foreign: set[int] = set()
        self.alive = self.peak = self.maxel = 0
        self.sizes = {storage_of(t)._cdata: storage_of(t).nbytes() for t in known if has_storage(t)}
        self.known = {*self.sizes, *(storage_of(t)._cdata for t in reachable if has_storage(t))}
        self.lifts = 0
        self._saved: dict[int, int] = {}
        self._count_saved = saved
        self._modes: list[Any] = []

    @property
    def running(self) -> bool:
        """Whether the meter is on."""
        return bool(self._modes)

    def __enter__(self) -> Self:
        self._modes = [_Functions(self), _Dispatch(self)]
        if self._count_saved:  # only then: the hooks switch off torch's check for inputs changed after they were saved
            self._modes.append(saved_tensors_hooks(self._save, lambda tensor: tensor))
        for mode in self._modes:
            mode.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for mode in reversed(self._modes):
            mode.__exit__(kind, error, trace)
        self._modes = []

    def use(self, name: str) -> None:
        """Note a forbidden name with the learner's line."""
        if name not in self.uses:
            self.uses[name] = Use(name, *learner_line())

    def check_name(self, name: str) -> None:
        """Note `name` if it is forbidden, and remember it if it is not."""
        if matches(name, self.patterns) or name in DETOURS:
            self.use(name)
        else:
            self.allowed.add(name)

    def made(self, tensor: Tensor, *, lifted: bool = False) -> None:
        """Note the storage of a tensor that an op returned; a lifted one came from Python numbers or NumPy."""
        storage = storage_of(tensor)
        key = storage._cdata
        there = self.live.get(key)
        if key not in self.known and (there is None or there() is not storage):
            if lifted and tensor.numel() > FEW_NUMBERS:
                self.foreign.add(key)
            else:
                self.foreign.discard(key)
            self.sizes[key] = 0
            self.live[key] = weakref.ref(storage, lambda _: self._died(key)) if self.costs else weakref.ref(storage)
        size = storage.nbytes()
        if self.costs and size > self.sizes.get(key, 0):  # `out=` and `resize_` make it larger
            self.alive += size - self.sizes.get(key, 0)
            self.sizes[key] = size
            self.peak = max(self.peak, self.alive)
            self.maxel = max(self.maxel, elements(tensor))

    def _died(self, key: int) -> None:
        if self.live.pop(key, None) is not None:
            self.alive -= self.sizes.pop(key, 0)

    def _save(self, tensor: Tensor) -> Tensor:
        storage = storage_of(tensor)
        if storage._cdata not in self.known:
            self._saved[storage._cdata] = storage.nbytes()
        return tensor

    def orphan(self, tensor: Tensor) -> bool:
        """Whether a tensor's memory was made by nothing that torch's dispatcher saw."""
        if not has_storage(tensor) or tensor.numel() == 0:
            return False
        storage = storage_of(tensor)
        key = storage._cdata
        maker = self.live.get(key)
        return key not in self.known and (maker is None or maker() is not storage or key in self.foreign)

    def note(self, name: str, moved: int, flops: int) -> None:
        """Add one operation to the breakdown."""
        if self.detail is None:
            return
        row = (name, moved, flops)
        if row not in self.detail and len(self.detail) >= MOST_ROWS:
            row = (name, 1 << moved.bit_length(), 1 << flops.bit_length())
        self.detail[row] += 1

    def reading(self) -> Reading:
        """Return what has been measured so far."""
        return Reading(
            **{name: self.totals[name] for name in ("matmuls", "moved", "syncs", "flops")},
            ops=self.ops,
            maxel=self.maxel,
            peak=self.peak,
            saved=sum(self._saved.values()),
            kinds=dict(self.kinds),
            detail=tuple((*row, many) for row, many in (self.detail or {}).items()),
        )


class _Dispatch(TorchDispatchMode):
    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """Stay out of torch._dynamo, whose import would cost the first check two seconds."""
        return False

    def __init__(self, meter: Meter) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.meter = meter

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        meter = self.meter
        for kind in types:
            if kind is not Tensor and kind is not nn.Parameter:  # its own handler would run unseen
                meter.use(f"{kind.__name__}, a subclass of Tensor")
        facts = op_facts(func)
        name = facts.name
        if name not in meter.allowed:
            meter.check_name(name)
        if torch.is_inference_mode_enabled():  # there, what is composed of other operations comes whole
            with self:
                out = func.decompose(*args, **(kwargs or {}))
            if out is not NotImplemented:
                return out
        out = func(*args, **kwargs) if kwargs else func(*args)
        if not meter.autograd and torch._C._current_graph_task_id() != -1:
            meter.use("autograd")
        if facts.lifts:
            meter.lifts += 1
            meter.ops += meter.lifts > FEW_LIFTS
        elif facts.free:
            return out
        if meter.origins:
            for tensor in (out,) if type(out) is Tensor else tensors_in(out):
                if has_storage(tensor):
                    meter.made(tensor, lifted=facts.lifts)
        if not facts.free:
            meter.ops += 1
            if meter.ops > ENDLESS:
                raise TooManyOpsError(f"more than {ENDLESS} operations in one call")
            if meter.costs:
                self.count(facts, args, out)
        return out

    def count(self, facts: Facts, args: tuple[Any, ...], out: Any) -> None:
        meter, name = self.meter, facts.name
        totals = meter.totals
        meter.kinds[name] += 1
        totals["matmuls"] += name in MATMULS
        totals["syncs"] += name in SYNCS or is_mask_index(name, args)
        moved = sum(existing_bytes(t) for t in tensors_in((args, out)) if has_storage(t))
        flops = facts.flops(args, out) if facts.flops else result_elements(out)
        totals["moved"] += moved
        totals["flops"] += flops
        meter.note(name, moved, flops)


class _Functions(TorchFunctionMode):
    def __init__(self, meter: Meter) -> None:
        super().__init__()
        self.meter = meter

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        name = getattr(func, "__name__", "")
        meter = self.meter
        if name not in meter.allowed:
            meter.check_name(name)
        if name in FUNCTION_SYNCS:
            meter.totals["syncs"] += 1
        return func(*args, **kwargs) if kwargs else func(*args)
