"""What is written down about a call."""

import random
import resource
import weakref
from dataclasses import replace

import pytest
import torch
from torch import nn

from grader import wire
from grader.calls import Call, Observation, Raised
from grader.observe import observe
from grader.reading import Reading, Use
from grader.remote import MALFORMED
from grader.snapshot import Snapshot
from grader.trees import Opaque
from grader.wire import pack, unpack


def call(*args, **options):
    return Call("a case", args, tuple("xyz"[: len(args)]), **options)


def test_results_and_gradients():
    x = torch.randn(3, dtype=torch.float64)
    seen = observe(lambda x: {"double": 2 * x}, call(x, gradients=("x",)))
    assert torch.equal(seen.outputs["double"], 2 * x)
    weight = torch.randn(3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert torch.equal(seen.gradients["x"], 2 * weight)


@pytest.mark.parametrize("name", ["detach", "cpu", "__getattr__"])
def test_torch_is_not_what_it_was(name):
    """Replaced, a method could do the work when the grader calls it."""

    def patched(x):
        setattr(torch.Tensor, name, lambda self, *rest: torch.ones(3))
        return x * 2

    before = vars(torch.Tensor).get(name)
    try:
        seen = observe(patched, call(torch.zeros(3)))
    finally:
        delattr(torch.Tensor, name)
        if before is not None:
            setattr(torch.Tensor, name, before)
    assert [use.name for use in seen.uses] == [f"Tensor.{name}, replaced"]
    assert torch.equal(seen.outputs, torch.zeros(3))


def test_how_a_tensor_is_shown_is_nobodys_business(monkeypatch):
    monkeypatch.setattr(torch.Tensor, "__repr__", lambda self: "a tensor")
    assert torch.nn.Parameter.__annotations__ is not None  # asking makes it
    assert observe(lambda x: x * 2, call(torch.zeros(3))).uses == ()


def test_a_result_without_graph_has_no_gradient():
    assert observe(lambda x: x.detach() * 2, call(torch.randn(3), gradients=("x",))).gradients == {"x": None}


@pytest.mark.parametrize(
    ("function", "kind"),
    [
        (lambda x: x.add_(1), "values"),
        (lambda x: x.requires_grad_() * 2, "requires_grad"),
        (lambda x: x * 2, None),
    ],
)
def test_changed_inputs_are_named(function, kind):
    changed = observe(function, call(torch.randn(3))).changed
    assert changed == (() if kind is None else ((kind, "x"),))


def test_lists_that_gain_entries_are_named():
    assert ("size", "") in observe(lambda x: x.append(1), call([1, 2])).changed


def test_arguments_that_may_change_are_reported():
    seen = observe(lambda x: print(x.add_(1)), call(torch.zeros(2), mutates=("x",)))
    assert torch.equal(seen.after["x"], torch.ones(2))
    assert seen.changed == ()


@pytest.mark.parametrize(
    ("function", "name"),
    [
        (lambda x: torch.manual_seed(1), "rng"),
        (lambda x: torch.rand(2), "rng"),
        (lambda x: random.random(), "random"),
        (lambda x: torch.set_default_dtype(torch.float64), "default dtype"),
        (lambda x: torch.set_grad_enabled(mode=False) and None, "grad mode"),
    ],
)
def test_changed_global_settings_are_named_and_put_back(function, name):
    before = torch.get_rng_state(), random.getstate(), torch.get_default_dtype(), torch.is_grad_enabled()
    assert ("global", name) in observe(function, call(torch.zeros(1))).changed
    after = torch.get_rng_state(), random.getstate(), torch.get_default_dtype(), torch.is_grad_enabled()
    assert torch.equal(before[0], after[0])
    assert before[1:] == after[1:]


def test_draws_can_be_allowed():
    assert observe(lambda x: torch.rand(2), call(torch.zeros(1), draws=True)).changed == ()


@pytest.mark.parametrize("function", [lambda x: x, lambda x: x[1:], lambda x: [x.t()]])
def test_results_that_share_memory_are_named(function):
    assert observe(function, call(torch.randn(3, 2))).aliases[0][1] == "x"


def test_returning_an_empty_input_itself_is_sharing():
    assert observe(lambda x: x, call(torch.zeros(0, 3))).aliases


def test_exceptions_become_data():
    def bad(x):
        raise IndexError("no such place")

    raised = observe(bad, call(torch.zeros(1))).raised
    assert raised.types[:2] == ("IndexError", "LookupError")
    assert raised.text == "no such place"


def test_an_exception_whose_text_raises_is_survived():
    class AwfulError(Exception):
        def __str__(self):
            raise RuntimeError

    def bad(x):
        raise AwfulError

    assert observe(bad, call(torch.zeros(1))).raised.name == "AwfulError"


def test_exit_is_an_exception_like_others():
    def leave(x):
        raise SystemExit(0)

    assert observe(leave, call(torch.zeros(1))).raised.name == "SystemExit"


class Liar(torch.Tensor):
    @classmethod
    def __torch_function__(cls, func, types, args=(), kwargs=None):
        return True


def test_a_tensor_subclass_is_no_tensor():
    seen = observe(lambda x: x.as_subclass(Liar), call(torch.zeros(2)))
    assert seen.outputs == Opaque("Liar (a Tensor subclass)")


def test_tensors_without_end_are_no_result():
    many = observe(lambda x: {"a": [x] * 600, "b": (x,) * 600}, Call("many", (torch.ones(2),), ("x",)))
    assert many.outputs == Opaque("a dict of more than 1000 tensors")
    some = observe(lambda x: [x] * 1000, Call("some", (torch.ones(2),), ("x",)))
    assert len(some.outputs) == 1000


def test_generators_are_listed():
    seen = observe(lambda x: (n * x for n in range(3)), call(torch.ones(2)))
    assert [float(t[0]) for t in seen.outputs] == [0.0, 1.0, 2.0]


class Scale(nn.Module):
    def __init__(self, size):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))
        self.register_buffer("steps", torch.tensor(0))

    def forward(self, x):
        if self.training:
            self.steps += 1
        self.seen = x.detach() * 2
        return x * self.weight


STATE = {"weight": torch.tensor([2.0, 3.0]), "steps": torch.tensor(5)}


def test_modules_are_built_and_loaded():
    seen = observe(Scale, call(torch.ones(2), init=(2,), state=STATE, train=True, attributes=("seen",)))
    assert torch.equal(seen.outputs, torch.tensor([2.0, 3.0]))
    assert int(seen.after["module.steps"]) == 6
    assert torch.equal(seen.after["seen"], torch.full((2,), 2.0))


def test_parameters_have_gradients():
    x = torch.ones(2)
    seen = observe(Scale, call(x, init=(2,), state=STATE, gradients=("x", "parameters")))
    assert set(seen.gradients) == {"x", "module.weight"}


def test_a_state_that_does_not_fit_is_named():
    seen = observe(Scale, call(torch.ones(3), init=(3,), state=STATE))
    assert seen.raised.stage == "state"


PROBE = """
def twice(candidate, x):
    return {"first": candidate(x), "second": candidate(x + 1)}
"""


def test_a_probe_drives_the_candidate():
    seen = observe(lambda x: x * 2, call(torch.ones(1), probe=PROBE))
    assert [float(v) for v in seen.outputs.values()] == [2.0, 4.0]
    assert seen.reading.kinds == {"mul": 2}  # the probe's own addition is not counted


def test_an_observation_survives_the_wire():
    seen = observe(Scale, call(torch.ones(2), init=(2,), state=STATE, gradients=("x",)))
    found = Observation.from_data(unpack(pack(seen.to_data())))
    assert torch.equal(found.outputs, seen.outputs)
    assert found.reading == seen.reading
    assert found.changed == seen.changed


def test_nothing_is_printed(capfd):
    import warnings

    def noisy(x):
        print("hello")
        warnings.warn("careful", stacklevel=1)
        return x * 2

    observe(noisy, call(torch.ones(1)))
    assert capfd.readouterr() == ("", "")


def test_every_field_of_an_observation_survives_the_wire():
    seen = Observation(
        outputs=0,
        raised=Raised(("ValueError", "Exception"), "no", "call", (("<cell 1>", 2, "f"),)),
        gradients={"x": torch.ones(2), "y": None},
        after={"z": 1.5},
        changed=(("values", "x"),),
        aliases=(("result", "x"),),
        uses=(Use("softmax", "<cell 1>", 3),),
        reading=Reading(ops=3),
        generators=("ab",),
    )
    again = Observation.from_data(wire.unpack(wire.pack(seen.to_data())))
    assert torch.equal(again.gradients["x"], seen.gradients["x"])
    assert replace(again, gradients={}) == replace(seen, gradients={})
    usual = Observation.from_data(wire.unpack(wire.pack(Observation(outputs=[]).to_data())))
    assert usual == Observation(outputs=[])


@pytest.mark.parametrize(
    "forged",
    [
        {"gradients": {"x": 3.0}},
        {"gradients": [1]},
        {"after": "x"},
        {"changed": ("x",)},
        {"changed": 3},
        {"aliases": (1, 2)},
        {"graphs": 1},
        {"uses": (("softmax",),)},
        {"raised": {"types": 3, "text": "x"}},
        {"raised": {"types": ("E",), "text": "x", "trace": (1,)}},
        {"raised": "E"},
        {"reading": None},
        {"unknown": 1},
    ],
    ids=str,
)
def test_a_malformed_observation_is_refused(forged):
    with pytest.raises(MALFORMED):
        Observation.from_data({"reading": {}} | forged)


def test_a_worker_cannot_claim_to_have_crashed():
    assert Observation.from_data({"crash": "timeout", "reading": {}}).crash is None


class Hooked(nn.Module):
    """Works only when the grader looks at it."""

    def forward(self, x):
        self.kept = torch.empty_like(x) + 0, x
        return self.kept[0]

    def named_parameters(self, *args, **kwargs):
        if hasattr(self, "kept"):
            out, x = self.kept
            out.copy_(x.softmax(-1))
        return super().named_parameters(*args, **kwargs)


def test_what_is_computed_when_the_grader_looks_comes_too_late():
    x = torch.rand(2, 3)
    seen = observe(Hooked, Call("a", (x,), ("x",), init=(), state={}, forbid=("softmax",)))
    assert not torch.allclose(seen.outputs, x.softmax(-1))


class Late(nn.Module):
    """Calls what is forbidden in a property."""

    def forward(self, x):
        self.x = x.clone()
        return x.clone()

    @property
    def weights(self):
        return self.x.softmax(-1)


def test_attributes_are_read_under_the_meter():
    call = Call("a", (torch.rand(2, 3),), ("x",), init=(), state={}, forbid=("softmax",), attributes=("weights",))
    assert [use.name for use in observe(Late, call).uses]


def test_a_tensor_with_methods_of_its_own_is_no_tensor():
    def lying(x):
        out = x * 0
        out.detach = lambda: x
        return out

    assert "attributes of its own" in observe(lying, Call("a", (torch.rand(2),), ("x",))).outputs.kind


def test_a_tensor_may_carry_a_note():
    def noting(x):
        out = x * 2
        out.note = "mine"
        return out

    assert torch.is_tensor(observe(noting, Call("a", (torch.rand(2),), ("x",))).outputs)


def test_a_module_may_not_replace_how_it_is_called():
    class Called(nn.Module):
        def __call__(self, x):
            return x.softmax(-1)

    seen = observe(Called, Call("a", (torch.rand(2, 3),), ("x",), init=(), state={}))
    assert seen.raised is not None
    assert "forward" in seen.raised.text


def test_a_subclass_of_tensor_inside_is_seen():
    class Sneaky(torch.Tensor):
        @classmethod
        def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
            return Sneaky.result() if "exp" in str(func) else func(*args, **(kwargs or {}))

    def hidden(x):
        Sneaky.result = lambda: x.softmax(-1)
        return torch.exp(x.clone().as_subclass(Sneaky)) * 1

    seen = observe(hidden, Call("a", (torch.rand(2, 3),), ("x",), forbid=("softmax",)))
    assert any("subclass" in use.name for use in seen.uses)


def test_printing_for_ever_takes_no_memory():
    def chatty(x):
        for _ in range(50):
            print("x" * 10_000_000)
        return x.clone()

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert observe(chatty, Call("a", (torch.rand(2),), ("x",))).raised is None
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000  # KiB, of 500 MB printed


def test_an_int_of_thousands_of_digits_is_no_number_to_compare():
    assert "digits" in observe(lambda x: 10**5000, Call("a", (torch.rand(2),), ("x",))).outputs.kind


def test_memory_that_an_input_lets_go_is_held_so_that_no_result_can_take_its_place():
    running = torch.rand(300)
    memory = weakref.ref(running.untyped_storage())
    before = Snapshot({"running": running}, None, ("running",))
    running.data = running + 1
    assert memory() is not None
    assert list(before.aliases([("result", running.data)])) == []
