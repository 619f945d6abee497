"""Batch normalisation."""

import math

import torch
from torch import Tensor

from grader import Case, Cost, Exercise
from reference.normalization import FORBID


def batch_norm(
    X: Tensor,
    gamma: Tensor,
    beta: Tensor,
    running_mean: Tensor,
    running_var: Tensor,
    *,
    training: bool,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    """Normalise each channel to mean 0 and variance 1, then scale by `gamma` and shift by `beta`.

    Training: mean and biased variance (divided by n) of each channel are taken over all other axes, and the
    running values are updated in place: running <- (1 - momentum) * running + momentum * statistic, where the
    variance that is stored is the unbiased one (divided by n - 1). Otherwise the running values normalise, and
    nothing is changed. Only the flag `training` chooses the mode, whether gradients are enabled or not.

    Args:
        X: `(N, C)` features or `(N, C, H, W)` images, floating point; all tensors share its dtype.
        gamma: `(C,)`, the scale of each channel.
        beta: `(C,)`, the shift of each channel.
        running_mean: `(C,)`, updated in place in training; gets no graph.
        running_var: `(C,)`, updated in place in training; gets no graph.
        training: normalise by the batch (and update the running values), or by the running values.
        momentum: the weight of the new batch in the running values, from 0 to 1.
        eps: added to the variance, inside the root.

    Returns:
        Tensor shaped like `X`: gamma * (X - mean) / sqrt(var + eps) + beta, each vector acting per channel. In
        training the gradient flows through mean and variance, too. N = 0 gives an empty result when not training.

    Raises:
        ValueError: `X` is neither 2-D nor 4-D, one of the four vectors is not of shape `(C,)`, or training with
            fewer than 2 values per channel (N, or N * H * W for images). Nothing has been updated then.

    Example:
        >>> mean, var = torch.zeros(1), torch.ones(1)
        >>> batch_norm(torch.tensor([[0.0], [2.0]]), torch.ones(1), torch.zeros(1), mean, var, training=True)
        tensor([[-1.0000],
                [ 1.0000]])
        >>> mean, var
        (tensor([0.1000]), tensor([1.1000]))
    """
    if X.ndim not in (2, 4):
        raise ValueError(f"X must be (N, C) or (N, C, H, W), got shape {tuple(X.shape)}")
    N, C, *image = X.shape
    if any(vector.shape != (C,) for vector in (gamma, beta, running_mean, running_var)):
        raise ValueError(f"gamma, beta and the running values must have shape ({C},)")
    shape = (1, C) + (1,) * len(image)
    mean, var = running_mean, running_var
    if training:
        n = N * math.prod(image)
        if n < 2:
            raise ValueError(f"training needs at least 2 values per channel, got {n}")
        axes = (0, 2, 3)[: X.ndim - 1]
        mean = X.mean(axes)
        var = (X - mean.reshape(shape)).square().mean(axes)
        with torch.no_grad():
            running_mean.mul_(1 - momentum).add_(momentum * mean)
            running_var.mul_(1 - momentum).add_(momentum * var * (n / (n - 1)))
    X_hat = (X - mean.reshape(shape)) / (var + eps).sqrt().reshape(shape)
    return gamma.reshape(shape) * X_hat + beta.reshape(shape)


exercise = Exercise(
    batch_norm,
    points=8,
    gradients=("X", "gamma", "beta"),
    mutates=("running_mean", "running_var"),
    cost=Cost(ops=24, peak={"X": 5.25}),
    forbid=FORBID,
    hints=(
        "How many numbers belong to one channel of an image batch? Which axes must disappear from the mean?",
        "Mean over (0,) or (0, 2, 3); reshape every (C,) vector to (1, C) or (1, C, 1, 1) before it meets X. Update "
        "the running values in place and under torch.no_grad().",
        "var = (X - mean).square().mean(axes); running_var.mul_(1 - momentum).add_(momentum * var * n / (n - 1)); "
        "normalise by sqrt(var + eps).",
    ),
    source="D2L convolutional-modern/batch-norm",
)


@exercise.truth
def truth(X, gamma, beta, running_mean, running_var, *, training, momentum=0.1, eps=1e-5):
    if not len(gamma) == len(beta) == len(running_mean) == len(running_var) == X.shape[1]:
        raise ValueError
    return torch.nn.functional.batch_norm(X, running_mean, running_var, gamma, beta, training, momentum, eps)


def without_gradients(batch_norm, X, gamma, beta, running_mean, running_var, training):
    with torch.no_grad():
        return batch_norm(X, gamma, beta, running_mean, running_var, training=training)


def rows_of_a_table(batch_norm, X, gamma, beta, table):
    table = table.clone()
    running_mean, running_var = table[0], table[1]
    first = batch_norm(X, gamma, beta, running_mean, running_var, training=True)
    second = batch_norm(X[1:], gamma, beta, running_mean, running_var, training=False)
    return {"first": first, "second": second, "table": table}


def after_an_error(batch_norm, X, gamma, beta, running_mean, running_var):
    try:
        batch_norm(X, gamma, beta, running_mean, running_var, training=True)
        refused = False
    except ValueError:
        refused = True
    return {"raises ValueError": refused, "running_mean": running_mean.clone(), "running_var": running_var.clone()}


@exercise.cases
def cases(draw):
    def vectors(C, scale=1.0):
        mean, var = scale * draw.normal(C), scale**2 * draw.uniform(C, low=0.5, high=2.0)
        return 1 + 0.5 * draw.normal(C), draw.normal(C), mean, var

    yield Case("features, training", draw.normal(6, 4), *vectors(4), training=True)
    yield Case("images, training", draw.normal(4, 3, 5, 2), *vectors(3), training=True)
    yield Case("features, not training", draw.normal(5, 3), *vectors(3), training=False)
    yield Case("images, not training", draw.normal(2, 3, 4, 5), *vectors(3), training=False)
    start = torch.ones(1), torch.zeros(1), torch.zeros(1), torch.ones(1)
    yield Case("[[0], [2]]", torch.tensor([[0.0], [2.0]]), *start, training=True)
    yield Case("another momentum and eps", draw.normal(3, 2, 4, 3), *vectors(2), training=True, momentum=0.3, eps=0.02)
    yield Case("another eps, not training", draw.normal(3, 2), *vectors(2), training=False, eps=0.1)
    yield Case("momentum 0", draw.normal(4, 3), *vectors(3), training=True, momentum=0.0)
    yield Case("momentum 1", draw.normal(2, 3, 2, 3), *vectors(3), training=True, momentum=1.0)
    yield Case("as wide as it has channels", draw.normal(2, 5, 3, 5), *vectors(5), training=True)
    yield Case("as wide as it has channels, not training", draw.normal(3, 4, 2, 4), *vectors(4), training=False)
    yield Case("mean 3000", draw.normal(4, 3, 5, 6) + 3000, *vectors(3), training=True)
    yield Case("tiny values", 1e-3 * draw.normal(5, 4, 2, 3), *vectors(4, 1e-3), training=True)
    constant = torch.cat([draw.normal(4, 1, 2, 3), torch.full((4, 1, 2, 3), 2.0), draw.normal(4, 1, 2, 3)], 1)
    yield Case("a constant channel", constant, *vectors(3), training=True, edge=True)
    yield Case("one image, training", draw.normal(1, 3, 4, 2), *vectors(3), training=True, edge=True)
    yield Case("one row, not training", draw.normal(1, 4), *vectors(4), training=False, edge=True)
    yield Case("no rows, not training", torch.zeros(0, 3), *vectors(3), training=False, edge=True)
    nhwc = draw.normal(3, 4, 5, 2).to(memory_format=torch.channels_last)
    yield Case("channels-last images", nhwc, *vectors(4), training=True, edge=True)
    yield Case("training under no_grad", draw.normal(5, 3), *vectors(3), True, probe=without_gradients)
    yield Case(
        "not training, under no_grad", draw.normal(5, 3), *vectors(3), False, probe=without_gradients, hidden=True
    )
    gamma, beta, mean, var = vectors(3)
    yield Case(
        "running values are rows of one table", draw.normal(4, 3, 2, 5), gamma, beta, torch.stack([mean, var]),
        probe=rows_of_a_table, edge=True, layouts=False,
    )  # fmt: skip
    gamma, beta, mean, var = vectors(3)
    for name, what in {
        "beta too long: nothing is updated": (draw.normal(4, 3), gamma, draw.normal(4), mean, var),
        "one value per channel: nothing is updated": (draw.normal(1, 3), gamma, beta, mean, var),
        "running_var too short: nothing is updated": (draw.normal(4, 3, 2, 1), gamma, beta, mean, draw.uniform(1)),
    }.items():
        yield Case(name, *what, probe=after_an_error, edge=True, grad=False, layouts=False)
    yield Case("large images", draw.normal(8, 3, 16, 12), *vectors(3), training=True, cost=True)
    yield Case("more features", 30 * draw.normal(9, 7) - 5, *vectors(7, 3.0), training=True, hidden=True)
    yield Case("more images", draw.normal(3, 5, 2, 7), *vectors(5), training=True, momentum=0.7, hidden=True)
    yield Case("more images, not training", draw.normal(2, 6, 3, 4), *vectors(6, 2.0), training=False, hidden=True)
    yield Case("a small batch", draw.normal(2, 5), *vectors(5), training=True, hidden=True)
    yield Case("a large mean in some channels", draw.normal(6, 3) + torch.tensor([0.0, 3000, -4e3]), *vectors(3),
               training=True, hidden=True)  # fmt: skip
    yield Case("a sequence, 3-D", draw.normal(4, 3, 5), *vectors(3), training=True, raises=ValueError)
    yield Case("a vector, 1-D", draw.normal(3), *vectors(3), training=False, raises=ValueError)
    yield Case("gamma for another channel number", draw.normal(4, 3), draw.normal(4), *vectors(3)[1:], training=False,
               raises=ValueError)  # fmt: skip
    yield Case("gamma of size 1", draw.normal(4, 3), draw.normal(1), *vectors(3)[1:], training=True, raises=ValueError)
    yield Case("beta of size 1", draw.normal(4, 3), gamma, draw.normal(1), mean, var, training=False, raises=ValueError)
    yield Case("running_mean of size 1", draw.normal(4, 3), gamma, beta, draw.normal(1), var, training=False,
               raises=ValueError, hidden=True)  # fmt: skip
    yield Case("running_var too long", draw.normal(4, 3, 2, 2), gamma, beta, mean, draw.uniform(4), training=True,
               raises=ValueError, hidden=True)  # fmt: skip
    yield Case(
        "gamma as a column", draw.normal(3, 3), gamma[:, None], beta, mean, var, training=True, raises=ValueError
    )
    yield Case(
        "one image of one pixel, training", draw.normal(1, 3, 1, 1), *vectors(3), training=True, raises=ValueError
    )
    yield Case(
        "no images, training", torch.zeros(0, 3, 2, 2), *vectors(3), training=True, raises=ValueError, hidden=True
    )


@exercise.growth("channels", ops=0.0, peak=1.0)
def more_channels(draw, size):
    vectors = torch.ones(size), torch.zeros(size), torch.zeros(size), torch.ones(size)
    return Case(f"{size} channels", draw.normal(3, size, 4, 5), *vectors, training=True)


@exercise.growth("images", ops=0.0, peak=1.0)
def more_images(draw, size):
    return Case(f"{size} images", draw.normal(size, 2, 3, 4), *torch.ones(4, 2), training=True)


def _check(X, *vectors):
    if X.ndim not in (2, 4) or any(v.shape != X.shape[1:2] for v in vectors):
        raise ValueError


def _count(X):
    if X.numel() < 2 * X.shape[1]:
        raise ValueError
    return X.numel() // X.shape[1]


def _shape(X):
    return (1, X.shape[1]) + (1,) * (X.ndim - 2)


def _statistics(X):
    axes = [a for a in range(X.ndim) if a != 1]
    mean = X.mean(axes)
    return mean, (X - mean.reshape(_shape(X))).square().mean(axes)


def _update(running, statistic, momentum):
    with torch.no_grad():
        running.mul_(1 - momentum).add_(momentum * statistic)


def _store(running_mean, running_var, mean, var, n, momentum):
    _update(running_mean, mean, momentum)
    _update(running_var, var * n / (n - 1), momentum)


def _root(var, eps):
    return (var + eps).sqrt()


def _finish(X, mean, scale, gamma, beta):
    s = _shape(X)
    return gamma.reshape(s) * (X - mean.reshape(s)) / scale.reshape(s) + beta.reshape(s)


def _steps(
    X, gamma, beta, running_mean, running_var, *, training, momentum=0.1, eps=1e-5,
    check=_check, count=_count, statistics=_statistics, store=_store, root=_root, finish=_finish,
):  # fmt: skip
    """Batch norm with exchangeable steps."""
    check(X, gamma, beta, running_mean, running_var)
    mean, var = running_mean, running_var
    if training:
        n = count(X)
        mean, var = statistics(X)
        store(running_mean, running_var, mean, var, n, momentum)
    return finish(X, mean, root(var, eps), gamma, beta)


@exercise.wrong("A channel is one feature: pool over N, H and W. These statistics differ from pixel to pixel.")
def pools_over_the_batch_only(X, gamma, beta, running_mean, running_var, *, training, momentum=0.1, eps=1e-5):
    if not training or X.ndim == 2:
        return _steps(
            X, gamma, beta, running_mean, running_var, training=training, momentum=momentum, eps=eps
        )  # fmt: skip
    _check(X, gamma, beta, running_mean, running_var)
    _store(running_mean, running_var, *_statistics(X), _count(X), momentum)
    mean = X.mean(0)
    var = (X - mean).square().mean(0)
    return gamma.reshape(_shape(X)) * (X - mean) / (var + eps).sqrt() + beta.reshape(_shape(X))


@exercise.wrong("The flag decides, not torch.is_grad_enabled(): validation with gradients, or training without, would "
                "take the wrong statistics.")  # fmt: skip
def gradient_mode_decides(*args, training, **kwargs):
    return _steps(*args, training=torch.is_grad_enabled(), **kwargs)


@exercise.wrong("The gradient must pass through mean and variance: they depend on X. Detach only what goes into the "
                "running values.", caught_by="gradients")  # fmt: skip
def detached_statistics(*args, **kwargs):
    return _steps(*args, **kwargs, statistics=lambda X: _statistics(X.detach()))


@exercise.wrong("`running_mean = ...` names a new tensor; the caller's stays old. Write into it: mul_, add_, copy_.")
def new_running_tensors(*args, **kwargs):
    return _steps(*args, **kwargs, store=lambda *_: None)


@exercise.wrong("`running_mean.data = ...` swaps the memory: views of the old one stay behind. Write into it instead.")
def swaps_the_memory(*args, **kwargs):
    def store(running_mean, running_var, mean, var, n, momentum):
        running_mean.data = ((1 - momentum) * running_mean + momentum * mean).detach()
        running_var.data = ((1 - momentum) * running_var + momentum * var * n / (n - 1)).detach()

    return _steps(*args, **kwargs, store=store)


@exercise.wrong(
    "The running variance estimates that of all data: store the unbiased one, n / (n - 1) times the batch's."
)
def biased_running_var(*args, **kwargs):
    def store(running_mean, running_var, mean, var, n, momentum):
        _update(running_mean, mean, momentum)
        _update(running_var, var, momentum)

    return _steps(*args, **kwargs, store=store)


@exercise.wrong("The correction takes n = N * H * W, all values of the channel, not N.")
def corrects_by_the_batch_size(*args, **kwargs):
    return _steps(*args, **kwargs, store=lambda *a: _store(*a[:4], max(args[0].shape[0], 2), a[5]))


@exercise.wrong("momentum is the weight of the new batch here, not the share of the old value that is kept.")
def momentum_of_the_old_value(*args, momentum=0.1, **kwargs):
    return _steps(*args, momentum=1 - momentum, **kwargs)


@exercise.wrong("`momentum or 0.1` turns 0 into 0.1: a momentum of 0 means that nothing is updated.")
def zero_momentum_is_the_default(*args, momentum=0.1, **kwargs):
    return _steps(*args, momentum=momentum or 0.1, **kwargs)


@exercise.wrong("momentum is an argument: 0.1 is only its default.")
def fixed_momentum(*args, momentum=0.1, **kwargs):
    return _steps(*args, **kwargs)


@exercise.wrong("A (C,) vector broadcasts against the last axis, the width: reshape it to (1, C, 1, 1).")
def vectors_along_the_last_axis(*args, **kwargs):
    def finish(X, mean, scale, gamma, beta):
        s = _shape(X)
        return gamma * (X - mean.reshape(s)) / scale.reshape(s) + beta

    return _steps(*args, **kwargs, finish=finish)


@exercise.wrong("Only the stored variance is unbiased: the batch is normalised by the one divided by n.")
def normalises_by_the_unbiased_variance(*args, **kwargs):
    def statistics(X):
        return X.mean([0, 2, 3][: X.ndim - 1]), X.var([0, 2, 3][: X.ndim - 1])

    def store(running_mean, running_var, mean, var, n, momentum):
        _update(running_mean, mean, momentum)
        _update(running_var, var, momentum)

    return _steps(*args, **kwargs, statistics=statistics, store=store)


@exercise.wrong("eps belongs inside the root: sqrt(var + eps).")
def eps_outside_the_root(*args, **kwargs):
    return _steps(*args, **kwargs, root=lambda var, eps: var.sqrt() + eps)


@exercise.wrong("eps is an argument: 1e-5 is only its default.")
def fixed_eps(*args, eps=1e-5, **kwargs):
    return _steps(*args, **kwargs)


@exercise.wrong("eps only guards the division: what is stored is the variance itself.")
def stores_the_variance_with_eps(*args, eps=1e-5, **kwargs):
    def store(running_mean, running_var, mean, var, n, momentum):
        _store(running_mean, running_var, mean, var + eps, n, momentum)

    return _steps(*args, eps=eps, **kwargs, store=store)


@exercise.wrong("The running value is a variance: store it, not its root.")
def stores_the_deviation(*args, **kwargs):
    def store(running_mean, running_var, mean, var, n, momentum):
        _update(running_mean, mean, momentum)
        _update(running_var, (var * n / (n - 1)).sqrt(), momentum)

    return _steps(*args, **kwargs, store=store)


@exercise.wrong("E[x^2] - E[x]^2 subtracts two large numbers when the mean is large: average (x - mean)^2 instead.")
def one_pass_variance(*args, **kwargs):
    def statistics(X):
        axes = [0, 2, 3][: X.ndim - 1]
        return X.mean(axes), X.square().mean(axes) - X.mean(axes).square()

    return _steps(*args, **kwargs, statistics=statistics)


@exercise.wrong(
    "When not training, the running values normalise: the result for one example must not depend on the others "
    "in its batch."
)
def batch_statistics_always(X, gamma, beta, running_mean, running_var, *, training, momentum=0.1, eps=1e-5):
    if training or X.ndim not in (2, 4) or not X.numel():
        return _steps(X, gamma, beta, running_mean, running_var, training=training, momentum=momentum, eps=eps)
    _check(X, gamma, beta, running_mean, running_var)
    mean, var = _statistics(X)
    return _finish(X, mean, _root(var, eps), gamma, beta)


@exercise.wrong("When not training nothing is updated: looking at validation data must not change the model.")
def updates_always(X, gamma, beta, running_mean, running_var, *, training, momentum=0.1, eps=1e-5):
    out = _steps(X, gamma, beta, running_mean, running_var, training=training, momentum=momentum, eps=eps)
    if not training and X.numel() >= 2 * X.shape[1]:
        _store(running_mean, running_var, *_statistics(X), _count(X), momentum)
    return out


@exercise.wrong("In training the batch's own statistics normalise; the running values are only kept for later.")
def normalises_by_the_running_values(X, gamma, beta, running_mean, running_var, *, training, momentum=0.1, eps=1e-5):
    _steps(X, gamma, beta, running_mean, running_var, training=training, momentum=momentum, eps=eps)
    return _steps(X, gamma, beta, running_mean, running_var, training=False, eps=eps)


@exercise.wrong("Updating the running values is not part of the model: without no_grad (or detach) they drag along the "
                "graph of every batch so far.", caught_by="gradients")  # fmt: skip
def running_values_with_a_graph(*args, **kwargs):
    def store(running_mean, running_var, mean, var, n, momentum):
        running_mean.mul_(1 - momentum).add_(momentum * mean)
        running_var.mul_(1 - momentum).add_(momentum * var * n / (n - 1))

    return _steps(*args, **kwargs, store=store)


@exercise.wrong("Shift after scaling: gamma * x + beta, not gamma * (x + beta).")
def shifts_before_scaling(*args, **kwargs):
    return _steps(*args, **kwargs, finish=lambda X, m, s, gamma, beta: _finish(X, m, s, gamma, gamma * beta))


@exercise.wrong("`/=` and `-=` change the caller's X: build a new tensor.", caught_by="inputs")
def works_in_place(X, *args, **kwargs):
    out = _steps(X, *args, **kwargs)
    with torch.no_grad():
        X.copy_(out)
    return out


@exercise.wrong("Compute in the dtype that X has: .float() throws away half of a float64.", caught_by="dtype")
def computes_in_float32(X, gamma, beta, *args, **kwargs):
    return _steps(X.float(), gamma.float(), beta.float(), *args, **kwargs)


@exercise.wrong("Refuse before anything is written: an error must leave the running values as they were.")
def updates_before_the_check(X, gamma, beta, running_mean, running_var, *, training, momentum=0.1, eps=1e-5):
    if training and X.ndim in (2, 4) and X.shape[1:2] == running_mean.shape:
        running_mean.mul_(1 - momentum).add_(momentum * _statistics(X)[0].detach())
        _check(X, gamma, beta, running_mean, running_var)
        kept = running_mean.clone()
        out = _steps(X, gamma, beta, running_mean, running_var, training=training, momentum=momentum, eps=eps)
        running_mean.copy_(kept)
        return out
    return _steps(X, gamma, beta, running_mean, running_var, training=training, momentum=momentum, eps=eps)


@exercise.wrong("One value has no variance: with fewer than 2 values per channel training must raise ValueError.",
                caught_by="errors")  # fmt: skip
def accepts_one_value(*args, **kwargs):
    return _steps(*args, **kwargs, count=lambda X: max(X.numel() // X.shape[1], 2))


@exercise.wrong("One image has H * W values per channel: that is enough. Count n = N * H * W, not N.", caught_by="runs")
def refuses_one_image(X, *args, training, **kwargs):
    if training and len(X) < 2:
        raise ValueError
    return _steps(X, *args, training=training, **kwargs)


@exercise.wrong("A vector of size 1 broadcasts silently: compare each vector's shape with (C,) yourself.",
                caught_by="errors")  # fmt: skip
def short_vectors_broadcast(*args, **kwargs):
    def check(X, *vectors):
        if X.ndim not in (2, 4) or any(v.numel() not in (1, X.shape[1]) for v in vectors):
            raise ValueError

    return _steps(*args, **kwargs, check=check)


@exercise.wrong("Only (N, C) and (N, C, H, W) are meant: other ranks must raise ValueError.", caught_by="errors")
def any_rank(X, *args, **kwargs):
    if X.ndim == 3:
        return _steps(X[..., None], *args, **kwargs)[..., 0]
    return _steps(X, *args, **kwargs)


@exercise.wrong(
    "One reduction over several axes serves all channels at once: no loop over channels.", caught_by="growth"
)
def loops_over_channels(X, gamma, beta, running_mean, running_var, *, training, momentum=0.1, eps=1e-5):
    _check(X, gamma, beta, running_mean, running_var)
    if training:
        n = _count(X)
        found = [_statistics(X[:, c : c + 1]) for c in range(X.shape[1])]
        mean, var = torch.cat([m for m, _ in found]), torch.cat([v for _, v in found])
        _store(running_mean, running_var, mean, var, n, momentum)
        return _finish(X, mean, _root(var, eps), gamma, beta)
    return _finish(X, running_mean, _root(running_var, eps), gamma, beta)


@exercise.wrong("X may have any memory layout: reshape works where view raises.", caught_by="runs")
def views_the_image_as_a_row(X, *args, **kwargs):
    if X.ndim == 4:
        X.view(len(X), X.shape[1], X[0, 0].numel())
    else:
        X.view(X.numel())
    return _steps(X, *args, **kwargs)


@exercise.wrong("`running_var += eps` writes into the caller's tensor each time: make a new one, running_var + eps.")
def adds_eps_to_the_running_var(X, gamma, beta, running_mean, running_var, *, training, momentum=0.1, eps=1e-5):
    out = _steps(X, gamma, beta, running_mean, running_var, training=training, momentum=momentum, eps=eps)
    if not training:
        running_var += eps
    return out


@exercise.wrong("Not training does not mean no gradient: only running_mean and running_var are constants then.",
                caught_by="gradients")  # fmt: skip
def no_graph_when_not_training(*args, training, **kwargs):
    with torch.set_grad_enabled(training):
        return _steps(*args, training=training, **kwargs)


@exercise.speed(9.0, size=16, cuda=256)
def speed(draw, size):
    vectors = torch.ones(32), torch.zeros(32), torch.zeros(32), torch.ones(32)
    return Case("images of 32x16x16", draw.normal(size, 32, 16, 16), *vectors, training=True)


@exercise.right("channels first, one row each")
def channel_rows(X, gamma, beta, running_mean, running_var, *, training, momentum=0.1, eps=1e-5):
    _check(X, gamma, beta, running_mean, running_var)
    rows = X.transpose(0, 1).reshape(X.shape[1], -1)
    if training:
        n = _count(X)
        var, mean = torch.var_mean(rows, 1, unbiased=False)
        running_mean.copy_((1 - momentum) * running_mean + momentum * mean.detach())
        running_var.copy_((1 - momentum) * running_var + momentum * rows.detach().var(1))
    else:
        mean, var = running_mean, running_var
    out = (rows - mean[:, None]) * (gamma * torch.rsqrt(var + eps))[:, None] + beta[:, None]
    return out.reshape(X.transpose(0, 1).shape).transpose(0, 1)


@exercise.right("einsum and lerp")
def by_einsum(X, gamma, beta, running_mean, running_var, *, training, momentum=0.1, eps=1e-5):
    _check(X, gamma, beta, running_mean, running_var)
    Y = X if X.ndim == 4 else X[:, :, None, None]
    if training:
        n = _count(X)
        mean = torch.einsum("nchw->c", Y) / n
        centred = Y - mean[:, None, None]
        var = torch.einsum("nchw,nchw->c", centred, centred) / n
        running_mean.data.lerp_(mean.detach(), momentum)
        running_var.data.lerp_(var.detach() * (n / (n - 1)), momentum)
    else:
        centred, var = Y - running_mean[:, None, None], running_var
    out = torch.einsum("nchw,c->nchw", centred, gamma / (var + eps).sqrt()) + beta[:, None, None]
    return out.reshape(X.shape)
