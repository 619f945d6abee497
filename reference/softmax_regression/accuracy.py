"""The share of right predictions."""

import torch
from torch import Tensor

from grader import Case, Cost, Exercise
from reference.softmax_regression import FORBID


def accuracy(logits: Tensor, target: Tensor, *, ignore_index: int | None = None) -> float:
    """Return the share of positions whose largest score is that of the true class.

    Args:
        logits: scores `(..., K)`, float. Of equal largest scores the one of the lowest class counts as the
            prediction. A row that contains nan counts as wrong.
        target: the true classes `(...)`, of any integer dtype.
        ignore_index: positions with this target do not count at all; None ignores nothing.

    Returns:
        A Python float, right positions / counted positions, exact to a float's precision; 0.0 if nothing counts.
        All numbers come from the device in one transfer.

    Raises:
        ValueError: `target` not of shape `logits.shape[:-1]`, or K = 0.

    Example:
        >>> logits = torch.tensor([[2.0, 1.0], [0.0, 3.0], [5.0, 5.0], [0.0, 1.0]])
        >>> accuracy(logits, torch.tensor([0, 1, 1, 1]))  # the tie in row 2 counts as class 0
        0.75
        >>> accuracy(logits, torch.tensor([0, 1, 9, 9]), ignore_index=9)
        1.0
    """
    if logits.shape[:-1] != target.shape:
        raise ValueError(f"target must have the shape {tuple(logits.shape[:-1])}, got {tuple(target.shape)}")
    if logits.shape[-1] == 0:
        raise ValueError("there are no classes")
    right = (logits.argmax(-1) == target) & ~logits.isnan().any(-1)
    counted = torch.ones_like(right) if ignore_index is None else target != ignore_index
    hits, total = torch.stack([(right & counted).sum(), counted.sum()]).tolist()
    return hits / total if total else 0.0


exercise = Exercise(
    accuracy,
    points=5,
    cost=Cost(ops=18, syncs=1),
    forbid=FORBID,
    hints=(
        "Count two things: the positions that are right, and the positions that count. What does argmax do with nan?",
        "right = (logits.argmax(-1) == target) & ~logits.isnan().any(-1); both counts are sums of boolean tensors.",
        "hits, total = torch.stack([(right & counted).sum(), counted.sum()]).tolist(); then divide Python numbers.",
    ),
    source="D2L linear-classification/classification",
)


@exercise.truth
def truth(logits, target, *, ignore_index=None):
    rows, labels = logits.reshape(-1, logits.shape[-1]).tolist(), target.reshape(-1).tolist()
    hits = total = 0
    for row, label in zip(rows, labels, strict=True):
        if ignore_index is None or label != ignore_index:
            total += 1
            hits += all(score == score for score in row) and row.index(max(row)) == label
    return hits / total if total else 0.0


@exercise.cases
def cases(draw):
    nan, inf, int32 = float("nan"), float("inf"), torch.int32
    logits = torch.tensor([[1.0, 3.0, 2.0], [4.0, 0.0, 1.0], [0.0, 1.0, 2.0], [5.0, 6.0, 4.0], [3.0, 0.0, 1.0]])
    yield Case("two of three", logits[:3], torch.tensor([1, 0, 1]), cost=True)
    yield Case("sequences", draw.normal(2, 6, 3), draw.integers(0, 3, 2, 6))
    yield Case("five positions, two ignored", logits, torch.tensor([1, -100, 0, 1, -100]), ignore_index=-100, cost=True)
    yield Case("-100 counts when nothing is ignored", logits, torch.tensor([1, -100, 2, 1, -100]))
    yield Case("ignore_index 0, a valid class", logits, torch.tensor([1, 0, 2, 0, 2]), ignore_index=0)
    yield Case(
        "sequences, unevenly ignored",
        torch.stack([logits, logits.flip(1)]),
        torch.tensor([[1, 0, 2, 1, 1], [0, 9, 9, 9, 9]]),
        ignore_index=9,
    )
    yield Case("int32 targets", logits, torch.tensor([1, 0, 1, 0, 1], dtype=int32))
    ties = torch.tensor([[1.0, 1.0, 0.0], [0.0, 2.0, 2.0], [3.0, 3.0, 3.0], [0.0, 5.0, 5.0]])
    yield Case("ties", ties, torch.tensor([0, 1, 2, 1]), edge=True)
    bad = torch.tensor([[nan, 1.0, 0.0], [0.0, nan, 1.0], [2.0, 1.0, 0.0], [nan, nan, nan], [1.0, nan, 2.0]])
    yield Case("rows with nan", bad, torch.tensor([0, 2, 0, 0, 1]), edge=True)
    yield Case(
        "infinite scores", torch.tensor([[inf, 0.0], [0.0, -inf], [inf, 1.0]]), torch.tensor([0, 0, 1]), edge=True
    )
    yield Case("no samples", torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64), edge=True)
    yield Case("all ignored", logits, torch.full((5,), 2), ignore_index=2, edge=True)
    yield Case("a single class", torch.tensor([[0.5], [2.0], [1.0]]), torch.tensor([0, 0, 1]), edge=True)
    yield Case("a single sample", draw.normal(1, 3), torch.tensor([1]), edge=True)
    yield Case("too few targets", draw.normal(3, 4), torch.tensor([0, 1]), raises=ValueError)
    yield Case("targets as a column", draw.normal(3, 4), torch.tensor([[0], [1], [3]]), raises=ValueError)
    yield Case("no classes", torch.zeros(2, 0), torch.tensor([0, 0]), raises=ValueError)
    yield Case("a larger batch", draw.normal(47, 3), draw.integers(0, 3, 47), hidden=True)
    yield Case("large logits", 1e4 * draw.normal(11, 3), draw.integers(0, 3, 11), hidden=True)
    yield Case("tiny differences", 5.0 + 1e-6 * draw.integers(0, 4, 13, 3), draw.integers(0, 3, 13), hidden=True)
    yield Case("one sample without a batch axis", logits[0], torch.tensor(1), edge=True, hidden=True)
    yield Case("three axes, int8, ignored", draw.normal(2, 3, 2, 5), draw.integers(0, 5, 2, 3, 2).to(torch.int8),
               ignore_index=4, hidden=True)  # fmt: skip
    yield Case("nan in ignored rows", bad, torch.tensor([-1, 2, 0, -1, -1]), ignore_index=-1, edge=True, hidden=True)
    yield Case("no classes and no samples", torch.zeros(0, 0), torch.zeros(0, dtype=torch.int64),
               raises=ValueError, hidden=True)  # fmt: skip


@exercise.growth("samples", ops=0)
def more_samples(draw, size):
    return Case(f"{size} samples", draw.normal(size, 5), draw.integers(0, 5, size))


@exercise.growth("classes", ops=0)
def more_classes(draw, size):
    return Case(f"{size} classes", draw.normal(6, size), draw.integers(0, size, 6))


def check(logits, target):
    """Raise what the contract asks for."""
    if logits.shape[:-1] != target.shape or logits.shape[-1] == 0:
        raise ValueError


def right_of(logits, target):
    return (logits.argmax(-1) == target) & ~logits.isnan().any(-1)


def counted_in(target, ignore_index):
    return target == target if ignore_index is None else target != ignore_index


def ratio(right, counted):
    hits, total = torch.stack([right.sum(), counted.sum()]).tolist()
    return hits / total if total else 0.0


@exercise.wrong("Ignored positions do not count: divide by the number of the others, not by all.")
def divides_by_all(logits, target, *, ignore_index=None):
    check(logits, target)
    return ratio(right_of(logits, target) & counted_in(target, ignore_index), target == target)


@exercise.wrong("An ignored position does not count even where the prediction happens to equal `ignore_index`.")
def counts_ignored_hits(logits, target, *, ignore_index=None):
    check(logits, target)
    return ratio(right_of(logits, target), counted_in(target, ignore_index))


@exercise.wrong("`ignore_index` is not used: these positions must not count.")
def ignores_nothing(logits, target, *, ignore_index=None):
    return accuracy(logits, target)


@exercise.wrong("0 is a class number like any other: `if ignore_index:` skips it. Compare with None.")
def ignore_index_zero_is_falsy(logits, target, *, ignore_index=None):
    return accuracy(logits, target, ignore_index=ignore_index or None)


@exercise.wrong(
    "None ignores nothing: -100 is another function's default, here a target of -100 just counts as missed."
)
def ignores_minus_100_by_default(logits, target, *, ignore_index=None):
    return accuracy(logits, target, ignore_index=-100 if ignore_index is None else ignore_index)


@exercise.wrong("Scores are not class numbers: take the argmax of each row first, then compare it with the target.")
def scores_compared_with_labels(logits, target, *, ignore_index=None):
    check(logits, target)
    return ratio(
        (logits == target.unsqueeze(-1)).any(-1) & counted_in(target, ignore_index), counted_in(target, ignore_index)
    )


@exercise.wrong("The classes are on the last axis: argmax(-1), not argmax(0).")
def argmax_over_samples(logits, target, *, ignore_index=None):
    check(logits, target)
    if logits.numel() == 0:
        return 0.0
    right = (logits.argmax(0) == target) & ~logits.isnan().any(-1)
    return ratio(right & counted_in(target, ignore_index), counted_in(target, ignore_index))


@exercise.wrong("argmax is wanted, not argmin: the largest score wins.")
def smallest_score(logits, target, *, ignore_index=None):
    return accuracy(-logits, target, ignore_index=ignore_index)


@exercise.wrong(
    "A mean of means weighs positions unequally when rows count different numbers: divide one sum by one count."
)
def mean_of_row_means(logits, target, *, ignore_index=None):
    check(logits, target)
    if target.ndim < 2 or not len(target):
        return accuracy(logits, target, ignore_index=ignore_index)
    means = [accuracy(row, t, ignore_index=ignore_index) for row, t in zip(logits, target, strict=True)]
    return sum(means) / len(means)


@exercise.wrong(
    "A mean over batches of 4 weighs the samples of a smaller last batch more: add up counts, then divide once."
)
def mean_of_batch_means(logits, target, *, ignore_index=None):
    check(logits, target)
    if target.ndim == 0 or not len(target):
        return accuracy(logits, target, ignore_index=ignore_index)
    batches = zip(logits.split(4), target.split(4), strict=True)
    means = [accuracy(row, t, ignore_index=ignore_index) for row, t in batches]
    return sum(means) / len(means)


@exercise.wrong("A Python float is wanted: read both counts as Python numbers, then divide them.", caught_by="type")
def returns_a_tensor(logits, target, *, ignore_index=None):
    check(logits, target)
    counted = counted_in(target, ignore_index)
    return (right_of(logits, target) & counted).sum() / counted.sum().clamp(min=1)


@exercise.wrong("A mean in float32 rounds 2 / 3 to 0.66666669: divide the two counts as Python numbers.")
def mean_in_float32(logits, target, *, ignore_index=None):
    check(logits, target)
    counted = counted_in(target, ignore_index)
    return ((right_of(logits, target) & counted).float().sum() / counted.sum().clamp(min=1)).item()


@exercise.wrong("The share of right predictions is wanted, not how many there are.")
def number_of_hits(logits, target, *, ignore_index=None):
    check(logits, target)
    return float((right_of(logits, target) & counted_in(target, ignore_index)).sum())


@exercise.wrong("A share between 0 and 1 is wanted, not percent.")
def in_percent(logits, target, *, ignore_index=None):
    return 100 * accuracy(logits, target, ignore_index=ignore_index)


@exercise.wrong("That is the share of errors; accuracy is the share of right predictions.")
def share_of_errors(logits, target, *, ignore_index=None):
    return 1 - accuracy(logits, target, ignore_index=ignore_index)


@exercise.wrong("Nothing to count gives 0.0: guard the division.", caught_by="runs")
def divides_by_zero(logits, target, *, ignore_index=None):
    check(logits, target)
    counted = counted_in(target, ignore_index)
    hits, total = torch.stack([(right_of(logits, target) & counted).sum(), counted.sum()]).tolist()
    return hits / total


@exercise.wrong("argmax takes nan for the largest score, so a row with nan can look right: count such rows as wrong.")
def trusts_nan(logits, target, *, ignore_index=None):
    check(logits, target)
    counted = counted_in(target, ignore_index)
    return ratio((logits.argmax(-1) == target) & counted, counted)


@exercise.wrong("A row with nan is wrong as a whole: do not look for the best of its other scores.")
def best_score_beside_nan(logits, target, *, ignore_index=None):
    return accuracy(logits.masked_fill(logits.isnan(), -float("inf")), target, ignore_index=ignore_index)


@exercise.wrong("A row with nan counts, as a wrong one: only `ignore_index` takes positions out of the count.")
def leaves_out_nan_rows(logits, target, *, ignore_index=None):
    check(logits, target)
    counted = counted_in(target, ignore_index) & ~logits.isnan().any(-1)
    return ratio(right_of(logits, target) & counted, counted)


@exercise.wrong("An infinite score is a fine score; only nan makes a row wrong.")
def distrusts_infinity(logits, target, *, ignore_index=None):
    return accuracy(logits.masked_fill(logits.isinf(), float("nan")), target, ignore_index=ignore_index)


@exercise.wrong("Of equal scores the lowest class is the prediction, not the highest.")
def last_of_equal_scores(logits, target, *, ignore_index=None):
    check(logits, target)
    best = logits.shape[-1] - 1 - logits.flip(-1).argmax(-1)
    counted = counted_in(target, ignore_index)
    return ratio((best == target) & ~logits.isnan().any(-1) & counted, counted)


@exercise.wrong(
    "A tie is no hit for every class in it: only the lowest class with the largest score is the prediction."
)
def any_of_equal_scores(logits, target, *, ignore_index=None):
    check(logits, target)
    classes = torch.arange(logits.shape[-1])
    chosen = (logits == logits.amax(-1, keepdim=True)) & (classes == target.unsqueeze(-1))
    counted = counted_in(target, ignore_index)
    return ratio(chosen.any(-1) & counted, counted)


@exercise.wrong("squeeze() also removes an axis of one class (or one sample): name the axis, argmax(-1).")
def squeezes_first(logits, target, *, ignore_index=None):
    check(logits, target)
    scores, labels = logits.squeeze(), target.squeeze()
    if scores.ndim == 0 or not scores.numel():
        return 0.0
    right = (scores.argmax(-1) == labels) & ~scores.isnan().any(-1)
    return ratio(right & counted_in(labels, ignore_index), counted_in(labels, ignore_index))


@exercise.wrong(
    "Targets of another shape are an error (ValueError): (N, 1) against (N,) broadcasts silently.", caught_by="errors"
)
def shapes_are_not_checked(logits, target, *, ignore_index=None):
    if logits.shape[-1] == 0:
        raise ValueError
    right = right_of(logits, target) if target.ndim > 1 or len(logits) == target.numel() else target == target
    counted = counted_in(target, ignore_index).expand(right.shape)
    return ratio(right & counted, counted)


@exercise.wrong("Without classes (K = 0) there is nothing to predict: ValueError.", caught_by="errors")
def no_classes_gives_zero(logits, target, *, ignore_index=None):
    return 0.0 if logits.ndim and not logits.shape[-1] else accuracy(logits, target, ignore_index=ignore_index)


@exercise.wrong("Any integer dtype is fine for the targets.", caught_by="runs")
def refuses_int32(logits, target, *, ignore_index=None):
    if target.dtype != torch.int64:
        raise TypeError("targets must be int64")
    return accuracy(logits, target, ignore_index=ignore_index)


@exercise.wrong("Do not write into the caller's logits to get rid of nan.", caught_by="inputs")
def overwrites_nan(logits, target, *, ignore_index=None):
    result = accuracy(logits, target, ignore_index=ignore_index)
    logits[logits.isnan()] = 0
    return result


@exercise.wrong(
    "Each .item() waits for the device: put both counts into one tensor and read it once.", caught_by="cost"
)
def two_transfers(logits, target, *, ignore_index=None):
    check(logits, target)
    counted = counted_in(target, ignore_index)
    total = counted.sum().item()
    return (right_of(logits, target) & counted).sum().item() / total if total else 0.0


@exercise.wrong("No loop over samples: argmax(-1) predicts all rows at once.", caught_by="growth")
def sample_by_sample(logits, target, *, ignore_index=None):
    check(logits, target)
    right = right_of(logits, target)
    if target.ndim == 1 and len(target):
        right = torch.stack([row.argmax() == t for row, t in zip(logits, target, strict=True)]) & right
    counted = counted_in(target, ignore_index)
    return ratio(right & counted, counted)


@exercise.wrong(
    "`ignore_index or -100` makes -100 of None and of 0: None ignores nothing, and 0 is a class like any other."
)
def minus_100_for_none_and_zero(logits, target, *, ignore_index=None):
    return accuracy(logits, target, ignore_index=ignore_index or -100)


@exercise.wrong(
    "The classes are on the last axis, argmax(-1): axis 1 is the last one only of (N, K).", caught_by="runs"
)
def argmax_over_axis_one(logits, target, *, ignore_index=None):
    check(logits, target)
    right = (torch.argmax(logits, dim=1) == target) & ~logits.isnan().any(-1)
    counted = counted_in(target, ignore_index)
    return ratio(right & counted, counted)


@exercise.right("flat, with the first position of the maximum found by hand")
def first_maximum_by_hand(logits, target, *, ignore_index=None):
    if not logits.ndim or tuple(logits.shape) != (*target.shape, logits.shape[-1]) or logits.shape[-1] < 1:
        raise ValueError("shapes do not fit")
    scores, labels = logits.detach().reshape(-1, logits.shape[-1]), target.reshape(-1).long()
    best = (scores == scores.amax(1, keepdim=True)).int().max(1).indices
    hit = (best == labels) & (scores == scores).all(1)
    code = 2 * hit.long() if ignore_index is None else torch.where(labels == ignore_index, 1, 2 * hit.long())
    wrong, ignored, right = torch.bincount(code, minlength=3).tolist()
    return right / (wrong + right) if wrong + right else 0.0


@exercise.right("on the positions that count only")
def kept_positions_only(logits, target, *, ignore_index=None):
    if logits.ndim < 1 or logits.size(-1) == 0 or logits.shape[:-1] != target.shape:
        raise ValueError
    with torch.no_grad():
        usable = ~torch.isnan(logits).any(dim=-1)
        predicted = torch.where(usable, logits.max(dim=-1).indices.to(target.dtype), ~target)
        agree = predicted.eq(target).to(torch.float64)
        weight = torch.ones_like(agree) if ignore_index is None else target.ne(ignore_index).to(torch.float64)
        share = (agree * weight).sum() / weight.sum()
        return float(share.nan_to_num(0.0))
