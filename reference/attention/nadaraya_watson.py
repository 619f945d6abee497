"""Regression by a weighted average of the neighbours."""

import torch
from torch import Tensor

from grader import Case, Cost, Exercise
from reference.attention import FORBID


def nadaraya_watson(
    queries: Tensor, keys: Tensor, values: Tensor, sigma: float | Tensor = 1.0
) -> tuple[Tensor, Tensor]:
    """Estimate a function at `queries` from samples (keys, values): near samples count more.

    Args:
        queries: points at which to estimate, shape (Q,); Q = 0 is legal.
        keys: points at which the function is known, shape (N,), N >= 1.
        values: its values there, shape (N,).
        sigma: width of the Gaussian kernel, a number or a 0-d tensor, > 0.

    Returns:
        A pair (estimate, weights). The weights, shape (Q, N), are proportional to exp(-(q_i - k_j)^2 / (2 sigma^2)),
        and each row sums to 1; the estimate, shape (Q,), is the average of the values with these weights. Both are
        finite even when every key is so far away that its kernel is 0 in floating point, and both are differentiable.

    Raises:
        ValueError: `sigma` is not positive, there are no keys, or keys and values differ in number.

    Example:
        >>> keys, values = torch.tensor([-1.0, 1.0]), torch.tensor([2.0, 6.0])
        >>> nadaraya_watson(torch.tensor([0.0]), keys, values)
        (tensor([4.]), tensor([[0.5000, 0.5000]]))
    """
    if sigma <= 0:
        raise ValueError(f"sigma must be positive, got {sigma}")
    if len(keys) == 0 or len(keys) != len(values):
        raise ValueError(
            f"there are {len(keys)} keys and {len(values)} values; wanted at least one, and as many of each"
        )
    distances = (queries[:, None] - keys) / sigma
    weights = torch.softmax(-0.5 * distances**2, dim=1)
    return weights @ values, weights


exercise = Exercise(
    nadaraya_watson,
    points=5,
    gradients=("queries", "keys", "values", "sigma"),
    cost=Cost(ops=16, maxel="result"),
    forbid=FORBID,
    hints=(
        "queries[:, None] - keys is a table with a row per query and a column per key.",
        "exp(s_j) divided by the sum of all exp(s_j): which function of torch is that, and is it safe for very low s?",
        "weights = torch.softmax(-(queries[:, None] - keys)**2 / (2 * sigma**2), dim=1); estimate = weights @ values.",
    ),
    source="D2L attention-mechanisms-and-transformers/attention-pooling, queries-keys-values",
)


@exercise.truth
def truth(queries, keys, values, sigma=1.0):
    rows = [queries.new_zeros(0, len(keys))]
    for q in queries:
        exponents = -((q - keys) ** 2) / (2 * sigma**2)
        parts = (exponents - exponents.detach().max()).exp()
        rows.append((parts / parts.sum())[None])
    weights = torch.cat(rows)
    return (weights * values).sum(1), weights


@exercise.cases
def cases(draw):
    yield Case("4 queries, 7 keys", draw.normal(4), draw.normal(7), draw.normal(7))
    yield Case("narrow kernel", draw.normal(5), draw.normal(8), draw.normal(8), 0.3)
    yield Case("sigma as a tensor", draw.normal(3), draw.normal(6), draw.normal(6), torch.tensor(0.7))
    yield Case("wide kernel", 3 * draw.normal(3), 3 * draw.normal(5), draw.normal(5), sigma=4.0)
    yield Case("all keys far away", draw.normal(3), 0.03 * draw.normal(6) + 10.0, draw.normal(6), 0.5)
    yield Case(
        "sigma 0.01 at a distance of 100", torch.tensor([0.0, 50.0]), torch.tensor([-100.0, 150.0, 151.0]),
        draw.normal(3), 0.01, edge=True, grad=False,
    )  # fmt: skip
    yield Case("one key", draw.normal(4), draw.normal(1), draw.normal(1), 0.5, edge=True)
    yield Case("the same key twice", draw.normal(3), torch.tensor([0.5, -1.0, 0.5, 2.0]), draw.normal(4), edge=True)
    yield Case("no queries", torch.zeros(0), draw.normal(5), draw.normal(5), edge=True)
    yield Case("32 queries, 40 keys", draw.normal(32), draw.normal(40), draw.normal(40), 0.6, cost=True)
    yield Case("sigma 0", draw.normal(3), draw.normal(4), draw.normal(4), 0.0, raises=ValueError)
    yield Case("no keys", draw.normal(3), torch.zeros(0), torch.zeros(0), raises=ValueError)
    yield Case("fewer values than keys", draw.normal(3), draw.normal(4), draw.normal(3), raises=ValueError)
    yield Case("one value for all keys", draw.normal(3), draw.normal(4), draw.normal(1), raises=ValueError, hidden=True)
    yield Case("negative sigma", draw.normal(3), draw.normal(4), draw.normal(4), -1.0, raises=ValueError, hidden=True)
    yield Case(
        "sigma 0 as a tensor", draw.normal(3), draw.normal(4), draw.normal(4), torch.tensor(0.0), raises=ValueError,
        hidden=True,
    )  # fmt: skip
    yield Case("sigma as a whole number", draw.normal(3), draw.normal(6), draw.normal(6), 2, hidden=True)
    yield Case("tiny distances", 1e-3 * draw.normal(4), 1e-3 * draw.normal(6), draw.normal(6), 1e-3, hidden=True)
    yield Case("points far from 0", draw.normal(4) + 1e3, draw.normal(6) + 1e3, draw.normal(6), hidden=True)
    yield Case("values far from 0", draw.normal(4), draw.normal(6), draw.normal(6) + 1e3, 0.5, hidden=True)
    yield Case(
        "one query far from all others", torch.cat([draw.normal(3) + 10.0, torch.tensor([-4.0])]),
        0.05 * draw.normal(6) + 10.0, draw.normal(6), torch.tensor(0.9), hidden=True,
    )  # fmt: skip


@exercise.growth("queries", ops=0.0, peak=1.0)
def more_queries(draw, size):
    return Case(f"{size} queries", draw.normal(size), draw.normal(6), draw.normal(6))


@exercise.growth("keys", ops=0.0, peak=1.0)
def more_keys(draw, size):
    return Case(f"{size} keys", draw.normal(5), draw.normal(size), draw.normal(size))


def _exponents(queries, keys, values, sigma):
    """Check the arguments and return -(q - k)^2 / (2 sigma^2), shape (Q, N)."""
    if sigma <= 0 or not len(keys) or len(keys) != len(values):
        raise ValueError
    return -((queries[:, None] - keys) ** 2) / (2 * sigma**2)


@exercise.wrong(
    "When all keys are far away every exp underflows to 0, and 0 / 0 is nan. A softmax of -(q - k)^2 / (2 sigma^2) is "
    "the same ratio, computed safely.",
    caught_by="finite",
)
def exp_then_divide(queries, keys, values, sigma=1.0):
    kernels = _exponents(queries, keys, values, sigma).exp()
    weights = kernels / kernels.sum(1, keepdim=True)
    return weights @ values, weights


@exercise.wrong("A small number added to the sum avoids nan, but then far away all weights are 0 and do not sum to 1.")
def small_number_in_the_denominator(queries, keys, values, sigma=1.0):
    kernels = _exponents(queries, keys, values, sigma).exp()
    weights = kernels / (kernels.sum(1, keepdim=True) + 1e-12)
    return weights @ values, weights


@exercise.wrong("Each query spreads a weight of 1 over the keys: normalise along the keys, dim 1.")
def normalised_over_queries(queries, keys, values, sigma=1.0):
    weights = torch.softmax(_exponents(queries, keys, values, sigma), 0)
    return weights @ values, weights


@exercise.wrong("All weights together sum to 1 here; each row, that is each query, must.")
def normalised_over_everything(queries, keys, values, sigma=1.0):
    exponents = _exponents(queries, keys, values, sigma)
    weights = torch.softmax(exponents.flatten(), 0).reshape(exponents.shape)
    return weights @ values, weights


@exercise.wrong(
    "The rows of the weights are queries, (Q, N); the figure in the English edition of the book has the keys in "
    "the rows.",
    caught_by="shape",
)
def keys_in_rows(queries, keys, values, sigma=1.0):
    estimate, weights = nadaraya_watson(queries, keys, values, sigma)
    return estimate, weights.T.contiguous()


@exercise.wrong("The exponent of a Gaussian is -d^2 / (2 sigma^2): the 2 is missing.")
def without_the_two(queries, keys, values, sigma=1.0):
    weights = torch.softmax(2 * _exponents(queries, keys, values, sigma), 1)
    return weights @ values, weights


@exercise.wrong("The Gaussian kernel takes the squared distance, not its absolute value.")
def absolute_distance(queries, keys, values, sigma=1.0):
    _exponents(queries, keys, values, sigma)
    weights = torch.softmax(-(queries[:, None] - keys).abs() / (2 * sigma**2), 1)
    return weights @ values, weights


@exercise.wrong("sigma is squared, too: the distance is measured in units of sigma.")
def sigma_not_squared(queries, keys, values, sigma=1.0):
    weights = torch.softmax(_exponents(queries, keys, values, sigma) * sigma, 1)
    return weights @ values, weights


@exercise.wrong("sigma is an argument: do not leave it at 1.")
def sigma_ignored(queries, keys, values, sigma=1.0):
    _exponents(queries, keys, values, sigma)
    return nadaraya_watson(queries, keys, values)


@exercise.wrong("The exponent is negative: near keys count more, not less.")
def sign_forgotten(queries, keys, values, sigma=1.0):
    weights = torch.softmax(-_exponents(queries, keys, values, sigma), 1)
    return weights @ values, weights


@exercise.wrong(
    "q^2 - 2 q k + k^2 loses its digits when q and k are large and close: take the difference first, then square it.",
    caught_by="values",
)
def square_expanded(queries, keys, values, sigma=1.0):
    _exponents(queries, keys, values, sigma)
    square = queries[:, None] ** 2 - 2 * queries[:, None] * keys + keys**2
    weights = torch.softmax(-square / (2 * sigma**2), 1)
    return weights @ values, weights


@exercise.wrong(
    "sigma may be a tensor that is learned: float(sigma) or item() cuts its gradient.", caught_by="gradients"
)
def sigma_made_a_number(queries, keys, values, sigma=1.0):
    return nadaraya_watson(queries, keys, values, float(sigma))


@exercise.wrong("The weights are returned to be used, gradient included: do not detach them.", caught_by="gradients")
def weights_detached(queries, keys, values, sigma=1.0):
    estimate, weights = nadaraya_watson(queries, keys, values, sigma)
    return estimate, weights.detach()


@exercise.wrong("Raise ValueError for a sigma of 0 or less: a kernel has a positive width.", caught_by="errors")
def any_sigma(queries, keys, values, sigma=1.0):
    return nadaraya_watson(queries, keys, values, abs(sigma) + (sigma == 0))


@exercise.wrong(
    "Compare the numbers of keys and values: otherwise a single value would be used for all keys.", caught_by="errors"
)
def values_broadcast(queries, keys, values, sigma=1.0):
    if sigma <= 0 or not len(keys):
        raise ValueError
    weights = torch.softmax(-((queries[:, None] - keys) ** 2) / (2 * sigma**2), 1)
    return (weights * values).sum(1), weights


@exercise.wrong("Return the pair (estimate, weights).", caught_by="type")
def estimate_alone(queries, keys, values, sigma=1.0):
    return nadaraya_watson(queries, keys, values, sigma)[0]


@exercise.wrong("A loop over the queries: queries[:, None] - keys holds all distances at once.", caught_by="growth")
def query_by_query(queries, keys, values, sigma=1.0):
    rows = [torch.softmax(row, 0) for row in _exponents(queries, keys, values, sigma)]
    weights = torch.stack(rows) if rows else queries.new_zeros(0, len(keys))
    return weights @ values, weights


@exercise.right("shifted exponentials by hand")
def shifted(queries, keys, values, sigma=1.0):
    exponents = _exponents(queries, keys, values, sigma)
    kernels = torch.exp(exponents - exponents.amax(1, keepdim=True))
    weights = kernels / kernels.sum(1, keepdim=True)
    return torch.einsum("qn,n->q", weights, values), weights


@exercise.right("through the logarithm of the sum")
def by_logarithms(queries, keys, values, sigma=1.0):
    exponents = _exponents(queries, keys, values, sigma)
    weights = (exponents - exponents.logsumexp(-1).unsqueeze(-1)).exp()
    return (weights * values.expand(len(queries), -1)).sum(-1), weights
