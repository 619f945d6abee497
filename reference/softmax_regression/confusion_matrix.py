"""Which classes are taken for which."""

import torch
from torch import Tensor

from grader import Case, Cost, Exercise
from reference.softmax_regression import FORBID


def confusion_matrix(pred: Tensor, target: Tensor, num_classes: int) -> Tensor:
    """Count how often class i was taken for class j.

    Args:
        pred: predicted classes, any shape, any integer dtype (bool counts as integer).
        target: true classes, of the shape of `pred`; its dtype may be another one.
        num_classes: the number of classes K, at least 1; a class may be absent from the data.

    Returns:
        int64 `(K, K)`: entry [i, j] is the number of positions with *target i, predicted j*. Row i sums to the
        number of samples of class i. No loop over samples or classes.

    Raises:
        ValueError: the shapes differ, a label is outside [0, num_classes), or num_classes < 1.
        TypeError: float labels.

    Example:
        >>> confusion_matrix(torch.tensor([1, 1, 0, 1]), torch.tensor([0, 1, 0, 0]), 3)
        tensor([[1, 2, 0],
                [0, 1, 0],
                [0, 0, 0]])
    """
    _check_labels(pred, target, num_classes)
    cells = target.flatten().long() * num_classes + pred.flatten().long()
    return torch.bincount(cells, minlength=num_classes**2).view(num_classes, num_classes)


def _check_labels(pred: Tensor, target: Tensor, num_classes: int) -> None:
    """Raise for what the contract does not allow."""
    if any(labels.is_floating_point() or labels.is_complex() for labels in (pred, target)):
        raise TypeError(f"labels must be integers, got {pred.dtype} and {target.dtype}")
    if pred.shape != target.shape:
        raise ValueError(f"pred is {tuple(pred.shape)} but target {tuple(target.shape)}")
    if num_classes < 1:
        raise ValueError(f"num_classes must be at least 1, got {num_classes}")
    for labels in (pred, target) if pred.numel() else ():
        low, high = labels.long().aminmax()
        if low < 0 or high >= num_classes:
            raise ValueError(f"a label is outside [0, {num_classes})")


exercise = Exercise(
    confusion_matrix,
    points=5,
    extra=True,
    cost=Cost(ops=20, maxel=("pred", "result")),
    forbid=(*FORBID, "histc", "histogram*"),
    hints=(
        "Give each cell of the matrix a number of its own: from target i and prediction j make one integer.",
        "Cell [i, j] of a K x K matrix has the flat index i * K + j. What counts how often each integer occurs?",
        "torch.bincount(target * K + pred, minlength=K * K).view(K, K), on flattened int64 labels.",
    ),
    source="D2L linear-classification/environment-and-distribution-shift (label shift)",
)


@exercise.truth
def truth(pred, target, num_classes):
    rows = [target == i for i in range(num_classes)]
    columns = [pred == j for j in range(num_classes)]
    return torch.tensor([[int((row & column).sum()) for column in columns] for row in rows])


@exercise.cases
def cases(draw):
    uint8, int32 = torch.uint8, torch.int32
    yield Case("six positions, three classes", torch.tensor([1, 0, 2, 1, 1, 2]), torch.tensor([0, 0, 2, 1, 0, 1]), 3)
    yield Case(
        "many positions, five classes", draw.integers(0, 5, 300), draw.integers(0, 5, 300), 5, cost=Cost(maxel=600)
    )
    yield Case("absent classes", torch.tensor([1, 3, 1]), torch.tensor([3, 1, 1]), 6)
    yield Case("more cells than positions", draw.integers(0, 9, 4), draw.integers(0, 9, 4), 9, cost=True)
    yield Case("two axes", draw.integers(0, 4, 3, 5), draw.integers(0, 4, 3, 5), 4)
    yield Case(
        "uint8 labels, 20 classes", draw.integers(0, 20, 90, dtype=uint8), draw.integers(0, 20, 90, dtype=uint8), 20
    )
    yield Case("int32 and int64 labels", draw.integers(0, 3, 7, dtype=int32), draw.integers(0, 3, 7), 3)
    empty = torch.zeros(0, dtype=torch.int64)
    yield Case("no positions", empty, empty.clone(), 3, edge=True)
    yield Case("a single class", torch.tensor([0, 0, 0]), torch.tensor([0, 0, 0]), 1, edge=True)
    yield Case("boolean labels", torch.tensor([True, False, True]), torch.tensor([True, True, True]), 2, edge=True)
    yield Case("a predicted label K", torch.tensor([0, 3]), torch.tensor([0, 1]), 3, raises=ValueError)
    yield Case("a true label K", torch.tensor([0, 1]), torch.tensor([3, 1]), 3, raises=ValueError)
    yield Case("a predicted label -1", torch.tensor([-1, 1]), torch.tensor([2, 1]), 3, raises=ValueError)
    yield Case("a true label -1", torch.tensor([2, 1]), torch.tensor([-1, 1]), 3, raises=ValueError)
    yield Case("shapes (2,) and (3,)", torch.tensor([0, 1]), torch.tensor([0, 1, 1]), 2, raises=ValueError)
    yield Case("shapes (2,) and (2, 1)", torch.tensor([0, 1]), torch.tensor([[0], [1]]), 2, raises=ValueError)
    yield Case("no classes", empty, empty.clone(), 0, raises=ValueError)
    yield Case("float predictions", torch.tensor([0.0, 1.0]), torch.tensor([0, 1]), 2, raises=TypeError)
    yield Case("float targets", torch.tensor([0, 1]), torch.tensor([0.0, 1.0]), 2, raises=TypeError)
    yield Case("three axes", draw.integers(0, 5, 2, 3, 4), draw.integers(0, 5, 2, 3, 4), 5, hidden=True)
    yield Case("single positions", torch.tensor(2), torch.tensor(1), 4, edge=True, hidden=True)
    yield Case("int8 labels, 12 classes", draw.integers(0, 12, 50, dtype=torch.int8),
               draw.integers(0, 12, 50, dtype=torch.int8), 12, hidden=True)  # fmt: skip
    many = draw.integers(0, 3, 2, 4000, dtype=uint8)
    many[0, :3000], many[1, :2500] = 2, 1  # a count above 2048, where float16 no longer counts by ones
    yield Case("4000 positions", *many, 3, layouts=False, hidden=True)


@exercise.growth("samples", ops=0, peak=1)
def more_samples(draw, size):
    return Case(f"{size} samples", draw.integers(0, 3, size), draw.integers(0, 3, size), 3)


@exercise.growth("classes", ops=0, peak=2)
def more_classes(draw, size):
    return Case(f"{size} classes", draw.integers(0, size, 40), draw.integers(0, size, 40), size)


def counts(rows, columns, num_classes):
    """Count pairs of int64 labels."""
    cells = rows.flatten().long() * num_classes + columns.flatten().long()
    return torch.bincount(cells, minlength=num_classes**2).view(num_classes, num_classes)


@exercise.wrong("Rows are the truth, columns the predictions: entry [i, j] is target i, predicted j.")
def axes_swapped(pred, target, num_classes):
    return confusion_matrix(target, pred, num_classes)


@exercise.wrong(
    "M[t, p] += 1 counts a repeated pair once: all old values are read before any is written. Use bincount or "
    "index_add."
)
def repeated_pairs_count_once(pred, target, num_classes):
    _check_labels(pred, target, num_classes)
    matrix = torch.zeros(num_classes, num_classes, dtype=torch.int64)
    matrix[target.long(), pred.long()] += 1
    return matrix


@exercise.wrong(
    "The matrix is K x K for the K that is given: a class absent from the data still has its row and column."
)
def classes_from_the_data(pred, target, num_classes):
    _check_labels(pred, target, num_classes)
    found = int(torch.maximum(pred.max(), target.max())) + 1 if pred.numel() else num_classes
    return counts(target, pred, found)


@exercise.wrong("minlength=K * K is missing: bincount stops at the largest cell that occurs.", caught_by="runs")
def bincount_without_minlength(pred, target, num_classes):
    _check_labels(pred, target, num_classes)
    cells = target.flatten().long() * num_classes + pred.flatten().long()
    return torch.bincount(cells).view(num_classes, num_classes)


@exercise.wrong("Counts are exact integers (int64), not floats.", caught_by="dtype")
def float_counts(pred, target, num_classes):
    return confusion_matrix(pred, target, num_classes).float()


@exercise.wrong(
    "Counts are int64: int32 is not the dtype of torch's counts and overflows at 2 billion.", caught_by="dtype"
)
def int32_counts(pred, target, num_classes):
    return confusion_matrix(pred, target, num_classes).int()


@exercise.wrong("Counts are asked, not shares: do not divide the rows by their sums.", caught_by="dtype")
def rows_normalised(pred, target, num_classes):
    matrix = confusion_matrix(pred, target, num_classes)
    return matrix / matrix.sum(1, keepdim=True).clamp(min=1)


@exercise.wrong("Only the right predictions are counted: the errors belong into the matrix too.")
def diagonal_only(pred, target, num_classes):
    return confusion_matrix(pred, target, num_classes).diagonal().diag()


@exercise.wrong("The right predictions belong into the matrix too, on its diagonal.")
def errors_only(pred, target, num_classes):
    matrix = confusion_matrix(pred, target, num_classes)
    return matrix - matrix.diagonal().diag()


@exercise.wrong("Target i, predicted j is not the same as target j, predicted i: the matrix need not be symmetric.")
def made_symmetric(pred, target, num_classes):
    matrix = confusion_matrix(pred, target, num_classes)
    return matrix + matrix.T - matrix.diagonal().diag()


@exercise.wrong(
    "i * K + j in uint8 or int8 overflows for 20 classes: convert the labels to int64 before the arithmetic."
)
def overflows_in_small_dtypes(pred, target, num_classes):
    _check_labels(pred, target, num_classes)
    if torch.bool in (pred.dtype, target.dtype) or pred.dtype != target.dtype:
        return counts(target, pred, num_classes)
    cells = (target.flatten() * num_classes + pred.flatten()).long() % num_classes**2
    return torch.bincount(cells, minlength=num_classes**2).view(num_classes, num_classes)


@exercise.wrong("The flat index of row i and column j is i * K + j; i + j sends different pairs to the same cell.")
def cells_collide(pred, target, num_classes):
    _check_labels(pred, target, num_classes)
    cells = target.flatten().long() + pred.flatten().long()
    return torch.bincount(cells, minlength=num_classes**2)[: num_classes**2].view(num_classes, num_classes)


@exercise.wrong("Labels of any shape are fine: flatten them before counting.", caught_by="runs")
def vectors_only(pred, target, num_classes):
    _check_labels(pred, target, num_classes)
    cells = target.long() * num_classes + pred.long()
    return torch.bincount(cells, minlength=num_classes**2).view(num_classes, num_classes)


@exercise.wrong("Labels of any integer dtype are fine, bool among them: convert them to int64.", caught_by="runs")
def int64_only(pred, target, num_classes):
    if pred.dtype != torch.int64 or target.dtype != torch.int64:
        raise TypeError
    return confusion_matrix(pred, target, num_classes)


@exercise.wrong("Without positions every count is 0; max() of an empty tensor fails.", caught_by="runs")
def largest_of_nothing(pred, target, num_classes):
    if pred.shape == target.shape and num_classes > 0 and not pred.numel():
        pred.max()
    return confusion_matrix(pred, target, num_classes)


@exercise.wrong("Without positions every count is 0; min() of an empty tensor fails.", caught_by="runs")
def smallest_of_nothing(pred, target, num_classes):
    if pred.shape == target.shape and num_classes > 0 and not pred.numel():
        pred.min()
    return confusion_matrix(pred, target, num_classes)


@exercise.wrong("Check the true labels too: K or -1 among them is an error (ValueError).", caught_by="errors")
def only_predictions_are_checked(pred, target, num_classes):
    if not target.is_floating_point() and num_classes > 0:
        target = target.long().clamp(0, num_classes - 1)
    return confusion_matrix(pred, target, num_classes)


@exercise.wrong("Check the predicted labels too: K or -1 among them is an error (ValueError).", caught_by="errors")
def only_targets_are_checked(pred, target, num_classes):
    if not pred.is_floating_point() and num_classes > 0:
        pred = pred.long().clamp(0, num_classes - 1)
    return confusion_matrix(pred, target, num_classes)


@exercise.wrong(
    "Checking the cell numbers is not enough: predicted K of target 0 looks like predicted 0 of target 1.",
    caught_by="errors",
)
def checks_cells_only(pred, target, num_classes):
    if pred.is_floating_point() or target.is_floating_point():
        raise TypeError
    if pred.shape != target.shape or num_classes < 1:
        raise ValueError
    cells = target.flatten().long() * num_classes + pred.flatten().long()
    if cells.numel() and (cells.min() < 0 or cells.max() >= num_classes**2):
        raise ValueError
    return torch.bincount(cells, minlength=num_classes**2).view(num_classes, num_classes)


@exercise.wrong(
    "Different shapes are an error (ValueError), even where they broadcast or hold as many labels.", caught_by="errors"
)
def shapes_are_not_checked(pred, target, num_classes):
    length = min(pred.numel(), target.numel()) if pred.shape != target.shape else pred.numel()
    return confusion_matrix(pred.flatten()[:length], target.flatten()[:length], num_classes)


@exercise.wrong("Float labels are an error (TypeError), not something to round.", caught_by="errors")
def floats_are_converted(pred, target, num_classes):
    return confusion_matrix(pred.long(), target.long(), num_classes)


@exercise.wrong(
    "A matrix without classes makes no sense: num_classes < 1 is an error (ValueError).", caught_by="errors"
)
def no_classes_gives_an_empty_matrix(pred, target, num_classes):
    if num_classes == 0 and pred.numel() == 0:
        return torch.zeros(0, 0, dtype=torch.int64)
    return confusion_matrix(pred, target, num_classes)


@exercise.wrong(
    "An (N, K) matrix of comparisons is K times larger than the labels: count cell numbers.", caught_by="cost"
)
def product_of_indicators(pred, target, num_classes):
    _check_labels(pred, target, num_classes)
    classes = torch.arange(num_classes)
    rows = (target.flatten().unsqueeze(-1) == classes).double()
    return (rows.T @ (pred.flatten().unsqueeze(-1) == classes).double()).long()


@exercise.wrong(
    "for t, p in zip(target, pred) takes one step per sample: count all cell numbers at once.", caught_by="growth"
)
def sample_by_sample(pred, target, num_classes):
    _check_labels(pred, target, num_classes)
    matrix = torch.zeros(num_classes, num_classes, dtype=torch.int64)
    for t, p in zip(target.flatten().tolist(), pred.flatten().tolist(), strict=True):
        matrix[int(t), int(p)] += 1
    return matrix


@exercise.wrong("No loop over pairs of classes either: it makes K * K passes over the data.", caught_by="growth")
def pair_by_pair(pred, target, num_classes):
    _check_labels(pred, target, num_classes)
    cells = [((target == i) & (pred == j)).sum() for i in range(num_classes) for j in range(num_classes)]
    return torch.stack(cells).view(num_classes, num_classes)


@exercise.wrong(
    "matrix[True, False] names no single entry: labels become int64 first. And bincount needs no loop over samples."
)
def sample_by_sample_with_booleans(pred, target, num_classes):
    _check_labels(pred, target, num_classes)
    matrix = torch.zeros(num_classes, num_classes, dtype=torch.int64)
    for t, p in zip(target.flatten().tolist(), pred.flatten().tolist(), strict=True):
        matrix[t, p] += 1
    return matrix


@exercise.wrong("Counting in Python lists leaves torch: number the cells i * K + j and let torch.bincount count them.",
                caught_by="forbidden")  # fmt: skip
def counted_in_lists(pred, target, num_classes):
    _check_labels(pred, target, num_classes)
    matrix = [[0] * num_classes for _ in range(num_classes)]
    for t, p in zip(target.flatten().tolist(), pred.flatten().tolist(), strict=True):
        matrix[int(t)][int(p)] += 1
    return torch.tensor(matrix)


@exercise.wrong("Boolean labels count as integers, the classes 0 and 1: refuse floats only.", caught_by="runs")
def booleans_refused(pred, target, num_classes):
    integers = (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)
    if pred.dtype not in integers or target.dtype not in integers:
        raise TypeError
    return confusion_matrix(pred, target, num_classes)


@exercise.wrong("Labels may be too large as well as negative: K or more is an error (ValueError).", caught_by="errors")
def only_negative_labels_are_refused(pred, target, num_classes):
    if num_classes < 1 or pred.shape != target.shape:
        raise ValueError
    if pred.is_floating_point() or target.is_floating_point():
        raise TypeError
    if (pred < 0).any() or (target < 0).any():
        raise ValueError
    cells = target.flatten().long() * num_classes + pred.flatten().long()
    return torch.bincount(cells, minlength=num_classes**2)[: num_classes**2].view(num_classes, num_classes)


@exercise.right("with index_add on a flat matrix")
def by_index_add(pred, target, num_classes):
    _check_labels(pred, target, num_classes)
    cells = torch.add(pred.reshape(-1).to(torch.int64), target.reshape(-1).to(torch.int64), alpha=num_classes)
    ones = torch.ones((), dtype=torch.int64).expand(cells.shape)
    return torch.zeros(num_classes * num_classes, dtype=torch.int64).index_add(0, cells, ones).reshape(num_classes, -1)


@exercise.right("with an accumulating index_put")
def by_index_put(pred, target, num_classes):
    if pred.dtype.is_floating_point or target.dtype.is_floating_point:
        raise TypeError
    if pred.shape != target.shape or num_classes <= 0:
        raise ValueError
    labels = torch.stack([target.flatten().long(), pred.flatten().long()])
    if bool(((labels < 0) | (labels >= num_classes)).any()):
        raise ValueError
    matrix = torch.zeros(num_classes, num_classes, dtype=torch.int64)
    return matrix.index_put_((labels[0], labels[1]), torch.tensor(1), accumulate=True)
