"""A block of the transformer's encoder."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from grader import Case, Cost, Exercise
from reference.attention.multi_head_attention import MultiHeadAttention
from reference.transformer import FORBID
from reference.transformer.add_norm import AddNorm
from reference.transformer.position_wise_ffn import PositionWiseFFN


class EncoderBlock(nn.Module):
    """Self-attention, then the position-wise network, each followed by AddNorm (post-norm).

    With x coming in: y = addnorm1(x, attention(x)); the result is addnorm2(y, ffn(y)).

    Args:
        d_model: width D of the tokens' vectors.
        num_heads: heads of the attention; D is a multiple of it.
        d_ff: width inside the position-wise network.
        dropout: acts on the attention weights and inside both AddNorms, in train mode. Graded only by dropout 0 and
            eval mode being deterministic, by two calls in train mode being different, and by dropout 1 leaving
            addnorm2.ln(addnorm1.ln(x)).

    State:
        attention.W_q.weight, attention.W_k.weight, attention.W_v.weight, attention.W_o.weight `(D, D)`, no biases;
        addnorm1.ln.weight, addnorm1.ln.bias, addnorm2.ln.weight, addnorm2.ln.bias `(D,)`;
        ffn.dense1.weight `(d_ff, D)`, ffn.dense1.bias `(d_ff,)`, ffn.dense2.weight `(D, d_ff)`, ffn.dense2.bias `(D,)`.
        Your MultiHeadAttention, AddNorm and PositionWiseFFN have just these parts.

    Raises:
        ValueError: d_model is not a multiple of num_heads.

    Example:
        >>> block = EncoderBlock(4, 2, 3)
        >>> _ = nn.init.zeros_(block.attention.W_o.weight), nn.init.zeros_(block.ffn.dense2.weight)
        >>> _ = nn.init.zeros_(block.ffn.dense2.bias)
        >>> block(torch.tensor([[[1.0, 1.0, 3.0, 3.0]]])).round(decimals=3).tolist()  # two LayerNorms remain
        [[[-1.0, -1.0, 1.0, 1.0]]]
    """

    def __init__(self, d_model: int, num_heads: int, d_ff: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.attention = MultiHeadAttention(d_model, num_heads, dropout=dropout)
        self.addnorm1 = AddNorm(d_model, dropout)
        self.ffn = PositionWiseFFN(d_model, d_ff)
        self.addnorm2 = AddNorm(d_model, dropout)

    def forward(self, x: Tensor, valid_lens: Tensor | None = None) -> Tensor:
        """Let the tokens of each sequence look at one another.

        Args:
            x: tokens' vectors `(B, T, D)`.
            valid_lens: int64 `(B,)`, the number of leading tokens of each sequence that are real; the others are
                padding and hidden from every query as keys. More than T acts as T. With 0 the attention contributes
                nothing. None: all tokens are real.

        Returns:
            Tensor `(B, T, D)`. Rows at padding are computed like any others: they look at the real tokens. What
            stands in the padding, however large, reaches no row of a real token.
        """
        y = self.addnorm1(x, self._attend(x, self._mask(x, valid_lens)))
        return self.addnorm2(y, self.ffn(y))

    def _mask(self, x: Tensor, valid_lens: Tensor | None) -> Tensor | None:
        """Return which keys may be used, `(B, 1, T)`."""
        if valid_lens is None:
            return None
        return torch.arange(x.shape[1], device=x.device) < valid_lens[:, None, None]

    def _attend(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """Mix the tokens."""
        return self.attention(x, x, x, mask)


exercise = Exercise(
    EncoderBlock,
    points=8,
    gradients=("x", "parameters"),
    cost=Cost(ops=70),
    forbid=FORBID,
    uses=("multi_head_attention", "add_norm", "position_wise_ffn"),
    hints=(
        "Two sublayers, and after each one an AddNorm of its own. Which tensor is the second one's shortcut?",
        "MultiHeadAttention takes a mask (B, 1, T), True where a key may be used: compare arange(T) with valid_lens.",
        "mask = None if valid_lens is None else torch.arange(T, device=x.device) < valid_lens[:, None, None]; y "
        "= self.addnorm1(x, self.attention(x, x, x, mask)); return self.addnorm2(y, self.ffn(y)).",
    ),
    source="D2L attention-mechanisms-and-transformers/transformer (encoder); Vaswani et al. 2017",
)


def own_attention(queries, keys, attention, num_heads, lens=None, ahead=None, p=0.0):
    """Attend with torch's own multi-head attention, to the real keys only: sample by sample where lengths differ."""
    numbers = [keys.shape[1]] if lens is None else [max(0, min(int(n), keys.shape[1])) for n in lens]
    if len(set(numbers)) > 1:
        pairs = zip(queries.split(1), keys.split(1), lens.split(1), strict=True)
        return torch.cat([own_attention(q, k, attention, num_heads, n, ahead, p) for q, k, n in pairs])
    if numbers[0] == 0:
        return torch.zeros_like(queries)
    real = keys[:, : numbers[0]].transpose(0, 1)
    weights = torch.cat([attention.W_q.weight, attention.W_k.weight, attention.W_v.weight])
    out, _ = F.multi_head_attention_forward(
        queries.transpose(0, 1), real, real, queries.shape[2], num_heads, weights, None, None, None, False, p,
        attention.W_o.weight, None, training=p > 0, attn_mask=ahead, need_weights=False,
    )  # fmt: skip
    return out.transpose(0, 1)


class Parts(nn.Module):
    """Parameters under the names of the contract, and the arithmetic around attention written out."""

    def __init__(self, d_model, num_heads, d_ff, dropout, attentions):
        super().__init__()
        if d_model % num_heads:
            raise ValueError
        self.num_heads, self.p = num_heads, dropout
        for name in attentions:
            projections = {f"W_{letter}": nn.Linear(d_model, d_model, bias=False) for letter in "qkvo"}
            self.add_module(name, nn.ModuleDict(projections))
        for number in range(len(attentions) + 1):
            self.add_module(f"addnorm{number + 1}", nn.ModuleDict({"ln": nn.LayerNorm(d_model)}))
        self.ffn = nn.ModuleDict({"dense1": nn.Linear(d_model, d_ff), "dense2": nn.Linear(d_ff, d_model)})

    @property
    def rate(self):
        return self.p if self.training else 0.0

    def add_norm(self, norm, x, y):
        total = x + F.dropout(y, self.rate)
        return F.layer_norm(total, total.shape[-1:], norm.ln.weight, norm.ln.bias, 1e-5)

    def network(self, y):
        return self.ffn.dense2(self.ffn.dense1(y).clamp(min=0))


@exercise.truth
class TrueEncoderBlock(Parts):
    def __init__(self, d_model, num_heads, d_ff, dropout=0.0):
        super().__init__(d_model, num_heads, d_ff, dropout, ("attention",))

    def forward(self, x, valid_lens=None):
        y = own_attention(x, x, self.attention, self.num_heads, valid_lens, p=self.rate)
        y = self.add_norm(self.addnorm1, x, y)
        return self.add_norm(self.addnorm2, y, self.network(y))


def two_calls(module, x, valid_lens):
    first, second = module(x, valid_lens), module(x, valid_lens)
    return {
        "two calls in train mode differ": not torch.equal(first, second),
        "shape": list(first.shape),
        "finite": bool(torch.isfinite(first).all()),
    }


def rows_of_real_tokens(module, x, valid_lens):
    out = module(x, valid_lens)
    return [rows[:number] for rows, number in zip(out, valid_lens.tolist(), strict=True)]


def on_another_device(module, x, valid_lens, sizes):
    moved = type(module)(*sizes).to("meta")
    try:
        moved(x.to("meta"), valid_lens.to("meta"))
    except (RuntimeError, NotImplementedError) as error:
        return {"a tensor is made on another device than x's": "device" in str(error)}
    return {"a tensor is made on another device than x's": False}


@exercise.cases
def cases(draw):
    lens = torch.tensor
    yield Case("no padding", draw.normal(2, 5, 6), init=(6, 2, 7))
    yield Case("3 and 5 real tokens of 5", draw.normal(2, 5, 8), lens([3, 5]), init=(8, 4, 6))
    yield Case("0 to 4 real tokens", draw.normal(5, 4, 6), lens([0, 1, 2, 3, 4]), init=(6, 3, 5), edge=True)
    yield Case("as many sequences as tokens", draw.normal(4, 4, 6), lens([1, 4, 2, 3]), init=(6, 2, 8))
    yield Case("lengths beyond the end", draw.normal(3, 4, 6), lens([9, 4, 2]), init=(6, 2, 4), edge=True)
    yield Case("one head", draw.normal(2, 3, 5), lens([2, 3]), init=(5, 1, 4))
    yield Case("a single token", draw.normal(3, 1, 6), init=(6, 2, 5), edge=True)
    x = draw.normal(2, 5, 6)
    x[0, 3:], x[1, 4:] = 1e30, -1e30
    yield Case("1e30 in the padding", x, lens([3, 4]), init=(6, 2, 5), probe=rows_of_real_tokens, edge=True,
               layouts=False)  # fmt: skip
    yield Case("dropout 0.5 in eval mode", draw.normal(2, 4, 6), lens([4, 3]), init=(6, 2, 5, 0.5))
    yield Case("the default dropout in train mode", draw.normal(2, 4, 6), lens([2, 4]), init=(6, 3, 5), train=True)
    yield Case("dropout 0.5 in train mode", draw.normal(2, 4, 6), lens([4, 3]), init=(6, 2, 8, 0.5), probe=two_calls,
               train=True, draws=True, grad=False)  # fmt: skip
    yield Case("dropout 1 in train mode leaves two LayerNorms", draw.normal(2, 4, 6), lens([4, 3]),
               init=(6, 2, 8, 1.0), train=True, draws=True, grad=False)  # fmt: skip
    lengths = draw.integers(0, 33, 3)
    yield Case("32 tokens", draw.normal(3, 32, 12), lengths, init=(12, 3, 10), cost=True)
    yield Case("32 tokens, no padding", draw.normal(2, 32, 12), init=(12, 3, 10), cost=True, hidden=True)
    yield Case("tiny vectors", 1e-3 * draw.normal(3, 4, 6), lens([2, 0, 4]), init=(6, 2, 5), hidden=True)
    yield Case("an offset of 20", 20 + draw.normal(2, 3, 8), lens([1, 3]), init=(8, 2, 5), hidden=True)
    sharp = {"attention.W_q.weight": 30 * draw.normal(6, 6), "attention.W_k.weight": 30 * draw.normal(6, 6)}
    yield Case("scores of size 1e4", draw.normal(3, 5, 6), lens([5, 2, 4]), init=(6, 2, 5), state=sharp, hidden=True,
               grad=False)  # fmt: skip
    yield Case("a transposed view", draw.normal(5, 2, 6).transpose(0, 1), lens([4, 2]), init=(6, 6, 3), hidden=True)
    yield Case("on another device", draw.normal(2, 5, 6), lens([4, 2]), (6, 2, 5), init=(6, 2, 5),
               probe=on_another_device, draws=True, grad=False, double=False, edge=True)  # fmt: skip
    yield Case("10 features for 4 heads", draw.normal(1, 2, 10), init=(10, 4, 3), raises=ValueError)


@exercise.growth("tokens", ops=0.0)
def more_tokens(draw, size):
    return Case(f"{size} tokens", draw.normal(2, size, 6), torch.tensor([size, size // 2]), init=(6, 2, 5))


@exercise.growth("sequences", sizes=(8, 16), ops=0.0, peak=1.0)
def more_sequences(draw, size):
    return Case(f"{size} sequences", draw.normal(size, 5, 6), draw.integers(0, 6, size), init=(6, 2, 5))


@exercise.growth("heads", sizes=(2, 16), ops=0.0)
def more_heads(draw, size):
    return Case(f"{size} heads", draw.normal(2, 9, 32), torch.tensor([9, 4]), init=(32, size, 5))


@exercise.wrong("Normalise after adding: this block is post-norm, addnorm1(x, attention(x)).")
class PreNorm(EncoderBlock):
    def forward(self, x, valid_lens=None):
        x = x + self._attend(self.addnorm1.ln(x), self._mask(x, valid_lens))
        return x + self.ffn(self.addnorm2.ln(x))


@exercise.wrong("Two AddNorms, two sets of parameters: the second one is addnorm2.")
class OneAddNorm(EncoderBlock):
    def forward(self, x, valid_lens=None):
        y = self.addnorm1(x, self._attend(x, self._mask(x, valid_lens)))
        return self.addnorm1(y, self.ffn(y))


@exercise.wrong("The second shortcut starts at y, the first sublayer's result, not at x.")
class SecondResidualFromX(EncoderBlock):
    def forward(self, x, valid_lens=None):
        y = self.addnorm1(x, self._attend(x, self._mask(x, valid_lens)))
        return self.addnorm2(x, self.ffn(y))


@exercise.wrong("valid_lens hides keys: the mask belongs on the key axis, (B, 1, T), not on the query axis.")
class HidesQueries(EncoderBlock):
    def _mask(self, x, valid_lens):
        mask = super()._mask(x, valid_lens)
        return None if mask is None else mask.transpose(1, 2).expand(-1, -1, x.shape[1])


@exercise.wrong("An encoder looks both ways: no causal mask here.")
class Causal(EncoderBlock):
    def _mask(self, x, valid_lens):
        causal = torch.ones(x.shape[1], x.shape[1], dtype=torch.bool, device=x.device).tril()
        mask = super()._mask(x, valid_lens)
        return causal if mask is None else mask & causal


@exercise.wrong("valid_lens is never used: padding must be hidden from the attention.")
class IgnoresTheLengths(EncoderBlock):
    def _mask(self, x, valid_lens):
        return None


@exercise.wrong("The mask says what may be used: True for the first valid_lens[b] keys, not for the padding.")
class InvertedMask(EncoderBlock):
    def _mask(self, x, valid_lens):
        mask = super()._mask(x, valid_lens)
        return None if mask is None else ~mask


@exercise.wrong("valid_lens counts tokens: keys t < valid_lens[b] are real, the key t = valid_lens[b] is padding.")
class OneKeyTooMany(EncoderBlock):
    def _mask(self, x, valid_lens):
        return super()._mask(x, None if valid_lens is None else valid_lens + 1)


@exercise.wrong("Each sequence has its own length: valid_lens[:, None, None] against the key axis, not (T, T) masks.")
class LengthsPerQuery(EncoderBlock):
    def _mask(self, x, valid_lens):
        if valid_lens is None or len(valid_lens) != x.shape[1]:
            return super()._mask(x, valid_lens)
        return torch.arange(x.shape[1], device=x.device) < valid_lens[:, None]


@exercise.wrong("One length for the whole batch: every sequence has its own.")
class LongestLengthForAll(EncoderBlock):
    def _mask(self, x, valid_lens):
        return super()._mask(x, None if valid_lens is None else valid_lens.amax().expand(len(x)))


@exercise.wrong("A sequence without real tokens gets nothing from the attention; its keys stay hidden.")
class AtLeastOneKey(EncoderBlock):
    def _mask(self, x, valid_lens):
        return super()._mask(x, None if valid_lens is None else valid_lens.clamp(min=1))


@exercise.wrong("Setting padding to zero does not hide it: a zero vector is still a key with a score.")
class ZeroesThePadding(EncoderBlock):
    def _attend(self, x, mask):
        if mask is not None:
            x = torch.where(mask.transpose(1, 2), x, 0.0)
        return self.attention(x, x, x)


@exercise.wrong("Rows at padding are computed like any others; do not blank the result.")
class BlanksTheResult(EncoderBlock):
    def forward(self, x, valid_lens=None):
        out = super().forward(x, valid_lens)
        mask = self._mask(x, valid_lens)
        return out if mask is None else torch.where(mask.transpose(1, 2), out, 0.0)


@exercise.wrong(
    "A finite filler such as -1e4 is no longer the smallest beside very negative scores, and an empty row "
    "becomes uniform."
)
class SmallFiller(EncoderBlock):
    def _attend(self, x, mask):
        q, k, v = (
            self.attention._split(layer(x)) for layer in (self.attention.W_q, self.attention.W_k, self.attention.W_v)
        )
        scores = q @ k.transpose(-2, -1) / math.sqrt(q.shape[-1])
        if mask is not None:
            scores = torch.where(mask[:, None], scores, -1e4)
        return self.attention.W_o(self.attention._merge(torch.softmax(scores, -1) @ v))


@exercise.wrong("A row of only -inf makes softmax 0 / 0: an empty row must give zeros, not nan.", caught_by="finite")
class NanForEmptyRows(EncoderBlock):
    def _attend(self, x, mask):
        q, k, v = (
            self.attention._split(layer(x)) for layer in (self.attention.W_q, self.attention.W_k, self.attention.W_v)
        )
        scores = q @ k.transpose(-2, -1) / math.sqrt(q.shape[-1])
        if mask is not None:
            scores = torch.where(mask[:, None], scores, -torch.inf)
        return self.attention.W_o(self.attention._merge(torch.softmax(scores, -1) @ v))


@exercise.wrong("The shortcut around the attention is missing: addnorm1 gets x and the attention's result.")
class NoFirstShortcut(EncoderBlock):
    def forward(self, x, valid_lens=None):
        y = self.addnorm1.ln(self._attend(x, self._mask(x, valid_lens)))
        return self.addnorm2(y, self.ffn(y))


@exercise.wrong("The position-wise network works on y, what addnorm1 returned, not on the attention's result.")
class FeedsTheAttention(EncoderBlock):
    def forward(self, x, valid_lens=None):
        mixed = self._attend(x, self._mask(x, valid_lens))
        return self.addnorm2(self.addnorm1(x, mixed), self.ffn(mixed))


@exercise.wrong("Attention first, the position-wise network second.")
class NetworkFirst(EncoderBlock):
    def forward(self, x, valid_lens=None):
        y = self.addnorm1(x, self.ffn(x))
        return self.addnorm2(y, self._attend(y, self._mask(y, valid_lens)))


@exercise.wrong("The projections of the attention have no bias in this block: bias=False.", caught_by="runs")
class WithBiases(EncoderBlock):
    def __init__(self, d_model, num_heads, d_ff, dropout=0.0):
        super().__init__(d_model, num_heads, d_ff, dropout)
        self.attention = MultiHeadAttention(d_model, num_heads, bias=True, dropout=dropout)


@exercise.wrong("AddNorm takes the shortcut first: its second argument is what dropout acts on.")
class SwapsTheShortcuts(EncoderBlock):
    def forward(self, x, valid_lens=None):
        y = self.addnorm1(self._attend(x, self._mask(x, valid_lens)), x)
        return self.addnorm2(self.ffn(y), y)


@exercise.wrong("The number of heads is ignored: pass it to MultiHeadAttention.")
class AlwaysOneHead(EncoderBlock):
    def __init__(self, d_model, num_heads, d_ff, dropout=0.0):
        super().__init__(d_model, num_heads, d_ff, dropout)
        self.attention.num_heads = 1


@exercise.wrong("The constructor's dropout reaches none of the parts.")
class ForgetsDropout(EncoderBlock):
    def __init__(self, d_model, num_heads, d_ff, dropout=0.0):
        super().__init__(d_model, num_heads, d_ff)


@exercise.wrong("Dropout rests in eval mode: nn.Dropout does it by itself, F.dropout needs training=self.training.")
class DropoutInEval(EncoderBlock):
    def __init__(self, d_model, num_heads, d_ff, dropout=0.0):
        super().__init__(d_model, num_heads, d_ff)
        self.p = dropout

    def forward(self, x, valid_lens=None):
        y = self.addnorm1(x, F.dropout(self._attend(x, self._mask(x, valid_lens)), self.p))
        return self.addnorm2(y, F.dropout(self.ffn(y), self.p))


@exercise.wrong("Raise ValueError when d_model is not a multiple of num_heads.", caught_by="errors")
class AnyNumberOfHeads(EncoderBlock):
    def __init__(self, d_model, num_heads, d_ff, dropout=0.0):
        super().__init__(d_model, math.gcd(d_model, num_heads), d_ff, dropout)


@exercise.wrong("The mask is made on the CPU: give arange device=x.device.")
class MaskOnTheCpu(EncoderBlock):
    def _mask(self, x, valid_lens):
        if valid_lens is None:
            return None
        places = torch.arange(x.shape[1], device="cpu").expand(len(x), 1, x.shape[1])
        return places < valid_lens[:, None, None]


@exercise.wrong("A Python loop over the sequences: one mask (B, 1, T) serves the whole batch.", caught_by="growth")
class LoopsOverSequences(EncoderBlock):
    def _attend(self, x, mask):
        if mask is None:
            return self.attention(x, x, x)
        return torch.cat([self.attention(x[[b]], x[[b]], x[[b]], mask[b]) for b in range(len(x))])


@exercise.wrong("A Python loop over the heads: MultiHeadAttention gives them an axis of their own.", caught_by="growth")
class LoopsOverHeads(EncoderBlock):
    def _attend(self, x, mask):
        attention = self.attention
        q, k, v = (attention._split(layer(x)) for layer in (attention.W_q, attention.W_k, attention.W_v))
        heads = range(attention.num_heads)
        weights = [attention._weigh(q[:, [h]], k[:, [h]], mask) @ v[:, [h]] for h in heads]
        return attention.W_o(attention._merge(torch.cat(weights, 1)))


@exercise.right("attention by einsum, with an additive bias for the padding")
class ByEinsum(EncoderBlock):
    def _attend(self, x, mask):
        a, heads = self.attention, self.attention.num_heads
        shape = (*x.shape[:2], heads, x.shape[2] // heads)
        q, k, v = (F.linear(x, layer.weight).view(shape) for layer in (a.W_q, a.W_k, a.W_v))
        scores = torch.einsum("bqhd,bkhd->bhqk", q, k) / shape[-1] ** 0.5
        if mask is not None:
            scores = torch.where(mask[:, None], scores, torch.finfo(x.dtype).min)
        weights = (scores - scores.detach().amax(-1, keepdim=True)).exp()
        if mask is not None:
            weights = weights * mask[:, None]
        weights = weights / weights.sum(-1, keepdim=True).clamp(min=torch.finfo(x.dtype).tiny)
        return F.linear(torch.einsum("bhqk,bkhd->bqhd", weights, v).reshape(x.shape), a.W_o.weight)


@exercise.right("LayerNorm and network written out")
class WrittenOut(EncoderBlock):
    def forward(self, x, valid_lens=None):
        if valid_lens is not None:
            places = torch.arange(x.shape[1], device=x.device).expand(len(x), 1, -1)
            mask = places.lt(valid_lens.view(-1, 1, 1)).expand(-1, x.shape[1], -1)
        else:
            mask = torch.ones(x.shape[1], x.shape[1], dtype=torch.bool, device=x.device)
        y = self.norm(self.addnorm1, x + self.addnorm1.dropout(self.attention(x, x, x, mask)))
        hidden = torch.addmm(self.ffn.dense1.bias, y.flatten(0, 1), self.ffn.dense1.weight.T).relu()
        z = torch.addmm(self.ffn.dense2.bias, hidden, self.ffn.dense2.weight.T).view(y.shape)
        return self.norm(self.addnorm2, y + self.addnorm2.dropout(z))

    def norm(self, part, total):
        variance, mean = torch.var_mean(total, -1, correction=0, keepdim=True)
        return (total - mean) * (variance + 1e-5).rsqrt() * part.ln.weight + part.ln.bias
