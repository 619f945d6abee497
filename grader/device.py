"""Where calls run and what measures them there: the CPU, or a CUDA device with events and synchronisation."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol

import torch
from torch import Tensor

from grader.trees import mapped
from grader.verdict import N_

CPU, CUDA, AUTO = "cpu", "cuda", "auto"
DEVICES = (CPU, CUDA, AUTO)
VARIABLE = "GRADER_DEVICE"
NO_GPU = N_("not gradable here: there is no CUDA device")
FLUSHED = 256 << 20
"""Bytes written before each timed block on a GPU: more than its cache holds."""

process_time = time.process_time
perf_counter = time.perf_counter
"""Bound before any learner code is loaded: replacing them in `time` changes nothing here."""


class Device(Protocol):
    """Moves inputs, waits for work and measures it. `place` is what torch calls it."""

    name: str
    place: str

    def move(self, value: Any) -> Any:
        """Return plain data with its tensors on the device, copied."""
        ...

    def settle(self) -> None:
        """Finish all work and forget what caches hold."""
        ...

    def timed(self) -> Any:
        """Return a context manager that yields a list: the device's own seconds are in it afterwards, if it has any."""
        ...

    def peak(self) -> int:
        """Return the bytes that were allocated at a time since `settle`, 0 if that is not known."""
        ...


class Cpu:
    """The processor: its clocks are the process's own."""

    name = place = CPU

    def move(self, value: Any) -> Any:
        """Leave the value where it is."""
        return value

    def settle(self) -> None:
        """Nothing is pending on a CPU."""

    @contextmanager
    def timed(self) -> Iterator[list[float]]:
        """Measure nothing besides the process's clocks."""
        yield []

    def peak(self) -> int:
        """Not known here: the cost meter counts it."""
        return 0


class Cuda:
    """A CUDA device: every stream is waited for before and after, and the cache is cold.

    Args:
        cuda: the module that drives it, `torch.cuda` by default.
        place: the name of the device that tensors are moved to.
    """

    name = CUDA

    def __init__(self, cuda: Any = torch.cuda, place: str = CUDA) -> None:
        self.cuda, self.place = cuda, place
        self.filler: Tensor | None = None
        torch.backends.cudnn.allow_tf32 = False  # convolutions in TF32 would miss every float32 tolerance

    def move(self, value: Any) -> Any:
        """Copy the tensors to the device; generators stay on the CPU, where the contracts want their draws."""

        def moved(leaf: Any) -> Any:
            if not isinstance(leaf, Tensor):
                return leaf
            return leaf.detach().to(self.place).requires_grad_(leaf.requires_grad)

        return mapped(value, moved)

    def settle(self) -> None:
        """Wait for every stream, overwrite the cache and start counting memory anew."""
        if self.filler is None:
            self.filler = torch.empty(FLUSHED, dtype=torch.uint8, device=self.place)
        self.filler.zero_()
        self.cuda.synchronize()
        self.cuda.reset_peak_memory_stats()

    @contextmanager
    def timed(self) -> Iterator[list[float]]:
        """Yield a list that receives the seconds between two events; all streams are done on leaving."""
        start, end = self.cuda.Event(enable_timing=True), self.cuda.Event(enable_timing=True)
        seconds: list[float] = []
        start.record()
        try:
            yield seconds
        finally:
            end.record()
            self.cuda.synchronize()
        seconds.append(start.elapsed_time(end) / 1e3)

    def peak(self) -> int:
        """Return the bytes allocated at a time, the flushing buffer left out."""
        return max(int(self.cuda.max_memory_allocated()) - FLUSHED, 0)


def device(name: str) -> Device:
    """Return a device by name.

    Raises:
        ValueError: there is no such device here.
    """
    if name == CPU:
        return Cpu()
    if name == CUDA and torch.cuda.is_available():
        return Cuda()
    raise ValueError(f"there is no device {name!r} here")


def missing(name: str) -> str:
    """Say why a device cannot be had; nothing if it can."""
    return NO_GPU if name == CUDA and not torch.cuda.is_available() else ""


def resolve(name: str | None = None) -> str:
    """Turn `auto` into the device that is there.

    Args:
        name: cpu, cuda or auto; by default what the environment variable GRADER_DEVICE says, or else cpu.

    Raises:
        ValueError: the name is unknown.
    """
    name = name or os.environ.get(VARIABLE) or CPU
    if name not in DEVICES:
        raise ValueError(f"no such device: {name!r}; there are {', '.join(DEVICES)}")
    if name == AUTO:
        return CUDA if torch.cuda.is_available() else CPU
    return name
