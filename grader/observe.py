"""Run one candidate on one call and write down what happened: the only place in which learner code is called."""

from __future__ import annotations

import contextlib
import hashlib
import inspect
import io
import itertools
import math
import random
import traceback
import types
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from grader.calls import Call, Observation, Raised
from grader.meter import Meter, has_storage, is_learner_file
from grader.wire import MAX_DEPTH, Opaque, fresh, leaves

MAX_ITEMS = 10_000
STATE = "module"
"""Prefix of the paths of a module's own tensors."""


def observe(candidate: Callable[..., Any], call: Call) -> Observation:
    """Make one call and report results, gradients, side effects, names used and costs."""
    with quiet(), kept_globals():
        return _Observer(candidate, call).run()


def run_plainly(candidate: Callable[..., Any], call: Call) -> Any:
    """Make a call without watching it: the result as it is, exceptions as they come."""
    observer = _Observer(candidate, call)
    torch.default_generator.manual_seed(call.seed)
    subject = observer.build()
    if call.probe is None:
        return subject(*observer.args, **observer.kwargs)
    return load_probe(call.probe)(subject, *observer.args, **observer.kwargs)


class _Observer:
    def __init__(self, candidate: Callable[..., Any], call: Call) -> None:
        self.candidate, self.call = candidate, call
        args, kwargs = fresh((call.args, call.kwargs))
        self.args: tuple[Any, ...] = args
        self.kwargs: dict[str, Any] = kwargs
        self.inputs = dict(zip(call.names, args, strict=True)) | kwargs
        self.module: nn.Module | None = None
        self.stage = "call"
        self.differentiate: dict[str, Tensor] = {}

    def run(self) -> Observation:
        torch.default_generator.manual_seed(self.call.seed)
        try:
            self.stage = "constructor"
            subject = self.build()
            self.stage = "call"
            self.differentiate = self.prepare_gradients()
            before = Snapshot(self)
            torch.default_generator.manual_seed(self.call.seed)
            globals_before = global_state()
            meter = Meter(
                self.call.forbid, autograd=self.call.autograd, saved=self.call.saved, known=self.known_tensors()
            )
            result = self.make_call(subject, meter)
            return self.report(result, meter, before, globals_before)
        except Exception as error:
            return self.failed(error)
        except SystemExit as error:
            return self.failed(error)

    def failed(self, error: BaseException) -> Observation:
        return Observation(raised=describe(error, self.stage))

    def build(self) -> Any:
        call = self.call
        if call.init is None:
            return self.candidate
        if isinstance(call.init, dict):
            made = self.candidate(**fresh(call.init))
        else:
            made = self.candidate(*fresh(call.init))
        if call.state is not None:
            self.stage = "state"
            self.module = made
            dtypes = {t.dtype for t in call.state.values() if t.is_floating_point()}
            if dtypes == {torch.float64}:
                made.double()
            made.load_state_dict(fresh(call.state), strict=True)
            made.train(call.train)
        return made

    def prepare_gradients(self) -> dict[str, Tensor]:
        wanted: dict[str, Tensor] = {}
        for name in self.call.gradients:
            if name == "parameters":
                if self.module is not None:
                    wanted |= {f"{STATE}.{key}": p for key, p in self.module.named_parameters()}
            elif name in self.inputs:
                for path, leaf in leaves(self.inputs[name], name):
                    if isinstance(leaf, Tensor) and leaf.is_floating_point():
                        wanted[path] = leaf.requires_grad_()
        return wanted

    def known_tensors(self) -> list[Tensor]:
        found = [leaf for _, leaf in leaves((self.args, self.kwargs)) if isinstance(leaf, Tensor)]
        if self.module is not None:
            found += [*self.module.parameters(), *self.module.buffers()]
            found += [v for m in self.module.modules() for v in vars(m).values() if isinstance(v, Tensor)]
        return found + reachable_tensors(self.candidate)

    def make_call(self, subject: Any, meter: Meter) -> Any:
        if self.call.probe is None:
            with meter:
                return plain(subject(*self.args, **self.kwargs))
        driver = load_probe(self.call.probe)
        if isinstance(subject, nn.Module):
            subject.forward = metered(subject.forward, meter)
            return plain(driver(subject, *self.args, **self.kwargs))
        if inspect.isclass(subject):
            with meter:
                return plain(driver(subject, *self.args, **self.kwargs))
        return plain(driver(metered(subject, meter), *self.args, **self.kwargs))

    def report(self, result: Any, meter: Meter, before: Snapshot, globals_before: dict[str, Any]) -> Observation:
        call = self.call
        uses, reading = tuple(meter.uses.values()), meter.reading()
        found = [(path, leaf) for path, leaf in leaves(result) if isinstance(leaf, Tensor)]
        after = self.after()
        graphs = [path for path, leaf in found if leaf.requires_grad]
        graphs += [f"{k}" for k, v in after.items() if isinstance(v, Tensor) and v.requires_grad]
        orphans = () if call.probe else tuple(path for path, leaf in found if meter.orphan(leaf))
        changed = before.changes(self) + changed_globals(globals_before, draws=call.draws)
        aliases = tuple(before.aliases(found))
        outputs = {"result": result} | {k: v for k, v in after.items() if k in call.attributes}
        return Observation(
            outputs=detached(result),
            gradients=self.gradients_of(outputs),
            after=detached(after),
            changed=tuple(changed),
            aliases=aliases,
            graphs=tuple(graphs),
            uses=uses,
            orphans=orphans,
            reading=reading,
            generators=tuple(digest(leaf) for _, leaf in leaves(self.inputs) if isinstance(leaf, torch.Generator)),
        )

    def after(self) -> dict[str, Any]:
        found = {name: plain(self.inputs[name]) for name in self.call.mutates if name in self.inputs}
        if self.module is not None:
            found |= {name: plain(getattr(self.module, name, None)) for name in self.call.attributes}
            found |= {
                f"{STATE}.{key}": plain(b) for key, b in self.module.named_buffers() if key in (self.call.state or {})
            }
        return found

    def gradients_of(self, outputs: Any) -> dict[str, Tensor | None]:
        if not self.differentiate:
            return {}
        source = torch.Generator().manual_seed(self.call.seed)
        terms = []
        for _, leaf in leaves(outputs):
            if isinstance(leaf, Tensor) and leaf.is_floating_point() and has_storage(leaf):
                weight = torch.randn(leaf.shape, generator=source, dtype=torch.float64).to(leaf.dtype)
                if leaf.requires_grad:
                    terms.append((leaf * weight).sum())
        if not terms:
            return dict.fromkeys(self.differentiate)
        self.stage = "backward"
        total = torch.stack([term.double() for term in terms]).sum()
        found = torch.autograd.grad(total, list(self.differentiate.values()), allow_unused=True)
        return {k: None if g is None else g.detach().clone() for k, g in zip(self.differentiate, found, strict=True)}


class Snapshot:
    """The inputs (and the module) before a call, to be compared afterwards."""

    def __init__(self, observer: _Observer) -> None:
        self.tensors = {
            path: (leaf, leaf.detach().clone(), leaf._version, leaf.requires_grad, leaf.grad)
            for path, leaf in self.paths(observer)
            if isinstance(leaf, Tensor)
        }
        self.plain = [(path, leaf) for path, leaf in self.paths(observer) if not isinstance(leaf, Tensor)]
        self.flags = module_flags(observer.module)
        self.storages = {
            leaf.untyped_storage()._cdata: path
            for path, leaf in self.paths(observer)
            if isinstance(leaf, Tensor) and has_storage(leaf) and leaf.numel()
        }

    @staticmethod
    def paths(observer: _Observer) -> list[tuple[str, Any]]:
        found = [item for name, value in observer.inputs.items() for item in leaves(value, name)]
        if observer.module is not None:
            found += [(f"{STATE}.{key}", p) for key, p in observer.module.named_parameters()]
        return found

    def changes(self, observer: _Observer) -> list[tuple[str, str]]:
        allowed = observer.call.mutates
        found: list[tuple[str, str]] = []
        now = dict(self.paths(observer))
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
        if module_flags(observer.module) != self.flags:
            found.append(("flags", STATE))
        return found

    def aliases(self, results: list[tuple[str, Tensor]]) -> Iterator[tuple[str, str]]:
        for path, leaf in results:
            if has_storage(leaf) and leaf.numel():
                shared = self.storages.get(leaf.untyped_storage()._cdata)
                if shared is not None:
                    yield path, shared


def same_bytes(a: Tensor, b: Tensor) -> bool:
    """Whether two tensors hold the same bits, nan included."""
    return a.shape == b.shape and a.dtype == b.dtype and bool(torch.equal(bits(a), bits(b)))


def bits(tensor: Tensor) -> Tensor:
    """View a tensor's content as integers, so that nan equals nan."""
    kinds = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
    flat = tensor.detach().contiguous()
    return flat.view(kinds[flat.itemsize]) if flat.itemsize in kinds else torch.view_as_real(flat)


def module_flags(module: nn.Module | None) -> list[tuple[bool, int]]:
    """Return training flags and numbers of hooks of a module and its parts."""
    if module is None:
        return []
    return [
        (m.training, len(m._forward_hooks) + len(m._forward_pre_hooks) + len(m._backward_hooks))
        for m in module.modules()
    ]


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
    """Put process-wide settings back to what they were."""
    state = global_state()
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


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Swallow what a candidate prints and warns."""
    sink = io.StringIO()
    with warnings.catch_warnings(), contextlib.redirect_stdout(sink), contextlib.redirect_stderr(sink):
        warnings.simplefilter("ignore")
        yield


def plain(value: Any, depth: int = 0) -> Any:
    """Turn a candidate's result into plain data; what is none becomes `Opaque`."""
    kind = type(value)
    if value is None or kind in (bool, int, float, str):
        return value
    if depth > MAX_DEPTH:
        return Opaque("a value nested too deeply")
    mro = kind.__mro__
    if Tensor in mro:
        return plain_tensor(value)
    if kind in (torch.dtype, torch.device):
        return value
    for base in (float, str):
        if base in mro:
            return base(value)
    if tuple in mro or list in mro:
        items = [plain(item, depth + 1) for item in itertools.islice(value, MAX_ITEMS)]
        return items if list in mro else tuple(items)
    if dict in mro:
        return {k if type(k) in (int, str, bool) else repr(k): plain(v, depth + 1) for k, v in value.items()}
    if hasattr(kind, "__next__"):
        return [plain(item, depth + 1) for item in itertools.islice(value, MAX_ITEMS)]
    return Opaque(f"{kind.__module__}.{kind.__qualname__}".removeprefix("builtins."))


def plain_tensor(value: Tensor) -> Tensor | Opaque:
    """Accept ordinary strided tensors, on any device but meta; name the others."""
    if type(value) not in (Tensor, nn.Parameter):
        return Opaque(f"{type(value).__name__} (a Tensor subclass)")
    if not has_storage(value):
        return Opaque(f"a {value.layout} tensor on {value.device}")
    return value


def detached(value: Any) -> Any:
    """Copy plain data without graphs; tensors become contiguous and move to the CPU."""
    if isinstance(value, Tensor):
        return value.detach().cpu().contiguous().clone()
    if isinstance(value, (list, tuple)):
        return type(value)(detached(item) for item in value)
    if isinstance(value, dict):
        return {key: detached(item) for key, item in value.items()}
    return value


def metered(function: Callable[..., Any], meter: Meter) -> Callable[..., Any]:
    """Wrap a function so that the meter runs inside it only."""

    def wrapper(*args: Any, **kwargs: Any) -> Any:
        if meter.running:
            return function(*args, **kwargs)
        with meter:
            result = function(*args, **kwargs)
        return metered_iterator(result, meter) if isinstance(result, types.GeneratorType) else result

    return wrapper


def metered_iterator(iterator: Iterator[Any], meter: Meter) -> Iterator[Any]:
    """Run each step of a generator under the meter."""
    while True:
        with meter:
            try:
                item = next(iterator)
            except StopIteration:
                return
        yield item


def load_probe(source: str) -> Callable[..., Any]:
    """Make a probe from its source: it may use torch, nn, F, Tensor, math and itertools."""
    scope: dict[str, Any] = {
        "torch": torch, "nn": nn, "F": nn.functional, "Tensor": Tensor, "math": math, "itertools": itertools,
    }  # fmt: skip
    known = set(scope)
    exec(compile(source, "<probe>", "exec"), scope)  # noqa: S102 - sources of the course's own probes
    made = [v for k, v in scope.items() if k not in known and inspect.isfunction(v)]
    return made[0]


def describe(error: BaseException, stage: str) -> Raised:
    """Turn an exception into data, with the learner's own lines only."""
    kinds = tuple(kind.__name__ for kind in type(error).__mro__ if kind not in (object, BaseException))
    frames = traceback.extract_tb(error.__traceback__)
    trace = tuple((f.filename, f.lineno or 0, f.name) for f in frames if is_learner_file(f.filename))
    try:
        text = str(error)[:600]
    except Exception:  # a learner's exception may have a __str__ that raises
        text = "(its text could not be read)"
    return Raised(kinds, text, stage, trace[-8:])


def digest(generator: torch.Generator) -> str:
    """Return a short digest of a generator's state."""
    return hashlib.sha256(generator.get_state().numpy().tobytes()).hexdigest()[:16]


def reachable_tensors(candidate: Callable[..., Any]) -> list[Tensor]:
    """Return tensors that exist before the call and that the candidate can reach through globals and closures."""
    scopes: list[Any] = [getattr(candidate, "__globals__", {}).values(), getattr(candidate, "__defaults__", None) or ()]
    for cell in getattr(candidate, "__closure__", None) or ():
        with contextlib.suppress(ValueError):  # an empty cell
            scopes.append([cell.cell_contents])
    if inspect.isclass(candidate):
        forward = inspect.getattr_static(candidate, "forward", None)
        scopes += [vars(candidate).values(), getattr(forward, "__globals__", {}).values()]
    return [t for scope in scopes for item in scope for t in shallow_tensors(item)]


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
