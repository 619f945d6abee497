"""Monte Carlo dropout: how sure is a network?"""

import torch
from torch import Tensor, nn

from grader import Case, Exercise

DROPOUTS = (nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout, nn.FeatureAlphaDropout)


def mc_dropout(model: nn.Module, X: Tensor, num_samples: int) -> tuple[Tensor, Tensor]:
    """Estimate mean and variance of a model's output while its dropout stays active.

    Runs `model(X)` exactly `num_samples` times, with every dropout module (`nn.Dropout`, `nn.Dropout1d`,
    `nn.Dropout2d`, `nn.Dropout3d`, wherever it is nested; `nn.AlphaDropout` is not graded) in train mode and every
    other module in eval mode. The random numbers come from torch's global generator, one pass after the other.

    Args:
        model: any module with one tensor as input and output, in any mixture of train and eval mode.
        X: the batch that the model takes.
        num_samples: number of passes, >= 2.

    Returns:
        (mean, variance) over the passes, each of the shape of `model(X)`, without a graph (ordinary tensors, as
        under no_grad). The variance is the unbiased one (divided by num_samples - 1), accurate also where the
        mean is large. Memory does not grow with num_samples.

        Afterwards the `training` flag of every module is what it was before, also if the model raises (its
        exception is passed on). Parameters and buffers are unchanged.

    Raises:
        ValueError: `num_samples` < 2.

    Example:
        >>> model = torch.nn.Sequential(torch.nn.Dropout(0.5), torch.nn.Flatten()).eval()
        >>> mean, variance = mc_dropout(model, torch.tensor([[0.0, 1.0]]), 2000)
        >>> mean[0, 0], variance[0, 0], model[0].training
        (tensor(0.), tensor(0.), False)
        >>> bool((mean[0, 1] - 1).abs() < 0.2), bool((variance[0, 1] - 1).abs() < 0.2)
        (True, True)
    """
    if num_samples < 2:
        raise ValueError(f"num_samples must be at least 2, got {num_samples}")
    flags = [(module, module.training) for module in model.modules()]
    try:
        for module, _ in flags:
            module.training = isinstance(module, DROPOUTS)
        return _mean_and_variance(model, X, num_samples)
    finally:
        for module, training in flags:
            module.training = training


@torch.no_grad()
def _mean_and_variance(model: nn.Module, X: Tensor, num_samples: int) -> tuple[Tensor, Tensor]:
    """Run the passes and update mean and sum of squared deviations by Welford's rule."""
    mean = model(X).clone()
    squares = torch.zeros_like(mean)
    for count in range(2, num_samples + 1):
        y = model(X)
        off = y - mean
        mean += off / count
        squares += off * (y - mean)
    return mean, squares / (num_samples - 1)


exercise = Exercise(
    mc_dropout,
    points=8,
    extra=True,
    forbid=("deepcopy", "autograd", "backward"),
    hints=(
        "model.train() wakes up more than dropout: BatchNorm would learn from your test batch. Which modules need "
        "which mode, and who puts the flags back if a pass fails?",
        "Remember (module, module.training) for all of model.modules(), set each flag by isinstance, and restore "
        "them in a finally block. A variance from the sums of y and y * y loses its digits when the mean is "
        "large: use running differences.",
        "Welford, under no_grad: off = y - mean; mean += off / count; squares += off * (y - mean); the variance is "
        "squares / (num_samples - 1).",
    ),
    source="D2L multilayer-perceptrons/dropout",
)


@exercise.truth
def truth(model, X, num_samples):
    before = {name: module.training for name, module in model.named_modules()}
    try:
        model.eval()
        for module in model.modules():
            if type(module).__name__.startswith("Dropout"):
                module.train()
        with torch.no_grad():
            outputs = torch.stack([model(X) for _ in range(num_samples)])
        return outputs.mean(0), outputs.var(0)
    finally:
        for name, module in model.named_modules():
            module.training = before[name]


@exercise.probe
def passes(candidate, X, num_samples, kind="mlp", offset=0.0, raise_at=0):
    class Counted(nn.Module):
        def __init__(self, net):
            super().__init__()
            self.net, self.calls, self.rows, self.active = net, 0, [], set()

        def forward(self, X):
            self.calls += 1
            self.rows.append(len(X))
            self.active |= {name for name, module in self.named_modules() if module.training}
            if self.calls == raise_at:
                raise ArithmeticError("this pass fails")
            return self.net(X) + offset if offset else self.net(X)

    class Noisy(nn.Module):
        def __init__(self, inner):
            super().__init__()
            self.inner = inner

        def forward(self, X):
            return self.inner(X) * (100.0 if self.training else 1.0)

    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(5)
        if kind == "mlp":
            net = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Dropout(0.4), nn.Linear(6, 3))
        elif kind == "batch norm":
            net = nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.Dropout(0.3), nn.Linear(6, 2), nn.Dropout(0.1))
        elif kind == "nested":
            inner = nn.Sequential(nn.Linear(4, 5), nn.Sequential(nn.Tanh(), nn.Dropout(0.5)))
            net = nn.Sequential(Noisy(inner), nn.ModuleDict({"head": nn.Linear(5, 3)})["head"])
        elif kind == "images":
            net = nn.Sequential(nn.Conv2d(2, 3, 2), nn.Dropout2d(0.5), nn.Flatten(1), nn.Dropout1d(0.2))
        elif kind == "identity":
            net = nn.Identity()
        elif kind == "no dropout":
            net = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3), nn.Tanh())
        else:
            net = nn.Sequential(nn.Dropout(0.5), nn.Linear(4, 96, bias=False))
    for name, buffer in net.named_buffers():
        if "running" in name:
            buffer.add_(torch.arange(buffer.numel()) * 0.125 + 0.25)
    model = Counted(net.to(X.dtype))
    for index, module in enumerate(model.modules()):
        module.training = index % 3 != 1 if kind != "nested" else index % 2 == 1
    names = [name for name, _ in model.named_modules()]
    before = [module.training for module in model.modules()]
    state = {key: value.clone() for key, value in model.state_dict().items()}
    raised, result = "", None
    try:
        result = candidate(model, X, num_samples)
    except ArithmeticError as error:
        raised = type(error).__name__
    after = [module.training for module in model.modules()]
    report = {
        "flags changed": [name for name, old, new in zip(names, before, after, strict=True) if old != new],
        "passes": model.calls,
        "rows": sorted(set(model.rows)),
        "in train mode during a pass": sorted(model.active),
        "state changed": [k for k, v in model.state_dict().items() if not torch.equal(v, state[k])],
        "gradients left": [k for k, p in model.named_parameters() if p.grad is not None or not p.requires_grad],
        "raised": raised,
    }
    if result is not None:
        report["mean"], report["variance"] = result
        report["inference tensors"] = any(t.is_inference() for t in result)
    return report


@exercise.cases
def cases(draw):
    yield Case("a small network", draw.normal(5, 4), 8, draws=True)
    yield Case("batch norm between", draw.normal(6, 4), 5, kind="batch norm", draws=True)
    yield Case("two passes", draw.normal(3, 4), 2, draws=True)
    yield Case("nested modules", draw.normal(5, 4), 6, kind="nested", draws=True)
    yield Case("images, Dropout2d", draw.normal(3, 2, 5, 4), 4, kind="images", draws=True, layouts=False)
    yield Case("no dropout", draw.normal(4, 4), 3, kind="no dropout", draws=True, edge=True)
    yield Case("a mean of 2000", draw.normal(5, 4), 9, offset=2000.0, draws=True)
    yield Case("the third pass raises", draw.normal(4, 4), 5, kind="batch norm", raise_at=3, draws=True, edge=True)
    yield Case("a model that returns its input", draw.normal(3, 4), 3, kind="identity", draws=True, edge=True)
    yield Case("one row", draw.normal(1, 4), 4, kind="batch norm", draws=True, edge=True)
    yield Case("no rows", draw.normal(0, 4), 3, draws=True, edge=True)
    yield Case("tiny inputs", 1e-3 * draw.normal(7, 4), 6, kind="batch norm", draws=True, hidden=True)
    yield Case("large inputs", 100 + 50 * draw.normal(3, 4), 7, kind="nested", draws=True, hidden=True)
    yield Case("a mean of -5000", draw.normal(4, 4), 6, offset=-5000.0, draws=True, hidden=True)
    yield Case("the first pass raises", draw.normal(4, 4), 5, kind="nested", raise_at=1, draws=True, hidden=True)
    yield Case("float64", draw.normal(4, 4, dtype=torch.float64), 3, draws=True, edge=True, hidden=True)
    yield Case("one pass", draw.normal(5, 4), 1, draws=True, raises=ValueError)
    yield Case("no pass", draw.normal(5, 4), 0, kind="nested", draws=True, raises=ValueError, hidden=True)


@exercise.growth("num_samples", sizes=(8, 32), peak=0.0)
def more_samples(draw, size):
    return Case(f"{size} passes", draw.normal(16, 4), size, kind="wide", draws=True)


def frame(model, X, num_samples, collect, is_active=lambda module: isinstance(module, DROPOUTS)):
    """Run the frame of a correct answer; `collect(model, X, num_samples)` makes the passes."""
    if num_samples < 2:
        raise ValueError
    flags = [(module, module.training) for module in model.modules()]
    try:
        for module, _ in flags:
            module.training = is_active(module)
        return collect(model, X, num_samples)
    finally:
        for module, training in flags:
            module.training = training


@exercise.wrong("train() for the whole model wakes up BatchNorm too: it would learn from the test batch.")
def whole_model_trains(model, X, num_samples):
    return frame(model, X, num_samples, _mean_and_variance, lambda _: True)


@exercise.wrong("In plain eval mode dropout does nothing: all passes are the same and the variance is 0.")
def whole_model_in_eval(model, X, num_samples):
    return frame(model, X, num_samples, _mean_and_variance, lambda _: False)


@exercise.wrong("model.train(was) gives every sub-module the flag of the whole: remember and restore each one's own.")
def restored_as_one(model, X, num_samples):
    was = model.training
    try:
        return mc_dropout(model, X, num_samples)
    finally:
        model.train(was)


@exercise.wrong("If a pass raises, the flags stay changed: put the restoring into a finally block.")
def restored_on_success_only(model, X, num_samples):
    if num_samples < 2:
        raise ValueError
    flags = [(module, module.training) for module in model.modules()]
    for module, _ in flags:
        module.training = isinstance(module, DROPOUTS)
    result = _mean_and_variance(model, X, num_samples)
    for module, training in flags:
        module.training = training
    return result


@exercise.wrong("The model is left in eval mode: restore the training flag of every module.")
def left_in_eval(model, X, num_samples):
    try:
        return mc_dropout(model, X, num_samples)
    finally:
        model.eval()


@torch.no_grad()
def by_mean_of_squares(model, X, num_samples):
    outputs = [model(X) for _ in range(num_samples)]
    mean = sum(outputs) / num_samples
    square = sum(y * y for y in outputs) / num_samples
    return mean, (square - mean * mean) * num_samples / (num_samples - 1)


@exercise.wrong("mean(y**2) - mean(y)**2 takes the difference of two large numbers: use running differences (Welford).")
def squares_cancel(model, X, num_samples):
    return frame(model, X, num_samples, by_mean_of_squares)


@torch.no_grad()
def in_one_batch(model, X, num_samples):
    outputs = model(X.repeat(num_samples, *[1] * (X.ndim - 1)))
    outputs = outputs.view(num_samples, len(X), *outputs.shape[1:])
    return outputs.mean(0), outputs.var(0)


@exercise.wrong(
    "One pass over num_samples copies of the batch needs num_samples times the memory: make passes in turn."
)
def one_big_batch(model, X, num_samples):
    return frame(model, X, num_samples, in_one_batch)


def with_graph(model, X, num_samples):
    outputs = torch.stack([model(X) for _ in range(num_samples)])
    return outputs.mean(0), outputs.var(0)


@exercise.wrong("The passes build graphs that nobody needs: run them under no_grad.", caught_by="gradients")
def graph_kept(model, X, num_samples):
    return frame(model, X, num_samples, with_graph)


@torch.no_grad()
def all_outputs_kept(model, X, num_samples):
    return with_graph(model, X, num_samples)


@exercise.wrong(
    "A list of all outputs grows with num_samples: keep a running mean and a running sum of squared deviations.",
    caught_by="growth",
)
def keeps_all_outputs(model, X, num_samples):
    return frame(model, X, num_samples, all_outputs_kept)


@exercise.wrong("The unbiased variance divides by num_samples - 1.")
def biased_variance(model, X, num_samples):
    mean, variance = mc_dropout(model, X, num_samples)
    return mean, variance * (num_samples - 1) / num_samples


@exercise.wrong("The second result is the variance, not its root.")
def standard_deviation(model, X, num_samples):
    mean, variance = mc_dropout(model, X, num_samples)
    return mean, variance.sqrt()


@exercise.wrong("children() sees the top layers only; nested dropout is found with modules().")
def top_layers_only(model, X, num_samples):
    near = {id(m) for child in model.children() for m in (child, *child.children()) if isinstance(m, DROPOUTS)}
    return frame(model, X, num_samples, _mean_and_variance, lambda module: id(module) in near)


@exercise.wrong("nn.Dropout2d and its sisters are no subclasses of nn.Dropout: name them all.")
def plain_dropout_only(model, X, num_samples):
    return frame(model, X, num_samples, _mean_and_variance, lambda module: isinstance(module, nn.Dropout))


@exercise.wrong("Containers and other modules belong in eval mode too, not only BatchNorm.")
def only_batch_norm_in_eval(model, X, num_samples):
    norms = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
    return frame(model, X, num_samples, _mean_and_variance, lambda module: not isinstance(module, norms))


@torch.no_grad()
def one_pass_more(model, X, num_samples):
    model(X)
    return _mean_and_variance(model, X, num_samples)


@exercise.wrong("A pass to find out the shape is one pass too many: make exactly num_samples.")
def extra_pass(model, X, num_samples):
    return frame(model, X, num_samples, one_pass_more)


@exercise.wrong("The variance goes over the passes, entry by entry, not over the whole output.")
def variance_over_everything(model, X, num_samples):
    mean, variance = mc_dropout(model, X, num_samples)
    return mean, variance.mean().expand(variance.shape).clone()


@exercise.wrong("Tensors of inference_mode can never take part in autograd again: use no_grad.")
def inference_tensors(model, X, num_samples):
    with torch.inference_mode():
        return mc_dropout(model, X.clone(), num_samples)


@exercise.wrong("The model's own exception must reach the caller.")
def swallows_the_exception(model, X, num_samples):
    try:
        return mc_dropout(model, X, num_samples)
    except ArithmeticError:
        return X.new_zeros(()), X.new_zeros(())


@exercise.wrong("With one pass there is no variance: refuse fewer than 2.", caught_by="errors")
def single_pass_allowed(model, X, num_samples):
    return mc_dropout(model, X, max(num_samples, 2))


@exercise.wrong("The module that you were given belongs to modules() too: put its own flag into eval mode as well.")
def outermost_forgotten(model, X, num_samples):
    return frame(model, X, num_samples, _mean_and_variance, lambda m: isinstance(m, DROPOUTS) or m is model)


@exercise.wrong(
    "set_grad_enabled(False) stays in force after the call: use `with torch.no_grad():`.", caught_by="state"
)
def gradients_off_for_good(model, X, num_samples):
    result = mc_dropout(model, X, num_samples)
    torch.set_grad_enabled(False)
    return result


@torch.no_grad()
def in_place_on_the_output(model, X, num_samples):
    mean = model(X)
    squares = torch.zeros_like(mean)
    for count in range(2, num_samples + 1):
        y = model(X)
        off = y - mean
        mean += off / count
        squares += off * (y - mean)
    return mean, squares / (num_samples - 1)


@exercise.wrong(
    "A model may return its input or one of its own tensors: copy the first output before you add to it in place.",
    caught_by="inputs",
)
def adds_to_the_output(model, X, num_samples):
    return frame(model, X, num_samples, in_place_on_the_output)


@exercise.wrong(
    "Collect in the dtype of the outputs: float32 sums make a float64 model's result float32.", caught_by="dtype"
)
def float32_sums(model, X, num_samples):
    mean, variance = mc_dropout(model, X, num_samples)
    return mean.float(), variance.float()


@exercise.wrong("Do not touch the global seed: who seeded it wants to go on from there.")
def seeds_itself(model, X, num_samples):
    torch.manual_seed(0)
    return mc_dropout(model, X, num_samples)


@torch.no_grad()
def by_shifted_sums(model, X, num_samples):
    first = model(X)
    total, square = torch.zeros_like(first), torch.zeros_like(first)
    for _ in range(num_samples - 1):
        off = model(X) - first
        total += off
        square += off**2
    return first + total / num_samples, (square - total**2 / num_samples) / (num_samples - 1)


@exercise.right("sums of differences from the first pass")
def shifted_by_the_first_pass(model, X, num_samples):
    return frame(model, X, num_samples, by_shifted_sums)


@exercise.right("eval() first, then train() for each dropout; detached outputs")
def with_module_methods(model, X, num_samples):
    if not num_samples > 1:
        raise ValueError
    before = {name: module.training for name, module in model.named_modules()}
    model.eval()
    try:
        for module in model.modules():
            if isinstance(module, (nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d)):
                module.train()
        mean, spread = 0, 0
        for index in range(num_samples):
            y = model(X).detach()
            off = y - mean
            mean = mean + off / (index + 1)
            spread = spread + off * off * (index / (index + 1))
        return mean, spread / (num_samples - 1)
    finally:
        for name, module in model.named_modules():
            module.training = before[name]
