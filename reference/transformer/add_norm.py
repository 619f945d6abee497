"""Residual connection and layer normalisation."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from grader import Case, Cost, Exercise
from reference.transformer import FORBID


class AddNorm(nn.Module):
    """Add a sublayer's output to its input and normalise the sum: LayerNorm(x + dropout(y)).

    Args:
        d_model: size of the last axis, the one that is normalised (epsilon 1e-5).
        dropout: probability with which entries of y are dropped in train mode. Dropout is graded by dropout 0 and
            eval mode being deterministic, by two calls in train mode being different, and by leaving x alone.

    State:
        ln.weight `(d_model,)`, ln.bias `(d_model,)`. `nn.LayerNorm` and `nn.Dropout` may be used.

    Example:
        >>> add_norm = AddNorm(2)
        >>> add_norm(torch.tensor([[5.0, 1.0]]), torch.tensor([[0.0, 2.0]])).round(decimals=3).tolist()
        [[1.0, -1.0]]
    """

    def __init__(self, d_model: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        self.ln = nn.LayerNorm(d_model)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """Add and normalise.

        Args:
            x: what went into the sublayer, `(..., d_model)`: the shortcut.
            y: what came out of it, shaped like x.

        Returns:
            Tensor shaped like x; each vector along the last axis is normalised on its own.

        Raises:
            ValueError: x and y differ in shape. A residual is never broadcast.
        """
        if x.shape != y.shape:
            raise ValueError(f"x and y must have the same shape, got {tuple(x.shape)} and {tuple(y.shape)}")
        return self.ln(x + self.dropout(y))


exercise = Exercise(
    AddNorm,
    points=5,
    gradients=("x", "y", "parameters"),
    cost=Cost(ops=14),
    forbid=FORBID,
    hints=(
        "Which of the two is the shortcut that must stay clean, and which one may lose entries to dropout?",
        "One nn.LayerNorm(d_model) named ln, one nn.Dropout(dropout); compare the shapes before you add.",
        "return self.ln(x + self.dropout(y)), after raising ValueError if x.shape != y.shape.",
    ),
    source="D2L attention-mechanisms-and-transformers/transformer (residual connection and layer normalization)",
)


@exercise.truth
class Truth(nn.Module):
    def __init__(self, d_model, dropout=0.0):
        super().__init__()
        self.p = dropout
        self.ln = nn.LayerNorm(d_model)

    def forward(self, x, y):
        total = x + F.dropout(y, self.p, self.training)
        centred = total - total.mean(-1, keepdim=True)
        return centred / (centred.square().mean(-1, keepdim=True) + 1e-5).sqrt() * self.ln.weight + self.ln.bias


def two_calls(module, x, y):
    first, second = module(x, y), module(x, y)
    return {
        "two calls in train mode differ": not torch.equal(first, second),
        "shape": list(first.shape),
        "finite": bool(torch.isfinite(first).all()),
    }


@exercise.cases
def cases(draw):
    yield Case("a batch of sequences", draw.normal(2, 4, 3), draw.normal(2, 4, 3), init=(3,))
    yield Case("one sequence", draw.normal(4, 6), draw.normal(4, 6), init=(6,))
    yield Case("four axes", draw.normal(2, 3, 2, 5), draw.normal(2, 3, 2, 5), init=(5,))
    yield Case("one vector", draw.normal(7), draw.normal(7), init=(7,), edge=True)
    yield Case("dropout 0.5 in eval mode", draw.normal(2, 3, 4), draw.normal(2, 3, 4), init=(4, 0.5))
    yield Case("the default dropout in train mode", draw.normal(2, 5, 4), draw.normal(2, 5, 4), init=(4,), train=True)
    train = {"train": True, "draws": True, "grad": False}
    yield Case("dropout 0.5 in train mode", draw.normal(3, 5, 8), draw.normal(3, 5, 8), init=(8, 0.5), **train,
               probe=two_calls)  # fmt: skip
    yield Case("dropout 1 in train mode drops all of y", draw.normal(2, 3, 4), draw.normal(2, 3, 4), init=(4, 1.0),
               **train)  # fmt: skip
    yield Case("y = 0 and dropout in train mode", draw.normal(3, 2, 5), torch.zeros(3, 2, 5), init=(5, 0.5), **train)
    yield Case("equal entries in every vector", torch.full((2, 3, 4), 3.0), torch.full((2, 3, 4), -1.0), init=(4,),
               edge=True)  # fmt: skip
    yield Case("small differences", 1e-3 * draw.normal(2, 4, 5), 1e-3 * draw.normal(2, 4, 5), init=(5,))
    yield Case("32 positions", draw.normal(2, 32, 6), draw.normal(2, 32, 6), init=(6,), cost=True)
    yield Case("an offset of 100", 100 + draw.normal(3, 4, 6), draw.normal(3, 4, 6), init=(6,), hidden=True)
    yield Case("y far larger than x", draw.normal(2, 5, 3), 1e3 * draw.normal(2, 5, 3), init=(3,), hidden=True)
    yield Case("width 1", draw.normal(3, 4, 1), draw.normal(3, 4, 1), init=(1,), edge=True, hidden=True, grad=False)
    yield Case("no positions", torch.zeros(2, 0, 3), torch.zeros(2, 0, 3), init=(3,), edge=True, hidden=True)
    yield Case("transposed views", draw.normal(4, 3, 5).transpose(0, 1), draw.normal(5, 4, 3).permute(2, 1, 0),
               init=(5,), hidden=True)  # fmt: skip
    yield Case("y without the batch axis", draw.normal(2, 3, 4), draw.normal(3, 4), init=(4,), raises=ValueError)
    yield Case("y with one position", draw.normal(2, 3, 4), draw.normal(2, 1, 4), init=(4,), raises=ValueError)
    yield Case("x with one sequence", draw.normal(1, 3, 4), draw.normal(2, 3, 4), init=(4,), raises=ValueError)
    yield Case("x without the batch axis", draw.normal(3, 4), draw.normal(2, 3, 4), init=(4,), raises=ValueError,
               hidden=True)  # fmt: skip


@exercise.growth("positions", ops=0.0, peak=1.0)
def more_positions(draw, size):
    return Case(f"{size} positions", draw.normal(2, size, 5), draw.normal(2, size, 5), init=(5,))


@exercise.growth("sequences", ops=0.0, peak=1.0)
def more_sequences(draw, size):
    return Case(f"{size} sequences", draw.normal(size, 3, 5), draw.normal(size, 3, 5), init=(5,))


def _same(x, y):
    if x.shape != y.shape:
        raise ValueError


@exercise.wrong("Post-norm normalises the sum: LN(x + y), not x + LN(y).")
class NormalisesTheBranch(AddNorm):
    def forward(self, x, y):
        _same(x, y)
        return x + self.ln(self.dropout(y))


@exercise.wrong("LayerNorm acts on the sum: LN(x + y), not LN(x) + y.")
class NormalisesTheShortcut(AddNorm):
    def forward(self, x, y):
        _same(x, y)
        return self.ln(x) + self.dropout(y)


@exercise.wrong("Dropout belongs to the sublayer's output y: the shortcut x stays clean.")
class DropoutOnTheShortcut(AddNorm):
    def forward(self, x, y):
        _same(x, y)
        return self.ln(self.dropout(x) + y)


@exercise.wrong("Dropout acts on y before the sum, not on the sum: the shortcut x stays clean.")
class DropoutOnTheSum(AddNorm):
    def forward(self, x, y):
        _same(x, y)
        return self.ln(self.dropout(x + y))


@exercise.wrong("Dropout acts on y before the sum, not on what the normalisation returns.")
class DropoutAfterTheNorm(AddNorm):
    def forward(self, x, y):
        _same(x, y)
        return self.dropout(self.ln(x + y))


@exercise.wrong("The constructor's dropout is never applied: y loses entries in train mode.")
class WithoutDropout(AddNorm):
    def forward(self, x, y):
        _same(x, y)
        return self.ln(x + y)


@exercise.wrong("Dropout rests in eval mode: use nn.Dropout, or pass training=self.training.")
class DropoutInEval(AddNorm):
    def forward(self, x, y):
        _same(x, y)
        return self.ln(x + F.dropout(y, self.dropout.p))


@exercise.wrong("Normalise over the last axis only: each position has its own mean and variance.")
class NormalisesOverTime(AddNorm):
    def forward(self, x, y):
        _same(x, y)
        total = x + self.dropout(y)
        axes = tuple(range(max(total.ndim - 2, 0), total.ndim))
        centred = total - total.mean(axes, keepdim=True)
        return centred / (centred.square().mean(axes, keepdim=True) + 1e-5).sqrt() * self.ln.weight + self.ln.bias


@exercise.wrong(
    "That is batch normalisation: here the statistics belong to one token, not to one feature of the batch."
)
class BatchStatistics(AddNorm):
    def forward(self, x, y):
        _same(x, y)
        total = x + self.dropout(y)
        axes = tuple(range(total.ndim - 1))
        if not axes:
            return self.ln(total)
        centred = total - total.mean(axes, keepdim=True)
        return centred / (centred.square().mean(axes, keepdim=True) + 1e-5).sqrt() * self.ln.weight + self.ln.bias


@exercise.wrong("A residual needs equal shapes: raise ValueError before + broadcasts silently.", caught_by="errors")
class Broadcasts(AddNorm):
    def forward(self, x, y):
        return self.ln(x + self.dropout(y))


@exercise.wrong(
    "Compare all axes: a missing batch axis or a sequence of length 1 would be broadcast.", caught_by="errors"
)
class ComparesWidthsOnly(AddNorm):
    def forward(self, x, y):
        if x.shape[-2:] != y.shape[-2:]:
            raise ValueError
        return self.ln(x + self.dropout(y))


@exercise.wrong("epsilon is 1e-5, as nn.LayerNorm's default.")
class SmallEpsilon(AddNorm):
    def forward(self, x, y):
        _same(x, y)
        return F.layer_norm(x + self.dropout(y), x.shape[-1:], self.ln.weight, self.ln.bias, 1e-6)


@exercise.wrong("epsilon is added to the variance, under the root: sqrt(variance + 1e-5).")
class EpsilonOutsideTheRoot(AddNorm):
    def forward(self, x, y):
        _same(x, y)
        total = x + self.dropout(y)
        centred = total - total.mean(-1, keepdim=True)
        return centred / (centred.square().mean(-1, keepdim=True).sqrt() + 1e-5) * self.ln.weight + self.ln.bias


@exercise.wrong("LayerNorm divides by the number of entries, not by one less: unbiased=False.")
class UnbiasedVariance(AddNorm):
    def forward(self, x, y):
        _same(x, y)
        total = x + self.dropout(y)
        centred = total - total.mean(-1, keepdim=True)
        variance = centred.square().sum(-1, keepdim=True) / max(total.shape[-1] - 1, 1)
        return centred / (variance + 1e-5).sqrt() * self.ln.weight + self.ln.bias


@exercise.wrong("mean(s ** 2) - mean(s) ** 2 cancels for large means: take the mean square of the centred sum.")
class OnePassVariance(AddNorm):
    def forward(self, x, y):
        _same(x, y)
        total = x + self.dropout(y)
        mean = total.mean(-1, keepdim=True)
        variance = (total.square().mean(-1, keepdim=True) - mean.square()).clamp(min=0)
        return (total - mean) / (variance + 1e-5).sqrt() * self.ln.weight + self.ln.bias


@exercise.wrong("The shortcut is missing: add x to y before the normalisation.")
class ForgetsTheShortcut(AddNorm):
    def forward(self, x, y):
        _same(x, y)
        return self.ln(self.dropout(y))


@exercise.wrong("The sum is normalised and returned: x is not added a second time.")
class AddsTwice(AddNorm):
    def forward(self, x, y):
        _same(x, y)
        return x + self.ln(x + self.dropout(y))


@exercise.wrong("x += y overwrites the caller's x, the shortcut that others may still need.", caught_by="inputs")
class AddsInPlace(AddNorm):
    def forward(self, x, y):
        _same(x, y)
        total = x.detach().add_(self.dropout(y))
        return self.ln(total)


@exercise.wrong("Gradients flow through both branches: detach() cuts the shortcut off.", caught_by="gradients")
class CutsTheShortcut(AddNorm):
    def forward(self, x, y):
        _same(x, y)
        return self.ln(x.detach() + self.dropout(y))


@exercise.wrong("The learned scale and shift are missing: ln.weight and ln.bias act on the normalised sum.")
class WithoutScaleAndShift(AddNorm):
    def forward(self, x, y):
        _same(x, y)
        return F.layer_norm(x + self.dropout(y), x.shape[-1:])


@exercise.right("the formula written out")
class ByFormula(AddNorm):
    def forward(self, x, y):
        _same(x, y)
        total = x + self.dropout(y)
        variance, mean = torch.var_mean(total, -1, correction=0, keepdim=True)
        return (total - mean) * torch.rsqrt(variance + self.ln.eps) * self.ln.weight + self.ln.bias


@exercise.right("row by row with dot products")
class ByRows(AddNorm):
    def forward(self, x, y):
        _same(x, y)
        rows = torch.add(x, self.dropout(y)).flatten(0, -2) if x.ndim > 1 else (x + self.dropout(y))[None]
        deviation = rows - rows.mean(1, keepdim=True)
        scale = (torch.linalg.vecdot(deviation, deviation) / rows.shape[1] + 1e-5) ** -0.5
        return torch.addcmul(self.ln.bias, deviation * scale[:, None], self.ln.weight).view(x.shape)


@exercise.right("with a dropout mask of its own")
class OwnDropout(AddNorm):
    def forward(self, x, y):
        _same(x, y)
        p = self.dropout.p
        if self.training and p > 0:
            kept = torch.rand_like(y) >= p
            y = torch.where(kept, y / (1 - p), 0.0) if p < 1 else torch.zeros_like(y)
        return self.ln(x + y)
