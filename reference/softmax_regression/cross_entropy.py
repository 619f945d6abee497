"""The cross-entropy loss of class scores."""

import torch
import torch.nn.functional as F
from torch import Tensor

from grader import Case, Cost, Exercise
from reference.softmax_regression import FORBID
from reference.softmax_regression.log_softmax import log_softmax
from reference.softmax_regression.softmax import softmax


def cross_entropy(logits: Tensor, target: Tensor, *, ignore_index: int = -100, reduction: str = "mean") -> Tensor:
    """Compute -log softmax(logits)[target], the loss of giving the true class a small probability.

    Args:
        logits: scores `(..., K)`, float; the classes are on the *last* axis. Entries may be -inf.
        target: the true classes `(...)`, int64 in [0, K), or `ignore_index`.
        ignore_index: positions with this target do not count, whether it is a valid class number or not.
            Their logits, even nan and inf, reach neither the value nor the gradient.
        reduction: "none", "sum" or "mean".

    Returns:
        "none": the losses `(...)`, 0 at ignored positions; "sum": their sum, 0-d; "mean": the sum divided by the
        number of *kept* positions, 0-d, and 0 (with gradient 0) if none is kept, N = 0 included. Dtype of `logits`.

    Raises:
        ValueError: a kept target outside [0, K), `target` not of shape `logits.shape[:-1]`, another `reduction`.
        TypeError: `target` is not int64.

    Example:
        >>> logits = torch.tensor([[0.0, 0.0], [0.0, 1.0], [9.0, 9.0]])
        >>> cross_entropy(logits, torch.tensor([0, 0, -100]), reduction="none")
        tensor([0.6931, 1.3133, 0.0000])
        >>> cross_entropy(logits, torch.tensor([0, 0, -100]))  # (0.6931 + 1.3133) / 2
        tensor(1.0032)
    """
    kept = _kept_positions(logits, target, ignore_index, reduction)
    index = target.masked_fill(~kept, 0).unsqueeze(-1)
    scores = logits.masked_fill(~kept.unsqueeze(-1), 0.0)
    losses = -log_softmax(scores).gather(-1, index).squeeze(-1)
    losses = losses.masked_fill(~kept, 0.0)
    if reduction == "none":
        return losses
    return losses.sum() if reduction == "sum" else losses.sum() / kept.sum().clamp(min=1)


def _kept_positions(logits: Tensor, target: Tensor, ignore_index: int, reduction: str) -> Tensor:
    """Raise for what the contract does not allow and return which positions are kept."""
    if target.dtype != torch.int64:
        raise TypeError(f"target must be int64, got {target.dtype}")
    if reduction not in ("none", "sum", "mean"):
        raise ValueError(f"unknown reduction {reduction!r}")
    if logits.shape[:-1] != target.shape:
        raise ValueError(f"target must have the shape {tuple(logits.shape[:-1])}, got {tuple(target.shape)}")
    kept = target != ignore_index
    if (kept & ((target < 0) | (target >= logits.shape[-1]))).any():
        raise ValueError(f"a target is outside [0, {logits.shape[-1]})")
    return kept


exercise = Exercise(
    cross_entropy,
    points=8,
    gradients=("logits",),
    cost=Cost(ops=35, maxel="logits"),
    forbid=FORBID,
    uses=("log_softmax",),
    hints=(
        "gather picks one entry per row; it needs a valid class number in every row, the ignored ones included.",
        "Replace targets and logits of ignored positions by 0 first, compute as usual, then set their losses to 0.",
        "losses = -log_softmax(scores).gather(-1, index.unsqueeze(-1)).squeeze(-1), masked; the mean divides by the "
        "number of kept positions, clamped to at least 1.",
    ),
    source="D2L linear-classification/softmax-regression-scratch, softmax-regression-concise",
)


@exercise.truth
def truth(logits, target, *, ignore_index=-100, reduction="mean"):
    kept = (target != ignore_index).flatten()
    rows = torch.arange(kept.numel())[kept]
    losses = F.cross_entropy(logits.flatten(0, -2)[rows] if logits.ndim > 1 else logits[None][rows],
                             target.flatten()[rows], ignore_index=-1, reduction="none")  # fmt: skip
    if reduction == "none":
        return logits.new_zeros(kept.numel()).index_add(0, rows, losses).reshape(target.shape)
    return losses.sum() / (max(rows.numel(), 1) if reduction == "mean" else 1)


@exercise.cases
def cases(draw):
    nan, inf = float("nan"), float("inf")
    yield Case("four samples, three classes", draw.normal(4, 3), torch.tensor([2, 0, 1, 1]))
    yield Case(
        "sequences with some positions ignored", draw.normal(2, 4, 3),
        torch.tensor([[0, 2, -100, 1], [1, -100, -100, 2]]), cost=True,
    )  # fmt: skip
    yield Case("losses of each position", draw.normal(2, 3, 5), draw.integers(0, 5, 2, 3), reduction="none")
    yield Case("sum of the losses", draw.normal(3, 4), torch.tensor([0, -100, 3]), reduction="sum")
    yield Case("losses with some ignored", draw.normal(3, 4), torch.tensor([1, -100, 3]), reduction="none")
    yield Case("large logits", 1e4 * draw.normal(5, 4), draw.integers(0, 4, 5))
    yield Case(
        "one sure and right, one sure and wrong",
        torch.tensor([[1e4, 0.0, -1e4], [1e4, 0.0, -1e4]]),
        torch.tensor([0, 2]),
    )
    yield Case("twelve samples, twenty classes", draw.normal(12, 20), draw.integers(0, 20, 12), cost=True)
    yield Case("another ignore_index", draw.normal(4, 3), torch.tensor([1, 7, 2, 7]), ignore_index=7)
    yield Case("ignore_index 0, a valid class", draw.normal(4, 3), torch.tensor([0, 2, 1, 0]), ignore_index=0)
    yield Case("a logit of -inf", torch.tensor([[0.0, -inf, 1.0], [2.0, 1.0, -inf]]), torch.tensor([2, 0]))
    bad = draw.normal(4, 3)
    bad[1], bad[2] = nan, torch.tensor([inf, -inf, nan])
    yield Case("nan and inf in ignored rows", bad, torch.tensor([2, -100, -100, 0]), edge=True)
    yield Case("all ignored", draw.normal(3, 2), torch.full((3,), -100), edge=True)
    yield Case("no samples", torch.zeros(0, 3), torch.zeros(0, dtype=torch.int64), edge=True)
    yield Case("all ignored, one of them nan", bad[:3], torch.full((3,), 1), ignore_index=1, edge=True)
    yield Case("a single class", draw.normal(3, 1), torch.tensor([0, -100, 0]), edge=True)
    yield Case("one sample without a batch axis", draw.normal(4), torch.tensor(2), edge=True)
    yield Case("target K", draw.normal(3, 4), torch.tensor([0, 4, 1]), raises=ValueError)
    yield Case("target -1", draw.normal(3, 4), torch.tensor([0, -1, 1]), raises=ValueError)
    yield Case("-100 when 1 is ignored", draw.normal(2, 4), torch.tensor([1, -100]), raises=ValueError, ignore_index=1)
    yield Case("too few targets", draw.normal(3, 4), torch.tensor([0, 1]), raises=ValueError)
    yield Case("targets as a column", draw.normal(3, 4), torch.tensor([[0], [1], [3]]), raises=ValueError)
    yield Case("unknown reduction", draw.normal(2, 4), torch.tensor([0, 1]), raises=ValueError, reduction="average")
    yield Case("float targets", draw.normal(2, 4), torch.tensor([0.0, 1.0]), raises=TypeError)
    yield Case("int32 targets", draw.normal(2, 4), torch.tensor([0, 1], dtype=torch.int32), raises=TypeError)
    yield Case("tiny logits", 1e-3 * draw.normal(5, 3), draw.integers(0, 3, 5), hidden=True)
    yield Case("logits far from 0", draw.normal(3, 4) + torch.tensor([[-700.0], [0.0], [700.0]]),
               draw.integers(0, 4, 3), reduction="none", hidden=True)  # fmt: skip
    yield Case("four axes, unevenly ignored", draw.normal(2, 3, 2, 5),
               torch.where(draw.boolean(2, 3, 2, p=0.4), -1, draw.integers(0, 5, 2, 3, 2)), ignore_index=-1,
               hidden=True)  # fmt: skip
    yield Case("all ignored, sum", draw.normal(2, 3), torch.full((2,), 1), ignore_index=1, reduction="sum",
               edge=True, hidden=True)  # fmt: skip
    yield Case("nan in ignored rows, none", bad.flip(0), torch.tensor([0, -100, -100, 1]), reduction="none",
               edge=True, hidden=True)  # fmt: skip
    yield Case("no samples, none", torch.zeros(2, 0, 3), torch.zeros(2, 0, dtype=torch.int64), reduction="none",
               edge=True, hidden=True)  # fmt: skip
    yield Case("sample without a batch axis, ignored", draw.normal(3), torch.tensor(-100), edge=True, hidden=True)
    yield Case("target K + 100 in a sequence", draw.normal(2, 2, 3), torch.tensor([[0, 1], [103, -100]]),
               raises=ValueError, hidden=True)  # fmt: skip


@exercise.growth("samples", ops=0, peak=1)
def more_samples(draw, size):
    return Case(f"{size} samples", draw.normal(size, 5), draw.integers(0, 5, size))


@exercise.growth("classes", ops=0, peak=1)
def more_classes(draw, size):
    return Case(f"{size} classes", draw.normal(6, size), draw.integers(0, size, 6))


def picked(logp, target, kept):
    """Return minus the log-probabilities of the targets; class 0's where a target is ignored."""
    return -logp.gather(-1, target.masked_fill(~kept, 0).unsqueeze(-1)).squeeze(-1)


def without_ignored(logits, kept):
    return logits.masked_fill(~kept.unsqueeze(-1), 0.0)


def reduced(losses, kept, reduction):
    losses = losses.masked_fill(~kept, 0.0)
    return {"none": lambda: losses, "sum": losses.sum, "mean": lambda: losses.sum() / kept.sum().clamp(min=1)}[
        reduction
    ]()


@exercise.wrong("The mean is over the kept positions: dividing by all of them lets padding dilute the loss.")
def mean_over_all(logits, target, *, ignore_index=-100, reduction="mean"):
    losses = cross_entropy(logits, target, ignore_index=ignore_index, reduction="none")
    total = cross_entropy(
        logits, target, ignore_index=ignore_index, reduction="sum" if reduction == "mean" else reduction
    )
    return total / max(losses.numel(), 1) if reduction == "mean" else total


@exercise.wrong(
    "The ignored target itself is used as an index: -100 fails, or picks a class from the end. Replace it, then mask.",
    caught_by="runs",
)
def ignored_target_as_index(logits, target, *, ignore_index=-100, reduction="mean"):
    kept = _kept_positions(logits, target, ignore_index, reduction)
    losses = -log_softmax(without_ignored(logits, kept)).gather(-1, target.unsqueeze(-1)).squeeze(-1)
    return reduced(losses, kept, reduction)


@exercise.wrong(
    "Multiplying by a 0/1 mask keeps nan: nan * 0 is nan. Replace the logits of ignored rows before the softmax."
)
def ignored_rows_times_zero(logits, target, *, ignore_index=-100, reduction="mean"):
    kept = _kept_positions(logits, target, ignore_index, reduction)
    losses = picked(log_softmax(logits), target, kept) * kept
    return losses if reduction == "none" else losses.sum() / (kept.sum().clamp(min=1) if reduction == "mean" else 1)


@exercise.wrong(
    "Masking the loss alone is too late: the gradient of the ignored rows still passes through their nan logits. "
    "Replace these logits before the softmax.",
    caught_by="gradients",
)
def ignored_rows_masked_at_the_end(logits, target, *, ignore_index=-100, reduction="mean"):
    kept = _kept_positions(logits, target, ignore_index, reduction)
    return reduced(picked(log_softmax(logits), target, kept), kept, reduction)


@exercise.wrong("The classes are on the last axis here, not on axis 1 as in torch's own function.")
def class_axis_one(logits, target, *, ignore_index=-100, reduction="mean"):
    kept = _kept_positions(logits, target, ignore_index, reduction)
    logp = log_softmax(without_ignored(logits, kept), min(1, logits.ndim - 1))
    return reduced(picked(logp, target, kept), kept, reduction)


@exercise.wrong(
    "softmax first and its log afterwards: a small probability becomes 0 and its log -inf. Use log_softmax."
)
def log_of_softmax(logits, target, *, ignore_index=-100, reduction="mean"):
    kept = _kept_positions(logits, target, ignore_index, reduction)
    return reduced(picked(softmax(without_ignored(logits, kept)).log(), target, kept), kept, reduction)


@exercise.wrong("The logits are scores, not probabilities: a softmax before the log-softmax flattens them.")
def softmax_twice(logits, target, *, ignore_index=-100, reduction="mean"):
    kept = _kept_positions(logits, target, ignore_index, reduction)
    return reduced(picked(log_softmax(softmax(without_ignored(logits, kept))), target, kept), kept, reduction)


@exercise.wrong(
    "When every position is ignored the mean is 0 / 0 = nan. Return 0 with a zero gradient: clamp the count to 1."
)
def zero_over_zero(logits, target, *, ignore_index=-100, reduction="mean"):
    kept = _kept_positions(logits, target, ignore_index, reduction)
    total = cross_entropy(logits, target, ignore_index=ignore_index, reduction="none" if reduction == "none" else "sum")
    return total / kept.sum() if reduction == "mean" else total


@exercise.wrong("0 * logits.sum() keeps the graph but is nan as soon as one logit is: build the 0 from masked losses.")
def zero_times_the_logits(logits, target, *, ignore_index=-100, reduction="mean"):
    if reduction == "mean" and not _kept_positions(logits, target, ignore_index, reduction).any():
        return 0 * logits.sum()
    return cross_entropy(logits, target, ignore_index=ignore_index, reduction=reduction)


@exercise.wrong(
    "torch.tensor(0.0) is float32 and has no graph: the 0 for nothing kept has the dtype of `logits` and gradient 0.",
    caught_by="dtype",
)
def zero_of_the_default_dtype(logits, target, *, ignore_index=-100, reduction="mean"):
    if reduction == "mean" and not _kept_positions(logits, target, ignore_index, reduction).any():
        return torch.tensor(0.0)
    return cross_entropy(logits, target, ignore_index=ignore_index, reduction=reduction)


@exercise.wrong(
    "Divide by the number of kept positions: the batch size leaves out the time steps and includes what is ignored."
)
def divides_by_batch_size(logits, target, *, ignore_index=-100, reduction="mean"):
    total = cross_entropy(
        logits, target, ignore_index=ignore_index, reduction="sum" if reduction == "mean" else reduction
    )
    return total / max(target.shape[0] if target.ndim else 1, 1) if reduction == "mean" else total


@exercise.wrong("Decide which positions are ignored before their targets are replaced by a valid class.")
def mask_after_replacing(logits, target, *, ignore_index=-100, reduction="mean"):
    _kept_positions(logits, target, ignore_index, reduction)
    target = target.clamp(0, max(logits.shape[-1] - 1, 0))
    return cross_entropy(logits, target, ignore_index=ignore_index, reduction=reduction)


@exercise.wrong(
    "logp[arange(N), target] fits logits (N, K) only; gather along the last axis serves any number of axes.",
    caught_by="runs",
)
def only_for_two_axes(logits, target, *, ignore_index=-100, reduction="mean"):
    kept = _kept_positions(logits, target, ignore_index, reduction)
    logp = log_softmax(without_ignored(logits, kept))
    index = target.masked_fill(~kept, 0)
    losses = -logp[torch.arange(len(index)), index] if index.ndim else -logp[index]
    return reduced(losses, kept, reduction)


@exercise.wrong("Ignored positions must contribute 0: replacing their targets by a valid class is only the first half.")
def ignored_count_as_class_zero(logits, target, *, ignore_index=-100, reduction="mean"):
    kept = _kept_positions(logits, target, ignore_index, reduction)
    losses = picked(log_softmax(without_ignored(logits, kept)), target, kept)
    return losses if reduction == "none" else losses.sum() / (kept.sum().clamp(min=1) if reduction == "mean" else 1)


@exercise.wrong("`ignore_index` is an argument: -100 is only its default.")
def always_ignores_minus_100(logits, target, *, ignore_index=-100, reduction="mean"):
    _kept_positions(logits, target, ignore_index, reduction)
    return cross_entropy(logits, target.where(target < logits.shape[-1], -100), reduction=reduction)


@exercise.wrong(
    "Every negative target counts as ignored here; only `ignore_index` may be. Any other one is an error (ValueError)."
)
def ignores_all_negative_targets(logits, target, *, ignore_index=-100, reduction="mean"):
    target = target.where(target >= 0, ignore_index) if target.dtype == torch.int64 else target
    return cross_entropy(logits, target, ignore_index=ignore_index, reduction=reduction)


@exercise.wrong(
    '"none" keeps the shape of `target`, with 0 at ignored positions: it does not leave them out.', caught_by="shape"
)
def none_leaves_out_ignored(logits, target, *, ignore_index=-100, reduction="mean"):
    losses = cross_entropy(logits, target, ignore_index=ignore_index, reduction=reduction)
    return losses[target != ignore_index] if reduction == "none" else losses


@exercise.wrong('`reduction` is ignored: "none" wants the losses themselves and "sum" their sum.')
def always_the_mean(logits, target, *, ignore_index=-100, reduction="mean"):
    _kept_positions(logits, target, ignore_index, reduction)
    return cross_entropy(logits, target, ignore_index=ignore_index)


@exercise.wrong("A loss is never negative: minus the log-probability.")
def sign_forgotten(logits, target, *, ignore_index=-100, reduction="mean"):
    return -cross_entropy(logits, target, ignore_index=ignore_index, reduction=reduction)


@exercise.wrong("The score of the true class is not its log-probability: the normaliser is missing.")
def without_normaliser(logits, target, *, ignore_index=-100, reduction="mean"):
    kept = _kept_positions(logits, target, ignore_index, reduction)
    return reduced(picked(without_ignored(logits, kept), target, kept), kept, reduction)


@exercise.wrong(
    "A mean of means weighs positions unequally when rows keep different numbers: divide one sum by one count."
)
def mean_of_row_means(logits, target, *, ignore_index=-100, reduction="mean"):
    if reduction != "mean" or target.ndim < 2 or target.dtype != torch.int64 or logits.shape[:-1] != target.shape:
        return cross_entropy(logits, target, ignore_index=ignore_index, reduction=reduction)
    rows = zip(logits, target, strict=True)
    means = [mean_of_row_means(row, t, ignore_index=ignore_index) for row, t in rows]
    return torch.stack(means).mean() if means else logits.sum()


@exercise.wrong("Count the kept positions, not the losses that happen to be other than 0.")
def counts_nonzero_losses(logits, target, *, ignore_index=-100, reduction="mean"):
    losses = cross_entropy(logits, target, ignore_index=ignore_index, reduction="none")
    if reduction != "mean":
        return cross_entropy(logits, target, ignore_index=ignore_index, reduction=reduction)
    return losses.sum() / (losses != 0).sum().clamp(min=1)


@exercise.wrong(
    "An ignored target need not be a class number: check the range of the kept ones only.", caught_by="runs"
)
def range_check_includes_ignored(logits, target, *, ignore_index=-100, reduction="mean"):
    if target.dtype == torch.int64 and ((target < 0) | (target >= logits.shape[-1])).any():
        raise ValueError
    return cross_entropy(logits, target, ignore_index=ignore_index, reduction=reduction)


@exercise.wrong(
    "A negative target is an error (ValueError): used as an index it silently picks a class from the end.",
    caught_by="errors",
)
def negative_targets_wrap_around(logits, target, *, ignore_index=-100, reduction="mean"):
    classes = logits.shape[-1] if logits.ndim else 0
    if target.dtype == torch.int64:
        target = target.where((target >= 0) | (target < -classes) | (target == ignore_index), target + classes)
    return cross_entropy(logits, target, ignore_index=ignore_index, reduction=reduction)


@exercise.wrong("A target of K or more is an error (ValueError), not the last class.", caught_by="errors")
def large_targets_clamped(logits, target, *, ignore_index=-100, reduction="mean"):
    if target.dtype == torch.int64 and logits.shape[-1] > 0:
        target = target.where(target == ignore_index, target.clamp(max=logits.shape[-1] - 1))
    return cross_entropy(logits, target, ignore_index=ignore_index, reduction=reduction)


@exercise.wrong(
    "Targets of another shape are an error (ValueError), even where a reshape would fit.", caught_by="errors"
)
def targets_reshaped(logits, target, *, ignore_index=-100, reduction="mean"):
    if target.numel() * logits.shape[-1] == logits.numel():
        target = target.reshape(logits.shape[:-1])
    return cross_entropy(logits, target, ignore_index=ignore_index, reduction=reduction)


@exercise.wrong(
    "An unknown reduction is an error (ValueError): do not let it fall through to the mean.", caught_by="errors"
)
def unknown_reduction_is_the_mean(logits, target, *, ignore_index=-100, reduction="mean"):
    return cross_entropy(
        logits, target, ignore_index=ignore_index, reduction=reduction if reduction in ("none", "sum") else "mean"
    )


@exercise.wrong("Targets must be int64 (TypeError): do not convert other dtypes silently.", caught_by="errors")
def targets_are_converted(logits, target, *, ignore_index=-100, reduction="mean"):
    return cross_entropy(logits, target.long(), ignore_index=ignore_index, reduction=reduction)


@exercise.wrong(
    "Masking in place changes the caller's target. masked_fill (without _) makes a new tensor.", caught_by="inputs"
)
def target_masked_in_place(logits, target, *, ignore_index=-100, reduction="mean"):
    result = cross_entropy(logits, target, ignore_index=ignore_index, reduction=reduction)
    target[target == ignore_index] = 0
    return result


@exercise.wrong(
    "Masking in place changes the caller's logits. masked_fill (without _) makes a new tensor.", caught_by="inputs"
)
def logits_masked_in_place(logits, target, *, ignore_index=-100, reduction="mean"):
    result = cross_entropy(logits, target, ignore_index=ignore_index, reduction=reduction)
    with torch.no_grad():
        logits[target == ignore_index] = 0
    return result


@exercise.wrong(
    "The loss must stay in the graph: .item(), detach() and torch.tensor(...) cut it.", caught_by="gradients"
)
def cuts_the_graph(logits, target, *, ignore_index=-100, reduction="mean"):
    return cross_entropy(logits.detach(), target, ignore_index=ignore_index, reduction=reduction)


@exercise.wrong("The loss has the dtype of `logits`: float64 is computed in float64.")
def everything_in_float32(logits, target, *, ignore_index=-100, reduction="mean"):
    return cross_entropy(logits.float(), target, ignore_index=ignore_index, reduction=reduction).to(logits.dtype)


@exercise.wrong("No loop over samples: gather picks one entry of every row at once.", caught_by="growth")
def sample_by_sample(logits, target, *, ignore_index=-100, reduction="mean"):
    kept = _kept_positions(logits, target, ignore_index, reduction)
    if target.numel() == 0:
        return cross_entropy(logits, target, ignore_index=ignore_index, reduction=reduction)
    logp = log_softmax(without_ignored(logits, kept)).reshape(-1, logits.shape[-1])
    labels = target.masked_fill(~kept, 0).flatten()
    losses = torch.stack([-row[label] for row, label in zip(logp, labels, strict=True)])
    return reduced(losses.reshape(target.shape), kept, reduction)


@exercise.wrong(
    "logp[:, target] is an N x N matrix of which only the diagonal is wanted: gather takes one entry of every row.",
    caught_by="growth",
)
def diagonal_of_all_pairs(logits, target, *, ignore_index=-100, reduction="mean"):
    kept = _kept_positions(logits, target, ignore_index, reduction)
    scores, labels = logits.reshape(-1, logits.shape[-1]), target.flatten()
    keep = labels != ignore_index
    losses = -log_softmax(scores[keep])[:, labels[keep]].diagonal()
    if reduction == "none":
        return torch.zeros_like(target, dtype=logits.dtype).masked_scatter(kept, losses)
    return losses.sum() / (max(len(losses), 1) if reduction == "mean" else 1)


@exercise.wrong(
    "In a product with one-hot rows a log-probability of -inf becomes 0 * inf = nan: pick the entries with gather."
)
def product_with_one_hot_rows(logits, target, *, ignore_index=-100, reduction="mean"):
    kept = _kept_positions(logits, target, ignore_index, reduction)
    onehot = (target.unsqueeze(-1) == torch.arange(logits.shape[-1])).to(logits.dtype)
    return reduced(-(onehot * log_softmax(without_ignored(logits, kept))).sum(-1), kept, reduction)


@exercise.wrong(
    "The range check excuses -100 whatever `ignore_index` is: excuse the positions with `ignore_index`.",
    caught_by="runs",
)
def range_check_excuses_minus_100(logits, target, *, ignore_index=-100, reduction="mean"):
    if target.dtype != torch.int64:
        raise TypeError
    if reduction not in ("none", "sum", "mean") or target.shape != logits.shape[:-1]:
        raise ValueError
    if (((target < 0) & (target != -100)) | (target >= logits.shape[-1])).any():
        raise ValueError
    kept = target != ignore_index
    return reduced(picked(log_softmax(without_ignored(logits, kept)), target, kept), kept, reduction)


@exercise.right("on the kept rows only")
def kept_rows_only(logits, target, *, ignore_index=-100, reduction="mean"):
    kept = _kept_positions(logits, target, ignore_index, reduction)
    scores, index = logits[kept], target[kept]
    top = scores.max(-1, keepdim=True).values if len(index) else scores.sum(-1, keepdim=True)
    normaliser = (scores - top).exp().sum(-1).log() + top.squeeze(-1)
    losses = normaliser - scores[torch.arange(len(index)), index]
    if reduction == "none":
        return torch.zeros_like(target, dtype=logits.dtype).masked_scatter(kept, losses)
    return losses.sum() / max(len(index), 1) if reduction == "mean" else losses.sum()


@exercise.right("flattened, with where and an index pair")
def flattened_with_where(logits, target, *, ignore_index=-100, reduction="mean"):
    kept = _kept_positions(logits, target, ignore_index, reduction)
    flat, keep = logits.reshape(-1, logits.shape[-1]), kept.reshape(-1)
    scores = torch.where(keep[:, None], flat, torch.zeros((), dtype=flat.dtype))
    index = torch.where(keep, target.reshape(-1), 0)
    chosen = log_softmax(scores, -1)[torch.arange(len(index)), index]
    losses = torch.where(keep, -chosen, torch.zeros((), dtype=flat.dtype))
    if reduction == "none":
        return losses.reshape(target.shape)
    return losses.sum() if reduction == "sum" else losses.sum().div(keep.sum().clamp_min(1))
