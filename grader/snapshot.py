"""Inputs, modules and process-wide settings before a call, to be compared afterwards."""

from __future__ import annotations

import contextlib
import inspect
import random
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from grader.ops import has_storage
from grader.trees import leaves
from grader.untouched import clone, contiguous, detach, storage_of

STATE = "module"
"""Prefix of the paths of a module's own tensors."""


class Snapshot:
    """The inputs (and the module) before a call, to be compared afterwards."""

    def __init__(self, inputs: dict[str, Any], module: nn.Module | None, mutates: tuple[str, ...]) -> None:
        self.inputs, self.module, self.mutates = inputs, module, mutates
        self.tensors = {
            path: (leaf, clone(detach(leaf)), leaf._version, leaf.requires_grad, leaf.grad)
            for path, leaf in self.paths()
            if isinstance(leaf, Tensor)
        }
        self.plain = [(path, leaf) for path, leaf in self.paths() if not isinstance(leaf, Tensor)]
        self.flags = module_flags(self.module)
        held = [
            (path, storage_of(leaf))
            for path, leaf in self.paths()
            if isinstance(leaf, Tensor) and has_storage(leaf) and leaf.numel()
        ]
        self.storages = {storage._cdata: path for path, storage in held}
        self.held = held  # a storage that `x.data = ...` lets go would make room for another one at its address

    def paths(self) -> list[tuple[str, Any]]:
        """Return every input leaf, and every parameter of the module, with its path."""
        found = [item for name, value in self.inputs.items() for item in leaves(value, name)]
        if self.module is not None:
            found += [(f"{STATE}.{key}", p) for key, p in self.module.named_parameters()]
        return found

    def changes(self) -> list[tuple[str, str]]:
        """Return what is no longer as it was though it should be, as (kind, path)."""
        allowed = self.mutates
        found: list[tuple[str, str]] = []
        now = dict(self.paths())
        for path, (leaf, copy, version, needs_grad, grad) in self.tensors.items():
            if path.split("[")[0] in allowed:
                continue
            if now.get(path) is not leaf:
                found.append(("replaced", path))
            elif leaf._version != version or not same_bytes(leaf, copy):
                found.append(("values", path))
            elif leaf.requires_grad != needs_grad:
                found.append(("requires_grad", path))
            elif leaf.grad is not grad:
                found.append(("grad", path))
        for path, leaf in self.plain:
            if path.split("[")[0] not in allowed and now.get(path) is not leaf and now.get(path) != leaf:
                found.append(("replaced", path))
        if len(now) != len(self.tensors) + len(self.plain):
            found.append(("size", ""))
        if module_flags(self.module) != self.flags:
            found.append(("flags", STATE))
        return found

    def aliases(self, results: list[tuple[str, Tensor]]) -> Iterator[tuple[str, str]]:
        """Yield results that share memory with an input, as (path, input)."""
        own = {id(leaf): path for path, (leaf, *_) in self.tensors.items()}
        for path, leaf in results:
            shared = own.get(id(leaf))
            if shared is None and has_storage(leaf) and leaf.numel():
                shared = self.storages.get(storage_of(leaf)._cdata)
            if shared is not None:
                yield path, shared


def same_bytes(a: Tensor, b: Tensor) -> bool:
    """Whether two tensors hold the same bits, nan included."""
    return a.shape == b.shape and a.dtype == b.dtype and bool(torch.equal(bits(a), bits(b)))


def bits(tensor: Tensor) -> Tensor:
    """View a tensor's content as integers, so that nan equals nan."""
    kinds = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
    flat = contiguous(detach(tensor))
    return flat.view(kinds[flat.itemsize]) if flat.itemsize in kinds else torch.view_as_real(flat)


def module_flags(module: nn.Module | None) -> list[tuple[bool, int]]:
    """Return training flags and numbers of hooks of a module and its parts."""
    if module is None:
        return []
    return [
        (m.training, len(m._forward_hooks) + len(m._forward_pre_hooks) + len(m._backward_hooks))
        for m in module.modules()
    ]


def reachable_tensors(candidate: Callable[..., Any]) -> list[Tensor]:
    """Return tensors that exist before the call and that the candidate can reach through globals and closures."""
    scopes: list[Any] = [own_globals(candidate), getattr(candidate, "__defaults__", None) or ()]
    for cell in getattr(candidate, "__closure__", None) or ():
        with contextlib.suppress(ValueError):  # an empty cell
            scopes.append([cell.cell_contents])
    if inspect.isclass(candidate):
        forward = inspect.getattr_static(candidate, "forward", None)
        scopes += [vars(candidate).values(), own_globals(forward)]
    return [t for scope in scopes for item in scope for t in shallow_tensors(item)]


def own_globals(function: Any) -> list[Any]:
    """Return the values of a function's globals, without Python's own."""
    return [v for k, v in getattr(function, "__globals__", {}).items() if k != "__builtins__"]


def shallow_tensors(value: Any) -> list[Tensor]:
    """Return a tensor, or the tensors in a list, tuple, dict or module."""
    if isinstance(value, Tensor):
        return [value]
    if isinstance(value, nn.Module):
        return [*value.parameters(), *value.buffers()]
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, (list, tuple)):
        return [item for item in value[:1000] if isinstance(item, Tensor)]
    return []


def global_state() -> dict[str, Any]:
    """Return the process-wide settings that a call must leave alone."""
    return {
        "rng": torch.get_rng_state(),
        "random": random.getstate(),
        "default dtype": torch.get_default_dtype(),
        "grad mode": torch.is_grad_enabled(),
        "threads": torch.get_num_threads(),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
    }


def changed_globals(before: dict[str, Any], *, draws: bool) -> list[tuple[str, str]]:
    """Name the process-wide settings that differ from `before`."""
    now = global_state()
    changed = [k for k in before if k != "rng" and before[k] != now[k]]
    if not draws and not torch.equal(before["rng"], now["rng"]):
        changed.append("rng")
    return [("global", name) for name in changed]


@contextlib.contextmanager
def kept_globals() -> Iterator[None]:
    """Run with one thread, and put process-wide settings back to what they were.

    Exercises are small: more threads than one would only wait for one another.
    """
    state = global_state()
    if state["threads"] != 1:
        torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_rng_state(state["rng"])
        random.setstate(state["random"])
        torch.set_default_dtype(state["default dtype"])
        torch.set_grad_enabled(state["grad mode"])
        if torch.get_num_threads() != state["threads"]:
            torch.set_num_threads(state["threads"])
        if torch.are_deterministic_algorithms_enabled() != state["deterministic"]:  # setting it imports torch._dynamo
            torch.use_deterministic_algorithms(state["deterministic"])
