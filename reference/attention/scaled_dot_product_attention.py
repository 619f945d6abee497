"""Scaled dot-product attention with a boolean mask."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from grader import Case, Cost, Exercise
from reference.attention import FORBID


def scaled_dot_product_attention(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
    """Average the values for each query, weighted by softmax(q k^T / sqrt(d)).

    Args:
        q: queries, shape (..., Lq, d), with any number of leading dimensions (samples, heads), or none. Lq, d >= 1.
        k: keys, shape (..., Lk, d), with the same leading dimensions.
        v: values, shape (..., Lk, dv), with the same leading dimensions.
        mask: boolean, broadcastable to (..., Lq, Lk); **True = this query may use this key**. None allows all.
            Finite content at keys that nobody may use, however large, must reach neither result nor gradient.

    Returns:
        Tensor of shape (..., Lq, dv) and of the dtype of `q` (float32, float64 or bfloat16). A query that may use no
        key at all, or for which there is none (Lk = 0), gets zeros and gives zero gradient.

    Raises:
        ValueError: `q` and `k` differ in d, or `k` and `v` in Lk.
        TypeError: `mask` is not boolean.

    Example:
        >>> q = torch.tensor([[2.0, 0.0]])
        >>> k = torch.tensor([[1.0, 0.0], [1.0, 5.0], [9.0, 9.0]])
        >>> v = torch.tensor([[1.0], [3.0], [100.0]])
        >>> scaled_dot_product_attention(q, k, v, torch.tensor([[True, True, False]]))
        tensor([[2.]])
    """
    if q.shape[-1] != k.shape[-1]:
        raise ValueError(f"queries are {q.shape[-1]} wide but keys {k.shape[-1]}")
    if k.shape[-2] != v.shape[-2]:
        raise ValueError(f"there are {k.shape[-2]} keys but {v.shape[-2]} values")
    if mask is not None and mask.dtype != torch.bool:
        raise TypeError(f"mask must be boolean, got {mask.dtype}")
    scores = (q / math.sqrt(q.shape[-1])) @ k.transpose(-2, -1)
    if mask is None:
        return torch.softmax(scores, dim=-1) @ v
    lowest = torch.finfo(scores.dtype).min
    weights = torch.softmax(scores.masked_fill(~mask, lowest), dim=-1)
    return weights.masked_fill(~mask, 0.0) @ v


exercise = Exercise(
    scaled_dot_product_attention,
    points=8,
    gradients=("q", "k", "v"),
    cost=Cost(ops=20),
    forbid=FORBID,
    hints=(
        "Write down the shapes: which two axes of k must swap so that q @ k has one score per query and key?",
        "scores = q @ k.transpose(-2, -1) / math.sqrt(d). Fill hidden scores with torch.finfo(scores.dtype).min, "
        "finite on purpose, then softmax over the last axis.",
        "After the softmax, weights.masked_fill(~mask, 0.0) @ v: this only changes queries that may use no key.",
    ),
    source="D2L attention-mechanisms-and-transformers/attention-scoring-functions",
)


@exercise.truth
def truth(q, k, v, mask=None):
    return F.scaled_dot_product_attention(q, k, v, mask)


def bool_mask(draw, *shape):
    """Draw a mask in which every row has a True."""
    mask = draw.boolean(*shape)
    mask[..., 0] |= ~mask.any(-1)
    return mask


def large_mask_elements(candidate, q, k, v, mask):
    from torch.utils._python_dispatch import TorchDispatchMode

    data = {t.untyped_storage()._cdata for t in (q, k, v)}
    made = []

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            out = func(*args, **(kwargs or {}))
            used = [t for a in args for t in (a if isinstance(a, (list, tuple)) else [a]) if isinstance(t, Tensor)]
            blank = func._schema.name.endswith("_like") or "new_" in func._schema.name
            from_data = not blank and any(t.untyped_storage()._cdata in data for t in used)
            for t in out if isinstance(out, (list, tuple)) else [out]:
                if isinstance(t, Tensor):
                    made.append(t)
                    if from_data:
                        data.add(t.untyped_storage()._cdata)
            return out

    with Watch():
        result = candidate(q, k, v, mask)
    masks = [t for t in made if t.untyped_storage()._cdata not in data and t.is_floating_point()]
    largest = max((t.untyped_storage().nbytes() // t.itemsize for t in masks), default=0)
    allowed = max(mask.numel(), q.shape[-2] * k.shape[-2])
    return {"result": result, "the mask was copied as floats for every head": largest > allowed}


@exercise.cases
def cases(draw):
    yield Case("a batch", draw.normal(2, 3, 5), draw.normal(2, 4, 5), draw.normal(2, 4, 6))
    yield Case(
        "heads and one mask for all", draw.normal(2, 3, 4, 5), draw.normal(2, 3, 6, 5), draw.normal(2, 3, 6, 7),
        bool_mask(draw, 4, 6),
    )  # fmt: skip
    yield Case("no leading dimensions", draw.normal(3, 6), draw.normal(5, 6), draw.normal(5, 2), bool_mask(draw, 3, 5))
    yield Case(
        "padding: a mask of shape (B, 1, 1, Lk)", draw.normal(2, 3, 4, 5), draw.normal(2, 3, 6, 5),
        draw.normal(2, 3, 6, 2), torch.arange(6) < torch.tensor([4, 2])[:, None, None, None],
    )  # fmt: skip
    empty = bool_mask(draw, 2, 3, 4)
    empty[0, 1] = empty[1, 0] = False
    yield Case(
        "queries that may use no key", draw.normal(2, 3, 5), draw.normal(2, 4, 5), draw.normal(2, 4, 2) + 3.0, empty,
        edge=True,
    )  # fmt: skip
    yield Case("width 1", draw.normal(2, 3, 1), draw.normal(2, 5, 1), draw.normal(2, 5, 4), edge=True)
    yield Case(
        "scores of size 1e4", 100 * draw.normal(2, 3, 5), 100 * draw.normal(2, 4, 5), draw.normal(2, 4, 3),
        bool_mask(draw, 2, 3, 4), grad=False,  # saturated: what is left of the gradient is rounding
    )  # fmt: skip
    k, v = draw.normal(2, 5, 3), draw.normal(2, 5, 4)
    k[:, 3:], v[:, 3:] = 1e30, -1e30
    yield Case(
        "1e30 where nobody may look", draw.normal(2, 4, 3), k, v, (torch.arange(5) < 3).expand(4, 5).clone(), edge=True
    )
    yield Case("one query", draw.normal(2, 3, 1, 5), draw.normal(2, 3, 4, 5), draw.normal(2, 3, 4, 2), edge=True)
    heads = [draw.normal(2, n, 3, 4).transpose(1, 2) for n in (5, 6, 6)]
    yield Case("heads split from the features (not contiguous)", *heads, bool_mask(draw, 2, 1, 5, 6))
    yield Case("no keys", draw.normal(2, 3, 5), torch.zeros(2, 0, 5), torch.zeros(2, 0, 4), edge=True)
    yield Case(
        "bfloat16", draw.normal(2, 3, 8).bfloat16(), draw.normal(2, 4, 8).bfloat16(), draw.normal(2, 4, 6).bfloat16(),
        empty, edge=True,
    )  # fmt: skip
    yield Case(
        "32 queries, 40 keys", draw.normal(2, 3, 32, 12), draw.normal(2, 3, 40, 12), draw.normal(2, 3, 40, 1),
        bool_mask(draw, 2, 1, 32, 40), cost=Cost(maxel=2 * 3 * 32 * 40),
    )  # fmt: skip
    yield Case(
        "one feature, wide values", draw.normal(2, 20, 1), draw.normal(2, 24, 1), draw.normal(2, 24, 9),
        cost=Cost(maxel=2 * 20 * 24),
    )  # fmt: skip
    yield Case(
        "eight heads under one mask", draw.normal(2, 8, 9, 2), draw.normal(2, 8, 10, 2), draw.normal(2, 8, 10, 3),
        bool_mask(draw, 9, 10), probe=large_mask_elements, edge=True, grad=False,
    )  # fmt: skip
    yield Case(
        "keys of another width", draw.normal(2, 3, 5), draw.normal(2, 4, 6), draw.normal(2, 4, 6), raises=ValueError
    )
    yield Case(
        "fewer values than keys", draw.normal(2, 3, 5), draw.normal(2, 4, 5), draw.normal(2, 3, 5), raises=ValueError
    )
    yield Case(
        "a mask of numbers", draw.normal(2, 3, 5), draw.normal(2, 4, 5), draw.normal(2, 4, 6), torch.zeros(3, 4),
        raises=TypeError,
    )  # fmt: skip
    yield Case(
        "a mask of integers", draw.normal(3, 5), draw.normal(4, 5), draw.normal(4, 6),
        torch.ones(3, 4, dtype=torch.uint8), raises=TypeError, hidden=True,
    )  # fmt: skip
    yield Case(
        "keys of width 1", draw.normal(2, 3, 5), draw.normal(2, 4, 1), draw.normal(2, 4, 6), raises=ValueError,
        hidden=True,
    )  # fmt: skip
    yield Case(
        "five axes", draw.normal(2, 1, 3, 4, 5), draw.normal(2, 1, 3, 2, 5), draw.normal(2, 1, 3, 2, 6), hidden=True
    )
    yield Case(
        "tiny inputs", 1e-3 * draw.normal(2, 3, 7), 1e-3 * draw.normal(2, 5, 7), 1e-3 * draw.normal(2, 5, 4),
        bool_mask(draw, 2, 3, 5), hidden=True,
    )  # fmt: skip
    yield Case(
        "keys and values far from 0", draw.normal(2, 3, 6), draw.normal(2, 5, 6) + 30.0, draw.normal(2, 5, 4) + 1e3,
        bool_mask(draw, 2, 3, 5), hidden=True,
    )  # fmt: skip
    yield Case(
        "what may be used scores far below the rest", draw.normal(2, 3, 2) + 30.0, spread(draw, 2, 5, 2),
        draw.normal(2, 5, 4), torch.tensor([True, True, False, False, False]), hidden=True,
    )  # fmt: skip
    yield Case(
        "a mask per head", draw.normal(2, 3, 4, 5), draw.normal(2, 3, 6, 5), draw.normal(2, 3, 6, 7),
        bool_mask(draw, 2, 3, 4, 6), hidden=True,
    )  # fmt: skip
    x = draw.normal(2, 4, 5)
    yield Case("self-attention", x, x, x, hidden=True)
    yield Case(
        "a mask per head, for all samples", draw.normal(2, 3, 4, 5), draw.normal(2, 3, 6, 5), draw.normal(2, 3, 6, 7),
        bool_mask(draw, 3, 4, 6), hidden=True,
    )  # fmt: skip
    yield Case(
        "whole queries hidden: a mask of shape (Lq, 1)", draw.normal(2, 4, 3), draw.normal(2, 5, 3),
        draw.normal(2, 5, 2), torch.tensor([[True], [False], [True], [False]]), edge=True, hidden=True,
    )  # fmt: skip
    yield Case(
        "nothing may be used", draw.normal(2, 3, 5), draw.normal(2, 4, 5), draw.normal(2, 4, 6),
        torch.zeros(3, 4, dtype=torch.bool), edge=True, hidden=True,
    )  # fmt: skip
    yield Case(
        "no keys under a mask", draw.normal(3, 2, 5), torch.zeros(3, 0, 5), torch.zeros(3, 0, 4),
        torch.zeros(2, 0, dtype=torch.bool), edge=True, hidden=True,
    )  # fmt: skip


def spread(draw, samples, keys, width):
    """Draw keys whose first two point one way and whose others point the other way."""
    k = 0.05 * draw.normal(samples, keys, width)
    k[:, :2] -= 30.0
    k[:, 2:] += 30.0
    return k


@exercise.growth("heads", sizes=(4, 16), ops=0.0, peak=1.0)
def more_heads(draw, size):
    shapes = [(2, size, 5, 4), (2, size, 6, 4), (2, size, 6, 3)]
    return Case(f"{size} heads", *(draw.normal(*shape) for shape in shapes), bool_mask(draw, 5, 6))


@exercise.growth("samples", sizes=(4, 16), ops=0.0, peak=1.0)
def more_samples(draw, size):
    return Case(f"{size} samples", draw.normal(size, 5, 4), draw.normal(size, 6, 4), draw.normal(size, 6, 3))


@exercise.growth("queries", ops=0.0, peak=1.0)
def more_queries(draw, size):
    return Case(f"{size} queries", draw.normal(2, size, 4), draw.normal(2, 6, 4), draw.normal(2, 6, 3))


@exercise.growth("keys", ops=0.0, peak=1.0)
def more_keys(draw, size):
    return Case(f"{size} keys", draw.normal(2, 5, 4), draw.normal(2, size, 4), draw.normal(2, size, 3))


@exercise.growth("length", ops=0.0, peak=2.0, maxel=2.0)
def longer(draw, size):
    x = draw.normal(2, size, 8)
    return Case(f"length {size}", x, draw.normal(2, size, 8), draw.normal(2, size, 4), bool_mask(draw, size, size))


def _check(q, k, v, mask):
    """Raise what the contract asks for."""
    if q.shape[-1] != k.shape[-1] or k.shape[-2] != v.shape[-2]:
        raise ValueError
    if mask is not None and mask.dtype != torch.bool:
        raise TypeError


def _weights(scores, mask):
    """Return the softmax of scores over the last axis where the mask allows it."""
    if mask is None:
        return torch.softmax(scores, -1)
    filled = scores.masked_fill(~mask, torch.finfo(scores.dtype).min)
    return torch.softmax(filled, -1).masked_fill(~mask, 0.0)


def _dots(q, k):
    """Return all dot products of queries and keys."""
    return q @ k.transpose(-2, -1)


@exercise.wrong("Divide by the square root of the key width: the spread of a sum of d products grows like sqrt(d).")
def divided_by_d(q, k, v, mask=None):
    _check(q, k, v, mask)
    return _weights(_dots(q, k) / q.shape[-1], mask) @ v


@exercise.wrong(
    "The square root is of the width of queries and keys; the width of the values has no say in the scores."
)
def divided_by_root_of_value_width(q, k, v, mask=None):
    _check(q, k, v, mask)
    return _weights(_dots(q, k) / math.sqrt(v.shape[-1]), mask) @ v


@exercise.wrong("The dot products are not scaled: divide them by sqrt(d), or wide keys saturate the softmax.")
def not_scaled(q, k, v, mask=None):
    _check(q, k, v, mask)
    return _weights(_dots(q, k), mask) @ v


@exercise.wrong("The square root is of a length: take the width d, the last axis of q.")
def divided_by_root_of_length(q, k, v, mask=None):
    _check(q, k, v, mask)
    return _weights(_dots(q, k) / math.sqrt(max(k.shape[-2], 1)), mask) @ v


@exercise.wrong("Scale the scores, before the softmax; dividing the weights makes rows that do not sum to 1.")
def weights_are_scaled(q, k, v, mask=None):
    _check(q, k, v, mask)
    return _weights(_dots(q, k), mask) / math.sqrt(q.shape[-1]) @ v


@exercise.wrong(
    "torch.tensor(d).sqrt() is a float32 number, exact to 7 digits only, even when q is float64: use math.sqrt(d).",
    caught_by="values",
)
def root_in_float32(q, k, v, mask=None):
    _check(q, k, v, mask)
    return _weights(_dots(q, k) / torch.tensor(float(q.shape[-1])).sqrt(), mask) @ v


@exercise.wrong("Each query spreads a weight of 1 over the keys: softmax over the last axis, not the queries'.")
def softmax_over_queries(q, k, v, mask=None):
    _check(q, k, v, mask)
    scores = _dots(q, k) / math.sqrt(q.shape[-1])
    if mask is None:
        return torch.softmax(scores, -2) @ v
    filled = scores.masked_fill(~mask, torch.finfo(scores.dtype).min)
    return torch.softmax(filled, -2).masked_fill(~mask, 0.0) @ v


@exercise.wrong("True means that the query may use the key: fill the scores where the mask is False.")
def true_hides(q, k, v, mask=None):
    _check(q, k, v, mask)
    return scaled_dot_product_attention(q, k, v, None if mask is None else ~mask)


@exercise.wrong(
    "Adding -1e9 hides nothing from a query without keys: all its scores move together, as if nothing were "
    "hidden (and rounded so far out they are all the same). It does not outweigh 1e30 either: fill, and set the "
    "weights of such a query to 0."
)
def minus_a_billion_added(q, k, v, mask=None):
    _check(q, k, v, mask)
    scores = _dots(q, k) / math.sqrt(q.shape[-1])
    return torch.softmax(scores if mask is None else scores + ~mask * -1e9, -1) @ v


@exercise.wrong(
    "Filled with a low number, the scores of a query without keys are all equal, so its weights are uniform: they "
    "must be 0."
)
def uniform_without_keys(q, k, v, mask=None):
    _check(q, k, v, mask)
    scores = _dots(q, k) / math.sqrt(q.shape[-1])
    if mask is not None:
        scores = scores.masked_fill(~mask, torch.finfo(scores.dtype).min)
    return torch.softmax(scores, -1) @ v


@exercise.wrong(
    "k.T reverses all axes, and only matrices have two: swap the last two with transpose(-2, -1).", caught_by="runs"
)
def all_axes_reversed(q, k, v, mask=None):
    _check(q, k, v, mask)
    return _weights(q @ k.permute(*reversed(range(k.ndim))) / math.sqrt(q.shape[-1]), mask) @ v


@exercise.wrong("softmax of only -inf is nan: a query that may use no key must get zeros.", caught_by="finite")
def nan_without_keys(q, k, v, mask=None):
    _check(q, k, v, mask)
    scores = _dots(q, k) / math.sqrt(q.shape[-1])
    return torch.softmax(scores if mask is None else scores.masked_fill(~mask, -float("inf")), -1) @ v


@exercise.wrong(
    "nan_to_num mends the result but, with an additive mask of -inf, not the gradient: it is still nan for a query "
    "without keys. Make the scores finite before the softmax.",
    caught_by="gradients",
)
def nan_repaired_afterwards(q, k, v, mask=None):
    _check(q, k, v, mask)
    scores = _dots(q, k) / math.sqrt(q.shape[-1])
    if mask is not None:
        scores = scores + torch.zeros_like(mask, dtype=q.dtype).masked_fill(~mask, -float("inf"))
    return torch.softmax(scores, -1).nan_to_num(0.0) @ v


@exercise.wrong("Masked after the softmax, the weights of a query sum to less than 1: mask the scores.")
def masked_after_softmax(q, k, v, mask=None):
    _check(q, k, v, mask)
    weights = torch.softmax(_dots(q, k) / math.sqrt(q.shape[-1]), -1)
    return (weights if mask is None else weights * mask) @ v


@exercise.wrong("A score of 0 still has weight, exp(0) = 1: a mask is not multiplied into the scores.")
def scores_times_mask(q, k, v, mask=None):
    _check(q, k, v, mask)
    scores = _dots(q, k) / math.sqrt(q.shape[-1])
    if mask is None:
        return torch.softmax(scores, -1) @ v
    return (torch.softmax(scores * mask, -1) * mask.any(-1, keepdim=True)) @ v


@exercise.wrong(
    "Weights renormalised after the softmax are 0 / 0 when the hidden scores are much larger: mask the scores before."
)
def renormalised_after_softmax(q, k, v, mask=None):
    _check(q, k, v, mask)
    weights = torch.softmax(_dots(q, k) / math.sqrt(q.shape[-1]), -1)
    if mask is not None:
        weights = weights * mask
        weights = weights / weights.sum(-1, keepdim=True).clamp_min(1e-9)
    return weights @ v


@exercise.wrong(
    "The mask must be boolean: raise TypeError for numbers, whose meaning nobody can know.", caught_by="errors"
)
def any_mask_will_do(q, k, v, mask=None):
    _check(q, k, v, None)
    return scaled_dot_product_attention(q, k, v, None if mask is None else mask.bool())


@exercise.wrong(
    "Compare the sizes and raise ValueError yourself: torch raises RuntimeError, or broadcasts a width of 1 silently.",
    caught_by="errors",
)
def shapes_left_to_torch(q, k, v, mask=None):
    if mask is not None and mask.dtype != torch.bool:
        raise TypeError
    return _weights((q[..., :, None, :] * k[..., None, :, :]).sum(-1) / math.sqrt(q.shape[-1]), mask) @ v


@exercise.wrong(
    "The mask broadcasts from the right: with four axes, a mask of three axes is one per head, not one per sample."
)
def three_axes_read_as_samples(q, k, v, mask=None):
    _check(q, k, v, mask)
    if mask is not None and mask.ndim == 3 and q.ndim == 4:
        mask = mask[torch.arange(q.shape[0]) % mask.shape[0]].unsqueeze(1)
    return scaled_dot_product_attention(q, k, v, mask)


@exercise.wrong("Nothing is causal unless the mask says so: without a mask, every query may use every key.")
def causal_by_default(q, k, v, mask=None):
    _check(q, k, v, mask)
    if mask is None and q.shape[-2] == k.shape[-2]:
        mask = torch.ones(q.shape[-2], k.shape[-2], dtype=torch.bool, device=q.device).tril()
    return scaled_dot_product_attention(q, k, v, mask)


@exercise.wrong(
    "view needs contiguous memory, and heads split from features are not: use reshape, or no flattening.",
    caught_by="runs",
)
def flattened_with_view(q, k, v, mask=None):
    _check(q, k, v, mask)
    flat = [t.view(-1, *t.shape[-2:]) for t in (q, k, v)]
    scores = _dots(flat[0], flat[1]) / math.sqrt(q.shape[-1])
    weights = _weights(scores.view(*q.shape[:-1], k.shape[-2]), mask)
    return weights @ v


@exercise.wrong(
    "The result must carry the gradient to q, k and v: no detach() and no no_grad().", caught_by="gradients"
)
def weights_detached(q, k, v, mask=None):
    _check(q, k, v, mask)
    return _weights(_dots(q, k) / math.sqrt(q.shape[-1]), mask).detach() @ v


@exercise.wrong(
    "Products of every query with every key, feature by feature, make a tensor d times the size of the scores: "
    "use a matrix product.",
    caught_by="cost",
)
def products_by_broadcasting(q, k, v, mask=None):
    _check(q, k, v, mask)
    scores = (q[..., :, None, :] * k[..., None, :, :]).sum(-1) / math.sqrt(q.shape[-1])
    return _weights(scores, mask) @ v


@exercise.wrong(
    "Weights times values spelled out per query, key and feature grow faster than the scores: use a matrix product.",
    caught_by="cost",
)
def averages_by_broadcasting(q, k, v, mask=None):
    _check(q, k, v, mask)
    weights = _weights(_dots(q, k) / math.sqrt(q.shape[-1]), mask)
    return (weights[..., None] * v[..., None, :, :]).sum(-2)


@exercise.wrong("A loop over the queries: one matrix product handles all of them.", caught_by="growth")
def query_by_query(q, k, v, mask=None):
    _check(q, k, v, mask)
    full = None if mask is None else mask.expand(*q.shape[:-1], k.shape[-2])
    rows = [
        scaled_dot_product_attention(q[..., i : i + 1, :], k, v, None if full is None else full[..., i : i + 1, :])
        for i in range(q.shape[-2])
    ]
    return torch.cat(rows, -2)


@exercise.wrong("A loop over samples and heads: @ works on all leading dimensions at once.", caught_by="growth")
def head_by_head(q, k, v, mask=None):
    _check(q, k, v, mask)
    if q.ndim == 2:
        return scaled_dot_product_attention(q, k, v, mask)
    full = None if mask is None else mask.expand(*q.shape[:-1], k.shape[-2])
    parts = [head_by_head(q[i], k[i], v[i], None if full is None else full[i]) for i in range(q.shape[0])]
    return torch.stack(parts)


@exercise.wrong(
    "A float copy of the mask for every head is as large as the scores: masked_fill and where broadcast a boolean one."
)
def mask_as_floats_per_head(q, k, v, mask=None):
    _check(q, k, v, mask)
    scores = _dots(q, k) / math.sqrt(q.shape[-1])
    if mask is None:
        return torch.softmax(scores, -1) @ v
    bias = torch.zeros_like(scores).masked_fill_(~mask, torch.finfo(scores.dtype).min)
    scores = torch.where(bias < 0, bias, scores)
    return (torch.softmax(scores, -1) * mask) @ v


@exercise.speed(4.0, size=4, cuda=64)
def speed(draw, size):
    q, k, v = (draw.normal(size, 4, 96, 32) for _ in range(3))
    return Case("4 heads of 96 tokens", q, k, v, bool_mask(draw, 96, 96))


@exercise.right("einsum, exponentials by hand")
def by_einsum(q, k, v, mask=None):
    _check(q, k, v, mask)
    scores = torch.einsum("...id,...jd->...ij", q, k) * q.shape[-1] ** -0.5
    if not k.shape[-2]:
        return torch.einsum("...ij,...jd->...id", scores, v)
    if mask is not None:
        scores = torch.where(mask, scores, torch.finfo(scores.dtype).min)
    parts = (scores - scores.amax(-1, keepdim=True)).exp()
    if mask is not None:
        parts = parts * mask
    total = parts.sum(-1, keepdim=True)
    return torch.einsum("...ij,...jd->...id", parts / torch.where(total == 0, 1.0, total), v)


@exercise.right("-inf by masked_fill, empty rows replaced")
def minus_infinity_replaced(q, k, v, mask=None):
    _check(q, k, v, mask)
    scores = torch.matmul(q, k.mT) / q.shape[-1] ** 0.5
    if mask is None:
        return scores.softmax(-1).matmul(v)
    weights = scores.masked_fill(mask.logical_not(), -torch.inf).softmax(-1)
    return weights.masked_fill(mask.any(-1, keepdim=True).logical_not(), 0.0).matmul(v)


@exercise.right("leading dimensions folded into one, bmm")
def folded(q, k, v, mask=None):
    _check(q, k, v, mask)
    flat = [t.reshape(math.prod(t.shape[:-2]), *t.shape[-2:]) for t in (q, k, v)]
    scores = torch.bmm(flat[0], flat[1].transpose(1, 2)) / math.sqrt(q.shape[-1])
    weights = _weights(scores.reshape(*q.shape[:-1], k.shape[-2]), mask)
    out = torch.bmm(weights.reshape(scores.shape), flat[2])
    return out.reshape(*q.shape[:-1], v.shape[-1])


@exercise.right("divided by the sum after the average")
def normalised_last(q, k, v, mask=None):
    _check(q, k, v, mask)
    if not k.shape[-2]:
        return torch.zeros_like(_dots(q, k)) @ v
    scores = _dots(q, k) / math.sqrt(q.shape[-1])
    if mask is not None:
        scores = scores.masked_fill(~mask, torch.finfo(scores.dtype).min)
    parts = (scores - scores.amax(-1, keepdim=True).detach()).exp()
    parts = parts if mask is None else parts * mask
    return (parts @ v) / parts.sum(-1, keepdim=True).clamp_min(0.5)
