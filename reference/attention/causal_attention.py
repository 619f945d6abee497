"""Attention that never looks ahead."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from grader import Case, Cost, Exercise
from reference.attention import FORBID
from reference.attention.scaled_dot_product_attention import scaled_dot_product_attention


def causal_attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Attend with each query to the keys up to its own position, never to later ones.

    The queries stand for the **last** Lq of the Lk positions, as when a decoder has cached the keys of all earlier
    tokens: query i may use key j if j <= i + (Lk - Lq), so the last query sees everything.

    Args:
        q: queries, shape (..., Lq, d), with any number of leading dimensions and 1 <= Lq <= Lk.
        k: keys, shape (..., Lk, d), with the same leading dimensions.
        v: values, shape (..., Lk, dv), with the same leading dimensions.

    Returns:
        Tensor of shape (..., Lq, dv) and of the dtype of `q`: scaled dot-product attention, softmax(q k^T / sqrt(d)) v,
        over the allowed keys. Later keys and values reach neither the result nor its gradient, however large.
        What is made for the mask has at most Lq * Lk elements, whatever the leading dimensions, and is on the device
        of `q`.

    Raises:
        ValueError: there are more queries than keys; `q` and `k` differ in d, or `k` and `v` in Lk.

    Example:
        >>> x = torch.tensor([[1.0], [3.0], [8.0]])
        >>> causal_attention(torch.zeros(3, 1), torch.zeros(3, 1), x).T
        tensor([[1., 2., 4.]])
        >>> causal_attention(torch.zeros(1, 1), torch.zeros(3, 1), x)
        tensor([[4.]])
    """
    num_queries, num_keys = q.shape[-2], k.shape[-2]
    if num_queries > num_keys:
        raise ValueError(f"there are {num_queries} queries but only {num_keys} keys")
    mask = torch.ones(num_queries, num_keys, dtype=torch.bool, device=q.device).tril(num_keys - num_queries)
    return scaled_dot_product_attention(q, k, v, mask)


exercise = Exercise(
    causal_attention,
    points=8,
    gradients=("q", "k", "v"),
    cost=Cost(ops=24),
    forbid=FORBID,
    uses=("scaled_dot_product_attention",),
    hints=(
        "Draw the mask for 2 queries and 5 keys: its last row is True everywhere. Which keys may the first row use?",
        "torch.ones(Lq, Lk, dtype=torch.bool, device=q.device).tril(n): which is the smallest n that leaves the "
        "last row whole?",
        "tril(Lk - Lq), then call your scaled_dot_product_attention with this mask.",
    ),
    source="D2L attention-mechanisms-and-transformers/transformer",
)


@exercise.truth
def truth(q, k, v):
    ahead = k.shape[-2] - q.shape[-2]
    rows = []
    for i in range(q.shape[-2]):
        end = i + ahead + 1
        rows.append(F.scaled_dot_product_attention(q[..., i : i + 1, :], k[..., :end, :], v[..., :end, :]))
    return torch.cat(rows, -2)


def rows_before_the_last(candidate, q, k, v):
    return {"rows before the last": candidate(q, k, v)[..., :-1, :]}


def mask_elements(candidate, q, k, v):
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
        result = candidate(q, k, v)
    masks = [t for t in made if t.untyped_storage()._cdata not in data]
    largest = max((t.untyped_storage().nbytes() // t.itemsize for t in masks), default=0)
    return {"result": result, "more than Lq * Lk elements made for the mask": largest > q.shape[-2] * k.shape[-2]}


def on_another_device(candidate, q, k, v):
    result = candidate(q, k, v)
    elsewhere = False
    try:
        candidate(q.to("meta"), k.to("meta"), v.to("meta"))
    except RuntimeError as error:
        elsewhere = "expected device" in str(error) or "same device" in str(error)
    return {"result": result, "a tensor is made on another device than q's": elsewhere}


@exercise.cases
def cases(draw):
    yield Case("as many queries as keys", draw.normal(2, 4, 5), draw.normal(2, 4, 5), draw.normal(2, 4, 6))
    yield Case("3 queries, 5 keys", draw.normal(2, 3, 4), draw.normal(2, 5, 4), draw.normal(2, 5, 2))
    yield Case("1 query, 7 keys", draw.normal(2, 3, 1, 5), draw.normal(2, 3, 7, 5), draw.normal(2, 3, 7, 4))
    yield Case("one position", draw.normal(3, 1, 5), draw.normal(3, 1, 5), draw.normal(3, 1, 2), edge=True)
    yield Case("no leading dimensions", draw.normal(2, 3), draw.normal(5, 3), draw.normal(5, 4))
    k, v = draw.normal(2, 5, 3), draw.normal(2, 5, 4)
    k[:, -1], v[:, -1] = 1e30, -1e30
    yield Case("1e30 at the last position", draw.normal(2, 4, 3), k, v, probe=rows_before_the_last, edge=True)
    yield Case(
        "scores of size 1e4", 100 * draw.normal(2, 3, 5), 100 * draw.normal(2, 6, 5), draw.normal(2, 6, 3), grad=False
    )
    yield Case(
        "32 queries, 40 keys", draw.normal(2, 3, 32, 12), draw.normal(2, 3, 40, 12), draw.normal(2, 3, 40, 8), cost=True
    )
    yield Case(
        "eight heads under one mask", draw.normal(2, 8, 9, 2), draw.normal(2, 8, 10, 2), draw.normal(2, 8, 10, 3),
        probe=mask_elements, edge=True, grad=False,
    )  # fmt: skip
    yield Case(
        "tensors on another device", draw.normal(2, 3, 4), draw.normal(2, 5, 4), draw.normal(2, 5, 2),
        probe=on_another_device, edge=True, grad=False, layouts=False,
    )  # fmt: skip
    yield Case(
        "more queries than keys", draw.normal(2, 4, 5), draw.normal(2, 3, 5), draw.normal(2, 3, 6), raises=ValueError
    )
    yield Case(
        "keys of another width", draw.normal(2, 3, 5), draw.normal(2, 4, 6), draw.normal(2, 4, 6), raises=ValueError
    )
    yield Case(
        "fewer values than keys", draw.normal(2, 2, 5), draw.normal(2, 4, 5), draw.normal(2, 3, 5), raises=ValueError,
        hidden=True,
    )  # fmt: skip
    yield Case("heads", draw.normal(2, 3, 5, 4), draw.normal(2, 3, 6, 4), draw.normal(2, 3, 6, 7), hidden=True)
    heads = [draw.normal(2, n, 3, 4).transpose(1, 2) for n in (4, 7, 7)]
    yield Case("heads split from the features (not contiguous)", *heads, hidden=True)
    yield Case(
        "tiny inputs",
        1e-3 * draw.normal(2, 6, 7),
        1e-3 * draw.normal(2, 6, 7),
        1e-3 * draw.normal(2, 6, 4),
        hidden=True,
    )
    yield Case("values far from 0", draw.normal(2, 3, 6), draw.normal(2, 5, 6), draw.normal(2, 5, 4) + 1e3, hidden=True)
    yield Case("width 1", draw.normal(2, 2, 1), draw.normal(2, 5, 1), draw.normal(2, 5, 3), edge=True, hidden=True)
    later = 0.05 * draw.normal(2, 5, 2) - 30.0
    later[:, 3:] += 60.0
    yield Case(
        "later keys that score far higher", draw.normal(2, 4, 2) + 30.0, later, draw.normal(2, 5, 3),
        probe=rows_before_the_last, hidden=True,
    )  # fmt: skip


@exercise.growth("heads", sizes=(4, 16), ops=0.0, peak=1.0)
def more_heads(draw, size):
    return Case(f"{size} heads", *(draw.normal(2, size, n, d) for n, d in ((5, 4), (6, 4), (6, 3))))


@exercise.growth("queries", ops=0.0)
def more_queries(draw, size):
    return Case(f"{size} queries", draw.normal(2, size, 4), draw.normal(2, 64, 4), draw.normal(2, 64, 3))


@exercise.growth("length", ops=0.0, peak=2.0, maxel=2.0)
def longer(draw, size):
    return Case(f"length {size}", *(draw.normal(2, size, d) for d in (8, 8, 4)))


def _check(q, k, v):
    """Raise what the contract asks for and return the numbers of queries and keys."""
    if q.shape[-2] > k.shape[-2] or q.shape[-1] != k.shape[-1] or k.shape[-2] != v.shape[-2]:
        raise ValueError
    return q.shape[-2], k.shape[-2]


@exercise.wrong(
    "tril() aligns the corner at the top left, so a single new query would see only key 0. The last query sees all: "
    "use tril(Lk - Lq)."
)
def aligned_top_left(q, k, v):
    return scaled_dot_product_attention(q, k, v, torch.ones(*_check(q, k, v), dtype=torch.bool).tril())


@exercise.wrong("A token may look at itself: the diagonal belongs to the allowed keys.")
def diagonal_excluded(q, k, v):
    queries, keys = _check(q, k, v)
    mask = torch.ones(queries, keys, dtype=torch.bool).tril(keys - queries - 1)
    return scaled_dot_product_attention(q, k, v, mask)


@exercise.wrong(
    "One key too many: query i sees the position after its own. Count both from 0 and allow j <= i + (Lk - Lq)."
)
def one_key_ahead(q, k, v):
    queries, keys = _check(q, k, v)
    mask = torch.ones(queries, keys, dtype=torch.bool).tril(keys - queries + 1)
    return scaled_dot_product_attention(q, k, v, mask)


@exercise.wrong("Masked after the softmax, the rows no longer sum to 1: mask the scores before it.")
def masked_after_softmax(q, k, v):
    queries, keys = _check(q, k, v)
    weights = torch.softmax(q @ k.transpose(-2, -1) / math.sqrt(q.shape[-1]), -1)
    return weights.tril(keys - queries) @ v


@exercise.wrong(
    "Renormalised after the softmax, the weights are 0 / 0 where later keys took everything: mask the scores before it."
)
def renormalised_after_softmax(q, k, v):
    queries, keys = _check(q, k, v)
    weights = torch.softmax(q @ k.transpose(-2, -1) / math.sqrt(q.shape[-1]), -1).tril(keys - queries)
    return weights / weights.sum(-1, keepdim=True).clamp_min(1e-9) @ v


@exercise.wrong("triu() starts on the diagonal and so hides the present, too: hide triu(diagonal=Lk - Lq + 1).")
def triu_hides_the_present(q, k, v):
    hidden = torch.ones(*_check(q, k, v), dtype=torch.bool).triu()
    return scaled_dot_product_attention(q, k, v, ~hidden)


@exercise.wrong(
    "The rows of the mask are queries and its columns keys: with the two swapped, each query sees only itself "
    "and what follows. Hide columns beyond the query's position."
)
def sees_only_what_follows(q, k, v):
    queries, keys = _check(q, k, v)
    mask = torch.arange(keys) >= torch.arange(queries)[:, None] + (keys - queries)
    return scaled_dot_product_attention(q, k, v, mask)


@exercise.wrong("triu(1) marks the future, which is to be hidden; here it is what may be seen. Use tril, or invert it.")
def sees_the_future_only(q, k, v):
    queries, keys = _check(q, k, v)
    mask = torch.arange(keys) > torch.arange(queries)[:, None] + (keys - queries)
    return scaled_dot_product_attention(q, k, v, mask)


@exercise.wrong(
    "The diagonal moves to the right: tril(Lk - Lq), a positive number where there are more keys than queries."
)
def diagonal_moved_to_the_left(q, k, v):
    queries, keys = _check(q, k, v)
    mask = torch.arange(keys) <= torch.arange(queries)[:, None] - (keys - queries)
    return scaled_dot_product_attention(q, k, v, mask)


@exercise.wrong(
    "Whole queries are hidden in place of keys: every query that is left sees the future. Hide, for each query, the "
    "columns after its position."
)
def queries_hidden(q, k, v):
    queries, keys = _check(q, k, v)
    mask = (torch.arange(queries) >= (queries + 1) // 2)[:, None].expand(queries, keys)
    return scaled_dot_product_attention(q, k, v, mask)


@exercise.wrong("There is no mask: each query must see the keys up to its own position only.")
def not_causal(q, k, v):
    _check(q, k, v)
    return scaled_dot_product_attention(q, k, v)


@exercise.wrong(
    "tril of the scores sets them to 0, and exp(0) = 1 is still a weight: fill them with a very low number."
)
def scores_set_to_zero(q, k, v):
    queries, keys = _check(q, k, v)
    scores = (q @ k.transpose(-2, -1) / math.sqrt(q.shape[-1])).tril(keys - queries)
    return torch.softmax(scores, -1) @ v


@exercise.wrong("-1e9 added to a score does not hide 1e30: fill the score instead of adding to it.")
def minus_a_billion_added(q, k, v):
    queries, keys = _check(q, k, v)
    scores = q @ k.transpose(-2, -1) / math.sqrt(q.shape[-1])
    return torch.softmax(scores + torch.full((queries, keys), -1e9).triu(keys - queries + 1), -1) @ v


@exercise.wrong("The dot products are not scaled: divide them by sqrt(d), or call scaled_dot_product_attention.")
def not_scaled(q, k, v):
    return causal_attention(q * math.sqrt(q.shape[-1]), k, v)


@exercise.wrong("A mask made by torch.ones(...) alone lives on the CPU: add device=q.device, or a GPU run stops here.")
def mask_on_the_cpu(q, k, v):
    queries, keys = _check(q, k, v)
    mask = torch.ones(queries, keys, dtype=torch.bool, device="cpu").tril(keys - queries)
    return scaled_dot_product_attention(q, k, v, mask)


@exercise.wrong("More queries than keys have no last position in common: raise ValueError.", caught_by="errors")
def too_many_queries_accepted(q, k, v):
    mask = torch.ones(q.shape[-2], k.shape[-2], dtype=torch.bool, device=q.device).tril(k.shape[-2] - q.shape[-2])
    return scaled_dot_product_attention(q, k, v, mask)


@exercise.wrong(
    "The result must carry the gradient to q, k and v: no detach() and no no_grad().", caught_by="gradients"
)
def cuts_the_graph(q, k, v):
    return causal_attention(q.detach(), k.detach(), v)


@exercise.wrong(
    "One mask of shape (Lq, Lk) serves all samples and heads: broadcasting repeats it without memory.",
)
def mask_for_every_head(q, k, v):
    queries, keys = _check(q, k, v)
    mask = torch.ones(*q.shape[:-2], queries, keys, dtype=torch.bool, device=q.device).tril(keys - queries)
    return scaled_dot_product_attention(q, k, v, mask)


@exercise.wrong("A loop over the queries: one mask and one call handle all of them.", caught_by="growth")
def query_by_query(q, k, v):
    queries, keys = _check(q, k, v)
    ends = [keys - queries + i + 1 for i in range(queries)]
    rows = [
        scaled_dot_product_attention(q[..., i : i + 1, :], k[..., :n, :], v[..., :n, :]) for i, n in enumerate(ends)
    ]
    return torch.cat(rows, -2)


@exercise.right("positions compared")
def positions_compared(q, k, v):
    queries, keys = _check(q, k, v)
    own = torch.arange(keys - queries, keys, device=q.device)
    return scaled_dot_product_attention(q, k, v, torch.arange(keys, device=q.device) <= own.unsqueeze(-1))


@exercise.right("a triangle of -inf filled in, no helper")
def filled_triangle(q, k, v):
    queries, keys = _check(q, k, v)
    future = torch.ones((queries, keys), device=q.device).triu(keys - queries + 1).bool()
    scores = torch.einsum("...id,...jd->...ij", q, k) / q.shape[-1] ** 0.5
    return scores.masked_fill(future, -torch.inf).softmax(dim=-1) @ v


@exercise.right("exponentials by hand, tril of them")
def tril_of_exponentials(q, k, v):
    queries, keys = _check(q, k, v)
    scores = (q @ k.mT) * q.shape[-1] ** -0.5
    seen = torch.ones(queries, keys, dtype=torch.bool, device=q.device).tril(keys - queries)
    scores = torch.where(seen, scores, torch.finfo(q.dtype).min)
    parts = (scores - scores.detach().amax(-1, keepdim=True)).exp()
    return (parts / parts.sum(-1, keepdim=True)) @ v
