"""What a call costs and what it calls."""

import subprocess
import sys

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from grader import meter as meter_module
from grader.budget import cost_findings, growth_findings
from grader.calls import Call, Observation
from grader.case import Case, Cost
from grader.meter import Meter
from grader.names import expand, matches
from grader.pack import Expected, Planned, PlannedGrowth
from grader.reading import Reading


def measure(function, *inputs, **options):
    meter = Meter(known=inputs, **options)
    with meter:
        result = function(*inputs)
    return meter, result


def test_views_are_free_and_operations_count():
    x = torch.randn(4, 6)
    meter, _ = measure(lambda x: (x.t().reshape(2, 12)[0] + 1).exp().expand(3, 12), x)
    assert meter.reading().kinds == {"clone": 1, "add": 1, "exp": 1}
    assert meter.reading().ops == 3


def test_peak_counts_what_is_alive_at_one_time():
    x = torch.randn(1000)

    def chain(x):
        for _ in range(10):
            x = x + 1
        return x

    def hoard(x):
        return [x + n for n in range(10)]

    assert measure(chain, x)[0].reading().peak == 2 * 4000
    assert measure(hoard, x)[0].reading().peak == 10 * 4000


def test_maxel_counts_elements_that_exist():
    x = torch.randn(7)
    assert measure(lambda x: x.expand(1000, 7).sum(), x)[0].reading().maxel == 1
    assert measure(lambda x: x.repeat(10, 1), x)[0].reading().maxel == 70


BUFFER = torch.zeros(1000)


@pytest.mark.parametrize(
    "function",
    [
        lambda x: torch.mul(x[:, None], torch.ones(1), out=torch.empty(0)),
        lambda x: torch.empty(0).resize_(1000).copy_(x),
        lambda x: torch.neg(x, out=BUFFER),
    ],
    ids=["out", "resize_", "global buffer"],
)
def test_memory_counts_however_it_comes_about(function):
    meter = Meter(known=(x := torch.randn(1000),), reachable=(BUFFER,))
    with meter:
        result = function(x)
        again = function(x)
    reading = meter.reading()
    assert reading.maxel == 1000
    assert 4000 <= reading.peak <= 8100
    assert not meter.orphan(result)
    assert again.numel() == 1000


def test_inputs_cost_nothing_but_what_they_grow_by():
    x = torch.randn(1000)
    assert measure(lambda x: x.add_(1), x)[0].reading().peak == 0
    assert measure(lambda x: x.resize_(1500), x)[0].reading().peak == 2000


def test_inference_mode_hides_nothing():
    def distance(x):
        with torch.inference_mode():
            return F.pairwise_distance(x, x + 1)

    meter, _ = measure(distance, torch.randn(3, 4), forbid=("norm",))
    assert list(meter.uses) == ["norm"]
    known = measure(lambda x: x @ x.T, x := torch.randn(3, 3))[0].reading()
    with torch.inference_mode():
        assert measure(lambda x: x @ x.T, x)[0].reading() == known


def test_a_result_put_together_from_many_pieces_costs_operations():
    def pieces(x):
        return torch.stack([torch.tensor([float(n)]) for n in range(len(x))])

    few, many = (measure(pieces, torch.randn(n))[0].reading().ops for n in (8, 40))
    assert (few, many) == (1, 33)


def test_matmuls_are_counted_in_every_spelling():
    a, b = torch.randn(2, 3, 4), torch.randn(2, 4, 5)
    assert measure(lambda a, b: a @ b, a, b)[0].reading().matmuls == 1
    assert measure(lambda a, b: torch.einsum("bij,bjk->bik", a, b), a, b)[0].reading().matmuls == 1
    assert measure(lambda a: F.linear(a, torch.ones(6, 4), torch.ones(6)), a)[0].reading().matmuls == 1


@pytest.mark.parametrize(
    "function",
    [
        lambda x: x.sum().item(),
        lambda x: float(x.sum()),
        lambda x: 1 if x.sum() > 0 else 0,
        lambda x: x.tolist(),
        lambda x: x[x > 0],
        lambda x: x.nonzero(),
        lambda x: torch.equal(x, x),
    ],
)
def test_reads_by_the_host_are_counted_once(function):
    assert measure(function, torch.randn(5))[0].reading().syncs == 1


def test_saved_bytes_are_those_kept_for_backward():
    x = torch.randn(1000, requires_grad=True)
    assert measure(lambda x: (x * 2).exp(), x, saved=True)[0].reading().saved == 4000
    assert measure(lambda x: x + 2, x, saved=True)[0].reading().saved == 0


SPELLINGS = [
    lambda x: torch.softmax(x, -1),
    lambda x: x.softmax(-1),
    lambda x: F.softmax(x, -1),
    lambda x: nn.Softmax(-1)(x),
    lambda x: torch.special.softmax(x, -1),
    lambda x: torch.ops.aten.softmax.int(x, -1),
    lambda x: torch.ops.aten._softmax(x, -1, False),
    lambda x: torch.nn.functional.gumbel_softmax(x),
    lambda x: F.softmin(-x, -1),
    lambda x: torch.distributions.Categorical(logits=x).probs,
    lambda x: F.scaled_dot_product_attention(x[None], x[None], torch.eye(x.shape[0])[None]),
]


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_a_forbidden_name_is_found_in_every_spelling(spelling):
    words = ("softmax", "log_softmax", "logsumexp", "gumbel_softmax", "softmin")
    assert measure(spelling, torch.randn(4, 4), forbid=words)[0].uses


def test_the_learners_own_function_may_carry_the_name():
    def softmax(x):
        return x.exp() / x.exp().sum(-1, keepdim=True)

    assert not measure(softmax, torch.randn(3), forbid=("softmax",))[0].uses


def test_a_backward_pass_inside_is_seen():
    x = torch.randn(3, requires_grad=True)

    def gradient(x):
        return torch.autograd.grad((x * x).sum(), x)[0]

    assert "autograd" in measure(gradient, x)[0].uses
    assert not measure(gradient, x, autograd=True)[0].uses


def test_memory_that_torch_did_not_make_is_an_orphan():
    import numpy as np

    x = torch.randn(3)
    meter, made = measure(lambda x: torch.from_numpy(np.ones(100)), x)
    assert meter.orphan(made)
    meter, made = measure(lambda x: torch.tensor([1.0, 2.0]) + x[0], x)
    assert not meter.orphan(made)
    meter, made = measure(lambda x: x[1:], x)
    assert not meter.orphan(made)


def test_numpy_is_a_detour():
    assert "numpy" in measure(lambda x: torch.tensor(x.numpy()), torch.randn(3))[0].uses


@pytest.mark.parametrize(
    ("name", "words", "found"),
    [
        ("aten::_softmax", ("softmax",), True),
        ("conv2d", ("conv*",), True),
        ("convolution", ("conv*",), True),
        ("native_layer_norm", ("layer_norm",), True),
        ("softplus", ("softmax",), False),
        ("exp_", ("exp",), True),
    ],
)
def test_names_match_whatever_the_spelling(name, words, found):
    assert matches(name, expand(words)) is found


def image(*shape):
    return torch.randn(*shape, requires_grad=True)


KNOWN_TO_TORCH = {
    "mm": (lambda a, b: a @ b, torch.randn(3, 4), torch.randn(4, 5)),
    "bmm": (torch.bmm, torch.randn(2, 3, 4), torch.randn(2, 4, 5)),
    "einsum": (lambda a, b: torch.einsum("bij,bjk->bik", a, b), torch.randn(2, 3, 4), torch.randn(2, 4, 5)),
    "addmm": (torch.addmm, torch.randn(5), torch.randn(3, 4), torch.randn(4, 5)),
    "baddbmm": (torch.baddbmm, torch.randn(2, 3, 5), torch.randn(2, 3, 4), torch.randn(2, 4, 5)),
    "linear": (F.linear, torch.randn(2, 3, 4), torch.randn(5, 4), torch.randn(5)),
    "convolution": (F.conv2d, torch.randn(2, 4, 7, 6), torch.randn(6, 2, 3, 2), None, 2, 1, 1, 2),
    "transposed": (F.conv_transpose2d, torch.randn(2, 4, 7, 6), torch.randn(4, 5, 3, 2), None, 2),
    "backward": (
        lambda x, w: torch.autograd.grad(F.conv1d(x, w).sum(), [x, w]), image(2, 4, 9), image(6, 4, 3),
    ),
    "weight only": (lambda x, w: torch.autograd.grad(F.conv1d(x, w).sum(), w), torch.randn(2, 4, 9), image(6, 4, 3)),
}  # fmt: skip


@pytest.mark.parametrize("name", KNOWN_TO_TORCH)
def test_products_do_as_many_flops_as_torch_says(name):
    function, *inputs = KNOWN_TO_TORCH[name]
    with FlopCounterMode(display=False) as counter:
        function(*inputs)
    meter = Meter(detail=True, autograd=True)
    with meter:
        function(*inputs)
    families = ("mm", "addmm", "bmm", "baddbmm", "linear", "convolution", "convolution_backward")
    assert sum(flops * many for kind, _, flops, many in meter.reading().detail if kind in families) > 0
    assert (
        sum(flops * many for kind, _, flops, many in meter.reading().detail if kind in families)
        == counter.get_total_flops()
    )


ROWS = torch.randn(2, 3, 10, 8)


@pytest.mark.parametrize(
    ("function", "flops"),
    [
        (lambda: torch.mv(ROWS[0, 0], ROWS[0, 0, 0]), 2 * 10 * 8),
        (lambda: torch.dot(ROWS[0, 0, 0], ROWS[0, 0, 1]), 2 * 8),
        (lambda: ROWS[0, 0, :8].clone().addmm_(ROWS[0, 0, :8], ROWS[0, 0, :8]), 64 + 2 * 8**3),
        (lambda: torch.addbmm(torch.zeros(10, 10), ROWS[0], ROWS[1].mT), 100 + 2 * 3 * 10 * 10 * 8),
        (lambda: F.scaled_dot_product_attention(ROWS, ROWS[:, :, :5], ROWS[:, :, :5]), 2 * 6 * 10 * 5 * (8 + 8)),
        (lambda: ROWS.exp(), ROWS.numel()),
        (lambda: ROWS.sum(), 1),
        (lambda: ROWS.reshape(-1)[3:], 0),
        (lambda: torch.zeros(2, 3) + 1, 6 + 6),
    ],
)
def test_flops_that_torch_does_not_know(function, flops):
    assert measure(function)[0].reading().flops == flops


def test_attention_costs_more_backward_than_forward():
    x = image(1, 2, 10, 8)

    def both():
        return torch.autograd.grad(F.scaled_dot_product_attention(x, x, x).sum(), x)

    rows = {kind: flops for kind, _, flops, _ in measure(both, detail=True, autograd=True)[0].reading().detail}
    forward = next(flops for kind, flops in rows.items() if "attention" in kind and not kind.endswith("backward"))
    backward = next(
        flops for kind, flops in rows.items() if kind.endswith("attention_backward") or "cpu_backward" in kind
    )
    assert (forward, backward) == (2 * 2 * 10 * 10 * 16, 2.5 * forward)


def test_the_breakdown_adds_up_and_comes_only_when_asked_for():
    x = torch.randn(4, 6)

    def work(x):
        for _ in range(3):
            x = x.exp()
        return x @ x.t()

    assert measure(work, x)[0].reading().detail == ()
    reading = measure(work, x, detail=True)[0].reading()
    assert set(reading.detail) == {("exp", 192, 24, 3), ("mm", 96 + 96 + 64, 2 * 4 * 6 * 4, 1)}
    assert sum(many for *_, many in reading.detail) == reading.ops
    assert sum(moved * many for _, moved, _, many in reading.detail) == reading.moved
    assert sum(flops * many for _, _, flops, many in reading.detail) == reading.flops


def test_a_long_breakdown_goes_on_in_powers_of_two(monkeypatch):
    monkeypatch.setattr(meter_module, "MOST_ROWS", 4)
    reading = measure(lambda: [torch.zeros(n) + 1 for n in range(1, 200)], detail=True)[0].reading()
    assert len(reading.detail) < 30
    assert sum(many for *_, many in reading.detail) == reading.ops == 398


def test_a_reading_survives_the_wire_and_refuses_anything_but_counts():
    reading = measure(lambda: torch.zeros(3) + 1, detail=True)[0].reading()
    sent = Observation(reading=reading).to_data()
    assert Observation.from_data(sent).reading == reading
    for forged in ({"ops": "many"}, {"peak": -1}, {"moved": 10**400}, {"kinds": {"exp": None}}, {"unknown": 1}):
        with pytest.raises((TypeError, ValueError)):
            Reading.from_dict(reading.to_dict() | forged)
    with pytest.raises((TypeError, ValueError)):
        Reading.from_dict(reading.to_dict() | {"detail": [("exp", 1, 1)]})


def test_flops_can_be_limited():
    planned = Planned(Call("a"), Case("a"), "given", Expected(), Cost(flops=10))
    (found,) = cost_findings(planned, Observation(reading=Reading(flops=11)))
    assert (found[0], found[1].kind) == ("flops", "cost_flops")
    assert list(cost_findings(planned, Observation(reading=Reading(flops=10)))) == [("flops", None)]


def test_the_growth_of_flops_can_be_limited():
    readings = Reading(flops=100), Reading(flops=400)
    growth = PlannedGrowth("rows", (4, 8), {"flops": 1}, (Call("a"), Call("b")), readings)
    (found,) = growth_findings(growth, tuple(Observation(reading=r) for r in readings))
    assert (found[1].kind, found[1].facts["exponent"]) == ("growth_flops", 2.0)


def test_the_meter_does_not_bring_in_dynamo():
    code = "import sys, grader.observe; sys.exit('torch._dynamo' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_limit_may_be_a_multiple_of_what_the_solution_costs():
    expected = Expected(reading=Reading(ops=4, moved=100))
    call = Call("a", (torch.ones(10),), ("x",))
    planned = Planned(call, Case("a"), "given", expected, Cost(ops={"reference": 1.5}, moved={"reference": 2, "x": 1}))
    limits = {"ops": 6, "moved": 2 * 100 + 40}
    for name, limit in limits.items():
        fine = dict(cost_findings(planned, Observation(reading=Reading(**limits))))
        assert fine == {"ops": None, "moved": None}
        over = dict(cost_findings(planned, Observation(reading=Reading(**(limits | {name: limit + 1})))))
        assert [key for key, wrong in over.items() if wrong is not None] == [name]
        assert over[name].facts["limit"] == limit
