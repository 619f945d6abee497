"""Attention scored by a small network."""

import torch
from torch import Tensor, nn

from grader import Case, Cost, Exercise
from reference.attention import FORBID
from reference.attention.masked_softmax import masked_softmax


class AdditiveAttention(nn.Module):
    """Score each pair of query and key by a network with one hidden layer: w_v^T tanh(W_q q + W_k k).

    The weights are the masked softmax of the scores over the keys, the result the average of the values with them.

    Args:
        query_size: width of the queries.
        key_size: width of the keys.
        num_hiddens: width h of the hidden layer.
        dropout: in train mode, drop attention weights with this probability (`nn.Dropout`).

    State:
        `W_q.weight` (h, query_size), `W_k.weight` (h, key_size), `w_v.weight` (1, h); no biases.

    After a call, `attention_weights`, shape (B, Q, K), holds the weights before dropout, detached.

    Example:
        >>> attention = AdditiveAttention(query_size=2, key_size=3, num_hiddens=4)
        >>> queries, keys, values = torch.zeros(1, 1, 2), torch.zeros(1, 3, 3), torch.tensor([[[1.0], [3.0], [8.0]]])
        >>> with torch.no_grad():
        ...     attention(queries, keys, values, torch.tensor([2])), attention.attention_weights
        (tensor([[[2.]]]), tensor([[[0.5000, 0.5000, 0.0000]]]))
    """

    def __init__(self, query_size: int, key_size: int, num_hiddens: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.W_q = nn.Linear(query_size, num_hiddens, bias=False)
        self.W_k = nn.Linear(key_size, num_hiddens, bias=False)
        self.w_v = nn.Linear(num_hiddens, 1, bias=False)
        self.dropout = nn.Dropout(dropout)

    def forward(self, queries: Tensor, keys: Tensor, values: Tensor, valid_lens: Tensor | None = None) -> Tensor:
        """Average the values for each query.

        Args:
            queries: shape (B, Q, query_size).
            keys: shape (B, K, key_size).
            values: shape (B, K, dv).
            valid_lens: how many leading keys count, None, (B,) or (B, Q), as for `masked_softmax`: a query whose length
                is 0 gets zeros.

        Returns:
            Tensor of shape (B, Q, dv). Queries and keys are projected once each, not once per pair, and no tensor made
            on the way is larger than (B, Q, K, h).
        """
        weights = masked_softmax(self._score(queries, keys), valid_lens)
        self.attention_weights = weights.detach()
        return self.dropout(weights) @ values

    def _score(self, queries: Tensor, keys: Tensor) -> Tensor:
        """Return the scores (B, Q, K)."""
        hidden = torch.tanh(self.W_q(queries)[:, :, None, :] + self.W_k(keys)[:, None, :, :])
        return self.w_v(hidden).squeeze(-1)


exercise = Exercise(
    AdditiveAttention,
    points=8,
    gradients=("queries", "keys", "values", "parameters"),
    attributes=("attention_weights",),
    cost=Cost(ops=32),
    forbid=FORBID,
    uses=("masked_softmax",),
    hints=(
        "W_q(queries) is (B, Q, h) and W_k(keys) is (B, K, h). Where must each get an axis of size 1 so that "
        "their sum is (B, Q, K, h)?",
        "tanh of W_q(queries)[:, :, None] + W_k(keys)[:, None], then w_v, then squeeze(-1): scores (B, Q, K).",
        "weights = masked_softmax(scores, valid_lens); self.attention_weights = weights.detach(); "
        "return self.dropout(weights) @ values.",
    ),
    source="D2L attention-mechanisms-and-transformers/attention-scoring-functions, bahdanau-attention",
)


@exercise.truth
class KeyAfterKey(nn.Module):
    def __init__(self, query_size, key_size, num_hiddens, dropout=0.0):
        super().__init__()
        self.W_q = nn.Linear(query_size, num_hiddens, bias=False)
        self.W_k = nn.Linear(key_size, num_hiddens, bias=False)
        self.w_v = nn.Linear(num_hiddens, 1, bias=False)
        self.p = dropout

    def forward(self, queries, keys, values, valid_lens=None):
        asked, scores = queries @ self.W_q.weight.T, []
        for j in range(keys.shape[1]):
            told = keys[:, j : j + 1] @ self.W_k.weight.T
            scores.append(torch.tanh(asked + told) @ self.w_v.weight[0])
        if valid_lens is None:
            parts = torch.stack(scores).softmax(0)
        else:
            lens = valid_lens if valid_lens.ndim == 2 else valid_lens[:, None]
            parts = torch.stack([s.exp() * (j < lens) for j, s in enumerate(scores)])  # |score| <= the sum of |w_v|
            parts = parts / torch.where(lens > 0, parts.sum(0), 1.0)
        weights = parts.movedim(0, -1)
        self.attention_weights = weights.detach()
        return nn.functional.dropout(weights, self.p, self.training) @ values


def dropout_on_one_key(module, queries, keys, values):
    dropped, again = module(queries, keys, values), module(queries, keys, values)
    weights = module.attention_weights
    module.eval()
    whole = module(queries, keys, values)
    module.train()
    kept = (dropped.abs() > 0).all(-1)
    share = kept.float().mean().item()
    factor = torch.where(kept.unsqueeze(-1), whole / 0.75, 0.0)
    return {
        "result in eval mode": whole,
        "weights before dropout": weights,
        "two calls in train mode agree": torch.equal(dropped, again),
        "each result is the whole one / (1 - p), or 0": torch.allclose(dropped, factor, rtol=1e-4, atol=1e-5),
        "about 3 of 4 weights are kept": abs(share - 0.75) < 0.08,
    }


@exercise.cases
def cases(draw):
    def inputs(batch, num_queries, num_keys, query_size, key_size, dv):
        return (
            draw.normal(batch, num_queries, query_size),
            draw.normal(batch, num_keys, key_size),
            draw.normal(batch, num_keys, dv),
        )

    yield Case("queries and keys of different width", *inputs(2, 3, 4, 5, 6, 2), init=(5, 6, 7))
    yield Case("one length per sample", *inputs(2, 3, 4, 3, 2, 5), torch.tensor([2, 4]), init=(3, 2, 6))
    yield Case("one length per query", *inputs(2, 3, 4, 2, 3, 5), torch.tensor([[1, 4, 2], [3, 2, 4]]), init=(2, 3, 4))
    yield Case("one query (a decoder step)", *inputs(3, 1, 5, 4, 2, 3), torch.tensor([5, 1, 3]), init=(4, 2, 6))
    yield Case("one sample", *inputs(1, 3, 4, 5, 2, 6), init=(5, 2, 3), edge=True)
    yield Case("one key", *inputs(2, 3, 1, 4, 2, 5), init=(4, 2, 3), edge=True)
    yield Case("a length of 0", *inputs(3, 2, 4, 3, 5, 2), torch.tensor([0, 6, 2]), init=(3, 5, 4), edge=True)
    yield Case("dropout in eval mode", *inputs(2, 3, 4, 3, 5, 2), init={
        "query_size": 3, "key_size": 5, "num_hiddens": 4, "dropout": 0.5})  # fmt: skip
    yield Case("train mode, dropout left at its default", *inputs(2, 3, 4, 3, 5, 2), init=(3, 5, 4), train=True)
    yield Case(
        "dropout in train mode", draw.normal(60, 20, 2), draw.normal(60, 1, 3), draw.normal(60, 1, 4),
        init=(2, 3, 2, 0.25), train=True, draws=True, probe=dropout_on_one_key, grad=False, double=False, layouts=False,
    )  # fmt: skip
    yield Case(
        "32 queries, 9 keys", *inputs(2, 32, 9, 6, 5, 4), draw.integers(1, 10, 2), init=(6, 5, 3),
        cost=Cost(maxel=2 * 32 * 9 * 3),
    )  # fmt: skip
    yield Case(
        "9 queries, 32 keys, wide hidden layer",
        *inputs(2, 9, 32, 2, 3, 4),
        init=(2, 3, 4),
        cost=Cost(maxel=2 * 9 * 32 * 4),
    )
    yield Case(
        "one hidden unit", *inputs(2, 3, 5, 4, 2, 6), torch.tensor([3, 5]), init=(4, 2, 1), edge=True, hidden=True
    )
    tiny = [1e-3 * t for t in inputs(2, 3, 4, 5, 6, 2)]
    yield Case("tiny inputs", *tiny, torch.tensor([2, 4]), init=(5, 6, 7), hidden=True)
    queries, keys, values = inputs(2, 3, 5, 4, 6, 2)
    yield Case("large inputs", 5 * queries, 5 * keys, values + 1e3, torch.tensor([4, 5]), init=(4, 6, 3), hidden=True)
    keys[0, 2:], values[0, 2:] = 1e30, -1e30
    yield Case(
        "1e30 beyond the length", queries, keys, values, torch.tensor([2, 5]), init=(4, 6, 3), edge=True, hidden=True
    )
    yield Case(
        "as many queries as samples", *inputs(3, 3, 4, 3, 2, 5), torch.tensor([1, 4, 2]), init=(3, 2, 6), hidden=True
    )
    yield Case("width 1 everywhere", *inputs(2, 3, 4, 1, 1, 1), init=(1, 1, 2), edge=True, hidden=True)


@exercise.growth("queries", ops=0.0, peak=1.0)
def more_queries(draw, size):
    return Case(f"{size} queries", draw.normal(2, size, 3), draw.normal(2, 5, 2), draw.normal(2, 5, 4), init=(3, 2, 4))


@exercise.growth("keys", ops=0.0, peak=1.0)
def more_keys(draw, size):
    return Case(f"{size} keys", draw.normal(2, 5, 3), draw.normal(2, size, 2), draw.normal(2, size, 4), init=(3, 2, 4))


@exercise.growth("samples", sizes=(4, 16), ops=0.0, peak=1.0)
def more_samples(draw, size):
    return Case(
        f"{size} samples", draw.normal(size, 5, 3), draw.normal(size, 6, 2), draw.normal(size, 6, 4), init=(3, 2, 4)
    )


@exercise.wrong(
    "The new axes are on the wrong sides: queries become (B, Q, 1, h) and keys (B, 1, K, h), so that their sum is "
    "(B, Q, K, h).",
    caught_by="runs",
)
class UnsqueezedTheOtherWay(AdditiveAttention):
    def _score(self, queries, keys):
        hidden = torch.tanh(self.W_q(queries)[:, None, :, :] + self.W_k(keys)[:, :, None, :])
        return self.w_v(hidden).squeeze(-1)


@exercise.wrong("Rows are queries: reshape does not swap axes, it only cuts the numbers into rows of another length.")
class ReshapedNotTransposed(AdditiveAttention):
    def _score(self, queries, keys):
        hidden = torch.tanh(self.W_q(queries)[:, None, :, :] + self.W_k(keys)[:, :, None, :])
        return self.w_v(hidden).reshape(queries.shape[0], queries.shape[1], keys.shape[1])


@exercise.wrong(
    "Joining each query with each key and multiplying all pairs is the same formula with Q * K projections: project "
    "the queries once and the keys once, then add.",
    caught_by="cost",
)
class PairsJoinedFirst(AdditiveAttention):
    def _score(self, queries, keys):
        shape = (*queries.shape[:2], keys.shape[1], -1)
        pairs = torch.cat([queries[:, :, None].expand(shape), keys[:, None].expand(shape)], -1)
        return self.w_v(torch.tanh(pairs @ torch.cat([self.W_q.weight, self.W_k.weight], 1).T)).squeeze(-1)


@exercise.wrong(
    "W_q is applied to a copy of the queries for every key: project first, then add axes and let + broadcast.",
    caught_by="cost",
)
class ProjectedPerPair(AdditiveAttention):
    def _score(self, queries, keys):
        shape = (*queries.shape[:2], keys.shape[1], -1)
        asked = self.W_q(queries[:, :, None].expand(shape).contiguous())
        return self.w_v(torch.tanh(asked + self.W_k(keys)[:, None])).squeeze(-1)


@exercise.wrong("Division by the square root of the width belongs to dot products; additive scores are not scaled.")
class ScaledLikeDotProducts(AdditiveAttention):
    def _score(self, queries, keys):
        return super()._score(queries, keys) / self.w_v.in_features**0.5


@exercise.wrong("tanh belongs to the hidden layer, before w_v: after it, it squeezes the scores into (-1, 1).")
class TanhAfterTheOutput(AdditiveAttention):
    def _score(self, queries, keys):
        return torch.tanh(self.w_v(self.W_q(queries)[:, :, None] + self.W_k(keys)[:, None]).squeeze(-1))


@exercise.wrong(
    "Without tanh the query adds the same number to all its scores, which softmax ignores: every query gets the same."
)
class WithoutTanh(AdditiveAttention):
    def _score(self, queries, keys):
        return self.w_v(self.W_q(queries)[:, :, None] + self.W_k(keys)[:, None]).squeeze(-1)


@exercise.wrong("The hidden layer uses tanh, not a sigmoid.")
class SigmoidForTanh(AdditiveAttention):
    def _score(self, queries, keys):
        hidden = torch.sigmoid(self.W_q(queries)[:, :, None] + self.W_k(keys)[:, None])
        return self.w_v(hidden).squeeze(-1)


@exercise.wrong("The hidden layer uses tanh, not relu.")
class ReluForTanh(AdditiveAttention):
    def _score(self, queries, keys):
        hidden = torch.relu(self.W_q(queries)[:, :, None] + self.W_k(keys)[:, None])
        return self.w_v(hidden).squeeze(-1)


@exercise.wrong("Query and key are added, then bent by tanh together: tanh of each alone leaves no interaction.")
class TanhOfEach(AdditiveAttention):
    def _score(self, queries, keys):
        hidden = torch.tanh(self.W_q(queries))[:, :, None] + torch.tanh(self.W_k(keys))[:, None]
        return self.w_v(hidden).squeeze(-1)


@exercise.wrong("Store the weights before dropout: a picture needs the real ones, which sum to 1.")
class WeightsStoredAfterDropout(AdditiveAttention):
    def forward(self, queries, keys, values, valid_lens=None):
        weights = self.dropout(masked_softmax(self._score(queries, keys), valid_lens))
        self.attention_weights = weights.detach()
        return weights @ values


@exercise.wrong(
    "Store the weights detached: kept for a plot, they would keep the whole graph alive.", caught_by="gradients"
)
class WeightsKeepTheGraph(AdditiveAttention):
    def forward(self, queries, keys, values, valid_lens=None):
        self.attention_weights = masked_softmax(self._score(queries, keys), valid_lens)
        return self.dropout(self.attention_weights) @ values


@exercise.wrong(
    "The result is computed from detached weights, so W_q, W_k and w_v learn nothing.", caught_by="gradients"
)
class WeightsDetachedBeforeUse(AdditiveAttention):
    def forward(self, queries, keys, values, valid_lens=None):
        self.attention_weights = masked_softmax(self._score(queries, keys), valid_lens).detach()
        return self.dropout(self.attention_weights) @ values


@exercise.wrong(
    "squeeze() without an axis also removes a batch of 1, a single query or a single key: say squeeze(-1).",
    caught_by="runs",
)
class SqueezedEverything(AdditiveAttention):
    def _score(self, queries, keys):
        hidden = torch.tanh(self.W_q(queries)[:, :, None] + self.W_k(keys)[:, None])
        return self.w_v(hidden).squeeze()


@exercise.wrong("valid_lens is not used: pass it to masked_softmax, or padding is averaged in.")
class LengthsIgnored(AdditiveAttention):
    def forward(self, queries, keys, values, valid_lens=None):
        return super().forward(queries, keys, values)


@exercise.wrong("The softmax runs over the keys, the last axis of the scores, not over the queries.")
class SoftmaxOverQueries(AdditiveAttention):
    def forward(self, queries, keys, values, valid_lens=None):
        weights = torch.softmax(self._score(queries, keys), 1)
        if valid_lens is not None:
            lens = valid_lens[:, None, None] if valid_lens.ndim == 1 else valid_lens[:, :, None]
            weights = weights * (torch.arange(keys.shape[1]) < lens)
        self.attention_weights = weights.detach()
        return self.dropout(weights) @ values


@exercise.wrong("A query whose length is 0 must get zeros: a filler of -1e6 gives it the plain average.")
class UniformWithoutKeys(AdditiveAttention):
    def forward(self, queries, keys, values, valid_lens=None):
        scores = self._score(queries, keys)
        if valid_lens is not None:
            lens = valid_lens[:, None, None] if valid_lens.ndim == 1 else valid_lens[:, :, None]
            scores = scores.masked_fill(torch.arange(keys.shape[1]) >= lens, -1e6)
        weights = torch.softmax(scores, -1)
        self.attention_weights = weights.detach()
        return self.dropout(weights) @ values


@exercise.wrong("Dropout acts on the attention weights, which drops whole keys, not on the result.")
class DropoutOnTheResult(AdditiveAttention):
    def forward(self, queries, keys, values, valid_lens=None):
        weights = masked_softmax(self._score(queries, keys), valid_lens)
        self.attention_weights = weights.detach()
        return self.dropout(weights @ values)


@exercise.wrong("Dropout must stop in eval mode: use nn.Dropout, or pass training=self.training.")
class DropoutInEvalMode(AdditiveAttention):
    def forward(self, queries, keys, values, valid_lens=None):
        weights = masked_softmax(self._score(queries, keys), valid_lens)
        self.attention_weights = weights.detach()
        return nn.functional.dropout(weights, self.dropout.p) @ values


@exercise.wrong("The argument `dropout` is not used: put nn.Dropout(dropout) on the weights.")
class NoDropout(AdditiveAttention):
    def __init__(self, query_size, key_size, num_hiddens, dropout=0.0):
        super().__init__(query_size, key_size, num_hiddens)


@exercise.wrong("Nothing is dropped by default: the default of `dropout` is 0.")
class DropsByDefault(AdditiveAttention):
    def __init__(self, query_size, key_size, num_hiddens, dropout=0.1):
        super().__init__(query_size, key_size, num_hiddens, dropout)


@exercise.wrong("The three layers have no biases: nn.Linear(..., bias=False).", caught_by="runs")
class WithBiases(AdditiveAttention):
    def __init__(self, query_size, key_size, num_hiddens, dropout=0.0):
        super().__init__(query_size, key_size, num_hiddens, dropout)
        self.W_q = nn.Linear(query_size, num_hiddens)
        self.W_k = nn.Linear(key_size, num_hiddens)


@exercise.wrong(
    "A loop over the queries: with an axis of size 1 in the right places, + pairs all of them.", caught_by="growth"
)
class QueryByQuery(AdditiveAttention):
    def _score(self, queries, keys):
        seen = self.W_k(keys)
        rows = [self.w_v(torch.tanh(q.unsqueeze(1) + seen)).squeeze(-1) for q in self.W_q(queries).unbind(1)]
        return torch.stack(rows, 1)


@exercise.wrong(
    "A loop over the keys: with an axis of size 1 in the right places, + pairs all of them.", caught_by="growth"
)
class KeyByKey(AdditiveAttention):
    def _score(self, queries, keys):
        asked = self.W_q(queries)
        columns = [self.w_v(torch.tanh(asked + k.unsqueeze(1))).squeeze(-1) for k in self.W_k(keys).unbind(1)]
        return torch.stack(columns, 2)


@exercise.right("einsum for w_v and the average")
class ByEinsum(AdditiveAttention):
    def forward(self, queries, keys, values, valid_lens=None):
        hidden = (self.W_q(queries).unsqueeze(2) + self.W_k(keys).unsqueeze(1)).tanh()
        scores = torch.einsum("bqkh,h->bqk", hidden, self.w_v.weight[0])
        weights = masked_softmax(scores, valid_lens)
        self.attention_weights = weights.clone().detach()
        return torch.einsum("bqk,bkd->bqd", self.dropout(weights), values)


@exercise.right("plain parameters under the same names, own softmax")
class ByHand(nn.Module):
    def __init__(self, query_size, key_size, num_hiddens, dropout=0.0):
        super().__init__()
        for name, width, out in (
            ("W_q", query_size, num_hiddens),
            ("W_k", key_size, num_hiddens),
            ("w_v", num_hiddens, 1),
        ):
            layer = nn.Module()
            layer.weight = nn.Parameter(torch.randn(out, width) / width**0.5)
            self.add_module(name, layer)
        self.p = dropout

    def forward(self, queries, keys, values, valid_lens=None):
        asked = queries.matmul(self.W_q.weight.mT)
        seen = keys.matmul(self.W_k.weight.mT)
        scores = (torch.tanh(asked[:, :, None] + seen[:, None]) * self.w_v.weight[0]).sum(-1)
        scores = scores - scores.detach().amax(-1, keepdim=True)
        if valid_lens is not None:
            lens = valid_lens[:, None, None] if valid_lens.ndim == 1 else valid_lens[:, :, None]
            allowed = torch.arange(keys.shape[1], device=keys.device) < lens
            parts = scores.masked_fill(~allowed, torch.finfo(scores.dtype).min).exp()
        else:
            parts = scores.exp()
        weights = parts / parts.sum(-1, keepdim=True).clamp_min(1e-30)
        self.attention_weights = weights.detach()
        if self.training and self.p:
            weights = weights * (torch.rand(weights.shape) >= self.p) / (1 - self.p)
        return weights @ values


@exercise.right("queries along the last axis but one")
class KeysFirst(AdditiveAttention):
    def _score(self, queries, keys):
        hidden = torch.tanh(self.W_k(keys)[:, :, None] + self.W_q(queries)[:, None])
        return (hidden @ self.w_v.weight.T)[..., 0].transpose(1, 2)
