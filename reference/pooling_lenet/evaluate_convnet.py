"""Accuracy of a convolutional network."""

import copy

import torch
from torch import Tensor, nn

from grader import Case, Cost, Exercise


def evaluate_convnet(model: nn.Module, X: Tensor, y: Tensor, *, batch_size: int = 256) -> float:
    """Measure the share of images that a classifier gets right, batch by batch and in eval mode.

    The model sees consecutive slices of X, in order, each once, in eval mode and without recording a graph.

    Args:
        model: maps images to logits `(batch, classes)`; any mixture of train and eval mode.
        X: images `(N, C, H, W)`, N >= 1.
        y: labels `(N,)`, int64.
        batch_size: images per forward pass, >= 1; the last batch may be shorter.

    Returns:
        hits / N as a Python float, where a hit is an image whose highest logit (the first one, where several are
        highest) is that of its label. The count is read from the device once.

        Afterwards the `training` flag of every module is what it was before, also if the model raises (its
        exception is passed on); parameters, buffers and `.grad` are unchanged.

    Raises:
        ValueError: N = 0, `X` and `y` differ in length, or `batch_size` < 1.

    Example:
        >>> model = torch.nn.Flatten()
        >>> X = torch.tensor([[0.1, 0.9], [0.8, 0.3], [0.5, 0.5]])
        >>> evaluate_convnet(model, X, torch.tensor([1, 1, 0]), batch_size=2)
        0.6666666666666666
    """
    if len(X) == 0 or len(X) != len(y) or batch_size < 1:
        raise ValueError("X and y must be of one length >= 1 and batch_size >= 1")
    flags = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        with torch.no_grad():
            hits = torch.zeros((), dtype=torch.int64, device=X.device)
            for images, labels in zip(X.split(batch_size), y.split(batch_size), strict=True):
                hits += (model(images).argmax(1) == labels).sum()
    finally:
        for module, training in flags:
            module.training = training
    return int(hits) / len(X)


exercise = Exercise(
    evaluate_convnet,
    points=5,
    cost=Cost(syncs=1),
    forbid=("DataLoader", "*Dataset", "*Sampler"),
    hints=(
        "Two different switches are needed: one for layers that behave differently in training, one for the graph. "
        "And who switches the layers back if a batch fails?",
        "Remember module.training for all of model.modules(), call model.eval(), and restore every flag in a finally "
        "block. Count hits in a tensor; divide by N once, at the end.",
        "with torch.no_grad(): hits += (model(images).argmax(1) == labels).sum() for each pair of slices; "
        "then return int(hits) / len(X).",
    ),
    source="D2L linear-classification/classification, convolutional-neural-networks/lenet",
)


@exercise.truth
def truth(model, X, y, *, batch_size=256):
    before = {name: module.training for name, module in model.named_modules()}
    try:
        model.eval()
        hits = 0
        with torch.no_grad():
            for start in range(0, len(X), batch_size):
                rows = model(X[start : start + batch_size]).tolist()
                best = [row.index(max(row)) for row in rows]
                hits += sum(int(label) == guess for label, guess in zip(y[start:], best, strict=False))
        return hits / len(X)
    finally:
        for name, module in model.named_modules():
            module.training = before[name]


@exercise.probe
def evaluating(candidate, X, y, batch_size=None, kind="batch norm", flags="train", raise_at=0):
    sizes, first, graphs, modes = [], [], [], set()

    class Watched(nn.Module):
        def __init__(self, net):
            super().__init__()
            self.net = net

        def forward(self, X):
            sizes.append(len(X))
            first.append(X.flatten()[0].clone())
            if len(sizes) == raise_at:
                raise ArithmeticError("this batch fails")
            logits = self.net(X)
            graphs.append(logits.requires_grad)
            modes.update(name for name, module in self.named_modules() if module.training)
            return logits

    class Ties(nn.Module):
        def forward(self, X):
            score = X.flatten(1).sum(1).abs()
            return torch.stack([-score, score, score, -score, score], 1)

    channels, (height, width) = X.shape[1], X.shape[2:]
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(13)
        layers = [nn.Conv2d(channels, 4, 2), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten()]
        layers += [nn.Dropout(0.5), nn.Linear(4 * (height - 1) * (width - 1), 3)]
        net = nn.Sequential(nn.Sequential(*layers[:3]), *layers[3:]) if kind == "batch norm" else Ties()
    for name, buffer in net.named_buffers():
        if "running" in name:
            buffer.add_(torch.arange(buffer.numel()) * 0.25 - 0.125)
    model = Watched(net.to(X.dtype)).train(flags != "eval")
    if flags == "frozen":
        net[0][1].eval()
    elif flags == "mixed":
        model.eval()
        net[0].train()
    for parameter in model.parameters():
        parameter.grad = torch.full_like(parameter, 0.5)
    names = [name for name, _ in model.named_modules()]
    before = [module.training for module in model.modules()]
    state = {key: value.clone() for key, value in model.state_dict().items()}
    raised, accuracy = "", None
    try:
        accuracy = candidate(model, X, y) if batch_size is None else candidate(model, X, y, batch_size=batch_size)
    except ArithmeticError as error:
        raised = type(error).__name__
    after = [module.training for module in model.modules()]
    return {
        "accuracy": accuracy,
        "raised": raised,
        "batches": sizes,
        "first pixels": torch.stack(first) if first else [],
        "graph recorded": any(graphs),
        "in train mode during a batch": sorted(modes),
        "flags changed": [name for name, old, new in zip(names, before, after, strict=True) if old != new],
        "state changed": [key for key, value in model.state_dict().items() if not torch.equal(value, state[key])],
        "gradients changed": [
            name for name, p in model.named_parameters() if p.grad is None or bool((p.grad != 0.5).any())
        ],
    }


@exercise.cases
def cases(draw):
    def data(n, *shape, classes=3):
        return draw.normal(n, *shape), draw.integers(0, classes, n)

    yield Case("one batch", *data(30, 1, 5, 4), cost=True)
    yield Case("batches of 7", *data(30, 1, 5, 4), batch_size=7, cost=True)
    yield Case("batches of 1", *data(9, 2, 4, 3), batch_size=1)
    yield Case("a frozen batch norm in a training model", *data(20, 1, 4, 5), batch_size=6, flags="frozen")
    yield Case("one block in train mode, the rest not", *data(11, 2, 3, 4), batch_size=4, flags="mixed")
    yield Case("a model in eval mode", *data(12, 1, 3, 5), batch_size=12, flags="eval")
    images, labels = data(90, 1, 3, 4, classes=5)
    low = torch.minimum(labels, draw.integers(0, 5, 90))  # the first of several is mostly a low one, the last is not
    yield Case("several highest logits", images, low, batch_size=40, kind="ties", edge=True)
    yield Case("the second batch raises", *data(15, 1, 4, 3), batch_size=6, raise_at=2, flags="frozen", edge=True)
    yield Case("600 images, default batches", *data(600, 1, 3, 3), hidden=True)
    yield Case("a batch larger than the data", *data(8, 3, 4, 5), batch_size=50, flags="mixed", hidden=True)
    yield Case("tiny pixels", 1e-3 * draw.normal(14, 1, 4, 6), draw.integers(0, 3, 14), batch_size=5, hidden=True)
    yield Case("large pixels", 1e3 + 50 * draw.normal(13, 2, 4, 3), draw.integers(0, 3, 13), batch_size=4, hidden=True)
    yield Case("the first batch raises", *data(10, 1, 4, 3), batch_size=3, raise_at=1, hidden=True, edge=True)
    X, y = data(8, 1, 4, 5)
    yield Case("no images", X[:0], y[:0], raises=ValueError)
    yield Case("fewer labels than images", X, y[:7], raises=ValueError)
    yield Case("batches of 0", X, y, batch_size=0, raises=ValueError)
    yield Case("fewer images than labels", X[:3], y, batch_size=3, raises=ValueError, hidden=True)
    yield Case("batches of -2", X, y, batch_size=-2, raises=ValueError, hidden=True)


def walk(model, X, y, batch_size, count, *, graph=False, mode=lambda model: model.eval()):
    """Run a correct evaluation; `count(logits, labels)` adds up what `walk` returns."""
    if not len(X) or len(X) != len(y) or batch_size < 1:
        raise ValueError
    flags = [(module, module.training) for module in model.modules()]
    mode(model)
    try:
        with torch.set_grad_enabled(graph):
            return sum(count(model(X[i : i + batch_size]), y[i : i + batch_size]) for i in range(0, len(X), batch_size))
    finally:
        for module, training in flags:
            module.training = training


def hits_of(logits, labels):
    return (logits.detach().argmax(1) == labels).sum()


@exercise.wrong("Without eval() BatchNorm uses, and updates, the statistics of the batch, and dropout stays active.")
def not_in_eval_mode(model, X, y, *, batch_size=256):
    return int(walk(model, X, y, batch_size, hits_of, mode=lambda _: None)) / len(X)


@exercise.wrong(
    "model.train() at the end also switches layers that were in eval mode: restore the flag of every module."
)
def train_at_the_end(model, X, y, *, batch_size=256):
    try:
        return evaluate_convnet(model, X, y, batch_size=batch_size)
    finally:
        model.train()


@exercise.wrong("model.train(was) gives every part the flag of the whole: restore each one's own.")
def restored_as_one(model, X, y, *, batch_size=256):
    was = model.training
    try:
        return evaluate_convnet(model, X, y, batch_size=batch_size)
    finally:
        model.train(was)


@exercise.wrong("The model stays in eval mode: put the flags back.")
def left_in_eval_mode(model, X, y, *, batch_size=256):
    try:
        return evaluate_convnet(model, X, y, batch_size=batch_size)
    finally:
        model.eval()


@exercise.wrong("If a batch raises, the flags stay changed: restore them in a finally block.")
def restored_on_success_only(model, X, y, *, batch_size=256):
    try:
        return evaluate_convnet(model, X, y, batch_size=batch_size)
    except ArithmeticError:
        model.eval()
        raise


@exercise.wrong("The mean of the batches' accuracies counts a short batch like a full one: count hits, divide once.")
def mean_of_accuracies(model, X, y, *, batch_size=256):
    def count(logits, labels):
        return hits_of(logits, labels) / len(labels)

    return float(walk(model, X, y, batch_size, count)) / -(-len(X) // batch_size)


@exercise.wrong(
    "item() on every batch waits for the device every time: add up a tensor, read it once.", caught_by="cost"
)
def reads_every_batch(model, X, y, *, batch_size=256):
    def count(logits, labels):
        return hits_of(logits, labels).item()

    return walk(model, X, y, batch_size, count) / len(X)


@exercise.wrong("no_grad() stops graphs, eval() switches layers: the one does not do the other's work.")
def eval_without_no_grad(model, X, y, *, batch_size=256):
    return int(walk(model, X, y, batch_size, hits_of, graph=True)) / len(X)


@exercise.wrong("detach() afterwards is late: the graph was recorded already. Use no_grad around the forward pass, "
                "and eval() as well.")  # fmt: skip
def neither_of_both(model, X, y, *, batch_size=256):
    return int(walk(model, X, y, batch_size, hits_of, graph=True, mode=lambda _: None)) / len(X)


@exercise.wrong("Python's hits / N is exact to 16 digits; a float32 mean is not.")
def float32_share(model, X, y, *, batch_size=256):
    hits = walk(model, X, y, batch_size, hits_of)
    return (hits.float() / len(X)).item()


@exercise.wrong("Where several logits are highest the first one is the answer; a label that ties with it is no hit.")
def ties_are_hits(model, X, y, *, batch_size=256):
    def count(logits, labels):
        return (logits.gather(1, labels[:, None])[:, 0] >= logits.amax(1)).sum()

    return int(walk(model, X, y, batch_size, count)) / len(X)


@exercise.wrong("Of several highest logits the first counts, not the last.")
def last_of_the_highest(model, X, y, *, batch_size=256):
    def count(logits, labels):
        return (logits.shape[1] - 1 - logits.flip(1).argmax(1) == labels).sum()

    return int(walk(model, X, y, batch_size, count)) / len(X)


@exercise.wrong("The smaller last batch is evaluated too.")
def last_batch_dropped(model, X, y, *, batch_size=256):
    if not len(X) or len(X) != len(y) or batch_size < 1:
        raise ValueError
    full = len(X) // batch_size * batch_size
    return int(walk(model, X[:full], y[:full], batch_size, hits_of)) / len(X) if full else 0.0


@exercise.wrong("Go batch by batch: the whole set at once may not fit into memory.")
def all_at_once(model, X, y, *, batch_size=256):
    if batch_size < 1:
        raise ValueError
    return evaluate_convnet(model, X, y, batch_size=max(len(X), 1))


@exercise.wrong("A size of batches other than the default was ignored.")
def always_256(model, X, y, *, batch_size=256):
    if batch_size < 1:
        raise ValueError
    return evaluate_convnet(model, X, y, batch_size=256)


@exercise.wrong("The share of all images, not the number of hits.")
def number_of_hits(model, X, y, *, batch_size=256):
    return evaluate_convnet(model, X, y, batch_size=batch_size) * len(X)


@exercise.wrong("Accuracy is the share of right answers, not of wrong ones.")
def error_rate(model, X, y, *, batch_size=256):
    return 1 - evaluate_convnet(model, X, y, batch_size=batch_size)


@exercise.wrong("The result is a Python float, not a tensor.", caught_by="type")
def a_tensor(model, X, y, *, batch_size=256):
    return walk(model, X, y, batch_size, hits_of) / len(X)


@exercise.wrong("The order does not matter for the result, but it is prescribed: do not shuffle a test set.")
def shuffled(model, X, y, *, batch_size=256):
    if not len(X) or len(X) != len(y) or batch_size < 1:
        raise ValueError
    order = torch.randperm(len(X))
    return evaluate_convnet(model, X[order], y[order], batch_size=batch_size)


@exercise.wrong("`model.training = False` switches the outermost module only: model.eval() goes through all of them.")
def outermost_only(model, X, y, *, batch_size=256):
    def mode(model):
        model.training = False

    return int(walk(model, X, y, batch_size, hits_of, mode=mode)) / len(X)


@exercise.wrong("Compare the classes of each image, along axis 1, not the images of each class.")
def argmax_over_the_batch(model, X, y, *, batch_size=256):
    def count(logits, labels):
        return (logits.argmax(0)[: len(labels)] == labels[: logits.shape[1]]).sum()

    return int(walk(model, X, y, batch_size, count)) / len(X)


@exercise.wrong("Evaluating must not clear the gradients that training has collected.")
def clears_gradients(model, X, y, *, batch_size=256):
    result = evaluate_convnet(model, X, y, batch_size=batch_size)
    model.zero_grad()
    return result


@exercise.wrong("The model's own exception must reach the caller.")
def swallows_the_exception(model, X, y, *, batch_size=256):
    try:
        return evaluate_convnet(model, X, y, batch_size=batch_size)
    except ArithmeticError:
        return 0.0


@exercise.wrong(
    "Cutting to the shorter one, as zip() does, hides a mistake: X and y of different lengths are a ValueError.",
    caught_by="errors",
)
def lengths_cut(model, X, y, *, batch_size=256):
    n = min(len(X), len(y))
    return evaluate_convnet(model, X[:n], y[:n], batch_size=batch_size)


@exercise.wrong("Without images there is no share: 0 / 0 is a ValueError here.", caught_by="errors")
def nothing_is_zero(model, X, y, *, batch_size=256):
    return evaluate_convnet(model, X, y, batch_size=batch_size) if len(X) else 0.0


@exercise.wrong(
    "set_grad_enabled(False) stays in force after the call: use `with torch.no_grad():`.", caught_by="state"
)
def gradients_off_for_good(model, X, y, *, batch_size=256):
    result = evaluate_convnet(model, X, y, batch_size=batch_size)
    torch.set_grad_enabled(False)
    return result


@exercise.wrong("A share between 0 and 1 is wanted, not percent.")
def in_percent(model, X, y, *, batch_size=256):
    return 100 * int(walk(model, X, y, batch_size, hits_of)) / len(X)


@exercise.wrong("A short last batch has fewer images than `batch_size`: divide by N, not by batches * batch_size.")
def divides_by_full_batches(model, X, y, *, batch_size=256):
    hits = int(walk(model, X, y, batch_size, hits_of))
    return hits / (-(-len(X) // batch_size) * batch_size)


@exercise.wrong("`batch_size` images go through the model at once, not one at a time.")
def one_image_at_a_time(model, X, y, *, batch_size=256):
    if batch_size < 1:
        raise ValueError
    return evaluate_convnet(model, X, y, batch_size=1)


@exercise.right("indices of the best class collected, compared at the end")
def compared_at_the_end(model, X, y, *, batch_size=256):
    if batch_size <= 0 or len(y) != len(X) or not len(y):
        raise ValueError
    modes = {module: module.training for module in model.modules()}
    try:
        model.train(False)
        with torch.inference_mode():
            guesses = torch.cat([model(part).max(1).indices for part in torch.split(X, batch_size)])
            hits = guesses.eq(y).count_nonzero().item()
        return hits / y.numel()
    finally:
        for module, mode in modes.items():
            module.training = mode


@exercise.right("a deep copy in eval mode")
def on_a_copy(model, X, y, *, batch_size=256):
    if len(X) == 0 or len(X) != len(y) or batch_size < 1:
        raise ValueError
    twin = copy.deepcopy(model).eval()
    with torch.no_grad():
        hits = torch.stack([
            (twin(X[i : i + batch_size]).argmax(1) == y[i : i + batch_size]).sum()
            for i in range(0, len(X), batch_size)
        ])  # fmt: skip
    return hits.sum().item() / len(X)


@exercise.right("a decorated helper and slices")
def with_a_helper(model, X, y, *, batch_size=256):
    n = X.shape[0]
    if n == 0 or n != y.shape[0] or batch_size < 1:
        raise ValueError

    @torch.no_grad()
    def count():
        right = torch.tensor(0)
        for start in range(0, n, batch_size):
            stop = start + batch_size
            right = right + torch.sum(torch.argmax(model(X[start:stop]), dim=-1) == y[start:stop])
        return right

    switched = [module for module in model.modules() if module.training]
    try:
        for module in switched:
            module.training = False
        return float(count().item()) / n
    finally:
        for module in switched:
            module.training = True
