"""Layer normalisation."""

import torch
from torch import Tensor

from grader import Case, Cost, Exercise
from reference.normalization import FORBID


def layer_norm(X: Tensor, gamma: Tensor, beta: Tensor, eps: float = 1e-5) -> Tensor:
    """Normalise each sample over its last axes to mean 0 and variance 1, then scale by `gamma` and shift by `beta`.

    The normalised axes are the last `gamma.ndim` ones. Every position of the other axes has its own mean and biased
    variance (divided by n), in training and in use: there are no running values.

    Args:
        X: `(..., *gamma.shape)`, floating point; all tensors share its dtype. For float16 and bfloat16
            mean, variance and the normalised values are computed in float32; the result is rounded to X's dtype.
        gamma: the scale, of the shape of the normalised axes; at least 1-D.
        beta: the shift, shaped like `gamma`.
        eps: added to the variance, inside the root.

    Returns:
        Tensor shaped like `X`, of its dtype: gamma * (X - mean) / sqrt(var + eps) + beta. Where a single value is
        normalised the result is `beta`. Empty leading axes give an empty result.

    Raises:
        ValueError: `gamma` is 0-d, `beta` is not shaped like `gamma`, or the last axes of `X` are not of that shape.

    Example:
        >>> X = torch.tensor([[0.0, 2.0], [10.0, 30.0]])
        >>> layer_norm(X, torch.tensor([1.0, 2.0]), torch.tensor([0.0, 5.0]))
        tensor([[-1.0000,  7.0000],
                [-1.0000,  7.0000]])
    """
    k = gamma.ndim
    if k == 0 or beta.shape != gamma.shape or X.shape[-k:] != gamma.shape:
        raise ValueError(f"cannot normalise {tuple(X.shape)} by {tuple(gamma.shape)} and {tuple(beta.shape)}")
    axes = tuple(range(-k, 0))
    values = X.float() if X.dtype in (torch.float16, torch.bfloat16) else X
    centred = values - values.mean(axes, keepdim=True)
    X_hat = centred / (centred.square().mean(axes, keepdim=True) + eps).sqrt()
    return (gamma * X_hat + beta).to(X.dtype)


exercise = Exercise(
    layer_norm,
    points=5,
    gradients=("X", "gamma", "beta"),
    cost=Cost(ops=14, peak={"X": 5.25}),
    forbid=(*FORBID, "std", "std_mean"),
    hints=(
        "Which numbers belong to one sample? How many of the last axes does gamma cover?",
        "axes = tuple(range(-gamma.ndim, 0)); mean and variance over them with keepdim=True broadcast by themselves.",
        "centred = X - X.mean(axes, keepdim=True); divide by (centred.square().mean(axes, keepdim=True) + eps).sqrt(), "
        "then gamma * ... + beta; half types go through .float() and back.",
    ),
    source="D2L convolutional-modern/batch-norm, attention-mechanisms-and-transformers/transformer",
)


@exercise.truth
def truth(X, gamma, beta, eps=1e-5):
    if X.dtype in (torch.float16, torch.bfloat16):  # not rounded: the engine compares with the exact value
        X, gamma, beta = X.double(), gamma.double(), beta.double()
    if gamma.numel() == 1:
        return 0 * X * gamma + beta
    return torch.nn.functional.layer_norm(X, gamma.shape, gamma, beta, eps)


def mean_and_variance(layer_norm, X, dtype):
    one, zero = torch.ones(X.shape[-1], dtype=dtype), torch.zeros(X.shape[-1], dtype=dtype)
    Y = layer_norm(X.to(dtype), one, zero).double()
    var, mean = torch.var_mean(Y, -1, unbiased=False)
    return {
        "every row has mean 0": bool((mean.abs() < 0.02).all()),
        "every row has variance 1": bool(((var - 1).abs() < 0.02).all()),
    }


def alone_and_in_a_batch(layer_norm, X, gamma, beta):
    return {"batch": layer_norm(X, gamma, beta), "one sample": layer_norm(X[1:2], gamma, beta)}


@exercise.cases
def cases(draw):
    def three(shape, k=1, scale=1.0, offset=0.0):
        last = shape[len(shape) - k :]
        return scale * draw.normal(*shape) + offset, 1 + 0.5 * draw.normal(*last), draw.normal(*last)

    yield Case("rows", *three((4, 6)))
    yield Case("a batch of sequences", *three((2, 3, 5)))
    yield Case("a vector", *three((7,)))
    yield Case("images, over the last axis", *three((2, 3, 5, 4)))
    yield Case("images, over the last two axes", *three((2, 3, 4, 5), 2))
    yield Case("one matrix, over both axes", *three((3, 5), 2))
    yield Case("as many rows as columns", *three((4, 4)))
    yield Case("another eps", *three((3, 5)), eps=0.2)
    yield Case("small numbers, another eps", *three((3, 5), scale=1e-3), 1e-6)
    yield Case("tiny values", *three((4, 2, 6), scale=1e-3))
    yield Case("mean 10 000", *three((5, 8), offset=1e4))
    yield Case("rows far apart", *three((3, 6), offset=torch.tensor([[-500.0], [0.0], [1e3]])))
    yield Case("rows of different size", *three((3, 6), scale=torch.tensor([[1.0], [1e-2], [100.0]])))
    yield Case("width 1", *three((4, 1)), edge=True)
    X, gamma, beta = three((3, 4))
    X[1:] = torch.tensor([[2.0], [-8.0]])
    yield Case("constant rows", X, gamma, beta, edge=True)
    yield Case("no rows", *three((0, 5)), edge=True)
    yield Case("no matrices, over two axes", *three((0, 3, 4), 2), edge=True)
    yield Case("a sample alone and in a batch", *three((4, 3, 6)), probe=alone_and_in_a_batch)
    half = [t.bfloat16() for t in three((4, 16), scale=8.0, offset=300.0)]
    yield Case("bfloat16 with mean 300", *half, edge=True)
    half = [t.half() for t in three((3, 12), scale=4.0, offset=300.0)]
    yield Case("float16 with mean 300", *half, edge=True)
    for name, dtype, scale in (("bfloat16", torch.bfloat16, 8), ("float16", torch.float16, 2)):
        X = scale * draw.normal(6, 24) + 300
        yield Case(f"{name}, mean and variance of the result", X, dtype, probe=mean_and_variance, edge=True,
                   double=False, layouts=False)  # fmt: skip
    yield Case("large rows", *three((16, 256)), cost=True)
    yield Case("more rows", *three((6, 9), scale=20.0, offset=3.0), hidden=True)
    yield Case("more sequences, over two axes", *three((3, 2, 5, 4), 2), 1e-3, hidden=True)
    yield Case("images, over the last three axes", *three((2, 3, 4, 5), 3), hidden=True)
    yield Case("a 4-D mean 10 000", *three((2, 3, 2, 7), offset=-1e4), hidden=True)
    yield Case("rows of very different size", *three((3, 5), scale=torch.tensor([[1e3], [1e-3], [1.0]])), hidden=True)
    X, gamma, beta = three((4, 6))
    yield Case("gamma for another width", X, draw.normal(5), draw.normal(5), raises=ValueError)
    yield Case("beta for another width", X, gamma, draw.normal(5), raises=ValueError)
    yield Case("gamma of size 1", X, draw.normal(1), beta, raises=ValueError)
    yield Case("beta of size 1", X, gamma, draw.normal(1), raises=ValueError)
    yield Case("gamma and beta of size 1", X, draw.normal(1), draw.normal(1), raises=ValueError)
    yield Case("gamma and beta 0-d", X, torch.tensor(1.0), torch.tensor(0.0), raises=ValueError)
    yield Case(
        "a number for X", torch.tensor(2.0), torch.tensor(1.0), torch.tensor(0.0), raises=ValueError, hidden=True
    )
    yield Case("gamma with more axes than X", X[0], draw.normal(1, 6), draw.normal(1, 6), raises=ValueError)
    yield Case(
        "gamma for the first axis", draw.normal(3, 5), draw.normal(3), draw.normal(3), raises=ValueError, hidden=True
    )
    yield Case("gamma for the last two axes, swapped", draw.normal(2, 3, 5), draw.normal(5, 3), draw.normal(5, 3),
               raises=ValueError, hidden=True)  # fmt: skip


@exercise.growth("rows", ops=0.0, peak=1.0)
def more_rows(draw, size):
    return Case(f"{size} rows", draw.normal(size, 10), torch.ones(10), torch.zeros(10))


@exercise.growth("width", ops=0.0, peak=1.0)
def wider(draw, size):
    return Case(f"width {size}", draw.normal(20, size), torch.ones(size), torch.zeros(size))


HALF = (torch.float16, torch.bfloat16)


def _check(X, gamma, beta):
    if gamma.ndim == 0 or beta.shape != gamma.shape or X.shape[-gamma.ndim :] != gamma.shape:
        raise ValueError


def _axes(X, gamma):
    return tuple(range(-gamma.ndim, 0))


def _moments(X, axes):
    centred = X - X.mean(axes, keepdim=True)
    return centred, centred.square().mean(axes, keepdim=True)


def _root(var, eps):
    return (var + eps).sqrt()


def _wide(X):
    return X.float() if X.dtype in HALF else X


def _steps(X, gamma, beta, eps=1e-5, *, check=_check, axes=_axes, moments=_moments, root=_root, wide=_wide):
    """Layer norm with exchangeable steps."""
    check(X, gamma, beta)
    centred, var = moments(wide(X), axes(X, gamma))
    return (gamma * (centred / root(var, eps)) + beta).to(X.dtype)


@exercise.wrong("Each sample normalises itself: the statistics run over the features, not over the batch.")
def statistics_over_the_batch(*args, **kwargs):
    return _steps(*args, **kwargs, axes=lambda X, gamma: (0,) if len(X) > 1 else _axes(X, gamma))


@exercise.wrong("One mean for all samples makes them depend on one another: keep the leading axes apart.")
def one_mean_for_all(*args, **kwargs):
    return _steps(*args, **kwargs, axes=lambda *both: tuple(range(both[0].ndim)))


@exercise.wrong("Normalise exactly the last gamma.ndim axes, not everything behind the batch axis.")
def everything_behind_the_batch(*args, **kwargs):
    return _steps(*args, **kwargs, axes=lambda X, gamma: tuple(range(min(1, X.ndim - gamma.ndim), X.ndim)))


@exercise.wrong("gamma may cover several axes: normalise over the last gamma.ndim axes of X, not always over one.")
def always_the_last_axis(*args, **kwargs):
    return _steps(*args, **kwargs, axes=lambda *_: (-1,))


@exercise.wrong("The normalised axes are the last gamma.ndim ones, not the first.")
def the_first_axes(*args, **kwargs):
    return _steps(*args, **kwargs, axes=lambda X, gamma: tuple(range(gamma.ndim)) if X.numel() else _axes(X, gamma))


@exercise.wrong("var() and std() divide by n - 1 by default: ask for the biased variance, divided by n.")
def unbiased_variance(*args, **kwargs):
    return _steps(*args, **kwargs, moments=lambda X, axes: (X - X.mean(axes, keepdim=True), X.var(axes, keepdim=True)))


@exercise.wrong("std() is not allowed here: eps belongs inside the root, so take the root of var + eps yourself.",
                caught_by="forbidden")  # fmt: skip
def asks_std(X, gamma, beta, eps=1e-5):
    _check(X, gamma, beta)
    Y, axes = _wide(X), _axes(X, gamma)
    deviation = Y.std(axes, unbiased=False, keepdim=True)
    return (gamma * (Y - Y.mean(axes, keepdim=True)) / (deviation.square() + eps).sqrt() + beta).to(X.dtype)


@exercise.wrong("eps belongs inside the root: sqrt(var + eps), not sqrt(var) + eps.")
def eps_added_to_the_deviation(*args, **kwargs):
    return _steps(*args, **kwargs, root=lambda var, eps: var.sqrt() + eps)


@exercise.wrong("eps is an argument: 1e-5 is only its default.")
def fixed_eps(X, gamma, beta, eps=1e-5):
    return _steps(X, gamma, beta)


@exercise.wrong("A constant row has variance 0: only eps keeps the division finite.", caught_by="finite")
def no_eps(X, gamma, beta, eps=1e-5):
    return _steps(X, gamma, beta, 0.0)


@exercise.wrong("eps is added to the variance before the root is taken, once: it is not squared.")
def eps_squared(X, gamma, beta, eps=1e-5):
    return _steps(X, gamma, beta, eps**2)


@exercise.wrong("Divide by the root of the variance, not by the variance.")
def divides_by_the_variance(*args, **kwargs):
    return _steps(*args, **kwargs, root=lambda var, eps: var + eps)


@exercise.wrong("E[x^2] - E[x]^2 cancels when the mean is large and may even fall below 0: average (x - mean)^2.")
def one_pass_variance(*args, **kwargs):
    def moments(X, axes):
        mean = X.mean(axes, keepdim=True)
        return X - mean, X.square().mean(axes, keepdim=True) - mean.square()

    return _steps(*args, **kwargs, moments=moments)


@exercise.wrong("The mean must be taken away before dividing: without that this is RMS norm.")
def mean_not_subtracted(*args, **kwargs):
    return _steps(*args, **kwargs, moments=lambda X, axes: (X, X.square().mean(axes, keepdim=True)))


@exercise.wrong("Layer norm keeps no running values: each sample is normalised by its own statistics alone.")
def mixes_with_running_values(*args, **kwargs):
    def moments(X, axes):
        centred, var = _moments(X, axes)
        return X - 0.1 * X.mean(axes, keepdim=True), 0.9 + 0.1 * var

    return _steps(*args, **kwargs, moments=moments)


@exercise.wrong("bfloat16 has 8 bits of mantissa: a mean of 300 is known to 1 only. Take the statistics in float32.")
def statistics_in_half(*args, **kwargs):
    return _steps(*args, **kwargs, wide=lambda X: X)


@exercise.wrong("Compute the statistics in float32, but return X's dtype.", caught_by="dtype")
def result_in_float32(X, gamma, beta, eps=1e-5):
    return _steps(_wide(X), gamma, beta, eps)


@exercise.wrong("Only half types need float32: .float() throws away half of a float64.")
def always_in_float32(*args, **kwargs):
    return _steps(*args, **kwargs, wide=lambda X: X.float())


@exercise.wrong("The gradient passes through mean and variance, too: do not detach them.", caught_by="gradients")
def detached_statistics(*args, **kwargs):
    def moments(X, axes):
        return X - X.detach().mean(axes, keepdim=True), _moments(X.detach(), axes)[1]

    return _steps(*args, **kwargs, moments=moments)


@exercise.wrong("The gradient passes through the variance, too.", caught_by="gradients")
def detached_variance(*args, **kwargs):
    return _steps(*args, **kwargs, moments=lambda X, axes: (_moments(X, axes)[0], _moments(X.detach(), axes)[1]))


@exercise.wrong("Scale and shift come last: gamma * X_hat + beta.")
def beta_forgotten(X, gamma, beta, eps=1e-5):
    return _steps(X, gamma, beta, eps) - beta


@exercise.wrong("Shift after scaling: gamma * x + beta, not gamma * (x + beta).")
def shifts_before_scaling(X, gamma, beta, eps=1e-5):
    return _steps(X, gamma, beta, eps) - beta + gamma * beta


@exercise.wrong(
    "Scale and shift after normalising; before it they would change the statistics, which take part of them back."
)
def affine_first(X, gamma, beta, eps=1e-5):
    _check(X, gamma, beta)
    return _steps((gamma * _wide(X) + beta).to(X.dtype), torch.ones_like(gamma), torch.zeros_like(beta), eps)


@exercise.wrong("Compare the shapes yourself: a gamma or beta of size 1 broadcasts silently.", caught_by="errors")
def small_vectors_broadcast(X, gamma, beta, eps=1e-5):
    try:
        if gamma.ndim == 0 or gamma.ndim > X.ndim or (X + gamma + beta).shape != X.shape:
            raise ValueError
    except RuntimeError:
        raise ValueError from None
    return _steps(X, gamma.expand(X.shape[-gamma.ndim :]), beta.expand(X.shape[-gamma.ndim :]), eps)


@exercise.wrong("Shapes that do not fit must raise ValueError; broadcasting alone raises RuntimeError, or nothing.",
                caught_by="errors")  # fmt: skip
def no_check(*args, **kwargs):
    return _steps(*args, **kwargs, check=lambda *_: None)


@exercise.wrong("gamma must have at least one axis: a 0-d gamma names no axis to normalise.", caught_by="errors")
def number_for_gamma(X, gamma, beta, eps=1e-5):
    if gamma.ndim == 0 == beta.ndim:
        return _steps(X, gamma.expand(X.shape[-1:]), beta.expand(X.shape[-1:]), eps)
    return _steps(X, gamma, beta, eps)


@exercise.wrong("X may have any memory layout: reshape works where view raises.", caught_by="runs")
def views_rows(X, gamma, beta, eps=1e-5):
    _check(X, gamma, beta)
    n = gamma.numel()
    return _steps(X.view(-1, n), gamma.reshape(n), beta.reshape(n), eps).view(X.shape)


@exercise.wrong("`-=` on X changes the caller's tensor: make a new one.", caught_by="inputs")
def works_in_place(X, gamma, beta, eps=1e-5):
    out = _steps(X, gamma, beta, eps)
    if X.numel() and 0 not in X.stride():
        with torch.no_grad():
            X -= X.mean(_axes(X, gamma), keepdim=True)
    return out


@exercise.wrong("One reduction over the last axes serves all rows at once: no loop over rows.", caught_by="growth")
def loops_over_rows(X, gamma, beta, eps=1e-5):
    _check(X, gamma, beta)
    rows = X.reshape(-1, *gamma.shape)
    if not len(rows):
        return X.clone()
    return torch.stack([_steps(row, gamma, beta, eps) for row in rows]).reshape(X.shape)


@exercise.right("flattened rows and var_mean")
def flat_rows(X, gamma, beta, eps=1e-5):
    _check(X, gamma, beta)
    rows = X.flatten(X.ndim - gamma.ndim)
    rows = rows.to(torch.float64) if X.itemsize == 2 else rows
    var, mean = torch.var_mean(rows, -1, correction=0, keepdim=True)
    X_hat = (rows - mean) * torch.rsqrt(var + eps)
    return torch.addcmul(beta, X_hat.reshape(X.shape), gamma).to(X.dtype)


@exercise.right("projections by matrix products")
def matrix_products(X, gamma, beta, eps=1e-5):
    _check(X, gamma, beta)
    n = gamma.numel()
    rows = _wide(X).reshape(X.numel() // n, n)
    average = torch.full((n, 1), 1 / n, dtype=rows.dtype)
    centred = rows - rows @ average
    out = centred / torch.sqrt((centred * centred) @ average + eps)
    return (out.reshape(X.shape) * gamma + beta).to(X.dtype)


@exercise.right("scale and shift in the half type")
def affine_in_half(X, gamma, beta, eps=1e-5):
    _check(X, gamma, beta)
    centred, var = _moments(_wide(X), _axes(X, gamma))
    return gamma * (centred * _root(var, eps).reciprocal()).to(X.dtype) + beta
