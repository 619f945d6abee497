"""What a call costs and what it calls."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from grader.meter import Meter
from grader.names import expand, matches


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
