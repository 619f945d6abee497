"""Softmax."""

import torch
from torch import Tensor

from grader import Case, Cost, Exercise
from reference.softmax_regression import FORBID


def softmax(x: Tensor, dim: int = -1) -> Tensor:
    """Turn scores into probabilities: exp(x) / sum(exp(x)) along `dim`.

    Args:
        x: scores, any shape, real floating point; entries may be -inf (their probability is exactly 0).
            float16 and bfloat16 are computed in float32 and cast back. A slice of only -inf is not graded.
        dim: the dimension to normalise; of a 0-d tensor, which is one score, dimension 0 or -1.

    Returns:
        Tensor shaped like `x`, of its dtype, with entries >= 0 that sum to 1 along `dim`.
        Finite for scores up to 1e4 in size. Size-0 tensors give size-0 results.

    Raises:
        TypeError: `x` is not a real float tensor.
        IndexError: `x` has no dimension `dim`.

    Example:
        >>> softmax(torch.tensor([0.0, 0.0, -float("inf")]))
        tensor([0.5000, 0.5000, 0.0000])
    """
    if not x.is_floating_point():
        raise TypeError(f"x must be a float tensor, got {x.dtype}")
    if x.numel() == 0:
        x.size(dim)  # raises IndexError for a dimension that is not there
        return x.clone()
    scores = x.float() if x.dtype in (torch.float16, torch.bfloat16) else x
    weights = (scores - scores.amax(dim, keepdim=True)).exp()
    return (weights / weights.sum(dim, keepdim=True)).to(x.dtype)


exercise = Exercise(
    softmax,
    points=5,
    gradients=("x",),
    cost=Cost(ops=10, maxel="x"),
    forbid=FORBID,
    hints=(
        "What is exp(1000) in float32? Which constant can be taken from every score without changing the result?",
        "Subtract each slice's own largest score before exp; keepdim=True keeps the shapes broadcastable.",
        "weights = (x - x.amax(dim, keepdim=True)).exp(), divided by their sum over the same dim.",
    ),
    source="D2L linear-classification/softmax-regression, softmax-regression-scratch",
)


@exercise.truth
def truth(x, dim=-1):
    return torch.softmax(x, dim)


@exercise.cases
def cases(draw):
    inf, half = float("inf"), torch.float16
    yield Case("a vector", draw.normal(5))
    yield Case("the middle dimension", draw.normal(2, 3, 5), dim=1, cost=True)
    yield Case("the first dimension", draw.normal(3, 4, 2), dim=0)
    yield Case("the last dimension, counted from the end", draw.normal(4, 2, 3), dim=-1)
    thousands = torch.stack([draw.permutation(21)[:6] - 10 for _ in range(4)])
    yield Case("large scores", 1000.0 * thousands)
    yield Case("[1000, 1001] and [0, 1] together", torch.tensor([[1000.0, 1001.0], [0.0, 1.0]]))
    yield Case("one score far above many others", torch.tensor([[200.0] + 9 * [0.0], [-200.0] + 9 * [0.0]]))
    yield Case("entries of -inf", torch.tensor([[0.0, -inf, 2.0], [-inf, 1.0, -1.0]]), edge=True)
    yield Case("a float16 matrix", draw.normal(3, 4, dtype=half), edge=True)
    yield Case("a single number", torch.tensor(3.0), edge=True)
    yield Case("no rows", torch.zeros(0, 3), edge=True)
    yield Case("no columns", torch.zeros(3, 0), edge=True)
    yield Case("integer scores", torch.arange(4), raises=TypeError)
    yield Case("a dimension that is not there", draw.normal(2, 3), dim=2, raises=IndexError)
    yield Case("tiny scores", 1e-3 * draw.normal(3, 7), hidden=True)
    yield Case("very negative scores", draw.normal(3, 7) - 300.0, hidden=True)
    yield Case("rows far apart", draw.normal(2, 6) + torch.tensor([[-500.0], [500.0]]), hidden=True)
    yield Case("columns far apart", draw.normal(6, 2) + torch.tensor([-500.0, 500.0]), dim=-2, hidden=True)
    yield Case("four dimensions", draw.normal(2, 3, 4, 5), 2, hidden=True)
    yield Case("a single number, dimension 0", torch.tensor(-2.0), dim=0, edge=True, hidden=True)
    yield Case("70 000 equal float16 scores", torch.zeros(70_000, dtype=half), edge=True, hidden=True)
    yield Case("bfloat16 scores", draw.normal(3, 300, dtype=torch.bfloat16), edge=True, hidden=True)
    yield Case("no rows, first dimension", torch.zeros(0, 4), dim=0, edge=True, hidden=True)
    yield Case("no rows, no such dimension", torch.zeros(0, 3), dim=-3, raises=IndexError, hidden=True)
    yield Case("boolean scores", draw.boolean(2, 3), raises=TypeError, hidden=True)


@exercise.growth("rows", ops=0, peak=1)
def more_rows(draw, size):
    return Case(f"{size} rows", draw.normal(size, 10))


@exercise.growth("classes", ops=0, peak=1)
def more_classes(draw, size):
    return Case(f"{size} classes", draw.normal(3, size))


def with_care(x, dim, normalise):
    """Do everything right but what `normalise(scores)` does with ordinary scores."""
    if not x.is_floating_point():
        raise TypeError
    if x.numel() == 0:
        return softmax(x, dim)
    return normalise(x.float() if x.itemsize == 2 else x).to(x.dtype)


def weights_of(y, dim):
    return (y - y.amax(dim, keepdim=True)).exp()


def scores_of(x, dim):
    """Refuse what the contract refuses and return the scores to compute with."""
    if not x.is_floating_point():
        raise TypeError
    if not -max(x.ndim, 1) <= dim < max(x.ndim, 1):
        raise IndexError
    return x.float() if x.itemsize == 2 else x


def rows_joined(x, dim, one, single=True):
    """Loop over the slices along `dim`; without `single` a 0-d tensor has none, and that fails."""
    scores = scores_of(x, dim)
    if x.numel() == 0:
        return x.clone()
    moved = scores.unsqueeze(0) if single and not x.ndim else scores.movedim(dim, -1)
    rows = [one(row) for row in moved.reshape(-1, moved.shape[-1])]
    return torch.stack(rows).reshape(moved.shape).movedim(-1, dim).reshape(x.shape).to(x.dtype)


def softmax_of_row(row):
    weights = (row - row.max()).exp()
    return weights / weights.sum()


@exercise.wrong("Subtract the largest score first: exp(89) is inf in float32, and inf / inf is nan.")
def no_shift(x, dim=-1):
    return with_care(x, dim, lambda y: y.exp() / y.exp().sum(dim, keepdim=True))


@exercise.wrong("One maximum for the whole tensor: a slice far below it becomes 0 / 0. Take each slice's own.")
def one_global_maximum(x, dim=-1):
    def normalise(y):
        weights = (y - y.max()).exp()
        return weights / weights.sum(dim, keepdim=True)

    return with_care(x, dim, normalise)


@exercise.wrong(
    "sum(dim) without keepdim=True drops the dimension, so the division lines up with another axis: "
    "an error, or silently wrong numbers where the sizes happen to fit."
)
def sum_without_keepdim(x, dim=-1):
    return with_care(x, dim, lambda y: weights_of(y, dim) / weights_of(y, dim).sum(dim))


@exercise.wrong("The mean is no safe shift: a score far above it still overflows in exp. Subtract the maximum.")
def shift_by_mean(x, dim=-1):
    def normalise(y):
        weights = (y - y.mean(dim, keepdim=True)).exp()
        return weights / weights.sum(dim, keepdim=True)

    return with_care(x, dim, normalise)


@exercise.wrong("The smallest score is the wrong end to subtract: exp of the largest then overflows.")
def shift_by_minimum(x, dim=-1):
    def normalise(y):
        weights = (y - y.amin(dim, keepdim=True)).exp()
        return weights / weights.sum(dim, keepdim=True)

    return with_care(x, dim, normalise)


@exercise.wrong("No epsilon is needed: after the shift the sum is at least 1. With it the entries no longer sum to 1.")
def epsilon_in_the_denominator(x, dim=-1):
    return with_care(x, dim, lambda y: weights_of(y, dim) / (weights_of(y, dim).sum(dim, keepdim=True) + 1e-8))


@exercise.wrong("`dim` is an argument: normalise along it, not always along the last dimension.")
def always_the_last_dimension(x, dim=-1):
    x.size(dim) if x.ndim else None
    return softmax(x, -1)


@exercise.wrong("`dim` is an argument: normalise along it, not always along dimension 1.")
def always_dimension_one(x, dim=-1):
    x.size(dim) if x.ndim else None
    return softmax(x, min(1, x.ndim - 1))


@exercise.wrong(
    "The weights of each slice must sum to 1; dividing by the sum of all entries makes the whole tensor do so."
)
def one_sum_for_all(x, dim=-1):
    return with_care(x, dim, lambda y: weights_of(y, dim) / weights_of(y, dim).sum())


@exercise.wrong("Clipping the scores keeps exp finite but makes large scores equal. Shift them: that changes nothing.")
def clipped_scores(x, dim=-1):
    return softmax(x.clamp(-80, 80), dim) if x.is_floating_point() else softmax(x, dim)


@exercise.wrong("detach() or no_grad() cuts the graph: no gradient reaches `x`.", caught_by="gradients")
def cuts_the_graph(x, dim=-1):
    return softmax(x.detach(), dim)


@exercise.wrong(
    "The sum's gradient is missing: only the maximum may be detached, the denominator depends on `x` too.",
    caught_by="gradients",
)
def detached_denominator(x, dim=-1):
    return with_care(x, dim, lambda y: weights_of(y, dim) / weights_of(y, dim).sum(dim, keepdim=True).detach())


@exercise.wrong(
    "In float16 a sum overflows above 65 504, and in bfloat16 it is rounded to 8 bits: compute in float32 and "
    "cast the result back."
)
def sum_in_half_precision(x, dim=-1):
    if not x.is_floating_point() or x.numel() == 0:
        return softmax(x, dim)
    weights = weights_of(x, dim)
    return weights / weights.sum(dim, keepdim=True)


@exercise.wrong("Cast the result back: it has the dtype of `x`.", caught_by="dtype")
def half_comes_back_as_float32(x, dim=-1):
    return softmax(x.float() if x.is_floating_point() and x.itemsize == 2 else x, dim)


@exercise.wrong("float64 scores are computed in float64: only the half precisions need a cast to float32.")
def everything_in_float32(x, dim=-1):
    return softmax(x.float(), dim).to(x.dtype) if x.is_floating_point() else softmax(x, dim)


@exercise.wrong("Integer scores are an error here (TypeError), not something to convert silently.", caught_by="errors")
def integers_are_converted(x, dim=-1):
    return softmax(x if x.is_floating_point() else x.float(), dim)


@exercise.wrong("`x -= ...` changes the caller's tensor. Make a new one: x - ...", caught_by="inputs")
def shifts_in_place(x, dim=-1):
    if x.is_floating_point() and x.numel():
        with torch.no_grad():
            x -= x.amax(dim, keepdim=True)
    return softmax(x, dim)


@exercise.wrong("A size-0 tensor has no maximum to take: return a size-0 result before amax fails.", caught_by="runs")
def fails_on_no_columns(x, dim=-1):
    if not x.is_floating_point():
        raise TypeError
    y = x.float() if x.itemsize == 2 else x
    return (weights_of(y, dim) / weights_of(y, dim).sum(dim, keepdim=True)).to(x.dtype)


@exercise.wrong("The early return for size-0 tensors must not skip the check of `dim`.", caught_by="errors")
def empty_with_any_dimension(x, dim=-1):
    return softmax(x, dim) if x.numel() or not x.is_floating_point() else x.clone()


@exercise.wrong("No loop over rows: one exp and one sum along `dim` do all slices at once.", caught_by="growth")
def row_by_row(x, dim=-1):
    return rows_joined(x, dim, softmax_of_row)


@exercise.wrong(
    "A 0-d tensor is one score: `-x.ndim <= dim < x.ndim` refuses its dimensions 0 and -1.", caught_by="runs"
)
def single_number_is_refused(x, dim=-1):
    if not -x.ndim <= dim < x.ndim and x.is_floating_point():
        raise IndexError
    return softmax(x, dim)


@exercise.wrong(
    "A sum along `dim` misses just that axis: put it back with unsqueeze(dim), or keepdim=True, not unsqueeze(-1)."
)
def axis_put_back_last(x, dim=-1):
    scores = scores_of(x, dim)
    if x.numel() == 0:
        return x.clone()
    weights = (scores - scores.max(dim=dim).values.unsqueeze(-1)).exp()
    return (weights / weights.sum(dim=dim).unsqueeze(-1)).to(x.dtype)


@exercise.wrong("clamp(max=80) makes all large scores equal: subtract the largest score, which changes no probability.")
def clipped_from_above(x, dim=-1):
    weights = scores_of(x, dim).clamp(max=80).exp()
    return (weights / weights.sum(dim, keepdim=True)).to(x.dtype)


@exercise.wrong("nan_to_num hides inf / inf behind a 0 that is no probability: subtract the largest score before exp.")
def nan_becomes_zero(x, dim=-1):
    weights = scores_of(x, dim).exp()
    return torch.nan_to_num(weights / weights.sum(dim, keepdim=True)).to(x.dtype)


@exercise.wrong("inf / inf is not 1: subtract the largest score before exp, and there is no nan to repair.")
def nan_becomes_one(x, dim=-1):
    weights = scores_of(x, dim).exp()
    return torch.nan_to_num(weights / weights.sum(dim, keepdim=True), nan=1.0).to(x.dtype)


@exercise.wrong("`dim` is an argument: normalise along it, not always along dimension 0.")
def always_dimension_zero(x, dim=-1):
    scores_of(x, dim)
    return softmax(x, 0)


@exercise.wrong(
    "A 0-d tensor has no shape[-1]; and no loop over slices is needed: exp and sum along `dim` do all at once."
)
def slice_by_slice(x, dim=-1):
    return rows_joined(x, dim, softmax_of_row, single=False)


@exercise.right("through the logarithm of the sum")
def by_log_sum(x, dim=-1):
    def normalise(y):
        top = y.amax(dim, keepdim=True)
        return (y - (top + (y - top).exp().sum(dim, keepdim=True).log())).exp()

    return with_care(x, dim, normalise)


@exercise.right("on the last axis, with the maximum kept out of the graph")
def moved_axis_and_detached_shift(x, dim=-1):
    def normalise(y):
        z = y.movedim(dim, -1)
        weights = torch.exp(z - z.detach().max(-1, keepdim=True).values)
        return (weights / weights.sum(-1, keepdim=True)).movedim(-1, dim)

    return with_care(x, dim, normalise)


@exercise.right("with a product by the reciprocal, in place on its own tensors")
def by_reciprocal(x, dim=-1):
    if not torch.is_floating_point(x):
        raise TypeError("scores must be floats")
    if 0 in x.shape:
        return torch.empty_like(x).sum(dim, keepdim=True) * x
    top = torch.max(x, dim=dim, keepdim=True)[0]
    weights = torch.sub(x.to(torch.promote_types(x.dtype, torch.float32)), top)
    weights = torch.exp(weights)
    return torch.mul(weights, torch.reciprocal(torch.sum(weights, dim, keepdim=True))).to(x.dtype)
