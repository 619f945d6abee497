"""Truncated backpropagation through time."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from grader import Case, Exercise


def truncated_bptt(
    cell: nn.Module, step_loss: Callable[[Tensor, Tensor], Tensor], x: Tensor, y: Tensor, h0: Tensor, chunk: int
) -> tuple[Tensor, Tensor]:
    """Backpropagate L = (1/T) sum_t step_loss(h_t, y_t) chunk by chunk, with h_t = cell(x_t, h_{t-1}).

    Args:
        cell: `cell(x_t, h)` returns the next state, shaped like h.
        step_loss: `step_loss(h_t, y_t)` returns a 0-d loss; a function or a module with parameters of its own.
        x: inputs, time first, `(T, ...)`.
        y: targets, time first, `(T, ...)`.
        h0: the state before the first step. It receives no gradient, nor does what it was made from.
        chunk: steps per chunk; the last chunk may be shorter, or chunk longer than T.

    Returns:
        L, 0-d, and the last state h_T, both detached. Their values are those of an untruncated run. As a side
        effect the gradients of L are added to the `.grad` of all parameters (what is there already stays in the
        sum), cut at the start of every chunk: the state is detached there, h0 too. If x requires a gradient it
        receives the truncated one, added to `x.grad` in the same way.

    Raises:
        ValueError: chunk < 1, or T = 0; checked before anything is changed.

    Cost: each step calls the cell once. A chunk's graph is backpropagated and freed before the next chunk
        starts, so memory is bounded by one chunk, whatever T is; `retain_graph=True` is not allowed.

    Example:
        >>> class Decay(torch.nn.Module):
        ...     def __init__(self):
        ...         super().__init__()
        ...         self.w = torch.nn.Parameter(torch.tensor(0.5))
        ...     def forward(self, x_t, h):
        ...         return self.w * h + x_t
        >>> cell, x = Decay(), torch.ones(3, 1)
        >>> truncated_bptt(cell, lambda h, y: (h - y).sum(), x, torch.zeros(3, 1), torch.zeros(1), 2)
        (tensor(1.4167), tensor([1.7500]))
        >>> cell.w.grad  # (dh_1 + dh_2 + dh_3) / 3 with h_2 held constant in dh_3: (0 + 1 + 1.5) / 3
        tensor(0.8333)
    """
    steps = x.shape[0]
    if chunk < 1 or steps == 0:
        raise ValueError(f"chunk must be at least 1 and x must have steps, got chunk {chunk} and {steps} steps")
    h, total = h0, torch.zeros(())
    for start in range(0, steps, chunk):
        h, losses = h.detach(), []
        for t in range(start, min(start + chunk, steps)):
            h = cell(x[t], h)
            losses.append(step_loss(h, y[t]))
        share = torch.stack(losses).sum() / steps
        share.backward()
        total = total + share.detach()
    return total, h.detach()


exercise = Exercise(
    truncated_bptt,
    points=12,
    autograd=True,
    hints=(
        "Where does the graph of the second chunk end if nobody cuts it? In the first chunk, whose graph is freed.",
        "At the start of every chunk detach the state (its value stays). At its end call backward on the chunk's "
        "sum of step losses divided by T, the number of all steps, not of the chunk's.",
        "for start in range(0, T, chunk): h = h.detach(); in the chunk h = cell(x[t], h), add step_loss(h, y[t]) "
        "to its sum; share = that sum / T; share.backward(); total += share.detach().",
    ),
    source="D2L recurrent-neural-networks/bptt, rnn-scratch",
)


@exercise.truth
def truth(cell, step_loss, x, y, h0, chunk):
    if chunk < 1 or len(x) == 0:
        raise ValueError
    wanted = list(cell.parameters())
    if isinstance(step_loss, nn.Module):
        wanted += list(step_loss.parameters())
    wanted = [p for p in [*wanted, x] if p.requires_grad]
    h, loss, sums = h0, 0.0, [torch.zeros_like(p) for p in wanted]
    for t in range(len(x)):
        if t % chunk == 0:
            h, part = h.detach(), 0.0
        h = cell(x[t], h)
        part = part + step_loss(h, y[t]) / len(x)
        if t % chunk == chunk - 1 or t == len(x) - 1:
            found = torch.autograd.grad(part, wanted, allow_unused=True)
            sums = [s if g is None else s + g for s, g in zip(sums, found, strict=True)]
            loss = loss + part.detach()
    for p, g in zip(wanted, sums, strict=True):
        p.grad = g if p.grad is None else p.grad + g
    return loss, h.detach()


@exercise.probe
def train_once(candidate, x, y, h0, chunk, w_ih, w_hh, w_out, mode="", grads=None):
    """Build a cell and a loss from plain tensors, run the candidate once, and report loss, state and gradients."""

    class Cell(nn.Module):
        def __init__(self):
            super().__init__()
            self.w_ih, self.w_hh = nn.Parameter(w_ih.clone()), nn.Parameter(w_hh.clone())
            self.unused = nn.Parameter(w_hh.clone())
            self.calls, self.shapes = 0, []

        def forward(self, x_t, h):
            self.calls += 1
            self.shapes.append([list(x_t.shape), list(h.shape)])
            chosen = x_t @ self.w_ih.T if x_t.is_floating_point() else self.w_ih.T[x_t]
            return torch.tanh(chosen + h @ self.w_hh.T)

    class Loss(nn.Module):
        def __init__(self):
            super().__init__()
            self.w_out = nn.Parameter(w_out.clone())

        def forward(self, h, y_t):
            return (h @ self.w_out - y_t).square().mean()

    cell, loss = Cell().eval(), Loss()
    x, y, first = x.clone(), y.clone(), h0.clone().requires_grad_(mode == "h0 with a graph")
    h0 = first * 2 if mode == "h0 with a graph" else first
    named = {**dict(cell.named_parameters()), **dict(loss.named_parameters())}
    if mode == "x with a gradient":
        named["x"] = x.requires_grad_()
    if mode == "a frozen parameter":
        cell.w_ih.requires_grad_(False)
    for name, grad in (grads or {}).items():
        named[name].grad = grad.clone()
    step_loss = (lambda h, y_t: (h @ w_out - y_t).square().mean()) if mode == "a plain function" else loss
    value, last = candidate(cell, step_loss, x, y, h0, chunk)
    report = {
        "L": value,
        "L is detached": not getattr(value, "requires_grad", False),
        "h_T": last,
        "calls of the cell": cell.calls,
        "the cell's inputs": cell.shapes[:3],
    }
    for name, p in named.items():
        report["gradient of " + name] = torch.zeros_like(p) if p.grad is None else p.grad
    report["the cell's mode is left alone"] = not cell.training
    report["h0 requires a gradient as before"] = h0.requires_grad == (mode == "h0 with a graph")
    report["h0 has a gradient"] = first.grad is not None
    report["parameters are left alone"] = bool((cell.w_hh == w_hh).all() and (loss.w_out == w_out).all())
    return report


def freed(candidate, x, y, h0, chunk, w):
    """Keep every step's loss alive and try to backpropagate through it once more afterwards."""

    class Cell(nn.Module):
        def __init__(self):
            super().__init__()
            self.w = nn.Parameter(w.clone())

        def forward(self, x_t, h):
            return torch.tanh((x_t + h) @ self.w)

    cell, losses = Cell(), []

    def step_loss(h, y_t):
        losses.append((h - y_t).square().sum())
        return losses[-1]

    candidate(cell, step_loss, x, y, h0, chunk)
    kept = 0
    for loss in losses:
        try:
            torch.autograd.grad(loss, cell.w, retain_graph=True)
            kept += 1
        except RuntimeError:
            pass
    return {"graphs that are still there": kept, "gradient of w": cell.w.grad}


def refused(candidate, x, y, h0, chunk, w):
    """Call with an argument that is not legal and report what happened before the exception."""
    calls = []

    class Cell(nn.Module):
        def __init__(self):
            super().__init__()
            self.w = nn.Parameter(w.clone())

        def forward(self, x_t, h):
            calls.append(1)
            return torch.tanh((x_t + h) @ self.w)

    cell, raised = Cell(), False
    try:
        candidate(cell, lambda h, y_t: (h - y_t).square().sum(), x, y, h0, chunk)
    except ValueError:
        raised = True
    return {"raises ValueError": raised, "calls of the cell": len(calls), "gradients": cell.w.grad is not None}


def problem(draw, steps, batch, inputs, hidden, outputs, scale=1.0):
    """Draw x, y, h0 and, by name, the weights."""
    return (
        (scale * draw.normal(steps, batch, inputs), draw.normal(steps, batch, outputs), draw.normal(batch, hidden)),
        {
            "w_ih": draw.normal(hidden, inputs) / inputs**0.5,
            "w_hh": 1.2 * draw.normal(hidden, hidden) / hidden**0.5,
            "w_out": draw.normal(hidden, outputs),
        },
    )


@exercise.cases
def cases(draw):
    def case(name, sizes, chunk, scale=1.0, mode="", grads=(), **words):
        tensors, weights = problem(draw, *sizes, scale=scale)
        shapes = {name: tuple(w.shape) for name, w in weights.items()} | {"x": tuple(tensors[0].shape)}
        extra = {"mode": mode, "grads": {k: draw.normal(*shapes[k]) for k in grads} or None}
        return Case(name, *tensors, chunk, **weights, **extra, **words)

    yield case("eight steps, chunks of three", (8, 2, 3, 4, 5), 3)
    yield case("six steps, chunks of two", (6, 3, 2, 5, 1), 2)
    yield case("chunks of one step", (4, 2, 3, 5, 2), 1)
    yield case("one chunk of all steps", (5, 3, 2, 4, 1), 5, edge=True)
    yield case("chunk is larger than T", (4, 2, 5, 3, 1), 7, edge=True)
    yield case("gradients that are there already", (5, 2, 3, 4, 1), 3, grads=("w_ih", "w_out"))
    yield case("x requires a gradient", (7, 2, 4, 3, 1), 3, mode="x with a gradient")
    yield case("h0 was computed", (5, 2, 3, 4, 1), 2, mode="h0 with a graph", edge=True)
    yield case("step_loss is a plain function", (5, 3, 2, 4, 1), 2, mode="a plain function", edge=True)
    yield case("tiny inputs", (6, 2, 3, 5, 2), 4, scale=1e-3, hidden=True)
    yield case("large inputs", (6, 3, 2, 4, 1), 4, scale=30.0, hidden=True)
    yield case("a frozen parameter", (5, 2, 3, 4, 1), 2, mode="a frozen parameter", edge=True, hidden=True)
    yield case(
        "x has a gradient already", (5, 2, 3, 4, 1), 2, mode="x with a gradient", grads=("x", "w_hh"), hidden=True
    )
    (_, y, h0), weights = problem(draw, 6, 2, 5, 4, 1)
    yield Case("x is token ids", draw.integers(0, 5, 6, 2), y, h0, 4, **weights, edge=True, hidden=True)
    yield case("one step", (1, 2, 3, 4, 1), 3, edge=True, hidden=True)
    small = draw.normal(5, 2, 3), draw.normal(5, 2, 3), draw.normal(2, 3)
    yield Case("is the graph freed?", *small, 2, draw.normal(3, 3), probe=freed)
    nothing = draw.normal(0, 2, 3), draw.normal(0, 2, 3), draw.normal(2, 3)
    yield Case("no gradients before the exception: chunk 0", *small, 0, draw.normal(3, 3), probe=refused, edge=True)
    yield Case("no gradients before the exception: chunk -2", *small, -2, draw.normal(3, 3), probe=refused, edge=True)
    yield Case("no gradients before the exception: T = 0", *nothing, 2, draw.normal(3, 3), probe=refused, edge=True)
    tensors, weights = problem(draw, 4, 2, 3, 5, 1)
    yield Case("chunk = 0", *tensors, 0, **weights, raises=ValueError)
    yield Case("chunk = -1", *tensors, -1, **weights, raises=ValueError, hidden=True)
    tensors, weights = problem(draw, 0, 2, 3, 5, 1)
    yield Case("no steps", *tensors, 2, **weights, raises=ValueError)


@exercise.growth("steps", sizes=(8, 16), ops=1.0, peak=0.0)
def more_steps(draw, size):
    tensors, weights = problem(draw, size, 6, 3, 8, 1)
    return Case(f"{size} steps", *tensors, 2, **weights)


def checked(x, chunk):
    """Raise as the solution does."""
    if chunk < 1 or len(x) == 0:
        raise ValueError


def walk(
    cell, step_loss, x, y, h0, chunk, *, cut=lambda h, _: h.detach(), part=None, retain=None, last=None, each=None
):
    """Do what the solution does, with one thing done differently."""
    checked(x, chunk)
    h, total = h0, torch.zeros(())
    for start in range(0, len(x) if last is None else last, chunk):
        h, losses = cut(h, start), []
        for t in range(start, min(start + chunk, len(x))):
            h = cell(x[t], h if each is None else each(h))
            losses.append(step_loss(h, y[t]))
        share = torch.stack(losses).sum() / len(x) if part is None else part(losses)
        share.backward(retain_graph=retain)
        total = total + share.detach()
    return total, h.detach()


@exercise.wrong(
    "Without a detach the second chunk's backward runs into the first chunk's graph, which has been freed.",
    caught_by="runs",
)
def state_not_detached(cell, step_loss, x, y, h0, chunk):
    return walk(cell, step_loss, x, y, h0, chunk, cut=lambda h, _: h)


@exercise.wrong(
    "retain_graph=True silences the error about a freed graph, but then every chunk goes back to the first step: full "
    "backpropagation at quadratic cost. Detach the state instead.",
)
def graph_retained(cell, step_loss, x, y, h0, chunk):
    return walk(cell, step_loss, x, y, h0, chunk, cut=lambda h, _: h, retain=True)


@exercise.wrong("Cut the gradient, keep the memory: h.detach(), not zeros. The values are those of an untruncated run.")
def state_reset(cell, step_loss, x, y, h0, chunk):
    return walk(cell, step_loss, x, y, h0, chunk, cut=lambda h, t: torch.zeros_like(h) if t else h.detach())


@exercise.wrong("Cut the gradient, keep the memory: a chunk starts from the last state, detached, not from h0 again.")
def restarted_from_h0(cell, step_loss, x, y, h0, chunk):
    return walk(cell, step_loss, x, y, h0, chunk, cut=lambda _, t: h0.detach())  # noqa: ARG005 - each start alike


@exercise.wrong("The mean over each chunk makes the steps of a short last chunk weigh more. Divide sums by T.")
def mean_of_each_chunk(cell, step_loss, x, y, h0, chunk):
    chunks = -(-len(x) // max(chunk, 1))
    return walk(cell, step_loss, x, y, h0, chunk, part=lambda losses: torch.stack(losses).mean() / chunks)


@exercise.wrong("Inside a chunk gradients must flow from step to step: detach at the start of a chunk only.")
def detached_at_every_step(cell, step_loss, x, y, h0, chunk):
    return walk(cell, step_loss, x, y, h0, chunk, each=lambda h: h.detach())


@exercise.wrong("The last chunk is shorter when chunk does not divide T; its steps and its loss count.")
def last_chunk_dropped(cell, step_loss, x, y, h0, chunk):
    checked(x, chunk)
    return walk(cell, step_loss, x, y, h0, chunk, last=len(x) // chunk * chunk)


@exercise.wrong("h0 must be detached too: the first chunk starts like any other.", caught_by="values")
def h0_not_detached(cell, step_loss, x, y, h0, chunk):
    return walk(cell, step_loss, x, y, h0, chunk, cut=lambda h, t: h.detach() if t else h)


@exercise.wrong("Gradients are added to what is there: clearing them is the caller's business.")
def gradients_cleared(cell, step_loss, x, y, h0, chunk):
    checked(x, chunk)
    cell.zero_grad()
    if isinstance(step_loss, nn.Module):
        step_loss.zero_grad()
    return truncated_bptt(cell, step_loss, x, y, h0, chunk)


@exercise.wrong("L is the mean over the T steps: divide by T.")
def sum_over_steps(cell, step_loss, x, y, h0, chunk):
    return walk(cell, step_loss, x, y, h0, chunk, part=lambda losses: torch.stack(losses).sum())


@exercise.wrong("Divide by T, the number of all steps, not by the length of a chunk.")
def divided_by_chunk(cell, step_loss, x, y, h0, chunk):
    return walk(cell, step_loss, x, y, h0, chunk, part=lambda losses: torch.stack(losses).sum() / chunk)


@exercise.wrong(
    "One backward at the end keeps the graphs of all chunks until then. Backpropagate each chunk when it ends.",
    caught_by="growth",
)
def one_backward_at_the_end(cell, step_loss, x, y, h0, chunk):
    checked(x, chunk)
    h, losses = h0, []
    for t in range(len(x)):
        h = cell(x[t], h.detach() if t % chunk == 0 else h)
        losses.append(step_loss(h, y[t]))
    total = torch.stack(losses).sum() / len(x)
    total.backward()
    return total.detach(), h.detach()


@exercise.wrong("retain_graph=True is not needed once the state is detached; it only keeps memory alive.")
def retained_though_detached(cell, step_loss, x, y, h0, chunk):
    return walk(cell, step_loss, x, y, h0, chunk, retain=True)


@exercise.wrong("The last state still hangs on the last chunk's graph: return it detached.", caught_by="gradients")
def last_state_with_its_graph(cell, step_loss, x, y, h0, chunk):
    checked(x, chunk)
    h, total = h0, torch.zeros(())
    for start in range(0, len(x), chunk):
        h, part = h.detach(), 0.0
        for t in range(start, min(start + chunk, len(x))):
            h = cell(x[t], h)
            part = part + step_loss(h, y[t]) / len(x)
        part.backward()
        total = total + part.detach()
    return total, h


@exercise.wrong("The loss is returned with its graph: add up detached values.", caught_by="gradients")
def loss_with_its_graph(cell, step_loss, x, y, h0, chunk):
    checked(x, chunk)
    h, total = h0, torch.zeros(())
    for start in range(0, len(x), chunk):
        h, part = h.detach(), 0.0
        for t in range(start, min(start + chunk, len(x))):
            h = cell(x[t], h)
            part = part + step_loss(h, y[t]) / len(x)
        part.backward()
        total = total + part
    return total, h.detach()


@exercise.wrong(
    "Only the cell's parameters are served: step_loss has parameters of its own, and x may require a gradient."
)
def cell_only(cell, step_loss, x, y, h0, chunk):
    checked(x, chunk)
    wanted = [p for p in cell.parameters() if p.requires_grad]
    h, total = h0, torch.zeros(())
    for start in range(0, len(x), chunk):
        h, part = h.detach(), 0.0
        for t in range(start, min(start + chunk, len(x))):
            h = cell(x[t], h)
            part = part + step_loss(h, y[t]) / len(x)
        for p, g in zip(wanted, torch.autograd.grad(part, wanted, allow_unused=True), strict=True):
            if g is not None:
                p.grad = g if p.grad is None else p.grad + g
        total = total + part.detach()
    return total, h.detach()


@exercise.wrong("x is detached as well: only the state is cut; x receives the truncated gradient if it requires one.")
def x_detached(cell, step_loss, x, y, h0, chunk):
    return truncated_bptt(cell, step_loss, x.detach(), y, h0, chunk)


@exercise.wrong("Every step calls the cell once: a second forward pass for the values is not needed.")
def second_forward_pass(cell, step_loss, x, y, h0, chunk):
    checked(x, chunk)
    loss, _ = truncated_bptt(cell, step_loss, x, y, h0, chunk)
    with torch.no_grad():
        h = h0
        for step in x:
            h = cell(step, h)
    return loss, h


@exercise.wrong(
    "chunk < 1 and T = 0 are errors; a negative chunk must not pass as a walk over nothing.", caught_by="errors"
)
def nothing_checked(cell, step_loss, x, y, h0, chunk):
    h, total = h0, torch.zeros(())
    for start in range(0, len(x), chunk or 1):
        h, part = h.detach(), 0.0
        for t in range(start, min(start + (chunk or 1), len(x))):
            h = cell(x[t], h)
            part = part + step_loss(h, y[t]) / len(x)
        part.backward()
        total = total + part.detach()
    return total, h.detach()


@exercise.wrong("The first dimension of x is time: its length is T, and x[t] is one step of the whole batch.")
def batch_first(cell, step_loss, x, y, h0, chunk):
    checked(x, chunk)
    return truncated_bptt(cell, step_loss, x.transpose(0, 1), y.transpose(0, 1), h0, chunk)


@exercise.wrong("`t % chunk == 0` after the cell's call cuts one step late: the first chunk would have one step only.")
def chunks_shifted_by_one(cell, step_loss, x, y, h0, chunk):
    checked(x, chunk)
    h, part, total = h0.detach(), 0.0, torch.zeros(())
    for t in range(len(x)):
        h = cell(x[t], h)
        part = part + step_loss(h, y[t]) / len(x)
        if t % chunk == 0 or t == len(x) - 1:
            part.backward()
            total, h, part = total + part.detach(), h.detach(), 0.0
    return total, h.detach()


@exercise.wrong("Clearing the gradients before each chunk leaves those of the last chunk only.")
def cleared_before_each_chunk(cell, step_loss, x, y, h0, chunk):
    def cut(h, _):
        cell.zero_grad()
        return h.detach()

    return walk(cell, step_loss, x, y, h0, chunk, cut=cut)


@exercise.wrong("detach_() cuts the caller's own h0 off its graph: make a detached view with detach().")
def h0_detached_in_place(cell, step_loss, x, y, h0, chunk):
    checked(x, chunk)
    h0.detach_()
    return truncated_bptt(cell, step_loss, x, y, h0, chunk)


@exercise.wrong("Whether the cell is in train or eval mode is the caller's choice: leave it alone.")
def cell_put_into_train_mode(cell, step_loss, x, y, h0, chunk):
    checked(x, chunk)
    cell.train()
    return truncated_bptt(cell, step_loss, x, y, h0, chunk)


@exercise.wrong("The loss of step t belongs to the state after step t: call the cell first.")
def loss_of_the_old_state(cell, step_loss, x, y, h0, chunk):
    checked(x, chunk)
    h, total = h0, torch.zeros(())
    for start in range(0, len(x), chunk):
        h, part = h.detach(), 0.0
        for t in range(start, min(start + chunk, len(x))):
            part = part + step_loss(h, y[t]) / len(x)
            h = cell(x[t], h)
        if part.requires_grad:
            part.backward()
        total = total + part.detach()
    return total, h.detach()


@exercise.wrong("Every step has a loss, not only the last one of each chunk.")
def loss_at_chunk_ends_only(cell, step_loss, x, y, h0, chunk):
    return walk(cell, step_loss, x, y, h0, chunk, part=lambda losses: losses[-1] * len(losses) / len(x))


@exercise.wrong("The loss is a 0-d tensor, not a Python number: detach() keeps it one.", caught_by="type")
def loss_as_a_number(cell, step_loss, x, y, h0, chunk):
    loss, h = truncated_bptt(cell, step_loss, x, y, h0, chunk)
    return loss.item(), h


@exercise.wrong("The loss comes first, then the state.", caught_by="shape")
def results_swapped(cell, step_loss, x, y, h0, chunk):
    return truncated_bptt(cell, step_loss, x, y, h0, chunk)[::-1]


@exercise.right("autograd.grad, gradients added by hand")
def by_autograd_grad(cell, step_loss, x, y, h0, chunk):
    return truth(cell, step_loss, x, y, h0, chunk)


@exercise.right("all losses of a chunk as roots of one backward")
def many_roots(cell, step_loss, x, y, h0, chunk):
    checked(x, chunk)
    h, values = h0, []
    for xs, ys in zip(x.split(chunk), y.split(chunk), strict=True):
        h, losses = h.detach().clone(), []
        for x_t, y_t in zip(xs, ys, strict=True):
            h = cell(x_t, h)
            losses.append(step_loss(h, y_t))
        torch.autograd.backward(losses, [torch.full_like(loss, 1 / len(x)) for loss in losses])
        values += [loss.detach() for loss in losses]
    return torch.stack(values).mean(), h.detach()


@exercise.right("one loop over the steps, in running numbers")
def running(cell, step_loss, x, y, h0, chunk):
    checked(x, chunk)
    h, pending, total = h0.detach(), 0.0, 0.0
    for t, (x_t, y_t) in enumerate(zip(x, y, strict=True), start=1):
        h = cell(x_t, h)
        pending = pending + step_loss(h, y_t) / len(x)
        if t % chunk == 0 or t == len(x):
            pending.backward()
            total, pending, h = total + pending.detach(), 0.0, h.detach()
    return total, h
