"""Cross-entropy with smoothed labels."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from grader import Case, Cost, Exercise
from reference.softmax_regression import FORBID
from reference.softmax_regression.log_softmax import log_softmax
from reference.softmax_regression.softmax import softmax


def label_smoothing_loss(logits: Tensor, target: Tensor, eps: float) -> Tensor:
    """Compute the mean of -sum_k q_k log softmax(logits)_k with q = (1 - eps) onehot(target) + eps / K.

    Every class gets eps / K, the true one among them: it has 1 - eps + eps / K. With eps = 0 this is the plain
    cross-entropy. The `(N, K)` matrix of the q_k is not built: no one-hot rows by `eye`, `scatter`, assignment or
    comparison.

    Args:
        logits: scores `(N, K)`, float, finite.
        target: the true classes `(N,)`, int64 in [0, K).
        eps: the probability that is spread over all classes, in [0, 1].

    Returns:
        The mean over the N samples, 0-d, dtype of `logits`; 0 if N = 0.

    Raises:
        ValueError: `eps` outside [0, 1], a target outside [0, K), `logits` not `(N, K)` or `target` not `(N,)`.
        TypeError: `target` is not int64.

    Example:
        >>> logits = torch.tensor([[0.0, 0.0, 2.0]])  # log-probabilities [-2.2395, -2.2395, -0.2395]
        >>> label_smoothing_loss(logits, torch.tensor([2]), 0.3)  # 0.8 * 0.2395 + 2 * 0.1 * 2.2395
        tensor(0.6395)
    """
    _check_smoothing(logits, target, eps)
    logp = log_softmax(logits)
    true_class = logp.gather(1, target.unsqueeze(1)).squeeze(1)
    losses = -(1 - eps) * true_class - eps * logp.mean(1)
    return losses.sum() / max(len(losses), 1)


def _check_smoothing(logits: Tensor, target: Tensor, eps: float) -> None:
    """Raise for what the contract does not allow."""
    if target.dtype != torch.int64:
        raise TypeError(f"target must be int64, got {target.dtype}")
    if logits.ndim != 2 or target.shape != logits.shape[:1]:
        raise ValueError(f"want (N, K) and (N,), got {tuple(logits.shape)} and {tuple(target.shape)}")
    if not 0 <= eps <= 1:
        raise ValueError(f"eps must lie in [0, 1], got {eps}")
    if ((target < 0) | (target >= logits.shape[1])).any():
        raise ValueError(f"a target is outside [0, {logits.shape[1]})")


exercise = Exercise(
    label_smoothing_loss,
    points=8,
    gradients=("logits",),
    cost=Cost(ops=32, maxel="logits", peak={"logits": 3.5}),
    forbid=(*FORBID, "scatter*", "index_put*", "eye"),
    uses=("log_softmax",),
    hints=(
        "Write q into the sum and split it: one part belongs to the true class, the other to all classes alike.",
        "sum_k q_k logp_k = (1 - eps) * logp[target] + eps * (the mean of logp over the K classes).",
        "logp = log_softmax(logits); -((1 - eps) * logp.gather(-1, target.unsqueeze(-1)).squeeze(-1) "
        "+ eps * logp.mean(-1)), summed and divided by max(N, 1).",
    ),
    source="D2L linear-classification/softmax-regression (soft labels); Szegedy et al. 2016",
)


@exercise.truth
def truth(logits, target, eps):
    if not len(target):
        return 0 * logits.sum()
    return F.cross_entropy(logits, target, label_smoothing=eps)


@exercise.cases
def cases(draw):
    yield Case("five samples, four classes", draw.normal(5, 4), torch.tensor([3, 0, 1, 1, 2]), 0.1)
    yield Case("many samples and classes", draw.normal(40, 30), draw.integers(0, 30, 40), 0.2, cost=True)
    yield Case("eps 0", draw.normal(3, 4), torch.tensor([0, 3, 1]), 0.0)
    yield Case("eps 1", draw.normal(3, 4), torch.tensor([0, 3, 1]), 1.0)
    yield Case("two classes", draw.normal(3, 2), torch.tensor([0, 1, 1]), 0.3)
    yield Case("large logits", 1e4 * draw.normal(5, 3), draw.integers(0, 3, 5), 0.1)
    yield Case("float64 logits", draw.normal(2, 5, dtype=torch.float64), torch.tensor([4, 2]), eps=0.6)
    yield Case("a single class", draw.normal(3, 1), torch.tensor([0, 0, 0]), 0.4, edge=True)
    yield Case("a single sample", draw.normal(1, 6), torch.tensor([2]), 0.25, edge=True)
    yield Case("no samples", torch.zeros(0, 3), torch.zeros(0, dtype=torch.int64), 0.1, edge=True)
    yield Case("eps above 1", draw.normal(2, 3), torch.tensor([0, 1]), 1.01, raises=ValueError)
    yield Case("eps below 0", draw.normal(2, 3), torch.tensor([0, 1]), -0.1, raises=ValueError)
    yield Case("target K", draw.normal(2, 3), torch.tensor([0, 3]), 0.1, raises=ValueError)
    yield Case("target -1", draw.normal(2, 3), torch.tensor([0, -1]), 0.1, raises=ValueError)
    yield Case("target -100", draw.normal(2, 3), torch.tensor([0, -100]), 0.1, raises=ValueError)
    yield Case("too few targets", draw.normal(3, 4), torch.tensor([0, 1]), 0.1, raises=ValueError)
    yield Case("targets as a column", draw.normal(3, 4), torch.tensor([[0], [1], [3]]), 0.1, raises=ValueError)
    yield Case("float targets", draw.normal(2, 4), torch.tensor([0.0, 1.0]), 0.1, raises=TypeError)
    yield Case("tiny logits", 1e-3 * draw.normal(6, 5), draw.integers(0, 5, 6), 0.15, hidden=True)
    yield Case(
        "logits far from 0",
        draw.normal(3, 4) + torch.tensor([[-700.0], [0.0], [700.0]]),
        draw.integers(0, 4, 3),
        0.05,
        hidden=True,
    )
    yield Case("many classes", draw.normal(2, 50), draw.integers(0, 50, 2), 0.35, hidden=True)
    yield Case("a single class, eps 1", draw.normal(2, 1), torch.tensor([0, 0]), 1.0, edge=True, hidden=True)
    yield Case("no samples, eps 0", torch.zeros(0, 2), torch.zeros(0, dtype=torch.int64), 0.0, edge=True, hidden=True)
    yield Case("int32 targets", draw.normal(2, 4), draw.integers(0, 4, 2).int(), 0.1, raises=TypeError, hidden=True)
    yield Case(
        "logits with three axes", draw.normal(2, 3, 4), draw.integers(0, 4, 2, 3), 0.1, raises=ValueError, hidden=True
    )


@exercise.growth("samples", ops=0, peak=1)
def more_samples(draw, size):
    return Case(f"{size} samples", draw.normal(size, 5), draw.integers(0, 5, size), 0.1)


@exercise.growth("classes", ops=0, peak=1)
def more_classes(draw, size):
    return Case(f"{size} classes", draw.normal(6, size), draw.integers(0, size, 6), 0.1)


def parts(logits, target, eps):
    """Return log-probabilities, those of the true classes, N and K, after the checks."""
    _check_smoothing(logits, target, eps)
    logp = log_softmax(logits)
    return logp, logp.gather(-1, target.unsqueeze(-1)).squeeze(-1), max(len(target), 1), logits.shape[1]


@exercise.wrong("eps / (K - 1) on the other classes is another convention: here the true class shares in eps / K.")
def eps_over_k_minus_one(logits, target, eps):
    logp, true_class, n, k = parts(logits, target, eps)
    others = (logp.sum(-1) - true_class) / max(k - 1, 1)
    return -((1 - eps) * true_class + eps * others).sum() / n


@exercise.wrong("eps is spread over the K classes, not over the N samples.")
def eps_over_samples(logits, target, eps):
    logp, true_class, n, _ = parts(logits, target, eps)
    return -((1 - eps) * true_class + eps / n * logp.sum(-1)).sum() / n


@exercise.wrong(
    "Smooth the target, not the prediction: mix the log-probabilities; do not take the logarithm of a mixture."
)
def smooths_the_prediction(logits, target, eps):
    _, true_class, n, k = parts(logits, target, eps)
    return -((1 - eps) * true_class.exp() + eps / k).log().sum() / n


@exercise.wrong("q must sum to 1: the true class's term gets the weight 1 - eps.")
def without_one_minus_eps(logits, target, eps):
    logp, true_class, n, _ = parts(logits, target, eps)
    return -(true_class + eps * logp.mean(-1)).sum() / n


@exercise.wrong("Each class gets eps / K: eps times the *mean* of the log-probabilities, not times their sum.")
def eps_times_the_sum(logits, target, eps):
    logp, true_class, n, _ = parts(logits, target, eps)
    return -((1 - eps) * true_class + eps * logp.sum(-1)).sum() / n


@exercise.wrong("eps is the share of the uniform part and 1 - eps that of the true class, not the other way round.")
def shares_swapped(logits, target, eps):
    logp, true_class, n, _ = parts(logits, target, eps)
    return -(eps * true_class + (1 - eps) * logp.mean(-1)).sum() / n


@exercise.wrong("The uniform part covers all K classes: the true class has 1 - eps + eps / K, so that q sums to 1.")
def true_class_left_out(logits, target, eps):
    logp, true_class, n, k = parts(logits, target, eps)
    return -((1 - eps) * true_class + eps / k * (logp.sum(-1) - true_class)).sum() / n


@exercise.wrong("`eps` is an argument: 0.1 is only a popular choice.")
def eps_always_a_tenth(logits, target, eps):
    _check_smoothing(logits, target, eps)
    return label_smoothing_loss(logits, target, 0.1)


@exercise.wrong("`eps` is ignored: this is the plain cross-entropy.")
def eps_ignored(logits, target, eps):
    _check_smoothing(logits, target, eps)
    return label_smoothing_loss(logits, target, 0.0)


@exercise.wrong("The mean over the samples is wanted, not their sum.")
def sum_over_samples(logits, target, eps):
    return label_smoothing_loss(logits, target, eps) * len(target)


@exercise.wrong("The mean is over the N samples: dividing by N * K makes the loss K times too small.")
def mean_over_classes_too(logits, target, eps):
    return label_smoothing_loss(logits, target, eps) / max(logits.shape[-1], 1)


@exercise.wrong("This is the divergence KL(q, p): the cross-entropy does not subtract the entropy of q.")
def divergence_in_place_of_cross_entropy(logits, target, eps):
    loss, k = label_smoothing_loss(logits, target, eps), logits.shape[1]
    top, rest = 1 - eps + eps / k, eps / k
    entropy = -(top * math.log(top) if top else 0.0) - ((k - 1) * rest * math.log(rest) if rest else 0.0)
    return loss - entropy if len(target) else loss


@exercise.wrong("A loss is never negative: minus the weighted log-probabilities.")
def sign_forgotten(logits, target, eps):
    return -label_smoothing_loss(logits, target, eps)


@exercise.wrong(
    "softmax first and its log afterwards: a small probability becomes 0 and its log -inf. Use log_softmax."
)
def log_of_softmax(logits, target, eps):
    _check_smoothing(logits, target, eps)
    logp = softmax(logits).log()
    losses = (1 - eps) * logp.gather(-1, target.unsqueeze(-1)).squeeze(-1) + eps * logp.mean(-1)
    return -losses.sum() / max(len(target), 1)


@exercise.wrong("The logits are scores, not probabilities: a softmax before the log-softmax flattens them.")
def softmax_twice(logits, target, eps):
    _check_smoothing(logits, target, eps)
    return label_smoothing_loss(softmax(logits), target, eps)


@exercise.wrong("The classes are on the last axis: normalise each row, not each column.")
def normalises_columns(logits, target, eps):
    _check_smoothing(logits, target, eps)
    logp = log_softmax(logits, 0)
    losses = (1 - eps) * logp.gather(-1, target.unsqueeze(-1)).squeeze(-1) + eps * logp.mean(-1)
    return -losses.sum() / max(len(target), 1)


@exercise.wrong("The mean over no samples is 0 / 0 = nan; return 0 there.")
def nan_without_samples(logits, target, eps):
    return label_smoothing_loss(logits, target, eps) * (len(target) / torch.tensor(float(len(target)))).to(logits.dtype)


@exercise.wrong(
    "scatter_ or q[arange(N), target] = ... fills an (N, K) matrix that holds two different numbers only. Split the "
    "sum: (1 - eps) * logp[target] + eps * mean(logp) needs no q.",
    caught_by="forbidden",
)
def scattered_targets(logits, target, eps):
    _check_smoothing(logits, target, eps)
    n, k = logits.shape
    q = torch.full_like(logits, eps / k).scatter_(1, target.unsqueeze(-1), 1 - eps + eps / k)
    return -(q * log_softmax(logits)).sum() / max(n, 1)


@exercise.wrong("Rows of the identity are one-hot targets: N * K numbers for N that matter.", caught_by="forbidden")
def rows_of_the_identity(logits, target, eps):
    _check_smoothing(logits, target, eps)
    n, k = logits.shape
    q = (1 - eps) * torch.eye(k, dtype=logits.dtype)[target] + eps / k
    return -(q * log_softmax(logits)).sum() / max(n, 1)


@exercise.wrong("A matrix of float32 targets rounds eps to float32, and none is needed: eps itself can multiply logp.")
def float32_targets(logits, target, eps):
    _check_smoothing(logits, target, eps)
    n, k = logits.shape
    q = (torch.arange(k) == target.unsqueeze(-1)).float() * (1 - eps) + eps / k
    return -(q * log_softmax(logits)).sum() / max(n, 1)


@exercise.wrong("The uniform part depends on the logits too: detaching it loses its gradient.", caught_by="gradients")
def uniform_part_detached(logits, target, eps):
    logp, true_class, n, _ = parts(logits, target, eps)
    return -((1 - eps) * true_class + eps * logp.detach().mean(-1)).sum() / n


@exercise.wrong(
    "The loss must stay in the graph: .item(), detach() and torch.tensor(...) cut it.", caught_by="gradients"
)
def cuts_the_graph(logits, target, eps):
    return label_smoothing_loss(logits.detach(), target, eps)


@exercise.wrong("`eps` outside [0, 1] is an error (ValueError).", caught_by="errors")
def eps_is_not_checked(logits, target, eps):
    clipped = min(max(eps, 0.0), 1.0)
    return label_smoothing_loss(logits, target, clipped)


@exercise.wrong("eps = 1, the uniform target, is allowed: the interval [0, 1] is closed.", caught_by="runs")
def eps_one_is_refused(logits, target, eps):
    if eps >= 1:
        raise ValueError
    return label_smoothing_loss(logits, target, eps)


@exercise.wrong(
    "A negative target is an error (ValueError): used as an index it silently picks a class from the end.",
    caught_by="errors",
)
def negative_targets_wrap_around(logits, target, eps):
    if target.dtype == torch.int64:
        target = target.where((target >= 0) | (target < -logits.shape[-1]), target + logits.shape[-1])
    return label_smoothing_loss(logits, target, eps)


@exercise.wrong("There is no ignore_index here: -100 is a target out of range (ValueError).", caught_by="errors")
def ignores_minus_100(logits, target, eps):
    kept = target != -100
    if bool(kept.all()) or target.dtype != torch.int64:
        return label_smoothing_loss(logits, target, eps)
    return label_smoothing_loss(logits[kept], target[kept], eps)


@exercise.wrong("A target of K or more is an error (ValueError), not the last class.", caught_by="errors")
def large_targets_clamped(logits, target, eps):
    return label_smoothing_loss(logits, target.clamp(max=logits.shape[-1] - 1), eps)


@exercise.wrong(
    "Targets of another shape are an error (ValueError), even where a reshape would fit.", caught_by="errors"
)
def everything_reshaped(logits, target, eps):
    return label_smoothing_loss(logits.flatten(0, -2), target.flatten(), eps)


@exercise.wrong("Targets must be int64 (TypeError): do not convert other dtypes silently.", caught_by="errors")
def targets_are_converted(logits, target, eps):
    return label_smoothing_loss(logits, target.long(), eps)


@exercise.wrong("The loss has the dtype of `logits`: float64 is computed in float64.")
def everything_in_float32(logits, target, eps):
    return label_smoothing_loss(logits.float(), target, eps).to(logits.dtype)


@exercise.wrong("No loop over samples: gather picks one entry of every row at once.", caught_by="growth")
def sample_by_sample(logits, target, eps):
    _check_smoothing(logits, target, eps)
    logp = log_softmax(logits)
    losses = [(1 - eps) * row[t] + eps * row.mean() for row, t in zip(logp, target, strict=True)]
    return -torch.stack(losses).sum() / len(losses) if losses else label_smoothing_loss(logits, target, eps)


@exercise.wrong(
    "Comparing with arange(K) makes one-hot rows too, and of them the whole matrix q: gather and mean need neither.",
    caught_by="cost",
)
def compared_targets(logits, target, eps):
    _check_smoothing(logits, target, eps)
    n, k = logits.shape
    onehot = (target.unsqueeze(1) == torch.arange(k)).to(logits.dtype)
    q = (1 - eps) * onehot + eps / k
    return -(q * log_softmax(logits)).sum() / max(n, 1)


@exercise.right("normaliser minus the weighted scores")
def normaliser_minus_scores(logits, target, eps):
    _check_smoothing(logits, target, eps)
    n = len(target)
    top = logits.detach().amax(1)
    normaliser = (logits - top[:, None]).exp().sum(1).log() + top
    scores = (1 - eps) * logits[torch.arange(n), target] + eps * logits.mean(1)
    return (normaliser - scores).sum() / max(n, 1)


@exercise.right("two losses mixed")
def two_losses_mixed(logits, target, eps):
    _check_smoothing(logits, target, eps)
    n, k = logits.shape
    if n == 0:
        return logits.sum() * 0
    logp = log_softmax(logits, 1)
    hard = -logp.take_along_dim(target.reshape(n, 1), 1).mean()
    soft = -logp.sum() / (n * k)
    return torch.lerp(hard, soft, eps)
