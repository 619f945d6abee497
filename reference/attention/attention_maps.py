"""What a trained model attends to, as pictures."""

import torch
from torch import Tensor

from grader import Case, Cost, Exercise
from reference.attention import FORBID


def attention_maps(weights: Tensor, sample: int, query_len: int, key_len: int, *, reduce: str = "none") -> Tensor:
    """Cut the attention weights of one sample out of a model's, ready for a heat map.

    Args:
        weights: shape (L, B, H, Q, K): layers from first to last, samples, heads, queries, keys. May require grad.
        sample: which sample, in [0, B).
        query_len: how many leading queries are real, not padding: 1 ... Q.
        key_len: how many leading keys are real: 1 ... K.
        reduce: "none" for every head; "mean" for the average of the heads; "rollout" for how much each position of the
            last layer's output draws on each position of the input.

    Returns:
        Tensor without a graph, in memory of its own. With q = query_len, k = key_len:
        "none": (L, H, q, k); "mean": (L, 1, q, k); "rollout": (1, 1, q, q), the matrix product A_L ... A_2 A_1 in which
        A_l is layer l's mean over heads, cropped, plus the identity (the residual connection), with each row divided
        by its sum, as if half of every token bypassed the attention. Its rows sum to 1.

    Raises:
        ValueError: `sample`, `query_len` or `key_len` is out of range, `reduce` is unknown, or it is "rollout" with
            query_len != key_len.

    Example:
        >>> weights = torch.tensor([[1.0, 0.0], [0.5, 0.5]]).reshape(1, 1, 1, 2, 2)
        >>> attention_maps(weights, 0, 2, 1)
        tensor([[[[1.0000],
                  [0.5000]]]])
        >>> attention_maps(weights, 0, 2, 2, reduce="rollout")
        tensor([[[[1.0000, 0.0000],
                  [0.2500, 0.7500]]]])
    """
    _, samples, _, queries, keys = weights.shape
    if not (0 <= sample < samples and 1 <= query_len <= queries and 1 <= key_len <= keys):
        raise ValueError(
            f"sample {sample} cropped to ({query_len}, {key_len}) is not in weights {tuple(weights.shape)}"
        )
    if reduce not in ("none", "mean", "rollout"):
        raise ValueError(f"reduce must be 'none', 'mean' or 'rollout', got {reduce!r}")
    if reduce == "rollout" and query_len != key_len:
        raise ValueError(f"rollout needs as many queries as keys, got {query_len} and {key_len}")
    maps = weights.detach()[:, sample, :, :query_len, :key_len]
    if reduce == "none":
        return maps.clone()
    mean = maps.mean(1, keepdim=True)
    if reduce == "mean":
        return mean
    with_residual = mean.squeeze(1) + torch.eye(query_len, dtype=weights.dtype, device=weights.device)
    layers = with_residual / with_residual.sum(-1, keepdim=True)
    rollout = layers[0]
    for layer in layers[1:]:
        rollout = layer @ rollout
    return rollout[None, None]


exercise = Exercise(
    attention_maps,
    points=5,
    extra=True,
    forbid=(*FORBID, "matplotlib"),
    hints=(
        "weights[:, sample] is (L, H, Q, K). Which slices leave only real queries and keys?",
        "A row of the rollout says where an output token comes from. Layer 2 works on what layer 1 made, so its matrix "
        "stands to the left.",
        "a = mean over heads + eye(q); a = a / a.sum(-1, keepdim=True); rollout = a[0]; for each later layer: "
        "rollout = a[l] @ rollout. detach() first; clone() what would be a view.",
    ),
    source="D2L attention-mechanisms-and-transformers/queries-keys-values, transformer; Abnar and Zuidema 2020",
)


@exercise.truth
def truth(weights, sample, query_len, key_len, *, reduce="none"):
    maps = weights.tolist()
    layers = [[[row[:key_len] for row in head[:query_len]] for head in layer[sample]] for layer in maps]
    if reduce == "none":
        return torch.tensor(layers, dtype=weights.dtype)
    mean = [
        [[sum(h[i][j] for h in heads) / len(heads) for j in range(key_len)] for i in range(query_len)]
        for heads in layers
    ]
    if reduce == "mean":
        return torch.tensor(mean, dtype=weights.dtype)[:, None]
    size = range(query_len)
    flow = [[float(i == j) for j in size] for i in size]
    for layer in mean:
        half = [[0.5 * (layer[i][j] + (i == j)) for j in size] for i in size]
        half = [[entry / sum(row) for entry in row] for row in half]
        flow = [[sum(half[i][m] * flow[m][j] for m in size) for j in size] for i in size]
    return torch.tensor(flow, dtype=weights.dtype)[None, None]


def soft(draw, *shape):
    """Draw attention weights."""
    return torch.softmax(draw.normal(*shape), -1)


def on_another_device(candidate, weights, sample, query_len, key_len, *, reduce):
    result = candidate(weights, sample, query_len, key_len, reduce=reduce)
    elsewhere = False
    try:
        candidate(weights.to("meta"), sample, query_len, key_len, reduce=reduce)
    except RuntimeError as error:
        elsewhere = "expected device" in str(error) or "same device" in str(error)
    return {"result": result, "a tensor is made on another device than the weights": elsewhere}


@exercise.cases
def cases(draw):
    def budget(layers):
        return Cost(ops=6 * layers + 10)

    yield Case("every head", soft(draw, 2, 3, 4, 5, 6), 1, 4, 3, cost=budget(2))
    yield Case("average of the heads", soft(draw, 3, 2, 4, 5, 6), 0, 3, 5, reduce="mean", cost=budget(3))
    yield Case("rollout", soft(draw, 3, 2, 4, 6, 6), 1, 6, 6, reduce="rollout", cost=budget(3))
    yield Case("rollout without padding", soft(draw, 3, 2, 2, 6, 7), 0, 4, 4, reduce="rollout", cost=budget(3))
    yield Case("the last sample", soft(draw, 2, 3, 2, 4, 5), 2, 2, 4, reduce="mean")
    yield Case("nothing cropped", soft(draw, 1, 1, 2, 3, 4), 0, 3, 4, edge=True)
    yield Case("one layer, one head", soft(draw, 1, 2, 1, 4, 5), 1, 3, 3, reduce="rollout", edge=True)
    yield Case("one head, averaged, nothing cropped", soft(draw, 1, 1, 1, 3, 4), 0, 3, 4, reduce="mean", edge=True)
    yield Case("cropped to 1 x 1", soft(draw, 2, 2, 3, 4, 5), 0, 1, 1, reduce="rollout", edge=True)
    yield Case(
        "each position attends to itself",
        torch.eye(4).expand(3, 2, 2, 4, 4).clone(),
        1,
        3,
        3,
        reduce="rollout",
        edge=True,
    )
    yield Case(
        "weights that require grad", soft(draw, 2, 2, 3, 4, 5).requires_grad_(), 1, 3, 4, reduce="none", edge=True
    )
    yield Case(
        "mean of weights that require grad", soft(draw, 2, 2, 3, 4, 5).requires_grad_(), 1, 3, 4, reduce="mean",
        edge=True,
    )  # fmt: skip
    yield Case(
        "weights on another device", soft(draw, 2, 2, 3, 4, 4), 1, 3, 3, reduce="rollout", probe=on_another_device,
        edge=True, layouts=False,
    )  # fmt: skip
    yield Case("an unknown reduction", soft(draw, 2, 2, 3, 4, 5), 0, 2, 2, reduce="max", raises=ValueError)
    yield Case("sample B", soft(draw, 2, 3, 2, 4, 5), 3, 2, 2, raises=ValueError)
    yield Case("sample -1", soft(draw, 2, 3, 2, 4, 5), -1, 2, 2, raises=ValueError)
    yield Case("more queries than there are", soft(draw, 2, 3, 2, 4, 5), 0, 5, 2, raises=ValueError)
    yield Case("more keys than there are", soft(draw, 2, 3, 2, 4, 5), 0, 2, 6, raises=ValueError, hidden=True)
    yield Case("no queries", soft(draw, 2, 3, 2, 4, 5), 0, 0, 3, raises=ValueError)
    yield Case("no keys", soft(draw, 2, 3, 2, 4, 5), 0, 3, 0, raises=ValueError, hidden=True)
    yield Case(
        "rollout of 3 queries and 4 keys", soft(draw, 2, 3, 2, 4, 5), 0, 3, 4, reduce="rollout", raises=ValueError
    )
    yield Case("negative length", soft(draw, 2, 3, 2, 4, 5), 0, -1, 3, raises=ValueError, hidden=True)
    causal = soft(draw, 4, 2, 3, 5, 5).tril()
    causal = causal / causal.sum(-1, keepdim=True)
    yield Case("rollout of causal attention", causal, 1, 5, 5, reduce="rollout", hidden=True)
    empty = soft(draw, 2, 2, 2, 4, 4)
    empty[:, 0, :, 1] = 0.0
    yield Case("rollout, a query without any key", empty, 0, 3, 3, reduce="rollout", edge=True, hidden=True)
    yield Case("tiny weights", 1e-3 * soft(draw, 2, 3, 4, 5, 6), 2, 3, 2, reduce="mean", hidden=True)
    yield Case(
        "rollout of weights that require grad", soft(draw, 2, 2, 3, 4, 5).requires_grad_(), 0, 3, 3, reduce="rollout",
        edge=True, hidden=True,
    )  # fmt: skip
    yield Case("eight layers", soft(draw, 8, 1, 2, 5, 6), 0, 5, 5, reduce="rollout", cost=budget(8), hidden=True)


@exercise.growth("heads", sizes=(8, 32), ops=0.0)
def more_heads(draw, size):
    return Case(f"{size} heads", soft(draw, 3, 2, size, 4, 4), 1, 3, 3, reduce="rollout")


@exercise.growth("heads averaged", sizes=(8, 32), ops=0.0)
def more_heads_averaged(draw, size):
    return Case(f"{size} heads", soft(draw, 3, 2, size, 4, 5), 1, 3, 4, reduce="mean")


@exercise.growth("length", sizes=(16, 32), ops=0.0)
def longer(draw, size):
    return Case(f"length {size}", soft(draw, 3, 2, 2, size, size), 1, size, size, reduce="rollout")


def _maps(weights, sample, query_len, key_len, reduce):
    """Check the arguments and return the detached maps (L, H, q, k), a view."""
    attention_maps(weights, sample, query_len, key_len, reduce=reduce)
    return weights.detach()[:, sample, :, :query_len, :key_len]


def _rollout(matrices):
    """Return the product of normalised layers, (1, 1, q, q)."""
    matrices = matrices / matrices.sum(-1, keepdim=True)
    flow = matrices[0].clone()
    for layer in matrices[1:]:
        flow = layer @ flow
    return flow[None, None]


@exercise.wrong("Later layers act on what earlier ones made: multiply them from the left, A_L ... A_1.")
def first_layer_leftmost(weights, sample, query_len, key_len, *, reduce="none"):
    if reduce != "rollout":
        return attention_maps(weights, sample, query_len, key_len, reduce=reduce)
    return attention_maps(weights.flip(0), sample, query_len, key_len, reduce=reduce)


@exercise.wrong("The residual connection is left out: half of each token bypasses the attention, so add the identity.")
def without_the_identity(weights, sample, query_len, key_len, *, reduce="none"):
    maps = _maps(weights, sample, query_len, key_len, reduce)
    if reduce != "rollout":
        return attention_maps(weights, sample, query_len, key_len, reduce=reduce)
    return _rollout(maps.mean(1) + 1e-30)


@exercise.wrong("Padding is shown: crop to the first query_len queries and key_len keys.", caught_by="shape")
def not_cropped(weights, sample, query_len, key_len, *, reduce="none"):
    attention_maps(weights, sample, query_len, key_len, reduce=reduce)
    queries, keys = weights.shape[3:]
    if reduce == "rollout":
        queries = keys = min(queries, keys)
    return attention_maps(weights, sample, queries, keys, reduce=reduce)


@exercise.wrong("Rows are queries and columns keys: the two crops, or the axes, are exchanged.")
def axes_swapped(weights, sample, query_len, key_len, *, reduce="none"):
    return attention_maps(weights, sample, query_len, key_len, reduce=reduce).transpose(-2, -1).contiguous()


@exercise.wrong("detach() is missing: each picture that is kept keeps a whole graph alive.", caught_by="gradients")
def graph_kept(weights, sample, query_len, key_len, *, reduce="none"):
    result = attention_maps(weights, sample, query_len, key_len, reduce=reduce)
    if reduce == "rollout" or not weights.requires_grad:
        return result
    maps = weights[:, sample, :, :query_len, :key_len]
    return maps.clone() if reduce == "none" else maps.mean(1, keepdim=True)


@exercise.wrong(
    "A slice is a view: a change of the picture would change the weights. clone() it; contiguous() alone copies only "
    "what is not contiguous yet.",
    caught_by="inputs",
)
def a_view_is_returned(weights, sample, query_len, key_len, *, reduce="none"):
    if reduce != "none":
        return attention_maps(weights, sample, query_len, key_len, reduce=reduce)
    return _maps(weights, sample, query_len, key_len, reduce).contiguous()


@exercise.wrong("The axes are (layers, samples, heads, ...): the sample is the second axis, not the third.")
def sample_taken_from_the_heads(weights, sample, query_len, key_len, *, reduce="none"):
    attention_maps(weights, sample, query_len, key_len, reduce=reduce)
    swapped = weights.transpose(1, 2)
    return attention_maps(swapped, sample % weights.shape[2], query_len, key_len, reduce=reduce)


@exercise.wrong("Every layer has its own map: average the heads, not the layers.")
def layers_averaged(weights, sample, query_len, key_len, *, reduce="none"):
    maps = _maps(weights, sample, query_len, key_len, reduce)
    if reduce != "mean":
        return attention_maps(weights, sample, query_len, key_len, reduce=reduce)
    return maps.mean(0).unsqueeze(1)


@exercise.wrong("Keep the axis of the heads, with size 1: mean(1, keepdim=True).", caught_by="shape")
def head_axis_lost(weights, sample, query_len, key_len, *, reduce="none"):
    result = attention_maps(weights, sample, query_len, key_len, reduce=reduce)
    return result[:, 0].clone() if reduce == "mean" else result


@exercise.wrong("Rows that were cropped no longer sum to 1: divide each row of A + I by its sum.")
def rows_not_normalised(weights, sample, query_len, key_len, *, reduce="none"):
    maps = _maps(weights, sample, query_len, key_len, reduce)
    if reduce != "rollout":
        return attention_maps(weights, sample, query_len, key_len, reduce=reduce)
    matrices = (maps.mean(1) + torch.eye(query_len, dtype=weights.dtype, device=weights.device)) / 2
    flow = matrices[0].clone()
    for layer in matrices[1:]:
        flow = layer @ flow
    return flow[None, None]


@exercise.wrong("Each row is a query's distribution over the keys: divide rows by their sums, not columns.")
def columns_normalised(weights, sample, query_len, key_len, *, reduce="none"):
    maps = _maps(weights, sample, query_len, key_len, reduce)
    if reduce != "rollout":
        return attention_maps(weights, sample, query_len, key_len, reduce=reduce)
    matrices = maps.mean(1) + torch.eye(query_len, dtype=weights.dtype, device=weights.device)
    matrices = matrices / matrices.sum(-2, keepdim=True)
    flow = matrices[0].clone()
    for layer in matrices[1:]:
        flow = layer @ flow
    return flow[None, None]


@exercise.wrong("Crop first, then add the identity and normalise: a cropped product has passed through the padding.")
def cropped_at_the_end(weights, sample, query_len, key_len, *, reduce="none"):
    result = attention_maps(weights, sample, query_len, key_len, reduce=reduce)
    if reduce != "rollout":
        return result
    size = min(weights.shape[3:])
    return attention_maps(weights, sample, size, size, reduce=reduce)[..., :query_len, :key_len].clone()


@exercise.wrong("Crop, then normalise: rows that were normalised before the crop no longer sum to 1 after it.")
def normalised_before_cropping(weights, sample, query_len, key_len, *, reduce="none"):
    result = attention_maps(weights, sample, query_len, key_len, reduce=reduce)
    if reduce != "rollout":
        return result
    size = min(weights.shape[3:])
    matrices = weights.detach()[:, sample, :, :size, :size].mean(1)
    matrices = matrices + torch.eye(size, dtype=weights.dtype, device=weights.device)
    matrices = (matrices / matrices.sum(-1, keepdim=True))[:, :query_len, :key_len]
    flow = matrices[0].clone()
    for layer in matrices[1:]:
        flow = layer @ flow
    return flow[None, None]


@exercise.wrong(
    "Average the heads of each layer first, then multiply the layers: heads do not keep apart between layers."
)
def each_head_rolled_out_alone(weights, sample, query_len, key_len, *, reduce="none"):
    if reduce != "rollout":
        return attention_maps(weights, sample, query_len, key_len, reduce=reduce)
    heads = weights.detach().split(1, 2)
    return sum(attention_maps(w, sample, query_len, key_len, reduce=reduce) for w in heads) / len(heads)


@exercise.wrong("`sample` says which picture is wanted: do not leave it at the first.")
def always_the_first_sample(weights, sample, query_len, key_len, *, reduce="none"):
    attention_maps(weights, sample, query_len, key_len, reduce=reduce)
    return attention_maps(weights, 0, query_len, key_len, reduce=reduce)


@exercise.wrong("torch.eye(q) alone is float32 and lives on the CPU: give it the dtype and device of the weights.")
def identity_on_the_cpu(weights, sample, query_len, key_len, *, reduce="none"):
    if reduce != "rollout":
        return attention_maps(weights, sample, query_len, key_len, reduce=reduce)
    maps = _maps(weights, sample, query_len, key_len, reduce)
    return _rollout(maps.mean(1) + torch.eye(query_len, dtype=weights.dtype, device="cpu"))


@exercise.wrong("A loop over the heads: mean(dim) averages them all at once.", caught_by="growth")
def head_by_head(weights, sample, query_len, key_len, *, reduce="none"):
    maps = _maps(weights, sample, query_len, key_len, reduce)
    if reduce != "mean":
        return attention_maps(weights, sample, query_len, key_len, reduce=reduce)
    return (sum(maps[:, head] for head in range(maps.shape[1])) / maps.shape[1]).unsqueeze(1)


@exercise.wrong("The rollout averages the heads of each layer first; a maximum over them is another method.")
def largest_head(weights, sample, query_len, key_len, *, reduce="none"):
    maps = _maps(weights, sample, query_len, key_len, reduce)
    if reduce == "none":
        return maps.clone()
    top = maps.amax(1)
    return (
        top.unsqueeze(1)
        if reduce == "mean"
        else _rollout(top + torch.eye(query_len, dtype=weights.dtype, device=weights.device))
    )


@exercise.wrong("Layers are multiplied as matrices, @, not entry by entry.")
def multiplied_entry_by_entry(weights, sample, query_len, key_len, *, reduce="none"):
    maps = _maps(weights, sample, query_len, key_len, reduce)
    if reduce != "rollout":
        return attention_maps(weights, sample, query_len, key_len, reduce=reduce)
    matrices = maps.mean(1) + torch.eye(query_len, dtype=weights.dtype, device=weights.device)
    return (matrices / matrices.sum(-1, keepdim=True)).prod(0)[None, None]


@exercise.wrong(
    "Samples are counted from 0 to B - 1: raise ValueError for -1, which Python would accept.", caught_by="errors"
)
def negative_sample_accepted(weights, sample, query_len, key_len, *, reduce="none"):
    return attention_maps(
        weights, sample + weights.shape[1] if sample == -1 else sample, query_len, key_len, reduce=reduce
    )


@exercise.wrong(
    "A slice that is too long is cut silently: check that the lengths fit, and raise ValueError.", caught_by="errors"
)
def lengths_not_checked(weights, sample, query_len, key_len, *, reduce="none"):
    queries, keys = weights.shape[3:]
    return attention_maps(weights, sample, min(max(query_len, 1), queries), min(max(key_len, 1), keys), reduce=reduce)


@exercise.wrong("Raise ValueError for a `reduce` that is not one of the three words.", caught_by="errors")
def any_word_accepted(weights, sample, query_len, key_len, *, reduce="none"):
    return attention_maps(
        weights, sample, query_len, key_len, reduce=reduce if reduce in ("mean", "rollout") else "none"
    )


@exercise.right("chained matrix product")
def chained(weights, sample, query_len, key_len, *, reduce="none"):
    maps = _maps(weights, sample, query_len, key_len, reduce)
    if reduce == "none":
        return maps * 1.0
    mean = torch.einsum("lhqk->lqk", maps) / maps.shape[1]
    if reduce == "mean":
        return mean.unsqueeze(1)
    half = 0.5 * mean + 0.5 * torch.eye(query_len, dtype=weights.dtype, device=weights.device)
    half = half / half.sum(-1).unsqueeze(-1)
    flow = torch.linalg.multi_dot(list(half.flip(0))) if len(half) > 1 else half[0]
    return flow.clone().reshape(1, 1, query_len, query_len)


@exercise.right("under no_grad, from the last layer to the first")
def from_the_last_layer(weights, sample, query_len, key_len, *, reduce="none"):
    _maps(weights, sample, query_len, key_len, reduce)
    with torch.no_grad():
        maps = weights[:, sample].narrow(2, 0, query_len).narrow(3, 0, key_len).clone()
        if reduce == "none":
            return maps
        mean = maps.sum(1) / maps.size(1)
        if reduce == "mean":
            return mean[:, None]
        flow = torch.eye(query_len, dtype=weights.dtype, device=weights.device)
        for layer in reversed(mean.unbind()):
            layer = layer + torch.eye(query_len, dtype=weights.dtype, device=weights.device)
            flow = flow @ (layer / layer.sum(1, keepdim=True))
        return flow[None, None]
