"""Lasso by proximal gradient steps: weights that are exactly zero."""

import torch
import torch.nn.functional as F
from torch import Tensor

from grader import Case, Cost, Exercise


def lasso_ista(X: Tensor, y: Tensor, l1: float, *, lr: float, num_steps: int) -> Tensor:
    """Minimise mean(1/2 * (X @ w - y)**2) + l1 * sum|w| by ISTA, starting at w = 0.

    Every step first follows the gradient of the data term alone, then shrinks:
    z = w - lr * gradient; w = sign(z) * max(|z| - lr * l1, 0). The gradient of the mean over the N rows is
    X.T @ (X @ w - y) / N. There is no bias.

    Args:
        X: features, float `(N, D)`, N >= 1.
        y: targets `(N,)`, of the same dtype.
        l1: strength of the L1 penalty, >= 0 (0 is plain gradient descent on least squares).
        lr: step size, > 0. Too large a step makes the weights grow without bound; no exception is raised then.
        num_steps: number of steps, >= 0; 0 steps return zeros.

    Returns:
        w: `(D,)`, of the dtype of `X`. Weights that were shrunk to zero are exactly 0.

    Raises:
        ValueError: `X` has no rows; `y` is not of shape `(N,)`; `l1` < 0; `lr` <= 0.

    Example:
        >>> X = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
        >>> lasso_ista(X, torch.tensor([4.0, 0.5]), 0.5, lr=2.0, num_steps=1)
        tensor([3., 0.])
    """
    if X.shape[0] == 0 or y.shape != X.shape[:1]:
        raise ValueError(f"X must be (N, D) with N >= 1 and y (N,), got {tuple(X.shape)} and {tuple(y.shape)}")
    if l1 < 0 or lr <= 0:
        raise ValueError(f"l1 must be >= 0 and lr > 0, got {l1} and {lr}")
    w = X.new_zeros(X.shape[1])
    for _ in range(num_steps):
        z = w - lr * (X.T @ (X @ w - y)) / len(y)
        w = z.sign() * (z.abs() - lr * l1).clamp(min=0)
    return w


exercise = Exercise(
    lasso_ista,
    points=8,
    extra=True,
    forbid=("autograd", "backward", "func", "softshrink*", "hardshrink*", "*shrink"),
    hints=(
        "A gradient step with sign(w) in it jumps over 0 again and again. Which of the two terms can take an "
        "ordinary gradient step, and what does the other one do to a single number?",
        "Split each step: z = w - lr * gradient of the data term only, then pull every |z_j| down by lr * l1, "
        "stopping at 0, and give it its sign back.",
        "z = w - lr * (X.T @ (X @ w - y)) / N; w = z.sign() * (z.abs() - lr * l1).clamp(min=0)",
    ),
    source="D2L linear-regression/weight-decay",
)


@exercise.truth
def truth(X, y, l1, *, lr, num_steps):
    w = torch.zeros(X.shape[1], dtype=X.dtype)
    for _ in range(num_steps):
        w.requires_grad_()
        (slope,) = torch.autograd.grad(F.mse_loss(F.linear(X.detach(), w), y.detach()) / 2, w)
        w = F.softshrink((w - lr * slope).detach(), lr * l1)
    return w.detach()


def which_are_zero(candidate, X, y, l1, lr, num_steps):
    w = candidate(X, y, l1, lr=lr, num_steps=num_steps)
    return {"zero": w == 0, "support": w.sign()}


def sparse_problem(draw, rows, columns, noise=0.01):
    """Make a regression problem with three weights of size about 2 among `columns`, and its step size."""
    X = draw.normal(rows, columns)
    w = torch.zeros(columns)
    w[draw.permutation(columns)[:3]] = torch.tensor([2.0, -1.5, 2.5])
    y = X @ w + noise * draw.normal(rows)
    return X, y, 0.9 / float(torch.linalg.matrix_norm(X, 2) ** 2 / rows)


@exercise.cases
def cases(draw):
    X, y = draw.normal(7, 4), draw.normal(7)
    yield Case("one step", X, y, 0.2, lr=0.3, num_steps=1)
    yield Case("five steps", draw.normal(9, 5), draw.normal(9), 0.15, lr=0.2, num_steps=5, cost=Cost(ops=5 * 16))
    X, y, lr = sparse_problem(draw, 90, 20)
    yield Case("3 of 20 weights planted", X, y, 0.25, lr=lr, num_steps=40)
    yield Case("which weights are exactly 0", X, y, 0.25, lr=lr, num_steps=40, probe=which_are_zero)
    X, y, lr = sparse_problem(draw, 30, 4, noise=0.5)
    yield Case("l1 = 0 is least squares", X, y, 0.0, lr=lr, num_steps=40)
    X, y = draw.normal(8, 6), draw.normal(8)
    top = float((X.T @ y).abs().max() / 8)
    yield Case("so much l1 that all weights are 0", X, y, 1.05 * top, lr=0.3, num_steps=6, edge=True)
    yield Case("a step too large", draw.normal(6, 3), draw.normal(6), 0.1, lr=3.0, num_steps=5, edge=True)
    yield Case("no step", draw.normal(5, 3), draw.normal(5), 0.1, lr=0.1, num_steps=0, edge=True)
    yield Case("one row", draw.normal(1, 3), draw.normal(1), 0.05, lr=0.2, num_steps=4, edge=True)
    yield Case("one column", draw.normal(7, 1), draw.normal(7), 0.02, lr=0.3, num_steps=3, edge=True)
    yield Case("tiny targets", draw.normal(9, 4), 1e-4 * draw.normal(9), 1e-6, lr=0.2, num_steps=6, hidden=True)
    yield Case("tiny features", 1e-3 * draw.normal(8, 5), draw.normal(8), 1e-5, lr=1e4, num_steps=7, hidden=True)
    yield Case("large targets", draw.normal(6, 8), 1e3 * draw.normal(6) + 500, 40.0, lr=0.2, num_steps=8, hidden=True)
    X, y, lr = sparse_problem(draw, 80, 17)
    yield Case("planted weights, others are 0", X, y, 0.3, lr=lr, num_steps=40, probe=which_are_zero, hidden=True)
    yield Case("float64", X.double(), y.double(), 0.2, lr=0.5 * lr, num_steps=6, edge=True, hidden=True)
    X, y = draw.normal(6, 3), draw.normal(6)
    yield Case("no rows", X[:0], y[:0], 0.1, lr=0.1, num_steps=2, raises=ValueError)
    yield Case("more targets than rows", X, draw.normal(7), 0.1, lr=0.1, num_steps=2, raises=ValueError)
    yield Case("a column of targets", X, y[:, None], 0.1, lr=0.1, num_steps=2, raises=ValueError)
    yield Case("negative l1", X, y, -0.1, lr=0.1, num_steps=2, raises=ValueError)
    yield Case("lr = 0", X, y, 0.1, lr=0.0, num_steps=2, raises=ValueError)
    yield Case("one target for all rows", X, y[:1], 0.1, lr=0.1, num_steps=2, raises=ValueError, hidden=True)
    yield Case("negative lr, no steps", X, y, 0.1, lr=-0.1, num_steps=0, raises=ValueError, hidden=True)


@exercise.growth("columns", ops=0.0)
def more_columns(draw, size):
    return Case(f"{size} columns", draw.normal(12, size), draw.normal(12), 0.1, lr=0.05, num_steps=3)


@exercise.growth("rows", ops=0.0)
def more_rows(draw, size):
    return Case(f"{size} rows", draw.normal(size, 6), draw.normal(size), 0.1, lr=0.05, num_steps=3)


def check_inputs(X, y, l1, lr):
    if X.shape[0] == 0 or y.shape != X.shape[:1] or l1 < 0 or lr <= 0:
        raise ValueError


def slope(X, y, w):
    return X.T @ (X @ w - y) / len(y)


def shrink(z, amount):
    return z.sign() * (z.abs() - amount).clamp(min=0)


def descend(X, y, l1, lr, num_steps, step):
    check_inputs(X, y, l1, lr)
    w = X.new_zeros(X.shape[1])
    for _ in range(num_steps):
        w = step(w)
    return w


@exercise.wrong(
    "A gradient step with sign(w) jitters around 0 and never lands on it: step on the data term, then shrink."
)
def sign_gradient(X, y, l1, *, lr, num_steps):
    return descend(X, y, l1, lr, num_steps, lambda w: w - lr * (slope(X, y, w) + l1 * w.sign()))


@exercise.wrong("Shrink by lr * l1, not by l1: the shrinkage is part of a step of size lr.")
def threshold_without_lr(X, y, l1, *, lr, num_steps):
    return descend(X, y, l1, lr, num_steps, lambda w: shrink(w - lr * slope(X, y, w), l1))


@exercise.wrong("First the step on the data, then the shrinkage: the other way round the result is not sparse.")
def shrinks_first(X, y, l1, *, lr, num_steps):
    def step(w):
        small = shrink(w, lr * l1)
        return small - lr * slope(X, y, small)

    return descend(X, y, l1, lr, num_steps, step)


@exercise.wrong("The data term is a mean over the rows. With a sum the meaning of l1 would depend on N.")
def sum_for_mean(X, y, l1, *, lr, num_steps):
    return descend(X, y, l1, lr, num_steps, lambda w: shrink(w - lr * len(y) * slope(X, y, w), lr * l1))


@exercise.wrong("Multiplying by 1 - lr * l1 is what an L2 penalty does: it shrinks in proportion and never reaches 0.")
def shrinks_in_proportion(X, y, l1, *, lr, num_steps):
    return descend(X, y, l1, lr, num_steps, lambda w: (w - lr * slope(X, y, w)) * (1 - lr * l1))


@exercise.wrong("Shrink the magnitude and give the sign back: negative weights came out positive.")
def sign_lost(X, y, l1, *, lr, num_steps):
    return descend(X, y, l1, lr, num_steps, lambda w: ((w - lr * slope(X, y, w)).abs() - lr * l1).clamp(min=0))


@exercise.wrong("Give back the sign of z, not that of w: w starts at 0, its sign is 0, and no weight ever leaves 0.")
def sign_of_the_old_weights(X, y, l1, *, lr, num_steps):
    def step(w):
        return w.sign() * ((w - lr * slope(X, y, w)).abs() - lr * l1).clamp(min=0)

    return descend(X, y, l1, lr, num_steps, step)


@exercise.wrong("max(z - lr * l1, 0) drops negative weights altogether: it is |z| that is shrunk.")
def negative_weights_cut(X, y, l1, *, lr, num_steps):
    return descend(X, y, l1, lr, num_steps, lambda w: (w - lr * slope(X, y, w) - lr * l1).clamp(min=0))


@exercise.wrong("What survives is pulled towards 0 too: cutting small weights alone keeps the large ones too large.")
def hard_threshold(X, y, l1, *, lr, num_steps):
    def step(w):
        z = w - lr * slope(X, y, w)
        return torch.where(z.abs() > lr * l1, z, torch.zeros_like(z))

    return descend(X, y, l1, lr, num_steps, step)


@exercise.wrong("The derivative of 1/2 * r**2 is r, not 2 * r: the factor 1/2 takes the 2 away.")
def gradient_doubled(X, y, l1, *, lr, num_steps):
    return descend(X, y, l1, lr, num_steps, lambda w: shrink(w - 2 * lr * slope(X, y, w), lr * l1))


@exercise.wrong("Shrink the step's result z, not the old w: the gradient must move the weights before they shrink.")
def shrinks_old_weights(X, y, l1, *, lr, num_steps):
    return descend(X, y, l1, lr, num_steps, lambda w: shrink(w, lr * l1) - lr * slope(X, y, w))


@exercise.wrong(
    "Shrink in every step. Once at the end is too late: the steps before went to the least squares weights."
)
def shrinks_once_at_the_end(X, y, l1, *, lr, num_steps):
    w = descend(X, y, l1, lr, num_steps, lambda w: w - lr * slope(X, y, w))
    return shrink(w, lr * l1)


@exercise.wrong(
    "Without max(..., 0) a weight smaller than the threshold changes its sign, and may even grow: stop at 0."
)
def no_stop_at_zero(X, y, l1, *, lr, num_steps):
    def step(w):
        z = w - lr * slope(X, y, w)
        return z.sign() * (z.abs() - lr * l1)

    return descend(X, y, l1, lr, num_steps, step)


@exercise.wrong(
    "Exact zeros come from the shrinkage alone. A cut at a fixed size kills small weights that are right "
    "where targets are small."
)
def rounds_small_weights(X, y, l1, *, lr, num_steps):
    w = lasso_ista(X, y, l1, lr=lr, num_steps=num_steps)
    return torch.where(w.abs() < 1e-4, torch.zeros_like(w), w)


@exercise.wrong("Features keep their scale: dividing the columns by their spread gives weights for other features.")
def scaled_features(X, y, l1, *, lr, num_steps):
    check_inputs(X, y, l1, lr)
    return lasso_ista(X / X.square().mean(0).sqrt(), y, l1, lr=lr, num_steps=num_steps)


@exercise.wrong("One step too few: `range(1, num_steps)` leaves one out.")
def one_step_short(X, y, l1, *, lr, num_steps):
    return lasso_ista(X, y, l1, lr=lr, num_steps=max(num_steps - 1, 0))


@exercise.wrong("squeeze() drops the axis of a single feature as well: X stays `(N, 1)`.", caught_by="runs")
def squeezed(X, y, l1, *, lr, num_steps):
    check_inputs(X, y, l1, lr)
    flat = X.squeeze()
    return lasso_ista(flat if len(X) > 1 else X, y, l1, lr=lr, num_steps=num_steps)


@exercise.wrong("Work on a copy: `y -= ...` and other changes in place spoil the caller's data.", caught_by="inputs")
def changes_the_targets(X, y, l1, *, lr, num_steps):
    check_inputs(X, y, l1, lr)
    w = lasso_ista(X, y, l1, lr=lr, num_steps=num_steps)
    y.sub_(X @ w)
    return w


@exercise.wrong("w starts at 0: from another start a limited number of steps ends elsewhere.")
def starts_at_ones(X, y, l1, *, lr, num_steps):
    check_inputs(X, y, l1, lr)
    w = X.new_ones(X.shape[1])
    for _ in range(num_steps):
        w = shrink(w - lr * slope(X, y, w), lr * l1)
    return w


@exercise.wrong("There is no bias here: do not centre X and y.")
def centred(X, y, l1, *, lr, num_steps):
    check_inputs(X, y, l1, lr)
    return lasso_ista(X - X.mean(0), y - y.mean(), l1, lr=lr, num_steps=num_steps)


@exercise.wrong(
    "Vectorise: a Python loop over the weights costs as many operations as there are columns.", caught_by="cost"
)
def loop_over_weights(X, y, l1, *, lr, num_steps):
    def step(w):
        z = w - lr * slope(X, y, w)
        return torch.stack([shrink(z_j, lr * l1) for z_j in z]) if len(z) else z

    return descend(X, y, l1, lr, num_steps, step)


@exercise.wrong(
    "Make w with the dtype of X: a float32 vector cannot be multiplied by a float64 matrix.", caught_by="runs"
)
def float32_inside(X, y, l1, *, lr, num_steps):
    check_inputs(X, y, l1, lr)
    w = torch.zeros(X.shape[1])
    for _ in range(num_steps):
        w = shrink(w - lr * slope(X, y, w), lr * l1)
    return w


@exercise.wrong(
    "A column `(N, 1)` of targets broadcasts against `(N,)` to a matrix: refuse every shape but `(N,)`.",
    caught_by="errors",
)
def length_only(X, y, l1, *, lr, num_steps):
    if len(X) == 0 or len(X) != len(y) or l1 < 0 or lr <= 0:
        raise ValueError
    return lasso_ista(X, y.reshape(-1), l1, lr=lr, num_steps=num_steps)


@exercise.wrong(
    "A negative l1 or a step size that is not positive has no meaning here: ValueError.", caught_by="errors"
)
def strengths_unchecked(X, y, l1, *, lr, num_steps):
    return lasso_ista(X, y, max(l1, 0.0), lr=lr if lr > 0 else 1.0, num_steps=num_steps)


@exercise.right("with X.T @ X and X.T @ y computed once")
def by_gram_matrix(X, y, l1, *, lr, num_steps):
    if not (len(X) and y.shape == (len(X),) and l1 >= 0 and lr > 0):
        raise ValueError
    gram, target = X.T @ X / len(X), X.T @ y / len(X)
    w = torch.zeros_like(X[0])
    for _ in range(num_steps):
        z = w - lr * (gram @ w - target)
        w = z - z.clamp(-lr * l1, lr * l1)
    return w


@exercise.right("two one-sided shrinkages, rows times residuals")
def by_two_sides(X, y, l1, *, lr, num_steps):
    if X.size(0) == 0 or y.ndim != 1 or y.size(0) != X.size(0) or l1 < 0 or lr <= 0:
        raise ValueError
    w = X[0] * 0
    for _ in range(num_steps):
        residual = y - (X * w).sum(1)
        z = w + lr * (X * residual[:, None]).mean(0)
        w = torch.relu(z - lr * l1) - torch.relu(-z - lr * l1)
    return w


@exercise.right("in place, with where")
def by_where(X, y, l1, *, lr, num_steps):
    if X.size(0) == 0 or y.shape != X.shape[:1] or l1 < 0 or lr <= 0:
        raise ValueError
    w = torch.zeros(X.shape[1], dtype=X.dtype, device=X.device)
    for _ in range(num_steps):
        w -= torch.einsum("nd,n->d", X, torch.mv(X, w) - y) * (lr / X.shape[0])
        w.copy_(torch.where(w > lr * l1, w - lr * l1, torch.where(w < -lr * l1, w + lr * l1, 0.0)))
    return w
