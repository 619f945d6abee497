"""The L1 and L2 penalty on a model's weights."""

from collections.abc import Iterable

import torch
import torch.nn.functional as F
from torch import Tensor

from grader import Case, Cost, Exercise


def penalty(params: Iterable[Tensor], *, l1: float = 0.0, l2: float = 0.0) -> Tensor:
    """Add up l1 * sum|w| + l2 / 2 * sum w**2 over all weights of all tensors.

    Args:
        params: float tensors of any shapes (0-d and empty ones too), all of one dtype, with finite entries.
            Any iterable, also a generator such as `model.parameters()`. A tensor that appears twice
            (the same object: a tied weight) counts once.
        l1: strength of the L1 term, >= 0.
        l2: strength of the L2 term, >= 0. Note the 1/2: the gradient of this term is l2 * w.

    Returns:
        0-d tensor of the parameters' dtype, to be added to a loss. Its gradient with respect to w is
        l1 * sign(w) + l2 * w, where sign(0) is 0; it stays connected to the parameters even where l1 and l2
        are both 0 (the gradient is then 0). No parameters at all give a float32 zero.

    Raises:
        ValueError: `l1` or `l2` is negative.

    Example:
        >>> w, b = torch.tensor([[3.0, -4.0]]), torch.tensor([0.5])
        >>> penalty([w, b], l1=0.1, l2=2.0)
        tensor(26.)
    """
    if l1 < 0 or l2 < 0:
        raise ValueError(f"l1 and l2 must not be negative, got {l1} and {l2}")
    unique = {id(w): w for w in params}.values()
    terms = [l1 * w.abs().sum() + 0.5 * l2 * w.square().sum() for w in unique]
    return torch.stack(terms).sum() if terms else torch.zeros(())


exercise = Exercise(
    penalty,
    points=5,
    gradients=("params",),
    cost=Cost(maxel=("params", "result")),
    forbid=("norm", "linalg*", "vector_norm", "matrix_norm", "renorm", "utils"),
    hints=(
        "Two plain sums per tensor are enough. What does the derivative of w**2 / 2 look like?",
        "A generator can be walked through once only, and `==` on tensors compares entries: collect the tensors "
        "first, each object once, for example in a dict keyed by id(w).",
        "terms = [l1 * w.abs().sum() + 0.5 * l2 * w.square().sum() for w in {id(w): w for w in params}.values()], "
        "then torch.stack(terms).sum(); an empty list needs torch.zeros(()).",
    ),
    source="D2L linear-regression/weight-decay",
)


@exercise.truth
def truth(params, *, l1=0.0, l2=0.0):
    seen, total = [], None
    for w in params:
        if any(w is other for other in seen):
            continue
        seen.append(w)
        zero = torch.zeros_like(w)
        term = l1 * F.l1_loss(w, zero, reduction="sum") + l2 * F.mse_loss(w, zero, reduction="sum") / 2
        total = term if total is None else total + term
    return torch.tensor(0.0) if total is None else total


def from_a_generator(candidate, params, l1=0.0, l2=0.0):
    return candidate((w for w in params), l1=l1, l2=l2)


def backward_through_it(candidate, params, l1=0.0, l2=0.0):
    own = [w.detach().clone().requires_grad_() for w in params]
    total = candidate(own, l1=l1, l2=l2)
    connected = total.requires_grad
    if connected:
        total.backward()
    return {"connected": connected, "gradients": [w.grad for w in own]}


@exercise.cases
def cases(draw):
    w, b = draw.normal(3, 4), draw.normal(3)
    yield Case("a matrix and a bias", [w, b], l1=0.3, l2=0.7, cost=Cost(ops=24))
    yield Case("l1 only", [draw.normal(2, 5)], l1=1.5)
    yield Case("l2 only", [draw.normal(5, 2), draw.normal(2, 3, 4)], l2=0.25)
    yield Case("both strengths 0", [draw.normal(2, 3)], edge=True)
    yield Case("both strengths 0, then backward", [draw.normal(2, 3)], probe=backward_through_it, edge=True)
    yield Case("a generator", [draw.normal(4, 3), draw.normal(4)], l1=0.5, l2=2.0, probe=from_a_generator)
    tied = draw.normal(4, 3)
    yield Case("a tied weight", [tied, draw.normal(4), tied], l1=0.2, l2=0.9)
    equal = draw.normal(3, 2)
    yield Case("two equal but different tensors", [equal, equal.clone()], l1=0.4, l2=0.6)
    yield Case("two tensors of one shape", [draw.normal(2, 3), draw.normal(2, 3)], l1=0.9, l2=0.2, hidden=True)
    yield Case("zeros among the weights", [torch.tensor([[0.0, 1.5], [-2.0, 0.0]]), torch.zeros(3)], l1=0.8, l2=0.3)
    yield Case("a 0-d and an empty parameter", [draw.normal(), draw.normal(0, 3)], l1=0.6, l2=1.1, edge=True)
    yield Case("no parameters", [], l1=0.1, l2=0.1, edge=True, cost=Cost(ops=4))
    yield Case("a transposed view", [draw.normal(5, 3).T, draw.normal(5)], l1=0.5, l2=0.4, edge=True)
    yield Case("float64", [draw.normal(3, 4, dtype=torch.float64)], l1=0.3, l2=0.2, edge=True)
    yield Case("tiny weights", [1e-3 * draw.normal(6, 2), 1e-3 * draw.normal(6)], l1=2.0, l2=3.0, hidden=True)
    yield Case("large weights", [1e3 + 1e3 * draw.normal(2, 7), draw.normal(7)], l1=0.1, l2=0.01, hidden=True)
    yield Case("six tensors", [draw.normal(k, 2) for k in range(1, 7)], l1=0.3, l2=0.5, hidden=True, cost=Cost(ops=64))
    scalar = draw.normal()
    yield Case("a tied scalar", [scalar, draw.normal(2), scalar, scalar], l1=0.7, l2=0.2, edge=True, hidden=True)
    yield Case("negative l1", [draw.normal(2)], l1=-0.1, raises=ValueError)
    yield Case("negative l2", [draw.normal(2)], l1=0.1, l2=-1e-3, raises=ValueError)
    yield Case("negative l2 and no parameters", [], l2=-1.0, raises=ValueError, hidden=True)


def check_strengths(l1, l2):
    if l1 < 0 or l2 < 0:
        raise ValueError


def total_of(params, term):
    terms = [term(w) for w in {id(w): w for w in params}.values()]
    return torch.stack(terms).sum() if terms else torch.zeros(())


@exercise.wrong("The factor 1/2 is missing. With it the gradient of the L2 term is l2 * w; without it, twice that.")
def no_half(params, *, l1=0.0, l2=0.0):
    return penalty(params, l1=l1, l2=2 * l2)


@exercise.wrong(
    "The L2 term is the sum of squares, not the norm. The root pulls a tensor of tiny weights as hard as one of "
    "large weights, and its gradient is nan where all weights are 0."
)
def norm_not_squared(params, *, l1=0.0, l2=0.0):
    check_strengths(l1, l2)
    return total_of(params, lambda w: l1 * w.abs().sum() + 0.5 * l2 * w.square().sum().sqrt())


@exercise.wrong("The L2 term is the sum of all squares: the root over all weights together makes a norm of it again.")
def norm_of_all(params, *, l1=0.0, l2=0.0):
    params = list(params)
    squares = penalty(params, l2=2.0)
    return penalty(params, l1=l1, l2=l2) - 0.5 * l2 * squares + 0.5 * l2 * squares.sqrt()


@exercise.wrong("A tied weight is one weight and pays one penalty: skip a tensor that you have seen (`is`, or id()).")
def tied_twice(params, *, l1=0.0, l2=0.0):
    check_strengths(l1, l2)
    terms = [l1 * w.abs().sum() + 0.5 * l2 * w.square().sum() for w in params]
    return torch.stack(terms).sum() if terms else torch.zeros(())


@exercise.wrong(
    "Under no_grad the penalty is a number that no weight knows of: nothing would decay.", caught_by="gradients"
)
def under_no_grad(params, *, l1=0.0, l2=0.0):
    with torch.no_grad():
        return penalty(params, l1=l1, l2=l2)


@exercise.wrong(
    "abs does nothing under a square. L1 adds up |w| itself: its slope does not fade near 0, which makes exact zeros."
)
def l1_squared(params, *, l1=0.0, l2=0.0):
    check_strengths(l1, l2)
    return total_of(params, lambda w: l1 * w.abs().square().sum() + 0.5 * l2 * w.square().sum())


@exercise.wrong(
    "item() and float() leave the graph: keep the running sum a tensor, or no gradient arrives.", caught_by="gradients"
)
def sum_of_items(params, *, l1=0.0, l2=0.0):
    return torch.tensor(penalty(params, l1=l1, l2=l2).item())


@exercise.wrong("Sum over the weights, do not average: an average decays the weights of a large layer less.")
def mean_not_sum(params, *, l1=0.0, l2=0.0):
    check_strengths(l1, l2)
    return total_of(params, lambda w: l1 * w.abs().mean() + 0.5 * l2 * w.square().mean())


@exercise.wrong("Take the absolute value of each weight before adding up: opposite signs must not cancel.")
def abs_of_the_sum(params, *, l1=0.0, l2=0.0):
    check_strengths(l1, l2)
    return total_of(params, lambda w: l1 * w.sum().abs() + 0.5 * l2 * w.square().sum())


@exercise.wrong("A generator is empty after the first walk through it: collect the tensors in a list first.")
def walks_twice(params, *, l1=0.0, l2=0.0):
    check_strengths(l1, l2)
    seen, large, square = set(), torch.zeros(()), torch.zeros(())
    for w in params:
        if id(w) not in seen:
            large = large + w.abs().sum()
            seen.add(id(w))
    seen.clear()
    for w in params:
        if id(w) not in seen:
            square = square + w.square().sum()
            seen.add(id(w))
    return l1 * large + 0.5 * l2 * square


@exercise.wrong(
    "Two tensors with equal entries are two weights. Only the same object counts once: compare with `is`, not by value."
)
def same_by_value(params, *, l1=0.0, l2=0.0):
    unique = []
    for w in params:
        if not any(torch.equal(w, other) for other in unique):
            unique.append(w)
    return penalty(unique, l1=l1, l2=l2)


@exercise.wrong("Without parameters there is nothing to stack: return a zero.", caught_by="runs")
def nothing_to_stack(params, *, l1=0.0, l2=0.0):
    check_strengths(l1, l2)
    unique = {id(w): w for w in params}.values()
    return torch.stack([l1 * w.abs().sum() + 0.5 * l2 * w.square().sum() for w in unique]).sum()


@exercise.wrong(
    "`total += ...` keeps the dtype that the total began with: a float32 zero stays float32 with float64 weights.",
    caught_by="dtype",
)
def starts_in_float32(params, *, l1=0.0, l2=0.0):
    check_strengths(l1, l2)
    total = torch.zeros(())
    for w in {id(w): w for w in params}.values():
        total += l1 * w.abs().sum() + 0.5 * l2 * w.square().sum()
    return total


@exercise.wrong("The result is 0-d, shape (), as a loss is; not (1,).", caught_by="shape")
def one_axis_too_many(params, *, l1=0.0, l2=0.0):
    return penalty(params, l1=l1, l2=l2).reshape(1)


@exercise.wrong("Every tensor counts, biases and scalars too; what to leave out is the caller's choice of `params`.")
def matrices_only(params, *, l1=0.0, l2=0.0):
    check_strengths(l1, l2)
    terms = [penalty([w], l1=l1, l2=l2) for w in {id(w): w for w in params}.values() if w.ndim >= 2]
    return torch.stack(terms).sum() if terms else torch.zeros(())


@exercise.wrong("At w = 0 the slope of |w| is taken as 0: w.abs() does that, a choice between w and -w does not.")
def slope_at_zero(params, *, l1=0.0, l2=0.0):
    check_strengths(l1, l2)
    return total_of(params, lambda w: l1 * torch.where(w > 0, w, -w).sum() + 0.5 * l2 * w.square().sum())


@exercise.wrong(
    "Strengths of 0 must not cut the graph: backward() through the result would raise an error. Multiply by 0 instead."
)
def skips_zero_strengths(params, *, l1=0.0, l2=0.0):
    check_strengths(l1, l2)
    total = torch.zeros(())
    for w in {id(w): w for w in params}.values():
        total = total.to(w.dtype)
        if l1:
            total = total + l1 * w.abs().sum()
        if l2:
            total = total + 0.5 * l2 * w.square().sum()
    return total


@exercise.wrong(
    "Joining all weights into one vector copies the whole model: add up tensor by tensor.", caught_by="cost"
)
def one_long_vector(params, *, l1=0.0, l2=0.0):
    check_strengths(l1, l2)
    unique = list({id(w): w for w in params}.values())
    if not unique:
        return torch.zeros(())
    w = torch.cat([w.reshape(-1) for w in unique])
    return l1 * w.abs().sum() + 0.5 * l2 * w.square().sum()


@exercise.wrong("sum() of nothing is the int 0: the result is a tensor, also without parameters.", caught_by="type")
def plain_zero(params, *, l1=0.0, l2=0.0):
    check_strengths(l1, l2)
    return sum(l1 * w.abs().sum() + 0.5 * l2 * w.square().sum() for w in {id(w): w for w in params}.values())


@exercise.wrong(
    "abs_() and other methods with a trailing underscore change the weights themselves.", caught_by="inputs"
)
def changes_the_weights(params, *, l1=0.0, l2=0.0):
    check_strengths(l1, l2)
    return total_of(params, lambda w: l1 * w.data.abs_().sum() + 0.5 * l2 * w.square().sum())


@exercise.wrong("Tensors of one shape are still different weights: only the same object counts once.")
def same_by_shape(params, *, l1=0.0, l2=0.0):
    return penalty({w.shape: w for w in params}.values(), l1=l1, l2=l2)


@exercise.wrong("Weights whose requires_grad is False belong to the sum too: the caller chose `params`.")
def trainable_only(params, *, l1=0.0, l2=0.0):
    check_strengths(l1, l2)
    return total_of(params, lambda w: float(w.requires_grad) * penalty([w], l1=l1, l2=l2))


@exercise.wrong("A negative strength rewards large weights: refuse it with a ValueError.", caught_by="errors")
def negative_strengths(params, *, l1=0.0, l2=0.0):
    return total_of(params, lambda w: l1 * w.abs().sum() + 0.5 * l2 * w.square().sum())


@exercise.right("a set, dot products and sums of signs")
def by_dot_products(params, *, l1=0.0, l2=0.0):
    if min(l1, l2) < 0:
        raise ValueError
    unique = set(params)  # tensors hash by identity
    flat = [w.reshape(-1) for w in unique]
    return sum((l1 * (w @ w.detach().sign()) + 0.5 * l2 * (w @ w) for w in flat), start=0 * sum_of_any(flat))


def sum_of_any(flat):
    return flat[0].sum() if flat else torch.zeros(())


@exercise.right("einsum, and relu twice for the absolute value")
def by_einsum(params, *, l1=0.0, l2=0.0):
    if l1 < 0 or l2 < 0:
        raise ValueError
    seen, total = set(), None
    for w in params:
        if id(w) not in seen:
            seen.add(id(w))
            row = w.flatten()
            size = (row.clamp(min=0) - row.clamp(max=0)).sum() if l1 else row.sum() * 0
            term = size * l1 + torch.einsum("i,i->", row, row) * (l2 / 2)
            total = term if total is None else total + term
    return torch.zeros(()) if total is None else total
