"""Group normalisation."""

import math

import torch
from torch import Tensor

from grader import Case, Cost, Exercise
from reference.normalization import FORBID


def group_norm(X: Tensor, num_groups: int, gamma: Tensor, beta: Tensor, eps: float = 1e-5) -> Tensor:
    """Normalise groups of neighbouring channels, each image on its own; then scale and shift each channel.

    Group g of G holds the channels g * C/G, ..., (g + 1) * C/G - 1. Mean and biased variance (divided by n) are
    taken per image and group, over the group's channels and all trailing axes. With G = 1 the whole image is one
    group, with G = C each channel is (instance norm).

    Args:
        X: `(N, C, *)` with any number of trailing axes, also none; floating point, all tensors share its dtype.
        num_groups: G, a divisor of C.
        gamma: `(C,)`, the scale of each channel.
        beta: `(C,)`, the shift of each channel.
        eps: added to the variance, inside the root.

    Returns:
        Tensor shaped like `X`: gamma * (X - mean) / sqrt(var + eps) + beta. Groups of a single value give `beta`.
        N = 0 gives an empty result.

    Raises:
        ValueError: `X` has fewer than 2 axes, `num_groups` is below 1 or does not divide C, or `gamma` or `beta` is
            not of shape `(C,)`.

    Example:
        >>> X = torch.tensor([[0.0, 2.0, 10.0, 30.0]])
        >>> group_norm(X, 2, torch.ones(4), torch.tensor([0.0, 0.0, 5.0, 5.0]))
        tensor([[-1.0000,  1.0000,  4.0000,  6.0000]])
    """
    if X.ndim < 2:
        raise ValueError(f"X must be (N, C, ...), got shape {tuple(X.shape)}")
    N, C = len(X), X.shape[1]
    if num_groups < 1 or C % num_groups:
        raise ValueError(f"{num_groups} groups do not divide {C} channels")
    if gamma.shape != (C,) or beta.shape != (C,):
        raise ValueError(f"gamma and beta must have shape ({C},)")
    groups = X.reshape(N * num_groups, math.prod(X.shape[1:]) // num_groups)  # one row per image and group
    centred = groups - groups.mean(1, keepdim=True)
    X_hat = (centred / (centred.square().mean(1, keepdim=True) + eps).sqrt()).reshape(X.shape)
    shape = (C,) + (1,) * (X.ndim - 2)
    return gamma.reshape(shape) * X_hat + beta.reshape(shape)


exercise = Exercise(
    group_norm,
    points=8,
    gradients=("X", "gamma", "beta"),
    cost=Cost(ops=14, peak={"X": 5.25}),
    forbid=FORBID,
    hints=(
        "Which numbers share a mean? Can a reshape put them next to each other?",
        "X.reshape(N * G, n) with n = C // G * H * W puts the channels of a group and their pixels into one row.",
        "Normalise the rows of X.reshape(N * G, n), reshape back to X.shape, then gamma and beta as (C, 1, ..., 1).",
    ),
    source="D2L convolutional-modern/batch-norm; Wu and He 2018, Group Normalization",
)


@exercise.truth
def truth(X, num_groups, gamma, beta, eps=1e-5):
    per_channel = gamma.reshape(-1, *[1] * (X.ndim - 2)), beta.reshape(-1, *[1] * (X.ndim - 2))
    size = X.shape[1] // num_groups
    out = torch.zeros_like(X)
    for image in range(len(X)):
        for group in range(num_groups):
            channels = slice(group * size, (group + 1) * size)
            values = X[image, channels]
            deviation = torch.sqrt(torch.sum((values - values.mean()) ** 2) / values.numel() + eps)
            out[image, channels] = (values - values.mean()) / deviation
    return out * per_channel[0] + per_channel[1]


def alone_and_in_a_batch(group_norm, X, num_groups, gamma, beta):
    return {"batch": group_norm(X, num_groups, gamma, beta), "one image": group_norm(X[1:2], num_groups, gamma, beta)}


@exercise.cases
def cases(draw):
    def four(shape, num_groups, scale=1.0, offset=0.0):
        gamma, beta = 1 + 0.5 * draw.normal(shape[1]), draw.normal(shape[1])
        return scale * draw.normal(*shape) + offset, num_groups, gamma, beta

    yield Case("images, 2 groups", *four((2, 6, 3, 4), 2))
    yield Case("images, 3 groups", *four((2, 6, 4, 3), 3))
    yield Case("one group", *four((3, 4, 2, 5), 1))
    yield Case("a group per channel", *four((2, 3, 4, 5), 3))
    yield Case("features", *four((5, 6), 2))
    yield Case("features, one group", *four((3, 5), 1))
    yield Case("sequences", *four((2, 6, 7), 3))
    yield Case("videos", *four((2, 4, 2, 3, 5), 2))
    yield Case("as wide as it has channels", *four((3, 4, 2, 4), 2))
    yield Case("another eps", *four((2, 4, 3, 2), 2), eps=0.2)
    yield Case("mean 3000", *four((2, 6, 4, 5), 3, offset=3000.0))
    yield Case("tiny values", *four((3, 4, 5), 2, scale=1e-3))
    sizes = torch.tensor([1.0, 30.0, 0.1])[:, None, None, None]
    yield Case("images of different brightness", *four((3, 4, 2, 3), 2, scale=sizes, offset=10 * sizes))
    sizes = torch.tensor([1.0, 5.0, 0.2, 20.0, -3.0, 8.0])[:, None]
    yield Case("channels of different size", *four((2, 6, 5), 3, scale=sizes, offset=2 * sizes))
    yield Case("an image alone and in a batch", *four((3, 4, 2, 5), 2), probe=alone_and_in_a_batch)
    X, G, gamma, beta = four((2, 4, 3, 5), 2)
    X[0, :2] = 3.0
    yield Case("a constant group", X, G, gamma, beta, edge=True)
    yield Case("one value per group", *four((3, 4), 4), edge=True)
    yield Case("one row, one value per group", *four((1, 4), 4), edge=True)
    yield Case("one image", *four((1, 6, 2, 3), 3), edge=True)
    yield Case("no images", *four((0, 4, 2, 3), 2), edge=True)
    yield Case("no rows", *four((0, 6), 3), edge=True)
    X, *rest = four((2, 6, 3, 4), 3)
    yield Case("channels-last images", X.to(memory_format=torch.channels_last), *rest, edge=True)
    yield Case("large images", *four((4, 6, 12, 16), 2), cost=True)
    yield Case("more images", *four((3, 8, 2, 5), 4), eps=1e-3, hidden=True)
    yield Case("more features", *four((4, 9), 3, scale=20.0, offset=-7.0), hidden=True)
    yield Case("more sequences, a group per channel", *four((3, 5, 4), 5), hidden=True)
    yield Case("large means of either sign", *four((2, 4, 6), 2, offset=torch.tensor([[3e3], [3e3], [-5e3], [-5e3]])),
               hidden=True)  # fmt: skip
    X, *rest = four((3, 4, 5, 2), 2)
    yield Case("more channels-last images", X.to(memory_format=torch.channels_last), *rest, edge=True, hidden=True)
    X, _, gamma, beta = four((2, 6, 3, 4), 2)
    yield Case("4 groups of 6 channels", X, 4, gamma, beta, raises=ValueError)
    yield Case("more groups than channels", X, 12, gamma, beta, raises=ValueError)
    yield Case("no groups", X, 0, gamma, beta, raises=ValueError)
    yield Case("-2 groups", X, -2, gamma, beta, raises=ValueError)
    yield Case("gamma per group", X, 2, draw.normal(2), beta, raises=ValueError)
    yield Case("gamma of size 1", X, 2, draw.normal(1), beta, raises=ValueError)
    yield Case("beta of size 1", X, 2, gamma, draw.normal(1), raises=ValueError)
    yield Case("beta too long", X, 3, gamma, draw.normal(7), raises=ValueError, hidden=True)
    yield Case("gamma as a column", X, 3, gamma[:, None], beta, raises=ValueError, hidden=True)
    yield Case("a vector", draw.normal(6), 2, gamma, beta, raises=ValueError)


@exercise.growth("groups", ops=0.0, peak=1.0)
def more_groups(draw, size):
    return Case(f"{size} groups", draw.normal(2, 2 * size, 3, 4), size, torch.ones(2 * size), torch.zeros(2 * size))


@exercise.growth("images", ops=0.0, peak=1.0)
def more_images(draw, size):
    return Case(f"{size} images", draw.normal(size, 6, 2, 3), 3, torch.ones(6), torch.zeros(6))


def _check_groups(X, num_groups):
    if num_groups < 1 or X.shape[1] % num_groups:
        raise ValueError


def _check_vectors(X, gamma, beta):
    if gamma.shape != X.shape[1:2] or beta.shape != X.shape[1:2]:
        raise ValueError


def _rows(X, num_groups):
    return X.reshape(len(X), num_groups, -1 if X.numel() else 1)


def _moments(rows):
    centred = rows - rows.mean(2, keepdim=True)
    return centred, centred.square().mean(2, keepdim=True)


def _root(var, eps):
    return (var + eps).sqrt()


def _column(vector, X):
    return vector.reshape(-1, *[1] * (X.ndim - 2))


def _steps(
    X, num_groups, gamma, beta, eps=1e-5, *,
    check_groups=_check_groups, check_vectors=_check_vectors, rows=_rows, moments=_moments, root=_root, column=_column,
):  # fmt: skip
    """Group norm with exchangeable steps."""
    if X.ndim < 2:
        raise ValueError
    check_groups(X, num_groups)
    check_vectors(X, gamma, beta)
    centred, var = moments(rows(X, num_groups))
    return column(gamma, X) * (centred / root(var, eps)).reshape(X.shape) + column(beta, X)


@exercise.wrong("Groups share statistics, not scale and shift: gamma and beta stay per channel.")
def gamma_per_group(X, num_groups, gamma, beta, eps=1e-5):
    def column(vector, X):
        size = len(vector) // num_groups
        return _column(vector[::size].repeat_interleave(size), X)

    return _steps(X, num_groups, gamma, beta, eps, column=column)


@exercise.wrong("A group holds neighbouring channels, g * C/G ... (g + 1) * C/G - 1, not every G-th one.")
def interleaved_groups(X, num_groups, gamma, beta, eps=1e-5):
    _steps(X, num_groups, gamma, beta, eps)
    order = torch.arange(X.shape[1]).reshape(-1, num_groups).T.flatten()
    return _steps(X[:, order], num_groups, gamma[order], beta[order], eps)[:, order.argsort()]


@exercise.wrong("num_groups is the number of groups, not the number of channels in each.")
def group_size_for_number(X, num_groups, gamma, beta, eps=1e-5):
    _steps(X, num_groups, gamma, beta, eps)
    return _steps(X, X.shape[1] // num_groups, gamma, beta, eps)


@exercise.wrong("Each image is normalised on its own: no statistics over N.")
def statistics_over_the_batch(*args, **kwargs):
    def moments(rows):
        centred = rows - rows.mean((0, 2), keepdim=True)
        return centred, centred.square().mean((0, 2), keepdim=True)

    return _steps(*args, **kwargs, moments=moments)


@exercise.wrong("num_groups counts: with one group for everything this is layer norm.")
def one_group_for_everything(X, num_groups, gamma, beta, eps=1e-5):
    _steps(X, num_groups, gamma, beta, eps)
    return _steps(X, 1, gamma, beta, eps)


@exercise.wrong(
    "The channels of a group share one mean and variance: with statistics per channel this is instance norm."
)
def every_channel_alone(X, num_groups, gamma, beta, eps=1e-5):
    _steps(X, num_groups, gamma, beta, eps)
    return _steps(X, X.shape[1], gamma, beta, eps)


@exercise.wrong("The statistics run over the group's channels and over all trailing axes, not pixel by pixel.")
def every_pixel_alone(X, num_groups, gamma, beta, eps=1e-5):
    _steps(X, num_groups, gamma, beta, eps)
    groups = X.reshape(len(X), num_groups, X.shape[1] // num_groups, *X.shape[2:])
    centred = groups - groups.mean(2, keepdim=True)
    out = (centred / _root(centred.square().mean(2, keepdim=True), eps)).reshape(X.shape)
    return _column(gamma, X) * out + _column(beta, X)


@exercise.wrong("The variance of a group is taken around the group's mean, not the average of its channels' variances.")
def mean_of_channel_variances(X, num_groups, gamma, beta, eps=1e-5):
    def moments(rows):
        channels = rows.reshape(len(rows), X.shape[1], -1 if X.numel() else 1)
        var = (channels - channels.mean(2, keepdim=True)).square().mean(2)
        return rows - rows.mean(2, keepdim=True), var.reshape(len(rows), num_groups, -1 if X.numel() else 1).mean(
            2, keepdim=True
        )

    return _steps(X, num_groups, gamma, beta, eps, moments=moments)


@exercise.wrong("view needs contiguous memory, and channels-last images have not: use reshape.", caught_by="runs")
def views_the_groups(*args, **kwargs):
    return _steps(*args, **kwargs, rows=lambda X, G: X.view(len(X), G, -1 if X.numel() else 1))


@exercise.wrong("Without images reshape cannot tell what -1 stands for: write the size, or use unflatten and flatten.",
                caught_by="runs")  # fmt: skip
def minus_one_without_images(*args, **kwargs):
    return _steps(*args, **kwargs, rows=lambda X, G: X.reshape(len(X), G, -1))


@exercise.wrong("Return X's own shape: reshape back after normalising.", caught_by="shape")
def groups_left_in_place(X, num_groups, gamma, beta, eps=1e-5):
    return _rows(_steps(X, num_groups, gamma, beta, eps), num_groups)


@exercise.wrong(
    "Scale and shift after normalising; before it they would change the statistics, which take part of them back."
)
def affine_first(X, num_groups, gamma, beta, eps=1e-5):
    _steps(X, num_groups, gamma, beta, eps)
    Y = _column(gamma, X) * X + _column(beta, X)
    return _steps(Y, num_groups, torch.ones_like(gamma), torch.zeros_like(beta), eps)


@exercise.wrong("A (C,) vector broadcasts against the last axis: reshape it to (C, 1, ..., 1).")
def vectors_along_the_last_axis(*args, **kwargs):
    return _steps(*args, **kwargs, column=lambda vector, _: vector)


@exercise.wrong("There may be any number of trailing axes: do not count on exactly H and W.", caught_by="runs")
def images_only(X, *args, **kwargs):
    if X.ndim in (3, 5):
        raise IndexError
    return _steps(X, *args, **kwargs)


@exercise.wrong("(N, C) without trailing axes is allowed, too.", caught_by="runs")
def needs_trailing_axes(X, *args, **kwargs):
    if X.ndim < 3:
        raise ValueError
    return _steps(X, *args, **kwargs)


@exercise.wrong("var() divides by n - 1 by default: ask for the biased variance, divided by n.")
def unbiased_variance(*args, **kwargs):
    return _steps(*args, **kwargs, moments=lambda rows: (_moments(rows)[0], rows.var(2, keepdim=True)))


@exercise.wrong("eps belongs inside the root: sqrt(var + eps).")
def eps_outside_the_root(*args, **kwargs):
    return _steps(*args, **kwargs, root=lambda var, eps: var.sqrt() + eps)


@exercise.wrong("eps is an argument: 1e-5 is only its default.")
def fixed_eps(X, num_groups, gamma, beta, eps=1e-5):
    return _steps(X, num_groups, gamma, beta)


@exercise.wrong("A group of equal values has variance 0: only eps keeps the division finite.", caught_by="finite")
def no_eps(X, num_groups, gamma, beta, eps=1e-5):
    return _steps(X, num_groups, gamma, beta, 0.0)


@exercise.wrong("E[x^2] - E[x]^2 subtracts two large numbers when the mean is large: average (x - mean)^2 instead.")
def one_pass_variance(*args, **kwargs):
    def moments(rows):
        mean = rows.mean(2, keepdim=True)
        return rows - mean, rows.square().mean(2, keepdim=True) - mean.square()

    return _steps(*args, **kwargs, moments=moments)


@exercise.wrong("The gradient passes through mean and variance, too: do not detach them.", caught_by="gradients")
def detached_statistics(*args, **kwargs):
    def moments(rows):
        return rows - rows.detach().mean(2, keepdim=True), _moments(rows.detach())[1]

    return _steps(*args, **kwargs, moments=moments)


@exercise.wrong("Compute in the dtype that X has: .float() throws away half of a float64.")
def computes_in_float32(X, num_groups, gamma, beta, eps=1e-5):
    return _steps(X.float(), num_groups, gamma.float(), beta.float(), eps).to(X.dtype)


@exercise.wrong("Shift after scaling: gamma * x + beta, not gamma * (x + beta).")
def shifts_before_scaling(X, num_groups, gamma, beta, eps=1e-5):
    _check_vectors(X, gamma, beta)
    return _steps(X, num_groups, gamma, gamma * beta, eps)


@exercise.wrong("`-=` on X changes the caller's tensor: make a new one.", caught_by="inputs")
def works_in_place(X, num_groups, gamma, beta, eps=1e-5):
    out = _steps(X, num_groups, gamma, beta, eps)
    if X.numel() and 0 not in X.stride():
        with torch.no_grad():
            X.copy_(out)
    return out


@exercise.wrong("C % -2 is 0 as well: ask for num_groups >= 1 besides.", caught_by="errors")
def negative_groups_pass(*args, **kwargs):
    def check_groups(X, num_groups):
        if num_groups == 0 or X.shape[1] % num_groups:
            raise ValueError

    X, num_groups, *rest = args
    return _steps(X, num_groups, *rest, **kwargs, check_groups=check_groups, rows=lambda X, G: _rows(X, abs(G)))


@exercise.wrong("C % 0 raises ZeroDivisionError: ask for num_groups >= 1 first.", caught_by="errors")
def division_by_no_groups(*args, **kwargs):
    def check_groups(X, num_groups):
        if X.shape[1] % num_groups or num_groups < 1:
            raise ValueError

    return _steps(*args, **kwargs, check_groups=check_groups)


@exercise.wrong("The groups must divide the channels: leftover channels must raise ValueError.", caught_by="errors")
def last_group_smaller(X, num_groups, gamma, beta, eps=1e-5):
    if X.ndim < 2 or num_groups < 1:
        raise ValueError
    _check_vectors(X, gamma, beta)
    if not X.shape[1] % num_groups:
        return _steps(X, num_groups, gamma, beta, eps)
    parts = [torch.layer_norm(part, part.shape[1:]) for part in X.chunk(num_groups, 1)]
    return _column(gamma, X) * torch.cat(parts, 1) + _column(beta, X)


@exercise.wrong("A vector of size 1 broadcasts silently: compare the shapes with (C,) yourself.", caught_by="errors")
def small_vectors_broadcast(*args, **kwargs):
    def check_vectors(X, gamma, beta):
        if any(v.ndim != 1 or len(v) not in (1, X.shape[1]) for v in (gamma, beta)):
            raise ValueError

    return _steps(*args, **kwargs, check_vectors=check_vectors)


@exercise.wrong("One reshape serves all groups at once: no loop over groups.", caught_by="growth")
def loops_over_groups(X, num_groups, gamma, beta, eps=1e-5):
    if X.ndim < 2:
        raise ValueError
    _check_groups(X, num_groups)
    _check_vectors(X, gamma, beta)
    size = X.shape[1] // num_groups
    parts = [(p, gamma[i * size :][:size], beta[i * size :][:size]) for i, p in enumerate(X.split(size, 1))]
    return torch.cat([_steps(part, 1, g, b, eps) for part, g, b in parts], 1)


@exercise.wrong("All images are normalised at once: no loop over the batch.", caught_by="growth")
def loops_over_images(X, num_groups, gamma, beta, eps=1e-5):
    if not X.numel() or X.ndim < 2:
        return _steps(X, num_groups, gamma, beta, eps)
    return torch.cat([_steps(image[None], num_groups, gamma, beta, eps) for image in X])


@exercise.right("unflatten and var_mean over several axes")
def by_unflatten(X, num_groups, gamma, beta, eps=1e-5):
    if X.ndim < 2:
        raise ValueError
    _check_groups(X, num_groups)
    _check_vectors(X, gamma, beta)
    groups = X.unflatten(1, (num_groups, -1))
    var, mean = torch.var_mean(groups, tuple(range(2, groups.ndim)), correction=0, keepdim=True)
    shape = (num_groups, -1) + (1,) * (X.ndim - 2)
    out = torch.addcmul(beta.reshape(shape), (groups - mean) * (var + eps).rsqrt(), gamma.reshape(shape))
    return out.flatten(1, 2)


@exercise.right("one row per group, averages by matrix products")
def matrix_products(X, num_groups, gamma, beta, eps=1e-5):
    if X.ndim < 2:
        raise ValueError
    _check_groups(X, num_groups)
    _check_vectors(X, gamma, beta)
    n = math.prod(X.shape[1:]) // num_groups
    rows = X.reshape(len(X) * num_groups, n)
    average = torch.full((n, 1), 1 / n, dtype=X.dtype)
    centred = rows - rows @ average
    X_hat = centred * torch.rsqrt((centred * centred) @ average + eps)
    return (X_hat.reshape(X.shape).transpose(1, -1) * gamma + beta).transpose(1, -1)
