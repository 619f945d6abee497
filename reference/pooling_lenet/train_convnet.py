"""Training a convolutional network."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from grader import Case, Cost, Exercise
from grader.data import digits


def train_convnet(
    model: nn.Module,
    X: Tensor,
    y: Tensor,
    *,
    epochs: int,
    batch_size: int,
    lr: float,
    generator: torch.Generator,
) -> list[float]:
    """Train a classifier in place by plain minibatch SGD on the mean cross-entropy of its logits.

    Every epoch first calls `model.train()` and draws one `torch.randperm(N, generator=generator)`; nothing else
    is drawn. Its consecutive slices of `batch_size` are the batches; the last one may be shorter and is used too.
    After each batch every trainable parameter moves by -lr times the gradient of that batch's mean loss. Parameters
    that do not take part in the loss stay.

    Args:
        model: maps images to logits `(batch, classes)`. It is left in train mode. Its parameters may be float64, and
            then its losses are.
        X: images `(N, C, H, W)`, N >= 1.
        y: labels `(N,)`, int64.
        epochs: number of passes over the data, >= 0; 0 draws nothing and returns an empty list.
        batch_size: images per batch, >= 1; it may exceed N.
        lr: step size.
        generator: source of the permutations.

    Returns:
        One Python float per epoch: the mean, over all N examples, of the losses seen just before each update.
        (A short batch counts by its size.) Frozen parameters (`requires_grad` False) and their `.grad` are left
        alone; a model without trainable parameters only reports its losses. Gradients that the model brings along
        have no effect; what is in `.grad` of trainable parameters afterwards is free. Values are read from the
        device at most `epochs + 1` times, and the graph of a batch is not kept for later ones.

    Raises:
        ValueError: N = 0, `X` and `y` differ in length, `epochs` < 0 or `batch_size` < 1.

    Example:
        >>> model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(1, 2, bias=False))
        >>> _ = torch.nn.init.zeros_(model[1].weight)
        >>> X, y = torch.tensor([1.0, -1.0]).reshape(2, 1, 1, 1), torch.tensor([0, 1])
        >>> losses = train_convnet(model, X, y, epochs=2, batch_size=2, lr=1.0, generator=torch.Generator())
        >>> [round(loss, 4) for loss in losses], model[1].weight
        ([0.6931, 0.3133], Parameter containing:
        tensor([[ 0.7689],
                [-0.7689]], requires_grad=True))
    """
    n = len(X)
    if n == 0 or n != len(y) or epochs < 0 or batch_size < 1:
        raise ValueError("X and y must be of one length >= 1, epochs >= 0 and batch_size >= 1")
    parameters = [p for p in model.parameters() if p.requires_grad]
    losses = []
    for _ in range(epochs):
        model.train()
        total = 0.0
        for batch in torch.randperm(n, generator=generator).to(X.device).split(batch_size):
            loss = F.cross_entropy(model(X[batch]), y[batch])
            total = total + loss.detach() * len(batch)
            if parameters:
                _step(parameters, loss, lr)
        losses.append(float(total) / n)
    return losses


def _step(parameters: list[nn.Parameter], loss: Tensor, lr: float) -> None:
    """Move each parameter by -lr * gradient."""
    gradients = torch.autograd.grad(loss, parameters, allow_unused=True)
    with torch.no_grad():
        for parameter, gradient in zip(parameters, gradients, strict=True):
            if gradient is not None:
                parameter -= lr * gradient


exercise = Exercise(
    train_convnet,
    points=12,
    autograd=True,
    forbid=("DataLoader", "*Dataset", "*Sampler"),
    hints=(
        "Write down what happens once per call, once per epoch and once per batch. Which of these are drawing, "
        "switching to train mode, clearing gradients, reading a number?",
        "Split one permutation into slices with .split(batch_size) and index X and y with each. Add "
        "loss.detach() * len(batch) to a tensor and turn it into a float once per epoch. Clear the gradients of "
        "trainable parameters before backward().",
        "for batch in torch.randperm(N, generator=generator).split(batch_size): loss = "
        "F.cross_entropy(model(X[batch]), y[batch]); total += loss.detach() * len(batch); then, if anything is "
        "trainable: set p.grad = None for the parameters that have requires_grad, call loss.backward(), and "
        "under no_grad p -= lr * p.grad for those that got a gradient.",
    ),
    source="D2L convolutional-neural-networks/lenet, linear-classification/softmax-regression-scratch",
    seconds=60.0,
)


@exercise.truth
def truth(model, X, y, *, epochs, batch_size, lr, generator):
    trainable = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.SGD(trainable, lr=lr) if trainable else None
    history = []
    for _ in range(epochs):
        model.train()
        order, seen = torch.randperm(len(X), generator=generator).tolist(), []
        for start in range(0, len(X), batch_size):
            chosen = order[start : start + batch_size]
            each = -model(X[chosen]).log_softmax(1).gather(1, y[chosen][:, None])[:, 0]
            seen.append(each.detach())
            if optimizer is not None:
                optimizer.zero_grad()
                each.mean().backward()
                optimizer.step()
        history.append(torch.cat(seen).double().mean().item())
    return history


@exercise.probe
def training(candidate, X, y, generator, epochs, batch_size, lr, kind="plain", stale=False, evaluating=False):
    class WithSpare(nn.Module):
        def __init__(self, net):
            super().__init__()
            self.net, self.spare = net, nn.Parameter(torch.ones(3))

        def forward(self, X):
            return self.net(X)

    channels, (height, width) = X.shape[1], X.shape[2:]
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(11)
        maps = 24 if kind == "wide" else 3
        size = maps * (height - 2) * (width - 2)
        layers = [nn.Conv2d(channels, maps, 3), nn.Tanh(), nn.Flatten(), nn.Linear(size, 4)]
        if kind == "batch norm":
            layers.insert(1, nn.BatchNorm2d(3))
        model = nn.Sequential(*layers)
        if kind == "spare":
            model = WithSpare(model)
    model.to(X.dtype).train(not evaluating)
    for parameter in model[0].parameters() if kind == "frozen" else model.parameters() if kind == "all frozen" else []:
        parameter.requires_grad_(requires_grad=False)
    for parameter in model.parameters() if stale else []:
        parameter.grad = torch.full_like(parameter, 2.0)
    own = list(model.parameters())
    losses = candidate(model, X, y, epochs=epochs, batch_size=batch_size, lr=lr, generator=generator)
    return {
        "losses": torch.tensor([float(loss) for loss in losses], dtype=X.dtype),
        "a list of floats": isinstance(losses, list) and all(type(loss) is float for loss in losses),
        "state": {key: value.detach().clone() for key, value in model.state_dict().items()},
        "gradients of frozen parameters": [
            torch.zeros(()) if p.grad is None else p.grad.clone() for p in own if not p.requires_grad
        ],
        "in train mode": [m.training for m in model.modules()] if epochs else [],
        "same parameters": all(p is q for p, q in zip(own, model.parameters(), strict=True)),
    }


def graphs_alive(candidate, X, y, generator, epochs, batch_size, lr):
    import weakref

    graphs, alive = [], []

    class Watched(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = nn.Sequential(nn.Flatten(), nn.Linear(X[0].numel(), 4))

        def forward(self, X):
            def hook(gradient):
                return None

            logits = self.net(X)
            alive.append(sum(graph() is not None for graph in graphs))
            logits.register_hook(hook)  # lives as long as the graph does
            graphs.append(weakref.ref(hook))
            return logits

    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(12)
        model = Watched()
    candidate(model, X, y, epochs=epochs, batch_size=batch_size, lr=lr, generator=generator)
    return {"batches": len(graphs), "graphs of several earlier batches are kept": max(alive) > 2}


def on_digits(candidate, X, y, generator, epochs, batch_size, lr):
    split = torch.randperm(len(X), generator=torch.Generator().manual_seed(0))
    X, y = X[split], y[split]
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(7)
        first = [nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2)]
        second = [nn.Conv2d(8, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(), nn.MaxPool2d(2)]
        model = nn.Sequential(*first, *second, nn.Flatten(), nn.Linear(64, 10))
    losses = candidate(model, X[:1437], y[:1437], epochs=epochs, batch_size=batch_size, lr=lr, generator=generator)
    model.eval()
    with torch.no_grad():
        accuracy = float((model(X[1437:]).argmax(1) == y[1437:]).double().mean())
    return {
        "epochs": len(losses),
        "accuracy on 360 test images >= 0.92": accuracy >= 0.92,
        "last loss <= 0.25": float(losses[-1]) <= 0.25,
    }


@exercise.speed(2.5, size=64, cuda=512)
def speed(draw, size):
    images, labels = draw.normal(size, 1, 8, 8), draw.integers(0, 4, size)
    return Case("one epoch in batches of 16", images, labels, draw.generator(), epochs=1, batch_size=16, lr=0.05)


@exercise.cases
def cases(draw):
    def data(n, *shape, dtype=torch.float32):
        return draw.normal(n, *shape, dtype=dtype), draw.integers(0, 4, n), draw.generator()

    def case(name, inputs, epochs, batch_size, lr, **more):
        """Make a case that is run in the dtype of its images only."""
        return Case(name, *inputs, epochs, batch_size, lr, double=False, **more)

    yield case("200 images, last batch of 8", data(200, 1, 5, 6), 2, 32, 0.1, cost=Cost(syncs=3))
    yield case("a batch larger than the data", data(12, 2, 4, 5), 3, 50, 0.2)
    yield case("a frozen first layer", data(26, 1, 6, 4), 2, 10, 0.3, kind="frozen")
    yield case("gradients left from before", data(22, 1, 5, 4), 1, 8, 0.2, stale=True)
    yield case("gradients left on frozen parameters", data(15, 2, 4, 4), 1, 4, 0.1, kind="frozen", stale=True)
    normed = {"kind": "batch norm", "evaluating": True}
    yield case("a model that arrives in eval mode", data(33, 1, 5, 5), 2, 15, 0.1, **normed)
    yield case("a float64 model", data(19, 1, 5, 4, dtype=torch.float64), 2, 8, 0.2, edge=True)
    yield case("no epochs", data(9, 1, 4, 5), 0, 4, 0.1, edge=True)
    yield case("one image", data(1, 1, 4, 5), 2, 1, 0.1, edge=True)
    yield case("a parameter that the loss does not use", data(11, 1, 4, 5), 2, 4, 0.1, kind="spare", edge=True)
    yield case("nothing to train", data(10, 1, 4, 5), 2, 4, 0.1, kind="all frozen", edge=True)
    watched = {"probe": graphs_alive, "layouts": False, "edge": True}
    yield case("the graphs of earlier batches", data(40, 1, 3, 4), 2, 4, 0.1, **watched)
    pixels, labels = digits()
    images, fixed = pixels.reshape(-1, 1, 8, 8), torch.Generator().manual_seed(4)
    run = {"probe": on_digits, "layouts": False, "cost": Cost(syncs=5)}
    yield case("handwritten digits", (images, labels, fixed), 4, 32, 0.2, **run)
    tiny, labels, generator = data(21, 3, 4, 3)
    yield case("tiny pixels", (1e-3 * tiny, labels, generator), 3, 8, 2.0, hidden=True)
    large, labels, generator = data(18, 1, 4, 6)
    yield case("large pixels", (30 + 20 * large, labels, generator), 2, 7, 1e-3, hidden=True)
    spare = {"kind": "spare", "stale": True, "edge": True, "hidden": True}
    yield case("an old gradient on an unused parameter", data(13, 1, 4, 5), 2, 5, 0.1, **spare)
    yield case("batches of 1", data(7, 2, 3, 4), 2, 1, 0.05, hidden=True)
    precise = {"kind": "batch norm", "edge": True, "hidden": True}
    yield case("float64 and batch norm", data(14, 1, 4, 4, dtype=torch.float64), 2, 5, 0.1, **precise)
    X, y, generator = data(8, 1, 4, 5)
    yield case("no images", (X[:0], y[:0], generator), 1, 4, 0.1, raises=ValueError)
    yield case("fewer labels than images", (X, y[:7], generator), 1, 4, 0.1, raises=ValueError)
    yield case("a negative number of epochs", (X, y, generator), -1, 4, 0.1, raises=ValueError)
    yield case("batches of 0", (X, y, generator), 1, 0, 0.1, raises=ValueError)
    yield case("fewer images than labels", (X[:5], y, generator), 1, 4, 0.1, raises=ValueError, hidden=True)
    yield case("batches of 0, no epochs", (X, y, generator), 0, 0, 0.1, raises=ValueError, hidden=True)


@exercise.growth("number of batches", sizes=(32, 128), peak=0.0)
def more_batches(draw, size):
    images, labels = draw.normal(size, 1, 6, 5), draw.integers(0, 4, size)
    return Case(f"{size} images", images, labels, draw.generator(), 1, 8, 0.1, kind="wide")


@exercise.growth("images in a batch", sizes=(8, 16), ops=0.0)
def larger_batches(draw, size):
    return Case(f"{size} images", draw.normal(size, 1, 5, 4), draw.integers(0, 4, size), draw.generator(), 1, size, 0.1)


def trainable(model):
    return [p for p in model.parameters() if p.requires_grad]


def move(parameters, lr):
    with torch.no_grad():
        for p in parameters:
            if p.grad is not None:
                p -= lr * p.grad


def check(X, y, epochs, batch_size):
    if not len(X) or len(X) != len(y) or epochs < 0 or batch_size < 1:
        raise ValueError


def mean_over_images(seen, n):
    return float(sum(loss * size for loss, size in seen)) / n


def fit(
    model, X, y, epochs, batch_size, lr, generator, *, criterion=F.cross_entropy, clear="before", labels=None,
    orders=None, update=move, starts=None, measure=None, keep=Tensor.detach, report=mean_over_images, retain=False,
):  # fmt: skip
    """Run a correct training loop; the keywords replace one part of it."""
    check(X, y, epochs, batch_size)
    parameters, history = trainable(model), []
    for _ in range(epochs):
        model.train()
        seen = []
        order = orders() if orders else torch.randperm(len(X), generator=generator)
        for start in range(0, len(order), batch_size) if starts is None else starts:
            batch = order[start : start + batch_size]
            target = y[batch] if labels is None else labels(start, batch)
            loss = criterion(model(X[batch]), target)
            if parameters:
                if clear == "before":
                    for p in parameters:
                        p.grad = None
                loss.backward(retain_graph=retain)
                update(parameters, lr)
                if clear == "after":
                    for p in parameters:
                        p.grad = None
            seen.append((keep(loss) if measure is None else measure(X[batch], target), len(batch)))
        history.append(report(seen, len(X)))
    return history


@exercise.wrong("Softmax is inside cross_entropy already: doing it twice flattens the loss, and training crawls.")
def softmax_first(model, X, y, *, epochs, batch_size, lr, generator):
    def criterion(logits, target):
        return F.cross_entropy(logits.softmax(1), target)

    return fit(model, X, y, epochs, batch_size, lr, generator, criterion=criterion)


@exercise.wrong("backward() adds to .grad: clear it for every batch, or each step repeats all steps before.")
def gradients_never_cleared(model, X, y, *, epochs, batch_size, lr, generator):
    return fit(model, X, y, epochs, batch_size, lr, generator, clear="never")


@exercise.wrong(
    "Clear the gradients before the first backward() too: the model may bring along old ones.",
)
def cleared_after_the_step(model, X, y, *, epochs, batch_size, lr, generator):
    return fit(model, X, y, epochs, batch_size, lr, generator, clear="after")


@exercise.wrong(
    "A last batch of, say, 8 counts by its 8 images, not like one of 32: weight each loss by its batch's size."
)
def mean_of_batch_means(model, X, y, *, epochs, batch_size, lr, generator):
    def report(seen, n):
        return torch.stack([loss for loss, _ in seen]).mean().item()

    return fit(model, X, y, epochs, batch_size, lr, generator, report=report)


@exercise.wrong("The loss is the mean over the batch: with a sum the step grows with the batch size.")
def summed_loss(model, X, y, *, epochs, batch_size, lr, generator):
    def criterion(logits, target):
        return F.cross_entropy(logits, target, reduction="sum")

    return fit(model, X, y, epochs, batch_size, lr, generator, criterion=criterion)


@exercise.wrong("Images and labels are permuted together: index both with the same batch.")
def only_images_permuted(model, X, y, *, epochs, batch_size, lr, generator):
    def labels(start, batch):
        return y[start : start + len(batch)]

    return fit(model, X, y, epochs, batch_size, lr, generator, labels=labels)


@exercise.wrong("Draw a new permutation in every epoch.")
def one_permutation(model, X, y, *, epochs, batch_size, lr, generator):
    order = torch.randperm(len(X), generator=generator) if epochs > 0 else None
    return fit(model, X, y, epochs, batch_size, lr, generator, orders=lambda: order)


@exercise.wrong("Shuffle: the batches are slices of a permutation, not of the data as they come.")
def not_shuffled(model, X, y, *, epochs, batch_size, lr, generator):
    return fit(model, X, y, epochs, batch_size, lr, generator, orders=lambda: torch.arange(len(X)))


@exercise.wrong("Pass the generator on: without it the permutation comes from the global one and cannot be repeated.")
def generator_ignored(model, X, y, *, epochs, batch_size, lr, generator):
    return fit(model, X, y, epochs, batch_size, lr, generator, orders=lambda: torch.randperm(len(X)))


@exercise.wrong("A sum of losses with their graphs keeps the graph of every batch: add up loss.detach().")
def sums_with_graphs(model, X, y, *, epochs, batch_size, lr, generator):
    return fit(model, X, y, epochs, batch_size, lr, generator, keep=lambda loss: loss)


@exercise.wrong(
    "retain_graph=True keeps all that a batch has saved for backward(), and memory grows with every batch: one "
    "backward pass a batch needs no such thing, and what is added up is loss.detach().",
    caught_by="growth",
)
def graphs_retained(model, X, y, *, epochs, batch_size, lr, generator):
    return fit(model, X, y, epochs, batch_size, lr, generator, keep=lambda loss: loss, retain=True)


@exercise.wrong(
    "item() on every batch waits for the device every time: add up a tensor, read it once an epoch.", caught_by="cost"
)
def reads_every_batch(model, X, y, *, epochs, batch_size, lr, generator):
    def criterion(logits, target):
        loss = F.cross_entropy(logits, target)
        loss.item()
        return loss

    return fit(model, X, y, epochs, batch_size, lr, generator, criterion=criterion)


@exercise.wrong("The short last batch is used too, and its images count: N is the number of all images.")
def last_batch_dropped(model, X, y, *, epochs, batch_size, lr, generator):
    check(X, y, epochs, batch_size)
    size = min(batch_size, len(X))

    def report(seen, _):
        return mean_over_images(seen, sum(size for _, size in seen))

    starts = range(0, len(X) - size + 1, size)
    return fit(model, X, y, epochs, size, lr, generator, starts=starts, report=report)


@exercise.wrong("N // batch_size batches leave out the short last one: it is used too.")
def full_batches_only(model, X, y, *, epochs, batch_size, lr, generator):
    check(X, y, epochs, batch_size)
    starts = range(0, len(X) // batch_size * batch_size, batch_size)
    return fit(model, X, y, epochs, batch_size, lr, generator, starts=starts)


@exercise.wrong("The reported loss is the one seen before the update: not the loss of the new weights on that batch.")
def loss_after_the_update(model, X, y, *, epochs, batch_size, lr, generator):
    def measure(images, labels):
        with torch.no_grad():
            return F.cross_entropy(model(images), labels)

    return fit(model, X, y, epochs, batch_size, lr, generator, measure=measure)


@exercise.wrong(
    "The losses seen just before each update are averaged: not the loss of all images at the end of the epoch."
)
def loss_at_the_end_of_the_epoch(model, X, y, *, epochs, batch_size, lr, generator):
    def report(seen, n):
        with torch.no_grad():
            return F.cross_entropy(model(X), y).item()

    return fit(model, X, y, epochs, batch_size, lr, generator, report=report)


@exercise.wrong("torch.zeros(()) is float32: give the sum the dtype of the loss, or start from 0.0.")
def float32_total(model, X, y, *, epochs, batch_size, lr, generator):
    def report(seen, n):
        total = torch.zeros(())
        for loss, size in seen:
            total += loss * size
        return total.item() / n

    return fit(model, X, y, epochs, batch_size, lr, generator, report=report)


@exercise.wrong("The contract asks for plain SGD: Adam takes steps of other lengths.")
def with_adam(model, X, y, *, epochs, batch_size, lr, generator):
    optimizer = torch.optim.Adam(trainable(model), lr=lr) if trainable(model) else None
    return fit(model, X, y, epochs, batch_size, lr, generator, update=lambda *_: optimizer.step())


@exercise.wrong(
    "An optimizer over model.parameters() takes the frozen ones along: its zero_grad() clears their gradients, and if "
    "all are frozen backward() fails. Give it those with requires_grad, if there are any."
)
def optimizer_over_all_parameters(model, X, y, *, epochs, batch_size, lr, generator):
    check(X, y, epochs, batch_size)
    optimizer, history = torch.optim.SGD(model.parameters(), lr=lr), []
    for _ in range(epochs):
        model.train()
        total = 0.0
        for batch in torch.randperm(len(X), generator=generator).split(batch_size):
            optimizer.zero_grad()
            loss = F.cross_entropy(model(X[batch]), y[batch])
            loss.backward()
            optimizer.step()
            total += loss.detach() * len(batch)
        history.append(float(total) / len(X))
    return history


@exercise.wrong("Call model.train() in every epoch: a model in eval mode leaves BatchNorm's statistics unchanged.")
def never_in_train_mode(model, X, y, *, epochs, batch_size, lr, generator):
    flags = [(m, m.training) for m in model.modules()]

    def orders():
        for module, flag in flags:
            module.training = flag
        return torch.randperm(len(X), generator=generator)

    return fit(model, X, y, epochs, batch_size, lr, generator, orders=orders)


@exercise.wrong("The model is left in train mode; whoever tests it calls eval() himself.")
def left_in_eval_mode(model, X, y, *, epochs, batch_size, lr, generator):
    losses = train_convnet(model, X, y, epochs=epochs, batch_size=batch_size, lr=lr, generator=generator)
    model.eval()
    return losses


@exercise.wrong("A frozen parameter with an old gradient must not move: leave out what has requires_grad False.")
def frozen_parameters_move(model, X, y, *, epochs, batch_size, lr, generator):
    def update(parameters, lr):
        move(model.parameters(), lr)

    return fit(model, X, y, epochs, batch_size, lr, generator, update=update)


@exercise.wrong("model.zero_grad() clears the gradients of frozen parameters as well: they are left alone.")
def clears_frozen_gradients(model, X, y, *, epochs, batch_size, lr, generator):
    losses = train_convnet(model, X, y, epochs=epochs, batch_size=batch_size, lr=lr, generator=generator)
    model.zero_grad()
    return losses


@exercise.wrong("Frozen parameters stay frozen: do not switch requires_grad on.")
def thaws(model, X, y, *, epochs, batch_size, lr, generator):
    model.requires_grad_(requires_grad=True)
    return train_convnet(model, X, y, epochs=epochs, batch_size=batch_size, lr=lr, generator=generator)


@exercise.wrong("A parameter that the loss does not use has no gradient (None): skip it.", caught_by="runs")
def expects_every_gradient(model, X, y, *, epochs, batch_size, lr, generator):
    def update(parameters, lr):
        with torch.no_grad():
            for p in parameters:
                p -= lr * p.grad

    return fit(model, X, y, epochs, batch_size, lr, generator, update=update)


@exercise.wrong(
    "A model without trainable parameters has no graph: report its losses without backward().", caught_by="runs"
)
def always_backward(model, X, y, *, epochs, batch_size, lr, generator):
    if not trainable(model) and epochs:
        F.cross_entropy(model(X), y).backward()
    return fit(model, X, y, epochs, batch_size, lr, generator)


@exercise.wrong("Go against the gradient: minus lr * gradient.")
def uphill(model, X, y, *, epochs, batch_size, lr, generator):
    return train_convnet(model, X, y, epochs=epochs, batch_size=batch_size, lr=-lr, generator=generator)


@exercise.wrong("Plain SGD has no memory: no momentum.")
def with_momentum(model, X, y, *, epochs, batch_size, lr, generator):
    optimizer = torch.optim.SGD(trainable(model), lr=lr, momentum=0.9) if trainable(model) else None
    return fit(model, X, y, epochs, batch_size, lr, generator, update=lambda *_: optimizer.step())


@exercise.wrong("Plain SGD does not shrink the weights: no weight decay.")
def with_weight_decay(model, X, y, *, epochs, batch_size, lr, generator):
    optimizer = torch.optim.SGD(trainable(model), lr=lr, weight_decay=0.01) if trainable(model) else None
    return fit(model, X, y, epochs, batch_size, lr, generator, update=lambda *_: optimizer.step())


@exercise.wrong("The list holds Python floats, not tensors.")
def tensors_in_the_list(model, X, y, *, epochs, batch_size, lr, generator):
    losses = train_convnet(model, X, y, epochs=epochs, batch_size=batch_size, lr=lr, generator=generator)
    return [torch.tensor(loss) for loss in losses]


@exercise.wrong("Divide the epoch's sum by N, the number of images.")
def sums_reported(model, X, y, *, epochs, batch_size, lr, generator):
    losses = train_convnet(model, X, y, epochs=epochs, batch_size=batch_size, lr=lr, generator=generator)
    return [loss * len(X) for loss in losses]


@exercise.wrong(
    "The whole batch goes through the model at once: one image at a time costs as many calls as images.",
    caught_by="growth",
)
def one_image_at_a_time(model, X, y, *, epochs, batch_size, lr, generator):
    if any(isinstance(m, nn.BatchNorm2d) for m in model.modules()) or len(X) < 2:
        return fit(model, X, y, epochs, batch_size, lr, generator)

    def criterion(logits, target):
        return torch.stack([F.cross_entropy(row[None], t[None]) for row, t in zip(logits, target, strict=True)]).mean()

    return fit(model, X, y, epochs, batch_size, lr, generator, criterion=criterion)


@exercise.wrong("range(-1) is silently empty: a negative number of epochs is a ValueError.", caught_by="errors")
def negative_epochs(model, X, y, *, epochs, batch_size, lr, generator):
    return fit(model, X, y, max(epochs, 0), batch_size, lr, generator)


@exercise.wrong("X and y must be of one length: cutting the longer one hides a mistake.", caught_by="errors")
def lengths_cut(model, X, y, *, epochs, batch_size, lr, generator):
    n = min(len(X), len(y))
    return fit(model, X[:n], y[:n], epochs, batch_size, lr, generator)


@exercise.wrong("The model itself is trained, in place: a trained copy helps nobody.")
def trains_a_copy(model, X, y, *, epochs, batch_size, lr, generator):
    state = {key: value.clone() for key, value in model.state_dict().items()}
    losses = train_convnet(model, X, y, epochs=epochs, batch_size=batch_size, lr=lr, generator=generator)
    model.load_state_dict(state)
    return losses


@exercise.right("with torch.optim.SGD and a stack of losses")
def with_an_optimizer(model, X, y, *, epochs, batch_size, lr, generator):
    if len(X) == 0 or len(X) != len(y) or epochs < 0 or batch_size <= 0:
        raise ValueError
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.SGD(parameters, lr) if parameters else None
    losses = []
    for _ in range(epochs):
        model.train()
        sums = []
        for batch in torch.split(torch.randperm(len(X), generator=generator), batch_size):
            loss = F.nll_loss(F.log_softmax(model(X[batch]), dim=1), y[batch])
            if optimizer:
                optimizer.zero_grad(set_to_none=True)
                loss.backward()
                optimizer.step()
            sums.append(loss.detach() * batch.numel())
        losses.append(torch.stack(sums).sum().item() / len(X))
    return losses


@exercise.right("shuffled copies, sums of losses, all numbers read at the end")
def read_at_the_end(model, X, y, *, epochs, batch_size, lr, generator):
    n = X.shape[0]
    if n < 1 or n != y.shape[0] or epochs < 0 or batch_size < 1:
        raise ValueError
    totals = torch.zeros(epochs, dtype=X.dtype)
    for epoch in range(epochs):
        model.train()
        order = torch.randperm(n, generator=generator)
        images, labels = X[order], y[order]
        for start in range(0, n, batch_size):
            target = labels[start : start + batch_size]
            for p in model.parameters():
                if p.requires_grad:
                    p.grad = None
            loss = F.cross_entropy(model(images[start : start + batch_size]), target, reduction="sum")
            totals[epoch] += loss.detach()
            if loss.requires_grad:
                (loss / len(target)).backward()
            for p in model.parameters():
                if p.requires_grad and p.grad is not None:
                    p.data.add_(p.grad, alpha=-lr)
    return (totals / n).tolist()
