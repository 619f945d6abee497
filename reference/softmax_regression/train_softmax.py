"""Train softmax regression by minibatch gradient descent."""

import torch
from torch import Tensor

from grader import Case, Exercise, data
from reference.softmax_regression import FORBID
from reference.softmax_regression.cross_entropy import cross_entropy
from reference.softmax_regression.softmax import softmax


def train_softmax(
    X: Tensor,
    y: Tensor,
    num_classes: int,
    *,
    lr: float,
    num_epochs: int,
    batch_size: int,
    generator: torch.Generator,
) -> tuple[Tensor, Tensor]:
    """Fit W and b so that softmax(X W + b) predicts `y`, by plain minibatch SGD on the mean cross-entropy.

    The random numbers are prescribed, so that the result can be compared number by number. From `generator` draw
    `torch.randn(D, K)` once - W starts as 0.01 times that, b as zeros - and then, at the start of every epoch,
    `torch.randperm(N)`. An epoch goes through that permutation in batches of `batch_size` (the last may be smaller)
    and takes one step, W - lr * gradient and b - lr * gradient, per batch. Draw nothing else.

    On the bundled digits (1437 for training, lr 0.5, 10 epochs, batches of 32) this reaches a test accuracy of at
    least 0.93 with a cross-entropy of at most 0.30.

    Args:
        X: features `(N, D)`, float32.
        y: classes `(N,)`, int64 in [0, K).
        num_classes: the number of classes K; a class may be absent from `y`.
        lr: the learning rate.
        num_epochs: how often to go through the data; 0 returns the initial values.
        batch_size: samples per step; the loss is the mean over the samples of the batch at hand.
        generator: the source of all random numbers, on the CPU.

    Returns:
        W `(D, K)` and b `(K,)`, detached from any graph.

    Raises:
        ValueError: a label outside [0, K), or N = 0. Nothing has been drawn then.

    Example:
        >>> X, y = torch.tensor([[0.0], [1.0], [4.0], [5.0]]), torch.tensor([0, 0, 1, 1])
        >>> generator = torch.Generator().manual_seed(0)
        >>> W, b = train_softmax(X, y, 2, lr=0.5, num_epochs=50, batch_size=2, generator=generator)
        >>> (X @ W + b).argmax(-1)
        tensor([0, 0, 1, 1])
    """
    if len(X) == 0:
        raise ValueError("there are no samples")
    if ((y < 0) | (y >= num_classes)).any():
        raise ValueError(f"a label is outside [0, {num_classes})")
    W = 0.01 * torch.randn(X.shape[1], num_classes, generator=generator)
    b = torch.zeros(num_classes)
    W, b = W.to(X.device).requires_grad_(), b.to(X.device).requires_grad_()
    for _ in range(num_epochs):
        order = torch.randperm(len(X), generator=generator).to(X.device)
        for batch in order.split(batch_size):
            loss = cross_entropy(X[batch] @ W + b, y[batch])
            loss.backward()
            with torch.no_grad():
                for parameter in (W, b):
                    parameter -= lr * parameter.grad
                    parameter.grad = None
    return W.detach(), b.detach()


exercise = Exercise(
    train_softmax,
    points=12,
    autograd=True,
    forbid=(*FORBID, "optim", "*Linear", "utils"),
    uses=("cross_entropy",),
    hints=(
        "One step: logits of the batch, loss, gradients, update. Which of these lines may not be recorded by autograd?",
        "W = (0.01 * torch.randn(D, K, generator=generator)).requires_grad_(); per epoch "
        "torch.randperm(N, generator=generator).split(batch_size) gives the rows of each batch.",
        "loss = cross_entropy(X[batch] @ W + b, y[batch]); loss.backward(); under torch.no_grad(): W -= lr * W.grad, "
        "the same for b, and set both .grad to None. Return W.detach(), b.detach().",
    ),
    source="D2L linear-classification/softmax-regression-scratch, image-classification-dataset",
)


@exercise.truth
def truth(X, y, num_classes, *, lr, num_epochs, batch_size, generator):
    n, width = X.shape
    if n == 0 or y.min() < 0 or y.max() >= num_classes:
        raise ValueError
    weights = 0.01 * torch.randn(width, num_classes, generator=generator).double()
    bias = torch.zeros(num_classes, dtype=torch.float64)
    onehot = torch.eye(num_classes, dtype=torch.float64)[y]
    features = X.double()
    for _ in range(num_epochs):
        order = torch.randperm(n, generator=generator)
        for start in range(0, n, batch_size):
            rows = order[start : start + batch_size]
            error = (torch.softmax(features[rows] @ weights + bias, 1) - onehot[rows]) / len(rows)
            weights = weights - lr * features[rows].T @ error
            bias = bias - lr * error.sum(0)
    return weights, bias


def on_test_set(train, X, y, X_test, y_test, seed):
    generator = torch.Generator().manual_seed(seed)
    W, b = train(X, y, 10, lr=0.5, num_epochs=10, batch_size=32, generator=generator)
    logits = X_test.double() @ W.double() + b.double()
    right = (logits.argmax(1) == y_test).double().mean()
    loss = (logits.logsumexp(1) - logits[torch.arange(len(y_test)), y_test]).mean()
    return {"test accuracy >= 0.93": bool(right >= 0.93), "test cross-entropy <= 0.30": bool(loss <= 0.30)}


def refused(train, X, y, generator):
    before, raised = generator.get_state(), "nothing"
    try:
        train(X, y, 3, lr=0.1, num_epochs=1, batch_size=2, generator=generator)
    except ValueError:
        raised = "ValueError"
    return {"raised": raised, "numbers drawn": not torch.equal(generator.get_state(), before)}


@exercise.speed(2.5, size=256, cuda=8192)
def speed(draw, size):
    X, y = draw.normal(size, 64), draw.integers(0, 10, size)
    return Case("one epoch in batches of 32", X, y, 10, lr=0.1, num_epochs=1, batch_size=32, generator=draw.generator())


@exercise.cases
def cases(draw):
    def case(name, n, width, classes, lr, epochs, batch, *, scale=1.0, offset=0.0, y=None, **more):
        X = offset + scale * draw.normal(n, width)
        y = draw.integers(0, classes, n) if y is None else torch.tensor(y)
        return Case(name, X, y, classes, lr=lr, num_epochs=epochs, batch_size=batch, generator=draw.generator(),
                    double=False, layouts=epochs == 1, **more)  # fmt: skip

    yield case("40 samples in batches of 16", 40, 5, 3, 0.3, 3, 16)
    yield case("batches that fit", 12, 3, 4, 0.5, 2, 4)
    yield case("one batch, one epoch", 6, 4, 3, 0.5, 1, 10)
    yield case("two classes", 9, 3, 2, 0.2, 2, 2)
    yield case("a batch per sample", 5, 2, 3, 0.1, 2, 1)
    yield case("a class that is absent", 7, 3, 5, 0.4, 2, 3, y=[0, 2, 3, 0, 2, 1, 1], edge=True)
    yield case("no epochs", 6, 4, 3, 0.5, 0, 2, edge=True)
    yield case("features of scale 100", 20, 3, 4, 0.1, 2, 8, scale=100.0, edge=True)
    yield case("a label K", 4, 2, 3, 0.1, 1, 2, y=[0, 1, 3, 2], raises=ValueError)
    yield case("a label -1", 4, 2, 3, 0.1, 1, 2, y=[0, 1, -1, 2], raises=ValueError)
    yield case("a label -100", 4, 2, 3, 0.1, 1, 2, y=[0, 1, -100, 2], raises=ValueError)
    yield case("a label K and no epochs", 4, 2, 3, 0.1, 0, 2, y=[0, 1, 3, 2], raises=ValueError)
    yield case("no samples", 0, 2, 3, 0.1, 1, 2, raises=ValueError)
    refusal = {"probe": refused, "double": False, "layouts": False, "edge": True}
    features = draw.normal(4, 2)
    yield Case("the generator after a label K", features, torch.tensor([0, 1, 3, 2]), draw.generator(), **refusal)
    yield Case("the generator after no samples", features[:0], torch.zeros(0, dtype=torch.int64), draw.generator(),
               hidden=True, **refusal)  # fmt: skip
    yield case("a label -1 and no epochs", 4, 2, 3, 0.1, 0, 2, y=[0, -1, 1, 2], raises=ValueError, hidden=True)
    yield case("37 samples in batches of 8", 37, 4, 6, 0.25, 2, 8, hidden=True)
    yield case("tiny features", 11, 3, 4, 1.5, 3, 4, scale=1e-3, hidden=True)
    yield case("features far from 0", 10, 3, 4, 0.05, 2, 4, offset=20.0, hidden=True)
    yield case("one sample", 1, 3, 2, 0.5, 2, 4, edge=True, hidden=True)
    yield case("no samples, no epochs", 0, 2, 3, 0.1, 0, 2, raises=ValueError, hidden=True)
    X, y = data.digits()
    order = torch.randperm(len(X), generator=torch.Generator().manual_seed(0))
    train, test = order[:1437], order[1437:]
    seed = int(draw.integers(0, 3))
    yield Case("digits", X[train], y[train], X[test], y[test], seed, probe=on_test_set, double=False, layouts=False,
               hidden=True)  # fmt: skip


def fit(X, y, num_classes, lr, num_epochs, batch_size, generator, **change):
    """Train right, but for what is given by name: a loss, initial values, batches of an epoch, a step."""
    loss = change.get("loss", cross_entropy)
    step = change.get("step", update)
    change.get("check", check)(X, y, num_classes)
    std = change.get("std", 0.01)
    W = (std * torch.randn(X.shape[1], num_classes, generator=generator)).requires_grad_()
    b = torch.zeros(num_classes, requires_grad=True)
    for epoch in range(num_epochs):
        batches = change.get("batches", shuffled)(len(X), batch_size, generator)
        for batch in batches:
            loss(X[batch] @ W + b, y[batch]).backward()
            step(W, b, lr)
    return W.detach(), b.detach()


def check(X, y, num_classes):
    if len(X) == 0 or bool(((y < 0) | (y >= num_classes)).any()):
        raise ValueError


def shuffled(n, batch_size, generator):
    return torch.randperm(n, generator=generator).split(batch_size)


def update(W, b, lr):
    with torch.no_grad():
        for parameter in (W, b):
            parameter -= lr * parameter.grad
            parameter.grad = None


@exercise.wrong(
    "The loss applies softmax itself: feed it the logits. Twice softmax and the accuracy is stuck near 85 %."
)
def softmax_twice(X, y, num_classes, *, lr, num_epochs, batch_size, generator):
    return fit(X, y, num_classes, lr, num_epochs, batch_size, generator, loss=lambda z, t: cross_entropy(softmax(z), t))


@exercise.wrong(
    "The loss is the mean over the batch; summed, the step is batch_size times longer and the probabilities go wild."
)
def loss_summed(X, y, num_classes, *, lr, num_epochs, batch_size, generator):
    return fit(X, y, num_classes, lr, num_epochs, batch_size, generator,
               loss=lambda z, t: cross_entropy(z, t, reduction="sum"))  # fmt: skip


@exercise.wrong("The mean is over the samples of this batch: a smaller last batch is divided by its own size.")
def last_batch_divided_by_batch_size(X, y, num_classes, *, lr, num_epochs, batch_size, generator):
    return fit(X, y, num_classes, lr, num_epochs, batch_size, generator,
               loss=lambda z, t: cross_entropy(z, t, reduction="sum") / batch_size)  # fmt: skip


@exercise.wrong("The mean is over the samples, not over samples and classes: the gradient becomes K times too small.")
def mean_over_classes_too(X, y, num_classes, *, lr, num_epochs, batch_size, generator):
    return fit(X, y, num_classes, lr, num_epochs, batch_size, generator,
               loss=lambda z, t: cross_entropy(z, t) / num_classes)  # fmt: skip


@exercise.wrong("exp of the raw logits overflows when features are large: use your cross_entropy, which shifts them.")
def unshifted_exponentials(X, y, num_classes, *, lr, num_epochs, batch_size, generator):
    def loss(z, t):
        return (z.exp().sum(1).log() - z.gather(1, t.unsqueeze(1)).squeeze(1)).mean()

    return fit(X, y, num_classes, lr, num_epochs, batch_size, generator, loss=loss)


@exercise.wrong("argmax and == have no gradient: train on the cross-entropy, measure by accuracy.", caught_by="runs")
def argmax_in_the_loss(X, y, num_classes, *, lr, num_epochs, batch_size, generator):
    return fit(X, y, num_classes, lr, num_epochs, batch_size, generator,
               loss=lambda z, t: (z.argmax(1) != t).float().mean())  # fmt: skip


@exercise.wrong(
    "A loop over the samples of a batch: one matrix product and one backward pass handle all of them.",
    caught_by="speed",
)
def sample_by_sample(X, y, num_classes, *, lr, num_epochs, batch_size, generator):
    def loss(z, t):
        return sum(cross_entropy(z[i : i + 1], t[i : i + 1]) for i in range(len(z))) / len(z)

    return fit(X, y, num_classes, lr, num_epochs, batch_size, generator, loss=loss)


@exercise.wrong("Without shuffling, sorted classes are learned and forgotten in turn: one randperm(N) per epoch.")
def no_shuffling(X, y, num_classes, *, lr, num_epochs, batch_size, generator):
    return fit(X, y, num_classes, lr, num_epochs, batch_size, generator,
               batches=lambda n, size, _: torch.arange(n).split(size))  # fmt: skip


@exercise.wrong("Draw a new permutation for every epoch, not one for all.")
def one_permutation_for_all_epochs(X, y, num_classes, *, lr, num_epochs, batch_size, generator):
    drawn = []

    def batches(n, size, g):
        if not drawn:
            drawn.append(torch.randperm(n, generator=g))
        return drawn[0].split(size)

    return fit(X, y, num_classes, lr, num_epochs, batch_size, generator, batches=batches)


@exercise.wrong("randint draws some samples twice and others not at all: an epoch is a permutation.")
def drawn_with_replacement(X, y, num_classes, *, lr, num_epochs, batch_size, generator):
    return fit(X, y, num_classes, lr, num_epochs, batch_size, generator,
               batches=lambda n, size, g: torch.randint(n, (n,), generator=g).split(size))  # fmt: skip


@exercise.wrong("The permutation must pick the labels too: X[batch] belongs to y[batch].")
def labels_not_shuffled(X, y, num_classes, *, lr, num_epochs, batch_size, generator):
    check(X, y, num_classes)
    W = (0.01 * torch.randn(X.shape[1], num_classes, generator=generator)).requires_grad_()
    b = torch.zeros(num_classes, requires_grad=True)
    for _ in range(num_epochs):
        for batch, labels in zip(shuffled(len(X), batch_size, generator), y.split(batch_size), strict=True):
            cross_entropy(X[batch] @ W + b, labels).backward()
            update(W, b, lr)
    return W.detach(), b.detach()


@exercise.wrong("The last, smaller batch belongs to the epoch too.")
def last_batch_dropped(X, y, num_classes, *, lr, num_epochs, batch_size, generator):
    return fit(X, y, num_classes, lr, num_epochs, batch_size, generator,
               batches=lambda n, size, g: shuffled(n, size, g)[: n // size])  # fmt: skip


@exercise.wrong("One step per batch, not one per epoch: `batch_size` is not used.")
def whole_data_in_one_batch(X, y, num_classes, *, lr, num_epochs, batch_size, generator):
    return fit(X, y, num_classes, lr, num_epochs, len(X) or 1, generator)


@exercise.wrong("Only the first batch of each epoch is used: go through the whole permutation.")
def one_batch_per_epoch(X, y, num_classes, *, lr, num_epochs, batch_size, generator):
    return fit(X, y, num_classes, lr, num_epochs, batch_size, generator, batches=lambda *a: shuffled(*a)[:1])


@exercise.wrong("backward() adds to .grad: without clearing it, old gradients keep pushing.")
def gradients_never_cleared(X, y, num_classes, *, lr, num_epochs, batch_size, generator):
    def step(W, b, lr):
        with torch.no_grad():
            W -= lr * W.grad
            b -= lr * b.grad

    return fit(X, y, num_classes, lr, num_epochs, batch_size, generator, step=step)


@exercise.wrong("The update goes against the gradient: minus lr * grad.")
def steps_uphill(X, y, num_classes, *, lr, num_epochs, batch_size, generator):
    return fit(X, y, num_classes, -lr, num_epochs, batch_size, generator)


@exercise.wrong("b is trained as well as W.")
def bias_not_trained(X, y, num_classes, *, lr, num_epochs, batch_size, generator):
    def step(W, b, lr):
        with torch.no_grad():
            W -= lr * W.grad
            W.grad = b.grad = None

    return fit(X, y, num_classes, lr, num_epochs, batch_size, generator, step=step)


@exercise.wrong("`lr` is an argument: do not divide it by the batch size once more, the mean has done so already.")
def learning_rate_divided_by_batch_size(X, y, num_classes, *, lr, num_epochs, batch_size, generator):
    return fit(X, y, num_classes, lr / batch_size, num_epochs, batch_size, generator)


@exercise.wrong("range(1, num_epochs) is one epoch short.")
def one_epoch_short(X, y, num_classes, *, lr, num_epochs, batch_size, generator):
    return fit(X, y, num_classes, lr, num_epochs - 1, batch_size, generator)


def new_tensors(X, y, num_classes, lr, num_epochs, batch_size, generator, grad_mode):
    """Train with steps that make new tensors, in a mode of autograd, instead of changing the leaves."""
    check(X, y, num_classes)
    W = (0.01 * torch.randn(X.shape[1], num_classes, generator=generator)).requires_grad_()
    b = torch.zeros(num_classes, requires_grad=True)
    for _ in range(num_epochs):
        for batch in shuffled(len(X), batch_size, generator):
            cross_entropy(X[batch] @ W + b, y[batch]).backward()
            with grad_mode():
                W, b = W - lr * W.grad, b - lr * b.grad
    return W.detach(), b.detach()


@exercise.wrong(
    "W = W - lr * W.grad under no_grad makes a tensor that does not require grad: the next backward() fails. "
    "Update in place: W -= lr * W.grad.",
    caught_by="runs",
)
def new_tensor_without_grad(X, y, num_classes, *, lr, num_epochs, batch_size, generator):
    return new_tensors(X, y, num_classes, lr, num_epochs, batch_size, generator, torch.no_grad)


@exercise.wrong("W starts as 0.01 * randn: without the factor the first predictions are wildly sure of themselves.")
def large_initial_weights(X, y, num_classes, *, lr, num_epochs, batch_size, generator):
    return fit(X, y, num_classes, lr, num_epochs, batch_size, generator, std=1.0)


@exercise.wrong("W starts as 0.01 * randn, drawn from `generator`, not as zeros.")
def zero_initial_weights(X, y, num_classes, *, lr, num_epochs, batch_size, generator):
    return fit(X, y, num_classes, lr, num_epochs, batch_size, generator, std=0.0)


@exercise.wrong("X W needs W of shape (D, K); (K, D) is how nn.Linear stores it.", caught_by="shape")
def weights_transposed(X, y, num_classes, *, lr, num_epochs, batch_size, generator):
    W, b = train_softmax(X, y, num_classes, lr=lr, num_epochs=num_epochs, batch_size=batch_size, generator=generator)
    return W.T.clone(), b


@exercise.wrong("The draw is randn(D, K) as it stands: randn(K, D) transposed holds the same numbers elsewhere.")
def drawn_transposed(X, y, num_classes, *, lr, num_epochs, batch_size, generator):
    check(X, y, num_classes)
    W = (0.01 * torch.randn(num_classes, X.shape[1], generator=generator)).T.clone().requires_grad_()
    b = torch.zeros(num_classes, requires_grad=True)
    for _ in range(num_epochs):
        for batch in shuffled(len(X), batch_size, generator):
            cross_entropy(X[batch] @ W + b, y[batch]).backward()
            update(W, b, lr)
    return W.detach(), b.detach()


@exercise.wrong("W is returned first, then b.", caught_by="shape")
def bias_returned_first(X, y, num_classes, *, lr, num_epochs, batch_size, generator):
    W, b = train_softmax(X, y, num_classes, lr=lr, num_epochs=num_epochs, batch_size=batch_size, generator=generator)
    return b, W


@exercise.wrong("The draws are prescribed: W first, then one permutation per epoch.")
def permutations_drawn_first(X, y, num_classes, *, lr, num_epochs, batch_size, generator):
    check(X, y, num_classes)
    orders = [torch.randperm(len(X), generator=generator) for _ in range(num_epochs)]
    return fit(X, y, num_classes, lr, num_epochs, batch_size, generator,
               batches=lambda _n, size, _g: orders.pop(0).split(size))  # fmt: skip


@exercise.wrong("b starts as zeros: drawing it changes every number drawn after it.")
def bias_drawn_too(X, y, num_classes, *, lr, num_epochs, batch_size, generator):
    def batches(n, size, g):
        if not started:
            started.append(0.01 * torch.randn(num_classes, generator=g))
        return shuffled(n, size, g)

    started = []
    return fit(X, y, num_classes, lr, num_epochs, batch_size, generator, batches=batches)


@exercise.wrong("All random numbers come from `generator`; torch's global generator is left alone.", caught_by="state")
def global_generator(X, y, num_classes, *, lr, num_epochs, batch_size, generator):
    return fit(X, y, num_classes, lr, num_epochs, batch_size, None)


@exercise.wrong("W has a column for each of the K classes that are given, also for those absent from `y`.")
def classes_from_the_data(X, y, num_classes, *, lr, num_epochs, batch_size, generator):
    check(X, y, num_classes)
    return fit(X, y, int(y.max()) + 1, lr, num_epochs, batch_size, generator)


@exercise.wrong(
    "Return W.detach() and b.detach(): results are plain numbers, not parts of a graph.", caught_by="gradients"
)
def results_not_detached(X, y, num_classes, *, lr, num_epochs, batch_size, generator):
    W, b = train_softmax(X, y, num_classes, lr=lr, num_epochs=num_epochs, batch_size=batch_size, generator=generator)
    return W.requires_grad_(), b.requires_grad_()


@exercise.wrong("The features belong to the caller: do not standardise or shuffle them in place.", caught_by="inputs")
def data_shuffled_in_place(X, y, num_classes, *, lr, num_epochs, batch_size, generator):
    W, b = train_softmax(X, y, num_classes, lr=lr, num_epochs=num_epochs, batch_size=batch_size, generator=generator)
    X.copy_(X.flip(0).clone())
    return W, b


@exercise.wrong(
    "Check the labels at the start: the loss sees them only when there is an epoch, and it ignores -100.",
    caught_by="errors",
)
def labels_checked_by_the_loss_only(X, y, num_classes, *, lr, num_epochs, batch_size, generator):
    def samples_only(X, y, num_classes):
        if len(X) == 0:
            raise ValueError

    return fit(X, y, num_classes, lr, num_epochs, batch_size, generator, check=samples_only)


@exercise.wrong("No samples is an error (ValueError): there is nothing to learn from.", caught_by="errors")
def nothing_to_learn_from(X, y, num_classes, *, lr, num_epochs, batch_size, generator):
    if len(X) == 0:
        return 0.01 * torch.randn(X.shape[1], num_classes, generator=generator), torch.zeros(num_classes)
    return train_softmax(X, y, num_classes, lr=lr, num_epochs=num_epochs, batch_size=batch_size, generator=generator)


@exercise.wrong("Check first, draw afterwards: a call that is refused leaves the generator as it was.")
def draws_before_the_check(X, y, num_classes, *, lr, num_epochs, batch_size, generator):
    W = (0.01 * torch.randn(X.shape[1], num_classes, generator=generator)).requires_grad_()
    b = torch.zeros(num_classes, requires_grad=True)
    check(X, y, num_classes)
    for _ in range(num_epochs):
        for batch in shuffled(len(X), batch_size, generator):
            cross_entropy(X[batch] @ W + b, y[batch]).backward()
            update(W, b, lr)
    return W.detach(), b.detach()


@exercise.wrong(
    "randperm needs `generator` too: without it the permutations come from torch's global one.", caught_by="state"
)
def permutations_from_the_global_generator(X, y, num_classes, *, lr, num_epochs, batch_size, generator):
    return fit(X, y, num_classes, lr, num_epochs, batch_size, generator,
               batches=lambda n, size, _: torch.randperm(n).split(size))  # fmt: skip


@exercise.wrong(
    "W = W - lr * W.grad without no_grad is a result with a history, no leaf: its .grad stays None. Update in place "
    "under no_grad: W -= lr * W.grad.",
    caught_by="runs",
)
def new_tensor_with_history(X, y, num_classes, *, lr, num_epochs, batch_size, generator):
    return new_tensors(X, y, num_classes, lr, num_epochs, batch_size, generator, torch.enable_grad)


@exercise.wrong("Both gradients belong to one forward pass: take them before W or b is changed.")
def bias_gradient_after_the_step_of_the_weights(X, y, num_classes, *, lr, num_epochs, batch_size, generator):
    check(X, y, num_classes)
    W = 0.01 * torch.randn(X.shape[1], num_classes, generator=generator)
    b = torch.zeros(num_classes)
    for _ in range(num_epochs):
        for batch in shuffled(len(X), batch_size, generator):
            for change in (W, b):
                error = softmax(X[batch] @ W + b)
                error[torch.arange(len(batch)), y[batch]] -= 1
                change -= lr * (X[batch].T @ error if change is W else error.sum(0)) / len(batch)
    return W, b


@exercise.right("with the gradient by hand: X' (softmax - onehot) / n")
def gradient_by_hand(X, y, num_classes, *, lr, num_epochs, batch_size, generator):
    check(X, y, num_classes)
    W = torch.randn(X.shape[1], num_classes, generator=generator) * 0.01
    b = torch.zeros(num_classes)
    for _ in range(num_epochs):
        order = torch.randperm(len(X), generator=generator)
        for start in range(0, len(X), batch_size):
            rows = order[start : start + batch_size]
            error = softmax(X[rows] @ W + b)
            error[torch.arange(len(rows)), y[rows]] -= 1
            W = W - lr / len(rows) * (X[rows].T @ error)
            b = b - lr * error.mean(0)
    return W, b


@exercise.right("with the bias as one more row of weights, and autograd.grad")
def bias_as_a_row(X, y, num_classes, *, lr, num_epochs, batch_size, generator):
    check(X, y, num_classes)
    width = X.shape[1]
    wide = torch.cat([X, X.new_ones(len(X), 1)], 1)
    weights = torch.zeros(width + 1, num_classes)
    weights[:width] = torch.randn(width, num_classes, generator=generator).mul_(0.01)
    for _ in range(num_epochs):
        order = torch.randperm(len(X), generator=generator)
        shuffled_x, shuffled_y = wide[order], y[order]
        for features, labels in zip(shuffled_x.split(batch_size), shuffled_y.split(batch_size), strict=True):
            weights.requires_grad_()
            loss = cross_entropy(features.matmul(weights), labels)
            weights = weights.detach() - lr * torch.autograd.grad(loss, weights)[0]
    return weights[:width].clone(), weights[width].clone()
