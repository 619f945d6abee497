"""A block of the transformer's decoder."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from grader import Case, Cost, Exercise
from reference.attention.multi_head_attention import MultiHeadAttention
from reference.transformer import FORBID
from reference.transformer.add_norm import AddNorm
from reference.transformer.encoder_block import Parts, own_attention
from reference.transformer.position_wise_ffn import PositionWiseFFN


class DecoderBlock(nn.Module):
    """Causal self-attention, attention to the encoder's memory, position-wise network: post-norm after each.

    With x coming in and all = cat(cache, x): y = addnorm1(x, attention1(x, all, all));
    z = addnorm2(y, attention2(y, memory, memory)); the result is addnorm3(z, ffn(z)).

    Args:
        d_model: width D of the tokens' vectors, the memory's too.
        num_heads: heads of both attentions; D is a multiple of it.
        d_ff: width inside the position-wise network.
        dropout: acts on the attention weights and inside the AddNorms, in train mode. Graded only by dropout 0 and
            eval mode being deterministic, by two calls in train mode being different, and by dropout 1 leaving
            addnorm3.ln(addnorm2.ln(addnorm1.ln(x))).

    State:
        attention1.W_q.weight, attention1.W_k.weight, attention1.W_v.weight, attention1.W_o.weight `(D, D)`, no biases,
        and the same four of attention2; addnorm1.ln.weight, addnorm1.ln.bias `(D,)`, and the same of addnorm2 and
        addnorm3; ffn.dense1.weight `(d_ff, D)`, ffn.dense1.bias `(d_ff,)`, ffn.dense2.weight
        `(D, d_ff)`, ffn.dense2.bias `(D,)`.

    Raises:
        ValueError: d_model is not a multiple of num_heads.

    Example:
        >>> block = DecoderBlock(4, 2, 3)
        >>> x, memory = torch.randn(1, 3, 4), torch.randn(1, 5, 4)
        >>> whole, cache = block(x, memory)
        >>> cache.shape
        torch.Size([1, 3, 4])
        >>> first, cache = block(x[:, :1], memory)  # the same, token by token
        >>> second, cache = block(x[:, 1:2], memory, cache=cache)
        >>> third, cache = block(x[:, 2:], memory, cache=cache)
        >>> torch.allclose(torch.cat([first, second, third], 1), whole, atol=1e-5)
        True
    """

    def __init__(self, d_model: int, num_heads: int, d_ff: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.attention1 = MultiHeadAttention(d_model, num_heads, dropout=dropout)
        self.addnorm1 = AddNorm(d_model, dropout)
        self.attention2 = MultiHeadAttention(d_model, num_heads, dropout=dropout)
        self.addnorm2 = AddNorm(d_model, dropout)
        self.ffn = PositionWiseFFN(d_model, d_ff)
        self.addnorm3 = AddNorm(d_model, dropout)

    def forward(
        self, x: Tensor, memory: Tensor, memory_lens: Tensor | None = None, cache: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Decode the tokens x, given what came before them.

        Args:
            x: the new tokens' vectors `(B, T, D)`.
            memory: the encoder's output `(B, S, D)`.
            memory_lens: int64 `(B,)`, how many leading rows of the memory are real; the others are hidden. More than S
                acts as S; with 0 the attention to the memory contributes nothing. None: all are real.
            cache: what this block was given for the T0 earlier tokens, `(B, T0, D)`; None if there are none.

        Returns:
            (out, new cache): out `(B, T, D)`, and this block's inputs so far, cat(cache, x), `(B, T0 + T, D)`; this
            may be x itself when there was no cache. In train and eval mode alike, a token attends to the cached
            tokens, to the new ones before it and to itself, never to later ones. The given cache is left as it is:
            others may go on from it. The number of operations does not depend on T.
        """
        seen = self._extend(cache, x)
        y = self.addnorm1(x, self.attention1(x, seen, seen, self._causal(x, seen)))
        z = self.addnorm2(y, self.attention2(y, memory, memory, self._real(memory, memory_lens)))
        return self.addnorm3(z, self.ffn(z)), seen

    def _extend(self, cache: Tensor | None, x: Tensor) -> Tensor:
        """Append the new inputs to the earlier ones."""
        return x if cache is None else torch.cat([cache, x], 1)

    def _causal(self, x: Tensor, seen: Tensor) -> Tensor:
        """Return which of all tokens so far each new one may use, `(T, T0 + T)`."""
        length, total = x.shape[1], seen.shape[1]
        return torch.ones(length, total, dtype=torch.bool, device=x.device).tril(total - length)

    def _real(self, memory: Tensor, lens: Tensor | None) -> Tensor | None:
        """Return which rows of the memory are real, `(B, 1, S)`."""
        return None if lens is None else torch.arange(memory.shape[1], device=memory.device) < lens[:, None, None]


exercise = Exercise(
    DecoderBlock,
    points=12,
    gradients=("x", "memory", "parameters"),
    may_alias=True,
    cost=Cost(ops=120),
    forbid=FORBID,
    uses=("multi_head_attention", "add_norm", "position_wise_ffn"),
    hints=(
        "Three sublayers with an AddNorm each. What are queries, keys and values of the first, and of the second?",
        "Keys and values of attention1 are seen = cat(cache, x), or x without a cache, and seen is the new "
        "cache. With T new and T0 cached tokens, sketch the mask (T, T0 + T): its last row is all True, in eval "
        "mode as well.",
        "mask = torch.ones(T, T0 + T, dtype=torch.bool, device=x.device).tril(T0); y = addnorm1(x, attention1(x, "
        "seen, seen, mask)); z = addnorm2(y, attention2(y, memory, memory, real)), where real is None, or "
        "arange(S, device=x.device) < memory_lens[:, None, None].",
    ),
    source="D2L attention-mechanisms-and-transformers/transformer (decoder); Vaswani et al. 2017",
)


@exercise.truth
class TrueDecoderBlock(Parts):
    """Decode everything anew, from the first cached token on, and keep the rows of the new tokens."""

    def __init__(self, d_model, num_heads, d_ff, dropout=0.0):
        super().__init__(d_model, num_heads, d_ff, dropout, ("attention1", "attention2"))

    def forward(self, x, memory, memory_lens=None, cache=None):
        seen = x if cache is None else torch.cat([cache, x], 1)
        ahead = torch.ones(seen.shape[1], seen.shape[1], dtype=torch.bool, device=x.device).triu(1)
        mixed = own_attention(seen, seen, self.attention1, self.num_heads, ahead=ahead, p=self.rate)
        y = self.add_norm(self.addnorm1, seen, mixed)
        mixed = own_attention(y, memory, self.attention2, self.num_heads, memory_lens, p=self.rate)
        z = self.add_norm(self.addnorm2, y, mixed)
        return self.add_norm(self.addnorm3, z, self.network(z))[:, seen.shape[1] - x.shape[1] :], seen


@exercise.probe
def one_pass(module, x, memory, memory_lens=None, cache=None):
    out, new_cache = module(x, memory, memory_lens, cache)
    return {"out": out, "new cache": new_cache.detach()}


def piece_by_piece(module, x, memory, sizes, memory_lens=None):
    cache, parts = None, []
    for part in x.split(sizes, 1):
        out, cache = module(part, memory, memory_lens, cache)
        parts.append(out)
    return {"out": torch.cat(parts, 1), "last cache": cache.detach()}


def two_branches(module, x, memory, cache):
    outs = [module(part, memory, None, cache)[0] for part in (x, x.flip(1))]
    return {"one way": outs[0], "the other way": outs[1], "the cache they share": cache.detach().clone()}


def one_after_the_other(module, x, memory):
    return {"first": module(x, memory)[0], "second": module(x.flip(1), memory)[0], "third": module(x[:, :1], memory)[0]}


def two_calls(module, x, memory):
    first, second = module(x, memory)[0], module(x, memory)[0]
    return {
        "two calls in train mode differ": not torch.equal(first, second),
        "shape": list(first.shape),
        "finite": bool(torch.isfinite(first).all()),
    }


def plain_call(module, x, memory, memory_lens=None, cache=None):
    result = module(x, memory, memory_lens, cache)
    return {"is a tuple": isinstance(result, tuple), "length": len(result), "new cache": result[1].detach()}


def on_another_device(module, x, memory, memory_lens, cache, sizes):
    moved = type(module)(*sizes).to("meta")
    try:
        moved(x.to("meta"), memory.to("meta"), memory_lens.to("meta"), cache.to("meta"))
    except (RuntimeError, NotImplementedError) as error:
        return {"a tensor is made on another device than x's": "device" in str(error)}
    return {"a tensor is made on another device than x's": False}


@exercise.cases
def cases(draw):
    normal, lens = draw.normal, torch.tensor
    yield Case("4 tokens, 5 rows of memory", normal(2, 4, 6), normal(2, 5, 6), init=(6, 2, 7))
    yield Case("2 and 4 real rows of memory", normal(2, 3, 8), normal(2, 5, 8), lens([2, 4]), init=(8, 4, 5))
    yield Case("3 new tokens after 2 cached ones", normal(2, 3, 6), normal(2, 4, 6), lens([4, 3]), normal(2, 2, 6),
               init=(6, 3, 5))  # fmt: skip
    yield Case("one new token after 5 cached ones", normal(3, 1, 6), normal(3, 2, 6), cache=normal(3, 5, 6),
               init=(6, 2, 8))  # fmt: skip
    yield Case("a tuple of two", normal(2, 3, 6), normal(2, 4, 6), init=(6, 2, 5), probe=plain_call, grad=False)
    pieces = {"probe": piece_by_piece, "grad": False}  # a cache may or may not carry the graph
    yield Case("token by token", normal(2, 5, 6), normal(2, 3, 6), 1, lens([3, 2]), init=(6, 2, 5),
               **pieces)  # fmt: skip
    yield Case("2 tokens, then 3", normal(2, 5, 6), normal(2, 4, 6), [2, 3], init=(6, 3, 7), **pieces)
    yield Case("2 tokens, then 3, in train mode", normal(2, 5, 6), normal(2, 4, 6), [2, 3], init=(6, 2, 7), train=True,
               **pieces)  # fmt: skip
    yield Case("one sequence after the other", normal(2, 3, 6), normal(2, 4, 6), init=(6, 2, 5), grad=False,
               probe=one_after_the_other)  # fmt: skip
    yield Case("two branches from one cache", normal(2, 2, 6), normal(2, 3, 6), normal(2, 4, 6), init=(6, 2, 5),
               probe=two_branches)  # fmt: skip
    yield Case("4 tokens in train mode", normal(2, 4, 6), normal(2, 3, 6), init=(6, 2, 7), train=True)
    yield Case("0 to 3 real rows of memory", normal(4, 2, 6), normal(4, 3, 6), lens([0, 1, 3, 2]), init=(6, 2, 5),
               edge=True)  # fmt: skip
    yield Case("more rows than there are", normal(2, 3, 4), normal(2, 2, 4), lens([7, 1]), init=(4, 2, 5), edge=True)
    yield Case("a single token", normal(3, 1, 6), normal(3, 4, 6), init=(6, 2, 5), edge=True)
    yield Case("one row of memory", normal(2, 4, 6), normal(2, 1, 6), init=(6, 3, 5), edge=True)
    yield Case(
        "as many tokens as rows and sequences", normal(3, 3, 6), normal(3, 3, 6), lens([2, 3, 1]), init=(6, 3, 4)
    )
    memory = normal(2, 4, 6)
    memory[0, 2:], memory[1, 3:] = 1e30, -1e30
    yield Case("1e30 in the memory's padding", normal(2, 3, 6), memory, lens([2, 3]), init=(6, 2, 5), edge=True,
               layouts=False)  # fmt: skip
    yield Case("dropout 0.5 in eval mode", normal(2, 3, 6), normal(2, 4, 6), init=(6, 2, 5, 0.5))
    yield Case("dropout 0.5 in train mode", normal(2, 3, 6), normal(2, 4, 6), init=(6, 2, 8, 0.5), probe=two_calls,
               train=True, draws=True, grad=False)  # fmt: skip
    yield Case("dropout 1 in train mode leaves three LayerNorms", normal(2, 3, 6), normal(2, 4, 6), init=(6, 2, 8, 1.0),
               train=True, draws=True, grad=False)  # fmt: skip
    yield Case("32 tokens", normal(2, 32, 12), normal(2, 9, 12), lens([9, 4]), normal(2, 8, 12), init=(12, 3, 10),
               cost=True)  # fmt: skip
    yield Case("tiny vectors", 1e-3 * normal(2, 3, 6), 1e-3 * normal(2, 5, 6), lens([5, 2]), 1e-3 * normal(2, 2, 6),
               init=(6, 2, 7), hidden=True)  # fmt: skip
    yield Case("an offset of 20", 20 + normal(2, 4, 8), 20 + normal(2, 3, 8), cache=20 + normal(2, 1, 8),
               init=(8, 2, 5), hidden=True)  # fmt: skip
    sharp = {f"attention{n}.W_{letter}.weight": 30 * normal(6, 6) for n in (1, 2) for letter in "qk"}
    yield Case("scores of size 1e4", normal(3, 4, 6), normal(3, 5, 6), lens([5, 2, 4]), init=(6, 2, 5), state=sharp,
               hidden=True, grad=False)  # fmt: skip
    yield Case("1 token, then 4, then 2", normal(2, 7, 6), normal(2, 3, 6), [1, 4, 2], lens([0, 2]), init=(6, 1, 4),
               **pieces, hidden=True)  # fmt: skip
    yield Case("transposed views", normal(4, 2, 6).transpose(0, 1), normal(6, 3, 2).permute(2, 1, 0), init=(6, 6, 3),
               hidden=True)  # fmt: skip
    yield Case("on another device", normal(2, 3, 6), normal(2, 4, 6), lens([4, 2]), normal(2, 2, 6), (6, 2, 5),
               init=(6, 2, 5), probe=on_another_device, draws=True, grad=False, double=False, edge=True)  # fmt: skip
    yield Case("10 features for 4 heads", normal(1, 2, 10), normal(1, 3, 10), init=(10, 4, 3), raises=ValueError)


@exercise.growth("tokens", ops=0.0)
def more_tokens(draw, size):
    lens = torch.tensor([5, 2])
    return Case(f"{size} tokens", draw.normal(2, size, 6), draw.normal(2, 5, 6), lens, init=(6, 2, 5))


@exercise.growth("rows of memory", ops=0.0)
def more_memory(draw, size):
    lens = torch.tensor([size, size // 2])
    return Case(f"{size} rows of memory", draw.normal(2, 4, 6), draw.normal(2, size, 6), lens, init=(6, 2, 5))


@exercise.growth("sequences", sizes=(8, 16), ops=0.0)
def more_sequences(draw, size):
    lens = draw.integers(0, 5, size)
    return Case(f"{size} sequences", draw.normal(size, 3, 6), draw.normal(size, 4, 6), lens, init=(6, 2, 5))


@exercise.wrong("The causal mask stays on in eval mode: a prompt of several tokens must not see its own future.")
class MaskInTrainModeOnly(DecoderBlock):
    def _causal(self, x, seen):
        return super()._causal(x, seen) if self.training else None


@exercise.wrong("The causal mask stays on in train mode: there above all, or the next token is simply copied.")
class MaskInEvalModeOnly(DecoderBlock):
    def _causal(self, x, seen):
        return None if self.training else super()._causal(x, seen)


@exercise.wrong("The first new token may see all T0 cached tokens and itself: shift the diagonal by T0.")
class MaskWithoutOffset(DecoderBlock):
    def _causal(self, x, seen):
        return torch.ones(x.shape[1], seen.shape[1], dtype=torch.bool, device=x.device).tril()


@exercise.wrong("With a cache the new tokens are still in order among themselves: mask them as well.")
class NoMaskWithACache(DecoderBlock):
    def _causal(self, x, seen):
        return super()._causal(x, seen) if seen.shape[1] == x.shape[1] else None


@exercise.wrong("A token may look at itself: on the diagonal of the new tokens the mask is True.")
class HidesThePresent(DecoderBlock):
    def _causal(self, x, seen):
        length, total = x.shape[1], seen.shape[1]
        return torch.ones(length, total, dtype=torch.bool, device=x.device).tril(total - length - 1)


@exercise.wrong("The cache holds the block's inputs, of which keys and values are made; not its outputs.")
class CachesOutputs(DecoderBlock):
    def forward(self, x, memory, memory_lens=None, cache=None):
        out, _ = super().forward(x, memory, memory_lens, cache)
        return out, self._extend(cache, out)


@exercise.wrong("The new cache is the earlier inputs and the new ones, not the new ones alone.")
class CachesTheNewOnly(DecoderBlock):
    def forward(self, x, memory, memory_lens=None, cache=None):
        return super().forward(x, memory, memory_lens, cache)[0], x


@exercise.wrong("Keys and values of the self-attention come from cat(cache, x): the earlier tokens are ignored.")
class IgnoresTheCache(DecoderBlock):
    def forward(self, x, memory, memory_lens=None, cache=None):
        return super().forward(x, memory, memory_lens, None)[0], self._extend(cache, x)


@exercise.wrong("Earlier tokens come first: cat(cache, x), not cat(x, cache).")
class AppendsInFront(DecoderBlock):
    def _extend(self, cache, x):
        return x if cache is None else torch.cat([x, cache], 1)


@exercise.wrong("The queries of the second attention are y, what addnorm1 returned, not x.")
class CrossQueriesFromX(DecoderBlock):
    def forward(self, x, memory, memory_lens=None, cache=None):
        seen = self._extend(cache, x)
        y = self.addnorm1(x, self.attention1(x, seen, seen, self._causal(x, seen)))
        z = self.addnorm2(y, self.attention2(x, memory, memory, self._real(memory, memory_lens)))
        return self.addnorm3(z, self.ffn(z)), seen


@exercise.wrong("The source is complete: no causal mask over the memory.")
class CausalOverTheMemory(DecoderBlock):
    def _real(self, memory, lens):
        rows, length = memory.shape[1], self.length
        causal = torch.ones(length, rows, dtype=torch.bool, device=memory.device).tril()
        mask = super()._real(memory, lens)
        return causal if mask is None else mask & causal

    def _causal(self, x, seen):
        self.length = x.shape[1]
        return super()._causal(x, seen)


@exercise.wrong("The given cache was changed: beam search goes on from the same cache twice. Make a new tensor.",
                caught_by="inputs")  # fmt: skip
class ChangesTheCache(DecoderBlock):
    def _extend(self, cache, x):
        if cache is None:
            return x
        cache.data = torch.cat([cache.data, x.data], 1)
        return cache


@exercise.wrong("The block itself remembers what it saw: only the argument cache may carry the past.")
class RemembersTheCache(DecoderBlock):
    def _extend(self, cache, x):
        seen = super()._extend(getattr(self, "kept", None) if cache is None else cache, x)
        self.kept = seen.detach()
        return seen


@exercise.wrong("memory_lens is never used: the padding of the memory must be hidden.")
class ReadsThePadding(DecoderBlock):
    def _real(self, memory, lens):
        return None


@exercise.wrong(
    "A row of only -inf makes softmax 0 / 0: an empty memory contributes zeros, not nan.", caught_by="finite"
)
class NanForEmptyMemory(DecoderBlock):
    def forward(self, x, memory, memory_lens=None, cache=None):
        out, seen = super().forward(x, memory, memory_lens, cache)
        return (out if memory_lens is None else torch.where(memory_lens[:, None, None] > 0, out, torch.nan)), seen


@exercise.wrong("An empty memory contributes nothing: its rows stay hidden, none of them is used.")
class AtLeastOneRow(DecoderBlock):
    def _real(self, memory, lens):
        return super()._real(memory, None if lens is None else lens.clamp(min=1))


@exercise.wrong("memory_lens belongs to the memory: it hides nothing in the self-attention.")
class LengthsInSelfAttention(DecoderBlock):
    def forward(self, x, memory, memory_lens=None, cache=None):
        seen = self._extend(cache, x)
        mask = self._causal(x, seen)
        if memory_lens is not None:
            mask = mask & self._real(seen, memory_lens)
        y = self.addnorm1(x, self.attention1(x, seen, seen, mask))
        z = self.addnorm2(y, self.attention2(y, memory, memory, self._real(memory, memory_lens)))
        return self.addnorm3(z, self.ffn(z)), seen


@exercise.wrong("Normalise after adding: this block is post-norm.")
class PreNorm(DecoderBlock):
    def forward(self, x, memory, memory_lens=None, cache=None):
        seen = self._extend(cache, x)
        keys = self.addnorm1.ln(seen)
        y = x + self.attention1(self.addnorm1.ln(x), keys, keys, self._causal(x, seen))
        z = y + self.attention2(self.addnorm2.ln(y), memory, memory, self._real(memory, memory_lens))
        return z + self.ffn(self.addnorm3.ln(z)), seen


@exercise.wrong("Two attentions, two sets of weights: attention2 looks at the memory.")
class OneAttentionForBoth(DecoderBlock):
    def forward(self, x, memory, memory_lens=None, cache=None):
        seen = self._extend(cache, x)
        y = self.addnorm1(x, self.attention1(x, seen, seen, self._causal(x, seen)))
        z = self.addnorm2(y, self.attention1(y, memory, memory, self._real(memory, memory_lens)))
        return self.addnorm3(z, self.ffn(z)), seen


@exercise.wrong("First the tokens among themselves, then the memory: attention1 is the self-attention.")
class MemoryFirst(DecoderBlock):
    def forward(self, x, memory, memory_lens=None, cache=None):
        seen = self._extend(cache, x)
        y = self.addnorm1(x, self.attention2(x, memory, memory, self._real(memory, memory_lens)))
        z = self.addnorm2(y, self.attention1(y, seen, seen, self._causal(x, seen)))
        return self.addnorm3(z, self.ffn(z)), seen


@exercise.wrong("The shortcut of the network starts at z: addnorm3(z, ffn(z)).")
class LastResidualFromY(DecoderBlock):
    def forward(self, x, memory, memory_lens=None, cache=None):
        seen = self._extend(cache, x)
        y = self.addnorm1(x, self.attention1(x, seen, seen, self._causal(x, seen)))
        z = self.addnorm2(y, self.attention2(y, memory, memory, self._real(memory, memory_lens)))
        return self.addnorm3(y, self.ffn(z)), seen


@exercise.wrong("The shortcut of the second attention starts at y: addnorm2(y, ...), not x.")
class SecondResidualFromX(DecoderBlock):
    def forward(self, x, memory, memory_lens=None, cache=None):
        seen = self._extend(cache, x)
        y = self.addnorm1(x, self.attention1(x, seen, seen, self._causal(x, seen)))
        z = self.addnorm2(x, self.attention2(y, memory, memory, self._real(memory, memory_lens)))
        return self.addnorm3(z, self.ffn(z)), seen


@exercise.wrong("Three AddNorms, three sets of parameters.")
class OneAddNorm(DecoderBlock):
    def forward(self, x, memory, memory_lens=None, cache=None):
        seen = self._extend(cache, x)
        y = self.addnorm1(x, self.attention1(x, seen, seen, self._causal(x, seen)))
        z = self.addnorm1(y, self.attention2(y, memory, memory, self._real(memory, memory_lens)))
        return self.addnorm1(z, self.ffn(z)), seen


@exercise.wrong("The keys are cut off from the graph: gradients flow through the new tokens' keys and values, too.",
                caught_by="gradients")  # fmt: skip
class DetachedKeys(DecoderBlock):
    def _extend(self, cache, x):
        return super()._extend(cache, x).detach()


@exercise.wrong("Return both, the result and the new cache, in this order.", caught_by="runs")
class ReturnsTheResultAlone(DecoderBlock):
    def forward(self, x, memory, memory_lens=None, cache=None):
        return super().forward(x, memory, memory_lens, cache)[0]


@exercise.wrong("The constructor's dropout reaches none of the parts.")
class ForgetsDropout(DecoderBlock):
    def __init__(self, d_model, num_heads, d_ff, dropout=0.0):
        super().__init__(d_model, num_heads, d_ff)


@exercise.wrong("AddNorm takes the shortcut first: its second argument is what dropout acts on.")
class SwapsTheShortcuts(DecoderBlock):
    def forward(self, x, memory, memory_lens=None, cache=None):
        seen = self._extend(cache, x)
        y = self.addnorm1(self.attention1(x, seen, seen, self._causal(x, seen)), x)
        z = self.addnorm2(self.attention2(y, memory, memory, self._real(memory, memory_lens)), y)
        return self.addnorm3(self.ffn(z), z), seen


@exercise.wrong("The number of heads is ignored: pass it to both attentions.")
class AlwaysOneHead(DecoderBlock):
    def __init__(self, d_model, num_heads, d_ff, dropout=0.0):
        super().__init__(d_model, num_heads, d_ff, dropout)
        self.attention1.num_heads = self.attention2.num_heads = 1


@exercise.wrong("Raise ValueError when d_model is not a multiple of num_heads.", caught_by="errors")
class AnyNumberOfHeads(DecoderBlock):
    def __init__(self, d_model, num_heads, d_ff, dropout=0.0):
        super().__init__(d_model, math.gcd(d_model, num_heads), d_ff, dropout)


@exercise.wrong("The causal mask is made on the CPU: give it device=x.device.")
class MaskOnTheCpu(DecoderBlock):
    def _causal(self, x, seen):
        length, total = x.shape[1], seen.shape[1]
        return torch.ones(len(x), length, total, dtype=torch.bool, device="cpu").tril(total - length)


@exercise.wrong("A Python loop over the new tokens: one causal mask serves them all at once.", caught_by="growth")
class LoopsOverTokens(DecoderBlock):
    def forward(self, x, memory, memory_lens=None, cache=None):
        parts = []
        for part in x.split(1, 1):
            out, cache = DecoderBlock.forward(self, part, memory, memory_lens, cache)
            parts.append(out)
        return torch.cat(parts, 1), cache


@exercise.wrong("A Python loop over the sequences: masks (T, T0 + T) and (B, 1, S) serve the whole batch.",
                caught_by="growth")  # fmt: skip
class LoopsOverSequences(DecoderBlock):
    def forward(self, x, memory, memory_lens=None, cache=None):
        pairs = [
            DecoderBlock.forward(
                self, x[[b]], memory[[b]], *(None if part is None else part[[b]] for part in (memory_lens, cache))
            )
            for b in range(len(x))
        ]
        outs, caches = zip(*pairs, strict=True)
        return torch.cat(outs), torch.cat(caches)


@exercise.right("everything by einsum, masks as additive biases")
class ByEinsum(DecoderBlock):
    def forward(self, x, memory, memory_lens=None, cache=None):
        seen = torch.cat([x[:, :0] if cache is None else cache, x], dim=1)
        places = torch.arange(seen.shape[1], device=x.device)
        allowed = places <= places[seen.shape[1] - x.shape[1] :, None]
        y = self.addnorm1(x, self.mixed(self.attention1, x, seen, allowed))
        allowed = None
        if memory_lens is not None:
            rows = torch.arange(memory.shape[1], device=x.device)
            allowed = rows[None, None, None] < memory_lens[:, None, None, None]
        z = self.addnorm2(y, self.mixed(self.attention2, y, memory, allowed))
        return self.addnorm3(z, self.ffn(z)), seen

    def mixed(self, a, queries, keys, allowed):
        width = queries.shape[2] // a.num_heads
        q = a.W_q(queries).unflatten(2, (a.num_heads, width))
        k = a.W_k(keys).unflatten(2, (a.num_heads, width))
        v = a.W_v(keys).unflatten(2, (a.num_heads, width))
        scores = torch.einsum("bqhd,bkhd->bhqk", q, k) / math.sqrt(width)
        if allowed is not None:
            scores = torch.where(allowed, scores, torch.finfo(scores.dtype).min)
        weights = F.softmax(scores, -1)
        if allowed is not None:
            weights = weights * allowed
        return a.W_o(torch.einsum("bhqk,bkhd->bqhd", a.dropout(weights), v).flatten(2))


@exercise.right("decoding everything anew and keeping the new rows")
class DecodesAnew(DecoderBlock):
    def forward(self, x, memory, memory_lens=None, cache=None):
        if cache is None:
            return super().forward(x, memory, memory_lens)
        out, seen = super().forward(torch.cat((cache, x), 1), memory, memory_lens)
        return out[:, cache.shape[1] :], seen


@exercise.right("with a cache of its own graph")
class DetachedCache(DecoderBlock):
    def forward(self, x, memory, memory_lens=None, cache=None):
        out, seen = super().forward(x, memory, memory_lens, cache)
        return out, seen.detach().clone()
