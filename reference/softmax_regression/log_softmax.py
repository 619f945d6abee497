"""The logarithm of softmax."""

import torch
from torch import Tensor

from grader import Case, Cost, Exercise
from reference.softmax_regression import FORBID
from reference.softmax_regression.softmax import rows_joined, scores_of, softmax


def log_softmax(x: Tensor, dim: int = -1) -> Tensor:
    """Turn scores into log-probabilities: x - log(sum(exp(x))) along `dim`, without taking a log of a softmax.

    Args:
        x: scores, any shape, real floating point; entries may be -inf (their log-probability is -inf, and they
            make no other entry's value or gradient nan). float16 and bfloat16 are computed in float32 and cast
            back. A slice of only -inf is not graded.
        dim: the dimension to normalise; of a 0-d tensor, which is one score, dimension 0 or -1.

    Returns:
        Tensor shaped like `x`, of its dtype; its exp sums to 1 along `dim`. Probabilities too small for a float
        keep their logarithm: [0, -200] gives [0, -200], not [0, -inf]. Size-0 tensors give size-0 results.

    Raises:
        TypeError: `x` is not a real float tensor.
        IndexError: `x` has no dimension `dim`.

    Example:
        >>> log_softmax(torch.tensor([[0.0, 0.0], [0.0, -200.0]]))
        tensor([[  -0.6931,   -0.6931],
                [   0.0000, -200.0000]])
    """
    if not x.is_floating_point():
        raise TypeError(f"x must be a float tensor, got {x.dtype}")
    if x.numel() == 0:
        x.size(dim)  # raises IndexError for a dimension that is not there
        return x.clone()
    scores = x.float() if x.dtype in (torch.float16, torch.bfloat16) else x
    shifted = scores - scores.amax(dim, keepdim=True)
    return (shifted - shifted.exp().sum(dim, keepdim=True).log()).to(x.dtype)


exercise = Exercise(
    log_softmax,
    points=5,
    gradients=("x",),
    cost=Cost(ops=12, maxel="x"),
    forbid=FORBID,
    hints=(
        "softmax(x) can round to 0, and the log of 0 is -inf. Write the log of the quotient as a difference first.",
        "log(exp(x) / sum(exp(x))) = x - log(sum(exp(x))). Shift by the largest score so that exp cannot overflow.",
        "z = x - x.amax(dim, keepdim=True); the result is z - z.exp().sum(dim, keepdim=True).log().",
    ),
    source="D2L linear-classification/softmax-regression-concise (the LogSumExp trick)",
)


@exercise.truth
def truth(x, dim=-1):
    return torch.log_softmax(x, dim)


@exercise.cases
def cases(draw):
    inf, half = float("inf"), torch.float16
    yield Case("a vector", draw.normal(5))
    yield Case("the middle dimension", draw.normal(2, 3, 5), dim=1, cost=True)
    yield Case("the first dimension", draw.normal(3, 4, 2), dim=0)
    yield Case("large scores", 1e4 * draw.normal(4, 6))
    yield Case("[0, -200]", torch.tensor([0.0, -200.0]))
    yield Case("[1000, 1001] and [0, 1] together", torch.tensor([[1000.0, 1001.0], [0.0, 1.0]]))
    yield Case("one score far above many others", torch.tensor([[200.0] + 9 * [0.0], [-200.0] + 9 * [0.0]]))
    yield Case("float64 scores", draw.normal(3, 4, dtype=torch.float64))
    yield Case("entries of -inf", torch.tensor([[0.0, -inf, 2.0], [-inf, 1.0, -1.0]]), edge=True)
    yield Case("a single class", draw.normal(4, 1), edge=True)
    yield Case("a float16 matrix", draw.normal(3, 4, dtype=half), edge=True)
    yield Case("a single number", torch.tensor(3.0), edge=True)
    yield Case("no rows", torch.zeros(0, 3), edge=True)
    yield Case("no columns", torch.zeros(3, 0), edge=True)
    yield Case("integer scores", torch.arange(4), raises=TypeError)
    yield Case("a dimension that is not there", draw.normal(2, 3), dim=2, raises=IndexError)
    yield Case("tiny scores", 1e-3 * draw.normal(3, 7), hidden=True)
    yield Case("very negative scores", draw.normal(3, 7) - 300.0, hidden=True)
    yield Case("rows far apart", draw.normal(2, 6) + torch.tensor([[-500.0], [500.0]]), hidden=True)
    yield Case("four dimensions", draw.normal(2, 3, 4, 5), -2, hidden=True)
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
    if not x.is_floating_point() or x.numel() == 0:
        return log_softmax(x, dim)
    return normalise(x.float() if x.itemsize == 2 else x).to(x.dtype)


def top_of(y, dim):
    return y.amax(dim, keepdim=True)


def log_sum(y, dim):
    return y.exp().sum(dim, keepdim=True).log()


@exercise.wrong(
    "log(softmax(x)): a probability below 1e-45 is rounded to 0, and its log is -inf. Take the log on paper."
)
def log_of_softmax(x, dim=-1):
    return softmax(x, dim).log()


@exercise.wrong("log(p + 1e-12) is no log-probability: it cannot fall below -27.6 and its gradient dies there.")
def log_of_softmax_plus_epsilon(x, dim=-1):
    return (softmax(x, dim) + 1e-12).log()


@exercise.wrong("exp(89) is inf in float32: take log(sum(exp(x))) as m + log(sum(exp(x - m))), m the largest score.")
def no_shift(x, dim=-1):
    return with_care(x, dim, lambda y: y - log_sum(y, dim))


@exercise.wrong("The shift is taken inside exp but not given back: log(sum(exp(x))) is m + log(sum(exp(x - m))).")
def shift_not_given_back(x, dim=-1):
    return with_care(x, dim, lambda y: y - log_sum(y - top_of(y, dim), dim))


@exercise.wrong("Shift in both places or in none: x - m must be paired with log(sum(exp(x - m))).")
def shift_outside_only(x, dim=-1):
    return with_care(x, dim, lambda y: y - top_of(y, dim) - log_sum(y, dim))


@exercise.wrong("One maximum for the whole tensor: in a slice far below it every exp is 0. Take each slice's own.")
def one_global_maximum(x, dim=-1):
    return with_care(x, dim, lambda y: y - y.max() - log_sum(y - y.max(), dim))


@exercise.wrong("The mean is no safe shift: a score far above it still overflows in exp. Subtract the maximum.")
def shift_by_mean(x, dim=-1):
    def normalise(y):
        z = y - y.mean(dim, keepdim=True)
        return z - log_sum(z, dim)

    return with_care(x, dim, normalise)


@exercise.wrong("sum(dim) without keepdim=True drops the dimension, so the subtraction lines up with another axis.")
def sum_without_keepdim(x, dim=-1):
    return with_care(x, dim, lambda y: y - top_of(y, dim) - (y - top_of(y, dim)).exp().sum(dim).log())


@exercise.wrong("Each slice has its own normaliser: sum along `dim`, not over the whole tensor.")
def one_sum_for_all(x, dim=-1):
    return with_care(x, dim, lambda y: y - top_of(y, dim) - (y - top_of(y, dim)).exp().sum().log())


@exercise.wrong("`dim` is an argument: normalise along it, not always along the last dimension.")
def always_the_last_dimension(x, dim=-1):
    x.size(dim) if x.ndim else None
    return log_softmax(x, -1)


@exercise.wrong("These are log-probabilities, at most 0; their negative is the loss, which comes in a later exercise.")
def sign_flipped(x, dim=-1):
    return -log_softmax(x, dim)


@exercise.wrong("The natural logarithm is wanted: log, not log2.")
def logarithm_to_base_two(x, dim=-1):
    return with_care(x, dim, lambda y: y - top_of(y, dim) - (y - top_of(y, dim)).exp().sum(dim, keepdim=True).log2())


@exercise.wrong("A score of -inf has log-probability -inf: do not replace it by a finite number.")
def finite_for_minus_inf(x, dim=-1):
    scores = scores_of(x, dim)
    finite = torch.where(torch.isinf(scores), torch.full_like(scores, -1e9), scores)
    return log_softmax(finite, dim).to(x.dtype)


@exercise.wrong("Scores of -inf need no repair: nan_to_num on the result also hides the -inf that belongs there.")
def nan_to_num_on_the_result(x, dim=-1):
    return log_softmax(x, dim).nan_to_num()


@exercise.wrong("detach() or no_grad() cuts the graph: no gradient reaches `x`.", caught_by="gradients")
def cuts_the_graph(x, dim=-1):
    return log_softmax(x.detach(), dim)


@exercise.wrong(
    "The normaliser depends on `x` and must stay in the graph; only the maximum may be detached.", caught_by="gradients"
)
def detached_normaliser(x, dim=-1):
    return with_care(x, dim, lambda y: y - (top_of(y, dim) + log_sum(y - top_of(y, dim), dim)).detach())


@exercise.wrong(
    "The gradients of the two uses of the maximum cancel: detached in one place only, the other is left over. "
    "Detach it once, before both uses.",
    caught_by="gradients",
)
def shift_detached_once(x, dim=-1):
    return with_care(x, dim, lambda y: y - top_of(y, dim).detach() - log_sum(y - top_of(y, dim), dim))


@exercise.wrong(
    "In float16 a sum overflows above 65 504, and in bfloat16 it is rounded to 8 bits: compute in float32 and "
    "cast the result back."
)
def sum_in_half_precision(x, dim=-1):
    if not x.is_floating_point() or x.numel() == 0:
        return log_softmax(x, dim)
    return x - top_of(x, dim) - log_sum(x - top_of(x, dim), dim)


@exercise.wrong("Cast the result back: it has the dtype of `x`.", caught_by="dtype")
def half_comes_back_as_float32(x, dim=-1):
    return log_softmax(x.float() if x.is_floating_point() and x.itemsize == 2 else x, dim)


@exercise.wrong("float64 scores are computed in float64: only the half precisions need a cast to float32.")
def everything_in_float32(x, dim=-1):
    return log_softmax(x.float(), dim).to(x.dtype) if x.is_floating_point() else log_softmax(x, dim)


@exercise.wrong("Integer scores are an error here (TypeError), not something to convert silently.", caught_by="errors")
def integers_are_converted(x, dim=-1):
    return log_softmax(x if x.is_floating_point() else x.float(), dim)


@exercise.wrong("`x -= ...` changes the caller's tensor. Make a new one: x - ...", caught_by="inputs")
def shifts_in_place(x, dim=-1):
    if x.is_floating_point() and x.numel():
        with torch.no_grad():
            x -= x.amax(dim, keepdim=True)
    return log_softmax(x, dim)


@exercise.wrong("A size-0 tensor has no maximum to take: return a size-0 result before amax fails.", caught_by="runs")
def fails_on_no_columns(x, dim=-1):
    if not x.is_floating_point():
        raise TypeError
    y = x.float() if x.itemsize == 2 else x
    return (y - top_of(y, dim) - log_sum(y - top_of(y, dim), dim)).to(x.dtype)


@exercise.wrong("No loop over rows: one exp and one sum along `dim` do all slices at once.", caught_by="growth")
def row_by_row(x, dim=-1):
    def one(row):
        shifted = row - row.max()
        return shifted - shifted.exp().sum().log()

    return rows_joined(x, dim, one)


@exercise.wrong(
    "A 0-d tensor is one score: `-x.ndim <= dim < x.ndim` refuses its dimensions 0 and -1.", caught_by="runs"
)
def single_number_is_refused(x, dim=-1):
    if not -x.ndim <= dim < x.ndim and x.is_floating_point():
        raise IndexError
    return log_softmax(x, dim)


@exercise.right("minus the log of a sum, with the maximum kept out of the graph")
def detached_log_sum_exp(x, dim=-1):
    def normalise(y):
        top = y.detach().max(dim, keepdim=True).values
        return y - (top + torch.log(torch.sum(torch.exp(y - top), dim, keepdim=True)))

    return with_care(x, dim, normalise)


@exercise.right("with log1p of what the other classes add")
def by_log1p(x, dim=-1):
    def normalise(y):
        best = y.argmax(dim, keepdim=True)
        z = y - y.gather(dim, best)
        others = z.exp().scatter(dim, best, 0.0).sum(dim, keepdim=True)
        return z - others.log1p()

    return with_care(x, dim, normalise)
