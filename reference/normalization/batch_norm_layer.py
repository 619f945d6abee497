"""Batch normalisation as a layer."""

import torch
from torch import Tensor, nn

from grader import Case, Cost, Exercise
from reference.normalization import FORBID
from reference.normalization.batch_norm import batch_norm


class BatchNorm(nn.Module):
    """Keep the parameters and running values of batch normalisation, and apply it.

    State:
        weight: parameter `(num_features,)`, initially ones.
        bias: parameter `(num_features,)`, initially zeros.
        running_mean: buffer `(num_features,)`, initially zeros.
        running_var: buffer `(num_features,)`, initially ones.
        num_batches_tracked: buffer, a 0-d int64 tensor, initially 0.

        These are the names of `nn.BatchNorm2d`, whose state dict can be loaded.

    Args:
        num_features: C, the number of channels.
        eps: added to the variance, inside the root.
        momentum: the weight of the new batch in the running values; None for a cumulative average, in which the
            t-th batch has the weight 1 / t (a Python number, not a float32 tensor).

    Raises:
        ValueError: in forward, as `batch_norm` does: `X` is neither 2-D nor 4-D, has another number of channels, or
            has fewer than 2 values per channel in training. The counter and the running values are unchanged then.

    Example:
        >>> layer = BatchNorm(1)
        >>> layer(torch.tensor([[0.0], [2.0]])).detach()
        tensor([[-1.0000],
                [ 1.0000]])
        >>> layer.running_mean, layer.running_var, layer.num_batches_tracked
        (tensor([0.1000]), tensor([1.1000]), tensor(1))
        >>> layer.eval()(torch.tensor([[0.1]])).detach()
        tensor([[0.]])
    """

    def __init__(self, num_features: int, eps: float = 1e-5, momentum: float | None = 0.1) -> None:
        super().__init__()
        self.eps = eps
        self.momentum = momentum
        self.weight = nn.Parameter(torch.ones(num_features))
        self.bias = nn.Parameter(torch.zeros(num_features))
        self.register_buffer("running_mean", torch.zeros(num_features))
        self.register_buffer("running_var", torch.ones(num_features))
        self.register_buffer("num_batches_tracked", torch.tensor(0))

    def forward(self, X: Tensor) -> Tensor:
        """Normalise `X`: by its own statistics in train mode, by the running values in eval mode.

        Each call in train mode adds 1 to the counter and updates the running values, all in place.

        Args:
            X: `(N, C)` or `(N, C, H, W)`.

        Returns:
            Tensor shaped like `X`.
        """
        factor = self.momentum
        if self.training and factor is None:
            factor = 1 / (int(self.num_batches_tracked) + 1)
        Y = batch_norm(
            X, self.weight, self.bias, self.running_mean, self.running_var,
            training=self.training, momentum=factor, eps=self.eps,
        )  # fmt: skip
        if self.training:
            self.num_batches_tracked += 1
        return Y


exercise = Exercise(
    BatchNorm,
    points=8,
    gradients=("X", "parameters"),
    cost=Cost(ops=30, syncs=0),
    forbid=FORBID,
    uses=("batch_norm",),
    hints=(
        "What must be saved and moved with the model, but not be trained? nn.Module has a word for it.",
        'self.register_buffer("running_mean", torch.zeros(num_features)), and likewise running_var and the counter; '
        "weight and bias are nn.Parameter. self.training tells the mode.",
        "forward calls batch_norm with training=self.training and momentum=self.momentum, or 1 / (int(counter) + "
        "1) read before the call when momentum is None; after the call self.num_batches_tracked += 1 in train "
        "mode.",
    ),
    source="D2L convolutional-modern/batch-norm, builders-guide/custom-layer",
)


@exercise.truth
class Truth(nn.modules.batchnorm._BatchNorm):
    def __init__(self, num_features, eps=1e-5, momentum=0.1):
        super().__init__(num_features, eps, momentum)

    def _check_input_dim(self, X):
        if X.ndim not in (2, 4) or X.shape[1] != self.num_features:
            raise ValueError

    def forward(self, X):
        self._check_input_dim(X)
        if self.training and X.numel() < 2 * X.shape[1]:
            raise ValueError
        return super().forward(X)


def five_steps(layer, X):
    layer.train()
    outputs = [layer(batch) for batch in X]
    state = {name: buffer.clone() for name, buffer in layer.named_buffers()}
    layer.eval()
    return {"training": outputs, "state": state, "eval": layer(X[0])}


def twice_in_eval(layer, X):
    first = layer(X)
    return {"first": first, "again": layer(X), "one image": layer(X[:1])}


def same_buffers(layer, X):
    kept = {name: buffer for name, buffer in layer.named_buffers() if name != "num_batches_tracked"}
    layer(X)
    return {name: buffer.clone() for name, buffer in kept.items()}


def after_an_error(layer, X):
    try:
        layer(X)
        refused = False
    except ValueError:
        refused = True
    return {"raises ValueError": refused, "state": {name: buffer.clone() for name, buffer in layer.named_buffers()}}


def just_made(BatchNorm, num_features):
    layer = BatchNorm(num_features)
    return {
        "parameters": {name: p.detach() for name, p in layer.named_parameters()},
        "state": {name: t.detach().clone() for name, t in layer.state_dict().items()},
        "train mode": layer.training,
    }


def with_keywords(BatchNorm, X):
    layer = BatchNorm(num_features=X.shape[1], momentum=0.25, eps=0.5).to(X.dtype)
    return {"output": layer(X), "running_mean": layer.running_mean.clone(), "running_var": layer.running_var.clone()}


def saved_and_loaded(BatchNorm, X):
    first, second = BatchNorm(X.shape[1]).to(X.dtype), BatchNorm(X.shape[1]).to(X.dtype)
    for _ in range(3):
        first(X)
    second.load_state_dict({name: t.clone() for name, t in first.state_dict().items()})
    second.eval()
    return {"output": second(X), "keys": sorted(first.state_dict())}


def moved(BatchNorm, num_features):
    layer = BatchNorm(num_features)
    names = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
    layer.double()
    dtypes = {name: str(getattr(layer, name).dtype) for name in names}
    layer.to("meta")
    return {"dtypes after double()": dtypes, "devices": {name: str(getattr(layer, name).device) for name in names}}


def copied(BatchNorm, X):
    import copy

    first = BatchNorm(X.shape[1]).to(X.dtype)
    second = copy.deepcopy(first)
    second(X)
    third = BatchNorm(X.shape[1]).to(X.dtype)
    layers = {"original": first, "copy": second, "another": third}
    return {
        name: [t.clone() for t in (m.running_mean, m.running_var, m.num_batches_tracked)] for name, m in layers.items()
    }


@exercise.cases
def cases(draw):
    def state(C, scale=1.0, count=4):
        return {
            "running_mean": scale * draw.normal(C),
            "running_var": scale**2 * draw.uniform(C, low=0.5, high=2.0),
            "num_batches_tracked": torch.tensor(count),
        }

    yield Case("images, training", draw.normal(3, 4, 5, 2), init=(4,), state=state(4), train=True, cost=True)
    yield Case("features, training", draw.normal(6, 3), init=(3,), state=state(3), train=True)
    yield Case("images, eval", draw.normal(3, 4, 2, 5), init=(4,), state=state(4))
    yield Case("features, eval", draw.normal(4, 3), init=(3,), state=state(3))
    yield Case("eval of one image", draw.normal(1, 3, 2, 4), init=(3,), state=state(3), edge=True)
    yield Case("eval of one row", draw.normal(1, 5), init=(5,), state=state(5), edge=True)
    yield Case("five steps, momentum 0.1", draw.normal(5, 4, 3) + 2, init=(3,), probe=five_steps)
    yield Case(
        "five steps on images, momentum 0.3", 3 * draw.normal(5, 3, 2, 4, 3), init=(2, 1e-5, 0.3), probe=five_steps
    )
    yield Case("five steps, momentum None", draw.normal(5, 3, 4), init=(4, 1e-5, None), probe=five_steps)
    yield Case(
        "momentum 0", draw.normal(5, 4, 3), init={"num_features": 3, "momentum": 0.0}, probe=five_steps, edge=True
    )
    yield Case("eval before the first batch, momentum None", draw.normal(4, 3), init=(3, 1e-5, None), edge=True)
    yield Case("the seventh batch, momentum None", draw.normal(5, 4), init={"num_features": 4, "momentum": None},
               state=state(4, count=6), train=True)  # fmt: skip
    yield Case("another eps", draw.normal(3, 2, 4, 2), init=(2, 0.1), state=state(2), train=True)
    yield Case("another eps, eval", draw.normal(4, 3), init=(3, 0.1), state=state(3))
    yield Case("mean 3000", draw.normal(4, 3, 5, 2) + 3000, init=(3,), state=state(3), train=True)
    yield Case("tiny values", 1e-3 * draw.normal(6, 4), init=(4,), state=state(4, 1e-3), train=True)
    yield Case("eval twice", draw.normal(4, 3, 2, 5), init=(3,), state=state(3), probe=twice_in_eval)
    yield Case("the buffers stay the same tensors", draw.normal(5, 3), init=(3,), train=True, probe=same_buffers)
    yield Case("just made", 3, probe=just_made)
    yield Case("keyword arguments", draw.normal(6, 4), probe=with_keywords)
    yield Case("saved and loaded", draw.normal(4, 3, 2, 2) + 1, probe=saved_and_loaded)
    yield Case("double() and to('meta')", 4, probe=moved)
    yield Case("a deep copy has its own values", draw.normal(5, 3), probe=copied)
    wrong = {
        "another number of channels": (draw.normal(4, 2, 3, 5), 3),
        "one row in training": (draw.normal(1, 3), 3),
        "a sequence in training": (draw.normal(4, 3, 5), 3),
    }
    for name, (X, C) in wrong.items():
        yield Case(f"{name}: nothing is counted", X, init=(C, 1e-5, None), train=True, probe=after_an_error, edge=True,
                   grad=False, layouts=False)  # fmt: skip
    yield Case("another number of channels in eval", draw.normal(4, 5), init=(3,), raises=ValueError)
    yield Case("one channel for three, in eval", draw.normal(4, 1, 2, 2), init=(3,), raises=ValueError)
    yield Case("a sequence in eval", draw.normal(4, 3, 5), init=(3,), raises=ValueError, hidden=True)
    yield Case("one image of one pixel, training", draw.normal(1, 3, 1, 1), init=(3,), train=True, raises=ValueError)
    yield Case("no rows, training", torch.zeros(0, 3), init=(3,), train=True, raises=ValueError, hidden=True)
    yield Case("no rows, eval", torch.zeros(0, 3), init=(3,), edge=True, hidden=True)
    yield Case("one image, training", draw.normal(1, 3, 2, 4), init=(3,), train=True, edge=True, hidden=True)
    yield Case("five more steps", draw.normal(5, 2, 3, 2, 5) - 4, init=(3, 1e-3, 0.6), probe=five_steps, hidden=True)
    yield Case("five more steps, momentum None", 20 * draw.normal(5, 6, 2), init=(2, 1e-5, None), probe=five_steps,
               hidden=True)  # fmt: skip
    yield Case("more features just made", 7, probe=just_made, hidden=True)


@exercise.growth("channels", ops=0.0)
def more_channels(draw, size):
    return Case(f"{size} channels", draw.normal(3, size, 4, 5), init=(size,), train=True)


@exercise.wrong(
    "A plain tensor attribute is neither saved nor moved with the model: register_buffer.", caught_by="runs"
)
class PlainAttributes(BatchNorm):
    def __init__(self, num_features, eps=1e-5, momentum=0.1):
        super().__init__(num_features, eps, momentum)
        values = dict(self.named_buffers())
        self._buffers.clear()
        for name, value in values.items():
            setattr(self, name, value)


@exercise.wrong("persistent=False leaves the running values out of the state dict: a loaded model has lost them.",
                caught_by="runs")  # fmt: skip
class BuffersNotSaved(BatchNorm):
    def __init__(self, num_features, eps=1e-5, momentum=0.1):
        super().__init__(num_features, eps, momentum)
        for name, value in list(self.named_buffers()):
            self.register_buffer(name, value, persistent=False)


@exercise.wrong("Running values as parameters would be handed to the optimiser and trained: they are buffers.")
class RunningParameters(BatchNorm):
    def __init__(self, num_features, eps=1e-5, momentum=0.1):
        super().__init__(num_features, eps, momentum)
        for name in ("running_mean", "running_var"):
            value = self._buffers.pop(name)
            setattr(self, name, nn.Parameter(value))

    def forward(self, X):
        mean, var = self.running_mean, self.running_var
        factor = 1 / (int(self.num_batches_tracked) + 1) if self.momentum is None else self.momentum
        Y = batch_norm(X, self.weight, self.bias, mean.data, var.data, training=self.training, momentum=factor,
                       eps=self.eps)  # fmt: skip
        self.num_batches_tracked += self.training
        return Y


@exercise.wrong("Frozen parameters are still parameters: the running values belong into buffers.")
class FrozenParameters(RunningParameters):
    def __init__(self, num_features, eps=1e-5, momentum=0.1):
        super().__init__(num_features, eps, momentum)
        self.running_mean.requires_grad_(False)
        self.running_var.requires_grad_(False)


class _Replacing(BatchNorm):
    def new(self, mean, var):
        return mean, var

    def forward(self, X):
        mean, var = self.running_mean.clone(), self.running_var.clone()
        factor = 1 / (int(self.num_batches_tracked) + 1) if self.momentum is None else self.momentum
        Y = batch_norm(X, self.weight, self.bias, mean, var, training=self.training, momentum=factor, eps=self.eps)
        if self.training:
            self.num_batches_tracked += 1
            self.running_mean, self.running_var = mean, var
        return Y


@exercise.wrong("A new tensor in each step breaks whoever shares the buffer: update it in place.")
class ReplacesTheBuffers(_Replacing):
    pass


@exercise.wrong("Buffers built from the batch drag its graph along, step after step: detach, and update in place.",
                caught_by="gradients")  # fmt: skip
class BuffersWithAGraph(BatchNorm):
    def forward(self, X):
        Y = super().forward(X)
        if self.training:
            self.running_mean = self.running_mean + 0 * X.sum()
        return Y


@exercise.wrong(
    "In eval mode the running values normalise: with statistics of its own, one row would become just the bias."
)
class BatchStatisticsInEval(BatchNorm):
    def forward(self, X):
        if self.training or X.ndim not in (2, 4) or X.numel() < 2 * X.shape[1]:
            return super().forward(X)
        return batch_norm(X, self.weight, self.bias, self.running_mean.clone(), self.running_var.clone(), training=True,
                          eps=self.eps)  # fmt: skip


@exercise.wrong("self.training tells the mode; without it the layer learns from every batch that it sees.")
class AlwaysTraining(BatchNorm):
    def forward(self, X):
        before, self.training = self.training, self.training or X.numel() >= 2 * X.shape[1]
        try:
            return super().forward(X)
        finally:
            self.training = before


@exercise.wrong("Whether gradients are enabled says nothing about the mode: ask self.training.")
class GradientModeDecides(BatchNorm):
    def forward(self, X):
        before, self.training = self.training, torch.is_grad_enabled()
        try:
            return super().forward(X)
        finally:
            self.training = before


@exercise.wrong("The counter is an int64 tensor; as a float it would stop counting at 2^24.")
class FloatCounter(BatchNorm):
    def __init__(self, num_features, eps=1e-5, momentum=0.1):
        super().__init__(num_features, eps, momentum)
        self.num_batches_tracked = torch.tensor(0.0)


@exercise.wrong("A Python int is not part of the state: register the counter as an int64 buffer.", caught_by="runs")
class PythonCounter(BatchNorm):
    def __init__(self, num_features, eps=1e-5, momentum=0.1):
        super().__init__(num_features, eps, momentum)
        del self.num_batches_tracked
        self.num_batches_tracked = 0


@exercise.wrong("The counter is 0-d, torch.tensor(0): a tensor of shape (1,) does not fit saved models.")
class CounterOfOneElement(BatchNorm):
    def __init__(self, num_features, eps=1e-5, momentum=0.1):
        super().__init__(num_features, eps, momentum)
        self.num_batches_tracked = torch.zeros(1, dtype=torch.int64)


class _Factor(BatchNorm):
    def factor(self):
        return 1 / (int(self.num_batches_tracked) + 1) if self.momentum is None else self.momentum

    def forward(self, X):
        factor = self.factor() if self.training else 0.1
        Y = batch_norm(X, self.weight, self.bias, self.running_mean, self.running_var, training=self.training,
                       momentum=factor, eps=self.eps)  # fmt: skip
        self.num_batches_tracked += self.training
        return Y


@exercise.wrong(
    "The first batch has the weight 1 / 1, not 1 / 2: each batch is counted once, so it is 1 / (counter + 1) "
    "before counting, or 1 / counter after."
)
class CountsTooLate(_Factor):
    def factor(self):
        return 1 / (int(self.num_batches_tracked) + 2) if self.momentum is None else self.momentum


@exercise.wrong("In eval mode nothing is averaged: 1 / counter fails there before the first batch.", caught_by="runs")
class DividesInEval(BatchNorm):
    def forward(self, X):
        if self.momentum is None and not self.training:
            1 / int(self.num_batches_tracked)
        return super().forward(X)


@exercise.wrong("momentum None asks for a cumulative average with the weight 1 / counter; it is not the default 0.1.")
class NoneIsTheDefault(_Factor):
    def factor(self):
        return 0.1 if self.momentum is None else self.momentum


@exercise.wrong(
    "`momentum or 0.1` takes None and 0 for the default: None asks for a cumulative average, and 0 for no update."
)
class NoneAndZeroAreTheDefault(_Factor):
    def factor(self):
        return self.momentum or 0.1


@exercise.wrong("`momentum or ...` takes 0 for None: ask `momentum is None`.")
class ZeroIsNone(_Factor):
    def factor(self):
        return self.momentum or 1 / (int(self.num_batches_tracked) + 1)


@exercise.wrong(
    "1 / a counter tensor is a float32 tensor: 1 / 3 in float32 is wrong in the 8th digit. Read it: int(...)."
)
class FactorInFloat32(_Factor):
    def factor(self):
        return 1 / (self.num_batches_tracked + 1) if self.momentum is None else self.momentum


@exercise.wrong(
    "The count of a cumulative average is part of the state: a Python attribute starts at 0 again after loading."
)
class CountsInAnAttribute(_Factor):
    seen = 0

    def factor(self):
        return 1 / (self.seen + 1) if self.momentum is None else self.momentum

    def forward(self, X):
        Y = super().forward(X)
        self.seen += self.training
        return Y


@exercise.wrong("Every batch in train mode is counted, also when momentum is a number.")
class CountsOnlyForTheAverage(BatchNorm):
    def forward(self, X):
        Y = super().forward(X)
        self.num_batches_tracked -= int(self.training and self.momentum is not None)
        return Y


@exercise.wrong("Pass momentum on to batch_norm: 0.1 is only its default.")
class MomentumNotUsed(_Factor):
    def factor(self):
        return 1 / (int(self.num_batches_tracked) + 1) if self.momentum is None else 0.1


@exercise.wrong("momentum is the weight of the new batch here, not the share of the old value.")
class MomentumOfTheOldValue(_Factor):
    def factor(self):
        return 1 / (int(self.num_batches_tracked) + 1) if self.momentum is None else 1 - self.momentum


@exercise.wrong("Pass eps on to batch_norm: 1e-5 is only its default.")
class EpsNotUsed(BatchNorm):
    def __init__(self, num_features, eps=1e-5, momentum=0.1):
        super().__init__(num_features, 1e-5, momentum)


@exercise.wrong("Pass eps and momentum on to batch_norm: so far the layer's arguments have no effect.")
class OptionsNotUsed(BatchNorm):
    def __init__(self, num_features, eps=1e-5, momentum=0.1):  # noqa: ARG002 - that is the mistake
        super().__init__(num_features)


@exercise.wrong("Each call in train mode adds 1 to the counter.")
class NeverCounts(BatchNorm):
    def forward(self, X):
        before = self.num_batches_tracked.clone()
        Y = super().forward(X)
        self.num_batches_tracked.copy_(before)
        return Y


@exercise.wrong("Only calls in train mode are counted: eval changes nothing.")
class CountsInEval(BatchNorm):
    def forward(self, X):
        Y = super().forward(X)
        if not self.training:
            self.num_batches_tracked += 1
        return Y


@exercise.wrong(
    "A call that is refused must leave the counter alone: check first, or count after batch_norm has returned."
)
class CountsRefusedCalls(BatchNorm):
    def forward(self, X):
        try:
            return super().forward(X)
        except ValueError:
            self.num_batches_tracked += self.training
            raise


@exercise.wrong("running_var starts at 1: with zeros, an untrained layer in eval mode divides by sqrt(eps).")
class VarStartsAtZero(BatchNorm):
    def __init__(self, num_features, eps=1e-5, momentum=0.1):
        super().__init__(num_features, eps, momentum)
        self.running_var.zero_()


@exercise.wrong("weight starts at 1 (and bias at 0), so that the layer begins by only normalising.")
class WeightStartsAtZero(BatchNorm):
    def __init__(self, num_features, eps=1e-5, momentum=0.1):
        super().__init__(num_features, eps, momentum)
        self.weight.data.zero_()


@exercise.wrong("weight and bias are learned: wrap them in nn.Parameter.")
class AffineBuffers(BatchNorm):
    def __init__(self, num_features, eps=1e-5, momentum=0.1):
        super().__init__(num_features, eps, momentum)
        for name in ("weight", "bias"):
            value = self._parameters.pop(name)
            self.register_buffer(name, value.data)


@exercise.wrong("Saved models rely on the names weight, bias, running_mean, running_var, num_batches_tracked.",
                caught_by="runs")  # fmt: skip
class OtherNames(BatchNorm):
    def __init__(self, num_features, eps=1e-5, momentum=0.1):
        super().__init__(num_features, eps, momentum)
        self.gamma, self.beta = self._parameters.pop("weight"), self._parameters.pop("bias")

    def forward(self, X):
        self.num_batches_tracked += self.training
        return batch_norm(X, self.gamma, self.beta, self.running_mean, self.running_var, training=self.training,
                          momentum=self.momentum, eps=self.eps)  # fmt: skip


@exercise.wrong("While momentum is a number nothing needs the counter: int() makes each step wait for the device.",
                caught_by="cost")  # fmt: skip
class ReadsTheCounter(_Factor):
    def factor(self):
        weight = 1 / (int(self.num_batches_tracked) + 1)
        return weight if self.momentum is None else self.momentum


@exercise.wrong("The layer is part of the graph: detaching X cuts everything below it off.", caught_by="gradients")
class DetachesTheInput(BatchNorm):
    def forward(self, X):
        return super().forward(X.detach())


@exercise.right("without the function, counting first")
class ByItself(BatchNorm):
    def forward(self, X):
        if X.ndim not in (2, 4) or X.shape[1] != len(self.weight):
            raise ValueError
        shape = [1, -1, 1, 1][: X.ndim]
        mean, var = self.running_mean, self.running_var
        if self.training:
            if X.numel() < 2 * X.shape[1]:
                raise ValueError
            self.num_batches_tracked.add_(1)
            factor = 1.0 / self.num_batches_tracked.item() if self.momentum is None else self.momentum
            rows = X.transpose(0, 1).flatten(1)
            var, mean = torch.var_mean(rows, 1, unbiased=False)
            self.running_mean += factor * (mean.detach() - self.running_mean)
            self.running_var += factor * (rows.detach().var(1) - self.running_var)
        scale = self.weight / (var + self.eps).sqrt()
        return (X - mean.view(shape)) * scale.view(shape) + self.bias.view(shape)


@exercise.right("a new counter tensor, a float64 factor")
class NewCounter(BatchNorm):
    def forward(self, X):
        count, factor = self.num_batches_tracked + int(self.training), self.momentum
        if factor is None and self.training:
            factor = 1.0 / float(count)
        mean, var = self.running_mean, self.running_var
        Y = batch_norm(X, self.weight, self.bias, mean, var, training=self.training, momentum=factor, eps=self.eps)
        self.num_batches_tracked = count
        return Y
