"""Perplexity of a language model."""

import torch
from torch import Tensor

from grader import Case, Cost, Exercise


def perplexity(logits: Tensor, targets: Tensor, ignore_index: int = -100) -> Tensor:
    """Return exp of the mean negative log-likelihood, in nats, of the targets.

    Args:
        logits: scores of the V tokens, `(..., V)`, finite up to 1e4 in size; what stands at ignored positions
            never matters, not even nan or inf.
        targets: the tokens that came, int64, shaped like `logits` without its last dimension (0-d for `(V,)`).
        ignore_index: targets of this value (padding) are not scored; it may lie in [0, V).

    Returns:
        Perplexity, 0-d, of the dtype of `logits`: 1 for a perfect prediction, V for uniform logits, inf when it
        is too large for the dtype. The mean is taken over all scored targets together, however they are
        arranged. Gradients reach `logits`; they are 0 at ignored positions (and not graded where the result is inf).

    Raises:
        ValueError: there is nothing to score, a target is neither in [0, V) nor `ignore_index`, or the shapes do
            not fit.

    Cost: the number of operations depends on no size; no tensor made inside is larger than `logits`.

    Example:
        >>> logits = torch.tensor([[0.0, 0.0, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0], [5.0, 0.0, 0.0, 0.0]])
        >>> perplexity(logits, torch.tensor([3, 1, -100]))  # four equal chances, twice; the last is ignored
        tensor(4.)
    """
    _check_targets(logits, targets, ignore_index)
    keep = targets != ignore_index
    log_p = logits[keep].log_softmax(-1)
    chosen = log_p.gather(-1, targets[keep].unsqueeze(-1))
    return (-chosen.mean()).exp()


def _check_targets(logits: Tensor, targets: Tensor, ignore_index: int) -> None:
    """Raise ValueError when there is nothing to score or something that cannot be scored."""
    if logits.shape[:-1] != targets.shape:
        raise ValueError(f"logits {tuple(logits.shape)} do not fit targets {tuple(targets.shape)}")
    scored = targets != ignore_index
    if not scored.any():
        raise ValueError("there is no target to score")
    if (scored & ((targets < 0) | (targets >= logits.shape[-1]))).any():
        raise ValueError(f"targets must lie in [0, {logits.shape[-1]}) or be {ignore_index}")


exercise = Exercise(
    perplexity,
    points=5,
    gradients=("logits",),
    cost=Cost(ops=30),
    forbid=("cross_entropy*", "nll_loss*", "CrossEntropyLoss", "NLLLoss", "NLLLoss2d"),
    hints=(
        "Perplexity is exp of one average. Over what is the average taken, and which tokens belong to it?",
        "Select the scored rows first: logits[keep] is (n, V). log_softmax bears large scores, log(softmax) does not.",
        "keep = targets != ignore_index; log_p = logits[keep].log_softmax(-1); gather the targets' entries "
        "along the last dimension; exp of minus their mean.",
    ),
    source="D2L recurrent-neural-networks/language-model",
)


@exercise.truth
def truth(logits, targets, ignore_index=-100):
    flat, wanted = logits.reshape(-1, logits.shape[-1]), targets.reshape(-1)
    rows = [i for i in range(len(wanted)) if int(wanted[i]) != ignore_index]
    return torch.nn.functional.cross_entropy(flat[rows], wanted[rows]).exp()


@exercise.cases
def cases(draw):
    logits = draw.normal(3, 5, 7)
    targets = draw.integers(0, 7, 3, 5)
    targets[1, 2:] = -100
    targets[2, 4:] = -100
    yield Case("three sentences of different lengths", 2 * logits, targets)
    yield Case("a batch without padding", draw.normal(4, 6, 3), draw.integers(0, 3, 4, 6))
    yield Case("rows of scores", draw.normal(6, 5), draw.integers(0, 5, 6))
    yield Case("one token", draw.normal(9), torch.tensor(4), edge=True)
    yield Case("equal scores: V", torch.full((4, 11), 2.5), draw.integers(0, 11, 4))
    sure = draw.integers(0, 6, 2, 5)
    yield Case("a perfect prediction: 1", 1e4 * torch.nn.functional.one_hot(sure, 6).float(), sure)
    padded = draw.integers(1, 6, 4, 3)
    padded[:, 2] = 0
    padded[1, 1] = 0
    yield Case("ignore_index=0", draw.normal(4, 3, 6), padded, ignore_index=0)
    strange = draw.normal(3, 4, 5)
    strange[0, 3], strange[2, 1:] = float("nan"), float("inf")
    hole = draw.integers(0, 5, 3, 4)
    hole[0, 3], hole[2, 1:] = -100, -100
    yield Case("nan and inf at ignored positions", strange, hole, edge=True)
    mistake = draw.normal(100, 5)
    mistake[17] = torch.tensor([0.0, 0.0, 1000.0, 0.0, 0.0])
    wanted = draw.integers(0, 5, 100)
    wanted[17] = 3
    yield Case("one confident mistake among 100 tokens", mistake, wanted)
    yield Case(
        "larger than float64 can hold", torch.tensor([[1e4, 0.0, 0.0], [0.0, 1e4, 0.0]]), torch.tensor([1, 0]),
        grad=False, edge=True,
    )  # fmt: skip
    right = draw.integers(0, 4, 7)
    yield Case(
        "scores of size 10 000", 1e4 * torch.nn.functional.one_hot(right, 4).float() + draw.normal(7, 4) - 5e3, right,
        hidden=True,
    )  # fmt: skip
    yield Case("scores shifted by 1000", 1000 + draw.normal(3, 2, 6), draw.integers(0, 6, 3, 2), hidden=True)
    yield Case("tiny scores", 1e-3 * draw.normal(5, 4), draw.integers(0, 4, 5), hidden=True)
    long = draw.integers(0, 3, 2, 3, 4)
    long[:, :, 3], long[1, 2] = -1, -1
    yield Case("four dimensions, ignore_index=-1", draw.normal(2, 3, 4, 3), long, ignore_index=-1, hidden=True)
    yield Case("one kind of token", draw.normal(4, 1), torch.zeros(4, dtype=torch.int64), edge=True, hidden=True)
    yield Case("float64", draw.normal(4, 3, dtype=torch.float64), draw.integers(0, 3, 4), edge=True)
    yield Case("fifty tokens", draw.normal(5, 10, 4), draw.integers(0, 4, 5, 10), cost=True)
    yield Case("sixty tokens", draw.normal(60, 3), draw.integers(0, 3, 60), cost=Cost(maxel="logits"))
    yield Case("all targets ignored", draw.normal(2, 3), torch.tensor([-100, -100]), raises=ValueError)
    yield Case("no targets", draw.normal(0, 3), torch.zeros(0, dtype=torch.int64), raises=ValueError)
    yield Case("a target of V", draw.normal(2, 3), torch.tensor([1, 3]), raises=ValueError)
    yield Case("a target of -1", draw.normal(2, 3), torch.tensor([1, -1]), raises=ValueError)
    yield Case(
        "-100 while ignore_index=0", draw.normal(3, 3), torch.tensor([1, 0, -100]), ignore_index=0, raises=ValueError
    )
    yield Case("one target too many", draw.normal(4, 3), torch.tensor([1, 0, 2, 1, 0]), raises=ValueError)
    yield Case("one target for all rows", draw.normal(4, 3), torch.tensor([1]), raises=ValueError, hidden=True)
    yield Case(
        "targets of another arrangement", draw.normal(2, 3, 4), draw.integers(0, 4, 6), raises=ValueError, hidden=True
    )


@exercise.growth("tokens", ops=0.0, peak=1.0)
def more_tokens(draw, size):
    return Case(f"{size} tokens", draw.normal(2, size, 10), draw.integers(0, 10, 2, size))


@exercise.growth("sentences", ops=0.0, peak=1.0)
def more_sentences(draw, size):
    return Case(f"{size} sentences", draw.normal(size, 2, 10), draw.integers(0, 10, size, 2))


@exercise.growth("vocabulary", ops=0.0, peak=1.0)
def more_words(draw, size):
    return Case(f"{size} kinds of token", draw.normal(3, 4, size), draw.integers(0, size, 3, 4))


def losses(logits, targets, ignore_index):
    """Return the negative log-likelihood of each scored token."""
    _check_targets(logits, targets, ignore_index)
    keep = targets != ignore_index
    return -logits[keep].log_softmax(-1).gather(-1, targets[keep].unsqueeze(-1)).squeeze(-1)


def zero_filled(logits, targets, ignore_index):
    """Return the negative log-likelihood of each token, 0 where it is ignored, and which ones are kept."""
    _check_targets(logits, targets, ignore_index)
    keep = targets != ignore_index
    log_p = torch.where(keep.unsqueeze(-1), logits, 0.0).log_softmax(-1)
    nll = -log_p.gather(-1, torch.where(keep, targets, 0).unsqueeze(-1)).squeeze(-1)
    return torch.where(keep, nll, 0.0), keep


@exercise.wrong(
    "Average the logarithms, then exponentiate once: the mean of per-token perplexities is larger, unless all "
    "are equal."
)
def mean_of_perplexities(logits, targets, ignore_index=-100):
    return losses(logits, targets, ignore_index).exp().mean()


@exercise.wrong("Long sentences have more tokens: average over all tokens together, not over sentences' averages.")
def mean_of_sentence_means(logits, targets, ignore_index=-100):
    nll, keep = zero_filled(logits, targets, ignore_index)
    if nll.ndim < 2:
        return losses(logits, targets, ignore_index).mean().exp()
    return (nll.sum(-1) / keep.sum(-1).clamp(min=1)).mean().exp()


@exercise.wrong("Same base in and out: natural logarithms go with exp, not with 2 ** loss.")
def two_to_the_nats(logits, targets, ignore_index=-100):
    return 2.0 ** losses(logits, targets, ignore_index).mean()


@exercise.wrong("log(softmax(x)) can be -inf where a confident prediction was wrong: use log_softmax.")
def log_of_softmax(logits, targets, ignore_index=-100):
    _check_targets(logits, targets, ignore_index)
    keep = targets != ignore_index
    chosen = logits[keep].softmax(-1).log().gather(-1, targets[keep].unsqueeze(-1))
    return (-chosen.mean()).exp()


@exercise.wrong("Ignored tokens are in neither the sum nor the count: here padding is scored as token 0.")
def padding_scored(logits, targets, ignore_index=-100):
    _check_targets(logits, targets, ignore_index)
    filled = torch.where(targets == ignore_index, 0, targets)
    return losses(logits, filled, -100).mean().exp()


@exercise.wrong("The sum leaves the ignored tokens out, but the count does not: divide by the number of scored tokens.")
def padding_counted(logits, targets, ignore_index=-100):
    nll, _ = zero_filled(logits, targets, ignore_index)
    return nll.mean().exp()


@exercise.wrong("Select, do not multiply: 0 * nan is nan, so padding of nan reaches the result.", caught_by="finite")
def padding_multiplied(logits, targets, ignore_index=-100):
    _check_targets(logits, targets, ignore_index)
    keep = targets != ignore_index
    log_p = logits.log_softmax(-1).gather(-1, torch.where(keep, targets, 0).unsqueeze(-1)).squeeze(-1)
    return (-(log_p * keep).sum() / keep.sum()).exp()


@exercise.wrong(
    "The ignored entries are taken out after the softmax: their value is gone, but their nan gradient is not. Select "
    "the rows before it.",
    caught_by="gradients",
)
def padding_removed_too_late(logits, targets, ignore_index=-100):
    _check_targets(logits, targets, ignore_index)
    keep = targets != ignore_index
    log_p = logits.log_softmax(-1).gather(-1, torch.where(keep, targets, 0).unsqueeze(-1)).squeeze(-1)
    return (-log_p[keep].mean()).exp()


@exercise.wrong(
    "The tokens stand along the last dimension, whatever the number of dimensions before it: log_softmax(-1)."
)
def softmax_over_dimension_1(logits, targets, ignore_index=-100):
    _check_targets(logits, targets, ignore_index)
    keep = targets != ignore_index
    log_p = torch.where(keep.unsqueeze(-1), logits, 0.0).log_softmax(min(1, logits.ndim - 1))
    chosen = log_p.gather(-1, torch.where(keep, targets, 0).unsqueeze(-1)).squeeze(-1)
    return (-chosen[keep].mean()).exp()


@exercise.wrong("The softmax runs over the tokens here: it belongs to the last dimension, the vocabulary.")
def softmax_over_tokens(logits, targets, ignore_index=-100):
    _check_targets(logits, targets, ignore_index)
    rows, flat = logits.reshape(-1, logits.shape[-1]), targets.reshape(-1)
    keep = flat != ignore_index
    chosen = rows.log_softmax(0)[keep].gather(-1, flat[keep].unsqueeze(-1))
    return (-chosen.mean()).exp()


@exercise.wrong("The value to ignore is an argument; -100 is only its default.")
def always_minus_100(logits, targets, ignore_index=-100):
    _check_targets(logits, targets, ignore_index)
    return losses(logits, targets, -100).mean().exp()


@exercise.wrong(
    "Take out each row's largest score before exp, or use log_softmax: exp(1000) is inf.", caught_by="finite"
)
def no_shift(logits, targets, ignore_index=-100):
    _check_targets(logits, targets, ignore_index)
    keep = targets != ignore_index
    rows = logits[keep]
    chosen = rows.gather(-1, targets[keep].unsqueeze(-1)).squeeze(-1)
    return (rows.exp().sum(-1).log() - chosen).mean().exp()


@exercise.wrong("This is the mean loss; perplexity is its exponential.")
def exponential_forgotten(logits, targets, ignore_index=-100):
    return losses(logits, targets, ignore_index).mean()


@exercise.wrong("The sign is lost: perplexity is exp of minus the mean log-probability, and never below 1.")
def sign_lost(logits, targets, ignore_index=-100):
    return (-losses(logits, targets, ignore_index).mean()).exp()


@exercise.wrong("item() and a new tensor cut the graph: no gradient reaches logits.", caught_by="gradients")
def rebuilt_from_a_number(logits, targets, ignore_index=-100):
    return torch.tensor(perplexity(logits, targets, ignore_index).item(), dtype=logits.dtype)


@exercise.wrong("A 0-d tensor is wanted, not a Python number.", caught_by="type")
def a_number(logits, targets, ignore_index=-100):
    return perplexity(logits, targets, ignore_index).item()


@exercise.wrong("With nothing to score the mean is nan: raise ValueError.", caught_by="errors")
def nothing_to_score(logits, targets, ignore_index=-100):
    if logits.shape[:-1] == targets.shape and not (targets != ignore_index).any():
        return (logits[:0].sum() / 0).exp()
    return perplexity(logits, targets, ignore_index)


@exercise.wrong(
    "A target outside [0, V) is an error unless it is ignore_index; a negative one is not padding by itself.",
    caught_by="errors",
)
def negative_is_padding(logits, targets, ignore_index=-100):
    return perplexity(logits, torch.where(targets < 0, ignore_index, targets), ignore_index)


@exercise.wrong(
    "A target of V or more must raise ValueError, not be clamped or left to an IndexError.", caught_by="errors"
)
def targets_clamped(logits, targets, ignore_index=-100):
    top = max(logits.shape[-1] - 1, 0) if logits.ndim else 0
    return perplexity(logits, torch.where(targets > top, top, targets), ignore_index)


@exercise.wrong(
    "Targets must be shaped like logits without the last dimension; flattening both hides a mistake.",
    caught_by="errors",
)
def flattened_without_a_look(logits, targets, ignore_index=-100):
    flat = logits.reshape(-1, logits.shape[-1])
    return perplexity(flat, targets.reshape(-1) if targets.numel() > 1 else targets.expand(len(flat)), ignore_index)


@exercise.wrong("The caller's targets are overwritten: work on a copy.", caught_by="inputs")
def targets_overwritten(logits, targets, ignore_index=-100):
    nll, keep = zero_filled(logits, targets, ignore_index)
    targets[~keep] = 0
    return (nll.sum() / keep.sum()).exp()


@exercise.wrong(
    "log_p[:, targets] is every row against every target, n x n numbers of which only the diagonal is used: gather "
    "takes one entry of each row.",
    caught_by="cost",
)
def all_pairs(logits, targets, ignore_index=-100):
    _check_targets(logits, targets, ignore_index)
    keep = targets != ignore_index
    return (-logits[keep].log_softmax(-1)[:, targets[keep]].diagonal().mean()).exp()


@exercise.wrong(
    "A loop over tokens or sentences costs operations for each: gather takes all entries at once.", caught_by="growth"
)
def loop_over_tokens(logits, targets, ignore_index=-100):
    _check_targets(logits, targets, ignore_index)
    keep = targets != ignore_index
    log_p = logits[keep].log_softmax(-1)
    total = sum(-row[token] for row, token in zip(log_p, targets[keep].tolist(), strict=True))
    return (total / len(log_p)).exp()


@exercise.wrong("float() throws away half of the digits of float64 logits: compute in their dtype.")
def float32_inside(logits, targets, ignore_index=-100):
    return perplexity(logits.float(), targets, ignore_index).to(logits.dtype)


@exercise.wrong("Cross-entropy is to be written, not called.", caught_by="forbidden")
def by_cross_entropy(logits, targets, ignore_index=-100):
    _check_targets(logits, targets, ignore_index)
    keep = targets != ignore_index
    return torch.nn.functional.cross_entropy(logits[keep], targets[keep]).exp()


@exercise.right("log of the sum minus the score, zeros put in for ignored rows")
def by_logsumexp(logits, targets, ignore_index=-100):
    _check_targets(logits, targets, ignore_index)
    keep = targets != ignore_index
    rows = torch.where(keep.unsqueeze(-1), logits, 0.0)
    shifted = rows - rows.detach().amax(-1, keepdim=True)
    chosen = shifted.gather(-1, (targets * keep).unsqueeze(-1)).squeeze(-1)
    nll = (shifted.logsumexp(-1) - chosen) * keep
    return torch.exp(nll.sum() / keep.sum())


@exercise.right("a power of two, in bits")
def in_bits(logits, targets, ignore_index=-100):
    return torch.exp2(losses(logits, targets, ignore_index).mean() / torch.log(torch.tensor(2.0, dtype=logits.dtype)))


@exercise.right("a sum over a mask of the targets")
def by_mask(logits, targets, ignore_index=-100):
    _check_targets(logits, targets, ignore_index)
    keep = targets != ignore_index
    log_p = torch.log_softmax(logits[keep], dim=-1)
    hit = targets[keep].unsqueeze(-1) == torch.arange(logits.shape[-1])
    return torch.exp(-log_p.masked_fill(~hit, 0.0).sum() / hit.sum())
