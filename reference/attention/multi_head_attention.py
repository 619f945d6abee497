"""Several attentions side by side."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from grader import Case, Cost, Exercise
from reference.attention import FORBID
from reference.attention.scaled_dot_product_attention import scaled_dot_product_attention


class MultiHeadAttention(nn.Module):
    """Let `num_heads` attentions look at the data through projections of their own.

    Queries, keys and values are projected by W_q, W_k and W_v. With dh = d_model / num_heads, head h works on the
    features h * dh ... (h + 1) * dh - 1 of each projection: softmax(q k^T / sqrt(dh)) over the keys it may use,
    times v. The heads' results are put side by side in the same order and go through W_o.

    Args:
        d_model: width D of queries, keys, values and result.
        num_heads: how many heads share it; a divisor of `d_model`.
        bias: whether the four projections have a bias.
        dropout: in train mode, drop attention weights with this probability (`nn.Dropout`).

    State:
        `W_q`, `W_k`, `W_v`, `W_o`: each an `nn.Linear(d_model, d_model)`; their weights are (D, D) and, with
        `bias=True`, their biases (D,).

    After a call, `attention_weights`, shape (B, num_heads, Lq, Lk), holds the weights before dropout, detached.

    Raises:
        ValueError: `d_model` is not a multiple of `num_heads`.

    Example:
        >>> attention = MultiHeadAttention(4, num_heads=2)
        >>> x = torch.arange(24.0).reshape(2, 3, 4)
        >>> attention(x, x, x, mask=torch.ones(3, 3, dtype=torch.bool).tril()).shape
        torch.Size([2, 3, 4])
        >>> attention.attention_weights[0, :, 0]
        tensor([[1., 0., 0.],
                [1., 0., 0.]])
    """

    def __init__(self, d_model: int, num_heads: int, bias: bool = False, dropout: float = 0.0) -> None:
        super().__init__()
        if d_model % num_heads:
            raise ValueError(f"{d_model} features cannot be shared equally by {num_heads} heads")
        self.num_heads = num_heads
        self.W_q = nn.Linear(d_model, d_model, bias=bias)
        self.W_k = nn.Linear(d_model, d_model, bias=bias)
        self.W_v = nn.Linear(d_model, d_model, bias=bias)
        self.W_o = nn.Linear(d_model, d_model, bias=bias)
        self.dropout = nn.Dropout(dropout)

    def forward(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
        """Attend with every head.

        Args:
            q: queries, shape (B, Lq, D).
            k: keys, shape (B, Lk, D).
            v: values, shape (B, Lk, D). Self-attention is q = k = v.
            mask: boolean, True = may be used, the same for all heads: (Lq, Lk) for all samples, (B, 1, Lk) for all
                queries of a sample, or (B, Lq, Lk). A query without any key has weights 0; W_o's bias is all it gets.

        Returns:
            Tensor of shape (B, Lq, D).
        """
        weights = self._weigh(self._split(self.W_q(q)), self._split(self.W_k(k)), mask)
        self.attention_weights = weights.detach()
        return self.W_o(self._merge(self.dropout(weights) @ self._split(self.W_v(v))))

    def _split(self, x: Tensor) -> Tensor:
        """Turn (B, L, D) into (B, H, L, dh)."""
        return x.unflatten(-1, (self.num_heads, -1)).transpose(1, 2)

    def _merge(self, x: Tensor) -> Tensor:
        """Turn (B, H, L, dh) back into (B, L, D)."""
        return x.transpose(1, 2).flatten(2)

    def _weigh(self, q: Tensor, k: Tensor, mask: Tensor | None) -> Tensor:
        """Return the attention weights (B, H, Lq, Lk) of split queries and keys."""
        scores = q @ k.transpose(-2, -1) / math.sqrt(q.shape[-1])
        if mask is None:
            return torch.softmax(scores, dim=-1)
        hidden = ~mask.unsqueeze(1) if mask.ndim == 3 else ~mask
        weights = torch.softmax(scores.masked_fill(hidden, torch.finfo(scores.dtype).min), dim=-1)
        return weights.masked_fill(hidden, 0.0)


exercise = Exercise(
    MultiHeadAttention,
    points=12,
    gradients=("q", "k", "v", "parameters"),
    attributes=("attention_weights",),
    cost=Cost(ops=40),
    forbid=FORBID,
    uses=("scaled_dot_product_attention",),
    hints=(
        "Follow the shapes: (B, L, D) must become (B, H, L, dh). Which axis is cut in two, and where must it go?",
        "split: x.unflatten(-1, (num_heads, -1)).transpose(1, 2); merge: x.transpose(1, 2).flatten(2). In between, @ "
        "works on all heads at once, and a mask (B, Lq, Lk) needs an axis for the heads.",
        "weights = masked softmax of split(W_q(q)) @ split(W_k(k)).mT / sqrt(dh); keep weights.detach() as "
        "attention_weights; return W_o(merge(dropout(weights) @ split(W_v(v)))).",
    ),
    source="D2L attention-mechanisms-and-transformers/multihead-attention",
)


@exercise.truth
class OneHeadAtATime(nn.Module):
    def __init__(self, d_model, num_heads, bias=False, dropout=0.0):
        super().__init__()
        self.W_q, self.W_k, self.W_v, self.W_o = (nn.Linear(d_model, d_model, bias) for _ in range(4))
        self.heads, self.p = torch.arange(d_model).chunk(num_heads), dropout

    def forward(self, q, k, v, mask=None):
        shape = (q.shape[0], q.shape[1], k.shape[1])
        mask = torch.ones(shape, dtype=torch.bool) if mask is None else mask.expand(shape)
        one_hot = torch.eye(k.shape[1], dtype=q.dtype).expand(q.shape[0], -1, -1)
        weights, results = [], []
        for features in self.heads:
            queries, keys, values = (
                F.linear(x, layer.weight[features], None if layer.bias is None else layer.bias[features])
                for x, layer in ((q, self.W_q), (k, self.W_k), (v, self.W_v))
            )
            weights.append(F.scaled_dot_product_attention(queries, keys, one_hot, mask))
            results.append(F.dropout(weights[-1], self.p, self.training) @ values)
        self.attention_weights = torch.stack(weights, 1).detach()
        return self.W_o(torch.cat(results, -1))


def dropout_on_one_key(module, q, k, v):
    dropped, again = module(q, k, v), module(q, k, v)
    weights = module.attention_weights
    module.eval()
    whole = module(q, k, v)
    module.train()
    kept = (dropped.abs() > 0).all(-1)
    share = kept.float().mean().item()
    factor = torch.where(kept.unsqueeze(-1), whole / 0.75, 0.0)
    return {
        "result in eval mode": whole,
        "weights before dropout": weights,
        "two calls in train mode agree": torch.equal(dropped, again),
        "each result is the whole one / (1 - p), or 0": torch.allclose(dropped, factor, rtol=1e-4, atol=1e-5),
        "about 3 of 4 weights are kept": abs(share - 0.75) < 0.07,
    }


def bool_mask(draw, *shape):
    """Draw a mask in which every row has a True."""
    mask = draw.boolean(*shape)
    mask[..., 0] |= ~mask.any(-1)
    return mask


@exercise.cases
def cases(draw):
    x = draw.normal(2, 5, 6)
    yield Case("self-attention", x, x, x, init=(6, 3))
    yield Case("more keys than queries", draw.normal(2, 3, 8), draw.normal(2, 5, 8), draw.normal(2, 5, 8), init=(8, 2))
    yield Case(
        "a mask (Lq, Lk), as many queries as samples", draw.normal(3, 3, 8), draw.normal(3, 5, 8), draw.normal(3, 5, 8),
        torch.ones(3, 5, dtype=torch.bool).tril(1), init=(8, 2),
    )  # fmt: skip
    yield Case(
        "a mask (B, 1, Lk)", draw.normal(3, 3, 8), draw.normal(3, 4, 8), draw.normal(3, 4, 8),
        torch.arange(4) < torch.tensor([4, 1, 3])[:, None, None], init=(8, 4),
    )  # fmt: skip
    yield Case(
        "a mask (B, Lq, Lk), as many heads as samples", draw.normal(2, 3, 6), draw.normal(2, 4, 6),
        draw.normal(2, 4, 6), bool_mask(draw, 2, 3, 4), init=(6, 2),
    )  # fmt: skip
    yield Case("with biases", draw.normal(2, 3, 6), draw.normal(2, 4, 6), draw.normal(2, 4, 6), init=(6, 2, True))
    empty = bool_mask(draw, 2, 3, 4)
    empty[0, 1] = empty[1] = False
    yield Case(
        "queries that may use no key", draw.normal(2, 3, 6), draw.normal(2, 4, 6), draw.normal(2, 4, 6), empty,
        init={"d_model": 6, "num_heads": 3, "bias": True}, edge=True,
    )  # fmt: skip
    yield Case("one head", draw.normal(2, 3, 5), draw.normal(2, 4, 5), draw.normal(2, 4, 5), init=(5, 1))
    yield Case("a head per feature", draw.normal(2, 3, 5), draw.normal(2, 4, 5), draw.normal(2, 4, 5), init=(5, 5))
    padded = draw.normal(2, 4, 6)
    padded[:, 3:] = 1e30
    yield Case(
        "1e30 where nobody may look", draw.normal(2, 3, 6), padded, padded.flip(-1), (torch.arange(4) < 3).repeat(3, 1),
        init=(6, 2), edge=True,
    )  # fmt: skip
    yield Case(
        "dropout in eval mode",
        draw.normal(2, 3, 6),
        draw.normal(2, 4, 6),
        draw.normal(2, 4, 6),
        init=(6, 2, False, 0.5),
    )
    yield Case("train mode, dropout left at its default", x, x, x, init=(6, 2), train=True)
    yield Case(
        "dropout in train mode", draw.normal(1000, 1, 4), draw.normal(1000, 1, 4), draw.normal(1000, 1, 4),
        init={"d_model": 4, "num_heads": 1, "dropout": 0.25}, train=True, draws=True, probe=dropout_on_one_key,
        grad=False, layouts=False,
    )  # fmt: skip
    yield Case(
        "32 queries, 40 keys", draw.normal(2, 32, 12), draw.normal(2, 40, 12), draw.normal(2, 40, 12),
        bool_mask(draw, 2, 32, 40), init=(12, 3), cost=True,
    )  # fmt: skip
    yield Case("7 features for 2 heads", init=(7, 2), raises=ValueError)
    yield Case("2 features for 4 heads", init=(2, 4), raises=ValueError, hidden=True)
    yield Case(
        "tiny inputs", 1e-3 * draw.normal(2, 3, 6), 1e-3 * draw.normal(2, 5, 6), 1e-3 * draw.normal(2, 5, 6),
        bool_mask(draw, 2, 3, 5), init=(6, 2), hidden=True,
    )  # fmt: skip
    yield Case(
        "large inputs", 20 * draw.normal(2, 3, 8), 20 * draw.normal(2, 5, 8), 20 * draw.normal(2, 5, 8),
        init=(8, 2, True), grad=False, hidden=True,
    )  # fmt: skip
    yield Case(
        "inputs far from 0", 0.1 * draw.normal(2, 3, 8) + 3.0, 0.1 * draw.normal(2, 5, 8) + 3.0,
        draw.normal(2, 5, 8) + 1e3, init=(8, 2), hidden=True,
    )  # fmt: skip
    yield Case(
        "one query", draw.normal(2, 1, 6), draw.normal(2, 4, 6), draw.normal(2, 4, 6), init=(6, 3, True),
        hidden=True,
    )  # fmt: skip
    yield Case("one key", draw.normal(2, 3, 6), draw.normal(2, 1, 6), draw.normal(2, 1, 6), init=(6, 3), hidden=True)
    yield Case(
        "one sample under a mask (B, Lq, Lk)", draw.normal(1, 3, 6), draw.normal(1, 4, 6), draw.normal(1, 4, 6),
        bool_mask(draw, 1, 3, 4), init=(6, 2), hidden=True,
    )  # fmt: skip
    yield Case(
        "a mask (B, 1, Lk), one sample without keys", draw.normal(2, 2, 6), draw.normal(2, 4, 6), draw.normal(2, 4, 6),
        torch.arange(4) < torch.tensor([0, 3])[:, None, None], init=(6, 2), edge=True, hidden=True,
    )  # fmt: skip


@exercise.growth("heads", sizes=(2, 16), ops=0.0)
def more_heads(draw, size):
    x = draw.normal(2, 5, 32)
    return Case(
        f"{size} heads", x, draw.normal(2, 6, 32), draw.normal(2, 6, 32), bool_mask(draw, 5, 6), init=(32, size)
    )


@exercise.growth("samples", sizes=(4, 16), ops=0.0, peak=1.0)
def more_samples(draw, size):
    x = draw.normal(size, 5, 8)
    return Case(f"{size} samples", x, x, x, bool_mask(draw, size, 5, 5), init=(8, 2))


@exercise.growth("length", ops=0.0, peak=2.0, maxel=2.0)
def longer(draw, size):
    x = draw.normal(2, size, 8)
    return Case(f"length {size}", x, x, x, bool_mask(draw, size, size), init=(8, 2))


@exercise.wrong(
    "view(B, H, L, dh) straight from (B, L, D) cuts the sequence, not the features, into pieces: split the last axis "
    "into (H, dh) first, then swap axes 1 and 2."
)
class CutAcrossPositions(MultiHeadAttention):
    def _split(self, x):
        return x.reshape(x.shape[0], self.num_heads, x.shape[1], -1)


@exercise.wrong("The heads must be swapped back before merging: (B, H, L, dh) -> (B, L, H, dh) -> (B, L, D).")
class MergedWithoutSwap(MultiHeadAttention):
    def _merge(self, x):
        return x.reshape(x.shape[0], x.shape[2], -1)


@exercise.wrong(
    "A plain reshape cuts the sequence and joins it again, not the features: split the last axis into (H, dh), then "
    "swap axes 1 and 2, and swap them back before merging."
)
class CutAndMergedAcrossPositions(CutAcrossPositions, MergedWithoutSwap):
    """Both at a time, which runs without a complaint."""


@exercise.wrong(
    "After transpose the memory is no longer contiguous and view fails: use reshape or flatten.", caught_by="runs"
)
class ViewAfterTranspose(MultiHeadAttention):
    def _merge(self, x):
        return x.transpose(1, 2).view(x.shape[0], x.shape[2], -1)


@exercise.wrong("Divide by the square root of the head's width dh = d_model / num_heads, not of d_model.")
class ScaledByModelWidth(MultiHeadAttention):
    def _weigh(self, q, k, mask):
        return super()._weigh(q / math.sqrt(self.num_heads), k, mask)


@exercise.wrong("The dot products are not scaled: divide them by sqrt(dh).")
class NotScaled(MultiHeadAttention):
    def _weigh(self, q, k, mask):
        return super()._weigh(q * math.sqrt(q.shape[-1]), k, mask)


@exercise.wrong("Heads are not summed: put their results side by side, then W_o mixes them.")
class HeadsSummed(MultiHeadAttention):
    def _merge(self, x):
        return super()._merge(x.sum(1, keepdim=True).expand(x.shape))


@exercise.wrong(
    "A mask (B, Lq, Lk) needs an axis for the heads: unsqueeze(1). Without it its samples are lined up with the heads."
)
class MaskWithoutHeadAxis(MultiHeadAttention):
    def _weigh(self, q, k, mask):
        return super()._weigh(q, k, None if mask is None else mask.expand(q.shape[1], *mask.shape[-2:])[None])

    def forward(self, q, k, v, mask=None):
        weights = _weigh_with(self._split(self.W_q(q)), self._split(self.W_k(k)), mask)
        self.attention_weights = weights.detach()
        return self.W_o(self._merge(self.dropout(weights) @ self._split(self.W_v(v))))


def _weigh_with(q, k, mask):
    """Return attention weights under a mask that is broadcast as it is."""
    scores = q @ k.transpose(-2, -1) / math.sqrt(q.shape[-1])
    if mask is None:
        return torch.softmax(scores, -1)
    return torch.softmax(scores.masked_fill(~mask, torch.finfo(scores.dtype).min), -1).masked_fill(~mask, 0.0)


@exercise.wrong("Each head has a distribution of its own: split into heads first, softmax afterwards.")
class OneDistributionForAll(MultiHeadAttention):
    def _weigh(self, q, k, mask):
        weights = super()._weigh(self._merge(q).unsqueeze(1), self._merge(k).unsqueeze(1), mask)
        return weights.expand(-1, self.num_heads, -1, -1)


@exercise.wrong("Head h owns a block of neighbouring features: split D into (num_heads, dh), not (dh, num_heads).")
class FeaturesDealtOut(MultiHeadAttention):
    def _split(self, x):
        return x.unflatten(-1, (-1, self.num_heads)).movedim(-1, 1)

    def _merge(self, x):
        return x.movedim(1, -1).flatten(2)


@exercise.wrong("W_o is missing: the heads' results, side by side, go through one more projection.")
class WithoutOutputProjection(MultiHeadAttention):
    def forward(self, q, k, v, mask=None):
        weights = self._weigh(self._split(self.W_q(q)), self._split(self.W_k(k)), mask)
        self.attention_weights = weights.detach()
        return self._merge(self.dropout(weights) @ self._split(self.W_v(v)))


@exercise.wrong("Values have a projection of their own, W_v; W_k is for the keys.")
class ValuesThroughTheKeysProjection(MultiHeadAttention):
    def forward(self, q, k, v, mask=None):
        weights = self._weigh(self._split(self.W_q(q)), self._split(self.W_k(k)), mask)
        self.attention_weights = weights.detach()
        return self.W_o(self._merge(self.dropout(weights) @ self._split(self.W_k(v))))


@exercise.wrong("Keys and values may differ from the queries: project k and v, not q three times.")
class SelfAttentionOnly(MultiHeadAttention):
    def forward(self, q, k, v, mask=None):
        return super().forward(q, q, q, mask)


@exercise.wrong("Values are their own argument: project v, not the keys once more.")
class ValuesTakenFromKeys(MultiHeadAttention):
    def forward(self, q, k, v, mask=None):
        return super().forward(q, k, k, mask)


@exercise.wrong("True means that the query may use the key: hide where the mask is False.")
class TrueHides(MultiHeadAttention):
    def _weigh(self, q, k, mask):
        return super()._weigh(q, k, None if mask is None else ~mask)


@exercise.wrong(
    "A mask (Lq, Lk) has a row per query, whatever the number of samples: do not read it as one row per sample."
)
class RowsReadAsSamples(MultiHeadAttention):
    def _weigh(self, q, k, mask):
        if mask is not None and mask.ndim == 2 and mask.shape[0] == q.shape[0]:
            mask = mask[:, None, :]
        return super()._weigh(q, k, mask)


@exercise.wrong("softmax of only -inf is nan: a query without any key must have weights 0.", caught_by="finite")
class NanWithoutKeys(MultiHeadAttention):
    def _weigh(self, q, k, mask):
        scores = q @ k.transpose(-2, -1) / math.sqrt(q.shape[-1])
        if mask is not None:
            scores = scores.masked_fill(~(mask.unsqueeze(1) if mask.ndim == 3 else mask), -float("inf"))
        return torch.softmax(scores, -1)


@exercise.wrong("A query without any key must have weights 0; equal fillers give it uniform ones.")
class UniformWithoutKeys(MultiHeadAttention):
    def _weigh(self, q, k, mask):
        scores = q @ k.transpose(-2, -1) / math.sqrt(q.shape[-1])
        if mask is not None:
            hidden = ~(mask.unsqueeze(1) if mask.ndim == 3 else mask)
            scores = scores.masked_fill(hidden, torch.finfo(scores.dtype).min)
        return torch.softmax(scores, -1)


@exercise.wrong(
    "nan_to_num mends the weights but, with an additive mask of -inf, not the gradient: keep the scores finite.",
    caught_by="gradients",
)
class NanRepairedAfterwards(MultiHeadAttention):
    def _weigh(self, q, k, mask):
        scores = q @ k.transpose(-2, -1) / math.sqrt(q.shape[-1])
        if mask is not None:
            mask = mask.unsqueeze(1) if mask.ndim == 3 else mask
            scores = scores + torch.zeros_like(mask, dtype=q.dtype).masked_fill(~mask, -float("inf"))
        return torch.softmax(scores, -1).nan_to_num(0.0)


@exercise.wrong("Masked after the softmax, weights no longer sum to 1: mask the scores.")
class MaskedAfterSoftmax(MultiHeadAttention):
    def _weigh(self, q, k, mask):
        weights = super()._weigh(q, k, None)
        return weights if mask is None else weights * (mask.unsqueeze(1) if mask.ndim == 3 else mask)


@exercise.wrong(
    "Store the weights detached: kept for a plot, they would keep the whole graph alive.", caught_by="gradients"
)
class WeightsKeepTheGraph(MultiHeadAttention):
    def forward(self, q, k, v, mask=None):
        result = super().forward(q, k, v, mask)
        self.attention_weights = self._weigh(self._split(self.W_q(q)), self._split(self.W_k(k)), mask)
        return result


@exercise.wrong("Store the weights before dropout: a picture needs the real ones, which sum to 1.")
class WeightsStoredAfterDropout(MultiHeadAttention):
    def forward(self, q, k, v, mask=None):
        weights = self.dropout(self._weigh(self._split(self.W_q(q)), self._split(self.W_k(k)), mask))
        self.attention_weights = weights.detach()
        return self.W_o(self._merge(weights @ self._split(self.W_v(v))))


@exercise.wrong("Store the weights of every head, (B, num_heads, Lq, Lk), not their average.", caught_by="shape")
class WeightsAveraged(MultiHeadAttention):
    def forward(self, q, k, v, mask=None):
        result = super().forward(q, k, v, mask)
        self.attention_weights = self.attention_weights.mean(1)
        return result


@exercise.wrong("Dropout acts on the attention weights, which drops whole keys, not on the result.")
class DropoutOnTheResult(MultiHeadAttention):
    def forward(self, q, k, v, mask=None):
        weights = self._weigh(self._split(self.W_q(q)), self._split(self.W_k(k)), mask)
        self.attention_weights = weights.detach()
        return self.dropout(self.W_o(self._merge(weights @ self._split(self.W_v(v)))))


@exercise.wrong("The argument `dropout` is not used: put nn.Dropout(dropout) on the weights.")
class NoDropout(MultiHeadAttention):
    def __init__(self, d_model, num_heads, bias=False, dropout=0.0):
        super().__init__(d_model, num_heads, bias)


@exercise.wrong("Dropout must stop in eval mode: use nn.Dropout, or pass training=self.training.")
class DropoutInEvalMode(MultiHeadAttention):
    def forward(self, q, k, v, mask=None):
        weights = self._weigh(self._split(self.W_q(q)), self._split(self.W_k(k)), mask)
        self.attention_weights = weights.detach()
        return self.W_o(self._merge(F.dropout(weights, self.dropout.p) @ self._split(self.W_v(v))))


@exercise.wrong("Nothing is dropped by default: the default of `dropout` is 0.")
class DropsByDefault(MultiHeadAttention):
    def __init__(self, d_model, num_heads, bias=False, dropout=0.1):
        super().__init__(d_model, num_heads, bias, dropout)


@exercise.wrong(
    "`bias` is off by default and holds for all four projections: pass it on to each nn.Linear.", caught_by="runs"
)
class BiasAlways(MultiHeadAttention):
    def __init__(self, d_model, num_heads, bias=False, dropout=0.0):
        super().__init__(d_model, num_heads, bias=True, dropout=dropout)


@exercise.wrong("When d_model is not a multiple of num_heads, raise ValueError.", caught_by="errors")
class AnyNumberOfHeads(MultiHeadAttention):
    def __init__(self, d_model, num_heads, bias=False, dropout=0.0):
        super().__init__(d_model, 1, bias, dropout)
        self.num_heads = num_heads


@exercise.wrong(
    "A loop over the heads does more operations the more heads there are: with an axis for them, one product does all.",
    caught_by="growth",
)
class HeadByHead(MultiHeadAttention):
    def forward(self, q, k, v, mask=None):
        parts = [self._split(layer(x)).unbind(1) for layer, x in ((self.W_q, q), (self.W_k, k), (self.W_v, v))]
        weights, results = [], []
        for queries, keys, values in zip(*parts, strict=True):
            weights.append(self._weigh(queries.unsqueeze(1), keys.unsqueeze(1), mask).squeeze(1))
            results.append(self.dropout(weights[-1]) @ values)
        self.attention_weights = torch.stack(weights, 1).detach()
        return self.W_o(torch.cat(results, -1))


@exercise.wrong("A loop over the samples: every operation here works on the whole batch.", caught_by="growth")
class SampleBySample(MultiHeadAttention):
    def forward(self, q, k, v, mask=None):
        kept, results = [], []
        for i in range(len(q)):
            own = mask[i] if mask is not None and mask.ndim == 3 else mask
            results.append(super().forward(q[i : i + 1], k[i : i + 1], v[i : i + 1], own))
            kept.append(self.attention_weights)
        self.attention_weights = torch.cat(kept)
        return torch.cat(results)


@exercise.right("einsum on split weight axes")
class ByEinsum(MultiHeadAttention):
    def forward(self, q, k, v, mask=None):
        q, k, v = (
            layer(x).unflatten(-1, (self.num_heads, -1)) for layer, x in ((self.W_q, q), (self.W_k, k), (self.W_v, v))
        )
        scores = torch.einsum("bihd,bjhd->bhij", q, k) / q.shape[-1] ** 0.5
        if mask is not None:
            mask = mask[:, None] if mask.dim() == 3 else mask[None, None]
            scores = torch.where(mask, scores, torch.finfo(scores.dtype).min)
        weights = scores.softmax(-1) if mask is None else scores.softmax(-1) * mask
        self.attention_weights = weights.detach().clone()
        return self.W_o(torch.einsum("bhij,bjhd->bihd", self.dropout(weights), v).flatten(-2))


@exercise.right("heads folded into the batch, bmm")
class Folded(nn.Module):
    def __init__(self, d_model, num_heads, bias=False, dropout=0.0):
        super().__init__()
        if d_model % num_heads != 0:
            raise ValueError("d_model must be a multiple of num_heads")
        self.h = num_heads
        for name in ("W_q", "W_k", "W_v", "W_o"):
            setattr(self, name, nn.Linear(d_model, d_model, bias=bias))
        self.drop = nn.Dropout(dropout)

    def fold(self, x):
        batch, length, width = x.shape
        return x.reshape(batch, length, self.h, width // self.h).permute(0, 2, 1, 3).reshape(batch * self.h, length, -1)

    def forward(self, q, k, v, mask=None):
        batch = q.shape[0]
        queries, keys, values = self.fold(self.W_q(q)), self.fold(self.W_k(k)), self.fold(self.W_v(v))
        scores = torch.bmm(queries, keys.transpose(1, 2)) / math.sqrt(queries.shape[-1])
        if mask is not None:
            mask = mask.repeat_interleave(self.h, 0) if mask.ndim == 3 else mask
            weights = scores.masked_fill(~mask, -math.inf).softmax(-1)
            weights = torch.where(mask.any(-1, keepdim=True), weights, 0.0)
        else:
            weights = scores.softmax(-1)
        self.attention_weights = weights.unflatten(0, (batch, self.h)).detach()
        out = torch.bmm(self.drop(weights), values).reshape(batch, self.h, q.shape[1], -1)
        return self.W_o(out.permute(0, 2, 1, 3).reshape(batch, q.shape[1], -1))


@exercise.right("weights found by attending to the identity")
class WeightsByIdentity(MultiHeadAttention):
    def forward(self, q, k, v, mask=None):
        queries, keys = self._split(self.W_q(q)), self._split(self.W_k(k))
        each = torch.eye(k.shape[1], dtype=q.dtype, device=q.device).expand(*keys.shape[:2], -1, -1)
        mask = mask[:, None] if mask is not None and mask.ndim == 3 else mask
        weights = scaled_dot_product_attention(queries, keys, each, mask)
        self.attention_weights = weights.detach()
        return self.W_o(self._merge(self.dropout(weights) @ self._split(self.W_v(v))))
