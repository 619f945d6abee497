"""Queries from one sequence, keys and values from another."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from grader import Case, Cost, Exercise
from reference.attention import FORBID
from reference.attention.scaled_dot_product_attention import scaled_dot_product_attention


class CrossAttention(nn.Module):
    """Let each position of x ask a memory, such as the encoder's output, with several heads.

    Queries are W_q x, keys W_k memory and values W_v memory; head h works on the features h * dh ... (h + 1) * dh - 1
    of each, dh = d_model / num_heads; the heads' results, side by side, go through W_o. The memory is fully known, so
    nothing is causal here.

    Args:
        d_model: width D of x and of the result.
        num_heads: how many heads share it; a divisor of `d_model`.
        d_memory: width of the memory; `d_model` by default.

    State:
        `W_q.weight` (D, D), `W_k.weight` and `W_v.weight` (D, d_memory), `W_o.weight` (D, D); no biases.

    Raises:
        ValueError: `d_model` is not a multiple of `num_heads`; in forward: both or none of `memory` and `kv` are given.

    Example:
        >>> attention = CrossAttention(6, num_heads=2, d_memory=5)
        >>> x, memory = torch.randn(2, 3, 6), torch.randn(2, 4, 5)
        >>> attention(x, memory).shape
        torch.Size([2, 3, 6])
        >>> keys, values = attention.project_memory(memory)
        >>> keys.shape
        torch.Size([2, 2, 4, 3])
        >>> torch.equal(attention(x, kv=(keys, values)), attention(x, memory))
        True
    """

    def __init__(self, d_model: int, num_heads: int, d_memory: int | None = None) -> None:
        super().__init__()
        if d_model % num_heads:
            raise ValueError(f"{d_model} features cannot be shared equally by {num_heads} heads")
        d_memory = d_model if d_memory is None else d_memory
        self.num_heads = num_heads
        self.W_q = nn.Linear(d_model, d_model, bias=False)
        self.W_k = nn.Linear(d_memory, d_model, bias=False)
        self.W_v = nn.Linear(d_memory, d_model, bias=False)
        self.W_o = nn.Linear(d_model, d_model, bias=False)

    def project_memory(self, memory: Tensor) -> tuple[Tensor, Tensor]:
        """Project a memory once, for use in many calls.

        Args:
            memory: shape (B, S, d_memory).

        Returns:
            Keys and values, each of shape (B, num_heads, S, dh).
        """
        return self._split(self.W_k(memory)), self._split(self.W_v(memory))

    def forward(
        self,
        x: Tensor,
        memory: Tensor | None = None,
        *,
        kv: tuple[Tensor, Tensor] | None = None,
        memory_mask: Tensor | None = None,
    ) -> Tensor:
        """Attend from every position of x to the memory.

        Args:
            x: shape (B, T, D).
            memory: shape (B, S, d_memory), or None if `kv` is given.
            kv: what `project_memory` returned. With it, no operation touches W_k or W_v.
            memory_mask: boolean, shape (B, S): True = this position of the memory may be used, by all queries and heads
                of the sample. A sample without any gets zeros.

        Returns:
            Tensor of shape (B, T, D).
        """
        if (memory is None) == (kv is None):
            raise ValueError("give either memory or kv")
        keys, values = self.project_memory(memory) if kv is None else kv
        mask = None if memory_mask is None else memory_mask[:, None, None, :]
        heads = scaled_dot_product_attention(self._split(self.W_q(x)), keys, values, mask)
        return self.W_o(heads.transpose(1, 2).flatten(2))

    def _split(self, x: Tensor) -> Tensor:
        """Turn (B, L, D) into (B, H, L, dh)."""
        return x.unflatten(-1, (self.num_heads, -1)).transpose(1, 2)


exercise = Exercise(
    CrossAttention,
    points=8,
    gradients=("x", "memory", "parameters"),
    cost=Cost(ops=40),
    forbid=FORBID,
    uses=("scaled_dot_product_attention",),
    hints=(
        "Which of W_q, W_k and W_v see x, which see the memory, and what width must each accept?",
        "Split every projection into heads, (B, L, D) -> (B, H, L, dh), and call scaled_dot_product_attention; the "
        "mask (B, S) needs axes for heads and queries.",
        "keys, values = self.project_memory(memory) if kv is None else kv; mask = memory_mask[:, None, None, :]; "
        "W_o(heads.transpose(1, 2).flatten(2)).",
    ),
    source="D2L attention-mechanisms-and-transformers/transformer, bahdanau-attention",
)


@exercise.truth
class OneHeadAtATime(nn.Module):
    def __init__(self, d_model, num_heads, d_memory=None):
        super().__init__()
        self.W_q, self.W_o = nn.Linear(d_model, d_model, bias=False), nn.Linear(d_model, d_model, bias=False)
        self.W_k, self.W_v = (nn.Linear(d_memory or d_model, d_model, bias=False) for _ in range(2))
        self.heads = torch.arange(d_model).chunk(num_heads)

    def project_memory(self, memory):
        return tuple(
            torch.stack([memory @ layer.weight[rows].T for rows in self.heads], 1) for layer in (self.W_k, self.W_v)
        )

    def forward(self, x, memory=None, *, kv=None, memory_mask=None):
        keys, values = self.project_memory(memory) if kv is None else kv
        results = []
        for head, rows in enumerate(self.heads):
            mask = None if memory_mask is None else memory_mask[:, None].expand(-1, x.shape[1], -1)
            q = x @ self.W_q.weight[rows].T
            results.append(F.scaled_dot_product_attention(q, keys[:, head], values[:, head], mask))
        return self.W_o(torch.cat(results, -1))


def decode_step_by_step(module, x, memory, memory_mask):
    from torch.utils._python_dispatch import TorchDispatchMode

    keys, values = module.project_memory(memory)
    own = {layer.weight.untyped_storage()._cdata for layer in (module.W_k, module.W_v)}
    touched = []

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            tensors = [t for a in args for t in (a if isinstance(a, (list, tuple)) else [a]) if isinstance(t, Tensor)]
            touched.extend(t for t in tensors if t.untyped_storage()._cdata in own)
            return func(*args, **(kwargs or {}))

    with Watch():
        steps = [module(step, kv=(keys, values), memory_mask=memory_mask) for step in x.split(1, 1)]
    return {
        "keys": keys,
        "values": values,
        "steps": torch.cat(steps, 1),
        "W_k or W_v is used although kv is given": bool(touched),
    }


def last_memory_row_changed(module, x, memory):
    other = torch.cat([memory[:, :-1], memory[:, -1:] + 1.0], 1)
    before, after = module(x, memory), module(x, other)
    return {"queries that notice": (before - after).abs().amax(-1) > 1e-6}


@exercise.cases
def cases(draw):
    def inputs(batch, length, memory_length, d_model, d_memory):
        return draw.normal(batch, length, d_model), draw.normal(batch, memory_length, d_memory)

    def seen(length, *lens):
        return torch.arange(length) < torch.tensor(lens)[:, None]

    yield Case("a memory of the same width", *inputs(2, 3, 5, 6, 6), init=(6, 3))
    yield Case("a memory of another width", *inputs(2, 4, 3, 6, 5), init=(6, 2, 5))
    yield Case("padding in the memory", *inputs(3, 2, 4, 8, 3), init=(8, 4, 3), memory_mask=seen(4, 2, 4, 1))
    yield Case(
        "as many heads as samples, holes in the memory", *inputs(2, 3, 4, 6, 5), init=(6, 2, 5),
        memory_mask=torch.tensor([[True, False, True, True], [False, True, False, True]]),
    )  # fmt: skip
    yield Case("as many positions as the memory has", *inputs(2, 4, 4, 6, 5), init=(6, 3, 5), memory_mask=seen(4, 3, 2))
    yield Case("a sample without memory", *inputs(3, 2, 4, 6, 6), init=(6, 2), memory_mask=seen(4, 4, 0, 2), edge=True)
    yield Case("one position in the memory", *inputs(2, 3, 1, 6, 4), init=(6, 2, 4), edge=True)
    yield Case("one head", *inputs(2, 3, 5, 4, 7), init=(4, 1, 7))
    yield Case(
        "keys and values given", draw.normal(2, 3, 6), kv=(draw.normal(2, 2, 5, 3), draw.normal(2, 2, 5, 3)),
        init=(6, 2, 4), memory_mask=seen(5, 5, 2),
    )  # fmt: skip
    yield Case(
        "step by step with keys and values kept", *inputs(2, 3, 5, 6, 4), seen(5, 4, 2), init=(6, 2, 4),
        probe=decode_step_by_step,
    )  # fmt: skip
    yield Case(
        "the last row of the memory changes", *inputs(2, 3, 5, 6, 4), init=(6, 2, 4), probe=last_memory_row_changed,
        grad=False, layouts=False,
    )  # fmt: skip
    yield Case("32 queries, 40 positions", *inputs(2, 32, 40, 12, 7), init=(12, 3, 7), cost=True)
    yield Case("neither memory nor kv", draw.normal(2, 3, 6), init=(6, 2), raises=ValueError)
    yield Case(
        "memory and kv", *inputs(2, 3, 5, 6, 6), kv=(draw.normal(2, 2, 5, 3), draw.normal(2, 2, 5, 3)), init=(6, 2),
        raises=ValueError,
    )  # fmt: skip
    yield Case("7 features for 2 heads", init=(7, 2), raises=ValueError)
    yield Case("2 features for 4 heads", init=(2, 4, 3), raises=ValueError, hidden=True)
    x, memory = inputs(2, 3, 5, 6, 4)
    memory[:, 3:] = 1e30
    yield Case("1e30 in the padding", x, memory, init=(6, 3, 4), memory_mask=seen(5, 3, 2), edge=True, hidden=True)
    yield Case("tiny inputs", *(1e-3 * t for t in inputs(2, 3, 5, 6, 4)), init=(6, 3, 4), hidden=True)
    x, memory = inputs(2, 3, 5, 8, 6)
    yield Case("inputs far from 0", 0.1 * x + 2.0, 0.1 * memory + 5.0, init=(8, 2, 6), hidden=True)
    yield Case(
        "large inputs", *(20 * t for t in inputs(2, 3, 5, 6, 4)), init=(6, 2, 4), memory_mask=seen(5, 3, 5), grad=False,
        hidden=True,
    )  # fmt: skip
    yield Case("one position, one head per feature", *inputs(3, 1, 4, 5, 6), init=(5, 5, 6), hidden=True)
    yield Case(
        "a wider memory", *inputs(2, 3, 5, 4, 10), init={"d_model": 4, "num_heads": 2, "d_memory": 10}, hidden=True
    )
    yield Case("one sample", *inputs(1, 3, 4, 6, 5), init=(6, 2, 5), memory_mask=seen(4, 3), edge=True, hidden=True)


@exercise.growth("heads", sizes=(2, 16), ops=0.0)
def more_heads(draw, size):
    mask = torch.arange(6) < torch.tensor([[4], [6]])
    return Case(f"{size} heads", draw.normal(2, 5, 32), draw.normal(2, 6, 8), init=(32, size, 8), memory_mask=mask)


@exercise.growth("samples", sizes=(4, 16), ops=0.0, peak=1.0)
def more_samples(draw, size):
    return Case(f"{size} samples", draw.normal(size, 5, 8), draw.normal(size, 6, 4), init=(8, 2, 4))


@exercise.growth("queries", ops=0.0, peak=1.0)
def more_queries(draw, size):
    return Case(f"{size} queries", draw.normal(2, size, 8), draw.normal(2, 6, 4), init=(8, 2, 4))


@exercise.growth("memory", ops=0.0, peak=1.0)
def longer_memory(draw, size):
    return Case(f"{size} positions", draw.normal(2, 5, 8), draw.normal(2, size, 4), init=(8, 2, 4))


class _Parts(CrossAttention):
    """The solution in two more parts, each of which a wrong answer can replace."""

    def __init__(self, d_model, num_heads, d_memory=None):
        super().__init__(d_model, num_heads, d_memory)

    def spread(self, mask, x):
        return mask[:, None, None, :]

    def attend(self, q, keys, values, mask):
        return scaled_dot_product_attention(q, keys, values, mask)

    def merge(self, heads):
        return heads.transpose(1, 2).flatten(2)

    def forward(self, x, memory=None, *, kv=None, memory_mask=None):
        if (memory is None) == (kv is None):
            raise ValueError
        keys, values = self.project_memory(memory) if kv is None else kv
        mask = None if memory_mask is None else self.spread(memory_mask, x)
        return self.W_o(self.merge(self.attend(self._split(self.W_q(x)), keys, values, mask)))


@exercise.wrong("Queries ask and the memory answers: keys and values are projections of the memory, not of x.")
class KeysFromX(CrossAttention):
    def forward(self, x, memory=None, *, kv=None, memory_mask=None):
        if memory is not None and memory.shape == x.shape and kv is None:
            memory = x
        elif memory is not None and kv is None:
            memory = x @ self.W_q.weight[: memory.shape[-1]].T if memory.shape[-1] <= x.shape[-1] else memory
            memory_mask = None
        return super().forward(x, memory, kv=kv, memory_mask=memory_mask)


@exercise.wrong("The roles are exchanged: x gives the queries, the memory gives the keys and the values.")
class RolesExchanged(CrossAttention):
    def forward(self, x, memory=None, *, kv=None, memory_mask=None):
        if memory is not None and kv is None:
            q, keys = self._split(self.W_k(memory)), self._split(self.W_q(x))
            heads = scaled_dot_product_attention(q, keys, keys)
            return self.W_o(heads.transpose(1, 2).flatten(2))
        return super().forward(x, memory, kv=kv, memory_mask=memory_mask)


@exercise.wrong("The memory is known in full: a causal mask has no place between two sequences.")
class CausalMask(_Parts):
    def attend(self, q, keys, values, mask):
        causal = torch.ones(q.shape[-2], keys.shape[-2], dtype=torch.bool).tril()
        return super().attend(q, keys, values, causal if mask is None else causal & mask)


@exercise.wrong("The mask says which positions of the memory may be used: it belongs to the keys, not to the queries.")
class MaskOverQueries(_Parts):
    def spread(self, mask, x):
        return mask[:, None, : x.shape[1], None]


@exercise.wrong("memory_mask is not used: padding in the memory must not be averaged in.")
class MaskIgnored(_Parts):
    def attend(self, q, keys, values, mask):
        return super().attend(q, keys, values, None)


@exercise.wrong("True means that the position may be used, as everywhere in this course.")
class TrueHides(_Parts):
    def spread(self, mask, x):
        return ~super().spread(mask, x)


@exercise.wrong(
    "A mask (B, S) needs two axes, (B, 1, 1, S). As (B, 1, S) it is lined up with the heads: with as many heads as "
    "samples it silently masks heads, otherwise it fails."
)
class MaskLinedUpWithHeads(_Parts):
    def spread(self, mask, x):
        return mask[:, None, :]


@exercise.wrong(
    "The memory is projected again at every step, although `kv` holds its keys and values: use them as they are."
)
class ProjectedEveryStep(_Parts):
    def project_memory(self, memory):
        self.memory = memory.detach()
        return super().project_memory(memory)

    def forward(self, x, memory=None, *, kv=None, memory_mask=None):
        if kv is not None and memory is None and hasattr(self, "memory"):
            again = super().project_memory(self.memory)
            kv = tuple(given + 0.0 * new for given, new in zip(kv, again, strict=True))
        return super().forward(x, memory, kv=kv, memory_mask=memory_mask)


@exercise.wrong(
    "The memory may have a width of its own: W_k and W_v are nn.Linear(d_memory, d_model).", caught_by="runs"
)
class SquareProjections(CrossAttention):
    def __init__(self, d_model, num_heads, d_memory=None):
        super().__init__(d_model, num_heads)


@exercise.wrong("The four projections have no biases: nn.Linear(..., bias=False).", caught_by="runs")
class WithBiases(CrossAttention):
    def __init__(self, d_model, num_heads, d_memory=None):
        super().__init__(d_model, num_heads, d_memory)
        self.W_o = nn.Linear(d_model, d_model)


@exercise.wrong(
    "Split the features into heads, then swap axes: a reshape to (B, H, S, dh) cuts the sequence into pieces."
)
class CutAcrossPositions(_Parts):
    def _split(self, x):
        return x.reshape(x.shape[0], self.num_heads, x.shape[1], -1)


@exercise.wrong("Head h owns a block of neighbouring features: split D into (num_heads, dh), not (dh, num_heads).")
class FeaturesDealtOut(_Parts):
    def _split(self, x):
        return x.unflatten(-1, (-1, self.num_heads)).movedim(-1, 1)

    def merge(self, heads):
        return heads.movedim(1, -1).flatten(2)


@exercise.wrong("Swap the heads back before merging: (B, H, T, dh) -> (B, T, H, dh) -> (B, T, D).")
class MergedWithoutSwap(_Parts):
    def merge(self, heads):
        return heads.reshape(heads.shape[0], heads.shape[2], -1)


@exercise.wrong("Scores are divided by the square root of the head's width, not of d_model.")
class ScaledByModelWidth(_Parts):
    def attend(self, q, keys, values, mask):
        return super().attend(q / math.sqrt(self.num_heads), keys, values, mask)


@exercise.wrong("W_o is missing: the heads' results, side by side, go through one more projection.")
class WithoutOutputProjection(_Parts):
    def __init__(self, d_model, num_heads, d_memory=None):
        super().__init__(d_model, num_heads, d_memory)

    def forward(self, x, memory=None, *, kv=None, memory_mask=None):
        if (memory is None) == (kv is None):
            raise ValueError
        keys, values = self.project_memory(memory) if kv is None else kv
        mask = None if memory_mask is None else self.spread(memory_mask, x)
        return self.merge(self.attend(self._split(self.W_q(x)), keys, values, mask))


@exercise.wrong("Values have their own projection, W_v: W_k makes the keys only.")
class ValuesThroughTheKeysProjection(CrossAttention):
    def project_memory(self, memory):
        return self._split(self.W_k(memory)), self._split(self.W_k(memory))


@exercise.wrong("project_memory returns (keys, values), in this order.")
class ValuesFirst(CrossAttention):
    def project_memory(self, memory):
        return super().project_memory(memory)[::-1]


@exercise.wrong("project_memory splits into heads: keys and values are (B, num_heads, S, dh).")
class ProjectedButNotSplit(CrossAttention):
    def project_memory(self, memory):
        return self.W_k(memory), self.W_v(memory)

    def forward(self, x, memory=None, *, kv=None, memory_mask=None):
        if (memory is None) == (kv is None):
            raise ValueError
        if kv is None:
            kv = super().project_memory(memory)
        elif kv[0].ndim == 3:
            kv = tuple(self._split(t) for t in kv)
        return super().forward(x, kv=kv, memory_mask=memory_mask)


@exercise.wrong("Keys and values must carry the gradient to the memory: no detach().", caught_by="gradients")
class MemoryDetached(CrossAttention):
    def project_memory(self, memory):
        return super().project_memory(memory.detach())


@exercise.wrong(
    "Exactly one of memory and kv must be given: raise ValueError for both and for none.", caught_by="errors"
)
class BothAccepted(CrossAttention):
    def forward(self, x, memory=None, *, kv=None, memory_mask=None):
        return super().forward(x, None if kv is not None else memory, kv=kv, memory_mask=memory_mask)


@exercise.wrong("With neither memory nor kv there is nothing to attend to: raise ValueError.", caught_by="errors")
class SelfAttentionWithoutMemory(CrossAttention):
    def forward(self, x, memory=None, *, kv=None, memory_mask=None):
        return super().forward(x, x if memory is None and kv is None else memory, kv=kv, memory_mask=memory_mask)


@exercise.wrong("When d_model is not a multiple of num_heads, raise ValueError.", caught_by="errors")
class AnyNumberOfHeads(CrossAttention):
    def __init__(self, d_model, num_heads, d_memory=None):
        super().__init__(d_model, 1, d_memory)
        self.num_heads = num_heads


@exercise.wrong("A sample without memory must get zeros: softmax of only -inf is nan.", caught_by="finite")
class NanWithoutMemory(_Parts):
    def attend(self, q, keys, values, mask):
        scores = q @ keys.transpose(-2, -1) / math.sqrt(q.shape[-1])
        return torch.softmax(scores if mask is None else scores.masked_fill(~mask, -float("inf")), -1) @ values


@exercise.wrong("A sample without memory must get zeros: a filler gives it the plain average of what is hidden.")
class UniformWithoutMemory(_Parts):
    def attend(self, q, keys, values, mask):
        scores = q @ keys.transpose(-2, -1) / math.sqrt(q.shape[-1])
        if mask is not None:
            scores = scores.masked_fill(~mask, torch.finfo(scores.dtype).min)
        return torch.softmax(scores, -1) @ values


@exercise.wrong(
    "A loop over the heads does more operations the more heads there are: attention works on all of them at once.",
    caught_by="growth",
)
class HeadByHead(_Parts):
    def attend(self, q, keys, values, mask):
        mask = None if mask is None else mask[:, 0]
        parts = zip(q.unbind(1), keys.unbind(1), values.unbind(1), strict=True)
        return torch.stack([super(HeadByHead, self).attend(*part, mask) for part in parts], 1)


@exercise.right("einsum throughout")
class ByEinsum(nn.Module):
    def __init__(self, d_model, num_heads, d_memory=None):
        super().__init__()
        if d_model % num_heads != 0:
            raise ValueError("num_heads must divide d_model")
        self.h, width = num_heads, d_model if d_memory is None else d_memory
        for name, inputs in (("W_q", d_model), ("W_k", width), ("W_v", width), ("W_o", d_model)):
            self.add_module(name, nn.Linear(inputs, d_model, bias=False))

    def project_memory(self, memory):
        return tuple(
            torch.einsum("bsm,hdm->bhsd", memory, layer.weight.unflatten(0, (self.h, -1)))
            for layer in (self.W_k, self.W_v)
        )

    def forward(self, x, memory=None, *, kv=None, memory_mask=None):
        if memory is None and kv is None or memory is not None and kv is not None:
            raise ValueError("exactly one of memory and kv")
        keys, values = kv if kv is not None else self.project_memory(memory)
        queries = torch.einsum("btm,hdm->bhtd", x, self.W_q.weight.unflatten(0, (self.h, -1)))
        scores = torch.einsum("bhtd,bhsd->bhts", queries, keys) / queries.shape[-1] ** 0.5
        if memory_mask is not None:
            mask = memory_mask.unsqueeze(1).unsqueeze(1)
            weights = torch.where(mask, scores, -torch.inf).softmax(-1)
            weights = torch.where(mask.any(-1, keepdim=True), weights, 0.0)
        else:
            weights = scores.softmax(-1)
        heads = torch.einsum("bhts,bhsd->bthd", weights, values)
        return heads.reshape(x.shape) @ self.W_o.weight.T


@exercise.right("keys and values projected together, heads in the batch")
class Together(CrossAttention):
    def project_memory(self, memory):
        both = memory @ torch.cat([self.W_k.weight, self.W_v.weight]).T
        keys, values = both.unflatten(-1, (2, self.num_heads, -1)).unbind(2)
        return keys.transpose(1, 2), values.permute(0, 2, 1, 3)

    def forward(self, x, memory=None, *, kv=None, memory_mask=None):
        if (memory is not None) + (kv is not None) != 1:
            raise ValueError("one of memory and kv")
        keys, values = (t.flatten(0, 1) for t in (kv or self.project_memory(memory)))
        q = self.W_q(x).view(*x.shape[:2], self.num_heads, -1).transpose(1, 2).flatten(0, 1)
        mask = None if memory_mask is None else memory_mask.repeat_interleave(self.num_heads, 0)[:, None]
        heads = scaled_dot_product_attention(q, keys, values, mask).unflatten(0, (len(x), -1))
        return self.W_o(heads.transpose(1, 2).reshape(x.shape))
