"""A block of GPT-2."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from grader import Case, Cost, Exercise
from reference.attention.causal_attention import causal_attention
from reference.transformer import FORBID


class GPTBlock(nn.Module):
    """A pre-norm, decoder-only transformer block: x = x + attention(ln1(x)), then x = x + mlp(ln2(x)).

    The attention is causal self-attention over `num_heads` heads of width d_model / num_heads, its scores divided
    by the root of the head width. The MLP is fc_out(gelu(fc(...))) with GELU in its tanh approximation. LayerNorms
    have epsilon 1e-5.

    Args:
        d_model: width D of the tokens' vectors.
        num_heads: number of heads; D is a multiple of it.
        dropout: probability of dropping entries of the attention's output (after proj) and of the MLP's output
            (after fc_out), each before it is added to x. Graded by dropout 0 and eval mode being deterministic, by two
            calls in train mode being different, and by dropout 1 leaving x alone.

    State:
        ln1.weight, ln1.bias, ln2.weight, ln2.bias `(D,)`; qkv.weight `(3D, D)`, qkv.bias `(3D,)`: all rows of the
        queries, then of the keys, then of the values, in each of them head after head; proj.weight `(D, D)`,
        proj.bias `(D,)`; fc.weight `(4D, D)`, fc.bias `(4D,)`; fc_out.weight `(D, 4D)`, fc_out.bias `(D,)`.

    Raises:
        ValueError: d_model is not a multiple of num_heads.

    Example:
        >>> block = GPTBlock(4, 2)
        >>> for layer in (block.proj, block.fc_out):
        ...     _ = nn.init.zeros_(layer.weight), nn.init.ones_(layer.bias)
        >>> block(torch.tensor([[[0.0, 1.0, 2.0, 5.0]]])).tolist()  # both branches add 1
        [[[2.0, 3.0, 4.0, 7.0]]]
    """

    def __init__(self, d_model: int, num_heads: int, dropout: float = 0.0) -> None:
        super().__init__()
        if d_model % num_heads:
            raise ValueError(f"d_model {d_model} is not a multiple of num_heads {num_heads}")
        self.num_heads = num_heads
        self.ln1 = nn.LayerNorm(d_model)
        self.ln2 = nn.LayerNorm(d_model)
        self.qkv = nn.Linear(d_model, 3 * d_model)
        self.proj = nn.Linear(d_model, d_model)
        self.fc = nn.Linear(d_model, 4 * d_model)
        self.fc_out = nn.Linear(4 * d_model, d_model)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """Let every token look at itself and the earlier ones, then think about it on its own.

        Args:
            x: tokens' vectors `(B, T, D)`, T >= 1.

        Returns:
            Tensor `(B, T, D)`; row t depends on the rows 0 ... t of x only. Queries, keys and values come from one
            matrix product, and the number of operations depends on neither T nor num_heads.
        """
        x = x + self.dropout(self._attend(self.ln1(x)))
        return x + self.dropout(self._mlp(self.ln2(x)))

    def _attend(self, x: Tensor) -> Tensor:
        """Mix each token with the earlier ones, `(B, T, D)` to `(B, T, D)`."""
        q, k, v = self._heads(self.qkv(x))
        return self.proj(self._mix(q, k, v).transpose(1, 2).flatten(2))

    def _heads(self, qkv: Tensor) -> tuple[Tensor, ...]:
        """Cut `(B, T, 3D)` into queries, keys and values `(B, H, T, D / H)`."""
        return qkv.unflatten(2, (3, self.num_heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)

    def _mix(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Attend in every head, without looking ahead."""
        return causal_attention(q, k, v)

    def _mlp(self, x: Tensor) -> Tensor:
        """Transform each token on its own."""
        return self.fc_out(F.gelu(self.fc(x), approximate="tanh"))


exercise = Exercise(
    GPTBlock,
    points=12,
    gradients=("x", "parameters"),
    cost=Cost(ops=60, matmuls=6),
    forbid=FORBID,
    uses=("causal_attention",),
    hints=(
        "Two residual branches. Which tensor goes into each LayerNorm, and which one is the branch added to?",
        "self.qkv(x) is (B, T, 3D): cut it into three blocks of D, then each block into heads, and bring the head axis "
        "in front of T. Afterwards bring it back behind T and flatten the last two axes.",
        "x = x + drop(proj(merge(causal_attention(q, k, v)))), where q, k, v come from self.qkv(self.ln1(x)); then "
        'return x + drop(fc_out(F.gelu(fc(self.ln2(x)), approximate="tanh"))).',
    ),
    source="D2L attention-mechanisms-and-transformers/large-pretraining-transformers; Radford et al. 2019",
)


@exercise.truth
class Truth(nn.Module):
    NAMES = {
        "self_attn.in_proj_": "qkv", "self_attn.out_proj.": "proj", "linear1.": "fc", "linear2.": "fc_out",
        "norm1.": "ln1", "norm2.": "ln2",
    }  # fmt: skip

    def __init__(self, d_model, num_heads, dropout=0.0):
        super().__init__()
        if d_model % num_heads:
            raise ValueError
        self.ln1, self.ln2 = nn.LayerNorm(d_model), nn.LayerNorm(d_model)
        self.qkv, self.proj = nn.Linear(d_model, 3 * d_model), nn.Linear(d_model, d_model)
        self.fc, self.fc_out = nn.Linear(d_model, 4 * d_model), nn.Linear(4 * d_model, d_model)

        def gelu(x):
            return 0.5 * x * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))

        layer = nn.TransformerEncoderLayer(
            d_model, num_heads, 4 * d_model, dropout, activation=gelu, batch_first=True, norm_first=True
        )
        self.unregistered = [layer]

    def forward(self, x):
        values = {
            theirs + kind: getattr(getattr(self, ours), kind)
            for theirs, ours in self.NAMES.items()
            for kind in ("weight", "bias")
        }
        ahead = torch.ones(x.shape[1], x.shape[1], dtype=torch.bool, device=x.device).triu(1)
        layer = self.unregistered[0].train(self.training)
        return torch.func.functional_call(layer, values, (x,), {"src_mask": ahead})


def two_calls(module, x):
    first, second = module(x), module(x)
    return {
        "two calls in train mode differ": not torch.equal(first, second),
        "shape": list(first.shape),
        "finite": bool(torch.isfinite(first).all()),
    }


def another_last_token(module, x):
    changed = torch.cat([x[:, :-1], 3 - 2 * x[:, -1:]], 1)
    return {"rows before it": module(changed)[:, :-1], "its own row": module(changed)[:, -1]}


def on_another_device(module, x, sizes):
    moved = type(module)(*sizes).to("meta")
    try:
        moved(x.to("meta"))
    except (RuntimeError, NotImplementedError) as error:
        return {"a tensor is made on another device than x's": "device" in str(error)}
    return {"a tensor is made on another device than x's": False}


@exercise.cases
def cases(draw):
    yield Case("2 sequences of 5 tokens, 3 heads", draw.normal(2, 5, 12), init=(12, 3))
    yield Case("one head", draw.normal(2, 4, 6), init=(6, 1))
    yield Case("heads of width 1", draw.normal(3, 4, 5), init=(5, 5), edge=True)
    yield Case("as many heads as tokens", draw.normal(2, 4, 8), init=(8, 4))
    yield Case("a single token", draw.normal(3, 1, 6), init=(6, 2), edge=True)
    yield Case("another last token", draw.normal(2, 5, 8), init=(8, 2), probe=another_last_token)
    yield Case("dropout 0.5 in eval mode", draw.normal(2, 3, 8), init=(8, 2, 0.5))
    yield Case("the default dropout in train mode", draw.normal(2, 5, 6), init=(6, 3), train=True)
    train = {"train": True, "draws": True, "grad": False}
    yield Case("dropout 0.5 in train mode", draw.normal(2, 6, 8), init=(8, 2, 0.5), probe=two_calls, **train)
    yield Case("dropout 1 in train mode leaves x alone", draw.normal(2, 3, 6), init=(6, 2, 1.0), **train)
    silent = {f"{name}.{kind}" for name in ("proj", "fc_out") for kind in ("weight", "bias")}
    shapes = {"proj.weight": (6, 6), "proj.bias": (6,), "fc_out.weight": (6, 24), "fc_out.bias": (6,)}
    zeros = {key: torch.zeros(shapes[key]) for key in sorted(silent)}
    yield Case("proj and fc_out of zeros leave x alone", draw.normal(2, 4, 6), init=(6, 2), state=zeros)
    yield Case("32 tokens", draw.normal(2, 32, 24), init=(24, 3), cost=True)
    yield Case("tiny vectors", 1e-3 * draw.normal(2, 5, 8), init=(8, 4), hidden=True)
    yield Case("an offset of 50", 50 + draw.normal(3, 4, 10), init=(10, 5), hidden=True)
    sharp = {"qkv.weight": 40 * draw.normal(24, 8)}
    yield Case("scores of size 1e4", draw.normal(2, 6, 8), init=(8, 2), state=sharp, hidden=True, grad=False)
    yield Case("a transposed view", draw.normal(7, 3, 6).transpose(0, 1), init=(6, 3), hidden=True)
    yield Case("on another device", draw.normal(2, 5, 6), (6, 2), init=(6, 2), probe=on_another_device, draws=True,
               grad=False, double=False, edge=True)  # fmt: skip
    yield Case("10 features for 4 heads", draw.normal(1, 2, 10), init=(10, 4), raises=ValueError)
    yield Case("fewer features than heads", draw.normal(1, 2, 3), init=(3, 6), raises=ValueError, hidden=True)


@exercise.growth("heads", sizes=(2, 16), ops=0.0)
def more_heads(draw, size):
    return Case(f"{size} heads", draw.normal(2, 9, 32), init=(32, size))


@exercise.growth("tokens", ops=0.0)
def more_tokens(draw, size):
    return Case(f"{size} tokens", draw.normal(2, size, 6), init=(6, 2))


@exercise.growth("sequences", sizes=(8, 16), ops=0.0, peak=1.0)
def more_sequences(draw, size):
    return Case(f"{size} sequences", draw.normal(size, 5, 6), init=(6, 2))


@exercise.wrong("The highway carries raw x: add the branch to x, not to ln1(x).")
class ResidualFromTheNorm(GPTBlock):
    def forward(self, x):
        x = self.ln1(x)
        x = x + self.dropout(self._attend(x))
        x = self.ln2(x)
        return x + self.dropout(self._mlp(x))


@exercise.wrong("GPT-2 is pre-norm: normalise what goes into a branch, not the sum that comes out.")
class PostNorm(GPTBlock):
    def forward(self, x):
        x = self.ln1(x + self.dropout(self._attend(x)))
        return self.ln2(x + self.dropout(self._mlp(x)))


@exercise.wrong("The rows of qkv are one block of queries, one of keys, one of values; not (q, k, v) head by head.")
class TriplesPerHead(GPTBlock):
    def _heads(self, qkv):
        return qkv.unflatten(2, (self.num_heads, 3, -1)).permute(3, 0, 2, 1, 4).unbind(0)


@exercise.wrong(
    'GPT-2 used the tanh form of GELU, F.gelu(..., approximate="tanh"): from the default form it differs in the '
    "fourth decimal."
)
class ErfGelu(GPTBlock):
    def _mlp(self, x):
        return self.fc_out(F.gelu(self.fc(x)))


@exercise.wrong("ln2 sees the x that the attention has already updated: the branches follow one another.")
class ParallelBranches(GPTBlock):
    def forward(self, x):
        return x + self.dropout(self._attend(self.ln1(x))) + self.dropout(self._mlp(self.ln2(x)))


@exercise.wrong("Tokens may not see later ones: without the causal mask, predicting the next token is copying it.")
class LooksAhead(GPTBlock):
    def _mix(self, q, k, v):
        return torch.softmax(q @ k.transpose(-2, -1) / math.sqrt(q.shape[-1]), -1) @ v


@exercise.wrong("The second LayerNorm has its own weights: ln2, not ln1 again.")
class OneNormForBoth(GPTBlock):
    def forward(self, x):
        x = x + self.dropout(self._attend(self.ln1(x)))
        return x + self.dropout(self._mlp(self.ln1(x)))


@exercise.wrong("Divide the scores by the root of the head width, not of d_model.")
class ScalesByTheModelWidth(GPTBlock):
    def _mix(self, q, k, v):
        return causal_attention(q / math.sqrt(self.num_heads), k, v)


@exercise.wrong("The scores are divided by the root of the head width.")
class Unscaled(GPTBlock):
    def _mix(self, q, k, v):
        return causal_attention(q * math.sqrt(q.shape[-1]), k, v)


@exercise.wrong("Within queries, keys and values the heads lie one after another: split D into (heads, width).")
class InterleavedHeads(GPTBlock):
    def _heads(self, qkv):
        return qkv.unflatten(2, (3, -1, self.num_heads)).permute(2, 0, 4, 1, 3).unbind(0)


@exercise.wrong("Split the features into heads first, then swap the axes: a plain reshape mixes tokens with heads.")
class ReshapesToHeads(GPTBlock):
    def _heads(self, qkv):
        batch, length, _ = qkv.shape
        return tuple(part.reshape(batch, self.num_heads, length, -1) for part in qkv.chunk(3, -1))


@exercise.wrong("Bring the head axis back behind the tokens before you flatten the heads into one vector.")
class MergesWithoutTranspose(GPTBlock):
    def _attend(self, x):
        q, k, v = self._heads(self.qkv(x))
        return self.proj(self._mix(q, k, v).reshape(x.shape))


@exercise.wrong("The order in qkv is queries, keys, values.")
class KeysFirst(GPTBlock):
    def _heads(self, qkv):
        k, q, v = super()._heads(qkv)
        return q, k, v


@exercise.wrong("A token sees itself, too: hide the keys j > i only.")
class HidesThePresent(GPTBlock):
    def _mix(self, q, k, v):
        scores = q @ k.transpose(-2, -1) / math.sqrt(q.shape[-1])
        allowed = torch.ones(scores.shape[-2:], dtype=torch.bool, device=q.device).tril(-1)
        scores = scores.masked_fill(~allowed, torch.finfo(scores.dtype).min)
        return torch.softmax(scores, -1).masked_fill(~allowed, 0.0) @ v


@exercise.wrong("Mask the scores before the softmax: zeroing weights afterwards leaves rows that do not sum to 1.")
class MasksTheWeights(GPTBlock):
    def _mix(self, q, k, v):
        weights = torch.softmax(q @ k.transpose(-2, -1) / math.sqrt(q.shape[-1]), -1)
        return weights.tril() @ v


@exercise.wrong("Hidden scores are -inf, not 0: exp(0) = 1 is not nothing.")
class ZeroesTheScores(GPTBlock):
    def _mix(self, q, k, v):
        return torch.softmax((q @ k.transpose(-2, -1) / math.sqrt(q.shape[-1])).tril(), -1) @ v


@exercise.wrong("Subtract the largest score (or use torch.softmax): exp overflows for large scores.")
class UnstableSoftmax(GPTBlock):
    def _mix(self, q, k, v):
        weights = (q @ k.transpose(-2, -1) / math.sqrt(q.shape[-1])).exp().tril()
        return weights / weights.sum(-1, keepdim=True) @ v


@exercise.wrong("The mask is made on the CPU: give it device=x.device.")
class MaskOnTheCpu(GPTBlock):
    def _mix(self, q, k, v):
        scores = q @ k.transpose(-2, -1) / math.sqrt(q.shape[-1])
        ahead = torch.ones(scores.shape[-2:], dtype=torch.bool, device="cpu").triu(1)
        return torch.softmax(torch.where(ahead, -torch.inf, scores), -1) @ v


@exercise.wrong("The attention's output goes through proj before it is added.")
class ForgetsProj(GPTBlock):
    def _attend(self, x):
        q, k, v = self._heads(self.qkv(x))
        return self._mix(q, k, v).transpose(1, 2).flatten(2)


@exercise.wrong("The MLP's activation is GELU, not relu.")
class ReluMlp(GPTBlock):
    def _mlp(self, x):
        return self.fc_out(F.relu(self.fc(x)))


@exercise.wrong("GELU acts once, between fc and fc_out.")
class GeluTwice(GPTBlock):
    def _mlp(self, x):
        return F.gelu(super()._mlp(x), approximate="tanh")


@exercise.wrong("The MLP has its own residual: x + mlp(ln2(x)).")
class NoSecondResidual(GPTBlock):
    def forward(self, x):
        x = x + self.dropout(self._attend(self.ln1(x)))
        return self.dropout(self._mlp(self.ln2(x)))


@exercise.wrong("Dropout belongs to the branch, before it is added: the highway stays clean.")
class DropoutOnTheHighway(GPTBlock):
    def forward(self, x):
        x = self.dropout(x + self._attend(self.ln1(x)))
        return self.dropout(x + self._mlp(self.ln2(x)))


@exercise.wrong("Dropout rests in eval mode: use nn.Dropout, or pass training=self.training.")
class DropoutInEval(GPTBlock):
    def forward(self, x):
        x = x + F.dropout(self._attend(self.ln1(x)), self.dropout.p)
        return x + F.dropout(self._mlp(self.ln2(x)), self.dropout.p)


@exercise.wrong("The constructor's dropout is never applied.")
class WithoutDropout(GPTBlock):
    def forward(self, x):
        x = x + self._attend(self.ln1(x))
        return x + self._mlp(self.ln2(x))


@exercise.wrong("The MLP's output passes through dropout, too.")
class DropoutOnAttentionOnly(GPTBlock):
    def forward(self, x):
        x = x + self.dropout(self._attend(self.ln1(x)))
        return x + self._mlp(self.ln2(x))


@exercise.wrong("The epsilon of both LayerNorms is 1e-5, their default.")
class SmallEpsilon(GPTBlock):
    def __init__(self, d_model, num_heads, dropout=0.0):
        super().__init__(d_model, num_heads, dropout)
        self.ln1, self.ln2 = nn.LayerNorm(d_model, eps=1e-6), nn.LayerNorm(d_model, eps=1e-6)


@exercise.wrong("x += ... changes the caller's tensor: write x = x + ...", caught_by="inputs")
class AddsInPlace(GPTBlock):
    def forward(self, x):
        with torch.no_grad():
            x += self.dropout(self._attend(self.ln1(x)))
        return x + self.dropout(self._mlp(self.ln2(x)))


@exercise.wrong("Raise ValueError when d_model is not a multiple of num_heads.", caught_by="errors")
class AnyNumberOfHeads(GPTBlock):
    def __init__(self, d_model, num_heads, dropout=0.0):
        super().__init__(d_model, math.gcd(d_model, num_heads), dropout)


@exercise.wrong("Three products with slices of qkv.weight do the work of one: apply self.qkv once.", caught_by="cost")
class ThreeProducts(GPTBlock):
    def _attend(self, x):
        parts = [F.linear(x, w, b) for w, b in zip(self.qkv.weight.chunk(3), self.qkv.bias.chunk(3), strict=True)]
        q, k, v = self._heads(torch.cat(parts, -1))
        return self.proj(self._mix(q, k, v).transpose(1, 2).flatten(2))


@exercise.wrong("A Python loop over heads: give the heads an axis of their own and attend in all at once.",
                caught_by="growth")  # fmt: skip
class LoopsOverHeads(GPTBlock):
    def _mix(self, q, k, v):
        return torch.stack([causal_attention(q[:, h], k[:, h], v[:, h]) for h in range(self.num_heads)], 1)


@exercise.wrong("A Python loop over tokens: one masked softmax serves all queries at once.", caught_by="growth")
class LoopsOverTokens(GPTBlock):
    def _mix(self, q, k, v):
        rows = [
            causal_attention(q[..., t : t + 1, :], k[..., : t + 1, :], v[..., : t + 1, :]) for t in range(q.shape[2])
        ]
        return torch.cat(rows, 2)


@exercise.right("einsum throughout, with an additive mask")
class ByEinsum(GPTBlock):
    def _attend(self, x):
        q, k, v = torch.einsum("btd,ched->cbhte", x, self.qkv.weight.view(3, self.num_heads, -1, x.shape[2])) + (
            self.qkv.bias.view(3, 1, self.num_heads, 1, -1)
        )
        length = x.shape[1]
        bias = torch.full((length, length), -torch.inf, dtype=x.dtype, device=x.device).triu(1)
        weights = torch.softmax(torch.einsum("bhte,bhse->bhts", q, k) / math.sqrt(q.shape[-1]) + bias, -1)
        mixed = torch.einsum("bhts,bhse->bthe", weights, v)
        return self.proj(mixed.reshape(x.shape))


@exercise.right("heads folded into the batch, softmax and GELU by hand")
class ByHand(GPTBlock):
    def _mix(self, q, k, v):
        shape = q.shape
        q, k, v = (part.reshape(-1, *shape[2:]) for part in (q, k, v))
        scores = torch.baddbmm(q.new_zeros(1, 1, 1), q, k.mT, beta=0, alpha=shape[-1] ** -0.5)
        places = torch.arange(shape[2], device=q.device)
        scores = scores.masked_fill(places > places[:, None], torch.finfo(q.dtype).min)
        weights = (scores - scores.amax(-1, keepdim=True)).exp()
        return torch.bmm(weights / weights.sum(-1, keepdim=True), v).view(shape)

    def _mlp(self, x):
        hidden = self.fc(x)
        inner = math.sqrt(2 / math.pi) * (hidden + 0.044715 * hidden.pow(3))
        return self.fc_out(hidden * (1 + inner.tanh()) / 2)
