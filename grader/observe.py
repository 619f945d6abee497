"""Run one candidate on one call and write down what happened: the only place in which learner code is called."""

from __future__ import annotations

import contextlib
import functools
import inspect
import io
import itertools
import math
import types
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from grader import untouched
from grader.calls import Call, Observation
from grader.device import device
from grader.meter import Meter
from grader.ops import has_storage
from grader.plain import describe, detached, digest, plain
from grader.snapshot import STATE, Snapshot, changed_globals, global_state, kept_globals, reachable_tensors
from grader.trees import fresh, leaves


def observe(candidate: Callable[..., Any], call: Call) -> Observation:
    """Make one call and report results, gradients, side effects, names used and costs."""
    with quiet(), kept_globals():
        return _Observer(candidate, call).run()


def observed(candidate: Callable[..., Any], call: Call) -> Observation:
    """Make one call; whatever is raised, the next one can be made."""
    try:
        return observe(candidate, call)
    except BaseException as error:
        return Observation(raised=describe(error, "call"))


def run_plainly(candidate: Callable[..., Any], call: Call) -> Any:
    """Make a call without watching it: the result as it is, exceptions as they come."""
    return prepared(candidate, call)()


def prepared(candidate: Callable[..., Any], call: Call) -> Callable[[], Any]:
    """Build the module and copy the inputs of a call, ready for gradients: only the call itself is left to make."""
    observer = _Observer(candidate, call)
    torch.default_generator.manual_seed(call.seed)
    subject = observer.build()
    observer.prepare_gradients()
    if call.probe is None:
        return functools.partial(subject, *observer.args, **observer.kwargs)
    return functools.partial(load_probe(call.probe), subject, *observer.args, **observer.kwargs)


class _Observer:
    def __init__(self, candidate: Callable[..., Any], call: Call) -> None:
        self.candidate, self.call = candidate, call
        self.device = device(call.device)
        args, kwargs = self.device.move(fresh((call.args, call.kwargs)))
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
            before = Snapshot(self.inputs, self.module, self.call.mutates)
            torch.default_generator.manual_seed(self.call.seed)
            globals_before = global_state()
            meter = Meter(
                self.call.forbid,
                autograd=self.call.autograd,
                saved=self.call.saved,
                detail=self.call.detail,
                costs=self.call.costs or self.call.detail,
                origins=self.call.probe is None,
                known=self.given_tensors() if self.call.watched else (),
                reachable=reachable_tensors(self.candidate) if self.call.watched else (),
            )
            result = self.make_call(subject, meter)
            for name in untouched.replaced():
                meter.use(f"{name}, replaced")
            outputs = detached(result)  # at once: what is asked next may run learner code again
            return self.report(result, outputs, meter, before, globals_before)
        except (Exception, SystemExit) as error:
            return Observation(raised=describe(error, self.stage))

    def build(self) -> Any:
        call = self.call
        if call.init is None:
            return self.candidate
        if isinstance(call.init, dict):
            made = self.candidate(**fresh(call.init))
        else:
            made = self.candidate(*fresh(call.init))
        if isinstance(made, nn.Module) and type(made).__call__ is not nn.Module.__call__:
            raise TypeError("a module defines forward, not __call__")
        if call.state is not None:
            self.stage = "state"
            self.module = made
            dtypes = {t.dtype for t in call.state.values() if t.is_floating_point()}
            if dtypes == {torch.float64}:
                made.double()
            made.load_state_dict(fresh(call.state), strict=True)
            made.to(self.device.place)
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

    def given_tensors(self) -> list[Tensor]:
        found = [leaf for _, leaf in leaves((self.args, self.kwargs)) if isinstance(leaf, Tensor)]
        if self.module is not None:
            found += [*self.module.parameters(), *self.module.buffers()]
            found += [v for m in self.module.modules() for v in vars(m).values() if isinstance(v, Tensor)]
        return found

    def make_call(self, subject: Any, meter: Meter) -> Any:
        driver = None if self.call.probe is None else load_probe(self.call.probe)
        if not self.call.watched:
            call = subject if driver is None else functools.partial(driver, subject)
            return plain(call(*self.args, **self.kwargs))
        if driver is None:
            with meter:
                return plain(subject(*self.args, **self.kwargs))
        if isinstance(subject, nn.Module):
            subject.forward = metered(subject.forward, meter)
            return plain(driver(subject, *self.args, **self.kwargs))
        if inspect.isclass(subject):
            with meter:
                return plain(driver(subject, *self.args, **self.kwargs))
        return plain(driver(metered(subject, meter), *self.args, **self.kwargs))

    def report(
        self, result: Any, copied: Any, meter: Meter, before: Snapshot, globals_before: dict[str, Any]
    ) -> Observation:
        call, reading = self.call, meter.reading()
        found = [(path, leaf) for path, leaf in leaves(result) if isinstance(leaf, Tensor)]
        with meter if call.watched else contextlib.nullcontext():  # an attribute may be a property
            after = self.after()
        uses = tuple(meter.uses.values())
        graphs = [path for path, leaf in found if leaf.requires_grad]
        graphs += [f"{k}" for k, v in after.items() if isinstance(v, Tensor) and v.requires_grad]
        orphans = () if call.probe or not call.watched else tuple(path for path, leaf in found if meter.orphan(leaf))
        changed = before.changes() + changed_globals(globals_before, draws=call.draws)
        aliases = tuple(before.aliases(found))
        outputs = {"result": result} | {k: v for k, v in after.items() if k in call.attributes}
        return Observation(
            outputs=copied,
            gradients=self.gradients_of(outputs),
            after=detached(after),
            changed=tuple(changed),
            aliases=aliases,
            graphs=tuple(graphs),
            uses=uses,
            orphans=orphans,
            elsewhere=tuple(path for path, leaf in found if leaf.device.type != self.device.place),
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
        return {key: detached(gradient) for key, gradient in zip(self.differentiate, found, strict=True)}


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Swallow what a candidate prints and warns."""
    sink = Sink()
    with warnings.catch_warnings(), contextlib.redirect_stdout(sink), contextlib.redirect_stderr(sink):
        warnings.simplefilter("ignore")
        yield


class Sink(io.TextIOBase):
    """Takes what is printed and keeps none of it."""

    def writable(self) -> bool:
        """Whether it takes text."""
        return True

    def write(self, text: str) -> int:
        """Take a text."""
        return len(text)


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
