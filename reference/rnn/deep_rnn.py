"""Recurrent layers on top of one another."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from grader import Case, Cost, Exercise
from reference.rnn import FORBID
from reference.rnn.gru_scan import gru_scan


class DeepGRU(nn.Module):
    """Stack gated recurrent units: layer k reads the states of layer k - 1.

    Args:
        input_size: D, number of inputs per step.
        hidden_size: H, size of each layer's state.
        num_layers: L, at least 1.
        dropout: probability of setting to 0, in training, an entry of what one layer passes on to the next.

    State:
        As nn.GRU, for each layer k = 0 ... L - 1: `weight_ih_l{k}` `(3H, D)` for k = 0 and `(3H, H)` above,
        `weight_hh_l{k}` `(3H, H)`, `bias_ih_l{k}` `(3H,)` and `bias_hh_l{k}` `(3H,)`, rows in the order r, z, n. All
        are parameters. Initial values are free.

    Raises:
        ValueError: num_layers < 1, or dropout is not in [0, 1).

    Example:
        >>> net = DeepGRU(input_size=3, hidden_size=5, num_layers=2)
        >>> outputs, states = net(torch.ones(4, 2, 3))  # T = 4, B = 2
        >>> outputs.shape, states.shape
        (torch.Size([4, 2, 5]), torch.Size([2, 2, 5]))
        >>> bool((outputs[-1] == states[-1]).all())  # the top layer's last output is its final state
        True
        >>> [name for name, _ in net.named_parameters()][:2], net.weight_ih_l1.shape
        (['weight_ih_l0', 'weight_hh_l0'], torch.Size([15, 5]))
    """

    def __init__(self, input_size: int, hidden_size: int, num_layers: int, dropout: float = 0.0) -> None:
        super().__init__()
        if num_layers < 1:
            raise ValueError(f"num_layers must be at least 1, got {num_layers}")
        if not 0 <= dropout < 1:
            raise ValueError(f"dropout must lie in [0, 1), got {dropout}")
        self.hidden_size, self.num_layers, self.dropout = hidden_size, num_layers, dropout
        bound = hidden_size**-0.5
        for k in range(num_layers):
            width = input_size if k == 0 else hidden_size
            shapes = {
                "weight_ih": (3 * hidden_size, width), "weight_hh": (3 * hidden_size, hidden_size),
                "bias_ih": (3 * hidden_size,), "bias_hh": (3 * hidden_size,),
            }  # fmt: skip
            for name, shape in shapes.items():
                self.register_parameter(f"{name}_l{k}", nn.Parameter(torch.empty(shape).uniform_(-bound, bound)))

    def _weights(self, k: int) -> list[Tensor]:
        """Return the four parameters of layer k."""
        names = f"weight_ih_l{k}", f"weight_hh_l{k}", f"bias_ih_l{k}", f"bias_hh_l{k}"
        return [getattr(self, name) for name in names]

    def forward(self, x: Tensor, h0: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Run all layers.

        Args:
            x: inputs, time first, `(T, B, D)`. T = 0 is legal.
            h0: the states before the first step, one per layer, `(L, B, H)`; None means zeros.

        Returns:
            The top layer's states, `(T, B, H)`, and each layer's last state, `(L, B, H)`. With T = 0 the latter are
            the initial states. In training, dropout acts on what is passed between layers (kept entries are divided
            by 1 - dropout), never on x, on the top layer's states or on the states within a layer.

        Raises:
            ValueError: h0 is not `(L, B, H)`.

        Cost: at most L times what `gru_scan` may cost: T + 1 matrix products and 16 T + 20 operations per layer.
        """
        if h0 is not None and h0.shape != (self.num_layers, x.shape[1], self.hidden_size):
            raise ValueError(f"h0 must be {(self.num_layers, x.shape[1], self.hidden_size)}, got {tuple(h0.shape)}")
        last = []
        for k in range(self.num_layers):
            if k > 0:
                x = self._between(x)
            x, h = gru_scan(x, None if h0 is None else h0[k], *self._weights(k))
            last.append(h)
        return x, torch.stack(last)

    def _between(self, x: Tensor) -> Tensor:
        """Drop entries of what one layer passes to the next."""
        return F.dropout(x, self.dropout, self.training)


exercise = Exercise(
    DeepGRU,
    points=8,
    gradients=("x", "h0", "parameters"),
    may_alias=True,
    cost=Cost(ops=3 * (16 * 12 + 20), matmuls=3 * (12 + 1)),
    forbid=FORBID,
    uses=("gru_scan",),
    hints=(
        "A layer's outputs are the next layer's inputs: the loop over layers replaces x again and again.",
        "register_parameter(f'weight_ih_l{k}', nn.Parameter(...)) gives the names that are wanted; the first layer's "
        "inputs have D columns, all others' H. Each layer starts from its own h0[k].",
        "for k in range(L): if k > 0: x = F.dropout(x, self.dropout, self.training); x, h = gru_scan(x, None if h0 is "
        "None else h0[k], four parameters of layer k); collect h. Return x and torch.stack of the collected.",
    ),
    source="D2L recurrent-modern/deep-rnn",
)


@exercise.truth
class Truth(nn.Module):
    def __init__(self, input_size, hidden_size, num_layers, dropout=0.0):
        super().__init__()
        torch_gru = nn.GRU(input_size, hidden_size, num_layers)
        for name, parameter in torch_gru.named_parameters():
            self.register_parameter(name, nn.Parameter(parameter.detach().clone()))
        self.hidden_size, self.num_layers, self.dropout = hidden_size, num_layers, dropout

    def forward(self, x, h0=None):
        first = x.new_zeros(self.num_layers, x.shape[1], self.hidden_size) if h0 is None else h0
        if len(x) == 0:
            return x.new_zeros(0, x.shape[1], self.hidden_size), first
        weights = list(self.parameters())
        dropout = self.dropout if self.num_layers > 1 else 0.0
        return torch.gru(x, first.contiguous(), weights, True, self.num_layers, dropout, self.training, False, False)


def in_training(candidate, x, h0):
    """Compare a module in training, where dropout draws at random, with itself in evaluation."""
    hidden = h0.shape[-1]
    first, states = candidate(x, h0)
    second, _ = candidate(x, h0)
    candidate.eval()
    calm, calm_states = candidate(x, h0)
    candidate.train()
    return {
        "two training runs differ": not torch.equal(first, second),
        "training differs from evaluation": not torch.equal(first, calm),
        "two evaluation runs agree": torch.equal(calm, candidate.eval()(x, h0)[0]),
        "the lowest layer's state knows no dropout": torch.allclose(states[0], calm_states[0], atol=1e-5),
        "the top layer's outputs are not dropped": int((first == 0).sum()) == 0,
        "the last output is the last state": torch.allclose(first[-1], states[-1], atol=1e-6),
        "still in training": candidate.train().training,
        "sizes": [hidden, list(first.shape), list(states.shape)],
    }


def amount(candidate, x):
    """Measure how much is dropped, and at what scale, on a layer 1 that hands its inputs on (see `copier`)."""
    noisy, calm = candidate(x)[0], candidate.eval()(x)[0]
    candidate.train()
    kept = noisy != 0
    return {
        "share of dropped entries, to one digit": round(float((~kept).double().mean()), 1),
        "kept entries are multiplied by, to one digit": round(float((noisy[kept] / calm[kept]).double().mean()), 1),
    }


def copier(hidden):
    """Return weights of a layer 1 whose state after one step is its input times 0.0005."""
    w_ih = torch.zeros(3 * hidden, hidden)
    w_ih[2 * hidden :] = 1e-3 * torch.eye(hidden)
    zeros = torch.zeros(3 * hidden)
    return {"weight_ih_l1": w_ih, "weight_hh_l1": torch.zeros_like(w_ih), "bias_ih_l1": zeros, "bias_hh_l1": zeros}


@exercise.cases
def cases(draw):
    three, two = (4, 5, 3), (3, 6, 2)
    yield Case("three layers, h0 given", draw.normal(4, 2, 4), draw.normal(3, 2, 5), init=three)
    yield Case("two layers, h0=None", draw.normal(5, 3, 3), init=two)
    yield Case("one layer", draw.normal(4, 3, 2), draw.normal(1, 3, 4), init=(2, 4, 1))
    yield Case("as many inputs as units", draw.normal(4, 2, 3), draw.normal(2, 2, 3), init=(3, 3, 2))
    yield Case("as many layers as sequences", draw.normal(3, 2, 4), draw.normal(2, 2, 3), init=(4, 3, 2))
    yield Case("one step", draw.normal(1, 3, 3), draw.normal(2, 3, 6), init=two)
    yield Case("dropout=0.5 in evaluation", draw.normal(4, 2, 3), draw.normal(2, 2, 6), init=(*two, 0.5))
    yield Case(
        "dropout=0.5 with one layer, in training", draw.normal(4, 3, 2), init=(2, 4, 1, 0.5), train=True, edge=True
    )
    yield Case("dropout=0 in training", draw.normal(3, 2, 3), init=(*two, 0.0), train=True)
    yield Case(
        "dropout=0.4 in training", draw.normal(5, 6, 4), draw.normal(3, 6, 5), init=(*three, 0.4), train=True,
        draws=True, grad=False, layouts=False, probe=in_training,
    )  # fmt: skip
    yield Case(
        "how much is dropped, dropout=0.8", draw.normal(1, 40, 3), init=(3, 64, 2, 0.8), state=copier(64), train=True,
        draws=True, grad=False, layouts=False, probe=amount,
    )  # fmt: skip
    yield Case("no steps", draw.normal(0, 3, 3), draw.normal(2, 3, 6), init=two, edge=True)
    yield Case("no steps, h0=None", draw.normal(0, 3, 3), init=two, edge=True, hidden=True)
    yield Case("h0 as a keyword", draw.normal(3, 2, 3), h0=draw.normal(2, 2, 6), init=two, edge=True)
    yield Case("twelve steps, three layers", draw.normal(12, 2, 4), draw.normal(3, 2, 5), init=three, cost=True)
    yield Case(
        "one sequence of size 100", draw.normal(4, 3, 3) * torch.tensor([[1.0], [1e2], [1.0]]), init=two, hidden=True
    )
    yield Case("tiny inputs", 1e-3 * draw.normal(4, 2, 4), 1e-3 * draw.normal(3, 2, 5), init=three, hidden=True)
    yield Case("a batch of one, four layers", draw.normal(5, 1, 2), draw.normal(4, 1, 3), init=(2, 3, 4), hidden=True)
    yield Case("batch first in memory", draw.normal(3, 6, 4).transpose(0, 1), init=three, edge=True, hidden=True)
    yield Case("num_layers = 0", draw.normal(3, 2, 4), init=(4, 5, 0), raises=ValueError)
    yield Case("dropout = 1", draw.normal(3, 2, 4), init=(4, 5, 2, 1.0), raises=ValueError)
    yield Case("dropout = -0.1", draw.normal(3, 2, 4), init=(4, 5, 2, -0.1), raises=ValueError)
    yield Case("h0 of one layer only", draw.normal(3, 2, 4), draw.normal(2, 5), init=three, raises=ValueError)
    yield Case("h0 has the batch first", draw.normal(3, 2, 4), draw.normal(2, 3, 5), init=three, raises=ValueError)
    yield Case(
        "h0 has a layer too many",
        draw.normal(3, 2, 4),
        draw.normal(4, 2, 5),
        init=three,
        raises=ValueError,
        hidden=True,
    )
    yield Case("dropout = 1.5", draw.normal(3, 2, 4), init=(4, 5, 2, 1.5), raises=ValueError, hidden=True)


@exercise.growth("batch", sizes=(16, 32), ops=0.0, matmuls=0.0)
def more_rows(draw, size):
    return Case(f"batch of {size}", draw.normal(3, size, 2), init=(2, 4, 2))


@exercise.growth("steps", sizes=(16, 32), ops=1.0, matmuls=1.0, moved=1.0)
def more_steps(draw, size):
    return Case(f"{size} steps", draw.normal(size, 3, 2), init=(2, 4, 2))


@exercise.wrong("Layer k reads layer k - 1; only the lowest one reads x.", caught_by="runs")
class EveryLayerReadsX(DeepGRU):
    def forward(self, x, h0=None):
        runs, h0 = [], check_h0(self, x, h0)
        for k in range(self.num_layers):
            runs.append(gru_scan(x, h0[k], *self._weights(k)))
        return runs[-1][0], torch.stack([h for _, h in runs])


@exercise.wrong("Every layer has parameters of its own; here the layers above the first share theirs.")
class SharedWeights(DeepGRU):
    def _weights(self, k):
        return super()._weights(min(k, 1))


@exercise.wrong("Dropout acts between layers only, not on what the top layer returns.")
class DropoutAfterTheLast(DeepGRU):
    def forward(self, x, h0=None):
        outputs, states = super().forward(x, h0)
        return self._between(outputs), states


@exercise.wrong("Dropout acts between layers only: x itself must not be dropped.")
class DropoutOnTheInput(DeepGRU):
    def forward(self, x, h0=None):
        return super().forward(self._between(x), h0)


@exercise.wrong("The final states are stacked along a new first dimension: (L, B, H).", caught_by="shape")
class StatesStackedOnDim1(DeepGRU):
    def forward(self, x, h0=None):
        outputs, states = super().forward(x, h0)
        return outputs, states.transpose(0, 1)


@exercise.wrong("h0 belongs to the caller, who may use it again: collect the new states elsewhere.", caught_by="inputs")
class H0Overwritten(DeepGRU):
    def forward(self, x, h0=None):
        outputs, states = super().forward(x, h0)
        if h0 is not None:
            h0.data.copy_(states)
        return outputs, states


@exercise.wrong(
    "Tensors in a plain list are no parameters: the state dict does not know them and the optimiser never sees them.",
    caught_by="runs",
)
class PlainList(DeepGRU):
    def __init__(self, input_size, hidden_size, num_layers, dropout=0.0):
        super().__init__(input_size, hidden_size, num_layers, dropout)
        self.layers = [super(PlainList, self)._weights(k) for k in range(num_layers)]
        for name in [name for name, _ in self.named_parameters()]:
            delattr(self, name)

    def _weights(self, k):
        return self.layers[k]


@exercise.wrong("h0 is ignored: every layer starts from its own h0[k].")
class H0Ignored(DeepGRU):
    def forward(self, x, h0=None):
        check_h0(self, x, h0)
        return super().forward(x)


@exercise.wrong("Each layer starts from its own state h0[k], not all of them from h0[0].")
class FirstStateForAll(DeepGRU):
    def forward(self, x, h0=None):
        check_h0(self, x, h0)
        return super().forward(x, None if h0 is None else h0[:1].expand_as(h0))


@exercise.wrong("A layer starts from its own h0[k], not from the final state of the layer below.")
class StateHandedUp(DeepGRU):
    def forward(self, x, h0=None):
        h = check_h0(self, x, h0)[0]
        last = []
        for k in range(self.num_layers):
            x = self._between(x) if k else x
            x, h = gru_scan(x, h, *self._weights(k))
            last.append(h)
        return x, torch.stack(last)


@exercise.wrong("Only the top layer's state is returned; all layers' are wanted, (L, B, H).", caught_by="shape")
class TopStateOnly(DeepGRU):
    def forward(self, x, h0=None):
        outputs, states = super().forward(x, h0)
        return outputs, states[-1:] if self.num_layers > 1 else states[0]


@exercise.wrong("The states are in the order of the layers, the lowest first.")
class TopLayerFirst(DeepGRU):
    def forward(self, x, h0=None):
        outputs, states = super().forward(x, h0)
        return outputs, states.flip(0)


@exercise.wrong("The states of all layers are returned as outputs; only the top layer's are wanted.", caught_by="shape")
class AllOutputs(DeepGRU):
    def forward(self, x, h0=None):
        h0, runs = check_h0(self, x, h0), []
        for k in range(self.num_layers):
            runs.append(gru_scan(self._between(runs[-1][0]) if k else x, h0[k], *self._weights(k)))
        return torch.stack([states for states, _ in runs]), torch.stack([h for _, h in runs])


@exercise.wrong("Dropout belongs to training: pass self.training, or use nn.Dropout, which knows the mode.")
class DropoutInEvaluation(DeepGRU):
    def _between(self, x):
        return F.dropout(x, self.dropout, training=True)


@exercise.wrong("There is no dropout at all: in training it acts on what is passed between layers.")
class NoDropout(DeepGRU):
    def _between(self, x):
        return x


@exercise.wrong("The entries that are kept must be divided by 1 - dropout, so that the mean stays what it is.")
class KeptEntriesNotScaled(DeepGRU):
    def _between(self, x):
        return F.dropout(x, self.dropout, self.training) * (1 - self.dropout if self.training else 1)


@exercise.wrong("dropout is the probability to drop, not the probability to keep.")
class DropoutIsKept(DeepGRU):
    def _between(self, x):
        return F.dropout(x, 1 - self.dropout, self.training) if self.dropout else x


@exercise.wrong("Dropout must not act on the states within a layer, nor on the final states.")
class DropoutOnTheStates(DeepGRU):
    def forward(self, x, h0=None):
        outputs, states = super().forward(x, h0)
        return outputs, F.dropout(states, self.dropout, self.training) if self.num_layers > 1 else states


@exercise.wrong("num_layers < 1 and a dropout outside [0, 1) are errors.", caught_by="errors")
class ArgumentsNotChecked(DeepGRU):
    def __init__(self, input_size, hidden_size, num_layers, dropout=0.0):
        super().__init__(input_size, hidden_size, max(num_layers, 1), min(max(dropout, 0.0), 0.99))


@exercise.wrong("h0 of a wrong shape is an error, not a reason to broadcast.", caught_by="errors")
class H0NotChecked(DeepGRU):
    def forward(self, x, h0=None):
        wanted = (self.num_layers, x.shape[1], self.hidden_size)
        if h0 is not None and h0.shape != wanted:
            h0 = h0[: self.num_layers].reshape(-1)[:1].expand(wanted)
        return super().forward(x, h0)


@exercise.wrong(
    "The states are detached: gradients must reach h0 and travel through all layers.", caught_by="gradients"
)
class StatesDetached(DeepGRU):
    def forward(self, x, h0=None):
        outputs, states = super().forward(x, None if h0 is None else h0.detach())
        return outputs, states.detach()


@exercise.wrong("Zeros made without dtype= are float32: use x.new_zeros, or hand None on.", caught_by="runs")
class ZerosInFloat32(DeepGRU):
    def forward(self, x, h0=None):
        return super().forward(x, torch.zeros(self.num_layers, x.shape[1], self.hidden_size) if h0 is None else h0)


@exercise.wrong("One run of all layers per sequence: every step can treat the whole batch at once.", caught_by="growth")
class LoopOverTheBatch(DeepGRU):
    def forward(self, x, h0=None):
        h0 = check_h0(self, x, h0)
        if self.training:
            return super().forward(x, h0)
        runs = [super(LoopOverTheBatch, self).forward(x[:, n : n + 1], h0[:, n : n + 1]) for n in range(x.shape[1])]
        return torch.cat([outputs for outputs, _ in runs], 1), torch.cat([states for _, states in runs], 1)


def check_h0(module, x, h0):
    """Raise as the solution does; return h0, or zeros for None."""
    shape = module.num_layers, x.shape[1], module.hidden_size
    if h0 is not None and h0.shape != shape:
        raise ValueError
    return x.new_zeros(shape) if h0 is None else h0


@exercise.right("layers from below, states in a tensor made beforehand, own cell")
class OwnCell(nn.Module):
    def __init__(self, input_size, hidden_size, num_layers, dropout=0.0):
        super().__init__()
        if num_layers < 1 or dropout < 0 or dropout >= 1:
            raise ValueError
        self.size, self.layers, self.drop = hidden_size, num_layers, nn.Dropout(dropout)
        for k in range(num_layers):
            setattr(
                self, f"weight_ih_l{k}", nn.Parameter(torch.randn(3 * hidden_size, hidden_size if k else input_size))
            )
            setattr(self, f"weight_hh_l{k}", nn.Parameter(torch.randn(3 * hidden_size, hidden_size)))
            setattr(self, f"bias_ih_l{k}", nn.Parameter(torch.zeros(3 * hidden_size)))
            setattr(self, f"bias_hh_l{k}", nn.Parameter(torch.zeros(3 * hidden_size)))

    def forward(self, x, h0=None):
        shape = (self.layers, x.shape[1], self.size)
        h0 = x.new_zeros(shape) if h0 is None else h0
        if h0.shape != shape:
            raise ValueError
        states = []
        for k, h in enumerate(h0.unbind(0)):
            if k:
                x = self.drop(x)
            a = x @ getattr(self, f"weight_ih_l{k}").T + getattr(self, f"bias_ih_l{k}")
            outputs = x.new_empty(*x.shape[:2], self.size)
            for t in range(len(x)):
                c = h @ getattr(self, f"weight_hh_l{k}").T + getattr(self, f"bias_hh_l{k}")
                r, z = (a[t, :, : 2 * self.size] + c[:, : 2 * self.size]).sigmoid().chunk(2, 1)
                n = (a[t, :, 2 * self.size :] + r * c[:, 2 * self.size :]).tanh()
                h = n + z * (h - n)
                outputs[t] = h
            x = outputs
            states.append(h)
        return x, torch.stack(states)


@exercise.right("dropout by a random mask, layers in a recursion")
class Recursive(DeepGRU):
    def forward(self, x, h0=None):
        return self.climb(x, check_h0(self, x, h0), 0, ())

    def climb(self, x, h0, k, done):
        if k == self.num_layers:
            return x, torch.stack(done)
        if k and self.training and self.dropout:
            x = x * (torch.rand_like(x) >= self.dropout) / (1 - self.dropout)
        outputs, last = gru_scan(x, h0[k], *self._weights(k))
        return self.climb(outputs, h0, k + 1, (*done, last))
