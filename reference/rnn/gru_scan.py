"""A gated recurrent unit."""

import torch
import torch.nn.functional as F
from torch import Tensor

from grader import Case, Cost, Exercise
from reference.rnn import FORBID


def gru_scan(
    x: Tensor, h0: Tensor | None, w_ih: Tensor, w_hh: Tensor, b_ih: Tensor, b_hh: Tensor
) -> tuple[Tensor, Tensor]:
    """Run a gated recurrent unit over time.

    With a = x_t w_ih^T + b_ih and c = h w_hh^T + b_hh, each cut into three parts of H columns:
    r = sigmoid(a_r + c_r), z = sigmoid(a_z + c_z), n = tanh(a_n + r * c_n), and h becomes (1 - z) * n + z * h.
    The reset gate r acts after the matrix product, on c_n with its bias, as in torch (the book applies it to h before).

    Args:
        x: inputs, time first, `(T, B, D)`. T = 0 is legal.
        h0: the state before the first step, `(B, H)`; None means zeros of x's dtype and device.
        w_ih: input weights, `(3H, D)`, rows in the order r, z, n.
        w_hh: hidden weights, `(3H, H)`, rows in the same order.
        b_ih: input bias, `(3H,)`.
        b_hh: hidden bias, `(3H,)`.

    Returns:
        All states, `(T, B, H)`, whose entry t is the state after step t, and the last state, `(B, H)`.
        With T = 0 they are an empty `(0, B, H)` and the initial state (h0 itself will do). Gradients reach
        every argument, through all steps.

    Raises:
        ValueError: the sizes do not fit together: x is not `(T, B, D)`, or another argument does not have exactly
            the shape above.

    Cost: the input projections of all steps are one matrix product and each step has one for all gates, so at most
        T + 1 products in all and 16 T + 20 operations; no loop over the batch; memory traffic grows linearly with T.

    Example:
        >>> one = torch.ones(3, 1)  # D = H = 1: r, z, n
        >>> x, h0 = torch.tensor([[[0.0]]]), torch.tensor([[1.0]])
        >>> states, last = gru_scan(x, h0, one, one, torch.tensor([0.0, 9.0, 0.0]), torch.zeros(3))
        >>> states.shape, last  # z is nearly 1: the old state is kept
        (torch.Size([1, 1, 1]), tensor([[1.0000]]))
    """
    h = _gru_start(x, h0, w_ih, w_hh, b_ih, b_hh)
    projected = F.linear(x, w_ih, b_ih)
    states = []
    for a in projected:
        a_r, a_z, a_n = a.chunk(3, -1)
        c_r, c_z, c_n = F.linear(h, w_hh, b_hh).chunk(3, -1)
        r, z = torch.sigmoid(a_r + c_r), torch.sigmoid(a_z + c_z)
        h = (1 - z) * torch.tanh(a_n + r * c_n) + z * h
        states.append(h)
    return (torch.stack(states) if states else projected[..., : h.shape[1]]), h


def _gru_start(x: Tensor, h0: Tensor | None, w_ih: Tensor, w_hh: Tensor, b_ih: Tensor, b_hh: Tensor) -> Tensor:
    """Return h0, or zeros for None, after checking all sizes."""
    rows, hidden = 3 * w_hh.shape[-1], w_hh.shape[-1]
    if x.ndim != 3 or w_ih.shape != (rows, x.shape[2]) or w_hh.shape != (rows, hidden):
        raise ValueError(f"sizes do not fit: x {tuple(x.shape)}, w_ih {tuple(w_ih.shape)}, w_hh {tuple(w_hh.shape)}")
    if b_ih.shape != (rows,) or b_hh.shape != (rows,):
        raise ValueError(f"biases must be {(rows,)}, got {tuple(b_ih.shape)} and {tuple(b_hh.shape)}")
    if h0 is not None and h0.shape != (x.shape[1], hidden):
        raise ValueError(f"h0 must be {(x.shape[1], hidden)}, got {tuple(h0.shape)}")
    return x.new_zeros(x.shape[1], hidden) if h0 is None else h0


exercise = Exercise(
    gru_scan,
    points=8,
    gradients=("x", "h0", "w_ih", "w_hh", "b_ih", "b_hh"),
    may_alias=True,
    cost=Cost(ops=16 * 20 + 20, matmuls=20 + 1),
    forbid=FORBID,
    hints=(
        "One product x w_ih^T serves all steps and all three parts (r, z, n), one product h w_hh^T all parts of "
        "a step: chunk(3, -1) cuts them.",
        "r and z come from a + c, through a sigmoid. The candidate n is tanh(a_n + r * c_n): r multiplies the product "
        "with its bias. z says how much of the old state stays.",
        "In the loop: c = F.linear(h, w_hh, b_hh); cut a and c into three; h = (1 - z) * tanh(a_n + r * c_n) + z * h.",
    ),
    source="D2L recurrent-modern/gru",
)


@exercise.truth
def truth(x, h0, w_ih, w_hh, b_ih, b_hh):
    steps, batch, _ = x.shape
    h = x.new_zeros(batch, w_hh.shape[1]) if h0 is None else h0
    if steps == 0:
        return x.new_zeros(0, batch, w_hh.shape[1]), h
    weights = [w_ih, w_hh, b_ih, b_hh]
    states, last = torch.gru(x, h.contiguous()[None], weights, True, 1, 0.0, False, False, False)
    return states, last[0]


def weights(draw, inputs, hidden, scale=1.0):
    """Draw w_ih, w_hh, b_ih and b_hh."""
    return (
        scale * draw.normal(3 * hidden, inputs) / inputs**0.5,
        scale * draw.normal(3 * hidden, hidden) / hidden**0.5,
        scale * 0.5 * draw.normal(3 * hidden),
        scale * 0.5 * draw.normal(3 * hidden),
    )


@exercise.cases
def cases(draw):
    yield Case("five steps", draw.normal(5, 3, 4), draw.normal(3, 6), *weights(draw, 4, 6))
    yield Case("one step", draw.normal(1, 2, 5), draw.normal(2, 3), *weights(draw, 5, 3))
    yield Case("h0=None", draw.normal(4, 3, 2), None, *weights(draw, 2, 5))
    yield Case("twenty steps", draw.normal(20, 2, 3), draw.normal(2, 4), *weights(draw, 3, 4), cost=True)
    yield Case("a batch of one", draw.normal(4, 1, 3), draw.normal(1, 2), *weights(draw, 3, 2))
    yield Case(
        "one sequence saturates the gates",
        draw.normal(4, 2, 3) * torch.tensor([[2e3], [1.0]]),
        draw.normal(2, 5),
        *weights(draw, 3, 5),
    )
    yield Case(
        "x stored batch first", draw.normal(3, 7, 4).transpose(0, 1), draw.normal(3, 2), *weights(draw, 4, 2), edge=True
    )
    yield Case("no steps", draw.normal(0, 3, 4), draw.normal(3, 2), *weights(draw, 4, 2), edge=True)
    yield Case("no steps, h0=None", draw.normal(0, 2, 3), None, *weights(draw, 3, 4), edge=True)
    yield Case(
        "float64",
        draw.normal(3, 2, 5, dtype=torch.float64),
        None,
        *(w.double() for w in weights(draw, 5, 3)),
        edge=True,
    )
    yield Case("forty steps", draw.normal(40, 2, 3), draw.normal(2, 4), *weights(draw, 3, 4), hidden=True)
    yield Case(
        "tiny inputs and weights", 1e-3 * draw.normal(4, 3, 5), 1e-3 * draw.normal(3, 2), *weights(draw, 5, 2, 1e-3),
        hidden=True,
    )  # fmt: skip
    yield Case("large states", draw.normal(4, 3, 2), 50 * draw.normal(3, 4), *weights(draw, 2, 4), hidden=True)
    yield Case("one step of a batch of one", draw.normal(1, 1, 3), None, *weights(draw, 3, 2), hidden=True)
    w_ih, w_hh, b_ih, b_hh = weights(draw, 3, 5)
    x = draw.normal(4, 2, 3)
    yield Case("w_ih transposed", x, None, w_ih.T, w_hh, b_ih, b_hh, raises=ValueError)
    yield Case("weights of one gate only", x, None, w_ih[:5], w_hh[:5], b_ih[:5], b_hh[:5], raises=ValueError)
    yield Case("w_ih for two inputs more", x, None, draw.normal(15, 5), w_hh, b_ih, b_hh, raises=ValueError)
    yield Case("w_ih of one unit more", x, None, draw.normal(18, 3), w_hh, b_ih, b_hh, raises=ValueError, hidden=True)
    yield Case("x without a batch", x[0], None, w_ih, w_hh, b_ih, b_hh, raises=ValueError)
    yield Case("h0 with a layer dimension", x, draw.normal(1, 2, 5), w_ih, w_hh, b_ih, b_hh, raises=ValueError)
    yield Case("one row of h0 for the batch", x, draw.normal(1, 5), w_ih, w_hh, b_ih, b_hh, raises=ValueError)
    yield Case("a bias of one number", x, None, w_ih, w_hh, b_ih, b_hh[:1], raises=ValueError)
    yield Case("an input bias of one number", x, None, w_ih, w_hh, b_ih[:1], b_hh, raises=ValueError, hidden=True)


@exercise.growth("steps", sizes=(16, 32), ops=1.0, matmuls=1.0, moved=1.0)
def more_steps(draw, size):
    return Case(f"{size} steps", draw.normal(size, 3, 4), None, *weights(draw, 4, 5))


@exercise.growth("batch", ops=0.0, matmuls=0.0)
def more_rows(draw, size):
    return Case(f"batch of {size}", draw.normal(3, size, 3), draw.normal(size, 5), *weights(draw, 3, 5))


def scan(
    x, h0, w_ih, w_hh, b_ih, b_hh, *, gates=torch.sigmoid, candidate=None, update=None, order=(0, 1, 2), each=None
):
    """Do what the solution does, with one thing done differently."""
    h = _gru_start(x, h0, w_ih, w_hh, b_ih, b_hh)
    projected = F.linear(x, w_ih, b_ih)
    states = []
    for a in projected:
        old = h if each is None else each(h)
        a_parts, c_parts = a.chunk(3, -1), F.linear(old, w_hh, b_hh).chunk(3, -1)
        (a_r, a_z, a_n), (c_r, c_z, c_n) = [a_parts[i] for i in order], [c_parts[i] for i in order]
        r, z = gates(a_r + c_r), gates(a_z + c_z)
        n = torch.tanh(a_n + r * c_n) if candidate is None else candidate(a_n, c_n, r, old)
        h = (1 - z) * n + z * old if update is None else update(n, z, old, r)
        states.append(h)
    return (torch.stack(states) if states else projected[..., : h.shape[1]]), h


@exercise.wrong("The book multiplies r into h before the product; here, as in torch, r multiplies the product c_n.")
def reset_before_the_product(x, h0, w_ih, w_hh, b_ih, b_hh):
    rows, bias = w_hh.chunk(3)[2] if w_hh.shape[0] >= 3 else w_hh, b_hh.chunk(3)[-1]
    return scan(
        x, h0, w_ih, w_hh, b_ih, b_hh, candidate=lambda a, _c, r, h: torch.tanh(a + F.linear(r * h, rows, bias))
    )


@exercise.wrong("z keeps the old state: h becomes (1 - z) * n + z * h, not the other way round.")
def update_swapped(x, h0, w_ih, w_hh, b_ih, b_hh):
    return scan(x, h0, w_ih, w_hh, b_ih, b_hh, update=lambda n, z, h, _r: z * n + (1 - z) * h)


@exercise.wrong("The rows of the weights are in the order r, z, n.")
def order_z_r_n(x, h0, w_ih, w_hh, b_ih, b_hh):
    return scan(x, h0, w_ih, w_hh, b_ih, b_hh, order=(1, 0, 2))


@exercise.wrong("r gates the whole hidden part of the candidate, its bias included.")
def hidden_bias_outside_the_gate(x, h0, w_ih, w_hh, b_ih, b_hh):
    bias = b_hh.chunk(3)[-1]
    return scan(x, h0, w_ih, w_hh, b_ih, b_hh, candidate=lambda a, c, r, _h: torch.tanh(a + r * (c - bias) + bias))


@exercise.wrong("The reset gate shapes the candidate only; the old state in the update is not multiplied by it.")
def reset_used_twice(x, h0, w_ih, w_hh, b_ih, b_hh):
    return scan(x, h0, w_ih, w_hh, b_ih, b_hh, update=lambda n, z, h, r: (1 - z) * n + z * r * h)


@exercise.wrong("Gates lie between 0 and 1: sigmoid. tanh is for the candidate.")
def tanh_on_the_gates(x, h0, w_ih, w_hh, b_ih, b_hh):
    return scan(x, h0, w_ih, w_hh, b_ih, b_hh, gates=torch.tanh)


@exercise.wrong(
    "1 / (1 + exp(-x)) overflows to 1 / inf for a closed gate, and its gradient is nan: use torch.sigmoid.",
    caught_by="gradients",
)
def sigmoid_by_hand(x, h0, w_ih, w_hh, b_ih, b_hh):
    return scan(x, h0, w_ih, w_hh, b_ih, b_hh, gates=lambda a: 1 / (1 + torch.exp(-a)))


@exercise.wrong("The candidate may be negative: tanh, not sigmoid.")
def sigmoid_on_the_candidate(x, h0, w_ih, w_hh, b_ih, b_hh):
    return scan(x, h0, w_ih, w_hh, b_ih, b_hh, candidate=lambda a, c, r, _h: torch.sigmoid(a + r * c))


@exercise.wrong("The reset gate is missing in the candidate: n = tanh(a_n + r * c_n).")
def no_reset(x, h0, w_ih, w_hh, b_ih, b_hh):
    return scan(x, h0, w_ih, w_hh, b_ih, b_hh, candidate=lambda a, c, _r, _h: torch.tanh(a + c))


@exercise.wrong("The reset gate multiplies the hidden part only, not the input part as well.")
def reset_on_the_whole_sum(x, h0, w_ih, w_hh, b_ih, b_hh):
    return scan(x, h0, w_ih, w_hh, b_ih, b_hh, candidate=lambda a, c, r, _h: torch.tanh(r * (a + c)))


@exercise.wrong("b_hh is forgotten: there are two biases.")
def hidden_bias_forgotten(x, h0, w_ih, w_hh, b_ih, b_hh):
    _gru_start(x, h0, w_ih, w_hh, b_ih, b_hh)
    return scan(x, h0, w_ih, w_hh, b_ih, torch.zeros_like(b_hh))


@exercise.wrong("Both biases are forgotten: the input part has b_ih, the hidden part b_hh.")
def biases_forgotten(x, h0, w_ih, w_hh, b_ih, b_hh):
    _gru_start(x, h0, w_ih, w_hh, b_ih, b_hh)
    return scan(x, h0, w_ih, w_hh, torch.zeros_like(b_ih), torch.zeros_like(b_hh))


@exercise.wrong(
    "Gradients must travel back through time: do not detach the state between steps.", caught_by="gradients"
)
def state_detached(x, h0, w_ih, w_hh, b_ih, b_hh):
    return scan(x, h0, w_ih, w_hh, b_ih, b_hh, each=lambda h: h.detach())


@exercise.wrong(
    "torch.stack([]) fails. Without steps return an empty (0, B, H) and the initial state.", caught_by="runs"
)
def stack_of_nothing(x, h0, w_ih, w_hh, b_ih, b_hh):
    _gru_start(x, h0, w_ih, w_hh, b_ih, b_hh)
    return scan(x, h0, w_ih, w_hh, b_ih, b_hh) if len(x) else (torch.stack([]), h0)


@exercise.wrong(
    "Without steps the states are an empty (0, B, H): H columns, not the 3 H of the projection.", caught_by="shape"
)
def empty_projection(x, h0, w_ih, w_hh, b_ih, b_hh):
    h = _gru_start(x, h0, w_ih, w_hh, b_ih, b_hh)
    return scan(x, h0, w_ih, w_hh, b_ih, b_hh) if len(x) else (F.linear(x, w_ih, b_ih), h)


@exercise.wrong(
    "One product per gate: h w_hh^T for r, z and n is a single product, cut into three afterwards.",
    caught_by="cost",
)
def a_product_per_gate(x, h0, w_ih, w_hh, b_ih, b_hh):
    h = _gru_start(x, h0, w_ih, w_hh, b_ih, b_hh)
    (w_r, w_z, w_n), (b_r, b_z, b_n) = w_hh.chunk(3), b_hh.chunk(3)
    projected, states = F.linear(x, w_ih, b_ih), []
    for a in projected:
        a_r, a_z, a_n = a.chunk(3, -1)
        r, z = torch.sigmoid(a_r + F.linear(h, w_r, b_r)), torch.sigmoid(a_z + F.linear(h, w_z, b_z))
        h = (1 - z) * torch.tanh(a_n + r * F.linear(h, w_n, b_n)) + z * h
        states.append(h)
    return (torch.stack(states) if states else projected[..., : h.shape[1]]), h


@exercise.wrong(
    "The input part is multiplied step by step: it does not depend on the state; one product before the loop does it.",
    caught_by="cost",
)
def inputs_projected_in_the_loop(x, h0, w_ih, w_hh, b_ih, b_hh):
    h, states = _gru_start(x, h0, w_ih, w_hh, b_ih, b_hh), []
    for step in x:
        a_r, a_z, a_n = F.linear(step, w_ih, b_ih).chunk(3, -1)
        c_r, c_z, c_n = F.linear(h, w_hh, b_hh).chunk(3, -1)
        r, z = torch.sigmoid(a_r + c_r), torch.sigmoid(a_z + c_z)
        h = (1 - z) * torch.tanh(a_n + r * c_n) + z * h
        states.append(h)
    return (torch.stack(states) if states else x.new_zeros(0, *h.shape)), h


@exercise.wrong("One run per sequence: every step can treat the whole batch as one (B, H) matrix.", caught_by="growth")
def loop_over_the_batch(x, h0, w_ih, w_hh, b_ih, b_hh):
    h = _gru_start(x, h0, w_ih, w_hh, b_ih, b_hh)
    runs = [gru_scan(x[:, i : i + 1], h[i : i + 1], w_ih, w_hh, b_ih, b_hh) for i in range(x.shape[1])]
    return torch.cat([states for states, _ in runs], 1), torch.cat([last for _, last in runs])


@exercise.wrong(
    "cat in the loop copies all earlier states at every step: T^2 / 2 in all. Append to a list, stack once.",
    caught_by="growth",
)
def growing_cat(x, h0, w_ih, w_hh, b_ih, b_hh):
    h = _gru_start(x, h0, w_ih, w_hh, b_ih, b_hh)
    projected = F.linear(x, w_ih, b_ih)
    states = projected[:0, :, : h.shape[1]]
    for a in projected:
        a_r, a_z, a_n = a.chunk(3, -1)
        c_r, c_z, c_n = F.linear(h, w_hh, b_hh).chunk(3, -1)
        r, z = torch.sigmoid(a_r + c_r), torch.sigmoid(a_z + c_z)
        h = (1 - z) * torch.tanh(a_n + r * c_n) + z * h
        states = torch.cat([states, h[None]])
    return states, h


@exercise.wrong("h0 is ignored: zeros are right only when h0 is None.")
def h0_ignored(x, h0, w_ih, w_hh, b_ih, b_hh):
    _gru_start(x, h0, w_ih, w_hh, b_ih, b_hh)
    return gru_scan(x, None, w_ih, w_hh, b_ih, b_hh)


@exercise.wrong(
    "Zeros made without dtype= are float32: use x.new_zeros or pass x's dtype and device.", caught_by="runs"
)
def zeros_in_float32(x, h0, w_ih, w_hh, b_ih, b_hh):
    _gru_start(x, h0, w_ih, w_hh, b_ih, b_hh)
    first = torch.zeros(x.shape[1], w_hh.shape[1]) if h0 is None else h0
    return gru_scan(x, first, w_ih, w_hh, b_ih, b_hh)


@exercise.wrong("states[t] is the state after step t: update h first, store it then.")
def old_state_stored(x, h0, w_ih, w_hh, b_ih, b_hh):
    h = _gru_start(x, h0, w_ih, w_hh, b_ih, b_hh)
    states, last = gru_scan(x, h0, w_ih, w_hh, b_ih, b_hh)
    return torch.cat([h[None], states])[:-1], last


@exercise.wrong("The last state is (B, H) here, without the leading layer dimension of nn.GRU.", caught_by="shape")
def last_state_with_a_layer_dimension(x, h0, w_ih, w_hh, b_ih, b_hh):
    states, last = gru_scan(x, h0, w_ih, w_hh, b_ih, b_hh)
    return states, last[None]


@exercise.wrong(
    "The new state is written into h0, which belongs to the caller. Bind h to a new tensor.", caught_by="inputs"
)
def h0_overwritten(x, h0, w_ih, w_hh, b_ih, b_hh):
    states, last = gru_scan(x, h0, w_ih, w_hh, b_ih, b_hh)
    if h0 is not None:
        h0.data.copy_(last)
    return states, last


@exercise.wrong(
    "Sizes that do not fit are let through: broadcasting turns a wrong h0 or bias into a wrong result.",
    caught_by="errors",
)
def sizes_not_checked(x, h0, w_ih, w_hh, b_ih, b_hh):
    h = x.new_zeros(x.shape[1], w_hh.shape[1]) if h0 is None else h0
    projected = F.linear(x, w_ih) + b_ih
    states = []
    for a in projected:
        a_r, a_z, a_n = a.chunk(3, -1)
        c_r, c_z, c_n = (h @ w_hh.T + b_hh).chunk(3, -1)
        r, z = torch.sigmoid(a_r + c_r), torch.sigmoid(a_z + c_z)
        h = (1 - z) * torch.tanh(a_n + r * c_n) + z * h
        states.append(h)
    return (torch.stack(states) if states else projected[..., : h.shape[1]]), h


@exercise.wrong("h0 is exactly (B, H): a leading layer dimension is an error here.", caught_by="errors")
def layer_dimension_let_through(x, h0, w_ih, w_hh, b_ih, b_hh):
    if h0 is not None and h0.ndim == 3 and h0.shape[0] == 1:
        h0 = h0[0]
    return gru_scan(x, h0, w_ih, w_hh, b_ih, b_hh)


@exercise.wrong("float() throws away half of the digits of float64 inputs: compute in the dtype that comes in.")
def float32_inside(x, h0, w_ih, w_hh, b_ih, b_hh):
    floats = [t if t is None else t.float() for t in (x, h0, w_ih, w_hh, b_ih, b_hh)]
    return tuple(part.to(x.dtype) for part in gru_scan(*floats))


@exercise.right("the old state plus a share of the difference")
def by_lerp(x, h0, w_ih, w_hh, b_ih, b_hh):
    h = _gru_start(x, h0, w_ih, w_hh, b_ih, b_hh)
    size = h.shape[1]
    projected = x @ w_ih.mT + b_ih
    states = x.new_empty(*x.shape[:2], size)
    for t in range(x.shape[0]):
        c = torch.addmm(b_hh, h, w_hh.t())
        gates = torch.sigmoid(projected[t, :, : 2 * size] + c[:, : 2 * size])
        n = torch.tanh(torch.addcmul(projected[t, :, 2 * size :], gates[:, :size], c[:, 2 * size :]))
        h = torch.lerp(n, h, gates[:, size:])
        states[t] = h
    return states, h


@exercise.right("gates on a dimension of their own, sigmoid through tanh")
def gates_apart(x, h0, w_ih, w_hh, b_ih, b_hh):
    h = _gru_start(x, h0, w_ih, w_hh, b_ih, b_hh)
    size = h.shape[1]
    a = (torch.einsum("tbd,gd->tbg", x, w_ih) + b_ih).unflatten(-1, (3, size))
    states = [a[:0, :, 0]]
    for t in range(len(x)):
        c = (h @ w_hh.T + b_hh).unflatten(-1, (3, size))
        gates = 0.5 * (1 + torch.tanh(0.5 * (a[t] + c)))
        n = torch.tanh(a[t, :, 2] + gates[:, 0] * c[:, 2])
        h = n + gates[:, 1] * (h - n)
        states.append(h[None])
    return torch.cat(states), h
