"""Position-wise feed-forward network."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from grader import Case, Cost, Exercise
from reference.transformer import FORBID


class PositionWiseFFN(nn.Module):
    """Apply the same two-layer network to every position: dense2(relu(dense1(x))).

    Args:
        d_model: width of each position's vector, coming in and going out.
        d_ff: width in between.

    State:
        dense1.weight `(d_ff, d_model)`, dense1.bias `(d_ff,)`, dense2.weight `(d_model, d_ff)`,
        dense2.bias `(d_model,)`. Initial values are not graded.

    Example:
        >>> ffn = PositionWiseFFN(1, 2)
        >>> ffn.load_state_dict({
        ...     "dense1.weight": torch.tensor([[1.0], [-1.0]]), "dense1.bias": torch.zeros(2),
        ...     "dense2.weight": torch.tensor([[1.0, 1.0]]), "dense2.bias": torch.tensor([0.5]),
        ... })
        <All keys matched successfully>
        >>> ffn(torch.tensor([[3.0], [-2.0]])).tolist()  # |x| + 0.5, position by position
        [[3.5], [2.5]]
    """

    def __init__(self, d_model: int, d_ff: int) -> None:
        super().__init__()
        self.dense1 = nn.Linear(d_model, d_ff)
        self.dense2 = nn.Linear(d_ff, d_model)

    def forward(self, x: Tensor) -> Tensor:
        """Transform every position on its own.

        Args:
            x: vectors `(..., d_model)`, with any number of leading axes (none included), some of which may be 0.

        Returns:
            Tensor shaped like `x`. No position sees another one; no Python loop over positions is needed.
        """
        return self.dense2(F.relu(self.dense1(x)))


exercise = Exercise(
    PositionWiseFFN,
    points=5,
    gradients=("x", "parameters"),
    cost=Cost(ops=8),
    forbid=FORBID,
    hints=(
        "nn.Linear maps the last axis and leaves every axis before it alone.",
        "Two layers named dense1 (d_model to d_ff) and dense2 (d_ff to d_model), with biases; relu between them.",
        "forward is one line: return self.dense2(torch.relu(self.dense1(x)))",
    ),
    source="D2L attention-mechanisms-and-transformers/transformer (positionwise feed-forward networks)",
)


@exercise.truth
class Truth(nn.Module):
    def __init__(self, d_model, d_ff):
        super().__init__()
        self.dense1 = nn.Linear(d_model, d_ff)
        self.dense2 = nn.Linear(d_ff, d_model)

    def forward(self, x):
        hidden = torch.einsum("...i,hi->...h", x, self.dense1.weight) + self.dense1.bias
        hidden = torch.where(hidden > 0, hidden, 0.0)
        return torch.einsum("...h,oh->...o", hidden, self.dense2.weight) + self.dense2.bias


@exercise.cases
def cases(draw):
    yield Case("a batch of sequences", draw.normal(2, 4, 3), init=(3, 5))
    yield Case("one sequence, wider than it is long", draw.normal(2, 6), init=(6, 4))
    yield Case("one vector", draw.normal(4), init=(4, 7), edge=True)
    yield Case("four axes", draw.normal(2, 3, 2, 5), init=(5, 6))
    yield Case("a transposed view", draw.normal(4, 2, 3).transpose(0, 1), init=(3, 8))
    yield Case("length equal to width", draw.normal(3, 5, 5), init=(5, 4))
    yield Case("a single position", draw.normal(1, 1, 4), init=(4, 3), edge=True)
    yield Case("in train mode", draw.normal(2, 5, 4), init=(4, 3), train=True)
    yield Case("no positions", torch.zeros(2, 0, 3), init=(3, 4), edge=True)
    yield Case("many positions", draw.normal(3, 32, 5), init=(5, 6), cost=True)
    yield Case("tiny vectors", 1e-3 * draw.normal(3, 2, 4), init=(4, 6), hidden=True)
    yield Case("large vectors", 1e3 + 100 * draw.normal(2, 5, 3), init=(3, 4), hidden=True)
    yield Case("a permuted view", draw.normal(3, 5, 2, 4).permute(2, 0, 3, 1), init=(5, 7), hidden=True)
    yield Case("hidden width 1", draw.normal(4, 3, 2), init=(2, 1), hidden=True)
    yield Case("no sequences", torch.zeros(0, 4, 2), init=(2, 3), edge=True, hidden=True)


@exercise.growth("positions", ops=0.0, peak=1.0)
def more_positions(draw, size):
    return Case(f"{size} positions", draw.normal(2, size, 5), init=(5, 7))


@exercise.growth("sequences", ops=0.0, peak=1.0)
def more_sequences(draw, size):
    return Case(f"{size} sequences", draw.normal(size, 3, 5), init=(5, 7))


@exercise.wrong("relu stands between the layers only: what comes out may be negative.")
class ReluTwice(PositionWiseFFN):
    def forward(self, x):
        return F.relu(super().forward(x))


@exercise.wrong("Adding x again is AddNorm's job; this layer returns the network's output alone.")
class AddsTheInput(PositionWiseFFN):
    def forward(self, x):
        return x + super().forward(x)


@exercise.wrong("Both layers have a bias: the state lists dense1.bias and dense2.bias.", caught_by="runs")
class WithoutBiases(PositionWiseFFN):
    def __init__(self, d_model, d_ff):
        super().__init__(d_model, d_ff)
        self.dense1 = nn.Linear(d_model, d_ff, bias=False)
        self.dense2 = nn.Linear(d_ff, d_model, bias=False)


@exercise.wrong(
    "The same network works at every position: do not flatten positions into one long vector.", caught_by="runs"
)
class FlattensThePositions(PositionWiseFFN):
    def forward(self, x):
        flat = x.flatten(1) if x.ndim > 2 else x.flatten()
        return super().forward(flat).reshape(x.shape)


@exercise.wrong("A convolution of width 1 wants features on axis 1: here they are on the last axis.")
class ConvolvesWithoutTranspose(PositionWiseFFN):
    def forward(self, x):
        hidden = F.relu(F.conv1d(x, self.dense1.weight[..., None], self.dense1.bias))
        return F.conv1d(hidden, self.dense2.weight[..., None], self.dense2.bias)


@exercise.wrong("Without the relu two linear layers are just one linear layer.")
class WithoutRelu(PositionWiseFFN):
    def forward(self, x):
        return self.dense2(self.dense1(x))


@exercise.wrong("This network uses relu; gelu came later.")
class Gelu(PositionWiseFFN):
    def forward(self, x):
        return self.dense2(F.gelu(self.dense1(x)))


@exercise.wrong("relu belongs after dense1, not before it.")
class ReluFirst(PositionWiseFFN):
    def forward(self, x):
        return self.dense2(self.dense1(F.relu(x)))


@exercise.wrong("x is changed in place: it belongs to the caller.", caught_by="inputs")
class ReluInPlace(PositionWiseFFN):
    def forward(self, x):
        return super().forward(x.detach().relu_())


@exercise.wrong("Any number of leading axes is allowed, not just (batch, positions).", caught_by="runs")
class BatchesOnly(PositionWiseFFN):
    def forward(self, x):
        batch, length, width = x.shape
        return super().forward(x.reshape(batch * length, width)).reshape(batch, length, width)


@exercise.wrong(
    "view() cannot merge the axes of a transposed tensor: use reshape(), or let nn.Linear do it.", caught_by="runs"
)
class ViewsTheInput(PositionWiseFFN):
    def forward(self, x):
        return super().forward(x.view(-1, x.shape[-1])).view(x.shape)


@exercise.wrong("Dropout is not part of this layer: the result is deterministic.")
class WithDropout(PositionWiseFFN):
    def forward(self, x):
        return self.dense2(F.dropout(F.relu(self.dense1(x)), 0.1))


@exercise.wrong("Dropout is not part of this layer, in train mode neither.")
class DropoutWhenTraining(PositionWiseFFN):
    def forward(self, x):
        return self.dense2(F.dropout(F.relu(self.dense1(x)), 0.1, self.training))


@exercise.wrong("squeeze() drops every axis of size 1, the caller's too: the result is shaped like x.")
class Squeezes(PositionWiseFFN):
    def forward(self, x):
        return super().forward(x).squeeze()


@exercise.wrong("relu is not bounded above: max(h, 0), whatever the size of h.")
class Relu6(PositionWiseFFN):
    def forward(self, x):
        return self.dense2(F.relu6(self.dense1(x)))


@exercise.wrong("The graph is cut: no gradient reaches dense1 and x.", caught_by="gradients")
class CutsTheGraph(PositionWiseFFN):
    def forward(self, x):
        return self.dense2(F.relu(self.dense1(x)).detach())


@exercise.wrong("A Python loop over positions: nn.Linear handles all leading axes at once.", caught_by="growth")
class LoopsOverPositions(PositionWiseFFN):
    def forward(self, x):
        if x.ndim < 2 or x.shape[-2] == 0:
            return super().forward(x)
        parts = [PositionWiseFFN.forward(self, x[..., t, :]) for t in range(x.shape[-2])]
        return torch.stack(parts, -2)


@exercise.wrong("A Python loop over the batch: nn.Linear handles all leading axes at once.", caught_by="growth")
class LoopsOverTheBatch(PositionWiseFFN):
    def forward(self, x):
        if x.ndim < 2 or x.shape[0] == 0:
            return super().forward(x)
        return torch.stack([PositionWiseFFN.forward(self, row) for row in x])


@exercise.right("as matrix products")
class ByMatmul(PositionWiseFFN):
    def forward(self, x):
        hidden = (x @ self.dense1.weight.T + self.dense1.bias).clamp(min=0)
        return hidden @ self.dense2.weight.T + self.dense2.bias


@exercise.right("as convolutions of width 1")
class ByConvolution(PositionWiseFFN):
    def forward(self, x):
        rows = x.reshape(-1, x.shape[-1], 1)
        hidden = F.conv1d(rows, self.dense1.weight.unsqueeze(-1), self.dense1.bias).relu()
        return F.conv1d(hidden, self.dense2.weight.unsqueeze(-1), self.dense2.bias).reshape(x.shape)
