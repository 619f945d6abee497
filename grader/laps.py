"""Timed blocks of calls in this process: a learner's kernel, or a sandboxed worker."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch

from grader.calls import Call, Observation
from grader.device import Device, device, perf_counter, process_time
from grader.observe import observed, prepared, quiet
from grader.plain import describe, detached, plain
from grader.speed import Times


@contextmanager
def one_thread() -> Iterator[None]:
    """Compute with one thread: more would wait for one another, and each second of waiting counts."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


class Laps:
    """Runs blocks of calls of one candidate; see `grader.speed.Runner`.

    Args:
        candidate: the function or class.
        place: the device to run on; by default what the calls say.
    """

    def __init__(self, candidate: Callable[..., Any], place: Device | None = None) -> None:
        self.candidate = candidate
        self.place = place
        self.waiting: list[Callable[[], Any]] = []
        self.results: list[Any] = []
        self.raised: Exception | SystemExit | None = None

    def prepare(self, calls: Sequence[Call]) -> None:
        """Build what the calls need and leave the device idle; an exception waits for `show`."""
        self.results, self.raised, self.waiting = [], None, []
        if self.place is None:
            self.place = device(calls[0].device)
        try:
            with quiet():
                self.waiting = [prepared(self.candidate, call) for call in calls]
        except (Exception, SystemExit) as error:
            self.raised = error
        gc.collect(0)
        self.place.settle()

    def go(self, seconds: float) -> Times:  # noqa: ARG002 - nothing can stop a call in its own process
        """Make the calls."""
        assert self.place is not None
        with quiet(), one_thread(), self.place.timed() as events:
            gc.disable()
            wall, busy = perf_counter(), process_time()
            try:
                for call in self.waiting:
                    self.results.append(plain(call()))  # what a result does when it is looked at belongs to it
            except (Exception, SystemExit) as error:
                self.raised = error
            finally:
                gc.enable()
            busy = process_time() - busy
            wall_here = perf_counter() - wall
        if not events:
            return Times(busy, wall_here)
        wall = perf_counter() - wall  # leaving `timed` has waited for the device
        return Times(wall, wall, events[0], peak=self.place.peak())

    def show(self, index: int) -> Observation:
        """Return what one of the calls returned."""
        if self.raised is not None:
            return Observation(raised=describe(self.raised, "call"))
        with quiet():
            return Observation(outputs=detached(self.results[index]))

    def watch(self, call: Call) -> Observation:
        """Make one call that is watched and not timed."""
        return observed(self.candidate, call)
