"""A long short-term memory."""

import torch
import torch.nn.functional as F
from torch import Tensor

from grader import Case, Cost, Exercise
from reference.rnn import FORBID


def lstm_scan(
    x: Tensor, state: tuple[Tensor, Tensor] | None, w_ih: Tensor, w_hh: Tensor, b_ih: Tensor, b_hh: Tensor
) -> tuple[Tensor, tuple[Tensor, Tensor]]:
    """Run a long short-term memory over time.

    x_t w_ih^T + b_ih + h w_hh^T + b_hh is cut into four parts of H columns, i, f, g, o; then c becomes
    sigmoid(f) * c + sigmoid(i) * tanh(g), and h = sigmoid(o) * tanh(c) with the new c.

    Args:
        x: inputs, time first, `(T, B, D)`. T = 0 is legal.
        state: (h0, c0), the hidden state and the cell before the first step, each `(B, H)`; None means zeros of x's
            dtype and device.
        w_ih: input weights, `(4H, D)`, rows in the order i, f, g, o.
        w_hh: hidden weights, `(4H, H)`, rows in the same order.
        b_ih: input bias, `(4H,)`.
        b_hh: hidden bias, `(4H,)`.

    Returns:
        All hidden states h, `(T, B, H)`, whose entry t is h after step t, and the pair (h_T, c_T), each `(B, H)`.
        With T = 0 they are an empty `(0, B, H)` and the initial state (h0 and c0 themselves will do). Gradients
        reach every argument, through all steps, also from a loss on c_T alone.

    Raises:
        ValueError: the sizes do not fit together: x is not `(T, B, D)`, or another argument does not have exactly
            the shape above.

    Cost: the input projections of all steps are one matrix product and each step has one for all gates, so at most
        T + 1 products in all and 16 T + 20 operations; no loop over the batch; memory traffic grows linearly with T.

    Example:
        >>> zeros = torch.zeros(4, 1)  # D = H = 1: i, f, g, o
        >>> b = torch.tensor([-9.0, 9.0, 0.0, 9.0])  # write nothing, forget nothing, show everything
        >>> state = torch.tensor([[0.0]]), torch.tensor([[0.5]])
        >>> states, (h, c) = lstm_scan(torch.zeros(3, 1, 1), state, zeros, zeros, b, torch.zeros(4))
        >>> c, h  # the cell has kept 0.5 (nearly); h is tanh of it
        (tensor([[0.4998]]), tensor([[0.4619]]))
    """
    h, c = _lstm_start(x, state, w_ih, w_hh, b_ih, b_hh)
    projected = F.linear(x, w_ih, b_ih + b_hh)
    states = []
    for step in projected:
        i, f, g, o = (step + h @ w_hh.T).chunk(4, -1)
        c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
        h = torch.sigmoid(o) * torch.tanh(c)
        states.append(h)
    return (torch.stack(states) if states else projected[..., : h.shape[1]]), (h, c)


def _lstm_start(
    x: Tensor, state: tuple[Tensor, Tensor] | None, w_ih: Tensor, w_hh: Tensor, b_ih: Tensor, b_hh: Tensor
) -> tuple[Tensor, Tensor]:
    """Return h0 and c0, or zeros for None, after checking all sizes."""
    rows, hidden = 4 * w_hh.shape[-1], w_hh.shape[-1]
    if x.ndim != 3 or w_ih.shape != (rows, x.shape[2]) or w_hh.shape != (rows, hidden):
        raise ValueError(f"sizes do not fit: x {tuple(x.shape)}, w_ih {tuple(w_ih.shape)}, w_hh {tuple(w_hh.shape)}")
    if b_ih.shape != (rows,) or b_hh.shape != (rows,):
        raise ValueError(f"biases must be {(rows,)}, got {tuple(b_ih.shape)} and {tuple(b_hh.shape)}")
    if state is None:
        return x.new_zeros(x.shape[1], hidden), x.new_zeros(x.shape[1], hidden)
    h0, c0 = state
    if h0.shape != (x.shape[1], hidden) or c0.shape != (x.shape[1], hidden):
        raise ValueError(f"h0 and c0 must be {(x.shape[1], hidden)}, got {tuple(h0.shape)} and {tuple(c0.shape)}")
    return h0, c0


exercise = Exercise(
    lstm_scan,
    points=8,
    gradients=("x", "state", "w_ih", "w_hh", "b_ih", "b_hh"),
    may_alias=True,
    cost=Cost(ops=16 * 20 + 20, matmuls=20 + 1),
    forbid=FORBID,
    hints=(
        "All four parts (i, f, g, o) see the same inputs, x_t and the h of the step before. One product per step "
        "serves them all.",
        "projected = F.linear(x, w_ih, b_ih + b_hh) before the loop; in it (step + h @ w_hh.T).chunk(4, -1) gives "
        "i, f, g, o. First the new c, then h from the new c.",
        "c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g); h = torch.sigmoid(o) * torch.tanh(c); append h. "
        "Return the stack and (h, c).",
    ),
    source="D2L recurrent-modern/lstm",
)


@exercise.truth
def truth(x, state, w_ih, w_hh, b_ih, b_hh):
    steps, batch, _ = x.shape
    zeros = x.new_zeros(batch, w_hh.shape[1])
    h, c = (zeros, zeros) if state is None else state
    if steps == 0:
        return x.new_zeros(0, batch, w_hh.shape[1]), (h, c)
    weights, first = [w_ih, w_hh, b_ih, b_hh], (h.contiguous()[None], c.contiguous()[None])
    states, last_h, last_c = torch.lstm(x, first, weights, True, 1, 0.0, False, False, False)
    return states, (last_h[0], last_c[0])


def weights(draw, inputs, hidden, scale=1.0):
    """Draw w_ih, w_hh, b_ih and b_hh."""
    return (
        scale * draw.normal(4 * hidden, inputs) / inputs**0.5,
        scale * draw.normal(4 * hidden, hidden) / hidden**0.5,
        scale * 0.5 * draw.normal(4 * hidden),
        scale * 0.5 * draw.normal(4 * hidden),
    )


def last_cell(candidate, x, state, w_ih, w_hh, b_ih, b_hh):
    """Report the last cell alone, so that gradients come from it alone."""
    states, (h, c) = candidate(x, state, w_ih, w_hh, b_ih, b_hh)
    return {"c_T": c, "shape of the states": list(states.shape), "shape of h_T": list(h.shape)}


@exercise.cases
def cases(draw):
    def states(batch, hidden, scale=1.0):
        return scale * draw.normal(batch, hidden), scale * draw.normal(batch, hidden)

    yield Case("five steps", draw.normal(5, 3, 4), states(3, 6), *weights(draw, 4, 6))
    yield Case("one step", draw.normal(1, 2, 5), states(2, 3), *weights(draw, 5, 3))
    yield Case("state=None", draw.normal(4, 3, 2), None, *weights(draw, 2, 5))
    yield Case("twenty steps", draw.normal(20, 2, 3), states(2, 4), *weights(draw, 3, 4), cost=True)
    yield Case("a batch of one", draw.normal(4, 1, 3), states(1, 2), *weights(draw, 3, 2))
    yield Case(
        "one sequence saturates the gates",
        draw.normal(4, 2, 3) * torch.tensor([[2e3], [1.0]]),
        states(2, 5),
        *weights(draw, 3, 5),
    )
    yield Case(
        "a loss on the last cell alone", draw.normal(4, 2, 3), states(2, 4), *weights(draw, 3, 4), probe=last_cell
    )
    yield Case(
        "x stored batch first", draw.normal(3, 7, 4).transpose(0, 1), states(3, 2), *weights(draw, 4, 2), edge=True
    )
    yield Case("no steps", draw.normal(0, 3, 4), states(3, 2), *weights(draw, 4, 2), edge=True)
    yield Case("no steps, state=None", draw.normal(0, 2, 3), None, *weights(draw, 3, 4), edge=True)
    yield Case(
        "float64",
        draw.normal(3, 2, 5, dtype=torch.float64),
        None,
        *(w.double() for w in weights(draw, 5, 3)),
        edge=True,
    )
    open_gate = torch.tensor([-200.0, -200.0, 200.0, 200.0, 0.0, 0.0, 0.0, 0.0])
    small = [0.1 * w for w in weights(draw, 3, 2)]
    yield Case("cell kept for 60 steps", draw.normal(60, 2, 3), states(2, 2), *small[:3], open_gate)
    yield Case("cell kept for 200 steps", draw.normal(200, 1, 3), states(1, 2), *small[:3], open_gate, hidden=True)
    yield Case("forty steps", draw.normal(40, 2, 3), states(2, 4), *weights(draw, 3, 4), hidden=True)
    yield Case(
        "tiny inputs and weights",
        1e-3 * draw.normal(4, 3, 5),
        states(3, 2, 1e-3),
        *weights(draw, 5, 2, 1e-3),
        hidden=True,
    )
    yield Case("large states", draw.normal(4, 3, 2), states(3, 4, 50.0), *weights(draw, 2, 4), hidden=True)
    yield Case("one step of a batch of one", draw.normal(1, 1, 3), None, *weights(draw, 3, 2), hidden=True)
    w_ih, w_hh, b_ih, b_hh = weights(draw, 3, 5)
    x = draw.normal(4, 2, 3)
    yield Case("w_ih transposed", x, None, w_ih.T, w_hh, b_ih, b_hh, raises=ValueError)
    yield Case("weights of three gates", x, None, w_ih[:15], w_hh[:15], b_ih[:15], b_hh[:15], raises=ValueError)
    yield Case("w_ih for two inputs more", x, None, draw.normal(20, 5), w_hh, b_ih, b_hh, raises=ValueError)
    yield Case("w_ih of one unit more", x, None, draw.normal(24, 3), w_hh, b_ih, b_hh, raises=ValueError, hidden=True)
    yield Case("x without a batch", x[0], None, w_ih, w_hh, b_ih, b_hh, raises=ValueError)
    h0, c0 = states(2, 5)
    yield Case("states with a layer dimension", x, (h0[None], c0[None]), w_ih, w_hh, b_ih, b_hh, raises=ValueError)
    yield Case("one row of h0 for the batch", x, (h0[:1], c0), w_ih, w_hh, b_ih, b_hh, raises=ValueError)
    yield Case("one row of c0 for the batch", x, (h0, c0[:1]), w_ih, w_hh, b_ih, b_hh, raises=ValueError)
    yield Case("a bias of one number", x, None, w_ih, w_hh, b_ih, b_hh[:1], raises=ValueError)
    yield Case("an input bias of one number", x, None, w_ih, w_hh, b_ih[:1], b_hh, raises=ValueError, hidden=True)


@exercise.growth("steps", sizes=(16, 32), ops=1.0, matmuls=1.0, moved=1.0)
def more_steps(draw, size):
    return Case(f"{size} steps", draw.normal(size, 3, 4), None, *weights(draw, 4, 5))


@exercise.growth("batch", ops=0.0, matmuls=0.0)
def more_rows(draw, size):
    return Case(f"batch of {size}", draw.normal(3, size, 3), None, *weights(draw, 3, 5))


def scan(
    x, state, w_ih, w_hh, b_ih, b_hh, *, order=(0, 1, 2, 3), candidate=torch.tanh, gates=torch.sigmoid, write=None,
    show=None, each=lambda h, c: (h, c),
):  # fmt: skip
    """Do what the solution does, with one thing done differently."""
    h, c = _lstm_start(x, state, w_ih, w_hh, b_ih, b_hh)
    projected = F.linear(x, w_ih, b_ih + b_hh)
    states = []
    for step in projected:
        h, c = each(h, c)
        parts = (step + h @ w_hh.T).chunk(4, -1)
        i, f, g, o = (parts[k] for k in order)
        i, f, g, o = gates(i), gates(f), candidate(g), gates(o)
        old, c = c, f * c + i * g if write is None else write(i, f, g, c)
        h = o * torch.tanh(c) if show is None else show(o, c, old)
        states.append(h)
    return (torch.stack(states) if states else projected[..., : h.shape[1]]), (h, c)


@exercise.wrong("The rows of the weights are in the order i, f, g, o, as torch stores them.")
def order_i_f_o_g(x, state, w_ih, w_hh, b_ih, b_hh):
    return scan(x, state, w_ih, w_hh, b_ih, b_hh, order=(0, 1, 3, 2))


@exercise.wrong("i comes before f in the rows: the input gate is the first quarter, the forget gate the second.")
def order_f_i_g_o(x, state, w_ih, w_hh, b_ih, b_hh):
    return scan(x, state, w_ih, w_hh, b_ih, b_hh, order=(1, 0, 2, 3))


@exercise.wrong("Squash the cell first: h = sigmoid(o) * tanh(c).")
def cell_not_squashed(x, state, w_ih, w_hh, b_ih, b_hh):
    return scan(x, state, w_ih, w_hh, b_ih, b_hh, show=lambda o, c, _old: o * c)


@exercise.wrong("The state is the pair (h, c), not (c, h).")
def pair_swapped_on_return(x, state, w_ih, w_hh, b_ih, b_hh):
    states, (h, c) = scan(x, state, w_ih, w_hh, b_ih, b_hh)
    return states, (c, h)


@exercise.wrong("The given state is (h0, c0): h0 comes first.")
def pair_swapped_on_entry(x, state, w_ih, w_hh, b_ih, b_hh):
    _lstm_start(x, state, w_ih, w_hh, b_ih, b_hh)
    return scan(x, None if state is None else state[::-1], w_ih, w_hh, b_ih, b_hh)


@exercise.wrong("The state is the pair (h, c), on entry and on return; here it is (c, h) both times.")
def pair_swapped(x, state, w_ih, w_hh, b_ih, b_hh):
    states, (h, c) = pair_swapped_on_entry(x, state, w_ih, w_hh, b_ih, b_hh)
    return states, (c, h)


@exercise.wrong("The candidate may be negative: tanh on g, not sigmoid.")
def sigmoid_on_the_candidate(x, state, w_ih, w_hh, b_ih, b_hh):
    return scan(x, state, w_ih, w_hh, b_ih, b_hh, candidate=torch.sigmoid)


@exercise.wrong("Gates lie between 0 and 1: sigmoid. tanh is for the candidate and for the cell that is shown.")
def tanh_on_the_gates(x, state, w_ih, w_hh, b_ih, b_hh):
    return scan(x, state, w_ih, w_hh, b_ih, b_hh, gates=torch.tanh)


@exercise.wrong("All gates of step t use h of step t - 1: compute them once, before h changes.")
def gates_of_the_new_state(x, state, w_ih, w_hh, b_ih, b_hh):
    h, c = _lstm_start(x, state, w_ih, w_hh, b_ih, b_hh)
    projected = F.linear(x, w_ih, b_ih + b_hh)
    states = []
    for step in projected:
        o = (step + h @ w_hh.T).chunk(4, -1)[3]
        h = torch.sigmoid(o) * torch.tanh(c)
        i, f, g, _ = (step + h @ w_hh.T).chunk(4, -1)
        c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
        states.append(h)
    return (torch.stack(states) if states else projected[..., : h.shape[1]]), (h, c)


@exercise.wrong("h shows the new cell: update c first, then h = sigmoid(o) * tanh(c).")
def old_cell_shown(x, state, w_ih, w_hh, b_ih, b_hh):
    return scan(x, state, w_ih, w_hh, b_ih, b_hh, show=lambda o, _c, old: o * torch.tanh(old))


@exercise.wrong("Both biases are added; b_hh is missing.")
def hidden_bias_forgotten(x, state, w_ih, w_hh, b_ih, b_hh):
    _lstm_start(x, state, w_ih, w_hh, b_ih, b_hh)
    return scan(x, state, w_ih, w_hh, b_ih, torch.zeros_like(b_hh))


@exercise.wrong("The forget gate is tied to the input gate, 1 - i; it must be a gate of its own.")
def coupled_gates(x, state, w_ih, w_hh, b_ih, b_hh):
    return scan(x, state, w_ih, w_hh, b_ih, b_hh, write=lambda i, _f, g, c: (1 - i) * c + i * g)


@exercise.wrong("1 is added to the forget gate's bias: good for initial values, but not part of the formula.")
def forget_bias_of_one(x, state, w_ih, w_hh, b_ih, b_hh):
    h, _ = _lstm_start(x, state, w_ih, w_hh, b_ih, b_hh)
    one = torch.zeros_like(b_ih).view(4, h.shape[1])
    one[1] = 1
    return scan(x, state, w_ih, w_hh, b_ih + one.flatten(), b_hh)


@exercise.wrong(
    "1 / (1 + exp(-x)) overflows to 1 / inf for a closed gate, and its gradient is nan: use torch.sigmoid.",
    caught_by="gradients",
)
def sigmoid_by_hand(x, state, w_ih, w_hh, b_ih, b_hh):
    return scan(x, state, w_ih, w_hh, b_ih, b_hh, gates=lambda a: 1 / (1 + torch.exp(-a)))


@exercise.wrong("The cell carries the gradient over long spans: do not detach it.", caught_by="gradients")
def cell_detached(x, state, w_ih, w_hh, b_ih, b_hh):
    return scan(x, state, w_ih, w_hh, b_ih, b_hh, each=lambda h, c: (h, c.detach()))


@exercise.wrong(
    "Gradients must travel back through time, through h and through c: do not detach them between steps.",
    caught_by="gradients",
)
def state_detached(x, state, w_ih, w_hh, b_ih, b_hh):
    return scan(x, state, w_ih, w_hh, b_ih, b_hh, each=lambda h, c: (h.detach(), c.detach()))


@exercise.wrong("Gradients travel through h, too: do not detach it between steps.", caught_by="gradients")
def hidden_state_detached(x, state, w_ih, w_hh, b_ih, b_hh):
    return scan(x, state, w_ih, w_hh, b_ih, b_hh, each=lambda h, c: (h.detach(), c))


@exercise.wrong("The last cell is returned detached: a loss on c_T alone could train nothing.", caught_by="gradients")
def last_cell_detached(x, state, w_ih, w_hh, b_ih, b_hh):
    states, (h, c) = scan(x, state, w_ih, w_hh, b_ih, b_hh)
    return states, (h, c.detach())


@exercise.wrong(
    "torch.stack([]) fails. Without steps return an empty (0, B, H) and the initial state.", caught_by="runs"
)
def stack_of_nothing(x, state, w_ih, w_hh, b_ih, b_hh):
    first = _lstm_start(x, state, w_ih, w_hh, b_ih, b_hh)
    return scan(x, state, w_ih, w_hh, b_ih, b_hh) if len(x) else (torch.stack([]), first)


@exercise.wrong(
    "One product per gate: h w_hh^T for i, f, g and o is a single product, cut into four afterwards.", caught_by="cost"
)
def a_product_per_gate(x, state, w_ih, w_hh, b_ih, b_hh):
    h, c = _lstm_start(x, state, w_ih, w_hh, b_ih, b_hh)
    projected, states = F.linear(x, w_ih, b_ih + b_hh), []
    for step in projected:
        i, f, g, o = (torch.addmm(p, h, w.T) for p, w in zip(step.chunk(4, -1), w_hh.chunk(4), strict=True))
        c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
        h = torch.sigmoid(o) * torch.tanh(c)
        states.append(h)
    return (torch.stack(states) if states else projected[..., : h.shape[1]]), (h, c)


@exercise.wrong(
    "The input part is multiplied step by step: it does not depend on the state; one product before the loop does it.",
    caught_by="cost",
)
def inputs_projected_in_the_loop(x, state, w_ih, w_hh, b_ih, b_hh):
    (h, c), states = _lstm_start(x, state, w_ih, w_hh, b_ih, b_hh), []
    for step in x:
        i, f, g, o = torch.addmm(F.linear(step, w_ih, b_ih + b_hh), h, w_hh.T).chunk(4, -1)
        c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
        h = torch.sigmoid(o) * torch.tanh(c)
        states.append(h)
    return (torch.stack(states) if states else x.new_zeros(0, *h.shape)), (h, c)


@exercise.wrong("One run per sequence: every step can treat the whole batch as one (B, H) matrix.", caught_by="growth")
def loop_over_the_batch(x, state, w_ih, w_hh, b_ih, b_hh):
    h, c = _lstm_start(x, state, w_ih, w_hh, b_ih, b_hh)
    runs = [lstm_scan(x[:, n : n + 1], (h[n : n + 1], c[n : n + 1]), w_ih, w_hh, b_ih, b_hh) for n in range(x.shape[1])]
    states = torch.cat([run[0] for run in runs], 1)
    return states, (torch.cat([run[1][0] for run in runs]), torch.cat([run[1][1] for run in runs]))


@exercise.wrong(
    "cat in the loop copies all earlier states at every step: T^2 / 2 in all. Append to a list, stack once.",
    caught_by="growth",
)
def growing_cat(x, state, w_ih, w_hh, b_ih, b_hh):
    h, c = _lstm_start(x, state, w_ih, w_hh, b_ih, b_hh)
    projected = F.linear(x, w_ih, b_ih + b_hh)
    states = projected[:0, :, : h.shape[1]]
    for step in projected:
        i, f, g, o = (step + h @ w_hh.T).chunk(4, -1)
        c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
        h = torch.sigmoid(o) * torch.tanh(c)
        states = torch.cat([states, h[None]])
    return states, (h, c)


@exercise.wrong("The given state is ignored: zeros are right only when it is None.")
def state_ignored(x, state, w_ih, w_hh, b_ih, b_hh):
    _lstm_start(x, state, w_ih, w_hh, b_ih, b_hh)
    return scan(x, None, w_ih, w_hh, b_ih, b_hh)


@exercise.wrong("Only h0 is used; the cell, too, starts from what is given.")
def cell_starts_at_zero(x, state, w_ih, w_hh, b_ih, b_hh):
    h, c = _lstm_start(x, state, w_ih, w_hh, b_ih, b_hh)
    return scan(x, (h, torch.zeros_like(c)), w_ih, w_hh, b_ih, b_hh)


@exercise.wrong(
    "Zeros made without dtype= are float32: use x.new_zeros or pass x's dtype and device.", caught_by="runs"
)
def zeros_in_float32(x, state, w_ih, w_hh, b_ih, b_hh):
    h, _ = _lstm_start(x, state, w_ih, w_hh, b_ih, b_hh)
    zeros = torch.zeros(h.shape)
    return scan(x, (zeros, zeros) if state is None else state, w_ih, w_hh, b_ih, b_hh)


@exercise.wrong("The caller's state is overwritten with the new one: bind h and c to new tensors.", caught_by="inputs")
def state_overwritten(x, state, w_ih, w_hh, b_ih, b_hh):
    states, last = scan(x, state, w_ih, w_hh, b_ih, b_hh)
    for old, new in zip(state or (), last, strict=False):
        old.data.copy_(new)
    return states, last


@exercise.wrong("The states that are returned are h of every step, not c.")
def cells_returned_as_states(x, state, w_ih, w_hh, b_ih, b_hh):
    _, (_, c) = scan(x, state, w_ih, w_hh, b_ih, b_hh)
    cells = [scan(x[: t + 1], state, w_ih, w_hh, b_ih, b_hh)[1][1] for t in range(min(len(x), 6))]
    states, last = scan(x, state, w_ih, w_hh, b_ih, b_hh)
    return torch.cat([torch.stack(cells), states[len(cells) :]]) if cells else states, last


@exercise.wrong("Three results are returned; the last two belong together: states, (h_T, c_T).", caught_by="structure")
def three_results(x, state, w_ih, w_hh, b_ih, b_hh):
    states, (h, c) = scan(x, state, w_ih, w_hh, b_ih, b_hh)
    return states, h, c


@exercise.wrong("The last states are (B, H) here, without the leading layer dimension of nn.LSTM.", caught_by="shape")
def last_state_with_a_layer_dimension(x, state, w_ih, w_hh, b_ih, b_hh):
    states, (h, c) = scan(x, state, w_ih, w_hh, b_ih, b_hh)
    return states, (h[None], c[None])


@exercise.wrong(
    "Sizes that do not fit are let through: broadcasting turns a wrong state or bias into a wrong result.",
    caught_by="errors",
)
def sizes_not_checked(x, state, w_ih, w_hh, b_ih, b_hh):
    zeros = x.new_zeros(x.shape[1], w_hh.shape[1])
    h, c = (zeros, zeros) if state is None else state
    projected, states = F.linear(x, w_ih) + b_ih + b_hh, []
    for step in projected:
        i, f, g, o = (step + h @ w_hh.T).chunk(4, -1)
        c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
        h = torch.sigmoid(o) * torch.tanh(c)
        states.append(h)
    return (torch.stack(states) if states else projected[..., : h.shape[1]]), (h, c)


@exercise.wrong("h0 and c0 are exactly (B, H): a leading layer dimension is an error here.", caught_by="errors")
def layer_dimension_let_through(x, state, w_ih, w_hh, b_ih, b_hh):
    if state is not None and state[0].ndim == 3 and state[1].ndim == 3:
        state = state[0][0], state[1][0]
    return lstm_scan(x, state, w_ih, w_hh, b_ih, b_hh)


@exercise.wrong("float() throws away half of the digits of float64 inputs: compute in the dtype that comes in.")
def float32_inside(x, state, w_ih, w_hh, b_ih, b_hh):
    small = None if state is None else (state[0].float(), state[1].float())
    states, (h, c) = lstm_scan(x.float(), small, w_ih.float(), w_hh.float(), b_ih.float(), b_hh.float())
    return states.to(x.dtype), (h.to(x.dtype), c.to(x.dtype))


@exercise.speed(3.0, size=16, cuda=256)
def speed(draw, size):
    return Case("24 steps of 32 features", draw.normal(24, size, 32), None, *weights(draw, 32, 48))


@exercise.right("into tensors made beforehand, gates in slices")
def into_a_buffer(x, state, w_ih, w_hh, b_ih, b_hh):
    h, c = _lstm_start(x, state, w_ih, w_hh, b_ih, b_hh)
    size = h.shape[1]
    projected = (torch.einsum("tbd,gd->tbg", x, w_ih) + b_ih) + b_hh
    states = x.new_empty(*x.shape[:2], size)
    for t in range(x.shape[0]):
        total = torch.addmm(projected[t], h, w_hh.t())
        gates = total.sigmoid()
        g = total[:, 2 * size : 3 * size].tanh()
        c = torch.addcmul(gates[:, :size] * g, gates[:, size : 2 * size], c)
        h = gates[:, 3 * size :] * c.tanh()
        states[t] = h
    return states, (h, c)


@exercise.right("inputs and states side by side, gates on a dimension of their own")
def joint_weights(x, state, w_ih, w_hh, b_ih, b_hh):
    h, c = _lstm_start(x, state, w_ih, w_hh, b_ih, b_hh)
    both, bias, states = torch.cat([w_ih, w_hh], 1), b_ih + b_hh, [x.new_zeros(0, *h.shape)]
    for step in x:
        i, f, g, o = F.linear(torch.cat([step, h], 1), both, bias).view(len(h), 4, -1).unbind(1)
        c = c * (1 + torch.tanh(f / 2)) / 2 + torch.tanh(g) * torch.sigmoid(i)
        h = torch.sigmoid(o) * torch.tanh(c)
        states.append(h.unsqueeze(0))
    return torch.cat(states), (h, c)
